//! The accounts of all budgets, in memory and on disk.
//!
//! What is reserved is written in the batch of the record it is for, and what is released in the
//! batch of the outcome, so that a crash leaves both or neither. An account is written as its new
//! value: batches must be enqueued in the order in which the values were made. The lock is
//! therefore held until the caller has enqueued, in form of [`Held`]. It is the last but one
//! lock taken: a service's own and the wallet's come before it, the journal's after it.

use std::collections::HashMap;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use super::account::{Account, AccountId};
use super::purse::SpendingError;
use super::token::LinkId;
use crate::journal::PayoutId;
use crate::lightning::types::{ChannelRef, PaymentId};
use crate::store::{Batch, Committer, StoreError, Table, cbor};

/// What money is set aside for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A payment of ours.
    Payment(PaymentId),
    /// A channel that we open: what is given away with it, and its funding's fee.
    Channel(ChannelRef),
    /// A payout: all its lines, or all runs of its schedule.
    Payout(PayoutId),
}

impl Subject {
    fn key(&self) -> Vec<u8> {
        let rest = match self {
            Self::Payment(id) => [&b"p"[..], id.as_ref()].concat(),
            Self::Channel(id) => [&b"c"[..], id.as_ref()].concat(),
            Self::Payout(id) => [&b"o"[..], &id.0].concat(),
        };
        Table::TokenReservation.key(rest)
    }

    fn read(key: &[u8]) -> Option<Self> {
        match Table::TokenReservation.rest(key)?.split_first()? {
            (b'p', id) => PaymentId::from_slice(id).ok().map(Self::Payment),
            (b'c', id) => ChannelRef::from_slice(id).ok().map(Self::Channel),
            (b'o', id) => id.try_into().ok().map(PayoutId).map(Self::Payout),
            _ => None,
        }
    }
}

/// What is set aside for one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Reservation {
    accounts: Vec<[u8; 16]>,
    msat: u64,
}

/// All accounts.
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accounts: HashMap<AccountId, Account>,
    reservations: HashMap<Subject, Reservation>,
}

/// Keeps the accounts as they are until the batch that has them is enqueued.
#[must_use = "hold it until the batch is enqueued"]
pub struct Held<'a> {
    _state: Option<MutexGuard<'a, State>>,
}

impl Ledger {
    /// Reads the accounts of `committer`'s store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(committer: &Committer) -> Result<Self, StoreError> {
        let mut state = State::default();
        for (key, value) in committer.scan_all(Table::TokenAccount, [])? {
            let id = Table::TokenAccount.rest(&key).and_then(|rest| rest.try_into().ok());
            let id = id.ok_or_else(|| cbor::corrupt(Table::TokenAccount, &"its id is odd"))?;
            state.accounts.insert(LinkId(id), cbor::decode(Table::TokenAccount, &value)?);
        }
        for (key, value) in committer.scan_all(Table::TokenReservation, [])? {
            let odd = || cbor::corrupt(Table::TokenReservation, &"its key is odd");
            let subject = Subject::read(&key).ok_or_else(odd)?;
            let reservation = cbor::decode(Table::TokenReservation, &value)?;
            state.reservations.insert(subject, reservation);
        }
        Ok(Self { state: Mutex::new(state) })
    }

    /// How an account stands.
    pub fn account(&self, id: AccountId) -> Account {
        self.state.lock().accounts.get(&id).copied().unwrap_or_default()
    }

    /// What is set aside for `subject`, msat; `None` if nothing is.
    pub fn reserved_msat(&self, subject: Subject) -> Option<u64> {
        Some(self.state.lock().reservations.get(&subject)?.msat)
    }

    /// Takes `msat` from each of `budgets`, or from none: for `subject`, until its outcome is
    /// known, or for good.
    pub(super) fn reserve(
        &self,
        budgets: &[(AccountId, u64)],
        subject: Option<Subject>,
        msat: u64,
        batch: &mut Batch,
    ) -> Result<Held<'_>, SpendingError> {
        let mut state = self.state.lock();
        let mut after = Vec::with_capacity(budgets.len());
        for &(id, budget_msat) in budgets {
            let account = state.accounts.get(&id).copied().unwrap_or_default();
            let reserved = account.reserved(msat, budget_msat);
            let reserved = reserved.ok_or_else(|| SpendingError::Budget {
                most_msat: msat,
                left_msat: account.left_msat(budget_msat),
                budget_msat,
            })?;
            after.push((id, reserved));
        }
        for (id, reserved) in after {
            let account = match subject {
                Some(_) => reserved,
                None => reserved.settled(msat, msat),
            };
            state.put(id, account, batch);
        }
        if let Some(subject) = subject
            && !budgets.is_empty()
        {
            let accounts = budgets.iter().map(|(id, _)| id.0).collect();
            state.set_aside(subject, Reservation { accounts, msat }, batch);
        }
        Ok(Held { _state: Some(state) })
    }

    /// Gives back what was set aside for `subject` above `most_msat`.
    pub fn lower(&self, subject: Subject, most_msat: u64, batch: &mut Batch) -> Held<'_> {
        let mut state = self.state.lock();
        if let Some(before) = state.reservations.get(&subject).cloned()
            && let Some(less) = before.msat.checked_sub(most_msat)
        {
            for id in before.accounts.iter().copied().map(LinkId) {
                let account = state.accounts.get(&id).copied().unwrap_or_default();
                state.put(id, account.settled(less, 0), batch);
            }
            let after = Reservation { msat: most_msat, ..before };
            state.set_aside(subject, after, batch);
        }
        Held { _state: Some(state) }
    }

    /// Notes the outcome of `subject`: `cost_msat` are gone, all of what was set aside if `None`,
    /// and the rest is given back. Nothing happens if nothing was set aside.
    pub fn settle(&self, subject: Subject, cost_msat: Option<u64>, batch: &mut Batch) -> Held<'_> {
        let mut state = self.state.lock();
        let Some(reservation) = state.reservations.remove(&subject) else {
            return Held { _state: None };
        };
        let cost_msat = cost_msat.unwrap_or(reservation.msat);
        if cost_msat > reservation.msat {
            tracing::error!(
                ?subject,
                cost_msat,
                reserved_msat = reservation.msat,
                "a token paid more than was set aside; report this"
            );
        }
        for id in reservation.accounts.iter().copied().map(LinkId) {
            let account = state.accounts.get(&id).copied().unwrap_or_default();
            state.put(id, account.settled(reservation.msat, cost_msat), batch);
        }
        batch.delete(subject.key());
        Held { _state: Some(state) }
    }
}

impl State {
    fn put(&mut self, id: AccountId, account: Account, batch: &mut Batch) {
        batch.put(Table::TokenAccount.key(id.0), cbor::encode(&account));
        self.accounts.insert(id, account);
    }

    fn set_aside(&mut self, subject: Subject, reservation: Reservation, batch: &mut Batch) {
        batch.put(subject.key(), cbor::encode(&reservation));
        self.reservations.insert(subject, reservation);
    }
}
