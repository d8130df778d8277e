//! A run in figures: what `summary.json` says.
//!
//! Nothing here depends on the machine or its clock: same scenario, seed and version, same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::recorder::{Outcome, PaymentRecord, Recorder, Totals};
use crate::scenario::{Engine, MeasureSpec};
use crate::stats::{Estimate, percentile};
use crate::workload::micros;

/// What was run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The scenario's name.
    pub scenario: String,
    /// Which engine ran it.
    pub engine: Engine,
    /// Its seed.
    pub seed: u64,
    /// What was set otherwise than in the file: key and value.
    pub settings: BTreeMap<String, String>,
    /// The program's version.
    pub version: String,
    /// The commit the program was built from, or "unknown".
    pub commit: String,
}

impl Identity {
    /// Of a run with this program.
    pub fn new(
        scenario: &str,
        engine: Engine,
        seed: u64,
        settings: BTreeMap<String, String>,
    ) -> Self {
        Self {
            scenario: scenario.to_owned(),
            engine,
            seed,
            settings,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SIMNET_GIT_COMMIT").to_owned(),
        }
    }
}

/// Success among payments of about one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AmountClass {
    /// From this amount on, msat.
    pub from_msat: u64,
    /// Payments.
    pub payments: u64,
    /// Share of them that arrived.
    pub success_rate: f64,
}

/// A run in figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// What was run.
    #[serde(flatten)]
    pub identity: Identity,
    /// Whether the run was broken off: figures are of what there is.
    pub partial: bool,
    /// Nodes of the network.
    pub nodes: u64,
    /// Channels of the network.
    pub channels: u64,
    /// Virtual time, in seconds.
    pub duration_s: f64,
    /// Payments that began before this are not in the figures.
    pub warm_up_s: f64,
    /// Payments in the figures.
    pub payments: u64,
    /// By outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Share of payments that arrived.
    pub success_rate: Option<Estimate>,
    /// Payments that arrived, by second of virtual time, until the last began.
    pub throughput_per_s: Option<Estimate>,
    /// Amounts that arrived, msat.
    pub volume_msat: u64,
    /// Latency of payments that arrived, ms: half took no longer.
    pub latency_p50_ms: Option<Estimate>,
    /// 95 % took no longer.
    pub latency_p95_ms: Option<Estimate>,
    /// 99 % took no longer.
    pub latency_p99_ms: Option<Estimate>,
    /// Fees by amount that arrived, millionths.
    pub fee_ppm: Option<Estimate>,
    /// Fee of a payment that arrived, msat.
    pub fee_msat: Option<Estimate>,
    /// HTLCs sent for a payment.
    pub attempts: Option<Estimate>,
    /// Parts of a payment that arrived.
    pub parts: Option<Estimate>,
    /// Hops of a payment that arrived.
    pub hops: Option<Estimate>,
    /// Imbalance of channels over time.
    pub imbalance: Option<Estimate>,
    /// Most that hubs had in batches at a time, sat.
    pub capital_locked_max_sat: u64,
    /// Bytes on chain, vB.
    pub chain_vb: u64,
    /// What they paid, sat.
    pub chain_fee_sat: u64,
    /// Success by powers of ten of the amount.
    pub by_amount: Vec<AmountClass>,
    /// Counts.
    pub totals: Totals,
    /// Of the live engine: the hash of every message that was delivered and every block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcript_hash: Option<String>,
}

impl Summary {
    /// Works the figures out.
    pub fn new(identity: Identity, recorder: &Recorder, measure: &MeasureSpec) -> Self {
        let warm_up_us = micros(measure.warm_up_s);
        let batches = measure.batches as usize;
        let mut payments: Vec<&PaymentRecord> =
            recorder.payments.iter().filter(|payment| payment.at_us >= warm_up_us).collect();
        // By beginning, so that a stretch of the list is a stretch of time.
        payments.sort_by_key(|payment| (payment.at_us, payment.from, payment.to));
        let arrived: Vec<&PaymentRecord> =
            payments.iter().copied().filter(|payment| payment.succeeded()).collect();
        let mean = |list: &[&PaymentRecord], value: &dyn Fn(&PaymentRecord) -> f64| {
            let values: Vec<f64> = list.iter().map(|payment| value(payment)).collect();
            Estimate::by_batch_means(&values, batches)
        };
        let latencies: Vec<f64> =
            arrived.iter().map(|payment| payment.latency_us as f64 / 1e3).collect();
        let latency =
            |share| Estimate::by_batches(&latencies, batches, |part| percentile(part, share));
        let imbalances: Vec<f64> = recorder
            .samples
            .iter()
            .filter(|sample| sample.at_us >= warm_up_us)
            .map(|sample| sample.imbalance)
            .collect();
        // What is left to do after the last payment has begun is no time of throughput.
        let begun_us = payments.last().map_or(0, |payment| payment.at_us);
        let end_us = if begun_us > warm_up_us { begun_us } else { recorder.end_us };
        let last = recorder.samples.last().copied().unwrap_or_default();
        let locked = recorder.samples.iter().map(|sample| sample.capital_locked_sat).max();
        // Real nodes do not tell these to callers.
        let counted = (identity.engine == Engine::Model).then_some(());
        let mut outcomes = BTreeMap::new();
        for payment in &payments {
            *outcomes.entry(payment.outcome.name().to_owned()).or_insert(0) += 1;
        }
        Self {
            identity,
            partial: recorder.partial,
            nodes: recorder.nodes,
            channels: recorder.channels,
            duration_s: recorder.end_us as f64 / 1e6,
            warm_up_s: measure.warm_up_s,
            payments: payments.len() as u64,
            outcomes,
            success_rate: mean(&payments, &|payment| f64::from(u8::from(payment.succeeded()))),
            throughput_per_s: throughput(&arrived, warm_up_us, end_us, batches),
            volume_msat: arrived.iter().map(|payment| payment.amount_msat).sum(),
            latency_p50_ms: latency(0.50),
            latency_p95_ms: latency(0.95),
            latency_p99_ms: latency(0.99),
            fee_ppm: fee_ppm(&arrived, batches),
            fee_msat: mean(&arrived, &|payment| payment.fee_msat as f64),
            attempts: counted.and(mean(&payments, &|payment| f64::from(payment.attempts))),
            parts: counted.and(mean(&arrived, &|payment| f64::from(payment.parts))),
            hops: counted.and(mean(&arrived, &|payment| f64::from(payment.hops))),
            imbalance: Estimate::by_batch_means(&imbalances, batches),
            capital_locked_max_sat: locked.unwrap_or(0),
            chain_vb: last.chain_vb,
            chain_fee_sat: last.chain_fee_sat,
            by_amount: by_amount(&payments),
            totals: recorder.totals,
            transcript_hash: None,
        }
    }

