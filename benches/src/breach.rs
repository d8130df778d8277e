//! Appointments for a tower that is measured: one that answers a breach, and noise.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid,
    Witness, absolute, relative, transaction,
};
use channel_contracts::justice::{RevokedKeys, RevokedState, RevokedTerms, RevokedToLocal};
use channel_contracts::script::{CommitmentFormat, ToLocal};
use channel_contracts::tower::{Appointment, ChannelTag, FeeLevels, Locator, Remedy, SealedBlob};
use node::chain::Broadcaster;
use node::chain::embedded::EmbeddedChain;
use node::tower::server::SignedAppointment;
use tokio::time::Instant;

use crate::Failure;

const CAPACITY: Amount = Amount::from_sat(1_000_000);
const FEE: Amount = Amount::from_sat(500);
const DELAY: u16 = 144;
/// The channel of all appointments.
const CHANNEL: ChannelTag = ChannelTag([7; 16]);
/// Bytes of a blind remedy's blob without HTLCs at three feerates.
const BLOB: usize = 350;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A revoked commitment that is about to be published.
pub struct Breach {
    commitment: Transaction,
    state: RevokedState,
    secret: SecretKey,
}

impl Breach {
    /// Pays a coin of the chain to a revoked state.
    ///
    /// # Errors
    ///
    /// If the chain refuses.
    pub fn new(secp: &Secp256k1<All>, chain: &EmbeddedChain, number: u8) -> Result<Self, Failure> {
        let key = |byte: u8| SecretKey::from_slice(&[byte, number].repeat(16));
        let (coin_key, secret) = (key(0x11)?, key(0x22)?);
        let coin_script =
            ScriptBuf::new_p2wpkh(&CompressedPublicKey(coin_key.public_key(secp)).wpubkey_hash());
        let funding = chain.fund(&coin_script, CAPACITY)?;
        chain.mine(1, &ScriptBuf::new_op_return([]));
        let keys = RevokedKeys {
            revocation: secret.public_key(secp),
            broadcaster_delayed: key(0x33)?.public_key(secp),
            broadcaster_htlc: key(0x44)?.public_key(secp),
            countersignatory_htlc: key(0x55)?.public_key(secp),
        };
        let to_self_delay = relative::Height::from(DELAY);
        let to_local = ToLocal {
            revocation_key: keys.revocation,
            delayed_key: keys.broadcaster_delayed,
            to_self_delay,
        };
        let value = CAPACITY - FEE;
        let mut commitment = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::ZERO,
            input: vec![TxIn {
                previous_output: funding,
                script_sig: ScriptBuf::new(),
                sequence: Sequence::MAX,
                witness: Witness::new(),
            }],
            output: vec![TxOut { value, script_pubkey: to_local.script_pubkey() }],
        };
        let sighash = SighashCache::new(&commitment).p2wpkh_signature_hash(
            0,
            &coin_script,
            CAPACITY,
            EcdsaSighashType::All,
        )?;
        let signature = bitcoin::ecdsa::Signature::sighash_all(
            secp.sign_ecdsa(&bitcoin::secp256k1::Message::from(sighash), &coin_key),
        );
        commitment.input[0].witness = Witness::p2wpkh(&signature, &coin_key.public_key(secp));
        let terms = RevokedTerms { format: CommitmentFormat::Anchors, keys, to_self_delay };
        let to_local = Some(RevokedToLocal { vout: 0, value });
        let state = RevokedState::new(commitment.compute_txid(), &terms, to_local, vec![])?;
        Ok(Self { commitment, state, secret })
    }

    /// What a client hands over for it.
    ///
    /// # Errors
    ///
    /// If no remedy can be made.
    pub fn appointment(
        &self,
        secp: &Secp256k1<All>,
        tower: PublicKey,
        client: &SecretKey,
        sequence: u64,
    ) -> Result<SignedAppointment, Failure> {
        let sweep = ScriptBuf::new_p2tr(secp, self.secret.x_only_public_key(secp).0, None);
        let levels = FeeLevels::default();
        let remedy = Remedy::blind(secp, self.state.clone(), sweep, &levels, &self.secret)?;
        let locator = Locator::of(self.commitment.compute_txid());
        let appointment = Appointment { channel: CHANNEL, sequence, locator, blob: remedy.seal()? };
        Ok(signed(secp, tower, client, appointment))
    }

    /// Mines the commitment, and returns how long the penalty took into the mempool, ms.
    ///
    /// # Errors
    ///
    /// If it does not come.
    pub async fn answered_in_block(&self, chain: &EmbeddedChain) -> Result<f64, Failure> {
        chain.submit(std::slice::from_ref(&self.commitment)).await?;
        // Faster than the tower looks at the mempool.
        chain.mine(1, &ScriptBuf::new_op_return([]));
        self.answered(chain).await
    }

    /// Publishes the commitment, and returns how long the penalty took, ms.
    ///
    /// # Errors
    ///
    /// If it does not come.
    pub async fn answered_in_mempool(&self, chain: &EmbeddedChain) -> Result<f64, Failure> {
        chain.submit(std::slice::from_ref(&self.commitment)).await?;
        self.answered(chain).await
    }

    async fn answered(&self, chain: &EmbeddedChain) -> Result<f64, Failure> {
        let began = Instant::now();
        let revoked = OutPoint { txid: self.commitment.compute_txid(), vout: 0 };
        while began.elapsed() < PATIENCE {
            if chain.spender(revoked).is_some() {
                return Ok(began.elapsed().as_secs_f64() * 1_000.0);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Err("the tower does not answer the breach".into())
    }
}

/// An appointment of the usual size for a transaction that will never be.
pub fn appointment(number: u64) -> Appointment {
    let noise = |part: u64| {
        let bytes = [number.to_be_bytes(), part.to_be_bytes()].concat();
        sha256::Hash::hash(&bytes).to_byte_array()
    };
    // Version and mode of a sealed blob, then noise.
    let mut blob = vec![1, 0];
    blob.extend((0..).flat_map(noise).take(BLOB - blob.len()));
    let blob = SealedBlob::decode(&blob).expect("a blob is noise to whoever cannot open it");
    let locator = Locator::of(Txid::from_byte_array(noise(u64::MAX)));
    Appointment { channel: CHANNEL, sequence: number + 1, locator, blob }
}

/// [`appointment`], as `client` hands it over.
pub fn filler(
    secp: &Secp256k1<All>,
    tower: PublicKey,
    client: &SecretKey,
    number: u64,
) -> SignedAppointment {
    signed(secp, tower, client, appointment(number))
}

fn signed(
    secp: &Secp256k1<All>,
    tower: PublicKey,
    client: &SecretKey,
    appointment: Appointment,
) -> SignedAppointment {
    let signature = secp.sign_ecdsa(&appointment.message_hash(&tower), client);
    SignedAppointment { appointment, signature }
}
