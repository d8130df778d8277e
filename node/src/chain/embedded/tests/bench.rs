//! What tests need to make transactions: a clock to turn, coins without keys.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    opcodes, transaction,
};
use parking_lot::Mutex;

use crate::chain::BroadcastError;
use crate::chain::embedded::{EmbeddedChain, EmbeddedConfig};
use crate::environment::{Clock, UnixTime};

/// 2024-01-01: after every height-activated rule, before any real clock.
pub(crate) const START: u64 = 1_704_067_200;

/// A clock that stands until a test turns it.
pub(crate) struct ManualClock(Mutex<UnixTime>);

impl ManualClock {
    pub(crate) fn at(seconds: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Duration::from_secs(seconds))))
    }

    pub(crate) fn advance(&self, seconds: u64) {
        *self.0.lock() += Duration::from_secs(seconds);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixTime {
        *self.0.lock()
    }
}

/// Returns a chain whose time stands at [`START`].
pub(crate) fn chain() -> EmbeddedChain {
    chain_at(START).0
}

pub(crate) fn chain_at(seconds: u64) -> (EmbeddedChain, Arc<ManualClock>) {
    let clock = ManualClock::at(seconds);
    (EmbeddedChain::new(EmbeddedConfig::default(), clock.clone()), clock)
}

/// A witness script that anybody meets; `tag` makes it one of its own.
pub(crate) fn open_script(tag: u32) -> ScriptBuf {
    Builder::new()
        .push_int(i64::from(tag))
        .push_opcode(opcodes::all::OP_DROP)
        .push_opcode(opcodes::OP_TRUE)
        .into_script()
}

/// An output and how to spend it.
#[derive(Debug, Clone)]
pub(crate) struct Coin {
    pub outpoint: OutPoint,
    pub value: u64,
    pub witness: Witness,
    pub sequence: Sequence,
}

impl Coin {
    pub(crate) fn with_sequence(&self, sequence: u32) -> Self {
        Self { sequence: Sequence(sequence), ..self.clone() }
    }
}

fn witness_of(script: &Script) -> Witness {
    Witness::from_slice(&[script.as_bytes()])
}

/// Makes one confirmed coin of `sat` for each tag.
pub(crate) fn coins(chain: &EmbeddedChain, sat: u64, tags: std::ops::Range<u32>) -> Vec<Coin> {
    let payments: Vec<_> =
        tags.clone().map(|tag| (open_script(tag).to_p2wsh(), Amount::from_sat(sat))).collect();
    let outpoints = chain.fund_many(&payments).unwrap();
    chain.mine(1, &sink());
    outpoints
        .into_iter()
        .zip(tags)
        .map(|(outpoint, tag)| Coin {
            outpoint,
            value: sat,
            witness: witness_of(&open_script(tag)),
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        })
        .collect()
}

/// Somewhere to pay that no test spends from.
pub(crate) fn sink() -> ScriptBuf {
    open_script(u32::MAX).to_p2wsh()
}

/// An output that [`output_coin`] can spend.
pub(crate) fn pay(tag: u32, sat: u64) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: open_script(tag).to_p2wsh() }
}

/// A pay-to-anchor output.
pub(crate) fn anchor(sat: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(sat),
        script_pubkey: ScriptBuf::from_bytes(vec![0x51, 0x02, 0x4e, 0x73]),
    }
}

/// An output that only takes room.
pub(crate) fn padding(bytes: usize) -> TxOut {
    let data = PushBytesBuf::try_from(vec![7; bytes]).unwrap();
    TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::new_op_return(data) }
}

/// The output `vout` of `tx`, made by [`pay`] with `tag`.
pub(crate) fn output_coin(tx: &Transaction, vout: u32, tag: u32) -> Coin {
    Coin {
        outpoint: OutPoint::new(tx.compute_txid(), vout),
        value: tx.output[vout as usize].value.to_sat(),
        witness: witness_of(&open_script(tag)),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
    }
}

/// The anchor output `vout` of `tx`.
pub(crate) fn anchor_coin(tx: &Transaction, vout: u32) -> Coin {
    Coin { witness: Witness::new(), ..output_coin(tx, vout, 0) }
}

/// A transaction with these inputs and outputs.
pub(crate) fn spend(version: i32, inputs: &[&Coin], outputs: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version(version),
        lock_time: absolute::LockTime::ZERO,
        input: inputs
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                script_sig: ScriptBuf::new(),
                sequence: coin.sequence,
                witness: coin.witness.clone(),
            })
            .collect(),
        output: outputs,
    }
}

/// Bitcoin Core's word for a refusal; empty if taken.
pub(crate) fn word(outcome: Result<(), BroadcastError>) -> String {
    match outcome {
        Ok(()) => String::new(),
        Err(BroadcastError::Rejected { reason, .. }) => reason,
        Err(BroadcastError::MissingInputs { .. }) => "bad-txns-inputs-missingorspent".to_owned(),
        Err(BroadcastError::Chain(error)) => panic!("the chain answers: {error}"),
    }
}
