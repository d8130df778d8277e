//! One batch of a hub: the machine, and what it asks for.
//!
//! The secret part of an attempt, its signing session, is a [`Round`]; it lives here in memory
//! and dies with the process, as the nonces in it must.

use std::collections::{HashMap, HashSet};

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use channel_contracts::batch::hub::{HubInput, TreeMember};
use channel_contracts::batch::message::{Message, Propose, Sign, Signed};
use channel_contracts::batch::{
    Attempt, BatchId, HubBatch, HubEffect, HubEvent, HubPhase, HubRejection, Peer, Timestamp,
};
use channel_contracts::musig::{
    HubNonces, HubSessionError, NonceSeed, PartialSignature, PublicNonce, SignedTree,
};
use channel_contracts::script::ExpiryLeaf;
use channel_contracts::tree::{Member, PlannedTree, Radix, Shape, TreeTerms, UserSlot};

use super::Parts;
use super::record::{EventLog, StoredTree};
use super::round::{Round, Session, leaves};
use super::settlement::Settling;
use crate::chain::fees::FeePurpose;
use crate::chain::virtual_confirmation::VirtualBatch;
use crate::lightning::types::ChannelRef;
use crate::store::{Batch, StoreError};
use crate::wallet::{FundingRequest, Owner};

/// A batch of this hub.
pub(super) struct HubLife {
    pub machine: HubBatch,
    pub log: EventLog,
    /// The channels opened for it.
    pub channels: HashMap<Peer, ChannelRef>,
    /// What it remembers of its end.
    pub settling: Settling,
    round: Option<Round>,
}

impl HubLife {
    /// A batch that begins, or one that is read back: its sessions are gone.
    pub fn new(machine: HubBatch, log: EventLog) -> Self {
        let (channels, settling) = (HashMap::new(), Settling::default());
        Self { machine, log, channels, settling, round: None }
    }

    /// Puts the stored tree of a batch back that may be on chain. An earlier one has nothing to
    /// go on with, and what is stored may be of an attempt that is over; but LDK may still have
    /// channels of it.
    ///
    /// # Errors
    ///
    /// If what is stored is not the tree of the batch.
    pub fn restore(&mut self, parts: &Parts) -> Result<(), StoreError> {
        self.set_aside_if_over(parts);
        if !matches!(
            self.machine.phase(),
            HubPhase::Publishing
                | HubPhase::Confirming
                | HubPhase::Live { .. }
                | HubPhase::Expiring { .. }
        ) {
            self.find_funded(parts);
            return Ok(());
        }
        let stored = StoredTree::get(&parts.committer, self.machine.id())?
            .ok_or_else(|| StoreError::Corrupt("the tree of a batch is missing".into()))?;
        let corrupt = |detail: String| StoreError::Corrupt(format!("tree of a batch: {detail}"));
        let root = self.machine.tree().map(|tree| tree.root);
        let root = root.ok_or_else(|| corrupt("it has no root".into()))?;
        let members = self.tree_members(stored.attempt);
        let peers: Vec<Peer> = members.iter().map(|member| member.peer).collect();
        let tree = self
            .plan(parts, stored.attempt, members)
            .and_then(|tree| tree.fund(root).map_err(|error| error.to_string()))
            .map_err(corrupt)?;
        let tree = SignedTree::restore(tree, stored.signatures())
            .map_err(|error| corrupt(error.to_string()))?;
        let recorded = parts.channels.by_funding();
        for (peer, slot) in peers.iter().zip(0..).map(|(peer, slot)| (*peer, UserSlot(slot))) {
            let funding = tree.tree().funding_outpoint(slot).ok();
            if let Some(channel) = funding.and_then(|funding| recorded.get(&funding)) {
                self.channels.insert(peer, *channel);
            }
        }
        self.round = Some(Round {
            attempt: stored.attempt,
            peers,
            transaction: stored.transaction()?,
            session: Session::Signed(Box::new(tree)),
        });
        self.restore_settling(parts)
    }

    /// Finds the channels that were given an outpoint of a tree that is forgotten next.
    fn find_funded(&mut self, parts: &Parts) {
        if !matches!(self.machine.phase(), HubPhase::Funding { .. } | HubPhase::Failed { .. }) {
            return;
        }
        let root = self.machine.tree().map(|tree| tree.root);
        let Some(tree) = root.and_then(|root| parts.confirmations.get(root)) else { return };
        let leaves: HashSet<Txid> = tree.leaves().iter().map(|leaf| leaf.txid()).collect();
        for (funding, channel) in parts.channels.by_funding() {
            if leaves.contains(&funding.txid)
                && let Some(record) = parts.channels.recorded(channel)
            {
                self.channels.insert(Peer(record.peer), channel);
            }
        }
    }

