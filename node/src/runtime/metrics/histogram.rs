//! How often a value fell into which range.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// What a value is counted in, and where the ranges end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Upper ends of the ranges, included, ascending; the last range has none.
    pub(super) bounds: &'static [u64],
    /// Whether values are nanoseconds, which are told as seconds.
    pub(super) seconds: bool,
}

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
const S: u64 = 1_000 * MS;

impl Scale {
    /// Steps of a commit: 10 µs to 1 s.
    pub const DISK: Self = Self::seconds(&[
        10 * US,
        50 * US,
        100 * US,
        250 * US,
        500 * US,
        MS,
        2 * MS + 500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        S,
    ]);
    /// Calls, payments, deliveries: 500 µs to a minute.
    pub const CALLS: Self = Self::seconds(&[
        500 * US,
        MS,
        2 * MS + 500 * US,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2 * S + 500 * MS,
        5 * S,
        10 * S,
        30 * S,
        60 * S,
    ]);
    /// What waits for people or blocks: 100 ms to a day.
    pub const PHASES: Self = Self::seconds(&[
        100 * MS,
        500 * MS,
        S,
        5 * S,
        15 * S,
        60 * S,
        300 * S,
        1_800 * S,
        3_600 * S,
        14_400 * S,
        86_400 * S,
    ]);
    /// Things in a batch: 1 to 4,096.
    pub const ITEMS: Self = Self::plain(&[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 4_096]);
    /// Bytes of a batch: 1 KiB to 16 MiB.
    pub const BYTES: Self =
        Self::plain(&[1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216]);

    const fn seconds(bounds: &'static [u64]) -> Self {
        Self { bounds, seconds: true }
    }

    const fn plain(bounds: &'static [u64]) -> Self {
        Self { bounds, seconds: false }
    }
}

/// Counts values by range, from any number of threads, without a lock.
#[derive(Debug)]
pub struct Histogram {
    scale: Scale,
    /// One for each range.
    cells: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    /// An empty one: 8 bytes for each range.
    pub fn new(scale: Scale) -> Self {
        let cells = (0..=scale.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { scale, cells, sum: AtomicU64::new(0) }
    }

    /// Its ranges.
    pub fn scale(&self) -> Scale {
        self.scale
    }

    /// Counts a value, nanoseconds on a scale of times.
    pub fn observe(&self, value: u64) {
        let at = self.scale.bounds.partition_point(|bound| *bound < value);
        self.cells[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts a time.
    pub fn took(&self, time: Duration) {
        self.observe(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Counts the time since `begun`.
    pub fn since(&self, begun: Instant) {
        self.took(begun.elapsed());
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// How many fell into each range.
    pub(super) fn counts(&self) -> Vec<u64> {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).collect()
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_belongs_below_it() {
        let histogram = Histogram::new(Scale::ITEMS);
        for value in [0, 1, 2, 3, 4, 4_096, 4_097, u64::MAX / 2] {
            histogram.observe(value);
        }
        let counts = histogram.counts();
        assert_eq!(counts[..3], [2, 1, 2]);
        assert_eq!(counts[counts.len() - 2..], [1, 2]);
        assert_eq!(histogram.count(), 8);
    }

    #[test]
    fn bounds_ascend() {
        for scale in [Scale::DISK, Scale::CALLS, Scale::PHASES, Scale::ITEMS, Scale::BYTES] {
            assert!(scale.bounds.is_sorted_by(|a, b| a < b), "{scale:?}");
        }
    }

    /// What the hot path pays. `cargo test --release … -- --ignored --nocapture` for real figures.
    #[test]
    #[ignore = "a measurement"]
    fn what_it_costs_to_count() {
        const TIMES: u32 = 10_000_000;
        let histogram = Histogram::new(Scale::CALLS);
        let probe = crate::runtime::metrics::Probe::<Histogram>::default();
        let counter = crate::runtime::metrics::Counter::default();
        let measure = |what: &str, f: &dyn Fn(u64)| {
            let begun = std::time::Instant::now();
            for value in 0..u64::from(TIMES) {
                f(std::hint::black_box(value * 977 % (100 * MS)));
            }
            println!("{what}: {:.1} ns", begun.elapsed().as_nanos() as f64 / f64::from(TIMES));
        };
        measure("nothing", &|value| {
            std::hint::black_box(value);
        });
        measure("unarmed probe", &|value| {
            if let Some(histogram) = std::hint::black_box(&probe).get() {
                histogram.observe(value);
            }
        });
        measure("counter", &|value| counter.add(value));
        measure("histogram", &|value| histogram.observe(value));
        measure("histogram and clock", &|_| histogram.since(Instant::now()));
        println!("memory of one: {} bytes", histogram.cells.len() * 8 + size_of::<Histogram>());
    }
}
