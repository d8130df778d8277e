//! What callers see of a swap.

use bitcoin::{Amount, OutPoint, Txid};
use channel_contracts::batch::SwapId;
use channel_contracts::swap::deposit::{HubDepositPhase, UserDepositPhase};
use channel_contracts::swap::withdrawal::{HubWithdrawalPhase, UserWithdrawalPhase};

use super::Parts;
use super::record::{End, Life, Spend, SwapRecord};
use crate::lightning::types::{NodeId, PaymentHash};

/// Which way the money goes, for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapKind {
    /// From a channel to the chain.
    Withdrawal,
    /// From the chain to a channel.
    Deposit,
}

/// Which side this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapRole {
    /// It asked.
    User,
    /// It was asked.
    Hub,
}

/// Where a swap stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwapState {
    /// The hub was asked.
    Asking,
    /// Withdrawal: the user has not paid yet, or the payment is under way.
    Paying,
    /// The output is in no block yet.
    Funding,
    /// It is in a block; once it is buried, the other half is paid.
    Confirmed,
    /// The other half is being paid: withdrawal, the preimage is revealed; deposit, the hub pays.
    Settling,
    /// Its owner spends the output.
    Spending,
    /// The output is taken back.
    Refunding,
    /// Both halves were paid.
    Done,
    /// The output was taken back; the payment was not made, or went back.
    Refunded,
    /// It came to nothing; nothing was paid.
    Failed,
}

impl SwapState {
    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Refunded | Self::Failed)
    }
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
    let (kind, payment_msat) = match &record.life {
        Life::UserWithdrawal(life) => {
            let msat = life.agreed.as_ref().map(|agreed| agreed.terms.payment_msat);
            (SwapKind::Withdrawal, msat)
        }
        Life::HubWithdrawal(life) => (SwapKind::Withdrawal, Some(life.terms.payment_msat)),
        Life::UserDeposit(life) => {
            let msat = life.agreed.as_ref().map(|agreed| agreed.terms.payment_msat);
            (SwapKind::Deposit, msat)
        }
        Life::HubDeposit(life) => (SwapKind::Deposit, Some(life.terms.payment_msat)),
    };
    let spend = record.spend.as_ref().and_then(Spend::transaction);
    SwapView {
        id,
        kind,
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
