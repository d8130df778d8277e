//! Every way to spend a node output, run by Bitcoin Core's interpreter, and every way that must
//! fail; and for each set of releasing users of a batch of five, exactly what the hub can take.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, WPubkeyHash, Witness,
    absolute, transaction,
};
use channel_contracts::musig::reclaim::{
    ReleasedKeys, SweepSecret, key_path_witness, sweep_witness,
};
use channel_contracts::musig::{
    AggregateError, AggregateKey, AggregateSecret, ReclaimError, ReclaimPlan, ReclaimPolicy,
    SchnorrSignature, TreeSecret,
};
use channel_contracts::script::batch_node::{key_path_message, script_path_message};
use channel_contracts::tree::{BatchTree, TreeNode, UserSlot};
use common::batch::{Batch, EXPIRY, bytes, secret, slots};
use common::interpret;

/// Spends `inputs` to one output, with a fee of 500 sat.
fn spend(inputs: &[(OutPoint, TxOut)], lock_height: u32) -> Transaction {
    let value: Amount = inputs.iter().map(|(_, output)| output.value).sum();
    let input = |(outpoint, _): &(OutPoint, TxOut)| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let script_pubkey = ScriptBuf::new_p2wpkh(&WPubkeyHash::hash(&[1]));
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::from_height(lock_height).unwrap(),
        input: inputs.iter().map(input).collect(),
        output: vec![TxOut { value: value - Amount::from_sat(500), script_pubkey }],
    }
}

fn input_of(node: &TreeNode) -> (OutPoint, TxOut) {
    (node.outpoint, node.spent.clone())
}

fn run(transaction: &Transaction, witness: Witness, spent: &TxOut) -> bool {
    let mut transaction = transaction.clone();
    transaction.input[0].witness = witness;
    interpret(&transaction, 0, std::slice::from_ref(spent)).is_ok()
}

#[test]
fn the_leaf_opens_at_the_expiry_and_not_before() {
    let batch = Batch::new(5, 4);
    let tree = batch.tree();
    for node in tree.nodes() {
        let spent = std::slice::from_ref(&node.spent);
        let due = spend(&[input_of(node)], EXPIRY);
        let witness = sweep_witness(&node.node, &batch.sweep, (&due, 0, spent)).unwrap();
        assert!(run(&due, witness.clone(), &node.spent));

        let mut early = spend(&[input_of(node)], EXPIRY - 1);
        let refused = sweep_witness(&node.node, &batch.sweep, (&early, 0, spent)).unwrap_err();
        assert!(matches!(refused, ReclaimError::LockTime { .. }));
        // Signed all the same, the interpreter refuses it.
        let sign = |transaction: &Transaction, key: &[u8; 32]| {
            let leaf = node.node.leaf().leaf_hash();
            let message = script_path_message(transaction, 0, spent, leaf);
            let secp = bitcoin::secp256k1::Secp256k1::new();
            let key = bitcoin::secp256k1::Keypair::from_seckey_slice(&secp, key).unwrap();
            let message = bitcoin::secp256k1::Message::from_digest(message);
            let signature = secp.sign_schnorr_no_aux_rand(&message, &key);
            node.node.expiry_witness(&SchnorrSignature(signature.serialize()))
        };
        let sweep_key = bytes("sweep", 0);
        assert!(run(&due, sign(&due, &sweep_key), &node.spent));
        assert!(!run(&early, sign(&early, &sweep_key), &node.spent));
        early.lock_time = absolute::LockTime::from_height(EXPIRY).unwrap();
        early.input[0].sequence = Sequence::MAX;
        assert!(!run(&early, sign(&early, &sweep_key), &node.spent));
        // Another's key.
        assert!(!run(&due, sign(&due, &bytes("user", 0)), &node.spent));
        let stranger = SweepSecret::from_bytes(bytes("user", 0)).unwrap();
        let refused = sweep_witness(&node.node, &stranger, (&due, 0, spent)).unwrap_err();
        assert!(matches!(refused, ReclaimError::WrongSweepKey { .. }));
    }
}

#[test]
fn leaf_and_control_block_of_another_node_do_not_open_it() {
    let batch = Batch::new(18, 4);
    let tree = batch.tree();
    let [own, sibling] = [&tree.nodes()[1], &tree.nodes()[2]];
    let spent = std::slice::from_ref(&own.spent);
    let due = spend(&[input_of(own)], EXPIRY);
    let right = sweep_witness(&own.node, &batch.sweep, (&due, 0, spent)).unwrap();
    assert!(run(&due, right, &own.spent));
    let wrong = sweep_witness(&sibling.node, &batch.sweep, (&due, 0, spent)).unwrap();
    assert!(!run(&due, wrong, &own.spent));
    // The signature of a sibling's transaction is none for this one.
    let signed = batch.sign();
    let foreign = signed.transaction(2).input[0].witness.clone();
    assert!(!run(&signed.transaction(1), foreign, &own.spent));
    // A signature covers all outputs: none can be moved.
    let mut changed = signed.transaction(1);
    changed.output[0].value -= Amount::from_sat(1);
    changed.output[1].value += Amount::from_sat(1);
    assert!(interpret(&changed, 0, spent).is_err());
}

