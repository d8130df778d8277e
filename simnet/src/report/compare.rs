//! Two results side by side.
//!
//! [`compare`] pairs runs with the same seed: what luck they had they share, so the difference
//! of a pair says more than two means. [`divergence`] holds the two engines against each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::METRICS;
use super::summary::Summary;
use crate::stats::Estimate;

/// How a metric differs between two results.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Which.
    pub metric: &'static str,
    /// Mean of the first.
    pub first: f64,
    /// Mean of the second.
    pub second: f64,
    /// The second less the first, with its interval.
    pub difference: Estimate,
    /// Whether the interval leaves out 0; none without an interval.
    pub significant: Option<bool>,
}

/// Two results, compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Pairs of runs.
    pub pairs: usize,
    /// What the intervals rest on: "pairs of seeds" or "batch means".
    pub intervals_from: &'static str,
    /// Whether a run of either was broken off.
    pub partial: bool,
    /// By metric.
    pub differences: Vec<Difference>,
}

/// Why two results have nothing to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompareError {
    /// No seed is in both.
    #[error("no run of the first ({first} runs) has the seed of one of the second ({second} runs)")]
    NoPairs {
        /// Runs of the first.
        first: usize,
        /// Runs of the second.
        second: usize,
    },
}

/// Compares `second` with `first`.
///
/// Runs are paired by seed and settings; where the settings differ throughout, by seed alone.
///
/// # Errors
///
/// [`CompareError`] if there are no pairs.
pub fn compare(first: &[Summary], second: &[Summary]) -> Result<Comparison, CompareError> {
    let pairs = pair(first, second);
    if pairs.is_empty() {
        return Err(CompareError::NoPairs { first: first.len(), second: second.len() });
    }
    let mut differences = Vec::new();
    for (metric, value) in METRICS {
        let both: Vec<(Estimate, Estimate)> =
            pairs.iter().filter_map(|(one, other)| value(one).zip(value(other))).collect();
        let means: Vec<f64> = both.iter().map(|(one, other)| other.mean - one.mean).collect();
        let Some(mut difference) = Estimate::of(&means) else { continue };
        if let [(one, other)] = both[..] {
            // Of one pair only the batch means are known: both errors add up as squares.
            difference.half_width =
                one.half_width.zip(other.half_width).map(|(a, b)| libm::hypot(a, b));
        }
        let mean = |pick: fn(&(Estimate, Estimate)) -> f64| {
            both.iter().map(pick).sum::<f64>() / both.len() as f64
        };
        differences.push(Difference {
            metric,
            first: mean(|(one, _)| one.mean),
            second: mean(|(_, other)| other.mean),
            difference,
            significant: difference.half_width.map(|half| difference.mean.abs() > half),
        });
    }
    Ok(Comparison {
        pairs: pairs.len(),
        intervals_from: if pairs.len() > 1 { "pairs of seeds" } else { "batch means" },
        partial: pairs.iter().any(|(one, other)| one.partial || other.partial),
        differences,
    })
}

/// What two runs have in common if they belong together.
type Key = (u64, BTreeMap<String, String>);

fn pair<'a>(first: &'a [Summary], second: &'a [Summary]) -> Vec<(&'a Summary, &'a Summary)> {
    let by = |key: fn(&Summary) -> Key| {
        let places: BTreeMap<Key, &Summary> = second.iter().map(|run| (key(run), run)).collect();
        let pair = |run: &'a Summary| Some((run, *places.get(&key(run))?));
        first.iter().filter_map(pair).collect::<Vec<_>>()
    };
    let exact = by(|run| (run.identity.seed, run.identity.settings.clone()));
    let alone = |runs: &[Summary]| {
        let seeds: BTreeSet<u64> = runs.iter().map(|run| run.identity.seed).collect();
        seeds.len() == runs.len()
    };
    if exact.is_empty() && alone(first) && alone(second) {
        return by(|run| (run.identity.seed, BTreeMap::new()));
    }
    exact
}

/// How far two engines are apart on one scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    /// The scenario.
    pub scenario: String,
    /// The engines, first and second.
    pub engines: [&'static str; 2],
    /// Success rate, median latency and fees.
    pub figures: Vec<Divergent>,
}

/// One figure of two engines.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Divergent {
    /// Which.
    pub metric: &'static str,
    /// The first engine's.
    pub first: Option<Estimate>,
    /// The second engine's.
    pub second: Option<Estimate>,
    /// The second less the first, by the first; none where that is 0 or missing.
    pub relative: Option<f64>,
}

