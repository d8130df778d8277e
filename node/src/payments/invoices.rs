//! Invoices and offers of ours.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{PaymentKind, PaymentRecord, PaymentState};
use super::request::HoldError;
use super::service::{Payments, read_record};
use super::validate::AMOUNT_MSAT_MAX;
use crate::journal::{
    DomainEvent, Fingerprint, IdempotencyError, IdempotencyKey, InvoiceEvent, PaymentEvent, millis,
};
use crate::lightning::types::PaymentHash;
use crate::lightning::{Decoded, InvoiceDescription, InvoiceError, InvoiceRequest};
use crate::store::{Batch, Pair, StoreError, Table, Ticket};

/// Invoices read per step of a list.
const STEP: usize = 500;
/// The most that an invoice can ask for, msat: it counts tenths of them (BOLT 11).
const INVOICE_MSAT_MAX: u64 = u64::MAX / 10;
/// Longest validity: a year.
const EXPIRY_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// What an invoice is made from, as a caller says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateInvoice {
    /// What to ask for, msat; `None` lets the payer choose.
    pub amount_msat: Option<u64>,
    /// What it is for.
    pub description: InvoiceDescription,
    /// How long it is valid.
    pub expiry: Duration,
    /// Blocks between the last HTLC's arrival and its expiry; `None` for the default.
    pub min_final_cltv_expiry_delta: Option<u16>,
    /// A hash whose preimage only the caller knows: a hold invoice.
    pub hash: Option<PaymentHash>,
}

/// Why an invoice could not be made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum CreateInvoiceError {
    #[error("amount must be at least 1 msat; leave it out to let the payer choose")]
    ZeroAmount,
    #[error("amount {amount_msat} msat is more than can be asked for; check its unit")]
    AmountTooHigh { amount_msat: u64 },
    #[error("an offer with an amount needs a description")]
    DescriptionMissing,
    #[error("expiry {seconds} s is out of range, 1 s to a year")]
    ExpiryOutOfRange { seconds: u64 },
    #[error("hash {hash} was used for an invoice before; a hash is for one invoice only")]
    HashUsed { hash: PaymentHash },
    #[error(transparent)]
    Invoice(#[from] InvoiceError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An invoice as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceRecord {
    /// Its hash.
    pub hash: PaymentHash,
    /// Its text.
    pub invoice: String,
    /// What it asks for, msat.
    pub amount_msat: Option<u64>,
    /// What it is for.
    pub description: String,
    /// When it was made, ms since the Unix epoch.
    pub created_ms: u64,
    /// When it expires, ms since the Unix epoch.
    pub expires_ms: u64,
    /// Whether only the operator knows its preimage.
    pub hold: bool,
    /// Whether it is not taken any more.
    pub cancelled: bool,
    /// Since when it is not taken any more, ms since the Unix epoch.
    #[serde(default)]
    pub cancelled_ms: Option<u64>,
    /// SHA-256 of what it is for, if that is told elsewhere.
    #[serde(default)]
    pub description_hash: Option<[u8; 32]>,
    /// Blocks the last HTLC must leave to claim it.
    #[serde(default)]
    pub min_final_cltv_expiry_delta: u32,
}

/// An invoice, the payment under its hash, and where it stands by both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceView {
    /// The invoice.
    pub record: InvoiceRecord,
    /// What was paid under its hash.
    pub payment: Option<PaymentRecord>,
    /// Where it stands.
    pub state: InvoiceState,
}

/// Which invoices to list; empty means all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InvoiceFilter {
    /// Only in one of these states; empty for any.
    pub states: Vec<InvoiceState>,
    /// Only made at or after this time, ms since the Unix epoch.
    pub from_ms: Option<u64>,
    /// Only made before this time, ms since the Unix epoch.
    pub before_ms: Option<u64>,
}

/// What an offer is made from, as a caller says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOffer {
    /// What to ask for, msat; `None` lets the payer choose.
    pub amount_msat: Option<u64>,
    /// What it is for; required where there is an amount.
    pub description: Option<String>,
    /// How long it is valid; `None` for ever.
    pub expiry: Option<Duration>,
}

/// An offer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferRecord {
    /// What it says.
    pub decoded: Decoded,
    /// When it was made, ms since the Unix epoch.
    pub created_ms: u64,
}

/// What a repeated call is answered from.
#[derive(Serialize, Deserialize)]
struct FirstOffer {
    offer: String,
    created_ms: u64,
}

