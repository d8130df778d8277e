//! Trees and paths: golden vectors, values that conserve, every user's path, and tampering.
//!
//! `REGENERATE=1 cargo test -p channel-contracts --test tree golden` writes the vectors anew;
//! a change of them is a change of the protocol and needs a new path version.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Amount, ScriptBuf, TxOut};
use channel_contracts::DecodeError;
use channel_contracts::musig::SchnorrSignature;
use channel_contracts::tree::path::{PATH_LEN_MAX, PathEnds};
use channel_contracts::tree::{
    Path, PathError, PlannedTree, Proposal, ProposalError, Radix, SignedPath, TreeError, UserSlot,
};
use common::batch::{Batch, EXPIRY, root, secret, slots};
use common::interpret;
use proptest::prelude::*;
use serde_json::{Value, json};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/batch_trees.json");

fn vector(values: &[u64], radix: u8) -> Value {
    let batch = Batch::with_values(values, radix);
    let signed = batch.sign();
    let tree = signed.tree();
    let transactions: Vec<String> =
        (0..tree.nodes().len()).map(|node| serialize_hex(&signed.transaction(node))).collect();
    let paths: Vec<String> =
        slots(values.len()).map(|slot| hex::encode(signed.path(slot).unwrap().encode())).collect();
    json!({
        "values_sat": values,
        "radix": radix,
        "expiry": EXPIRY,
        "hub_key": batch.terms.hub_key.to_string(),
        "sweep_key": batch.terms.leaf.sweep_key.to_string(),
        "user_keys": batch.members.iter().map(|m| m.tree_key.to_string()).collect::<Vec<_>>(),
        "channel_scripts": batch.members.iter()
            .map(|m| m.funding.script_pubkey.to_hex_string()).collect::<Vec<_>>(),
        "root_outpoint": root().to_string(),
        "root_script": tree.nodes()[0].spent.script_pubkey.to_hex_string(),
        "expiry_script": batch.terms.leaf.script().to_hex_string(),
        "control_block": hex::encode(tree.nodes()[0].node.control_block().serialize()),
        "transactions": transactions,
        "signed_paths": paths,
    })
}

#[test]
fn golden_vectors_are_reproduced() {
    let values = |count: u64| (0..count).map(|user| 10_000 + user * 1_111).collect::<Vec<_>>();
    let vectors = json!([
        vector(&values(1), 4),
        vector(&values(2), 2),
        vector(&values(5), 4),
        vector(&values(7), 2),
        vector(&values(18), 4),
    ]);
    let text = format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap());
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(VECTORS, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(VECTORS).unwrap(), text);
}

#[test]
fn every_signed_transaction_passes_the_interpreter() {
    for (users, radix) in [(1, 4), (2, 2), (5, 4), (9, 2), (33, 4), (20, 16)] {
        let signed = Batch::new(users, radix).sign();
        for (index, node) in signed.tree().nodes().iter().enumerate() {
            let transaction = signed.transaction(index);
            assert_eq!(transaction.version.0, 3);
            interpret(&transaction, 0, std::slice::from_ref(&node.spent)).unwrap();
        }
    }
}

#[test]
fn every_users_path_verifies_and_publishes() {
    for (users, radix) in [(1, 4), (2, 4), (5, 4), (17, 4), (33, 2), (64, 4)] {
        let batch = Batch::new(users, radix);
        let signed = batch.sign();
        for slot in slots(users) {
            let path = signed.path(slot).unwrap();
            let terms = batch.terms_of(signed.tree(), slot);
            let ends = PathEnds {
                root: terms.root,
                root_output: terms.root_output,
                expiry: terms.expiry,
                channel: terms.channel.clone(),
            };
            let verified = SignedPath::decode(&path.encode()).unwrap().verify(&ends).unwrap();
            assert_eq!(verified.funding, signed.tree().funding_outpoint(slot).unwrap());
            assert_eq!(path.stated_ends().unwrap(), ends);
            let mut spent = ends.root_output.clone();
            for step in &verified.transactions {
                assert_eq!(step.spent, spent);
                interpret(&step.transaction, 0, std::slice::from_ref(&spent)).unwrap();
                let next = verified
                    .transactions
                    .iter()
                    .map(|step| step.transaction.input[0].previous_output)
                    .find(|outpoint| outpoint.txid == step.transaction.compute_txid());
                let next = next.unwrap_or(verified.funding);
                spent = step.transaction.output[next.vout as usize].clone();
            }
            assert_eq!(spent, terms.channel);
        }
    }
}

