//! A channel closed by force with payments under way in both directions.
//!
//! The other side dies while the closer holds a payment whose preimage it has just learned: it can
//! only be taken on chain, before it times out. With LND the miner takes nothing below three
//! satoshis per virtual byte, and commitments pay less: they are mined only if a child pays for
//! them. The other payment times out; in the end both wallets have what is theirs.

use std::time::Duration;

use tokio::time::sleep;

use crate::party::{Kind, Opening, Outcome, Secret};
use crate::report::Verdict;
use crate::scenarios::payments::{end, hold};
use crate::wait::{Failure, holds, same, until};
use crate::world::{self, Node, World, find, start};

const OPENING: Opening = Opening { capacity_sat: 5_000_000, push_sat: 2_000_000, public: false };
/// Paid to who closes, and taken on chain.
const TAKEN_SAT: u64 = 400_000;
/// Paid by who closes, and never taken. ldk-node takes no more than a tenth of a channel at once.
const TIMED_OUT_SAT: u64 = 300_000;
/// Most that all transactions of one side may cost; a payment at the wrong side is far more.
const FEES_MAX_SAT: u64 = 120_000;
/// Blocks until a child has paid for the commitment.
const BUMP_BLOCKS_MAX: u32 = 12;
/// Blocks until the last delay is over.
const SWEEP_BLOCKS_MAX: u32 = 420;
const BLOCK_TIME: Duration = Duration::from_millis(150);

/// `closer` opens the channel and closes it by force.
pub async fn close(world: &World, closer: &Node, other: &Node) -> Result<Verdict, Failure> {
    let before = (closer.coins_sat().await?, other.coins_sat().await?);
    let channel = world.open(closer, other, OPENING).await?;
    let funding = channel.funding.clone().ok_or("a channel without funding")?;
    for (payer, payee, sat) in [(other, closer, TAKEN_SAT), (closer, other, TIMED_OUT_SAT)] {
        let id = payee.id().await?;
        let what = format!("a way from {} to {}", payer.name(), payee.name());
        until(&what, async || payer.reaches(&id, sat * 1_000).await).await?;
    }
    let books = other.books().await?;
    let (taken, timed_out) = (Secret::new(), Secret::new());
    // Its end is read from the books: who pays is about to die.
    drop(hold(other, closer, &taken.hash, TAKEN_SAT * 1_000).await?);
    let to_other = hold(closer, other, &timed_out.hash, TIMED_OUT_SAT * 1_000).await?;

    other.kill().await?;
    closer.settle(&taken).await?;
    let channel = find(closer, &funding).await?.ok_or("the channel is gone")?;
    closer.close(&channel, true).await?;
    let commitment = spender(world, &funding).await?;
    let feerates = bumped(world, closer, &commitment).await?;
    start(other).await?;
    world.followed().await?;

    let mut blocks = 0;
    loop {
        let left = (closer.closings().await?, other.closings().await?);
        if left == (0, 0) && to_other.is_finished() {
            break;
        }
        if blocks == SWEEP_BLOCKS_MAX {
            let ended = to_other.is_finished();
            return Err(format!("after {blocks} blocks {left:?} left, payment: {ended}").into());
        }
        world.mine(1).await?;
        // What a block makes possible takes the programs a moment.
        sleep(BLOCK_TIME).await;
        blocks += 1;
    }

    match end(to_other).await? {
        Outcome::Failed(_) => {}
        outcome @ Outcome::Paid { .. } => return Err(format!("it timed out: {outcome:?}").into()),
    }
    world::taken(closer, &taken.hash, TAKEN_SAT * 1_000).await?;
    let books = other.books().await?.since(books);
    same("payments in the payer's books", (books.sent, books.in_flight), (1, 0))?;
    same("paid by the payer's books", books.sent_msat, TAKEN_SAT * 1_000)?;
    owns(world, closer, before.0 - OPENING.push_sat + TAKEN_SAT).await?;
    owns(world, other, before.1 + OPENING.push_sat - TAKEN_SAT).await?;
    Ok(Verdict::Passed(feerates))
}

/// The transaction that spends the funding output.
async fn spender(world: &World, funding: &(String, u32)) -> Result<String, Failure> {
    let mut found = None;
    until("the commitment in the mempool", async || {
        found = world.chain.spender(&funding.0, funding.1).await?;
        Ok(found.is_some())
    })
    .await?;
    found.ok_or_else(|| "no commitment".into())
}

/// Mines until the commitment is confirmed, which it is only with a child that pays. Returns both
/// feerates in words.
async fn bumped(world: &World, closer: &Node, commitment: &str) -> Result<String, Failure> {
    let mut feerates = None;
    for _ in 0..BUMP_BLOCKS_MAX {
        let waits = until("a child of the commitment", async || {
            let Some(entry) = world.chain.mempool_entry(commitment).await? else {
                return Err("the commitment left the mempool".into());
            };
            let child = entry.package_vsize > entry.vsize;
            if child {
                let alone = entry.fee_sat * 10 / entry.vsize;
                let package = entry.package_fee_sat * 10 / entry.package_vsize;
                feerates = Some((alone, package));
            }
            Ok(child)
        });
        // A program may wait for a block before it bumps.
        let _ = tokio::time::timeout(Duration::from_secs(3), waits).await;
        world.chain.mine(1).await?;
        let height = world.chain.height().await?;
        until("the block at who closes", async || Ok(closer.height().await? >= height)).await?;
        if world.chain.confirmations(commitment).await? > 0 {
            let Some((alone, package)) = feerates else {
                return childless(closer);
            };
            holds(package > alone, || format!("the child pays less: {alone}, {package}"))?;
            let tenths = |rate: u64| format!("{}.{}", rate / 10, rate % 10);
            return Ok(format!("{} → {} sat/vB", tenths(alone), tenths(package)));
        }
    }
    Err(format!("the commitment is not mined after {BUMP_BLOCKS_MAX} blocks: {feerates:?}").into())
}

/// A commitment was mined alone, which is right only for a program that thinks it pays enough.
fn childless(closer: &Node) -> Result<String, Failure> {
    match closer.kind() {
        Kind::Ldk => {
            Ok("no child: without estimates ldk-node takes 1 sat/vB for enough".to_owned())
        }
        Kind::Ours | Kind::Lnd => Err("the miner took a commitment without a child".into()),
    }
}

/// The wallet comes to `expected_sat` less fees, in a few blocks at most.
async fn owns(world: &World, side: &Node, expected_sat: u64) -> Result<(), Failure> {
    let mut coins = 0;
    for _ in 0..10 {
        coins = side.coins_sat().await?;
        if (expected_sat - FEES_MAX_SAT..=expected_sat).contains(&coins) {
            return Ok(());
        }
        world.mine(1).await?;
        sleep(BLOCK_TIME).await;
    }
    Err(format!("{} has {coins} sat, expected {expected_sat} less fees", side.name()).into())
}
