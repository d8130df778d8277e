//! Payments, forwards and their HTLCs.

use crate::lightning::FailureReason;
use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page};

pub(super) fn write(observer: &Observer, page: &mut Page) {
    let payments = &observer.parts().payments;
    let counts = payments.probe().counts();
    let help = "Payments that have ended, by direction, outcome, and reason of failure.";
    let mut family = page.family("tributary_payments_total", Kind::Counter, help);
    let mut sample = |direction, outcome, reason, count| {
        let labels = [("direction", direction), ("outcome", outcome), ("reason", reason)];
        family.sample(&labels, count);
    };
    sample("outbound", "succeeded", "", counts.sent.get());
    for (reason, count) in FailureReason::ALL.iter().zip(&counts.failed) {
        sample("outbound", "failed", reason.name(), count.get());
    }
    sample("inbound", "succeeded", "", counts.received.get());
    sample("inbound", "returned", "", counts.returned.get());
    let help = "What payments that succeeded brought to their receivers, in millisatoshi.";
    page.family("tributary_payments_amount_msat_total", Kind::Counter, help)
        .sample(&[("direction", "outbound")], counts.sent_msat.get())
        .sample(&[("direction", "inbound")], counts.received_msat.get());
    page.counter(
        "tributary_payments_fees_msat_total",
        "What our payments cost beyond that, in millisatoshi.",
        counts.fees_msat.get(),
    );
    page.counter(
        "tributary_payment_retries_total",
        "Attempts of payments beside the first.",
        counts.retries.get(),
    );
    page.gauge("tributary_payments_open", "Payments without an outcome.", payments.open_count());
    page.gauge(
        "tributary_payments_waiting",
        "Of these, those that wait for room in a full channel.",
        payments.waiting_count(),
    );
    if let Some(times) = payments.probe().times() {
        let help = "Parts of a payment. Outbound: recorded (call to durable record), sent (call to \
                    HTLCs with LDK), network (from there to the outcome), settled (outcome to \
                    durable outcome), whole. Inbound: held, claimed, whole.";
        page.family("tributary_payment_seconds", Kind::Histogram, help)
            .histogram(&[("direction", "outbound"), ("phase", "recorded")], &times.recorded)
            .histogram(&[("direction", "outbound"), ("phase", "sent")], &times.sent)
            .histogram(&[("direction", "outbound"), ("phase", "network")], &times.network)
            .histogram(&[("direction", "outbound"), ("phase", "settled")], &times.settled)
            .histogram(&[("direction", "outbound"), ("phase", "whole")], &times.outbound)
            .histogram(&[("direction", "inbound"), ("phase", "held")], &times.held)
            .histogram(&[("direction", "inbound"), ("phase", "claimed")], &times.claimed)
            .histogram(&[("direction", "inbound"), ("phase", "whole")], &times.inbound);
    }
    let (all, on_chain) = (counts.forwarded.get(), counts.forwarded_on_chain.get());
    let help = "Payments of others that we passed on, by where they were claimed.";
    page.family("tributary_forwards_total", Kind::Counter, help)
        .sample(&[("claimed", "off_chain")], all.saturating_sub(on_chain))
        .sample(&[("claimed", "on_chain")], on_chain);
    page.counter(
        "tributary_forwards_amount_msat_total",
        "What they carried on, in millisatoshi.",
        counts.forwarded_msat.get(),
    );
    page.counter(
        "tributary_forwards_fees_msat_total",
        "What they earned, in millisatoshi.",
        counts.earned_msat.get(),
    );
    if let Some(figures) = observer.parts().lightning.htlcs().figures() {
        let help = "Life of an HTLC, from update_add_htlc to update_fulfill_htlc or \
                    update_fail_htlc.";
        let family = &mut page.family("tributary_htlc_seconds", Kind::Histogram, help);
        for (direction, outcome, histogram) in [
            ("offered", "fulfilled", &figures.offered_fulfilled),
            ("offered", "failed", &figures.offered_failed),
            ("received", "fulfilled", &figures.received_fulfilled),
            ("received", "failed", &figures.received_failed),
        ] {
            family.histogram(&[("direction", direction), ("outcome", outcome)], histogram);
        }
        page.histogram(
            "tributary_forward_seconds",
            "From an HTLC's arrival to the message that passes it on.",
            &figures.forwarded,
        );
    }
}
