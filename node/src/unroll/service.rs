//! The one task that publishes paths, and what callers ask of it.
//!
//! At each block it looks where every wanted path stands and publishes the next transaction of
//! each, once for all paths that share it. Its memory is what it paid last; that a leaf is
//! wanted, and which coin pays for which transaction, is durable before anything is broadcast.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::hashes::Hash;
use bitcoin::{FeeRate, OutPoint, Transaction, Txid};
use channel_contracts::script::anchor::pay_to_anchor;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::paths::Paths;
use super::plan::{Look, Paid, Rates, Standing, Step, step};
use super::{Reason, UnrollError, UnrollState, UnrollView, record};
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::chain::follower::SyncState;
use crate::chain::{BlockRef, ChainError, ChainSource};
use crate::runtime::Tasks;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};
use crate::wallet::{AnchorChild, AnchorError, AnchorRequest, Owner, Wallet};

/// How often the task looks for commitments that wait, and again at a chain that did not answer.
const POLL: Duration = Duration::from_secs(1);

/// What the service works with.
pub struct Parts {
    /// The store.
    pub committer: Committer,
    /// Its table of what is wanted.
    pub table: Table,
    /// The paths, and who waits for them.
    pub paths: Arc<dyn Paths>,
    /// The coins that pay.
    pub wallet: Arc<Wallet>,
    /// Feerates.
    pub fees: FeeEstimates,
    /// The chain.
    pub chain: Arc<dyn ChainSource>,
    /// The way out.
    pub broadcasts: BroadcastQueue,
    /// The most that a transaction and its child pay.
    pub feerate_max: FeeRate,
}

/// Brings leaves of batches onto the chain.
pub struct Unroller {
    parts: Parts,
    /// By funding outpoint.
    wants: Mutex<BTreeMap<OutPoint, Want>>,
    /// Roots of batches that no commitment brings onto the chain any more.
    set_aside: Mutex<HashSet<OutPoint>>,
    woken: Notify,
    views: watch::Sender<u64>,
}

/// A leaf that is wanted.
#[derive(Clone)]
struct Want {
    reason: Reason,
    /// From the root down to the leaf, signed.
    path: Arc<Vec<Transaction>>,
    state: UnrollState,
    /// Durable once the record is.
    ticket: Ticket,
    /// Nobody wants it any more: its coin is freed and its record dropped.
    dropped: bool,
}

impl Want {
    fn view(&self, funding: OutPoint) -> UnrollView {
        let (reason, levels, state) = (self.reason, self.path.len(), self.state);
        UnrollView { funding, reason, levels, state }
    }
}

/// What the task remembers.
#[derive(Default)]
struct Work {
    /// The block at which everything was looked at.
    looked: Option<BlockRef>,
    /// The last child for each transaction of a path.
    paid: HashMap<Txid, PaidLevel>,
    /// Leaves that commitments wait for in vain.
    ignored: HashSet<OutPoint>,
    /// Whether the chain failed to answer when last asked.
    failing: bool,
}

#[derive(Clone, Copy)]
struct PaidLevel {
    paid: Paid,
    child: Txid,
}

impl PaidLevel {
    /// What an earlier process paid.
    fn recalled(parent: &Transaction, child: &AnchorChild) -> Self {
        let weight = (parent.weight() + child.transaction.weight()).to_wu();
        let feerate = FeeRate::from_sat_per_kwu(child.fee.to_sat() * 1_000 / weight);
        Self { paid: Paid { feerate, at: None }, child: child.transaction.compute_txid() }
    }

    fn seen_at(self, height: u32) -> Self {
        Self { paid: Paid { at: Some(height), ..self.paid }, ..self }
    }
}

/// A transaction that waits for a block.
struct Level<'a> {
    transaction: &'a Transaction,
    number: usize,
    /// Who wants it.
    wanted_for: Vec<OutPoint>,
}

