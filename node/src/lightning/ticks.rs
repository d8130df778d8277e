//! When the tick of LDK's manager may come before its minute is over.
//!
//! LDK keeps each settled payment of ours for eight ticks, encodes it with the manager in every
//! cycle, and walks over it when it sends. So that none of this grows with the rate of payments,
//! a number of settled ones brings the next tick forward. But ticks are LDK's clock for other
//! things too, which it counts in twos and threes: a peer that owes an answer is disconnected, a
//! closing that does not come to terms is forced, parts of a payment to us are given up. Ticks
//! come early only as far as nobody is hurried.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::msgs::MessageSendEvent;
use lightning::ln::types::ChannelId;
use parking_lot::Mutex;
use tokio::time::Instant;

/// The least time between ticks while nothing but payments of ours goes on.
const CALM_TICK: Duration = Duration::from_millis(100);
/// The same while payments come to us or through us, whose parts LDK gives up after three ticks,
/// or a peer is away, whose channels LDK announces as disabled after ten.
const BUSY_TICK: Duration = Duration::from_secs(1);
/// The same while a peer has to answer us: it has as long, and at most twice as long.
const PATIENT_TICK: Duration = Duration::from_secs(10);
/// Settled payments that bring the next tick forward.
const SETTLED_PER_TICK: u64 = 100;
/// Looking whether a tick may come takes at most this share of the time.
const LOOK_SHARE: u32 = 50;

/// `revoke_and_ack`s that peers owe us (BOLT 2): LDK disconnects a peer that owes one at two ticks.
#[derive(Default)]
pub(super) struct Answers {
    owed: Mutex<Owed>,
}

#[derive(Default)]
struct Owed {
    /// By peer and channel: whether a tick has seen it.
    seen: HashMap<(PublicKey, ChannelId), bool>,
    /// A tick has seen what LDK had made by then, which is known once it is collected.
    ticked: bool,
}

impl Answers {
    /// Notes the commitments among `messages`, which are all that LDK made since the last call.
    pub(super) fn asked(&self, messages: &[MessageSendEvent]) {
        let mut owed = self.owed.lock();
        for message in messages {
            if let MessageSendEvent::UpdateHTLCs { node_id, channel_id, .. } = message {
                owed.seen.entry((*node_id, *channel_id)).or_insert(false);
            }
        }
        if std::mem::take(&mut owed.ticked) {
            owed.seen.values_mut().for_each(|seen| *seen = true);
        }
    }

    /// Notes the answer of `peer`.
    pub(super) fn answered(&self, peer: PublicKey, channel: ChannelId) {
        self.owed.lock().seen.remove(&(peer, channel));
    }

    /// Forgets what `peer` owed: its connection has gone.
    pub(super) fn disconnected(&self, peer: PublicKey) {
        self.owed.lock().seen.retain(|(other, _), _| *other != peer);
    }

    fn ticked(&self) {
        self.owed.lock().ticked = true;
    }

    /// Whether a tick may have seen somebody owe an answer.
    fn any_seen(&self) -> bool {
        let owed = self.owed.lock();
        owed.ticked || owed.seen.values().any(|seen| *seen)
    }
}

/// Tells the driver when to tick early.
pub(super) struct EarlyTicks {
    settled: u64,
    since_tick: Instant,
    /// No look before this.
    look: Instant,
}

impl EarlyTicks {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { settled: 0, since_tick: now, look: now }
    }

    /// Counts payments of ours that succeeded.
    pub(super) fn settled(&mut self, payments: u64) {
        self.settled += payments;
    }

    /// Notes a tick.
    pub(super) fn ticked(&mut self, answers: &Answers) {
        answers.ticked();
        self.settled = 0;
        self.since_tick = Instant::now();
    }

    /// Whether a tick may come now. `least` is asked only if it could: the least time between
    /// ticks, see [`least_interval`].
    pub(super) fn due(&mut self, answers: &Answers, least: impl FnOnce() -> Duration) -> bool {
        let now = Instant::now();
        let since = now - self.since_tick;
        if self.settled < SETTLED_PER_TICK
            || since < CALM_TICK
            || now < self.look
            || (since < PATIENT_TICK && answers.any_seen())
        {
            return false;
        }
        let least = least();
        self.look = now + CALM_TICK.max(now.elapsed() * LOOK_SHARE);
        since >= least
    }
}

/// The least time between ticks with these channels and connected peers.
pub(super) fn least_interval(channels: &[ChannelDetails], peers: &HashSet<PublicKey>) -> Duration {
    let doing = channels.iter().map(|channel| Doing::of(channel, peers));
    doing.map(Doing::least_interval).max().unwrap_or(CALM_TICK)
}

/// What a channel is doing, as far as ticks matter to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// It is being opened or closed, or waits for `channel_reestablish`.
    Negotiating,
    /// It waits for its peer, or for confirmations.
    Waiting,
    /// It carries payments to us or through us.
    Receiving,
    /// At most payments of ours.
    Calm,
}

