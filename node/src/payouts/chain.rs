//! Lines that pay on chain: gathered into transactions, recorded with them, paid once in a block.
//!
//! A line names its output in the batch that has the transaction and its coins, and only then is
//! it broadcast; after a crash the wallet broadcasts it again. Such a transaction is never
//! replaced, since receipts name it. Each line bears its share of the fee, to the millisatoshi.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, OutPoint, Transaction, TxOut, Txid};
use tokio::time::Instant;

use super::line::LineReason;
use super::live::{Live, State};
use super::quote::OUTPUTS_MAX;
use super::record::{self, LineRecord, LineState, PayoutRecord, PayoutState};
use super::service::Payouts;
use crate::chain::BlockRef;
use crate::store::{Batch, StoreError, Ticket};
use crate::wallet::SpendError;

/// What a task has in hand of lines that pay on chain.
#[derive(Default)]
pub(super) struct ChainWork {
    pub ready: VecDeque<u32>,
    /// The block up to which transactions were looked for.
    seen: Option<BlockRef>,
    /// Lines whose transaction is in no block yet.
    under_way: HashMap<Txid, Vec<u32>>,
    /// How often no transaction could be made, and until when none is tried.
    failures: u32,
    wait_until: Option<Instant>,
}

impl ChainWork {
    /// Takes up a line whose transaction was made before.
    pub fn take_up(&mut self, line: &LineRecord) {
        if let Some(output) = line.output {
            let numbers = self.under_way.entry(output.txid).or_default();
            if !numbers.contains(&line.number) {
                numbers.push(line.number);
            }
        }
    }

    /// When the next transaction is tried.
    pub fn wake_at(&self) -> Option<Instant> {
        self.wait_until.filter(|_| !self.ready.is_empty())
    }
}

impl Payouts {
    /// Takes note of transactions that are in a block, or never will be.
    pub(super) fn look_at_chain(
        &self,
        live: &Live,
        work: &mut ChainWork,
        synced: Option<BlockRef>,
    ) -> Result<(), StoreError> {
        let has_seen = std::mem::replace(&mut work.seen, synced) == synced;
        if work.under_way.is_empty() || has_seen {
            return Ok(());
        }
        let wallet = self.parts.onchain.wallet();
        let confirmed =
            |txid: &Txid| wallet.transaction(*txid).is_some_and(|info| info.confirmed_in.is_some());
        let ended: Vec<(Txid, bool)> = work
            .under_way
            .keys()
            .filter_map(|txid| match confirmed(txid) {
                true => Some((*txid, true)),
                false => wallet.is_beaten(*txid).then_some((*txid, false)),
            })
            .collect();
        for (txid, is_paid) in ended {
            for number in work.under_way.remove(&txid).unwrap_or_default() {
                self.end_on_chain(live, number, txid, is_paid)?;
            }
        }
        Ok(())
    }

    fn end_on_chain(
        &self,
        live: &Live,
        number: u32,
        txid: Txid,
        is_paid: bool,
    ) -> Result<(), StoreError> {
        let mut state = live.state.lock();
        let line = record::line(&self.parts.committer, live.id, number)?;
        let is_its = |line: &LineRecord| {
            line.state == LineState::Paying && line.output.is_some_and(|at| at.txid == txid)
        };
        let Some(mut line) = line.filter(is_its) else { return Ok(()) };
        line.ended_ms = Some(self.now_ms());
        line.state = LineState::Paid;
        if !is_paid {
            line.state = LineState::Failed;
            line.reason = Some(LineReason::DoubleSpent);
            line.detail = format!("another transaction took a coin of {txid}, six blocks deep");
            (line.paid_msat, line.fee_msat) = (0, 0);
        }
        self.line(live, &mut state, LineState::Paying, &line);
        Ok(())
    }

