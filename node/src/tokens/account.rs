//! The arithmetic of a budget: what is spent, what is reserved, and what is left.

use serde::{Deserialize, Serialize};

use super::token::LinkId;

/// Names an account: the link that set its budget.
pub type AccountId = LinkId;

/// What was taken from a budget, msat. The budget itself stands in the token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Gone for good.
    pub spent_msat: u64,
    /// Set aside for payments whose outcome is not known.
    pub reserved_msat: u64,
}

impl Account {
    /// What is left of `budget_msat`.
    pub fn left_msat(&self, budget_msat: u64) -> u64 {
        budget_msat.saturating_sub(self.spent_msat.saturating_add(self.reserved_msat))
    }

    /// The account after `msat` were set aside; `None` if the budget has less left.
    #[must_use]
    pub fn reserved(self, msat: u64, budget_msat: u64) -> Option<Self> {
        if msat > self.left_msat(budget_msat) {
            return None;
        }
        let reserved_msat = self.reserved_msat.checked_add(msat)?;
        Some(Self { reserved_msat, ..self })
    }

    /// The account after the outcome: of `reserved_msat` set aside, `cost_msat` are gone.
    ///
    /// A cost above what was set aside, which no payer should report, is counted in full.
    #[must_use]
    pub fn settled(self, reserved_msat: u64, cost_msat: u64) -> Self {
        Self {
            spent_msat: self.spent_msat.saturating_add(cost_msat),
            reserved_msat: self.reserved_msat.saturating_sub(reserved_msat),
        }
    }
}
