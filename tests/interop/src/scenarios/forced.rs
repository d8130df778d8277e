//! A channel closed by force with payments under way in both directions.
//!
//! The miner takes nothing below three satoshis per virtual byte, and commitments pay less: they
//! are mined only if a child pays for them. One payment is claimed on chain with its preimage, the
//! other times out; in the end both wallets have what is theirs.

use std::time::Duration;

use tokio::time::sleep;

use crate::party::{Opening, Outcome, Secret};
use crate::report::Verdict;
use crate::scenarios::payments::{end, hold};
use crate::wait::{Failure, holds, until};
use crate::world::{Node, World, paid};

const OPENING: Opening = Opening { capacity_sat: 5_000_000, push_sat: 2_000_000, public: false };
/// Paid by who closes, and taken on chain.
const TAKEN_SAT: u64 = 400_000;
/// Paid by the other, and never taken.
const TIMED_OUT_SAT: u64 = 700_000;
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
    let (taken, timed_out) = (Secret::new(), Secret::new());
    let to_other = hold(closer, other, &taken.hash, TAKEN_SAT * 1_000).await?;
    let to_closer = hold(other, closer, &timed_out.hash, TIMED_OUT_SAT * 1_000).await?;

    let channel = world.usable(closer, other, &funding).await?;
    closer.close(&channel, true).await?;
    let commitment = spender(world, &funding).await?;
    let feerates = bumped(world, &commitment).await?;
    world.followed().await?;

    other.settle(&taken).await?;
    let (mut closer_done, mut other_done) = (false, false);
    let mut blocks = 0;
    while !(closer_done && other_done && to_other.is_finished() && to_closer.is_finished()) {
        if blocks == SWEEP_BLOCKS_MAX {
            let left = (closer.closings().await?, other.closings().await?);
            let ends = (to_other.is_finished(), to_closer.is_finished());
            return Err(format!("after {blocks} blocks {left:?} left, payments {ends:?}").into());
        }
        world.mine(1).await?;
        // What a block makes possible takes the programs a moment.
        sleep(BLOCK_TIME).await;
        closer_done = closer.closings().await? == 0;
        other_done = other.closings().await? == 0;
        blocks += 1;
    }

    let (preimage, _, _) = paid(end(to_other).await?)?;
    holds(preimage == taken.preimage, || format!("the proof is {preimage}"))?;
    match end(to_closer).await? {
        Outcome::Failed(_) => {}
        outcome @ Outcome::Paid { .. } => return Err(format!("it timed out: {outcome:?}").into()),
    }
    let given = OPENING.push_sat + TAKEN_SAT;
    owns(world, closer, before.0 - given).await?;
    owns(world, other, before.1 + given).await?;
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
async fn bumped(world: &World, commitment: &str) -> Result<String, Failure> {
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
        world.mine(1).await?;
        if world.chain.confirmations(commitment).await? > 0 {
            let (alone, package) = feerates.ok_or("the miner took a commitment without a child")?;
            holds(alone < 30, || format!("the commitment itself pays {alone}/10 sat/vB"))?;
            let tenths = |rate: u64| format!("{}.{}", rate / 10, rate % 10);
            return Ok(format!("{} → {} sat/vB", tenths(alone), tenths(package)));
        }
    }
    Err(format!("the commitment is not mined after {BUMP_BLOCKS_MAX} blocks: {feerates:?}").into())
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
