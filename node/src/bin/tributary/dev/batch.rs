//! A batch of many wallets: they join it with one transaction and pay each other through the hub.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use channel_contracts::tree::cost::ORDINARY_CHANNEL_VB;
use futures::stream::{self, StreamExt, TryStreamExt};
use node::batches::JoinRequest;
use node::dev::{Cluster, NodeOptions};
use node::lightning::InvoiceDescription;
use node::payments::{CreateInvoice, PayRequest, PayTarget, PaymentState};
use node::store::MemoryDisk;
use tokio::time::Instant;

use super::life;
use super::report::BatchReport;
use super::{Progress, failed};
use crate::error::CliError;

/// Who funds the batch.
pub const HUB: &str = "hub";
/// What each wallet's channel holds.
const CAPACITY: Amount = Amount::from_sat(100_000);
/// What each wallet gets from the hub at first, msat.
const FIRST_MSAT: u64 = 20_000_000;
/// What each wallet pays the next one, msat.
const AMOUNT_MSAT: u64 = 1_000_000;
/// Confirmations before the channels are used.
pub const DEPTH: u32 = 3;
/// Life of a batch here, in blocks: short, and long enough for a window to roll over in.
pub const LIFE_BLOCKS: u32 = 1_000;
/// How long the hub waits for users, in milliseconds.
const GATHERING_MS: u64 = 10_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Wallets that are started or pay at a time.
const AT_ONCE: usize = 16;

/// What the hub is told before it starts.
pub fn hub_options(users: usize) -> NodeOptions {
    NodeOptions {
        configure: Arc::new(move |config| {
            if users > 0 {
                config.batch.users_max = users;
                // The first batch closes when all are in; the next when nobody else comes.
                config.batch.gathering_ms = GATHERING_MS;
                config.batch.life_blocks = LIFE_BLOCKS;
            }
        }),
        disk: None,
    }
}

/// The coins the hub needs beside its other channels.
pub fn hub_funds(users: usize) -> Amount {
    CAPACITY * users as u64 * 3
}

