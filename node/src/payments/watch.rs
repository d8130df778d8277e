//! Following one payment: durable records only.

use tokio::sync::watch;

use super::record::PaymentRecord;
use crate::journal::Journal;
use crate::store::{StoreError, Ticket};

/// A payment's newest record and the ticket after which it may be shown.
pub(super) type Latest = (PaymentRecord, Ticket);

/// Follows one payment; yields durable records only.
pub struct PaymentWatch {
    pub(super) latest: watch::Receiver<Latest>,
    pub(super) journal: Journal,
}

impl PaymentWatch {
    /// The record now, once it is durable.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn current(&mut self) -> Result<PaymentRecord, StoreError> {
        let (record, ticket) = self.latest.borrow_and_update().clone();
        self.journal.durable(ticket).await?;
        Ok(record)
    }

    /// The next record that differs; `None` after a final one.
    ///
    /// # Errors
    ///
    /// If the store fails first.
    pub async fn next(&mut self) -> Result<Option<PaymentRecord>, StoreError> {
        if self.latest.borrow().0.state.is_final() || self.latest.changed().await.is_err() {
            return Ok(None);
        }
        self.current().await.map(Some)
    }

    /// The final record.
    ///
    /// # Errors
    ///
    /// If the store fails first. The payment's outcome is then known after a restart.
    pub async fn outcome(&mut self) -> Result<PaymentRecord, StoreError> {
        let (record, ticket) = match self.latest.wait_for(|(r, _)| r.state.is_final()).await {
            Ok(latest) => latest.clone(),
            Err(_) => return Err(StoreError::Failed("node is stopping".into())),
        };
        self.journal.durable(ticket).await?;
        Ok(record)
    }
}
