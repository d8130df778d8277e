//! The end of one batch of a hub: keys are kept, outputs are taken back.
//!
//! Each look begins anew, from what the records of the chain say and which keys are there: which
//! outputs are to be taken, which paths to be published first. One transaction at most is under
//! way for a batch; it is replaced when it no longer fits or does not confirm. So nothing but
//! that transaction is remembered, and it is durable before it is broadcast.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{
    Amount, FeeRate, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Weight, absolute,
    transaction,
};
use channel_contracts::batch::hub::HubInput;
use channel_contracts::batch::message::Message;
use channel_contracts::batch::{Deadlines, HubEffect, HubPhase, Peer};
use channel_contracts::musig::reclaim::{
    ReclaimError, ReleasedKeys, key_path_witness, sweep_witness,
};
use channel_contracts::musig::{ReclaimPolicy, TreeSecret};
use channel_contracts::tree::{BatchTree, UserSlot};

use super::plan::{Goal, TreeOnChain, early_value_ppm};
use super::record::{self, Pending};
use crate::batches::Parts;
use crate::batches::hub::HubLife;
use crate::chain::fees::FeePurpose;
use crate::store::{Batch, StoreError};
use crate::unroll::{Reason, UnrollError};
use crate::wallet::Coin;
use crate::wallet::replacement::{Rates, Step, UnderWay, fee_ceil, step};

/// What a hub's batch remembers of its end.
#[derive(Default)]
pub(in crate::batches) struct Settling {
    /// Keys that users handed over.
    released: ReleasedKeys,
    /// Keys that came before LDK said here that their channel is closed.
    pub early: BTreeMap<Peer, Message>,
    /// Who handed over a wrong one.
    refused: BTreeSet<Peer>,
    pending: Option<Pending>,
    /// Whether this process has broadcast it.
    broadcast: bool,
    /// The best block when the last key came, or this process first looked.
    quiet_since: Option<u32>,
}

impl Settling {
    /// Who handed over a key that is not that of the registration.
    pub fn refused(&self) -> &BTreeSet<Peer> {
        &self.refused
    }

    /// The transaction that takes outputs back and is under way, and what it pays.
    pub fn pending(&self) -> Option<(Txid, FeeRate)> {
        let pending = self.pending.as_ref()?;
        Some((pending.transaction.compute_txid(), pending.feerate))
    }
}

/// One transaction that takes node outputs, before its fee is known.
struct Taking<'a> {
    nodes: &'a [usize],
    /// By script leaf where a key is missing.
    by_leaf: bool,
    script: ScriptBuf,
}

impl HubLife {
    /// Reads what an earlier process remembered. The signed tree must be there.
    ///
    /// # Errors
    ///
    /// If a key that is known to be stored is missing or wrong.
    pub fn restore_settling(&mut self, parts: &Parts) -> Result<(), StoreError> {
        let (batch, mut settling) = (self.machine.id(), Settling::default());
        let Some(signed) = self.signed() else { return Ok(()) };
        let members = self.machine.members().iter();
        for (peer, slot) in
            members.filter(|(_, member)| member.released).map(|(peer, _)| (*peer, self.slot(*peer)))
        {
            let secret = record::released(parts, batch, peer)?;
            slot.ok_or_else(|| format!("{peer} has no place in the tree"))
                .and_then(|slot| {
                    let kept = settling.released.insert(signed.tree(), slot, secret);
                    kept.map_err(|error| error.to_string())
                })
                .map_err(|error| StoreError::Corrupt(format!("released key: {error}")))?;
        }
        settling.pending = Pending::get(&parts.committer, batch)?;
        self.settling = settling;
        Ok(())
    }

    /// Keeps commitments that LDK offers after a restart from bringing paths of a batch onto the
    /// chain that has expired or is settled.
    pub fn set_aside_if_over(&self, parts: &Parts) {
        let is_over = matches!(self.machine.phase(), HubPhase::Expiring { .. } | HubPhase::Settled);
        if let Some(tree) = self.machine.tree().filter(|_| is_over) {
            parts.unroller.set_aside(tree.root);
        }
    }

    fn slot(&self, peer: Peer) -> Option<UserSlot> {
        let place = self.machine.members().keys().position(|other| *other == peer)?;
        u16::try_from(place).ok().map(UserSlot)
    }

