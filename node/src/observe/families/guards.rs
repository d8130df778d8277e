//! Batches, swaps and towers.

use std::collections::BTreeMap;

use channel_contracts::batch::{LeafState, UserPhase};

use super::flag;
use crate::batches::{PHASES, phase_name};
use crate::journal::{SwapKind, SwapState};
use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page};
use crate::swaps::SwapRole;

pub(super) async fn batches(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let mut by_phase: BTreeMap<&str, u64> = BTreeMap::new();
    for batch in parts.batches.batches().await {
        *by_phase.entry(phase_name(&batch.phase)).or_default() += 1;
    }
    let help = "Batches of this hub by phase.";
    let mut family = page.family("tributary_batches", Kind::Gauge, help);
    for phase in PHASES {
        family.sample(&[("phase", phase)], by_phase.get(phase).copied().unwrap_or(0));
    }
    let phases = parts.batches.phases();
    let help = "How often batches of this hub came into each phase.";
    let mut family = page.family("tributary_batch_phases_total", Kind::Counter, help);
    for (phase, count) in phases.entered() {
        family.sample(&[("phase", phase)], count);
    }
    if let Some(times) = phases.times() {
        let help = "How long batches of this hub stayed in each phase.";
        let mut family = page.family("tributary_batch_phase_seconds", Kind::Histogram, help);
        for (phase, histogram) in times.filter(|(_, histogram)| histogram.count() > 0) {
            family.histogram(&[("phase", phase)], histogram);
        }
    }
    let height = parts.sync.borrow().synced.map_or(0, |block| block.height);
    let mut joins: BTreeMap<&str, u64> = WISHES.into_iter().map(|state| (state, 0)).collect();
    let mut deadline: Option<i64> = None;
    for join in parts.batches.joins().await {
        *joins.entry(wish(join.state)).or_default() += 1;
        if let (UserPhase::Leaf(LeafState::Confirmed { .. }), Some(at)) =
            (join.state, join.deadline)
        {
            let left = i64::from(at.to_consensus_u32()) - i64::from(height);
            deadline = Some(deadline.map_or(left, |least| least.min(left)));
        }
    }
    let help = "Channels of this node in batches of others, by where they stand.";
    let mut family = page.family("tributary_batch_wishes", Kind::Gauge, help);
    for (state, count) in joins {
        family.sample(&[("state", state)], count);
    }
    if let Some(left) = deadline {
        page.gauge(
            "tributary_batch_next_deadline_blocks",
            "Blocks until the first channel of a batch must be rolled over or unrolled.",
            left,
        );
    }
    swaps(&parts.swaps.list().await, page);
}

/// Where a channel of a batch stands.
const WISHES: [&str; 4] = ["forming", "open", "ended", "dropped"];

fn wish(state: UserPhase) -> &'static str {
    match state {
        UserPhase::Leaf(LeafState::Funded | LeafState::Confirmed { .. }) => "open",
        UserPhase::Leaf(LeafState::Dropped) => "dropped",
        UserPhase::Leaf(LeafState::Retired | LeafState::Dead | LeafState::Unrolled)
        | UserPhase::Leaf(LeafState::Abandoned)
        | UserPhase::Over(_) => "ended",
        _ => "forming",
    }
}

fn swaps(swaps: &[crate::swaps::SwapView], page: &mut Page) {
    let mut counts: BTreeMap<[&str; 3], u64> = BTreeMap::new();
    for kind in ["withdrawal", "deposit"] {
        for role in ["user", "hub"] {
            for state in ["under_way", "done", "refunded", "failed"] {
                counts.insert([kind, role, state], 0);
            }
        }
    }
    for swap in swaps {
        let kind = match swap.kind {
            SwapKind::Withdrawal => "withdrawal",
            SwapKind::Deposit => "deposit",
        };
        let role = match swap.role {
            SwapRole::User => "user",
            SwapRole::Hub => "hub",
        };
        let state = match swap.state {
            SwapState::Done => "done",
            SwapState::Refunded => "refunded",
            SwapState::Failed => "failed",
            _ => "under_way",
        };
        *counts.entry([kind, role, state]).or_default() += 1;
    }
    let help = "Withdrawals and deposits on record, by where they stand.";
    let mut family = page.family("tributary_swaps", Kind::Gauge, help);
    for ([kind, role, state], count) in counts {
        family.sample(&[("kind", kind), ("role", role), ("state", state)], count);
    }
}

pub(super) fn towers(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let towers = parts.towers.list();
    page.gauge("tributary_towers", "Towers that guard this node.", towers.len());
    page.gauge(
        "tributary_tower_outbox_bytes",
        "What waits for the slowest tower.",
        parts.towers.outbox_bytes(),
    );
    let names: Vec<String> = towers.iter().map(|tower| tower.record.tower.to_string()).collect();
    let mut family =
        |name, kind, help: &str, of: &dyn Fn(&crate::tower::client::GuardView) -> u64| {
            let mut family = page.family(name, kind, help);
            for (tower, name) in towers.iter().zip(&names) {
                family.sample(&[("tower", name)], of(tower));
            }
        };
    let gauge = Kind::Gauge;
    family("tributary_tower_backlog", gauge, "States that a tower does not have yet.", &|tower| {
        tower.backlog
    });
    family("tributary_tower_failing", gauge, "1 while a tower cannot be given any.", &|tower| {
        flag(tower.last_error.is_some()).into()
    });
    let total = Kind::Counter;
    let help = "States that a tower has a receipt for.";
    family("tributary_tower_delivered_total", total, help, &|tower| tower.record.delivered);
    let help = "States that a tower refused.";
    family("tributary_tower_refused_total", total, help, &|tower| tower.record.refused);
    let help = "States that were forgotten before a tower had them.";
    family("tributary_tower_missed_total", total, help, &|tower| tower.record.missed);
    if let Some(tower) = &parts.tower {
        serving(tower, page);
    }
}

/// This node as a tower for others.
fn serving(tower: &crate::tower::server::Tower, page: &mut Page) {
    let ledger = tower.ledger();
    let (clients, channels) = ledger.counts();
    page.gauge("tributary_watchtower_clients", "Clients of this tower.", clients);
    page.gauge("tributary_watchtower_channels", "Channels that it guards.", channels);
    page.gauge("tributary_watchtower_appointments", "States that it holds.", ledger.len());
    page.gauge(
        "tributary_watchtower_index_bytes",
        "Memory of the index that finds breaches.",
        ledger.index_bytes(),
    );
    page.gauge("tributary_watchtower_paths", "Paths it may publish.", tower.watches().len());
    let breaches = tower.guard().breaches();
    let open = breaches.iter().filter(|breach| breach.over.is_none()).count();
    let help = "Breaches that it answers: open, or over and not buried.";
    page.family("tributary_watchtower_breaches", Kind::Gauge, help)
        .sample(&[("state", "open")], open)
        .sample(&[("state", "over")], breaches.len() - open);
    let help = "Outputs of these breaches by who has them.";
    page.family("tributary_watchtower_breach_outputs", Kind::Gauge, help)
        .sample(&[("state", "taken")], breaches.iter().map(|breach| breach.taken).sum::<usize>())
        .sample(&[("state", "lost")], breaches.iter().map(|breach| breach.lost).sum::<usize>());
    page.gauge(
        "tributary_watchtower_height",
        "Height of the block that this tower has looked at.",
        tower.guard().height(),
    );
}
