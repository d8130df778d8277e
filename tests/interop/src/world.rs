//! A chain and the nodes on it, and what every scenario does with them: fund, mine, open, pay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::bitcoind::Bitcoind;
use crate::ldk::Ldk;
use crate::lnd::Lnd;
use crate::ours::Ours;
use crate::party::{Chan, Kind, Opening, Outcome, Party, Target, opens};
use crate::wait::{Failure, PATIENCE, holds, same, until, until_within};

/// A node, whoever wrote it.
pub type Node = Arc<dyn Party>;

/// Coins of each node, one block's reward each: what is being spent does not lock the rest.
const COINS: usize = 4;
/// What a block pays as long as a scenario's chain is short, at least.
const COIN_MIN_SAT: u64 = 2_500_000_000;
/// Blocks after which every program here uses and announces a channel.
const DEPTH: u32 = 6;
/// How long a program may take to follow the chain over some hundred blocks.
const CHAIN_PATIENCE: Duration = Duration::from_secs(180);
/// One program counts in satoshis: what it rounds off may differ by one.
const ROUNDED_MSAT: u64 = 1_000;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// Ours.
    pub tributary: PathBuf,
    /// The chain.
    pub bitcoind: PathBuf,
    /// LND, where it could be built.
    pub lnd: Option<PathBuf>,
    /// The child that embeds ldk-node, where it could be built.
    pub ldk: Option<PathBuf>,
}

/// A chain with nodes.
pub struct World {
    /// The chain.
    pub chain: Bitcoind,
    nodes: Vec<Node>,
}

impl World {
    /// Starts a chain whose miner leaves out what pays less than `block_min_sat_per_vb`, and
    /// `nodes` with coins, below `dir`.
    ///
    /// # Errors
    ///
    /// If a program does not start or follow the chain.
    pub async fn start(
        programs: &Programs,
        dir: &Path,
        nodes: &[(Kind, &str)],
        block_min_sat_per_vb: u64,
    ) -> Result<Self, Failure> {
        std::fs::create_dir_all(dir)?;
        let chain = Bitcoind::start(&programs.bitcoind, dir, block_min_sat_per_vb).await?;
        // A chain without a single block counts as not synced.
        chain.mine(1).await?;
        let mut world = Self { chain, nodes: Vec::new() };
        for &(kind, name) in nodes {
            let node = world.create(programs, dir, kind, name)?;
            start(&node).await?;
            world.nodes.push(node);
        }
        let mut addresses = Vec::new();
        for node in &world.nodes {
            for _ in 0..COINS {
                addresses.push(node.new_address().await?);
            }
        }
        world.chain.endow(&addresses).await?;
        world.followed().await?;
        for node in &world.nodes {
            until(&format!("coins of {}", node.name()), async || {
                Ok(node.confirmed_sat().await? >= COINS as u64 * COIN_MIN_SAT)
            })
            .await?;
        }
        Ok(world)
    }

    fn create(
        &self,
        programs: &Programs,
        dir: &Path,
        kind: Kind,
        name: &str,
    ) -> Result<Node, Failure> {
        let rpc = self.chain.rpc();
        Ok(match kind {
            Kind::Ours => {
                let url = format!("http://{rpc}");
                let exe = &programs.tributary;
                Arc::new(Ours::create(exe, dir, name, &url, &self.chain.cookie()?)?)
            }
            Kind::Lnd => {
                let exe = programs.lnd.as_ref().ok_or("there is no LND")?;
                Arc::new(Lnd::create(exe, dir, name, &rpc.to_string())?)
            }
            Kind::Ldk => {
                let exe = programs.ldk.as_ref().ok_or("there is no ldk-node")?;
                Arc::new(Ldk::create(exe, dir, name, rpc)?)
            }
        })
    }

    /// The node of a name.
    ///
    /// # Panics
    ///
    /// If the world was made without it.
    pub fn node(&self, name: &str) -> Node {
        let node = self.nodes.iter().find(|node| node.name() == name);
        Arc::clone(node.expect("the world was made with it"))
    }

