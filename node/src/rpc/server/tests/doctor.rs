//! Real faults, and what the node says of itself.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bitcoin::{Amount, Network};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use channel_contracts::tower::Mode;
use proto::v1;
use proto::v1::CheckSeverity::{Error, Ok as Well};
use proto::v1::node_client::NodeClient;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::whole_figures::{client, until};
use crate::batches::JoinRequest;
use crate::chain::bitcoind::{BitcoindChain, BitcoindConfig, BitcoindEndpoint, RpcAuth};
use crate::config::Config;
use crate::dev::{Cluster, DevChain, NodeOptions, free_port};
use crate::environment::{Clock, Environment, OsEntropy, SystemClock, UnixTime};
use crate::keys::{Keys, RecoveryPhrase, WordCount};
use crate::lightning::InvoiceDescription;
use crate::lightning::types::{PaymentHash, Preimage};
use crate::node::Node;
use crate::observe::doctor::{Check, Severity};
use crate::payments::{CreateInvoice, PayRequest, PayTarget};
use crate::runtime::Tasks;
use crate::store::{Batch, MemoryDisk, MemoryStore, Pair, Store, StoreError, Term, Visit};
use crate::webhooks::NewEndpoint;

/// A clock that is wrong by some seconds: behind.
#[derive(Default)]
struct Behind(AtomicU64);

impl Clock for Behind {
    fn now(&self) -> UnixTime {
        SystemClock.now() - Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// A disk that takes its time, milliseconds for each sync.
struct Slow {
    store: MemoryStore,
    ms: Arc<AtomicU64>,
}

impl Store for Slow {
    fn engine(&self) -> &'static str {
        self.store.engine()
    }
    fn term(&self) -> Term {
        self.store.term()
    }
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }
    fn scan(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.store.scan(from, to, limit)
    }
    fn scan_back(&self, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<Pair>, StoreError> {
        self.store.scan_back(from, to, limit)
    }
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        std::thread::sleep(Duration::from_millis(self.ms.load(Ordering::Relaxed)));
        self.store.commit(batch)
    }
    fn snapshot(&self, visit: Visit<'_>) -> Result<(), StoreError> {
        self.store.snapshot(visit)
    }
    fn disk_bytes(&self) -> u64 {
        self.store.disk_bytes()
    }
}

/// A node by itself, in a world and with settings of the test's choice.
async fn alone(
    chain: &DevChain,
    dir: &Path,
    change: impl FnOnce(&mut Environment, &mut Config),
) -> Node {
    let mut environment = chain.environment(Arc::new(MemoryDisk::new().open()));
    let mut config = Config { data_dir: dir.to_owned(), ..Config::default() };
    config.lightning.listen_addresses = Vec::new();
    config.rpc.listen = "127.0.0.1:0".into();
    change(&mut environment, &mut config);
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
    Node::start(config, keys, environment).await.unwrap()
}

/// One check of a node, as its observer says.
async fn check(node: &Node, name: &str) -> Check {
    let checks = node.observer.diagnose().await;
    checks.into_iter().find(|check| check.name == name).unwrap()
}

