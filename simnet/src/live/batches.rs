//! How users and hubs of batches are doing: what is still under way, what they remember.

use std::collections::{BTreeMap, BTreeSet};

use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::JoinView;
use node::channels::ChannelState;
use node::lightning::{ChannelSnapshot, CloseKind, PendingBalance};
use node::node::Node as RunningNode;
use node::unroll::UnrollState;

use super::LiveError;
use super::book::Book;
use super::hosts::Hosts;
use super::joining::batches;
use super::trees::{DUST_MSAT, Trees};
use crate::report::Totals;
use crate::topology::Node;

/// What LDK's figure of a closed channel may be above what its record says, by channel, sat.
const ROUNDING_SAT: u64 = 355;
/// About what brings an output of a closed channel into the wallet, vB.
const SWEEP_VB: u64 = 150;

/// The batches of a run.
pub struct BatchWatch {
    hosts: Hosts,
    book: Book,
    hubs: Vec<Node>,
    /// Where their money is.
    pub trees: Trees,
}

impl BatchWatch {
    /// Watches those of `hubs`; `book` knows the users.
    pub fn new(hosts: Hosts, book: Book, hubs: Vec<Node>) -> Self {
        let trees = Trees::new(hosts.clone(), hubs.clone());
        Self { hosts, book, hubs, trees }
    }

    /// What is not at rest: a batch that forms, a user between two batches or on its way onto the
    /// chain, money that is being taken back.
    ///
    /// # Errors
    ///
    /// If a node does not run.
    pub async fn under_way(&self, excused: &BTreeSet<Node>) -> Result<Option<String>, LiveError> {
        let is_asked = |number: &Node| !excused.contains(number) && self.hosts.runs(*number);
        for hub in self.hubs.iter().copied().filter(is_asked) {
            let service = batches(&self.hosts, hub)?;
            for batch in service.batches().await {
                let (id, phase) = (batch.batch, batch.phase);
                // Of one that is over nothing is left on chain.
                let standing = batch.txid.and_then(|txid| self.trees.standing_of(txid));
                let is_over = standing.is_some_and(|standing| standing.held_sat == 0);
                let is_moving = match phase {
                    HubPhase::Failed { .. } | HubPhase::Settled => false,
                    HubPhase::Live { .. } => is_over,
                    _ => true,
                };
                if is_moving {
                    return Ok(Some(format!("batch {id} of n{hub} is {phase:?}")));
                }
                let settlement = service.settlement(batch.batch).await;
                if let Some((txid, _)) = settlement.and_then(|view| view.transaction)
                    && !self.hosts.outside().is_in_block(txid)
                {
                    return Ok(Some(format!("{txid} is to take outputs of batch {id} of n{hub}")));
                }
            }
        }
        for user in self.book.users().filter(is_asked) {
            let joins = batches(&self.hosts, user)?.joins().await;
            let mut places = 0;
            for join in joins {
                if is_forming(&join) {
                    return Ok(Some(format!("a wish of n{user} is {:?}", join.state)));
                }
                places += u32::from(is_confirmed(&join));
                // The hub says that the batch came to nothing, and a user keeps its path in case
                // that is not so: a commitment of such a channel waits for good.
                let in_vain = join.state == UserPhase::Leaf(LeafState::Dropped);
                let is_over = |state| match state {
                    UnrollState::OnChain { .. } | UnrollState::Lost => true,
                    UnrollState::AwaitsRoot => in_vain,
                    _ => false,
                };
                if let Some(unroll) = join.unroll
                    && !is_over(unroll.state)
                {
                    let (wish, unroll) = (join.state, (unroll.reason, unroll.state));
                    return Ok(Some(format!("a path of n{user} is {unroll:?}, its wish {wish:?}")));
                }
            }
            let channels = self.hosts.ask(user, |node| node.lightning.channels());
            let channels = channels.unwrap_or_default();
            // It has been paid more than one channel holds: the rest stays where it is.
            let has_no_room = channels.iter().any(|c| c.usable && c.receivable_msat == 0);
            if places > 1 && !has_no_room {
                let tell = |c: &ChannelSnapshot| {
                    let (goes, comes) = (c.spendable_msat, c.receivable_msat);
                    format!("{} msat, {goes} to spend, {comes} to receive", c.local_msat)
                };
                let channels: Vec<String> = channels.iter().map(tell).collect();
                return Ok(Some(format!("n{user} is in {places} batches: {channels:?}")));
            }
        }
        Ok(None)
    }

