//! Batches for people.

use comfy_table::Cell;
use node::batches::PathReport;
use proto::v1::{
    BatchExitCost, BatchExitEstimate, BatchMembership, BatchPolicy, BatchUnroll, HostedBatch,
    MembershipState, UnrollState,
};

use super::table::{begin, finish, words};
use super::text::{Card, sats, short};
use crate::amount::grouped;

/// Digits of an id that tell one from another.
const ID_DIGITS: usize = 16;

/// What leaving would cost.
pub fn quote(quote: &BatchExitEstimate, capacity_sat: u64) -> String {
    let Some(exit) = &quote.exit else { return String::new() };
    let mut lines = vec![
        format!("leaving alone: {}", exit_line(exit)),
        format!("a place may cost {} at most", sats(quote.fee_max_sat)),
    ];
    if !exit.is_worth {
        lines.push(format!(
            "a channel of {} is not worth leaving on chain at this feerate: only the hub's \
             reputation protects it",
            sats(capacity_sat)
        ));
    }
    lines.join("\n")
}

fn exit_line(exit: &BatchExitCost) -> String {
    format!(
        "{} levels, {} blocks at least, {} vB, {} at {} sat/vB",
        exit.levels,
        exit.blocks,
        grouped(exit.vbytes),
        sats(exit.fee_sat),
        exit.feerate_sat_per_vb
    )
}

fn state(membership: &BatchMembership) -> String {
    words(membership.state().as_str_name(), "MEMBERSHIP_STATE_")
}

/// One step in a line.
pub fn line(membership: &BatchMembership) -> String {
    let line = format!("{}: {}", state(membership), membership.detail);
    match &membership.unroll {
        Some(unroll) if membership.state() != MembershipState::Unrolled => {
            format!("{line}; {}", unroll_line(unroll))
        }
        _ => line,
    }
}

/// How far a path is on its way onto the chain.
fn unroll_line(unroll: &BatchUnroll) -> String {
    let level = || format!("{} of {}", unroll.level.map_or(0, |level| level + 1), unroll.levels);
    match unroll.state() {
        UnrollState::Unspecified | UnrollState::Wanted => "leaving".into(),
        UnrollState::AwaitsRoot => "leaving, once the batch transaction is in a block".into(),
        UnrollState::Publishing => format!("leaving: transaction {} waits for a block", level()),
        UnrollState::NoCoin => format!(
            "leaving: no confirmed coin pays for transaction {}; deposit {} or more",
            level(),
            sats(unroll.needed_sat())
        ),
        UnrollState::OnChain => format!("on chain, {} blocks deep", unroll.confirmations()),
        UnrollState::Lost => "too late to leave: the hub has taken the output back".into(),
    }
}

/// One channel of a batch.
pub fn membership(membership: &BatchMembership) -> String {
    let outpoint = |o: &proto::v1::Outpoint| format!("{}:{}", hex::encode(&o.txid), o.output_index);
    let mut card = Card::default();
    card.line("wish", hex::encode(&membership.registration_id))
        .line("hub", hex::encode(&membership.hub_node_id))
        .line("state", line(membership))
        .line("capacity", sats(membership.capacity_sat))
        .maybe("follows", membership.follows_registration_id.as_ref().map(hex::encode))
        .maybe("batch", membership.batch_id.as_ref().map(hex::encode))
        .maybe("fee", membership.fee_sat.map(sats))
        .maybe("channel", membership.channel_record_id.as_ref().map(hex::encode))
        .maybe("root", membership.root_outpoint.as_ref().map(outpoint))
        .maybe("funding", membership.funding_outpoint.as_ref().map(outpoint))
        .maybe("leave by", membership.deadline_height.map(|height| format!("height {height}")))
        .maybe("expires", membership.expires_height.map(|height| format!("height {height}")))
        .maybe("leaving", membership.exit.as_ref().map(exit_line));
    if membership.exit.as_ref().is_some_and(|exit| !exit.is_worth) {
        card.line("note", "too small to be worth leaving on chain at this feerate");
    }
    if membership.path.is_some() && membership.state() != MembershipState::Over {
        card.line("path", "stored; back it up with `tributary batch export`");
    }
    card.finish()
}

/// Channels of batches.
pub fn memberships(memberships: &[BatchMembership]) -> String {
    let mut table = begin(&["wish", "hub", "state", ">capacity sat", ">leave by", ">expires"]);
    for membership in memberships {
        let height = |height: Option<u32>| height.map_or(String::new(), |h| grouped(h.into()));
        table.add_row(vec![
            Cell::new(&hex::encode(&membership.registration_id)[..ID_DIGITS]),
            Cell::new(short(&membership.hub_node_id)),
            Cell::new(line(membership)),
            Cell::new(grouped(membership.capacity_sat)),
            Cell::new(height(membership.deadline_height)),
            Cell::new(height(membership.expires_height)),
        ]);
    }
    finish(table, "no channels of batches; ask a hub with `tributary batch join`")
}

/// Batches of a hub.
pub fn hosted(batches: &[HostedBatch]) -> String {
    let mut table = begin(&["batch", "state", ">users", ">left out", ">expires", "transaction"]);
    for batch in batches {
        let state = words(batch.state().as_str_name(), "HOSTED_BATCH_STATE_");
        let state = match batch.detail.is_empty() {
            true => state,
            false => format!("{state}: {}", batch.detail),
        };
        table.add_row(vec![
            Cell::new(&hex::encode(&batch.batch_id)[..ID_DIGITS]),
            Cell::new(state),
            Cell::new(batch.user_node_ids.len()),
            Cell::new(batch.left_out.len()),
            Cell::new(grouped(batch.expires_height.into())),
            Cell::new(batch.txid.as_ref().map(hex::encode).unwrap_or_default()),
        ]);
    }
    finish(table, "no batches; they form when users join (batch.role is \"hub\" or \"both\")")
}

/// What the next batch offers.
pub fn policy(policy: &BatchPolicy) -> String {
    let mut card = Card::default();
    card.line("users", format!("{} at most", policy.users_max))
        .line("gathers for", format!("{} ms", grouped(policy.gathering_ms)))
        .line("channels from", sats(policy.capacity_min_sat))
        .line("channels to", sats(policy.capacity_max_sat))
        .line("a place costs", sats(policy.fee_sat))
        .line("lives for", format!("{} blocks", grouped(policy.life_blocks.into())));
    card.finish()
}

/// What the file of a path says.
pub fn report(report: &PathReport) -> String {
    let mut card = Card::default();
    card.line("path", "every signature and amount is right")
        .line("root", report.root)
        .line("must hold", sats(report.root_value_sat))
        .line("script", &report.root_script)
        .line("channel", report.funding)
        .line("capacity", sats(report.channel_value_sat))
        .line("leave by", format!("height {}", grouped(report.deadline_height.into())))
        .line("expires", format!("height {}", grouped(report.expiry_height.into())))
        .line("leaving", format!("{} levels, {} vB", report.txids.len(), report.exit_vbytes))
        .line("to check", "that the root is on chain with this value and script, and unspent");
    card.finish()
}
