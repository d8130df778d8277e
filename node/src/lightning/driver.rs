//! The LDK room's own loop: events out, forwards through, timers on time.
//!
//! LDK's background processor waits a random 50 ms before each forwarding pass and persists on
//! its own terms; neither fits a node that commits in groups. Events are handled in memory,
//! their records join the batch under way, and the commit cycle does the rest.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lightning::events::{Event, EventsProvider, PathFailure};
use lightning::ln::msgs::OnionMessageHandler;
use lightning::routing::scoring::ScoreUpdate;
use lightning::util::persist::{
    KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY, NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
    NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE, SCORER_PERSISTENCE_KEY,
    SCORER_PERSISTENCE_PRIMARY_NAMESPACE, SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
};
use lightning::util::ser::Writeable;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::build::Parts;
use super::closed;
use super::events::{LightningEvent, translate};
use super::room::Lightning;
use super::ticks::{self, EarlyTicks};
use crate::runtime::Tasks;

/// LDK's manager ages unfinished payments and stale peers by ticks of about a minute.
const MANAGER_TICK: Duration = Duration::from_secs(60);
/// Pings, and disconnects of peers that do not answer.
const PEER_TICK: Duration = Duration::from_secs(10);
/// Retries of onion messages.
const MESSENGER_TICK: Duration = Duration::from_secs(10);
/// Rebroadcasts and fee bumps of pending claims.
const CLAIM_TICK: Duration = Duration::from_secs(30);
/// Sweeps of outputs that became spendable.
const SWEEP_TICK: Duration = Duration::from_secs(30);
/// Scores and graph are hints: losing an hour of them costs nothing.
const HINT_TICK: Duration = Duration::from_secs(3_600);

/// Who decides what an event means.
pub trait EventHandler: Send + Sync + 'static {
    /// Handles `event` without waiting. Its records must be enqueued before this returns.
    fn handle(&self, event: LightningEvent);
}

/// Runs until the stop signal.
pub(super) async fn run(
    parts: Arc<Parts>,
    handler: Arc<dyn EventHandler>,
    forward_delay: Duration,
    tasks: Tasks,
) {
    let every = |period| {
        let mut timer = interval_at(Instant::now() + period, period);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        timer
    };
    let mut manager_tick = every(MANAGER_TICK);
    let mut early = EarlyTicks::new();
    let mut peer_tick = every(PEER_TICK);
    let mut messenger_tick = every(MESSENGER_TICK);
    let mut claim_tick = every(CLAIM_TICK);
    let mut sweep_tick = every(SWEEP_TICK);
    let mut hint_tick = every(HINT_TICK);

    parts.manager.timer_tick_occurred();
    parts.chain_monitor.rebroadcast_pending_claims();
    loop {
        // Futures first, then the work: a notification in between is not lost.
        let manager_woke = parts.manager.get_event_or_persistence_needed_future();
        let monitor_woke = parts.chain_monitor.get_update_future();
        let messenger_woke = parts.messenger.get_update_future();
        let gossip_woke = parts.gossip.validation_completion_future();

        if !forward_delay.is_zero() && parts.manager.needs_pending_htlc_processing() {
            parts.committer.kick();
            let until = Instant::now() + forward_delay;
            while tokio::time::timeout_at(until, parts.gate.reading.ended()).await.is_ok() {
                parts.committer.kick();
            }
        }
        parts.gate.between_cycles(|| {
            process_events(&parts, &*handler);
            if parts.manager.needs_pending_htlc_processing() {
                parts.manager.process_pending_htlc_forwards();
                process_events(&parts, &*handler);
            }
            if parts.gate.withheld.take_due_bumps() {
                parts.chain_monitor.rebroadcast_pending_claims();
                process_events(&parts, &*handler);
            }
        });
        parts.committer.kick();
        parts.gate.released.notify_one();
        early.settled(parts.settled.swap(0, Ordering::Relaxed));
        if early.due(&parts.gate.answers, || least_interval(&parts)) {
            manager_tick.reset_immediately();
        }

        tokio::select! {
            biased;
            () = tasks.stopped() => break,
            // Timers before wakes: under load there is always a wake.
            _ = peer_tick.tick() => parts.peers.timer_tick_occurred(),
            _ = manager_tick.tick() => {
                parts.manager.timer_tick_occurred();
                early.ticked(&parts.gate.answers);
            }
            _ = messenger_tick.tick() => parts.messenger.timer_tick_occurred(),
            _ = claim_tick.tick() => {
                parts.chain_monitor.rebroadcast_pending_claims();
                parts.chain_monitor.archive_fully_resolved_channel_monitors();
            }
            _ = sweep_tick.tick() => {
                if parts.sweeper.regenerate_and_broadcast_spend_if_necessary().is_err() {
                    tracing::warn!("outputs of closed channels could not be swept yet");
                }
            }
            _ = hint_tick.tick() => save_hints(&parts),
            () = parts.gate.reading.ended() => {}
            () = manager_woke => {}
            () = monitor_woke => {}
            () = messenger_woke => {}
            () = gossip_woke => {}
        }
    }
    save_hints(&parts);
}

/// How often the manager may tick for all of the node's channels.
fn least_interval(parts: &Parts) -> Duration {
    let peers = parts.peers.list_peers();
    let peers = peers.into_iter().map(|peer| peer.counterparty_node_id).collect();
    ticks::least_interval(&parts.manager.list_channels(), &peers)
}

