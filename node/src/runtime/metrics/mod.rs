//! Figures of a node: counters and histograms, and the text that Prometheus reads.
//!
//! Every room keeps its own figures in a struct of its own, with a field for each: whoever counts
//! has the counter at hand, and nothing is looked up by name. Nothing is global, since a process
//! may hold a thousand nodes. What costs time or memory exists once somebody asks for it: a
//! [`Probe`] is empty until it is armed, and whoever passes it pays for one load.
//!
//! What can be read when it is asked for is not kept: see the room `observe`, which writes the
//! [`Page`].

mod histogram;
mod page;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::{Histogram, Scale};
pub use page::{CONTENT_TYPE, Family, Kind, Page, Seconds};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// What it came to.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A place for something that measures, empty until somebody wants figures.
#[derive(Debug)]
pub struct Probe<T>(OnceLock<T>);

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Probe<T> {
    /// Puts `measuring` in place. What was armed before stays.
    pub fn arm(&self, measuring: T) {
        let _the_first_stays = self.0.set(measuring);
    }

    /// What measures, if anybody asked for it.
    pub fn get(&self) -> Option<&T> {
        self.0.get()
    }
}

/// Somebody whose figures are asked for as a page is written.
pub trait Exposed: Send + Sync {
    /// Writes them.
    fn expose(&self, page: &mut Page);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_nothing_until_it_is_armed() {
        let probe = Probe::<Histogram>::default();
        assert!(probe.get().is_none());
        probe.arm(Histogram::new(Scale::CALLS));
        probe.arm(Histogram::new(Scale::DISK));
        assert_eq!(probe.get().unwrap().scale(), Scale::CALLS, "the first stays");
        // What an unarmed node carries for each.
        assert!(std::mem::size_of::<Probe<Histogram>>() <= 64);
    }
}
