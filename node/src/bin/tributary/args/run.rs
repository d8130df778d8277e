//! The words of `tributary node` and `tributary dev`, which run nodes instead of asking one.
//!
//! `--data-dir`, `--rpc` (to listen on) and `--json` are among the global words.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::parse;

/// `node`
#[derive(Debug, Args)]
#[allow(dead_code, reason = "read by the node's start")]
pub struct NodeArgs {
    #[command(flatten)]
    pub settings: NodeSettings,
    #[command(subcommand)]
    pub verb: Option<NodeVerb>,
}

/// What replaces the configuration file. `--data-dir` and `--rpc` (to listen on) too.
#[derive(Debug, Clone, Args)]
#[allow(dead_code, reason = "read by the node's start")]
pub struct NodeSettings {
    /// Configuration file [default: config.toml in the data directory, if there]
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Bitcoin network
    #[arg(long, global = true, value_enum, value_name = "NETWORK")]
    pub network: Option<NetworkArg>,
    /// Name announced to the network
    #[arg(long, global = true, value_name = "NAME")]
    pub alias: Option<String>,
    /// Address to listen on for peers, host:port; may be repeated
    #[arg(long = "listen", global = true, value_name = "ADDRESS")]
    #[arg(value_parser = parse::host_port)]
    pub listen: Vec<String>,
    /// Address of bitcoind's RPC, http://host:port; may be repeated
    #[arg(long, global = true, value_name = "URL")]
    pub bitcoind_url: Vec<String>,
    /// Cookie file of bitcoind
    #[arg(long, global = true, value_name = "FILE")]
    pub bitcoind_cookie: Option<PathBuf>,
    /// Engine of the store: sled, fjall or memory
    #[arg(long, global = true, value_name = "ENGINE")]
    pub store: Option<String>,
    /// What to log, for example info,node::chain=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
    /// File with the password of the seed [default: ask on the terminal]
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
}

/// `node …`
#[derive(Debug, Subcommand)]
#[allow(dead_code, reason = "read by the node's start")]
pub enum NodeVerb {
    /// Make the seed of a new node, or restore it from its words
    Init(InitArgs),
}

/// `node init`, `tower init`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// File with the words of an existing seed; new words are made and shown if absent
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    pub mnemonic_file: Option<PathBuf>,
    /// Number of words of a new seed
    #[arg(long, default_value = "24", value_parser = ["12", "24"])]
    pub words: String,
}

/// A Bitcoin network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum NetworkArg {
    Mainnet,
    Testnet4,
    Signet,
    Regtest,
}

/// `dev`
#[derive(Debug, Args)]
#[allow(dead_code, reason = "read by the development network")]
pub struct DevArgs {
    /// Set up, pay, report, and end
    #[arg(long)]
    pub once: bool,
    /// Use a real bitcoind (from BITCOIND_EXE or PATH, or the one given) instead of the
    /// embedded chain
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    pub bitcoind: Option<Option<PathBuf>>,
    /// Payments to make
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub payments: u64,
    /// Payments under way at a time
    #[arg(long, default_value_t = 64, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// Wallets that join one channel batch of the hub and pay each other through it
    #[arg(long, default_value_t = 0, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=1_900))]
    pub users: u16,
    /// Directory of the nodes' data [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
