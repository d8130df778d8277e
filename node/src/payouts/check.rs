//! Lines judged as a whole, before anything is promised. Pure: what a line says is asked of
//! [`World`].

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, Network, Script};

use super::line::{LineKind, LineReason, Row};
use super::record::{LineRecord, LineState, Quote, Settings};
use crate::journal::millis;
use crate::lightning::types::{NodeId, PaymentHash};
use crate::lightning::{DecodeError, Decoded, DecodedKind};
use crate::store::StoreError;

/// A payment larger than all bitcoin is a mistake in units.
const AMOUNT_MSAT_MAX: u64 = 21_000_000 * 100_000_000 * 1_000;
/// Stands for the bound of a line on chain that names none, until it is known how many share a
/// transaction.
pub(super) const UNPRICED: u64 = u64::MAX;
/// Longest text of a bad target that is kept, in characters.
const BAD_TARGET_MAX: usize = 200;

/// What lines are judged by.
pub(super) trait World {
    /// The time.
    fn now(&self) -> Duration;
    /// The network.
    fn network(&self) -> Network;
    /// This node.
    fn node_id(&self) -> NodeId;
    /// Reads an invoice or an offer.
    fn decode(&self, text: &str) -> Result<Decoded, DecodeError>;
    /// Whether an invoice of this hash is paid or being paid.
    fn is_paid(&self, hash: PaymentHash) -> Result<bool, StoreError>;
    /// Whether the wallet's own coins pay to `script`.
    fn owns(&self, script: &Script) -> bool;
    /// Most that a payment may cost where nobody says, msat.
    fn default_fee_msat(&self, amount_msat: u64) -> u64;
}

/// Why a line is bad, with the sentence for people.
type Fault = (LineReason, String);

/// What a good target says.
struct Target {
    kind: LineKind,
    text: String,
    payee: Option<NodeId>,
    asked_msat: Option<u64>,
    hash: Option<PaymentHash>,
    expires: Option<Duration>,
    /// Least that an output may pay, on chain.
    least: Option<Amount>,
}

/// Judges all lines.
///
/// Returns the lines by number, and the sums of what they pay; what that costs is left out.
///
/// # Errors
///
/// If the store cannot be read.
pub(super) fn judge(
    rows: Vec<Row>,
    settings: &Settings,
    world: &impl World,
) -> Result<(Vec<LineRecord>, Quote), StoreError> {
    let mut quote = Quote::default();
    let mut seen: HashMap<PaymentHash, u32> = HashMap::new();
    let mut lines = Vec::with_capacity(rows.len());
    for (number, row) in (1_u32..).zip(rows) {
        let mut line = blank(number, &row);
        let judged = judge_one(&row, settings, world, &mut seen, number)?;
        let judged = judged.and_then(|target| {
            let amount_msat = amount(&row, &target, settings)?;
            let total_msat = quote.total_msat.saturating_add(amount_msat);
            let most = settings.max_total_msat.unwrap_or(AMOUNT_MSAT_MAX);
            if total_msat > most {
                let text = format!(
                    "the lines up to this one pay {total_msat} msat, allowed are {most} msat"
                );
                return Err((LineReason::AboveTotalLimit, text));
            }
            Ok((target, amount_msat))
        });
        match judged {
            Ok((target, amount_msat)) => {
                if let Some(hash) = target.hash {
                    seen.insert(hash, number);
                }
                line.kind = target.kind;
                line.target = target.text;
                line.payee = target.payee;
                line.amount_msat = amount_msat;
                line.max_fee_msat =
                    row.max_fee_msat.or(settings.max_line_fee_msat).unwrap_or_else(|| match target
                        .kind
                    {
                        LineKind::Address => UNPRICED,
                        _ => world.default_fee_msat(amount_msat),
                    });
                quote.good_lines += 1;
                quote.total_msat = quote.total_msat.saturating_add(amount_msat);
                if target.kind == LineKind::Address {
                    quote.onchain_lines += 1;
                    quote.onchain_msat = quote.onchain_msat.saturating_add(amount_msat);
                }
                let expires_ms = target.expires.map(millis);
                quote.earliest_expiry_ms =
                    [quote.earliest_expiry_ms, expires_ms].into_iter().flatten().min();
            }
            Err((reason, detail)) => {
                line.state = LineState::Bad;
                line.reason = Some(reason);
                line.detail = detail;
                line.target = line.target.chars().take(BAD_TARGET_MAX).collect();
                quote.bad_lines += 1;
            }
        }
        lines.push(line);
    }
    Ok((lines, quote))
}

