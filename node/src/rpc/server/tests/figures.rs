//! Figures of real nodes after real payments: what the page has, and whether dashboard and alerts
//! name what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, Network};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use channel_contracts::tower::Mode;
use proto::v1;
use proto::v1::node_client::NodeClient;
use proto::v1::payments_client::PaymentsClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::tests::Served;
use super::whole::{Signed, invoice_request, pay_request};
use crate::batches::JoinRequest;
use crate::chain::bitcoind::{BitcoindChain, BitcoindConfig, BitcoindEndpoint, RpcAuth};
use crate::config::{Config, SecretRef};
use crate::dev::{Cluster, DevChain, NodeOptions, free_port};
use crate::environment::OsEntropy;
use crate::keys::{Keys, RecoveryPhrase, WordCount};
use crate::node::Node;
use crate::rpc::auth::AdminToken;
use crate::rpc::connection::{CONNECTION_FILE, Connection};
use crate::runtime::Tasks;
use crate::store::MemoryDisk;
use crate::webhooks::NewEndpoint;

const PAYMENTS: u64 = 5;
/// What each brings: so much that an old state is worth a penalty.
const BILL_MSAT: u64 = 5_000_000;

/// A figure: its name, its labels, its value.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// A label, an operator, a value.
type Matcher = (String, String, String);

/// Reads a page. A test's own reader: `promtool` is asked too, where it is.
fn read(page: &str) -> Vec<Sample> {
    let mut samples = Vec::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, matchers(rest.strip_suffix('}').unwrap())),
            None => (series, Vec::new()),
        };
        let labels = labels.into_iter().map(|(label, _, value)| (label, value)).collect();
        samples.push(Sample { name: name.to_owned(), labels, value: value.parse().unwrap() });
    }
    samples
}

/// Reads `a="b", c=~"d"`: label, operator, value.
fn matchers(text: &str) -> Vec<Matcher> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let at = rest.find(['=', '!']).unwrap();
        let quote = rest.find('"').unwrap();
        let (label, operator) = (rest[..at].trim(), rest[at..quote].trim());
        let mut value = String::new();
        let mut letters = rest[quote + 1..].char_indices();
        let end = loop {
            match letters.next().unwrap() {
                (_, '\\') => value.push(letters.next().unwrap().1),
                (at, '"') => break quote + 1 + at + 1,
                (_, letter) => value.push(letter),
            }
        };
        found.push((label.to_owned(), operator.to_owned(), value));
        rest = rest[end..].trim_start_matches([',', ' ']);
    }
    found
}

/// What an expression asks for: names with matchers, and the labels it sums by.
fn asked(expression: &str) -> (Vec<(String, Vec<Matcher>)>, Vec<String>) {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut names = Vec::new();
    let mut by = Vec::new();
    let mut at = 0;
    while at < expression.len() {
        let rest = &expression[at..];
        let length = rest.find(|letter| !is_name(letter)).unwrap_or(rest.len());
        let word = &rest[..length];
        if word == "by" {
            let list = rest[rest.find('(').unwrap() + 1..rest.find(')').unwrap()].split(',');
            by.extend(list.map(|label| label.trim().to_owned()));
            at += rest.find(')').unwrap();
        } else if word.starts_with("tributary_") || word.starts_with("process_") {
            let after = &rest[length..];
            let conditions = match after.strip_prefix('{') {
                Some(inside) => matchers(&inside[..inside.find('}').unwrap()]),
                None => Vec::new(),
            };
            names.push((word.to_owned(), conditions));
            let braces = if after.starts_with('{') { after.find('}').unwrap() } else { 0 };
            at += length + braces;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            at += 1 + quoted.find('"').unwrap() + 1;
        } else {
            at += length.max(1);
        }
    }
    (names, by)
}

