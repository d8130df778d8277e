//! Random histories against a model that knows nothing of coins, only of sums.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Deposit(u64),
    Fund(u64),
    Broadcast(usize),
    Release(usize),
    Mine,
    Reorg,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (20_000u64..200_000).prop_map(Step::Deposit),
        4 => (1_000u64..120_000).prop_map(Step::Fund),
        3 => any::<usize>().prop_map(Step::Broadcast),
        2 => any::<usize>().prop_map(Step::Release),
        2 => Just(Step::Mine),
        1 => Just(Step::Reorg),
        1 => Just(Step::Restart),
    ]
}

/// What the wallet should hold, as sums.
#[derive(Default)]
struct Model {
    deposited: Amount,
    spent: Amount,
    /// Built, not broadcast.
    built: Vec<Built>,
    /// Broadcast, not mined.
    waiting: Vec<Transaction>,
    /// What the newest block had, to be mined again after a reorg.
    newest: Vec<Transaction>,
}

impl Model {
    fn check(&self, world: &World) {
        let balance = world.wallet.balance();
        let total = balance.confirmed + balance.unconfirmed + balance.immature;
        assert_eq!(total + self.spent, self.deposited);
        let inputs: Vec<OutPoint> = self
            .built
            .iter()
            .flat_map(|built| built.transaction.input.iter().map(|i| i.previous_output))
            .collect();
        assert_eq!(inputs.iter().collect::<BTreeSet<_>>().len(), inputs.len());
        let held: Amount = world
            .wallet
            .list_unspent()
            .iter()
            .filter(|coin| inputs.contains(&coin.outpoint))
            .map(|coin| coin.txout.value)
            .sum();
        assert_eq!(balance.held, held);
    }

    fn run(&mut self, world: &mut World, step: Step) {
        match step {
            Step::Deposit(amount) => {
                let payment = world.payment(&[amount]);
                self.deposited += sat(amount);
                self.mine(world, vec![payment]);
            }
            Step::Fund(amount) => {
                if let Ok(built) = world.wallet.build_funding(&funding(amount, 0)) {
                    world.assert_valid(&built);
                    self.built.push(built);
                }
            }
            Step::Broadcast(pick) if !self.built.is_empty() => {
                let built = self.built.swap_remove(pick % self.built.len());
                let _ = world.wallet.apply_unconfirmed(&built.transaction);
                let paid = built.transaction.output.iter();
                let paid: Amount = paid
                    .filter(|output| output.script_pubkey == foreign())
                    .map(|output| output.value)
                    .sum();
                self.spent += paid + built.fee;
                self.waiting.push(built.transaction);
            }
            Step::Release(pick) if !self.built.is_empty() => {
                let built = self.built.swap_remove(pick % self.built.len());
                let owner = Owner::Transaction(built.txid());
                let _ = world.wallet.release(owner).unwrap();
            }
            Step::Mine => {
                let waiting = std::mem::take(&mut self.waiting);
                self.mine(world, waiting);
            }
            Step::Reorg if world.blocks.len() > 1 => {
                // The newest block is replaced by two with the same transactions.
                world.blocks.pop();
                let fork = BlockRef {
                    height: world.blocks.len() as u32 - 1,
                    hash: world.blocks.last().unwrap().block_hash(),
                };
                world.wallet.blocks_disconnected(fork).unwrap();
                world.mine(vec![]);
                let newest = std::mem::take(&mut self.newest);
                self.mine(world, newest);
            }
            Step::Restart => {
                world.committer.cycle().unwrap();
                world.restart();
            }
            Step::Broadcast(_) | Step::Release(_) | Step::Reorg => {}
        }
    }

    fn mine(&mut self, world: &mut World, transactions: Vec<Transaction>) {
        world.mine(transactions.clone());
        self.newest = transactions;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sums_hold_and_no_coin_is_given_twice(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        let mut model = Model::default();
        for step in steps {
            model.run(&mut world, step);
            model.check(&world);
        }
    }
}
