//! A channel whose counterparty publishes a revoked commitment with HTLCs both ways.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, CompressedPublicKey, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    Txid, Witness, absolute, relative,
};
use channel_contracts::justice::{FeeRider, RevokedState};
use channel_contracts::script::keys::{revocation_secret, secret_key};
use channel_contracts::script::{
    BuiltCommitment, Commitment, CommitmentFormat, CommitmentKeys, CommitmentNumber, Htlc,
    HtlcDirection, HtlcSignatures, HtlcTransaction, ObscureFactor, PerCommitmentPoint, Preimage,
    RevocationSecrets, Side,
};

use super::{Secrets, interpret, parties, sign};

pub const FORMATS: [CommitmentFormat; 3] =
    [CommitmentFormat::StaticRemoteKey, CommitmentFormat::Anchors, CommitmentFormat::ZeroFee];
pub const PREIMAGE: Preimage = Preimage([0x5a; 32]);
pub const EXPIRY: u32 = 700;
pub const DELAY: u16 = 144;

/// A revoked commitment of a cheater, and all secrets of both sides.
pub struct Breach {
    pub commitment: Commitment,
    pub built: BuiltCommitment,
    pub state: RevokedState,
    /// The revocation secret of the state.
    pub secret: SecretKey,
    pub cheater_htlc: SecretKey,
    pub victim_htlc: SecretKey,
}

pub fn stranger() -> SecretKey {
    SecretKey::from_slice(&[0x99; 32]).unwrap()
}

/// Where the victim's money goes.
pub fn sweep_script() -> ScriptBuf {
    let key = stranger().public_key(&Secp256k1::new()).x_only_public_key().0;
    ScriptBuf::new_p2tr(&Secp256k1::new(), key, None)
}

pub fn htlc(direction: HtlcDirection, sat: u64) -> Htlc {
    Htlc {
        direction,
        amount_msat: sat * 1000 + 999,
        payment_hash: PREIMAGE.hash(),
        cltv_expiry: absolute::Height::from_consensus(EXPIRY).unwrap(),
    }
}

/// The usual HTLCs: two large, two that high fees make dust, one trimmed.
pub fn htlcs() -> Vec<Htlc> {
    use HtlcDirection::{Offered, Received};
    vec![
        htlc(Offered, 50_000),
        htlc(Received, 60_000),
        htlc(Offered, 3_000),
        htlc(Received, 4_000),
        htlc(Received, 100),
    ]
}

impl Breach {
    pub fn new(format: CommitmentFormat) -> Self {
        Self::with(format, htlcs(), 300_000_000)
    }

    /// A channel of a million sat in which the cheater has `balance_msat` besides the HTLCs.
    pub fn with(format: CommitmentFormat, htlcs: Vec<Htlc>, balance_msat: u64) -> Self {
        let secp = Secp256k1::new();
        let (cheater, victim) = (Secrets::from_byte(0xb0), Secrets::from_byte(0xc0));
        let per_commitment_secret = SecretKey::from_slice(&[0x77; 32]).unwrap();
        let point = PerCommitmentPoint(per_commitment_secret.public_key(&secp));
        let parties = parties(&secp, &cheater, &victim);
        let funding_value = Amount::from_sat(1_000_000);
        let in_htlcs: u64 = htlcs.iter().map(|htlc| htlc.amount_msat).sum();
        let commitment = Commitment {
            funding_outpoint: OutPoint::new(Txid::from_byte_array([0x44; 32]), 1),
            funding_value,
            format,
            number: CommitmentNumber::new(42).unwrap(),
            obscure_factor: ObscureFactor::derive(&parties, Side::Broadcaster),
            keys: CommitmentKeys::derive(&secp, &point, &parties).unwrap(),
            to_self_delay: relative::Height::from_height(DELAY),
            dust_limit: Amount::from_sat(354),
            feerate: FeeRate::from_sat_per_kwu(1_000),
            opener: Side::Countersignatory,
            to_broadcaster_msat: balance_msat,
            to_countersignatory_msat: funding_value.to_sat() * 1000 - in_htlcs - balance_msat,
            htlcs,
        };
        let built = commitment.build().unwrap();
        let secrets = RevocationSecrets {
            revocation_basepoint_secret: victim.revocation,
            per_commitment_secret,
        };
        Self {
            state: RevokedState::of(&commitment, &built).unwrap(),
            secret: revocation_secret(&secp, &secrets).unwrap(),
            cheater_htlc: secret_key(&secp, &point, &cheater.htlc).unwrap(),
            victim_htlc: secret_key(&secp, &point, &victim.htlc).unwrap(),
            commitment,
            built,
        }
    }