#[test]
fn a_path_among_256_takes_about_a_kilobyte() {
    let batch = Batch::new(256, 4);
    let tree = batch.tree();
    let path = tree.path(UserSlot(7)).unwrap();
    let signatures = vec![SchnorrSignature([0; 64]); path.levels.len()];
    let length = SignedPath { path, signatures }.encode().len();
    assert!((800..=1_200).contains(&length), "{length} bytes");
}

#[test]
fn any_changed_byte_of_a_signed_path_is_refused() {
    let batch = Batch::new(18, 4);
    let signed = batch.sign();
    for slot in [UserSlot(0), UserSlot(17)] {
        let path = signed.path(slot).unwrap();
        let ends = path.stated_ends().unwrap();
        let bytes = path.encode();
        for index in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[index] ^= flip;
                let accepted = SignedPath::decode(&bytes).ok().map(|path| path.verify(&ends));
                assert!(!matches!(accepted, Some(Ok(_))), "byte {index} ^ {flip:#x}");
            }
        }
        for length in 0..bytes.len() {
            SignedPath::decode(&bytes[..length]).unwrap_err();
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        let trailing = DecodeError::TrailingData { field: "signed path", count: 1 };
        assert_eq!(SignedPath::decode(&longer), Err(trailing));
    }
    let huge = vec![1; PATH_LEN_MAX + 1];
    assert!(matches!(SignedPath::decode(&huge), Err(DecodeError::TooLong { .. })));
}

#[test]
fn any_changed_byte_of_a_proposed_path_is_refused() {
    let batch = Batch::new(18, 4);
    let tree = batch.tree();
    let slot = UserSlot(1);
    let terms = batch.terms_of(&tree, slot);
    let proposal = tree.proposal(slot).unwrap();
    proposal.verify(&terms).unwrap();
    let bytes = proposal.path.encode();
    for index in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[index] ^= 0x01;
        if let Ok(path) = Path::decode(&bytes) {
            let refused = Proposal { path, ..proposal.clone() }.verify(&terms);
            assert!(refused.is_err(), "byte {index}");
        }
    }
}

/// A batch of 18, and what the hub tells the user of slot 1.
fn proposed() -> (Batch, Proposal, channel_contracts::tree::Terms) {
    let batch = Batch::new(18, 4);
    let tree = batch.tree();
    let terms = batch.terms_of(&tree, UserSlot(1));
    let proposal = tree.proposal(UserSlot(1)).unwrap();
    (batch, proposal, terms)
}

#[test]
fn a_foreign_or_missing_key_is_refused_at_every_level() {
    let (_, proposal, terms) = proposed();
    for user in 0..18 {
        let mut changed = proposal.clone();
        changed.user_keys[user] = secret("stranger", 0).public_key();
        let refused = changed.verify(&terms).unwrap_err();
        if user == 1 {
            assert!(matches!(refused, ProposalError::ForeignSlot { .. }));
        } else {
            assert_eq!(refused, ProposalError::WrongCosigners { level: 0 });
        }
    }
    let mut changed = proposal.clone();
    changed.hub_key = secret("stranger", 0).public_key();
    assert_eq!(changed.verify(&terms).unwrap_err(), ProposalError::WrongCosigners { level: 0 });

    // Two users' keys swapped below the root: every aggregate above both is the same.
    let mut changed = proposal.clone();
    changed.user_keys.swap(2, 17);
    let refused = changed.verify(&terms).unwrap_err();
    assert!(matches!(refused, ProposalError::WrongCosigners { level } if level > 0));

    let mut changed = proposal;
    changed.user_keys.pop();
    assert!(changed.verify(&terms).is_err());
}

