//! Transactions of our own: funding channels and batches, and sending.
//!
//! Built, signed and their coins held in one step under the lock; broadcasting is the caller's.
//! Every input is a BIP 86 coin, so a txid is final before it is signed. Coins of others that
//! are not confirmed are never spent, and nothing leaves that would break the anchor reserve.

use std::str::FromStr;

use bdk_wallet::KeychainKind;
use bdk_wallet::error::CreateTxError;
use bitcoin::address::NetworkUnchecked;
use bitcoin::key::rand::{Error as RandError, RngCore};
use bitcoin::psbt::Psbt;
use bitcoin::{Address, Amount, FeeRate, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};

use super::record::{Owner, Purpose};
use super::{Inner, SignPsbtError, Wallet};
use crate::environment::Entropy;
use crate::store::{Batch, Ticket};

/// Lowest feerate taken: what nodes relay by default.
pub(super) const FEERATE_MIN: FeeRate = FeeRate::from_sat_per_vb_u32(1);
/// Highest feerate taken: beyond it a unit was mistaken.
pub(super) const FEERATE_MAX: FeeRate = FeeRate::from_sat_per_vb_u32(10_000);

/// What to fund.
#[derive(Debug, Clone)]
pub struct FundingRequest {
    /// The outputs, all of them; their order in the transaction is random.
    pub outputs: Vec<TxOut>,
    /// The feerate, 1 to 10,000 sat/vB.
    pub feerate: FeeRate,
    /// Channels that the anchor reserve must cover on top of the present ones.
    pub new_channels: u32,
}

/// How much to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendAmount {
    /// So much, the fee on top.
    Exact(Amount),
    /// Everything but the anchor reserve, less the fee.
    All,
}

/// A signed transaction that nobody else has seen yet. Its coins are held.
#[derive(Debug, Clone)]
#[must_use = "broadcast the transaction once the ticket is durable, or release its coins"]
pub struct Built {
    /// The transaction.
    pub transaction: Transaction,
    /// Its fee.
    pub fee: Amount,
    /// Durable once its holds are: broadcast not before.
    pub ticket: Ticket,
}

impl Built {
    /// The transaction's id.
    pub fn txid(&self) -> Txid {
        self.transaction.compute_txid()
    }
}

/// Why a transaction cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpendError {
    /// The feerate is outside of what makes sense.
    #[error(
        "feerate of {sat_per_kwu} sat per 1,000 weight units is out of range: give 1 to 10,000 sat/vB (250 to 2,500,000)"
    )]
    FeerateOutOfRange {
        /// The feerate, satoshi per 1,000 weight units.
        sat_per_kwu: u64,
    },
    /// The text is no Bitcoin address.
    #[error("{address:?} is not a Bitcoin address: {detail}")]
    BadAddress {
        /// The text.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The address is of another network.
    #[error("{address} is not an address on {expected}; ask the receiver for one")]
    WrongNetwork {
        /// The address.
        address: String,
        /// Our network.
        expected: Network,
    },
    /// There is nothing to pay.
    #[error("no output to pay; name at least one")]
    NoOutputs,
    /// The network does not relay so small an output.
    #[error("amount {amount} is dust; pay at least {minimum} to this kind of address")]
    Dust {
        /// The amount.
        amount: Amount,
        /// The least that is relayed.
        minimum: Amount,
    },
    /// There are not enough coins.
    #[error(
        "insufficient funds: needed {needed} with fees, available {available} ({held} more are reserved for transactions under way); deposit, or wait for confirmations"
    )]
    InsufficientFunds {
        /// Amount and fees.
        needed: Amount,
        /// Free coins.
        available: Amount,
        /// Coins held for others.
        held: Amount,
    },
    /// What is left would not pay for the exits of the channels.
    #[error(
        "only {left} of {available} would be left, the anchor reserve is {reserve} for {channels} channels; spend less, deposit, or lower wallet.anchor_reserve_sat_per_channel"
    )]
    BreaksReserve {
        /// Free coins after the transaction.
        left: Amount,
        /// Free coins before.
        available: Amount,
        /// What must be left.
        reserve: Amount,
        /// The channels it is for, new ones included.
        channels: u32,
    },
    /// Whoever records the transaction does not want it.
    #[error("the transaction costs {cost}, and whoever asked for it may not spend that")]
    Declined {
        /// What leaves the wallet, the fee included.
        cost: Amount,
    },
    /// BDK or a signature fails for a reason that no request should cause.
    #[error("cannot build the transaction: {0}")]
    Internal(String),
}

