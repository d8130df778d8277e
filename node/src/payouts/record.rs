//! What the store has of payouts and their lines.
//!
//! A line's record is the truth about what was begun for it: it names its payment in the batch of
//! the payment's first record, and its output in the batch of the transaction. Names are part of
//! the store's format: add, never rename.

use std::collections::BTreeMap;

use bitcoin::OutPoint;
use serde::{Deserialize, Serialize};

use super::line::{LineKind, LineReason};
use super::schedule::Recurrence;
use crate::journal::PayoutId;
use crate::lightning::types::{NodeId, PaymentId, Preimage};
use crate::store::cbor::{corrupt, decode, encode};
use crate::store::{Batch, Committer, Pair, StoreError, Table};

/// Where a payout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayoutState {
    /// It was checked and quoted, and waits for somebody to agree.
    Quoted,
    /// It waits for its time, or for the next run's.
    Scheduled,
    /// Its lines are being paid.
    Running,
    /// Nothing new is begun; what was begun ends.
    Paused,
    /// As paused, and it will not go on.
    Cancelling,
    /// Every line has its end.
    Completed,
    /// Lines that were not paid by then will not be.
    Cancelled,
}

impl PayoutState {
    /// Whether nothing is under way; only [`PayoutState::Completed`] can be begun anew.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

/// What a payout may do, as its creator said, with the node's settings where nothing was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// What it is, in words.
    pub name: String,
    /// Most that good lines may pay together, msat.
    pub max_total_msat: Option<u64>,
    /// Most that one line may pay, msat.
    pub max_line_msat: Option<u64>,
    /// Most that one line may cost, msat, where the line does not say.
    pub max_line_fee_msat: Option<u64>,
    /// Payments under way at once.
    pub concurrency: u32,
    /// Feerate of transactions; `None` for the estimate of the moment.
    pub feerate_sat_per_vb: Option<u64>,
    /// How long lines that cannot be paid at once are tried, from start or resumption on.
    pub time_limit_seconds: u64,
    /// Not to begin before, ms since the Unix epoch.
    pub not_before_ms: Option<u64>,
    /// Whether and when it is repeated.
    pub recurrence: Option<Recurrence>,
}

/// What a payout will cost, as shown to whoever accepts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// Lines that can be paid.
    pub good_lines: u32,
    /// Lines that cannot.
    pub bad_lines: u32,
    /// Good lines that pay on chain.
    pub onchain_lines: u32,
    /// What the receivers of good lines get, msat.
    pub total_msat: u64,
    /// Of that on chain, msat.
    pub onchain_msat: u64,
    /// Most that it may cost beyond, msat: a bound that is kept.
    pub max_fee_msat: u64,
    /// Of that on chain, msat.
    pub onchain_max_fee_msat: u64,
    /// What it may well cost, msat: an estimate of the moment.
    pub estimated_fee_msat: u64,
    /// Good lines that the estimate leaves out: no route was looked for, or none was found.
    pub unestimated_lines: u32,
    /// When the first invoice expires, ms since the Unix epoch.
    pub earliest_expiry_ms: Option<u64>,
    /// What the channels could send then, msat.
    pub lightning_spendable_msat: u64,
    /// What the wallet could send then, satoshi.
    pub onchain_spendable_sat: u64,
}

impl Quote {
    /// Whether what there was would have paid for all of it.
    pub fn is_covered(&self) -> bool {
        let most = |total: u64, fee: u64| total.saturating_add(fee);
        let onchain = most(self.onchain_msat, self.onchain_max_fee_msat);
        let lightning = most(self.total_msat, self.max_fee_msat).saturating_sub(onchain);
        lightning <= self.lightning_spendable_msat
            && onchain <= self.onchain_spendable_sat.saturating_mul(1_000)
    }

    /// Most that leaves the node, msat.
    pub fn most_msat(&self) -> u64 {
        self.total_msat.saturating_add(self.max_fee_msat)
    }
}

/// How many good lines stand how, and what they have cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Not begun, or to be begun again.
    pub pending: u32,
    /// Under way.
    pub paying: u32,
    /// Paid.
    pub paid: u32,
    /// Given up.
    pub failed: u32,
    /// Not paid because the payout was cancelled.
    pub cancelled: u32,
    /// What the receivers have, msat.
    pub paid_msat: u64,
    /// What that cost beyond, msat.
    pub fee_msat: u64,
}

impl Tally {
    /// All that left the node, msat.
    pub fn cost_msat(&self) -> u64 {
        self.paid_msat.saturating_add(self.fee_msat)
    }

    /// Counts a line's way from one state to another.
    pub fn moved(&mut self, from: LineState, to: LineState) {
        self.add(from, -1);
        self.add(to, 1);
    }

