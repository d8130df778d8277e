//! Our transactions against LDK's, for random keys, balances and HTLCs.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, Txid, absolute, relative};
use channel_contracts::justice::{
    PenaltyContract, PenaltyKind, RevocationSecret, RevokedState, combine, sign_pair,
};
use channel_contracts::script::anchor::pay_to_anchor;
use channel_contracts::script::keys::{revocation_secret, secret_key};
use channel_contracts::script::{
    Basepoints, BuiltCommitment, Commitment, CommitmentFormat, CommitmentKeys, CommitmentNumber,
    CommitmentParties, FundingScript, Htlc, HtlcDirection, KeyedAnchor, ObscureFactor,
    PerCommitmentPoint, PerCommitmentSecret, Preimage, RevocationSecrets, SecretStore, Side,
};
use channel_contracts::tower::open_protocol;
use common::breach::sweep_script;
use common::{Secrets, interpret, parties};
use lightning::ln::chan_utils::{
    self, ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, CounterpartyCommitmentSecrets,
    HTLCOutputInCommitment,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::message_signing;
use proptest::prelude::*;

const CHANNEL_SAT: u64 = 10_000_000;

fn ldk_keys(keys: &Basepoints) -> ChannelPublicKeys {
    ChannelPublicKeys {
        funding_pubkey: keys.funding,
        revocation_basepoint: RevocationBasepoint(keys.revocation),
        payment_point: keys.payment,
        delayed_payment_basepoint: DelayedPaymentBasepoint(keys.delayed_payment),
        htlc_basepoint: HtlcBasepoint(keys.htlc),
    }
}

fn ldk_features(format: CommitmentFormat) -> ChannelTypeFeatures {
    match format {
        CommitmentFormat::StaticRemoteKey => ChannelTypeFeatures::only_static_remote_key(),
        CommitmentFormat::Anchors => ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
        CommitmentFormat::ZeroFee => ChannelTypeFeatures::anchors_zero_fee_commitments(),
    }
}

fn ldk_parameters(
    commitment: &Commitment,
    parties: &CommitmentParties,
) -> ChannelTransactionParameters {
    let OutPoint { txid, vout } = commitment.funding_outpoint;
    ChannelTransactionParameters {
        holder_pubkeys: ldk_keys(&parties.broadcaster),
        holder_selected_contest_delay: 1,
        is_outbound_from_holder: commitment.opener == Side::Broadcaster,
        counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
            pubkeys: ldk_keys(&parties.countersignatory),
            selected_contest_delay: commitment.to_self_delay.value(),
        }),
        funding_outpoint: Some(lightning::chain::transaction::OutPoint {
            txid,
            index: vout as u16,
        }),
        splice_parent_funding_txid: None,
        channel_type_features: ldk_features(commitment.format),
        channel_value_satoshis: commitment.funding_value.to_sat(),
    }
}

/// Lets LDK build the same commitment from what we decided to keep.
fn ldk_commitment(
    commitment: &Commitment,
    built: &BuiltCommitment,
    parties: &CommitmentParties,
    point: &PerCommitmentPoint,
) -> CommitmentTransaction {
    let value = |vout: Option<u32>| {
        vout.map_or(0, |vout| built.transaction.output[vout as usize].value.to_sat())
    };
    let htlcs = built.htlcs.iter().map(|htlc| ldk_htlc(&htlc.script.htlc, None)).collect();
    CommitmentTransaction::new(
        // LDK counts commitments down, as BOLT 3 counts their secrets.
        commitment.number.index(),
        &point.0,
        value(built.to_local),
        value(built.to_remote),
        commitment.feerate.to_sat_per_kwu() as u32,
        htlcs,
        &ldk_parameters(commitment, parties).as_holder_broadcastable(),
        &Secp256k1::new(),
    )
}

