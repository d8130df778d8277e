//! The bytes of the batch protocol: golden vectors, and everything that is not a message.
//!
//! `REGENERATE=1 cargo test -p channel-contracts --test batch_wire golden` writes the vectors
//! anew; a change of them is a change of the protocol.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::LazyLock;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{Amount, OutPoint, Transaction, TxIn, Txid, absolute, relative, transaction};
use channel_contracts::DecodeError;
use channel_contracts::batch::message::{
    Accepted, Closed, DeclineReason, Declined, Deposit, Deposited, Depositing, DropReason, Dropped,
    HandOver, Message, Nonces, Partial, Propose, Refuse, RefuseReason, Refused, Register, Release,
    Reveal, Roll, Rolling, Sign, Signed, Stay, StayReason, Stored, SwapRefusal, Withdraw,
    Withdrawing,
};
use channel_contracts::batch::wire::{MESSAGE_LEN_MAX, kind};
use channel_contracts::batch::{Attempt, BatchId, RegistrationId, SwapId};
use channel_contracts::script::Preimage;
use channel_contracts::tree::shape::{BATCH_SIZE_MAX, RADIX_MAX};
use channel_contracts::tree::{Path, PathLevel, Proposal, Radix, UserSlot};
use common::batch::{Batch, EXPIRY, bytes, channel, root, secret};
use proptest::prelude::*;
use serde_json::{Value, json};

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/batch_messages.json");

/// One of each, from a batch of five, signed once.
fn messages() -> Vec<(&'static str, Message)> {
    static ALL: LazyLock<Vec<(&'static str, Message)>> = LazyLock::new(make_messages);
    ALL.clone()
}

fn make_messages() -> Vec<(&'static str, Message)> {
    let fixture = Batch::new(5, 4);
    let slot = UserSlot(1);
    let tree = fixture.tree();
    let nonces = fixture.begin(&tree, 0).swap_remove(1).1;
    let (hub, users) = fixture.exchange(fixture.tree(), 0);
    let (batch, attempt) = (BatchId(bytes("batch", 0)), Attempt::FIRST);
    let registration = RegistrationId(bytes("registration", 0));
    let swap = SwapId(bytes("swap", 0));
    let hash = sha256::Hash::hash(&bytes("preimage", 0));
    let height = |height| absolute::Height::from_consensus(height).unwrap();
    let outpoint = OutPoint { txid: Txid::from_byte_array(bytes("funding", 0)), vout: 2 };
    vec![
        (
            "register",
            Message::Register(Box::new(Register {
                registration,
                capacity: Amount::from_sat(100_001),
                inbound: Amount::from_sat(252),
                tree_keys: [0, 1, 2].map(|n| secret("tree key", n).public_key()),
            })),
        ),
        (
            "accepted",
            Message::Accepted(Accepted {
                registration,
                batch,
                fee: Amount::from_sat(300),
                expiry: absolute::Height::from_consensus(EXPIRY).unwrap(),
                closes_in_ms: 60_000,
            }),
        ),
        ("declined", Message::Declined(Declined { registration, reason: DeclineReason::Full })),
        (
            "propose",
            Message::Propose(Box::new(Propose {
                batch,
                attempt,
                root_output: tree.nodes()[0].spent.clone(),
                proposal: tree.proposal(slot).unwrap(),
            })),
        ),
        ("refuse", Message::Refuse(Refuse { batch, attempt, reason: RefuseReason::Expiry })),
        ("nonces", Message::Nonces(Nonces { batch, attempt, nonces })),
        ("sign", Message::Sign(Sign { batch, attempt, aggregated: hub.aggregated(slot).unwrap() })),
        (
            "partial",
            Message::Partial(Partial { batch, attempt, partials: users[1].partials().to_vec() }),
        ),
        (
            "signed",
            Message::Signed(Signed {
                batch,
                attempt,
                signatures: fixture.sign().path(slot).unwrap().signatures,
            }),
        ),
        ("stored", Message::Stored(Stored { batch, attempt })),
        ("dropped", Message::Dropped(Dropped { batch, attempt, reason: DropReason::Silent })),
        ("release", Message::Release(Release { batch, attempt, secret: secret("tree key", 0) })),
        (
            "roll",
            Message::Roll(Roll {
                batch,
                successor: BatchId(bytes("batch", 1)),
                invoice: "lnbcrt1user".into(),
            }),
        ),
        ("rolling", Message::Rolling(Rolling { batch, invoice: "lnbcrt1hub".into() })),
        (
            "stay",
            Message::Stay(Stay {
                batch,
                payment_hash: bytes("payment", 0),
                reason: StayReason::Late,
            }),
        ),
        ("closed", Message::Closed(Closed { transaction: closing(outpoint) })),
        (
            "withdraw",
            Message::Withdraw(Withdraw {
                swap,
                channel: outpoint,
                amount: Amount::from_sat(70_001),
                claimer: secret("swap", 0).public_key(),
                hash,
            }),
        ),
        (
            "withdrawing",
            Message::Withdrawing(Withdrawing {
                swap,
                refunder: secret("swap", 1).public_key(),
                refund: height(1_200),
                payment_expiry: height(1_400),
                invoice: "lnbcrt1held".into(),
            }),
        ),
        (
            "deposit",
            Message::Deposit(Deposit {
                swap,
                channel: outpoint,
                amount: Amount::from_sat(70_001),
                refunder: secret("swap", 0).public_key(),
                hash,
            }),
        ),
        (
            "depositing",
            Message::Depositing(Depositing {
                swap,
                claimer: secret("swap", 1).public_key(),
                refund: relative::Height::from_height(1_008),
                payment_msat: 69_500_001,
            }),
        ),
        ("deposited", Message::Deposited(Deposited { swap, invoice: "lnbcrt1user".into() })),
        ("refused", Message::Refused(Refused { swap, reason: SwapRefusal::Late })),
        ("reveal", Message::Reveal(Reveal { swap, preimage: Preimage(bytes("preimage", 0)) })),
        ("hand_over", Message::HandOver(HandOver { swap, secret: secret("swap", 1) })),
    ]
}

/// A transaction of the form of a closing; its signatures are not what is encoded here.
fn closing(funding: OutPoint) -> Transaction {
    let mut input = TxIn { previous_output: funding, ..TxIn::default() };
    input.witness.push([7; 71]);
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![channel(0, 99_000)],
    }
}

