//! Renewal: a channel whose monitor has grown heavy gets a new funding output by a splice.
//!
//! LDK's monitor keeps about a hundred bytes for every payment a funding output ever carried, in
//! memory and on disk, and drops them when a splice is locked. The opener, who pays for the
//! channel's transactions, starts the splice; payments go on meanwhile. [`decide`] is the rule,
//! `lightning/splice.rs` carries it out.

use std::time::Duration;

use bitcoin::{Amount, FeeRate, ScriptBuf, TxOut};

use super::record::{ChannelRecord, ChannelState, SpliceRecord};
use super::service::Channels;
use crate::chain::fees::FeePurpose;
use crate::journal::ChannelEvent;
use crate::lightning::types::ChannelRef;
use crate::lightning::{ChannelSnapshot, SpliceOut};

/// When to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalPolicy {
    /// Weight of a monitor from which its channel is renewed, bytes; 0 is never.
    pub monitor_bytes_max: u64,
    /// The most to pay for it.
    pub feerate_max: FeeRate,
}

/// What a splice takes out of the channel, to our wallet: LDK splices nothing without a change of
/// balance. Above the dust limit of every output type.
const RENEWAL_OUTPUT: Amount = Amount::from_sat(1_000);
/// A splice's size: one 2-of-2 input, the funding output and ours, and some room.
const SPLICE_VBYTES: u64 = 220;
/// The wait after a lost connection.
const RETRY_CONNECTED: Duration = Duration::from_secs(15);
/// The wait after a first refusal; doubles with each further one. A peer that restarted in the
/// middle refuses too.
const RETRY_MIN: Duration = Duration::from_secs(30);
/// The longest wait.
const RETRY_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Splices begun at once: a hub that restarts with a thousand heavy channels does not stop them
/// all in the same moment.
const BEGUN_PER_TICK: usize = 4;

/// What was tried with one channel since the start, or since its last splice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Attempts {
    /// How often it was refused, by the peer or by LDK.
    refusals: u32,
    /// When it may be tried again.
    not_before: Duration,
    /// An address no splice has paid yet.
    script: Option<ScriptBuf>,
    /// What was last said in the log.
    said: Option<Wait>,
}

/// Why a heavy channel is not renewed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wait {
    /// It never will be, with this peer.
    #[error("its peer knows no splices; close it and open another to be rid of the weight")]
    PeerCannotSplice,
    /// Fees are high.
    #[error("feerates are above lightning.renew_feerate_max_sat_per_vb")]
    Feerate,
    /// We have too little in it.
    #[error("our balance in it is too small to pay for a splice")]
    Balance,
}

/// What to do about a channel's weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing.
    Rest,
    /// Nothing yet, and the operator may want to know why.
    Wait(Wait),
    /// Splice it.
    Renew,
}

/// Whether to renew a channel now.
pub(super) fn decide(
    policy: &RenewalPolicy,
    live: &ChannelSnapshot,
    attempts: &Attempts,
    feerate: FeeRate,
    now: Duration,
) -> Decision {
    // A splice drops most of a monitor, not all. Where little would go, it must at least double.
    let heavy = policy.monitor_bytes_max.max(live.monitor.renewed_bytes.saturating_mul(2));
    if policy.monitor_bytes_max == 0 || live.monitor.bytes < heavy || !live.outbound {
        return Decision::Rest;
    }
    let Some(splice_out_max_sat) = live.splice_out_max_sat else {
        return if live.usable { Decision::Wait(Wait::PeerCannotSplice) } else { Decision::Rest };
    };
    if !live.usable || live.closing || live.splice.is_some() {
        return Decision::Rest;
    }
    if now < attempts.not_before {
        return Decision::Rest;
    }
    if feerate > policy.feerate_max {
        return Decision::Wait(Wait::Feerate);
    }
    let fee = feerate.fee_vb(SPLICE_VBYTES).unwrap_or(Amount::MAX_MONEY);
    if splice_out_max_sat < fee.to_sat().saturating_add(RENEWAL_OUTPUT.to_sat()) {
        return Decision::Wait(Wait::Balance);
    }
    Decision::Renew
}

impl Attempts {
    fn failed(&mut self, disconnected: bool, now: Duration) {
        let wait = if disconnected {
            RETRY_CONNECTED
        } else {
            self.refusals += 1;
            RETRY_MIN.saturating_mul(1 << (self.refusals - 1).min(16)).min(RETRY_MAX)
        };
        self.not_before = now.saturating_add(wait);
    }
}

