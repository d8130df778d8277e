//! Every penalty of every kind of commitment, run by Bitcoin Core's interpreter: alone, together,
//! taken apart, with a fee input; and everything that must fail.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::secp256k1::Secp256k1;
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Transaction, TxOut, Txid, Weight, hashes::Hash,
};
use channel_contracts::justice::pair::TRUC_CHILD_WEIGHT_MAX;
use channel_contracts::justice::{
    CombineError, JusticeError, Penalty, PenaltyKind, PenaltyPair, RevocationSecret, RevokedState,
    combine, combined_weight_max, group_by_weight, sign_pair,
};
use channel_contracts::script::{CommitmentFormat, HtlcDirection};
use common::breach::{
    Breach, DELAY, EXPIRY, FORMATS, PREIMAGE, coin_input, rider, sign_coin, stranger, sweep_script,
};
use common::sign;

const FEERATE: FeeRate = FeeRate::from_sat_per_kwu(1_000);

fn pairs_of(breach: &Breach, penalties: &[Penalty]) -> Vec<PenaltyPair> {
    let secp = Secp256k1::new();
    let version = breach.commitment.format.transaction_version();
    let sign = |penalty: &Penalty| {
        let sweep = penalty.sweep_output(&sweep_script(), FEERATE).unwrap();
        sign_pair(&secp, &breach.secret, penalty, sweep, version).unwrap()
    };
    penalties.iter().map(sign).collect()
}

fn pairs(breach: &Breach) -> Vec<PenaltyPair> {
    pairs_of(breach, &breach.state.penalties(breach.transaction()).unwrap())
}

#[test]
fn a_breach_reveals_the_balance_and_each_htlc_that_is_not_trimmed() {
    use HtlcDirection::{Offered, Received};
    for format in FORMATS {
        let breach = Breach::new(format);
        let penalties = breach.state.penalties(breach.transaction()).unwrap();
        assert_eq!(penalties, breach.state.expected_penalties());
        let kinds: Vec<_> = penalties.iter().map(|penalty| penalty.kind).collect();
        let htlcs = [Offered, Received, Offered, Received].map(PenaltyKind::Htlc);
        assert_eq!(kinds[0], PenaltyKind::ToLocal);
        assert_eq!(kinds[1..], htlcs, "{format:?}, by value");
        let total: Amount = penalties.iter().map(|penalty| penalty.output.value).sum();
        assert_eq!(total, Amount::from_sat(300_000 + 50_000 + 60_000 + 3_000 + 4_000));
        for penalty in &penalties {
            assert_eq!(penalty.witness_script().to_p2wsh(), penalty.output.script_pubkey);
            assert_eq!(penalty.revocation_key(), breach.state.revocation_key());
        }
    }
}

#[test]
fn the_cheaters_times_follow_from_its_scripts() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let wait = u32::from(format == CommitmentFormat::Anchors);
        for penalty in breach.state.expected_penalties() {
            let confirmed = 600;
            let expected = match penalty.kind {
                PenaltyKind::ToLocal => confirmed + u32::from(DELAY),
                PenaltyKind::Htlc(HtlcDirection::Offered) => EXPIRY + 1,
                PenaltyKind::Htlc(HtlcDirection::Received) => confirmed + wait,
                PenaltyKind::SecondStage => unreachable!("no second stage in a commitment"),
            };
            assert_eq!(penalty.cheater.first_block(confirmed), expected, "{:?}", penalty.kind);
        }
    }
}

#[test]
fn every_penalty_is_accepted_alone_and_with_all_others() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let pairs = pairs(&breach);
        for pair in &pairs {
            let alone = combine(std::slice::from_ref(pair), None).unwrap();
            assert_eq!(alone.version, format.transaction_version());
            assert_eq!(breach.run(&alone, &[]), Ok(()), "{format:?} {:?}", pair.kind);
        }
        let together = combine(&pairs, None).unwrap();
        assert_eq!(breach.run(&together, &[]), Ok(()), "{format:?}");
        let fees: Amount = pairs.iter().map(|pair| pair.fee().unwrap()).sum();
        let paid: Amount = together.output.iter().map(|output| output.value).sum();
        let taken: Amount = pairs.iter().map(|pair| pair.spent.value).sum();
        assert_eq!(paid.checked_add(fees), Some(taken));
    }
}

#[test]
fn pairs_are_taken_apart_and_put_together_in_any_order() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let pairs = pairs(&breach);
        for gone in 0..pairs.len() {
            let mut left = pairs.clone();
            left.remove(gone);
            left.reverse();
            assert_eq!(breach.run(&combine(&left, None).unwrap(), &[]), Ok(()), "{format:?}");
        }
    }
}

