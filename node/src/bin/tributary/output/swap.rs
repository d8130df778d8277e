//! Withdrawals and deposits for people.

use comfy_table::Cell;
use proto::v1::{Outpoint, Swap, SwapKind};

use super::table::{begin, finish, words};
use super::text::{Card, msats, sats, short};
use crate::amount::grouped;

/// Digits of an id that tell one from another.
const ID_DIGITS: usize = 16;

/// One step in a line.
pub fn line(swap: &Swap) -> String {
    let state = words(swap.state().as_str_name(), "SWAP_STATE_");
    match swap.detail.is_empty() {
        true => state,
        false => format!("{state}: {}", swap.detail),
    }
}

fn kind(swap: &Swap) -> String {
    words(swap.kind().as_str_name(), "SWAP_KIND_")
}

/// What the hub takes, msat, once it is agreed on.
fn fee_msat(swap: &Swap) -> Option<u64> {
    let amount_msat = swap.amount_sat.saturating_mul(1_000);
    let payment_msat = swap.payment_msat?;
    Some(match swap.kind() {
        SwapKind::Deposit => amount_msat.saturating_sub(payment_msat),
        _ => payment_msat.saturating_sub(amount_msat),
    })
}

/// One withdrawal or deposit.
pub fn one(swap: &Swap) -> String {
    let outpoint = |o: &Outpoint| format!("{}:{}", hex::encode(&o.txid), o.output_index);
    let mut card = Card::default();
    card.line(&kind(swap), hex::encode(&swap.swap_id))
        .line("state", line(swap))
        .line("this node", words(swap.role().as_str_name(), "SWAP_ROLE_"))
        .line("other side", hex::encode(&swap.peer_node_id))
        .line("amount", sats(swap.amount_sat))
        .maybe("hub takes", fee_msat(swap).map(msats))
        .maybe("channel", swap.funding_outpoint.as_ref().map(outpoint))
        .maybe("funded by", swap.funding_txid.as_ref().map(hex::encode))
        .maybe("output", swap.output_outpoint.as_ref().map(outpoint))
        .maybe("spent by", swap.spend_txid.as_ref().map(hex::encode));
    card.finish()
}

/// Withdrawals and deposits.
pub fn list(swaps: &[Swap]) -> String {
    let mut table = begin(&["swap", "kind", "as", "with", "state", ">amount sat", ">hub takes"]);
    for swap in swaps {
        table.add_row(vec![
            Cell::new(&hex::encode(&swap.swap_id)[..ID_DIGITS]),
            Cell::new(kind(swap)),
            Cell::new(words(swap.role().as_str_name(), "SWAP_ROLE_")),
            Cell::new(short(&swap.peer_node_id)),
            Cell::new(line(swap)),
            Cell::new(grouped(swap.amount_sat)),
            Cell::new(fee_msat(swap).map(msats).unwrap_or_default()),
        ]);
    }
    finish(table, "nothing was withdrawn or deposited; see `tributary batch withdraw --help`")
}
