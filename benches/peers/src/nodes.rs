//! A line of ldk-node nodes: built, funded, joined by channels, and the payments between its ends.
//!
//! Each node has its own store, its own runtime and its own listener on loopback, as if it were
//! alone in the process. A thread for each node takes its events and confirms them, as ldk-node
//! asks of every program that uses it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ldk_node::bitcoin::Network;
use ldk_node::bitcoin::secp256k1::PublicKey;
use ldk_node::config::Config;
use ldk_node::lightning::ln::channelmanager::PaymentId;
use ldk_node::lightning::ln::msgs::SocketAddress;
use ldk_node::lightning_invoice::{Bolt11InvoiceDescription, Description};
use ldk_node::logger::LogLevel;
use ldk_node::{Builder, Event, Node, NodeError};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::bitcoind::{self, Bitcoind, free_address};
use crate::{Failure, PATIENCE, Store, until};

/// HTLCs that `ldk-node` lets a channel carry. It fails what comes beyond, and stores each
/// failure; whoever uses it has to hold payments back, and so do the payers here.
const SLOTS: usize = 50;
/// What every channel holds, all of it on the opener's side; the most that it opens without
/// large channels switched on is 16,777,215 sat.
const CAPACITY_SAT: u64 = 16_000_000;
/// Stays in each wallet: fees, and the reserve that ldk-node keeps for each anchor channel.
const SPARE_SAT: u64 = 1_000_000;
/// Blocks until a coinbase output may be spent.
const MATURITY: u32 = 100;
/// Blocks until a channel is announced.
const ANNOUNCED: u32 = 6;
/// After a failed payment, so that a payer without a free slot is no busy loop.
const PAUSE: Duration = Duration::from_millis(5);
/// How long gossip may take before the nodes connect anew, which makes them ask for all of it.
const GOSSIP_WAIT: Duration = Duration::from_secs(10);
/// How long an event thread sleeps before it looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);
const INVOICE_EXPIRY_SECS: u32 = 3_600;

/// Running nodes, each with a channel to the next. Dropping it stops them.
pub(crate) struct Line {
    nodes: Vec<Arc<Node>>,
    outcomes: Arc<Outcomes>,
    stop: Arc<AtomicBool>,
    pumps: Vec<JoinHandle<()>>,
}

impl Line {
    /// Builds and starts `count` nodes with stores below `dir`. `runtime` waits for their events.
    ///
    /// Must be called outside of a runtime: else the nodes would share it.
    ///
    /// # Errors
    ///
    /// If a node cannot be built or does not start.
    pub(crate) fn start(
        count: u8,
        store: Store,
        dir: &Path,
        chain: &Bitcoind,
        runtime: &Runtime,
    ) -> Result<Self, Failure> {
        let mut line = Self {
            nodes: Vec::new(),
            outcomes: Arc::default(),
            stop: Arc::default(),
            pumps: Vec::new(),
        };
        for number in 0..count {
            let name = format!("n{number}");
            let node = Arc::new(build(&name, store, &dir.join(&name), chain)?);
            node.start().map_err(|error| format!("{name} does not start: {error}"))?;
            line.nodes.push(Arc::clone(&node));
            let (outcomes, stop) = (Arc::clone(&line.outcomes), Arc::clone(&line.stop));
            let handle = runtime.handle().clone();
            let pump = std::thread::Builder::new().name(name);
            line.pumps.push(pump.spawn(move || take_events(&node, &handle, &outcomes, &stop))?);
        }
        Ok(line)
    }

    /// Gives each wallet the reward of one block, and makes it spendable.
    ///
    /// # Errors
    ///
    /// If the chain refuses, or a wallet does not count it in time.
    pub(crate) fn fund(&self, chain: &Bitcoind) -> Result<(), Failure> {
        for node in &self.nodes {
            chain.mine_to(&node.onchain_payment().new_address()?.to_string(), 1)?;
        }
        chain.mine(MATURITY)?;
        until("spendable coins", || {
            let spendable = |node: &Arc<Node>| node.list_balances().spendable_onchain_balance_sats;
            Ok(self.nodes.iter().all(|node| spendable(node) >= CAPACITY_SAT + SPARE_SAT))
        })
    }

