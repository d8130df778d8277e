//! What a run leaves, and what is made of it: figures, tables, a page, comparisons.
//!
//! `recorder.rs` is what an engine fills; everything else is made of that alone.

pub mod compare;
pub mod files;
pub mod html;
pub mod plot;
pub mod recorder;
pub mod series;
pub mod summary;
pub mod table;

pub use recorder::{Outcome, PaymentRecord, Recorder, Sample, Totals};
pub use summary::{Identity, Summary};

use crate::stats::Estimate;

/// Picks a metric out of a summary.
pub type Metric = fn(&Summary) -> Option<Estimate>;

/// The metrics that comparisons and tables of runs have, by name.
pub const METRICS: [(&str, Metric); 13] = [
    ("success_rate", |summary| summary.success_rate),
    ("throughput_per_s", |summary| summary.throughput_per_s),
    ("latency_p50_ms", |summary| summary.latency_p50_ms),
    ("latency_p95_ms", |summary| summary.latency_p95_ms),
    ("latency_p99_ms", |summary| summary.latency_p99_ms),
    ("fee_ppm", |summary| summary.fee_ppm),
    ("fee_msat", |summary| summary.fee_msat),
    ("attempts", |summary| summary.attempts),
    ("parts", |summary| summary.parts),
    ("imbalance", |summary| summary.imbalance),
    ("capital_locked_max_sat", |summary| count(summary.capital_locked_max_sat)),
    ("chain_vb", |summary| count(summary.chain_vb)),
    ("chain_fee_sat", |summary| count(summary.chain_fee_sat)),
];

/// A figure of a whole run: one value without an interval.
fn count(value: u64) -> Option<Estimate> {
    Some(Estimate { mean: value as f64, half_width: None, values: 1 })
}