#[test]
fn golden_vectors_are_reproduced() {
    let vector = |(name, message): (&str, Message)| -> Value {
        json!({ "name": name, "type": message.kind(), "hex": hex::encode(message.encode()) })
    };
    let vectors: Vec<Value> = messages().into_iter().map(vector).collect();
    let text = format!("{}\n", serde_json::to_string_pretty(&vectors).unwrap());
    if std::env::var_os("REGENERATE").is_some() {
        std::fs::write(VECTORS, &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(VECTORS).unwrap(), text);
}

#[test]
fn every_message_comes_back_as_it_was() {
    let all = messages();
    assert_eq!(all.iter().map(|(_, message)| message.kind()).collect::<Vec<_>>(), kind::ALL);
    for (name, message) in all {
        let bytes = message.encode();
        assert_eq!(Message::decode(message.kind(), &bytes), Some(Ok(message.clone())), "{name}");
        assert!(message.kind() >= 32_768 && message.kind() % 2 == 1);
        for length in 0..bytes.len() {
            let cut = Message::decode(message.kind(), &bytes[..length]).unwrap();
            assert!(cut.is_err(), "{name} cut to {length}");
        }
    }
    assert_eq!(Message::decode(45_000, &[]), None);
    assert_eq!(Message::decode(kind::HAND_OVER + 2, &[]), None);
}

#[test]
fn any_changed_byte_of_a_proposal_is_refused() {
    let fixture = Batch::new(5, 4);
    let tree = fixture.tree();
    let slot = UserSlot(1);
    let (_, message) = messages().swap_remove(3);
    let terms = fixture.terms_of(&tree, slot);
    let Message::Propose(original) = &message else { unreachable!() };
    let bytes = message.encode();
    for index in 0..bytes.len() {
        for flip in [0x01, 0x40, 0xff] {
            let mut bytes = bytes.clone();
            bytes[index] ^= flip;
            let Some(Ok(Message::Propose(changed))) = Message::decode(kind::PROPOSE, &bytes) else {
                continue;
            };
            // Another batch or attempt is the machine's business.
            if (changed.batch, changed.attempt) != (original.batch, original.attempt) {
                continue;
            }
            let mut terms = terms.clone();
            terms.root_output = changed.root_output.clone();
            let refused = changed.proposal.verify(&terms);
            assert!(refused.is_err(), "byte {index} ^ {flip:#x}");
        }
    }
}

#[test]
fn what_is_not_a_message_is_refused_by_name() {
    let decode = |kind, bytes: &[u8]| Message::decode(kind, bytes).unwrap().unwrap_err();
    let stored = messages().swap_remove(9).1.encode();
    let with = |more: &[u8]| [stored.as_slice(), more].concat();

    // BOLT 1: unknown odd records are skipped, even ones refuse the message.
    assert!(Message::decode(kind::STORED, &with(&[5, 1, 0xaa])).unwrap().is_ok());
    assert_eq!(
        decode(kind::STORED, &with(&[4, 1, 0xaa])),
        DecodeError::UnknownRecord { message: "stored", kind: 4 }
    );
    assert_eq!(
        decode(kind::STORED, &with(&[2, 1, 0])),
        DecodeError::RecordOrder { message: "stored", previous: 2, kind: 2 }
    );
    assert_eq!(
        decode(kind::STORED, &with(&[1, 0])),
        DecodeError::RecordOrder { message: "stored", previous: 2, kind: 1 }
    );
    assert_eq!(
        decode(kind::STORED, &with(&[0xfd, 0, 5, 0])),
        DecodeError::NonCanonical { field: "record type", value: 5 }
    );
    assert_eq!(
        decode(kind::STORED, &with(&[7, 0xff, 255, 255, 255, 255, 255, 255, 255, 255])),
        DecodeError::Truncated { field: "record", needed: usize::MAX, left: 0 }
    );
    assert_eq!(
        decode(kind::STORED, &stored[..34]),
        DecodeError::MissingRecord { message: "stored", kind: 2 }
    );
    let mut attempt = stored.clone();
    *attempt.last_mut().unwrap() = 3;
    assert_eq!(
        decode(kind::STORED, &attempt),
        DecodeError::OutOfRange { field: "attempt", value: 3, min: 0, max: 2 }
    );
    // A record longer than its field.
    let longer = [&stored[..34], &[2, 2, 0, 0][..]].concat();
    assert_eq!(
        decode(kind::STORED, &longer),
        DecodeError::TrailingData { field: "stored", count: 1 }
    );
    let huge = vec![0; MESSAGE_LEN_MAX + 1];
    assert_eq!(
        decode(kind::NONCES, &huge),
        DecodeError::TooLong { field: "nonces", length: 65_534, max: 65_533 }
    );
    let none = with(&[4, 0]);
    assert_eq!(
        decode(kind::NONCES, &none),
        DecodeError::OutOfRange { field: "nonce", value: 0, min: 1, max: 11 }
    );
    let many = [with(&[4, 0xfd, 3, 24]).as_slice(), &[2; 12 * 66]].concat();
    assert_eq!(
        decode(kind::NONCES, &many),
        DecodeError::OutOfRange { field: "nonce", value: 12, min: 1, max: 11 }
    );
    let garbage = [with(&[4, 66]).as_slice(), &[9; 66]].concat();
    assert_eq!(decode(kind::NONCES, &garbage), DecodeError::Invalid { field: "nonce" });
    let reason = with(&[4, 1, 0xee]);
    assert_eq!(decode(kind::DROPPED, &reason), DecodeError::Invalid { field: "reason" });
    let zero = [with(&[4, 32]).as_slice(), &[0; 32]].concat();
    assert_eq!(decode(kind::RELEASE, &zero), DecodeError::Invalid { field: "secret" });
    let rolling = |invoice: &[u8]| {
        let length = (invoice.len() as u16).to_be_bytes();
        let long = [&[4, 0xfd][..], &length].concat();
        let head = if invoice.len() < 0xfd { vec![4, invoice.len() as u8] } else { long };
        [&stored[..34], &head, invoice].concat()
    };
    let invalid = DecodeError::Invalid { field: "invoice" };
    assert_eq!(decode(kind::ROLLING, &rolling("lnbcrt\u{fc}".as_bytes())), invalid);
    for length in [0, 1_501] {
        let (field, value) = ("invoice", length as u64);
        let wrong = DecodeError::OutOfRange { field, value, min: 1, max: 1_500 };
        assert_eq!(decode(kind::ROLLING, &rolling(&vec![b'l'; length])), wrong);
    }
}

#[test]
fn the_largest_proposal_fits_into_one_message() {
    let fixture = Batch::new(1, 4);
    let path = fixture.tree().path(UserSlot(0)).unwrap();
    // Wider and deeper than any real one: 4 levels at radix 16 hold 65,536 users.
    let level = PathLevel {
        siblings: vec![channel(1, 21_000_000 * 100_000_000); usize::from(RADIX_MAX) - 1],
        ..path.levels[0].clone()
    };
    let path = Path { levels: vec![level; 3], ..path };
    let proposal = Proposal {
        hub_key: fixture.terms.hub_key,
        user_keys: vec![secret("user", 0).public_key(); BATCH_SIZE_MAX],
        radix: Radix::new(RADIX_MAX).unwrap(),
        slot: UserSlot(0),
        path,
        leaf_txid: root().txid,
    };
    let propose = Message::Propose(Box::new(Propose {
        batch: BatchId([0; 32]),
        attempt: Attempt::FIRST,
        root_output: channel(0, 1_000),
        proposal,
    }));
    let bytes = propose.encode();
    assert!(bytes.len() <= MESSAGE_LEN_MAX, "{}", bytes.len());
    assert_eq!(Message::decode(kind::PROPOSE, &bytes), Some(Ok(propose)));
}

#[test]
fn a_release_is_not_printed() {
    let (_, release) = messages().swap_remove(11);
    let text = format!("{release:?}");
    assert!(text.contains("TreeSecret([redacted])"));
    assert!(!text.contains(&hex::encode(secret("tree key", 0).to_bytes())));
}

#[test]
fn reasons_have_one_code_each() {
    for reason in DropReason::ALL {
        assert_eq!(DropReason::from_code(reason.code()), Some(*reason));
        assert!(!reason.to_string().starts_with(' '), "{reason}");
    }
    let codes = |codes: Vec<u8>| codes.iter().collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(codes(DropReason::ALL.iter().map(|r| r.code()).collect()), DropReason::ALL.len());
    assert_eq!(
        codes(RefuseReason::ALL.iter().map(|r| r.code()).collect()),
        RefuseReason::ALL.len()
    );
    assert_eq!(
        codes(DeclineReason::ALL.iter().map(|r| r.code()).collect()),
        DeclineReason::ALL.len()
    );
    assert_eq!(DropReason::from_code(0), None);
}

proptest! {
    #[test]
    fn decoding_any_bytes_never_panics(
        index in 0usize..15, data in proptest::collection::vec(any::<u8>(), 0..600),
    ) {
        let _ = Message::decode(kind::ALL[index], &data);
    }

    #[test]
    fn decoding_a_changed_message_never_panics(
        message in 0usize..15, changes in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..6),
    ) {
        let (_, message) = messages().swap_remove(message);
        let mut bytes = message.encode();
        for (index, value) in changes {
            let index = usize::from(index) % bytes.len();
            bytes[index] = value;
        }
        if let Some(Ok(decoded)) = Message::decode(message.kind(), &bytes) {
            // What is understood is said again in the same way, up to skipped odd records.
            let again = decoded.encode();
            prop_assert_eq!(Message::decode(message.kind(), &again), Some(Ok(decoded)));
        }
    }
}
