//! What services may ask of payments, in our own words.

use std::str::FromStr;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256};
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, MIN_FINAL_CLTV_EXPIRY_DELTA, OptionalBolt11PaymentParams,
    OptionalOfferPaymentParams, RecentPaymentDetails,
};
use lightning::ln::outbound_payment::{
    Bolt11PaymentError, RecipientCustomTlvs, RecipientOnionFields, Retry, RetryableSendFailure,
};
use lightning::offers::offer::{Amount as OfferAmount, Offer};
use lightning::offers::parse::Bolt12SemanticError;
use lightning::routing::router::{
    Path, PaymentParameters, Route, RouteHop, RouteParameters, RouteParametersConfig,
};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning_invoice::{
    Bolt11Invoice, Bolt11InvoiceDescription, Bolt11InvoiceDescriptionRef, Description, Sha256,
};

use super::room::Lightning;
use super::types::{ChannelRef, NodeId, PaymentHash, PaymentId, Preimage};

/// The networks that the interface has a name for.
const NETWORKS: [Network; 4] =
    [Network::Bitcoin, Network::Testnet4, Network::Signet, Network::Regtest];

/// What an invoice is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceRequest {
    /// What to ask for, msat; `None` lets the payer choose.
    pub amount_msat: Option<u64>,
    /// Shown to the payer; at most 639 bytes.
    pub description: InvoiceDescription,
    /// How long it is valid.
    pub expiry: Duration,
    /// Blocks we want between the last HTLC's arrival and its expiry; `None` for the default.
    pub min_final_cltv_expiry_delta: Option<u16>,
    /// A hash whose preimage only the caller knows: a hold invoice.
    pub hash: Option<PaymentHash>,
}

/// What an invoice says it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InvoiceDescription {
    /// The text itself.
    Text(String),
    /// SHA-256 of a text told elsewhere.
    Hash([u8; 32]),
}

/// An invoice or an offer, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Which of the two.
    pub kind: DecodedKind,
    /// The text, normalised.
    pub text: String,
    /// Who is paid; unknown for an offer behind blinded paths.
    pub payee: Option<NodeId>,
    /// What is asked, msat; `None` if the payer chooses.
    pub amount_msat: Option<u64>,
    /// The hash to pay, for an invoice.
    pub hash: Option<PaymentHash>,
    /// What it is for, in words.
    pub description: Option<String>,
    /// SHA-256 of what it is for, for an invoice that has no words.
    pub description_hash: Option<[u8; 32]>,
    /// The networks it is for; those this node does not know are left out.
    pub networks: Vec<Network>,
    /// Whether this node's network is among them.
    pub on_our_network: bool,
    /// Who offers, in words; offers only.
    pub issuer: Option<String>,
    /// The offer's id; offers only.
    pub offer_id: Option<[u8; 32]>,
    /// Routes to the payee given along: private hops of an invoice, blinded paths of an offer.
    pub paths: usize,
    /// When it was made, since the Unix epoch.
    pub created: Option<Duration>,
    /// When it expires, since the Unix epoch.
    pub expires: Option<Duration>,
    /// BOLT 11's `min_final_cltv_expiry_delta`.
    pub min_final_cltv_expiry_delta: Option<u32>,
}

/// What a payment request is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodedKind {
    /// BOLT 11.
    Invoice,
    /// BOLT 12.
    Offer,
}

/// Why a payment request cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not BOLT 11.
    #[error("not a valid BOLT 11 invoice: {0}; copy it whole")]
    Invoice(String),
    /// Not BOLT 12.
    #[error("not a valid BOLT 12 offer: {0}; copy it whole")]
    Offer(String),
}

