//! One revoked commitment: what is needed to rebuild each output that its victim may take.
//!
//! The roles are those of the revoked transaction: its *broadcaster* is the cheater, its
//! *countersignatory* the victim. The state holds public data only; the secret that signs for
//! it is [`RevocationSecret`](super::RevocationSecret).
//!
//! Source: BOLT 3, "Commitment Transaction Outputs"; BOLT 5, "Revoked Transaction Close
//! Handling".

use bitcoin::hashes::sha256;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, absolute, relative};

use super::JusticeError;
use super::penalty::{CheaterTime, Penalty, PenaltyContract, PenaltyKind};
use crate::script::{
    BuiltCommitment, Commitment, CommitmentFormat, Htlc, HtlcDirection, HtlcKeys, HtlcScript,
    ToLocal,
};

/// Most HTLCs of one commitment: 483 from each side.
///
/// Source: BOLT 2, `max_accepted_htlcs`.
pub const HTLCS_MAX: usize = 966;

/// The keys of a revoked commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RevokedKeys {
    /// `revocationpubkey`, which takes everything here.
    pub revocation: PublicKey,
    /// `local_delayedpubkey`, the cheater's.
    pub broadcaster_delayed: PublicKey,
    /// `local_htlcpubkey`, the cheater's.
    pub broadcaster_htlc: PublicKey,
    /// `remote_htlcpubkey`, the victim's.
    pub countersignatory_htlc: PublicKey,
}

/// What all outputs of a revoked commitment share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RevokedTerms {
    /// The kind of commitment transaction.
    pub format: CommitmentFormat,
    /// Its keys.
    pub keys: RevokedKeys,
    /// The cheater's delay, in blocks.
    pub to_self_delay: relative::Height,
}

/// The cheater's balance in a revoked commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RevokedToLocal {
    /// Output index.
    pub vout: u16,
    /// Value of the output.
    pub value: Amount,
}

/// One HTLC that has an output in a revoked commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RevokedHtlc {
    /// Output index.
    pub vout: u16,
    /// Value of the output, in whole satoshi.
    pub value: Amount,
    /// Seen from the broadcaster, the cheater.
    pub direction: HtlcDirection,
    /// SHA-256 of the preimage.
    pub payment_hash: sha256::Hash,
    /// Height from which the payer may take it back.
    pub cltv_expiry: absolute::Height,
}

/// Why there can be no such state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// More HTLCs than a channel can have.
    #[error("{count} HTLCs, a channel has at most {max}", max = HTLCS_MAX)]
    TooManyHtlcs {
        /// How many.
        count: usize,
    },
    /// Two parts claim the same output.
    #[error("output {vout} is named twice; each output is one thing")]
    SameOutput {
        /// Its index.
        vout: u16,
    },
    /// A value is more than all bitcoin.
    #[error("output {vout} has {value}, more than there will ever be")]
    ValueTooLarge {
        /// Its index.
        vout: u16,
        /// Its value.
        value: Amount,
    },
}

/// All that rebuilds the outputs of one revoked commitment that its victim may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RevokedState {
    pub(super) commitment_txid: Txid,
    pub(super) format: CommitmentFormat,
    pub(super) to_local_terms: ToLocal,
    /// Broadcaster's, then countersignatory's. Absent without HTLCs, as nothing needs them.
    pub(super) htlc_keys: Option<[PublicKey; 2]>,
    pub(super) to_local: Option<RevokedToLocal>,
    /// By ascending output index.
    pub(super) htlcs: Vec<RevokedHtlc>,
}

impl RevokedState {
    /// Makes the state of the commitment `commitment_txid`.
    ///
    /// `to_local` is `None` where it was trimmed; `htlcs` has those with an output of their own,
    /// in any order.
    ///
    /// # Errors
    ///
    /// [`StateError`] if there are too many HTLCs, two share an output, or a value is absurd.
    pub fn new(
        commitment_txid: Txid,
        terms: &RevokedTerms,
        to_local: Option<RevokedToLocal>,
        mut htlcs: Vec<RevokedHtlc>,
    ) -> Result<Self, StateError> {
        htlcs.sort_by_key(|htlc| htlc.vout);
        let keys = &terms.keys;
        let state = Self {
            commitment_txid,
            format: terms.format,
            to_local_terms: ToLocal {
                revocation_key: keys.revocation,
                delayed_key: keys.broadcaster_delayed,
                to_self_delay: terms.to_self_delay,
            },
            htlc_keys: (!htlcs.is_empty())
                .then_some([keys.broadcaster_htlc, keys.countersignatory_htlc]),
            to_local,
            htlcs,
        };
        state.check()?;
        Ok(state)
    }