/// Where an invoice stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvoiceState {
    /// It can be paid.
    Open,
    /// A payment waits for the operator's word, or is being claimed.
    Accepted,
    /// It was paid.
    Settled,
    /// It is not taken any more.
    Cancelled,
    /// Its time is over.
    Expired,
}

impl Payments {
    /// Makes an invoice and returns once it is durable. A repetition under the same key returns
    /// the first invoice.
    ///
    /// # Errors
    ///
    /// See [`CreateInvoiceError`].
    pub async fn create_invoice(
        &self,
        create: CreateInvoice,
        key: Option<&IdempotencyKey>,
    ) -> Result<InvoiceRecord, CreateInvoiceError> {
        let (record, ticket) = self.create_invoice_now(create, key)?;
        self.journal.durable(ticket).await?;
        Ok(record)
    }

    fn create_invoice_now(
        &self,
        create: CreateInvoice,
        key: Option<&IdempotencyKey>,
    ) -> Result<(InvoiceRecord, Ticket), CreateInvoiceError> {
        let fingerprint = Fingerprint::of(&create);
        let _one_at_a_time = self.making.lock();
        let now = self.journal.now();
        if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
            let corrupt = || StoreError::Corrupt("idempotency record without its invoice".into());
            let hash = PaymentHash::from_slice(&answer).map_err(|_| corrupt())?;
            let record = self.invoice(hash)?.ok_or_else(corrupt)?;
            return Ok((record, self.committer.now()));
        }
        if create.amount_msat == Some(0) {
            return Err(CreateInvoiceError::ZeroAmount);
        }
        if let Some(amount_msat) = create.amount_msat.filter(|msat| *msat > INVOICE_MSAT_MAX) {
            return Err(CreateInvoiceError::AmountTooHigh { amount_msat });
        }
        if create.expiry.as_secs() == 0 || create.expiry > EXPIRY_MAX {
            let seconds = create.expiry.as_secs();
            return Err(CreateInvoiceError::ExpiryOutOfRange { seconds });
        }
        if let Some(hash) = create.hash
            && self.invoice(hash)?.is_some()
        {
            return Err(CreateInvoiceError::HashUsed { hash });
        }
        let hold = create.hash.is_some();
        let expiry = create.expiry;
        let decoded = self.lightning.create_invoice(InvoiceRequest {
            amount_msat: create.amount_msat,
            description: create.description,
            expiry,
            min_final_cltv_expiry_delta: create.min_final_cltv_expiry_delta,
            hash: create.hash,
        })?;
        let record = InvoiceRecord {
            hash: decoded.hash.expect("an invoice has a hash"),
            invoice: decoded.text,
            amount_msat: create.amount_msat,
            description: decoded.description.unwrap_or_default(),
            description_hash: decoded.description_hash,
            min_final_cltv_expiry_delta: decoded.min_final_cltv_expiry_delta.unwrap_or(0),
            created_ms: millis(now),
            expires_ms: millis(decoded.expires.unwrap_or(now + expiry)),
            hold,
            cancelled: false,
            cancelled_ms: None,
        };
        let event = InvoiceEvent::Created {
            hash: record.hash,
            invoice: record.invoice.clone(),
            amount_msat: record.amount_msat,
            description: record.description.clone(),
            expires_ms: record.expires_ms,
            hold,
        };
        let mut batch = Batch::default();
        self.idempotency.record(&mut batch, key, fingerprint, record.hash.as_ref(), now);
        let ticket = self.write_invoice(&record, event, batch);
        Ok((record, ticket))
    }

    /// Makes an offer, valid for `expiry` or for ever, and returns once it is recorded. A
    /// repetition under the same key returns the first offer.
    ///
    /// # Errors
    ///
    /// See [`CreateInvoiceError`].
    pub async fn create_offer(
        &self,
        create: CreateOffer,
        key: Option<&IdempotencyKey>,
    ) -> Result<OfferRecord, CreateInvoiceError> {
        let (offer, ticket) = self.create_offer_now(create, key)?;
        self.journal.durable(ticket).await?;
        Ok(offer)
    }

    fn create_offer_now(
        &self,
        create: CreateOffer,
        key: Option<&IdempotencyKey>,
    ) -> Result<(OfferRecord, Ticket), CreateInvoiceError> {
        let fingerprint = Fingerprint::of(&create);
        let _one_at_a_time = self.making.lock();
        let now = self.journal.now();
        if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
            let corrupt = |error: &dyn std::fmt::Display| {
                StoreError::Corrupt(format!("idempotency record of an offer: {error}"))
            };
            let first: FirstOffer =
                ciborium::from_reader(&answer[..]).map_err(|error| corrupt(&error))?;
            let decoded = self.lightning.decode(&first.offer).map_err(|error| corrupt(&error))?;
            let offer = OfferRecord { decoded, created_ms: first.created_ms };
            return Ok((offer, self.committer.now()));
        }
        let CreateOffer { amount_msat, description, expiry } = create;
        if amount_msat == Some(0) {
            return Err(CreateInvoiceError::ZeroAmount);
        }
        if let Some(amount_msat) = amount_msat.filter(|msat| *msat > AMOUNT_MSAT_MAX) {
            return Err(CreateInvoiceError::AmountTooHigh { amount_msat });
        }
        if amount_msat.is_some() && description.as_ref().is_none_or(String::is_empty) {
            return Err(CreateInvoiceError::DescriptionMissing);
        }
        let expires = match expiry {
            Some(expiry) => Some(
                now.checked_add(expiry)
                    .filter(|_| !expiry.is_zero())
                    // As the offer says it.
                    .map(|end| Duration::from_secs(end.as_secs()))
                    .ok_or(CreateInvoiceError::ExpiryOutOfRange { seconds: expiry.as_secs() })?,
            ),
            None => None,
        };
        let decoded = self.lightning.create_offer(amount_msat, description.clone(), expires)?;
        let first = FirstOffer { offer: decoded.text.clone(), created_ms: millis(now) };
        let mut answer = Vec::new();
        ciborium::into_writer(&first, &mut answer).expect("writing to memory cannot fail");
        let mut batch = Batch::default();
        self.idempotency.record(&mut batch, key, fingerprint, &answer, now);
        let event = InvoiceEvent::OfferCreated { offer: first.offer, amount_msat, description };
        let ticket = self.journal.append(&[DomainEvent::Invoice(event)], batch);
        Ok((OfferRecord { decoded, created_ms: first.created_ms }, ticket))
    }

    fn write_invoice(
        &self,
        record: &InvoiceRecord,
        event: InvoiceEvent,
        mut batch: Batch,
    ) -> Ticket {
        let mut value = Vec::with_capacity(512);
        ciborium::into_writer(record, &mut value).expect("writing to memory cannot fail");
        batch.put(Table::Invoice.key(record.hash), value);
        let mut index = record.created_ms.to_be_bytes().to_vec();
        index.extend_from_slice(record.hash.as_ref());
        batch.put(Table::InvoiceIndex.key(index), Vec::new());
        self.journal.append(&[DomainEvent::Invoice(event)], batch)
    }

    /// Reads an invoice.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn invoice(&self, hash: PaymentHash) -> Result<Option<InvoiceRecord>, StoreError> {
        self.committer
            .get(&Table::Invoice.key(hash))?
            .map(|bytes| {
                ciborium::from_reader(&bytes[..])
                    .map_err(|error| StoreError::Corrupt(format!("invoice {hash}: {error}")))
            })
            .transpose()
    }

    /// Reads an invoice with the payment under its hash, once both are durable.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or fails before what was read is durable.
    pub async fn look_up_invoice(
        &self,
        hash: PaymentHash,
    ) -> Result<Option<InvoiceView>, StoreError> {
        let view = self.invoice(hash)?.map(|record| self.view_invoice(record)).transpose()?;
        self.committer.durable(self.committer.now()).await?;
        Ok(view)
    }

    fn view_invoice(&self, record: InvoiceRecord) -> Result<InvoiceView, StoreError> {
        let payment = read_record(&self.committer, record.hash.inbound_id())?;
        let state = match payment.as_ref().map(|payment| payment.state) {
            Some(PaymentState::Succeeded) => InvoiceState::Settled,
            Some(PaymentState::Held | PaymentState::Claiming) => InvoiceState::Accepted,
            _ if record.cancelled => InvoiceState::Cancelled,
            _ if record.expires_ms <= millis(self.journal.now()) => InvoiceState::Expired,
            _ => InvoiceState::Open,
        };
        Ok(InvoiceView { record, payment, state })
    }

    /// Invoices that `filter` takes, newest first, at most `limit`, from `page` on, and where
    /// the next page begins.
    ///
    /// # Errors
    ///
    /// If the store cannot be read, or fails before what was read is durable.
    pub async fn list_invoice_views(
        &self,
        filter: &InvoiceFilter,
        page: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<InvoiceView>, Option<Vec<u8>>), StoreError> {
        let mut views = Vec::new();
        let time = |ms: Option<u64>| ms.map(|ms| ms.to_be_bytes().to_vec());
        let mut before = page.map(<[u8]>::to_vec).or_else(|| time(filter.before_ms));
        'pages: loop {
            let (invoices, next) = self.list_invoices(before.as_deref(), STEP)?;
            for record in invoices {
                if filter.from_ms.is_some_and(|from| record.created_ms < from) {
                    before = None;
                    break 'pages;
                }
                let at = [&record.created_ms.to_be_bytes()[..], record.hash.as_ref()].concat();
                let view = self.view_invoice(record)?;
                if filter.states.is_empty() || filter.states.contains(&view.state) {
                    views.push(view);
                    if views.len() == limit {
                        before = Some(at);
                        break 'pages;
                    }
                }
            }
            before = next;
            if before.is_none() {
                break;
            }
        }
        self.committer.durable(self.committer.now()).await?;
        Ok((views, before))
    }

    /// Invoices by creation time, newest first, at most `limit`, older than `before`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn list_invoices(
        &self,
        before: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<InvoiceRecord>, Option<Vec<u8>>), StoreError> {
        let (from, end) = Table::InvoiceIndex.range();
        let to = before.map_or(end, |token| Table::InvoiceIndex.key(token));
        let pairs: Vec<Pair> = self.committer.scan_back(&from, &to, limit)?;
        let next = (pairs.len() == limit)
            .then(|| pairs.last().and_then(|(key, _)| Table::InvoiceIndex.rest(key)))
            .flatten()
            .map(<[u8]>::to_vec);
        let mut invoices = Vec::with_capacity(pairs.len());
        for (key, _) in &pairs {
            let rest = Table::InvoiceIndex.rest(key).unwrap_or_default();
            let hash = rest.get(8..).and_then(|hash| PaymentHash::from_slice(hash).ok());
            if let Some(invoice) = hash.map(|hash| self.invoice(hash)).transpose()?.flatten() {
                invoices.push(invoice);
            }
        }
        Ok((invoices, next))
    }

    /// Stops taking an invoice; a payment held under it goes back.
    ///
    /// # Errors
    ///
    /// [`HoldError`] if there is none, or it was paid.
    pub async fn cancel_invoice(
        &self,
        hash: PaymentHash,
        beside: Batch,
    ) -> Result<InvoiceRecord, HoldError> {
        self.invoice(hash)?.ok_or(HoldError::Unknown(hash))?;
        match read_record(&self.committer, hash.inbound_id())?.map(|payment| payment.state) {
            Some(state @ (PaymentState::Succeeded | PaymentState::Claiming)) => {
                return Err(super::Rejection::WrongState { state }.into());
            }
            Some(PaymentState::Held) => {
                self.give_back(hash).await?;
            }
            _ => {}
        }
        let (invoice, ticket) = self.cancelled_now(hash, beside)?;
        self.journal.durable(ticket).await?;
        Ok(invoice)
    }

    fn cancelled_now(
        &self,
        hash: PaymentHash,
        beside: Batch,
    ) -> Result<(InvoiceRecord, Ticket), HoldError> {
        let _one_at_a_time = self.making.lock();
        let mut invoice = self.invoice(hash)?.ok_or(HoldError::Unknown(hash))?;
        if invoice.cancelled {
            let ticket = self.committer.enqueue(beside);
            return Ok((invoice, ticket));
        }
        invoice.cancelled = true;
        invoice.cancelled_ms = Some(millis(self.journal.now()));
        let event = InvoiceEvent::Cancelled { hash };
        let ticket = self.write_invoice(&invoice, event, beside);
        Ok((invoice, ticket))
    }
}
/// What `event` is for the invoice that was paid.
pub(super) fn invoice_event(event: &PaymentEvent, record: &PaymentRecord) -> Option<DomainEvent> {
    let event = match *event {
        _ if record.kind != PaymentKind::Bolt11 => return None,
        PaymentEvent::Held { hash, amount_msat, .. } => InvoiceEvent::Held { hash, amount_msat },
        PaymentEvent::Received { hash, amount_msat, .. } => {
            InvoiceEvent::Settled { hash, amount_msat }
        }
        _ => return None,
    };
    Some(DomainEvent::Invoice(event))
}
