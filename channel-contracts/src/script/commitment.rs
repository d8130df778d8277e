//! The commitment transaction: its outputs, their order, and the number hidden in it.
//!
//! [`Commitment`] is the whole state of one side at one moment; [`Commitment::build`] turns it
//! into a transaction without signatures. Which states exist, and when one is revoked, is the
//! channel's business and stays outside.
//!
//! Source: BOLT 3, "Commitment Transaction" and "Commitment Transaction Construction".

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::{
    Amount, FeeRate, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, absolute,
    relative,
};

use super::CommitmentFormat;
use super::anchor::{KeyedAnchor, shared_anchor};
use super::htlc::{Htlc, HtlcScript};
use super::htlc_transaction::HtlcTransaction;
use super::keys::{CommitmentKeys, CommitmentParties};
use super::secrets::CommitmentNumber;
use super::to_local::ToLocal;

/// Upper byte of a commitment transaction's locktime, which makes it a time in the past.
const LOCK_TIME_MARK: u32 = 0x20;
/// Upper byte of a commitment transaction's sequence, which switches relative locks off.
const SEQUENCE_MARK: u32 = 0x80;
/// Low 24 bits, as much of the number as each field takes.
const HALF_MASK: u64 = 0xff_ffff;

/// One of the two sides of a commitment transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one whose commitment it is.
    Broadcaster,
    /// Its peer.
    Countersignatory,
}

/// The number that a channel's commitment numbers are XORed with: 48 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObscureFactor(u64);

impl ObscureFactor {
    /// Computes the factor of the channel between `parties` that `opener` opened.
    pub fn derive(parties: &CommitmentParties, opener: Side) -> Self {
        let (first, second) = match opener {
            Side::Broadcaster => (&parties.broadcaster, &parties.countersignatory),
            Side::Countersignatory => (&parties.countersignatory, &parties.broadcaster),
        };
        let mut engine = sha256::Hash::engine();
        engine.input(&first.payment.serialize());
        engine.input(&second.payment.serialize());
        let hash = sha256::Hash::from_engine(engine).to_byte_array();
        let low_48_bits = hash[26..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Self(low_48_bits)
    }

    /// Returns the factor.
    pub fn get(self) -> u64 {
        self.0
    }

    /// Returns the locktime and the input's sequence that hide `number`.
    pub fn hide(self, number: CommitmentNumber) -> (absolute::LockTime, Sequence) {
        let obscured = self.0 ^ number.get();
        let lock_time = LOCK_TIME_MARK << 24 | (obscured & HALF_MASK) as u32;
        let sequence = SEQUENCE_MARK << 24 | (obscured >> 24 & HALF_MASK) as u32;
        (absolute::LockTime::from_consensus(lock_time), Sequence(sequence))
    }

    /// Reads the number of a commitment transaction of this channel.
    ///
    /// `None` if the transaction has not the form of one. The caller has checked that its
    /// input spends the channel's funding output.
    pub fn reveal(self, transaction: &Transaction) -> Option<CommitmentNumber> {
        let [input] = transaction.input.as_slice() else {
            return None;
        };
        let lock_time = transaction.lock_time.to_consensus_u32();
        let sequence = input.sequence.to_consensus_u32();
        if lock_time >> 24 != LOCK_TIME_MARK || sequence >> 24 != SEQUENCE_MARK {
            return None;
        }
        let low = u64::from(lock_time) & HALF_MASK;
        let high = u64::from(sequence) & HALF_MASK;
        CommitmentNumber::new(self.0 ^ (high << 24 | low))
    }
}

/// One side's commitment at one moment.
///
/// ```
/// use bitcoin::hashes::Hash;
/// use bitcoin::secp256k1::{Secp256k1, SecretKey};
/// use bitcoin::{Amount, FeeRate, OutPoint, Txid, relative};
/// use channel_contracts::script::*;
///
/// let secp = Secp256k1::new();
/// let key = |byte| SecretKey::from_slice(&[byte; 32]).map(|key| key.public_key(&secp));
/// let side = |byte| -> Result<Basepoints, bitcoin::secp256k1::Error> {
///     Ok(Basepoints {
///         funding: key(byte)?,
///         revocation: key(byte + 1)?,
///         payment: key(byte + 2)?,
///         delayed_payment: key(byte + 3)?,
///         htlc: key(byte + 4)?,
///     })
/// };
/// let parties = CommitmentParties { broadcaster: side(1)?, countersignatory: side(11)? };
/// let point = PerCommitmentPoint(key(21)?);
///
/// let commitment = Commitment {
///     funding_outpoint: OutPoint::new(Txid::all_zeros(), 0),
///     funding_value: Amount::from_sat(100_000),
///     format: CommitmentFormat::Anchors,
///     number: CommitmentNumber::FIRST,
///     obscure_factor: ObscureFactor::derive(&parties, Side::Broadcaster),
///     keys: CommitmentKeys::derive(&secp, &point, &parties)?,
///     to_self_delay: relative::Height::from_height(144),
///     dust_limit: Amount::from_sat(354),
///     feerate: FeeRate::from_sat_per_kwu(253),
///     opener: Side::Broadcaster,
///     to_broadcaster_msat: 60_000_000,
///     to_countersignatory_msat: 40_000_000,
///     htlcs: vec![],
/// };
/// let built = commitment.build()?;
/// // Two anchors, then the balances; the opener has paid 284 sat of fee and both anchors.
/// assert_eq!(built.transaction.output.len(), 4);
/// assert_eq!((built.to_remote, built.to_local), (Some(2), Some(3)));
/// assert_eq!(built.transaction.output[3].value, Amount::from_sat(60_000 - 284 - 660));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// The funding output.
    pub funding_outpoint: OutPoint,
    /// Its value.
    pub funding_value: Amount,
    /// The kind of commitment transaction.
    pub format: CommitmentFormat,
    /// The number of this commitment.
    pub number: CommitmentNumber,
    /// What hides the number.
    pub obscure_factor: ObscureFactor,
    /// The keys of this commitment.
    pub keys: CommitmentKeys,
    /// The broadcaster's delay, in blocks.
    pub to_self_delay: relative::Height,
    /// The broadcaster's dust limit: outputs below it are left to the fee.
    pub dust_limit: Amount,
    /// `feerate_per_kw`. Ignored by zero-fee commitments.
    pub feerate: FeeRate,
    /// Who pays the fee and the anchors.
    pub opener: Side,
    /// The broadcaster's balance before fees, in millisatoshi, without HTLCs.
    pub to_broadcaster_msat: u64,
    /// The countersignatory's balance before fees, in millisatoshi, without HTLCs.
    pub to_countersignatory_msat: u64,
    /// All HTLCs, in any order.
    pub htlcs: Vec<Htlc>,
}