fn ldk_htlc(htlc: &Htlc, vout: Option<u32>) -> HTLCOutputInCommitment {
    HTLCOutputInCommitment {
        offered: htlc.direction == HtlcDirection::Offered,
        amount_msat: htlc.amount_msat,
        cltv_expiry: htlc.cltv_expiry.to_consensus_u32(),
        payment_hash: PaymentHash(htlc.payment_hash.to_byte_array()),
        transaction_output_index: vout,
    }
}

fn format() -> impl Strategy<Value = CommitmentFormat> {
    prop_oneof![
        Just(CommitmentFormat::StaticRemoteKey),
        Just(CommitmentFormat::Anchors),
        Just(CommitmentFormat::ZeroFee),
    ]
}

fn key() -> impl Strategy<Value = SecretKey> {
    any::<[u8; 32]>().prop_filter_map("not a scalar", |bytes| SecretKey::from_slice(&bytes).ok())
}

fn secrets() -> impl Strategy<Value = Secrets> {
    [key(), key(), key(), key(), key()].prop_map(
        |[funding, revocation, payment, delayed_payment, htlc]| Secrets {
            funding,
            revocation,
            payment,
            delayed_payment,
            htlc,
        },
    )
}

/// Few hashes and amounts, so that equal outputs are common and sorting is put to the test.
fn htlc() -> impl Strategy<Value = Htlc> {
    let amount = prop_oneof![Just(5_000_000u64), 1u64..20_000_000];
    (any::<bool>(), amount, 0u8..3, 400u32..404).prop_map(|(offered, amount_msat, hash, expiry)| {
        Htlc {
            direction: if offered { HtlcDirection::Offered } else { HtlcDirection::Received },
            amount_msat,
            payment_hash: Preimage([hash; 32]).hash(),
            cltv_expiry: absolute::Height::from_consensus(expiry).unwrap(),
        }
    })
}

prop_compose! {
    fn commitment(keys: CommitmentKeys, factors: [ObscureFactor; 2])(
        format in format(),
        number in 0u64..1 << 48,
        txid in any::<[u8; 32]>(),
        vout in 0u32..4,
        to_self_delay in 1u16..2016,
        dust_limit in 330u64..3000,
        feerate in 253u64..5000,
        opened in any::<bool>(),
        share in 0u64..=100,
        htlcs in prop::collection::vec(htlc(), 0..12),
    ) -> Commitment {
        let rest = CHANNEL_SAT * 1000 - htlcs.iter().map(|htlc| htlc.amount_msat).sum::<u64>();
        let to_broadcaster_msat = rest / 100 * share;
        Commitment {
            funding_outpoint: OutPoint::new(Txid::from_byte_array(txid), vout),
            funding_value: Amount::from_sat(CHANNEL_SAT),
            format,
            number: CommitmentNumber::new(number).unwrap(),
            obscure_factor: factors[usize::from(opened)],
            keys,
            to_self_delay: relative::Height::from_height(to_self_delay),
            dust_limit: Amount::from_sat(dust_limit),
            feerate: FeeRate::from_sat_per_kwu(feerate),
            opener: if opened { Side::Broadcaster } else { Side::Countersignatory },
            to_broadcaster_msat,
            to_countersignatory_msat: rest - to_broadcaster_msat,
            htlcs,
        }
    }
}

