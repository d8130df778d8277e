//! What a payout will cost: a bound that is kept, and an estimate of the moment.

use std::collections::BTreeMap;

use bitcoin::{Amount, FeeRate};

use super::check::UNPRICED;
use super::line::LineKind;
use super::record::{LineRecord, LineState, Quote};
use crate::lightning::RouteTarget;
use crate::lightning::types::NodeId;
use crate::onchain::OnChain;
use crate::payments::Payments;

/// Receivers to whom a route is looked for.
const PAYEES_ESTIMATED_MAX: usize = 32;
/// Outputs of one transaction: some 11,000 vB, a ninth of what is relayed.
pub(super) const OUTPUTS_MAX: usize = 250;
/// Size of what a transaction has beside inputs and the outputs of lines: its head, and change.
const FRAME_VB: u64 = 11 + 43;
/// Largest output of a line, and an input of the wallet's.
const OUTPUT_VB: u64 = 43;
const INPUT_VB: u64 = 58;
/// Inputs of a transaction: as estimated, and as its bound allows for.
const INPUTS: u64 = 2;
const INPUTS_BOUND: u64 = 10;
/// How far the feerate may rise between quote and payment, within the bound.
const RISE: u64 = 2;

/// Size of what pays `lines` on chain, with so many inputs for each transaction.
fn size_vb(lines: u64, inputs: u64) -> u64 {
    let transactions = lines.div_ceil(OUTPUTS_MAX as u64);
    transactions * (FRAME_VB + inputs * INPUT_VB) + lines * OUTPUT_VB
}

fn fee_msat(feerate: FeeRate, size_vb: u64) -> u64 {
    let fee = feerate.fee_vb(size_vb).unwrap_or(Amount::MAX_MONEY);
    fee.to_sat().saturating_mul(1_000)
}

/// Gives each line on chain that names no bound its share of one, and sums the bounds up.
pub(super) fn price(lines: &mut [LineRecord], quote: &mut Quote, feerate: FeeRate) {
    let onchain = u64::from(quote.onchain_lines);
    let bound_msat = fee_msat(feerate, size_vb(onchain, INPUTS_BOUND)).saturating_mul(RISE);
    let share_msat = bound_msat.div_ceil(onchain.max(1));
    for line in lines.iter_mut().filter(|line| line.state != LineState::Bad) {
        if line.max_fee_msat == UNPRICED {
            line.max_fee_msat = share_msat;
        }
        quote.max_fee_msat = quote.max_fee_msat.saturating_add(line.max_fee_msat);
        if line.kind == LineKind::Address {
            quote.onchain_max_fee_msat =
                quote.onchain_max_fee_msat.saturating_add(line.max_fee_msat);
        }
    }
}

/// Estimates fees and looks at balances.
pub(super) fn estimate(
    lines: &[LineRecord],
    quote: &mut Quote,
    feerate: FeeRate,
    payments: &Payments,
    onchain: &OnChain,
    spendable_msat: u64,
) {
    quote.lightning_spendable_msat = spendable_msat;
    quote.onchain_spendable_sat = onchain.wallet().balance().spendable.to_sat();
    if quote.onchain_lines > 0 {
        quote.estimated_fee_msat = fee_msat(feerate, size_vb(quote.onchain_lines.into(), INPUTS));
    }
    let mut by_payee: BTreeMap<NodeId, Vec<&LineRecord>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.state != LineState::Bad) {
        match (line.kind, line.payee) {
            (LineKind::Address, _) => {}
            (_, Some(payee)) => by_payee.entry(payee).or_default().push(line),
            (_, None) => quote.unestimated_lines += 1,
        }
    }
    for (number, (payee, lines)) in by_payee.into_iter().enumerate() {
        let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let estimated = (number < PAYEES_ESTIMATED_MAX).then(|| one(payee, &lines, payments));
        match estimated.flatten() {
            Some(fee_msat) => {
                let all_msat = fee_msat.saturating_mul(count.into());
                quote.estimated_fee_msat = quote.estimated_fee_msat.saturating_add(all_msat);
            }
            None => quote.unestimated_lines += count,
        }
    }
    quote.estimated_fee_msat = quote.estimated_fee_msat.min(quote.max_fee_msat);
}

/// The fee of a payment to `payee` of the lines' mean amount.
fn one(payee: NodeId, lines: &[&LineRecord], payments: &Payments) -> Option<u64> {
    let first = lines.first()?;
    let sum = lines.iter().map(|line| u128::from(line.amount_msat)).sum::<u128>();
    let mean = sum / lines.len() as u128;
    let target = match first.kind {
        LineKind::Invoice => RouteTarget::Invoice(first.target.clone()),
        _ => RouteTarget::Node(payee),
    };
    let amount_msat = u64::try_from(mean).unwrap_or(u64::MAX).max(1);
    let found = payments.estimate_route(target, amount_msat, Some(first.max_fee_msat), None);
    found.map(|route| route.fee_msat)
}