/// Why an invoice could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvoiceError {
    /// More text than BOLT 11 holds.
    #[error("description has {bytes} bytes, an invoice holds at most 639; use a description hash")]
    DescriptionTooLong {
        /// The text's length.
        bytes: usize,
    },
    /// Too short a time to claim safely.
    #[error("min_final_cltv_expiry_delta {given} is too short, at least {least} blocks are needed")]
    CltvTooShort {
        /// What was asked.
        given: u16,
        /// What is needed.
        least: u16,
    },
    /// An offer names ways to this node, and there is none.
    #[error("no peer is connected by which a payer could reach this node; connect one that relays")]
    NoPath,
    /// LDK's word.
    #[error("invoice could not be made: {0}")]
    Refused(String),
}

/// Why a payment did not start. No money has moved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The amount is not what the invoice asks.
    #[error("amount does not fit the invoice")]
    InvalidAmount,
    /// Its time is over.
    #[error("invoice has expired; ask for a new one")]
    Expired,
    /// Nobody can carry it.
    #[error("no route carries this amount to the receiver within the fee limit")]
    RouteNotFound,
    /// A payment with this id is under way: ours, from before a restart.
    #[error("payment with this id is under way")]
    Duplicate,
    /// LDK's word.
    #[error("payment refused: {0}")]
    Refused(String),
}

/// The limits of one payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendLimits {
    /// Most it may cost, msat.
    pub max_fee_msat: u64,
    /// Most parts it is split into, at least 1.
    pub max_parts: u8,
    /// How long failed parts are retried.
    pub retry_for: Duration,
}

impl SendLimits {
    fn route_config(self) -> RouteParametersConfig {
        RouteParametersConfig {
            max_total_routing_fee_msat: Some(self.max_fee_msat),
            max_path_count: self.max_parts.max(1),
            ..RouteParametersConfig::default()
        }
    }

    fn retry(self) -> Retry {
        if self.retry_for.is_zero() { Retry::Attempts(0) } else { Retry::Timeout(self.retry_for) }
    }
}

/// What LDK says of a payment of ours that it has not forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecentPayment {
    /// It waits for the invoice of an offer.
    AwaitingInvoice,
    /// Parts of it may be on their way.
    Pending,
    /// It arrived.
    Fulfilled,
    /// It is given up; parts of it may still be on their way.
    Abandoned,
}

impl Lightning {
    /// Makes a BOLT 11 invoice.
    pub fn create_invoice(&self, request: InvoiceRequest) -> Result<Decoded, InvoiceError> {
        let description = match request.description {
            InvoiceDescription::Text(text) => {
                let bytes = text.len();
                Description::new(text)
                    .map(Bolt11InvoiceDescription::Direct)
                    .map_err(|_| InvoiceError::DescriptionTooLong { bytes })?
            }
            InvoiceDescription::Hash(hash) => {
                Bolt11InvoiceDescription::Hash(Sha256(sha256::Hash::from_byte_array(hash)))
            }
        };
        let least = self.final_cltv_min();
        if let Some(given) = request.min_final_cltv_expiry_delta.filter(|given| *given < least) {
            return Err(InvoiceError::CltvTooShort { given, least });
        }
        let longer = (least > MIN_FINAL_CLTV_EXPIRY_DELTA).then_some(least);
        let invoice = self
            .parts
            .manager
            .create_bolt11_invoice(Bolt11InvoiceParameters {
                amount_msats: request.amount_msat,
                description,
                invoice_expiry_delta_secs: Some(
                    u32::try_from(request.expiry.as_secs()).unwrap_or(u32::MAX),
                ),
                min_final_cltv_expiry_delta: request.min_final_cltv_expiry_delta.or(longer),
                payment_hash: request.hash.map(Into::into),
                payment_metadata: None,
            })
            .map_err(|error| InvoiceError::Refused(format!("{error:?}")))?;
        Ok(decoded_invoice(&invoice, self.parts.network))
    }