/// What a caller records in the batch of a transaction, told what leaves the wallet by it, the fee
/// included; `None` if it costs too much, and then nothing has happened.
pub(crate) type Beside<'a> = &'a mut dyn FnMut(&Transaction, Amount) -> Option<Batch>;

/// The randomness of the environment, as BDK takes it.
pub(super) struct Shuffle<'a>(pub &'a dyn Entropy);

impl RngCore for Shuffle<'_> {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(self.0.bytes())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.0.bytes())
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        self.0.fill(dest);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), RandError> {
        self.0.fill(dest);
        Ok(())
    }
}

/// Free coins, and the outpoints that coin selection must leave alone.
pub(super) struct Free {
    pub total: Amount,
    pub held: Amount,
    pub unspendable: Vec<OutPoint>,
}

impl Wallet {
    /// Builds a transaction that pays `request.outputs`, for channels or a batch.
    ///
    /// Its txid is final: it is never replaced, only bumped by a child.
    ///
    /// # Errors
    ///
    /// [`SpendError`] with the amounts; no coin is held then.
    pub fn build_funding(&self, request: &FundingRequest) -> Result<Built, SpendError> {
        self.fund(request, None)
    }

    /// As [`Wallet::build_funding`]. The wallet counts the transaction as being broadcast, and its
    /// record, the holds and the writes of `beside` become durable together.
    ///
    /// # Errors
    ///
    /// As [`Wallet::build_funding`]; `beside` was not asked then.
    pub(crate) fn build_funding_beside(
        &self,
        request: &FundingRequest,
        beside: Beside<'_>,
    ) -> Result<Built, SpendError> {
        self.fund(request, Some(beside))
    }

