//! The closing transaction that both sides of a channel have signed, as a stranger can check it.
//!
//! A side that lost power between signing and hearing the other's signature does not know that
//! its channel is closed; the other can show it. What counts is that both keys of the funding
//! output signed, and that it is no commitment: an old one of those is signed by both too.
//!
//! Source: BOLT 2, "Channel Close"; BOLT 3, "Closing Transaction" and "Commitment Transaction".

use bitcoin::ecdsa::Signature;
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::{OutPoint, Script, Transaction, TxOut, Witness};

use super::FundingScript;

/// Why a transaction is not the closing transaction of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClosingError {
    /// It spends something else, or more.
    #[error("it does not spend {funding} alone")]
    OtherInput {
        /// The funding output.
        funding: OutPoint,
    },
    /// It is a commitment by its form.
    #[error("it is a commitment transaction")]
    Commitment,
    /// Its witness is not that of a funding output with this script.
    #[error("its witness is not that of the funding output")]
    Witness,
    /// A signature is wrong.
    #[error("the signature of {key} is wrong")]
    Signature {
        /// The funding key whose it should be.
        key: PublicKey,
    },
}

/// Tells whether `transaction` has the form of a commitment: the upper 8 bits of the locktime are
/// 0x20, those of the sequence 0x80. No closing transaction has both.
pub fn has_commitment_form(transaction: &Transaction) -> bool {
    let upper = |bits: u32| bits >> 24;
    let sequence = transaction.input.first().map_or(0, |input| input.sequence.0);
    upper(transaction.lock_time.to_consensus_u32()) == 0x20 && upper(sequence) == 0x80
}

/// Checks that `transaction` spends `funding`, an output `output` of a channel, alone, with the
/// signatures of both sides over all of it, and is no commitment.
///
/// # Errors
///
/// [`ClosingError`] naming what is not so.
pub fn verify_closing(
    transaction: &Transaction,
    funding: OutPoint,
    output: &TxOut,
) -> Result<(), ClosingError> {
    let [input] = &transaction.input[..] else {
        return Err(ClosingError::OtherInput { funding });
    };
    if input.previous_output != funding {
        return Err(ClosingError::OtherInput { funding });
    }
    if has_commitment_form(transaction) {
        return Err(ClosingError::Commitment);
    }
    let (script, signed) = read_witness(&input.witness).ok_or(ClosingError::Witness)?;
    if script.witness_script().to_p2wsh() != output.script_pubkey {
        return Err(ClosingError::Witness);
    }
    let sighash = SighashCache::new(transaction)
        .p2wsh_signature_hash(0, &script.witness_script(), output.value, EcdsaSighashType::All)
        .map_err(|_| ClosingError::Witness)?;
    let (secp, message) = (Secp256k1::verification_only(), Message::from(sighash));
    for (key, signature) in script.keys().into_iter().zip(signed) {
        let is_whole = signature.sighash_type == EcdsaSighashType::All;
        if !is_whole || secp.verify_ecdsa(&message, &signature.signature, &key).is_err() {
            return Err(ClosingError::Signature { key });
        }
    }
    Ok(())
}

