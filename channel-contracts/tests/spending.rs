//! Every way to spend an output of a channel, run by Bitcoin Core's interpreter, and every way
//! that must fail: another's key, too early, a wrong preimage.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, OutPoint, Sequence, TxOut, Txid, Witness, absolute, relative};
use channel_contracts::script::anchor::pay_to_anchor;
use channel_contracts::script::keys::{revocation_secret, secret_key};
use channel_contracts::script::{
    CommitmentFormat, CommitmentKeys, FundingError, FundingScript, Htlc, HtlcDirection, HtlcError,
    HtlcScript, HtlcSignatures, HtlcTransaction, KeyedAnchor, PerCommitmentPoint, Preimage,
    RevocationSecrets, ToLocal, ToRemote,
};
use common::{Secrets, Spend, interpret, parties, sign};

const VALUE: Amount = Amount::from_sat(100_000);
const EXPIRY: u32 = 600;
const DELAY: u16 = 144;
const PREIMAGE: Preimage = Preimage([0x5a; 32]);
const FORMATS: [CommitmentFormat; 3] =
    [CommitmentFormat::StaticRemoteKey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee];

/// The secrets behind the keys of one commitment.
struct Signers {
    keys: CommitmentKeys,
    broadcaster: Secrets,
    countersignatory: Secrets,
    delayed: SecretKey,
    broadcaster_htlc: SecretKey,
    countersignatory_htlc: SecretKey,
    revocation: SecretKey,
    stranger: SecretKey,
}

fn signers() -> Signers {
    let secp = Secp256k1::new();
    let (broadcaster, countersignatory) = (Secrets::from_byte(0xb0), Secrets::from_byte(0xc0));
    let per_commitment_secret = SecretKey::from_slice(&[0x77; 32]).unwrap();
    let point = PerCommitmentPoint(per_commitment_secret.public_key(&secp));
    let parties = parties(&secp, &broadcaster, &countersignatory);
    let derive = |base| secret_key(&secp, &point, base).unwrap();
    let secrets = RevocationSecrets {
        revocation_basepoint_secret: countersignatory.revocation,
        per_commitment_secret,
    };
    Signers {
        keys: CommitmentKeys::derive(&secp, &point, &parties).unwrap(),
        delayed: derive(&broadcaster.delayed_payment),
        broadcaster_htlc: derive(&broadcaster.htlc),
        countersignatory_htlc: derive(&countersignatory.htlc),
        revocation: revocation_secret(&secp, &secrets).unwrap(),
        stranger: SecretKey::from_slice(&[0x99; 32]).unwrap(),
        broadcaster,
        countersignatory,
    }
}

fn output(script_pubkey: bitcoin::ScriptBuf) -> TxOut {
    TxOut { value: VALUE, script_pubkey }
}

fn to_local(signers: &Signers) -> ToLocal {
    ToLocal {
        revocation_key: signers.keys.revocation,
        delayed_key: signers.keys.broadcaster_delayed,
        to_self_delay: relative::Height::from_height(DELAY),
    }
}

fn htlc_script(
    signers: &Signers,
    direction: HtlcDirection,
    format: CommitmentFormat,
) -> HtlcScript {
    HtlcScript {
        htlc: Htlc {
            direction,
            amount_msat: VALUE.to_sat() * 1000,
            payment_hash: PREIMAGE.hash(),
            cltv_expiry: absolute::Height::from_consensus(EXPIRY).unwrap(),
        },
        keys: signers.keys.htlc_keys(),
        format,
    }
}

/// A spend of an HTLC output by one input with `sequence`.
fn spend_htlc(script: &HtlcScript, sequence: Sequence, lock_height: u32) -> Spend {
    Spend::new(output(script.script_pubkey()), script.witness_script(), sequence, lock_height)
}

#[test]
fn funding_needs_both_keys() {
    let signers = signers();
    let (alice, bob) = (signers.broadcaster.funding, signers.countersignatory.funding);
    let keys = &signers.keys;
    let script = FundingScript::new(keys.broadcaster_funding, keys.countersignatory_funding);
    let spend =
        Spend::new(output(script.script_pubkey()), script.witness_script(), Sequence::MAX, 0);
    let by_alice = (keys.broadcaster_funding, spend.sign(&alice));
    let by_bob = (keys.countersignatory_funding, spend.sign(&bob));

    assert_eq!(spend.run(script.witness([by_alice, by_bob]).unwrap()), Ok(()));
    assert_eq!(spend.run(script.witness([by_bob, by_alice]).unwrap()), Ok(()));

    let forged = (keys.countersignatory_funding, spend.sign(&signers.stranger));
    assert!(spend.run(script.witness([by_alice, forged]).unwrap()).is_err());
    assert_eq!(
        script.witness([by_alice, by_alice]),
        Err(FundingError::SameKeyTwice { key: keys.broadcaster_funding })
    );
    let foreign = (keys.revocation, spend.sign(&signers.revocation));
    assert_eq!(
        script.witness([by_alice, foreign]),
        Err(FundingError::ForeignKey { key: keys.revocation })
    );
    // The same two signatures in the other order: what sorting protects from.
    let mut swapped = script.witness([by_alice, by_bob]).unwrap().to_vec();
    swapped.swap(1, 2);
    assert!(spend.run(Witness::from_slice(&swapped)).is_err());
}

