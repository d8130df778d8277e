//! The words of `tributary tower`: run one, or say which guard a node.

use clap::{Args, Subcommand};

use super::MutationArgs;
use super::run::NodeSettings;
use crate::parse::{self, NodeId, PeerAt};

/// `tower`
#[derive(Debug, Args)]
pub struct TowerArgs {
    /// host:port for clients [default: 127.0.0.1:9738]
    #[arg(long, value_name = "ADDRESS")]
    #[arg(value_parser = parse::host_port)]
    pub serve: Option<String>,
    /// host:port for clients of the open tower protocol, over HTTP
    #[arg(long, value_name = "ADDRESS")]
    #[arg(value_parser = parse::host_port)]
    pub serve_open: Option<String>,
    /// Take remedies with secrets: only for nodes of this household
    #[arg(long)]
    pub take_trusted: bool,
    /// Key of a node of this household, as its `tower list` says; may be given several times
    #[arg(long, value_name = "KEY")]
    pub household: Vec<NodeId>,
    /// The most satoshis the tower spends on one path or breach of its household
    #[arg(long, value_name = "SAT")]
    pub fee_budget_sat: Option<u64>,
    #[command(flatten)]
    pub settings: NodeSettings,
    #[command(subcommand)]
    pub verb: Option<TowerVerb>,
}

/// `tower …`
#[derive(Debug, Subcommand)]
pub enum TowerVerb {
    /// Make the seed of a new tower, or restore it from its words
    Init(super::run::InitArgs),
    /// Let a tower guard the node from now on
    Add(TowerAddArgs),
    /// List the towers that guard the node
    List,
    /// Hand nothing more to a tower, and forget it
    Remove(TowerRemoveArgs),
}

/// `tower add`
#[derive(Debug, Args)]
pub struct TowerAddArgs {
    /// The tower, KEY@HOST:PORT, as it says when it starts
    pub tower: PeerAt,
    /// It is one of this household: it may learn the secret of a misused state, takes every stage
    /// at any feerate, and must never be in league with a peer
    #[arg(long)]
    pub trusted: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `tower remove`
#[derive(Debug, Args)]
pub struct TowerRemoveArgs {
    /// The tower's key
    pub tower: NodeId,
    #[command(flatten)]
    pub mutation: MutationArgs,
}
