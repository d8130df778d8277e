//! Every error of every service, once: its reason, and what it says about money.

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use tonic::{Code, Status};

use super::super::status::explain;
use super::*;
use crate::channels::ChannelState;
use crate::lightning::types::{ChannelRef, PaymentHash, PaymentId};
use crate::payments::PaymentState;

const HASH: PaymentHash = PaymentHash([7; 32]);
const ID: PaymentId = PaymentId([8; 32]);
const CHANNEL: ChannelRef = ChannelRef([9; 16]);

fn peer() -> PublicKey {
    SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new())
}

fn failed() -> StoreError {
    StoreError::Failed("disk pulled".into())
}

fn conflict() -> IdempotencyError {
    IdempotencyError::Conflict { key: "k".into() }
}

/// The reason, and what is said about money, as a client reads it from the wire.
#[track_caller]
fn check(refusal: impl Into<Refusal>, reason: Reason, money: Option<bool>) -> Status {
    let status = Status::from(refusal.into());
    let read = explain(&status);
    assert_eq!(read.reason.as_deref(), Some(reason.as_str()), "{}", read.message);
    assert_eq!(read.money_may_have_moved, money, "{reason}: {}", read.message);
    assert_eq!(status.code(), reason.code());
    assert!(!read.message.is_empty() && read.remedy.is_some());
    status
}

#[test]
fn refused_payments_say_that_no_money_moved() {
    let no = Some(false);
    check(PayError::Decode(DecodeError::Invoice("x".into())), Reason::InvoiceInvalid, no);
    check(PayError::WrongNetwork { ours: Network::Regtest }, Reason::WrongNetwork, no);
    check(PayError::Expired { seconds: 3 }, Reason::InvoiceExpired, no);
    check(PayError::ZeroAmount, Reason::AmountOutOfRange, no);
    check(PayError::AmountMissing, Reason::AmountMissing, no);
    let mismatch = PayError::AmountMismatch { asked_msat: 5, given_msat: 4 };
    let status = check(mismatch, Reason::AmountMismatch, no);
    let metadata = explain(&status).metadata;
    assert_eq!(metadata["asked_msat"], "5");
    assert_eq!(metadata["given_msat"], "4");
    check(PayError::AmountTooHigh { amount_msat: u64::MAX }, Reason::AmountOutOfRange, no);
    let short = PayError::InsufficientBalance { amount_msat: 2, spendable_msat: 1 };
    check(short, Reason::LiquidityInsufficient, no);
    check(PayError::NoUsableChannel, Reason::LiquidityInsufficient, no);
    check(PayError::TooManyInFlight { max: 9 }, Reason::TooManyInFlight, no);
    check(PayError::PaysItself, Reason::PaymentToSelf, no);
}

#[test]
fn a_payment_whose_record_may_exist_says_that_money_may_have_moved() {
    let yes = Some(true);
    let status = check(PayError::Store(failed()), Reason::StoreFailed, yes);
    assert_eq!(status.code(), Code::Internal);
    check(PayError::Idempotency(failed().into()), Reason::StoreFailed, yes);
    check(PayError::Idempotency(conflict()), Reason::IdempotencyKeyReused, yes);
    let long = IdempotencyError::KeyTooLong { bytes: 200 };
    check(PayError::Idempotency(long), Reason::IdempotencyKeyInvalid, Some(false));
    let twice = PayError::AlreadyPaid { hash: HASH, id: ID };
    let status = check(twice, Reason::InvoiceAlreadyPaid, yes);
    assert_eq!(explain(&status).metadata["payment_id"], ID.to_string());
}

#[test]
fn reads_say_nothing_about_money() {
    check(failed(), Reason::StoreFailed, None);
    check(conflict(), Reason::IdempotencyKeyReused, None);
    check(IdempotencyError::KeyTooLong { bytes: 200 }, Reason::IdempotencyKeyInvalid, None);
    check(IdempotencyError::Store(failed()), Reason::StoreFailed, Some(true));
    check(DecodeError::Offer("x".into()), Reason::InvoiceInvalid, None);
    let status = check(JournalError::Pruned { first_kept: 40 }, Reason::EventsPruned, None);
    assert_eq!(status.code(), Code::OutOfRange);
    assert_eq!(explain(&status).metadata["oldest_sequence"], "40");
    let damaged = JournalError::Unreadable { sequence: 4, detail: "x".into() };
    check(damaged, Reason::StoreFailed, None);
    check(JournalError::Store(failed()), Reason::StoreFailed, None);
}

