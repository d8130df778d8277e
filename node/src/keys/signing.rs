//! Signatures of wallet coins: BIP 86 key spends named by their origin in a PSBT.
//!
//! Signs nothing else: not LDK's inputs (LDK signs those), not script paths. Which coins are
//! ours, and that amounts are true, is checked by `wallet/` before.

use bitcoin::bip32::DerivationPath;
use bitcoin::key::{Keypair, TapTweak};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Message;
use bitcoin::sighash::{Prevouts, SighashCache};
use bitcoin::{TapSighashType, taproot};

use super::{BIP86_PURPOSE, Keys, hardened};

/// Why a PSBT cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// A taproot signature commits to every amount spent, so all of them must be known.
    #[error("input {index} has no witness_utxo; a taproot signature commits to every spent output")]
    MissingPrevout {
        /// The input's index.
        index: usize,
    },
    /// The input claims a path of ours for a key that is not there.
    #[error("input {index} has another internal key than the one at its path {path}")]
    ForeignKey {
        /// The input's index.
        index: usize,
        /// The path in the PSBT.
        path: DerivationPath,
    },
    /// The input asks for a signature that leaves parts of the transaction open.
    #[error("input {index} asks for another sighash than SIGHASH_DEFAULT or SIGHASH_ALL")]
    Sighash {
        /// The input's index.
        index: usize,
    },
}

impl Keys {
    /// Signs every input whose taproot internal key has an origin in our wallet account.
    /// Inputs of others are left as they are. Returns how many were signed.
    ///
    /// Signatures use no auxiliary randomness (BIP 340 allows that): one PSBT, one signature.
    ///
    /// # Errors
    ///
    /// [`SignError`]; the PSBT is unchanged then.
    pub fn sign_wallet_inputs(&self, psbt: &mut Psbt) -> Result<usize, SignError> {
        let mut ours = Vec::new();
        for (index, input) in psbt.inputs.iter().enumerate() {
            let Some(claimed) = input.tap_internal_key else {
                continue;
            };
            let Some((_, (fingerprint, path))) = input.tap_key_origins.get(&claimed) else {
                continue;
            };
            let account = hardened(&[BIP86_PURPOSE, self.coin(), 0]);
            if *fingerprint == self.fingerprint() && path.as_ref().starts_with(account.as_ref()) {
                ours.push((index, claimed, path.clone()));
            }
        }
        let mut prevouts = Vec::with_capacity(psbt.inputs.len());
        for (index, input) in psbt.inputs.iter().enumerate() {
            let spent = psbt.unsigned_tx.input[index].previous_output.vout as usize;
            let from_tx = input.non_witness_utxo.as_ref();
            let prevout = input
                .witness_utxo
                .clone()
                .or_else(|| from_tx.and_then(|tx| tx.output.get(spent).cloned()));
            prevouts.push(prevout.ok_or(SignError::MissingPrevout { index })?);
        }

        let master = self.master();
        let mut signatures = Vec::with_capacity(ours.len());
        let mut cache = SighashCache::new(&psbt.unsigned_tx);
        for (index, claimed, path) in ours {
            let sighash_type = match psbt.inputs[index].sighash_type {
                None => TapSighashType::Default,
                Some(asked) => match asked.taproot_hash_ty() {
                    Ok(kind @ (TapSighashType::Default | TapSighashType::All)) => kind,
                    _ => return Err(SignError::Sighash { index }),
                },
            };
            let key =
                master.derive_priv(&self.secp, &path).expect("BIP 32 fails for one key in 2^127");
            let pair = Keypair::from_secret_key(&self.secp, &key.private_key);
            if pair.x_only_public_key().0 != claimed {
                return Err(SignError::ForeignKey { index, path });
            }
            let sighash = cache
                .taproot_key_spend_signature_hash(index, &Prevouts::All(&prevouts), sighash_type)
                .expect("index and prevouts belong to this transaction");
            let mut tweaked =
                pair.tap_tweak(&self.secp, psbt.inputs[index].tap_merkle_root).to_keypair();
            let signature = taproot::Signature {
                signature: self.secp.sign_schnorr_no_aux_rand(&Message::from(sighash), &tweaked),
                sighash_type,
            };
            tweaked.non_secure_erase();
            signatures.push((index, signature));
        }
        let signed = signatures.len();
        for (index, signature) in signatures {
            psbt.inputs[index].tap_key_sig = Some(signature);
        }
        Ok(signed)
    }
}
