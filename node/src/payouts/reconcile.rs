//! What the lines of a payout say, against what payments and wallet say.
//!
//! Each row stands for itself: a paid line's payment must have succeeded with the same amount,
//! fee and preimage, a line that is not paid must have none that did, and what the lines of one
//! transaction pay and bear must be what left the wallet by it. The sums must be those of the
//! payout's own record.

use std::collections::BTreeMap;

use bitcoin::Txid;

use super::error::PayoutError;
use super::record::{self, LineRecord, LineState, PayoutRecord, Tally};
use super::service::Parts;
use crate::journal::PayoutId;
use crate::payments::PaymentState;
use crate::store::StoreError;
use crate::wallet::TransactionInfo;

/// Sums that agree to the millisatoshi.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Lines of all kinds, bad ones too.
    pub lines: u32,
    /// How the good ones stand.
    pub tally: Tally,
    /// What left the channels, by the records of payments, msat.
    pub lightning_msat: u64,
    /// What left the wallet, by its transactions, msat.
    pub onchain_msat: u64,
    /// Payments that succeeded.
    pub payments: u32,
    /// Transactions.
    pub transactions: u32,
    /// Of a schedule: what its runs that have ended cost, msat.
    pub runs_msat: u64,
}

/// Sums that do not agree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payout {payout} does not balance: {detail}; report this, and pay nothing of it anew")]
pub struct Mismatch {
    /// The payout.
    pub payout: PayoutId,
    /// What does not agree.
    pub detail: String,
}

/// Compares.
///
/// # Errors
///
/// [`Mismatch`], or the store.
pub(super) fn reconcile(record: &PayoutRecord, parts: &Parts) -> Result<Balance, PayoutError> {
    let mut books = Books { record, parts, balance: Balance::default(), onchain: BTreeMap::new() };
    let mut failed = None;
    record::each_line(&parts.committer, record.id, 0, |line| {
        failed = books.row(&line).err();
        failed.is_none()
    })?;
    match failed {
        Some(error) => Err(error),
        None => books.sums(),
    }
}

struct Books<'a> {
    record: &'a PayoutRecord,
    parts: &'a Parts,
    balance: Balance,
    /// What lines pay and bear by each transaction, msat, and how many of them are paid.
    onchain: BTreeMap<Txid, (u64, u32)>,
}