    /// Opens one public channel from each node to the next and waits until every node can use its
    /// own and the first knows all of them.
    ///
    /// # Errors
    ///
    /// If a node refuses, or a channel is not usable in time.
    pub(crate) fn open(&self, chain: &Bitcoind) -> Result<(), Failure> {
        let channels = self.nodes.len() - 1;
        for pair in self.nodes.windows(2) {
            let (payee, address) = whereabouts(&pair[1])?;
            pair[0].open_announced_channel(payee, address, CAPACITY_SAT, None, None)?;
        }
        until("funding transactions", || Ok(chain.mempool_size()? == channels))?;
        chain.mine(ANNOUNCED)?;
        until("usable channels", || {
            let usable = |node: &Arc<Node>| {
                node.list_channels().iter().filter(|channel| channel.is_usable).count()
            };
            Ok(self.nodes.iter().map(usable).sum::<usize>() == 2 * channels)
        })?;
        let mut asked = Instant::now();
        until("gossip about the channels", || {
            if asked.elapsed() > GOSSIP_WAIT {
                self.reconnect()?;
                asked = Instant::now();
            }
            let graph = self.nodes[0].network_graph();
            let known = graph.list_channels().into_iter().filter_map(|id| graph.channel(id));
            let both_ways = known.filter(|c| c.one_to_two.is_some() && c.two_to_one.is_some());
            Ok(both_ways.count() == channels)
        })
    }

    /// Every node leaves the next and connects to it again.
    fn reconnect(&self) -> Result<(), Failure> {
        for pair in self.nodes.windows(2) {
            let (next, address) = whereabouts(&pair[1])?;
            pair[0].disconnect(next)?;
            pair[0].connect(next, address, true)?;
        }
        Ok(())
    }

    /// A payer from the first node to the last.
    pub(crate) fn payer(&self, amount_msat: u64) -> Payer {
        let last = self.nodes.len() - 1;
        Payer {
            from: Arc::clone(&self.nodes[0]),
            to: Arc::clone(&self.nodes[last]),
            outcomes: Arc::clone(&self.outcomes),
            amount_msat,
            by_invoice: last > 1,
            slots: Arc::new(Semaphore::new(SLOTS)),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for pump in self.pumps.drain(..) {
            let _ = pump.join();
        }
        for node in &self.nodes {
            if let Err(error) = node.stop() {
                eprintln!("peers: a node does not stop: {error}");
            }
        }
    }
}

fn build(name: &str, store: Store, dir: &Path, chain: &Bitcoind) -> Result<Node, Failure> {
    let config = Config {
        storage_dir_path: dir.to_str().ok_or("the temporary directory is not UTF-8")?.to_owned(),
        network: Network::Regtest,
        listening_addresses: Some(vec![SocketAddress::from(free_address()?)]),
        ..Config::default()
    };
    let mut builder = Builder::from_config(config);
    builder.set_node_alias(name.to_owned())?;
    builder.set_gossip_source_p2p();
    // The default is a debug log, which would be measured with the rest.
    builder.set_filesystem_logger(None, Some(LogLevel::Warn));
    let rpc = chain.rpc();
    builder.set_chain_source_bitcoind_rpc(
        rpc.ip().to_string(),
        rpc.port(),
        bitcoind::USER.to_owned(),
        bitcoind::PASSWORD.to_owned(),
    );
    let built = match store {
        Store::Sqlite => builder.build(),
        Store::Files => builder.build_with_fs_store(),
    };
    built.map_err(|error| format!("{name} cannot be built: {error}").into())
}

fn whereabouts(node: &Node) -> Result<(PublicKey, SocketAddress), Failure> {
    let address = node.listening_addresses().and_then(|all| all.first().cloned());
    Ok((node.node_id(), address.ok_or("a node has no address")?))
}

/// How payments ended, from the event thread to the payers.
#[derive(Default)]
struct Outcomes(Mutex<HashMap<PaymentId, Outcome>>);

enum Outcome {
    /// Someone waits for it.
    Awaited(oneshot::Sender<bool>),
    /// It came before the payer knew the payment's id.
    Early(bool),
}

impl Outcomes {
    fn set(&self, id: PaymentId, succeeded: bool) {
        let mut all = self.lock();
        match all.remove(&id) {
            // A payer that is gone has failed, and says so itself.
            Some(Outcome::Awaited(payer)) => {
                let _ = payer.send(succeeded);
            }
            Some(Outcome::Early(_)) | None => {
                all.insert(id, Outcome::Early(succeeded));
            }
        }
    }

