//! Three nodes with coins, a channel and a tower, and what is asked of them beside the test.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bdk_wallet::KeychainKind;
use bitcoin::Network;
use node::dev::DevChain;
use node::keys::Keys;
use node::runtime::Tasks;
use proto::v1::channels_client::ChannelsClient;
use proto::v1::events_client::EventsClient;
use proto::v1::payments_client::PaymentsClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::{self as pb};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::RwLock;

use crate::callers::Line;
use crate::process::{
    self, Door, Process, Root, channels, free_address, fund, info, make, open, wait_until,
};
use crate::receiver::Receiver;

/// Who pays, and is asked most.
pub const ALICE: usize = 0;
/// Who is paid, and is a tower.
pub const BOB: usize = 1;
/// Who forms batches.
pub const HUB: usize = 2;

const NAMES: [&str; 3] = ["alice", "bob", "hub"];
const COIN_SAT: u64 = 10_000_000;
const CAPACITY_SAT: u64 = 5_000_000;
/// The password that `make` gives every node.
const PASSWORD: &str = "kill dash nine";
/// How far the order of addresses is looked at.
const ADDRESSES_MAX: u32 = 2_000;

pub struct World {
    pub chain: DevChain,
    pub nodes: [Arc<RwLock<Process>>; 3],
    pub receiver: Receiver,
    /// `host:port` of bob's tower.
    pub tower: String,
    pub callers: usize,
    pub rng: Mutex<StdRng>,
    pub lines: Mutex<Vec<Line>>,
    next: AtomicU64,
    // Dropped last: the nodes' directories, and what serves the chain.
    pub tasks: Tasks,
    _root: Root,
}

impl World {
    pub async fn new(seed: u64, callers: usize) -> Self {
        let root = Root::new();
        let tasks = Tasks::new();
        let chain = DevChain::embedded();
        let chain_rpc = format!("http://{}", chain.serve(&tasks).await.unwrap());
        let tower = free_address();
        let settings = [
            "[webhook]\nallow_private = true\nretry_first_ms = 50\n\n[payouts]\nretry_first_ms = 100\n"
                .to_owned(),
            format!("[tower]\nlisten = {tower:?}\n"),
            "[batch]\nrole = \"hub\"\ngathering_ms = 300\nswap_patience_blocks = 0\n".to_owned(),
        ];
        let mut processes = Vec::new();
        for (name, settings) in NAMES.into_iter().zip(settings) {
            let mut process = make(name, root.path(), &chain_rpc);
            std::fs::write(process.dir.join("config.toml"), settings).unwrap();
            process.start();
            processes.push(process);
        }
        chain.mine(1).await.unwrap();
        for _ in 0..2 {
            fund(&chain, &processes.iter().collect::<Vec<_>>(), COIN_SAT).await;
        }
        open(&chain, &processes[ALICE], &processes[BOB], CAPACITY_SAT).await;
        let nodes = <[Process; 3]>::try_from(processes).ok().unwrap();
        let nodes = nodes.map(|process| Arc::new(RwLock::new(process)));
        Self {
            chain,
            nodes,
            receiver: Receiver::new().await,
            tower,
            callers,
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            lines: Mutex::default(),
            next: AtomicU64::new(0),
            tasks,
            _root: root,
        }
    }

    pub async fn door(&self, who: usize) -> Door {
        self.nodes[who].read().await.door().await
    }