    /// Mines blocks and waits until every node has followed them.
    ///
    /// # Errors
    ///
    /// If the chain refuses or a node does not follow.
    pub async fn mine(&self, count: u32) -> Result<(), Failure> {
        self.chain.mine(count).await?;
        self.followed().await
    }

    /// Waits until every node has followed the chain to its tip.
    ///
    /// # Errors
    ///
    /// If one does not.
    pub async fn followed(&self) -> Result<(), Failure> {
        let height = self.chain.height().await?;
        for node in &self.nodes {
            let what = format!("block {height} at {}", node.name());
            until_within(CHAIN_PATIENCE, &what, async || Ok(node.height().await? >= height))
                .await?;
        }
        Ok(())
    }

    /// Opens a channel and waits until both sides can use it. Returns it as `from` sees it.
    ///
    /// # Errors
    ///
    /// If a side refuses or does not come so far.
    pub async fn open(&self, from: &Node, to: &Node, opening: Opening) -> Result<Chan, Failure> {
        let funding = self.open_unconfirmed(from, to, opening).await?;
        self.mine(DEPTH).await?;
        self.usable(from, to, &funding).await
    }

    /// Begins to open a channel and waits for its funding transaction. Returns the output.
    ///
    /// # Errors
    ///
    /// If a side refuses.
    pub async fn open_unconfirmed(
        &self,
        from: &Node,
        to: &Node,
        opening: Opening,
    ) -> Result<(String, u32), Failure> {
        let peer = to.id().await?;
        let known: Vec<_> = from.channels().await?.into_iter().map(|c| c.funding).collect();
        from.open(&peer, &to.address(), opening).await?;
        let mut funding = None;
        until("a funding transaction", async || {
            let channels = from.channels().await?;
            let fresh = channels.into_iter().filter(|c| c.peer == peer && c.funding.is_some());
            funding = fresh.map(|c| c.funding).find(|f| !known.contains(f)).flatten();
            let Some((txid, _)) = &funding else { return Ok(false) };
            Ok(self.chain.mempool().await?.contains(txid))
        })
        .await?;
        funding.ok_or_else(|| "a channel without funding".into())
    }

    /// Waits until both sides can use the channel. Returns it as `from` sees it.
    ///
    /// # Errors
    ///
    /// If one side cannot in time.
    pub async fn usable(
        &self,
        from: &Node,
        to: &Node,
        funding: &(String, u32),
    ) -> Result<Chan, Failure> {
        for side in [from, to] {
            let what = format!("a usable channel at {}", side.name());
            until(&what, async || Ok(find(side, funding).await?.is_some_and(|c| c.active))).await?;
        }
        find(from, funding).await?.ok_or_else(|| "the channel is gone".into())
    }

    /// Stops every program in order.
    pub async fn stop(&self) {
        for node in &self.nodes {
            node.stop().await;
        }
        self.chain.stop().await;
    }
}

/// Starts a node's process and waits until it answers.
///
/// # Errors
///
/// If it ends, or does not answer in time.
pub async fn start(node: &Node) -> Result<(), Failure> {
    node.spawn().await?;
    until(&format!("an answer of {}", node.name()), async || node.answers().await).await
}

/// The channel with a funding output, as `side` sees it.
///
/// # Errors
///
/// If the node does not answer.
pub async fn find(side: &Node, funding: &(String, u32)) -> Result<Option<Chan>, Failure> {
    let channels = side.channels().await?;
    Ok(channels.into_iter().find(|channel| channel.funding.as_ref() == Some(funding)))
}

/// What `side` has in its channels with `peer`.
///
/// # Errors
///
/// If the node does not answer.
pub async fn balance_msat(side: &Node, peer: &str) -> Result<u64, Failure> {
    let channels = side.channels().await?;
    Ok(channels.iter().filter(|c| c.peer == peer).map(|c| c.local_msat).sum())
}