#[test]
fn holds_are_refused_by_state() {
    let no = Some(false);
    check(HoldError::Rejected(Rejection::NotHeld), Reason::InvoiceState, no);
    let wrong = Rejection::WrongState { state: PaymentState::Failed };
    let status = check(HoldError::Rejected(wrong), Reason::InvoiceState, no);
    assert_eq!(explain(&status).metadata["state"], "Failed");
    let preimage = Rejection::WrongPreimage { hash: HASH };
    check(HoldError::Rejected(preimage), Reason::PreimageInvalid, no);
    let broken = Rejection::Contradiction { state: PaymentState::Failed };
    check(HoldError::Rejected(broken), Reason::Internal, Some(true));
    check(HoldError::Unknown(HASH), Reason::InvoiceUnknown, no);
    check(HoldError::Store(failed()), Reason::StoreFailed, Some(true));
}

#[test]
fn invoices_are_refused_by_field() {
    use CreateInvoiceError as E;
    check(E::ZeroAmount, Reason::AmountOutOfRange, None);
    check(E::AmountTooHigh { amount_msat: u64::MAX }, Reason::AmountOutOfRange, None);
    check(E::DescriptionMissing, Reason::DescriptionInvalid, None);
    check(E::ExpiryOutOfRange { seconds: 0 }, Reason::ExpiryOutOfRange, None);
    check(E::HashUsed { hash: HASH }, Reason::InvoiceExists, None);
    let long = InvoiceError::DescriptionTooLong { bytes: 640 };
    check(E::Invoice(long), Reason::DescriptionInvalid, None);
    let short = InvoiceError::CltvTooShort { given: 3, least: 18 };
    check(E::Invoice(short), Reason::CltvOutOfRange, None);
    check(E::Invoice(InvoiceError::Refused("x".into())), Reason::Internal, None);
    check(E::Idempotency(conflict()), Reason::IdempotencyKeyReused, Some(false));
    check(E::Store(failed()), Reason::StoreFailed, Some(false));
}

#[test]
fn peers_are_refused_by_what_failed() {
    let source = || std::io::Error::other("x");
    let address = || "there:9735".to_owned();
    let link = |error: LinkError| ConnectError::Link(error);
    let odd = LinkError::Unresolvable { address: address(), source: source() };
    check(link(odd), Reason::AddressInvalid, None);
    let silent = LinkError::Unreachable { address: address(), source: source() };
    check(link(silent), Reason::PeerUnreachable, None);
    let other = ConnectError::Handshake { node_id: peer(), address: address() };
    check(other, Reason::PeerUnreachable, None);
    check(ConnectError::Myself(peer()), Reason::NodeIdInvalid, None);
}

#[test]
fn opening_is_refused_with_its_numbers() {
    use OpenError as E;
    let no = Some(false);
    check(E::CapacityOutOfRange { capacity_sat: 1 }, Reason::CapacityOutOfRange, no);
    let push = E::PushExceedsCapacity { push_msat: 2_000, capacity_sat: 1 };
    check(push, Reason::PushExceedsCapacity, no);
    check(E::FeerateOutOfRange { sat_per_vb: 0 }, Reason::FeerateOutOfRange, no);
    let funds = |spendable_sat, reserved_sat| E::InsufficientFunds {
        capacity_sat: 100,
        fee_sat: 10,
        spendable_sat,
        reserved_sat,
    };
    let status = check(funds(50, 20), Reason::FundsInsufficient, no);
    assert_eq!(explain(&status).metadata["spendable_sat"], "50");
    check(funds(100, 10), Reason::AnchorReserveWouldBreak, no);
    check(E::AddressUnknown { peer: peer() }, Reason::PeerUnreachable, no);
    check(E::Connect(ConnectError::Myself(peer())), Reason::NodeIdInvalid, no);
    let busy = E::InProgress { peer: peer(), channel: CHANNEL };
    check(busy, Reason::ChannelOpening, no);
    check(E::ChainNotSynced, Reason::ChainNotSynced, no);
    check(E::Refused(ChannelCommandError::Refused("x".into())), Reason::ChannelRefused, no);
    check(E::Idempotency(conflict()), Reason::IdempotencyKeyReused, Some(true));
    check(E::Store(failed()), Reason::StoreFailed, Some(true));
}