fn blank(number: u32, row: &Row) -> LineRecord {
    LineRecord {
        number,
        file_line: row.file_line,
        kind: kind_of(&row.target),
        target: row.target.clone(),
        payee: None,
        amount_msat: row.amount_msat.unwrap_or(0),
        max_fee_msat: row.max_fee_msat.unwrap_or(0),
        reference: row.reference.clone(),
        note: row.note.clone(),
        state: LineState::Pending,
        reason: None,
        detail: String::new(),
        attempts: 0,
        payment: None,
        output: None,
        paid_msat: 0,
        fee_msat: 0,
        preimage: None,
        begun_ms: None,
        ended_ms: None,
    }
}

/// What a target looks like.
fn kind_of(text: &str) -> LineKind {
    let text = text.trim().to_ascii_lowercase();
    let bare = text.strip_prefix("lightning:").unwrap_or(&text);
    match bare {
        _ if bare.starts_with("lno1") => LineKind::Offer,
        _ if bare.starts_with("ln") || bare.len() < text.len() => LineKind::Invoice,
        _ if bare.len() == 66 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            LineKind::Keysend
        }
        _ => LineKind::Address,
    }
}

fn judge_one(
    row: &Row,
    settings: &Settings,
    world: &impl World,
    seen: &mut HashMap<PaymentHash, u32>,
    number: u32,
) -> Result<Result<Target, Fault>, StoreError> {
    let fault = |reason, text: String| Ok(Err((reason, text)));
    if let Some(why) = &row.fault {
        return fault(LineReason::Unreadable, format!("the line {why}"));
    }
    let target = match target(row, world) {
        Ok(target) => target,
        Err(bad) => return Ok(Err(bad)),
    };
    if target.payee == Some(world.node_id()) {
        return fault(LineReason::PaysItself, "it pays this node itself".to_owned());
    }
    if !row.note.is_empty() && target.kind != LineKind::Offer {
        let text = "only offers carry a note to the receiver; use the column reference".to_owned();
        return fault(LineReason::NoteUnsupported, text);
    }
    if let Some(expires) = target.expires.filter(|expires| *expires <= world.now()) {
        let seconds = (world.now() - expires).as_secs();
        return fault(
            LineReason::Expired,
            format!("it expired {seconds} s ago; ask for a new one"),
        );
    }
    if target.kind == LineKind::Invoice && settings.recurrence.is_some() {
        let text = "an invoice is paid once; a schedule takes offers, node ids and addresses";
        return fault(LineReason::NotRepeatable, text.to_owned());
    }
    if let (LineKind::Invoice, Some(hash)) = (target.kind, target.hash) {
        if let Some(first) = seen.get(&hash).filter(|first| **first != number) {
            let text = format!("line {first} has the same payment hash; an invoice is paid once");
            return fault(LineReason::Duplicate, text);
        }
        if world.is_paid(hash)? {
            let text = format!("payment hash {hash} was paid before, or is being paid");
            return fault(LineReason::AlreadyPaid, text);
        }
    }
    Ok(Ok(target))
}

