//! The words of `batch …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::MutationArgs;
use crate::amount::Sat;
use crate::parse::PeerAt;

/// `batch …`
#[derive(Debug, Subcommand)]
pub enum BatchVerb {
    /// Show what leaving a batch alone would cost, before joining one
    Quote(BatchQuoteArgs),
    /// Ask a hub for a channel in its next batch
    Join(BatchJoinArgs),
    /// List the channels asked for, and what became of them
    List,
    /// Show one
    Show {
        /// Id of the wish, or its first digits (4 or more)
        wish: String,
    },
    /// Show one, and each step until its end
    Watch {
        /// Id of the wish, or its first digits (4 or more)
        wish: String,
    },
    /// Write the signed path to a channel to a file: a backup that anybody can publish
    Export {
        /// Id of the wish, or its first digits (4 or more)
        wish: String,
        /// Where to write it
        file: PathBuf,
    },
    /// Check the file of a path, without a node
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Leave a batch: bring the path to its channel onto the chain
    Exit(BatchExitArgs),
    /// Hand the key of a closed, empty channel to the hub; done by itself, this repeats it
    Release {
        /// Id of the wish, or its first digits (4 or more)
        wish: String,
        #[command(flatten)]
        mutation: MutationArgs,
    },
    /// Hub: list the batches of this node
    Hosted,
}

/// `batch quote`
#[derive(Debug, Args)]
pub struct BatchQuoteArgs {
    /// Value of the channel
    pub capacity: Sat,
    /// Users of the batch
    #[arg(long, default_value_t = 256)]
    pub users: u32,
}

/// `batch join`
#[derive(Debug, Args)]
pub struct BatchJoinArgs {
    /// The hub, NODE_ID or NODE_ID@HOST:PORT
    pub hub: PeerAt,
    /// Value of the channel
    pub capacity: Sat,
    /// How much of it should be receivable at once [default: all of it]
    #[arg(long, value_name = "AMOUNT")]
    pub inbound: Option<Sat>,
    /// Watch the steps until the channel is confirmed
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `batch exit`
#[derive(Debug, Args)]
pub struct BatchExitArgs {
    /// Id of the wish, or its first digits (4 or more)
    pub wish: String,
    /// Watch the steps until the channel is on chain
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}
