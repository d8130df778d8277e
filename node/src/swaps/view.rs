//! What callers see of a swap.

use bitcoin::{Amount, OutPoint, Txid};
use channel_contracts::batch::SwapId;
use channel_contracts::swap::deposit::{HubDepositPhase, UserDepositPhase};
use channel_contracts::swap::withdrawal::{HubWithdrawalPhase, UserWithdrawalPhase};

use super::Parts;
use super::record::{End, Life, Spend, SwapRecord};
use crate::journal::{DomainEvent, SwapEvent, SwapKind, SwapState};
use crate::lightning::types::{NodeId, PaymentHash};

/// Which side this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapRole {
    /// It asked.
    User,
    /// It was asked.
    Hub,
}

/// A swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwapView {
    /// Its name.
    pub id: SwapId,
    /// Which way.
    pub kind: SwapKind,
    /// Which side this node is.
    pub role: SwapRole,
    /// The other side.
    pub peer: NodeId,
    /// The funding output of the channel that carries the payment.
    pub channel: OutPoint,
    /// Value of the output.
    pub amount: Amount,
    /// The payment over the channel, msat, once it is agreed on.
    pub payment_msat: Option<u64>,
    /// Its hash.
    pub hash: PaymentHash,
    /// Where it stands.
    pub state: SwapState,
    /// Where the output stands, once it is in a block.
    pub output: Option<OutPoint>,
    /// The transaction of this node's wallet that has the output.
    pub carrier: Option<Txid>,
    /// The transaction of this side that spends the output.
    pub spend: Option<Txid>,
    /// Why it failed.
    pub detail: Option<String>,
    /// When it began, ms since the Unix epoch.
    pub begun_ms: u64,
}

pub(super) fn view(parts: &Parts, id: SwapId, record: &SwapRecord) -> SwapView {
    let payment_msat = match &record.life {
        Life::UserWithdrawal(life) => life.agreed.as_ref().map(|agreed| agreed.terms.payment_msat),
        Life::HubWithdrawal(life) => Some(life.terms.payment_msat),
        Life::UserDeposit(life) => life.agreed.as_ref().map(|agreed| agreed.terms.payment_msat),
        Life::HubDeposit(life) => Some(life.terms.payment_msat),
    };
    let spend = record.spend.as_ref().and_then(Spend::transaction);
    SwapView {
        id,
        kind: kind(record),
        role: if record.is_users() { SwapRole::User } else { SwapRole::Hub },
        peer: record.peer,
        channel: record.channel,
        amount: record.amount,
        payment_msat,
        hash: record.hash,
        state: state(parts, id, record),
        output: parts.watch.found(id).map(|found| found.outpoint),
        carrier: record.carrier(),
        spend: spend.map(|transaction| transaction.compute_txid()),
        detail: match &record.end {
            Some(End::Nothing(why)) => Some(why.clone()),
            _ => None,
        },
        begun_ms: record.begun_ms,
    }
}

/// What the journal is to hear of a record that is about to be written: nothing, unless its state
/// is another one than it heard last.
pub(super) fn entered(parts: &Parts, id: SwapId, record: &mut SwapRecord) -> Vec<DomainEvent> {
    let state = state(parts, id, record);
    if record.told == Some(state) {
        return vec![];
    }
    record.told = Some(state);
    let amount_sat = record.amount.to_sat();
    let event = SwapEvent { swap: id, peer: record.peer, kind: kind(record), state, amount_sat };
    vec![DomainEvent::Swap(event)]
}

fn kind(record: &SwapRecord) -> SwapKind {
    match &record.life {
        Life::UserWithdrawal(_) | Life::HubWithdrawal(_) => SwapKind::Withdrawal,
        Life::UserDeposit(_) | Life::HubDeposit(_) => SwapKind::Deposit,
    }
}

fn state(parts: &Parts, id: SwapId, record: &SwapRecord) -> SwapState {
    match &record.end {
        Some(End::Done) => return SwapState::Done,
        Some(End::Refunded) => return SwapState::Refunded,
        Some(End::Nothing(_)) => return SwapState::Failed,
        None => {}
    }
    let is_confirmed = || parts.watch.found(id).is_some();
    match &record.life {
        Life::UserWithdrawal(life) => match &life.agreed {
            None => SwapState::Asking,
            Some(agreed) => match agreed.machine().map(|machine| machine.phase()) {
                Some(UserWithdrawalPhase::Confirmed { .. }) => SwapState::Confirmed,
                Some(UserWithdrawalPhase::Revealed { .. }) => SwapState::Settling,
                Some(UserWithdrawalPhase::Spending | UserWithdrawalPhase::Settled) => {
                    SwapState::Spending
                }
                _ => SwapState::Paying,
            },
        },
        Life::HubWithdrawal(life) => match life.machine().map(|machine| machine.phase()) {
            Some(HubWithdrawalPhase::Funded) if is_confirmed() => SwapState::Confirmed,
            Some(HubWithdrawalPhase::Held | HubWithdrawalPhase::Funded) => SwapState::Funding,
            Some(HubWithdrawalPhase::Refunding | HubWithdrawalPhase::Refunded { .. }) => {
                SwapState::Refunding
            }
            Some(HubWithdrawalPhase::Paid) => SwapState::Settling,
            _ => SwapState::Paying,
        },
        Life::UserDeposit(life) => match &life.agreed {
            None => SwapState::Asking,
            Some(agreed) => match agreed.machine().map(|machine| machine.phase()) {
                Some(UserDepositPhase::Confirmed(_)) => SwapState::Confirmed,
                Some(UserDepositPhase::Claiming) => SwapState::Settling,
                Some(UserDepositPhase::Paid) => SwapState::Spending,
                Some(UserDepositPhase::Refunding | UserDepositPhase::Refunded) => {
                    SwapState::Refunding
                }
                _ => SwapState::Funding,
            },
        },
        Life::HubDeposit(life) => match life.machine().map(|machine| machine.phase()) {
            Some(HubDepositPhase::Confirmed) => SwapState::Confirmed,
            Some(HubDepositPhase::Paying) => SwapState::Settling,
            Some(HubDepositPhase::Owned { .. } | HubDepositPhase::Settled) => SwapState::Spending,
            _ => SwapState::Funding,
        },
    }
}