#[test]
fn anybody_adds_a_fee_input_and_change() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let pairs = pairs(&breach);
        for count in 1..=pairs.len() {
            let mut transaction = combine(&pairs[..count], Some(rider())).unwrap();
            assert_eq!(transaction.input.len(), count + 1);
            sign_coin(&mut transaction, count);
            assert_eq!(breach.run(&transaction, &[]), Ok(()), "{format:?}");
        }
    }
}

/// Everything in the transaction that a signature of a pair commits to.
#[test]
fn a_changed_transaction_is_refused() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let good = combine(&pairs(&breach), None).unwrap();
        let refused = |change: &dyn Fn(&mut Transaction)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(breach.run(&bad, &[]), Err(0), "{format:?}");
        };
        refused(&|bad| bad.output[0].value += Amount::ONE_SAT);
        refused(&|bad| bad.output[0].value -= Amount::ONE_SAT);
        refused(&|bad| bad.output[0].script_pubkey = ScriptBuf::new_op_return([]));
        refused(&|bad| bad.output.rotate_left(1));
        refused(&|bad| bad.output.insert(0, bad.output[1].clone()));
        refused(&|bad| bad.input.swap(0, 1));
        refused(&|bad| bad.input[0].sequence = bitcoin::Sequence::ZERO);
        refused(&|bad| bad.version.0 = 5 - bad.version.0);
        refused(&|bad| bad.lock_time = bitcoin::absolute::LockTime::from_consensus(1));
        refused(&|bad| bad.output.clear());
    }
}

#[test]
fn another_secret_is_refused_by_us_and_by_the_script() {
    let secp = Secp256k1::new();
    for format in FORMATS {
        let breach = Breach::new(format);
        let version = format.transaction_version();
        for (penalty, good) in breach.state.expected_penalties().iter().zip(pairs(&breach)) {
            good.verify(&secp, penalty).unwrap();
            let sweep = good.output.clone();
            for wrong in [stranger(), breach.cheater_htlc, breach.victim_htlc] {
                assert_eq!(
                    sign_pair(&secp, &wrong, penalty, sweep.clone(), version),
                    Err(JusticeError::WrongSecret {
                        expected: Box::new(breach.state.revocation_key()),
                        actual: Box::new(wrong.public_key(&secp)),
                    })
                );
                let mut unsigned = combine(std::slice::from_ref(&good), None).unwrap();
                unsigned.input[0].witness.clear();
                let script = penalty.witness_script();
                let sighash = channel_contracts::justice::pair::PAIR_SIGHASH;
                let forged = sign(&unsigned, &script, good.spent.value, &wrong, sighash);
                let forged =
                    PenaltyPair::assemble(penalty, sweep.clone(), version, forged.signature);
                let key = breach.state.revocation_key();
                let outpoint = penalty.outpoint;
                let refused = Err(JusticeError::WrongSignature { outpoint, key });
                assert_eq!(forged.verify(&secp, penalty), refused);
                assert_eq!(breach.run(&combine(&[forged], None).unwrap(), &[]), Err(0));
            }
        }
    }
}

#[test]
fn a_pair_is_verified_with_its_own_penalty_and_as_it_was_signed() {
    let secp = Secp256k1::new();
    let breach = Breach::new(CommitmentFormat::Anchors);
    let penalties = breach.state.expected_penalties();
    let good = pairs(&breach).swap_remove(1);
    assert_eq!(good.verify(&secp, &penalties[1]), Ok(()));
    assert_eq!(
        good.verify(&secp, &penalties[2]),
        Err(JusticeError::OtherOutput {
            expected: penalties[2].outpoint,
            actual: penalties[1].outpoint
        })
    );
    let changes: [&dyn Fn(&mut PenaltyPair); 6] = [
        &|pair| pair.output.value += Amount::ONE_SAT,
        &|pair| pair.version.0 = 3,
        &|pair| pair.spent.value += Amount::ONE_SAT,
        &|pair| pair.input.sequence = bitcoin::Sequence::MAX,
        &|pair| pair.input.witness.push([1]),
        &|pair| pair.input.witness.clear(),
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        let refused = bad.verify(&secp, &penalties[1]);
        assert!(matches!(refused, Err(JusticeError::WrongSignature { .. })), "{bad:?}");
    }
}

