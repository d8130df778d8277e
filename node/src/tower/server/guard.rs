//! The eye on mempool and blocks, and the hand that answers.
//!
//! Every transaction is looked up in the table of locators. A hit is opened, checked as the chain
//! will check it, made durable, and answered at once; then once per block, each time for more,
//! until everything is spent and buried. A block that goes takes back what it had settled.
//!
//! The loop is woken by blocks and looks at the mempool in between. It starts again from records:
//! whatever was not buried is answered anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Block, FeeRate, Transaction, TxOut, Txid};
use channel_contracts::tower::{ChannelTag, Locator, Remedy, open_protocol};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::blob::StoredBlob;
use super::breach::{Answer, BURIED, Breach, Planned, Standing};
use super::ledger::{Ledger, Stored};
use super::purse::Purse;
use super::record;
use super::watches::Watches;
use crate::chain::embedded::check_spends;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::chain::follower::ChainListener;
use crate::chain::{BlockRef, BroadcastError, Broadcaster, ChainError, ChainSource};
use crate::runtime::Tasks;
use crate::store::cbor::{decode, encode};
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// Positions kept for a source that forgets a block which was reorged out.
const POSITIONS: usize = 144;
/// How often the feerate is doubled to outbid the cheater's own child.
const CHILD_TRIES: u32 = 6;
/// How long to wait for the chain after it failed.
const RETRY: Duration = Duration::from_secs(1);

/// What a guard needs.
pub struct GuardParts {
    /// The appointments.
    pub ledger: Arc<Ledger>,
    /// The paths, which hear of blocks through the guard.
    pub watches: Arc<Watches>,
    /// What the tower spends of its own.
    pub purse: Purse,
    /// The way to the store.
    pub committer: Committer,
    /// Where transactions are seen.
    pub chain: Arc<dyn ChainSource>,
    /// Where answers go.
    pub broadcaster: Arc<dyn Broadcaster>,
    /// What they pay.
    pub fees: FeeEstimates,
    /// The most they pay.
    pub feerate_max: FeeRate,
    /// How often the mempool is looked at.
    pub mempool_every: Duration,
    /// Where a tower that is new begins.
    pub tip: BlockRef,
}

/// What a tower did about a breach, for its operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreachView {
    /// The revoked commitment.
    pub commitment: Txid,
    /// The block it is in.
    pub confirmed: Option<u32>,
    /// Outputs to be taken.
    pub outputs: usize,
    /// Outputs that the victim got in a block.
    pub taken: usize,
    /// Outputs that somebody else got.
    pub lost: usize,
    /// The height at which the last one was spent, once all are.
    pub over: Option<u32>,
}

/// The watcher of a tower.
pub struct Guard {
    parts: GuardParts,
    secp: Secp256k1<All>,
    state: Mutex<State>,
    height: AtomicU32,
    woken: Notify,
}

/// What came of a transaction that was sent.
enum Sent {
    Taken,
    Refused,
    Unheard,
}

struct State {
    breaches: BTreeMap<(Txid, u64), Breach>,
    positions: Vec<BlockRef>,
    /// Durable with what the loop answers next.
    ticket: Ticket,
    /// A block came since the loop answered last.
    is_new_block: bool,
    /// Breaches that nothing was sent for yet.
    fresh: Vec<(Txid, u64)>,
    /// The blocks of the latest transactions, by locator.
    recent: HashMap<Locator, BlockRef>,
    /// Locators of appointments that are new since the last look.
    late: Vec<Locator>,
}

