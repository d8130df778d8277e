//! Our transactions against LDK's, for random keys, balances and HTLCs.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, Txid, absolute, relative};
use channel_contracts::script::anchor::pay_to_anchor;
use channel_contracts::script::keys::{revocation_secret, secret_key};
use channel_contracts::script::{
    Basepoints, BuiltCommitment, Commitment, CommitmentFormat, CommitmentKeys, CommitmentNumber,
    CommitmentParties, FundingScript, Htlc, HtlcDirection, KeyedAnchor, ObscureFactor,
    PerCommitmentPoint, PerCommitmentSecret, Preimage, RevocationSecrets, SecretStore, Side,
};
use common::{Secrets, parties};
use lightning::ln::chan_utils::{
    self, ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    CounterpartyChannelTransactionParameters, CounterpartyCommitmentSecrets,
    HTLCOutputInCommitment,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
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
