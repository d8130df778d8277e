//! One breach and what is left to take of it. Pure.
//!
//! A breach begins with the commitment, in the mempool or in a block. From then on its outputs
//! are watched: what is spent in a block is over, unless the cheater moved an HTLC on to its
//! second stage, which has an output to take in its place. [`Breach::plan`] makes the
//! transactions that take all the rest at a feerate; asked again with a higher one, it makes
//! their replacements.
//!
//! The victim's own outputs are not looked at: its node takes them whenever it comes back.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{FeeRate, OutPoint, Sequence, Transaction, TxIn, TxOut, Txid, Weight};
use channel_contracts::justice::pair::TRUC_CHILD_WEIGHT_MAX;
use channel_contracts::justice::{FeeRider, JusticeError, PenaltyPair, group_by_weight};
use channel_contracts::script::CommitmentFormat;
use channel_contracts::script::anchor::pay_to_anchor;
use channel_contracts::tower::policy::FEERATE_MIN;
use channel_contracts::tower::{ChannelTag, Remedy};

use super::purse::{COIN_AND_CHANGE_WEIGHT, Pairs};

/// What spending one adds: an input without a witness.
const ANCHOR_INPUT_WEIGHT: Weight = Weight::from_wu(4 * 41 + 1);
/// Blocks after which nobody expects a reorg.
pub(super) const BURIED: u32 = 100;
/// Below the feerate asked for, so many halvings of it are tried for outputs too small for it.
const HALVINGS: u32 = 6;

/// What the tower holds against a breach.
#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// A remedy of ours.
    Remedy(Box<Remedy>),
    /// The penalty that a client of the open tower protocol signed.
    Penalty(Box<Transaction>),
}

/// A breach that the tower answers.
#[derive(Debug, Clone)]
pub(super) struct Breach {
    /// The appointment.
    pub number: u64,
    /// Whose it is.
    pub client: PublicKey,
    /// Which channel of theirs.
    pub channel: ChannelTag,
    /// The revoked commitment.
    pub commitment: Transaction,
    /// The block it is in.
    pub confirmed: Option<u32>,
    /// What is done about it.
    pub answer: Answer,
    /// The block in which something else spent the channel's funding.
    pub replaced: Option<u32>,
    /// The outputs worth taking, spent ones among them, see [`Breach::refresh`].
    pub targets: BTreeSet<OutPoint>,
    /// What blocks have spent of it.
    pub spends: BTreeMap<OutPoint, Spend>,
    /// Transactions of the cheater's that moved HTLCs on, with the blocks they are in.
    pub moved: Vec<(Transaction, u32)>,
    /// The feerate of the last try.
    pub feerate: FeeRate,
}

/// An output that is spent in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Spend {
    /// By which transaction.
    pub txid: Txid,
    /// In which block.
    pub height: u32,
    /// Whether the victim got it.
    pub ours: bool,
}

/// Where a breach stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Something is left to take.
    Open,
    /// Everything is spent in blocks, or the commitment can never be in one: since this one.
    Over {
        /// Its height.
        height: u32,
    },
}

/// A transaction that answers a breach.
pub(super) enum Planned {
    /// Signed as a whole, by a client of the open protocol.
    Whole(Transaction),
    /// Pairs, behind which the tower may put a coin.
    Pairs(Pairs),
}

impl Breach {
    /// The txid of the commitment.
    pub fn txid(&self) -> Txid {
        self.commitment.compute_txid()
    }

    /// Reckons anew which outputs are worth taking at any feerate.
    pub fn refresh(&mut self, secp: &Secp256k1<All>) {
        self.targets = match &self.answer {
            Answer::Remedy(remedy) => {
                let first = remedy.pairs(secp, &self.commitment, FEERATE_MIN);
                let moved = self.moved.iter();
                let second = moved
                    .map(|(moved, _)| remedy.second_stage_pairs(secp, moved, FEERATE_MIN))
                    .filter_map(Result::ok);
                let all = first.unwrap_or_default().into_iter().chain(second.flatten());
                all.map(|pair| pair.outpoint()).collect()
            }
            Answer::Penalty(penalty) => {
                penalty.input.iter().map(|input| input.previous_output).collect()
            }
        };
    }

    /// Takes note of a block, whose transactions have `ids`. Returns whether it changes anything.
    pub fn block_connected(
        &mut self,
        secp: &Secp256k1<All>,
        block: &bitcoin::Block,
        ids: &[Txid],
        height: u32,
    ) -> bool {
        let mut changed = false;
        let own = self.txid();
        let funding: Vec<OutPoint> =
            self.commitment.input.iter().map(|input| input.previous_output).collect();
        for (transaction, txid) in block.txdata.iter().zip(ids) {
            if *txid == own {
                changed |= self.confirmed.replace(height) != Some(height);
                continue;
            }
            for (index, input) in transaction.input.iter().enumerate() {
                if funding.contains(&input.previous_output) {
                    self.replaced = Some(height);
                    changed = true;
                }
                if !self.targets.contains(&input.previous_output) {
                    continue;
                }
                let ours = self.pays_the_victim(transaction, index);
                self.spends.insert(input.previous_output, Spend { txid: *txid, height, ours });
                changed = true;
                let Answer::Remedy(remedy) = &self.answer else { continue };
                let known = self.moved.iter().any(|(moved, _)| moved.compute_txid() == *txid);
                if !ours && !known && !remedy.state().second_stage(transaction).is_empty() {
                    self.moved.push((transaction.clone(), height));
                    self.refresh(secp);
                }
            }
        }
        changed
    }

