//! Whether a fee bump has something to spend, asked when it matters.
//!
//! A fee bump ties coins of ours to what it is for. LDK asks for two that can never confirm:
//!
//! - A peer may say, truly or not, that it does not know a channel whose funding transaction never
//!   came to be. LDK closes such a channel by force and asks at once for a bump of a commitment
//!   that spends nothing.
//! - Whenever LDK hears a preimage for a channel whose commitment of ours is on chain, it claims all
//!   HTLCs of that commitment again, also those that were decided long ago: it has forgotten that
//!   they were. At each start it hears the preimages of all payments to us that it still knows.
//!
//! So the chain is asked first. No claim ever waits twice for that: what was there once is bumped
//! while it is looked up again with each block, since blocks may come faster than answers. What is
//! gone is bumped no more, and what the wallet counts that spends it is dropped.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, TxOut};
use lightning::events::bump_transaction::BumpTransactionEvent;
use lightning::ln::types::ChannelId;
use parking_lot::Mutex;

use crate::chain::broadcast::BroadcastQueue;
use crate::chain::{ChainError, ChainSource};
use crate::runtime::Tasks;
use crate::wallet::Wallet;

/// Looks what fee bumps are for up in the chain source.
#[derive(Clone)]
pub(super) struct Inputs {
    chain: Arc<dyn ChainSource>,
    wallet: Arc<Wallet>,
    broadcasts: BroadcastQueue,
    /// Has LDK offer again what had to wait.
    again: Arc<dyn Fn() + Send + Sync>,
    tasks: Tasks,
    known: Arc<Mutex<Known>>,
    /// Funding outputs: whether a block has them, at whatever best block.
    fundings: Arc<Mutex<HashMap<OutPoint, Output>>>,
}

/// For so many blocks an output is remembered that no bump was for.
const REMEMBERED: u64 = 144;

/// What is known of HTLCs' outputs.
#[derive(Default)]
struct Known {
    at: Option<BlockHash>,
    /// How many best blocks there were.
    blocks: u64,
    outputs: HashMap<OutPoint, Seen>,
    /// LDK waits for an answer that has come since it was last asked to offer again.
    has_news: bool,
}

/// What is known of one output.
struct Seen {
    /// The last answer.
    output: Output,
    /// The best block at which it was last asked for, counted as [`Known::blocks`].
    asked: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// It is being looked up for the first time.
    Asked,
    /// It is an unspent output of a block.
    Unspent,
    /// A block has spent it, or none has it.
    Gone,
}

impl Inputs {
    /// Looks up in `chain`, on `tasks`; `again` has LDK offer what had to wait.
    pub(super) fn new(
        chain: Arc<dyn ChainSource>,
        wallet: Arc<Wallet>,
        broadcasts: BroadcastQueue,
        tasks: Tasks,
        again: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (again, known, fundings) = (Arc::new(again), Arc::default(), Arc::default());
        Self { chain, wallet, broadcasts, again, tasks, known, fundings }
    }