impl Books<'_> {
    fn mismatch<T>(&self, detail: String) -> Result<T, PayoutError> {
        Err(Mismatch { payout: self.record.id, detail }.into())
    }

    fn row(&mut self, line: &LineRecord) -> Result<(), PayoutError> {
        self.balance.lines += 1;
        if line.state == LineState::Bad || self.record.is_schedule() {
            return Ok(());
        }
        // From nothing to its state: one more of these.
        self.balance.tally.moved(LineState::Bad, line.state);
        let is_paid = line.state == LineState::Paid;
        if is_paid {
            let tally = &mut self.balance.tally;
            tally.paid_msat = tally.paid_msat.saturating_add(line.paid_msat);
            tally.fee_msat = tally.fee_msat.saturating_add(line.fee_msat);
        }
        if let Some(output) = line.output.filter(|_| line.state != LineState::Failed) {
            let (cost_msat, paid) = self.onchain.entry(output.txid).or_default();
            *cost_msat = cost_msat.saturating_add(line.paid_msat.saturating_add(line.fee_msat));
            *paid += u32::from(is_paid);
            return self.output(line, output);
        }
        self.payment(line)
    }

    /// A line against its payment.
    fn payment(&mut self, line: &LineRecord) -> Result<(), PayoutError> {
        let number = line.number;
        let Some(id) = line.payment else {
            if line.state == LineState::Paid {
                return self.mismatch(format!("line {number} is paid and names no payment"));
            }
            return Ok(());
        };
        let Some(payment) = self.parts.payments.recorded(id)? else {
            return self.mismatch(format!("line {number}: there is no payment {id}"));
        };
        let has_arrived = payment.state == PaymentState::Succeeded;
        match line.state {
            LineState::Paid => {
                let ours = (line.paid_msat, line.fee_msat, line.preimage);
                let theirs = (payment.amount_msat, payment.fee_msat, payment.preimage);
                if !has_arrived || ours != theirs || line.preimage.is_none() {
                    let text = format!(
                        "line {number} says {} msat and {} msat fee, payment {id} {:?} {} msat and {} msat",
                        ours.0, ours.1, payment.state, theirs.0, theirs.1
                    );
                    return self.mismatch(text);
                }
                self.balance.payments += 1;
                let cost_msat = payment.amount_msat.saturating_add(payment.fee_msat);
                self.balance.lightning_msat = self.balance.lightning_msat.saturating_add(cost_msat);
                Ok(())
            }
            // Its outcome is about to be written down.
            LineState::Paying => Ok(()),
            state if has_arrived => {
                self.mismatch(format!("line {number} is {state:?}, yet payment {id} arrived"))
            }
            _ => Ok(()),
        }
    }

    /// A line against its output.
    fn output(&self, line: &LineRecord, output: bitcoin::OutPoint) -> Result<(), PayoutError> {
        let Some(info) = self.transaction(output.txid) else {
            return self.mismatch(format!("the wallet does not know transaction {}", output.txid));
        };
        let found = info.transaction.output.get(output.vout as usize);
        let value_msat = found.map_or(0, |found| found.value.to_sat().saturating_mul(1_000));
        if value_msat != line.paid_msat || value_msat != line.amount_msat {
            let text = format!(
                "line {} says {} msat, output {output} has {value_msat} msat",
                line.number, line.paid_msat
            );
            return self.mismatch(text);
        }
        Ok(())
    }

    fn transaction(&self, txid: Txid) -> Option<TransactionInfo> {
        self.parts.onchain.wallet().transaction(txid)
    }

    fn sums(mut self) -> Result<Balance, PayoutError> {
        let onchain = std::mem::take(&mut self.onchain);
        for (txid, (cost_msat, paid)) in onchain {
            let left = self.transaction(txid).and_then(|info| info.sent.checked_sub(info.received));
            let left_msat = left.map_or(0, |left| left.to_sat().saturating_mul(1_000));
            if left_msat != cost_msat {
                let text = format!(
                    "the lines of transaction {txid} sum up to {cost_msat} msat, {left_msat} msat left the wallet by it"
                );
                return self.mismatch(text);
            }
            // All lines of a transaction are paid in one block.
            if paid > 0 {
                self.balance.transactions += 1;
                self.balance.onchain_msat = self.balance.onchain_msat.saturating_add(left_msat);
            }
        }
        let (rows, kept) = (self.balance.tally, self.record.tally);
        if rows != kept {
            return self
                .mismatch(format!("the lines sum up to {rows:?}, the payout says {kept:?}"));
        }
        let left_msat = self.balance.lightning_msat.saturating_add(self.balance.onchain_msat);
        if rows.cost_msat() != left_msat {
            let text = format!(
                "the lines sum up to {} msat, {left_msat} msat left the node",
                rows.cost_msat()
            );
            return self.mismatch(text);
        }
        if self.record.is_schedule() {
            self.runs()?;
        }
        Ok(self.balance)
    }

    /// A schedule against its runs.
    fn runs(&mut self) -> Result<(), PayoutError> {
        let of_this = |run: &PayoutRecord| {
            run.parent.is_some_and(|(id, _)| id == self.record.id)
                && Some(run.id) != self.record.runs.open
        };
        let found = record::list(&self.parts.committer, of_this, None, usize::MAX);
        let (runs, _) = found.map_err(|error: StoreError| PayoutError::Store(error))?;
        let sum = runs.iter().map(PayoutRecord::cost_msat).fold(0, u64::saturating_add);
        let spent_msat = self.record.runs.spent_msat;
        if sum != spent_msat {
            let text = format!("its runs cost {sum} msat, the schedule says {spent_msat} msat");
            return self.mismatch(text);
        }
        self.balance.runs_msat = sum;
        Ok(())
    }
}
