//! What happens around the payments: to coins, to the chain, to towers, and to who may call.

use bitcoin::{BlockHash, Txid};
use serde::{Deserialize, Serialize};

use crate::lightning::types::{ChannelRef, NodeId};

/// What happens to a transaction of the wallet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalletEvent {
    /// The transaction.
    pub txid: Txid,
    /// What happened.
    pub step: WalletStep,
    /// Coins of the wallet it spends, sat.
    pub spent_sat: u64,
    /// Coins it gives to the wallet, sat.
    pub received_sat: u64,
}

/// A step in a transaction's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalletStep {
    /// This node made it.
    Created,
    /// It was seen outside a block.
    Seen,
    /// A block at this height has it.
    Confirmed {
        /// The height.
        height: u32,
    },
    /// Its block left the chain.
    Unconfirmed,
    /// It counts no more: another one spends what it spent.
    Replaced,
}

/// What happens to the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainEvent {
    /// Every part of the node has seen the tip.
    Synced {
        /// Its height.
        height: u32,
        /// Its hash.
        hash: BlockHash,
    },
    /// Blocks left the chain.
    Reorganised {
        /// Height of the last block that stayed.
        height: u32,
        /// Its hash.
        hash: BlockHash,
    },
    /// No block has come for too long.
    Stalled {
        /// Height of the tip.
        height: u32,
    },
    /// The source fails.
    SourceLost {
        /// Height of the last block seen.
        height: u32,
        /// What it says.
        why: String,
    },
    /// The source answers again.
    SourceBack {
        /// Height of the last block seen.
        height: u32,
    },
}

/// What happens between this node and a tower that guards it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerEvent {
    /// The tower.
    pub tower: NodeId,
    /// What happened.
    pub step: TowerStep,
}

/// A step of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TowerStep {
    /// It guards this node from now on.
    Added,
    /// It guards this node no more.
    Removed,
    /// It does not take what it is to have.
    Behind {
        /// Why.
        why: String,
    },
    /// It takes it again.
    Reached,
    /// Too much waited: of so many revoked states it will never hear.
    Missed {
        /// How many.
        states: u64,
    },
}

/// What whoever guards this node should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityEvent {
    /// A token was baked.
    TokenBaked {
        /// Its id.
        token: [u8; 16],
        /// Its name.
        name: String,
    },
    /// A token was revoked.
    TokenRevoked {
        /// Its id.
        token: [u8; 16],
        /// Whether only one that was narrowed from it.
        narrowed: bool,
    },
    /// Calls were refused because of their token.
    AccessRefused {
        /// How many since the last such event.
        calls: u64,
        /// Why the last one.
        why: String,
    },
    /// A peer published a revoked state.
    Breach {
        /// The channel.
        channel: ChannelRef,
        /// The peer.
        peer: NodeId,
        /// The revoked commitment transaction.
        txid: Txid,
    },
}