    /// Makes the state of a commitment that we know whole.
    ///
    /// # Errors
    ///
    /// [`StateError`] as [`RevokedState::new`].
    ///
    /// # Panics
    ///
    /// If `built` is not what `commitment` builds: an output index is not there.
    pub fn of(commitment: &Commitment, built: &BuiltCommitment) -> Result<Self, StateError> {
        let keys = &commitment.keys;
        let terms = RevokedTerms {
            format: commitment.format,
            keys: RevokedKeys {
                revocation: keys.revocation,
                broadcaster_delayed: keys.broadcaster_delayed,
                broadcaster_htlc: keys.broadcaster_htlc,
                countersignatory_htlc: keys.countersignatory_htlc,
            },
            to_self_delay: commitment.to_self_delay,
        };
        let index = |vout| u16::try_from(vout).expect("a commitment has at most 970 outputs");
        let to_local = built.to_local.map(|vout| RevokedToLocal {
            vout: index(vout),
            value: built.transaction.output[vout as usize].value,
        });
        let htlcs = built.htlcs.iter().map(|htlc| RevokedHtlc {
            vout: index(htlc.outpoint.vout),
            value: htlc.script.htlc.value(),
            direction: htlc.script.htlc.direction,
            payment_hash: htlc.script.htlc.payment_hash,
            cltv_expiry: htlc.script.htlc.cltv_expiry,
        });
        Self::new(built.transaction.compute_txid(), &terms, to_local, htlcs.collect())
    }