    /// A name that nothing else has.
    pub fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        self.rng.lock().unwrap().random()
    }

    /// An amount that nothing else has.
    pub fn amount_msat(&self) -> u64 {
        100_000 + self.next.fetch_add(1, Ordering::Relaxed) * 7
    }

    pub async fn id(&self, who: usize) -> Vec<u8> {
        info(&*self.nodes[who].read().await).await.node_id
    }

    pub async fn address(&self, who: usize) -> String {
        self.nodes[who].read().await.p2p.clone()
    }

    pub async fn channels(&self, who: usize) -> Vec<pb::Channel> {
        channels(&*self.nodes[who].read().await).await
    }

    /// Mines, and waits until all have seen it.
    pub async fn mine(&self, blocks: u32) {
        self.chain.mine(blocks).await.unwrap();
        self.synced().await;
    }

    pub async fn synced(&self) {
        let height = self.chain.tip().await.unwrap().height;
        for node in &self.nodes {
            wait_until("the tip", || async {
                let chain = info(&*node.read().await).await.chain.unwrap();
                chain.synced && chain.block_height == height
            })
            .await;
        }
    }

    /// Mines the transactions that wait, if there are any.
    pub async fn mine_what_waits(&self) {
        if !self.chain.source().mempool().await.unwrap().is_empty() {
            self.mine(3).await;
        }
    }

    /// Waits until all nodes follow the chain, and alice can pay bob.
    pub async fn ready(&self) {
        self.synced().await;
        wait_until("a channel to pay over", || async {
            let mut is_ready = true;
            for (who, peer) in [(ALICE, BOB), (BOB, ALICE)] {
                let peer = self.id(peer).await;
                is_ready &= self.channels(who).await.iter().any(|channel| {
                    channel.counterparty_node_id == peer
                        && channel.capacity_sat == CAPACITY_SAT
                        && channel.state() == pb::ChannelState::Active
                });
            }
            is_ready
        })
        .await;
        self.quiet().await;
    }

    /// Waits until no payment is under way between alice and bob.
    pub async fn quiet(&self) {
        wait_until("quiet channels", || async {
            let all = [self.channels(ALICE).await, self.channels(BOB).await].concat();
            all.iter().all(|channel| channel.htlcs_offered == 0 && channel.htlcs_received == 0)
        })
        .await;
    }

    /// What one node has in channels with another that are not closed, once nothing is under way.
    pub async fn balance_msat(&self, who: usize, peer: usize) -> u64 {
        self.quiet().await;
        let peer = self.id(peer).await;
        let channels = self.channels(who).await;
        let open = channels.iter().filter(|channel| {
            channel.counterparty_node_id == peer
                && matches!(channel.state(), pb::ChannelState::Active | pb::ChannelState::Inactive)
        });
        open.map(|channel| channel.holder_balance_msat).sum()
    }

    pub async fn payments(&self, who: usize) -> Vec<pb::Payment> {
        let mut client = PaymentsClient::new(self.door(who).await);
        let request = pb::ListPaymentsRequest {
            page_size: Some(1_000),
            ..pb::ListPaymentsRequest::default()
        };
        client.list_payments(request).await.unwrap().into_inner().payments
    }

    pub async fn invoices(&self, who: usize) -> Vec<pb::Invoice> {
        let mut client = PaymentsClient::new(self.door(who).await);
        let request = pb::ListInvoicesRequest {
            page_size: Some(1_000),
            ..pb::ListInvoicesRequest::default()
        };
        client.list_invoices(request).await.unwrap().into_inner().invoices
    }

    pub async fn transactions(&self, who: usize) -> Vec<pb::WalletTransaction> {
        let mut client = WalletClient::new(self.door(who).await);
        let request = pb::ListTransactionsRequest {
            page_size: Some(1_000),
            ..pb::ListTransactionsRequest::default()
        };
        client.list_transactions(request).await.unwrap().into_inner().transactions
    }

    /// Transactions of a node's wallet that are for this.
    pub async fn count_of(&self, who: usize, purpose: pb::TransactionPurpose) -> usize {
        let all = self.transactions(who).await;
        all.iter().filter(|transaction| transaction.purpose() == purpose).count()
    }

    pub async fn newest_event(&self, who: usize) -> u64 {
        info(&*self.nodes[who].read().await).await.newest_event_sequence
    }

    /// Events of one kind after a place in the log.
    pub async fn events(&self, who: usize, kind: pb::EventKind, after: u64) -> Vec<pb::Event> {
        let mut client = EventsClient::new(self.door(who).await);
        let request = pb::ListEventsRequest {
            after_sequence: Some(after),
            kinds: vec![kind.into()],
            page_size: Some(1_000),
            ..pb::ListEventsRequest::default()
        };
        client.list(request).await.unwrap().into_inner().events
    }

    pub async fn channel(&self, who: usize, record_id: &[u8]) -> pb::Channel {
        let mut client = ChannelsClient::new(self.door(who).await);
        let request = pb::GetChannelRequest { record_id: record_id.to_vec() };
        client.get(request).await.unwrap().into_inner()
    }

    pub async fn new_address(&self, who: usize) -> String {
        let mut client = WalletClient::new(self.door(who).await);
        let request = pb::NewAddressRequest { idempotency_key: self.name("address") };
        client.new_address(request).await.unwrap().into_inner().address
    }

    /// The place of an address in the order in which a wallet gives them out, reckoned from the
    /// node's seed.
    pub async fn address_index(&self, who: usize, address: &str) -> u32 {
        let dir = self.nodes[who].read().await.dir.clone();
        let keys = Keys::unlock(&dir, Network::Regtest, PASSWORD).unwrap();
        let wallet = bdk_wallet::Wallet::create_single(keys.wallet_descriptors().external)
            .network(Network::Regtest)
            .create_wallet_no_persist()
            .unwrap();
        let is_it = |index: &u32| {
            wallet.peek_address(KeychainKind::External, *index).address.to_string() == address
        };
        (0..ADDRESSES_MAX).find(is_it).expect("an address of this wallet")
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let head = ["mutation", "before", "after", "broken", "ms"];
        let [method, before, after, broken, took] = head;
        writeln!(text, "{method:<30}{before:>8}{after:>8}{broken:>8}{took:>8}").unwrap();
        for line in self.lines.lock().unwrap().iter() {
            let Line { method, before, after, broken, took } = line;
            let took = took.as_millis();
            writeln!(text, "{method:<30}{before:>8}{after:>8}{broken:>8}{took:>8}").unwrap();
        }
        text
    }

    /// Opens a channel from alice to bob, ready to be used.
    pub async fn open_to_bob(&self, capacity_sat: u64) {
        let (alice, bob) = (self.nodes[ALICE].read().await, self.nodes[BOB].read().await);
        process::open(&self.chain, &alice, &bob, capacity_sat).await;
    }
}
