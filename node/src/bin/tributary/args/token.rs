//! The words of `tributary token`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use node::tokens::{Cidr, MethodPattern, Role};

use super::{ListArgs, MutationArgs};
use crate::amount::{Msat, RULE};
use crate::parse::{self, Hex, NodeId};

/// `token …`
#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token, and print it; whoever has the text may use it
    Bake(TokenBakeArgs),
    /// List the tokens that were baked, and what they have spent
    List(ListArgs),
    /// Revoke a token, and all that were narrowed from it
    Revoke(TokenRevokeArgs),
    /// Print a token with further restrictions; needs no node
    Narrow(TokenNarrowArgs),
    /// Show what a token says; needs no node
    Inspect {
        /// File with the token, - for standard input
        file: PathBuf,
    },
}

/// `token bake`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct TokenBakeArgs {
    /// What it is for
    #[arg(long, default_value = "")]
    pub name: String,
    #[command(flatten)]
    pub restrictions: RestrictionArgs,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `token revoke`
#[derive(Debug, Args)]
pub struct TokenRevokeArgs {
    /// Id of a token that was baked
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    pub token_id: Option<Hex<16>>,
    /// File with the token: the way to revoke a narrowed one alone; - for standard input
    #[arg(long)]
    pub file: Option<PathBuf>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `token narrow`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct TokenNarrowArgs {
    /// File with the token, - for standard input
    pub file: PathBuf,
    #[command(flatten)]
    pub restrictions: RestrictionArgs,
}

/// What a token is restricted to.
#[derive(Debug, Clone, Args)]
pub struct RestrictionArgs {
    /// Only the methods of a role: admin, operator, payer, receiver, read-only or auditor
    #[arg(long)]
    pub role: Option<Role>,
    /// Only this method, Payments/Pay, or all of a service, Payments/*; may be repeated
    #[arg(long, value_name = "METHOD")]
    pub method: Vec<MethodPattern>,
    /// Most that one call may cost, fees included
    #[arg(long, value_name = "AMOUNT")]
    pub max_per_call: Option<Msat>,
    /// Most that all calls together may cost, fees included
    #[arg(long, value_name = "AMOUNT")]
    pub budget: Option<Msat>,
    /// Pay this node only; may be repeated
    #[arg(long, value_name = "NODE_ID")]
    pub payee: Vec<NodeId>,
    /// Life of the token, for example 90s, 10m, 2h, 30d
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    pub expires_in: Option<u64>,
    /// Open from these addresses only, 10.0.0.0/8; may be repeated
    #[arg(long, value_name = "RANGE")]
    pub source: Vec<Cidr>,
}
