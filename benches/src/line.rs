//! A line of node processes, of which the first pays the last.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::Amount;
use futures::future::try_join_all;
use node::dev::DevChain;
use node::keys::SealCost;
use node::runtime::Tasks;
use proto::v1 as pb;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use tokio::time::Instant;

use crate::process::{self, Door, NodeProcess, Usage, until};
use crate::{Failure, Figures, Run, percentile_ms};

/// What every wallet gets, and every channel holds of it.
const FUNDS: Amount = Amount::from_sat(1_000_000_000);
const CAPACITY_SAT: u64 = 500_000_000;
/// A payer whose payment failed waits this long: a failure must not become a busy loop.
const AFTER_FAILURE: Duration = Duration::from_millis(5);

/// Nodes in a line, their channels open and their routes known.
pub struct Line {
    nodes: Vec<NodeProcess>,
    doors: Vec<Door>,
    payee: Vec<u8>,
    amount_msat: u64,
    next: AtomicU64,
    paid_msat: AtomicU64,
    chain: DevChain,
    _dir: tempfile::TempDir,
    tasks: Tasks,
}

/// When a measurement ends.
#[derive(Debug, Clone, Copy)]
pub enum Until {
    /// After this time.
    Elapsed(Duration),
    /// After this many payments that arrived.
    Payments(u64),
}

/// What the nodes' processes had used at one moment.
#[derive(Clone, Copy, Default)]
struct Used {
    usage: Usage,
    commits: u64,
}

impl Line {
    /// Starts `nodes` processes of the `tributary` beside this program and opens a channel from
    /// each to the next, announced if there is a hub.
    ///
    /// # Errors
    ///
    /// If the program is not built, or a node does not do what it should.
    pub async fn start(nodes: u8, amount_msat: u64) -> Result<Self, Failure> {
        let exe = process::tributary()?;
        let dir = tempfile::tempdir()?;
        let tasks = Tasks::new();
        let chain = DevChain::embedded();
        let chain_rpc = format!("http://{}", chain.serve(&tasks).await?);
        let nodes = (0..nodes)
            .map(|number| {
                let cost = SealCost::insecure_for_tests();
                NodeProcess::create(&exe, dir.path(), &format!("n{number}"), &chain_rpc, cost)
            })
            .collect::<Result<Vec<_>, _>>()?;
        for node in &nodes {
            process::fund(&chain, node, FUNDS, 1).await?;
        }
        let announce = nodes.len() > 2;
        for pair in nodes.windows(2) {
            process::open(&chain, &pair[0], &pair[1], CAPACITY_SAT, 1, announce).await?;
        }
        let doors = try_join_all(nodes.iter().map(NodeProcess::door)).await?;
        let payee = nodes[nodes.len() - 1].node_id().await?;
        let line = Self {
            nodes,
            doors,
            payee,
            amount_msat,
            next: AtomicU64::new(0),
            paid_msat: AtomicU64::new(0),
            chain,
            _dir: dir,
            tasks,
        };
        // Gossip takes its time: the first payment that arrives shows that the route is known.
        until("a first payment", async || Ok(line.pay().await?.is_some())).await?;
        Ok(line)
    }

    /// The chain that the nodes follow.
    pub fn chain(&self) -> &DevChain {
        &self.chain
    }

    /// The nodes' APIs, the payer's first.
    pub fn doors(&self) -> &[Door] {
        &self.doors
    }

    /// Mines a block every `period` from now on.
    pub fn mine_every(&self, period: Duration) {
        let (chain, tasks) = (self.chain.clone(), self.tasks.clone());
        self.tasks.spawn("miner", async move {
            while tokio::time::timeout(period, tasks.stopped()).await.is_err() {
                if let Err(error) = chain.mine(1).await {
                    eprintln!("no block was mined: {error}");
                }
            }
        });
    }

