//! Every error of a service as a refusal: its reason, its numbers, and whether money may have
//! moved.
//!
//! An error says that nothing has changed, with one exception: when the store fails after a
//! mutation was recorded, only the next start tells the outcome. That exception is
//! [`unknown_outcome`], and every mutation's conversion uses it.

use super::status::{Reason, Refusal};
use crate::batches::{ExitError, JoinError, OperatorError, ReleaseError};
use crate::channels::{CAPACITY_SAT_MAX, CAPACITY_SAT_MIN, CloseError, OpenError};
use crate::environment::LinkError;
use crate::journal::{IdempotencyError, JournalError};
use crate::lightning::{ChannelCommandError, ConnectError, DecodeError, InvoiceError};
use crate::onchain::{AddressError, BumpFeeError, SendCoinsError};
use crate::payments::{CreateInvoiceError, HoldError, PayError, Rejection};
use crate::store::StoreError;
use crate::swaps::SwapError;
use crate::tokens::{BakeError, RevokeError, SpendingError, TokenRefusal};
use crate::wallet::{BumpError, SpendError};

/// Refuses a mutation whose outcome the store's failure hides until the next start.
fn unknown_outcome(error: &StoreError) -> Refusal {
    Refusal::new(Reason::StoreFailed, error).money_may_have_moved(true).remedy(
        "see the node's log, restart the node, then repeat the call with the same key: \
             it is answered from what was recorded",
    )
}

/// Reads fail without consequence.
impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(Reason::StoreFailed, error)
    }
}

impl From<IdempotencyError> for Refusal {
    fn from(error: IdempotencyError) -> Self {
        Self::from(&error)
    }
}

impl From<&IdempotencyError> for Refusal {
    fn from(error: &IdempotencyError) -> Self {
        match error {
            IdempotencyError::Conflict { key } => {
                // What the key was first used for may well have moved money.
                Self::new(Reason::IdempotencyKeyReused, error).with("idempotency_key", key)
            }
            IdempotencyError::KeyTooLong { bytes } => {
                Self::new(Reason::IdempotencyKeyInvalid, error).with("length_bytes", bytes)
            }
            IdempotencyError::Store(store) => unknown_outcome(store),
        }
    }
}

impl From<JournalError> for Refusal {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::Pruned { first_kept } => {
                Self::new(Reason::EventsPruned, &error).with("oldest_sequence", first_kept)
            }
            JournalError::Unreadable { sequence, .. } => {
                Self::new(Reason::StoreFailed, &error).with("sequence", sequence)
            }
            JournalError::Store(_) => Self::new(Reason::StoreFailed, &error),
        }
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        Self::new(Reason::InvoiceInvalid, error)
    }
}

