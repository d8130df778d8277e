//! The signing ceremony: who is wrong is named, nothing signs twice, nothing secret is shown.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use channel_contracts::musig::{
    AggregatedNonce, HubNonces, HubSessionError, PartialSignature, SchnorrSignature, SignedTree,
    UserNonces, UserSessionError,
};
use channel_contracts::tree::{PathError, UserSlot};
use common::batch::{Batch, secret, seed, slots};

#[test]
fn a_wrong_partial_names_user_and_level_and_leaves_the_session_as_it_was() {
    let batch = Batch::new(18, 4);
    let (mut hub, users) = batch.exchange(batch.tree(), 0);
    for slot in slots(18) {
        let right = users[slot.index()].partials().to_vec();
        for level in 0..right.len() {
            let mut wrong = right.clone();
            let mut bytes = wrong[level].serialize();
            bytes[31] ^= 1;
            wrong[level] = PartialSignature::from_byte_array(&bytes).unwrap();
            let refused = hub.add(slot, wrong).unwrap_err();
            assert_eq!(refused, HubSessionError::WrongPartial { slot, level });
        }
        assert!(hub.missing().contains(&slot));
        hub.add(slot, right.clone()).unwrap();
        // The same again is nothing new.
        hub.add(slot, right).unwrap();
    }
    hub.finish().unwrap();
}

#[test]
fn a_partial_of_another_user_or_level_is_wrong() {
    let batch = Batch::new(4, 2);
    let (mut hub, users) = batch.exchange(batch.tree(), 0);
    let foreign = users[1].partials().to_vec();
    let slot = UserSlot(0);
    assert_eq!(hub.add(slot, foreign), Err(HubSessionError::WrongPartial { slot, level: 0 }));
    let turned = users[0].partials().iter().rev().copied().collect();
    assert_eq!(hub.add(slot, turned), Err(HubSessionError::WrongPartial { slot, level: 0 }));
    assert_eq!(hub.add(slot, vec![]), Err(HubSessionError::Count { slot, actual: 0, levels: 2 }));
    assert!(hub.add(UserSlot(4), vec![]).is_err());
}

#[test]
fn an_incomplete_session_signs_nothing() {
    let batch = Batch::new(5, 4);
    let tree = batch.tree();
    let users = batch.begin(&tree, 0);
    let mut hub = HubNonces::begin(tree.clone(), batch.hub.clone(), seed("hub", 0)).unwrap();
    for slot in slots(4) {
        hub.add(slot, users[slot.index()].1.clone()).unwrap();
    }
    let (mut hub, refused) = hub.aggregate().unwrap_err();
    assert_eq!(refused, HubSessionError::Missing { slot: UserSlot(4) });
    // Other nonces after the first are refused, the first again are not.
    let slot = UserSlot(0);
    assert_eq!(hub.add(slot, users[1].1.clone()), Err(HubSessionError::Changed { slot }));
    hub.add(slot, users[0].1.clone()).unwrap();
    hub.add(UserSlot(4), users[4].1.clone()).unwrap();

    let hub = hub.aggregate().unwrap();
    assert_eq!(hub.missing().len(), 5);
    let (_, refused) = hub.finish().unwrap_err();
    assert_eq!(refused, HubSessionError::Missing { slot });
}

#[test]
fn a_user_checks_the_final_signatures_and_never_signs_a_wrong_number_of_levels() {
    let batch = Batch::new(5, 4);
    let (mut hub, users) = batch.exchange(batch.tree(), 0);
    for (slot, user) in slots(5).zip(&users) {
        hub.add(slot, user.partials().to_vec()).unwrap();
    }
    let signed = hub.finish().unwrap();
    let signatures = signed.path(UserSlot(0)).unwrap().signatures;
    let mut wrong = signatures.clone();
    wrong[1].0[5] ^= 4;
    assert_eq!(
        users[0].complete(wrong),
        Err(UserSessionError::Path(PathError::WrongSignature { level: 1 }))
    );
    assert_eq!(
        users[0].complete(signatures[..1].to_vec()),
        Err(UserSessionError::Count { actual: 1, levels: 2 })
    );
    // After a wrong answer the right one still completes the path.
    let (path, verified) = users[0].complete(signatures).unwrap();
    assert_eq!(path.signatures.len(), 2);
    assert_eq!(Some(verified.funding), signed.tree().funding_outpoint(UserSlot(0)).ok());

    let tree = batch.tree();
    let (session, nonces) = batch.begin(&tree, 1).swap_remove(0);
    let aggregated = [AggregatedNonce::new(&[&nonces[0]])];
    let refused = session.sign(&aggregated).unwrap_err();
    assert_eq!(refused, UserSessionError::Count { actual: 1, levels: 2 });
}

