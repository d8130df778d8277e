//! Makes payment requests: one code that offers every way to pay, for wallets of every age.
//!
//! Each part is made under a key derived from the caller's, so that a call that is repeated after
//! a crash finds the parts that were made, and makes the rest.

use std::time::Duration;

use super::Requests;
use super::uri::{Uri, UriKey, UriWay};
use crate::environment::UnixTime;
use crate::journal::IdempotencyKey;
use crate::lightning::{InvoiceDescription, InvoiceError};
use crate::onchain::AddressError;
use crate::payments::{CreateInvoice, CreateInvoiceError, CreateOffer, InvoiceRecord, OfferRecord};

/// Below this nobody relays an output to the wallet's own kind of address.
const DUST_SAT: u64 = 330;

/// What a payment request is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateRequest {
    /// What is asked for, msat; `None` lets the payer choose.
    pub amount_msat: Option<u64>,
    /// What it is for.
    pub description: String,
    /// How long invoice and offer count. An address counts for ever.
    pub expiry: Duration,
    /// Whether it may be paid on chain; `None`: where the amount allows it.
    pub on_chain: Option<bool>,
    /// Whether it has an invoice; `None`: yes.
    pub bolt11: Option<bool>,
    /// Whether it has an offer; `None`: where it can be described.
    pub bolt12: Option<bool>,
}

/// The keys of the parts.
#[derive(Debug)]
pub struct PartKeys {
    /// Of the address.
    pub address: IdempotencyKey,
    /// Of the invoice.
    pub invoice: IdempotencyKey,
    /// Of the offer.
    pub offer: IdempotencyKey,
}

impl PartKeys {
    /// Those of the parts that a call under `key` makes.
    pub fn of(key: &str) -> Self {
        Self {
            address: IdempotencyKey::own("CreatePaymentRequest address", key),
            invoice: IdempotencyKey::own("CreatePaymentRequest invoice", key),
            offer: IdempotencyKey::own("CreatePaymentRequest offer", key),
        }
    }
}

/// A payment request of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeRequest {
    /// The code: a `bitcoin:` URI with all parts.
    pub uri: String,
    /// What is asked for, msat.
    pub amount_msat: Option<u64>,
    /// The address, never given out before.
    pub address: Option<String>,
    /// The invoice.
    pub invoice: Option<InvoiceRecord>,
    /// The offer.
    pub offer: Option<OfferRecord>,
    /// When it was made.
    pub created: UnixTime,
    /// When invoice and offer stop counting, since the Unix epoch.
    pub expires: Duration,
}

/// Why a payment request is not made.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum CreateRequestError {
    #[error("a payment request needs a way to be paid; leave one in")]
    NoWay,
    #[error(
        "{amount_msat} msat cannot be paid on chain: an output has at least {DUST_SAT} sat; leave the address out"
    )]
    TooSmall { amount_msat: u64 },
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Part(#[from] CreateInvoiceError),
}

impl CreateRequest {
    /// What is asked for on chain, in whole satoshis: rounded up, so that nobody pays less.
    fn on_chain_sat(&self) -> Option<u64> {
        self.amount_msat.map(|msat| msat.div_ceil(1_000))
    }

    fn has_address(&self) -> Result<bool, CreateRequestError> {
        let too_small = self.on_chain_sat().is_some_and(|sat| sat < DUST_SAT);
        match (self.on_chain, too_small) {
            (Some(true), true) => {
                let amount_msat = self.amount_msat.unwrap_or_default();
                Err(CreateRequestError::TooSmall { amount_msat })
            }
            (on_chain, too_small) => Ok(on_chain.unwrap_or(true) && !too_small),
        }
    }

    fn has_invoice(&self) -> bool {
        self.bolt11.unwrap_or(true)
    }

    /// BOLT 12 asks for a description where there is an amount.
    fn has_offer(&self) -> bool {
        let can = self.amount_msat.is_none() || !self.description.is_empty();
        self.bolt12.unwrap_or(can)
    }
}

impl Requests {
    /// Makes a payment request. Every part is durable when it returns.
    ///
    /// # Errors
    ///
    /// See [`CreateRequestError`]. Parts that were made before stay: a repetition under the same
    /// keys takes them.
    pub async fn create(
        &self,
        create: &CreateRequest,
        keys: &PartKeys,
    ) -> Result<MadeRequest, CreateRequestError> {
        let has_address = create.has_address()?;
        if !has_address && !create.has_invoice() && !create.has_offer() {
            return Err(CreateRequestError::NoWay);
        }
        // The parts that may be refused come first: an address that nobody sees is a gap.
        let mut invoice = None;
        if create.has_invoice() {
            let ask = CreateInvoice {
                amount_msat: create.amount_msat,
                description: InvoiceDescription::Text(create.description.clone()),
                expiry: create.expiry,
                min_final_cltv_expiry_delta: None,
                hash: None,
            };
            invoice = Some(self.payments.create_invoice(ask, Some(&keys.invoice)).await?);
        }
        let mut offer = None;
        if create.has_offer() {
            let ask = CreateOffer {
                amount_msat: create.amount_msat,
                description: Some(create.description.clone()).filter(|text| !text.is_empty()),
                expiry: Some(create.expiry),
            };
            offer = match self.payments.create_offer(ask, Some(&keys.offer)).await {
                Ok(offer) => Some(offer),
                // Without a peer there is no path for an offer. Who did not ask for one gets none.
                Err(CreateInvoiceError::Invoice(InvoiceError::NoPath))
                    if create.bolt12.is_none() && (has_address || invoice.is_some()) =>
                {
                    None
                }
                Err(error) => return Err(error.into()),
            };
        }
        let mut address = None;
        if has_address {
            address = Some(self.onchain.new_address(Some(&keys.address)).await?);
        }
        Ok(self.made(create, address, invoice, offer))
    }

    fn made(
        &self,
        create: &CreateRequest,
        address: Option<String>,
        invoice: Option<InvoiceRecord>,
        offer: Option<OfferRecord>,
    ) -> MadeRequest {
        let way = |key, text: &str| UriWay { key, text: text.to_owned() };
        let ways = [
            address.as_ref().map(|text| way(UriKey::Body, text)),
            invoice.as_ref().map(|record| way(UriKey::Lightning, &record.invoice)),
            offer.as_ref().map(|record| way(UriKey::Offer, &record.decoded.text)),
        ];
        let uri = Uri {
            // Amounts in a URI are whole satoshis; invoice and offer say it exactly.
            amount_sat: create.on_chain_sat(),
            label: None,
            message: Some(create.description.clone()).filter(|text| !text.is_empty()),
            ways: ways.into_iter().flatten().collect(),
        };
        let now = self.clock.now();
        let ends = [
            invoice.as_ref().map(|record| Duration::from_millis(record.expires_ms)),
            offer.as_ref().and_then(|record| record.decoded.expires),
        ];
        MadeRequest {
            uri: uri.to_string(),
            amount_msat: create.amount_msat,
            address,
            invoice,
            offer,
            created: now,
            expires: ends.into_iter().flatten().min().unwrap_or(now + create.expiry),
        }
    }
}
