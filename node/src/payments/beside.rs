//! Payments begun for somebody: out of a purse, or with records of the caller's beside their own.

use super::request::{PayError, PayRequest};
use super::service::Payments;
use super::watch::PaymentWatch;
use crate::journal::IdempotencyKey;
use crate::lightning::types::{PaymentHash, PaymentId};
use crate::store::{Batch, StoreError};
use crate::tokens::Purse;

impl Payments {
    /// As [`Payments::pay`], out of `purse`: the amount and the most it may cost are set aside in
    /// the batch of the payment's first record, and what it did not cost is given back in the
    /// batch of its outcome.
    ///
    /// # Errors
    ///
    /// See [`PayError`].
    pub fn pay_from(
        &self,
        request: &PayRequest,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<PaymentWatch, PayError> {
        self.begin(request, key, purse, |_, _| {})
    }

    /// As [`Payments::pay`], once each call: the caller remembers which payment it began, by what
    /// `beside` adds to the batch of the payment's first record. `beside` is not asked if the
    /// payment is refused, and takes no lock that is held while payments are asked.
    ///
    /// # Errors
    ///
    /// See [`PayError`].
    pub(crate) fn pay_beside(
        &self,
        request: &PayRequest,
        beside: impl FnOnce(PaymentId, &mut Batch),
    ) -> Result<PaymentWatch, PayError> {
        self.begin(request, None, None, beside)
    }

    /// The payment that pays or paid an invoice of `hash`, unless it failed.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn payment_of(&self, hash: PaymentHash) -> Result<Option<PaymentId>, StoreError> {
        self.paid_before(&self.open.lock(), hash)
    }
}