/// What is wrong with an expression, given all figures there are.
fn wrong(expression: &str, samples: &[Sample]) -> Vec<String> {
    /// What Prometheus adds by itself.
    const ADDED: [&str; 3] = ["instance", "job", "le"];
    let (names, by) = asked(expression);
    let mut wrong = Vec::new();
    let mut labels = BTreeSet::new();
    for (name, conditions) in &names {
        let named: Vec<&Sample> = samples.iter().filter(|sample| sample.name == *name).collect();
        if named.is_empty() {
            wrong.push(format!("there is no {name}"));
        }
        labels.extend(named.iter().flat_map(|sample| sample.labels.keys().cloned()));
        let fits = |sample: &&&Sample| {
            conditions.iter().all(|(label, operator, value)| {
                let found = sample.labels.get(label);
                match operator.as_str() {
                    _ if ADDED.contains(&label.as_str()) => true,
                    "=" => found == Some(value),
                    "!=" => found.is_some(),
                    "=~" => found.is_some_and(|found| value.split('|').any(|one| one == found)),
                    other => panic!("{other} in {expression}"),
                }
            })
        };
        if !named.is_empty() && !named.iter().any(|sample| fits(&sample)) {
            wrong.push(format!("no {name} with {conditions:?}"));
        }
    }
    for label in by.iter().filter(|label| !ADDED.contains(&label.as_str())) {
        if !labels.contains(label) {
            wrong.push(format!("nothing in {names:?} has the label {label}"));
        }
    }
    wrong
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../observability")
}

/// Every expression of the dashboard and of the alerts, with where it is.
fn expressions() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("grafana/tributary.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            let title = panel["title"].as_str().unwrap().to_owned();
            found.push((title, target["expr"].as_str().unwrap().to_owned()));
        }
    }
    assert!(found.len() > 60, "{}", found.len());
    let alerts = std::fs::read_to_string(folder().join("prometheus/alerts.yml")).unwrap();
    let mut name = "";
    for line in alerts.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            name = alert;
        } else if let Some(expression) = line.strip_prefix("expr: ") {
            let expression = expression.trim_matches('\'').replace("''", "'");
            found.push((name.to_owned(), expression));
        }
    }
    found
}

/// `promtool`, if it is there.
fn promtool() -> Option<PathBuf> {
    let named = std::env::var_os("PROMTOOL").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        || std::env::split_paths(&path).map(|dir| dir.join("promtool")).find(|p| p.is_file());
    named.or_else(found)
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n")
}

