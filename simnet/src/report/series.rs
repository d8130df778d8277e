//! The tables of a run: payments and samples.

use super::recorder::Recorder;
use super::table::{Column, Table, Values};

fn whole<T>(name: &'static str, items: &[T], value: impl Fn(&T) -> u64) -> Column {
    Column { name, values: Values::Whole(items.iter().map(value).collect()) }
}

fn float<T>(name: &'static str, items: &[T], value: impl Fn(&T) -> f64) -> Column {
    Column { name, values: Values::Float(items.iter().map(value).collect()) }
}

/// One row for each payment.
pub fn payments(recorder: &Recorder) -> Table {
    let all = &recorder.payments;
    Table::new(vec![
        float("at_s", all, |payment| payment.at_us as f64 / 1e6),
        whole("from", all, |payment| payment.from.into()),
        whole("to", all, |payment| payment.to.into()),
        whole("amount_msat", all, |payment| payment.amount_msat),
        Column {
            name: "outcome",
            values: Values::Text(all.iter().map(|payment| payment.outcome.name()).collect()),
        },
        float("latency_ms", all, |payment| payment.latency_us as f64 / 1e3),
        whole("fee_msat", all, |payment| payment.fee_msat),
        whole("attempts", all, |payment| payment.attempts.into()),
        whole("parts", all, |payment| payment.parts.into()),
        whole("hops", all, |payment| payment.hops.into()),
    ])
}

/// One row for each sample.
pub fn samples(recorder: &Recorder) -> Table {
    let all = &recorder.samples;
    Table::new(vec![
        float("at_s", all, |sample| sample.at_us as f64 / 1e6),
        whole("payments_active", all, |sample| sample.payments_active),
        whole("htlcs", all, |sample| sample.htlcs),
        whole("htlc_msat", all, |sample| sample.htlc_msat),
        float("imbalance", all, |sample| sample.imbalance),
        whole("capital_locked_sat", all, |sample| sample.capital_locked_sat),
        whole("chain_vb", all, |sample| sample.chain_vb),
        whole("chain_fee_sat", all, |sample| sample.chain_fee_sat),
        float("feerate_sat_per_vb", all, |sample| sample.feerate_msat_per_vb as f64 / 1e3),
        whole("nodes_online", all, |sample| sample.nodes_online),
        whole("exits_waiting", all, |sample| sample.exits_waiting),
    ])
}
