//! Webhook endpoints for people.

use comfy_table::Cell;
use proto::v1::{DeadLetter, EventKind, TestDelivery, Webhook, WebhookSecret, WebhookState};

use super::table::{begin, finish, shortened, words};
use super::text::{Card, utc};
use crate::amount::grouped;

/// Longest text of others in a table, in characters.
const CELL_MAX: usize = 60;

/// How an endpoint stands, in words.
fn state(webhook: &Webhook) -> String {
    match (webhook.state(), &webhook.last_error) {
        (WebhookState::Enabled, Some(error)) => format!("fails: {}", shortened(error, CELL_MAX)),
        (WebhookState::Enabled, None) if webhook.behind + webhook.waiting == 0 => {
            "has everything".to_owned()
        }
        (WebhookState::Enabled, None) => "is catching up".to_owned(),
        (WebhookState::Disabled, _) => "disabled".to_owned(),
        (WebhookState::Gone, _) => "says it is gone; disabled".to_owned(),
        (WebhookState::Unspecified, _) => "newer than this program".to_owned(),
    }
}

fn kinds(webhook: &Webhook) -> String {
    let name = |kind: EventKind| words(kind.as_str_name(), "EVENT_KIND_");
    let names: Vec<String> = webhook.kinds().map(name).collect();
    match names.is_empty() {
        true => "all".to_owned(),
        false => names.join(", "),
    }
}

/// One endpoint.
pub fn one(webhook: &Webhook) -> String {
    let told = |text: &String| shortened(text, 2_000);
    let mut card = Card::default();
    card.line("endpoint", hex::encode(&webhook.endpoint_id))
        .line("url", told(&webhook.url))
        .maybe("about", Some(&webhook.description).filter(|text| !text.is_empty()).map(told))
        .line("state", state(webhook))
        .line("kinds", kinds(webhook))
        .line("created", utc(webhook.created_at_ms))
        .line("sequence", grouped(webhook.sequence))
        .line("behind", grouped(webhook.behind))
        .line("waiting", grouped(webhook.waiting))
        .line("delivered", grouped(webhook.delivered))
        .maybe("last one", webhook.last_delivered_at_ms.map(utc))
        .line("dead letters", grouped(webhook.dead_letters))
        .maybe("dropped", Some(webhook.dropped).filter(|count| *count > 0).map(grouped))
        .maybe("missed", Some(webhook.missed).filter(|count| *count > 0).map(grouped))
        .maybe("old secret until", webhook.previous_secret_until_ms.map(utc));
    card.finish()
}

/// An endpoint whose secret is shown, this once.
pub fn with_secret(made: &WebhookSecret) -> String {
    let card = made.webhook.as_ref().map(one).unwrap_or_default();
    let secret = &made.secret;
    format!("{}\n\nsecret, shown this once: {secret}", card.trim_end())
}

/// The endpoints.
pub fn list(webhooks: &[Webhook]) -> String {
    let mut table =
        begin(&["endpoint", "url", "kinds", ">delivered", ">waiting", ">dead", "state"]);
    for webhook in webhooks {
        table.add_row(vec![
            Cell::new(hex::encode(&webhook.endpoint_id)),
            Cell::new(shortened(&webhook.url, CELL_MAX)),
            Cell::new(kinds(webhook)),
            Cell::new(grouped(webhook.delivered)),
            Cell::new(grouped(webhook.behind.saturating_add(webhook.waiting))),
            Cell::new(grouped(webhook.dead_letters)),
            Cell::new(state(webhook)),
        ]);
    }
    finish(table, "no webhook endpoints; `tributary webhook create URL` makes one")
}

/// What became of a test event.
pub fn test(outcome: &TestDelivery) -> String {
    let status = outcome.http_status.map(|status| format!("status {status}"));
    let answer = status.unwrap_or_else(|| "no answer".to_owned());
    format!("{answer} after {} ms", grouped(outcome.took_ms))
}

/// Events that were given up.
pub fn dead_letters(letters: &[DeadLetter]) -> String {
    let mut table = begin(&[">sequence", ">tries", "since", "given up", "why"]);
    for letter in letters {
        table.add_row(vec![
            Cell::new(letter.sequence.to_string()),
            Cell::new(letter.tries.to_string()),
            Cell::new(utc(letter.since_ms)),
            Cell::new(utc(letter.given_up_at_ms)),
            Cell::new(shortened(&letter.last_error, CELL_MAX)),
        ]);
    }
    finish(table, "no event was given up")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_says_how_it_stands() {
        let mut webhook = Webhook {
            state: WebhookState::Enabled.into(),
            kinds: vec![EventKind::Payment.into(), EventKind::Swap.into()],
            ..Webhook::default()
        };
        assert_eq!(state(&webhook), "has everything");
        assert_eq!(kinds(&webhook), "payment, swap");
        webhook.behind = 3;
        assert_eq!(state(&webhook), "is catching up");
        webhook.last_error = Some("status 500\u{1b}[2J".to_owned());
        assert_eq!(state(&webhook), "fails: status 500[2J", "nobody paints on the terminal");
        webhook.state = WebhookState::Gone.into();
        assert!(state(&webhook).contains("gone"));
    }
}