impl Channels {
    /// Renews those of `channels` that have grown heavy. Called every few seconds.
    pub(super) fn renew_heavy(&self, channels: &[ChannelSnapshot]) {
        let feerate = self.parts.fees.get(FeePurpose::Normal);
        let now = self.parts.journal.now();
        let mut begun = 0;
        for live in channels {
            // One that a batch funds is renewed by its rollover.
            if self.recorded(live.channel).is_none_or(|record| record.batch) {
                continue;
            }
            let attempts = self.attempts.lock().get(&live.channel).cloned().unwrap_or_default();
            match decide(&self.parts.renewal, live, &attempts, feerate, now) {
                Decision::Rest => {}
                Decision::Wait(why) if attempts.said == Some(why) => {}
                Decision::Wait(why) => {
                    let bytes = live.monitor.bytes;
                    tracing::warn!(channel = %live.channel, bytes, %why, "heavy channel is not renewed");
                    self.attempts.lock().entry(live.channel).or_default().said = Some(why);
                }
                Decision::Renew if begun < BEGUN_PER_TICK => {
                    begun += 1;
                    self.renew(live, attempts.script, feerate);
                }
                Decision::Renew => {}
            }
        }
    }

    fn renew(&self, live: &ChannelSnapshot, script: Option<ScriptBuf>, feerate: FeeRate) {
        let channel = live.channel;
        // Durable before the splice leaves: the gate holds its messages for this write too.
        let script = script.unwrap_or_else(|| self.parts.wallet.new_address().0.script_pubkey());
        self.attempts.lock().entry(channel).or_default().script = Some(script.clone());
        let asked = self.parts.lightning.splice_out(SpliceOut {
            channel_id: live.channel_id,
            peer: live.peer,
            output: TxOut { value: RENEWAL_OUTPUT, script_pubkey: script },
            feerate,
            feerate_max: self.parts.renewal.feerate_max,
        });
        let monitor_bytes = live.monitor.bytes;
        match asked {
            Ok(fee) => {
                let fee_sat = fee.to_sat();
                tracing::info!(%channel, monitor_bytes, fee_sat, "heavy channel is being renewed");
            }
            Err(error) => self.splice_failed(channel, &error.to_string(), false),
        }
    }

    /// Hears that a splice did not come to be.
    pub(super) fn splice_failed(&self, channel: ChannelRef, reason: &str, disconnected: bool) {
        let now = self.parts.journal.now();
        self.attempts.lock().entry(channel).or_default().failed(disconnected, now);
        tracing::warn!(%channel, reason, "splice failed; it will be tried again");
    }

    /// Hears that a splice of ours is signed.
    pub(super) fn splice_pending(&self, channel: ChannelRef, funding: bitcoin::OutPoint) {
        let Some((record, live)) = self.both(channel) else {
            return;
        };
        let Some(splice) = live.splice else {
            return;
        };
        let known = record.splice.is_some_and(|known| known.funding == funding);
        let (Some(capacity_sat), Some(fee_sat), false) =
            (splice.capacity_sat, splice.fee_sat, known)
        else {
            return;
        };
        self.append(ChannelEvent::SplicePending { channel, funding, capacity_sat, fee_sat });
    }

    /// Hears that a channel is ready: for the first time it is none of ours, later it has been
    /// spliced, by us or by its peer.
    pub(super) fn ready_again(&self, channel: ChannelRef) {
        let Some((record, live)) = self.both(channel) else {
            return;
        };
        let (Some(from), Some(funding)) = (record.funding, live.funding) else {
            return;
        };
        if from == funding || record.state == ChannelState::Closed {
            return;
        }
        let ours = record.splice.filter(|splice| splice.funding == funding);
        let fee_sat = ours.map(|splice| splice.fee_sat);
        let capacity_sat = live.capacity_sat;
        tracing::info!(%channel, %from, %funding, capacity_sat, "channel is spliced");
        self.attempts.lock().remove(&channel);
        self.append(ChannelEvent::Spliced { channel, from, funding, capacity_sat, fee_sat });
    }

    /// Broadcasts again the splices that are not in a block yet. Called once after a start; LDK
    /// gives each transaction out once.
    pub(super) fn resume_splices(&self, records: &[ChannelRecord]) {
        let pending: Vec<SpliceRecord> =
            records.iter().filter_map(|record| record.splice).collect();
        if pending.is_empty() {
            return;
        }
        for info in self.parts.wallet.list_transactions() {
            if info.confirmed_in.is_none()
                && pending.iter().any(|splice| splice.funding.txid == info.txid)
            {
                tracing::info!(txid = %info.txid, "unconfirmed splice is broadcast again");
                self.parts.broadcasts.push(vec![bitcoin::Transaction::clone(&info.transaction)]);
            }
        }
    }