#[test]
fn to_local_is_delayed_for_its_owner_and_not_for_the_punisher() {
    let signers = signers();
    let to_local = to_local(&signers);
    let spend = |sequence| {
        let output = output(to_local.script_pubkey());
        Spend::new(output, to_local.witness_script(), sequence, 0)
    };

    let in_time = spend(to_local.delayed_sequence());
    let by_owner = in_time.sign(&signers.delayed);
    assert_eq!(in_time.run(to_local.delayed_witness(&by_owner)), Ok(()));
    let by_stranger = in_time.sign(&signers.stranger);
    assert!(in_time.run(to_local.delayed_witness(&by_stranger)).is_err());
    let by_punisher = in_time.sign(&signers.revocation);
    assert!(in_time.run(to_local.delayed_witness(&by_punisher)).is_err());

    let early = spend(Sequence::from_height(DELAY - 1));
    let by_owner = early.sign(&signers.delayed);
    assert!(early.run(to_local.delayed_witness(&by_owner)).is_err());

    let at_once = spend(Sequence::ENABLE_RBF_NO_LOCKTIME);
    let by_punisher = at_once.sign(&signers.revocation);
    assert_eq!(at_once.run(to_local.penalty_witness(&by_punisher)), Ok(()));
    let by_owner = at_once.sign(&signers.delayed);
    assert!(at_once.run(to_local.penalty_witness(&by_owner)).is_err());
}

#[test]
fn to_remote_waits_one_block_with_keyed_anchors_only() {
    let signers = signers();
    for format in FORMATS {
        let to_remote = ToRemote { payment_key: signers.keys.countersignatory_payment, format };
        let spend = |sequence| {
            Spend::new(output(to_remote.script_pubkey()), to_remote.script_code(), sequence, 0)
        };
        let in_time = spend(to_remote.sequence());
        let by_owner = in_time.sign(&signers.countersignatory.payment);
        assert_eq!(in_time.run(to_remote.witness(&by_owner)), Ok(()), "{format:?}");
        let by_stranger = in_time.sign(&signers.stranger);
        assert!(in_time.run(to_remote.witness(&by_stranger)).is_err(), "{format:?}");

        let at_once = spend(Sequence::ZERO);
        let by_owner = at_once.sign(&signers.countersignatory.payment);
        let allowed = at_once.run(to_remote.witness(&by_owner)).is_ok();
        assert_eq!(allowed, format != CommitmentFormat::Anchors, "{format:?}");
    }
}

#[test]
fn keyed_anchor_is_its_owners_for_16_blocks() {
    let signers = signers();
    let anchor = KeyedAnchor { funding_key: signers.keys.broadcaster_funding };
    let spend = |sequence| Spend::new(anchor.output(), anchor.witness_script(), sequence, 0);

    let at_once = spend(Sequence::ZERO);
    let by_owner = at_once.sign(&signers.broadcaster.funding);
    assert_eq!(at_once.run(anchor.owner_witness(&by_owner)), Ok(()));
    let by_stranger = at_once.sign(&signers.stranger);
    assert!(at_once.run(anchor.owner_witness(&by_stranger)).is_err());
    assert!(at_once.run(anchor.public_witness()).is_err());
    assert!(spend(Sequence::from_height(15)).run(anchor.public_witness()).is_err());
    assert_eq!(spend(KeyedAnchor::public_sequence()).run(anchor.public_witness()), Ok(()));
}

#[test]
fn pay_to_anchor_is_anybodys() {
    let spend = Spend::new(output(pay_to_anchor()), pay_to_anchor(), Sequence::ZERO, 0);
    assert_eq!(spend.run(Witness::new()), Ok(()));
}

