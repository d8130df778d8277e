//! How the batch of the demonstration ends: one wallet leaves on chain, the others roll over into
//! the next batch, the hub takes the first one back.

use std::collections::HashSet;
use std::time::Duration;

use bitcoin::{Amount, OutPoint, Txid};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::JoinView;
use node::dev::Cluster;
use node::unroll::UnrollState;
use tokio::time::Instant;

use super::batch::{DEPTH, HUB, LIFE_BLOCKS, until};
use super::report::ExitReport;
use super::{Progress, failed};
use crate::error::CliError;

/// The coin that pays for leaving.
const EXIT_COIN: Amount = Amount::from_sat(200_000);
/// Blocks mined at a time while something takes its course,
const STRIDE: u32 = 5;
/// how long the nodes have for them,
const PAUSE: Duration = Duration::from_millis(200);
/// and how often that is repeated: beyond the delay of a channel closed alone.
const STRIDES_MAX: u32 = 60;
/// How long balances may stand still before a block is mined,
const STALL: Duration = Duration::from_secs(5);
/// and how often.
const STALLS_MAX: u32 = 12;

/// Lets `user` leave its batch on chain and close its channel alone; counts what it took.
pub async fn exit(
    net: &mut Cluster,
    user: &str,
    progress: &Progress,
) -> Result<ExitReport, CliError> {
    progress.say(&format!("{user} leaves the batch on chain"));
    net.fund(&[user], EXIT_COIN, 1).await.map_err(failed)?;
    let from = net.chain.tip().await.map_err(failed)?.height;
    let wish = first_wish(net, user).await?;
    let (Some(funding), Some(channel)) = (wish.funding, wish.channel) else {
        return Err(CliError::Failed(format!("{user} has no channel of a batch to leave")));
    };
    net.node(user).batches.exit(wish.registration).await.map_err(failed)?;
    let mut path: HashSet<Txid> = HashSet::new();
    let mut levels = 0;
    loop {
        let mut waiting = None;
        until("the next transaction of the path", async || {
            let unroll = net.node(user).unroller.unroll(funding);
            let Some(unroll) = unroll else { return true };
            levels = unroll.levels;
            match unroll.state {
                UnrollState::Publishing { txid, child, .. } if !path.contains(&txid) => {
                    waiting = Some(txid);
                    net.chain.knows(txid).await.unwrap_or(false)
                        && net.chain.knows(child).await.unwrap_or(false)
                }
                UnrollState::OnChain { .. } => {
                    waiting = None;
                    true
                }
                _ => false,
            }
        })
        .await?;
        let Some(txid) = waiting else { break };
        path.insert(txid);
        net.mine(1).await.map_err(failed)?;
    }
    progress.say(&format!("{user} closes its channel alone"));
    net.node(user).channels.close(channel, true, None, None).await.map_err(failed)?;
    mine_until(net, "the money of a channel closed alone", async |net| {
        let node = net.node(user);
        node.lightning.channels().iter().all(|live| live.channel != channel)
            && node.lightning.pending_balances().is_empty()
    })
    .await?;
    let vbytes = exit_vbytes(net, user, from, path, funding).await?;
    Ok(ExitReport { levels, vbytes })
}

/// The wallets whose channels are still off the chain. One transaction of the tree funds several
/// channels: who leaves takes these neighbours along, into ordinary channels.
pub async fn still_in(net: &Cluster, users: &[String]) -> Result<Vec<String>, CliError> {
    let mut rest = Vec::new();
    for user in users {
        if let UserPhase::Leaf(LeafState::Confirmed { .. }) = first_wish(net, user).await?.state {
            rest.push(user.clone());
        }
    }
    Ok(rest)
}

/// What became of a batch at its end.
#[derive(Default)]
pub struct Ended {
    /// Wallets that are in the next batch, and out of this one.
    pub rolled_over: usize,
    /// Channels that the hub took back.
    pub settled: usize,
    /// What that put on chain.
    pub settlement_vbytes: u64,
}

/// Lets `users` roll over in the second half of the batch's life, and the hub take back what they
/// leave behind.
pub async fn end(
    net: &mut Cluster,
    users: &[String],
    progress: &Progress,
) -> Result<Ended, CliError> {
    let Some(user) = users.first() else { return Ok(Ended::default()) };
    let wish = first_wish(net, user).await?;
    let (Some(batch), Some(expiry)) = (wish.batch, wish.expiry) else {
        return Err(failed("a wish without a batch"));
    };
    let before = net.on_chain().await.map_err(failed)?.vbytes;
    let (rolled_over, next_vbytes) =
        roll_over(net, users, expiry.to_consensus_u32(), progress).await?;
    progress.say("the hub takes the first batch back");
    let mut settled = 0;
    mine_until(net, "the settlement", async |net| {
        let settlement = net.node(HUB).batches.settlement(batch).await;
        settlement.is_some_and(|settlement| {
            settled = settlement.released.len();
            settlement.phase == HubPhase::Settled
        })
    })
    .await?;
    let after = net.on_chain().await.map_err(failed)?.vbytes;
    Ok(Ended { rolled_over, settled, settlement_vbytes: after - before - next_vbytes })
}