    /// Makes a BOLT 12 offer, payable many times until `expires`, a time since the Unix epoch.
    pub fn create_offer(
        &self,
        amount_msat: Option<u64>,
        description: Option<String>,
        expires: Option<Duration>,
    ) -> Result<Decoded, InvoiceError> {
        let refused = |error: Bolt12SemanticError| match error {
            Bolt12SemanticError::MissingPaths => InvoiceError::NoPath,
            error => InvoiceError::Refused(format!("{error:?}")),
        };
        let mut builder = self.parts.manager.create_offer_builder().map_err(refused)?;
        if let Some(amount_msat) = amount_msat {
            builder = builder.amount_msats(amount_msat);
        }
        if let Some(description) = description {
            builder = builder.description(description);
        }
        if let Some(expires) = expires {
            builder = builder.absolute_expiry(expires);
        }
        let offer = builder.build().map_err(refused)?;
        Ok(decoded_offer(&offer, self.parts.network))
    }

    /// As [`decode`], for this node's network.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`].
    pub fn decode(&self, text: &str) -> Result<Decoded, DecodeError> {
        decode(text, self.parts.network)
    }

    /// Starts paying an invoice. `amount_msat` only for an invoice without one, or to pay more.
    pub fn pay_invoice(
        &self,
        id: PaymentId,
        invoice: &str,
        amount_msat: Option<u64>,
        limits: SendLimits,
    ) -> Result<(), SendError> {
        let invoice = parse_invoice(invoice).map_err(|e| SendError::Refused(e.to_string()))?;
        let params = OptionalBolt11PaymentParams {
            route_params_config: limits.route_config(),
            retry_strategy: limits.retry(),
            ..OptionalBolt11PaymentParams::default()
        };
        self.parts.manager.pay_for_bolt11_invoice(&invoice, id.into(), amount_msat, params).map_err(
            |error| match error {
                Bolt11PaymentError::InvalidAmount => SendError::InvalidAmount,
                Bolt11PaymentError::SendingFailed(failure) => failure.into(),
            },
        )
    }

    /// Pays an invoice of the counterparty of `channel` in one hop over it. LDK would take any
    /// channel with that counterparty; so the route is made here. Never tried again.
    pub fn pay_invoice_over(
        &self,
        id: PaymentId,
        invoice: &str,
        amount_msat: u64,
        channel: ChannelRef,
    ) -> Result<(), SendError> {
        let invoice = parse_invoice(invoice).map_err(|e| SendError::Refused(e.to_string()))?;
        let payee = invoice.get_payee_pub_key();
        let channels = self.parts.manager.list_usable_channels();
        let details = channels.iter().find(|details| {
            details.user_channel_id == channel.to_user() && details.counterparty.node_id == payee
        });
        let scid = details.and_then(|details| details.get_outbound_payment_scid());
        let hop = RouteHop {
            pubkey: payee,
            node_features: NodeFeatures::empty(),
            short_channel_id: scid.ok_or(SendError::RouteNotFound)?,
            channel_features: ChannelFeatures::empty(),
            fee_msat: amount_msat,
            cltv_expiry_delta: u32::try_from(invoice.min_final_cltv_expiry_delta())
                .map_err(|_| SendError::RouteNotFound)?,
            maybe_announced_channel: false,
        };
        let path = Path { hops: vec![hop], blinded_tail: None };
        let route = Route { paths: vec![path], route_params: None };
        let mut onion = RecipientOnionFields::secret_only(*invoice.payment_secret(), amount_msat);
        onion.payment_metadata = invoice.payment_metadata().cloned();
        let hash = invoice.payment_hash();
        self.parts.manager.send_payment_with_route(route, hash, onion, id.into())?;
        Ok(())
    }