    /// §8.1: whether `secret` is that of the peer's tree key; it is durable if so.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn check_release(
        &mut self,
        parts: &Parts,
        peer: Peer,
        secret: TreeSecret,
    ) -> Result<Vec<HubInput>, StoreError> {
        let batch = self.machine.id();
        let mut released = std::mem::take(&mut self.settling.released);
        let checked = match (self.signed(), self.slot(peer)) {
            (Some(signed), Some(slot)) => released.insert(signed.tree(), slot, secret.clone()),
            // No tree, no key: it says nothing about the peer.
            _ => {
                self.settling.released = released;
                return Ok(vec![]);
            }
        };
        self.settling.released = released;
        let right = match checked {
            Ok(()) => {
                let mut writes = Batch::default();
                record::put_released(parts, batch, peer, &secret, &mut writes);
                parts.committer.durable(parts.committer.enqueue(writes)).await?;
                self.settling.refused.remove(&peer);
                self.settling.quiet_since = None;
                true
            }
            Err(error) => {
                tracing::warn!(%batch, %peer, %error, "released key is refused");
                self.settling.refused.insert(peer);
                false
            }
        };
        Ok(vec![HubInput::ReleaseChecked { peer, right }])
    }

    /// §8.4: closes the channels of `peers` for the books alone. Those whose leaf is on chain have
    /// become ordinary ones and stay.
    pub fn close_for_sweep(&self, parts: &Parts, peers: &[Peer]) -> Vec<HubInput> {
        let (Some(signed), Some(tree)) = (self.signed(), self.machine.tree()) else {
            return vec![];
        };
        // Before LDK offers its commitments.
        parts.unroller.set_aside(tree.root);
        for peer in peers {
            let (Some(slot), Some(channel)) = (self.slot(*peer), self.channels.get(peer)) else {
                continue;
            };
            let funding = signed.tree().funding_outpoint(slot).ok();
            if !funding.is_some_and(|funding| parts.confirmations.is_on_chain(funding)) {
                parts.channels.close_for_the_books(*channel, "its batch has expired");
            }
        }
        vec![HubInput::ClosedForSweep]
    }

    /// What a batch that is to be settled does at each block. One of which something is on chain
    /// looks also if nobody has released a key: its users may all leave by themselves.
    pub fn settling_effects(&self, parts: &Parts) -> Vec<HubEffect> {
        let effects = match self.machine.phase() {
            HubPhase::Live { .. } | HubPhase::Expiring { .. } => self.machine.unfinished_effects(),
            _ => return vec![],
        };
        let root = self.machine.tree().map(|tree| tree.root);
        if effects.is_empty() && root.is_some_and(|root| parts.confirmations.is_root_spent(root)) {
            return vec![HubEffect::PlanReclaim];
        }
        effects
    }

    /// Looks at what can be taken back at the block `best`, and does the next thing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn settle(&mut self, parts: &Parts, best: u32) -> Result<Vec<HubInput>, StoreError> {
        let contested = match self.machine.phase() {
            HubPhase::Live { .. } => false,
            HubPhase::Expiring { .. } => true,
            _ => return Ok(vec![]),
        };
        let (Some(signed), Some(root)) = (self.signed(), self.machine.tree().map(|t| t.root))
        else {
            return Ok(vec![]);
        };
        let Some(record) = parts.confirmations.get(root) else { return Ok(vec![]) };
        if best == 0 || record.confirmed().is_none() {
            return Ok(vec![]);
        }
        let tree = signed.tree().clone();
        let chain = TreeOnChain::new(&tree, |node| record.spend_of(node));
        if chain.is_settled(best) {
            parts.unroller.keep_only(root, Reason::Reclaim, &BTreeSet::new());
            self.settling.pending = None;
            let _found_useless_after_a_crash = Pending::delete(self.machine.id(), &parts.committer);
            return Ok(vec![HubInput::RootSettled]);
        }
        let purpose = if contested { FeePurpose::Urgent } else { FeePurpose::Normal };
        let most = parts.policy.settle_feerate_max;
        let wanted = parts.fees.get(purpose).min(most);
        let goal = match contested {
            true => chain.sweep(wanted),
            false => {
                let policy = &parts.policy;
                let expiry = self.machine.expiry();
                let early_value_ppm =
                    early_value_ppm(policy.early_value_ppm, policy.life, best, expiry);
                let worth = ReclaimPolicy::Worth { feerate: wanted, early_value_ppm };
                // Others may release yet, and make it cheaper.
                let since = *self.settling.quiet_since.get_or_insert(best);
                let may_publish = best >= since.saturating_add(policy.reclaim_patience);
                let live = self.live(&tree, best);
                chain.reclaim(&self.settling.released.slots(), &live, worth, may_publish)
            }
        };
        self.publish(parts, root, &goal).await?;
        self.take(parts, &tree, &goal.take, best, Rates { wanted, most, contested }).await?;
        Ok(vec![])
    }

    /// The users whose channel is open, while they have the right to keep it: they must roll over
    /// within the window (§5.2).
    fn live(&self, tree: &BatchTree, best: u32) -> BTreeSet<UserSlot> {
        let deadlines = Deadlines::new(self.machine.expiry(), tree.shape().levels());
        let ends = deadlines.ok().map(|deadlines| deadlines.rollover_ends());
        if ends.is_some_and(|ends| best > ends.to_consensus_u32()) {
            return BTreeSet::new();
        }
        let members = self.machine.members().values();
        let open = members.zip((0..).map(UserSlot)).filter(|(member, _)| !member.retired);
        open.map(|(_, slot)| slot).collect()
    }

    /// Has the unroller publish what must be on chain first, and no more than that.
    async fn publish(
        &self,
        parts: &Parts,
        root: bitcoin::OutPoint,
        goal: &Goal,
    ) -> Result<(), StoreError> {
        parts.unroller.keep_only(root, Reason::Reclaim, &goal.publish);
        for output in &goal.publish {
            match parts.unroller.want(*output, Reason::Reclaim).await {
                Ok(()) => {}
                Err(UnrollError::Store(error)) => return Err(error),
                Err(error) => tracing::error!(%error, "a subtree cannot be taken back"),
            }
        }
        Ok(())
    }

    /// Sees to it that a transaction takes the outputs of `nodes`.
    async fn take(
        &mut self,
        parts: &Parts,
        tree: &BatchTree,
        nodes: &[usize],
        best: u32,
        rates: Rates,
    ) -> Result<(), StoreError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let outputs: BTreeSet<_> = nodes.iter().map(|node| tree.nodes()[*node].outpoint).collect();
        // One that has lost all its outputs, or taken them, has nothing to do with these.
        let pending = self.settling.pending.clone();
        let pending = pending.filter(|pending| pending.spends().any(|o| outputs.contains(&o)));
        let under_way = pending.as_ref().map(|pending| UnderWay {
            feerate: pending.feerate,
            fee: pending.fee,
            made_at: pending.made_at,
            broadcast: self.settling.broadcast,
            fits: pending.spends().collect::<BTreeSet<_>>() == outputs,
        });
        match (step(under_way, best, rates), pending) {
            (Step::Keep, _) => Ok(()),
            (Step::Repeat, Some(pending)) => self.broadcast_pending(parts, pending, None).await,
            (Step::Repeat, None) => Ok(()),
            (Step::Make(feerate), earlier) => {
                let script = match &earlier {
                    Some(pending) => pending.transaction.output[0].script_pubkey.clone(),
                    None => {
                        let (script, ticket) = parts.wallet.sweep_script();
                        parts.committer.durable(ticket).await?;
                        script
                    }
                };
                let taking = Taking { nodes, by_leaf: rates.contested, script };
                let replaced = earlier.as_ref().map(|pending| pending.fee);
                let Some((transaction, fee)) =
                    self.signed_taking(parts, tree, &taking, feerate, replaced)
                else {
                    return Ok(());
                };
                let made = Pending { transaction, fee, feerate, made_at: best };
                let replaced = earlier.map(|pending| pending.transaction.compute_txid());
                self.broadcast_pending(parts, made, replaced).await
            }
        }
    }

    /// Makes `pending` durable and broadcasts it in place of `replaced`.
    async fn broadcast_pending(
        &mut self,
        parts: &Parts,
        pending: Pending,
        replaced: Option<Txid>,
    ) -> Result<(), StoreError> {
        let batch = self.machine.id();
        let mut writes = Batch::default();
        pending.put(batch, &mut writes);
        let recorded = parts.committer.enqueue(writes);
        let counted = parts.wallet.apply_unconfirmed(&pending.transaction);
        parts.committer.durable(recorded).await?;
        parts.committer.durable(counted).await?;
        if let Some(replaced) = replaced {
            parts.broadcasts.withdraw(replaced);
        }
        tracing::info!(
            %batch,
            txid = %pending.transaction.compute_txid(),
            inputs = pending.transaction.input.len(),
            fee_sat = pending.fee.to_sat(),
            "outputs of a batch are taken back"
        );
        parts.broadcasts.push(vec![pending.transaction.clone()]);
        self.settling.pending = Some(pending);
        self.settling.broadcast = true;
        Ok(())
    }

    /// Builds and signs a transaction; `None` if its outputs do not pay for it, or a signature
    /// fails for a reason that none should.
    fn signed_taking(
        &self,
        parts: &Parts,
        tree: &BatchTree,
        taking: &Taking<'_>,
        feerate: FeeRate,
        replaced: Option<Amount>,
    ) -> Option<(Transaction, Amount)> {
        let batch = self.machine.id();
        let spent: Vec<TxOut> =
            taking.nodes.iter().map(|node| tree.nodes()[*node].spent.clone()).collect();
        let total: Amount = spent.iter().map(|output| output.value).sum();
        let mut transaction = self.unsigned(tree, taking, total);
        let witnesses = taking.nodes.iter().map(|node| self.witness_weight(tree, taking, *node));
        // Marker and flag of the witness.
        let weight = transaction.weight() + Weight::from_wu(2) + witnesses.sum::<Weight>();
        let fee = fee_ceil(feerate, weight, replaced);
        let least = taking.script.minimal_non_dust();
        let Some(value) = total.checked_sub(fee).filter(|value| *value >= least) else {
            tracing::info!(%batch, %total, %fee, "outputs of a batch do not pay for their fee yet");
            return None;
        };
        transaction.output[0].value = value;
        for input in 0..taking.nodes.len() {
            match self.witness(parts, tree, taking, (&transaction, input, &spent)) {
                Ok(witness) => transaction.input[input].witness = witness,
                Err(error) => {
                    tracing::error!(%batch, %error, "an output of a batch cannot be signed for");
                    return None;
                }
            }
        }
        assert_eq!(transaction.weight(), weight, "a signature has 64 bytes");
        assert_eq!(transaction.output[0].value.checked_add(fee), Some(total));
        Some((transaction, fee))
    }

    fn unsigned(&self, tree: &BatchTree, taking: &Taking<'_>, value: Amount) -> Transaction {
        let input = |node: &usize| TxIn {
            previous_output: tree.nodes()[*node].outpoint,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            ..TxIn::default()
        };
        let lock_time = match taking.by_leaf {
            true => absolute::LockTime::from(self.machine.expiry()),
            false => absolute::LockTime::ZERO,
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time,
            input: taking.nodes.iter().map(input).collect(),
            output: vec![TxOut { value, script_pubkey: taking.script.clone() }],
        }
    }

    /// Whether the output of `node` is spent by its key: all users below it have released theirs.
    fn is_by_key(&self, tree: &BatchTree, taking: &Taking<'_>, node: usize) -> bool {
        let released = self.settling.released.slots();
        let slots = (0..).map(UserSlot).take(tree.members().len());
        let mut below = slots.filter(|s| tree.nodes()[node].shape.users.contains(&s.index()));
        !taking.by_leaf || below.all(|slot| released.contains(&slot))
    }

    fn witness_weight(&self, tree: &BatchTree, taking: &Taking<'_>, node: usize) -> Weight {
        match self.is_by_key(tree, taking, node) {
            true => Coin::SATISFACTION_WEIGHT,
            false => tree.nodes()[node].node.expiry_witness_weight(),
        }
    }

    fn witness(
        &self,
        parts: &Parts,
        tree: &BatchTree,
        taking: &Taking<'_>,
        of: (&Transaction, usize, &[TxOut]),
    ) -> Result<bitcoin::Witness, ReclaimError> {
        let (batch, node) = (self.machine.id(), taking.nodes[of.1]);
        if self.is_by_key(tree, taking, node) {
            let secret = parts.secrets.hub_tree(batch, self.machine.attempt());
            return key_path_witness(tree, node, &secret, &self.settling.released, of);
        }
        sweep_witness(&tree.nodes()[node].node, &parts.secrets.sweep(batch), of)
    }
}
