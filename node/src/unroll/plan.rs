//! Where a path stands, and what to pay for its next transaction. Pure.

use bitcoin::FeeRate;

use crate::chain::BURIED_DEPTH;

/// What the chain says of one path at one best block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look<'a> {
    /// Height of the best block.
    pub best: u32,
    /// Whether the batch transaction is in a block, with the root output agreed on.
    pub root_confirmed: bool,
    /// The height of the block that has the leaf.
    pub leaf: Option<u32>,
    /// For each level, from the root, whether the output it spends is there and unspent.
    pub inputs: &'a [bool],
}

/// Where a path stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing can be published yet.
    AwaitsRoot,
    /// The transaction of this level is the next.
    Next { level: usize },
    /// The leaf is in a block.
    OnChain { confirmations: u32 },
    /// It will stay there.
    Buried,
    /// An output of the path was spent by something else.
    Lost,
}

impl Look<'_> {
    /// Says where the path stands.
    pub fn standing(&self) -> Standing {
        if let Some(height) = self.leaf {
            let confirmations = (self.best + 1).saturating_sub(height);
            return match confirmations {
                BURIED_DEPTH.. => Standing::Buried,
                _ => Standing::OnChain { confirmations },
            };
        }
        if !self.root_confirmed {
            return Standing::AwaitsRoot;
        }
        // Each level spends an output of the one before: at most one of them is unspent.
        match self.inputs.iter().rposition(|unspent| *unspent) {
            Some(level) => Standing::Next { level },
            None => Standing::Lost,
        }
    }
}

/// The last child made for a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paid {
    /// What it and its parent pay.
    pub feerate: FeeRate,
    /// The height of the best block when it was made; `None` in a process before this one.
    pub at: Option<u32>,
}

/// What may be paid.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rates {
    /// The estimate.
    pub wanted: FeeRate,
    /// The most.
    pub most: FeeRate,
}

/// What to do for a level that waits for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: its child is under way.
    Keep,
    /// Submit the child of an earlier process again.
    Repeat,
    /// Make a child that pays this.
    Pay(FeeRate),
}

/// Says what to do for a level, of which `paid` is the last child, at the block `best`.
///
/// A child is replaced at each block that does not confirm its parent, by one that pays a
/// quarter more or the estimate, whichever is more. That also outbids a stranger's cheap child,
/// of which nothing is known here.
pub(super) fn step(paid: Option<Paid>, best: u32, rates: Rates) -> Step {
    let Some(paid) = paid else {
        return Step::Pay(rates.wanted.min(rates.most));
    };
    match paid.at {
        None => Step::Repeat,
        // Also where a reorg took blocks away: time has not passed.
        Some(at) if best <= at => Step::Keep,
        Some(_) => {
            let raised = raised_by_a_quarter(paid.feerate).max(rates.wanted).min(rates.most);
            if raised > paid.feerate { Step::Pay(raised) } else { Step::Keep }
        }
    }
}

fn raised_by_a_quarter(feerate: FeeRate) -> FeeRate {
    let sat_per_kwu = feerate.to_sat_per_kwu();
    FeeRate::from_sat_per_kwu(sat_per_kwu.saturating_add(sat_per_kwu.div_ceil(4)))
}
