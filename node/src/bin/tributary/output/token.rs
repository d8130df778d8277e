//! Tokens for people.

use comfy_table::Cell;
use node::tokens::{Restriction, Token as HeldToken};
use proto::v1::{Token, TokenRestrictions, TokenRole};

use super::table::{begin, finish, words};
use super::text::{Card, utc};
use crate::amount::sat_from_msat;

/// The tokens of a node.
pub fn list(tokens: &[Token]) -> String {
    let mut table =
        begin(&["token", "name", "may", ">spent sat", ">reserved sat", ">left sat", "state"]);
    for token in tokens {
        let sat = |msat: Option<u64>| msat.map(sat_from_msat).unwrap_or_default();
        let restrictions = token.restrictions.clone().unwrap_or_default();
        let state = match (token.revoked_unix_ms, restrictions.expires_unix_seconds) {
            (Some(at), _) => format!("revoked {}", utc(at)),
            (None, Some(at)) => format!("until {}", utc(at.saturating_mul(1_000))),
            (None, None) => "until revoked".to_owned(),
        };
        table.add_row(vec![
            Cell::new(hex::encode(&token.token_id)),
            Cell::new(&token.name),
            Cell::new(may(&restrictions)),
            Cell::new(sat(token.budget_spent_msat)),
            Cell::new(sat(token.budget_reserved_msat)),
            Cell::new(sat(token.budget_left_msat)),
            Cell::new(state),
        ]);
    }
    finish(table, "no tokens; `tributary token bake` makes one")
}

/// What a token may do, in a few words.
fn may(restrictions: &TokenRestrictions) -> String {
    let mut words = match restrictions.role() {
        TokenRole::Unspecified => Vec::new(),
        role => vec![self::words(role.as_str_name(), "TOKEN_ROLE_")],
    };
    words.extend(restrictions.methods.iter().cloned());
    if let Some(msat) = restrictions.per_call_max_msat {
        words.push(format!("{} sat a call", sat_from_msat(msat)));
    }
    match restrictions.payee_node_ids.len() {
        0 => {}
        payees => words.push(format!("to {payees} nodes")),
    }
    words.extend(restrictions.sources.iter().map(|source| format!("from {source}")));
    match words.is_empty() {
        true => "everything".to_owned(),
        false => words.join(", "),
    }
}

/// What a token says of itself.
pub fn inspected(token: &HeldToken) -> String {
    let mut card = Card::default();
    card.line("token", token.id());
    for restriction in token.restrictions() {
        let (label, value) = described(restriction);
        card.line(label, value);
    }
    if token.restrictions().is_empty() {
        card.line("may", "everything");
    }
    card.finish()
}

/// A restriction in words.
pub fn described(restriction: &Restriction) -> (&'static str, String) {
    match restriction {
        Restriction::Role(role) => ("role", role.name().to_owned()),
        Restriction::Methods(methods) => ("methods", joined(methods)),
        Restriction::PerCall(msat) => ("a call", format!("{} sat", sat_from_msat(*msat))),
        Restriction::Budget { msat, .. } => ("budget", format!("{} sat", sat_from_msat(*msat))),
        Restriction::Payees(payees) => ("pays", joined(payees)),
        Restriction::Expires(seconds) => ("until", utc(seconds.saturating_mul(1_000))),
        Restriction::Sources(sources) => ("from", joined(sources)),
    }
}

fn joined(things: &[impl ToString]) -> String {
    let things: Vec<String> = things.iter().map(ToString::to_string).collect();
    things.join(", ")
}