    /// What of `bump` has something to spend, LDK's best block being `at`. If that is not known
    /// yet, LDK offers the bump again as soon as it is.
    pub(super) fn fit<'a>(
        &self,
        bump: &'a BumpTransactionEvent,
        at: BlockHash,
    ) -> Option<Cow<'a, BumpTransactionEvent>> {
        match bump {
            BumpTransactionEvent::ChannelClose { commitment_tx, channel_id, .. } => {
                let funding = commitment_tx.input.first()?.previous_output;
                self.is_funded(funding, *channel_id).then_some(Cow::Borrowed(bump))
            }
            BumpTransactionEvent::HTLCResolution { htlc_descriptors, channel_id, .. } => {
                let outputs: Vec<OutPoint> =
                    htlc_descriptors.iter().map(|htlc| htlc.outpoint()).collect();
                let unspent = self.unspent(&outputs, at)?;
                if unspent.len() == outputs.len() {
                    return Some(Cow::Borrowed(bump));
                }
                let mut gone = outputs;
                gone.retain(|output| !unspent.contains(output));
                tracing::debug!(%channel_id, ?gone, "no fee bump for HTLCs that are decided");
                self.drop_spenders(&gone);
                let mut fits = bump.clone();
                if let BumpTransactionEvent::HTLCResolution { htlc_descriptors, .. } = &mut fits {
                    htlc_descriptors.retain(|htlc| unspent.contains(&htlc.outpoint()));
                }
                (!unspent.is_empty()).then_some(Cow::Owned(fits))
            }
        }
    }

    /// Whether a block has `funding`. That is asked once: when it is spent LDK hears of it, and a
    /// commitment that waits for a coin should not wait for an answer with each block as well.
    fn is_funded(&self, funding: OutPoint, channel_id: ChannelId) -> bool {
        match self.fundings.lock().entry(funding) {
            Entry::Occupied(known) => return *known.get() == Output::Unspent,
            Entry::Vacant(unknown) => unknown.insert(Output::Asked),
        };
        let this = self.clone();
        self.tasks.spawn("look-up of a funding output", async move {
            if let Ok(Some(_)) = this.chain.unspent_output(funding).await {
                this.fundings.lock().insert(funding, Output::Unspent);
                (this.again)();
            } else {
                tracing::info!(%channel_id, %funding, "no fee bump: the funding output is not in the chain");
                this.fundings.lock().remove(&funding);
            }
        });
        false
    }

    /// Which of `outputs` are unspent in the chain, mempool not counted, as far as was last heard;
    /// `None` as long as one of them was never heard of. With each block they are asked for again.
    fn unspent(&self, outputs: &[OutPoint], at: BlockHash) -> Option<BTreeSet<OutPoint>> {
        let mut known = self.known.lock();
        known.reach(at);
        let blocks = known.blocks;
        let (mut unspent, mut unasked, mut waits) = (BTreeSet::new(), Vec::new(), false);
        for output in outputs {
            let seen = known.outputs.entry(*output).or_insert_with(|| {
                unasked.push(*output);
                Seen { output: Output::Asked, asked: blocks }
            });
            if seen.asked < blocks {
                seen.asked = blocks;
                unasked.push(*output);
            }
            match seen.output {
                Output::Unspent => _ = unspent.insert(*output),
                Output::Gone => {}
                Output::Asked => waits = true,
            }
        }
        drop(known);
        if !unasked.is_empty() {
            self.ask(unasked, at);
        }
        (!waits).then_some(unspent)
    }

    fn ask(&self, outputs: Vec<OutPoint>, at: BlockHash) {
        let this = self.clone();
        self.tasks.spawn("look-up of fee bumps' inputs", async move {
            let mut answers = Vec::with_capacity(outputs.len());
            for output in outputs {
                answers.push((output, this.chain.unspent_output(output).await));
            }
            // Whoever is at another block may not have this output yet.
            let is_there = this.chain.tip().await.is_ok_and(|tip| tip.hash == at);
            let learned = this.known.lock().learn(answers, is_there);
            this.drop_spenders(&learned.lost);
            if learned.offer_again {
                (this.again)();
            }
        });
    }

    /// Drops what the wallet counts that spends one of `gone`: a claim of an earlier start, before
    /// anybody asked.
    fn drop_spenders(&self, gone: &[OutPoint]) {
        for txid in self.wallet.drop_spenders(gone) {
            tracing::info!(%txid, "dropped: what it spends is spent by another transaction");
            self.broadcasts.withdraw(txid);
        }
    }
}

/// What answers change.
struct Learned {
    /// Outputs that were there and are no more.
    lost: Vec<OutPoint>,
    /// LDK shall offer its bumps again: once for all that are looked up, since it offers all.
    offer_again: bool,
}

impl Known {
    /// Goes on to the best block `at`.
    fn reach(&mut self, at: BlockHash) {
        if self.at.replace(at) != Some(at) {
            self.blocks += 1;
            let blocks = self.blocks;
            self.outputs.retain(|_, seen| seen.asked + REMEMBERED > blocks);
        }
    }