    fn both(&self, channel: ChannelRef) -> Option<(ChannelRecord, ChannelSnapshot)> {
        let view = self.get(channel)?;
        Some((view.record, view.live?))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;
    use crate::lightning::types::ChannelId;
    use crate::lightning::{MonitorWeight, PendingSplice};

    const POLICY: RenewalPolicy = RenewalPolicy {
        monitor_bytes_max: 1_000_000,
        feerate_max: FeeRate::from_sat_per_vb_u32(10),
    };
    const NOW: Duration = Duration::from_secs(1_000_000);

    /// A channel of ours that is due.
    fn heavy() -> ChannelSnapshot {
        ChannelSnapshot {
            channel: ChannelRef([5; 16]),
            channel_id: ChannelId([6; 32]),
            peer: SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new()),
            funding: None,
            short_channel_id: Some(99),
            capacity_sat: 100_000,
            outbound: true,
            announced: true,
            ready: true,
            usable: true,
            closing: false,
            confirmations: (3, 3),
            spendable_msat: 10,
            receivable_msat: 20,
            local_msat: 30,
            remote_msat: 40,
            reserve_sat: 50,
            counterparty_reserve_sat: 60,
            inbound_htlcs: 1,
            outbound_htlcs: 2,
            fee_base_msat: 3,
            fee_ppm: 4,
            cltv_expiry_delta: 72,
            counterparty_fees: None,
            commitment_feerate_sat_per_kw: 0,
            kind: "zero_fee_commitments",
            monitor: MonitorWeight { bytes: 1_000_000, ..MonitorWeight::default() },
            splice: None,
            splice_out_max_sat: Some(50_000),
        }
    }

    fn decided(policy: &RenewalPolicy, live: &ChannelSnapshot, sat_per_vb: u64) -> Decision {
        let feerate = FeeRate::from_sat_per_vb(sat_per_vb).unwrap();
        decide(policy, live, &Attempts::default(), feerate, NOW)
    }

    #[test]
    fn a_heavy_channel_of_ours_is_renewed_and_no_other() {
        assert_eq!(decided(&POLICY, &heavy(), 2), Decision::Renew);
        let never = RenewalPolicy { monitor_bytes_max: 0, ..POLICY };
        assert_eq!(decided(&never, &heavy(), 2), Decision::Rest);
        let breaks: [fn(&mut ChannelSnapshot); 6] = [
            |live| live.monitor.bytes = 999_999,
            |live| live.outbound = false,
            |live| live.usable = false,
            |live| live.closing = true,
            |live| live.splice = Some(PendingSplice::default()),
            // The last splice left most of it.
            |live| live.monitor.renewed_bytes = 500_001,
        ];
        for break_it in breaks {
            let mut live = heavy();
            break_it(&mut live);
            assert_eq!(decided(&POLICY, &live, 2), Decision::Rest, "{live:?}");
        }
    }

    #[test]
    fn a_renewal_that_cannot_be_says_why() {
        let old_peer = ChannelSnapshot { splice_out_max_sat: None, ..heavy() };
        assert_eq!(decided(&POLICY, &old_peer, 2), Decision::Wait(Wait::PeerCannotSplice));
        let offline = ChannelSnapshot { usable: false, ..old_peer };
        assert_eq!(decided(&POLICY, &offline, 2), Decision::Rest);
        assert_eq!(decided(&POLICY, &heavy(), 10), Decision::Renew);
        assert_eq!(decided(&POLICY, &heavy(), 11), Decision::Wait(Wait::Feerate));
        // 1,000 sat leave, and 220 vB cost 2 sat each.
        let poor = ChannelSnapshot { splice_out_max_sat: Some(1_439), ..heavy() };
        assert_eq!(decided(&POLICY, &poor, 2), Decision::Wait(Wait::Balance));
        let enough = ChannelSnapshot { splice_out_max_sat: Some(1_440), ..heavy() };
        assert_eq!(decided(&POLICY, &enough, 2), Decision::Renew);
    }

    #[test]
    fn refusals_make_the_next_attempt_wait_longer() {
        let mut attempts = Attempts::default();
        let decided = |attempts: &Attempts, seconds| {
            let now = NOW + Duration::from_secs(seconds);
            decide(&POLICY, &heavy(), attempts, FeeRate::BROADCAST_MIN, now)
        };
        for (disconnected, wait) in [(false, 30), (true, 15), (false, 60), (false, 120)] {
            attempts.failed(disconnected, NOW);
            assert_eq!(decided(&attempts, wait - 1), Decision::Rest);
            assert_eq!(decided(&attempts, wait), Decision::Renew);
        }
        for _ in 0..90 {
            attempts.failed(false, NOW);
        }
        assert_eq!(attempts.not_before, NOW + RETRY_MAX);
    }
}