#[test]
fn offered_htlc_is_claimed_with_the_preimage() {
    let signers = signers();
    for format in FORMATS {
        let script = htlc_script(&signers, HtlcDirection::Offered, format);
        let spend = spend_htlc(&script, format.htlc_sequence(), 0);
        let by_payee = spend.sign(&signers.countersignatory_htlc);
        let witness = script.claim_witness(&by_payee, &PREIMAGE).unwrap();
        assert_eq!(spend.run(witness), Ok(()), "{format:?}");

        let by_stranger = spend.sign(&signers.stranger);
        let witness = script.claim_witness(&by_stranger, &PREIMAGE).unwrap();
        assert!(spend.run(witness).is_err(), "{format:?}");

        // Another preimage is refused by us, and by the script: wrong bytes, wrong lengths.
        assert!(matches!(
            script.claim_witness(&by_payee, &Preimage([1; 32])),
            Err(HtlcError::WrongPreimage { .. })
        ));
        for preimage in [&[1; 32][..], &PREIMAGE.0[..31], &[0x5a; 33], &[]] {
            let raw = script.witness_script();
            let items = [by_payee.serialize().to_vec(), preimage.to_vec(), raw.into_bytes()];
            assert!(spend.run(Witness::from_slice(&items)).is_err(), "{format:?}");
        }
        assert_eq!(
            script.timeout_witness(&by_payee),
            Err(HtlcError::WrongDirection { actual: HtlcDirection::Offered })
        );
    }
}

#[test]
fn received_htlc_returns_to_the_payer_after_its_expiry() {
    let signers = signers();
    for format in FORMATS {
        let script = htlc_script(&signers, HtlcDirection::Received, format);
        let run = |lock_height, key: &SecretKey| {
            let spend = spend_htlc(&script, format.htlc_sequence(), lock_height);
            spend.run(script.timeout_witness(&spend.sign(key)).unwrap())
        };
        assert_eq!(run(EXPIRY, &signers.countersignatory_htlc), Ok(()), "{format:?}");
        assert_eq!(run(EXPIRY + 1, &signers.countersignatory_htlc), Ok(()), "{format:?}");
        assert!(run(EXPIRY - 1, &signers.countersignatory_htlc).is_err(), "{format:?}");
        assert!(run(EXPIRY, &signers.stranger).is_err(), "{format:?}");
        assert!(run(EXPIRY, &signers.broadcaster_htlc).is_err(), "{format:?}");
    }
}

#[test]
fn direct_htlc_spends_wait_one_block_with_keyed_anchors_only() {
    let signers = signers();
    for format in FORMATS {
        let allowed = format != CommitmentFormat::Anchors;
        let offered = htlc_script(&signers, HtlcDirection::Offered, format);
        let spend = spend_htlc(&offered, Sequence::ZERO, 0);
        let by_payee = spend.sign(&signers.countersignatory_htlc);
        let claimed = spend.run(offered.claim_witness(&by_payee, &PREIMAGE).unwrap());
        assert_eq!(claimed.is_ok(), allowed, "{format:?}");

        let received = htlc_script(&signers, HtlcDirection::Received, format);
        let spend = spend_htlc(&received, Sequence::ZERO, EXPIRY);
        let by_payer = spend.sign(&signers.countersignatory_htlc);
        let timed_out = spend.run(received.timeout_witness(&by_payer).unwrap());
        assert_eq!(timed_out.is_ok(), allowed, "{format:?}");
    }
}

#[test]
fn revoked_htlcs_are_taken_at_once() {
    let signers = signers();
    for format in FORMATS {
        for direction in [HtlcDirection::Offered, HtlcDirection::Received] {
            let script = htlc_script(&signers, direction, format);
            let spend = spend_htlc(&script, Sequence::ENABLE_RBF_NO_LOCKTIME, 0);
            let by_punisher = spend.sign(&signers.revocation);
            assert_eq!(spend.run(script.penalty_witness(&by_punisher)), Ok(()));
            for key in [&signers.broadcaster_htlc, &signers.countersignatory_htlc] {
                let forged = spend.sign(key);
                assert!(spend.run(script.penalty_witness(&forged)).is_err());
            }
        }
    }
}

/// A second-stage transaction and the output it spends.
fn second_stage(
    signers: &Signers,
    direction: HtlcDirection,
    format: CommitmentFormat,
) -> (HtlcTransaction, TxOut) {
    let script = htlc_script(signers, direction, format);
    let htlc = HtlcTransaction {
        outpoint: OutPoint::new(Txid::from_byte_array([0x22; 32]), 3),
        script,
        to_local: to_local(signers),
        feerate: bitcoin::FeeRate::from_sat_per_kwu(1000),
    };
    (htlc, output(script.script_pubkey()))
}

