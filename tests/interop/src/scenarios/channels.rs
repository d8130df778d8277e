//! Channels: connecting, opening, reorganisations, splices, closing by agreement.

use std::time::Duration;

use tokio::time::sleep;

use crate::party::{Chan, Kind, Opening};
use crate::report::{PASSED, Verdict};
use crate::scenarios::payments;
use crate::wait::{Failure, holds, until, until_within};
use crate::world::{Node, World, balance_msat, find};

const OPENING: Opening = Opening { capacity_sat: 5_000_000, push_sat: 1_000_000, public: true };
/// Most that a closing transaction may cost its payer; a wrong balance is far more.
const CLOSE_FEE_MAX_SAT: u64 = 30_000;
/// Blocks until the last program forgets a channel that was closed by agreement.
const CLOSED_DEPTH_MAX: u32 = 12;
/// How long a splice may take to be agreed or refused.
const SPLICE_PATIENCE: Duration = Duration::from_secs(20);

/// One side dials; both see the connection.
pub async fn connect(from: &Node, to: &Node) -> Result<Verdict, Failure> {
    let (from_id, to_id) = (from.id().await?, to.id().await?);
    if from.is_connected(&to_id).await? {
        from.disconnect(&to_id).await?;
        until("the end of the connection", async || {
            Ok(!from.is_connected(&to_id).await? && !to.is_connected(&from_id).await?)
        })
        .await?;
    }
    from.connect(&to_id, &to.address()).await?;
    until("the connection at both sides", async || {
        Ok(from.is_connected(&to_id).await? && to.is_connected(&from_id).await?)
    })
    .await?;
    // A peer that finds something odd in our `init` hangs up a moment later.
    sleep(Duration::from_secs(1)).await;
    holds(from.is_connected(&to_id).await?, || "the connection did not last".to_owned())?;
    Ok(PASSED)
}

/// A channel with a gift to the other side: both see the same balances, less fees.
pub async fn open_and_push(world: &World, from: &Node, to: &Node) -> Result<Verdict, Failure> {
    let channel = world.open(from, to, OPENING).await?;
    let funding = channel.funding.clone().ok_or("a channel without funding")?;
    let there = find(to, &funding).await?.ok_or("the other side does not list the channel")?;
    // The opener's balance is shown with or without fees and anchors, the other's as it is.
    let pushed = OPENING.push_sat * 1_000;
    holds(there.local_msat == pushed, || format!("pushed {pushed}, has {}", there.local_msat))?;
    let kept = (OPENING.capacity_sat - OPENING.push_sat) * 1_000;
    let least = kept - CLOSE_FEE_MAX_SAT * 1_000;
    holds((least..=kept).contains(&channel.local_msat), || {
        format!("the opener has {}, at most {kept}", channel.local_msat)
    })?;
    Ok(PASSED)
}

/// Announced channels from us to a second stranger and from the first to a second node of ours.
pub async fn open_line(
    world: &World,
    ana: &Node,
    carol: &Node,
    ben: &Node,
    dave: &Node,
) -> Result<Verdict, Failure> {
    let opening = Opening { push_sat: OPENING.capacity_sat / 2, ..OPENING };
    world.open(ana, dave, opening).await?;
    world.open(carol, ben, opening).await?;
    Ok(PASSED)
}

/// The block with the funding transaction leaves the chain before the channel is usable; the
/// transaction comes back in another block, and the channel with it.
pub async fn reorg_while_opening(
    world: &World,
    from: &Node,
    to: &Node,
) -> Result<Verdict, Failure> {
    let opening = Opening { public: false, ..OPENING };
    let funding = world.open_unconfirmed(from, to, opening).await?;
    // One block: some are content with two for a channel of this size, and a channel in use that
    // loses its funding must be closed.
    world.mine(1).await?;
    let confirmations = world.chain.confirmations(&funding.0).await?;
    holds(confirmations == 1, || format!("{confirmations} confirmations of the funding"))?;
    world.chain.unmine(1).await?;
    world.chain.mine_empty(3).await?;
    world.followed().await?;
    let gone = world.chain.confirmations(&funding.0).await?;
    holds(gone == 0, || format!("{gone} confirmations of the funding after the reorg"))?;
    for side in [from, to] {
        let channel = find(side, &funding).await?;
        let channel = channel.ok_or_else(|| format!("{} gave the channel up", side.name()))?;
        holds(!channel.active, || format!("{} uses an unconfirmed channel", side.name()))?;
    }
    until("the funding transaction in the mempool", async || {
        Ok(world.chain.mempool().await?.contains(&funding.0))
    })
    .await?;
    world.mine(6).await?;
    world.usable(from, to, &funding).await?;
    payments::keysend(from, to).await?;
    Ok(PASSED)
}

