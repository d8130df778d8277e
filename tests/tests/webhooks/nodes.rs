//! Whole nodes: what they tell is what their log says, over crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use node::dev::Cluster;
use node::webhooks::NewEndpoint;
use serde_json::Value;
use tests::e2e::{crash, pays, start_on_disks, until};

use crate::faults::Numbers;
use crate::receiver::{Delivery, Receiver};

const PAYER: &str = "ada";
const PAYEE: &str = "bob";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_what_its_log_says_over_crashes() {
    tests::e2e::embedded("webhooks", scenario).await;
}

async fn scenario(net: &mut Cluster) {
    start_on_disks(net, &[PAYER, PAYEE], |config| {
        config.webhook.allow_private = true;
        config.webhook.timeout_ms = 400;
        config.webhook.retry_first_ms = 5;
        config.webhook.retry_longest_seconds = 1;
    })
    .await;
    let mut receivers = BTreeMap::new();
    for name in [PAYER, PAYEE] {
        let mut moods = Numbers::new(u64::from(name.as_bytes()[0]));
        let receiver = Receiver::new(move |_| moods.mood()).await;
        let new = NewEndpoint {
            url: receiver.url(),
            description: "books".to_owned(),
            kinds: Vec::new(),
            after: Some(0),
        };
        let (_, secret) = net.node(name).webhooks.create(new, None).await.unwrap();
        receivers.insert(name, (receiver, secret));
    }
    net.fund(&[PAYER], bitcoin::Amount::from_sat(1_000_000), 2).await.unwrap();
    net.open_channel(PAYER, PAYEE, 500_000, 0).await.unwrap();
    for name in [PAYEE, PAYER, PAYEE] {
        for _ in 0..3 {
            pays(net, PAYER, PAYEE, 2_000).await;
        }
        crash(net, name).await;
        connected(net).await;
    }
    for (name, (receiver, secret)) in &receivers {
        let log = net.node(name).journal.read(0, usize::MAX).unwrap();
        // Nothing is in it that nobody is told of: no forwards, no offers, no sweeps.
        until("everything at the receiver", async || receiver.events().len() >= log.len()).await;
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for sequence in receiver.events() {
            let all = receiver.taken();
            let delivery = all.iter().find(|one| one.sequence() == sequence).unwrap();
            let before = last.insert(object(delivery), sequence);
            assert!(before.is_none_or(|before| before < sequence), "{delivery:?}");
        }
        receiver.check(&secret.reveal());
        assert!(receiver.heard().len() > log.len(), "it failed now and then");
        assert_eq!(count(receiver, "channel.active"), 1);
        // Restarts are told, too.
        let restarts = if *name == PAYEE { 2 } else { 1 };
        assert_eq!(count(receiver, "node.started"), 1 + restarts);
    }
    let (payer, payee) = (&receivers[PAYER].0, &receivers[PAYEE].0);
    assert_eq!((count(payer, "payment.in_flight"), count(payer, "payment.succeeded")), (9, 9));
    assert_eq!((count(payee, "invoice.open"), count(payee, "payment.succeeded")), (9, 9));
    let paid = payee.taken();
    let paid = paid.iter().find(|one| one.json()["type"] == "payment.succeeded").unwrap();
    let data = &paid.json()["data"]["payment"];
    assert_eq!(
        (&data["amount_msat"], &data["direction"]),
        (&Value::from(2_000), &"INBOUND".into())
    );
    assert!(paid.json()["timestamp"].as_str().unwrap().ends_with('Z'));
    assert!(!String::from_utf8_lossy(&paid.body).contains("preimage"));
}

/// How many events of a type were taken.
fn count(receiver: &Receiver, name: &str) -> usize {
    let ids: std::collections::BTreeSet<String> = receiver
        .taken()
        .into_iter()
        .filter(|one| one.json()["type"] == name)
        .map(|one| one.id)
        .collect();
    ids.len()
}

/// What a delivery is about, by its own words.
fn object(delivery: &Delivery) -> String {
    let data = delivery.json()["data"].clone();
    for (kind, id) in [
        ("payment", "payment_id"),
        ("invoice", "payment_hash"),
        ("channel", "record_id"),
        ("wallet", "txid"),
    ] {
        if let Some(id) = data[kind][id].as_str() {
            return format!("{kind} {id}");
        }
    }
    let kind = ["node", "chain"].into_iter().find(|kind| data[kind].is_object());
    kind.unwrap_or_else(|| panic!("{data}")).to_owned()
}

/// Waits until both know each other again.
async fn connected(net: &Cluster) {
    let (here, there) = (net.node(PAYER), net.node(PAYEE));
    let id = there.lightning.node_id();
    let address = net.get(PAYEE).unwrap().address();
    let lightning = Arc::clone(&here.lightning);
    until("a channel that carries payments", async || {
        let usable = |node: &node::node::Node| node.lightning.channels().iter().all(|c| c.usable);
        if usable(here) && usable(there) {
            return true;
        }
        let _or_soon = lightning.connect(id, &address).await;
        false
    })
    .await;
}
