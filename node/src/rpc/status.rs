//! Refusals: the registry of reasons, and their way to and from `google.rpc.Status`.
//!
//! A service's error becomes a [`Refusal`] in `rpc/`, and a [`Refusal`] becomes a
//! `tonic::Status` with one `google.rpc.ErrorInfo`. Clients read it back with [`explain`].
//! A reason once published keeps its name and its code.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every reason.
pub const DOMAIN: &str = "tributary";

/// Metadata key of the sentence that says what to do.
pub const REMEDY: &str = "remedy";

/// Metadata key that says whether money may have moved: `true` or `false`.
pub const MONEY_MAY_HAVE_MOVED: &str = "money_may_have_moved";

/// Longest message or metadata value sent, in bytes: all travel in one HTTP/2 header.
const TEXT_LEN_MAX: usize = 1_000;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident, $remedy:literal;)*) => {
        /// Why a call is refused. The name and the code of a reason never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Returns the name that goes over the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// Returns the gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }

            /// Returns what the caller can do, where nothing more exact is known.
            pub const fn remedy(self) -> &'static str {
                match self { $(Reason::$variant => $remedy,)* }
            }
        }
    };
}

reasons! {
    /// The node is starting.
    Starting = "STARTING", Unavailable, "wait and repeat the call";
    /// The node is stopping.
    Stopping = "STOPPING", Unavailable, "repeat the call after the next start";
    /// The call carries no token.
    TokenMissing = "TOKEN_MISSING", Unauthenticated,
        "send the header `authorization: Bearer <token>`; the token is in admin.token in the data directory";
    /// The token is not this node's.
    TokenInvalid = "TOKEN_INVALID", Unauthenticated,
        "read the token again, from admin.token in this node's data directory or from whoever baked it";
    /// The token's time is over.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated, "ask for a new token";
    /// The token was revoked, or one that it was narrowed from.
    TokenRevoked = "TOKEN_REVOKED", Unauthenticated, "ask for a new token";
    /// The token does not open from this address.
    SourceDenied = "SOURCE_DENIED", PermissionDenied,
        "call from an address the token allows; `tributary token inspect` shows them";
    /// The token does not have this method.
    MethodDenied = "METHOD_DENIED", PermissionDenied,
        "ask for a token that has the method; `tributary token inspect` shows what this one has";
    /// The token does not pay this receiver.
    PayeeDenied = "PAYEE_DENIED", PermissionDenied,
        "pay a node the token allows; `tributary token inspect` shows them";
    /// One call may not cost so much.
    CallLimitExceeded = "CALL_LIMIT_EXCEEDED", PermissionDenied,
        "pay less, or give a lower max_fee_msat";
    /// The budget has less left.
    BudgetExhausted = "BUDGET_EXHAUSTED", ResourceExhausted,
        "wait for payments under way to end, pay less, or ask for another token";
    /// Nobody can tell what the method will cost.
    SpendingUnbounded = "SPENDING_UNBOUNDED", PermissionDenied,
        "use a token without a budget, a maximum for one call, or payees";
    /// A token with restrictions cannot make others.
    BakeDenied = "BAKE_DENIED", PermissionDenied,
        "narrow this token with `tributary token narrow`, or use the administrator's";
    /// No such token.
    TokenUnknown = "TOKEN_UNKNOWN", NotFound, "list the tokens";
    /// The token calls too often.
    RateLimited = "RATE_LIMITED", ResourceExhausted,
        "repeat the call after retry_after_ms; nothing was done";
    /// Too many calls wait.
    Overloaded = "OVERLOADED", ResourceExhausted,
        "repeat the call after retry_after_ms; nothing was done";
    /// The caller's own deadline has passed.
    DeadlinePassed = "DEADLINE_PASSED", DeadlineExceeded,
        "repeat the call with its key and more time: what it began goes on";
    /// A mutation without a key.
    IdempotencyKeyMissing = "IDEMPOTENCY_KEY_MISSING", InvalidArgument,
        "give an idempotency_key of 1 to 64 printable ASCII characters";
    /// The key is too long or has other characters.
    IdempotencyKeyInvalid = "IDEMPOTENCY_KEY_INVALID", InvalidArgument,
        "give an idempotency_key of 1 to 64 printable ASCII characters";
    /// The key came before with another body.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", InvalidArgument,
        "use a fresh key for a new request, or repeat the first one unchanged";
    /// A page token of another list or filter.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument,
        "take the token from the answer before, with the same filter";
    /// A page size out of range.
    PageSizeOutOfRange = "PAGE_SIZE_OUT_OF_RANGE", InvalidArgument, "ask for 1 to 1,000";
    /// A field is missing or malformed and no other reason says it better.
    FieldInvalid = "FIELD_INVALID", InvalidArgument, "correct the field the message names";
    /// The node's chain is not at the tip, or stalled.
    ChainNotSynced = "CHAIN_NOT_SYNCED", FailedPrecondition,
        "wait until GetInfo says synced; see chain.last_error if it does not";
    /// Not 33 bytes of a public key.
    NodeIdInvalid = "NODE_ID_INVALID", InvalidArgument,
        "give the 33-byte compressed public key of the node";
    /// A network or Bitcoin address that cannot be read.
    AddressInvalid = "ADDRESS_INVALID", InvalidArgument, "check the address";
    /// An address, invoice or offer of another network.
    WrongNetwork = "WRONG_NETWORK", InvalidArgument, "use one of this node's network";
    /// Nobody answers there, or it is another node.
    PeerUnreachable = "PEER_UNREACHABLE", Unavailable,
        "check that the peer runs and that its address is right";
    /// No such peer.
    PeerUnknown = "PEER_UNKNOWN", NotFound, "list the peers";
    /// The peer is not connected.
    PeerOffline = "PEER_OFFLINE", FailedPrecondition,
        "connect the peer and try again, or close by force";
    /// Capacity below or above what is allowed.
    CapacityOutOfRange = "CAPACITY_OUT_OF_RANGE", InvalidArgument,
        "choose a capacity within the range the message names";
    /// More given to the peer than the channel holds.
    PushExceedsCapacity = "PUSH_EXCEEDS_CAPACITY", InvalidArgument,
        "give the peer less, or open a larger channel";
    /// A feerate out of range.
    FeerateOutOfRange = "FEERATE_OUT_OF_RANGE", InvalidArgument,
        "choose 1 to 10,000 sat/vB, or leave it out";
    /// Not enough on-chain coins.
    FundsInsufficient = "FUNDS_INSUFFICIENT", FailedPrecondition,
        "send coins to a wallet address, wait for confirmation, or ask for less";
    /// The coins kept for force-closes would fall short.
    AnchorReserveWouldBreak = "ANCHOR_RESERVE_WOULD_BREAK", FailedPrecondition,
        "send coins to a wallet address or ask for less; the reserve pays for force-closes";
    /// What is asked for does not go with the way of funding.
    FundingUnsupported = "FUNDING_UNSUPPORTED", InvalidArgument,
        "leave out the field that the message names, or fund the channel by its own transaction";
    /// No such channel.
    ChannelUnknown = "CHANNEL_UNKNOWN", NotFound, "list the channels";
    /// No such wish for a channel of a batch.
    BatchUnknown = "BATCH_UNKNOWN", NotFound, "list the wishes";
    /// The channel of a batch is in a state that does not allow it.
    BatchState = "BATCH_STATE", FailedPrecondition, "show the wish and see its state";
    /// This node does not do that in batches.
    BatchRole = "BATCH_ROLE", FailedPrecondition, "set batch.role in the configuration";
    /// No such tower.
    TowerUnknown = "TOWER_UNKNOWN", NotFound, "list the towers";
    /// Nobody answers there, or it is another tower.
    TowerUnreachable = "TOWER_UNREACHABLE", Unavailable,
        "check that the tower runs, and its key and address";
    /// A tower does not take this node.
    TowerRefused = "TOWER_REFUSED", FailedPrecondition, "see the message, or choose another tower";
    /// A tower takes no more clients.
    TowerFull = "TOWER_FULL", ResourceExhausted, "choose another tower";
    /// A request that its client did not sign.
    SignatureInvalid = "SIGNATURE_INVALID", Unauthenticated,
        "sign with the key that was registered, for this very tower";
    /// A client that never registered.
    ClientUnknown = "CLIENT_UNKNOWN", NotFound, "register first";
    /// A subscription that has ended.
    SubscriptionOver = "SUBSCRIPTION_OVER", FailedPrecondition, "register again";
    /// More than a subscription holds.
    QuotaExhausted = "QUOTA_EXHAUSTED", ResourceExhausted,
        "forget closed channels, or choose another tower";
    /// An appointment that the tower's policy does not allow.
    AppointmentRefused = "APPOINTMENT_REFUSED", InvalidArgument,
        "see the message; GetTerms says what the tower takes";
    /// A path of a batch that the tower does not publish.
    WatchRefused = "WATCH_REFUSED", InvalidArgument, "see the message";
    /// The chain cannot be asked.
    ChainAway = "CHAIN_AWAY", Unavailable, "try again";
    /// Another appointment is in its place.
    AppointmentConflict = "APPOINTMENT_CONFLICT", AlreadyExists,
        "send each revoked state once, with a number above those before";
    /// No such withdrawal or deposit.
    SwapUnknown = "SWAP_UNKNOWN", NotFound, "list the swaps";
    /// A channel with this peer is being opened.
    ChannelOpening = "CHANNEL_OPENING", AlreadyExists,
        "follow the channel the metadata names, or close it";
    /// The values make no channel that can be.
    ChannelRefused = "CHANNEL_REFUSED", FailedPrecondition, "see the message, and ask otherwise";
    /// The channel is in a state that does not allow it.
    ChannelState = "CHANNEL_STATE", FailedPrecondition, "get the channel and see its state";
    /// A forwarding policy out of range.
    PolicyOutOfRange = "POLICY_OUT_OF_RANGE", InvalidArgument,
        "choose values within the ranges the message names";
    /// An amount of 0, or beyond all bitcoin.
    AmountOutOfRange = "AMOUNT_OUT_OF_RANGE", InvalidArgument,
        "choose an amount within the range the message names";
    /// The target names no amount and neither does the call.
    AmountMissing = "AMOUNT_MISSING", InvalidArgument, "give amount_msat";
    /// The target names another amount than the call.
    AmountMismatch = "AMOUNT_MISMATCH", InvalidArgument,
        "leave amount_msat out, or give the amount the invoice names";
    /// An output too small to be relayed.
    AmountDust = "AMOUNT_DUST", InvalidArgument, "send more than the dust limit";
    /// A description that does not fit or is missing.
    DescriptionInvalid = "DESCRIPTION_INVALID", InvalidArgument,
        "give at most 639 bytes of text, or a 32-byte hash";
    /// A life out of range.
    ExpiryOutOfRange = "EXPIRY_OUT_OF_RANGE", InvalidArgument,
        "choose a life within the range the message names";
    /// A CLTV delta out of range.
    CltvOutOfRange = "CLTV_OUT_OF_RANGE", InvalidArgument,
        "choose a delta within the range the message names";
    /// Not 32 bytes of a hash.
    HashInvalid = "HASH_INVALID", InvalidArgument, "give a 32-byte hash";
    /// Not 32 bytes, or of no known hash.
    PreimageInvalid = "PREIMAGE_INVALID", InvalidArgument,
        "give the 32 bytes whose SHA-256 is the invoice's hash";
    /// There is an invoice with this hash.
    InvoiceExists = "INVOICE_EXISTS", AlreadyExists, "use another hash: each may be used once";
    /// An invoice or offer that cannot be read, or whose signature is wrong.
    InvoiceInvalid = "INVOICE_INVALID", InvalidArgument,
        "check that the text is complete, or ask for a new one";
    /// An invoice or offer that has expired.
    InvoiceExpired = "INVOICE_EXPIRED", FailedPrecondition, "ask the recipient for a new one";
    /// The invoice is paid or being paid.
    InvoiceAlreadyPaid = "INVOICE_ALREADY_PAID", AlreadyExists,
        "look at the payment the metadata names; ask for a new invoice to pay again";
    /// No such invoice.
    InvoiceUnknown = "INVOICE_UNKNOWN", NotFound, "list the invoices";
    /// The invoice is in a state that does not allow it.
    InvoiceState = "INVOICE_STATE", FailedPrecondition, "look the invoice up and see its state";
    /// A custom record with a reserved type, twice the same, or too long.
    CustomRecordInvalid = "CUSTOM_RECORD_INVALID", InvalidArgument,
        "use types from 65,536 on, each once, about 1,000 bytes together";
    /// Channels hold less than is to be sent.
    LiquidityInsufficient = "LIQUIDITY_INSUFFICIENT", FailedPrecondition,
        "pay less, open a channel, or wait for incoming payments";
    /// No route within the limits.
    NoRoute = "NO_ROUTE", FailedPrecondition,
        "raise max_fee_msat, pay less, or open a channel towards the recipient";
    /// The recipient is this node.
    PaymentToSelf = "PAYMENT_TO_SELF", FailedPrecondition, "pay another node";
    /// No such payment.
    PaymentUnknown = "PAYMENT_UNKNOWN", NotFound, "list the payments";
    /// More payments under way than the node admits.
    TooManyInFlight = "TOO_MANY_IN_FLIGHT", ResourceExhausted,
        "wait for payments to be resolved and repeat the call with its key";
    /// No such transaction in the wallet.
    TransactionUnknown = "TRANSACTION_UNKNOWN", NotFound, "list the transactions";
    /// A transaction that is confirmed or cannot be replaced.
    TransactionNotReplaceable = "TRANSACTION_NOT_REPLACEABLE", FailedPrecondition,
        "a confirmed transaction needs no fee; a channel's funding is never replaced";
    /// Events asked for are no longer kept.
    EventsPruned = "EVENTS_PRUNED", OutOfRange,
        "list payments, invoices and channels once, then subscribe from oldest_sequence";
    /// Events asked for are yet to come.
    EventsAhead = "EVENTS_AHEAD", OutOfRange,
        "subscribe after newest_sequence; was the node restored from an old backup?";
    /// No such webhook endpoint.
    WebhookUnknown = "WEBHOOK_UNKNOWN", NotFound, "list the webhook endpoints";
    /// A URL that nothing is sent to.
    WebhookUrlRefused = "WEBHOOK_URL_REFUSED", InvalidArgument,
        "give a public https URL, or see webhook.allow_private in the configuration";
    /// As many webhook endpoints as there may be.
    WebhooksFull = "WEBHOOKS_FULL", ResourceExhausted,
        "delete one that is not needed, or raise webhook.endpoints_max";
    /// No such payout.
    PayoutUnknown = "PAYOUT_UNKNOWN", NotFound, "list the payouts";
    /// The payout has no such line.
    PayoutLineUnknown = "PAYOUT_LINE_UNKNOWN", NotFound, "list the payout's lines";
    /// Lines that are none.
    PayoutFileInvalid = "PAYOUT_FILE_INVALID", InvalidArgument,
        "begin with a line that names the columns, and give 1 to payouts.lines_max lines";
    /// As many payouts as there may be.
    PayoutsFull = "PAYOUTS_FULL", ResourceExhausted,
        "cancel one that is not needed, or raise payouts.open_max";
    /// Something else was quoted than accepted.
    PayoutQuote = "PAYOUT_QUOTE", FailedPrecondition,
        "get the payout, and accept total_msat and max_fee_msat of its quote";
    /// Some lines cannot be paid.
    PayoutBadLines = "PAYOUT_BAD_LINES", FailedPrecondition,
        "list the bad lines and correct the file, or set skip_bad_lines";
    /// The payout is in a state that does not allow it.
    PayoutState = "PAYOUT_STATE", FailedPrecondition, "get the payout and see its state";
    /// Lines and records of payments do not agree.
    PayoutUnbalanced = "PAYOUT_UNBALANCED", FailedPrecondition,
        "see the message and report it; pay nothing of the payout anew";
    /// The store failed; nothing further is accepted.
    StoreFailed = "STORE_FAILED", Internal,
        "see the node's log, free the disk, and restart the node";
    /// An error of the node itself.
    Internal = "INTERNAL", Internal, "see the node's log and report it";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that is refused: the reason, the sentence, the numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    message: String,
    metadata: BTreeMap<&'static str, String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// Refuses for `reason`; `message` is a lower-case sentence that names the values.
    pub fn new(reason: Reason, message: impl fmt::Display) -> Self {
        Self {
            reason,
            message: shortened(message.to_string()),
            metadata: BTreeMap::from([(REMEDY, reason.remedy().to_owned())]),
            retry_after: None,
        }
    }

    /// Refuses a field that is missing or malformed, named as in the request.
    pub fn field(field: &'static str, problem: impl fmt::Display) -> Self {
        Self::new(Reason::FieldInvalid, format_args!("{field} {problem}")).with("field", field)
    }

    /// Adds a value to the metadata. `key` is snake_case and ends with the unit of a number.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key, shortened(value.to_string()));
        self
    }

    /// Gives a more exact remedy than the reason's own.
    #[must_use]
    pub fn remedy(self, remedy: impl fmt::Display) -> Self {
        self.with(REMEDY, remedy)
    }

    /// Says whether money may have moved. Every refusal of a call that moves money must.
    #[must_use]
    pub fn money_may_have_moved(self, may: bool) -> Self {
        self.with(MONEY_MAY_HAVE_MOVED, may)
    }

    /// Says after which time the call may be repeated.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self.with("retry_after_ms", after.as_millis())
    }

    /// Returns the reason.
    pub fn reason(&self) -> Reason {
        self.reason
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        let metadata: std::collections::HashMap<String, String> =
            refusal.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let mut details = ErrorDetails::with_error_info(refusal.reason.as_str(), DOMAIN, metadata);
        if let Some(after) = refusal.retry_after {
            details.set_retry_info(Some(after));
        }
        Status::with_error_details(refusal.reason.code(), refusal.message, details)
    }
}

