//! Random histories: no satoshi appears, no block fails, and replay gives the same chain.

use bitcoin::Amount;
use proptest::prelude::*;

use super::bench::*;
use crate::chain::embedded::{EmbeddedChain, EmbeddedConfig};

#[derive(Debug, Clone)]
enum Act {
    /// Spends coin `which` into two, with this version and fee, wherever that is allowed.
    Split {
        which: usize,
        version: i32,
        fee: u64,
    },
    Mine(u32),
    Reorg {
        depth: u32,
        longer: u32,
    },
    Invalidate(u32),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (any::<usize>(), 2..=3i32, 0..4_000u64)
            .prop_map(|(which, version, fee)| Act::Split { which, version, fee }),
        3 => (1..4u32).prop_map(Act::Mine),
        1 => (1..6u32, 1..3u32).prop_map(|(depth, longer)| Act::Reorg { depth, longer }),
        1 => (1..3u32).prop_map(Act::Invalidate),
    ]
}

fn minted(height: u32) -> Amount {
    (1..=height).map(crate::chain::embedded::rules::subsidy).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn histories_keep_every_satoshi(acts in prop::collection::vec(act(), 1..60)) {
        let chain = chain();
        let mut pool = coins(&chain, 1_000_000, 0..4);
        let mut forgone = false;
        for act in acts {
            match act {
                Act::Split { which, version, fee } => {
                    let coin = pool[which % pool.len()].clone();
                    let half = coin.value.saturating_sub(fee) / 2;
                    let tx = spend(version, &[&coin], vec![pay(1, half), pay(2, half)]);
                    if chain.accept(std::slice::from_ref(&tx)).is_ok() {
                        pool.push(output_coin(&tx, 0, 1));
                        pool.push(output_coin(&tx, 1, 2));
                    }
                }
                Act::Mine(n) => drop(chain.mine(n, &sink())),
                Act::Reorg { depth, longer } => {
                    forgone = true;
                    let _ = chain.reorg(depth, depth + longer);
                }
                Act::Invalidate(depth) => drop(chain.invalidate(depth)),
            }
            let all = minted(chain.best().height);
            prop_assert!(chain.supply() <= all);
            // Coinbases of `mine` take all fees; only a branch's may forgo some.
            prop_assert!(forgone || chain.supply() == all);
        }
        chain.mine(2, &sink());
        let copy = EmbeddedChain::restore(
            EmbeddedConfig::default(),
            ManualClock::at(START),
            chain.export(),
        ).unwrap();
        prop_assert_eq!(copy.best(), chain.best());
        prop_assert_eq!(copy.supply(), chain.supply());
    }
}