    async fn of(&self, id: PaymentId) -> Result<bool, Failure> {
        let outcome = {
            let mut all = self.lock();
            if let Some(Outcome::Early(succeeded)) = all.remove(&id) {
                return Ok(succeeded);
            }
            let (sender, receiver) = oneshot::channel();
            all.insert(id, Outcome::Awaited(sender));
            receiver
        };
        let late = || format!("a payment had no outcome within {} s", PATIENCE.as_secs());
        Ok(timeout(PATIENCE, outcome).await.map_err(|_| late())??)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PaymentId, Outcome>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn take_events(node: &Node, runtime: &Handle, outcomes: &Outcomes, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let next = runtime.block_on(async { timeout(LOOK, node.next_event_async()).await });
        match next {
            Ok(Event::PaymentSuccessful { payment_id: Some(id), .. }) => outcomes.set(id, true),
            Ok(Event::PaymentFailed { payment_id: Some(id), .. }) => outcomes.set(id, false),
            Ok(Event::ChannelClosed { reason, .. }) => {
                eprintln!("peers: a channel was closed: {reason:?}");
            }
            Ok(_) => {}
            Err(_) => continue,
        }
        if let Err(error) = node.event_handled() {
            eprintln!("peers: an event cannot be confirmed: {error}");
            return;
        }
    }
}

/// Pays from one end of the line to the other.
#[derive(Clone)]
pub(crate) struct Payer {
    from: Arc<Node>,
    to: Arc<Node>,
    outcomes: Arc<Outcomes>,
    amount_msat: u64,
    by_invoice: bool,
    slots: Arc<Semaphore>,
}

impl Payer {
    /// Pays one payment after the other until `until`. Returns how long each success took, and
    /// how many failed.
    ///
    /// # Errors
    ///
    /// If there is no invoice, or a payment neither succeeds nor fails in time.
    pub(crate) async fn pay_until(self, until: Instant) -> Result<(Vec<Duration>, u64), Failure> {
        let (mut times, mut failed) = (Vec::new(), 0);
        while Instant::now() < until {
            if let Some(time) = self.pay().await? {
                times.push(time);
            } else {
                failed += 1;
                sleep(PAUSE).await;
            }
        }
        Ok((times, failed))
    }

    fn has_room(&self) -> bool {
        let channels = self.from.list_channels();
        channels.iter().any(|channel| channel.next_outbound_htlc_limit_msat >= self.amount_msat)
    }

    /// Pays once, when the channel has a free slot. Returns how long it took from then on, none
    /// if it failed.
    async fn pay(&self) -> Result<Option<Duration>, Failure> {
        let _slot = self.slots.acquire().await?;
        // A payment that has ended holds its slot until both commitments are without it.
        while !self.has_room() {
            sleep(PAUSE).await;
        }
        let began;
        let sent: Result<PaymentId, NodeError> = if self.by_invoice {
            let text = Bolt11InvoiceDescription::Direct(Description::empty());
            let receive = self.to.bolt11_payment();
            let invoice = receive.receive(self.amount_msat, &text, INVOICE_EXPIRY_SECS)?;
            began = Instant::now();
            self.from.bolt11_payment().send(&invoice, None)
        } else {
            began = Instant::now();
            self.from.spontaneous_payment().send(self.amount_msat, self.to.node_id(), None)
        };
        match sent {
            Ok(id) => Ok(self.outcomes.of(id).await?.then(|| began.elapsed())),
            Err(NodeError::PaymentSendingFailed) => Ok(None),
            Err(error) => Err(format!("a payment cannot be sent: {error}").into()),
        }
    }
}
