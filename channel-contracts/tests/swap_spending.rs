//! Every spend of a swap's output through Bitcoin Core's interpreter, and every one that must
//! fail: wrong preimage, wrong size, wrong key, too early.
//!
//! `REGENERATE=1 cargo test -p channel-contracts --test swap_spending golden` writes the vectors
//! anew; a change of them is a change of the protocol.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{
    OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute, transaction,
};
use channel_contracts::script::Preimage;
use channel_contracts::swap::transactions::{claim_witness_weight, key_witness_weight};
use channel_contracts::swap::{SwapContract, SwapOutput, SwapSpend, SwapSpendError};
use common::batch::secret;
use common::interpret;
use common::swap::{AMOUNT, BLOCKS, REFUND, claimer, contracts, preimage, refunder};
use serde_json::{Value, json};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/swaps.json");

/// Spends the output with this locktime and sequence.
fn spend(lock_height: u32, sequence: Sequence) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_height(lock_height).unwrap(),
        input: vec![TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([0x33; 32]), 2),
            script_sig: ScriptBuf::new(),
            sequence,
            witness: Witness::new(),
        }],
        output: vec![TxOut { value: AMOUNT, script_pubkey: ScriptBuf::new_op_return([]) }],
    }
}

fn run(output: &SwapOutput, transaction: &Transaction, witness: Witness) -> bool {
    let mut transaction = transaction.clone();
    transaction.input[0].witness = witness;
    interpret(&transaction, 0, &[output.tx_out(AMOUNT)]).is_ok()
}

/// Makes a witness with the one function given and runs it.
fn witness(
    output: &SwapOutput,
    transaction: &Transaction,
    make: impl Fn(&SwapSpend<'_>) -> Result<Witness, SwapSpendError>,
) -> Result<Witness, SwapSpendError> {
    let spent = [output.tx_out(AMOUNT)];
    make(&SwapSpend { output, transaction, input: 0, spent: &spent })
}

#[test]
fn golden_vectors_are_reproduced() {
    let vector = |contract: SwapContract| -> Value {
        let output = contract.output().unwrap();
        let claim = spend(0, Sequence::ENABLE_RBF_NO_LOCKTIME);
        let claim = witness(&output, &claim, |spend| spend.claim(&preimage(), &claimer()));
        let refund = spend(REFUND, output.refund_sequence());
        let refund = witness(&output, &refund, |spend| spend.refund(&refunder()));
        let hex = |witness: Witness| witness.iter().map(hex::encode).collect::<Vec<_>>();
        json!({
            "hash": contract.hash.to_string(),
            "claimer": contract.claimer.to_string(),
            "refunder": contract.refunder.to_string(),
            "refund_time": format!("{:?}", contract.refund_time),
            "claim_script": contract.claim_script().to_hex_string(),
            "refund_script": contract.refund_script().to_hex_string(),
            "script_pubkey": output.script_pubkey().to_hex_string(),
            "claim_witness": hex(claim.unwrap()),
            "refund_witness": hex(refund.unwrap()),
        })
    };
    let vectors: Vec<Value> = contracts().into_iter().map(vector).collect();
    let text = format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap());
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(VECTORS, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(VECTORS).unwrap(), text);
}

#[test]
fn the_preimage_and_the_claimers_key_claim_at_any_time_and_nothing_else_does() {
    for contract in contracts() {
        let output = contract.output().unwrap();
        let claim = spend(0, Sequence::ENABLE_RBF_NO_LOCKTIME);
        let right = witness(&output, &claim, |spend| spend.claim(&preimage(), &claimer())).unwrap();
        assert!(run(&output, &claim, right.clone()));
        assert_eq!(right.size() as u64, claim_witness_weight().to_wu());
        assert_eq!(output.preimage_in(&right), Some(preimage()));
        assert!(!output.is_refund(&right));
        // Consensus lets an annex follow (BIP 341).
        let mut with_annex = right.clone();
        with_annex.push([0x50, 1]);
        assert_eq!(output.preimage_in(&with_annex), Some(preimage()));

        let wrong = Preimage([1; 32]);
        let refused = witness(&output, &claim, |spend| spend.claim(&wrong, &claimer()));
        assert_eq!(refused, Err(SwapSpendError::WrongPreimage { expected: contract.hash }));
        let refused = witness(&output, &claim, |spend| spend.claim(&preimage(), &refunder()));
        assert_eq!(refused, Err(SwapSpendError::WrongSecret));
        // The same by force: each item of a right witness replaced.
        for (index, item) in [(1, vec![1; 32]), (1, vec![]), (1, vec![7; 33]), (0, vec![1; 64])] {
            let mut items: Vec<Vec<u8>> = right.iter().map(<[u8]>::to_vec).collect();
            items[index] = item;
            let forged = Witness::from_slice(&items);
            assert!(!run(&output, &claim, forged.clone()));
            if index == 1 {
                assert_eq!(output.preimage_in(&forged), None);
            }
        }
    }
}