    /// Starts paying an offer: asks its issuer for an invoice, then pays that.
    pub fn pay_offer(
        &self,
        id: PaymentId,
        offer: &str,
        amount_msat: Option<u64>,
        payer_note: Option<String>,
        limits: SendLimits,
    ) -> Result<(), SendError> {
        let offer = parse_offer(offer).map_err(|e| SendError::Refused(e.to_string()))?;
        let params = OptionalOfferPaymentParams {
            payer_note,
            route_params_config: limits.route_config(),
            retry_strategy: limits.retry(),
        };
        self.parts.manager.pay_for_offer(&offer, amount_msat, id.into(), params).map_err(|error| {
            match error {
                Bolt12SemanticError::DuplicatePaymentId => SendError::Duplicate,
                Bolt12SemanticError::InvalidAmount
                | Bolt12SemanticError::InsufficientAmount
                | Bolt12SemanticError::MissingAmount => SendError::InvalidAmount,
                Bolt12SemanticError::AlreadyExpired => SendError::Expired,
                other => SendError::Refused(format!("{other:?}")),
            }
        })
    }

    /// Starts a spontaneous payment (keysend). `preimage` is ours to choose and to keep.
    pub fn pay_keysend(
        &self,
        id: PaymentId,
        payee: NodeId,
        amount_msat: u64,
        preimage: Preimage,
        records: Vec<(u64, Vec<u8>)>,
        limits: SendLimits,
    ) -> Result<(), SendError> {
        let records = RecipientCustomTlvs::new(records).map_err(|()| {
            SendError::Refused("record types must be 65536 or above, each once".into())
        })?;
        let onion = RecipientOnionFields::spontaneous_empty(amount_msat).with_custom_tlvs(records);
        let mut payee = PaymentParameters::for_keysend(
            payee,
            u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA),
            limits.max_parts > 1,
        );
        payee.max_path_count = limits.max_parts.max(1);
        let route = RouteParameters {
            payment_params: payee,
            final_value_msat: amount_msat,
            max_total_routing_fee_msat: Some(limits.max_fee_msat),
        };
        self.parts
            .manager
            .send_spontaneous_payment(
                Some(preimage.into()),
                onion,
                id.into(),
                route,
                limits.retry(),
            )
            .map(|_| ())
            .map_err(Into::into)
    }

    /// Claims a payment we hold. `Claimed` follows; repeating it changes nothing.
    pub fn claim(&self, preimage: Preimage) {
        self.parts.manager.claim_funds(preimage.into());
    }

    /// Fails a payment we hold back to its sender.
    pub fn fail_back(&self, hash: PaymentHash) {
        self.parts.manager.fail_htlc_backwards(&hash.into());
    }

    /// Gives up retrying a payment of ours. It fails once no part can succeed any more.
    pub fn abandon(&self, id: PaymentId) {
        self.parts.manager.abandon_payment(id.into());
    }

    /// The payments of ours that LDK still works on.
    pub fn payments_under_way(&self) -> Vec<PaymentId> {
        self.recent_payments().into_iter().map(|(id, _)| id).collect()
    }

    /// LDK's own list of payments of ours: it forgets each some time after its end.
    pub fn recent_payments(&self) -> Vec<(PaymentId, RecentPayment)> {
        self.parts
            .manager
            .list_recent_payments()
            .into_iter()
            .map(|payment| match payment {
                RecentPaymentDetails::AwaitingInvoice { payment_id } => {
                    (payment_id.into(), RecentPayment::AwaitingInvoice)
                }
                RecentPaymentDetails::Pending { payment_id, .. } => {
                    (payment_id.into(), RecentPayment::Pending)
                }
                RecentPaymentDetails::Fulfilled { payment_id, .. } => {
                    (payment_id.into(), RecentPayment::Fulfilled)
                }
                RecentPaymentDetails::Abandoned { payment_id, .. } => {
                    (payment_id.into(), RecentPayment::Abandoned)
                }
            })
            .collect()
    }
}

impl From<RetryableSendFailure> for SendError {
    fn from(failure: RetryableSendFailure) -> Self {
        match failure {
            RetryableSendFailure::PaymentExpired => Self::Expired,
            RetryableSendFailure::RouteNotFound => Self::RouteNotFound,
            RetryableSendFailure::DuplicatePayment => Self::Duplicate,
            RetryableSendFailure::OnionPacketSizeExceeded => {
                Self::Refused("the custom records are too large for one onion".into())
            }
        }
    }
}

