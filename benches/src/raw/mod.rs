//! What LDK alone reaches: two or three `ChannelManager`s in one thread, with real keys and real
//! signatures, and nothing else. No network, no store, no log, no search for paths.
//!
//! It is the yardstick for a node on LDK: what is missing to these figures is the node's own.
//! Read `party.rs` for what a manager is given here, `wire.rs` for how messages are grouped.

mod chain;
mod parts;
mod party;
mod wire;

use std::fs;
use std::time::{Duration, Instant};

use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::routing::router::{Path, PaymentParameters, RouteHop, RouteParameters};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use node::lightning::ChannelPolicy;

use self::chain::Chain;
use self::party::{HTLC_SLOTS, Notice, Party};
use crate::{Failure, Figures, Run, percentile_ms};

/// Payments between two ticks of the managers: a settled payment leaves after some ticks.
const PAYMENTS_PER_TICK: u64 = 1_000;

/// Sends windows of payments for `run.seconds` and measures them.
///
/// A window is sent whole; then messages pass until everybody is quiet, and the next one follows.
/// A window larger than a channel's HTLC slots is cut to them.
///
/// # Errors
///
/// `run` is out of range, LDK refuses or fails a payment, a channel runs dry, or a millisatoshi
/// is not where it should be in the end.
pub fn measure(run: &Run) -> Result<Figures, Failure> {
    let window = run.in_flight.min(u32::from(HTLC_SLOTS));
    if window == 0 {
        return Err("a window of no payments".into());
    }
    let mut line = Line::new(run.nodes, run.amount_msat)?;
    let before = line.balances();
    let mut times = Vec::new();
    let (cpu, began) = (thread_cpu()?, Instant::now());
    while began.elapsed() < Duration::from_secs(run.seconds) {
        times.extend(line.pay(window)?);
    }
    let (elapsed, cpu) = (began.elapsed(), thread_cpu()?.saturating_sub(cpu));
    line.check_balances(&before)?;
    times.sort_unstable();
    let payments = times.len().max(1) as f64;
    Ok(Figures {
        program: "LDK alone, in memory".to_owned(),
        run: *run,
        failed: 0,
        fsyncs_per_payment: None,
        disk_bytes_per_payment: None,
        payments: times.len() as u64,
        payments_per_second: times.len() as f64 / elapsed.as_secs_f64(),
        p50_ms: percentile_ms(&times, 50),
        p99_ms: percentile_ms(&times, 99),
        cpu_ms_per_payment: cpu.as_secs_f64() * 1_000.0 / payments,
    })
}

/// Parties with a channel from each to the next.
struct Line {
    parties: Vec<Party>,
    params: RouteParameters,
    /// Payments sent so far, all of which arrived.
    sent: u64,
    /// What the payer paid for forwarding, and what the others earned with it, msat.
    fees_paid_msat: u64,
    fees_earned_msat: u64,
}

impl Line {
    /// Makes the parties, opens the channels between them and fixes the route.
    fn new(nodes: u8, amount_msat: u64) -> Result<Self, Failure> {
        if !(2..=3).contains(&nodes) {
            return Err(format!("{nodes} nodes, a line has 2 or 3").into());
        }
        if amount_msat == 0 {
            return Err("a payment of nothing".into());
        }
        let mut chain = Chain::new();
        let parties = (0..nodes)
            .map(|number| Party::new(number, chain.tip()))
            .collect::<Result<Vec<_>, _>>()?;
        for acceptor in 1..parties.len() {
            chain.open_channel(&parties, acceptor - 1, acceptor)?;
        }
        let path = path(&parties, amount_msat)?;
        let payee = parties[parties.len() - 1].id;
        let final_delta = u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA);
        let params = RouteParameters::from_payment_params_and_value(
            PaymentParameters::for_keysend(payee, final_delta, false),
            amount_msat,
        );
        parties[0].use_route(path);
        Ok(Self { parties, params, sent: 0, fees_paid_msat: 0, fees_earned_msat: 0 })
    }

    /// Sends `count` payments at once and settles them; returns how long each took.
    fn pay(&mut self, count: u32) -> Result<Vec<Duration>, Failure> {
        let first = self.sent;
        let mut sent_at = Vec::new();
        for number in (first..).take(count as usize) {
            sent_at.push(Instant::now());
            self.parties[0].pay(number, &self.params)?;
        }
        self.sent += u64::from(count);
        let mut times = Vec::new();
        for notice in wire::settle(&self.parties)? {
            match notice {
                Notice::Paid { number, at, fee_msat } => {
                    let place = number.checked_sub(first).and_then(|n| usize::try_from(n).ok());
                    let began = place.and_then(|place| sent_at.get(place));
                    times.push(
                        at.duration_since(*began.ok_or("a payment arrived that was not sent")?),
                    );
                    self.fees_paid_msat += fee_msat;
                }
                Notice::Forwarded { fee_msat } => self.fees_earned_msat += fee_msat,
                Notice::FundingNeeded { .. } => return Err("a channel nobody opened".into()),
            }
        }
        // Everybody is quiet: what has not arrived by now never will.
        if times.len() != sent_at.len() {
            return Err(format!("{} of {count} payments arrived", times.len()).into());
        }
        if first / PAYMENTS_PER_TICK != self.sent / PAYMENTS_PER_TICK {
            for party in &self.parties {
                party.manager.timer_tick_occurred();
            }
        }
        Ok(times)
    }

    /// What each party can send, msat, in the order of the line.
    fn balances(&self) -> Vec<u64> {
        self.parties.iter().map(Party::spendable_msat).collect()
    }

    /// Whether the payer lost since `before` what the payee got and forwarding cost, and everybody
    /// between earned just that.
    fn check_balances(&self, before: &[u64]) -> Result<(), Failure> {
        let paid_msat = u128::from(self.sent) * u128::from(self.params.final_value_msat);
        let (paid_msat, fees_msat) = (i128::try_from(paid_msat)?, i128::from(self.fees_paid_msat));
        let gained: Vec<i128> = before
            .iter()
            .zip(self.balances())
            .map(|(before, after)| i128::from(after) - i128::from(*before))
            .collect();
        let mut expected = vec![0; gained.len()];
        if let [payer, hubs @ .., payee] = expected.as_mut_slice() {
            *payer = -(paid_msat + fees_msat);
            *payee = paid_msat;
            hubs.iter_mut().for_each(|hub| *hub = i128::from(self.fees_earned_msat));
        }
        if gained != expected || gained.iter().sum::<i128>() != 0 {
            return Err(format!("gained {gained:?} msat by party, expected {expected:?}").into());
        }
        Ok(())
    }
}