    /// Makes a transaction for lines that wait for one, if there are any.
    pub(super) async fn pay_on_chain(
        &self,
        live: &Live,
        work: &mut ChainWork,
    ) -> Result<(), StoreError> {
        while !work.ready.is_empty() {
            if work.wait_until.is_some_and(|until| until > Instant::now()) {
                return Ok(());
            }
            let made = {
                let mut state = live.state.lock();
                if state.record.state != PayoutState::Running {
                    return Ok(());
                }
                self.make_transaction(live, &mut state, work)?
            };
            let Some((transaction, ticket)) = made else { continue };
            // Nothing leaves before it is durable.
            self.parts.committer.durable(ticket).await?;
            let txid = self.parts.onchain.publish(transaction);
            tracing::info!(payout = %live.id, %txid, "transaction of a payout is on its way");
        }
        Ok(())
    }

    /// Makes a transaction, and records it with its lines; `None` if there is nothing to pay or
    /// it has to wait.
    fn make_transaction(
        &self,
        live: &Live,
        state: &mut State,
        work: &mut ChainWork,
    ) -> Result<Option<(Transaction, Ticket)>, StoreError> {
        let mut lines = Vec::new();
        let mut outputs = Vec::new();
        let count = work.ready.len().min(OUTPUTS_MAX);
        let numbers: Vec<u32> = work.ready.drain(..count).collect();
        for number in &numbers {
            let line = record::line(&self.parts.committer, live.id, *number)?;
            let Some(line) = line.filter(|line| line.state == LineState::Pending) else { continue };
            match output(&line) {
                Some(output) => {
                    outputs.push(output);
                    lines.push(line);
                }
                None => self.refuse(live, state, line, "its address does not read back"),
            }
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let asked = state.record.settings.feerate_sat_per_vb;
        let mut begun = None;
        let made = self.parts.onchain.feerate_of(asked).and_then(|feerate| {
            let most_msat = lines.iter().map(|line| line.max_fee_msat).fold(0, u64::saturating_add);
            self.parts.onchain.pay_many(&outputs, feerate, |transaction, fee| {
                if fee.to_sat().saturating_mul(1_000) > most_msat {
                    return None;
                }
                let (after, batch) = self.record_begun(&state.record, &lines, transaction, fee);
                begun = Some(after);
                Some(batch)
            })
        });
        match made {
            Ok((transaction, ticket)) => {
                if let Some(after) = begun {
                    live.changed(state, after, ticket);
                }
                let numbers = lines.iter().map(|line| line.number).collect();
                work.under_way.insert(transaction.compute_txid(), numbers);
                (work.failures, work.wait_until) = (0, None);
                Ok(Some((transaction, ticket)))
            }
            Err(
                error @ (SpendError::InsufficientFunds { .. }
                | SpendError::BreaksReserve { .. }
                | SpendError::Declined { .. }),
            ) => {
                for line in lines.iter().rev() {
                    work.ready.push_front(line.number);
                }
                work.failures += 1;
                let wait = self.parts.policy.wait_after(work.failures);
                work.wait_until = Some(Instant::now() + wait);
                let reason = match error {
                    SpendError::Declined { .. } => LineReason::FeeTooHigh,
                    _ => LineReason::Liquidity,
                };
                let why = match error {
                    SpendError::Declined { .. } => {
                        "on chain: the fee is above the bound that was accepted; waiting for lower feerates".to_owned()
                    }
                    error => format!("on chain: {error}"),
                };
                for line in &lines {
                    self.waits(live, line, reason, &why);
                }
                self.say(live, state, &why);
                Ok(None)
            }
            Err(error) => {
                for line in lines {
                    self.refuse(live, state, line, &error.to_string());
                }
                Ok(None)
            }
        }
    }

    /// Gives up a line that no transaction can pay.
    fn refuse(&self, live: &Live, state: &mut State, line: LineRecord, why: &str) {
        let line = LineRecord {
            state: LineState::Failed,
            reason: Some(LineReason::Unexpected),
            detail: why.to_owned(),
            ended_ms: Some(self.now_ms()),
            ..line
        };
        self.line(live, state, LineState::Pending, &line);
    }

    /// The records of lines that a transaction pays: each with its output and its share.
    fn record_begun(
        &self,
        before: &PayoutRecord,
        lines: &[LineRecord],
        transaction: &Transaction,
        fee: Amount,
    ) -> (PayoutRecord, Batch) {
        let txid = transaction.compute_txid();
        let begun_ms = Some(self.now_ms());
        let mut places = places(transaction);
        let shares = shares(fee.to_sat().saturating_mul(1_000), lines.len());
        let mut batch = Batch::default();
        let mut after = before.clone();
        for (line, fee_msat) in lines.iter().zip(shares) {
            let place = output(line).and_then(|output| places.get_mut(&key(&output))?.pop());
            let vout = place.expect("the transaction has an output for each line");
            let line = LineRecord {
                state: LineState::Paying,
                output: Some(OutPoint { txid, vout }),
                attempts: line.attempts.saturating_add(1),
                paid_msat: line.amount_msat,
                fee_msat,
                begun_ms,
                reason: None,
                detail: String::new(),
                ..line.clone()
            };
            line.put(before.id, &mut batch);
            after.tally.moved(LineState::Pending, LineState::Paying);
        }
        after.detail.clear();
        after.put(&mut batch);
        (after, batch)
    }
}

/// The output that a line asks for.
fn output(line: &LineRecord) -> Option<TxOut> {
    // Its network was judged when the payout was made.
    let address = line.target.parse::<Address<NetworkUnchecked>>().ok()?.assume_checked();
    let value = Amount::from_sat(line.amount_msat / 1_000);
    Some(TxOut { value, script_pubkey: address.script_pubkey() })
}

/// What outputs are told apart by: two lines may well ask for the same.
fn key(output: &TxOut) -> (Vec<u8>, u64) {
    (output.script_pubkey.to_bytes(), output.value.to_sat())
}

/// Where a transaction has which outputs.
fn places(transaction: &Transaction) -> BTreeMap<(Vec<u8>, u64), Vec<u32>> {
    let mut places: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for (vout, output) in (0_u32..).zip(&transaction.output) {
        places.entry(key(output)).or_default().push(vout);
    }
    places
}

/// A fee in so many parts that differ by 1 msat at most, and sum up to it.
fn shares(fee_msat: u64, parts: usize) -> impl Iterator<Item = u64> {
    let parts = parts.max(1) as u64;
    (0..parts).map(move |part| fee_msat / parts + u64::from(part < fee_msat % parts))
}

#[cfg(test)]
mod tests {
    use bitcoin::{ScriptBuf, absolute, transaction};

    use super::*;

    #[test]
    fn shares_sum_up_to_the_millisatoshi() {
        for (fee_msat, parts) in [(1_000, 3), (0, 5), (2, 7), (12_345_000, 249), (999, 1)] {
            let shares: Vec<u64> = shares(fee_msat, parts).collect();
            assert_eq!(shares.len(), parts);
            assert_eq!(shares.iter().sum::<u64>(), fee_msat);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1);
        }
    }

    #[test]
    fn two_outputs_that_look_alike_have_two_places() {
        let output = |sat, byte| TxOut {
            value: Amount::from_sat(sat),
            script_pubkey: ScriptBuf::from_bytes(vec![byte]),
        };
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: Vec::new(),
            output: vec![output(5, 1), output(7, 1), output(5, 1), output(5, 2)],
        };
        let mut places = places(&transaction);
        let mut take = |sat, byte| places.get_mut(&key(&output(sat, byte))).unwrap().pop();
        let mut twins = [take(5, 1).unwrap(), take(5, 1).unwrap()];
        twins.sort_unstable();
        assert_eq!(twins, [0, 2]);
        assert_eq!((take(5, 1), take(7, 1), take(5, 2)), (None, Some(1), Some(3)));
    }
}