    /// Forgets the blocks above `height`. Returns whether that changes anything.
    pub fn disconnected(&mut self, secp: &Secp256k1<All>, height: u32) -> bool {
        let before = (self.confirmed, self.replaced, self.spends.len(), self.moved.len());
        self.confirmed = self.confirmed.filter(|confirmed| *confirmed <= height);
        self.replaced = self.replaced.filter(|replaced| *replaced <= height);
        self.spends.retain(|_, spend| spend.height <= height);
        self.moved.retain(|(_, moved)| *moved <= height);
        self.refresh(secp);
        before != (self.confirmed, self.replaced, self.spends.len(), self.moved.len())
    }

    /// Where it stands.
    pub fn standing(&self) -> Standing {
        if let Some(height) = self.replaced {
            return Standing::Over { height };
        }
        let spent: Option<Vec<u32>> =
            self.targets.iter().map(|target| Some(self.spends.get(target)?.height)).collect();
        match (self.confirmed, spent) {
            (Some(confirmed), Some(heights)) => {
                let height = heights.into_iter().fold(confirmed, u32::max);
                Standing::Over { height }
            }
            _ => Standing::Open,
        }
    }

    /// Says which transactions take what is left at `feerate`, which for a blind remedy is the next
    /// level that was signed for.
    ///
    /// # Errors
    ///
    /// [`JusticeError`] if the remedy is not one for this commitment.
    pub fn plan(
        &self,
        secp: &Secp256k1<All>,
        feerate: FeeRate,
    ) -> Result<Vec<Planned>, JusticeError> {
        let remedy = match &self.answer {
            Answer::Remedy(remedy) => remedy,
            Answer::Penalty(penalty) => {
                let left = matches!(self.standing(), Standing::Open);
                return Ok(left.then(|| Planned::Whole((**penalty).clone())).into_iter().collect());
            }
        };
        if self.takes_one_child() {
            return self.child(secp, remedy, feerate);
        }
        // Each output by itself: what the cheater is faster with, or what does not pay for a higher
        // feerate, holds up nothing else, and a replacement never has to outbid two others.
        let pairs = self.best_pairs(secp, remedy, feerate)?.into_iter();
        let alone = |pair| Planned::Pairs(Pairs { pairs: vec![pair], rider: None, parent: None });
        Ok(pairs.map(alone).collect())
    }

    /// What is left to take, each output at `feerate`; one that is too small for that, for less.
    fn best_pairs(
        &self,
        secp: &Secp256k1<All>,
        remedy: &Remedy,
        feerate: FeeRate,
    ) -> Result<Vec<PenaltyPair>, JusticeError> {
        let mut best = Vec::new();
        let mut taken: BTreeSet<OutPoint> = self.spends.keys().copied().collect();
        for halving in 0..=HALVINGS {
            let rate = FeeRate::from_sat_per_kwu(feerate.to_sat_per_kwu() >> halving);
            let mut pairs = remedy.pairs(secp, &self.commitment, rate)?;
            for (moved, _) in &self.moved {
                pairs.extend(remedy.second_stage_pairs(secp, moved, rate)?);
            }
            best.extend(pairs.into_iter().filter(|pair| taken.insert(pair.outpoint())));
        }
        Ok(best)
    }

    /// The one child that a commitment without a fee may have before it is confirmed. It takes the
    /// place of the cheater's own, so it spends the anchor too, and pays for both.
    fn child(
        &self,
        secp: &Secp256k1<All>,
        remedy: &Remedy,
        feerate: FeeRate,
    ) -> Result<Vec<Planned>, JusticeError> {
        let most = TRUC_CHILD_WEIGHT_MAX - ANCHOR_INPUT_WEIGHT - COIN_AND_CHANGE_WEIGHT;
        let first = |rate| -> Result<Vec<PenaltyPair>, JusticeError> {
            let pairs = self.best_pairs(secp, remedy, rate)?;
            let groups = group_by_weight(&pairs, most);
            Ok(groups.into_iter().next().unwrap_or_default())
        };
        let alone: Weight = first(feerate)?.iter().map(PenaltyPair::weight).sum();
        let both = (alone + self.commitment.weight()).to_wu();
        let sat_per_kwu = feerate.to_sat_per_kwu().saturating_mul(both);
        let feerate = FeeRate::from_sat_per_kwu(sat_per_kwu.div_ceil(alone.to_wu().max(1)));
        let pairs = first(feerate)?;
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let parent = Some(self.commitment.clone());
        Ok(vec![Planned::Pairs(Pairs { pairs, rider: self.anchor(), parent })])
    }

    /// What spends the anchor that anybody may spend.
    fn anchor(&self) -> Option<FeeRider> {
        let script = pay_to_anchor();
        let is_anchor = |output: &TxOut| output.script_pubkey == script;
        let vout = self.commitment.output.iter().position(is_anchor)?;
        let previous_output = OutPoint { txid: self.txid(), vout: u32::try_from(vout).ok()? };
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        let input = TxIn { previous_output, sequence, ..TxIn::default() };
        Some(FeeRider { inputs: vec![input], outputs: vec![] })
    }

    /// Whether the mempool takes one child at most.
    pub fn takes_one_child(&self) -> bool {
        let truc = CommitmentFormat::ZeroFee.transaction_version();
        self.confirmed.is_none() && self.commitment.version == truc
    }

    /// Whether the output beside an input is the victim's.
    fn pays_the_victim(&self, transaction: &Transaction, index: usize) -> bool {
        match &self.answer {
            Answer::Remedy(remedy) => transaction
                .output
                .get(index)
                .is_some_and(|output| output.script_pubkey == *remedy.sweep_script()),
            Answer::Penalty(penalty) => transaction.compute_txid() == penalty.compute_txid(),
        }
    }
}
