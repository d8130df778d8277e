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
    /// Be paid on chain for a payment over a channel of a batch
    Withdraw(BatchWithdrawArgs),
    /// Be paid over a channel of a batch for an output on chain
    Deposit(BatchDepositArgs),
    /// List withdrawals and deposits, or show one
    Swaps {
        /// Id of the swap, or its first digits (4 or more)
        swap: Option<String>,
    },
    /// Hub: list the batches of this node
    Hosted,
    /// Hub: open a batch for users to register with; otherwise the first user opens one
    Open {
        /// Milliseconds for which it gathers users [default: as the policy says]
        #[arg(long, value_name = "MS")]
        gather: Option<u64>,
        #[command(flatten)]
        mutation: MutationArgs,
    },
    /// Hub: wait for no more users; the batch forms with those it has
    Close {
        /// Id of the batch, or its first digits (4 or more)
        batch: String,
        #[command(flatten)]
        mutation: MutationArgs,
    },
    /// Hub: show what the next batch offers, or change it until the node stops
    Policy(BatchPolicyArgs),
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

/// `batch policy`
#[derive(Debug, Args)]
pub struct BatchPolicyArgs {
    /// Most users of a batch
    #[arg(long)]
    pub users: Option<u32>,
    /// Milliseconds for which a batch gathers users
    #[arg(long, value_name = "MS")]
    pub gather: Option<u64>,
    /// Smallest channel
    #[arg(long, value_name = "AMOUNT")]
    pub capacity_min: Option<Sat>,
    /// Largest channel
    #[arg(long, value_name = "AMOUNT")]
    pub capacity_max: Option<Sat>,
    /// What a place costs
    #[arg(long, value_name = "AMOUNT")]
    pub fee: Option<Sat>,
    /// Blocks from a batch's beginning to its expiry
    #[arg(long, value_name = "BLOCKS")]
    pub life: Option<u32>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

impl BatchPolicyArgs {
    /// Whether anything is to be changed.
    pub fn changes(&self) -> bool {
        self.users.is_some()
            || self.gather.is_some()
            || self.capacity_min.is_some()
            || self.capacity_max.is_some()
            || self.fee.is_some()
            || self.life.is_some()
    }
}

/// `batch withdraw`
#[derive(Debug, Args)]
pub struct BatchWithdrawArgs {
    /// Value of the output; what arrives is less the fee of the transaction that takes it there
    pub amount: Sat,
    /// Where to [default: the wallet's own]
    #[arg(long)]
    pub address: Option<String>,
    #[command(flatten)]
    pub swap: SwapArgs,
}

/// `batch deposit`
#[derive(Debug, Args)]
pub struct BatchDepositArgs {
    /// Value of the output
    pub amount: Sat,
    /// Feerate of the transaction with the output [default: the node's estimate]
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    #[command(flatten)]
    pub swap: SwapArgs,
}

/// What withdrawals and deposits have in common.
#[derive(Debug, Args)]
pub struct SwapArgs {
    /// The most the hub may take [default: what this node would take as a hub]
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<Sat>,
    /// The channel, by its record or channel id or first digits [default: the one that can carry most]
    #[arg(long)]
    pub channel: Option<String>,
    /// Watch the steps until its end
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
