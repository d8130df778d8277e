//! `request`, `qr`, `quote`, `explain`.

use std::path::PathBuf;

use clap::Args;

use super::MutationArgs;
use crate::amount::{Msat, RULE};
use crate::parse;

/// `request`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct RequestArgs {
    /// Amount; the payer chooses if absent
    #[arg(long)]
    pub amount: Option<Msat>,
    /// What it is for
    #[arg(long, short, default_value = "")]
    pub description: String,
    /// Life of invoice and offer, for example 90s, 10m, 2h, 30d [default: 1h]
    #[arg(long, value_parser = parse::seconds_u32)]
    pub expiry: Option<u32>,
    /// Leave the address out
    #[arg(long)]
    pub no_onchain: bool,
    /// Leave the BOLT 11 invoice out
    #[arg(long)]
    pub no_bolt11: bool,
    /// Leave the BOLT 12 offer out: the code becomes smaller
    #[arg(long)]
    pub no_bolt12: bool,
    /// Draw it on the terminal
    #[arg(long)]
    pub qr: bool,
    #[command(flatten)]
    pub picture: PictureArgs,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// Where a QR code goes.
#[derive(Debug, Clone, Args)]
pub struct PictureArgs {
    /// Write it to this file as PNG
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Write it to this file as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Draw for a light terminal without colours
    #[arg(long)]
    pub light: bool,
}

/// `qr`
#[derive(Debug, Args)]
pub struct QrArgs {
    /// The text; - reads it from standard input
    pub text: String,
    #[command(flatten)]
    pub picture: PictureArgs,
}

/// `quote`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct QuoteArgs {
    /// Invoice, offer, address, bitcoin: URI or ₿name@domain
    pub text: String,
    /// Amount, where the text names none
    #[arg(long)]
    pub amount: Option<Msat>,
    /// Most to pay in fees [default: as configured; on chain half above today's]
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<Msat>,
    /// Most parts at a time, over channels
    #[arg(long, value_name = "N")]
    pub max_parts: Option<u32>,
    /// Feerate, on chain [default: the node's estimate]
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    #[command(flatten)]
    pub over: OverArgs,
}

/// Which ways may be taken.
#[derive(Debug, Clone, Default, Args)]
pub struct OverArgs {
    /// Over channels only
    #[arg(long, conflicts_with = "onchain")]
    pub lightning: bool,
    /// On chain only
    #[arg(long)]
    pub onchain: bool,
}

/// `explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The reason, for example NO_ROUTE; all of them if absent
    pub reason: Option<String>,
}
