//! What an exit, a batch and its settlement weigh on the chain, before anything is signed.
//!
//! Sizes of tree transactions are exact; those of what follows (fee children, the commitment,
//! the claim) are of the usual forms and named as constants, so that a user can be told the
//! price of an exit before it joins and be warned if its channel is not worth one.
//!
//! Source: BATCHES §8.2, §8.3 and §9.

use bitcoin::{Amount, FeeRate, Weight};

use super::path::Path;
use super::shape::{Shape, ShapeError, ShapeNode, UserSlot};

/// A child that pays for one level: the anchor and one P2WPKH coin in, one P2TR output, in vB.
///
/// Measured on a real mempool.
pub const FEE_CHILD_VB: u64 = 151;

/// A zero-fee commitment with both balances and no HTLC, in vB.
pub const COMMITMENT_VB: u64 = 193;

/// The claim of a delayed balance to a wallet output, in vB.
pub const CLAIM_VB: u64 = 110;

/// Opening and closing one ordinary channel, in vB, to compare with.
pub const ORDINARY_CHANNEL_VB: u64 = 300;

/// Weight of a transaction without inputs and outputs, with the segwit marker: 42.
const EMPTY_WEIGHT: u64 = 4 * (4 + 4 + 1 + 1) + 2;
/// Weight of an input spent by key path: outpoint, empty script, sequence, witness.
const KEY_PATH_INPUT_WEIGHT: u64 = 4 * (36 + 1 + 4) + 66;
/// Weight of an input spent by the expiry leaf: a signature, the script with E in four bytes,
/// and a control block of one key.
const EXPIRY_INPUT_WEIGHT: u64 = 4 * (36 + 1 + 4) + 1 + 65 + (1 + 41) + (1 + 33);
/// Weight of a P2TR or P2WSH output.
const OUTPUT_WEIGHT: u64 = 4 * (8 + 1 + 34);
/// Weight of a P2WPKH output, the usual destination of change.
const CHANGE_WEIGHT: u64 = 4 * (8 + 1 + 22);
/// Weight of a pay-to-anchor output.
const ANCHOR_WEIGHT: u64 = 4 * (8 + 1 + 4);

/// Returns the size of a tree transaction with so many children, in vB, rounded up.
pub fn tree_transaction_vb(children: usize) -> u64 {
    let outputs = OUTPUT_WEIGHT * children as u64 + ANCHOR_WEIGHT;
    vb_ceil(EMPTY_WEIGHT + KEY_PATH_INPUT_WEIGHT + outputs)
}

/// Returns the size of a transaction with so many key-path inputs, one P2WPKH output and
/// `outputs` more of 43 vB, in vB, rounded up.
pub fn key_path_spend_vb(inputs: usize, outputs: usize) -> u64 {
    let inputs = KEY_PATH_INPUT_WEIGHT * inputs as u64;
    vb_ceil(EMPTY_WEIGHT + inputs + CHANGE_WEIGHT + OUTPUT_WEIGHT * outputs as u64)
}

/// Returns the size of a sweep of so many node outputs to one P2WPKH output, in vB, rounded up.
pub fn expiry_sweep_vb(inputs: usize) -> u64 {
    vb_ceil(EMPTY_WEIGHT + EXPIRY_INPUT_WEIGHT * inputs as u64 + CHANGE_WEIGHT)
}

fn vb_ceil(weight: u64) -> u64 {
    Weight::from_wu(weight).to_vbytes_ceil()
}

/// What one user pays the chain to leave alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCost {
    /// Transactions of the path, one block each.
    pub levels: usize,
    /// Blocks until the commitment is confirmed, at best: one more than levels.
    pub blocks: usize,
    /// Tree transactions, in vB.
    pub path_vb: u64,
    /// Fee children of tree transactions and of the commitment, in vB.
    pub fee_children_vb: u64,
    /// The commitment and the claim of the balance, in vB.
    pub close_vb: u64,
}

impl ExitCost {
    /// Computes the cost of the user of `slot`.
    ///
    /// # Errors
    ///
    /// [`ShapeError::Slot`] if the tree has no such place.
    pub fn of(shape: &Shape, slot: UserSlot) -> Result<Self, ShapeError> {
        Ok(Self::of_nodes(&shape.path(slot)?))
    }

    /// Computes the highest cost of any user of the batch: that of the first, who is deepest.
    pub fn worst(shape: &Shape) -> Self {
        let path = shape.path(UserSlot(0)).expect("a shape has at least one user");
        Self::of_nodes(&path)
    }

    /// Computes the cost of a path, or `None` if its transactions do not fit together.
    pub fn of_path(path: &Path) -> Option<Self> {
        let (transactions, _) = path.transactions().ok()?;
        // The last output of each is its anchor.
        let children = transactions.iter().map(|level| level.transaction.output.len() - 1);
        Some(Self::of_children(&children.collect::<Vec<_>>()))
    }

