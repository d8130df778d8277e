//! Lists as tables: one row for each thing, states in colour.

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table};
use proto::v1::{
    Channel, ChannelState, Event, Invoice, InvoiceState, Payment, PaymentDirection, PaymentState,
    Peer, TransactionPurpose, Unspent, WalletTransaction,
};

use super::coloured;
use super::text::{event_line, short, utc};
use crate::amount::{grouped, sat_from_msat};

/// Begins a table. Columns whose name begins with `>` are aligned to the right.
pub(super) fn begin(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_HORIZONTAL_ONLY);
    table.set_content_arrangement(ContentArrangement::Disabled);
    // Our own choice, as for all other output: it knows NO_COLOR.
    match coloured() {
        true => table.enforce_styling(),
        false => table.force_no_tty(),
    };
    let names = columns.iter().map(|name| name.trim_start_matches('>'));
    table.set_header(names);
    for (column, name) in table.column_iter_mut().zip(columns) {
        if name.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Finishes a table, with a sentence instead where it is empty.
pub(super) fn finish(table: Table, empty: &str) -> String {
    match table.is_empty() {
        true => empty.to_owned(),
        false => table.to_string(),
    }
}

/// The name of an enum's value in lower-case words.
pub fn words(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_lowercase().replace('_', " ")
}

/// The state of a channel in words, and its colour.
pub fn channel_state(state: ChannelState) -> (String, Color) {
    let colour = match state {
        ChannelState::Active => Color::Green,
        ChannelState::Opening | ChannelState::AwaitingConfirmation => Color::Yellow,
        ChannelState::Inactive | ChannelState::Closing => Color::DarkYellow,
        ChannelState::ForceClosing => Color::Red,
        ChannelState::Closed | ChannelState::Unspecified => Color::DarkGrey,
    };
    (words(state.as_str_name(), "CHANNEL_STATE_"), colour)
}

/// The state of a payment in words, and its colour.
pub fn payment_state(state: PaymentState) -> (String, Color) {
    let colour = match state {
        PaymentState::Succeeded => Color::Green,
        PaymentState::Failed => Color::Red,
        _ => Color::Yellow,
    };
    (words(state.as_str_name(), "PAYMENT_STATE_"), colour)
}

fn invoice_state(state: InvoiceState) -> (String, Color) {
    let colour = match state {
        InvoiceState::Settled => Color::Green,
        InvoiceState::Open | InvoiceState::Held => Color::Yellow,
        _ => Color::DarkGrey,
    };
    (words(state.as_str_name(), "INVOICE_STATE_"), colour)
}

fn cell((text, colour): (String, Color)) -> Cell {
    Cell::new(text).fg(colour)
}

/// Peers.
pub fn peers(peers: &[Peer]) -> String {
    let mut table = begin(&["node id", "address", "state", "kept", ">channels"]);
    for peer in peers {
        let state = match (peer.connected, peer.inbound) {
            (true, true) => ("connected (inbound)".to_owned(), Color::Green),
            (true, false) => ("connected".to_owned(), Color::Green),
            (false, _) => ("offline".to_owned(), Color::DarkYellow),
        };
        table.add_row(vec![
            Cell::new(hex::encode(&peer.node_id)),
            Cell::new(peer.address.as_deref().unwrap_or("-")),
            cell(state),
            Cell::new(if peer.keep { "yes" } else { "no" }),
            Cell::new(peer.channel_count),
        ]);
    }
    finish(table, "no peers")
}

/// Channels.
pub fn channels(channels: &[Channel]) -> String {
    let mut table = begin(&[
        "channel",
        "peer",
        "state",
        ">capacity sat",
        ">ours sat",
        ">theirs sat",
        ">spendable sat",
        ">receivable sat",
        "public",
    ]);
    for channel in channels {
        let mut state = channel_state(channel.state());
        if channel.state() == ChannelState::AwaitingConfirmation {
            let required = channel.confirmations_required.map_or("?".to_owned(), |n| n.to_string());
            state.0 = format!("{} {}/{required}", state.0, channel.confirmations);
        }
        table.add_row(vec![
            Cell::new(hex::encode(&channel.record_id)),
            Cell::new(short(&channel.counterparty_node_id)),
            cell(state),
            Cell::new(grouped(channel.capacity_sat)),
            Cell::new(sat_from_msat(channel.holder_balance_msat)),
            Cell::new(sat_from_msat(channel.counterparty_balance_msat)),
            Cell::new(sat_from_msat(channel.spendable_msat)),
            Cell::new(sat_from_msat(channel.receivable_msat)),
            Cell::new(if channel.public { "yes" } else { "no" }),
        ]);
    }
    finish(table, "no channels")
}

/// Payments.
pub fn payments(payments: &[Payment]) -> String {
    let mut table =
        begin(&["created", "payment", "way", "kind", "state", ">sat", ">fee sat", "about"]);
    for payment in payments {
        let way = match payment.direction() {
            PaymentDirection::Inbound => "in",
            PaymentDirection::Outbound => "out",
            PaymentDirection::Unspecified => "?",
        };
        let about = match (&payment.failure, &payment.description) {
            (Some(failure), _) => words(failure.reason().as_str_name(), "PAYMENT_FAILURE_REASON_"),
            (None, Some(description)) => shortened(description, 32),
            (None, None) => String::new(),
        };
        table.add_row(vec![
            Cell::new(utc(payment.created_unix_ms)),
            Cell::new(hex::encode(&payment.payment_id)),
            Cell::new(way),
            Cell::new(words(payment.kind().as_str_name(), "PAYMENT_KIND_")),
            cell(payment_state(payment.state())),
            Cell::new(sat_from_msat(payment.amount_msat)),
            Cell::new(payment.fee_msat.map_or("-".to_owned(), sat_from_msat)),
            Cell::new(about),
        ]);
    }
    finish(table, "no payments")
}

/// Invoices.
pub fn invoices(invoices: &[Invoice]) -> String {
    let mut table = begin(&["created", "payment hash", "state", ">sat", ">received sat", "about"]);
    for invoice in invoices {
        let mut state = invoice_state(invoice.state());
        if invoice.hold {
            state.0.push_str(" (hold)");
        }
        let about = invoice.description.as_deref().unwrap_or_default();
        table.add_row(vec![
            Cell::new(utc(invoice.created_unix_ms)),
            Cell::new(hex::encode(&invoice.payment_hash)),
            cell(state),
            Cell::new(invoice.amount_msat.map_or("any".to_owned(), sat_from_msat)),
            Cell::new(invoice.amount_received_msat.map_or("-".to_owned(), sat_from_msat)),
            Cell::new(shortened(about, 32)),
        ]);
    }
    finish(table, "no invoices")
}

/// Transactions of the wallet.
pub fn transactions(transactions: &[WalletTransaction]) -> String {
    let mut table = begin(&["seen", "transaction", "for", ">sat", ">fee sat", ">confirmations"]);
    for tx in transactions {
        // Both are below all bitcoin: the difference fits.
        let (sign, change) = match tx.received_sat.checked_sub(tx.spent_sat) {
            Some(gain) => ("+", gain),
            None => ("-", tx.spent_sat.saturating_sub(tx.received_sat)),
        };
        let purpose = match tx.purpose() {
            TransactionPurpose::Unspecified => "-".to_owned(),
            purpose => words(purpose.as_str_name(), "TRANSACTION_PURPOSE_"),
        };
        let depth = match (&tx.replaced_by_txid, tx.confirmations) {
            (Some(_), _) => ("replaced".to_owned(), Color::DarkGrey),
            (None, 0) => ("0".to_owned(), Color::Yellow),
            (None, depth) => (grouped(depth.into()), Color::Green),
        };
        table.add_row(vec![
            Cell::new(utc(tx.first_seen_unix_ms)),
            Cell::new(hex::encode(&tx.txid)),
            Cell::new(purpose),
            Cell::new(format!("{sign}{}", grouped(change))),
            Cell::new(tx.fee_sat.map_or("-".to_owned(), grouped)),
            cell(depth),
        ]);
    }
    finish(table, "no transactions")
}

/// Coins of the wallet.
pub fn coins(coins: &[Unspent]) -> String {
    let mut table = begin(&["output", ">sat", "address", ">confirmations", "locked"]);
    for coin in coins {
        let outpoint = coin.outpoint.clone().unwrap_or_default();
        table.add_row(vec![
            Cell::new(format!("{}:{}", hex::encode(&outpoint.txid), outpoint.output_index)),
            Cell::new(grouped(coin.value_sat)),
            Cell::new(&coin.address),
            Cell::new(coin.confirmations),
            Cell::new(if coin.locked { "yes" } else { "no" }),
        ]);
    }
    finish(table, "no coins")
}

/// Events, one on each line.
pub fn events(events: &[Event]) -> String {
    match events {
        [] => "no events".to_owned(),
        events => {
            let lines: Vec<_> = events.iter().map(event_line).collect();
            lines.join("\n")
        }
    }
}

/// Cuts a text of others to `max` characters, without the control characters that would
/// paint on the terminal.
pub fn shortened(text: &str, max: usize) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    match clean.chars().count() > max {
        false => clean,
        true => clean.chars().take(max - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_and_states_are_for_people() {
        let table = channels(&[Channel {
            record_id: vec![1; 16],
            counterparty_node_id: vec![2; 33],
            state: ChannelState::AwaitingConfirmation as i32,
            confirmations: 1,
            confirmations_required: Some(3),
            capacity_sat: 1_000_000,
            holder_balance_msat: 1_500,
            ..Channel::default()
        }]);
        assert!(table.contains("awaiting confirmation 1/3"), "{table}");
        assert!(table.contains("1,000,000"), "{table}");
        assert!(table.contains("1.500"), "{table}");
        assert_eq!(channels(&[]), "no channels");
    }

    #[test]
    fn a_description_cannot_paint_on_the_terminal() {
        assert_eq!(shortened("a\x1b[31m\nb", 32), "a[31mb");
        assert_eq!(shortened("äöüß", 3), "äö…");
    }

    #[test]
    fn what_left_the_wallet_has_a_minus() {
        let table = transactions(&[WalletTransaction {
            spent_sat: 10_000,
            received_sat: 4_000,
            ..WalletTransaction::default()
        }]);
        assert!(table.contains("-6,000"), "{table}");
    }
}
