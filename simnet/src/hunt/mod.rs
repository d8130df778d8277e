//! A hunt: random scenarios with random faults, until one breaks a rule.
//!
//! `draw.rs` makes scenarios from a seed, `shrink.rs` makes one that failed smaller. Each runs in
//! a process of its own, which `child.rs` starts: a run that panics, hangs or grows without bound
//! takes nobody with it, and what it leaves behind does not touch the next.

pub mod child;
mod draw;
mod shrink;

pub use child::{Child, Verdict};
pub use draw::{draw, has_batches};
pub use shrink::{Shrunk, shrink};

use crate::scenario::Scenario;

/// How a run failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What it said.
    pub text: String,
}

impl Failure {
    /// What failures of one kind have in common: their words without numbers and hashes.
    pub fn kind(&self) -> String {
        let words = self.text.split(|c: char| !c.is_alphanumeric());
        let words = words.filter(|word| word.chars().all(char::is_alphabetic));
        words.filter(|word| !word.is_empty()).take(12).collect::<Vec<_>>().join(" ")
    }
}

/// A scenario as the text of a file.
///
/// # Panics
///
/// If a scenario could not be written as TOML, which is a mistake of ours.
pub fn text(scenario: &Scenario) -> String {
    toml::to_string(scenario).expect("a scenario has a form as TOML")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::scenario::{Document, Engine};

    #[test]
    fn drawn_scenarios_can_run_and_are_read_back_as_they_are() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let scenario = draw(seed);
            let document = Document::parse(Path::new("drawn.toml"), text(&scenario)).unwrap();
            assert_eq!(document.scenario().unwrap(), scenario);
            scenario.check(Engine::Live, &document).unwrap();
            scenario.build(&document).unwrap();
            kinds.extend(scenario.faults.iter().map(crate::scenario::Fault::name));
        }
        assert_eq!(draw(7), draw(7));
        for kind in [
            "crash",
            "cut",
            "lost_sync",
            "old_snapshot",
            "reorg",
            "slow_disk",
            "offline",
            "clock_skew",
            "fee_spike",
            "mass_exit",
        ] {
            assert!(kinds.contains(kind), "{kind}");
        }
    }

    #[test]
    fn failures_of_one_kind_differ_in_numbers_only() {
        let kind = |text: &str| Failure { text: text.to_owned() }.kind();
        assert_eq!(kind("at 12 s: n3 lost 5 sat"), kind("at 7 s: n1 lost 99 sat"));
        assert_ne!(kind("at 12 s: n3 lost 5 sat"), kind("at 12 s: n3 won 5 sat"));
    }
}