    fn fund(
        &self,
        request: &FundingRequest,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, SpendError> {
        check_feerate(request.feerate)?;
        check_outputs(&request.outputs)?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        let channels = inner.channel_count.saturating_add(request.new_channels);
        let FundingRequest { outputs, feerate, .. } = request;
        self.pay(&mut inner, outputs, *feerate, channels, Purpose::Funding, beside)
    }

    /// Builds a transaction that sends `amount` to `address`.
    ///
    /// # Errors
    ///
    /// [`SpendError`] with the amounts; no coin is held then.
    pub fn send(
        &self,
        address: &str,
        amount: SendAmount,
        feerate: FeeRate,
    ) -> Result<Built, SpendError> {
        self.send_beside(address, amount, feerate, None)
    }

    /// As [`Wallet::send`]. With `beside`, the wallet counts the transaction as being broadcast,
    /// and its record, the holds and the writes of `beside` become durable together.
    ///
    /// # Errors
    ///
    /// As [`Wallet::send`]; `beside` was not asked then.
    pub(crate) fn send_beside(
        &self,
        address: &str,
        amount: SendAmount,
        feerate: FeeRate,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, SpendError> {
        check_feerate(feerate)?;
        let script_pubkey = self.check_address(address)?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        match amount {
            SendAmount::Exact(value) => {
                let outputs = [TxOut { value, script_pubkey }];
                check_outputs(&outputs)?;
                let channels = inner.channel_count;
                self.pay(&mut inner, &outputs, feerate, channels, Purpose::Send, beside)
            }
            SendAmount::All => self.send_all(&mut inner, script_pubkey, feerate, beside),
        }
    }

    /// Builds a transaction that pays `outputs`, lines of a payout. The wallet counts it as being
    /// broadcast, and its record, the holds and the writes of `beside` become durable together.
    ///
    /// # Errors
    ///
    /// As [`Wallet::send`]; [`SpendError::Declined`] if `beside` does not want it.
    pub(crate) fn pay_many_beside(
        &self,
        outputs: &[TxOut],
        feerate: FeeRate,
        beside: Beside<'_>,
    ) -> Result<Built, SpendError> {
        check_feerate(feerate)?;
        check_outputs(outputs)?;
        let _nobody_else_chooses = self.choosing();
        let mut inner = self.lock();
        let channels = inner.channel_count;
        self.pay(&mut inner, outputs, feerate, channels, Purpose::Payout, Some(beside))
    }

    fn pay(
        &self,
        inner: &mut Inner,
        outputs: &[TxOut],
        feerate: FeeRate,
        channels: u32,
        purpose: Purpose,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, SpendError> {
        let free = inner.free();
        let mut builder = inner.bdk.build_tx();
        builder.fee_rate(feerate).unspendable(free.unspendable);
        for output in outputs {
            builder.add_recipient(output.script_pubkey.clone(), output.value);
        }
        let psbt = builder
            .finish_with_aux_rand(&mut Shuffle(&*self.params.entropy))
            .map_err(|error| refusal(error, outputs, free.total, free.held))?;
        self.check_reserve(inner, &psbt.unsigned_tx, free.total, channels)?;
        self.complete(inner, psbt, purpose, beside)
    }

    fn send_all(
        &self,
        inner: &mut Inner,
        destination: ScriptBuf,
        feerate: FeeRate,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, SpendError> {
        let free = inner.free();
        let reserve = self.reserve_for(inner.channel_count);
        let mut kept = Vec::new();
        if reserve > Amount::ZERO {
            let own = inner.bdk.next_unused_address(KeychainKind::Internal);
            let script_pubkey = own.script_pubkey();
            kept.push(TxOut {
                value: reserve.max(script_pubkey.minimal_non_dust()),
                script_pubkey,
            });
        }
        let mut builder = inner.bdk.build_tx();
        builder
            .fee_rate(feerate)
            .unspendable(free.unspendable)
            .drain_wallet()
            .drain_to(destination.clone());
        for output in &kept {
            builder.add_recipient(output.script_pubkey.clone(), output.value);
        }
        let psbt = builder
            .finish_with_aux_rand(&mut Shuffle(&*self.params.entropy))
            .map_err(|error| refusal(error, &kept, free.total, free.held))?;
        // BDK drops a drain output below dust, and the rest would go to the miner.
        let pays = |output: &TxOut| output.script_pubkey == destination;
        if !psbt.unsigned_tx.output.iter().any(pays) {
            return Err(SpendError::BreaksReserve {
                left: free.total,
                available: free.total,
                reserve,
                channels: inner.channel_count,
            });
        }
        self.complete(inner, psbt, Purpose::SendAll(destination), beside)
    }

    /// Signs, holds the coins and makes it durable.
    pub(super) fn complete(
        &self,
        inner: &mut Inner,
        psbt: Psbt,
        purpose: Purpose,
        beside: Option<Beside<'_>>,
    ) -> Result<Built, SpendError> {
        let fee = psbt.fee().map_err(|error| SpendError::Internal(error.to_string()))?;
        let transaction = self
            .sign(inner, psbt)
            .map_err(|error: SignPsbtError| SpendError::Internal(error.to_string()))?;
        let (sent, received) = inner.bdk.sent_and_received(&transaction);
        let cost = sent.checked_sub(received).unwrap_or(Amount::ZERO);
        let decided = beside.map(|beside| beside(&transaction, cost));
        let writes =
            decided.map(|writes| writes.ok_or(SpendError::Declined { cost })).transpose()?;
        let txid = transaction.compute_txid();
        for input in &transaction.input {
            inner.hold(input.previous_output, Owner::Transaction(txid));
        }
        inner.note(txid, purpose);
        let ticket = match writes {
            None => self.persist(inner),
            Some(writes) => {
                let seen = self.seen(inner);
                inner.bdk.apply_unconfirmed_txs([(transaction.clone(), seen)]);
                self.persist_beside(inner, writes)
            }
        };
        tracing::debug!(%txid, fee_sat = fee.to_sat(), "transaction built");
        Ok(Built { transaction, fee, ticket })
    }

    /// Refuses a transaction after which free coins would not cover the reserve.
    pub(super) fn check_reserve(
        &self,
        inner: &Inner,
        transaction: &Transaction,
        available: Amount,
        channels: u32,
    ) -> Result<(), SpendError> {
        let reserve = self.reserve_for(channels);
        let (sent, received) = inner.bdk.sent_and_received(transaction);
        // A replacement spends coins that are not free now: what it takes is then less than
        // `sent`, and counting all of it is on the safe side.
        let left = (available + received).checked_sub(sent).unwrap_or(Amount::ZERO);
        if left < reserve {
            return Err(SpendError::BreaksReserve { left, available, reserve, channels });
        }
        Ok(())
    }

    fn check_address(&self, text: &str) -> Result<ScriptBuf, SpendError> {
        let address = Address::<NetworkUnchecked>::from_str(text.trim()).map_err(|error| {
            SpendError::BadAddress { address: text.to_owned(), detail: error.to_string() }
        })?;
        let expected = self.params.keys.network();
        match address.require_network(expected) {
            Ok(address) => Ok(address.script_pubkey()),
            Err(_) => Err(SpendError::WrongNetwork { address: text.to_owned(), expected }),
        }
    }
}

impl Inner {
    /// Splits the coins into those that may be selected and those that must not.
    pub(super) fn free(&self) -> Free {
        let mut free = Free { total: Amount::ZERO, held: Amount::ZERO, unspendable: Vec::new() };
        for coin in self.unspent() {
            if coin.held_by.is_some() {
                free.held += coin.txout.value;
            } else if coin.is_selectable() {
                free.total += coin.txout.value;
                continue;
            }
            free.unspendable.push(coin.outpoint);
        }
        free
    }
}

pub(super) fn check_feerate(feerate: FeeRate) -> Result<(), SpendError> {
    if (FEERATE_MIN..=FEERATE_MAX).contains(&feerate) {
        return Ok(());
    }
    Err(SpendError::FeerateOutOfRange { sat_per_kwu: feerate.to_sat_per_kwu() })
}

fn check_outputs(outputs: &[TxOut]) -> Result<(), SpendError> {
    if outputs.is_empty() {
        return Err(SpendError::NoOutputs);
    }
    for output in outputs {
        let minimum = output.script_pubkey.minimal_non_dust();
        if output.value < minimum {
            return Err(SpendError::Dust { amount: output.value, minimum });
        }
    }
    let sum = outputs.iter().try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
    match sum {
        Some(sum) if sum <= Amount::MAX_MONEY => Ok(()),
        _ => Err(SpendError::InsufficientFunds {
            needed: sum.unwrap_or(Amount::MAX),
            available: Amount::MAX_MONEY,
            held: Amount::ZERO,
        }),
    }
}

/// Translates BDK's refusal.
pub(super) fn refusal(
    error: CreateTxError,
    outputs: &[TxOut],
    available: Amount,
    held: Amount,
) -> SpendError {
    match error {
        CreateTxError::CoinSelection(short) => {
            SpendError::InsufficientFunds { needed: short.needed, available, held }
        }
        CreateTxError::NoUtxosSelected => SpendError::InsufficientFunds {
            needed: outputs.iter().map(|output| output.value).sum(),
            available,
            held,
        },
        CreateTxError::OutputBelowDustLimit(index) if index < outputs.len() => SpendError::Dust {
            amount: outputs[index].value,
            minimum: outputs[index].script_pubkey.minimal_non_dust(),
        },
        other => SpendError::Internal(other.to_string()),
    }
}
