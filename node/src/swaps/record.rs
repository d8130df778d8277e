//! What the store has of a swap: what was agreed, and what the machine made of it since.
//!
//! A machine is brought back by replaying its events.

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf, Transaction, Txid, absolute};
use channel_contracts::batch::SwapId;
use channel_contracts::swap::deposit::{
    DepositTerms, HubDeposit, HubDepositEvent, HubDepositInput, UserDeposit, UserDepositEvent,
    UserDepositInput,
};
use channel_contracts::swap::withdrawal::{
    HubWithdrawal, HubWithdrawalEvent, HubWithdrawalInput, UserWithdrawal, UserWithdrawalEvent,
    UserWithdrawalInput, WithdrawalTerms,
};
use serde::{Deserialize, Serialize};

use crate::journal::SwapState;
use crate::lightning::types::{NodeId, PaymentHash, PaymentId};
use crate::store::cbor::{encode, load_all};
use crate::store::{Batch, Committer, StoreError, Table};

/// A withdrawal or a deposit, of either side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SwapRecord {
    /// The other side.
    pub peer: NodeId,
    /// The funding output of the channel that carries the payment.
    pub channel: OutPoint,
    /// Value of the output.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub amount: Amount,
    /// The hash of both halves.
    pub hash: PaymentHash,
    /// When it began, ms since the Unix epoch.
    pub begun_ms: u64,
    /// The best block then.
    pub begun_at: u32,
    /// What it is, and how it went on.
    pub life: Life,
    /// The transaction of this side that spends the output.
    pub spend: Option<Spend>,
    /// How it ended.
    pub end: Option<End>,
    /// The state that the journal heard of last.
    #[serde(default)]
    pub told: Option<SwapState>,
}

/// How a swap ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum End {
    /// Both halves were paid.
    Done,
    /// The output was taken back.
    Refunded,
    /// Nothing was paid, and why.
    Nothing(String),
}

/// What a swap is, seen from which side.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Life {
    UserWithdrawal(UserWithdrawalLife),
    HubWithdrawal(HubWithdrawalLife),
    UserDeposit(UserDepositLife),
    HubDeposit(HubDepositLife),
}

/// A user's withdrawal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UserWithdrawalLife {
    /// Where the money goes.
    pub destination: ScriptBuf,
    /// The most the hub may take, msat.
    pub max_fee_msat: u64,
    pub agreed: Option<UserWithdrawalAgreed>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UserWithdrawalAgreed {
    pub terms: WithdrawalTerms,
    pub at: absolute::Height,
    /// The hub's.
    pub invoice: String,
    pub events: Vec<UserWithdrawalEvent>,
    /// Our payment of it, once it began.
    pub payment: Option<PaymentId>,
}

/// A hub's side of a withdrawal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HubWithdrawalLife {
    pub terms: WithdrawalTerms,
    pub at: absolute::Height,
    /// Ours.
    pub invoice: String,
    pub events: Vec<HubWithdrawalEvent>,
    /// The best block when the payment was held.
    pub held_at: Option<u32>,
    /// The transaction with the output.
    pub carrier: Option<Txid>,
}

/// A user's deposit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UserDepositLife {
    /// The most the hub may take, msat.
    pub max_fee_msat: u64,
    /// What the transaction with the output pays.
    pub feerate: FeeRate,
    pub agreed: Option<UserDepositAgreed>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UserDepositAgreed {
    pub terms: DepositTerms,
    /// Ours.
    pub invoice: String,
    pub events: Vec<UserDepositEvent>,
    /// The transaction with the output.
    pub funding: Option<Txid>,
}

/// A hub's side of a deposit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct HubDepositLife {
    pub terms: DepositTerms,
    /// The user's, once it is known.
    pub invoice: Option<String>,
    pub events: Vec<HubDepositEvent>,
    /// Our payment of it, once it began.
    pub payment: Option<PaymentId>,
    /// Payments that failed before.
    pub failed: u32,
}

/// A transaction that spends the output, durable before it is broadcast.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Spend {
    #[serde(with = "serde_bytes")]
    transaction: Vec<u8>,
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
    pub feerate: FeeRate,
    /// The best block when it was made.
    pub made_at: u32,
}

impl Spend {
    pub fn new(transaction: &Transaction, fee: Amount, feerate: FeeRate, made_at: u32) -> Self {
        Self { transaction: serialize(transaction), fee, feerate, made_at }
    }

    pub fn transaction(&self) -> Option<Transaction> {
        deserialize(&self.transaction).ok()
    }
}

impl SwapRecord {
    pub fn put(&self, id: SwapId, writes: &mut Batch) {
        writes.put(Table::Swap.key(id.0), encode(self));
    }

    /// Whether the swap was asked for here.
    pub fn is_users(&self) -> bool {
        matches!(self.life, Life::UserWithdrawal(_) | Life::UserDeposit(_))
    }

    /// The transaction of this node's wallet that has the output.
    pub fn carrier(&self) -> Option<Txid> {
        match &self.life {
            Life::HubWithdrawal(life) => life.carrier,
            Life::UserDeposit(life) => life.agreed.as_ref()?.funding,
            _ => None,
        }
    }
}

/// Reads all swaps.
///
/// # Errors
///
/// If the store cannot be read.
pub(super) fn load(committer: &Committer) -> Result<Vec<(SwapId, SwapRecord)>, StoreError> {
    let swaps = load_all(committer, Table::Swap)?;
    Ok(swaps.into_iter().map(|(id, record)| (SwapId(id), record)).collect())
}

/// The machine of a record, and how it takes an input. What is agreed on was checked before it was
/// recorded, so that a machine comes back from it.
macro_rules! machine {
    ($life:ty, $machine:ty, $input:ty, |$this:ident| $new:expr) => {
        impl $life {
            pub fn machine(&self) -> Option<$machine> {
                let $this = self;
                let mut machine: $machine = $new.ok()?;
                self.events.iter().for_each(|event| machine.apply(*event));
                Some(machine)
            }

            /// Lets the machine decide, and keeps what happened. Says whether anything did. What
            /// is to be done follows from the phase.
            pub fn take(&mut self, id: SwapId, input: $input) -> bool {
                let Some(machine) = self.machine() else { return false };
                match machine.decide(input) {
                    Ok(decision) => {
                        let happened = !decision.events.is_empty();
                        self.events.extend(decision.events);
                        happened
                    }
                    Err(rejection) => {
                        tracing::info!(swap = %id, %rejection, "swap goes on unchanged");
                        false
                    }
                }
            }
        }
    };
}

machine!(UserWithdrawalAgreed, UserWithdrawal, UserWithdrawalInput, |this| {
    UserWithdrawal::new(this.terms, this.at)
});
machine!(UserDepositAgreed, UserDeposit, UserDepositInput, |this| UserDeposit::new(this.terms));
machine!(HubDepositLife, HubDeposit, HubDepositInput, |this| HubDeposit::new(this.terms));
machine!(HubWithdrawalLife, HubWithdrawal, HubWithdrawalInput, |this| {
    HubWithdrawal::new(this.terms, this.at)
});
