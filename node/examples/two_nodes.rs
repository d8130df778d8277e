//! Two nodes on a chain of their own: open a channel, pay an invoice, see both sides of it.
//!
//! ```sh
//! cargo run -p node --example two_nodes
//! ```

use std::time::Duration;

use bitcoin::Amount;
use node::dev::{Cluster, DevChain, NodeOptions};
use node::lightning::InvoiceDescription;
use node::payments::{CreateInvoice, PayRequest, PayTarget};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::temp_dir().join(format!("tributary-two-nodes-{}", std::process::id()));
    let mut net = Cluster::new(DevChain::embedded(), &dir);
    net.add("alice", NodeOptions::default()).await?;
    net.add("bob", NodeOptions::default()).await?;
    net.fund(&["alice"], Amount::from_sat(2_000_000), 2).await?;
    net.open_channel("alice", "bob", 1_000_000, 0).await?;

    let invoice = net
        .node("bob")
        .payments
        .create_invoice(
            CreateInvoice {
                amount_msat: Some(21_000),
                description: InvoiceDescription::Text("a cup of tea".into()),
                expiry: Duration::from_secs(3_600),
                min_final_cltv_expiry_delta: None,
                hash: None,
            },
            None,
        )
        .await?;
    println!("bob asks   {}", invoice.invoice);

    let request = PayRequest {
        target: PayTarget::Request(invoice.invoice),
        amount_msat: None,
        max_fee_msat: None,
        retry_for: None,
        max_parts: None,
        payer_note: None,
    };
    let mut payment = net.node("alice").payments.pay(&request, None)?;
    // Returns once the outcome is on disk.
    let outcome = payment.outcome().await?;
    println!("alice paid {} msat, state {:?}", outcome.amount_msat, outcome.state);
    let audit = net.audit().await?;
    println!("every satoshi accounted for: {}", audit.conserved());

    net.shut_down().await;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}