    fn add(&mut self, state: LineState, change: i32) {
        let count = match state {
            LineState::Bad => return,
            LineState::Pending => &mut self.pending,
            LineState::Paying => &mut self.paying,
            LineState::Paid => &mut self.paid,
            LineState::Failed => &mut self.failed,
            LineState::Cancelled => &mut self.cancelled,
        };
        *count = count.saturating_add_signed(change);
    }
}

/// How far a schedule came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// The number of the next time, from 0.
    pub next: u32,
    /// Runs that were made.
    pub made: u32,
    /// Times that went by without one.
    pub missed: u32,
    /// What ended runs have cost, msat.
    pub spent_msat: u64,
    /// The run that is under way.
    pub open: Option<PayoutId>,
}

/// A payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutRecord {
    /// Its name.
    pub id: PayoutId,
    /// What it may do.
    pub settings: Settings,
    /// What it will cost.
    pub quote: Quote,
    /// Where it stands.
    pub state: PayoutState,
    /// Whether it was accepted with bad lines.
    pub skips_bad_lines: bool,
    /// How its lines stand.
    pub tally: Tally,
    /// How far its schedule came.
    pub runs: Runs,
    /// The schedule that it is a run of, and its number there, from 1.
    pub parent: Option<(PayoutId, u32)>,
    /// When it was made, ms since the Unix epoch.
    pub created_ms: u64,
    /// When it was accepted.
    pub accepted_ms: Option<u64>,
    /// When its first line was begun, or could have been.
    pub started_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// When pending lines are given up.
    pub deadline_ms: Option<u64>,
    /// What of its cost tokens were charged with.
    pub charged_msat: u64,
    /// Why it ended or stands still, in words.
    pub detail: String,
}

impl PayoutRecord {
    /// Whether it makes runs rather than paying lines itself.
    pub fn is_schedule(&self) -> bool {
        self.settings.recurrence.is_some()
    }

    /// All that left the node for it, msat.
    pub fn cost_msat(&self) -> u64 {
        match self.is_schedule() {
            true => self.runs.spent_msat,
            false => self.tally.cost_msat(),
        }
    }

    /// Most that may leave the node for it, msat: what is asked of a token.
    pub fn most_msat(&self) -> u64 {
        match &self.settings.recurrence {
            Some(recurrence) => recurrence.budget_msat,
            None => self.quote.most_msat(),
        }
    }

    pub(super) fn put(&self, batch: &mut Batch) {
        batch.put(Table::Payout.key(self.id.0), encode(self));
    }

    /// Writes whether it is among those that have not ended.
    pub(super) fn put_open(&self, batch: &mut Batch) {
        let open = Table::PayoutOpen.key(self.id.0);
        match self.state.is_final() {
            true => batch.delete(open),
            false => batch.put(open, Vec::new()),
        }
    }

    pub(super) fn put_new(&self, batch: &mut Batch) {
        self.put(batch);
        self.put_open(batch);
        let place = [&self.created_ms.to_be_bytes()[..], &self.id.0].concat();
        batch.put(Table::PayoutIndex.key(place), Vec::new());
    }
}

/// Where a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineState {
    /// It cannot be paid.
    Bad,
    /// It waits for its turn.
    Pending,
    /// Its payment, or its transaction, is under way.
    Paying,
    /// The receiver has it.
    Paid,
    /// It is given up.
    Failed,
    /// The payout was cancelled before it was paid.
    Cancelled,
}

/// A line of a payout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRecord {
    /// Its number, from 1.
    #[serde(skip)]
    pub number: u32,
    /// Where it stood in the file, from 1.
    pub file_line: Option<u64>,
    /// What is paid.
    pub kind: LineKind,
    /// Whom, as written.
    pub target: String,
    /// The receiver, where known.
    pub payee: Option<NodeId>,
    /// What the receiver gets, msat.
    pub amount_msat: u64,
    /// Most it may cost beyond, msat.
    pub max_fee_msat: u64,
    /// The payer's own words.
    pub reference: String,
    /// Words to the receiver.
    pub note: String,
    /// Where it stands.
    pub state: LineState,
    /// Why it is bad, waits, or is given up.
    pub reason: Option<LineReason>,
    /// That in words.
    pub detail: String,
    /// How often it was begun.
    pub attempts: u32,
    /// Its newest payment.
    pub payment: Option<PaymentId>,
    /// Its output.
    pub output: Option<OutPoint>,
    /// What the receiver got, msat.
    pub paid_msat: u64,
    /// What it cost beyond, msat; on chain its share of the transaction's fee.
    pub fee_msat: u64,
    /// The proof of payment.
    pub preimage: Option<Preimage>,
    /// When it was begun the last time, ms since the Unix epoch.
    pub begun_ms: Option<u64>,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

impl LineRecord {
    pub(super) fn put(&self, payout: PayoutId, batch: &mut Batch) {
        batch.put(Table::PayoutLine.key(place(payout, self.number)), encode(self));
    }

    /// Most that leaves the node for it, msat.
    pub fn most_msat(&self) -> u64 {
        self.amount_msat.saturating_add(self.max_fee_msat)
    }