    pub fn transaction(&self) -> &Transaction {
        &self.built.transaction
    }

    /// Finds the output that an input spends, in the commitment, in `more`, or as a coin.
    pub fn spent_by(&self, transaction: &Transaction, more: &[Transaction]) -> Vec<TxOut> {
        let known: Vec<&Transaction> = more.iter().chain([self.transaction()]).collect();
        let output = |input: &TxIn| {
            let OutPoint { txid, vout } = input.previous_output;
            let parent = known.iter().find(|parent| parent.compute_txid() == txid);
            parent.map_or_else(coin, |parent| parent.output[vout as usize].clone())
        };
        transaction.input.iter().map(output).collect()
    }

    /// Runs all inputs of a transaction.
    pub fn run(&self, transaction: &Transaction, more: &[Transaction]) -> Result<(), usize> {
        let spent = self.spent_by(transaction, more);
        (0..spent.len())
            .try_for_each(|input| interpret(transaction, input, &spent).map_err(|_| input))
    }

    /// The cheater's second-stage transaction of one HTLC, signed by both, with a fee input and
    /// output of its own in front or behind where the format allows that.
    pub fn second_stage(&self, htlc: &HtlcTransaction, coin_in_front: Option<bool>) -> Transaction {
        let format = self.commitment.format;
        let agreed = htlc.unsigned().unwrap();
        let (script, value) = (htlc.script.witness_script(), htlc.script.htlc.value());
        let theirs = format.countersignatory_htlc_sighash();
        let countersignatory = sign(&agreed, &script, value, &self.victim_htlc, theirs);
        let mut transaction = agreed;
        let change = TxOut { value: Amount::from_sat(10_000), script_pubkey: sweep_script() };
        match coin_in_front {
            None => {}
            Some(true) => {
                transaction.input.insert(0, coin_input(7));
                transaction.output.insert(0, change);
            }
            Some(false) => {
                transaction.input.push(coin_input(7));
                transaction.output.push(change);
            }
        }
        let index = usize::from(coin_in_front == Some(true));
        let sighash_type = EcdsaSighashType::All;
        let hash = SighashCache::new(&transaction)
            .p2wsh_signature_hash(index, &script, value, sighash_type)
            .unwrap();
        let signature = Secp256k1::new().sign_ecdsa(&Message::from(hash), &self.cheater_htlc);
        let broadcaster = bitcoin::ecdsa::Signature { signature, sighash_type };
        let signatures = HtlcSignatures { countersignatory, broadcaster };
        let received = htlc.script.htlc.direction == HtlcDirection::Received;
        transaction.input[index].witness =
            htlc.witness(&signatures, received.then_some(&PREIMAGE)).unwrap();
        if coin_in_front.is_some() {
            sign_coin(&mut transaction, 1 - index);
        }
        transaction
    }
}

/// A coin of somebody's wallet.
pub fn coin() -> TxOut {
    let key = CompressedPublicKey(stranger().public_key(&Secp256k1::new()));
    TxOut {
        value: Amount::from_sat(20_000),
        script_pubkey: ScriptBuf::new_p2wpkh(&key.wpubkey_hash()),
    }
}

/// The input that spends a coin, not signed.
pub fn coin_input(number: u8) -> TxIn {
    TxIn {
        previous_output: OutPoint::new(Txid::from_byte_array([number; 32]), 0),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..TxIn::default()
    }
}

/// Signs a coin's input over the whole transaction.
pub fn sign_coin(transaction: &mut Transaction, index: usize) {
    let (output, sighash_type) = (coin(), EcdsaSighashType::All);
    let hash = SighashCache::new(&*transaction)
        .p2wpkh_signature_hash(index, &output.script_pubkey, output.value, sighash_type)
        .unwrap();
    let signature = Secp256k1::new().sign_ecdsa(&Message::from(hash), &stranger());
    let signature = bitcoin::ecdsa::Signature { signature, sighash_type };
    let key = stranger().public_key(&Secp256k1::new());
    transaction.input[index].witness = Witness::p2wpkh(&signature, &key);
}

/// One coin and its change, not signed.
pub fn rider() -> FeeRider {
    let change = TxOut { value: Amount::from_sat(15_000), script_pubkey: sweep_script() };
    FeeRider { inputs: vec![coin_input(8)], outputs: vec![change] }
}
