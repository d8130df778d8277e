//! The log of events, those who read it, and webhooks.

use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page};
use crate::webhooks::{EndpointState, EndpointView};

pub(super) fn write(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let newest = parts.journal.last_durable();
    page.gauge("tributary_events_newest_sequence", "The newest event of the log.", newest);
    let (count, slowest) = observer.subscribers().look();
    page.gauge("tributary_event_subscribers", "Callers that read the log as it grows.", count);
    page.gauge(
        "tributary_event_subscriber_lag",
        "Events that the slowest of them was not given yet.",
        slowest.map_or(0, |slowest| newest.saturating_sub(slowest)),
    );
    let figures = parts.webhooks.figures();
    let help = "Tries to deliver an event, by outcome; given_up is also counted as failed.";
    page.family("tributary_webhook_deliveries_total", Kind::Counter, help)
        .sample(&[("outcome", "delivered")], figures.delivered.get())
        .sample(&[("outcome", "failed")], figures.failed.get())
        .sample(&[("outcome", "given_up")], figures.given_up.get())
        .sample(&[("outcome", "missed")], figures.missed.get())
        .sample(&[("outcome", "gone")], figures.gone.get());
    if let Some(took) = figures.took.get() {
        page.histogram("tributary_webhook_seconds", "How long tries took.", took);
    }
    let endpoints = parts.webhooks.list();
    let ids: Vec<String> = endpoints.iter().map(|endpoint| endpoint.id.to_string()).collect();
    let mut family = |name, help: &str, of: &dyn Fn(&EndpointView) -> u64| {
        let mut family = page.family(name, Kind::Gauge, help);
        for (endpoint, id) in endpoints.iter().zip(&ids) {
            family.sample(&[("endpoint", id)], of(endpoint));
        }
    };
    let help = "Events that an endpoint has not come to.";
    family("tributary_webhook_lag", help, &|endpoint| endpoint.behind);
    let help = "Events that wait to be delivered to an endpoint.";
    family("tributary_webhook_waiting", help, &|endpoint| endpoint.waiting as u64);
    let help = "Events that were given up and are kept for a replay.";
    family("tributary_webhook_dead_letters", help, &|endpoint| endpoint.progress.dead_letters);
    let help = "1 while deliveries to an endpoint fail.";
    family("tributary_webhook_failing", help, &|endpoint| {
        u64::from(endpoint.last_error.is_some() && endpoint.record.state == EndpointState::Enabled)
    });
    let help = "1 if an endpoint is told of events.";
    family("tributary_webhook_enabled", help, &|endpoint| {
        u64::from(endpoint.record.state == EndpointState::Enabled)
    });
}