/// A commitment with the parties and the point it was derived for.
fn channel() -> impl Strategy<Value = (Commitment, CommitmentParties, PerCommitmentPoint)> {
    (secrets(), secrets(), key()).prop_flat_map(|(broadcaster, countersignatory, point)| {
        let secp = Secp256k1::new();
        let parties = parties(&secp, &broadcaster, &countersignatory);
        let point = PerCommitmentPoint(point.public_key(&secp));
        let keys = CommitmentKeys::derive(&secp, &point, &parties).unwrap();
        let factors = [Side::Countersignatory, Side::Broadcaster]
            .map(|opener| ObscureFactor::derive(&parties, opener));
        commitment(keys, factors).prop_map(move |commitment| (commitment, parties, point))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn commitments_are_those_of_ldk((commitment, parties, point) in channel()) {
        let built = commitment.build().unwrap();
        let ldk = ldk_commitment(&commitment, &built, &parties, &point);
        let trusted = ldk.trust();
        prop_assert_eq!(&built.transaction, &trusted.built_transaction().transaction);
        prop_assert_eq!(
            built.to_local.map(|vout| vout as usize),
            trusted.revokeable_output_index()
        );
        prop_assert_eq!(
            commitment.obscure_factor.reveal(&built.transaction),
            Some(commitment.number)
        );

        // Both list HTLCs in the order of their signatures.
        prop_assert_eq!(built.htlcs.len(), ldk.nondust_htlcs().len());
        for (ours, theirs) in built.htlcs.iter().zip(ldk.nondust_htlcs()) {
            let vout = Some(ours.outpoint.vout);
            prop_assert_eq!(&ldk_htlc(&ours.script.htlc, vout), theirs);
            let expected = chan_utils::build_htlc_transaction(
                &trusted.txid(),
                commitment.feerate.to_sat_per_kwu() as u32,
                commitment.to_self_delay.value(),
                theirs,
                &ldk_features(commitment.format),
                &trusted.keys().broadcaster_delayed_payment_key,
                &trusted.keys().revocation_key,
            );
            prop_assert_eq!(ours.unsigned().unwrap(), expected);
        }
    }

    #[test]
    fn keys_are_those_of_ldk(
        base in secrets(),
        point in key(),
    ) {
        let secp = Secp256k1::new();
        let per_commitment_point = PerCommitmentPoint(point.public_key(&secp));
        prop_assert_eq!(
            secret_key(&secp, &per_commitment_point, &base.htlc).unwrap(),
            chan_utils::derive_private_key(&secp, &per_commitment_point.0, &base.htlc)
        );
        let secrets = RevocationSecrets {
            revocation_basepoint_secret: base.revocation,
            per_commitment_secret: point,
        };
        prop_assert_eq!(
            revocation_secret(&secp, &secrets).unwrap(),
            chan_utils::derive_private_revocation_key(&secp, &point, &base.revocation)
        );
    }

    #[test]
    fn funding_and_anchor_scripts_are_those_of_ldk(one in key(), other in key()) {
        let secp = Secp256k1::new();
        let (one, other) = (one.public_key(&secp), other.public_key(&secp));
        prop_assert_eq!(
            FundingScript::new(one, other).witness_script(),
            chan_utils::make_funding_redeemscript(&one, &other)
        );
        prop_assert_eq!(
            KeyedAnchor { funding_key: one }.witness_script(),
            chan_utils::get_keyed_anchor_redeemscript(&one)
        );
        prop_assert_eq!(pay_to_anchor(), chan_utils::shared_anchor_script_pubkey());
    }

    #[test]
    fn secrets_are_those_of_ldk(
        seed in any::<[u8; 32]>(),
        count in 1u64..200,
        wrong in prop::option::of(0u64..200),
    ) {
        let mut ours = SecretStore::new();
        let mut theirs = CounterpartyCommitmentSecrets::new();
        for n in 0..count {
            let number = CommitmentNumber::new(n).unwrap();
            let mut secret = PerCommitmentSecret::generate(&seed, number).to_bytes();
            prop_assert_eq!(secret, chan_utils::build_commitment_secret(&seed, number.index()));
            secret[0] ^= u8::from(wrong == Some(n));
            let accepted = ours.insert(number, PerCommitmentSecret::from_bytes(secret)).is_ok();
            prop_assert_eq!(accepted, theirs.provide_secret(number.index(), secret).is_ok());
            if !accepted {
                break;
            }
        }
        for n in 0..count {
            let number = CommitmentNumber::new(n).unwrap();
            if let Some(secret) = ours.get(number) {
                prop_assert_eq!(Some(secret.to_bytes()), theirs.get_secret(number.index()));
            } else {
                prop_assert!(number.index() < theirs.get_min_seen_secret());
            }
        }
    }
}

/// Our basepoints from LDK's.
fn our_keys(keys: &ChannelPublicKeys) -> Basepoints {
    Basepoints {
        funding: keys.funding_pubkey,
        revocation: keys.revocation_basepoint.to_public_key(),
        payment: keys.payment_point,
        delayed_payment: keys.delayed_payment_basepoint.to_public_key(),
        htlc: keys.htlc_basepoint.to_public_key(),
    }
}

/// What a victim with LDK's signer knows of its channel.
fn victim_parameters(
    commitment: &Commitment,
    parties: &CommitmentParties,
) -> ChannelTransactionParameters {
    let mut parameters = ldk_parameters(commitment, parties);
    let cheater =
        std::mem::replace(&mut parameters.holder_pubkeys, ldk_keys(&parties.countersignatory));
    parameters.holder_selected_contest_delay = commitment.to_self_delay.value();
    parameters.counterparty_parameters = Some(CounterpartyChannelTransactionParameters {
        pubkeys: cheater,
        selected_contest_delay: 1,
    });
    parameters
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn penalties_are_those_of_ldk(
        (commitment, parties, point) in channel(),
        feerate in 253u64..20_000,
    ) {
        let built = commitment.build().unwrap();
        let state = RevokedState::of(&commitment, &built).unwrap();
        let penalties = state.penalties(&built.transaction).unwrap();
        let ldk = ldk_commitment(&commitment, &built, &parties, &point);
        let trusted = ldk.trust();
        let (keys, features) = (trusted.keys(), ldk_features(commitment.format));

        let (delayed, htlcs): (Vec<_>, Vec<_>) =
            penalties.iter().partition(|penalty| penalty.kind == PenaltyKind::ToLocal);
        prop_assert_eq!(delayed.len(), usize::from(built.to_local.is_some()));
        prop_assert_eq!(htlcs.len(), ldk.nondust_htlcs().len());
        for (ours, theirs) in htlcs.iter().zip(ldk.nondust_htlcs()) {
            let script = chan_utils::get_htlc_redeemscript(theirs, &features, keys);
            prop_assert_eq!(ours.witness_script(), script);
            prop_assert_eq!(Some(ours.outpoint.vout), theirs.transaction_output_index);
            let second = chan_utils::build_htlc_transaction(
                &trusted.txid(),
                commitment.feerate.to_sat_per_kwu() as u32,
                commitment.to_self_delay.value(),
                theirs,
                &features,
                &keys.broadcaster_delayed_payment_key,
                &keys.revocation_key,
            );
            let second_penalties = state.second_stage(&second);
            prop_assert_eq!(second_penalties.len(), 1);
            prop_assert_eq!(&second_penalties[0].output, &second.output[0]);
        }
        for ours in delayed {
            let script = chan_utils::get_revokeable_redeemscript(
                &keys.revocation_key,
                commitment.to_self_delay.value(),
                &keys.broadcaster_delayed_payment_key,
            );
            prop_assert_eq!(ours.witness_script(), script);
            let rate = FeeRate::from_sat_per_kwu(feerate);
            let theirs = trusted.build_to_local_justice_tx(feerate, sweep_script());
            let (Ok(sweep), Ok(theirs)) = (ours.sweep_output(&sweep_script(), rate), theirs) else {
                continue;
            };
            prop_assert_eq!(ours.outpoint, theirs.input[0].previous_output);
            prop_assert_eq!(
                channel_contracts::justice::pair::PAIR_SEQUENCE,
                theirs.input[0].sequence
            );
            prop_assert_eq!(&sweep.script_pubkey, &theirs.output[0].script_pubkey);
            // LDK leaves out the segwit marker, allows 73 bytes of signature and assumes a delay
            // of two bytes: at most three weight units apart.
            let apart = sweep.value.to_sat().abs_diff(theirs.output[0].value.to_sat());
            prop_assert!(apart <= (3 * feerate).div_ceil(1000) + 1, "{} sat apart", apart);
        }
    }

    #[test]
    fn what_ldks_signer_signs_takes_our_penalties(
        seed in any::<[u8; 32]>(),
        cheater in secrets(),
        point_secret in key(),
        format in format(),
        htlcs in prop::collection::vec(htlc(), 0..4),
    ) {
        let secp = Secp256k1::new();
        let signer: InMemorySigner =
            KeysManager::new(&seed, 1, 1, true).derive_channel_keys(&[0; 32]);
        let parties = CommitmentParties {
            broadcaster: cheater.basepoints(&secp),
            countersignatory: our_keys(&signer.pubkeys(&secp)),
        };
        let point = PerCommitmentPoint(point_secret.public_key(&secp));
        let in_htlcs: u64 = htlcs.iter().map(|htlc| htlc.amount_msat).sum();
        let commitment = Commitment {
            funding_outpoint: OutPoint::new(Txid::from_byte_array(seed), 1),
            funding_value: Amount::from_sat(CHANNEL_SAT),
            format,
            number: CommitmentNumber::FIRST,
            obscure_factor: ObscureFactor::derive(&parties, Side::Broadcaster),
            keys: CommitmentKeys::derive(&secp, &point, &parties).unwrap(),
            to_self_delay: relative::Height::from_height(144),
            dust_limit: Amount::from_sat(354),
            feerate: FeeRate::from_sat_per_kwu(253),
            opener: Side::Broadcaster,
            to_broadcaster_msat: CHANNEL_SAT * 1000 - in_htlcs,
            to_countersignatory_msat: 0,
            htlcs,
        };
        let built = commitment.build().unwrap();
        let state = RevokedState::of(&commitment, &built).unwrap();
        let parameters = victim_parameters(&commitment, &parties);
        let secret = RevocationSecret::new(chan_utils::derive_private_revocation_key(
            &secp, &point_secret, &signer.revocation_base_key,
        ));
        for penalty in state.penalties(&built.transaction).unwrap() {
            let mut sweep = penalty.output.clone();
            sweep.script_pubkey = sweep_script();
            let version = format.transaction_version();
            let pair = sign_pair(&secp, secret.expose(), &penalty, sweep, version).unwrap();
            let mut alone = combine(&[pair], None).unwrap();
            let spent = std::slice::from_ref(&penalty.output);
            prop_assert_eq!(interpret(&alone, 0, spent), Ok(()), "our signature");

            let sat = penalty.output.value.to_sat();
            let theirs = match &penalty.contract {
                PenaltyContract::Delayed(_) => signer.sign_justice_revoked_output(
                    &parameters, &alone, 0, sat, &point_secret, &secp,
                ),
                PenaltyContract::Htlc(script) => signer.sign_justice_revoked_htlc(
                    &parameters, &alone, 0, sat, &point_secret,
                    &ldk_htlc(&script.htlc, Some(penalty.outpoint.vout)), &secp,
                ),
            };
            let theirs = bitcoin::ecdsa::Signature::sighash_all(theirs.unwrap());
            alone.input[0].witness = penalty.witness(&theirs);
            prop_assert_eq!(interpret(&alone, 0, spent), Ok(()), "LDK's signature");
        }
    }

    #[test]
    fn signed_messages_are_those_of_ldk(
        message in prop::collection::vec(any::<u8>(), 0..200),
        secret in key(),
        text in "[ybndrfg8ejkmcpqxot1uwisza345h769]{104}",
    ) {
        let secp = Secp256k1::new();
        let signature = open_protocol::sign(&secp, &message, &secret);
        prop_assert_eq!(&signature, &message_signing::sign(&message, &secret));
        prop_assert_eq!(
            open_protocol::recover(&secp, &message, &text).ok(),
            message_signing::recover_pk(&message, &text).ok()
        );
    }
}
