//! Builds a commitment transaction with one payment in flight and prints where each part
//! stands, then shows what the peer can take if the state was revoked.
//!
//! Run with `cargo run -p channel-contracts --example commitment`.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use bitcoin::{Amount, FeeRate, OutPoint, Txid, absolute, relative};
use channel_contracts::script::{
    Basepoints, Commitment, CommitmentFormat, CommitmentKeys, CommitmentNumber, CommitmentParties,
    Htlc, HtlcDirection, ObscureFactor, PerCommitmentSecret, Preimage, Side,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let secp = Secp256k1::new();

    // Fixed bytes instead of a wallet: never do this with money.
    let basepoints = |byte: u8| -> Result<Basepoints, bitcoin::secp256k1::Error> {
        let key = |n: u8| -> Result<PublicKey, bitcoin::secp256k1::Error> {
            Ok(SecretKey::from_slice(&[byte + n; 32])?.public_key(&secp))
        };
        Ok(Basepoints {
            funding: key(0)?,
            revocation: key(1)?,
            payment: key(2)?,
            delayed_payment: key(3)?,
            htlc: key(4)?,
        })
    };
    let parties =
        CommitmentParties { broadcaster: basepoints(0x10)?, countersignatory: basepoints(0x20)? };

    // The third commitment of the broadcaster.
    let number = CommitmentNumber::new(2).ok_or("48 bits")?;
    let secret = PerCommitmentSecret::generate(&[0x42; 32], number);
    let keys = CommitmentKeys::derive(&secp, &secret.point(&secp)?, &parties)?;

    let commitment = Commitment {
        funding_outpoint: OutPoint::new(Txid::all_zeros(), 0),
        funding_value: Amount::from_sat(1_000_000),
        format: CommitmentFormat::ZeroFee,
        number,
        obscure_factor: ObscureFactor::derive(&parties, Side::Broadcaster),
        keys,
        to_self_delay: relative::Height::from_height(144),
        dust_limit: Amount::from_sat(354),
        feerate: FeeRate::ZERO,
        opener: Side::Broadcaster,
        to_broadcaster_msat: 700_000_000,
        to_countersignatory_msat: 249_999_500,
        htlcs: vec![Htlc {
            direction: HtlcDirection::Offered,
            amount_msat: 50_000_500,
            payment_hash: Preimage([7; 32]).hash(),
            cltv_expiry: absolute::Height::from_consensus(900_000)?,
        }],
    };
    let built = commitment.build()?;

    println!("commitment {number}: {}", built.transaction.compute_txid());
    for (vout, output) in (0u32..).zip(&built.transaction.output) {
        let htlc = built.htlcs.iter().find(|htlc| htlc.outpoint.vout == vout);
        let part = match htlc {
            Some(htlc) => format!("{:?} HTLC", htlc.script.htlc.direction),
            None if built.to_local == Some(vout) => "to_local, delayed 144 blocks".to_owned(),
            None if built.to_remote == Some(vout) => "to_remote".to_owned(),
            None => "anchor".to_owned(),
        };
        println!("  output {vout}: {:>14}  {part}", output.value.to_string());
    }
    println!(
        "once revoked, the peer signs for {} and takes to_local and the HTLC",
        keys.revocation
    );
    Ok(())
}
