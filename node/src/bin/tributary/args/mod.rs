//! The words that `tributary` understands.

mod batch;
mod payments;
pub mod payout;
pub mod requests;
pub mod run;
pub mod token;
pub mod tower;
pub mod webhook;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub use batch::{
    BatchDepositArgs, BatchExitArgs, BatchJoinArgs, BatchPolicyArgs, BatchQuoteArgs, BatchVerb,
    BatchWithdrawArgs,
};
pub use payments::{
    DecodeArgs, EstimateArgs, HoldVerb, InvoiceArgs, InvoicesArgs, OfferArgs, PayArgs, PaymentArgs,
    PaymentStateArg, PaymentsArgs,
};
pub use run::{DevArgs, NodeArgs};

use crate::amount::{Msat, RULE, Sat};
use crate::parse::{self, Hash, NodeId, PeerAt};

/// A Bitcoin payment channel node, and its command line.
#[derive(Debug, Parser)]
#[command(name = "tributary", version, after_help = RULE)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which node, and how to answer.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which node, and how to answer")]
pub struct Global {
    /// A node of `tributary dev` by its name, or any node by its data directory
    #[arg(long, global = true, value_name = "NAME|DIR", env = "TRIBUTARY_NODE")]
    pub node: Option<String>,
    /// Data directory of the node [default: the only one in ~/.tributary]
    #[arg(long, global = true, value_name = "DIR", env = "TRIBUTARY_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the node's API, host:port
    #[arg(long, global = true, value_name = "ADDRESS", env = "TRIBUTARY_RPC")]
    #[arg(value_parser = parse::host_port)]
    pub rpc: Option<String>,
    /// Certificate of the node's API, PEM
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// File with the token of the node's API
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate of this client, PEM, where the node asks for one
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_CLIENT_CERT")]
    #[arg(requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, global = true, value_name = "FILE", env = "TRIBUTARY_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// Print one JSON document (one on each line for what goes on: events, watch)
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a node
    Node(NodeArgs),
    /// Run a network of nodes with its own chain, to try things out
    Dev(DevArgs),
    /// Show who the node is and how it stands
    Info,
    /// Say what is wrong with the node and what to do; also of one that does not answer.
    /// Exit code 0: all is well, 1: warnings, 2: errors
    Doctor,
    /// List peers
    Peers(ListArgs),
    /// Connect to a peer
    Connect(ConnectArgs),
    /// Close the connection to a peer; channels stay open
    Disconnect(DisconnectArgs),
    /// Open, list, watch, price and close channels
    #[command(subcommand)]
    Channel(ChannelVerb),
    /// Join channel batches, and see what became of them
    #[command(subcommand)]
    Batch(BatchVerb),
    /// Make tokens with limits for other programs, narrow and revoke them
    #[command(subcommand)]
    Token(token::TokenVerb),
    /// Run a watchtower; or let one guard the node
    Tower(tower::TowerArgs),
    /// Create an invoice
    Invoice(InvoiceArgs),
    /// List invoices, or show one
    Invoices(InvoicesArgs),
    /// Create an offer: a code that can be paid many times
    Offer(OfferArgs),
    /// Make a payment request: a code that offers every way to pay, also as a picture
    Request(requests::RequestArgs),
    /// Draw a text as a QR code
    Qr(requests::QrArgs),
    /// Show what a payment request says: invoice, offer, address, bitcoin: URI or ₿name@domain
    Decode(DecodeArgs),
    /// Show what paying a payment request would cost and risk, without paying
    Quote(requests::QuoteArgs),
    /// Pay a payment request, or a node
    Pay(PayArgs),
    /// Show one payment
    Payment(PaymentArgs),
    /// List payments
    Payments(PaymentsArgs),
    /// Find a route and its fee without paying
    Estimate(EstimateArgs),
    /// Take or give back what is paid to a hold invoice
    #[command(subcommand)]
    Hold(HoldVerb),
    /// On-chain coins
    #[command(subcommand)]
    Wallet(WalletVerb),
    /// Show what happened
    Events(EventsArgs),
    /// Let the node tell others what happens, over HTTP
    #[command(subcommand)]
    Webhook(webhook::WebhookVerb),
    /// Pay many at once, from a file
    #[command(subcommand)]
    Payout(payout::PayoutVerb),
    /// Say what a reason for which something was refused means
    Explain(requests::ExplainArgs),
    /// Stop the node in order
    Stop(MutationArgs),
    /// Print completions for a shell
    Completions(CompletionsArgs),
}