/// Mines into the second half of the life of the batch that expires at `expiry`; waits until
/// `users` are in the next one and out of this. Returns how many are, and the size of the next batch transaction.
async fn roll_over(
    net: &mut Cluster,
    users: &[String],
    expiry: u32,
    progress: &Progress,
) -> Result<(usize, u64), CliError> {
    progress.say("the second half of the batch's life begins: wallets join the next one");
    let half = (expiry - LIFE_BLOCKS / 2 + DEPTH)
        .saturating_sub(net.chain.tip().await.map_err(failed)?.height);
    net.mine(half).await.map_err(failed)?;
    let mut next_vbytes = 0;
    until("the next batch transaction", async || {
        let batches = net.node(HUB).batches.batches().await;
        let next = batches.iter().find(|batch| batch.phase == HubPhase::Confirming);
        let Some(txid) = next.and_then(|batch| batch.txid) else { return false };
        match net.chain.source().mempool_transaction(txid).await {
            Ok(Some(transaction)) => {
                next_vbytes = transaction.vsize() as u64;
                true
            }
            _ => false,
        }
    })
    .await?;
    net.mine(DEPTH).await.map_err(failed)?;
    progress.say("balances move into the next batch");
    // What fails is tried again at the next block; while all goes well, none is needed.
    let (mut rolled_over, mut moved, mut blocks) = (0, Instant::now(), 0);
    while rolled_over < users.len() {
        let mut out = 0;
        for user in users {
            let state = first_wish(net, user).await?.state;
            out += usize::from(state == UserPhase::Leaf(LeafState::Retired));
        }
        if out > rolled_over {
            (rolled_over, moved) = (out, Instant::now());
        } else if moved.elapsed() > STALL {
            if blocks == STALLS_MAX {
                let all = users.len();
                return Err(failed(format_args!("only {rolled_over} of {all} rolled over")));
            }
            net.mine(1).await.map_err(failed)?;
            (blocks, moved) = (blocks + 1, Instant::now());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok((rolled_over, next_vbytes))
}

/// The wish that was made by hand.
async fn first_wish(net: &Cluster, user: &str) -> Result<JoinView, CliError> {
    let mut wishes = net.node(user).batches.joins().await.into_iter();
    let first = wishes.find(|wish| wish.follows.is_none());
    first.ok_or_else(|| CliError::Failed(format!("{user} joined no batch")))
}

async fn mine_until(
    net: &mut Cluster,
    what: &str,
    mut done: impl AsyncFnMut(&Cluster) -> bool,
) -> Result<(), CliError> {
    for _ in 0..STRIDES_MAX {
        if done(net).await {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        if done(net).await {
            return Ok(());
        }
        net.mine(STRIDE).await.map_err(failed)?;
    }
    Err(CliError::Failed(format!("{what} did not come within {} blocks", STRIDE * STRIDES_MAX)))
}

/// What it took `user` on chain: the path, what paid for it, the commitment, and the claims of
/// its own money.
async fn exit_vbytes(
    net: &Cluster,
    user: &str,
    from: u32,
    path: HashSet<Txid>,
    funding: OutPoint,
) -> Result<u64, CliError> {
    let source = net.chain.source();
    let tip = net.chain.tip().await.map_err(failed)?.height;
    let mut counted: HashSet<Txid> = HashSet::new();
    let mut vbytes = 0;
    for height in from + 1..=tip {
        let Some(hash) = source.block_hash(height).await.map_err(failed)? else { break };
        for transaction in &source.block(hash).await.map_err(failed)?.txdata {
            let txid = transaction.compute_txid();
            let spends = |of: &dyn Fn(&OutPoint) -> bool| {
                transaction.input.iter().any(|input| of(&input.previous_output))
            };
            let follows =
                spends(&|spent| counted.contains(&spent.txid) || path.contains(&spent.txid));
            let pays_home = transaction
                .output
                .iter()
                .any(|output| net.node(user).wallet.owns(&output.script_pubkey));
            if path.contains(&txid) || spends(&|spent| *spent == funding) || follows && pays_home {
                counted.insert(txid);
                vbytes += transaction.vsize() as u64;
            }
        }
    }
    Ok(vbytes)
}