/// A commitment transaction without signatures, and where its parts stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltCommitment {
    /// The transaction. Its input has no witness.
    pub transaction: Transaction,
    /// Output index of `to_local`, unless trimmed.
    pub to_local: Option<u32>,
    /// Output index of `to_remote`, unless trimmed.
    pub to_remote: Option<u32>,
    /// One for each HTLC that has an output, by ascending output index.
    ///
    /// This is the order of the signatures in `commitment_signed`.
    pub htlcs: Vec<HtlcTransaction>,
}

/// Why a commitment transaction cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// Balances and HTLCs do not add up to the value of the channel.
    #[error("balances and HTLCs are {actual_msat:?} msat, the funding output is {funding_value}")]
    BalanceMismatch {
        /// Their sum, or `None` if it overflows.
        actual_msat: Option<u64>,
        /// What they must add up to.
        funding_value: Amount,
    },
    /// The fee does not fit into an amount.
    #[error("commitment fee at {feerate} overflows; refuse the feerate")]
    FeeOverflow {
        /// The feerate asked for.
        feerate: FeeRate,
    },
}

/// What an output of a commitment transaction is for.
#[derive(Debug, Clone, Copy)]
enum Part {
    ToLocal,
    ToRemote,
    Htlc(Htlc),
    Anchor,
}

impl Part {
    /// Orders HTLCs that have the same output.
    fn cltv_expiry(self) -> u32 {
        match self {
            Self::Htlc(htlc) => htlc.cltv_expiry.to_consensus_u32(),
            Self::ToLocal | Self::ToRemote | Self::Anchor => 0,
        }
    }
}

impl Commitment {
    /// Builds the transaction.
    ///
    /// # Errors
    ///
    /// [`CommitmentError`] if the balances do not add up, or the feerate is absurd. A fee beyond
    /// the opener's balance is no error: it takes all of it, as BOLT 3 says.
    pub fn build(&self) -> Result<BuiltCommitment, CommitmentError> {
        self.check_balances()?;
        let htlcs: Vec<Htlc> = self
            .htlcs
            .iter()
            .filter(|htlc| !htlc.is_trimmed(self.format, self.feerate, self.dust_limit))
            .copied()
            .collect();
        let mut outputs = self.outputs(&htlcs)?;
        // BOLT 3: outputs sort by value, then script, then CLTV expiry.
        outputs.sort_by(|(a, a_part), (b, b_part)| {
            (a.value, &a.script_pubkey, a_part.cltv_expiry()).cmp(&(
                b.value,
                &b.script_pubkey,
                b_part.cltv_expiry(),
            ))
        });

        let (parts, output) = outputs.into_iter().map(|(output, part)| (part, output)).unzip();
        let transaction = self.transaction(output);
        Ok(self.index(transaction, parts))
    }

