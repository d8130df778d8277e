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
//! So the chain is asked first. An answer is good for one best block, that a funding output is
//! there for good; what is gone is bumped no more, and what the wallet counts that spends it is dropped.

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

/// What is known as of one best block.
#[derive(Default)]
struct Known {
    at: Option<BlockHash>,
    outputs: HashMap<OutPoint, Output>,
    /// Something has been answered since LDK was last asked to offer again.
    has_news: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// It is being looked up.
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

    /// Which of `outputs` are unspent in the chain, mempool not counted; `None` as long as that is
    /// not known of all.
    fn unspent(&self, outputs: &[OutPoint], at: BlockHash) -> Option<BTreeSet<OutPoint>> {
        let mut known = self.known.lock();
        if known.at != Some(at) {
            *known = Known { at: Some(at), ..Known::default() };
        }
        let (mut unspent, mut unknown, mut waits) = (BTreeSet::new(), Vec::new(), false);
        for output in outputs {
            match known.outputs.get(output) {
                Some(Output::Unspent) => {
                    unspent.insert(*output);
                }
                Some(Output::Gone) => {}
                Some(Output::Asked) => waits = true,
                None => {
                    known.outputs.insert(*output, Output::Asked);
                    unknown.push(*output);
                }
            }
        }
        drop(known);
        waits |= !unknown.is_empty();
        if !unknown.is_empty() {
            self.ask(unknown, at);
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
            if this.learn(answers, at, is_there) {
                (this.again)();
            }
        });
    }

    /// Keeps the answers to questions asked at `at`; what is not answered is asked again when LDK
    /// offers its bump again. Says whether LDK shall do so now: once for all that are looked up,
    /// since it offers all of its claims.
    fn learn(
        &self,
        answers: Vec<(OutPoint, Result<Option<TxOut>, ChainError>)>,
        at: BlockHash,
        is_there: bool,
    ) -> bool {
        let mut known = self.known.lock();
        for (output, answer) in answers {
            let answer = match answer {
                Ok(Some(_)) => Some(Output::Unspent),
                Ok(None) if is_there => Some(Output::Gone),
                Ok(None) | Err(_) => None,
            };
            known.has_news |= answer.is_some();
            if known.at == Some(at) {
                match answer {
                    Some(answer) => known.outputs.insert(output, answer),
                    None => known.outputs.remove(&output),
                };
            }
        }
        let waits = known.outputs.values().any(|output| *output == Output::Asked);
        !waits && std::mem::take(&mut known.has_news)
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

    #[tokio::test]
    async fn an_output_is_looked_up_once_for_each_block_and_one_that_is_spent_fits_no_more() {
        let chain = EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(SystemClock));
        let script = anybodys().to_p2wsh();
        let outputs = [1, 2].map(|_| chain.fund(&script, Amount::from_sat(100_000)).unwrap());
        chain.mine(1, &ScriptBuf::new_op_return([]));
        let offered = Arc::new(AtomicU32::new(0));
        let inputs = {
            let offered = Arc::clone(&offered);
            let again = move || {
                offered.fetch_add(1, Ordering::Relaxed);
            };
            let (wallet, queue) = (World::new().wallet, BroadcastQueue::default());
            Inputs::new(Arc::new(chain.clone()), wallet, queue, Tasks::new(), again)
        };
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
        assert_eq!(inputs.unspent(&outputs, at), Some(both));
        chain.mine(1, &ScriptBuf::new_op_return([]));
        let at = chain.best().hash;
        assert_eq!(inputs.unspent(&outputs, at), None, "another block, another answer");
        settle().await;
        assert_eq!(offered.load(Ordering::Relaxed), 2);
        assert_eq!(inputs.unspent(&outputs, at), Some(BTreeSet::from([outputs[1]])));

        // A chain that is elsewhere does not know what is gone, and nothing is offered for it.
        let elsewhere = BlockHash::from_byte_array([7; 32]);
        for _ in 0..2 {
            assert_eq!(inputs.unspent(&outputs[..1], elsewhere), None);
            settle().await;
        }
        assert_eq!(offered.load(Ordering::Relaxed), 2);
    }
}
