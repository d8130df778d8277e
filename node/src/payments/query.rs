//! Lists of payments, newest first, a page at a time.

use super::record::{Direction, PaymentRecord, PaymentState};
use super::service::{Payments, read_record};
use crate::journal::IdempotencyKey;
use crate::lightning::types::{PaymentHash, PaymentId};
use crate::store::{StoreError, Table};

/// Index entries read per step.
const STEP: usize = 500;

/// Which payments to list; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFilter {
    /// Only this way.
    pub direction: Option<Direction>,
    /// Only in one of these states; empty for any.
    pub states: Vec<PaymentState>,
    /// Only created at or after this time, ms since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Only created before this time, ms since the Unix epoch.
    pub before_ms: Option<u64>,
    /// Only with this hash.
    pub hash: Option<PaymentHash>,
}

impl PaymentFilter {
    fn takes(&self, record: &PaymentRecord) -> bool {
        self.direction.is_none_or(|direction| direction == record.direction)
            && self.hash.is_none_or(|hash| record.hash == Some(hash))
            && (self.states.is_empty() || self.states.contains(&record.state))
    }
}

/// One page of payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentPage {
    /// The payments, newest first.
    pub payments: Vec<PaymentRecord>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Vec<u8>>,
}

impl Payments {
    /// The payment that a call under a key of the node's own started, as [`Payments::recorded`].
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn recorded_under(
        &self,
        key: &IdempotencyKey,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let answer = self.idempotency.answer(key)?;
        let id = answer.and_then(|id| PaymentId::from_slice(&id).ok());
        Ok(id.map(|id| self.recorded(id)).transpose()?.flatten())
    }

    /// Lists at most `limit` payments that `filter` takes, from `page` on.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub async fn list(
        &self,
        filter: &PaymentFilter,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        let found = self.list_now(filter, page, limit)?;
        self.committer.durable(self.committer.now()).await?;
        Ok(found)
    }

    fn list_now(
        &self,
        filter: &PaymentFilter,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<PaymentPage, StoreError> {
        let (start, end) = Table::PaymentIndex.range();
        let from = filter.from_ms.map_or(start, |ms| Table::PaymentIndex.key(ms.to_be_bytes()));
        let mut to = match (page, filter.before_ms) {
            (Some(token), _) => Table::PaymentIndex.key(token),
            (None, Some(ms)) => Table::PaymentIndex.key(ms.to_be_bytes()),
            (None, None) => end,
        };
        let mut payments = Vec::new();
        loop {
            if from >= to {
                return Ok(PaymentPage { payments, next: None });
            }
            let pairs = self.committer.scan_back(&from, &to, STEP)?;
            for (key, _) in &pairs {
                let rest = Table::PaymentIndex.rest(key).unwrap_or_default();
                let id = rest.get(8..).and_then(|id| PaymentId::from_slice(id).ok());
                let record = id.map(|id| read_record(&self.committer, id)).transpose()?.flatten();
                if let Some(record) = record.filter(|record| filter.takes(record)) {
                    payments.push(record);
                    if payments.len() == limit {
                        return Ok(PaymentPage { payments, next: Some(rest.to_vec()) });
                    }
                }
            }
            match pairs.last() {
                Some((last, _)) if pairs.len() == STEP => to = last.clone(),
                _ => {
                    return Ok(PaymentPage { payments, next: None });
                }
            }
        }
    }

    /// Reads one payment as last recorded, durable or not.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn recorded(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        read_record(&self.committer, id)
    }

    /// Reads one payment.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or fails before what was read is durable.
    pub async fn get(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        let record = read_record(&self.committer, id)?;
        self.committer.durable(self.committer.now()).await?;
        Ok(record)
    }
}
