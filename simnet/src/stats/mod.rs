//! Statistics of runs: means with confidence, percentiles, and closed forms to compare with.
//!
//! Floating point is for statistics only; money stays in whole numbers.

pub mod closed_forms;
mod student;

use serde::{Deserialize, Serialize};

pub use student::student_975;

/// A mean and how far the truth may be from it, 19 times out of 20.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of the 95 % confidence interval; none if there were too few values.
    pub half_width: Option<f64>,
    /// How many independent values it rests on.
    pub values: u32,
}

impl Estimate {
    /// From independent values: seeds, or means of stretches of one run.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let half_width = (values.len() > 1).then(|| {
            let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
            let error = libm::sqrt(squares / (count - 1.0) / count);
            student_975(values.len() - 1) * error
        });
        Some(Self { mean, half_width, values: values.len() as u32 })
    }

    /// By batch means: `values` in the order of time are cut into `batches` stretches of equal
    /// length, whose means are nearly independent although neighbours are not.
    ///
    /// Source: Law, Kelton, "Simulation Modeling and Analysis", on output of a single system.
    pub fn by_batch_means(values: &[f64], batches: usize) -> Option<Self> {
        let size = values.len() / batches.max(1);
        if size == 0 {
            let mean = Self::of(values)?.mean;
            return Some(Self { mean, half_width: None, values: values.len() as u32 });
        }
        let mean = |chunk: &[f64]| chunk.iter().sum::<f64>() / chunk.len() as f64;
        // What does not fill a stretch is the oldest, nearest to the warm-up.
        let used = &values[values.len() - size * batches..];
        let means: Vec<f64> = used.chunks_exact(size).map(mean).collect();
        let estimate = Self::of(&means)?;
        Some(Self { mean: mean(values), ..estimate })
    }

    /// The estimate of `statistic` over stretches, its mean that over all values.
    pub fn by_batches(
        values: &[f64],
        batches: usize,
        statistic: impl Fn(&mut [f64]) -> f64,
    ) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let mean = statistic(&mut values.to_vec());
        let size = values.len() / batches.max(1);
        if size == 0 {
            return Some(Self { mean, half_width: None, values: values.len() as u32 });
        }
        let used = &values[values.len() - size * batches..];
        let parts: Vec<f64> =
            used.chunks_exact(size).map(|chunk| statistic(&mut chunk.to_vec())).collect();
        let estimate = Self::of(&parts)?;
        Some(Self { mean, ..estimate })
    }
}

/// The value that a share of `values` does not exceed (nearest rank); sorts them.
pub fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let ranks = [0.0, 0.5, 0.95, 0.99, 1.0].map(|share| percentile(&mut values, share));
        assert_eq!(ranks, [1.0, 50.0, 95.0, 99.0, 100.0]);
        assert_eq!(percentile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn an_estimate_is_that_of_the_textbook() {
        let estimate = Estimate::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        // t(4) = 2.776, s = sqrt(2.5), n = 5.
        assert!((estimate.mean - 3.0).abs() < 1e-12);
        assert!((estimate.half_width.unwrap() - 2.776 * (2.5_f64 / 5.0).sqrt()).abs() < 1e-3);
        assert_eq!(Estimate::of(&[7.0]).unwrap().half_width, None);
        assert!(Estimate::of(&[]).is_none());
    }

    #[test]
    fn intervals_of_dependent_values_cover_the_truth_nineteen_times_in_twenty() {
        // Each value is nearly its neighbour: plain intervals would be far too narrow.
        let mut covered = 0;
        let runs = 400;
        for seed in 0..runs {
            let mut random = Random::new(seed);
            let mut value = random.normal();
            let values: Vec<f64> = (0..4_000)
                .map(|_| {
                    value = 0.9 * value + libm::sqrt(1.0 - 0.81) * random.normal();
                    value
                })
                .collect();
            let estimate = Estimate::by_batch_means(&values, 20).unwrap();
            covered += u32::from(estimate.mean.abs() <= estimate.half_width.unwrap());
        }
        let share = f64::from(covered) / runs as f64;
        assert!((0.90..=0.98).contains(&share), "{share}");
    }
}