    /// Pays once. Returns how long it took, or `None` if the payment failed.
    async fn pay(&self) -> Result<Option<Duration>, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let keysend = pb::Keysend { node_id: self.payee.clone(), ..pb::Keysend::default() };
        let request = pb::PayRequest {
            idempotency_key: format!("payment-{number}"),
            target: Some(pb::pay_request::Target::Keysend(keysend)),
            amount_msat: Some(self.amount_msat),
            wait: pb::PayWait::Wait.into(),
            ..pb::PayRequest::default()
        };
        let mut payments = PaymentsClient::new(self.doors[0].clone());
        let began = Instant::now();
        let payment = match payments.pay(request).await {
            Ok(payment) => payment.into_inner(),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => return Ok(None),
            Err(status) => return Err(status.into()),
        };
        if payment.state != i32::from(pb::PaymentState::Succeeded) {
            return Ok(None);
        }
        let fee_msat = payment.fee_msat.unwrap_or_default();
        self.paid_msat.fetch_add(self.amount_msat + fee_msat, Ordering::Relaxed);
        Ok(Some(began.elapsed()))
    }

    /// Keeps `in_flight` payments under way until `end`.
    ///
    /// # Errors
    ///
    /// If a node does not answer.
    pub async fn measure(&self, in_flight: u32, end: Until) -> Result<Figures, Failure> {
        let failed = AtomicU64::new(0);
        let arrived = AtomicU64::new(0);
        let before = self.used().await?;
        let began = Instant::now();
        let payers = (0..in_flight).map(|_| async {
            let mut times = Vec::new();
            let goes_on = || match end {
                Until::Elapsed(time) => began.elapsed() < time,
                Until::Payments(count) => arrived.load(Ordering::Relaxed) < count,
            };
            while goes_on() {
                match self.pay().await? {
                    Some(time) => {
                        arrived.fetch_add(1, Ordering::Relaxed);
                        times.push(time);
                    }
                    None => {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(AFTER_FAILURE).await;
                    }
                }
            }
            Ok::<_, Failure>(times)
        });
        let mut times = try_join_all(payers).await?.concat();
        let elapsed = began.elapsed();
        let after = self.used().await?;
        times.sort_unstable();
        let per_payment = |sum: f64| sum / times.len().max(1) as f64;
        Ok(Figures {
            program: format!("tributary {}", env!("CARGO_PKG_VERSION")),
            run: Run {
                nodes: self.nodes.len() as u8,
                in_flight,
                amount_msat: self.amount_msat,
                seconds: elapsed.as_secs(),
            },
            payments: times.len() as u64,
            failed: failed.into_inner(),
            payments_per_second: times.len() as f64 / elapsed.as_secs_f64(),
            p50_ms: percentile_ms(&times, 50),
            p99_ms: percentile_ms(&times, 99),
            fsyncs_per_payment: Some(per_payment((after.commits - before.commits) as f64)),
            disk_bytes_per_payment: Some(per_payment(
                (after.usage.disk_bytes - before.usage.disk_bytes) as f64,
            )),
            cpu_ms_per_payment: per_payment(
                (after.usage.cpu - before.usage.cpu).as_secs_f64() * 1_000.0,
            ),
        })
    }

    /// Whether the channels hold, to the millisatoshi, what the payments say.
    ///
    /// # Errors
    ///
    /// If a node does not answer, or HTLCs do not end.
    pub async fn conserved(&self) -> Result<bool, Failure> {
        let first = (&self.nodes[0], &self.doors[0]);
        let mut gone = 0;
        until("an end of all HTLCs and splices", async || {
            let channels = first.0.channels(first.1).await?;
            let sum = |of: fn(&pb::Channel) -> u64| channels.iter().map(of).sum::<u64>();
            // A splice that renews the channel takes a little of its capacity to the wallet.
            let capacity = sum(|channel| channel.capacity_sat * 1_000);
            gone = capacity.saturating_sub(sum(|channel| channel.holder_balance_msat));
            Ok(channels.iter().all(|channel| {
                channel.htlcs_offered + channel.htlcs_received == 0 && channel.splice_txid.is_none()
            }))
        })
        .await?;
        Ok(gone == self.paid_msat.load(Ordering::Relaxed))
    }

    async fn used(&self) -> Result<Used, Failure> {
        let mut sum = Used::default();
        for (node, door) in self.nodes.iter().zip(&self.doors) {
            let usage = node.usage()?;
            sum.usage.cpu += usage.cpu;
            sum.usage.disk_bytes += usage.disk_bytes;
            let info = NodeClient::new(door.clone()).get_info(pb::GetInfoRequest {}).await?;
            sum.commits += info.into_inner().store.unwrap_or_default().commits;
        }
        Ok(sum)
    }

    /// Memory resident in all nodes, bytes.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub fn resident_bytes(&self) -> Result<Vec<u64>, Failure> {
        self.nodes.iter().map(|node| Ok(node.memory()?.resident)).collect()
    }

    /// Bytes of each node's store.
    ///
    /// # Errors
    ///
    /// If a directory cannot be read.
    pub fn data_bytes(&self) -> Result<Vec<u64>, Failure> {
        self.nodes.iter().map(NodeProcess::data_bytes).collect()
    }

    /// Ends the chain's server. The nodes are killed when the line is dropped.
    pub async fn stop(self) {
        self.tasks.stop().await;
    }
}