#[test]
fn a_preimage_of_another_size_claims_nothing() {
    for size in [31usize, 32, 33, 64] {
        let long = vec![0x5a; size];
        let mut contract = contracts()[0];
        contract.hash = sha256::Hash::hash(&long);
        let output = contract.output().unwrap();
        let claim = spend(0, Sequence::ENABLE_RBF_NO_LOCKTIME);
        // A signature that is right, with a preimage that hashes rightly.
        let message = channel_contracts::script::batch_node::script_path_message(
            &claim,
            0,
            &[output.tx_out(AMOUNT)],
            contract.claim_leaf(),
        );
        let secp = bitcoin::secp256k1::Secp256k1::new();
        let key =
            bitcoin::secp256k1::Keypair::from_seckey_slice(&secp, &claimer().to_bytes()).unwrap();
        let message = bitcoin::secp256k1::Message::from_digest(message);
        let signature = channel_contracts::musig::SchnorrSignature(
            secp.sign_schnorr_no_aux_rand(&message, &key).serialize(),
        );
        let items: Vec<Vec<u8>> = output
            .claim_witness(&signature, &preimage())
            .iter()
            .enumerate()
            .map(|(index, item)| if index == 1 { long.clone() } else { item.to_vec() })
            .collect();
        assert_eq!(run(&output, &claim, Witness::from_slice(&items)), size == 32, "{size} bytes");
    }
}

#[test]
fn the_refund_opens_with_its_time_and_not_before() {
    for (contract, early, due) in [
        (
            contracts()[0],
            spend(REFUND - 1, Sequence::ENABLE_RBF_NO_LOCKTIME),
            spend(REFUND, Sequence::ENABLE_RBF_NO_LOCKTIME),
        ),
        (
            contracts()[1],
            spend(0, Sequence::from_height(BLOCKS - 1)),
            spend(0, Sequence::from_height(BLOCKS)),
        ),
    ] {
        let output = contract.output().unwrap();
        assert!(due.input[0].sequence == output.refund_sequence());
        let right = witness(&output, &due, |spend| spend.refund(&refunder())).unwrap();
        assert!(run(&output, &due, right.clone()));
        assert!(!run(&output, &early, right));
        let refused = witness(&output, &early, |spend| spend.refund(&refunder()));
        assert_eq!(refused, Err(SwapSpendError::TooEarly));
        let refused = witness(&output, &due, |spend| spend.refund(&claimer()));
        assert_eq!(refused, Err(SwapSpendError::WrongSecret));
        let mut last = due.clone();
        last.input[0].sequence = Sequence::MAX;
        let refused = witness(&output, &last, |spend| spend.refund(&refunder()));
        assert_eq!(refused, Err(SwapSpendError::TooEarly));
    }
    // A relative lock means nothing in a transaction of version 1.
    let output = contracts()[1].output().unwrap();
    let mut old = spend(0, Sequence::from_height(BLOCKS));
    old.version = transaction::Version::ONE;
    let refused = witness(&output, &old, |spend| spend.refund(&refunder()));
    assert_eq!(refused, Err(SwapSpendError::TooEarly));
}

#[test]
fn both_keys_spend_at_any_time_and_one_does_not() {
    for contract in contracts() {
        let output = contract.output().unwrap();
        let together = spend(0, Sequence::MAX);
        let (a, b) = (claimer(), refunder());
        for pair in [[&a, &b], [&b, &a]] {
            let witness = witness(&output, &together, |spend| spend.by_key(pair)).unwrap();
            assert_eq!(witness.size() as u64, key_witness_weight().to_wu());
            assert!(run(&output, &together, witness));
        }
        let stranger = secret("stranger", 0);
        for pair in [[&a, &stranger], [&stranger, &b], [&a, &a]] {
            let refused = witness(&output, &together, |spend| spend.by_key(pair));
            assert!(matches!(refused, Err(SwapSpendError::Aggregate(_))));
        }
        let mut same = contract;
        same.refunder = same.claimer;
        assert!(same.output().is_err());
    }
}