    /// Returns the broadcaster's delayed output, which HTLC transactions pay to as well.
    pub fn to_local(&self) -> ToLocal {
        ToLocal {
            revocation_key: self.keys.revocation,
            delayed_key: self.keys.broadcaster_delayed,
            to_self_delay: self.to_self_delay,
        }
    }

    /// Returns the script of one of its HTLCs.
    pub fn htlc_script(&self, htlc: Htlc) -> HtlcScript {
        HtlcScript { htlc, keys: self.keys.htlc_keys(), format: self.format }
    }

    fn check_balances(&self) -> Result<(), CommitmentError> {
        let actual_msat = self
            .htlcs
            .iter()
            .map(|htlc| htlc.amount_msat)
            .chain([self.to_countersignatory_msat])
            .try_fold(self.to_broadcaster_msat, u64::checked_add);
        let funding_msat = self.funding_value.to_sat().checked_mul(1000);
        if actual_msat.is_some() && actual_msat == funding_msat {
            return Ok(());
        }
        Err(CommitmentError::BalanceMismatch { actual_msat, funding_value: self.funding_value })
    }

    /// Makes the outputs of both balances, `htlcs` and the anchors, in no particular order.
    fn outputs(&self, htlcs: &[Htlc]) -> Result<Vec<(TxOut, Part)>, CommitmentError> {
        let [to_local, to_remote] = self.balances_after_fee(htlcs.len())?;
        let mut outputs: Vec<_> = htlcs
            .iter()
            .map(|htlc| {
                let script_pubkey = self.htlc_script(*htlc).script_pubkey();
                (TxOut { value: htlc.value(), script_pubkey }, Part::Htlc(*htlc))
            })
            .collect();
        if let Some(value) = to_local {
            let script_pubkey = self.to_local().script_pubkey();
            outputs.push((TxOut { value, script_pubkey }, Part::ToLocal));
        }
        if let Some(value) = to_remote {
            let script_pubkey = self.keys.to_remote(self.format).script_pubkey();
            outputs.push((TxOut { value, script_pubkey }, Part::ToRemote));
        }
        let anchors = match self.format {
            CommitmentFormat::StaticRemoteKey => vec![],
            CommitmentFormat::Anchors => {
                let keyed = |funding_key| KeyedAnchor { funding_key }.output();
                let local = keyed(self.keys.broadcaster_funding);
                let remote = keyed(self.keys.countersignatory_funding);
                // An anchor serves whoever has something to claim.
                let has = |balance: Option<Amount>| balance.is_some() || !htlcs.is_empty();
                [(has(to_local), local), (has(to_remote), remote)]
                    .into_iter()
                    .filter_map(|(wanted, output)| wanted.then_some(output))
                    .collect()
            }
            CommitmentFormat::ZeroFee => {
                let spent: Amount = outputs.iter().map(|(output, _)| output.value).sum();
                let trimmed = self
                    .funding_value
                    .checked_sub(spent)
                    .expect("outputs are balances rounded down, and balances add up");
                vec![shared_anchor(trimmed)]
            }
        };
        outputs.extend(anchors.into_iter().map(|output| (output, Part::Anchor)));
        Ok(outputs)
    }

    /// Returns `to_local` and `to_remote` after fees; `None` for one below the dust limit.
    fn balances_after_fee(
        &self,
        htlc_outputs: usize,
    ) -> Result<[Option<Amount>; 2], CommitmentError> {
        let cost = self
            .format
            .commitment_fee(self.feerate, htlc_outputs)
            .and_then(|fee| fee.checked_add(self.format.anchors_cost()))
            .ok_or(CommitmentError::FeeOverflow { feerate: self.feerate })?;
        let balance = |msat: u64, side| {
            let before = Amount::from_sat(msat / 1000);
            // BOLT 3, "Fee Payment": if the balance is too small, all of it becomes fee.
            let paid = if side == self.opener { cost } else { Amount::ZERO };
            let after = before.checked_sub(paid).unwrap_or(Amount::ZERO);
            (after >= self.dust_limit && after > Amount::ZERO).then_some(after)
        };
        Ok([
            balance(self.to_broadcaster_msat, Side::Broadcaster),
            balance(self.to_countersignatory_msat, Side::Countersignatory),
        ])
    }

