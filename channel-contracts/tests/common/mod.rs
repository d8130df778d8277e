//! What the tests of this crate share: fixed keys, and Bitcoin Core's script interpreter.
#![allow(dead_code)]

pub mod batch;
pub mod breach;
pub mod swap;
pub mod world;

use bitcoin::consensus::serialize;
use bitcoin::ecdsa::Signature;
use bitcoin::secp256k1::{All, Message, PublicKey, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, absolute,
    hashes::Hash, transaction,
};
use channel_contracts::script::{Basepoints, CommitmentParties};

/// Runs one input of `transaction` through Bitcoin Core's interpreter, all soft forks on.
pub fn interpret(
    transaction: &Transaction,
    input: usize,
    spent: &[TxOut],
) -> Result<(), bitcoinconsensus::Error> {
    let utxos: Vec<_> = spent
        .iter()
        .map(|output| bitcoinconsensus::Utxo {
            script_pubkey: output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: output.script_pubkey.len() as u32,
            value: output.value.to_sat() as i64,
        })
        .collect();
    bitcoinconsensus::verify(
        spent[input].script_pubkey.as_bytes(),
        spent[input].value.to_sat(),
        &serialize(transaction),
        Some(&utxos),
        input,
    )
}

/// A transaction that spends one output and pays it on.
#[derive(Clone)]
pub struct Spend {
    pub output: TxOut,
    pub script: ScriptBuf,
    pub transaction: Transaction,
}

impl Spend {
    /// Spends `output`, whose signatures commit to `script`.
    pub fn new(output: TxOut, script: ScriptBuf, sequence: Sequence, lock_height: u32) -> Self {
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::from_height(lock_height).unwrap(),
            input: vec![TxIn {
                previous_output: OutPoint::new(Txid::from_byte_array([0x11; 32]), 0),
                script_sig: ScriptBuf::new(),
                sequence,
                witness: Witness::new(),
            }],
            output: vec![TxOut {
                value: output.value,
                script_pubkey: ScriptBuf::new_op_return([]),
            }],
        };
        Self { output, script, transaction }
    }

    /// Signs with SIGHASH_ALL.
    pub fn sign(&self, key: &SecretKey) -> Signature {
        self.sign_as(key, EcdsaSighashType::All)
    }

    /// Signs with any sighash type.
    pub fn sign_as(&self, key: &SecretKey, sighash_type: EcdsaSighashType) -> Signature {
        sign(&self.transaction, &self.script, self.output.value, key, sighash_type)
    }

    /// Runs it with `witness`.
    pub fn run(&self, witness: Witness) -> Result<(), bitcoinconsensus::Error> {
        let mut transaction = self.transaction.clone();
        transaction.input[0].witness = witness;
        interpret(&transaction, 0, std::slice::from_ref(&self.output))
    }
}

/// Signs the only input of `transaction` by BIP 143.
pub fn sign(
    transaction: &Transaction,
    script: &ScriptBuf,
    value: Amount,
    key: &SecretKey,
    sighash_type: EcdsaSighashType,
) -> Signature {
    let hash = SighashCache::new(transaction)
        .p2wsh_signature_hash(0, script, value, sighash_type)
        .unwrap();
    let message = Message::from_digest(hash.to_byte_array());
    Signature { signature: Secp256k1::new().sign_ecdsa(&message, key), sighash_type }
}

/// The secrets of one side.
#[derive(Debug, Clone, Copy)]
pub struct Secrets {
    pub funding: SecretKey,
    pub revocation: SecretKey,
    pub payment: SecretKey,
    pub delayed_payment: SecretKey,
    pub htlc: SecretKey,
}

impl Secrets {
    /// Five different keys from one byte.
    pub fn from_byte(byte: u8) -> Self {
        let key = |n: u8| {
            let mut bytes = [byte; 32];
            bytes[31] = n;
            SecretKey::from_slice(&bytes).unwrap()
        };
        Self {
            funding: key(1),
            revocation: key(2),
            payment: key(3),
            delayed_payment: key(4),
            htlc: key(5),
        }
    }

    pub fn basepoints(&self, secp: &Secp256k1<All>) -> Basepoints {
        let public = |key: &SecretKey| PublicKey::from_secret_key(secp, key);
        Basepoints {
            funding: public(&self.funding),
            revocation: public(&self.revocation),
            payment: public(&self.payment),
            delayed_payment: public(&self.delayed_payment),
            htlc: public(&self.htlc),
        }
    }
}

/// Both sides' basepoints.
pub fn parties(
    secp: &Secp256k1<All>,
    broadcaster: &Secrets,
    countersignatory: &Secrets,
) -> CommitmentParties {
    CommitmentParties {
        broadcaster: broadcaster.basepoints(secp),
        countersignatory: countersignatory.basepoints(secp),
    }
}