#[test]
fn the_key_path_needs_every_secret() {
    let batch = Batch::new(5, 4);
    let tree = batch.tree();
    let root = &tree.nodes()[0];
    let transaction = spend(&[input_of(root)], 0);
    let message = key_path_message(&transaction, 0, std::slice::from_ref(&root.spent));
    let script_root = batch.terms.leaf.merkle_root();
    let mut all: Vec<&TreeSecret> = batch.users.iter().chain([&batch.hub]).collect();
    let secret_of = |secrets: &[&TreeSecret]| {
        AggregateSecret::new(secrets, script_root, root.node.output_key())
    };
    let signature = secret_of(&all).unwrap().sign(&message);
    assert!(run(&transaction, root.node.key_witness(&signature), &root.spent));

    for missing in 0..all.len() {
        let mut some = all.clone();
        some.remove(missing);
        let refused = secret_of(&some).unwrap_err();
        assert!(matches!(refused, AggregateError::WrongSecrets { count: 5, .. }));
        // What the others can sign together is another key's.
        let public: Vec<_> = some.iter().map(|secret| secret.public_key()).collect();
        let key = AggregateKey::new(&public, script_root).unwrap();
        let output_key = key.output_key().to_x_only_public_key();
        let forged = AggregateSecret::new(&some, script_root, output_key).unwrap().sign(&message);
        assert!(!run(&transaction, root.node.key_witness(&forged), &root.spent));
    }
    let stranger = secret("stranger", 0);
    all[2] = &stranger;
    assert!(secret_of(&all).is_err());
}

/// All node outputs below which everybody released, and none of whose parents is such.
fn expected(tree: &BatchTree, released: &BTreeSet<UserSlot>) -> Vec<usize> {
    let is_free = |node: &TreeNode| {
        node.shape.users.clone().all(|user| released.contains(&UserSlot(user as u16)))
    };
    let free: Vec<usize> =
        (0..tree.nodes().len()).filter(|index| is_free(&tree.nodes()[*index])).collect();
    let parent =
        |index: usize| tree.nodes().iter().position(|node| node.children.contains(&Some(index)));
    free.iter()
        .copied()
        .filter(|index| parent(*index).is_none_or(|parent| !free.contains(&parent)))
        .collect()
}

#[test]
fn every_subset_of_five_releasing_users_frees_exactly_what_is_under_them() {
    for radix in [2, 3, 4] {
        let batch = Batch::new(5, radix);
        let tree = batch.tree();
        for subset in 0u32..32 {
            let slots: BTreeSet<UserSlot> =
                slots(5).filter(|slot| subset >> slot.0 & 1 == 1).collect();
            let mut released = ReleasedKeys::default();
            for slot in &slots {
                released.insert(&tree, *slot, batch.users[slot.index()].clone()).unwrap();
            }
            assert_eq!(released.slots(), slots);
            // Node by node: what it should spend it can, what it should not it cannot.
            for (index, node) in tree.nodes().iter().enumerate() {
                let transaction = spend(&[input_of(node)], 0);
                let spent = std::slice::from_ref(&node.spent);
                let witness =
                    key_path_witness(&tree, index, &batch.hub, &released, (&transaction, 0, spent));
                let users = node.shape.users.clone().map(|user| UserSlot(user as u16));
                let missing = users.into_iter().find(|slot| !slots.contains(slot));
                match missing {
                    None => assert!(run(&transaction, witness.unwrap(), &node.spent)),
                    Some(slot) => assert_eq!(
                        witness.unwrap_err(),
                        ReclaimError::Unreleased { node: index, slot }
                    ),
                }
            }
            check_plan(&batch, &tree, &slots, &released);
        }
    }
}

