//! The part of a scenario that says who pays what to whom.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::topology::Node;

/// A stream of payments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// When.
    pub arrivals: Arrivals,
    /// How much; a trace says that itself.
    #[serde(default)]
    pub amounts: Option<Amounts>,
    /// From whom to whom; a trace says that itself.
    #[serde(default)]
    pub pairs: Option<Pairs>,
    /// Ends after so many payments.
    #[serde(default)]
    pub payments: Option<u64>,
    /// Ends after so long, in seconds from its start.
    #[serde(default)]
    pub duration_s: Option<f64>,
    /// Begins so late, in seconds.
    #[serde(default)]
    pub start_s: f64,
    /// How long receivers wait before they take a payment.
    #[serde(default)]
    pub hold: Hold,
}

/// When payments begin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrivals {
    /// Independently of each other.
    Poisson {
        /// On average.
        per_second: f64,
    },
    /// At equal distances.
    Even {
        /// Exactly.
        per_second: f64,
    },
    /// Many at the same moment.
    Burst {
        /// So many.
        size: u64,
        /// And again after so long.
        every_s: f64,
    },
    /// As a CSV file says: columns `at_s`, `from`, `to`, `amount_msat`.
    Trace {
        /// The file, relative to the scenario's.
        path: PathBuf,
    },
}

/// How much a payment is, msat.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Amounts {
    /// Always the same.
    Fixed {
        /// It.
        msat: u64,
    },
    /// Each amount equally likely.
    Uniform {
        /// Least.
        min_msat: u64,
        /// Most.
        max_msat: u64,
    },
    /// Each order of magnitude equally likely.
    LogUniform {
        /// Least.
        min_msat: u64,
        /// Most.
        max_msat: u64,
    },
    /// Log-normal: the logarithm varies by `sigma` (natural) around the median.
    LogNormal {
        /// Half are less.
        median_msat: u64,
        /// How wide.
        sigma: f64,
        /// None is more.
        max_msat: u64,
    },
}

impl Amounts {
    /// The least amount it can give.
    pub fn least_msat(&self) -> u64 {
        match self {
            Self::Fixed { msat } => *msat,
            Self::Uniform { min_msat, .. } | Self::LogUniform { min_msat, .. } => *min_msat,
            Self::LogNormal { .. } => 1,
        }
    }
}

/// A set of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Those who can all pay each other: the largest strongly connected component.
    #[default]
    Connected,
    /// Everybody.
    All,
    /// Hubs; the topology must have some.
    Hubs,
    /// Users; the topology must have some.
    Users,
}

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Pairs {
    /// Any two.
    Random {
        /// Who pays.
        #[serde(default)]
        senders: Who,
        /// Who is paid.
        #[serde(default)]
        receivers: Who,
    },
    /// Some receivers are paid more often: the `n`-th by `n` to the power of `-exponent`.
    Zipf {
        /// Who pays.
        #[serde(default)]
        senders: Who,
        /// Who is paid; which of them often, the seed decides.
        #[serde(default)]
        receivers: Who,
        /// How unequal; 1 is usual.
        exponent: f64,
    },
    /// Always the same two.
    Fixed {
        /// Who pays.
        from: Node,
        /// Who is paid.
        to: Node,
    },
    /// Circular traffic: groups in which each pays the next and the last the first.
    Ring {
        /// Who takes part.
        #[serde(default)]
        among: Who,
        /// Nodes in a group.
        size: u32,
    },
}

/// How long receivers wait before they take a payment.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Hold {
    /// Not at all.
    #[default]
    None,
    /// Always so long.
    Fixed {
        /// It.
        ms: f64,
    },
    /// Exponentially distributed.
    Exponential {
        /// On average.
        mean_ms: f64,
    },
}
