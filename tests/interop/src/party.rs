//! What a scenario asks of a node, whoever wrote it. Read this first; `ours`, `lnd` and `ldk` are
//! its implementations.

use std::fmt;

use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::wait::Failure;

/// Whose program a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Kind {
    /// This project's.
    Ours,
    /// Lightning Labs' LND.
    Lnd,
    /// ldk-node, on an older LDK than ours.
    Ldk,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "tributary",
            Self::Lnd => "LND",
            Self::Ldk => "ldk-node",
        })
    }
}

/// A channel to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Value of the funding output.
    pub capacity_sat: u64,
    /// What the peer gets at once.
    pub push_sat: u64,
    /// Whether it is announced.
    pub public: bool,
}

/// A channel as one side sees it.
#[derive(Debug, Clone)]
pub struct Chan {
    /// What this side calls it.
    pub id: String,
    /// Public key of the other side, hex.
    pub peer: String,
    /// Transaction that funds it, as explorers print it, and the output.
    pub funding: Option<(String, u32)>,
    /// Whether payments can use it now.
    pub active: bool,
    /// This side's balance. Absolute figures of different programs differ by reserves and fees;
    /// differences of one program's figures are exact.
    pub local_msat: u64,
    /// The most that this side can send over it in one HTLC: reserves and the other side's limits
    /// are taken off.
    pub sendable_msat: u64,
}

/// How an outgoing payment ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It arrived.
    Paid {
        /// The proof, hex.
        preimage: String,
        /// Fee on top of the amount.
        fee_msat: u64,
        /// Parts that arrived, if the program says.
        parts: Option<usize>,
    },
    /// It did not, and no money moved.
    Failed(String),
}

/// Whom a payment is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// A BOLT 11 invoice.
    Invoice(String),
    /// A BOLT 12 offer that names an amount.
    Offer(String),
    /// A node without an invoice: key in hex, amount.
    Keysend(String, u64),
}

/// An invoice.
#[derive(Debug, Clone)]
pub struct Invoice {
    /// As text.
    pub bolt11: String,
    /// Its hash, hex.
    pub hash: String,
}

/// What stands in a node's books about finished payments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Books {
    /// Outgoing payments that succeeded.
    pub sent: u64,
    /// What their recipients got.
    pub sent_msat: u64,
    /// Outgoing payments whose end is not known.
    pub in_flight: u64,
    /// Incoming payments that were taken.
    pub received: u64,
    /// What they brought.
    pub received_msat: u64,
}

impl Books {
    /// What has come since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent - before.sent,
            sent_msat: self.sent_msat - before.sent_msat,
            in_flight: self.in_flight.saturating_sub(before.in_flight),
            received: self.received - before.received,
            received_msat: self.received_msat - before.received_msat,
        }
    }
}

/// A preimage of a scenario's own, with its hash, both hex.
#[derive(Debug, Clone)]
pub struct Secret {
    /// The preimage.
    pub preimage: String,
    /// Its hash.
    pub hash: String,
}

impl Secret {
    /// A fresh one.
    pub fn new() -> Self {
        let preimage: [u8; 32] = rand::random();
        Self { preimage: hex::encode(preimage), hash: hex::encode(Sha256::digest(preimage)) }
    }
}

/// Whether `preimage` opens `hash`, both hex.
///
/// # Errors
///
/// If `preimage` is no hex.
pub fn opens(preimage: &str, hash: &str) -> Result<bool, Failure> {
    Ok(hash_of(preimage)? == hash)
}

/// The hash of a preimage, both hex.
///
/// # Errors
///
/// If `preimage` is no hex.
pub fn hash_of(preimage: &str) -> Result<String, Failure> {
    Ok(hex::encode(Sha256::digest(hex::decode(preimage)?)))
}

/// A node that runs as a process, and may be killed and started again.
#[async_trait]
pub trait Party: Send + Sync {
    /// Its name in logs and errors.
    fn name(&self) -> &str;

    /// Whose program it is.
    fn kind(&self) -> Kind;

