//! `invoice`, `invoices`, `offer`, `decode`, `pay`, `payment`, `payments`, `estimate`, `hold`.

use clap::{Args, Subcommand, ValueEnum};

use super::{ListArgs, MutationArgs};
use crate::amount::{Msat, RULE};
use crate::parse::{self, Hash, NodeId, PaymentId};

/// `invoice`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct InvoiceArgs {
    /// Amount; the payer chooses if absent
    pub amount: Option<Msat>,
    /// What it is for
    #[arg(long, short, conflicts_with = "description_hash")]
    pub description: Option<String>,
    /// SHA-256 of what it is for
    #[arg(long, value_name = "HASH")]
    pub description_hash: Option<Hash>,
    /// Life of the invoice, for example 90s, 10m, 2h, 30d [default: 1h]
    #[arg(long, value_parser = parse::seconds_u32)]
    pub expiry: Option<u32>,
    /// Blocks the last HTLC must leave
    #[arg(long, value_name = "BLOCKS")]
    pub min_final_cltv: Option<u32>,
    /// Hold what is paid until its preimage is given: the payment hash
    #[arg(long, value_name = "HASH")]
    pub hold: Option<Hash>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `invoices`
#[derive(Debug, Args)]
pub struct InvoicesArgs {
    /// Only the one with this payment hash
    #[arg(conflicts_with = "limit")]
    pub hash: Option<Hash>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// `offer`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct OfferArgs {
    /// Amount; the payer chooses if absent
    #[arg(requires = "description")]
    pub amount: Option<Msat>,
    /// What it is for
    #[arg(long, short)]
    pub description: Option<String>,
    /// Life of the offer, for example 90s, 10m, 2h, 30d [default: for ever]
    #[arg(long, value_parser = parse::seconds)]
    pub expiry: Option<u64>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `decode`
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Invoice, offer, address, bitcoin: URI or ₿name@domain
    pub text: String,
}

/// `pay`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct PayArgs {
    /// Invoice, offer, address, bitcoin: URI or ₿name@domain
    #[arg(required_unless_present = "keysend", conflicts_with = "keysend")]
    pub target: Option<String>,
    /// Do not show the quote and ask
    #[arg(long, short)]
    pub yes: bool,
    /// Pay a node without an invoice
    #[arg(long, value_name = "NODE_ID", requires = "amount")]
    pub keysend: Option<NodeId>,
    /// Amount, where the target names none
    #[arg(long)]
    pub amount: Option<Msat>,
    /// Most to pay in fees [default: as configured; on chain half above today's]
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<Msat>,
    #[command(flatten)]
    pub over: super::requests::OverArgs,
    /// How long to try, for example 30s [default: 60s]
    #[arg(long, value_parser = parse::seconds_u32)]
    pub timeout: Option<u32>,
    /// Most parts at a time [default: 10]
    #[arg(long, value_name = "N")]
    pub max_parts: Option<u32>,
    /// Words to the recipient of an offer
    #[arg(long, conflicts_with = "keysend")]
    pub note: Option<String>,
    /// A record for the recipient, TYPE=HEX; may be repeated
    #[arg(long, value_parser = parse::custom_record, requires = "keysend")]
    pub record: Vec<(u64, Vec<u8>)>,
    /// Return as soon as the payment is recorded
    #[arg(long)]
    pub no_wait: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `payment`
#[derive(Debug, Args)]
pub struct PaymentArgs {
    /// Payment id
    pub payment_id: PaymentId,
    /// Wait until it has succeeded or failed
    #[arg(long)]
    pub wait: bool,
}

/// `payments`
#[derive(Debug, Args)]
pub struct PaymentsArgs {
    /// Only those to this node
    #[arg(long, conflicts_with = "outbound")]
    pub inbound: bool,
    /// Only those from this node
    #[arg(long)]
    pub outbound: bool,
    /// Only those in this state; may be repeated
    #[arg(long, value_enum)]
    pub state: Vec<PaymentStateArg>,
    /// Only those created in the last, for example, 2h
    #[arg(long, value_name = "TIME", value_parser = parse::seconds)]
    pub last: Option<u64>,
    /// Only those with this payment hash
    #[arg(long)]
    pub hash: Option<Hash>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// State of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PaymentStateArg {
    InFlight,
    Held,
    Claiming,
    Succeeded,
    Failed,
}

/// `estimate`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct EstimateArgs {
    /// An invoice, or the id of a node
    pub target: String,
    /// Amount to arrive, where the invoice names none
    #[arg(long)]
    pub amount: Option<Msat>,
    /// Most to pay in fees [default: as configured]
    #[arg(long, value_name = "AMOUNT")]
    pub max_fee: Option<Msat>,
    /// Most parts [default: 10]
    #[arg(long, value_name = "N")]
    pub max_parts: Option<u32>,
}

/// `hold …`
#[derive(Debug, Subcommand)]
pub enum HoldVerb {
    /// Take a held payment
    Settle {
        /// Preimage of the invoice's hash
        preimage: Hash,
        #[command(flatten)]
        mutation: MutationArgs,
    },
    /// Give a held payment back, or withdraw the invoice
    Cancel {
        /// Hash of the invoice
        hash: Hash,
        #[command(flatten)]
        mutation: MutationArgs,
    },
}