/// A stranger puts coins into a channel with us.
pub async fn splice(world: &World, from: &Node, to: &Node) -> Result<Verdict, Failure> {
    const AMOUNT_SAT: u64 = 500_000;
    if from.kind() == Kind::Lnd {
        return Ok(Verdict::NotSpoken("LND has no splices".to_owned()));
    }
    let peer = to.id().await?;
    let channel = from.channels().await?.into_iter().find(|c| c.peer == peer && c.active);
    let channel = channel.ok_or("no channel to splice")?;
    let before = balance_msat(from, &peer).await?;
    if let Err(error) = from.splice_in(&channel, AMOUNT_SAT).await {
        return not_spoken(&error.to_string());
    }
    let mut spliced = false;
    let seen = until_within(SPLICE_PATIENCE, "the splice's transaction", async || {
        spliced = !world.chain.mempool().await?.is_empty();
        Ok(spliced)
    })
    .await;
    if seen.is_err() {
        return not_spoken("nothing came of it");
    }
    world.mine(7).await?;
    until("the balance after the splice", async || {
        Ok(balance_msat(from, &peer).await? == before + AMOUNT_SAT * 1_000)
    })
    .await?;
    payments::keysend(from, to).await?;
    Ok(PASSED)
}

fn not_spoken(said: &str) -> Result<Verdict, Failure> {
    Ok(Verdict::NotSpoken(format!("ldk-node 0.7 does not get as far as a splice: {said}")))
}

/// One side asks to close; both get what is theirs, less the fee of who opened.
pub async fn close_by_agreement(world: &World, from: &Node, to: &Node) -> Result<Verdict, Failure> {
    let channel = usable_with(from, to).await?;
    let funding = channel.funding.clone().ok_or("a channel without funding")?;
    let there = find(to, &funding).await?.ok_or("the other side does not list the channel")?;
    // Whatever an earlier scenario has left is not this one's.
    let left = (from.closings().await?, to.closings().await?);
    let (from_coins, to_coins) = (from.coins_sat().await?, to.coins_sat().await?);
    from.close(&channel, false).await?;
    closed(world, from, to, &funding, left).await?;
    for (side, before, local_msat) in
        [(from, from_coins, channel.local_msat), (to, to_coins, there.local_msat)]
    {
        let balance = local_msat / 1_000;
        // Commitment fee and anchors, which a program may not have counted, come back.
        let range = before + balance.saturating_sub(CLOSE_FEE_MAX_SAT)..=before + balance + 10_000;
        let what = format!("{} of {balance} sat of the channel in the wallet", side.name());
        until(&what, async || Ok(range.contains(&side.coins_sat().await?))).await?;
    }
    Ok(PASSED)
}

async fn usable_with(from: &Node, to: &Node) -> Result<Chan, Failure> {
    let peer = to.id().await?;
    let channel = from.channels().await?.into_iter().find(|c| c.peer == peer && c.active);
    channel.ok_or_else(|| "no usable channel to close".into())
}

/// The channel's funding output is spent, and both sides have nothing left to wait for.
async fn closed(
    world: &World,
    from: &Node,
    to: &Node,
    funding: &(String, u32),
    before: (usize, usize),
) -> Result<(), Failure> {
    until("a closing transaction in the mempool", async || {
        Ok(world.chain.spender(&funding.0, funding.1).await?.is_some())
    })
    .await?;
    for _ in 0..CLOSED_DEPTH_MAX {
        world.mine(1).await?;
        sleep(Duration::from_millis(200)).await;
        let gone = find(from, funding).await?.is_none() && find(to, funding).await?.is_none();
        if gone && (from.closings().await?, to.closings().await?) == before {
            return Ok(());
        }
    }
    let left = (from.closings().await?, to.closings().await?);
    Err(format!("not closed after {CLOSED_DEPTH_MAX} blocks: {before:?} → {left:?} left").into())
}

/// Who closes may raise the fee later, if both sides speak `option_simple_close`.
pub async fn close_rbf(kind: Kind) -> Result<Verdict, Failure> {
    let why = match kind {
        Kind::Lnd => "LND has it (`protocol.rbf-coop-close`); LDK 0.3, below our node, has not",
        Kind::Ldk | Kind::Ours => "LDK has no `option_simple_close` yet, on neither side",
    };
    Ok(Verdict::NotSpoken(why.to_owned()))
}
