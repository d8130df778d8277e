//! What is wrong with the node, and what to do about it.
//!
//! Each check looks at one thing and says what it found, with its numbers; one that is not well
//! says what helps. Checks change nothing, but that one writes a record of a few bytes, to see
//! how long the disk takes. `money.rs` is about coins and channels, `world.rs` about chain, disk
//! and clock, `others.rs` about those who are told, guarded or connected, `settings.rs` about
//! the configuration. What only files show is in `rpc/doctor.rs`.

mod money;
mod others;
mod settings;
mod world;

use std::fmt::Display;

use super::Observer;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// All is well.
    Ok,
    /// Something may become a problem, or costs something already.
    Warning,
    /// Money is at risk, or the node does not work.
    Error,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at; the name stays the same.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with its numbers.
    pub finding: String,
    /// What to do; empty if all is well.
    pub remedy: String,
}

impl Check {
    /// All is well.
    pub fn ok(name: &'static str, finding: impl Display) -> Self {
        let finding = finding.to_string();
        Self { name, severity: Severity::Ok, finding, remedy: String::new() }
    }

    /// Something may become a problem.
    pub fn warning(name: &'static str, finding: impl Display, remedy: impl Display) -> Self {
        let (finding, remedy) = (finding.to_string(), remedy.to_string());
        Self { name, severity: Severity::Warning, finding, remedy }
    }

    /// Something is wrong.
    pub fn error(name: &'static str, finding: impl Display, remedy: impl Display) -> Self {
        Self { severity: Severity::Error, ..Self::warning(name, finding, remedy) }
    }
}

impl Observer {
    /// Looks at everything. Takes as long as the disk for one write, five seconds at most.
    pub async fn diagnose(&self) -> Vec<Check> {
        let mut checks = vec![
            world::chain_sync(self),
            world::chain_endpoints(self),
            world::clock(self).await,
            world::feerates(self),
            world::broadcasts(self),
            world::disk_space(self),
            world::disk_write(self).await,
            world::commit_backlog(self),
            world::open_files(),
        ];
        let channels = self.parts().lightning.channels();
        checks.extend([
            money::coins(self),
            money::anchor_reserve(self),
            money::channels_online(self, &channels),
            money::htlc_expiry(self, &channels),
            money::batch_deadlines(self).await,
            others::peers(self, &channels),
            others::towers(self, &channels),
            others::webhooks(self),
            others::subscribers(self),
        ]);
        checks.extend(settings::all(&self.parts().config));
        checks
    }
}

/// `1 channel`, `2 channels`.
fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        more => format!("{more} {one}s"),
    }
}
