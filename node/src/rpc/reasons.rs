//! The registry of reasons: why a call is refused, what led to it, what to do.
//!
//! One table. The comment of a row is its cause; then come the name, the code, whether the call
//! may be repeated, the metadata it may carry, and the remedy. `proto/ERRORS.md` is written from
//! it, see `reasons/tests.rs`; `tributary explain` prints a row. A reason once published keeps
//! its name and its code.

use std::fmt;

use tonic::Code;

/// Whether the very same call may succeed when it is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// By itself, after a while.
    Later,
    /// Once the remedy is done.
    AfterRemedy,
    /// Never: ask otherwise.
    Changed,
}

impl Retry {
    /// Returns it in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Later => "later, as it is",
            Self::AfterRemedy => "as it is, once the remedy is done",
            Self::Changed => "not as it is: ask otherwise",
        }
    }
}

/// Metadata that a refusal may carry whatever its reason: the field that is wrong, the value
/// given and its range, lengths, and what every caller should know.
pub const GENERAL_METADATA: [&str; 9] = [
    "remedy",
    "money_may_have_moved",
    "retry_after_ms",
    "field",
    "given",
    "least",
    "most",
    "length_bytes",
    "expected_bytes",
];

macro_rules! reasons {
    ($($(#[doc = $cause:literal])* $variant:ident = $name:literal, $code:ident, $retry:ident,
        [$($key:literal),*], $remedy:literal;)*) => {
        /// Why a call is refused. The name and the code of a reason never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $cause])* $variant,)*
        }

        impl Reason {
            /// Every reason there is.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// Returns the name that goes over the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }

            /// Returns the name in the sources.
            #[cfg(test)]
            pub(super) const fn variant(self) -> &'static str {
                match self { $(Reason::$variant => stringify!($variant),)* }
            }

            /// Returns the gRPC code.
            pub const fn code(self) -> Code {
                match self { $(Reason::$variant => Code::$code,)* }
            }

            /// Returns what led to it, in one or two sentences.
            pub const fn cause(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($cause,)*).trim_ascii_start(),)* }
            }

            /// Returns what the caller can do, where nothing more exact is known.
            pub const fn remedy(self) -> &'static str {
                match self { $(Reason::$variant => $remedy,)* }
            }

            /// Returns whether the same call may be repeated.
            pub const fn retry(self) -> Retry {
                match self { $(Reason::$variant => Retry::$retry,)* }
            }

            /// Returns the metadata it may carry beside [`GENERAL_METADATA`].
            pub const fn metadata(self) -> &'static [&'static str] {
                match self { $(Reason::$variant => &[$($key),*],)* }
            }
        }
    };
}