    fn transaction(&self, output: Vec<TxOut>) -> Transaction {
        let (lock_time, sequence) = self.obscure_factor.hide(self.number);
        Transaction {
            version: self.format.transaction_version(),
            lock_time,
            input: vec![TxIn {
                previous_output: self.funding_outpoint,
                script_sig: ScriptBuf::new(),
                sequence,
                witness: Witness::new(),
            }],
            output,
        }
    }

    /// Notes where each part stands.
    fn index(&self, transaction: Transaction, parts: Vec<Part>) -> BuiltCommitment {
        let txid = transaction.compute_txid();
        let mut built =
            BuiltCommitment { transaction, to_local: None, to_remote: None, htlcs: vec![] };
        for (vout, part) in (0u32..).zip(parts) {
            match part {
                Part::ToLocal => built.to_local = Some(vout),
                Part::ToRemote => built.to_remote = Some(vout),
                Part::Anchor => {}
                Part::Htlc(htlc) => built.htlcs.push(HtlcTransaction {
                    outpoint: OutPoint { txid, vout },
                    script: self.htlc_script(htlc),
                    to_local: self.to_local(),
                    feerate: self.feerate,
                }),
            }
        }
        built
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Txid;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::super::keys::{Basepoints, PerCommitmentPoint};
    use super::*;

    fn commitment() -> Commitment {
        let secp = Secp256k1::new();
        let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap().public_key(&secp);
        let side = |byte| Basepoints {
            funding: key(byte),
            revocation: key(byte + 1),
            payment: key(byte + 2),
            delayed_payment: key(byte + 3),
            htlc: key(byte + 4),
        };
        let parties = CommitmentParties { broadcaster: side(1), countersignatory: side(11) };
        Commitment {
            funding_outpoint: OutPoint::new(Txid::all_zeros(), 0),
            funding_value: Amount::from_sat(100_000),
            format: CommitmentFormat::StaticRemoteKey,
            number: CommitmentNumber::FIRST,
            obscure_factor: ObscureFactor::derive(&parties, Side::Broadcaster),
            keys: CommitmentKeys::derive(&secp, &PerCommitmentPoint(key(21)), &parties).unwrap(),
            to_self_delay: relative::Height::from_height(144),
            dust_limit: Amount::from_sat(354),
            feerate: FeeRate::from_sat_per_kwu(253),
            opener: Side::Countersignatory,
            to_broadcaster_msat: 60_000_000,
            to_countersignatory_msat: 40_000_000,
            htlcs: vec![],
        }
    }

    #[test]
    fn balances_that_do_not_add_up_are_refused() {
        let funding_value = Amount::from_sat(100_000);
        for (to_broadcaster_msat, actual_msat) in
            [(60_000_001, Some(100_000_001)), (59_999_999, Some(99_999_999)), (u64::MAX, None)]
        {
            let refused = Commitment { to_broadcaster_msat, ..commitment() }.build();
            let expected = CommitmentError::BalanceMismatch { actual_msat, funding_value };
            assert_eq!(refused, Err(expected));
        }
    }

    #[test]
    fn an_absurd_feerate_is_refused() {
        let feerate = FeeRate::MAX;
        let refused = Commitment { feerate, ..commitment() }.build();
        assert_eq!(refused, Err(CommitmentError::FeeOverflow { feerate }));
    }

    #[test]
    fn a_fee_beyond_the_openers_balance_takes_all_of_it_and_nothing_else() {
        let built = Commitment { feerate: FeeRate::from_sat_per_kwu(60_000), ..commitment() };
        let built = built.build().unwrap();
        assert_eq!((built.to_local, built.to_remote), (Some(0), None));
        assert_eq!(built.transaction.output[0].value, Amount::from_sat(60_000));
    }

    #[test]
    fn no_number_is_read_from_another_transaction() {
        let factor = commitment().obscure_factor;
        let commitment = commitment().build().unwrap().transaction;
        assert_eq!(factor.reveal(&commitment), Some(CommitmentNumber::FIRST));
        let closing = Transaction { lock_time: absolute::LockTime::ZERO, ..commitment.clone() };
        assert_eq!(factor.reveal(&closing), None);
        let mut two_inputs = commitment.clone();
        two_inputs.input.push(TxIn::default());
        assert_eq!(factor.reveal(&two_inputs), None);
        let mut final_sequence = commitment;
        final_sequence.input[0].sequence = Sequence::MAX;
        assert_eq!(factor.reveal(&final_sequence), None);
    }
}
