//! What the demonstration showed: one JSON document, or a table.

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

/// The whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The chain used.
    pub chain: String,
    /// The nodes.
    pub nodes: Vec<NodeReport>,
    /// The channels, as their openers see them.
    pub channels: Vec<ChannelReport>,
    /// The burst.
    pub payments: PaymentsReport,
    /// The batch, if wallets joined one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchReport>,
    /// The nodes' own transactions.
    pub onchain: OnChainReport,
    /// Whether what was paid in is in balances and fees, to the msat.
    pub conserved: bool,
}

/// One node.
#[derive(Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub node_id: String,
    /// Its API.
    pub rpc: String,
    /// Its coins.
    pub wallet_sat: u64,
    /// How many channels it has.
    pub channels: usize,
    /// What it owns in them.
    pub channel_balance_msat: u64,
}

/// One channel.
#[derive(Debug, Serialize)]
pub struct ChannelReport {
    /// Who opened it.
    pub from: String,
    /// With whom.
    pub to: String,
    /// Its size.
    pub capacity_sat: u64,
    /// What its opener owns.
    pub local_msat: u64,
    /// What the other side owns.
    pub remote_msat: u64,
    /// Its commitment format.
    pub kind: String,
}

/// The burst of payments.
#[derive(Debug, Serialize)]
pub struct PaymentsReport {
    /// Started.
    pub sent: u64,
    /// Arrived.
    pub succeeded: u64,
    /// Did not.
    pub failed: u64,
    /// Half took no longer.
    pub p50_ms: f64,
    /// 99 % took no longer.
    pub p99_ms: f64,
    /// Arrived per second of the burst.
    pub per_second: f64,
}

/// A batch of many wallets.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    /// Wallets in it.
    pub users: usize,
    /// What opening all their channels took on chain.
    pub onchain_vbytes: u64,
    /// What as many ordinary channels would have taken.
    pub ordinary_vbytes: u64,
    /// From the first wish to the batch transaction.
    pub form_ms: u64,
    /// Payments that arrived through its channels.
    pub payments: usize,
    /// What it took one wallet to leave on chain.
    pub exit: ExitReport,
    /// Wallets whose channel that put on chain, its own and its neighbours'.
    pub unrolled: usize,
    /// Wallets whose balance moved into the next batch.
    pub rolled_over: usize,
    /// Wallets that handed their keys over, so that the hub took the first batch back early.
    pub settled: usize,
    /// What the hub put on chain for that.
    pub settlement_vbytes: u64,
}

/// A wallet that left its batch on chain and closed its channel alone.
#[derive(Debug, Serialize)]
pub struct ExitReport {
    /// Transactions of its path.
    pub levels: usize,
    /// All of it, with fees' transactions, commitment and claim.
    pub vbytes: u64,
}

/// What the chain carries for the nodes.
#[derive(Debug, Serialize)]
pub struct OnChainReport {
    /// Transactions.
    pub transactions: u64,
    /// Their virtual bytes.
    pub vbytes: u64,
}

impl Report {
    /// Prints the tables for people.
    pub fn print(&self) {
        let mut nodes = table(&["node", "wallet sat", "channels", "in channels msat", "API"]);
        for node in &self.nodes {
            nodes.add_row(vec![
                Cell::new(&node.name),
                number(node.wallet_sat),
                number(node.channels as u64),
                number(node.channel_balance_msat),
                Cell::new(&node.rpc),
            ]);
        }
        anstream::println!("{nodes}");
        let mut channels = table(&["channel", "capacity sat", "left msat", "right msat", "type"]);
        for channel in &self.channels {
            channels.add_row(vec![
                Cell::new(format!("{} – {}", channel.from, channel.to)),
                number(channel.capacity_sat),
                number(channel.local_msat),
                number(channel.remote_msat),
                Cell::new(&channel.kind),
            ]);
        }
        anstream::println!("{channels}");
        let p = &self.payments;
        anstream::println!(
            "{} of {} payments arrived, {} per second; half within {} ms, 99 % within {} ms.",
            p.succeeded,
            p.sent,
            p.per_second,
            p.p50_ms,
            p.p99_ms
        );
        if let Some(batch) = &self.batch {
            anstream::println!(
                "{} wallets joined one batch in {} ms: {} vbytes on chain where ordinary channels take {}; {} payments through it.",
                batch.users,
                batch.form_ms,
                batch.onchain_vbytes,
                batch.ordinary_vbytes,
                batch.payments
            );
            anstream::println!(
                "One left on chain: {} levels, {} vbytes, and {} channels are ordinary ones now; {} wallets rolled over into the next batch. The hub took {} channels back with {} vbytes.",
                batch.exit.levels,
                batch.exit.vbytes,
                batch.unrolled,
                batch.rolled_over,
                batch.settled,
                batch.settlement_vbytes
            );
        }
        anstream::println!(
            "On chain ({}): {} transactions, {} vbytes. Every satoshi accounted for: {}.",
            self.chain,
            self.onchain.transactions,
            self.onchain.vbytes,
            if self.conserved { "yes" } else { "NO" }
        );
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    table
}

fn number(value: u64) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}