    /// The line as it was before anything was begun for it, for another run.
    pub(super) fn anew(&self) -> Self {
        Self {
            state: LineState::Pending,
            reason: None,
            detail: String::new(),
            attempts: 0,
            payment: None,
            output: None,
            paid_msat: 0,
            fee_msat: 0,
            preimage: None,
            begun_ms: None,
            ended_ms: None,
            ..self.clone()
        }
    }
}

fn place(payout: PayoutId, number: u32) -> Vec<u8> {
    [&payout.0[..], &number.to_be_bytes()].concat()
}

/// Reads a payout.
pub(super) fn read(
    committer: &Committer,
    id: PayoutId,
) -> Result<Option<PayoutRecord>, StoreError> {
    let value = committer.get(&Table::Payout.key(id.0))?;
    value.map(|value| decode(Table::Payout, &value)).transpose()
}

/// Reads the payouts that have not ended.
pub(super) fn load_open(committer: &Committer) -> Result<Vec<PayoutRecord>, StoreError> {
    let read_one = |(key, _): &Pair| {
        let odd = || corrupt(Table::PayoutOpen, &"its id is odd");
        let id = Table::PayoutOpen.rest(key).and_then(|rest| rest.try_into().ok()).map(PayoutId);
        read(committer, id.ok_or_else(odd)?)?.ok_or_else(|| corrupt(Table::Payout, &"it is gone"))
    };
    committer.scan_all(Table::PayoutOpen, [])?.iter().map(read_one).collect()
}

/// Reads at most `limit` payouts that `takes` takes, newest first, from `page` on, and where the
/// next page begins.
pub(super) fn list(
    committer: &Committer,
    takes: impl Fn(&PayoutRecord) -> bool,
    page: Option<&[u8]>,
    limit: usize,
) -> Result<(Vec<PayoutRecord>, Option<Vec<u8>>), StoreError> {
    let (from, end) = Table::PayoutIndex.range();
    let mut to = page.map_or(end, |page| Table::PayoutIndex.key(page));
    let mut found = Vec::new();
    loop {
        let pairs = committer.scan_back(&from, &to, limit.max(100))?;
        let is_last = pairs.len() < limit.max(100);
        for (key, _) in &pairs {
            let rest = Table::PayoutIndex.rest(key).unwrap_or_default();
            let id = rest.get(8..).and_then(|id| id.try_into().ok()).map(PayoutId);
            let record = id.map(|id| read(committer, id)).transpose()?.flatten();
            if let Some(record) = record.filter(|record| takes(record)) {
                found.push(record);
                if found.len() == limit {
                    return Ok((found, Some(rest.to_vec())));
                }
            }
        }
        match pairs.last() {
            Some((last, _)) if !is_last => to.clone_from(last),
            _ => return Ok((found, None)),
        }
    }
}

/// Reads one line.
pub(super) fn line(
    committer: &Committer,
    payout: PayoutId,
    number: u32,
) -> Result<Option<LineRecord>, StoreError> {
    let value = committer.get(&Table::PayoutLine.key(place(payout, number)))?;
    value.map(|value| read_line(number, &value)).transpose()
}

fn read_line(number: u32, value: &[u8]) -> Result<LineRecord, StoreError> {
    let line: LineRecord = decode(Table::PayoutLine, value)?;
    Ok(LineRecord { number, ..line })
}

/// Gives `take` every line of a payout after `after`, in order, until it says false.
pub(super) fn each_line(
    committer: &Committer,
    payout: PayoutId,
    after: u32,
    mut take: impl FnMut(LineRecord) -> bool,
) -> Result<(), StoreError> {
    /// Lines read at once.
    const STEP: usize = 500;
    let (_, to) = Table::PayoutLine.range_of(payout.0);
    let mut from = Table::PayoutLine.key(place(payout, after.saturating_add(1)));
    loop {
        let pairs = committer.scan(&from, &to, STEP)?;
        for (key, value) in &pairs {
            let number = Table::PayoutLine.rest(key).and_then(|rest| rest.get(16..));
            let number = number.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
            let number = number.ok_or_else(|| corrupt(Table::PayoutLine, &"its place is odd"))?;
            if !take(read_line(number, value)?) {
                return Ok(());
            }
        }
        match pairs.last() {
            Some((last, _)) if pairs.len() == STEP => from = [&last[..], &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

/// Reads the lines of a payout that `takes` takes, by number.
pub(super) fn lines(
    committer: &Committer,
    payout: PayoutId,
    takes: impl Fn(&LineRecord) -> bool,
) -> Result<BTreeMap<u32, LineRecord>, StoreError> {
    let mut found = BTreeMap::new();
    each_line(committer, payout, 0, |line| {
        if takes(&line) {
            found.insert(line.number, line);
        }
        true
    })?;
    Ok(found)
}