    /// What nodes remember of wishes and batches, in words.
    ///
    /// # Errors
    ///
    /// If the node does not run.
    pub async fn memory(&self, number: Node) -> Result<BTreeMap<String, String>, LiveError> {
        let service = batches(&self.hosts, number)?;
        let mut memory = BTreeMap::new();
        for join in service.joins().await {
            // What came to nothing may be forgotten.
            if !matches!(join.state, UserPhase::Over(_)) {
                let what = format!("{:?} {:?} {:?}", join.state, join.funding, join.root);
                memory.insert(join.registration.to_string(), what);
            }
        }
        for batch in service.batches().await {
            if !matches!(batch.phase, HubPhase::Failed { .. }) {
                let settlement = service.settlement(batch.batch).await;
                let ended = settlement.map(|view| (view.retired, view.released));
                let what = format!("{:?} {:?} {ended:?}", batch.phase, batch.txid);
                memory.insert(batch.batch.to_string(), what);
            }
        }
        Ok(memory)
    }

    /// Counts batches and those who moved.
    ///
    /// # Errors
    ///
    /// If a node's store fails.
    pub async fn count(&self, totals: &mut Totals) -> Result<(), LiveError> {
        (totals.batches_opened, totals.batches_settled) = self.trees.counts();
        for user in self.book.users().filter(|user| self.hosts.runs(*user)) {
            let joins = batches(&self.hosts, user)?.joins().await;
            let has_left = |join: &&JoinView| {
                matches!(join.state, UserPhase::Leaf(LeafState::Retired | LeafState::Dead))
            };
            totals.rolled_over += joins.iter().filter(has_left).count() as u64;
        }
        Ok(())
    }

    /// Paths of users that wait for blocks.
    pub fn exits_waiting(&self) -> u64 {
        let mut waiting = 0;
        for user in self.book.users() {
            let unrolls = self.hosts.ask(user, |node| node.unroller.unrolls()).unwrap_or_default();
            let waits = |state: &UnrollState| !matches!(state, UnrollState::OnChain { .. });
            waiting += unrolls.iter().filter(|unroll| waits(&unroll.state)).count() as u64;
        }
        waiting
    }

    /// A user whose channel in a batch it has left is not empty.
    pub async fn left_behind(&self, excused: &BTreeSet<Node>) -> Result<Option<String>, LiveError> {
        let is_asked = |number: &Node| !excused.contains(number) && self.hosts.runs(*number);
        for user in self.book.users().filter(is_asked) {
            for join in batches(&self.hosts, user)?.joins().await {
                let is_left =
                    matches!(join.state, UserPhase::Leaf(LeafState::Retired | LeafState::Dead));
                let Some(channel) = join.channel.filter(|_| is_left) else { continue };
                let record = self.hosts.ask(user, |node| node.channels.recorded(channel)).flatten();
                let left_msat = record.and_then(|record| record.final_balance_msat).unwrap_or(0);
                if left_msat > DUST_MSAT {
                    let funding = join.funding;
                    return Ok(Some(format!("n{user} left {left_msat} msat in {funding:?}")));
                }
            }
        }
        Ok(None)
    }
}

fn is_confirmed(join: &JoinView) -> bool {
    matches!(join.state, UserPhase::Leaf(LeafState::Confirmed { .. }))
}

fn is_forming(join: &JoinView) -> bool {
    match join.state {
        UserPhase::Leaf(leaf) => {
            matches!(leaf, LeafState::Proposed | LeafState::Signed | LeafState::Funded)
        }
        UserPhase::Over(_) => false,
        _ => true,
    }
}

/// What is not worth a transaction of its own at this feerate, msat.
pub fn least_msat(msat_per_vb: u64) -> u64 {
    SWEEP_VB * msat_per_vb + DUST_MSAT
}

/// Whether nothing of a node waits for the chain but what its hub takes back in its time, and
/// what is not worth a transaction at this feerate.
pub fn is_idle(node: &RunningNode, msat_per_vb: u64) -> bool {
    let is_worth = |balance: &PendingBalance| balance.amount_sat * 1_000 > least_msat(msat_per_vb);
    let waits = node.lightning.pending_balances().into_iter().filter(is_worth);
    let waits: u64 = waits.map(|balance| balance.amount_sat).sum();
    let (mut parked_sat, mut parked) = (0, 0);
    for (funding, channel) in node.channels.by_funding() {
        let Some(record) = node.channels.recorded(channel) else { continue };
        let is_parked = record.batch
            && record.state == ChannelState::Closed
            && record.close_kind == Some(CloseKind::Cooperative)
            && node.confirmations.is_taken(funding.txid) == Some(false)
            && !node.confirmations.is_on_chain(funding);
        if is_parked {
            parked_sat += record.final_balance_msat.unwrap_or(0) / 1_000;
            parked += 1;
        }
    }
    waits <= parked_sat + parked * ROUNDING_SAT
}