#[test]
fn second_stage_needs_both_signatures_and_its_preimage_or_locktime() {
    let signers = signers();
    for format in FORMATS {
        for direction in [HtlcDirection::Offered, HtlcDirection::Received] {
            let (htlc, spent) = second_stage(&signers, direction, format);
            let preimage = (direction == HtlcDirection::Received).then_some(&PREIMAGE);
            let run = |countersignatory, broadcaster, lock_height: Option<u32>| {
                let mut transaction = htlc.unsigned().unwrap();
                if let Some(height) = lock_height {
                    transaction.lock_time = absolute::LockTime::from_height(height).unwrap();
                }
                let script = htlc.script.witness_script();
                let sighash = format.countersignatory_htlc_sighash();
                let all = bitcoin::EcdsaSighashType::All;
                // The countersignatory only ever signed the transaction as it should be.
                let agreed = htlc.unsigned().unwrap();
                let signatures = HtlcSignatures {
                    countersignatory: sign(&agreed, &script, VALUE, countersignatory, sighash),
                    broadcaster: sign(&transaction, &script, VALUE, broadcaster, all),
                };
                transaction.input[0].witness = htlc.witness(&signatures, preimage).unwrap();
                interpret(&transaction, 0, std::slice::from_ref(&spent))
            };
            let (theirs, ours) = (&signers.countersignatory_htlc, &signers.broadcaster_htlc);
            let case = format!("{format:?} {direction:?}");
            assert_eq!(run(theirs, ours, None), Ok(()), "{case}");
            assert!(run(theirs, &signers.stranger, None).is_err(), "{case}");
            assert!(run(&signers.stranger, ours, None).is_err(), "{case}");
            // The locktime of a timeout is held by the countersignatory's signature.
            assert!(run(theirs, ours, Some(EXPIRY - 1)).is_err(), "{case}");
        }
    }
}

#[test]
fn second_stage_asks_for_the_preimage_exactly_where_it_is_needed() {
    let signers = signers();
    let format = CommitmentFormat::Anchors;
    let witness = |direction, preimage: Option<&Preimage>| {
        let (htlc, _) = second_stage(&signers, direction, format);
        let transaction = htlc.unsigned().unwrap();
        let script = htlc.script.witness_script();
        let all = bitcoin::EcdsaSighashType::All;
        let signature = sign(&transaction, &script, VALUE, &signers.stranger, all);
        let signatures = HtlcSignatures { countersignatory: signature, broadcaster: signature };
        htlc.witness(&signatures, preimage).map(|_| ())
    };
    let (offered, received) = (HtlcDirection::Offered, HtlcDirection::Received);
    assert_eq!(witness(offered, None), Ok(()));
    assert_eq!(witness(received, Some(&PREIMAGE)), Ok(()));
    assert_eq!(witness(received, None), Err(HtlcError::PreimageMissing(PREIMAGE.hash())));
    assert_eq!(
        witness(offered, Some(&PREIMAGE)),
        Err(HtlcError::WrongDirection { actual: offered })
    );
    let wrong = Preimage([1; 32]);
    assert_eq!(
        witness(received, Some(&wrong)),
        Err(HtlcError::WrongPreimage { expected: PREIMAGE.hash(), actual: wrong.hash() })
    );
}

#[test]
fn a_fee_may_be_added_to_the_second_stage_of_anchor_channels() {
    let signers = signers();
    for format in FORMATS {
        let (htlc, spent) = second_stage(&signers, HtlcDirection::Offered, format);
        let script = htlc.script.witness_script();
        let agreed = htlc.unsigned().unwrap();
        let sighash = format.countersignatory_htlc_sighash();
        let theirs = sign(&agreed, &script, VALUE, &signers.countersignatory_htlc, sighash);

        let mut bumped = agreed.clone();
        let coin = output(pay_to_anchor());
        bumped.input.push(bitcoin::TxIn {
            previous_output: OutPoint::new(Txid::from_byte_array([0x33; 32]), 0),
            ..Default::default()
        });
        bumped.output.push(TxOut { value: VALUE / 2, script_pubkey: pay_to_anchor() });
        let all = bitcoin::EcdsaSighashType::All;
        let ours = sign(&bumped, &script, VALUE, &signers.broadcaster_htlc, all);
        let signatures = HtlcSignatures { countersignatory: theirs, broadcaster: ours };
        bumped.input[0].witness = htlc.witness(&signatures, None).unwrap();
        let allowed = interpret(&bumped, 0, &[spent, coin]).is_ok();
        assert_eq!(allowed, format != CommitmentFormat::StaticRemoteKey, "{format:?}");
    }
}
