//! The hub's machine of one batch.
//!
//! ```text
//! gathering ─► opening ─► building ─► nonces ─► aggregating ─► partials ─► finishing ─► storing
//!                 ▲          ▲                                                             │
//!                 └── users left out: next attempt, fresh keys ◄───────────────────────────┤
//!                                                                                          ▼
//!     settled ◄─ (expiring) ◄─ live ◄─ confirming ◄─ publishing ◄─────────────────────── funding
//! ```
//!
//! Two rules carry its safety. The batch transaction is broadcast only from `publishing`, which
//! is reached only when every member's channel has both commitments; from there on nobody can be
//! left out any more. And a tree that has been signed is never changed: another attempt has
//! other keys, another root and another batch transaction, and the old one was never broadcast.
//!
//! Steps before `funding` have a deadline, at which the silent are left out; a wrong message
//! leaves its sender out at once, and the rest go on to the end of the step, so that several
//! culprits cost one attempt. The batch itself is here, what goes in and out in `types`, its
//! rules in `decide`, how steps follow each other in `draft`, what an event does in `apply`.
//! What is left to the shell, see [`batch`](super).
//!
//! Source: BATCHES §3 and §8.

mod apply;
mod decide;
mod draft;
mod end;
mod types;

pub use types::{HubEffect, HubEvent, HubInput, HubRejection, TreeMember};

use std::collections::BTreeMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint, TxOut, absolute};

use super::Decision;
use super::ids::{ATTEMPTS_MAX, Attempt, BatchId, Peer, RegistrationId, Timestamp};
use super::message::DropReason;

/// What a hub offers and how long it waits.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HubPolicy {
    /// Most users of a batch: a batch closes when it is full.
    pub users_max: usize,
    /// How long a batch gathers users, in milliseconds.
    pub gathering_ms: u64,
    /// How long a user may take for each step, in milliseconds.
    pub step_ms: u64,
    /// How long all channels may take to exchange commitments, in milliseconds.
    pub funding_ms: u64,
    /// Least capacity of a channel.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub capacity_min: Amount,
    /// Greatest capacity of a channel.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub capacity_max: Amount,
    /// What a place costs.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub fee: Amount,
}

impl Default for HubPolicy {
    /// The defaults of a hub on mainnet.
    fn default() -> Self {
        Self {
            users_max: 256,
            gathering_ms: 60_000,
            step_ms: 10_000,
            funding_ms: 30_000,
            capacity_min: Amount::from_sat(1_500),
            capacity_max: Amount::from_sat(10_000_000),
            fee: Amount::ZERO,
        }
    }
}

impl HubPolicy {
    /// Returns how long a node waits after it broke off so many times in a row, in milliseconds:
    /// nothing once, then a minute, doubling up to about a day.
    pub fn back_off_ms(faults: u32) -> u64 {
        match faults {
            0 | 1 => 0,
            more => 60_000 << (more - 2).min(10),
        }
    }
}

/// One batch of a hub, from its first registration to its settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubBatch {
    pub(super) id: BatchId,
    pub(super) policy: HubPolicy,
    pub(super) expiry: absolute::Height,
    pub(super) phase: HubPhase,
    pub(super) attempt: Attempt,
    pub(super) members: BTreeMap<Peer, HubMember>,
    pub(super) left_out: BTreeMap<Peer, DropReason>,
    /// Somebody was left out of this attempt, so it cannot be completed.
    pub(super) broken: bool,
    pub(super) tree: Option<HubTree>,
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum HubPhase {
    /// Users register.
    Gathering {
        /// When it closes.
        closes_at: Timestamp,
    },
    /// Channels are opened up to their funding script.
    Opening {
        /// When the silent are left out.
        deadline: Timestamp,
    },
    /// The shell builds tree and batch transaction.
    Building,
    /// Paths are proposed; nonces come in.
    Nonces {
        /// When the silent are left out.
        deadline: Timestamp,
    },
    /// The shell aggregates nonces and signs.
    Aggregating,
    /// Partial signatures come in.
    Partials {
        /// When the silent are left out.
        deadline: Timestamp,
    },
    /// The shell aggregates signatures.
    Finishing,
    /// Users store their paths.
    Storing {
        /// When the silent are left out.
        deadline: Timestamp,
    },
    /// Channels exchange commitments on their leaf outpoints.
    Funding {
        /// When the batch is given up.
        deadline: Timestamp,
    },
    /// All commitments exist; the batch transaction is being broadcast.
    Publishing,
    /// The batch transaction waits for a block.
    Confirming,
    /// It is in the block at this height.
    Live {
        /// The height of that block.
        at: absolute::Height,
    },
    /// E is reached: open channels are closed, then what is left is swept by the leaf.
    Expiring {
        /// The height at which the batch transaction was confirmed.
        at: absolute::Height,
    },
    /// The root output is spent by a settlement that is deep enough.
    Settled,
    /// It ended before it began.
    Failed {
        /// Why.
        reason: DropReason,
    },
}

/// One user of a batch.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HubMember {
    /// Its wish.
    pub registration: RegistrationId,
    /// Capacity of its channel.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub capacity: Amount,
    /// How much it wants to be able to receive.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub inbound: Amount,
    /// Its tree key of each attempt.
    pub tree_keys: [PublicKey; ATTEMPTS_MAX as usize],
    /// The funding output of its channel, once known.
    pub channel: Option<TxOut>,
    /// What it has done in this step.
    pub step: StepState,
    /// Its channel is retired.
    pub retired: bool,
    /// Its tree secret is ours.
    pub released: bool,
}

/// What a user has done in the step at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum StepState {
    /// Nothing yet.
    Waiting,
    /// It answered, and the shell checks the answer.
    Checking,
    /// It answered rightly.
    Done,
}

/// The tree of an attempt, as far as the machine knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubTree {
    /// The attempt.
    pub attempt: Attempt,
    /// Where the root output stands.
    pub root: OutPoint,
    /// Every transaction has its final signature.
    pub signed: bool,
}

pub(super) type HubDecision = Decision<HubEvent, HubEffect>;

impl HubBatch {
    /// Opens a batch that gathers users from `now` on and expires at `expiry`.
    pub fn open(id: BatchId, policy: HubPolicy, expiry: absolute::Height, now: Timestamp) -> Self {
        let closes_at = now.plus_ms(policy.gathering_ms);
        Self {
            id,
            policy,
            expiry,
            phase: HubPhase::Gathering { closes_at },
            attempt: Attempt::FIRST,
            members: BTreeMap::new(),
            left_out: BTreeMap::new(),
            broken: false,
            tree: None,
        }
    }

    /// Returns its name.
    pub fn id(&self) -> BatchId {
        self.id
    }

    /// Returns what it offered its users.
    pub fn policy(&self) -> &HubPolicy {
        &self.policy
    }

    /// Returns `E`.
    pub fn expiry(&self) -> absolute::Height {
        self.expiry
    }

    /// Returns where it stands.
    pub fn phase(&self) -> HubPhase {
        self.phase
    }

    /// Returns the attempt at hand.
    pub fn attempt(&self) -> Attempt {
        self.attempt
    }

    /// Returns its users. Their order gives the slots.
    pub fn members(&self) -> &BTreeMap<Peer, HubMember> {
        &self.members
    }

    /// Returns who was left out, and why.
    pub fn left_out(&self) -> &BTreeMap<Peer, DropReason> {
        &self.left_out
    }

    /// Returns the tree of the attempt at hand, once it is built.
    pub fn tree(&self) -> Option<&HubTree> {
        self.tree.as_ref()
    }
}
