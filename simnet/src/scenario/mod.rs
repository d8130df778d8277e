//! What a scenario file says. `load.rs` reads one, `check.rs` refuses what cannot be, `build.rs`
//! makes its network, `sweep.rs` varies it.
//!
//! Times are in seconds or milliseconds, as the key says; money in satoshi or millisatoshi.

mod build;
mod check;
mod faults;
mod load;
mod sweep;
mod traffic;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use build::{latencies_us, members};
pub use faults::Fault;
pub use load::{Document, ScenarioError};
pub use sweep::{Setting, Variant, variants};
pub use traffic::{Amounts, Arrivals, Hold, Pairs, Stream, Who};

use crate::topology::import::Format;

/// An engine that runs scenarios.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// Real nodes on virtual time.
    Live,
    /// The discrete-event model.
    Model,
}

impl Engine {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Model => "model",
        }
    }
}

/// A scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// A short name, used in reports.
    pub name: String,
    /// What it shows, in a sentence or two.
    #[serde(default)]
    pub about: String,
    /// Which engines can run it.
    pub engines: Vec<Engine>,
    /// Decides every random choice.
    pub seed: u64,
    /// Nodes and channels.
    pub topology: TopologySpec,
    /// What all channels have in common.
    #[serde(default)]
    pub channels: ChannelSpec,
    /// Messages between nodes.
    #[serde(default)]
    pub links: LinkSpec,
    /// How senders find routes and try again.
    #[serde(default)]
    pub senders: SenderSpec,
    /// Channels of users in batches; only where the topology has hubs and users.
    #[serde(default)]
    pub batches: Option<BatchSpec>,
    /// Blocks and their price.
    #[serde(default)]
    pub chain: ChainSpec,
    /// Who pays what to whom; several streams are merged by time.
    #[serde(default)]
    pub workload: Vec<Stream>,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What is measured.
    #[serde(default)]
    pub measure: MeasureSpec,
}

/// Where the network comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TopologySpec {
    /// Nodes in a row.
    Line {
        /// How many.
        nodes: u32,
        /// Each channel.
        #[serde(default)]
        channel: TermsSpec,
    },
    /// A grid.
    Lattice {
        /// Nodes in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Each channel.
        #[serde(default)]
        channel: TermsSpec,
    },
    /// A scale-free network with capacities and fees like the public one's.
    ScaleFree {
        /// How many.
        nodes: u32,
        /// Channels that each new node opens.
        channels_per_node: u32,
    },
    /// Hubs that all have channels with each other, and users with one channel each.
    HubAndSpoke {
        /// Hubs.
        hubs: u32,
        /// Users.
        users: u32,
        /// A channel between hubs.
        #[serde(default)]
        hub_channel: TermsSpec,
        /// A channel of a user.
        #[serde(default)]
        user_channel: TermsSpec,
    },
    /// A network from a file.
    File {
        /// Which format it has.
        format: Format,
        /// The file, or for CLoTH the folder; relative to the scenario's.
        path: PathBuf,
    },
}

/// The terms of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TermsSpec {
    /// What it is funded with.
    pub capacity_sat: u64,
    /// Least per HTLC, msat.
    pub htlc_minimum_msat: u64,
    /// Flat fee, msat.
    pub base_msat: u32,
    /// Proportional fee, millionths.
    pub ppm: u32,
    /// Blocks.
    pub cltv_expiry_delta: u16,
}

impl Default for TermsSpec {
    fn default() -> Self {
        Self {
            capacity_sat: 1_000_000,
            htlc_minimum_msat: 1,
            base_msat: 1_000,
            ppm: 100,
            cltv_expiry_delta: 80,
        }
    }
}

/// Who owns what of a channel at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balances {
    /// Anything between nothing and all, each equally likely; the file's, where it has them.
    #[default]
    Uniform,
    /// Both ends the same.
    Even,
    /// The first end owns all: the lower number, the hub.
    First,
    /// The second end owns all: the higher number, the user.
    Second,
}

/// What all channels have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelSpec {
    /// Who owns what at the start.
    pub balances: Balances,
    /// HTLCs that a side can have pending. BOLT 2: at most 483.
    pub htlc_slots: u16,
    /// Share of the capacity that a side cannot spend, millionths.
    pub reserve_ppm: u32,
}