/// The script and the signatures of a witness that spends a funding output, in the script's order.
fn read_witness(witness: &Witness) -> Option<(FundingScript, [Signature; 2])> {
    let [nothing, first, second, script] = witness.iter().collect::<Vec<_>>()[..] else {
        return None;
    };
    if !nothing.is_empty() || script.len() != 71 {
        return None;
    }
    let key = |from: usize| PublicKey::from_slice(&script[from..from + 33]).ok();
    let keys = FundingScript::new(key(2)?, key(36)?);
    if keys.witness_script().as_script() != Script::from_bytes(script) {
        return None;
    }
    let signature = |bytes: &[u8]| Signature::from_slice(bytes).ok();
    Some((keys, [signature(first)?, signature(second)?]))
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::SecretKey;
    use bitcoin::{Amount, ScriptBuf, Sequence, TxIn, Txid, absolute, transaction};

    use super::*;

    fn secrets() -> [SecretKey; 2] {
        [1, 2].map(|byte| SecretKey::from_slice(&[byte; 32]).unwrap())
    }

    fn funding() -> (OutPoint, TxOut) {
        let keys = secrets().map(|secret| secret.public_key(&Secp256k1::new()));
        let script_pubkey = FundingScript::new(keys[0], keys[1]).script_pubkey();
        let outpoint = OutPoint { txid: Txid::all_zeros(), vout: 3 };
        (outpoint, TxOut { value: Amount::from_sat(100_000), script_pubkey })
    }

    fn unsigned(lock_time: u32, sequence: u32) -> Transaction {
        let (previous_output, _) = funding();
        Transaction {
            version: transaction::Version::TWO,
            lock_time: absolute::LockTime::from_consensus(lock_time),
            input: vec![TxIn { previous_output, sequence: Sequence(sequence), ..TxIn::default() }],
            output: vec![TxOut {
                value: Amount::from_sat(99_000),
                script_pubkey: ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::all_zeros()),
            }],
        }
    }

    fn sign(mut transaction: Transaction, by: [SecretKey; 2]) -> Transaction {
        let secp = Secp256k1::new();
        let (_, output) = funding();
        let keys = secrets().map(|secret| secret.public_key(&secp));
        let script = FundingScript::new(keys[0], keys[1]);
        let sighash = SighashCache::new(&transaction)
            .p2wsh_signature_hash(0, &script.witness_script(), output.value, EcdsaSighashType::All)
            .unwrap();
        let signed = [0, 1].map(|side: usize| {
            let signature = secp.sign_ecdsa(&Message::from(sighash), &by[side]);
            (keys[side], Signature::sighash_all(signature))
        });
        transaction.input[0].witness = script.witness(signed).unwrap();
        transaction
    }

    fn closing() -> Transaction {
        sign(unsigned(0, 0xffff_ffff), secrets())
    }

    #[test]
    fn what_both_signed_is_taken_and_nothing_else() {
        let (outpoint, output) = funding();
        let check = |transaction: &Transaction| verify_closing(transaction, outpoint, &output);
        assert_eq!(check(&closing()), Ok(()));

        let [ours, _] = secrets();
        let alone = check(&sign(unsigned(0, 0xffff_ffff), [ours, ours]));
        assert!(matches!(alone, Err(ClosingError::Signature { .. })), "{alone:?}");

        let commitment = check(&sign(unsigned(0x2012_3456, 0x8065_4321), secrets()));
        assert_eq!(commitment, Err(ClosingError::Commitment));

        let mut changed = closing();
        changed.output[0].value -= Amount::ONE_SAT;
        assert!(matches!(check(&changed), Err(ClosingError::Signature { .. })));

        let mut more = closing();
        more.input.push(TxIn::default());
        assert_eq!(check(&more), Err(ClosingError::OtherInput { funding: outpoint }));
        let other = OutPoint { vout: 4, ..outpoint };
        assert_eq!(
            verify_closing(&closing(), other, &output),
            Err(ClosingError::OtherInput { funding: other })
        );

        let mut bare = closing();
        bare.input[0].witness = Witness::new();
        assert_eq!(check(&bare), Err(ClosingError::Witness));
        let elsewhere = TxOut { script_pubkey: ScriptBuf::new(), ..output.clone() };
        let refused = verify_closing(&closing(), outpoint, &elsewhere);
        assert_eq!(refused, Err(ClosingError::Witness));
    }

    #[test]
    fn only_both_marks_make_a_commitment() {
        for (lock_time, sequence, expected) in [
            (0x2012_3456, 0x8065_4321, true),
            (0, 0xffff_ffff, false),
            (0, 0xffff_fffd, false),
            (800_000, 0x8065_4321, false),
            (0x2012_3456, 0xffff_fffd, false),
        ] {
            assert_eq!(has_commitment_form(&unsigned(lock_time, sequence)), expected);
        }
    }
}