/// Balances of two sides of their channels.
#[derive(Debug, Clone, Copy)]
pub struct Balances {
    payer_msat: u64,
    payee_msat: u64,
}

impl Balances {
    /// What two neighbours have now.
    ///
    /// # Errors
    ///
    /// If one does not answer.
    pub async fn of(payer: &Node, payee: &Node) -> Result<Self, Failure> {
        let (payer_id, payee_id) = (payer.id().await?, payee.id().await?);
        Ok(Self {
            payer_msat: balance_msat(payer, &payee_id).await?,
            payee_msat: balance_msat(payee, &payer_id).await?,
        })
    }

    /// The same seen from the other side.
    #[must_use]
    pub fn flipped(self) -> Self {
        Self { payer_msat: self.payee_msat, payee_msat: self.payer_msat }
    }

    /// Waits until `amount_msat` has gone from payer to payee since.
    ///
    /// # Errors
    ///
    /// If it has not in time.
    pub async fn moved(self, payer: &Node, payee: &Node, amount_msat: u64) -> Result<(), Failure> {
        self.moved_within(PATIENCE, payer, payee, amount_msat).await
    }

    /// As [`Balances::moved`], with another deadline.
    ///
    /// # Errors
    ///
    /// As [`Balances::moved`].
    pub async fn moved_within(
        self,
        patience: Duration,
        payer: &Node,
        payee: &Node,
        amount_msat: u64,
    ) -> Result<(), Failure> {
        let mut now = self;
        let paid = until_within(patience, "the balances of both sides", async || {
            now = Self::of(payer, payee).await?;
            let left = now.payer_msat.abs_diff(self.payer_msat.saturating_sub(amount_msat));
            let come = now.payee_msat.abs_diff(self.payee_msat + amount_msat);
            Ok(left <= ROUNDED_MSAT && come <= ROUNDED_MSAT)
        })
        .await;
        paid.map_err(|error| format!("{error}: {self:?}, {now:?}, paid {amount_msat}").into())
    }
}

/// Pays from `payer` to its neighbour `payee` by `target` and checks the proof, the payee's books
/// and both balances. Returns the number of parts, if the payer says.
///
/// # Errors
///
/// If anything is not as it should be.
pub async fn pay_checked(
    payer: &Node,
    payee: &Node,
    target: Target,
    hash: Option<&str>,
    amount_msat: u64,
) -> Result<Option<usize>, Failure> {
    let before = Balances::of(payer, payee).await?;
    let (preimage, fee_msat, parts) = paid(payer.pay(target).await?)?;
    same("fee between neighbours, msat", fee_msat, 0)?;
    match hash {
        Some(hash) => {
            holds(opens(&preimage, hash)?, || format!("{preimage} is no proof for {hash}"))?;
            taken(payee, hash, amount_msat).await?;
        }
        None => {
            let hash = crate::party::hash_of(&preimage)?;
            taken(payee, &hash, amount_msat).await?;
        }
    }
    before.moved(payer, payee, amount_msat).await?;
    Ok(parts)
}

/// Preimage, fee and parts of a payment that must have arrived.
///
/// # Errors
///
/// If it failed.
pub fn paid(outcome: Outcome) -> Result<(String, u64, Option<usize>), Failure> {
    match outcome {
        Outcome::Paid { preimage, fee_msat, parts } => Ok((preimage, fee_msat, parts)),
        Outcome::Failed(why) => Err(format!("the payment failed: {why}").into()),
    }
}

/// Waits until `payee` has taken `amount_msat` for `hash`.
///
/// # Errors
///
/// If it takes another amount, or nothing in time.
pub async fn taken(payee: &Node, hash: &str, amount_msat: u64) -> Result<(), Failure> {
    let mut received = None;
    until_within(PATIENCE, &format!("the payment in the books of {}", payee.name()), async || {
        received = payee.received_msat(hash).await?;
        Ok(received.is_some())
    })
    .await?;
    same("amount in the payee's books, msat", received, Some(amount_msat))
}