    fn of_nodes(path: &[ShapeNode]) -> Self {
        Self::of_children(&path.iter().map(|node| node.children.len()).collect::<Vec<_>>())
    }

    fn of_children(children: &[usize]) -> Self {
        let levels = children.len();
        Self {
            levels,
            blocks: levels + 1,
            path_vb: children.iter().map(|children| tree_transaction_vb(*children)).sum(),
            fee_children_vb: FEE_CHILD_VB * (levels as u64 + 1),
            close_vb: COMMITMENT_VB + CLAIM_VB,
        }
    }

    /// Returns everything together, in vB.
    pub fn total_vb(&self) -> u64 {
        self.path_vb + self.fee_children_vb + self.close_vb
    }

    /// Returns the fee at `feerate`, or `None` if it overflows.
    pub fn fee(&self, feerate: FeeRate) -> Option<Amount> {
        feerate.fee_vb(self.total_vb())
    }

    /// Tells whether a balance is worth more than the exit it takes to enforce it.
    ///
    /// Below that, only the hub's reputation protects it (BATCHES §11).
    pub fn is_worth(&self, balance: Amount, feerate: FeeRate) -> bool {
        self.fee(feerate).is_some_and(|fee| fee < balance)
    }
}

/// What a whole batch costs the chain, against ordinary channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchCost {
    /// Number of users.
    pub users: usize,
    /// The batch transaction alone: one key-path input, root, change, in vB.
    pub open_vb: u64,
    /// Its early end, by key path to one output, in vB.
    pub reclaim_vb: u64,
    /// Its end at E, by the expiry leaf to one output, in vB.
    pub sweep_vb: u64,
    /// One period in the steady state: the old root in, the new root and change out, in vB.
    pub period_vb: u64,
    /// All tree transactions, if everybody left, without fee children, in vB.
    pub tree_vb: u64,
    /// As many ordinary channels, opened and closed, in vB.
    pub ordinary_vb: u64,
}

impl BatchCost {
    /// Computes the cost of a batch of this shape.
    pub fn of(shape: &Shape) -> Self {
        let nodes = shape.nodes();
        Self {
            users: shape.users(),
            open_vb: key_path_spend_vb(1, 1),
            reclaim_vb: key_path_spend_vb(1, 0),
            sweep_vb: expiry_sweep_vb(1),
            period_vb: key_path_spend_vb(1, 1),
            tree_vb: nodes.iter().map(|node| tree_transaction_vb(node.children.len())).sum(),
            ordinary_vb: ORDINARY_CHANNEL_VB * shape.users() as u64,
        }
    }

    /// Returns chain bytes for each channel from open to early reclaim, in thousandths of a vB,
    /// rounded up.
    pub fn open_and_reclaim_millivb_per_user(&self) -> u64 {
        ((self.open_vb + self.reclaim_vb) * 1_000).div_ceil(self.users as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Radix;

    fn shape(users: usize, radix: u8) -> Shape {
        Shape::new(users, Radix::new(radix).unwrap()).unwrap()
    }

    #[test]
    fn exits_cost_what_was_measured() {
        // Measured with all levels of the proof of concept, which promotes leftovers instead of
        // spreading them; sizes agree where all places of the last level are full.
        for (users, radix, levels, vb) in
            [(64, 4, 3, 1_666), (256, 4, 4, 2_070), (1_024, 4, 5, 2_474), (8, 8, 1, 1_030)]
        {
            let cost = ExitCost::worst(&shape(users, radix));
            assert_eq!((cost.levels, cost.total_vb()), (levels, vb), "{users} radix {radix}");
            assert_eq!(cost.blocks, levels + 1);
        }
    }

    #[test]
    fn no_user_pays_more_than_the_worst() {
        for users in [1, 5, 17, 100, 300] {
            let shape = shape(users, 4);
            let worst = ExitCost::worst(&shape).total_vb();
            for slot in 0..users as u16 {
                assert!(ExitCost::of(&shape, UserSlot(slot)).unwrap().total_vb() <= worst);
            }
        }
    }

    #[test]
    fn a_batch_costs_what_was_measured() {
        let cost = BatchCost::of(&shape(256, 4));
        assert_eq!((cost.reclaim_vb, cost.sweep_vb, cost.period_vb), (99, 118, 142));
        assert!(cost.open_and_reclaim_millivb_per_user() < 1_000);
        assert_eq!(cost.ordinary_vb, 76_800);
    }

    #[test]
    fn a_channel_below_its_exit_is_said_to_be_so() {
        let cost = ExitCost::worst(&shape(256, 4));
        let feerate = FeeRate::from_sat_per_vb(10).unwrap();
        assert_eq!(cost.fee(feerate), Some(Amount::from_sat(20_700)));
        assert!(cost.is_worth(Amount::from_sat(20_701), feerate));
        assert!(!cost.is_worth(Amount::from_sat(20_700), feerate));
        assert!(!cost.is_worth(Amount::MAX_MONEY, FeeRate::from_sat_per_kwu(u64::MAX)));
    }
}