#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Unroller {
    /// Reads what is wanted.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: Parts) -> Result<Self, StoreError> {
        let mut wants = BTreeMap::new();
        for (funding, reason) in record::load(parts.table, &parts.committer)? {
            let ticket = parts.committer.now();
            match parts.paths.path(funding, reason) {
                Ok(path) => {
                    let path = Arc::new(path);
                    let state = UnrollState::Wanted;
                    let dropped = false;
                    wants.insert(funding, Want { reason, path, state, ticket, dropped });
                }
                Err(error) => tracing::error!(%error, "a leaf is wanted on chain in vain"),
            }
        }
        let (woken, views) = (Notify::new(), watch::Sender::new(0));
        let set_aside = Mutex::default();
        Ok(Self { parts, wants: Mutex::new(wants), set_aside, woken, views })
    }

    /// Brings the leaf with the output `funding` onto the chain, since a caller wants to leave the
    /// batch. Returns once that is durable. Closes nothing: the channel goes on as an ordinary one.
    ///
    /// # Errors
    ///
    /// See [`UnrollError`].
    pub async fn exit(&self, funding: OutPoint) -> Result<(), UnrollError> {
        self.want(funding, Reason::Requested).await
    }

    /// As [`Unroller::exit`], for `reason`. What is wanted already stays as it is. To reclaim what
    /// is beside it, `funding` may be an output of any tree transaction: the path ends with that
    /// one then.
    ///
    /// # Errors
    ///
    /// See [`UnrollError`].
    pub async fn want(&self, funding: OutPoint, reason: Reason) -> Result<(), UnrollError> {
        let known = {
            let mut wants = self.wants.lock();
            wants.get_mut(&funding).map(|want| {
                want.dropped = false;
                want.ticket
            })
        };
        let ticket = match known {
            Some(ticket) => ticket,
            None => {
                let path = Arc::new(self.parts.paths.path(funding, reason)?);
                let levels = path.len();
                let mut writes = Batch::default();
                record::put(self.parts.table, funding, reason, &mut writes);
                let mut wants = self.wants.lock();
                let ticket = self.parts.committer.enqueue(writes);
                let (state, dropped) = (UnrollState::Wanted, false);
                wants.entry(funding).or_insert(Want { reason, path, state, ticket, dropped });
                tracing::info!(%funding, ?reason, levels, "leaf is to be brought onto the chain");
                ticket
            }
        };
        self.parts.committer.durable(ticket).await?;
        self.woken.notify_one();
        self.views.send_modify(|turns| *turns += 1);
        Ok(())
    }

    /// Wants nothing more for `reason` that ends in an output of the batch `root`, but what is in
    /// `kept`. What is published of it may still be confirmed.
    pub fn keep_only(&self, root: OutPoint, reason: Reason, kept: &BTreeSet<OutPoint>) {
        self.drop_wants(root, |funding, want| want.reason == reason && !kept.contains(funding));
    }

    /// Wants nothing more of the batch `root`, and lets commitments of it wait: what is left of it
    /// is taken back, and LDK closes its channels for the books alone. To be said again after a
    /// restart.
    pub fn set_aside(&self, root: OutPoint) {
        self.set_aside.lock().insert(root);
        self.drop_wants(root, |_, _| true);
    }

    fn drop_wants(&self, root: OutPoint, which: impl Fn(&OutPoint, &Want) -> bool) {
        let mut dropped = false;
        for (funding, want) in &mut *self.wants.lock() {
            let is_of = want.path.first().is_some_and(|top| top.input[0].previous_output == root);
            if is_of && !want.dropped && which(funding, want) {
                want.dropped = true;
                dropped = true;
                tracing::info!(%funding, reason = ?want.reason, "leaf is wanted no more");
            }
        }
        if dropped {
            self.woken.notify_one();
        }
    }

    /// What is on its way onto the chain, by funding outpoint.
    pub fn unrolls(&self) -> Vec<UnrollView> {
        self.wants.lock().iter().map(|(funding, want)| want.view(*funding)).collect()
    }

    /// Where the leaf with the output `funding` stands, if it is wanted on chain.
    pub fn unroll(&self, funding: OutPoint) -> Option<UnrollView> {
        Some(self.wants.lock().get(&funding)?.view(funding))
    }

    /// Tells whenever something may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.views.subscribe()
    }

    /// Runs until the stop signal.
    pub async fn run(self: Arc<Self>, mut sync: watch::Receiver<SyncState>, tasks: Tasks) {
        let mut work = Work::default();
        let mut poll = tokio::time::interval(POLL);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = tasks.stopped() => return,
                changed = sync.changed() => if changed.is_err() { return },
                () = self.woken.notified() => {}
                _ = poll.tick() => {}
            }
            let Some(best) = sync.borrow_and_update().synced else { continue };
            match self.turn(&mut work, best).await {
                Ok(()) => work.failing = false,
                Err(TurnError::Store(error)) => {
                    return tracing::error!(%error, "paths of batches are published no more");
                }
                Err(TurnError::Chain(error)) => {
                    if !std::mem::replace(&mut work.failing, true) {
                        tracing::warn!(%error, "paths of batches wait for the chain");
                    }
                }
            }
        }
    }

    /// Hears what is wanted, and looks at the chain if there is a reason to.
    async fn turn(&self, work: &mut Work, best: BlockRef) -> Result<(), TurnError> {
        self.hear_commitments(work).await?;
        let wants = self.wants.lock().clone();
        let is_new = wants.values().any(|want| want.dropped || want.state == UnrollState::Wanted);
        if work.looked == Some(best) && !is_new {
            return Ok(());
        }
        let mut unspent = HashMap::new();
        let mut standings = BTreeMap::new();
        for (funding, want) in &wants {
            let standing = match want.dropped {
                true => None,
                false => self.look(*funding, &want.path, best, &mut unspent).await?,
            };
            standings.insert(*funding, standing);
        }
        // What was found is of one chain only if that stood still.
        if !wants.is_empty() && self.parts.chain.tip().await? != best {
            return Ok(());
        }
        let mut levels: BTreeMap<Txid, Level<'_>> = BTreeMap::new();
        for (funding, standing) in &standings {
            let path = &wants[funding].path;
            match standing {
                None | Some(Standing::Buried) => {}
                Some(Standing::Next { level }) => {
                    let transaction = &path[*level];
                    let level = levels.entry(transaction.compute_txid()).or_insert(Level {
                        transaction,
                        number: *level,
                        wanted_for: vec![],
                    });
                    level.wanted_for.push(*funding);
                }
                Some(Standing::AwaitsRoot) => self.enter(*funding, UnrollState::AwaitsRoot),
                Some(Standing::OnChain { confirmations }) => {
                    let confirmations = *confirmations;
                    self.enter(*funding, UnrollState::OnChain { confirmations });
                }
                Some(Standing::Lost) => self.enter(*funding, UnrollState::Lost),
            }
        }
        let waiting: BTreeSet<Txid> = levels.keys().copied().collect();
        self.withdraw(work, &wants, &waiting);
        self.let_go(work, &wants, &waiting);
        for level in levels.into_values() {
            // A record that is not durable yet may be all that asks for this transaction.
            for funding in &level.wanted_for {
                self.parts.committer.durable(wants[funding].ticket).await?;
            }
            let Some(state) = self.publish(work, &level, best.height).await? else { continue };
            for funding in level.wanted_for {
                self.enter(funding, state);
            }
        }
        let ended = |standing: &Option<Standing>| matches!(standing, None | Some(Standing::Buried));
        let ended = standings.iter().filter(|(_, s)| ended(s)).map(|(funding, _)| *funding);
        self.end(ended.map(|funding| (funding, wants[&funding].dropped)));
        work.looked = Some(best);
        Ok(())
    }

    /// Takes up the leaves that commitments wait for. Where both sides closed a channel together,
    /// a commitment is LDK's mistake: after a restart it knows of no closing transaction.
    async fn hear_commitments(&self, work: &mut Work) -> Result<(), StoreError> {
        for funding in self.parts.paths.awaited() {
            if work.ignored.contains(&funding) || self.wants.lock().contains_key(&funding) {
                continue;
            }
            let root = self.parts.paths.root_of(funding.txid);
            if root.is_some_and(|root| self.set_aside.lock().contains(&root))
                || self.parts.paths.is_closed_together(funding)
            {
                work.ignored.insert(funding);
                continue;
            }
            match self.want(funding, Reason::Commitment).await {
                Ok(()) => {}
                Err(UnrollError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a commitment waits for its leaf in vain");
                    work.ignored.insert(funding);
                }
            }
        }
        Ok(())
    }

    /// Where a path stands; `None` if its batch was given up. `unspent` is what was asked before.
    async fn look(
        &self,
        funding: OutPoint,
        path: &[Transaction],
        best: BlockRef,
        unspent: &mut HashMap<OutPoint, bool>,
    ) -> Result<Option<Standing>, ChainError> {
        let Some(place) = self.parts.paths.place(funding.txid) else {
            return Ok(None);
        };
        let root_confirmed = place.is_rooted;
        let mut inputs = Vec::new();
        if place.leaf.is_none() && root_confirmed {
            for spent in path.iter().map(|transaction| transaction.input[0].previous_output) {
                let known = unspent.get(&spent).copied();
                let is_unspent = match known {
                    Some(known) => known,
                    None => self.parts.chain.unspent_output(spent).await?.is_some(),
                };
                unspent.insert(spent, is_unspent);
                inputs.push(is_unspent);
                if is_unspent {
                    break;
                }
            }
        }
        let look = Look { best: best.height, root_confirmed, leaf: place.leaf, inputs: &inputs };
        Ok(Some(look.standing()))
    }

    /// Sees to it that a transaction is under way with a child that pays for both; `None` if
    /// that fails for a reason that is no state of it.
    async fn publish(
        &self,
        work: &mut Work,
        level: &Level<'_>,
        best: u32,
    ) -> Result<Option<UnrollState>, StoreError> {
        let Level { transaction: parent, number, .. } = *level;
        let txid = parent.compute_txid();
        let Some(vout) = anchor_of(parent) else {
            tracing::error!(%txid, "transaction of a path has no anchor");
            return Ok(None);
        };
        let child = self.parts.wallet.child_of(OutPoint { txid, vout });
        let recalled = child.as_ref().map(|child| PaidLevel::recalled(parent, child));
        let earlier = work.paid.get(&txid).copied().or(recalled);
        let most = self.parts.feerate_max;
        let rates = Rates { wanted: self.parts.fees.get(FeePurpose::Urgent), most };
        let now = match (step(earlier.map(|level| level.paid), best, rates), earlier) {
            (Step::Pay(feerate), _) => {
                let owner = owner_of(txid);
                let most =
                    level.wanted_for.iter().map(|funding| self.parts.paths.fee_max(*funding));
                let fee_max = most.max().unwrap_or_default();
                let request = AnchorRequest { parent, vout, feerate, fee_max, owner };
                match (self.parts.wallet.pay_by_anchor(&request), earlier) {
                    (Ok(built), earlier) => {
                        let (child, fee_sat) = (built.txid(), built.fee.to_sat());
                        self.parts.committer.durable(built.ticket).await?;
                        if let Some(earlier) = earlier {
                            self.parts.broadcasts.withdraw(earlier.child);
                        }
                        tracing::info!(level = number, %txid, %child, fee_sat, "path goes on");
                        self.parts.broadcasts.push(vec![parent.clone(), built.transaction]);
                        PaidLevel { paid: Paid { feerate, at: Some(best) }, child }
                    }
                    (Err(AnchorError::NoCoin { needed, largest }), None) => {
                        return Ok(Some(UnrollState::NoCoin { level: number, needed, largest }));
                    }
                    (Err(AnchorError::TooDear { needed, fee_max }), None) => {
                        let largest = fee_max;
                        return Ok(Some(UnrollState::NoCoin { level: number, needed, largest }));
                    }
                    (
                        Err(error @ (AnchorError::NoCoin { .. } | AnchorError::TooDear { .. })),
                        Some(earlier),
                    ) => {
                        tracing::warn!(%txid, %error, "fee of a path stays as it is");
                        earlier.seen_at(best)
                    }
                    (Err(AnchorError::Spend(error)), _) => {
                        tracing::error!(%txid, %error, "transaction of a path has no child");
                        return Ok(None);
                    }
                }
            }
            (Step::Repeat, Some(earlier)) => {
                let child = child.map(|child| child.transaction);
                self.parts.broadcasts.push([parent.clone()].into_iter().chain(child).collect());
                earlier.seen_at(best)
            }
            (Step::Keep, Some(earlier)) => earlier,
            (_, None) => return Ok(None),
        };
        work.paid.insert(txid, now);
        let (child, feerate) = (now.child, now.paid.feerate);
        Ok(Some(UnrollState::Publishing { level: number, txid, child, feerate }))
    }

    /// Submits no more what nobody wants in a block any more.
    fn withdraw(&self, work: &Work, wants: &BTreeMap<OutPoint, Want>, waiting: &BTreeSet<Txid>) {
        let dropped = wants.values().filter(|want| want.dropped);
        let levels = dropped.flat_map(|want| want.path.iter().map(Transaction::compute_txid));
        for level in levels.filter(|txid| !waiting.contains(txid)) {
            if let Some(paid) = work.paid.get(&level) {
                self.parts.broadcasts.withdraw(paid.child);
            }
        }
    }

    /// Frees the coins of transactions that wait for no block any more: somebody else's child
    /// paid for them, or there is nothing to pay for.
    fn let_go(&self, work: &mut Work, wants: &BTreeMap<OutPoint, Want>, waiting: &BTreeSet<Txid>) {
        work.paid.retain(|txid, _| waiting.contains(txid));
        let holds: BTreeSet<Owner> =
            self.parts.wallet.holds().into_iter().map(|(_, owner)| owner).collect();
        let levels = wants.values().flat_map(|want| want.path.iter());
        let done: BTreeSet<Txid> =
            levels.map(Transaction::compute_txid).filter(|txid| !waiting.contains(txid)).collect();
        for owner in done.into_iter().map(owner_of).filter(|owner| holds.contains(owner)) {
            if let Err(error) = self.parts.wallet.release(owner) {
                tracing::warn!(%error, "coin of a path stays held");
            }
        }
    }

    /// Notes where a leaf stands, and says it if that is news.
    fn enter(&self, funding: OutPoint, state: UnrollState) {
        let mut wants = self.wants.lock();
        let Some(want) = wants.get_mut(&funding) else { return };
        let before = std::mem::replace(&mut want.state, state);
        drop(wants);
        if before == state {
            return;
        }
        self.views.send_modify(|turns| *turns += 1);
        match state {
            UnrollState::NoCoin { level, needed, largest } => {
                let was_so = matches!(before, UnrollState::NoCoin { .. });
                if !was_so {
                    tracing::warn!(
                        %funding, level, %needed, %largest,
                        "no confirmed coin may pay for a path; deposit, it is tried at each block"
                    );
                }
            }
            UnrollState::Lost => {
                tracing::error!(%funding, "path is lost: an output of it was spent otherwise");
            }
            UnrollState::OnChain { confirmations: 1 } => {
                tracing::info!(%funding, "leaf is on chain; its channel is an ordinary one");
            }
            _ => {}
        }
    }

    /// Drops the records of leaves that will stay on chain, of batches that were given up, and of
    /// leaves that nobody wants, unless somebody does again.
    fn end(&self, ended: impl Iterator<Item = (OutPoint, bool)>) {
        let mut writes = Batch::default();
        let mut wants = self.wants.lock();
        for (funding, was_dropped) in ended {
            if wants.get(&funding).is_none_or(|want| want.dropped != was_dropped) {
                continue;
            }
            wants.remove(&funding);
            record::delete(self.parts.table, funding, &mut writes);
        }
        if !writes.is_empty() {
            let _found_again_after_a_crash = self.parts.committer.enqueue(writes);
            drop(wants);
            self.views.send_modify(|turns| *turns += 1);
        }
    }
}

/// Which output of a transaction of a path anybody may spend.
fn anchor_of(transaction: &Transaction) -> Option<u32> {
    let script = pay_to_anchor();
    let place = transaction.output.iter().rposition(|output| output.script_pubkey == script)?;
    u32::try_from(place).ok()
}

/// For whom the coin of a transaction's child is held: the same after a restart.
fn owner_of(txid: Txid) -> Owner {
    Owner::claim("tributary/unroll", &txid.to_byte_array())
}