/// Hands every event LDK has to `handler`. To be called between two cycles, see the gate.
pub(super) fn process_events(parts: &Parts, handler: &dyn EventHandler) {
    let htlcs_ended = Cell::new(false);
    let handle = |event: Event| {
        if let Event::PaymentPathSuccessful { .. } | Event::PaymentPathFailed { .. } = event {
            htlcs_ended.set(true);
        }
        handle_in_room(parts, &event);
        if Lightning::outlives_its_batch(parts, &event) {
            if let Event::PaymentClaimable { payment_hash, claim_deadline, .. } = &event {
                tracing::warn!(
                    %payment_hash, ?claim_deadline,
                    "payment came over a channel of a batch and could outlive it; it goes back"
                );
                parts.manager.fail_htlc_backwards(payment_hash);
            }
            return Ok(());
        }
        if let Some(mut said) = translate(&event) {
            closed::correct(parts, &event, &mut said);
            match &mut said {
                LightningEvent::Failed { id, temporary, .. } => {
                    *temporary = parts.temporary_failures.lock().remove(id);
                    parts.router.parts().end((*id).into());
                }
                LightningEvent::Sent { id, parts: count, .. } => {
                    *count = parts.router.parts().end((*id).into()).unwrap_or(0);
                }
                _ => {}
            }
            handler.handle(said);
        }
        Ok(())
    };
    parts.manager.process_pending_events(&handle);
    parts.chain_monitor.process_pending_events(&handle);
    parts.messenger.process_pending_events(&handle);
    if htlcs_ended.get() {
        handler.handle(LightningEvent::HtlcsEnded);
    }
}

/// What an event asks of LDK's own parts.
fn handle_in_room(parts: &Parts, event: &Event) {
    let now = parts.environment.clock.now();
    match event {
        // LDK repeats the event while its commitment is unconfirmed: one that is withheld costs no
        // coins until its leaf is on chain.
        Event::BumpTransaction(bump) if parts.gate.withheld.keep_bump(bump) => {}
        Event::BumpTransaction(bump) => {
            let at = parts.manager.current_best_block().block_hash;
            if let Some(bump) = parts.inputs.fit(bump, at) {
                // Until it is broadcast, its coins are free in the eyes of others.
                let _nobody_else_chooses = parts.wallet.choosing();
                parts.bumper.handle_event(&bump);
            }
        }
        Event::SpendableOutputs { outputs, channel_id, counterparty_node_id } => {
            // Static outputs already pay to an address of the wallet.
            let tracked = parts.sweeper.track_spendable_outputs(
                outputs.clone(),
                *channel_id,
                *counterparty_node_id,
                true,
                None,
            );
            assert!(tracked.is_ok(), "LDK's sweeper fails only if our store does at once");
            if parts.sweeper.regenerate_and_broadcast_spend_if_necessary().is_err() {
                tracing::warn!("outputs of a closed channel wait for the next sweep");
            }
        }
        Event::PaymentSent { payment_id: Some(id), .. } => {
            parts.settled.fetch_add(1, Ordering::Relaxed);
            parts.temporary_failures.lock().remove(&(*id).into());
        }
        Event::PaymentPathSuccessful { path, .. } => {
            write(&parts.scorer).payment_path_successful(path, now);
        }
        Event::PaymentPathFailed {
            payment_id,
            path,
            short_channel_id,
            payment_failed_permanently,
            failure,
            ..
        } => {
            if let Some(id) = payment_id {
                parts.router.parts().failed(*id);
                if !payment_failed_permanently {
                    parts.temporary_failures.lock().insert((*id).into());
                }
            }
            if let PathFailure::OnPath { network_update: Some(update) } = failure {
                parts.graph.handle_network_update(update);
            }
            match short_channel_id {
                Some(scid) => write(&parts.scorer).payment_path_failed(path, *scid, now),
                // The receiver itself refused: the path was able to carry the amount.
                None if *payment_failed_permanently => {
                    write(&parts.scorer).probe_successful(path, now);
                }
                None => {}
            }
        }
        Event::FundingTransactionReadyForSigning {
            channel_id,
            counterparty_node_id,
            unsigned_transaction,
            ..
        } => {
            // We put no coins into splices, and LDK signs for the channel: nothing to add.
            let signed = parts.manager.funding_transaction_signed(
                channel_id,
                counterparty_node_id,
                unsigned_transaction.clone(),
            );
            if let Err(error) = signed {
                tracing::info!(%channel_id, ?error, "splice ended before it was signed");
            }
        }
        Event::ChannelClosed { channel_id, .. } => parts.gate.htlcs.closed(*channel_id),
        Event::ProbeSuccessful { path, .. } => write(&parts.scorer).probe_successful(path, now),
        Event::ProbeFailed { path, short_channel_id: Some(scid), .. } => {
            write(&parts.scorer).probe_failed(path, *scid, now);
        }
        _ => {}
    }
}

fn write<T>(lock: &std::sync::RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    // A panic while scoring leaves hints that are still only hints.
    lock.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn save_hints(parts: &Parts) {
    let now = parts.environment.clock.now();
    write(&parts.scorer).time_passed(now);
    parts.graph.remove_stale_channels_and_tracking_with_time(now.as_secs());
    let scorer = write(&parts.scorer).encode();
    let saved = parts
        .objects
        .write(
            SCORER_PERSISTENCE_PRIMARY_NAMESPACE,
            SCORER_PERSISTENCE_SECONDARY_NAMESPACE,
            SCORER_PERSISTENCE_KEY,
            scorer,
        )
        .and_then(|()| {
            parts.objects.write(
                NETWORK_GRAPH_PERSISTENCE_PRIMARY_NAMESPACE,
                NETWORK_GRAPH_PERSISTENCE_SECONDARY_NAMESPACE,
                NETWORK_GRAPH_PERSISTENCE_KEY,
                parts.graph.encode(),
            )
        });
    if let Err(error) = saved {
        tracing::warn!(%error, "channel scores and network graph were not saved");
    }
}