/// What a client can tell its user about an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The gRPC code.
    pub code: Code,
    /// The reason, if the node gave one; it may be newer than this program.
    pub reason: Option<String>,
    /// The sentence.
    pub message: String,
    /// What to do, if the node said so.
    pub remedy: Option<String>,
    /// Whether money may have moved, if the node said so.
    pub money_may_have_moved: Option<bool>,
    /// Everything else, by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads what a node said with an error.
pub fn explain(status: &Status) -> Explanation {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let (reason, mut metadata) = match info {
        Some(info) => (Some(info.reason), info.metadata.into_iter().collect()),
        None => (None, BTreeMap::new()),
    };
    Explanation {
        code: status.code(),
        reason,
        message: status.message().to_owned(),
        remedy: metadata.remove(REMEDY),
        money_may_have_moved: metadata
            .remove(MONEY_MAY_HAVE_MOVED)
            .and_then(|text| text.parse().ok()),
        metadata,
    }
}

/// Cuts `text` at a character boundary so that the header stays small.
fn shortened(mut text: String) -> String {
    if text.len() > TEXT_LEN_MAX {
        let mut end = TEXT_LEN_MAX - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for reason in Reason::ALL {
            let name = reason.as_str();
            // The limits of google.rpc.ErrorInfo.
            assert!(name.len() <= 63, "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{name}");
            assert!(!reason.remedy().is_empty(), "{name}");
            assert_ne!(reason.code(), Code::Ok, "{name}");
        }
    }

    #[test]
    fn a_refusal_survives_the_wire() {
        let refusal = Refusal::new(Reason::FundsInsufficient, "need 7 sat, have 5 sat")
            .with("required_sat", 7)
            .with("available_sat", 5)
            .money_may_have_moved(false);
        let status = Status::from(refusal);
        assert_eq!(status.code(), Code::FailedPrecondition);
        let sent = status.into_http::<()>();
        let received = Status::from_header_map(sent.headers()).expect("a status was sent");
        let explanation = explain(&received);
        assert_eq!(explanation.reason.as_deref(), Some("FUNDS_INSUFFICIENT"));
        assert_eq!(explanation.message, "need 7 sat, have 5 sat");
        assert_eq!(explanation.remedy.as_deref(), Some(Reason::FundsInsufficient.remedy()));
        assert_eq!(explanation.money_may_have_moved, Some(false));
        assert_eq!(explanation.metadata["required_sat"], "7");
        assert_eq!(explanation.metadata["available_sat"], "5");
    }

    #[test]
    fn a_foreign_error_is_explained_without_a_reason() {
        let explanation = explain(&Status::unavailable("tcp connect error"));
        assert_eq!(explanation.reason, None);
        assert_eq!(explanation.money_may_have_moved, None);
        assert_eq!(explanation.message, "tcp connect error");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let refusal = Refusal::new(Reason::Internal, "ü".repeat(5_000));
        assert!(refusal.message.len() <= TEXT_LEN_MAX);
        assert!(refusal.message.ends_with("ü…"));
    }

    /// The interface documents `CODE (REASON, …)`; the registry must agree, both ways.
    #[test]
    fn documented_reasons_are_those_of_the_registry() {
        let sources = concat!(
            include_str!("../../../proto/tributary/v1/common.proto"),
            include_str!("../../../proto/tributary/v1/node.proto"),
            include_str!("../../../proto/tributary/v1/batches.proto"),
            include_str!("../../../proto/tributary/v1/channels.proto"),
            include_str!("../../../proto/tributary/v1/payments.proto"),
            include_str!("../../../proto/tributary/v1/wallet.proto"),
            include_str!("../../../proto/tributary/v1/events.proto"),
            include_str!("../../../proto/tributary/v1/tower.proto"),
            include_str!("../../../proto/tributary/v1/tokens.proto"),
            include_str!("../../../proto/tributary/v1/webhooks.proto"),
            include_str!("../../../proto/tributary/v1/payouts.proto"),
        );
        let codes = [
            ("INVALID_ARGUMENT", Code::InvalidArgument),
            ("FAILED_PRECONDITION", Code::FailedPrecondition),
            ("NOT_FOUND", Code::NotFound),
            ("ALREADY_EXISTS", Code::AlreadyExists),
            ("UNAVAILABLE", Code::Unavailable),
            ("UNAUTHENTICATED", Code::Unauthenticated),
            ("OUT_OF_RANGE", Code::OutOfRange),
            ("RESOURCE_EXHAUSTED", Code::ResourceExhausted),
            ("UNIMPLEMENTED", Code::Unimplemented),
            ("PERMISSION_DENIED", Code::PermissionDenied),
            ("DEADLINE_EXCEEDED", Code::DeadlineExceeded),
        ];
        let mut code = Code::Ok;
        let mut documented = BTreeSet::new();
        for line in sources.lines().map(str::trim) {
            let Some(comment) = line.strip_prefix("//") else {
                code = Code::Ok;
                continue;
            };
            for word in comment.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
                if let Some((_, named)) = codes.iter().find(|(name, _)| *name == word) {
                    code = *named;
                } else if let Some(reason) = Reason::ALL.iter().find(|r| r.as_str() == word) {
                    assert_eq!(reason.code(), code, "{word} is documented otherwise");
                    documented.insert(*reason);
                } else if code != Code::Ok && word.contains('_') {
                    let lower = word.chars().any(|c| c.is_ascii_lowercase());
                    assert!(lower, "{word} is documented but not in the registry");
                }
            }
        }
        // Those that any method may answer.
        let general = [
            Reason::IdempotencyKeyMissing,
            Reason::IdempotencyKeyInvalid,
            Reason::PageSizeOutOfRange,
            Reason::FieldInvalid,
            Reason::StoreFailed,
            Reason::Internal,
        ];
        for reason in Reason::ALL {
            assert!(
                documented.contains(reason) || general.contains(reason),
                "{reason} is in the registry but not documented"
            );
        }
    }
}
