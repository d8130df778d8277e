//! Splices: a channel's funding output spent into a new one while the channel goes on.
//!
//! A monitor remembers every HTLC its funding output ever carried, since any old commitment could
//! still be published. Once a splice is locked the old output is spent for good, and LDK drops
//! what it kept for it. The channels service decides when that is worth a transaction; this file
//! carries it out. Nothing of the wallet is spent: fee and output come out of the channel.

use bitcoin::{Amount, FeeRate, TxOut, Txid};
use lightning::ln::channel_state::{ChannelDetails, SpliceCandidateStatus};
use lightning::util::ser::Writeable;

use super::channels::ChannelCommandError;
use super::room::Lightning;
use super::types::{ChannelId, NodeId};

/// What the monitor of one channel weighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MonitorWeight {
    /// Its size when it was last written in full, bytes. It has grown by a sixth at most since.
    pub bytes: u64,
    /// What the store holds of it: that, and the updates since.
    pub stored_bytes: u64,
    /// Its size right after the channel's last splice; 0 before the first.
    pub renewed_bytes: u64,
}

/// A splice that is not locked yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PendingSplice {
    /// Its transaction, once both sides have signed it.
    pub txid: Option<Txid>,
    /// The channel's capacity after it, once negotiated, sat.
    pub capacity_sat: Option<u64>,
    /// What of its fee we pay, if we have a part in it, sat.
    pub fee_sat: Option<u64>,
    /// Confirmations so far.
    pub confirmations: u32,
}

/// A splice that takes `output` out of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpliceOut {
    /// LDK's id of the channel.
    pub channel_id: ChannelId,
    /// The counterparty; must be connected.
    pub peer: NodeId,
    /// What leaves the channel.
    pub output: TxOut,
    /// Feerate of the transaction, paid by the channel.
    pub feerate: FeeRate,
    /// The most to pay if the counterparty splices in the same moment and sets the feerate.
    pub feerate_max: FeeRate,
}

impl Lightning {
    /// Asks the counterparty for a splice, and returns its fee. `SplicePending` or `SpliceFailed`
    /// follows. Payments wait while the two sides negotiate, some round trips, and go on while
    /// the transaction confirms.
    ///
    /// # Errors
    ///
    /// If the counterparty does not know splices, another one is under way, or the channel's
    /// balance is too small.
    pub fn splice_out(&self, splice: SpliceOut) -> Result<Amount, ChannelCommandError> {
        let SpliceOut { channel_id, peer, output, feerate, feerate_max } = splice;
        let (id, manager) = (channel_id.into(), &self.parts.manager);
        let refused = |error: String| ChannelCommandError::Refused(error);
        let template = manager.splice_channel(&id, &peer)?;
        if template.prior_contribution().is_some() || template.min_rbf_feerate().is_some() {
            return Err(ChannelCommandError::Unavailable("a splice is under way".into()));
        }
        let contribution = template
            .splice_out(vec![output], feerate, feerate_max)
            .map_err(|error| refused(error.to_string()))?;
        let fee = contribution.estimated_fee();
        manager
            .funding_contributed(&id, &peer, contribution, None)
            .map_err(|error| refused(error.to_string()))?;
        Ok(fee)
    }

    /// The size of a channel's monitor as it would be written now, bytes. Encodes it: for tests
    /// and measurements.
    pub fn encoded_monitor_bytes(&self, channel_id: ChannelId) -> Option<usize> {
        let monitor = self.parts.chain_monitor.get_monitor(channel_id.into()).ok()?;
        Some(monitor.encode().len())
    }
}

/// The splice of a channel that is not locked yet.
pub(super) fn pending_splice(details: &ChannelDetails) -> Option<PendingSplice> {
    let splice = details.splice_details.as_ref()?;
    let mut pending = PendingSplice::default();
    for candidate in &splice.candidates {
        let ours = candidate.contribution.as_ref();
        pending.fee_sat = ours.map(|ours| ours.estimated_fee().to_sat());
        if let SpliceCandidateStatus::Negotiated { txid, new_channel_value_satoshis } =
            candidate.status
        {
            pending.txid = Some(txid);
            pending.capacity_sat = Some(new_channel_value_satoshis);
        }
    }
    if let Some(confirmed) = &splice.confirmed_candidate {
        pending.txid = Some(confirmed.txid);
        pending.confirmations = confirmed.confirmations;
    }
    Some(pending)
}

/// The most that can be spliced out, sat; `None` with a counterparty that knows no splices.
pub(super) fn splice_out_max_sat(details: &ChannelDetails) -> Option<u64> {
    let features = &details.counterparty.features;
    (features.supports_splicing() && features.supports_quiescence())
        .then_some(details.next_splice_out_maximum_sat)
}