#[test]
fn wrong_value_key_expiry_script_and_root_are_refused_by_name() {
    let (batch, proposal, terms) = proposed();
    let path_error = |terms| match proposal.verify(&terms).unwrap_err() {
        ProposalError::Path(error) => error,
        other => panic!("{other}"),
    };
    let mut other = terms.clone();
    other.channel.value += Amount::from_sat(1);
    assert!(matches!(path_error(other), PathError::WrongChannel { .. }));
    let mut other = terms.clone();
    other.channel.script_pubkey = common::batch::channel(99, 0).script_pubkey;
    assert!(matches!(path_error(other), PathError::WrongChannel { .. }));
    let mut other = terms.clone();
    other.expiry = bitcoin::absolute::Height::from_consensus(EXPIRY + 1).unwrap();
    assert!(matches!(path_error(other), PathError::WrongExpiry { .. }));
    let mut other = terms.clone();
    other.root.vout += 1;
    assert!(matches!(path_error(other), PathError::WrongRoot { .. }));
    let mut other = terms.clone();
    other.root_output.value += Amount::from_sat(1);
    assert!(matches!(path_error(other), PathError::WrongRoot { .. }));

    // A sibling's value moved to another sibling: everything fits but what others see.
    let mut moved = proposal.clone();
    moved.path.levels[2].siblings[0].value -= Amount::from_sat(1);
    moved.path.levels[2].siblings[1].value += Amount::from_sat(1);
    assert!(matches!(moved.verify(&terms).unwrap_err(), ProposalError::WrongLeaf { .. }));
    // Another node without our key, whose output the path is said to pass.
    let mut foreign = proposal.clone();
    foreign.path.levels[1].internal_key = secret("stranger", 0).public_key().into();
    assert!(foreign.verify(&terms).is_err());
    // Another radix that would give another tree.
    let other = Proposal { radix: Radix::new(5).unwrap(), ..proposal.clone() };
    assert!(matches!(other.verify(&terms).unwrap_err(), ProposalError::WrongShape { .. }));
    let other = Proposal { slot: UserSlot(18), ..proposal };
    assert!(matches!(other.verify(&terms).unwrap_err(), ProposalError::Shape(_)));
    drop(batch);
}

#[test]
fn channels_that_cannot_be_funded_are_refused() {
    let batch = Batch::new(2, 4);
    let plan = |funding: TxOut| {
        let mut members = batch.members.clone();
        members[1].funding = funding;
        PlannedTree::new(batch.terms, members).unwrap_err()
    };
    let dust = common::batch::channel(1, 329);
    let slot = UserSlot(1);
    assert_eq!(plan(dust.clone()), TreeError::Dust { slot, value: dust.value });
    let script_pubkey = ScriptBuf::new_op_return([]);
    let bare = TxOut { value: Amount::from_sat(1_000), script_pubkey: script_pubkey.clone() };
    assert_eq!(plan(bare), TreeError::Script { slot, script_pubkey });
    let all = common::batch::channel(1, Amount::MAX_MONEY.to_sat());
    assert_eq!(plan(all), TreeError::ValueOverflow);
    assert!(PlannedTree::new(batch.terms, vec![]).is_err());
    let twice = vec![batch.members[0].clone(), batch.members[0].clone()];
    assert!(matches!(PlannedTree::new(batch.terms, twice), Err(TreeError::Aggregate(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn values_conserve_and_paths_verify(
        values in proptest::collection::vec(330u64..5_000_000, 1..40),
        radix in 2u8..=16,
    ) {
        let batch = Batch::with_values(&values, radix);
        let tree = batch.tree();
        prop_assert_eq!(tree.nodes()[0].spent.value.to_sat(), values.iter().sum::<u64>());
        for node in tree.nodes() {
            let out: Amount = node.transaction.output.iter().map(|output| output.value).sum();
            prop_assert_eq!(out, node.spent.value);
        }
        for slot in slots(values.len()) {
            let agreed = tree.proposal(slot).unwrap().verify(&batch.terms_of(&tree, slot)).unwrap();
            prop_assert_eq!(agreed.funding, tree.funding_outpoint(slot).unwrap());
            let path = tree.path(slot).unwrap();
            prop_assert_eq!(Path::decode(&path.encode()).unwrap(), path);
        }
    }

    #[test]
    fn decoding_any_bytes_never_panics(data in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let mut versioned = data.clone();
        versioned.splice(0..0, [1]);
        for bytes in [data, versioned] {
            if let Ok(path) = Path::decode(&bytes) {
                prop_assert_eq!(path.encode(), bytes.clone());
                let _ = path.transactions();
            }
            if let Ok(path) = SignedPath::decode(&bytes) {
                let _ = path.stated_ends();
            }
        }
    }

    #[test]
    fn decoding_a_changed_path_never_panics(
        index in 0usize..1_000, value in any::<u8>(), cut in 0usize..1_000,
    ) {
        let tree = Batch::new(18, 4).tree();
        let mut bytes = tree.path(UserSlot(3)).unwrap().encode();
        let index = index % bytes.len();
        bytes[index] = value;
        bytes.truncate(bytes.len() - cut % bytes.len());
        if let Ok(path) = Path::decode(&bytes) {
            prop_assert_eq!(path.encode(), bytes);
            let _ = path.transactions();
        }
    }
}
