//! One thing as lines of text: a label, and what is behind it.

use anstyle::{AnsiColor, Style};
use node::environment::date;
use node::rpc::json::short_channel_id;
use proto::v1::{
    Channel, DecodeResponse, Event, Invoice, NodeInfo, Offer, Payment, PaymentState, RequestSource,
    WalletBalance, WalletTransaction, batch_event, decode_response, event,
};

use super::table::{channel_state, payment_state, shortened, words};
use super::{request, styled};
use crate::amount::{grouped, sat_from_msat};

/// Longest text of others shown, in characters.
const TEXT_MAX: usize = 700;

/// Lines of a label and a value, the values under each other.
#[derive(Debug, Default)]
pub struct Card {
    lines: Vec<(String, String)>,
}

impl Card {
    /// Adds a line.
    pub fn line(&mut self, label: &str, value: impl ToString) -> &mut Self {
        self.lines.push((label.to_owned(), value.to_string()));
        self
    }

    /// Adds a line if there is a value.
    pub fn maybe(&mut self, label: &str, value: Option<impl ToString>) -> &mut Self {
        if let Some(value) = value {
            self.line(label, value);
        }
        self
    }

    /// Puts the lines together.
    pub fn finish(&self) -> String {
        let width = self.lines.iter().map(|(label, _)| label.len()).max();
        let width = width.unwrap_or_default();
        let grey = AnsiColor::BrightBlack.on_default();
        let lines: Vec<_> = self
            .lines
            .iter()
            .map(|(label, value)| format!("{}  {value}", styled(grey, &format!("{label:<width$}"))))
            .collect();
        lines.join("\n")
    }
}

/// The first digits of an id.
pub fn short(id: &[u8]) -> String {
    let text = hex::encode(id);
    match text.get(..12) {
        Some(start) if text.len() > 16 => format!("{start}…"),
        _ => text,
    }
}

/// A time as people read it, in UTC.
pub fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

pub(super) fn sats(amount_sat: u64) -> String {
    format!("{} sat", grouped(amount_sat))
}

pub fn msats(amount_msat: u64) -> String {
    format!("{} sat", sat_from_msat(amount_msat))
}

fn quoted(text: &str) -> String {
    shortened(text, TEXT_MAX)
}

