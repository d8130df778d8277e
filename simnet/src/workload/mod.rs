//! Who pays whom, how much and when: one iterator, whatever engine runs it.
//!
//! Each stream of a scenario has randomness of its own under the seed, so that one stream does
//! not change when another does. Streams are merged by time.

mod draw;
mod trace;

use std::iter::Peekable;
use std::path::Path;

use crate::scenario::{Arrivals, Scenario};
use crate::topology::{Node, Topology};

use draw::Drawn;
use trace::Trace;
pub use trace::TraceError;

/// A payment that somebody wants to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intent {
    /// When, in microseconds from the start.
    pub at_us: u64,
    /// Who pays.
    pub from: Node,
    /// Who is paid.
    pub to: Node,
    /// How much.
    pub amount_msat: u64,
    /// How long the receiver waits before it takes the payment.
    pub hold_us: u64,
}

enum Source {
    Drawn(Box<Drawn>),
    Trace(Trace),
}

impl Iterator for Source {
    type Item = Intent;

    fn next(&mut self) -> Option<Intent> {
        match self {
            Self::Drawn(drawn) => drawn.next(),
            Self::Trace(trace) => trace.next(),
        }
    }
}

/// The payments of a scenario, by time.
pub struct Workload {
    sources: Vec<Peekable<Source>>,
}

impl Workload {
    /// The workload of `scenario` on its network. Paths are relative to `folder`.
    ///
    /// # Errors
    ///
    /// [`TraceError`] if a trace cannot be read.
    pub fn new(
        scenario: &Scenario,
        topology: &Topology,
        folder: &Path,
    ) -> Result<Self, TraceError> {
        let mut sources = Vec::new();
        for (place, stream) in (0..).zip(&scenario.workload) {
            let source = match trace::path(stream) {
                Some(path) => Source::Trace(Trace::read(&folder.join(path), topology, stream)?),
                None => Source::Drawn(Box::new(Drawn::new(stream, topology, scenario.seed, place))),
            };
            sources.push(source.peekable());
        }
        Ok(Self { sources })
    }
}

impl Iterator for Workload {
    type Item = Intent;

    fn next(&mut self) -> Option<Intent> {
        let mut first: Option<(u64, usize)> = None;
        for (place, source) in self.sources.iter_mut().enumerate() {
            if let Some(intent) = source.peek()
                && first.is_none_or(|(at_us, _)| intent.at_us < at_us)
            {
                first = Some((intent.at_us, place));
            }
        }
        self.sources[first?.1].next()
    }
}

/// About how many payments a scenario has; none if there is no end to them. A trace
/// is measured by the length of its file.
pub fn expected(scenario: &Scenario, folder: &Path) -> Option<u64> {
    let mut sum = 0_u64;
    for stream in &scenario.workload {
        let most = stream.payments.unwrap_or(u64::MAX);
        let seconds = stream.duration_s.unwrap_or(f64::INFINITY);
        let by_time = match &stream.arrivals {
            Arrivals::Poisson { per_second } | Arrivals::Even { per_second } => {
                per_second * seconds
            }
            Arrivals::Burst { size, every_s } => (seconds / every_s).ceil() * *size as f64,
            Arrivals::Trace { path } => {
                // A line of a trace has 12 bytes at least.
                std::fs::metadata(folder.join(path)).map_or(0.0, |file| file.len() as f64 / 12.0)
            }
        };
        let count = if by_time.is_finite() { most.min(by_time as u64) } else { most };
        sum = sum.saturating_add(count);
    }
    (sum < u64::MAX).then_some(sum)
}

/// Seconds as microseconds.
pub fn micros(seconds: f64) -> u64 {
    libm::round(seconds.max(0.0) * 1e6) as u64
}

#[cfg(test)]
mod tests;