impl Default for ChannelSpec {
    fn default() -> Self {
        Self { balances: Balances::Uniform, htlc_slots: 483, reserve_ppm: 10_000 }
    }
}

/// Messages between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkSpec {
    /// One way, in milliseconds: least and most; each channel draws its own.
    pub latency_ms: [f64; 2],
    /// What a node takes to handle an HTLC or its end, in milliseconds. In the live engine: what
    /// its disk takes for a batch; what comes meanwhile shares it.
    pub processing_ms: f64,
}

impl Default for LinkSpec {
    fn default() -> Self {
        Self { latency_ms: [10.0, 80.0], processing_ms: 2.0 }
    }
}

/// How senders find routes and try again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SenderSpec {
    /// HTLCs that a payment may send, all parts together.
    pub attempts_max: u16,
    /// Parts that a payment may have at a time.
    pub parts_max: u16,
    /// A part that failed so often is split in two.
    pub split_after: u16,
    /// No part is smaller than this, msat.
    pub part_min_msat: u64,
    /// No new attempt after so long.
    pub retry_for_s: f64,
    /// Most fee, as share of the amount in millionths, and besides that flat, msat.
    pub fee_max_ppm: u32,
    /// See `fee_max_ppm`.
    pub fee_max_msat: u64,
    /// What a hop costs beside its fee, msat.
    pub hop_penalty_msat: u64,
    /// What locking an amount for a block costs, in billionths of it.
    pub risk_per_billion_and_block: u64,
    /// What uncertainty costs: msat for each factor of ten in the chance of success.
    pub liquidity_penalty_msat: u64,
    /// What an edge costs that failed just now, msat.
    pub failure_penalty_msat: u32,
    /// After so long a failure counts half.
    pub failure_half_life_s: f64,
}

impl Default for SenderSpec {
    fn default() -> Self {
        Self {
            attempts_max: 10,
            parts_max: 1,
            split_after: 3,
            part_min_msat: 1_000_000,
            retry_for_s: 60.0,
            fee_max_ppm: 50_000,
            fee_max_msat: 5_000,
            hop_penalty_msat: 500,
            risk_per_billion_and_block: 15,
            liquidity_penalty_msat: 30_000,
            failure_penalty_msat: 500_000,
            failure_half_life_s: 3_600.0,
        }
    }
}

/// Channels of users in batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSpec {
    /// Users in one batch.
    pub users_max: u32,
    /// Children of a tree transaction, 2 to 8.
    pub radix: u8,
    /// Life of a batch, in blocks.
    pub lifetime_blocks: u32,
    /// Blocks of their life that the first batches have behind them when the scenario begins.
    pub age_blocks: u32,
    /// Share of users whose path a tower publishes when they sleep, millionths.
    pub tower_ppm: u32,
}

impl Default for BatchSpec {
    fn default() -> Self {
        Self {
            users_max: 256,
            radix: 4,
            lifetime_blocks: 4_032,
            age_blocks: 0,
            tower_ppm: 1_000_000,
        }
    }
}

/// Blocks and their price.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChainSpec {
    /// Between two blocks, in seconds.
    pub block_s: f64,
    /// What a transaction pays while nothing special is going on, sat/vB.
    pub feerate_sat_per_vb: u64,
    /// What a block has for transactions of this simulation, vB.
    pub room_vb: u64,
}

impl Default for ChainSpec {
    fn default() -> Self {
        Self { block_s: 600.0, feerate_sat_per_vb: 5, room_vb: 250_000 }
    }
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureSpec {
    /// Payments that begin before this are left out.
    pub warm_up_s: f64,
    /// Between two samples.
    pub sample_s: f64,
    /// Stretches of time whose means make a confidence interval.
    pub batches: u32,
    /// The run goes on at least so long.
    pub until_s: f64,
}

impl Default for MeasureSpec {
    fn default() -> Self {
        Self { warm_up_s: 0.0, sample_s: 1.0, batches: 20, until_s: 0.0 }
    }
}