reasons! {
    /// The node is starting: it reads its state and catches up with the chain.
    Starting = "STARTING", Unavailable, Later, [], "wait and repeat the call";
    /// The node is stopping, by an operator's wish or a signal.
    Stopping = "STOPPING", Unavailable, Later, [], "repeat the call after the next start";
    /// The call carries no token.
    TokenMissing = "TOKEN_MISSING", Unauthenticated, AfterRemedy, [],
        "send the header `authorization: Bearer <token>`; the token is in admin.token in the data directory";
    /// The token is not this node's, or not a token.
    TokenInvalid = "TOKEN_INVALID", Unauthenticated, AfterRemedy, [],
        "read the token again, from admin.token in this node's data directory or from whoever baked it";
    /// The token's time is over.
    TokenExpired = "TOKEN_EXPIRED", Unauthenticated, AfterRemedy,
        ["token_id", "expired_seconds"], "ask for a new token";
    /// The token was revoked, or one that it was narrowed from.
    TokenRevoked = "TOKEN_REVOKED", Unauthenticated, AfterRemedy, ["token_id"],
        "ask for a new token";
    /// The token does not open from this address.
    SourceDenied = "SOURCE_DENIED", PermissionDenied, AfterRemedy, ["token_id", "source"],
        "call from an address the token allows; `tributary token inspect` shows them";
    /// The token does not have this method.
    MethodDenied = "METHOD_DENIED", PermissionDenied, AfterRemedy, ["token_id", "method"],
        "ask for a token that has the method; `tributary token inspect` shows what this one has";
    /// The token does not pay this receiver, or pays nodes only and this is an address.
    PayeeDenied = "PAYEE_DENIED", PermissionDenied, Changed, ["node_id"],
        "pay a node the token allows; `tributary token inspect` shows them";
    /// One call with this token may not cost so much. What counts is the most that it may cost:
    /// the amount and the highest fee.
    CallLimitExceeded = "CALL_LIMIT_EXCEEDED", PermissionDenied, Changed,
        ["most_msat", "limit_msat"], "pay less, or give a lower max_fee_msat";
    /// The token's budget has less left than the call may cost.
    BudgetExhausted = "BUDGET_EXHAUSTED", ResourceExhausted, Later,
        ["most_msat", "budget_left_msat", "budget_msat", "cost_sat"],
        "wait for payments under way to end, pay less, or ask for another token";
    /// The token bounds what it spends, and nobody can tell what the method will cost.
    SpendingUnbounded = "SPENDING_UNBOUNDED", PermissionDenied, AfterRemedy, ["method"],
        "use a token without a budget, a maximum for one call, or payees";
    /// A token with restrictions cannot make others.
    BakeDenied = "BAKE_DENIED", PermissionDenied, AfterRemedy, [],
        "narrow this token with `tributary token narrow`, or use the administrator's";
    /// There is no such token, or another node baked it.
    TokenUnknown = "TOKEN_UNKNOWN", NotFound, Changed, ["token_id"], "list the tokens";
    /// The token calls, or calls this method, more often than the node allows.
    RateLimited = "RATE_LIMITED", ResourceExhausted, Later, ["method"],
        "repeat the call after retry_after_ms; nothing was done";
    /// As many calls wait as may.
    Overloaded = "OVERLOADED", ResourceExhausted, Later, ["waiting"],
        "repeat the call after retry_after_ms; nothing was done";
    /// The caller's own deadline has passed.
    DeadlinePassed = "DEADLINE_PASSED", DeadlineExceeded, Later, ["timeout_ms"],
        "repeat the call with its key and more time: what it began goes on";
    /// A mutation without a key.
    IdempotencyKeyMissing = "IDEMPOTENCY_KEY_MISSING", InvalidArgument, Changed, [],
        "give an idempotency_key of 1 to 64 printable ASCII characters";
    /// The key is too long or has other characters.
    IdempotencyKeyInvalid = "IDEMPOTENCY_KEY_INVALID", InvalidArgument, Changed, [],
        "give an idempotency_key of 1 to 64 printable ASCII characters";
    /// The key came before with another body. What it was first used for may have moved money.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED", InvalidArgument, Changed,
        ["idempotency_key"],
        "use a fresh key for a new request, or repeat the first one unchanged";
    /// The page token is of another list, or was made with another filter.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument, Changed, [],
        "take the token from the answer before, with the same filter";
    /// The page size is 0 or above the most.
    PageSizeOutOfRange = "PAGE_SIZE_OUT_OF_RANGE", InvalidArgument, Changed, [],
        "ask for 1 to 1,000";
    /// Nothing has this name or path.
    MethodUnknown = "METHOD_UNKNOWN", Unimplemented, Changed, [],
        "check the name; reflection and /v1/openapi.json list what there is";
    /// The message cannot be decoded: it is cut off, of another type, or compressed.
    MessageMalformed = "MESSAGE_MALFORMED", InvalidArgument, Changed, [],
        "encode the request as the interface describes it, uncompressed";
    /// The message or body is longer than the method takes.
    RequestTooLarge = "REQUEST_TOO_LARGE", OutOfRange, Changed, ["length_max"],
        "send less at once";
    /// HTTP is used otherwise than this door does.
    HttpRequestInvalid = "HTTP_REQUEST_INVALID", InvalidArgument, Changed, [],
        "see /v1/openapi.json for methods, headers and content types";
    /// The body is not one JSON object.
    JsonInvalid = "JSON_INVALID", InvalidArgument, Changed, [],
        "send one JSON object, each key once";
    /// A field is missing or malformed and no other reason says it better. and no other reason says it better.
    FieldInvalid = "FIELD_INVALID", InvalidArgument, Changed, [],
        "correct the field the message names";
    /// The node's chain is not at the tip, or stalled: it takes no new risk.
    ChainNotSynced = "CHAIN_NOT_SYNCED", FailedPrecondition, Later,
        ["block_height", "tip_height"],
        "wait until GetInfo says synced; see chain.last_error if it does not";
    /// Not 33 bytes of a public key, or this node's own.
    NodeIdInvalid = "NODE_ID_INVALID", InvalidArgument, Changed, ["node_id"],
        "give the 33-byte compressed public key of the node";
    /// A network or Bitcoin address that cannot be read, or does not fit what was agreed.
    AddressInvalid = "ADDRESS_INVALID", InvalidArgument, Changed, ["address"],
        "check the address";
    /// An address, invoice, offer or payment request of another network.
    WrongNetwork = "WRONG_NETWORK", InvalidArgument, Changed, ["network", "address"],
        "use one of this node's network";
    /// Nobody answers there, or it is another node.
    PeerUnreachable = "PEER_UNREACHABLE", Unavailable, Later, ["node_id", "address"],
        "check that the peer runs and that its address is right";
    /// This node is neither connected to it nor remembers it.
    PeerUnknown = "PEER_UNKNOWN", NotFound, Changed, ["node_id"], "list the peers";
    /// The peer is not connected, and cannot be asked.
    PeerOffline = "PEER_OFFLINE", FailedPrecondition, AfterRemedy, ["node_id", "hub_node_id"],
        "connect the peer and try again, or close by force";
    /// Capacity below or above what is allowed.
    CapacityOutOfRange = "CAPACITY_OUT_OF_RANGE", InvalidArgument, Changed,
        ["capacity_sat", "inbound_sat", "least_sat", "most_sat"],
        "choose a capacity within the range the message names";
    /// More given to the peer than the channel holds.
    PushExceedsCapacity = "PUSH_EXCEEDS_CAPACITY", InvalidArgument, Changed,
        ["push_msat", "capacity_sat"], "give the peer less, or open a larger channel";
    /// A feerate out of range; of a replacement, one that is not above the first.
    FeerateOutOfRange = "FEERATE_OUT_OF_RANGE", InvalidArgument, Changed,
        ["feerate_sat_per_vb", "feerate_sat_per_kw", "given_sat_per_kw", "required_sat_per_kw"],
        "choose 1 to 10,000 sat/vB, or leave it out";
    /// Not enough on-chain coins that are confirmed and not taken by other transactions.
    FundsInsufficient = "FUNDS_INSUFFICIENT", FailedPrecondition, AfterRemedy,
        ["capacity_sat", "fee_sat", "spendable_sat", "reserved_sat", "needed_sat",
            "available_sat", "locked_sat"],
        "send coins to a wallet address, wait for confirmation, or ask for less";
    /// The coins kept for the fees of force-closes would fall short.
    AnchorReserveWouldBreak = "ANCHOR_RESERVE_WOULD_BREAK", FailedPrecondition, AfterRemedy,
        ["capacity_sat", "fee_sat", "spendable_sat", "reserved_sat", "left_sat",
            "available_sat", "reserve_sat", "channels"],
        "send coins to a wallet address or ask for less; the reserve pays for force-closes";
    /// What is asked for does not go with the way of funding.
    FundingUnsupported = "FUNDING_UNSUPPORTED", InvalidArgument, Changed, [],
        "leave out the field that the message names, or fund the channel by its own transaction";
    /// There is no such channel.
    ChannelUnknown = "CHANNEL_UNKNOWN", NotFound, Changed, ["record_id"], "list the channels";
    /// There is no such batch, or no such wish for a channel of one.
    BatchUnknown = "BATCH_UNKNOWN", NotFound, Changed, ["batch_id", "registration_id"],
        "list the wishes";
    /// The batch, or the channel of a batch, is in a state that does not allow it.
    BatchState = "BATCH_STATE", FailedPrecondition, Later,
        ["batch_id", "state", "closing_balance_sat", "htlcs"],
        "show the wish and see its state";
    /// This node does not do that in batches.
    BatchRole = "BATCH_ROLE", FailedPrecondition, AfterRemedy, [],
        "set batch.role in the configuration";
    /// There is no such tower.
    TowerUnknown = "TOWER_UNKNOWN", NotFound, Changed, [], "list the towers";
    /// Nobody answers there, or it is another tower.
    TowerUnreachable = "TOWER_UNREACHABLE", Unavailable, Later, [],
        "check that the tower runs, and its key and address";
    /// A tower does not take this node.
    TowerRefused = "TOWER_REFUSED", FailedPrecondition, AfterRemedy, [],
        "see the message, or choose another tower";
    /// A tower takes no more clients.
    TowerFull = "TOWER_FULL", ResourceExhausted, Later, [], "choose another tower";
    /// A request to a tower that its client did not sign, or signed for another tower.
    SignatureInvalid = "SIGNATURE_INVALID", Unauthenticated, Changed, [],
        "sign with the key that was registered, for this very tower";
    /// A client that never registered with this tower.
    ClientUnknown = "CLIENT_UNKNOWN", NotFound, AfterRemedy, [], "register first";
    /// A subscription to a tower that has ended.
    SubscriptionOver = "SUBSCRIPTION_OVER", FailedPrecondition, AfterRemedy, [],
        "register again";
    /// More appointments than a subscription to a tower holds.
    QuotaExhausted = "QUOTA_EXHAUSTED", ResourceExhausted, AfterRemedy, [],
        "forget closed channels, or choose another tower";
    /// An appointment that the tower's policy does not allow.
    AppointmentRefused = "APPOINTMENT_REFUSED", InvalidArgument, Changed, [],
        "see the message; GetTerms says what the tower takes";
    /// A path of a batch that the tower does not publish.
    WatchRefused = "WATCH_REFUSED", InvalidArgument, Changed, [], "see the message";
    /// The tower's chain cannot be asked.
    ChainAway = "CHAIN_AWAY", Unavailable, Later, [], "try again";
    /// Another appointment is in its place.
    AppointmentConflict = "APPOINTMENT_CONFLICT", AlreadyExists, Changed, [],
        "send each revoked state once, with a number above those before";
    /// There is no such withdrawal or deposit.
    SwapUnknown = "SWAP_UNKNOWN", NotFound, Changed, ["swap_id"], "list the swaps";
    /// A channel with this peer is being opened; a second one at the same time is a mistake.
    ChannelOpening = "CHANNEL_OPENING", AlreadyExists, Later, ["node_id", "record_id"],
        "follow the channel the metadata names, or close it";
    /// The values make no channel that can be; the message has the protocol's word.
    ChannelRefused = "CHANNEL_REFUSED", FailedPrecondition, Changed, [],
        "see the message, and ask otherwise";
    /// The channel is in a state that does not allow it.
    ChannelState = "CHANNEL_STATE", FailedPrecondition, Later, ["state"],
        "get the channel and see its state";
    /// A forwarding or batch policy out of range.
    PolicyOutOfRange = "POLICY_OUT_OF_RANGE", InvalidArgument, Changed,
        ["allowed", "batch.*"], "choose values within the ranges the message names";
    /// An amount of 0, below what the method takes, or beyond all bitcoin.
    AmountOutOfRange = "AMOUNT_OUT_OF_RANGE", InvalidArgument, Changed,
        ["amount_msat", "amount_sat", "minimum_sat"],
        "choose an amount within the range the message names";
    /// The target names no amount and neither does the call.
    AmountMissing = "AMOUNT_MISSING", InvalidArgument, Changed, [], "give amount_msat";
    /// The target names another amount than the call.
    AmountMismatch = "AMOUNT_MISMATCH", InvalidArgument, Changed, ["asked_msat", "given_msat"],
        "leave amount_msat out, or give the amount the invoice names";
    /// An output too small to be relayed.
    AmountDust = "AMOUNT_DUST", InvalidArgument, Changed,
        ["amount_sat", "amount_msat", "least_sat"], "send more than the dust limit";
    /// A description that does not fit or is missing.
    DescriptionInvalid = "DESCRIPTION_INVALID", InvalidArgument, Changed, [],
        "give at most 639 bytes of text, or a 32-byte hash";
    /// A life of an invoice or offer that is out of range.
    ExpiryOutOfRange = "EXPIRY_OUT_OF_RANGE", InvalidArgument, Changed, ["expiry_seconds"],
        "choose a life within the range the message names";
    /// A CLTV delta out of range.
    CltvOutOfRange = "CLTV_OUT_OF_RANGE", InvalidArgument, Changed, [],
        "choose a delta within the range the message names";
    /// Not 32 bytes of a hash.
    HashInvalid = "HASH_INVALID", InvalidArgument, Changed, [], "give a 32-byte hash";
    /// Not 32 bytes, or of no known hash.
    PreimageInvalid = "PREIMAGE_INVALID", InvalidArgument, Changed, ["payment_hash"],
        "give the 32 bytes whose SHA-256 is the invoice's hash";
    /// An offer names ways to this node, and no peer is connected that could be one.
    NotReachable = "NOT_REACHABLE", FailedPrecondition, Later, [],
        "connect a peer and repeat the call";
    /// There is an invoice with this hash.
    InvoiceExists = "INVOICE_EXISTS", AlreadyExists, Changed, ["payment_hash"],
        "use another hash: each may be used once";
    /// An invoice or offer that cannot be read, or whose signature is wrong.
    InvoiceInvalid = "INVOICE_INVALID", InvalidArgument, Changed, [],
        "check that the text is complete, or ask for a new one";
    /// An invoice or offer that has expired.
    InvoiceExpired = "INVOICE_EXPIRED", FailedPrecondition, Changed, ["expired_seconds"],
        "ask the recipient for a new one";
    /// The invoice is paid or being paid; an invoice is paid once.
    InvoiceAlreadyPaid = "INVOICE_ALREADY_PAID", AlreadyExists, Changed,
        ["payment_hash", "payment_id"],
        "look at the payment the metadata names; ask for a new invoice to pay again";
    /// There is no such invoice of this node.
    InvoiceUnknown = "INVOICE_UNKNOWN", NotFound, Changed, ["payment_hash"],
        "list the invoices";
    /// The invoice is in a state that does not allow it.
    InvoiceState = "INVOICE_STATE", FailedPrecondition, Later, ["state"],
        "look the invoice up and see its state";
    /// A custom record with a reserved type, twice the same, or too long.
    CustomRecordInvalid = "CUSTOM_RECORD_INVALID", InvalidArgument, Changed, ["type"],
        "use types from 65,536 on, each once, about 1,000 bytes together";
    /// A text that asks for a payment in no way that is known, or contradicts itself.
    PaymentRequestInvalid = "PAYMENT_REQUEST_INVALID", InvalidArgument, Changed, [],
        "check that the text is complete, or ask for another one";
    /// The request was read, and none of its ways can be paid by this node.
    NothingPayable = "NOTHING_PAYABLE", FailedPrecondition, Changed, [],
        "see the message for each way; ask the recipient for another one";
    /// Names such as ₿user@domain are not looked up: no resolver is configured.
    NamesOff = "NAMES_OFF", FailedPrecondition, AfterRemedy, [],
        "set dns.resolver in the configuration, or ask for an offer or invoice";
    /// Nobody is known under this name.
    NameUnknown = "NAME_UNKNOWN", NotFound, Changed, ["name"],
        "check the name with the recipient";
    /// What was found under the name is not proven by signatures up to the root of the DNS, has
    /// expired, or is ambiguous. It may be forged.
    NameUnproven = "NAME_UNPROVEN", FailedPrecondition, Later, ["name"],
        "ask the recipient for an offer or invoice, and to sign the domain (DNSSEC)";
    /// The configured resolver of names does not answer.
    ResolverUnreachable = "RESOLVER_UNREACHABLE", Unavailable, Later, ["resolver"],
        "check dns.resolver and the network; it must speak DNS over TCP";
    /// Usable channels hold less than is to be sent.
    LiquidityInsufficient = "LIQUIDITY_INSUFFICIENT", FailedPrecondition, AfterRemedy,
        ["amount_msat", "spendable_msat", "needed_msat", "most_msat"],
        "pay less, open a channel, or wait for incoming payments";
    /// No route carries the amount within the fee limit.
    NoRoute = "NO_ROUTE", FailedPrecondition, Later, ["amount_msat"],
        "raise max_fee_msat, pay less, or open a channel towards the recipient";
    /// The recipient is this node.
    PaymentToSelf = "PAYMENT_TO_SELF", FailedPrecondition, Changed, [], "pay another node";
    /// As many payments are under way as the node admits at once.
    TooManyInFlight = "TOO_MANY_IN_FLIGHT", ResourceExhausted, Later, ["payments_in_flight_max"],
        "wait for payments to be resolved and repeat the call with its key";
    /// There is no such payment.
    PaymentUnknown = "PAYMENT_UNKNOWN", NotFound, Changed, ["payment_id"], "list the payments";
    /// The transaction would cost more in fees than the call allows.
    FeeAboveMax = "FEE_ABOVE_MAX", FailedPrecondition, Later, ["fee_sat", "max_fee_sat"],
        "give a higher max_fee_sat, a lower feerate, or wait";
    /// There is no such transaction in the wallet.
    TransactionUnknown = "TRANSACTION_UNKNOWN", NotFound, Changed, ["txid"],
        "list the transactions";
    /// A transaction that is confirmed or cannot be replaced.
    TransactionNotReplaceable = "TRANSACTION_NOT_REPLACEABLE", FailedPrecondition, Changed,
        ["txid", "block_height"],
        "a confirmed transaction needs no fee; a channel's funding is never replaced";
    /// Events asked for are no longer kept.
    EventsPruned = "EVENTS_PRUNED", OutOfRange, Changed, ["oldest_sequence"],
        "list payments, invoices and channels once, then subscribe from oldest_sequence";
    /// Events asked for are yet to come: the log is shorter than the caller remembers it.
    EventsAhead = "EVENTS_AHEAD", OutOfRange, Changed, ["after_sequence", "newest_sequence"],
        "subscribe after newest_sequence; was the node restored from an old backup?";
    /// There is no such webhook endpoint.
    WebhookUnknown = "WEBHOOK_UNKNOWN", NotFound, Changed, ["endpoint_id"],
        "list the webhook endpoints";
    /// A URL that nothing is sent to: not https, or in a network that is not public.
    WebhookUrlRefused = "WEBHOOK_URL_REFUSED", InvalidArgument, Changed, [],
        "give a public https URL, or see webhook.allow_private in the configuration";
    /// As many webhook endpoints as there may be.
    WebhooksFull = "WEBHOOKS_FULL", ResourceExhausted, AfterRemedy, ["endpoints_max"],
        "delete one that is not needed, or raise webhook.endpoints_max";
    /// There is no payout with this id, or the token does not see it.
    PayoutUnknown = "PAYOUT_UNKNOWN", NotFound, Changed, ["payout_id"], "list the payouts";
    /// The payout has no line with this number.
    PayoutLineUnknown = "PAYOUT_LINE_UNKNOWN", NotFound, Changed, ["payout_id", "line"],
        "list the payout's lines";
    /// The file or stream is empty, too long, or does not name its columns. Single bad lines are
    /// no reason: they are listed with the payout.
    PayoutFileInvalid = "PAYOUT_FILE_INVALID", InvalidArgument, Changed, [],
        "begin with a line that names the columns, and give 1 to payouts.lines_max lines";
    /// As many payouts are open as there may be.
    PayoutsFull = "PAYOUTS_FULL", ResourceExhausted, AfterRemedy, ["open_max"],
        "cancel one that is not needed, or raise payouts.open_max";
    /// What is accepted is not what was quoted.
    PayoutQuote = "PAYOUT_QUOTE", FailedPrecondition, Changed, ["total_msat", "max_fee_msat"],
        "get the payout, and accept total_msat and max_fee_msat of its quote";
    /// Some lines cannot be paid, and the call does not say to leave them out.
    PayoutBadLines = "PAYOUT_BAD_LINES", FailedPrecondition, Changed, ["bad_lines"],
        "list the bad lines and correct the file, or set skip_bad_lines";
    /// The payout is in a state that does not allow it.
    PayoutState = "PAYOUT_STATE", FailedPrecondition, AfterRemedy,
        ["state", "run_msat", "budget_msat", "schedule_payout_id"],
        "get the payout and see its state";
    /// Lines and records of payments do not agree. Nothing is reconciled until they do.
    PayoutUnbalanced = "PAYOUT_UNBALANCED", FailedPrecondition, AfterRemedy, ["payout_id"],
        "see the message and report it; pay nothing of the payout anew";
    /// The store failed; nothing further is accepted. What was recorded before is known after
    /// the next start.
    StoreFailed = "STORE_FAILED", Internal, AfterRemedy, ["sequence"],
        "see the node's log, free the disk, and restart the node";
    /// An error of the node itself.
    Internal = "INTERNAL", Internal, Changed, ["state"], "see the node's log and report it";
}

impl Reason {
    /// Returns the reason of that name, in capitals or not.
    pub fn of_name(name: &str) -> Option<Reason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str().eq_ignore_ascii_case(name))
    }

    /// Whether a refusal for this reason may have metadata under `key`.
    pub fn may_carry(self, key: &str) -> bool {
        let documented = |known: &&str| match known.strip_suffix('*') {
            Some(start) => key.starts_with(start),
            None => *known == key,
        };
        GENERAL_METADATA.contains(&key) || self.metadata().iter().any(documented)
    }
}

/// Returns the name of a code, as gRPC spells it.
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