    /// Where peers reach it.
    fn address(&self) -> String;

    /// Starts the process; `world::start` also waits until it answers.
    async fn spawn(&self) -> Result<(), Failure>;

    /// Whether the process answers as ready. Fails if it has ended.
    async fn answers(&self) -> Result<bool, Failure>;

    /// Kills the process at once (SIGKILL).
    async fn kill(&self) -> Result<(), Failure>;

    /// Asks the process to end, and waits for it.
    async fn stop(&self);

    /// Its public key, hex.
    async fn id(&self) -> Result<String, Failure>;

    /// Height up to which it has followed the chain.
    async fn height(&self) -> Result<u32, Failure>;

    /// An address of its wallet.
    async fn new_address(&self) -> Result<String, Failure>;

    /// Coins of its wallet, confirmed or not.
    async fn coins_sat(&self) -> Result<u64, Failure>;

    /// Confirmed coins of its wallet.
    async fn confirmed_sat(&self) -> Result<u64, Failure>;

    /// Connects to a peer.
    async fn connect(&self, id: &str, address: &str) -> Result<(), Failure>;

    /// Closes the connection to a peer.
    async fn disconnect(&self, id: &str) -> Result<(), Failure>;

    /// Whether it is connected to a peer.
    async fn is_connected(&self, id: &str) -> Result<bool, Failure>;

    /// Begins to open a channel.
    async fn open(&self, id: &str, address: &str, opening: Opening) -> Result<(), Failure>;

    /// Its channels that are open or being opened.
    async fn channels(&self) -> Result<Vec<Chan>, Failure>;

    /// How many closed channels still owe it something.
    async fn closings(&self) -> Result<usize, Failure>;

    /// Begins to close a channel, by force or by agreement.
    async fn close(&self, channel: &Chan, force: bool) -> Result<(), Failure>;

    /// Makes an invoice.
    async fn invoice(&self, amount_msat: u64, expiry_seconds: u32) -> Result<Invoice, Failure>;

    /// Makes an invoice for a hash whose preimage the node does not know.
    async fn hold_invoice(&self, hash: &str, amount_msat: u64) -> Result<Invoice, Failure>;

    /// Whether a payment to a hold invoice has arrived and waits.
    async fn is_held(&self, hash: &str) -> Result<bool, Failure>;

    /// Takes a payment that waits.
    async fn settle(&self, secret: &Secret) -> Result<(), Failure>;

    /// Gives a payment that waits back, or withdraws the hold invoice before it is paid.
    async fn cancel(&self, hash: &str) -> Result<(), Failure>;

    /// What was taken for a hash; none if nothing (yet).
    async fn received_msat(&self, hash: &str) -> Result<Option<u64>, Failure>;

    /// Pays, and waits until the payment is resolved.
    async fn pay(&self, target: Target) -> Result<Outcome, Failure>;

    /// Pays to a hash that the recipient `id` has no invoice for, or less than its invoice asks;
    /// none if the program cannot be made to.
    async fn pay_wrongly(&self, wrong: &Wrong) -> Result<Option<Outcome>, Failure>;

    /// An offer; none if the program has no BOLT 12.
    async fn offer(&self, amount_msat: u64) -> Result<Option<String>, Failure>;

    /// Whether it knows a way to `id` for an amount.
    async fn reaches(&self, id: &str, amount_msat: u64) -> Result<bool, Failure>;

    /// Its books.
    async fn books(&self) -> Result<Books, Failure>;

    /// Puts coins into a channel by a splice; none if the program has no splices.
    async fn splice_in(&self, channel: &Chan, amount_sat: u64) -> Result<Option<()>, Failure>;

    /// The last lines of its log.
    fn tail(&self, lines: usize) -> String;
}

/// A payment that a recipient has to refuse.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// Recipient, hex.
    pub id: String,
    /// Hash, hex.
    pub hash: String,
    /// The secret of the recipient's invoice, if it is to be shown.
    pub bolt11: Option<String>,
    /// What is paid.
    pub amount_msat: u64,
}
