//! What a service is shown of a token: what may be spent, and to whom.

use std::fmt;
use std::sync::Arc;

use super::account::AccountId;
use super::ledger::{Held, Ledger, Subject};
use crate::lightning::types::NodeId;
use crate::store::Batch;

/// Why a token does not pay for something. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpendingError {
    /// One call may not cost so much.
    #[error("this may cost {most_msat} msat, the token allows {limit_msat} msat for one call")]
    PerCall {
        /// Most that it may cost, fees included, msat.
        most_msat: u64,
        /// Most that one call may cost, msat.
        limit_msat: u64,
    },
    /// Not so much is left.
    #[error(
        "this may cost {most_msat} msat, the token has {left_msat} msat left of its budget of {budget_msat} msat"
    )]
    Budget {
        /// Most that it may cost, fees included, msat.
        most_msat: u64,
        /// What is neither spent nor reserved, msat.
        left_msat: u64,
        /// The whole budget, msat.
        budget_msat: u64,
    },
    /// The receiver is another, or cannot be told.
    #[error("the token does not pay {}", Shown(.payee))]
    Payee {
        /// The receiver; `None` if no node can be named, as with an address.
        payee: Option<NodeId>,
    },
}

struct Shown<'a>(&'a Option<NodeId>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(payee) => write!(f, "node {payee}"),
            None => f.write_str("a receiver that is no known node"),
        }
    }
}

/// The bounds of one token. A caller without bounds has none of these.
#[derive(Clone)]
pub struct Purse {
    pub(super) ledger: Arc<Ledger>,
    /// The budgets, each with its account.
    pub(super) budgets: Vec<(AccountId, u64)>,
    pub(super) per_call_msat: Option<u64>,
    /// A receiver must be in each of these.
    pub(super) payees: Vec<Vec<NodeId>>,
}

impl Purse {
    /// Whether the token may pay `payee` something that costs at most `most_msat`, budgets apart.
    ///
    /// # Errors
    ///
    /// [`SpendingError::PerCall`], [`SpendingError::Payee`].
    pub fn permits(&self, payee: Option<NodeId>, most_msat: u64) -> Result<(), SpendingError> {
        let is_named = |payees: &Vec<NodeId>| payee.is_some_and(|payee| payees.contains(&payee));
        if !self.payees.iter().all(is_named) {
            return Err(SpendingError::Payee { payee });
        }
        match self.per_call_msat {
            Some(limit_msat) if most_msat > limit_msat => {
                Err(SpendingError::PerCall { most_msat, limit_msat })
            }
            _ => Ok(()),
        }
    }

    /// Sets aside what `subject` may cost, in `batch`, the batch of its first record. The guard
    /// is held until that is enqueued.
    ///
    /// # Errors
    ///
    /// See [`SpendingError`]; `batch` is as it was.
    pub fn reserve(
        &self,
        subject: Subject,
        payee: Option<NodeId>,
        most_msat: u64,
        batch: &mut Batch,
    ) -> Result<Held<'_>, SpendingError> {
        self.permits(payee, most_msat)?;
        self.ledger.reserve(&self.budgets, Some(subject), most_msat, batch)
    }

    /// Sets aside what all of a payout may cost, as [`Purse::reserve`]: its lines, each with the
    /// receiver and the most it may cost, count as calls of their own.
    ///
    /// # Errors
    ///
    /// See [`SpendingError`]; `batch` is as it was.
    pub fn reserve_all(
        &self,
        subject: Subject,
        lines: impl IntoIterator<Item = (Option<NodeId>, u64)>,
        most_msat: u64,
        batch: &mut Batch,
    ) -> Result<Held<'_>, SpendingError> {
        for (payee, line_msat) in lines {
            self.permits(payee, line_msat)?;
        }
        self.ledger.reserve(&self.budgets, Some(subject), most_msat, batch)
    }

    /// Counts `cost_msat` as gone, in `batch`, as [`Purse::reserve`].
    ///
    /// # Errors
    ///
    /// See [`SpendingError`]; `batch` is as it was.
    pub fn spend(
        &self,
        payee: Option<NodeId>,
        cost_msat: u64,
        batch: &mut Batch,
    ) -> Result<Held<'_>, SpendingError> {
        self.permits(payee, cost_msat)?;
        self.ledger.reserve(&self.budgets, None, cost_msat, batch)
    }
}

impl fmt::Debug for Purse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purse")
            .field("budgets", &self.budgets)
            .field("per_call_msat", &self.per_call_msat)
            .field("payees", &self.payees)
            .finish_non_exhaustive()
    }
}
