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
        /// 0: at once. Else in the middle of its so-manieth write from then on.
        #[serde(default)]
        write: u64,
        /// Whether that write is on its disk afterwards.
        #[serde(default)]
        kept: bool,
    },
    /// Two nodes cannot reach each other.
    Cut {
        /// They.
        nodes: [Node; 2],
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
        /// Whether only what the first says to the second is lost.
        #[serde(default)]
        one_way: bool,
    },
    /// A disk says it has synced what it has not, until a crash forgets it. No node can be safe on
    /// such a disk: it is excused, the others are not.
    LostSync {
        /// Whose.
        node: Node,
        /// From when on it lies.
        at_s: f64,
        /// The crash comes so much later, and the node starts again at once.
        #[serde(default = "lie_s")]
        for_s: f64,
    },
    /// A cheater: its node starts from an old copy of its disk, out of everybody's reach, and
    /// publishes what that says of its channels.
    OldSnapshot {
        /// Which.
        node: Node,
        /// When.
        at_s: f64,
        /// How old the copy is.
        age_s: f64,
    },
    /// A clock is wrong.
    ClockSkew {
        /// Whose.
        node: Node,
        /// From when on.
        from_s: f64,
        /// Until when.
        to_s: f64,
        /// How far it goes before the others, in seconds; behind them if negative.
        offset_s: f64,
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

fn lie_s() -> f64 {
    5.0
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
            Self::ClockSkew { .. } => "clock_skew",
            Self::Reorg { .. } => "reorg",
            Self::SlowDisk { .. } => "slow_disk",
        }
    }

    /// Whether `engine` has what it takes.
    pub fn runs_on(&self, engine: Engine) -> bool {
        match self {
            Self::Offline { .. }
            | Self::Churn { .. }
            | Self::FeeSpike { .. }
            | Self::MassExit { .. } => true,
            Self::Cheat { .. } => engine == Engine::Model,
            Self::Crash { .. }
            | Self::Cut { .. }
            | Self::LostSync { .. }
            | Self::OldSnapshot { .. }
            | Self::ClockSkew { .. }
            | Self::Reorg { .. }
            | Self::SlowDisk { .. } => engine == Engine::Live,
        }
    }

    /// The nodes that it names.
    pub fn nodes(&self) -> Vec<Node> {
        match self {
            Self::Offline { nodes, .. } => nodes.clone(),
            Self::Cut { nodes, .. } => nodes.to_vec(),
            Self::Crash { node, .. }
            | Self::LostSync { node, .. }
            | Self::OldSnapshot { node, .. }
            | Self::ClockSkew { node, .. }
            | Self::SlowDisk { node, .. } => vec![*node],
            Self::Churn { .. }
            | Self::FeeSpike { .. }
            | Self::MassExit { .. }
            | Self::Cheat { .. }
            | Self::Reorg { .. } => Vec::new(),
        }
    }
}