    /// The signed tree, once there is one.
    pub fn signed(&self) -> Option<&SignedTree> {
        match &self.round.as_ref()?.session {
            Session::Signed(tree) => Some(tree),
            _ => None,
        }
    }

    /// The batch transaction of the attempt at hand.
    pub fn transaction(&self) -> Option<&Transaction> {
        Some(&self.round.as_ref()?.transaction)
    }

    /// Whose channel it is.
    pub fn peer_of(&self, channel: ChannelRef) -> Option<Peer> {
        self.channels.iter().find(|(_, own)| **own == channel).map(|(peer, _)| *peer)
    }

    /// Whether what the machine asks for waits until its events are durable: from the funding of
    /// channels on nobody can be left out any more.
    pub fn is_binding(&self) -> bool {
        !self.machine.phase().can_leave_out()
    }

    /// The members as they are in the tree of `attempt`.
    fn tree_members(&self, attempt: Attempt) -> Vec<TreeMember> {
        let members = self.machine.members().iter().filter_map(|(peer, member)| {
            let tree_key = attempt.key_of(&member.tree_keys);
            Some(TreeMember { peer: *peer, tree_key, funding: member.channel.clone()? })
        });
        members.collect()
    }

    fn plan(
        &self,
        parts: &Parts,
        attempt: Attempt,
        members: Vec<TreeMember>,
    ) -> Result<PlannedTree, String> {
        let batch = self.machine.id();
        let expiry = self.machine.expiry();
        let terms = TreeTerms {
            hub_key: parts.secrets.hub_tree(batch, attempt).public_key(),
            leaf: ExpiryLeaf { expiry, sweep_key: parts.secrets.sweep(batch).public_key() },
            radix: Radix::for_size(members.len()),
        };
        let members = members
            .into_iter()
            .map(|member| Member { tree_key: member.tree_key, funding: member.funding })
            .collect();
        PlannedTree::new(terms, members).map_err(|error| error.to_string())
    }

