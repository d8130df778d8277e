//! The model's speed: single-part payments between random pairs that can pay each other.

use std::collections::BTreeMap;
use std::path::Path;

use super::machine::{Stopwatch, peak_rss_bytes};
use super::{BenchError, Figures, Options};
use crate::model::engine::{Control, Engine, SEARCH_BYTES};
use crate::report::{Identity, Summary};
use crate::scenario::{Document, Engine as EngineName, ScenarioError};
use crate::workload::Workload;

impl Options {
    /// The scenario that is measured.
    fn text(&self) -> String {
        let topology = match &self.snapshot {
            Some(path) => {
                let path = toml::Value::String(path.display().to_string());
                format!("kind = \"file\"\nformat = \"snapshot\"\npath = {path}")
            }
            None => {
                format!("kind = \"scale_free\"\nnodes = {}\nchannels_per_node = 5", self.nodes)
            }
        };
        format!(
            "name = \"bench\"\nengines = [\"model\"]\nseed = {}\n[topology]\n{topology}\n\
             [measure]\nsample_s = 60.0\n[[workload]]\npayments = {}\n\
             arrivals = {{ kind = \"poisson\", per_second = {:?} }}\n\
             amounts = {{ kind = \"fixed\", msat = {} }}\npairs = {{ kind = \"random\" }}\n",
            self.seed, self.payments, self.per_second, self.amount_msat
        )
    }
}

/// Measures the model. Reading or making the network is not part of the time.
///
/// # Errors
///
/// If there is no such network, or it cannot be paid over.
pub fn measure_model(options: &Options) -> Result<Figures, BenchError> {
    let document = Document::parse(Path::new("bench.toml"), options.text())?;
    let scenario = document.scenario()?;
    scenario.check(EngineName::Model, &document)?;
    let topology = scenario.build(&document)?;
    let workload =
        Workload::new(&scenario, &topology, Path::new("")).map_err(ScenarioError::from)?;
    let nodes_paying = topology.network.largest_strong_component().len() as u64;
    let watch = Stopwatch::start();
    let recorder =
        Engine::new(&scenario, &topology, SEARCH_BYTES).run(workload, &Control::default());
    let cpu_seconds = watch.cpu().as_secs_f64().max(1e-3);
    let identity = Identity::new("bench", EngineName::Model, scenario.seed, BTreeMap::new());
    let summary = Summary::new(identity, &recorder, &scenario.measure);
    Ok(Figures {
        nodes: summary.nodes,
        channels: summary.channels,
        nodes_paying,
        payments: summary.payments,
        amount_msat: options.amount_msat,
        payments_per_cpu_second: summary.payments as f64 / cpu_seconds,
        cpu_seconds,
        events_per_cpu_second: Some(summary.totals.events as f64 / cpu_seconds),
        peak_rss_bytes: peak_rss_bytes(),
        success_rate: summary.success_rate,
        latency_p50_ms: summary.latency_p50_ms,
        attempts: summary.attempts,
        setup_cpu_seconds: None,
        transcript_hash: None,
        seed: options.seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_network_is_measured() {
        let options = Options {
            snapshot: None,
            nodes: 200,
            payments: 2_000,
            amount_msat: 10_000_000,
            per_second: 100.0,
            seed: 1,
        };
        let figures = measure_model(&options).unwrap();
        assert_eq!(figures.payments, 2_000);
        assert!(figures.success_rate.unwrap().mean > 0.5);
        assert!(figures.payments_per_cpu_second > 0.0);
    }
}
