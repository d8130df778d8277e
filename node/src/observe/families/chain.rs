//! The chain, feerates and coins.

use super::flag;
use crate::chain::fees::FeePurpose;
use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page};

pub(super) async fn write(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let sync = parts.sync.borrow().clone();
    let height = |block: Option<crate::chain::BlockRef>| block.map_or(0, |block| block.height);
    page.gauge(
        "tributary_chain_synced_height",
        "Height of the block that every part of the node has seen.",
        height(sync.synced),
    );
    page.gauge(
        "tributary_chain_tip_height",
        "Height of the chain source's tip, as last heard.",
        height(sync.tip),
    );
    page.gauge("tributary_chain_behind_blocks", "Blocks still to process.", sync.behind);
    page.gauge(
        "tributary_chain_current",
        "1 while new risk is taken: at the tip, no failure, no stall.",
        flag(sync.is_current()),
    );
    page.gauge(
        "tributary_chain_stalled",
        "1 while no block has come for longer than chain.stall_warning_seconds.",
        flag(sync.stalled_since.is_some()),
    );
    page.gauge(
        "tributary_chain_failing",
        "1 while the chain source cannot be read.",
        flag(sync.last_error.is_some()),
    );
    page.counter(
        "tributary_chain_failures_total",
        "Looks at the chain source that failed.",
        parts.chain_failures.get(),
    );
    if let Some(time) = observer.tip_time().await {
        let age = parts.clock.now().as_secs().saturating_sub(time);
        page.gauge("tributary_chain_tip_age_seconds", "Age of the tip, by its header.", age);
    }
    let endpoints = parts.chain.endpoints();
    if !endpoints.is_empty() {
        let help = "Failures of an endpoint since its last good answer.";
        let mut family = page.family("tributary_chain_endpoint_failures", Kind::Gauge, help);
        for endpoint in &endpoints {
            let preferred = if endpoint.preferred { "true" } else { "false" };
            let labels = [("endpoint", endpoint.url.as_str()), ("preferred", preferred)];
            family.sample(&labels, endpoint.failures);
        }
    }
    let refused = parts.broadcasts.pending();
    let help = "Packages that are in no block yet, by whether the mempool has them.";
    page.family("tributary_broadcasts_pending", Kind::Gauge, help)
        .sample(&[("state", "taken")], refused.iter().filter(|package| package.taken).count())
        .sample(&[("state", "refused")], refused.iter().filter(|p| p.refusal.is_some()).count());
    let help = "Feerates in use, satoshi per 1,000 weight units.";
    let mut family = page.family("tributary_feerate_sat_per_kw", Kind::Gauge, help);
    for purpose in FeePurpose::ALL {
        let name = match purpose {
            FeePurpose::Urgent => "urgent",
            FeePurpose::Open => "open",
            FeePurpose::Normal => "normal",
            FeePurpose::Background => "background",
            FeePurpose::Minimum => "minimum",
        };
        family.sample(&[("purpose", name)], parts.fees.get(purpose).to_sat_per_kwu());
    }
    page.gauge(
        "tributary_feerate_estimated",
        "1 if feerates are the chain source's, 0 while fallbacks stand in.",
        flag(parts.fees.is_estimated()),
    );
    wallet(observer, page);
}

fn wallet(observer: &Observer, page: &mut Page) {
    let balance = observer.parts().wallet.balance();
    let help = "Coins, in satoshi; spendable is what is left above holds and the anchor reserve.";
    page.family("tributary_wallet_balance_sat", Kind::Gauge, help)
        .sample(&[("kind", "confirmed")], balance.confirmed.to_sat())
        .sample(&[("kind", "unconfirmed")], balance.unconfirmed.to_sat())
        .sample(&[("kind", "immature")], balance.immature.to_sat())
        .sample(&[("kind", "held")], balance.held.to_sat())
        .sample(&[("kind", "spendable")], balance.spendable.to_sat());
    page.gauge(
        "tributary_anchor_reserve_required_sat",
        "Coins that open channels need at hand for their exits.",
        balance.reserved_for_anchors.to_sat(),
    );
    page.gauge(
        "tributary_anchor_reserve_missing_sat",
        "What of it is missing.",
        balance.anchor_reserve_missing.to_sat(),
    );
}