impl Guard {
    /// Reads what the store has.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: GuardParts) -> Result<Self, StoreError> {
        let secp = Secp256k1::new();
        let mut breaches = BTreeMap::new();
        for (_, value) in parts.committer.scan_all(Table::TowerBreach, [])? {
            let mut breach = record::get(&value)?;
            breach.refresh(&secp);
            breaches.insert((breach.txid(), breach.number), breach);
        }
        let positions = match parts.committer.get(&Table::TowerMeta.key(POSITIONS_KEY))? {
            Some(value) => decode(Table::TowerMeta, &value)?,
            // A tower begins its watch at the tip, and knows from then on where it is.
            None => {
                let positions = vec![parts.tip];
                let mut writes = Batch::default();
                writes.put(Table::TowerMeta.key(POSITIONS_KEY), encode(&positions));
                let _begun_again_after_a_crash = parts.committer.enqueue(writes);
                positions
            }
        };
        let fresh = breaches.keys().copied().collect();
        let ticket = parts.committer.now();
        let (recent, late) = (HashMap::new(), Vec::new());
        let state = State { breaches, positions, ticket, is_new_block: true, fresh, recent, late };
        let height = AtomicU32::new(state.positions.first().map_or(0, |block| block.height));
        Ok(Self { parts, secp, state: Mutex::new(state), height, woken: Notify::new() })
    }

    /// What is being answered, or was and is not buried.
    pub fn breaches(&self) -> Vec<BreachView> {
        self.state.lock().breaches.values().map(view).collect()
    }

    /// The penalty that answers a breach of a channel of `client`, if it was signed as a whole.
    pub fn penalty(&self, client: &PublicKey, channel: ChannelTag) -> Option<(Txid, Transaction)> {
        let state = self.state.lock();
        let mut own =
            state.breaches.values().filter(|b| b.client == *client && b.channel == channel);
        own.find_map(|breach| match &breach.answer {
            Answer::Penalty(penalty) => Some((breach.txid(), (**penalty).clone())),
            Answer::Remedy(_) => None,
        })
    }

    /// The height the tower has seen.
    pub fn height(&self) -> u32 {
        self.height.load(Ordering::Relaxed)
    }

    /// Runs until the stop signal.
    pub async fn run(self: Arc<Self>, tasks: Tasks) {
        let mut seen = HashMap::new();
        loop {
            tokio::select! {
                biased;
                () = tasks.stopped() => return,
                () = self.woken.notified() => {}
                () = tokio::time::sleep(self.parts.mempool_every) => {
                    if let Err(error) = self.look_at_mempool(&mut seen).await {
                        tracing::warn!(%error, "tower cannot look at the mempool");
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
            if let Err(error) = self.answer().await {
                return tracing::error!(%error, "tower stands still");
            }
        }
    }

    /// Looks up what is new in the mempool, and what new appointments missed.
    async fn look_at_mempool(&self, seen: &mut HashMap<Locator, Txid>) -> Result<(), ChainError> {
        let ids = self.parts.chain.mempool().await?;
        let now: HashMap<Locator, Txid> = ids.iter().map(|id| (Locator::of(*id), *id)).collect();
        let new = now.iter().filter(|(locator, _)| !seen.contains_key(*locator));
        let mut hits = self.parts.ledger.hits(new.map(|(locator, _)| *locator));
        let late = std::mem::take(&mut self.state.lock().late);
        hits.extend(late.iter().filter(|locator| now.contains_key(*locator)));
        for txid in hits.iter().filter_map(|locator| now.get(locator)) {
            if let Some(transaction) = self.parts.chain.mempool_transaction(*txid).await? {
                let mut writes = Batch::default();
                self.begin(&mut self.state.lock(), &transaction, None, &mut writes);
                self.write(writes);
            }
        }
        *seen = now;
        for locator in late {
            self.look_back(locator).await?;
        }
        Ok(())
    }

    /// Looks for the commitment of an appointment that came late in the latest blocks.
    async fn look_back(&self, locator: Locator) -> Result<(), ChainError> {
        let found = self.state.lock().recent.get(&locator).copied();
        let Some(found) = found else { return Ok(()) };
        let block = self.parts.chain.block(found.hash).await?;
        let own = block.txdata.iter().find(|tx| Locator::of(tx.compute_txid()) == locator);
        let Some(commitment) = own else { return Ok(()) };
        let mut writes = Batch::default();
        self.begin(&mut self.state.lock(), commitment, Some(found.height), &mut writes);
        self.write(writes);
        Ok(())
    }

    /// Appointments were added: their commitments may be known already.
    pub fn added(&self, locators: impl Iterator<Item = Locator>) {
        let mut state = self.state.lock();
        state.late.extend(locators);
    }

    /// Answers what is new, and after a block everything that is open, for more.
    async fn answer(&self) -> Result<(), StoreError> {
        let (due, ticket) = {
            let mut state = self.state.lock();
            let is_new_block = std::mem::take(&mut state.is_new_block);
            let fresh = std::mem::take(&mut state.fresh);
            let due: Vec<Breach> = if is_new_block {
                state.breaches.values().cloned().collect()
            } else {
                fresh.iter().filter_map(|key| state.breaches.get(key).cloned()).collect()
            };
            (due, state.ticket)
        };
        if due.is_empty() {
            return Ok(());
        }
        self.parts.committer.durable(ticket).await?;
        for breach in due {
            if breach.standing() == Standing::Open && !self.answer_one(&breach).await {
                // The chain is away: again with the next look.
                self.state.lock().fresh.push((breach.txid(), breach.number));
            }
        }
        Ok(())
    }

    /// Sends what is left to take. Returns whether the chain could be asked.
    async fn answer_one(&self, breach: &Breach) -> bool {
        let commitment = breach.txid();
        let urgent = self.parts.fees.get(FeePurpose::Urgent);
        let raised = FeeRate::from_sat_per_kwu(breach.feerate.to_sat_per_kwu() / 4 * 5);
        let mut feerate = urgent.max(raised).min(self.parts.feerate_max);
        // The cheater's own child has to be outbid in one go: there may be one only.
        let tries = if breach.takes_one_child() { CHILD_TRIES } else { 1 };
        for last in (0..tries).rev() {
            let planned = match breach.plan(&self.secp, feerate) {
                Ok(planned) => planned,
                Err(error) => {
                    tracing::error!(%error, txid = %commitment, "breach cannot be answered");
                    return true;
                }
            };
            let transactions: Vec<Transaction> = self.finish(breach, planned, feerate);
            if let Err(error) = self.parts.purse.durable().await {
                tracing::error!(%error, txid = %commitment, "breach is not answered");
                return true;
            }
            let mut is_refused = false;
            for transaction in transactions {
                match self.send(commitment, &transaction).await {
                    Sent::Taken => {}
                    Sent::Refused => is_refused = true,
                    Sent::Unheard => return false,
                }
            }
            if !is_refused || last == 0 {
                break;
            }
            feerate = FeeRate::from_sat_per_kwu(feerate.to_sat_per_kwu().saturating_mul(2))
                .min(self.parts.feerate_max);
        }
        let mut writes = Batch::default();
        let mut state = self.state.lock();
        // One that waits in the mempool begins anew when it is in a block.
        let feerate = if breach.takes_one_child() { FeeRate::ZERO } else { feerate };
        if let Some(kept) = state.breaches.get_mut(&(commitment, breach.number)) {
            kept.feerate = feerate;
            record::put(kept, &mut writes);
        }
        drop(state);
        if !writes.is_empty() {
            let _begun_again_after_a_crash = self.parts.committer.enqueue(writes);
        }
        true
    }

    /// Makes the transactions that were planned, with coins of this tower's where it spends any.
    fn finish(&self, breach: &Breach, planned: Vec<Planned>, feerate: FeeRate) -> Vec<Transaction> {
        let mut left = self.parts.watches.budget_of(&breach.client);
        let mut finished = Vec::with_capacity(planned.len());
        for planned in planned {
            let pairs = match planned {
                Planned::Whole(transaction) => {
                    finished.push(transaction);
                    continue;
                }
                Planned::Pairs(pairs) => pairs,
            };
            match self.parts.purse.raise(&pairs, feerate, left) {
                Some(raised) => {
                    left -= raised.added;
                    let (commitment, added) = (breach.txid(), raised.added);
                    tracing::info!(%commitment, %added, "the tower adds to the fee of an answer");
                    finished.push(raised.transaction);
                }
                None => finished.extend(pairs.plain()),
            }
        }
        finished
    }

    /// Sends a transaction. Says what came of it.
    async fn send(&self, commitment: Txid, transaction: &Transaction) -> Sent {
        match self.parts.broadcaster.submit(std::slice::from_ref(transaction)).await {
            Ok(()) => {
                tracing::warn!(%commitment, txid = %transaction.compute_txid(), "breach answered");
                Sent::Taken
            }
            Err(BroadcastError::Chain(error)) => {
                tracing::warn!(%commitment, %error, "breach cannot be answered while the chain is away");
                Sent::Unheard
            }
            // What is under way pays as much, or the mempool wants more: the next block tells.
            Err(error) => {
                tracing::info!(%commitment, %error, "answer to a breach is not taken now");
                Sent::Refused
            }
        }
    }

    /// Opens the appointments for `transaction`, and begins to answer those that are right.
    fn begin(
        &self,
        state: &mut State,
        transaction: &Transaction,
        confirmed: Option<u32>,
        writes: &mut Batch,
    ) {
        let txid = transaction.compute_txid();
        let found = match self.parts.ledger.find(&Locator::of(txid)) {
            Ok(found) => found,
            Err(error) => {
                return tracing::error!(%error, %txid, "appointments for a breach cannot be read");
            }
        };
        for stored in found {
            let key = (txid, stored.number);
            if state.breaches.contains_key(&key) {
                continue;
            }
            let Some(answer) = self.open_answer(transaction, &stored) else { continue };
            tracing::warn!(%txid, client = %stored.client, channel = %stored.channel, "breach seen");
            let mut breach = Breach {
                number: stored.number,
                client: stored.client,
                channel: stored.channel,
                commitment: transaction.clone(),
                confirmed,
                replaced: None,
                targets: BTreeSet::new(),
                answer,
                spends: BTreeMap::new(),
                moved: Vec::new(),
                feerate: FeeRate::ZERO,
            };
            breach.refresh(&self.secp);
            record::put(&breach, writes);
            state.breaches.insert(key, breach);
            state.fresh.push(key);
        }
    }

    /// Opens what a client left, if the chain will take it.
    fn open_answer(&self, commitment: &Transaction, stored: &Stored) -> Option<Answer> {
        let txid = commitment.compute_txid();
        let refused = |why: &dyn std::fmt::Display| {
            tracing::info!(%txid, client = %stored.client, "appointment is no answer: {why}");
        };
        match StoredBlob::decode(&stored.blob) {
            Ok(StoredBlob::Sealed(blob)) => {
                let remedy = Remedy::open(txid, &blob).map_err(|why| refused(&why)).ok()?;
                remedy.check(&self.secp, commitment).map_err(|why| refused(&why)).ok()?;
                Some(Answer::Remedy(Box::new(remedy)))
            }
            Ok(StoredBlob::Open { blob, .. }) => {
                let penalty = open_protocol::penalty::decrypt(txid, &blob);
                let penalty = penalty.map_err(|why| refused(&why)).ok()?;
                is_valid(&penalty, commitment).map_err(|why| refused(&why)).ok()?;
                Some(Answer::Penalty(Box::new(penalty)))
            }
            Err(why) => {
                refused(&why);
                None
            }
        }
    }

    fn write(&self, writes: Batch) {
        if !writes.is_empty() {
            let ticket = self.parts.committer.enqueue(writes);
            self.state.lock().ticket = ticket;
            self.woken.notify_one();
        }
    }
}

impl ChainListener for Guard {
    fn name(&self) -> &str {
        "tower"
    }

    fn positions(&self) -> Vec<BlockRef> {
        self.state.lock().positions.clone()
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let mut writes = Batch::default();
        let mut state = self.state.lock();
        let ids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
        let hits = self.parts.ledger.hits(ids.iter().map(|txid| Locator::of(*txid)));
        if !hits.is_empty() {
            let both = block.txdata.iter().zip(&ids);
            for (transaction, _) in both.filter(|(_, id)| hits.contains(&Locator::of(**id))) {
                self.begin(&mut state, transaction, Some(height), &mut writes);
            }
        }
        self.parts.watches.block_connected(&ids, height, &mut writes);
        let mut over = Vec::new();
        for (key, breach) in &mut state.breaches {
            if breach.block_connected(&self.secp, block, &ids, height) {
                record::put(breach, &mut writes);
            }
            if let Standing::Over { height: over_at } = breach.standing()
                && height.saturating_sub(over_at) >= BURIED
            {
                tracing::info!(commitment = %key.0, "breach is over and buried");
                record::delete(breach, &mut writes);
                over.push(*key);
            }
        }
        for key in over {
            if let Some(breach) = state.breaches.remove(&key) {
                self.parts.purse.release(&breach.targets);
            }
        }
        let here = BlockRef { height, hash: block.block_hash() };
        state.recent.extend(ids.iter().map(|txid| (Locator::of(*txid), here)));
        let oldest = height.saturating_sub(POSITIONS as u32);
        if height.is_multiple_of(POSITIONS as u32) {
            state.recent.retain(|_, block| block.height > oldest);
        }
        state.positions.insert(0, here);
        state.positions.truncate(POSITIONS);
        self.put_positions(&state, &mut writes);
        state.is_new_block = true;
        self.height.store(height, Ordering::Relaxed);
        drop(state);
        self.write(writes);
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        let mut writes = Batch::default();
        let mut state = self.state.lock();
        for breach in state.breaches.values_mut() {
            if breach.disconnected(&self.secp, fork_point.height) {
                record::put(breach, &mut writes);
            }
        }
        self.parts.watches.disconnected(fork_point.height, &mut writes);
        state.recent.retain(|_, block| block.height <= fork_point.height);
        state.positions.retain(|block| block.height <= fork_point.height);
        if state.positions.first() != Some(&fork_point) {
            state.positions.insert(0, fork_point);
        }
        self.put_positions(&state, &mut writes);
        self.height.store(fork_point.height, Ordering::Relaxed);
        drop(state);
        self.write(writes);
    }
}

impl Guard {
    fn put_positions(&self, state: &State, writes: &mut Batch) {
        writes.put(Table::TowerMeta.key(POSITIONS_KEY), encode(&state.positions));
    }
}

/// The place of the last blocks seen.
const POSITIONS_KEY: &str = "positions";

/// Whether `penalty` spends `commitment`, and every input of it that does is as its script wants.
fn is_valid(penalty: &Transaction, commitment: &Transaction) -> Result<(), String> {
    let txid = commitment.compute_txid();
    let mut spent: Vec<&TxOut> = Vec::with_capacity(penalty.input.len());
    for input in &penalty.input {
        let outpoint = input.previous_output;
        let output = usize::try_from(outpoint.vout).ok().and_then(|v| commitment.output.get(v));
        match output.filter(|_| outpoint.txid == txid) {
            Some(output) => spent.push(output),
            None => return Err(format!("it spends {outpoint}, which is not the commitment's")),
        }
    }
    check_spends(penalty, &spent).map_err(|input| format!("its input {input} is not signed right"))
}

fn view(breach: &Breach) -> BreachView {
    let spent = |ours: bool| breach.spends.values().filter(|spend| spend.ours == ours).count();
    BreachView {
        commitment: breach.txid(),
        confirmed: breach.confirmed,
        outputs: breach.targets.len(),
        taken: spent(true),
        lost: spent(false),
        over: match breach.standing() {
            Standing::Over { height } => Some(height),
            Standing::Open => None,
        },
    }
}