/// Makes a repetition safe.
#[derive(Debug, Clone, Args)]
pub struct MutationArgs {
    /// Key under which this is done at most once; give the same to repeat a lost command
    /// [default: a fresh one]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// How much of a list.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Show at most this many
    #[arg(long, default_value_t = 100, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// `connect`
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// The peer, NODE_ID@HOST:PORT
    pub peer: PeerAt,
    /// Do not connect again after a loss or a restart
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `disconnect`
#[derive(Debug, Args)]
pub struct DisconnectArgs {
    /// The peer
    pub node_id: NodeId,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `channel …`
#[derive(Debug, Subcommand)]
pub enum ChannelVerb {
    /// Open a channel
    Open(ChannelOpenArgs),
    /// List channels
    List(ChannelListArgs),
    /// Show a channel, and each change until it is closed
    Watch {
        /// Record or channel id, or its first digits (4 or more)
        channel: String,
    },
    /// Close a channel
    Close(ChannelCloseArgs),
    /// Set what the node asks for forwarding over a channel
    Policy(ChannelPolicyArgs),
}

/// `channel open`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct ChannelOpenArgs {
    /// The peer, NODE_ID or NODE_ID@HOST:PORT
    pub peer: PeerAt,
    /// Value of the channel
    pub capacity: Sat,
    /// Part given to the peer at once; a gift
    #[arg(long, default_value = "0", value_name = "AMOUNT")]
    pub push: Msat,
    /// Announce the channel to the network
    #[arg(long)]
    pub public: bool,
    /// Feerate of the funding transaction
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    /// Let the peer spend its whole balance: trust it
    #[arg(long)]
    pub zero_reserve: bool,
    /// Let the peer, a hub, fund it in its next batch; see `tributary batch quote`
    #[arg(long, conflicts_with_all = ["push", "public", "feerate", "zero_reserve"])]
    pub batch: bool,
    /// Watch the channel until it is usable
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `channel list`
#[derive(Debug, Args)]
pub struct ChannelListArgs {
    /// Only those in this state; may be repeated
    #[arg(long, value_enum)]
    pub state: Vec<ChannelStateArg>,
    /// Only those with this peer
    #[arg(long, value_name = "NODE_ID")]
    pub peer: Option<NodeId>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// State of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ChannelStateArg {
    Opening,
    AwaitingConfirmation,
    Active,
    Inactive,
    Closing,
    ForceClosing,
    Closed,
}

/// `channel close`
#[derive(Debug, Args)]
pub struct ChannelCloseArgs {
    /// Record or channel id, or its first digits (4 or more)
    pub channel: String,
    /// Close without the peer: costs more, and locks this node's part for some blocks
    #[arg(long, conflicts_with_all = ["address", "feerate"])]
    pub force: bool,
    /// Address for this node's part [default: the wallet's own]
    #[arg(long)]
    pub address: Option<String>,
    /// Feerate of the closing transaction
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `channel policy`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub struct ChannelPolicyArgs {
    /// Record or channel id, or its first digits (4 or more)
    pub channel: String,
    /// Fixed part of the fee
    #[arg(long, value_name = "AMOUNT", group = "change")]
    pub base: Option<Msat>,
    /// Proportional part of the fee, in millionths
    #[arg(long, value_name = "MILLIONTHS", group = "change")]
    pub ppm: Option<u32>,
    /// Blocks between the expiries of the incoming and the outgoing HTLC
    #[arg(long, value_name = "BLOCKS", group = "change")]
    pub cltv_delta: Option<u32>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `wallet …`
#[derive(Debug, Subcommand)]
pub enum WalletVerb {
    /// Show an address that was never given out before
    Address(MutationArgs),
    /// Show the balance
    Balance,
    /// Send coins on chain
    Send(WalletSendArgs),
    /// Replace an unconfirmed transaction by one that pays more
    Bump {
        /// The transaction
        txid: Hash,
        /// New feerate
        #[arg(long, value_name = "SAT_PER_VB")]
        feerate: Option<u64>,
        #[command(flatten)]
        mutation: MutationArgs,
    },
    /// List transactions
    Transactions(ListArgs),
    /// List coins
    Coins(ListArgs),
}

/// `wallet send`
#[derive(Debug, Args)]
#[command(after_help = RULE)]
pub struct WalletSendArgs {
    /// Where to
    pub address: String,
    /// How much arrives
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub amount: Option<Sat>,
    /// Send everything spendable, less the fee
    #[arg(long)]
    pub all: bool,
    /// Feerate [default: the node's estimate]
    #[arg(long, value_name = "SAT_PER_VB")]
    pub feerate: Option<u64>,
    /// Most to pay in fees [default: whatever it costs]
    #[arg(long, value_name = "AMOUNT", conflicts_with = "all")]
    pub max_fee: Option<Sat>,
    #[command(flatten)]
    pub mutation: MutationArgs,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Go on with new events as they come
    #[arg(long, short)]
    pub follow: bool,
    /// Begin after this sequence [default: the oldest kept; with --follow only new ones]
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
    /// Only events of this kind; may be repeated
    #[arg(long, value_enum)]
    pub kind: Vec<EventKindArg>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventKindArg {
    Payment,
    Invoice,
    Channel,
    Wallet,
    Chain,
    Tower,
    Node,
    Batch,
    Swap,
    Webhook,
    Payout,
    Security,
}

/// `completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::run::{NetworkArg, NodeVerb};
    use super::*;

    #[test]
    fn the_words_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_stand_anywhere() {
        for words in [
            "tributary --node alice --json channel list",
            "tributary channel list --node alice --json",
            "tributary channel --node alice list --json",
        ] {
            let cli = Cli::try_parse_from(words.split(' ')).unwrap();
            assert_eq!(cli.global.node.as_deref(), Some("alice"));
            assert!(cli.global.json);
        }
        let words = "tributary node init --data-dir d --words 12 --network signet";
        let cli = Cli::try_parse_from(words.split(' ')).unwrap();
        assert_eq!(cli.global.data_dir, Some(PathBuf::from("d")));
        let Verb::Node(args) = cli.verb else {
            panic!("{words}");
        };
        assert_eq!(args.settings.network, Some(NetworkArg::Signet));
        assert!(matches!(args.verb, Some(NodeVerb::Init(init)) if init.words == "12"));
    }

    #[test]
    fn nonsense_is_wrong_usage() {
        let id = "02".repeat(33);
        for words in [
            "pay".to_owned(),
            format!("pay --keysend {id}"),
            format!("pay lnbc1 --keysend {id} --amount 1"),
            "pay lnbc1 --record 65537=00".to_owned(),
            "pay lnbc1 --amount 1eur".to_owned(),
            format!("channel open {id} 1500msat"),
            format!("channel open {id}@nowhere 1500"),
            "channel policy abcd".to_owned(),
            "channel close abcd --force --feerate 2".to_owned(),
            "wallet send addr".to_owned(),
            "wallet send addr 1 --all".to_owned(),
            "offer 5".to_owned(),
            "hold settle 00".to_owned(),
            "payments --inbound --outbound".to_owned(),
            "peers --limit 0".to_owned(),
            "webhook update 00112233445566778899aabbccddeeff".to_owned(),
            "webhook replay 00112233445566778899aabbccddeeff".to_owned(),
        ] {
            let all = ["tributary"].into_iter().chain(words.split(' '));
            let error = Cli::try_parse_from(all).expect_err(&words);
            assert_eq!(error.exit_code(), 2, "{words}");
        }
    }
}