    /// Checks what [`Self::new`] promises.
    fn check(&self) -> Result<(), StateError> {
        let count = self.htlcs.len();
        if count > HTLCS_MAX {
            return Err(StateError::TooManyHtlcs { count });
        }
        let htlcs = self.htlcs.iter().map(|htlc| (htlc.vout, htlc.value));
        let parts = htlcs.chain(self.to_local.map(|output| (output.vout, output.value)));
        if let Some((vout, value)) = parts.clone().find(|part| part.1 > Amount::MAX_MONEY) {
            return Err(StateError::ValueTooLarge { vout, value });
        }
        let mut indices: Vec<u16> = parts.map(|(vout, _)| vout).collect();
        indices.sort_unstable();
        match indices.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(StateError::SameOutput { vout: pair[0] }),
            None => Ok(()),
        }
    }

    /// Returns it with the `most` HTLCs of the greatest value alone, for a remedy that would not
    /// fit into a blob with all of them.
    pub fn with_largest(&self, most: usize) -> Self {
        let mut largest = self.clone();
        largest.htlcs.sort_by_key(|htlc| std::cmp::Reverse(htlc.value));
        largest.htlcs.truncate(most);
        largest.htlcs.sort_by_key(|htlc| htlc.vout);
        if largest.htlcs.is_empty() {
            largest.htlc_keys = None;
        }
        largest
    }

    /// Returns the id of the revoked commitment.
    pub fn commitment_txid(&self) -> Txid {
        self.commitment_txid
    }

    /// Returns the kind of commitment transaction.
    pub fn format(&self) -> CommitmentFormat {
        self.format
    }

    /// Returns the key that takes everything here.
    pub fn revocation_key(&self) -> PublicKey {
        self.to_local_terms.revocation_key
    }

    /// Returns the cheater's delay, in blocks.
    pub fn to_self_delay(&self) -> relative::Height {
        self.to_local_terms.to_self_delay
    }

    /// Returns the cheater's balance, unless it was trimmed.
    pub fn to_local(&self) -> Option<RevokedToLocal> {
        self.to_local
    }

    /// Returns the HTLCs, by ascending output index.
    pub fn htlcs(&self) -> &[RevokedHtlc] {
        &self.htlcs
    }

    /// Returns what may be taken, as the state says: `to_local`, then HTLCs by output index.
    ///
    /// For the side that signs in advance. Whoever sees the commitment asks
    /// [`Self::penalties`], which checks it.
    pub fn expected_penalties(&self) -> Vec<Penalty> {
        let to_local = self.to_local.map(|output| {
            self.delayed(PenaltyKind::ToLocal, self.outpoint(output.vout), output.value)
        });
        to_local.into_iter().chain(self.htlcs.iter().filter_map(|htlc| self.htlc(htlc))).collect()
    }

    /// Returns what may be taken of `commitment`, in the order of [`Self::expected_penalties`].
    ///
    /// # Errors
    ///
    /// [`JusticeError`] if the transaction is another one, or an output is not what the state
    /// says: then the state was recorded wrongly and nothing signed for it is valid.
    ///
    /// Source: BOLT 5, "Revoked Transaction Close Handling".
    pub fn penalties(&self, commitment: &Transaction) -> Result<Vec<Penalty>, JusticeError> {
        let actual = commitment.compute_txid();
        if actual != self.commitment_txid {
            return Err(JusticeError::OtherTransaction { expected: self.commitment_txid, actual });
        }
        let penalties = self.expected_penalties();
        for penalty in &penalties {
            let vout = u16::try_from(penalty.outpoint.vout).expect("made from an index of 16 bits");
            let outputs = commitment.output.len();
            let output = commitment
                .output
                .get(usize::from(vout))
                .ok_or(JusticeError::MissingOutput { vout, outputs })?;
            if *output != penalty.output {
                let expected = Box::new(penalty.output.clone());
                let actual = Box::new(output.clone());
                return Err(JusticeError::WrongOutput { vout, expected, actual });
            }
        }
        Ok(penalties)
    }

    /// Returns what may be taken of `spender`, by which the cheater spent HTLC outputs of the
    /// commitment: HTLC-success and HTLC-timeout transactions pay to the revocable script again.
    ///
    /// In anchor formats the cheater may add inputs and outputs, and batch several HTLCs. The
    /// countersignatory's `SINGLE | ANYONECANPAY` signature binds each HTLC input to the output
    /// with its index, so that is where the money is. Spends by revocation key or by the victim
    /// pay elsewhere and give nothing.
    ///
    /// Source: BOLT 3, "HTLC-Timeout and HTLC-Success Transactions".
    pub fn second_stage(&self, spender: &Transaction) -> Vec<Penalty> {
        let (script, txid) = (self.to_local_terms.script_pubkey(), spender.compute_txid());
        let inputs = (0..).zip(&spender.input).zip(&spender.output);
        inputs
            .filter(|((_, input), output)| {
                self.is_htlc(input.previous_output) && output.script_pubkey == script
            })
            .map(|((vout, _), output)| {
                let outpoint = OutPoint::new(txid, vout);
                self.delayed(PenaltyKind::SecondStage, outpoint, output.value)
            })
            .collect()
    }

    /// Tells whether `outpoint` is an HTLC of this commitment.
    pub fn is_htlc(&self, outpoint: OutPoint) -> bool {
        outpoint.txid == self.commitment_txid
            && self.htlcs.iter().any(|htlc| u32::from(htlc.vout) == outpoint.vout)
    }

    fn outpoint(&self, vout: u16) -> OutPoint {
        OutPoint::new(self.commitment_txid, vout.into())
    }

    /// The penalty of an output with the revocable script.
    fn delayed(&self, kind: PenaltyKind, outpoint: OutPoint, value: Amount) -> Penalty {
        let script_pubkey = self.to_local_terms.script_pubkey();
        Penalty {
            kind,
            outpoint,
            output: TxOut { value, script_pubkey },
            contract: PenaltyContract::Delayed(self.to_local_terms),
            cheater: CheaterTime {
                blocks: self.to_local_terms.to_self_delay.value(),
                height: None,
            },
        }
    }

    /// The penalty of an HTLC. Always there: HTLCs come with their keys.
    fn htlc(&self, htlc: &RevokedHtlc) -> Option<Penalty> {
        let [broadcaster, countersignatory] = self.htlc_keys?;
        let script = HtlcScript {
            htlc: Htlc {
                direction: htlc.direction,
                // At most all bitcoin, so the product fits.
                amount_msat: htlc.value.to_sat() * 1000,
                payment_hash: htlc.payment_hash,
                cltv_expiry: htlc.cltv_expiry,
            },
            keys: HtlcKeys { revocation: self.revocation_key(), broadcaster, countersignatory },
            format: self.format,
        };
        Some(Penalty {
            kind: PenaltyKind::Htlc(htlc.direction),
            outpoint: self.outpoint(htlc.vout),
            output: TxOut { value: htlc.value, script_pubkey: script.script_pubkey() },
            contract: PenaltyContract::Htlc(script),
            cheater: CheaterTime {
                blocks: u16::from(self.format.locks_outputs_for_one_block()),
                height: (htlc.direction == HtlcDirection::Offered).then_some(htlc.cltv_expiry),
            },
        })
    }
}