/// The way from the first party to the last, with the fee of every party between.
fn path(parties: &[Party], amount_msat: u64) -> Result<Path, Failure> {
    let policy = ChannelPolicy::default();
    let fee_msat = amount_msat
        .checked_mul(u64::from(policy.forwarding_fee_ppm))
        .map(|proportional| proportional / 1_000_000 + u64::from(policy.forwarding_fee_base_msat))
        .ok_or("the amount is too large")?;
    let mut hops = Vec::new();
    for pair in parties.windows(2) {
        let (from, to) = (&pair[0], &pair[1]);
        // The name that `from` gave the channel: the real one is private.
        let channels = to.manager.list_usable_channels();
        let scid = channels
            .iter()
            .find(|channel| channel.counterparty.node_id == from.id)
            .and_then(|channel| channel.get_inbound_payment_scid())
            .ok_or("the channel has no name yet")?;
        hops.push(RouteHop {
            pubkey: to.id,
            node_features: NodeFeatures::empty(),
            short_channel_id: scid,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta: u32::from(policy.cltv_expiry_delta),
            maybe_announced_channel: false,
        });
    }
    // A hop carries what the party at its end keeps: the last one the payment itself.
    if let Some(last) = hops.last_mut() {
        last.fee_msat = amount_msat;
        last.cltv_expiry_delta = u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA);
    }
    Ok(Path { hops, blinded_tail: None })
}

/// Processor time that this thread has used.
fn thread_cpu() -> Result<Duration, Failure> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let on_cpu = stat.split_whitespace().next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(on_cpu.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settles_and_conserves(nodes: u8, amount_msat: u64, fee_msat: u64) {
        let mut line = Line::new(nodes, amount_msat).unwrap();
        let mut before = line.balances();
        for _ in 0..4 {
            assert_eq!(line.pay(50).unwrap().len(), 50);
        }
        line.check_balances(&before).unwrap();
        let after = line.balances();
        let last = after.len() - 1;
        assert_eq!(before[0] - after[0], 200 * (amount_msat + fee_msat));
        assert_eq!(after[last] - before[last], 200 * amount_msat);
        assert_eq!(line.fees_paid_msat, 200 * fee_msat);
        assert_eq!(line.fees_earned_msat, 200 * fee_msat);
        before[0] += 1;
        assert!(line.check_balances(&before).is_err());
    }

    #[test]
    fn two_parties_settle_to_the_msat() {
        settles_and_conserves(2, 1_001, 0);
    }

    #[test]
    fn three_parties_settle_to_the_msat() {
        settles_and_conserves(3, 10_000_001, 2_000);
    }

    #[test]
    fn channels_have_commitments_without_fee() {
        let line = Line::new(2, 1_000).unwrap();
        for party in &line.parties {
            let channels = party.manager.list_usable_channels();
            let kind = channels[0].channel_type.as_ref().unwrap();
            assert!(kind.supports_anchor_zero_fee_commitments());
        }
    }

    #[test]
    fn a_payment_beyond_the_channel_fails() {
        let mut line = Line::new(2, chain::CAPACITY_SAT * 1_000).unwrap();
        assert!(line.pay(1).is_err());
    }

    #[test]
    fn a_window_beyond_the_slots_is_cut_to_them() {
        let run = Run { nodes: 2, in_flight: 400, amount_msat: 1_000, seconds: 1 };
        let figures = measure(&run).unwrap();
        assert!(figures.payments > 0 && figures.payments.is_multiple_of(114), "{figures:?}");
        assert!(figures.p50_ms > 0.0 && figures.p99_ms >= figures.p50_ms, "{figures:?}");
        assert!(measure(&Run { in_flight: 0, ..run }).is_err());
    }
}