/// The head and the body of an answer.
async fn exchange(address: &str, request: &str) -> (String, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn page(node: &Node) -> String {
    let (head, body) = exchange(&node.metrics_address, &get("/metrics", "")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    body
}

/// The sum of the figures of `name` with these labels.
fn figure(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Sample| {
        let has = |(label, value): &(&str, &str)| {
            sample.labels.get(*label).map(String::as_str) == Some(*value)
        };
        sample.name == name && labels.iter().all(has)
    };
    let found: Vec<&Sample> = samples.iter().filter(fits).collect();
    assert!(!found.is_empty(), "there is no {name} with {labels:?}");
    found.iter().map(|sample| sample.value).sum()
}

pub(super) async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !done().await {
        assert!(tokio::time::Instant::now() < deadline, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A client of the node's own door.
pub(super) async fn client(node: &Node) -> Signed {
    let file = node.config.data_dir().join(CONNECTION_FILE);
    let connection = Connection::read(&file).unwrap();
    let pem = std::fs::read_to_string(&connection.tls_cert).unwrap();
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", connection.rpc)).unwrap();
    let channel: Channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
    let token = AdminToken::load(&connection.token_file).unwrap();
    InterceptedService::new(channel, Box::new(Served::bearer(&token.reveal())))
}

/// A user's channel in a batch of the hub.
async fn joined(net: &Cluster, user: &str, hub: &str) {
    let (ours, theirs) = (net.node(user), net.node(hub));
    let request = JoinRequest {
        hub: theirs.lightning.node_id(),
        capacity: Amount::from_sat(200_000),
        inbound: Amount::from_sat(100_000),
    };
    ours.batches.join(&request, None).await.unwrap();
    until("a batch that waits for its block", async || {
        let batches = theirs.batches.batches().await;
        let waits = batches.iter().any(|batch| matches!(batch.phase, HubPhase::Confirming));
        match batches.first().and_then(|batch| batch.txid) {
            Some(txid) => waits && net.chain.knows(txid).await.unwrap(),
            None => false,
        }
    })
    .await;
    net.mine(3).await.unwrap();
    until("a live channel of a batch", async || {
        let joins = ours.batches.joins().await;
        joins.iter().any(|join| matches!(join.state, UserPhase::Leaf(LeafState::Confirmed { .. })))
    })
    .await;
}

/// A node that reads the private chain as it would a bitcoind.
async fn remote(chain: &DevChain, dir: &std::path::Path, tasks: &Tasks) -> Node {
    let address = chain.serve(tasks).await.unwrap();
    let auth = RpcAuth::UserPassword { user: "u".into(), password: String::new().into() };
    let endpoint = BitcoindEndpoint { url: format!("http://{address}"), auth };
    let source = BitcoindConfig::new(Network::Regtest, vec![endpoint]);
    let source = Arc::new(BitcoindChain::connect(source).await.unwrap());
    let mut environment = chain.environment(Arc::new(MemoryDisk::new().open()));
    environment.chain = source;
    let phrase = RecoveryPhrase::generate(WordCount::Twelve, &OsEntropy);
    let keys = Arc::new(Keys::in_memory(Network::Regtest, &phrase, ""));
    let mut config = Config { data_dir: dir.to_owned(), ..Config::default() };
    config.lightning.listen_addresses = Vec::new();
    config.rpc.listen = "127.0.0.1:0".into();
    config.metrics.listen = "127.0.0.1:0".into();
    Node::start(config, keys, environment).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_has_what_happened_and_what_dashboard_and_alerts_ask_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut net = Cluster::new(DevChain::embedded(), directory.path());
    let tower = free_port().unwrap();
    for name in ["ada", "hub", "bob"] {
        let options = NodeOptions {
            configure: Arc::new(move |config| {
                config.metrics.listen = "127.0.0.1:0".into();
                config.metrics.per_channel = name == "hub";
                config.webhook.allow_private = true;
                if name == "hub" {
                    config.tower.listen = format!("127.0.0.1:{tower}");
                }
            }),
            ..NodeOptions::default()
        };
        net.add(name, options).await.unwrap();
    }
    net.fund(&["ada", "hub"], Amount::from_sat(5_000_000), 3).await.unwrap();
    net.open_channel("ada", "hub", 1_000_000, 0).await.unwrap();
    net.open_channel("hub", "bob", 1_000_000, 0).await.unwrap();
    joined(&net, "ada", "hub").await;
    let key = net.node("hub").observer.parts().tower.as_ref().unwrap().key();
    let address = format!("127.0.0.1:{tower}");
    net.node("ada").towers.add(key, &address, Mode::Blind).await.unwrap();
    // Nobody is there.
    let url = "http://127.0.0.1:1/hook".to_owned();
    let new = NewEndpoint { url, description: String::new(), kinds: Vec::new(), after: Some(0) };
    net.node("ada").webhooks.create(new, None).await.unwrap();

    let (ada, bob) = (client(net.node("ada")).await, client(net.node("bob")).await);
    let (mut payer, mut payee) = (PaymentsClient::new(ada), PaymentsClient::new(bob));
    for number in 0..PAYMENTS {
        let bill = invoice_request(&format!("bill {number}"), BILL_MSAT);
        let bill = payee.create_invoice(bill).await.unwrap().into_inner();
        let paid = payer.pay(pay_request(&format!("pay {number}"), &bill)).await.unwrap();
        assert_eq!(paid.into_inner().state(), v1::PaymentState::Succeeded);
    }
    let refused = payer.pay(v1::PayRequest::default()).await.unwrap_err();
    let chain = Tasks::new();
    let dora = remote(&net.chain, &directory.path().join("dora"), &chain).await;
    let mut info = NodeClient::new(client(&dora).await);
    info.get_info(Request::new(v1::GetInfoRequest {})).await.unwrap();

    let whole = [("direction", "outbound"), ("phase", "whole")];
    let mut pages = BTreeMap::new();
    until("all figures of the last payment", async || {
        for name in ["ada", "hub", "bob"] {
            pages.insert(name, page(net.node(name)).await);
        }
        let ada = read(&pages["ada"]);
        let hub = read(&pages["hub"]);
        let figures = [
            figure(&ada, "tributary_payment_seconds_count", &whole),
            figure(&hub, "tributary_forwards_total", &[]),
            figure(&hub, "tributary_htlcs_in_flight", &[]),
            figure(&ada, "tributary_webhook_failing", &[]),
            figure(&hub, "tributary_watchtower_appointments", &[]),
        ];
        let [whole, forwards, under_way, failing, appointments] = figures;
        whole >= PAYMENTS as f64
            && forwards >= PAYMENTS as f64
            && under_way == 0.0
            && failing >= 1.0
            && appointments >= 1.0
    })
    .await;
    pages.insert("dora", page(&dora).await);
    let of: BTreeMap<&str, Vec<Sample>> =
        pages.iter().map(|(name, page)| (*name, read(page))).collect();

    // What happened, to the payment.
    let count = PAYMENTS as f64;
    let ended = "tributary_payments_total";
    let ours = [("direction", "outbound"), ("outcome", "succeeded")];
    let theirs = [("direction", "inbound"), ("outcome", "succeeded")];
    assert_eq!(figure(&of["ada"], ended, &ours), count);
    assert_eq!(figure(&of["bob"], ended, &theirs), count);
    assert_eq!(figure(&of["hub"], ended, &ours), 0.0);
    assert_eq!(figure(&of["hub"], "tributary_forwards_total", &[]), count);
    assert_eq!(figure(&of["hub"], "tributary_forward_seconds_count", &[]), count);
    let amount = "tributary_payments_amount_msat_total";
    assert_eq!(figure(&of["bob"], amount, &[("direction", "inbound")]), count * BILL_MSAT as f64);
    let earned = figure(&of["hub"], "tributary_forwards_fees_msat_total", &[]);
    assert_eq!(figure(&of["ada"], "tributary_payments_fees_msat_total", &[]), earned);
    for phase in ["recorded", "sent", "network", "settled", "whole"] {
        let labels = [("direction", "outbound"), ("phase", phase)];
        let found = figure(&of["ada"], "tributary_payment_seconds_count", &labels);
        assert_eq!(found, count, "{phase}");
    }
    for (name, direction, lives) in
        [("ada", "offered", count), ("hub", "received", count), ("bob", "received", count)]
    {
        let labels = [("direction", direction), ("outcome", "fulfilled")];
        assert_eq!(figure(&of[name], "tributary_htlc_seconds_count", &labels), lives, "{name}");
    }
    assert_eq!(figure(&of["hub"], "tributary_htlcs_in_flight", &[]), 0.0);
    let calls = "tributary_rpc_calls_total";
    let paid = [("method", "Payments/Pay"), ("code", "OK")];
    assert_eq!(figure(&of["ada"], calls, &paid), count);
    let code = [("method", "Payments/Pay"), ("code", "INVALID_ARGUMENT")];
    assert_eq!(
        (figure(&of["ada"], calls, &code), refused.code()),
        (1.0, tonic::Code::InvalidArgument)
    );
    assert_eq!(figure(&of["hub"], "tributary_batches", &[("phase", "live")]), 1.0);
    assert_eq!(figure(&of["ada"], "tributary_batch_wishes", &[("state", "open")]), 1.0);
    for step in ["gather", "seal", "sync", "release"] {
        let labels = [("step", step)];
        let found = figure(&of["hub"], "tributary_commit_seconds_count", &labels);
        assert!(found >= 2.0 * count, "{step}: {found}");
    }
    let local = figure(&of["hub"], "tributary_channels_balance_msat", &[("side", "local")]);
    assert_eq!(
        figure(&of["hub"], "tributary_channel_local_msat", &[]),
        local,
        "the same, by channel"
    );
    assert!(!pages["ada"].contains("tributary_channel_local_msat"), "only where it is asked for");
    assert_eq!(figure(&of["dora"], "tributary_chain_endpoint_failures", &[]), 0.0);
    assert_eq!(figure(&of["dora"], "tributary_chain_current", &[]), 1.0);

    // What dashboard and alerts ask for is there; some of it only while something is in flight.
    let held = v1::CreateInvoiceRequest {
        payment_hash: Some(crate::lightning::types::Preimage([9; 32]).hash().0.to_vec()),
        ..invoice_request("held", 10_000)
    };
    let held = payee.create_invoice(held).await.unwrap().into_inner();
    let pay =
        v1::PayRequest { wait: v1::PayWait::ReturnAtOnce.into(), ..pay_request("held", &held) };
    payer.pay(pay).await.unwrap();
    until("an HTLC in flight", async || net.node("ada").lightning.next_expiry().is_some()).await;
    let waiting = read(&page(net.node("ada")).await);
    assert!(figure(&waiting, "tributary_htlc_next_expiry_blocks", &[]) > 12.0);
    let all: Vec<Sample> = of.values().flatten().chain(&waiting).cloned().collect();
    for (place, expression) in expressions() {
        let wrong = wrong(&expression, &all);
        assert!(wrong.is_empty(), "{place}: {expression}\n{wrong:?}");
    }
    assert_eq!(wrong("sum by (colour) (tributary_peers_connected)", &all).len(), 1);
    assert_eq!(wrong("tributary_peers", &all).len(), 1);
    assert_eq!(wrong("tributary_channels{state=\"open\"}", &all).len(), 1);

    // A reader that is not ours.
    match promtool() {
        None => println!("skipped: no promtool"),
        Some(promtool) => {
            for (name, page) in &pages {
                let mut child = Command::new(&promtool)
                    .args(["check", "metrics"])
                    .stdin(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap();
                child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
                let done = child.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&done.stderr).into_owned();
                assert!(done.status.success(), "{name}: {said}");
            }
        }
    }
    drop((payer, payee, info));
    dora.stop().await;
    chain.stop().await;
    net.shut_down().await;
}

#[test]
fn alerts_fire_and_are_silent_as_their_tests_say() {
    let Some(promtool) = promtool() else {
        println!("skipped: no promtool");
        return;
    };
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let done = Command::new(&promtool)
            .args([what, "rules", file])
            .current_dir(folder().join("prometheus"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{what} {file}: {said}");
    }
    let alerts = std::fs::read_to_string(folder().join("prometheus/alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(folder().join("prometheus/alerts.test.yml")).unwrap();
    for line in alerts.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- alert: ") {
            let fires = format!("  - name: {name}\n");
            assert!(tests.contains(&fires), "no test in which {name} fires");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_shown_to_whom_it_may_be_and_measures_only_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("figures.token");
    std::fs::write(&token, "let me in\n").unwrap();
    let mut net = Cluster::new(DevChain::embedded(), directory.path());
    let options = NodeOptions {
        configure: Arc::new(move |config| {
            config.metrics.listen = "127.0.0.1:0".into();
            config.metrics.token = Some(SecretRef::File(token.clone()));
        }),
        ..NodeOptions::default()
    };
    net.add("shown", options).await.unwrap();
    net.add("hidden", NodeOptions::default()).await.unwrap();
    let address = net.node("shown").metrics_address.clone();
    let status = async |request: String| {
        let (head, _) = exchange(&address, &request).await;
        head.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status(get("/metrics", "")).await, "401");
    assert_eq!(status(get("/metrics", "Authorization: Bearer let me\r\n")).await, "401");
    assert_eq!(status(get("/metrics", "Authorization: Bearer let me in\r\n")).await, "200");
    assert_eq!(status(get("/", "")).await, "404");
    let post = get("/metrics", "").replace("GET", "POST");
    assert_eq!(status(post).await, "405");

    let hidden = net.node("hidden");
    assert_eq!(hidden.metrics_address, "");
    assert!(hidden.committer.probe().figures().is_none());
    assert!(hidden.lightning.htlcs().figures().is_none());
    assert!(hidden.payments.probe().times().is_none());
    // It can be asked all the same: what is only counted, or looked up, is there.
    let page = hidden.observer.page().await;
    assert!(page.contains("tributary_chain_current 1\n"), "{page}");
    assert!(!page.contains("_bucket"), "{page}");
    net.shut_down().await;
}