    /// Keeps `answers`, given by a chain source that `is_there` where LDK was. What has no answer
    /// yet is asked for again when LDK offers its bump again.
    fn learn(
        &mut self,
        answers: Vec<(OutPoint, Result<Option<TxOut>, ChainError>)>,
        is_there: bool,
    ) -> Learned {
        let mut lost = Vec::new();
        for (output, answer) in answers {
            let Some(seen) = self.outputs.get_mut(&output) else { continue };
            let before = seen.output;
            match answer {
                Ok(Some(_)) => seen.output = Output::Unspent,
                Ok(None) if is_there => seen.output = Output::Gone,
                Ok(None) | Err(_) if before == Output::Asked => {
                    self.outputs.remove(&output);
                    continue;
                }
                Ok(None) | Err(_) => seen.asked = seen.asked.saturating_sub(1),
            }
            match (before, seen.output) {
                (Output::Unspent, Output::Gone) => lost.push(output),
                (before, now) => self.has_news |= before != now,
            }
        }
        let waits = self.outputs.values().any(|seen| seen.output == Output::Asked);
        Learned { lost, offer_again: !waits && std::mem::take(&mut self.has_news) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, ScriptBuf, Sequence, Transaction, TxIn, Witness, opcodes};

    use super::*;
    use crate::chain::embedded::{EmbeddedChain, EmbeddedConfig};
    use crate::environment::SystemClock;
    use crate::wallet::tests::World;

    /// A script that anybody can satisfy.
    fn anybodys() -> ScriptBuf {
        bitcoin::script::Builder::new().push_opcode(opcodes::OP_TRUE).into_script()
    }

    fn spend(output: OutPoint) -> Transaction {
        let input = TxIn {
            previous_output: output,
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[anybodys()]),
            ..TxIn::default()
        };
        let pays = TxOut { value: Amount::from_sat(90_000), script_pubkey: anybodys().to_p2wsh() };
        Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: vec![input],
            output: vec![pays],
        }
    }

    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    /// Two outputs of a block, the chain they are in, and who looks them up and counts how often
    /// LDK is asked to offer again.
    fn two_outputs() -> ([OutPoint; 2], EmbeddedChain, Inputs, Arc<AtomicU32>) {
        let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(SystemClock));
        let script = anybodys().to_p2wsh();
        let outputs = [1, 2].map(|_| chain.fund(&script, Amount::from_sat(100_000)).unwrap());
        chain.mine(1, &ScriptBuf::new_op_return([]));
        let offered = Arc::new(AtomicU32::new(0));
        let again = {
            let offered = Arc::clone(&offered);
            move || _ = offered.fetch_add(1, Ordering::Relaxed)
        };
        let (wallet, queue) = (World::new().wallet, BroadcastQueue::default());
        let inputs = Inputs::new(Arc::new(chain.clone()), wallet, queue, Tasks::new(), again);
        (outputs, chain, inputs, offered)
    }

    #[tokio::test]
    async fn an_output_is_looked_up_before_it_fits_and_one_that_is_spent_fits_no_more() {
        let (outputs, chain, inputs, offered) = two_outputs();
        let both = BTreeSet::from(outputs);
        let at = chain.best().hash;
        assert_eq!(inputs.unspent(&outputs[..1], at), None, "not known yet");
        assert_eq!(inputs.unspent(&outputs[1..], at), None);
        assert_eq!(inputs.unspent(&outputs, at), None, "and not asked twice");
        settle().await;
        assert_eq!(offered.load(Ordering::Relaxed), 1, "once for both");
        assert_eq!(inputs.unspent(&outputs, at), Some(both.clone()));

        // What waits in the mempool may still lose.
        chain.accept(&[spend(outputs[0])]).unwrap();
        assert_eq!(inputs.unspent(&outputs, at), Some(both.clone()));
        chain.mine(1, &ScriptBuf::new_op_return([]));
        let at = chain.best().hash;
        assert_eq!(inputs.unspent(&outputs, at), Some(both), "as far as was heard");
        settle().await;
        assert_eq!(inputs.unspent(&outputs, at), Some(BTreeSet::from([outputs[1]])));
        assert_eq!(offered.load(Ordering::Relaxed), 1, "nobody waits for what is gone");
    }

    #[tokio::test]
    async fn blocks_that_come_faster_than_answers_hold_no_claim_up() {
        let (outputs, chain, inputs, offered) = two_outputs();
        assert_eq!(inputs.unspent(&outputs, chain.best().hash), None);
        chain.mine(1, &ScriptBuf::new_op_return([]));
        assert_eq!(inputs.unspent(&outputs, chain.best().hash), None, "no answer yet");
        settle().await;
        assert_eq!(offered.load(Ordering::Relaxed), 1);
        for _ in 0..3 {
            chain.mine(1, &ScriptBuf::new_op_return([]));
            assert_eq!(inputs.unspent(&outputs, chain.best().hash), Some(BTreeSet::from(outputs)));
        }
    }

    #[tokio::test]
    async fn a_chain_that_is_elsewhere_does_not_know_what_is_gone() {
        let (outputs, chain, inputs, offered) = two_outputs();
        chain.accept(&[spend(outputs[0])]).unwrap();
        chain.mine(1, &ScriptBuf::new_op_return([]));
        for _ in 0..2 {
            assert_eq!(inputs.unspent(&outputs[..1], BlockHash::from_byte_array([7; 32])), None);
            settle().await;
        }
        assert_eq!(offered.load(Ordering::Relaxed), 0);
        assert_eq!(inputs.unspent(&outputs[..1], chain.best().hash), None);
        settle().await;
        assert_eq!(inputs.unspent(&outputs[..1], chain.best().hash), Some(BTreeSet::new()));

        // A block that is taken back brings the output back, and then LDK is asked to offer.
        chain.invalidate(1).unwrap();
        assert_eq!(inputs.unspent(&outputs[..1], chain.best().hash), Some(BTreeSet::new()));
        settle().await;
        assert_eq!(
            inputs.unspent(&outputs[..1], chain.best().hash),
            Some(BTreeSet::from([outputs[0]]))
        );
        assert_eq!(offered.load(Ordering::Relaxed), 2);
    }
}