#[test]
fn aggregated_nonces_that_cancel_out_neither_panic_nor_sign_anything_valid() {
    let batch = Batch::new(2, 4);
    let tree = batch.tree();
    let (session, _) = batch.begin(&tree, 0).swap_remove(0);
    // BIP 327 encodes the point at infinity as zeros; a hub may send that.
    let infinity = AggregatedNonce::from_byte_array(&[0; 66]).unwrap();
    let signed = session.sign(&[infinity]).unwrap();
    let forged = vec![SchnorrSignature([0; 64])];
    assert!(signed.complete(forged).is_err());
}

#[test]
fn a_foreign_secret_begins_no_session() {
    let batch = Batch::new(2, 4);
    let tree = batch.tree();
    let stranger = secret("stranger", 0);
    let refused = HubNonces::begin(tree.clone(), stranger.clone(), seed("hub", 0)).unwrap_err();
    assert_eq!(refused, HubSessionError::ForeignSecret);
    let slot = UserSlot(0);
    let agreed = tree.proposal(slot).unwrap().verify(&batch.terms_of(&tree, slot)).unwrap();
    let refused = UserNonces::begin(agreed, stranger, seed("user", 0)).unwrap_err();
    assert_eq!(refused, UserSessionError::ForeignSecret);
}

#[test]
fn nonces_never_repeat_over_levels_users_and_attempts() {
    let batch = Batch::new(18, 4);
    let mut seen = BTreeSet::new();
    let mut count = 0;
    for attempt in 0..3 {
        let tree = batch.tree();
        for (_, nonces) in batch.begin(&tree, attempt) {
            count += nonces.len();
            seen.extend(nonces.iter().map(|nonce| nonce.serialize()));
        }
    }
    assert_eq!(seen.len(), count);
}

#[test]
fn even_a_repeated_seed_gives_other_nonces_for_another_tree() {
    let one = Batch::new(5, 4);
    let other = Batch::with_values(&[100_000, 100_001, 100_002, 100_003, 99_999], 4);
    let first = one.begin(&one.tree(), 0);
    let second = other.begin(&other.tree(), 0);
    for ((_, a), (_, b)) in first.iter().zip(&second) {
        assert!(a.iter().zip(b).all(|(a, b)| a.serialize() != b.serialize()));
    }
}

#[test]
fn sessions_print_no_secret() {
    let batch = Batch::new(2, 4);
    let tree = batch.tree();
    let (user, _) = batch.begin(&tree, 0).swap_remove(0);
    let hub = HubNonces::begin(tree, batch.hub.clone(), seed("hub", 0)).unwrap();
    for text in [format!("{user:?}"), format!("{hub:?}")] {
        assert!(text.contains("TreeSecret([redacted])"));
        assert!(text.contains("OneTimeNonce([redacted])"));
        for secret in [&batch.hub, &batch.users[0]] {
            assert!(!text.contains(&hex::encode(secret.to_bytes())));
        }
    }
}

#[test]
fn stored_signatures_are_verified_before_they_count() {
    let batch = Batch::new(5, 4);
    let signed = batch.sign();
    let mut signatures = signed.signatures().to_vec();
    SignedTree::restore(batch.tree(), signatures.clone()).unwrap();
    signatures[1] = SchnorrSignature([1; 64]);
    let refused = SignedTree::restore(batch.tree(), signatures).unwrap_err();
    assert_eq!(refused, HubSessionError::Aggregate { node: 1 });
}