/// Why two results are no divergence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DivergenceError {
    /// They are of different scenarios.
    #[error("the results are of two scenarios, {first} and {second}")]
    Scenarios {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// They are of one engine.
    #[error("both results are of the {engine} engine; compare them instead")]
    OneEngine {
        /// It.
        engine: &'static str,
    },
}

/// Holds the results of two engines for one scenario against each other.
///
/// # Errors
///
/// [`DivergenceError`] if they are of one engine or of two scenarios.
pub fn divergence(first: &Summary, second: &Summary) -> Result<Divergence, DivergenceError> {
    let engines = [first.identity.engine.name(), second.identity.engine.name()];
    if first.identity.scenario != second.identity.scenario {
        return Err(DivergenceError::Scenarios {
            first: first.identity.scenario.clone(),
            second: second.identity.scenario.clone(),
        });
    }
    if engines[0] == engines[1] {
        return Err(DivergenceError::OneEngine { engine: engines[0] });
    }
    let wanted = ["success_rate", "latency_p50_ms", "fee_msat", "fee_ppm"];
    let figures = METRICS.iter().filter(|(metric, _)| wanted.contains(metric));
    let figures = figures.map(|(metric, value)| {
        let (one, other) = (value(first), value(second));
        let relative = one.zip(other).filter(|(one, _)| one.mean != 0.0);
        let relative = relative.map(|(one, other)| (other.mean - one.mean) / one.mean);
        Divergent { metric, first: one, second: other, relative }
    });
    Ok(Divergence {
        scenario: first.identity.scenario.clone(),
        engines,
        figures: figures.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Identity, Recorder};
    use crate::scenario::{Engine, MeasureSpec};

    fn summary(seed: u64, success: f64, settings: &[(&str, &str)], engine: Engine) -> Summary {
        let settings =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let identity = Identity::new("test", engine, seed, settings);
        let mut summary = Summary::new(identity, &Recorder::default(), &MeasureSpec::default());
        summary.success_rate = Some(Estimate { mean: success, half_width: Some(0.03), values: 20 });
        summary
    }

    #[test]
    fn pairs_of_seeds_see_a_difference_that_means_hide() {
        // Seeds differ by much more than what was changed.
        let runs = |shift: f64, setting: &str| -> Vec<Summary> {
            (0..6)
                .map(|seed| {
                    let luck = seed as f64 * 0.1;
                    let noise = (seed % 2) as f64 * 0.002;
                    let success = 0.3 + luck + shift * (1.0 + noise);
                    summary(seed, success, &[("a", setting)], Engine::Model)
                })
                .collect()
        };
        let comparison = compare(&runs(0.0, "1"), &runs(0.01, "2")).unwrap();
        assert_eq!((comparison.pairs, comparison.intervals_from), (6, "pairs of seeds"));
        let difference = comparison.differences[0];
        assert_eq!(difference.metric, "success_rate");
        assert!((difference.difference.mean - 0.01).abs() < 1e-4);
        assert_eq!(difference.significant, Some(true));
    }

    #[test]
    fn one_pair_takes_its_interval_from_batch_means() {
        let (one, other) =
            (summary(1, 0.5, &[], Engine::Model), summary(1, 0.52, &[], Engine::Model));
        let comparison = compare(&[one], &[other]).unwrap();
        let difference = comparison.differences[0];
        assert!((difference.difference.half_width.unwrap() - 0.03 * 2.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(difference.significant, Some(false));
    }

    #[test]
    fn sweeps_are_paired_by_settings_too() {
        let sweep =
            |shift: f64| ["1", "2"].map(|value| summary(1, shift, &[("a", value)], Engine::Model));
        assert_eq!(compare(&sweep(0.1), &sweep(0.2)).unwrap().pairs, 2);
        let other_seed = [summary(9, 0.1, &[], Engine::Model)];
        let error = compare(&sweep(0.1), &other_seed).unwrap_err().to_string();
        assert!(error.contains("2 runs") && error.contains("1 runs"), "{error}");
    }

    #[test]
    fn engines_are_held_against_each_other() {
        let (model, live) =
            (summary(1, 0.5, &[], Engine::Model), summary(1, 0.55, &[], Engine::Live));
        let divergence = divergence(&live, &model).unwrap();
        assert_eq!(divergence.engines, ["live", "model"]);
        let success = divergence.figures[0];
        assert!((success.relative.unwrap() - (0.5 - 0.55) / 0.55).abs() < 1e-9);
        assert!(super::divergence(&model, &model).is_err());
    }
}