/// The node.
pub fn info(info: &NodeInfo) -> String {
    let mut card = Card::default();
    let network = words(info.network().as_str_name(), "NETWORK_");
    card.line("node id", hex::encode(&info.node_id))
        .line("alias", quoted(&info.alias))
        .line("version", &info.version)
        .line("network", network)
        .line("up for", duration(info.uptime_seconds));
    if let Some(chain) = &info.chain {
        let state = match (chain.synced, chain.stalled) {
            (_, true) => styled(AnsiColor::Red.on_default(), "stalled: no new block"),
            (true, false) => styled(AnsiColor::Green.on_default(), "synced"),
            (false, false) => styled(
                AnsiColor::Yellow.on_default(),
                &format!("{} blocks behind", grouped(chain.blocks_behind.into())),
            ),
        };
        card.line("chain", format!("{state}, height {} ({})", chain.block_height, chain.backend))
            .line("block", hex::encode(&chain.block_hash))
            .maybe("chain error", chain.last_error.as_deref().map(quoted));
    }
    if let Some(counts) = &info.channels {
        card.line(
            "channels",
            format!(
                "{} active, {} inactive, {} pending, {} closing, {} closed",
                counts.active, counts.inactive, counts.pending, counts.closing, counts.closed
            ),
        );
    }
    card.line("peers", format!("{} connected", info.peers_connected));
    if let Some(reserve) = &info.anchor_reserve {
        let text = match reserve.missing_sat {
            0 => format!("whole: {} set aside", sats(reserve.required_sat)),
            missing => styled(
                AnsiColor::Red.on_default(),
                &format!(
                    "{} missing of {}: send coins to `tributary wallet address`",
                    sats(missing),
                    sats(reserve.required_sat)
                ),
            ),
        };
        card.line("anchor reserve", text);
    }
    card.line("store", &info.store_engine)
        .line("listens on", info.listen_addresses.join(", "))
        .line("announces", info.announced_addresses.join(", "))
        .line("newest event", info.newest_event_sequence);
    card.finish()
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A channel.
pub fn channel(channel: &Channel) -> String {
    let mut card = Card::default();
    let outpoint = channel
        .funding_outpoint
        .as_ref()
        .map(|o| format!("{}:{}", hex::encode(&o.txid), o.output_index));
    card.line("channel", hex::encode(&channel.record_id))
        .maybe("channel id", channel.channel_id.as_ref().map(hex::encode))
        .maybe("short channel id", channel.short_channel_id.map(short_channel_id))
        .line("peer", hex::encode(&channel.counterparty_node_id))
        .line("state", channel_line(channel))
        .line("capacity", sats(channel.capacity_sat))
        .line("ours", msats(channel.holder_balance_msat))
        .line("theirs", msats(channel.counterparty_balance_msat))
        .line("spendable", msats(channel.spendable_msat))
        .line("receivable", msats(channel.receivable_msat))
        .maybe("funding", outpoint)
        .maybe("spliced by", channel.splice_txid.as_ref().map(hex::encode))
        .maybe("monitor", channel.monitor_bytes.map(|bytes| format!("{} bytes", grouped(bytes))));
    if let Some(policy) = &channel.holder_policy {
        card.line(
            "we ask",
            format!(
                "{} + {} millionths, {} blocks",
                msats(policy.fee_base_msat.into()),
                grouped(policy.fee_proportional_millionths.into()),
                policy.cltv_expiry_delta
            ),
        );
    }
    if let Some(closing) = &channel.closing {
        let cause = words(closing.cause().as_str_name(), "CLOSING_CAUSE_");
        card.line("closing", format!("{cause}. {}", quoted(&closing.detail)))
            .maybe("closed by", closing.closing_txid.as_ref().map(hex::encode));
        for balance in &closing.balances {
            let kind = words(balance.kind().as_str_name(), "CLAIMABLE_KIND_");
            let at = balance
                .claimable_height
                .map(|height| format!(", height {height}"))
                .unwrap_or_default();
            card.line("to come", format!("{} ({kind}{at})", sats(balance.amount_sat)));
        }
    }
    card.finish()
}

/// The state of a channel on one line.
pub fn channel_line(channel: &Channel) -> String {
    let (state, colour) = channel_state(channel.state());
    let state = styled(ansi(colour), &state);
    match channel.confirmations_required {
        Some(required) if channel.confirmations < required => {
            format!("{state} ({} of {required} confirmations)", channel.confirmations)
        }
        _ => state,
    }
}

/// A payment.
pub fn payment(payment: &Payment) -> String {
    let mut card = Card::default();
    let (state, colour) = payment_state(payment.state());
    card.line("payment", hex::encode(&payment.payment_id))
        .line("state", styled(ansi(colour), &state))
        .line("amount", msats(payment.amount_msat))
        .maybe("fee", payment.fee_msat.map(msats))
        .maybe("hash", payment.payment_hash.as_ref().map(hex::encode))
        .maybe("preimage", payment.preimage.as_ref().map(hex::encode))
        .maybe("recipient", payment.recipient_node_id.as_ref().map(hex::encode))
        .maybe("about", payment.description.as_deref().map(quoted));
    if payment.parts > 1 {
        card.line("parts", payment.parts);
    }
    if let (PaymentState::Held, Some(height)) = (payment.state(), payment.claim_deadline_height) {
        card.line("settle before", format!("height {height}"));
    }
    if let Some(failure) = &payment.failure {
        let reason = words(failure.reason().as_str_name(), "PAYMENT_FAILURE_REASON_");
        card.line("failed", format!("{reason}. {}", quoted(&failure.text)));
    }
    let took = payment.resolved_unix_ms.and_then(|end| end.checked_sub(payment.created_unix_ms));
    card.line("created", utc(payment.created_unix_ms))
        .maybe("took", took.map(|ms| format!("{} ms", grouped(ms))));
    card.finish()
}

/// An invoice; the text to hand over stands last and alone, to be copied.
pub fn invoice(invoice: &Invoice) -> String {
    let mut card = Card::default();
    let state = words(invoice.state().as_str_name(), "INVOICE_STATE_");
    let hold = if invoice.hold { " (hold)" } else { "" };
    let about = invoice.description.as_deref().map(quoted);
    card.line("hash", hex::encode(&invoice.payment_hash))
        .line("state", format!("{state}{hold}"))
        .line("amount", invoice.amount_msat.map_or("any".to_owned(), msats))
        .maybe("received", invoice.amount_received_msat.map(msats))
        .maybe("about", about.filter(|text| !text.is_empty()))
        .maybe("preimage", invoice.preimage.as_ref().map(hex::encode))
        .maybe("settle before", invoice.claim_deadline_height.map(|h| format!("height {h}")))
        .line("expires", utc(invoice.expires_unix_ms));
    format!("{}\n\n{}", card.finish(), invoice.bolt11)
}

/// An offer; the text to hand over stands last and alone, to be copied.
pub fn offer(offer: &Offer) -> String {
    let mut card = Card::default();
    card.line("offer", hex::encode(&offer.offer_id))
        .line("amount", offer.amount_msat.map_or("any".to_owned(), msats))
        .maybe("about", offer.description.as_deref().map(quoted))
        .line("expires", offer.expires_unix_ms.map_or("never".to_owned(), utc));
    format!("{}\n\n{}", card.finish(), offer.bolt12)
}

/// What an invoice or offer says.
pub fn decoded(response: &DecodeResponse) -> String {
    let mut card = Card::default();
    let expiry = |expires: Option<u64>, expired: bool| match (expires, expired) {
        (None, _) => "never".to_owned(),
        (Some(at), false) => utc(at),
        (Some(at), true) => styled(AnsiColor::Red.on_default(), &format!("{} (expired)", utc(at))),
    };
    match &response.decoded {
        Some(decode_response::Decoded::Invoice(invoice)) => {
            card.line("kind", "BOLT 11 invoice")
                .line("network", words(invoice.network().as_str_name(), "NETWORK_"))
                .line("amount", invoice.amount_msat.map_or("any".to_owned(), msats))
                .maybe("about", invoice.description.as_deref().map(quoted))
                .maybe("about (hash)", invoice.description_hash.as_ref().map(hex::encode))
                .line("recipient", hex::encode(&invoice.recipient_node_id))
                .line("hash", hex::encode(&invoice.payment_hash))
                .line("created", utc(invoice.created_unix_ms))
                .line("expires", expiry(Some(invoice.expires_unix_ms), invoice.expired))
                .line("last HTLC leaves", format!("{} blocks", invoice.min_final_cltv_expiry_delta))
                .line("route hints", invoice.route_hints);
        }
        Some(decode_response::Decoded::Offer(offer)) => {
            let networks: Vec<_> =
                offer.networks().map(|network| words(network.as_str_name(), "NETWORK_")).collect();
            card.line("kind", "BOLT 12 offer")
                .line("network", networks.join(", "))
                .line("amount", offer.amount_msat.map_or("any".to_owned(), msats))
                .maybe("about", offer.description.as_deref().map(quoted))
                .maybe("issuer", offer.issuer.as_deref().map(quoted))
                .maybe("signed by", offer.issuer_signing_pubkey.as_ref().map(hex::encode))
                .line("offer", hex::encode(&offer.offer_id))
                .line("expires", expiry(offer.expires_unix_ms, offer.expired))
                .line("blinded paths", offer.blinded_paths);
        }
        Some(decode_response::Decoded::Address(address)) => {
            let network = if address.on_network { "this node's" } else { "another" };
            card.line("kind", "Bitcoin address")
                .line("address", &address.address)
                .line("network", network);
        }
        None => {
            card.line("kind", "nothing that can be read; use --json for all");
        }
    }
    // What an invoice or offer alone offers is what was told above.
    if !matches!(response.source(), RequestSource::Invoice | RequestSource::Offer) {
        card.maybe("name", response.name.as_ref())
            .maybe("who", response.label.as_deref().map(quoted))
            .maybe("what for", response.message.as_deref().map(quoted))
            .maybe("asks for", response.amount_msat.map(msats));
        request::ways(&mut card, &response.ways);
        card.line("choice", &response.chosen_because);
    }
    card.finish()
}

/// The wallet's balance.
pub fn balance(balance: &WalletBalance) -> String {
    Card::default()
        .line("spendable", sats(balance.spendable_sat))
        .line("confirmed", sats(balance.confirmed_sat))
        .line("unconfirmed", sats(balance.unconfirmed_sat))
        .line("immature", sats(balance.immature_sat))
        .line("for force-closes", sats(balance.reserved_for_anchors_sat))
        .line("locked", sats(balance.locked_sat))
        .finish()
}

/// A transaction of the wallet.
pub fn transaction(tx: &WalletTransaction) -> String {
    Card::default()
        .line("transaction", hex::encode(&tx.txid))
        .line("spends", sats(tx.spent_sat))
        .line("gives back", sats(tx.received_sat))
        .maybe("fee", tx.fee_sat.map(sats))
        .line("confirmations", tx.confirmations)
        .finish()
}

/// An event on one line.
pub fn event_line(event: &Event) -> String {
    let (kind, text) = match &event.kind {
        Some(event::Kind::Payment(p)) => {
            let (state, colour) = payment_state(p.state());
            let way = words(p.direction().as_str_name(), "PAYMENT_DIRECTION_");
            let state = styled(ansi(colour), &state);
            let amount = msats(p.amount_msat);
            ("payment", format!("{way} {amount} {state} {}", hex::encode(&p.payment_id)))
        }
        Some(event::Kind::Invoice(i)) => {
            let state = words(i.state().as_str_name(), "INVOICE_STATE_");
            ("invoice", format!("{state} {}", hex::encode(&i.payment_hash)))
        }
        Some(event::Kind::Channel(c)) => {
            let (state, colour) = channel_state(c.state());
            let state = styled(ansi(colour), &state);
            let detail = quoted(&c.detail);
            let text =
                format!("{state} {} {} {detail}", hex::encode(&c.record_id), sats(c.capacity_sat));
            ("channel", text)
        }
        Some(event::Kind::Wallet(w)) => {
            let kind = words(w.kind().as_str_name(), "WALLET_EVENT_KIND_");
            ("wallet", format!("{kind} {}", hex::encode(&w.txid)))
        }
        Some(event::Kind::Chain(c)) => {
            let kind = words(c.kind().as_str_name(), "CHAIN_EVENT_KIND_");
            ("chain", format!("{kind} height {} {}", c.block_height, quoted(&c.detail)))
        }
        Some(event::Kind::Tower(t)) => {
            let kind = words(t.kind().as_str_name(), "TOWER_EVENT_KIND_");
            ("tower", format!("{kind} {} {}", short(&t.tower_id), quoted(&t.detail)))
        }
        Some(event::Kind::Security(s)) => {
            let kind = words(s.kind().as_str_name(), "SECURITY_EVENT_KIND_");
            let about = [&s.token_id, &s.channel_record_id].into_iter().flatten().map(hex::encode);
            let about: String = about.map(|id| format!(" {id}")).collect();
            ("security", format!("{kind}{about} {}", quoted(&s.detail)))
        }
        Some(event::Kind::Batch(b)) => {
            let text = match &b.subject {
                Some(batch_event::Subject::Wish(wish)) => {
                    let state = words(wish.state().as_str_name(), "MEMBERSHIP_STATE_");
                    let wish_id = hex::encode(&wish.registration_id);
                    format!("{state} wish {wish_id} {}", quoted(&wish.detail))
                }
                Some(batch_event::Subject::Hosted(batch)) => {
                    let state = words(batch.state().as_str_name(), "HOSTED_BATCH_STATE_");
                    let batch_id = hex::encode(&batch.batch_id);
                    format!("{state} batch {batch_id} {}", quoted(&batch.detail))
                }
                None => String::new(),
            };
            ("batch", text)
        }
        Some(event::Kind::Swap(s)) => {
            let state = words(s.state().as_str_name(), "SWAP_STATE_");
            let kind = words(s.kind().as_str_name(), "SWAP_KIND_");
            let id = hex::encode(&s.swap_id);
            ("swap", format!("{kind} {} {state} {id}", sats(s.amount_sat)))
        }
        Some(event::Kind::Webhook(w)) => {
            let kind = words(w.kind().as_str_name(), "WEBHOOK_EVENT_KIND_");
            let id = hex::encode(&w.endpoint_id);
            let about = match (w.first_sequence, w.last_sequence) {
                (Some(first), Some(last)) => format!(" {first} to {last}"),
                (Some(sequence), None) => format!(" {sequence}"),
                _ => String::new(),
            };
            ("webhook", format!("{id} {kind}{about}"))
        }
        Some(event::Kind::Payout(p)) => {
            let kind = words(p.kind().as_str_name(), "PAYOUT_EVENT_KIND_");
            let line = p.line.map(|line| format!(" line {line}")).unwrap_or_default();
            ("payout", format!("{} {kind}{line}", hex::encode(&p.payout_id)))
        }
        Some(event::Kind::Node(n)) => {
            let kind = words(n.kind().as_str_name(), "NODE_EVENT_KIND_");
            ("node", format!("{kind} {}", quoted(&n.detail)))
        }
        None => ("?", "newer than this program; use --json".to_owned()),
    };
    let grey = AnsiColor::BrightBlack.on_default();
    let head = styled(grey, &format!("{:>8} {}", event.sequence, utc(event.unix_ms)));
    format!("{head} {kind:<7} {}", text.trim_end())
}

/// The colour of a table's cell, for text outside a table.
fn ansi(colour: comfy_table::Color) -> Style {
    use comfy_table::Color;
    let colour = match colour {
        Color::Green => AnsiColor::Green,
        Color::Red => AnsiColor::Red,
        Color::Yellow | Color::DarkYellow => AnsiColor::Yellow,
        _ => AnsiColor::BrightBlack,
    };
    colour.on_default()
}

#[cfg(test)]
mod tests {
    use proto::v1::{ChainSync, NodeEvent, NodeEventKind};

    use super::*;

    #[test]
    fn times_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_231_006_505, "2009-01-03 18:15:05Z"),
            (1_709_210_096, "2024-02-29 12:34:56Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(utc(seconds * 1_000), text);
        }
        // Never a panic, whatever a node says.
        utc(u64::MAX);
    }

    #[test]
    fn labels_stand_under_each_other() {
        let text =
            Card::default().line("a", 1).line("longer", 2).maybe("never", None::<u8>).finish();
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(text, "a       1\nlonger  2");
    }

    #[test]
    fn a_stalled_chain_is_said() {
        let text = info(&NodeInfo {
            chain: Some(ChainSync { synced: true, stalled: true, ..ChainSync::default() }),
            ..NodeInfo::default()
        });
        assert!(text.contains("stalled"), "{text}");
    }

    #[test]
    fn an_event_is_one_line() {
        let line = event_line(&Event {
            sequence: 7,
            unix_ms: 0,
            kind: Some(event::Kind::Node(NodeEvent {
                kind: NodeEventKind::Started as i32,
                detail: "two\nlines".to_owned(),
            })),
        });
        assert!(!line.contains('\n'), "{line}");
        assert!(line.contains("started twolines"), "{line}");
    }

    #[test]
    fn ids_are_cut_only_where_that_saves_room() {
        assert_eq!(short(&[0xab; 33]), "abababababab…");
        assert_eq!(short(&[0xab; 8]), "ab".repeat(8));
    }
}