impl Doing {
    fn of(channel: &ChannelDetails, connected: &HashSet<PublicKey>) -> Self {
        let closing = channel
            .channel_shutdown_state
            .is_some_and(|state| state != ChannelShutdownState::NotShuttingDown);
        match connected.contains(&channel.counterparty.node_id) {
            _ if closing => Self::Negotiating,
            false => Self::Waiting,
            true if channel.is_usable && channel.pending_inbound_htlcs.is_empty() => Self::Calm,
            true if channel.is_usable => Self::Receiving,
            true if channel.is_channel_ready || channel.funding_txo.is_none() => Self::Negotiating,
            true => Self::Waiting,
        }
    }

    fn least_interval(self) -> Duration {
        match self {
            Self::Negotiating => PATIENT_TICK,
            Self::Waiting | Self::Receiving => BUSY_TICK,
            Self::Calm => CALM_TICK,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use lightning::chain::transaction::OutPoint;
    use lightning::ln::channel_state::InboundHTLCDetails;
    use lightning::ln::msgs::CommitmentUpdate;
    use lightning_types::payment::PaymentHash;

    use super::*;
    use crate::lightning::pathfinding::tests::world::{key, own};

    const CHANNEL: ChannelId = ChannelId([1; 32]);

    /// Early ticks in so many seconds, in which a thousand payments settle each.
    async fn ticks_in(seconds: u64, least: Duration, answers: &Answers) -> u32 {
        let mut early = EarlyTicks::new();
        let mut ticks = 0;
        for _ in 0..seconds * 1_000 {
            tokio::time::advance(Duration::from_millis(1)).await;
            answers.asked(&[]);
            early.settled(1);
            if early.due(answers, || least) {
                early.ticked(answers);
                ticks += 1;
            }
        }
        ticks
    }

    fn commitment() -> [MessageSendEvent; 1] {
        [MessageSendEvent::UpdateHTLCs {
            node_id: key(1),
            channel_id: CHANNEL,
            updates: CommitmentUpdate {
                update_add_htlcs: vec![],
                update_fulfill_htlcs: vec![],
                update_fail_htlcs: vec![],
                update_fail_malformed_htlcs: vec![],
                update_fee: None,
                commitment_signed: vec![],
            },
        }]
    }

    #[tokio::test(start_paused = true)]
    async fn ticks_come_with_settled_payments_as_often_as_the_channels_allow() {
        let answers = Answers::default();
        assert_eq!(ticks_in(2, CALM_TICK, &answers).await, 20);
        assert_eq!(ticks_in(4, BUSY_TICK, &answers).await, 4);
        assert_eq!(ticks_in(25, PATIENT_TICK, &answers).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn no_tick_without_settled_payments() {
        let mut early = EarlyTicks::new();
        early.settled(SETTLED_PER_TICK - 1);
        tokio::time::advance(BUSY_TICK).await;
        assert!(!early.due(&Answers::default(), || CALM_TICK));
        early.settled(1);
        assert!(early.due(&Answers::default(), || CALM_TICK));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_owes_an_answer_has_its_time() {
        let answers = Answers::default();
        answers.asked(&commitment());
        assert_eq!(ticks_in(25, CALM_TICK, &answers).await, 3, "one, and then every ten seconds");
        answers.answered(key(1), CHANNEL);
        assert_eq!(ticks_in(1, CALM_TICK, &answers).await, 10);
        answers.ticked();
        answers.asked(&commitment());
        answers.disconnected(key(1));
        assert_eq!(ticks_in(1, CALM_TICK, &answers).await, 10);
    }

    #[test]
    fn what_a_channel_does_says_how_often() {
        let peers = HashSet::from([key(1)]);
        let channel = |change: fn(&mut ChannelDetails)| {
            let mut channel = own(1, 1, 1, 1_000_000);
            (channel.is_usable, channel.is_channel_ready) = (true, true);
            change(&mut channel);
            least_interval(&[channel], &peers)
        };
        assert_eq!(least_interval(&[], &peers), CALM_TICK);
        assert_eq!(channel(|_| {}), CALM_TICK);
        assert_eq!(channel(|it| it.counterparty.node_id = key(2)), BUSY_TICK);
        let receives = |it: &mut ChannelDetails| {
            it.pending_inbound_htlcs = vec![InboundHTLCDetails {
                htlc_id: 0,
                amount_msat: 1,
                cltv_expiry: 1,
                payment_hash: PaymentHash([0; 32]),
                state: None,
                is_dust: true,
            }];
        };
        assert_eq!(channel(receives), BUSY_TICK);
        assert_eq!(channel(|it| it.is_usable = false), PATIENT_TICK);
        let confirming = |it: &mut ChannelDetails| {
            (it.is_usable, it.is_channel_ready) = (false, false);
            it.funding_txo = Some(OutPoint { txid: bitcoin::Txid::all_zeros(), index: 0 });
        };
        assert_eq!(channel(confirming), BUSY_TICK);
        let closing = |it: &mut ChannelDetails| {
            it.channel_shutdown_state = Some(ChannelShutdownState::NegotiatingClosingFee);
        };
        assert_eq!(channel(closing), PATIENT_TICK);
    }
}