#[test]
fn what_the_cheater_moved_on_is_taken_from_the_second_stage() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let places: &[Option<bool>] = match format {
            CommitmentFormat::StaticRemoteKey => &[None],
            CommitmentFormat::Anchors | CommitmentFormat::ZeroFee => {
                &[None, Some(false), Some(true)]
            }
        };
        for htlc in &breach.built.htlcs {
            for place in places {
                let case = format!("{format:?} {:?} {place:?}", htlc.script.htlc.direction);
                let moved = breach.second_stage(htlc, *place);
                assert_eq!(breach.run(&moved, &[]), Ok(()), "{case}");

                let penalties = breach.state.second_stage(&moved);
                let vout = u32::from(*place == Some(true));
                assert_eq!(penalties.len(), 1, "{case}");
                assert_eq!(penalties[0].kind, PenaltyKind::SecondStage);
                assert_eq!(penalties[0].outpoint, OutPoint::new(moved.compute_txid(), vout));
                assert_eq!(penalties[0].output, moved.output[vout as usize]);
                assert_eq!(penalties[0].cheater.first_block(710), 710 + u32::from(DELAY));

                // Together with what is left of the commitment, and with a fee input.
                let mut pairs = pairs(&breach);
                pairs.retain(|pair| pair.outpoint() != htlc.outpoint);
                pairs.extend(pairs_of(&breach, &penalties));
                let mut transaction = combine(&pairs, Some(rider())).unwrap();
                sign_coin(&mut transaction, pairs.len());
                let more = [moved];
                assert_eq!(breach.run(&transaction, &more), Ok(()), "{case}");
                let alone = combine(&pairs[pairs.len() - 1..], None).unwrap();
                assert_eq!(breach.run(&alone, &more), Ok(()), "{case}");
            }
        }
    }
}

#[test]
fn a_cheater_that_moves_several_htlcs_at_once_loses_them_all() {
    for format in [CommitmentFormat::Anchors, CommitmentFormat::ZeroFee] {
        let breach = Breach::new(format);
        let moved = breach.built.htlcs.iter().map(|htlc| breach.second_stage(htlc, None));
        let mut batch = moved.clone().next().unwrap();
        for more in moved.skip(1) {
            batch.input.extend(more.input);
            batch.output.extend(more.output);
        }
        let penalties = breach.state.second_stage(&batch);
        let vouts: Vec<_> = penalties.iter().map(|penalty| penalty.outpoint.vout).collect();
        assert_eq!(vouts, [0, 1, 2, 3], "{format:?}");
        let transaction = combine(&pairs_of(&breach, &penalties), None).unwrap();
        assert_eq!(breach.run(&transaction, &[batch]), Ok(()), "{format:?}");
    }
}

#[test]
fn other_spends_of_an_htlc_leave_nothing_to_take() {
    for format in FORMATS {
        let breach = Breach::new(format);
        // Our own penalty.
        let penalty = combine(&pairs(&breach), None).unwrap();
        assert_eq!(breach.state.second_stage(&penalty), []);
        // A claim by the victim, with the preimage.
        let mut claim = penalty.clone();
        let offered = breach.built.htlcs[0];
        claim.input.retain(|input| input.previous_output == offered.outpoint);
        claim.output.truncate(1);
        let script = offered.script.witness_script();
        let value = offered.script.htlc.value();
        let all = bitcoin::EcdsaSighashType::All;
        let ours = sign(&claim, &script, value, &breach.victim_htlc, all);
        claim.input[0].witness = offered.script.claim_witness(&ours, &PREIMAGE).unwrap();
        assert_eq!(breach.state.second_stage(&claim), []);
        // The revocable script beside an input that is none of ours.
        let mut foreign = breach.second_stage(&offered, None);
        foreign.input[0].previous_output = coin_input(9).previous_output;
        assert_eq!(breach.state.second_stage(&foreign), []);
        // An input without an output beside it.
        let mut bare = breach.second_stage(&offered, None);
        bare.output.clear();
        assert_eq!(breach.state.second_stage(&bare), []);
    }
}

#[test]
fn another_transaction_or_a_wrongly_recorded_state_is_refused() {
    let breach = Breach::new(CommitmentFormat::ZeroFee);
    let mut other = breach.transaction().clone();
    other.output[0].value += Amount::ONE_SAT;
    assert_eq!(
        breach.state.penalties(&other),
        Err(JusticeError::OtherTransaction {
            expected: breach.transaction().compute_txid(),
            actual: other.compute_txid(),
        })
    );
    // A state that says the wrong value, or an output that is not there.
    let mut commitment = breach.commitment.clone();
    commitment.to_broadcaster_msat -= 1_000;
    commitment.to_countersignatory_msat += 1_000;
    let wrong = RevokedState::of(&commitment, &commitment.build().unwrap()).unwrap();
    let wrong = RevokedState::decode(breach.transaction().compute_txid(), &wrong.encode()).unwrap();
    let refused = wrong.penalties(breach.transaction());
    assert!(matches!(refused, Err(JusticeError::WrongOutput { .. })), "{refused:?}");
    let mut short = breach.transaction().clone();
    short.output.truncate(2);
    let state = RevokedState::decode(short.compute_txid(), &breach.state.encode()).unwrap();
    let refused = state.penalties(&short);
    assert!(matches!(refused, Err(JusticeError::MissingOutput { outputs: 2, .. })), "{refused:?}");
}