/// Reads an invoice or an offer, with or without a `lightning:` prefix, in either case, as a node
/// on `ours`.
///
/// # Errors
///
/// See [`DecodeError`].
pub fn decode(text: &str, ours: Network) -> Result<Decoded, DecodeError> {
    let text = strip_scheme(text);
    if text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("lno1")) {
        return Ok(decoded_offer(&parse_offer(text)?, ours));
    }
    Ok(decoded_invoice(&parse_invoice(text)?, ours))
}

fn decoded_invoice(invoice: &Bolt11Invoice, ours: Network) -> Decoded {
    Decoded {
        kind: DecodedKind::Invoice,
        text: invoice.to_string(),
        payee: Some(invoice.get_payee_pub_key()),
        amount_msat: invoice.amount_milli_satoshis(),
        hash: Some(invoice.payment_hash().into()),
        description: match invoice.description() {
            Bolt11InvoiceDescriptionRef::Direct(text) => Some(text.to_string()),
            Bolt11InvoiceDescriptionRef::Hash(_) => None,
        },
        description_hash: match invoice.description() {
            Bolt11InvoiceDescriptionRef::Direct(_) => None,
            Bolt11InvoiceDescriptionRef::Hash(hash) => Some(hash.0.to_byte_array()),
        },
        networks: vec![network_of(invoice)],
        issuer: None,
        offer_id: None,
        paths: invoice.private_routes().len(),
        on_our_network: network_of(invoice) == ours,
        created: Some(invoice.duration_since_epoch()),
        expires: invoice.expires_at(),
        min_final_cltv_expiry_delta: u32::try_from(invoice.min_final_cltv_expiry_delta()).ok(),
    }
}

/// The network an invoice is for. BOLT 11 has one prefix, `lntb`, for all test networks of that
/// name; of these the node knows the fourth.
fn network_of(invoice: &Bolt11Invoice) -> Network {
    match invoice.network() {
        Network::Testnet => Network::Testnet4,
        network => network,
    }
}

fn decoded_offer(offer: &Offer, ours: Network) -> Decoded {
    Decoded {
        kind: DecodedKind::Offer,
        text: offer.to_string(),
        payee: offer.issuer_signing_pubkey(),
        amount_msat: match offer.amount() {
            Some(OfferAmount::Bitcoin { amount_msats }) => Some(amount_msats),
            _ => None,
        },
        hash: None,
        description: offer.description().map(|text| text.to_string()),
        description_hash: None,
        networks: NETWORKS
            .into_iter()
            .filter(|network| offer.supports_chain(ChainHash::using_genesis_block(*network)))
            .collect(),
        issuer: offer.issuer().map(|text| text.to_string()),
        offer_id: Some(offer.id().0),
        paths: offer.paths().len(),
        on_our_network: offer.supports_chain(ChainHash::using_genesis_block(ours)),
        created: None,
        expires: offer.absolute_expiry(),
        min_final_cltv_expiry_delta: None,
    }
}

fn strip_scheme(text: &str) -> &str {
    let text = text.trim();
    match text.get(..10) {
        Some(scheme) if scheme.eq_ignore_ascii_case("lightning:") => &text[10..],
        _ => text,
    }
}

pub(super) fn parse_invoice(text: &str) -> Result<Bolt11Invoice, DecodeError> {
    Bolt11Invoice::from_str(strip_scheme(text))
        .map_err(|error| DecodeError::Invoice(error.to_string()))
}

pub(super) fn parse_offer(text: &str) -> Result<Offer, DecodeError> {
    Offer::from_str(strip_scheme(text)).map_err(|error| DecodeError::Offer(format!("{error:?}")))
}
