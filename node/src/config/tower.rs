//! Section `[tower]`: this node, or this process, as a tower for others.

use bitcoin::secp256k1::PublicKey;
use serde::{Deserialize, Serialize};

/// Section `[tower]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TowerConfig {
    /// host:port for clients of ours. Empty in a node: it is no tower.
    pub listen: String,
    /// host:port for clients of the open tower protocol. Empty: none.
    pub open_listen: String,
    /// Most clients.
    pub clients_max: usize,
    /// Most appointments of one client.
    pub appointments_max: u64,
    /// Blocks for which a registration counts.
    pub registration_blocks: u32,
    /// Whether remedies with secrets are taken.
    pub takes_trusted: bool,
    /// Keys of the clients for whom the tower spends money of its own, 33 bytes in hex each.
    pub household: Vec<PublicKey>,
    /// The most that it spends on one of their paths or breaches, satoshis.
    pub fee_budget_sat: u64,
    /// The most that answers to breaches pay, sat/vB.
    pub feerate_max_sat_per_vb: u64,
    /// How often the mempool is looked at, milliseconds.
    pub mempool_poll_ms: u64,
    /// Client: most that waits for towers, MiB.
    pub outbox_max_mib: u64,
}

impl Default for TowerConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            open_listen: String::new(),
            clients_max: 1_000,
            appointments_max: 10_000_000,
            registration_blocks: 52_560,
            takes_trusted: false,
            household: Vec::new(),
            fee_budget_sat: 0,
            feerate_max_sat_per_vb: 1_000,
            mempool_poll_ms: 500,
            outbox_max_mib: 4_096,
        }
    }
}