/// Starts `users` wallets, lets them join one batch, and lets each be paid and pay.
pub async fn run(
    net: &mut Cluster,
    users: usize,
    progress: &Progress,
) -> Result<BatchReport, CliError> {
    let names: Vec<String> = (1..=users).map(|number| format!("user{number}")).collect();
    progress.say(&format!("starting {users} wallets"));
    for name in &names {
        // Wallets keep their state in memory here: hundreds of stores would measure the disk.
        let options = NodeOptions {
            disk: Some(MemoryDisk::new()),
            configure: Arc::new(|config| config.batch.life_blocks = LIFE_BLOCKS),
        };
        net.add(name, options).await.map_err(failed)?;
    }
    let hub = net.node(HUB).lightning.node_id();
    let address = net.get(HUB).map_err(failed)?.address();
    for name in &names {
        let wallet = net.node(name);
        let _kept = wallet.peers.remember(hub, &address, true);
        wallet.lightning.connect(hub, &address).await.map_err(failed)?;
    }

    let before = net.on_chain().await.map_err(failed)?;
    progress.say(&format!("{users} wallets join one batch"));
    let began = Instant::now();
    let join = JoinRequest { hub, capacity: CAPACITY, inbound: CAPACITY };
    stream::iter(&names)
        .map(|name| net.node(name).batches.join(&join, None))
        .buffer_unordered(AT_ONCE)
        .try_collect::<Vec<_>>()
        .await
        .map_err(failed)?;
    until("the batch transaction", async || {
        // Its phase says that it was handed over; a block must find it in the mempool.
        let batches = net.node(HUB).batches.batches().await;
        let batch = batches.iter().find(|batch| batch.phase == HubPhase::Confirming);
        match batch.and_then(|batch| batch.txid) {
            Some(txid) => net.chain.knows(txid).await.unwrap_or(false),
            None => false,
        }
    })
    .await?;
    let form_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    progress.say("the batch transaction confirms");
    net.mine(DEPTH).await.map_err(failed)?;
    let mut waiting = None;
    let in_time = until("channels that can be used", async || {
        waiting = not_usable(net, &names).await;
        waiting.is_none()
    })
    .await;
    if let (Err(_), Some(waiting)) = (in_time, waiting) {
        return Err(CliError::Failed(format!("a channel of the batch is of no use: {waiting}")));
    }
    let after = net.on_chain().await.map_err(failed)?;

    progress.say("wallets are paid, and pay each other");
    let first: Vec<(&str, &str, u64)> =
        names.iter().map(|name| (HUB, name.as_str(), FIRST_MSAT)).collect();
    let around = names.iter().zip(names.iter().cycle().skip(1));
    let around: Vec<(&str, &str, u64)> =
        around.map(|(from, to)| (from.as_str(), to.as_str(), AMOUNT_MSAT)).collect();
    let around = if users > 1 { around } else { vec![] };
    let mut paid = 0;
    for round in [first, around] {
        let outcomes: Vec<bool> = stream::iter(round)
            .map(|(from, to, amount_msat)| pay(net, from, to, amount_msat))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        paid += outcomes.iter().filter(|arrived| **arrived).count();
        if outcomes.contains(&false) {
            return Err(CliError::Failed("a payment through the batch failed".into()));
        }
    }
    let form_onchain_vbytes = after.vbytes - before.vbytes;
    let last = names.last().ok_or_else(|| failed("no wallets"))?;
    let exit = life::exit(net, last, progress).await?;
    let rest = life::still_in(net, &names).await?;
    let ended = life::end(net, &rest, progress).await?;
    Ok(BatchReport {
        users,
        onchain_vbytes: form_onchain_vbytes,
        ordinary_vbytes: ORDINARY_CHANNEL_VB * users as u64,
        form_ms,
        payments: paid,
        exit,
        unrolled: users - rest.len(),
        rolled_over: ended.rolled_over,
        settled: ended.settled,
        settlement_vbytes: ended.settlement_vbytes,
    })
}

/// Whose channel cannot be used yet, and why.
async fn not_usable(net: &Cluster, names: &[String]) -> Option<String> {
    for name in names {
        let node = net.node(name);
        let wishes = node.batches.joins().await;
        let confirmed = wishes
            .iter()
            .any(|wish| matches!(wish.state, UserPhase::Leaf(LeafState::Confirmed { .. })));
        let channels = node.lightning.channels();
        if !confirmed || !channels.iter().any(|c| c.usable && c.counterparty_fees.is_some()) {
            let states: Vec<_> = wishes.iter().map(|wish| wish.state).collect();
            let channels: Vec<_> =
                channels.iter().map(|c| (c.usable, c.counterparty_fees, c.confirmations)).collect();
            return Some(format!("{name} is at {states:?} with channels {channels:?}"));
        }
    }
    None
}

/// Pays once. Says whether it arrived.
async fn pay(net: &Cluster, from: &str, to: &str, amount_msat: u64) -> Result<bool, CliError> {
    let create = CreateInvoice {
        amount_msat: Some(amount_msat),
        description: InvoiceDescription::Text("through the batch".into()),
        expiry: Duration::from_secs(3_600),
        min_final_cltv_expiry_delta: None,
        hash: None,
    };
    let invoice = net.node(to).payments.create_invoice(create, None).await.map_err(failed)?;
    let request = PayRequest {
        target: PayTarget::Request(invoice.invoice),
        amount_msat: None,
        max_fee_msat: None,
        retry_for: None,
        max_parts: None,
        payer_note: None,
    };
    let mut payment = net.node(from).payments.pay(&request, None).map_err(failed)?;
    Ok(payment.outcome().await.map_err(failed)?.state == PaymentState::Succeeded)
}

pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) -> Result<(), CliError> {
    let end = Instant::now() + PATIENCE;
    while !done().await {
        if Instant::now() > end {
            let seconds = PATIENCE.as_secs();
            return Err(CliError::Failed(format!("{what} did not come within {seconds} s")));
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}
