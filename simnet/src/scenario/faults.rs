//! What goes wrong in a scenario. Each engine runs some of it and refuses the rest by name.

use serde::{Deserialize, Serialize};

use super::{Engine, Who};
use crate::topology::Node;

/// A fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// Nodes are away for a while. What they hold waits; when it expires, channels close.
    Offline {
        /// Who.
        nodes: Vec<Node>,
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
    },
    /// Nodes come and go.
    Churn {
        /// Share of them that does, millionths.
        share_ppm: u32,
        /// Among whom.
        #[serde(default)]
        among: Who,
        /// How long they stay, on average.
        mean_up_s: f64,
        /// How long they are away, on average.
        mean_down_s: f64,
    },
    /// Blocks become dear for a while.
    FeeSpike {
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
        /// What transactions pay meanwhile.
        sat_per_vb: u64,
    },
    /// Users of batches leave at once.
    MassExit {
        /// When.
        at_s: f64,
        /// Share of them, millionths.
        share_ppm: u32,
    },
    /// Users publish old states of their channels, from which they would gain.
    Cheat {
        /// When.
        at_s: f64,
        /// Share of users that try, millionths.
        share_ppm: u32,
    },
    /// A node loses power and starts again.
    Crash {
        /// Which.
        node: Node,
        /// When.
        at_s: f64,
        /// How long it is down.
        for_s: f64,
    },
    /// Two nodes cannot reach each other.
    Cut {
        /// They.
        nodes: [Node; 2],
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
    },
    /// A disk forgets what it said it had synced, at a crash.
    LostSync {
        /// Whose.
        node: Node,
        /// When.
        at_s: f64,
    },
    /// A node starts again from an old copy of its disk.
    OldSnapshot {
        /// Which.
        node: Node,
        /// When.
        at_s: f64,
        /// How old.
        age_s: f64,
    },
    /// The chain loses blocks.
    Reorg {
        /// When.
        at_s: f64,
        /// How many.
        depth: u32,
    },
    /// A disk becomes slow.
    SlowDisk {
        /// Whose.
        node: Node,
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
        /// What each sync takes.
        sync_ms: f64,
    },
}

impl Fault {
    /// Its name in files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Offline { .. } => "offline",
            Self::Churn { .. } => "churn",
            Self::FeeSpike { .. } => "fee_spike",
            Self::MassExit { .. } => "mass_exit",
            Self::Cheat { .. } => "cheat",
            Self::Crash { .. } => "crash",
            Self::Cut { .. } => "cut",
            Self::LostSync { .. } => "lost_sync",
            Self::OldSnapshot { .. } => "old_snapshot",
            Self::Reorg { .. } => "reorg",
            Self::SlowDisk { .. } => "slow_disk",
        }
    }

    /// Whether `engine` has what it takes. Of the live engine, it is that engine's to refuse.
    pub fn runs_on(&self, engine: Engine) -> bool {
        let model = matches!(
            self,
            Self::Offline { .. }
                | Self::Churn { .. }
                | Self::FeeSpike { .. }
                | Self::MassExit { .. }
                | Self::Cheat { .. }
        );
        engine == Engine::Live || model
    }
}