impl From<PayError> for Refusal {
    fn from(error: PayError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            PayError::Decode(_) => refuse(Reason::InvoiceInvalid),
            PayError::WrongNetwork { ours } => refuse(Reason::WrongNetwork).with("network", ours),
            PayError::Expired { seconds } => {
                refuse(Reason::InvoiceExpired).with("expired_seconds", seconds)
            }
            PayError::ZeroAmount => refuse(Reason::AmountOutOfRange).with("amount_msat", 0),
            PayError::AmountMissing => refuse(Reason::AmountMissing),
            PayError::AmountMismatch { asked_msat, given_msat } => refuse(Reason::AmountMismatch)
                .with("asked_msat", asked_msat)
                .with("given_msat", given_msat),
            PayError::AmountTooHigh { amount_msat } => {
                refuse(Reason::AmountOutOfRange).with("amount_msat", amount_msat)
            }
            PayError::InsufficientBalance { amount_msat, spendable_msat } => {
                refuse(Reason::LiquidityInsufficient)
                    .with("amount_msat", amount_msat)
                    .with("spendable_msat", spendable_msat)
            }
            PayError::NoUsableChannel => {
                refuse(Reason::LiquidityInsufficient).with("spendable_msat", 0)
            }
            PayError::PaysItself => refuse(Reason::PaymentToSelf),
            PayError::AlreadyPaid { hash, id } => refuse(Reason::InvoiceAlreadyPaid)
                .with("payment_hash", hash)
                .with("payment_id", id)
                // The other payment is or was under way.
                .money_may_have_moved(true),
            PayError::Token(error) => Self::from(error),
            PayError::Idempotency(IdempotencyError::Store(store)) | PayError::Store(store) => {
                unknown_outcome(store)
            }
            PayError::Idempotency(IdempotencyError::Conflict { key }) => {
                refuse(Reason::IdempotencyKeyReused)
                    .with("idempotency_key", key)
                    .money_may_have_moved(true)
            }
            PayError::Idempotency(IdempotencyError::KeyTooLong { bytes }) => {
                refuse(Reason::IdempotencyKeyInvalid).with("length_bytes", bytes)
            }
        }
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            JoinError::NotUser => refuse(Reason::BatchRole),
            JoinError::NotConnected(hub) => refuse(Reason::PeerOffline).with("hub_node_id", hub),
            JoinError::Inbound { inbound, capacity } => refuse(Reason::CapacityOutOfRange)
                .with("inbound_sat", inbound.to_sat())
                .with("capacity_sat", capacity.to_sat()),
            JoinError::Capacity { capacity, .. } => {
                refuse(Reason::CapacityOutOfRange).with("capacity_sat", capacity.to_sat())
            }
            JoinError::Idempotency(error) => Self::from(error).money_may_have_moved(false),
            JoinError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

impl From<OperatorError> for Refusal {
    fn from(error: OperatorError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            OperatorError::NotHub => refuse(Reason::BatchRole),
            OperatorError::NotSynced => refuse(Reason::ChainNotSynced),
            OperatorError::Unknown(id) => refuse(Reason::BatchUnknown).with("batch_id", id),
            OperatorError::Gathering(id) => refuse(Reason::BatchState).with("batch_id", id),
            OperatorError::NotGathering { batch, phase } => refuse(Reason::BatchState)
                .with("batch_id", batch)
                .with("state", format_args!("{phase:?}")),
            OperatorError::Invalid(invalid) => refuse(Reason::PolicyOutOfRange)
                .with(invalid.key, &invalid.value)
                .with("allowed", &invalid.allowed),
            OperatorError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

impl From<SwapError> for Refusal {
    fn from(error: SwapError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            SwapError::NotUser => refuse(Reason::BatchRole),
            SwapError::TooSmall { amount, least } => refuse(Reason::AmountOutOfRange)
                .with("amount_sat", amount.to_sat())
                .with("minimum_sat", least.to_sat()),
            SwapError::NoChannel { needed_msat, most_msat, .. } => {
                refuse(Reason::LiquidityInsufficient)
                    .with("needed_msat", needed_msat)
                    .with("most_msat", most_msat)
            }
            SwapError::Address { address, .. } => {
                refuse(Reason::AddressInvalid).with("address", address)
            }
            SwapError::InsufficientFunds { available, needed } => refuse(Reason::FundsInsufficient)
                .with("available_sat", available.to_sat())
                .with("needed_sat", needed.to_sat()),
            SwapError::Idempotency(error) => Self::from(error).money_may_have_moved(false),
            // The hub was asked already, if the record is there.
            SwapError::Store(error) => unknown_outcome(error),
        }
    }
}

impl From<ExitError> for Refusal {
    fn from(error: ExitError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            ExitError::Unknown(id) => refuse(Reason::BatchUnknown).with("registration_id", id),
            ExitError::NotConfirmed { phase } => {
                refuse(Reason::BatchState).with("state", format_args!("{phase:?}"))
            }
            // The path may be on its way; that moves nobody's money.
            ExitError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

impl From<ReleaseError> for Refusal {
    fn from(error: ReleaseError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            ReleaseError::Unknown { registration } => {
                refuse(Reason::BatchUnknown).with("registration_id", registration)
            }
            ReleaseError::NotReleasable { phase, closing_balance, htlcs } => {
                refuse(Reason::BatchState)
                    .with("state", format_args!("{phase:?}"))
                    .with("closing_balance_sat", closing_balance.to_sat())
                    .with("htlcs", htlcs)
            }
            ReleaseError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

impl From<HoldError> for Refusal {
    fn from(error: HoldError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            HoldError::Rejected(Rejection::NotHeld) => {
                refuse(Reason::InvoiceState).with("state", "nothing held")
            }
            HoldError::Rejected(Rejection::WrongState { state }) => {
                refuse(Reason::InvoiceState).with("state", format_args!("{state:?}"))
            }
            HoldError::Rejected(Rejection::WrongPreimage { hash }) => {
                refuse(Reason::PreimageInvalid).with("payment_hash", hash)
            }
            HoldError::Rejected(Rejection::Contradiction { state }) => refuse(Reason::Internal)
                .with("state", format_args!("{state:?}"))
                .money_may_have_moved(true),
            HoldError::Unknown(hash) => refuse(Reason::InvoiceUnknown).with("payment_hash", hash),
            HoldError::Store(store) => unknown_outcome(store),
        }
    }
}

impl From<CreateInvoiceError> for Refusal {
    fn from(error: CreateInvoiceError) -> Self {
        let refuse = |reason| Self::new(reason, &error);
        match &error {
            CreateInvoiceError::ZeroAmount => {
                refuse(Reason::AmountOutOfRange).with("amount_msat", 0)
            }
            CreateInvoiceError::AmountTooHigh { amount_msat } => {
                refuse(Reason::AmountOutOfRange).with("amount_msat", amount_msat)
            }
            CreateInvoiceError::DescriptionMissing => refuse(Reason::DescriptionInvalid),
            CreateInvoiceError::ExpiryOutOfRange { seconds } => {
                refuse(Reason::ExpiryOutOfRange).with("expiry_seconds", seconds)
            }
            CreateInvoiceError::HashUsed { hash } => {
                refuse(Reason::InvoiceExists).with("payment_hash", hash)
            }
            CreateInvoiceError::Invoice(InvoiceError::DescriptionTooLong { bytes }) => {
                refuse(Reason::DescriptionInvalid).with("length_bytes", bytes)
            }
            CreateInvoiceError::Invoice(InvoiceError::CltvTooShort { given, least }) => {
                refuse(Reason::CltvOutOfRange).with("given", given).with("least", least)
            }
            CreateInvoiceError::Invoice(InvoiceError::Refused(_)) => refuse(Reason::Internal),
            // Making an invoice moves nothing, whatever became of its record.
            CreateInvoiceError::Idempotency(error) => Self::from(error).money_may_have_moved(false),
            CreateInvoiceError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

impl From<ConnectError> for Refusal {
    fn from(error: ConnectError) -> Self {
        Self::from(&error)
    }
}

impl From<&ConnectError> for Refusal {
    fn from(error: &ConnectError) -> Self {
        match error {
            ConnectError::Link(LinkError::Unresolvable { address, .. }) => {
                Self::new(Reason::AddressInvalid, error).with("address", address)
            }
            ConnectError::Link(
                LinkError::Unreachable { address, .. } | LinkError::CannotListen { address, .. },
            ) => Self::new(Reason::PeerUnreachable, error).with("address", address),
            ConnectError::Handshake { node_id, address } => {
                Self::new(Reason::PeerUnreachable, error)
                    .with("node_id", node_id)
                    .with("address", address)
            }
            ConnectError::Myself(node_id) => {
                Self::new(Reason::NodeIdInvalid, error).with("node_id", node_id)
            }
        }
    }
}

impl From<ChannelCommandError> for Refusal {
    fn from(error: ChannelCommandError) -> Self {
        Self::from(&error)
    }
}

impl From<&ChannelCommandError> for Refusal {
    fn from(error: &ChannelCommandError) -> Self {
        let reason = match error {
            ChannelCommandError::Unavailable(_) => Reason::ChannelState,
            ChannelCommandError::Refused(_) => Reason::ChannelRefused,
            ChannelCommandError::FixedShutdownAddress => Reason::AddressInvalid,
        };
        Self::new(reason, error)
    }
}

impl From<OpenError> for Refusal {
    fn from(error: OpenError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            OpenError::CapacityOutOfRange { capacity_sat } => refuse(Reason::CapacityOutOfRange)
                .with("capacity_sat", capacity_sat)
                .with("least_sat", CAPACITY_SAT_MIN)
                .with("most_sat", CAPACITY_SAT_MAX),
            OpenError::PushExceedsCapacity { push_msat, capacity_sat } => {
                refuse(Reason::PushExceedsCapacity)
                    .with("push_msat", push_msat)
                    .with("capacity_sat", capacity_sat)
            }
            OpenError::FeerateOutOfRange { sat_per_vb } => {
                refuse(Reason::FeerateOutOfRange).with("feerate_sat_per_vb", sat_per_vb)
            }
            OpenError::InsufficientFunds { capacity_sat, fee_sat, spendable_sat, reserved_sat } => {
                // Enough coins, were it not for the reserve: the caller can do other things.
                let short_by_reserve = capacity_sat.saturating_add(*fee_sat)
                    <= spendable_sat.saturating_add(*reserved_sat);
                let reason = match short_by_reserve {
                    true => Reason::AnchorReserveWouldBreak,
                    false => Reason::FundsInsufficient,
                };
                refuse(reason)
                    .with("capacity_sat", capacity_sat)
                    .with("fee_sat", fee_sat)
                    .with("spendable_sat", spendable_sat)
                    .with("reserved_sat", reserved_sat)
            }
            OpenError::AddressUnknown { peer } => refuse(Reason::PeerUnreachable)
                .with("node_id", peer)
                .remedy("give the peer's address as host:port"),
            OpenError::Connect(error) => Self::from(error).money_may_have_moved(false),
            OpenError::InProgress { peer, channel } => {
                refuse(Reason::ChannelOpening).with("node_id", peer).with("record_id", channel)
            }
            OpenError::Token(error) => Self::from(error),
            OpenError::ChainNotSynced => refuse(Reason::ChainNotSynced),
            OpenError::Refused(error) => Self::from(error).money_may_have_moved(false),
            OpenError::Idempotency(error) => Self::from(error).money_may_have_moved(true),
            OpenError::Store(error) => unknown_outcome(error),
        }
    }
}

impl From<CloseError> for Refusal {
    fn from(error: CloseError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            CloseError::Unknown(channel) => {
                refuse(Reason::ChannelUnknown).with("record_id", channel)
            }
            CloseError::WrongState { state } => {
                refuse(Reason::ChannelState).with("state", format_args!("{state:?}"))
            }
            CloseError::PeerOffline { peer } => refuse(Reason::PeerOffline).with("node_id", peer),
            CloseError::Refused(error) => Self::from(error).money_may_have_moved(false),
            CloseError::Idempotency(error) => Self::from(error).money_may_have_moved(true),
            CloseError::Store(error) => unknown_outcome(error),
        }
    }
}

impl From<AddressError> for Refusal {
    fn from(error: AddressError) -> Self {
        let refusal = match &error {
            AddressError::Idempotency(error) => Self::from(error),
            AddressError::Store(error) => unknown_outcome(error),
        };
        // An address that nobody has seen costs nothing.
        refusal.money_may_have_moved(false)
    }
}

impl From<SendCoinsError> for Refusal {
    fn from(error: SendCoinsError) -> Self {
        match &error {
            SendCoinsError::Spend(error) => spend(error),
            SendCoinsError::Token(error) => Self::from(error),
            SendCoinsError::Idempotency(error) => Self::from(error).money_may_have_moved(true),
            SendCoinsError::Store(error) => unknown_outcome(error),
        }
    }
}

impl From<BumpFeeError> for Refusal {
    fn from(error: BumpFeeError) -> Self {
        match &error {
            BumpFeeError::Bump(error) => bump(error),
            BumpFeeError::Token(error) => Self::from(error),
            BumpFeeError::Idempotency(error) => Self::from(error).money_may_have_moved(true),
            BumpFeeError::Store(error) => unknown_outcome(error),
        }
    }
}

impl From<&SpendingError> for Refusal {
    fn from(error: &SpendingError) -> Self {
        let refuse = |reason| Self::new(reason, error).money_may_have_moved(false);
        match error {
            SpendingError::PerCall { most_msat, limit_msat } => refuse(Reason::CallLimitExceeded)
                .with("most_msat", most_msat)
                .with("limit_msat", limit_msat),
            SpendingError::Budget { most_msat, left_msat, budget_msat } => {
                refuse(Reason::BudgetExhausted)
                    .with("most_msat", most_msat)
                    .with("budget_left_msat", left_msat)
                    .with("budget_msat", budget_msat)
            }
            SpendingError::Payee { payee: Some(payee) } => {
                refuse(Reason::PayeeDenied).with("node_id", payee)
            }
            SpendingError::Payee { payee: None } => refuse(Reason::PayeeDenied),
        }
    }
}

impl From<TokenRefusal> for Refusal {
    fn from(error: TokenRefusal) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            TokenRefusal::Unreadable(_) | TokenRefusal::NotOurs => refuse(Reason::TokenInvalid),
            TokenRefusal::Revoked(id) => refuse(Reason::TokenRevoked).with("token_id", id),
            TokenRefusal::Expired { id, seconds } => {
                refuse(Reason::TokenExpired).with("token_id", id).with("expired_seconds", seconds)
            }
            TokenRefusal::Source { id, source_ip } => {
                let refusal = refuse(Reason::SourceDenied).with("token_id", id);
                source_ip.iter().fold(refusal, |refusal, ip| refusal.with("source", ip))
            }
        }
    }
}

impl From<BakeError> for Refusal {
    fn from(error: BakeError) -> Self {
        let refusal = match &error {
            BakeError::Token(error) => Self::field("restrictions", error),
            BakeError::Idempotency(error) => Self::from(error),
            BakeError::Store(error) => unknown_outcome(error),
        };
        // Baking moves nothing.
        refusal.money_may_have_moved(false)
    }
}

impl From<RevokeError> for Refusal {
    fn from(error: RevokeError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            RevokeError::Unknown(id) => refuse(Reason::TokenUnknown).with("token_id", id),
            RevokeError::NotOurs => refuse(Reason::TokenUnknown),
            RevokeError::Store(error) => unknown_outcome(error).money_may_have_moved(false),
        }
    }
}

/// Refuses a transaction that cannot be built; no coin has moved.
fn spend(error: &SpendError) -> Refusal {
    let refuse = |reason| Refusal::new(reason, error).money_may_have_moved(false);
    match error {
        SpendError::FeerateOutOfRange { sat_per_kwu } => {
            refuse(Reason::FeerateOutOfRange).with("feerate_sat_per_kw", sat_per_kwu)
        }
        SpendError::BadAddress { address, .. } => {
            refuse(Reason::AddressInvalid).with("address", address)
        }
        SpendError::WrongNetwork { address, expected } => {
            refuse(Reason::WrongNetwork).with("address", address).with("network", expected)
        }
        SpendError::NoOutputs | SpendError::Internal(_) => refuse(Reason::Internal),
        SpendError::Declined { cost } => {
            refuse(Reason::BudgetExhausted).with("cost_sat", cost.to_sat())
        }
        SpendError::Dust { amount, minimum } => refuse(Reason::AmountDust)
            .with("amount_sat", amount.to_sat())
            .with("least_sat", minimum.to_sat()),
        SpendError::InsufficientFunds { needed, available, held } => {
            refuse(Reason::FundsInsufficient)
                .with("needed_sat", needed.to_sat())
                .with("available_sat", available.to_sat())
                .with("locked_sat", held.to_sat())
        }
        SpendError::BreaksReserve { left, available, reserve, channels } => {
            refuse(Reason::AnchorReserveWouldBreak)
                .with("left_sat", left.to_sat())
                .with("available_sat", available.to_sat())
                .with("reserve_sat", reserve.to_sat())
                .with("channels", channels)
        }
    }
}

/// Refuses a replacement; the old transaction stands.
fn bump(error: &BumpError) -> Refusal {
    let refuse = |reason| Refusal::new(reason, error).money_may_have_moved(false);
    match error {
        BumpError::Unknown { txid } => refuse(Reason::TransactionUnknown).with("txid", txid),
        BumpError::Confirmed { txid, height } => refuse(Reason::TransactionNotReplaceable)
            .with("txid", txid)
            .with("block_height", height),
        BumpError::NotReplaceable { txid, .. } | BumpError::NoOutput { txid } => {
            refuse(Reason::TransactionNotReplaceable).with("txid", txid)
        }
        BumpError::FeerateTooLow { given, required } => refuse(Reason::FeerateOutOfRange)
            .with("given_sat_per_kw", given)
            .with("required_sat_per_kw", required)
            .remedy("choose a higher feerate"),
        BumpError::Spend(error) => spend(error),
    }
}

#[cfg(test)]
mod tests;