/// Reads whom a line pays.
fn target(row: &Row, world: &impl World) -> Result<Target, Fault> {
    let text = row.target.trim();
    if text.is_empty() {
        return Err((LineReason::Unreadable, "it names no target".to_owned()));
    }
    match kind_of(text) {
        LineKind::Invoice | LineKind::Offer => request(text, world),
        LineKind::Keysend => {
            let payee = NodeId::from_str(text).map_err(|_| {
                let words = "the node id is no point on the curve".to_owned();
                (LineReason::Unreadable, words)
            })?;
            Ok(Target {
                kind: LineKind::Keysend,
                text: text.to_ascii_lowercase(),
                payee: Some(payee),
                asked_msat: None,
                hash: None,
                expires: None,
                least: None,
            })
        }
        LineKind::Address => address(text, world.network(), world),
    }
}

fn request(text: &str, world: &impl World) -> Result<Target, Fault> {
    let decoded =
        world.decode(text).map_err(|error| (LineReason::Unreadable, error.to_string()))?;
    if !decoded.on_our_network {
        let words = format!("it is for another network; this node is on {}", world.network());
        return Err((LineReason::WrongNetwork, words));
    }
    let kind = match decoded.kind {
        DecodedKind::Invoice => LineKind::Invoice,
        DecodedKind::Offer => LineKind::Offer,
    };
    Ok(Target {
        kind,
        text: decoded.text,
        payee: decoded.payee,
        asked_msat: decoded.amount_msat,
        hash: decoded.hash,
        expires: decoded.expires,
        least: None,
    })
}

fn address(text: &str, network: Network, world: &impl World) -> Result<Target, Fault> {
    let bare = text.strip_prefix("bitcoin:").unwrap_or(text);
    let address = Address::<NetworkUnchecked>::from_str(bare).map_err(|error| {
        let words = format!("it is no invoice, offer, node id or address: {error}");
        (LineReason::Unreadable, words)
    })?;
    let address = address.require_network(network).map_err(|_| {
        (LineReason::WrongNetwork, format!("the address is of another network than {network}"))
    })?;
    let script = address.script_pubkey();
    if world.owns(&script) {
        return Err((LineReason::PaysItself, "the address is this node's own".to_owned()));
    }
    Ok(Target {
        kind: LineKind::Address,
        text: address.to_string(),
        payee: None,
        asked_msat: None,
        hash: None,
        expires: None,
        least: Some(script.minimal_non_dust()),
    })
}

/// What a line pays, msat.
fn amount(row: &Row, target: &Target, settings: &Settings) -> Result<u64, Fault> {
    let amount_msat = match (row.amount_msat, target.asked_msat) {
        (Some(given), Some(asked)) if given != asked => {
            let text = format!("it asks for {asked} msat, the line says {given} msat");
            return Err((LineReason::AmountMismatch, text));
        }
        (Some(given), _) => given,
        (None, Some(asked)) => asked,
        (None, None) => {
            let text = "neither the line nor its target names an amount".to_owned();
            return Err((LineReason::AmountMissing, text));
        }
    };
    if let Some(fee_msat) = row.max_fee_msat.filter(|fee_msat| *fee_msat > AMOUNT_MSAT_MAX) {
        let text = format!("a fee of {fee_msat} msat is more than all bitcoin");
        return Err((LineReason::AmountOutOfRange, text));
    }
    if amount_msat == 0 || amount_msat > AMOUNT_MSAT_MAX {
        let text = format!("{amount_msat} msat is out of range, 1 to {AMOUNT_MSAT_MAX}");
        return Err((LineReason::AmountOutOfRange, text));
    }
    if let Some(least) = target.least {
        if !amount_msat.is_multiple_of(1_000) {
            let text =
                format!("{amount_msat} msat is no whole number of satoshis, as the chain has");
            return Err((LineReason::AmountOutOfRange, text));
        }
        if amount_msat / 1_000 < least.to_sat() {
            let text =
                format!("{} sat is dust; pay at least {} sat", amount_msat / 1_000, least.to_sat());
            return Err((LineReason::Dust, text));
        }
    }
    match settings.max_line_msat {
        Some(most) if amount_msat > most => {
            let text = format!("it pays {amount_msat} msat, a line may pay {most} msat");
            Err((LineReason::AboveLineLimit, text))
        }
        _ => Ok(amount_msat),
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
