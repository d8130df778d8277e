//! The wallet as a service: once per key, durable, then broadcast.
//!
//! The wallet builds and never broadcasts; this is who does. A transaction, the coins it takes
//! and the caller's key become durable in one batch, and only then does it leave. After a
//! restart [`OnChain::resume`] sends again whatever was durable and is not yet in a block, so
//! that a crash between both steps neither loses a payment nor makes it twice.

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Address, Amount, FeeRate, OutPoint, Transaction, TxOut, Txid};
use parking_lot::Mutex;

use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::environment::Clock;
use crate::journal::{Fingerprint, Idempotency, IdempotencyError, IdempotencyKey};
use crate::store::{Batch, Committer, StoreError, Ticket};
use crate::tokens::{Held, Purse, SpendingError};
use crate::wallet::{BumpError, Owner, SendAmount, SpendError, Wallet};

/// Why no address is given.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants name the errors they carry")]
pub enum AddressError {
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why coins are not sent. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants name the errors they carry")]
pub enum SendCoinsError {
    #[error(transparent)]
    Spend(#[from] SpendError),
    #[error(transparent)]
    Token(#[from] SpendingError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a transaction is not replaced. Nothing has changed, unless the store failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the variants name the errors they carry")]
pub enum BumpFeeError {
    #[error(transparent)]
    Bump(#[from] BumpError),
    #[error(transparent)]
    Token(#[from] SpendingError),
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What to send, as a caller says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendCoins {
    /// Where to.
    pub address: String,
    /// How much.
    pub amount: SendAmount,
    /// At which feerate; `None` for the estimate.
    pub feerate_sat_per_vb: Option<u64>,
}

/// The on-chain service.
pub struct OnChain {
    wallet: Arc<Wallet>,
    committer: Committer,
    broadcasts: BroadcastQueue,
    fees: FeeEstimates,
    clock: Arc<dyn Clock>,
    idempotency: Idempotency,
    /// Held from the look at a key to its record: of concurrent duplicates one is first.
    sending: Mutex<()>,
}

impl OnChain {
    /// Over `wallet`; what it makes leaves through `broadcasts`.
    pub fn new(
        wallet: Arc<Wallet>,
        committer: Committer,
        broadcasts: BroadcastQueue,
        fees: FeeEstimates,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let idempotency = Idempotency::new(committer.clone());
        let sending = Mutex::new(());
        Self { wallet, committer, broadcasts, fees, clock, idempotency, sending }
    }

    /// The coins.
    pub fn wallet(&self) -> &Arc<Wallet> {
        &self.wallet
    }

    /// Sends again what is not in a block yet: transactions of ours, and those that close a
    /// channel whose funding output is among `fundings`. LDK forgets a channel in the batch that
    /// lets its closing transaction out. Called once after a start.
    pub fn resume(&self, fundings: &HashSet<OutPoint>) {
        for info in self.wallet.list_transactions() {
            let inputs = &info.transaction.input;
            let closes = inputs.iter().any(|input| fundings.contains(&input.previous_output));
            if info.confirmed_in.is_none() && (info.purpose.is_some() || closes) {
                tracing::info!(txid = %info.txid, "unconfirmed transaction is broadcast again");
                self.broadcasts.push(vec![Transaction::clone(&info.transaction)]);
            }
        }
    }

    /// Frees coins held for transactions that nobody remembers: the hold was durable before the
    /// record of what it was for. `known` are the transactions that records name.
    ///
    /// Whatever was broadcast is known to the wallet, so these never were.
    pub fn free_forgotten(&self, known: &HashSet<Txid>) {
        let seen: HashSet<Txid> =
            self.wallet.list_transactions().into_iter().map(|info| info.txid).collect();
        for (outpoint, owner) in self.wallet.holds() {
            let Owner::Transaction(txid) = owner else { continue };
            if known.contains(&txid) || seen.contains(&txid) {
                continue;
            }
            tracing::info!(%outpoint, %txid, "coin was held for a transaction that never was");
            if let Err(error) = self.wallet.release(owner) {
                tracing::warn!(%outpoint, %error, "coin stays held");
            }
        }
    }

    /// Gives an address that was never given out before, once that is durable. A repetition
    /// under the same key gives the first one.
    ///
    /// # Errors
    ///
    /// See [`AddressError`].
    pub async fn new_address(&self, key: Option<&IdempotencyKey>) -> Result<String, AddressError> {
        let (address, ticket) = self.new_address_now(key)?;
        self.committer.durable(ticket).await?;
        Ok(address)
    }

    fn new_address_now(
        &self,
        key: Option<&IdempotencyKey>,
    ) -> Result<(String, Ticket), AddressError> {
        let fingerprint = Fingerprint::of(&());
        let now = self.clock.now();
        let _one_at_a_time = self.sending.lock();
        if let Some(answer) = self.idempotency.recall(key, fingerprint, now)? {
            let address = String::from_utf8(answer).map_err(|error| corrupt(&error))?;
            return Ok((address, self.committer.now()));
        }
        let record = |address: &Address| {
            let mut batch = Batch::default();
            let answer = address.to_string();
            self.idempotency.record(&mut batch, key, fingerprint, answer.as_bytes(), now);
            batch
        };
        let (address, ticket) = self.wallet.new_address_beside(record);
        Ok((address.to_string(), ticket))
    }

    /// Sends coins. Returns once the transaction is durable and on its way. A repetition under
    /// the same key sends nothing and returns the first transaction's id.
    ///
    /// What leaves the wallet, the fee included, is taken from `purse` for good.
    ///
    /// # Errors
    ///
    /// See [`SendCoinsError`].
    pub async fn send(
        &self,
        send: &SendCoins,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<Txid, SendCoinsError> {
        let (transaction, ticket) = self.send_now(send, key, purse)?;
        self.committer.durable(ticket).await?;
        Ok(self.broadcast(transaction))
    }

    fn send_now(
        &self,
        send: &SendCoins,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<(Transaction, Ticket), SendCoinsError> {
        let fingerprint = Fingerprint::of(send);
        let _one_at_a_time = self.sending.lock();
        if let Some(first) = self.repetition(key, fingerprint)? {
            return Ok((first, self.committer.now()));
        }
        let feerate = self.feerate(send.feerate_sat_per_vb, FeePurpose::Normal)?;
        let mut payer = Payer::new(purse, Amount::ZERO);
        let mut record = |transaction: &Transaction, cost| {
            let batch = self.record(key, fingerprint, transaction);
            payer.pay(cost, batch)
        };
        let built = self.wallet.send_beside(&send.address, send.amount, feerate, Some(&mut record));
        payer.agreed()?;
        let built = built?;
        Ok((built.transaction, built.ticket))
    }

    /// Pays `outputs` in one transaction, for a caller with records of its own: they are in the
    /// batch that `beside` gives, told the transaction and its fee; `None` if that is too much.
    /// Once the ticket is durable the transaction is given to [`OnChain::publish`].
    ///
    /// # Errors
    ///
    /// See [`SpendError`].
    pub(crate) fn pay_many(
        &self,
        outputs: &[TxOut],
        feerate: FeeRate,
        mut beside: impl FnMut(&Transaction, Amount) -> Option<Batch>,
    ) -> Result<(Transaction, Ticket), SpendError> {
        let paid = outputs.iter().map(|output| output.value).sum::<Amount>();
        let _one_at_a_time = self.sending.lock();
        let mut record = |transaction: &Transaction, cost: Amount| {
            // No output is the wallet's own, so what leaves beyond them is the fee.
            beside(transaction, cost.checked_sub(paid).unwrap_or(Amount::ZERO))
        };
        let built = self.wallet.pay_many_beside(outputs, feerate, &mut record)?;
        Ok((built.transaction, built.ticket))
    }

    /// Broadcasts a transaction of [`OnChain::pay_many`].
    pub(crate) fn publish(&self, transaction: Transaction) -> Txid {
        self.broadcast(transaction)
    }

    /// The feerate asked for, or the estimate of the moment.
    ///
    /// # Errors
    ///
    /// [`SpendError::FeerateOutOfRange`].
    pub(crate) fn feerate_of(&self, asked: Option<u64>) -> Result<FeeRate, SpendError> {
        self.feerate(asked, FeePurpose::Normal)
    }

    /// Replaces an unconfirmed transaction of ours by one that pays more, as [`OnChain::send`].
    /// What it costs more than the old one is taken from `purse`.
    ///
    /// # Errors
    ///
    /// See [`BumpFeeError`].
    pub async fn bump_fee(
        &self,
        txid: Txid,
        feerate_sat_per_vb: Option<u64>,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<Txid, BumpFeeError> {
        let (transaction, ticket) = self.bump_fee_now(txid, feerate_sat_per_vb, key, purse)?;
        self.committer.durable(ticket).await?;
        Ok(self.broadcast(transaction))
    }

    fn bump_fee_now(
        &self,
        txid: Txid,
        feerate_sat_per_vb: Option<u64>,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<(Transaction, Ticket), BumpFeeError> {
        let fingerprint = Fingerprint::of(&(txid, feerate_sat_per_vb));
        let _one_at_a_time = self.sending.lock();
        if let Some(first) = self.repetition(key, fingerprint)? {
            return Ok((first, self.committer.now()));
        }
        let feerate =
            self.feerate(feerate_sat_per_vb, FeePurpose::Urgent).map_err(BumpError::from)?;
        let mut payer = Payer::new(purse, self.cost_of(txid));
        let mut record = |transaction: &Transaction, cost| {
            let batch = self.record(key, fingerprint, transaction);
            payer.pay(cost, batch)
        };
        let built = self.wallet.bump_fee_beside(txid, feerate, Some(&mut record));
        payer.agreed()?;
        let built = built?;
        Ok((built.transaction, built.ticket))
    }

    /// What left the wallet by `txid`; nothing if it is not known.
    fn cost_of(&self, txid: Txid) -> Amount {
        let all = self.wallet.list_transactions();
        let known = all.into_iter().find(|info| info.txid == txid);
        known.and_then(|info| info.sent.checked_sub(info.received)).unwrap_or(Amount::ZERO)
    }

    /// The transaction that an earlier call under `key` made.
    fn repetition(
        &self,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
    ) -> Result<Option<Transaction>, IdempotencyError> {
        let answer = self.idempotency.recall(key, fingerprint, self.clock.now())?;
        let read = answer.map(|answer| deserialize(&answer).map_err(|error| corrupt(&error)));
        Ok(read.transpose()?)
    }

    fn record(
        &self,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
        transaction: &Transaction,
    ) -> Batch {
        let mut batch = Batch::default();
        let answer = serialize(transaction);
        self.idempotency.record(&mut batch, key, fingerprint, &answer, self.clock.now());
        batch
    }

    fn feerate(&self, asked: Option<u64>, purpose: FeePurpose) -> Result<FeeRate, SpendError> {
        match asked {
            None => Ok(self.fees.get(purpose)),
            Some(sat_per_vb) => FeeRate::from_sat_per_vb(sat_per_vb)
                .ok_or(SpendError::FeerateOutOfRange { sat_per_kwu: u64::MAX }),
        }
    }

    fn broadcast(&self, transaction: Transaction) -> Txid {
        let txid = transaction.compute_txid();
        // What a repetition finds may be long confirmed: the queue lets go of it.
        self.broadcasts.push(vec![transaction]);
        txid
    }
}

/// Pays for a transaction out of a token's budget, if there is a token with bounds.
struct Payer<'a> {
    purse: Option<&'a Purse>,
    /// Paid before, for the transaction that this one replaces.
    paid: Amount,
    declined: Option<SpendingError>,
    /// Until the wallet has enqueued the batch.
    _held: Option<Held<'a>>,
}

impl<'a> Payer<'a> {
    fn new(purse: Option<&'a Purse>, paid: Amount) -> Self {
        Self { purse, paid, declined: None, _held: None }
    }

    /// Adds to `batch` what `cost` does to the budget; `None` if that is too little.
    fn pay(&mut self, cost: Amount, mut batch: Batch) -> Option<Batch> {
        let Some(purse) = self.purse else {
            return Some(batch);
        };
        let more = cost.checked_sub(self.paid).unwrap_or(Amount::ZERO);
        // An address is no node, and a token for certain nodes pays no address.
        match purse.spend(None, more.to_sat().saturating_mul(1_000), &mut batch) {
            Ok(held) => {
                self._held = Some(held);
                Some(batch)
            }
            Err(declined) => {
                self.declined = Some(declined);
                None
            }
        }
    }

    /// Why the token did not pay, if it did not.
    fn agreed(self) -> Result<(), SpendingError> {
        self.declined.map_or(Ok(()), Err)
    }
}

fn corrupt(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("idempotency record of the wallet: {error}"))
}