#[test]
fn closing_is_refused_by_state() {
    use CloseError as E;
    let no = Some(false);
    check(E::Unknown(CHANNEL), Reason::ChannelUnknown, no);
    check(E::WrongState { state: ChannelState::Closed }, Reason::ChannelState, no);
    check(E::PeerOffline { peer: peer() }, Reason::PeerOffline, no);
    let busy = ChannelCommandError::Unavailable("x".into());
    check(E::Refused(busy), Reason::ChannelState, no);
    check(E::Refused(ChannelCommandError::FixedShutdownAddress), Reason::AddressInvalid, no);
    check(E::Idempotency(conflict()), Reason::IdempotencyKeyReused, Some(true));
    check(E::Store(failed()), Reason::StoreFailed, Some(true));
}

#[test]
fn coins_are_refused_with_their_amounts() {
    use SpendError as E;
    use bitcoin::{Amount, Txid, hashes::Hash};
    let no = Some(false);
    let sat = Amount::from_sat;
    let spend = |error: SpendError| SendCoinsError::Spend(error);
    check(spend(E::FeerateOutOfRange { sat_per_kwu: 1 }), Reason::FeerateOutOfRange, no);
    let text = || "x".to_owned();
    let odd = E::BadAddress { address: text(), detail: text() };
    check(spend(odd), Reason::AddressInvalid, no);
    let other = E::WrongNetwork { address: text(), expected: Network::Regtest };
    check(spend(other), Reason::WrongNetwork, no);
    check(spend(E::NoOutputs), Reason::Internal, no);
    check(spend(E::Internal(text())), Reason::Internal, no);
    check(spend(E::Dust { amount: sat(1), minimum: sat(330) }), Reason::AmountDust, no);
    let short = E::InsufficientFunds { needed: sat(9), available: sat(5), held: sat(3) };
    let status = check(spend(short), Reason::FundsInsufficient, no);
    let metadata = explain(&status).metadata;
    assert_eq!((&*metadata["needed_sat"], &*metadata["locked_sat"]), ("9", "3"));
    let left = sat(1);
    let reserve = E::BreaksReserve { left, available: sat(5), reserve: sat(4), channels: 2 };
    check(spend(reserve.clone()), Reason::AnchorReserveWouldBreak, no);
    check(SendCoinsError::Idempotency(conflict()), Reason::IdempotencyKeyReused, Some(true));
    check(SendCoinsError::Store(failed()), Reason::StoreFailed, Some(true));

    let txid = Txid::from_byte_array([1; 32]);
    let bump = |error: BumpError| BumpFeeError::Bump(error);
    check(bump(BumpError::Unknown { txid }), Reason::TransactionUnknown, no);
    let late = BumpError::Confirmed { txid, height: 4 };
    check(bump(late), Reason::TransactionNotReplaceable, no);
    let fixed = BumpError::NotReplaceable { txid, reason: text() };
    check(bump(fixed), Reason::TransactionNotReplaceable, no);
    check(bump(BumpError::NoOutput { txid }), Reason::TransactionNotReplaceable, no);
    let low = BumpError::FeerateTooLow { given: 1, required: 2 };
    check(bump(low), Reason::FeerateOutOfRange, no);
    check(bump(BumpError::Spend(reserve)), Reason::AnchorReserveWouldBreak, no);
    check(BumpFeeError::Idempotency(conflict()), Reason::IdempotencyKeyReused, Some(true));
    check(BumpFeeError::Store(failed()), Reason::StoreFailed, Some(true));
    check(AddressError::Idempotency(conflict()), Reason::IdempotencyKeyReused, no);
    check(AddressError::Store(failed()), Reason::StoreFailed, no);
}
