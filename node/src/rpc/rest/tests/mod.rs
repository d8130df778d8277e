//! The door as its callers see it: real nodes, TLS, and HTTP spoken by a plain client.

mod calls;
mod client;
mod streams;
mod web;

use bitcoin::Amount;
use serde_json::{Value, json};

use self::client::{Answer, Client};
use crate::config::Config;
use crate::dev::{Cluster, DevChain, NodeOptions};

/// One node without channels.
async fn alone(
    directory: &tempfile::TempDir,
    configure: impl Fn(&mut Config) + Send + Sync + 'static,
) -> (Cluster, Client) {
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    let options =
        NodeOptions { configure: std::sync::Arc::new(configure), ..NodeOptions::default() };
    cluster.add("alice", options).await.unwrap();
    cluster.mine(1).await.unwrap();
    let alice = Client::of(&cluster, "alice");
    (cluster, alice)
}

/// A node that can pay another.
async fn pair(directory: &tempfile::TempDir) -> (Cluster, Client, Client) {
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["alice", "bob"] {
        cluster.add(name, NodeOptions::default()).await.unwrap();
    }
    cluster.fund(&["alice"], Amount::from_sat(2_000_000), 1).await.unwrap();
    cluster.open_channel("alice", "bob", 1_000_000, 0).await.unwrap();
    let (alice, bob) = (Client::of(&cluster, "alice"), Client::of(&cluster, "bob"));
    (cluster, alice, bob)
}

/// Has `bob` ask for a payment and `alice` make it.
async fn paid(alice: &Client, bob: &Client, key: &str, amount_msat: u64) -> Value {
    let create = json!({ "idempotency_key": key, "amount_msat": amount_msat });
    let invoice = bob.post("Payments/CreateInvoice", create).await.ok();
    let pay = json!({
        "idempotency_key": key,
        "bolt11_invoice": invoice["bolt11"],
        "wait": "WAIT",
    });
    let payment = alice.post("Payments/Pay", pay).await.ok();
    assert_eq!(payment["state"], "SUCCEEDED", "{payment}");
    payment
}

fn reason(answer: &Answer) -> String {
    answer.json()["error"]["reason"].as_str().unwrap_or_default().to_owned()
}
