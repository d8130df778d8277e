//! Events as webhooks carry them, and endpoints as their owner sees them.
//!
//! An event is the very message that `Events.Subscribe` gives, as JSON. Its type is made of the
//! names in that message: what it is about, and the state it came to.

use std::sync::Arc;

use proto::v1;
use proto::v1::event::Kind;

use super::event_view::{Records, event, written_kind};
use super::json;
use crate::channels::Channels;
use crate::journal::{Entry, millis};
use crate::payments::Payments;
use crate::webhooks::{
    DeadLetter, EndpointState, EndpointView, EventWriter, TestOutcome, WriteError, Written,
};

/// Writes events for webhooks.
pub struct EventTexts {
    payments: Arc<Payments>,
    channels: Arc<Channels>,
}

impl EventTexts {
    /// What never changes in an event is read from these services.
    pub fn new(payments: Arc<Payments>, channels: Arc<Channels>) -> Self {
        Self { payments, channels }
    }
}

impl EventWriter for EventTexts {
    fn write(&self, entry: &Entry) -> Result<Option<Written>, WriteError> {
        let records = Records { payments: &self.payments, channels: &self.channels };
        let event = event(&records, entry)?;
        let Some(name) = event.kind.as_ref().and_then(name) else { return Ok(None) };
        let event = json::of(&event).map_err(|error| WriteError::Format(error.to_string()))?;
        Ok(Some(Written { name, event }))
    }
}

/// The type of an event: what it is about, and where that stands now.
fn name(kind: &Kind) -> Option<String> {
    use v1::batch_event::Subject;
    let (about, state, prefix) = match kind {
        Kind::Payment(event) => ("payment", event.state().as_str_name(), "PAYMENT_STATE_"),
        Kind::Invoice(event) => ("invoice", event.state().as_str_name(), "INVOICE_STATE_"),
        Kind::Channel(event) => ("channel", event.state().as_str_name(), "CHANNEL_STATE_"),
        Kind::Wallet(event) => ("wallet", event.kind().as_str_name(), "WALLET_EVENT_KIND_"),
        Kind::Chain(event) => ("chain", event.kind().as_str_name(), "CHAIN_EVENT_KIND_"),
        Kind::Tower(event) => ("tower", event.kind().as_str_name(), "TOWER_EVENT_KIND_"),
        Kind::Security(event) => ("security", event.kind().as_str_name(), "SECURITY_EVENT_KIND_"),
        Kind::Node(event) => ("node", event.kind().as_str_name(), "NODE_EVENT_KIND_"),
        Kind::Swap(event) => ("swap", event.state().as_str_name(), "SWAP_STATE_"),
        Kind::Payout(event) => ("payout", event.kind().as_str_name(), "PAYOUT_EVENT_KIND_"),
        Kind::Webhook(event) => ("webhook", event.kind().as_str_name(), "WEBHOOK_EVENT_KIND_"),
        Kind::Batch(event) => match event.subject.as_ref()? {
            Subject::Wish(wish) => ("batch.wish", wish.state().as_str_name(), "MEMBERSHIP_STATE_"),
            Subject::Hosted(batch) => {
                ("batch.hosted", batch.state().as_str_name(), "HOSTED_BATCH_STATE_")
            }
        },
    };
    let state = state.strip_prefix(prefix).unwrap_or(state).to_lowercase();
    Some(format!("{about}.{state}"))
}

/// Writes an endpoint.
pub(super) fn webhook(view: &EndpointView) -> v1::Webhook {
    let EndpointView { record, progress, .. } = view;
    let state = match record.state {
        EndpointState::Enabled => v1::WebhookState::Enabled,
        EndpointState::Disabled => v1::WebhookState::Disabled,
        EndpointState::Gone { .. } => v1::WebhookState::Gone,
    };
    v1::Webhook {
        endpoint_id: view.id.0.to_vec(),
        url: record.url.clone(),
        description: record.description.clone(),
        kinds: record.kinds.iter().map(|kind| written_kind(*kind).into()).collect(),
        state: state.into(),
        created_at_ms: record.created_ms,
        previous_secret_until_ms: record.previous_until_ms,
        sequence: progress.read_to,
        behind: view.behind,
        waiting: view.waiting as u64,
        delivered: progress.delivered,
        last_delivered_at_ms: progress.delivered_ms,
        last_error: view.last_error.clone(),
        dead_letters: progress.dead_letters,
        dropped: progress.dropped,
        missed: progress.missed,
    }
}

/// Writes a dead letter.
pub(super) fn dead_letter(letter: &DeadLetter) -> v1::DeadLetter {
    v1::DeadLetter {
        sequence: letter.sequence,
        tries: letter.tries,
        since_ms: letter.since_ms,
        given_up_at_ms: letter.at_ms,
        last_error: letter.last_error.clone(),
    }
}

/// Writes what became of a test event.
pub(super) fn test_delivery(outcome: &TestOutcome) -> v1::TestDelivery {
    v1::TestDelivery {
        http_status: outcome.status.map(Into::into),
        error: outcome.error.clone(),
        took_ms: millis(outcome.took),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_says_what_it_is_about_and_where_that_stands() {
        let payment = v1::PaymentEvent {
            state: v1::PaymentState::InFlight.into(),
            ..v1::PaymentEvent::default()
        };
        assert_eq!(name(&Kind::Payment(payment)).as_deref(), Some("payment.in_flight"));
        let node = v1::NodeEvent { kind: v1::NodeEventKind::Started.into(), detail: "x".into() };
        assert_eq!(name(&Kind::Node(node)).as_deref(), Some("node.started"));
        let hosted = v1::HostedBatchEvent {
            state: v1::HostedBatchState::Live.into(),
            ..v1::HostedBatchEvent::default()
        };
        let subject = Some(v1::batch_event::Subject::Hosted(hosted));
        let batch = v1::BatchEvent { subject };
        assert_eq!(name(&Kind::Batch(batch)).as_deref(), Some("batch.hosted.live"));
        assert_eq!(name(&Kind::Batch(v1::BatchEvent { subject: None })), None);
        let webhook = v1::WebhookEvent {
            kind: v1::WebhookEventKind::GaveUp.into(),
            ..v1::WebhookEvent::default()
        };
        assert_eq!(name(&Kind::Webhook(webhook)).as_deref(), Some("webhook.gave_up"));
        let kind = v1::TowerEventKind::Behind.into();
        let tower = v1::TowerEvent { kind, ..v1::TowerEvent::default() };
        assert_eq!(name(&Kind::Tower(tower)).as_deref(), Some("tower.behind"));
    }
}