/// Runs the plan for `slots` as one transaction and compares it with its own figures.
fn check_plan(
    batch: &Batch,
    tree: &BatchTree,
    slots: &BTreeSet<UserSlot>,
    released: &ReleasedKeys,
) {
    let plan = ReclaimPlan::new(tree, slots, &BTreeSet::new(), ReclaimPolicy::Everything);
    if slots.is_empty() {
        assert_eq!((plan.waiting, plan.publish), (vec![0], vec![]));
        return;
    }
    assert_eq!(plan.key_path, expected(tree, slots));
    let key_path: Amount = plan.key_path.iter().map(|index| tree.nodes()[*index].spent.value).sum();
    assert_eq!(plan.freed, key_path);
    // Everything of a released user is freed or closed, nothing of anybody else.
    let owned: Amount = slots.iter().map(|slot| tree.members()[slot.index()].funding.value).sum();
    assert_eq!(plan.freed + plan.closed, owned);
    assert!(plan.unrolled.iter().all(|slot| !slots.contains(slot)));
    assert!(plan.closings.iter().all(|slot| slots.contains(slot)));
    // What is published leads to what is taken, parents first, and is never taken itself.
    for index in &plan.key_path {
        let parent = tree.nodes().iter().position(|node| node.children.contains(&Some(*index)));
        assert!(parent.is_none_or(|parent| plan.publish.contains(&parent)));
        assert!(!plan.publish.contains(index));
    }
    if plan.key_path.is_empty() {
        return;
    }
    let inputs: Vec<_> =
        plan.key_path.iter().map(|index| input_of(&tree.nodes()[*index])).collect();
    let spent: Vec<TxOut> = inputs.iter().map(|(_, output)| output.clone()).collect();
    let mut transaction = spend(&inputs, 0);
    for (input, index) in plan.key_path.iter().enumerate() {
        let witness =
            key_path_witness(tree, *index, &batch.hub, released, (&transaction, input, &spent));
        transaction.input[input].witness = witness.unwrap();
    }
    for input in 0..spent.len() {
        interpret(&transaction, input, &spent).unwrap();
    }
    assert_eq!(transaction.vsize() as u64, plan.spend_vb);
}

#[test]
fn a_whole_batch_is_reclaimed_in_99_vb_and_swept_in_118() {
    let batch = Batch::new(64, 4);
    let tree = batch.tree();
    let all: BTreeSet<UserSlot> = slots(64).collect();
    let plan = ReclaimPlan::new(&tree, &all, &BTreeSet::new(), ReclaimPolicy::Everything);
    assert_eq!((plan.key_path.clone(), plan.total_vb()), (vec![0], 99));
    let root = &tree.nodes()[0];
    let mut sweep = spend(&[input_of(root)], EXPIRY);
    let spent = std::slice::from_ref(&root.spent);
    let witness = sweep_witness(&root.node, &batch.sweep, (&sweep, 0, spent)).unwrap();
    sweep.input[0].witness = witness;
    assert_eq!(sweep.vsize() as u64, ReclaimPlan::waiting_vb(1));
    assert_eq!(sweep.vsize(), 118);
}

#[test]
fn around_one_refusing_user_of_eight_six_channels_come_in_one_transaction() {
    let batch = Batch::new(8, 2);
    let tree = batch.tree();
    let released: BTreeSet<UserSlot> = slots(8).filter(|slot| slot.0 != 0).collect();
    let plan = ReclaimPlan::new(&tree, &released, &BTreeSet::new(), ReclaimPolicy::Everything);
    let users: usize =
        plan.key_path.iter().map(|index| tree.nodes()[*index].shape.users.len()).sum();
    assert_eq!((users, plan.spend_vb), (6, 157));
    assert_eq!(
        (plan.publish.len(), plan.closings, plan.unrolled),
        (3, vec![UserSlot(1)], vec![UserSlot(0)])
    );

    // If the user has left by itself, nothing needs to be published.
    let published: BTreeSet<usize> = plan.publish.into_iter().collect();
    let plan = ReclaimPlan::new(&tree, &released, &published, ReclaimPolicy::Everything);
    assert_eq!((plan.publish_vb, plan.spend_vb), (0, 157));
}

#[test]
fn waiting_is_chosen_where_publishing_costs_more_than_it_is_worth() {
    let batch = Batch::with_values(&[20_000_000; 16], 4);
    let tree = batch.tree();
    let released: BTreeSet<UserSlot> = slots(16).filter(|slot| slot.0 != 3).collect();
    let plan = |sat_per_vb, early_value_ppm| {
        let feerate = FeeRate::from_sat_per_vb(sat_per_vb).unwrap();
        let policy = ReclaimPolicy::Worth { feerate, early_value_ppm };
        ReclaimPlan::new(&tree, &released, &BTreeSet::new(), policy)
    };
    // 12 of 16 channels for the root's transaction alone; its own subtree waits for E.
    let some = plan(10, 100);
    assert_eq!((some.key_path.len(), some.publish, some.waiting.len()), (3, vec![0], 1));
    let none = plan(1_000, 100);
    assert_eq!((none.key_path.len(), none.waiting), (0, vec![0]));
    let all = plan(1, 10_000);
    assert_eq!((all.key_path.len(), all.publish.len(), all.closings.len()), (3, 2, 3));
}

#[test]
fn a_released_secret_must_be_the_users() {
    let batch = Batch::new(5, 4);
    let tree = batch.tree();
    let mut released = ReleasedKeys::default();
    let slot = UserSlot(2);
    let refused = released.insert(&tree, slot, batch.users[1].clone()).unwrap_err();
    assert_eq!(refused, ReclaimError::WrongSecret { slot });
    let refused = released.insert(&tree, UserSlot(5), batch.users[1].clone()).unwrap_err();
    assert_eq!(refused, ReclaimError::UnknownSlot { slot: UserSlot(5), users: 5 });
    assert!(released.slots().is_empty());
}