#[test]
fn pairs_that_do_not_fit_together_are_refused() {
    assert_eq!(combine(&[], Some(rider())), Err(CombineError::Nothing));
    let mut two = pairs(&Breach::new(CommitmentFormat::Anchors));
    two.truncate(2);
    let outpoint = two[0].outpoint();
    let twice = [two[0].clone(), two[1].clone(), two[0].clone()];
    assert_eq!(combine(&twice, None), Err(CombineError::SameOutput { outpoint }));
    let first = two[0].version;
    let three = pairs(&Breach::new(CommitmentFormat::ZeroFee)).swap_remove(0);
    let other = three.version;
    two.push(three);
    assert_eq!(combine(&two, None), Err(CombineError::MixedVersions { first, other }));
}

#[test]
fn weights_are_upper_bounds_by_two_bytes_a_signature() {
    for format in FORMATS {
        let breach = Breach::new(format);
        let penalties = breach.state.expected_penalties();
        for (penalty, pair) in penalties.iter().zip(pairs(&breach)) {
            let fee = pair.fee().unwrap();
            let actual = combine(std::slice::from_ref(&pair), None).unwrap().weight();
            let max = penalty.weight_max(&sweep_script());
            assert!(actual <= max && max <= actual + Weight::from_wu(2), "{:?}", pair.kind);
            assert_eq!(combined_weight_max(std::slice::from_ref(penalty), &sweep_script()), max);
            // 1,000 sat per kwu is one sat for each weight unit.
            assert_eq!(fee.to_sat(), max.to_wu());
        }
        let together = combine(&pairs(&breach), None).unwrap().weight();
        let max = combined_weight_max(&penalties, &sweep_script());
        assert!(together <= max && max <= together + Weight::from_wu(2 * penalties.len() as u64));
        let paid: Amount = pairs(&breach).iter().map(|pair| pair.fee().unwrap()).sum();
        assert!(paid.to_sat() >= together.to_wu(), "never below the feerate of each");
    }
}

#[test]
fn an_output_that_would_leave_dust_is_refused() {
    let breach = Breach::new(CommitmentFormat::Anchors);
    let script = sweep_script();
    for penalty in breach.state.expected_penalties() {
        let value = penalty.output.value;
        let weight = penalty.weight_max(&script).to_wu();
        let affordable = (value.to_sat() - 330) * 1000 / weight;
        let feerate = FeeRate::from_sat_per_kwu(affordable);
        assert!(penalty.sweep_output(&script, feerate).unwrap().value.to_sat() >= 330);
        for sat_per_kwu in [affordable + 2, u64::MAX] {
            let feerate = FeeRate::from_sat_per_kwu(sat_per_kwu);
            let dust = JusticeError::Dust { outpoint: penalty.outpoint, value, feerate };
            assert_eq!(penalty.sweep_output(&script, feerate), Err(dust));
        }
    }
}

#[test]
fn pairs_are_split_into_transactions_that_nodes_relay() {
    let breach = Breach::new(CommitmentFormat::ZeroFee);
    let pair = pairs(&breach).swap_remove(1);
    let many: Vec<_> = (0..300)
        .map(|vout| {
            let mut pair = pair.clone();
            pair.input.previous_output = OutPoint::new(Txid::all_zeros(), vout);
            pair
        })
        .collect();
    let mut max = TRUC_CHILD_WEIGHT_MAX;
    for (step, transactions) in [(1, 50), (10, 5), (10, 1)] {
        max = max.checked_mul(step).unwrap();
        let groups = group_by_weight(&many, max);
        assert_eq!(groups.concat(), many);
        for group in &groups {
            assert!(combine(group, None).unwrap().weight() <= max);
        }
        assert!(groups.len().abs_diff(transactions) <= 3, "{} for {max}", groups.len());
    }
    assert_eq!(group_by_weight(&many[..3], Weight::ZERO).len(), 3);
    assert_eq!(group_by_weight(&[], max), Vec::<Vec<PenaltyPair>>::new());
}

#[test]
fn a_revocation_secret_never_shows() {
    let secret = RevocationSecret::new(stranger());
    assert_eq!(format!("{secret:?}"), "RevocationSecret([redacted])");
    assert_eq!(*secret.expose(), stranger());
}

#[test]
fn a_commitment_without_takeable_outputs_has_no_penalties() {
    let breach = Breach::with(CommitmentFormat::Anchors, vec![], 0);
    assert_eq!(breach.state.to_local(), None);
    assert_eq!(breach.state.penalties(breach.transaction()), Ok(vec![]));
    let other = TxOut { value: Amount::ONE_SAT, script_pubkey: ScriptBuf::new() };
    assert_ne!(breach.transaction().output[0], other);
}