    /// Does what the machine asks at the block `best`, and returns what came of it.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn run(
        &mut self,
        parts: &Parts,
        effect: HubEffect,
        best: u32,
    ) -> Result<Vec<HubInput>, StoreError> {
        Ok(match effect {
            HubEffect::Send { peer, message } => {
                parts.send(peer, &message);
                vec![]
            }
            HubEffect::OpenChannel { peer, capacity } => {
                let users = self.machine.members().len();
                let shape = Shape::new(users, Radix::for_size(users)).ok();
                let levels = shape.map_or(0, |shape| shape.levels());
                match parts.channels.open_for_batch(peer.0, capacity.to_sat(), levels, None) {
                    Ok(channel) => {
                        self.channels.insert(peer, channel);
                        vec![]
                    }
                    Err(error) => {
                        tracing::info!(%peer, %error, "channel of a batch cannot be opened");
                        vec![HubInput::ChannelFailed { peer }]
                    }
                }
            }
            HubEffect::CloseChannel { peer } => {
                if let Some(channel) = self.channels.remove(&peer) {
                    parts.channels.abandon_for_batch(channel, "its batch came to nothing");
                }
                vec![]
            }
            HubEffect::BuildTree { attempt, members, .. } => {
                match self.build(parts, attempt, members).await? {
                    Some(root) => vec![HubInput::TreeBuilt { attempt, root }],
                    None => vec![HubInput::TreeFailed { attempt }],
                }
            }
            HubEffect::Propose { attempt, peers } => {
                self.propose(parts, attempt, &peers);
                vec![]
            }
            HubEffect::TakeNonces { attempt, peer, nonces } => {
                let right = self.take_nonces(peer, nonces);
                vec![HubInput::NoncesChecked { attempt, peer, right }]
            }
            HubEffect::Aggregate { attempt } => {
                self.aggregate();
                vec![HubInput::Aggregated { attempt }]
            }
            HubEffect::SendAggregated { attempt, peers } => {
                self.send_aggregated(parts, attempt, &peers);
                vec![]
            }
            HubEffect::CheckPartials { attempt, peer, partials } => {
                let wrong_level = self.check_partials(peer, partials);
                vec![HubInput::PartialsChecked { attempt, peer, wrong_level }]
            }
            HubEffect::Finish { attempt } => {
                let signed = self.finish(parts, attempt).await?;
                signed.then_some(HubInput::TreeSigned { attempt }).into_iter().collect()
            }
            HubEffect::SendSigned { attempt, peers } => {
                self.send_signed(parts, attempt, &peers);
                vec![]
            }
            HubEffect::ForgetAttempt { attempt } => {
                self.forget(parts, attempt).await?;
                vec![]
            }
            HubEffect::FundChannels { peers, .. } => self.fund_channels(parts, &peers),
            HubEffect::BroadcastBatch { txid, .. } => self.broadcast(parts, txid).await?,
            HubEffect::CheckRelease { peer, secret } => {
                self.check_release(parts, peer, secret).await?
            }
            HubEffect::PlanReclaim | HubEffect::SweepExpired => self.settle(parts, best).await?,
            HubEffect::CloseForSweep { peers } => self.close_for_sweep(parts, &peers),
            // The loop wakes by itself.
            HubEffect::WakeAt { .. } => vec![],
        })
    }

    /// §3.3: plans the tree, funds its root output and derives every transaction.
    async fn build(
        &mut self,
        parts: &Parts,
        attempt: Attempt,
        members: Vec<TreeMember>,
    ) -> Result<Option<OutPoint>, StoreError> {
        let batch = self.machine.id();
        let peers = members.iter().map(|member| member.peer).collect();
        let planned = match self.plan(parts, attempt, members) {
            Ok(planned) => planned,
            Err(error) => {
                tracing::error!(%batch, error, "tree of a batch cannot be built");
                return Ok(None);
            }
        };
        let output = planned.root_output();
        // Withdrawals that wait ride along.
        let withdrawals = parts.swaps.board().await;
        let request = |withdrawals: &[TxOut]| FundingRequest {
            outputs: [std::slice::from_ref(&output), withdrawals].concat(),
            feerate: parts.fees.get(FeePurpose::Open),
            // Exits of virtual channels are paid for by whoever leaves.
            new_channels: 0,
        };
        let mut built = parts.wallet.build_funding(&request(&withdrawals));
        if built.is_err() && !withdrawals.is_empty() {
            parts.swaps.alight(&withdrawals).await;
            built = parts.wallet.build_funding(&request(&[]));
        }
        let built = match built {
            Ok(built) => built,
            Err(error) => {
                tracing::warn!(%batch, %error, "batch cannot be funded");
                return Ok(None);
            }
        };
        parts.committer.durable(built.ticket).await?;
        let place = built.transaction.output.iter().position(|found| *found == output);
        let vout = place.and_then(|place| u32::try_from(place).ok()).unwrap_or(u32::MAX);
        let root = OutPoint { txid: built.txid(), vout };
        let tree = match planned.fund(root) {
            Ok(tree) => tree,
            Err(error) => {
                parts.swaps.alight(&withdrawals).await;
                tracing::error!(%batch, %error, "tree of a batch cannot be built");
                return Ok(None);
            }
        };
        let session = Session::Built(Box::new(tree));
        self.round = Some(Round { attempt, peers, transaction: built.transaction, session });
        Ok(Some(root))
    }

    /// §3.3: begins the session and shows each user its path.
    fn propose(&mut self, parts: &Parts, attempt: Attempt, peers: &[Peer]) {
        let batch = self.machine.id();
        let Some(round) = self.round.as_mut().filter(|round| round.attempt == attempt) else {
            return;
        };
        if let Session::Built(tree) = std::mem::replace(&mut round.session, Session::Broken) {
            let secret = parts.secrets.hub_tree(batch, attempt);
            let seed = NonceSeed::from_fresh_randomness(parts.entropy.bytes());
            match HubNonces::begin(*tree, secret, seed) {
                Ok(nonces) => round.session = Session::Nonces(Box::new(nonces)),
                Err(error) => tracing::error!(%batch, %error, "signing cannot begin"),
            }
        }
        let Session::Nonces(nonces) = &round.session else { return };
        let tree = nonces.tree();
        let root_output = tree.nodes()[0].spent.clone();
        for (peer, slot) in peers.iter().filter_map(|peer| Some((*peer, round.slot(*peer)?))) {
            let Ok(proposal) = tree.proposal(slot) else { continue };
            let root_output = root_output.clone();
            let propose = Propose { batch, attempt, root_output, proposal };
            parts.send(peer, &Message::Propose(Box::new(propose)));
        }
    }

    fn take_nonces(&mut self, peer: Peer, nonces: Vec<PublicNonce>) -> bool {
        let Some(round) = &mut self.round else { return false };
        match (round.slot(peer), &mut round.session) {
            (Some(slot), Session::Nonces(session)) => match session.add(slot, nonces) {
                Ok(()) => true,
                Err(error) => {
                    tracing::warn!(%peer, %error, "nonces of a member are wrong");
                    false
                }
            },
            _ => false,
        }
    }

    fn aggregate(&mut self) {
        let Some(round) = &mut self.round else { return };
        round.session = match std::mem::replace(&mut round.session, Session::Broken) {
            Session::Nonces(nonces) => match nonces.aggregate() {
                Ok(partials) => Session::Partials(Box::new(partials)),
                // Somebody was left out meanwhile: the machine begins anew.
                Err((nonces, _missing)) => Session::Nonces(nonces),
            },
            other => other,
        };
    }

    fn send_aggregated(&self, parts: &Parts, attempt: Attempt, peers: &[Peer]) {
        let batch = self.machine.id();
        let Some(round) = &self.round else { return };
        let Session::Partials(session) = &round.session else { return };
        for peer in peers {
            let aggregated = round.slot(*peer).and_then(|slot| session.aggregated(slot).ok());
            if let Some(aggregated) = aggregated {
                parts.send(*peer, &Message::Sign(Sign { batch, attempt, aggregated }));
            }
        }
    }

    /// §3.4: the level of the first wrong partial signature, if one is.
    fn check_partials(&mut self, peer: Peer, partials: Vec<PartialSignature>) -> Option<usize> {
        let Some(round) = &mut self.round else { return Some(0) };
        let (Some(slot), Session::Partials(session)) = (round.slot(peer), &mut round.session)
        else {
            return Some(0);
        };
        match session.add(slot, partials) {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%peer, %error, "partial signatures of a member are wrong");
                Some(match error {
                    HubSessionError::WrongPartial { level, .. } => level,
                    _ => 0,
                })
            }
        }
    }

    /// §3.4: the final signatures, durable before anybody gets them. Says whether it is done.
    async fn finish(&mut self, parts: &Parts, attempt: Attempt) -> Result<bool, StoreError> {
        let batch = self.machine.id();
        let Some(round) = &mut self.round else { return Ok(false) };
        let signed = match std::mem::replace(&mut round.session, Session::Broken) {
            Session::Partials(partials) => match partials.finish() {
                Ok(signed) => signed,
                Err((_, error)) => {
                    tracing::error!(%batch, %error, "tree of a batch cannot be signed");
                    return Ok(false);
                }
            },
            Session::Signed(signed) => *signed,
            _ => return Ok(false),
        };
        let record = match VirtualBatch::new(leaves(&signed)) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%batch, %error, "signed tree makes no record");
                return Ok(false);
            }
        };
        let mut writes = Batch::default();
        StoredTree::new(attempt, &round.transaction, signed.signatures()).put(batch, &mut writes);
        let ticket = parts.committer.enqueue(writes);
        round.session = Session::Signed(Box::new(signed));
        if let Err(error) = parts.confirmations.add(record, &*parts.chain).await {
            tracing::error!(%batch, %error, "batch is not recorded");
            return Ok(false);
        }
        parts.committer.durable(ticket).await?;
        Ok(true)
    }

    fn send_signed(&self, parts: &Parts, attempt: Attempt, peers: &[Peer]) {
        let batch = self.machine.id();
        let (Some(round), Some(signed)) = (&self.round, self.signed()) else { return };
        for peer in peers {
            let path = round.slot(*peer).and_then(|slot| signed.path(slot).ok());
            if let Some(path) = path {
                let signatures = path.signatures;
                parts.send(*peer, &Message::Signed(Signed { batch, attempt, signatures }));
            }
        }
    }

    /// Gives back what an attempt held. Its transaction was never broadcast.
    async fn forget(&mut self, parts: &Parts, attempt: Attempt) -> Result<(), StoreError> {
        let batch = self.machine.id();
        let round = self.round.take_if(|round| round.attempt == attempt);
        let stored = self.machine.tree().filter(|tree| tree.attempt == attempt);
        if let Some(round) = &round {
            parts.swaps.alight(&round.transaction.output).await;
        }
        let txid = round.map(|round| round.transaction.compute_txid());
        if let Some(txid) = txid.or(stored.map(|tree| tree.root.txid))
            && let Err(error) = parts.wallet.release(Owner::Transaction(txid))
        {
            tracing::debug!(%batch, %error, "coins of an attempt are free already");
        }
        if let Some(tree) = stored
            && let Err(error) = parts.confirmations.forget(tree.root)
        {
            tracing::error!(%batch, %error, "a batch that was given up is on chain");
        }
        let mut writes = Batch::default();
        writes.delete(crate::store::Table::HubTree.key(batch.0));
        parts.committer.durable(parts.committer.enqueue(writes)).await
    }

    /// §3.6: tells LDK each funding outpoint.
    fn fund_channels(&self, parts: &Parts, peers: &[Peer]) -> Vec<HubInput> {
        let (Some(round), Some(signed)) = (&self.round, self.signed()) else { return vec![] };
        let mut failed = Vec::new();
        for peer in peers {
            let funding =
                round.slot(*peer).and_then(|slot| signed.tree().funding_outpoint(slot).ok());
            let (Some(funding), Some(channel)) = (funding, self.channels.get(peer)) else {
                failed.push(HubInput::ChannelFailed { peer: *peer });
                continue;
            };
            if let Err(error) = parts.channels.fund_from_batch(*channel, funding) {
                tracing::warn!(%peer, %error, "channel of a batch cannot be funded");
                failed.push(HubInput::ChannelFailed { peer: *peer });
            }
        }
        failed
    }

    /// §3.7: the batch transaction goes out.
    async fn broadcast(&self, parts: &Parts, txid: Txid) -> Result<Vec<HubInput>, StoreError> {
        let transaction = self.transaction().filter(|known| known.compute_txid() == txid);
        let Some(transaction) = transaction else {
            tracing::error!(batch = %self.machine.id(), %txid, "batch transaction is missing");
            return Ok(vec![]);
        };
        parts.swaps.depart(transaction).await?;
        parts.committer.durable(parts.wallet.apply_unconfirmed(transaction)).await?;
        parts.broadcasts.push(vec![transaction.clone()]);
        Ok(vec![HubInput::BatchBroadcast { txid }])
    }

    /// Lets the machine decide and applies its events. A rejection is said in the log.
    pub fn decide(&mut self, input: HubInput, now: Timestamp, writes: &mut Batch) -> Decided {
        let early = early_release(&input);
        let decision = match self.machine.decide(input, now) {
            Ok(decision) => decision,
            // It comes again when LDK has said here too that the channel is closed.
            Err(HubRejection::NotRetired { peer }) if early.is_some() => {
                self.settling.early.extend(early.map(|message| (peer, message)));
                return Decided::default();
            }
            Err(rejection) => {
                tracing::info!(batch = %self.machine.id(), %rejection, "batch goes on unchanged");
                return Decided::default();
            }
        };
        self.log.append(&decision.events, writes);
        for event in &decision.events {
            say(self.machine.id(), event);
            self.machine.apply(event.clone());
        }
        let mut decided = Decided { events: decision.events, effects: decision.effects };
        for peer in decided.events.iter().filter_map(retired).collect::<Vec<_>>() {
            if let Some(message) = self.settling.early.remove(&peer) {
                let input = HubInput::Message { peer, message, banned_until: None };
                let Decided { events, effects } = self.decide(input, now, writes);
                decided.events.extend(events);
                decided.effects.extend(effects);
            }
        }
        decided
    }
}

/// A `release`: it may overtake the end of its channel.
fn early_release(input: &HubInput) -> Option<Message> {
    match input {
        HubInput::Message { message: message @ Message::Release(_), .. } => Some(message.clone()),
        _ => None,
    }
}

fn retired(event: &HubEvent) -> Option<Peer> {
    match event {
        HubEvent::Retired { peer } => Some(*peer),
        _ => None,
    }
}

/// What a decision came to.
#[derive(Default)]
pub(super) struct Decided {
    pub events: Vec<HubEvent>,
    pub effects: Vec<HubEffect>,
}

/// Names culprits and milestones to the operator.
fn say(batch: BatchId, event: &HubEvent) {
    match event {
        HubEvent::MemberLeftOut { peer, reason, level } => {
            tracing::warn!(%batch, %peer, %reason, ?level, "member of a batch is left out");
        }
        HubEvent::PhaseEntered { phase } => tracing::info!(%batch, ?phase, "batch"),
        _ => {}
    }
}