    /// Share of payments with an outcome.
    pub fn share(&self, outcome: Outcome) -> f64 {
        let count = self.outcomes.get(outcome.name()).copied().unwrap_or(0);
        count as f64 / self.payments.max(1) as f64
    }
}

/// Payments that arrived by second, in stretches of equal time.
fn throughput(
    arrived: &[&PaymentRecord],
    start_us: u64,
    end_us: u64,
    batches: usize,
) -> Option<Estimate> {
    let span_us = end_us.checked_sub(start_us).filter(|span| *span > 0)?;
    let mut counts = vec![0.0; batches];
    let mut inside = 0_u64;
    for payment in arrived {
        let at_us = payment.at_us + payment.latency_us;
        if (start_us..=end_us).contains(&at_us) {
            let place = u128::from(at_us - start_us) * batches as u128 / (u128::from(span_us) + 1);
            counts[usize::try_from(place).unwrap_or(0)] += 1.0;
            inside += 1;
        }
    }
    let seconds = span_us as f64 / 1e6;
    let rates: Vec<f64> = counts.iter().map(|count| count * batches as f64 / seconds).collect();
    let estimate = Estimate::of(&rates)?;
    Some(Estimate { mean: inside as f64 / seconds, ..estimate })
}

/// Fees by amount: the ratio of both sums, not the mean of ratios.
fn fee_ppm(arrived: &[&PaymentRecord], batches: usize) -> Option<Estimate> {
    let ratio = |list: &[&PaymentRecord]| {
        let fees: u64 = list.iter().map(|payment| payment.fee_msat).sum();
        let amounts: u64 = list.iter().map(|payment| payment.amount_msat).sum();
        fees as f64 * 1e6 / amounts.max(1) as f64
    };
    if arrived.is_empty() {
        return None;
    }
    let mean = ratio(arrived);
    let size = arrived.len() / batches;
    if size == 0 {
        return Some(Estimate { mean, half_width: None, values: arrived.len() as u32 });
    }
    let ratios: Vec<f64> = arrived.chunks_exact(size).take(batches).map(ratio).collect();
    Estimate::of(&ratios).map(|estimate| Estimate { mean, ..estimate })
}

fn by_amount(payments: &[&PaymentRecord]) -> Vec<AmountClass> {
    let mut classes: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for payment in payments {
        let from_msat = 10_u64.pow(payment.amount_msat.max(1).ilog10());
        let class = classes.entry(from_msat).or_default();
        class.0 += 1;
        class.1 += u64::from(payment.succeeded());
    }
    let class = |(from_msat, (payments, arrived)): (u64, (u64, u64))| AmountClass {
        from_msat,
        payments,
        success_rate: arrived as f64 / payments as f64,
    };
    classes.into_iter().map(class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder() -> Recorder {
        let mut recorder = Recorder { end_us: 100_000_000, ..Recorder::default() };
        for second in 0..100_u64 {
            recorder.payment(PaymentRecord {
                at_us: second * 1_000_000,
                from: 0,
                to: 1,
                amount_msat: if second % 2 == 0 { 500 } else { 5_000 },
                outcome: if second % 4 == 0 { Outcome::NoRoute } else { Outcome::Succeeded },
                latency_us: second * 1_000,
                fee_msat: 5,
                attempts: 2,
                parts: 1,
                hops: 3,
            });
        }
        recorder
    }

    fn summary(warm_up_s: f64) -> Summary {
        let identity = Identity::new("x", Engine::Model, 1, BTreeMap::new());
        let measure = MeasureSpec { warm_up_s, batches: 5, ..MeasureSpec::default() };
        Summary::new(identity, &recorder(), &measure)
    }

    #[test]
    fn figures_are_those_of_the_records() {
        let summary = summary(0.0);
        assert_eq!(summary.payments, 100);
        assert!((summary.success_rate.unwrap().mean - 0.75).abs() < 1e-12);
        assert!(summary.success_rate.unwrap().half_width.unwrap() < 1e-12);
        assert!((summary.share(Outcome::NoRoute) - 0.25).abs() < 1e-12);
        assert!((summary.throughput_per_s.unwrap().mean - 0.75).abs() < 0.01);
        assert_eq!(summary.latency_p50_ms.unwrap().mean, 50.0);
        let classes: Vec<(u64, u64)> =
            summary.by_amount.iter().map(|class| (class.from_msat, class.payments)).collect();
        assert_eq!(classes, [(100, 50), (1_000, 50)]);
        assert!((summary.by_amount[0].success_rate - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_warm_up_is_left_out() {
        let summary = summary(50.0);
        assert_eq!(summary.payments, 50);
        assert!((summary.throughput_per_s.unwrap().mean - 37.0 / 50.0).abs() < 0.03);
    }
}