#[track_caller]
fn is(check: &Check, severity: Severity, words: &str) {
    assert_eq!(check.severity, severity, "{check:?}");
    assert!(check.finding.contains(words), "{check:?}");
    assert_eq!(check.remedy.is_empty(), severity == Severity::Ok, "{check:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_well_says_so_by_its_interface_and_its_files_are_judged() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    // A certificate of its owner's that is over: the node serves with it all the same.
    let (cert, key) = (dir.path().join("old.crt"), dir.path().join("old.key"));
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let pair = KeyPair::generate().unwrap();
    fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    fs::write(&key, pair.serialize_pem()).unwrap();
    net.add("well", NodeOptions::default()).await.unwrap();
    let node = net.node("well");
    let mut api = NodeClient::new(client(node).await);
    let mut ask = async || {
        let answer = api.get_diagnosis(v1::GetDiagnosisRequest {}).await.unwrap();
        answer.into_inner().checks
    };
    let checks = ask().await;
    assert!(checks.len() > 20, "{checks:#?}");
    let unwell: Vec<_> = checks
        .iter()
        // The machine that runs this is none of ours.
        .filter(|check| !["disk_space", "disk_write", "open_files"].contains(&&*check.name))
        .filter(|check| check.severity() != Well)
        .collect();
    assert!(unwell.is_empty(), "{unwell:#?}");
    assert!(checks.iter().all(|check| check.remedy.is_empty() == (check.severity() == Well)));

    let token = node.config.token_file();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let found = ask().await.into_iter().find(|check| check.name == "admin_token").unwrap();
    assert_eq!(found.severity(), Error);
    assert!(found.remedy.contains("chmod 600"), "{found:?}");
    let expired = alone(&net.chain, &dir.path().join("expired"), |_, config| {
        config.rpc.tls_cert = cert;
        config.rpc.tls_key = key;
    })
    .await;
    let found = crate::rpc::doctor::all(&expired.config, SystemClock.now());
    is(&found[0], Severity::Error, "has expired on 2021-01-01");
    expired.stop().await;
    net.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chain_disk_and_clock_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let chain = DevChain::embedded();
    let (clock, ms) = (Arc::new(Behind::default()), Arc::new(AtomicU64::new(0)));
    let node = alone(&chain, &dir.path().join("one"), |environment, _| {
        environment.clock = Arc::clone(&clock) as Arc<dyn Clock>;
        let store = MemoryDisk::new().open();
        environment.store = Arc::new(Slow { store, ms: Arc::clone(&ms) });
    })
    .await;
    chain.mine(1).await.unwrap();
    until("the tip", async || node.sync.borrow().is_current()).await;
    is(&check(&node, "disk_write").await, Severity::Ok, "durable after");
    is(&check(&node, "clock").await, Severity::Ok, "s");
    is(&check(&node, "commit_backlog").await, Severity::Ok, "0 writes");
    ms.store(150, Ordering::Relaxed);
    is(&check(&node, "disk_write").await, Severity::Warning, "durable after");
    ms.store(1_100, Ordering::Relaxed);
    is(&check(&node, "disk_write").await, Severity::Error, "durable after");
    ms.store(0, Ordering::Relaxed);
    clock.0.store(3_600, Ordering::Relaxed);
    is(&check(&node, "clock").await, Severity::Warning, "minutes behind");
    clock.0.store(3 * 3_600, Ordering::Relaxed);
    is(&check(&node, "clock").await, Severity::Error, "minutes behind");
    node.stop().await;

    let line = Tasks::new();
    let address = chain.serve(&line).await.unwrap();
    let auth = RpcAuth::UserPassword { user: "u".into(), password: String::new().into() };
    let endpoint = BitcoindEndpoint { url: format!("http://{address}"), auth };
    let source = BitcoindConfig::new(Network::Regtest, vec![endpoint]);
    let source = Arc::new(BitcoindChain::connect(source).await.unwrap());
    let node = alone(&chain, &dir.path().join("two"), |environment, _| {
        environment.chain = source.clone();
        environment.fees = source;
    })
    .await;
    is(&check(&node, "chain_sync").await, Severity::Ok, "at the tip");
    is(&check(&node, "chain_endpoints").await, Severity::Ok, "1 endpoint");
    line.stop().await;
    until("the loss of the chain", async || node.sync.borrow().last_error.is_some()).await;
    is(&check(&node, "chain_sync").await, Severity::Error, "cannot be read");
    is(&check(&node, "chain_endpoints").await, Severity::Error, "1 of 1 endpoint failing");
    assert!(node.observer.parts().chain_failures.get() > 0);
    node.stop().await;
    chain.stop().await;
}

/// What pays an invoice of `payee`'s, one that is held if there is a hash.
async fn bill(payee: &Node, hash: Option<PaymentHash>) -> PayRequest {
    let create = CreateInvoice {
        amount_msat: Some(20_000_000),
        description: InvoiceDescription::Text("tea".into()),
        expiry: Duration::from_secs(3_600),
        min_final_cltv_expiry_delta: None,
        hash,
    };
    let made = payee.payments.create_invoice(create, None).await.unwrap();
    PayRequest {
        target: PayTarget::Request(made.invoice),
        amount_msat: None,
        max_fee_msat: None,
        retry_for: None,
        max_parts: None,
        payer_note: None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coins_channels_towers_and_receivers_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    let tower = free_port().unwrap();
    for name in ["ada", "bob", "carol"] {
        let options = NodeOptions {
            configure: Arc::new(move |config| {
                config.webhook.allow_private = true;
                config.webhook.retry_first_ms = 50;
                if name == "carol" {
                    config.tower.listen = format!("127.0.0.1:{tower}");
                }
            }),
            ..NodeOptions::default()
        };
        net.add(name, options).await.unwrap();
    }
    net.fund(&["ada"], Amount::from_sat(2_000_000), 3).await.unwrap();
    net.open_channel("ada", "bob", 1_000_000, 0).await.unwrap();

    // The one who was opened to has no coins.
    is(&check(net.node("bob"), "wallet_coins").await, Severity::Error, "0 sat confirmed");
    is(&check(net.node("bob"), "anchor_reserve").await, Severity::Warning, "10000 sat of 10000");
    let ada = net.node("ada");
    is(&check(ada, "wallet_coins").await, Severity::Ok, "confirmed");
    is(&check(ada, "channels_online").await, Severity::Ok, "1 channel open");
    is(&check(ada, "towers").await, Severity::Warning, "none guards 1 channel");
    let key = net.node("carol").observer.parts().tower.as_ref().unwrap().key();
    ada.towers.add(key, &format!("127.0.0.1:{tower}"), Mode::Blind).await.unwrap();
    is(&check(ada, "towers").await, Severity::Ok, "1 tower in order");
    is(&check(ada, "webhooks").await, Severity::Ok, "0 endpoints");
    let url = "http://127.0.0.1:1/hook".to_owned();
    let new = NewEndpoint { url, description: String::new(), kinds: Vec::new(), after: Some(0) };
    ada.webhooks.create(new, None).await.unwrap();
    until("a delivery that fails", async || {
        check(ada, "webhooks").await.severity == Severity::Warning
    })
    .await;

    // A tower that has gone, and a state that it is to have.
    net.stop("carol").await.unwrap();
    let ada = net.node("ada");
    let request = bill(net.node("bob"), None).await;
    ada.payments.pay(&request, None).unwrap();
    until("a tower that does not answer", async || {
        check(ada, "towers").await.severity == Severity::Warning
    })
    .await;

    // A payment that is held by somebody who has gone.
    until("the end of the payment", async || ada.lightning.next_expiry().is_none()).await;
    is(&check(ada, "htlc_expiry").await, Severity::Ok, "no HTLC");
    let request = bill(net.node("bob"), Some(Preimage([7; 32]).hash())).await;
    ada.payments.pay(&request, None).unwrap();
    until("an HTLC that is held", async || net.node("bob").payments.open_count() == 1).await;
    is(&check(ada, "htlc_expiry").await, Severity::Ok, "1 HTLC in flight");
    let expiry = ada.lightning.next_expiry().unwrap();
    let left = expiry - ada.sync.borrow().synced.unwrap().height;
    net.stop("bob").await.unwrap();
    let ada = net.node("ada");
    until("a peer that has gone", async || ada.lightning.peers().is_empty()).await;
    is(&check(ada, "peers").await, Severity::Error, "none is connected");
    let offline = check(ada, "channels_online").await;
    is(&offline, Severity::Warning, "1 of 1 open channel offline");
    net.mine(left - 8).await.unwrap();
    is(&check(ada, "htlc_expiry").await, Severity::Warning, "expires in 8 blocks");
    net.mine(6).await.unwrap();
    is(&check(ada, "htlc_expiry").await, Severity::Error, "expires in 2 blocks");
    net.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_batch_is_told_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), dir.path());
    for name in ["hub", "user"] {
        let configure = Arc::new(|config: &mut Config| config.batch.life_blocks = 1_008);
        net.add(name, NodeOptions { configure, ..NodeOptions::default() }).await.unwrap();
    }
    net.fund(&["hub"], Amount::from_sat(2_000_000), 2).await.unwrap();
    let (hub, user) = (net.node("hub"), net.node("user"));
    is(&check(user, "batch_deadlines").await, Severity::Ok, "no channel");
    user.lightning
        .connect(hub.lightning.node_id(), &net.get("hub").unwrap().address())
        .await
        .unwrap();
    let request = JoinRequest {
        hub: hub.lightning.node_id(),
        capacity: Amount::from_sat(200_000),
        inbound: Amount::from_sat(100_000),
    };
    user.batches.join(&request, None).await.unwrap();
    until("a batch that waits for its block", async || {
        let batches = hub.batches.batches().await;
        match batches.first().map(|batch| (batch.phase, batch.txid)) {
            Some((HubPhase::Confirming, Some(txid))) => net.chain.knows(txid).await.unwrap(),
            _ => false,
        }
    })
    .await;
    net.mine(3).await.unwrap();
    let mut deadline = 0;
    until("a live channel of a batch", async || {
        let join = user.batches.joins().await.pop().unwrap();
        deadline = join.deadline.map_or(0, |height| height.to_consensus_u32());
        matches!(join.state, UserPhase::Leaf(LeafState::Confirmed { .. }))
    })
    .await;
    is(&check(user, "batch_deadlines").await, Severity::Ok, "1 channel in batches");
    // Nobody is there to roll it over.
    net.stop("hub").await.unwrap();
    let user = net.node("user");
    let height = user.sync.borrow().synced.unwrap().height;
    net.chain.mine(deadline - height - 200).await.unwrap();
    net.synced().await.unwrap();
    is(&check(user, "batch_deadlines").await, Severity::Warning, "must leave in 200 blocks");
    net.chain.mine(100).await.unwrap();
    net.synced().await.unwrap();
    is(&check(user, "batch_deadlines").await, Severity::Error, "must leave in 100 blocks");
    net.shut_down().await;
}
