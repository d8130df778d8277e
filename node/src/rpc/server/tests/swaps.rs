//! Withdrawals and deposits over the interface, against a real hub.

use std::time::Duration;

use bitcoin::Amount;
use futures::TryStreamExt;
use proto::v1;
use proto::v1::batches_client::BatchesClient;
use proto::v1::{SwapRole, SwapState};
use tonic::Streaming;

use super::whole::{Api, Signed, invoice_request, pay_request, reason};
use crate::dev::{Cluster, DevChain, NodeOptions};

/// A hub with coins, and a user who has joined a batch of it and was paid.
async fn pair(directory: &tempfile::TempDir) -> (Cluster, Api, Api) {
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["hub", "user"] {
        let configure = std::sync::Arc::new(|config: &mut crate::config::Config| {
            config.batch.swap_patience_blocks = 0;
        });
        cluster.add(name, NodeOptions { configure, ..NodeOptions::default() }).await.unwrap();
    }
    cluster.fund(&["hub", "user"], Amount::from_sat(1_000_000), 2).await.unwrap();
    let hub = Api::of(&cluster, "hub").await;
    let user = Api::of(&cluster, "user").await;
    let info = hub.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let open = v1::OpenChannelRequest {
        idempotency_key: "open".into(),
        node_id: info.node_id,
        address: Some(info.listen_addresses[0].clone()),
        capacity_sat: 200_000,
        funding: v1::FundingKind::Batch.into(),
        ..Default::default()
    };
    user.channels().open(open).await.unwrap();
    let is_usable = || cluster.node("hub").lightning.channels().iter().any(|c| c.usable);
    for _ in 0..1_000 {
        if is_usable() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        if !cluster.chain.source().mempool().await.unwrap().is_empty() {
            cluster.mine(3).await.unwrap();
        }
    }
    let invoice = invoice_request("invoice", 100_000_000);
    let invoice = user.payments().create_invoice(invoice).await.unwrap().into_inner();
    let paid = hub.payments().pay(pay_request("pay", &invoice)).await.unwrap().into_inner();
    assert_eq!(paid.state(), v1::PaymentState::Succeeded);
    (cluster, hub, user)
}

/// Follows a swap to its end, mining what it waits for. Returns its states.
async fn to_the_end(cluster: &Cluster, mut states: Streaming<v1::Swap>) -> Vec<SwapState> {
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_millis(300), states.try_next()).await;
        match next {
            Ok(Ok(Some(swap))) => seen.push(swap.state()),
            Ok(Ok(None)) => return seen,
            Ok(Err(status)) => panic!("{status}: {seen:?}"),
            Err(_quiet) if seen.len() < 200 => cluster.mine(1).await.unwrap(),
            Err(_quiet) => panic!("it does not end: {seen:?}"),
        }
    }
}

fn batches(api: &Api) -> BatchesClient<Signed> {
    BatchesClient::new(api.signed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawal_and_a_deposit_are_begun_once_and_told_step_by_step() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, hub, user) = pair(&directory).await;
    let mut ours = batches(&user);
    let withdraw = v1::WithdrawRequest {
        idempotency_key: "withdraw".into(),
        amount_sat: 40_000,
        ..Default::default()
    };
    let other = |key: &str| v1::WithdrawRequest { idempotency_key: key.into(), ..withdraw.clone() };
    for (wrong, why) in [
        (v1::WithdrawRequest { amount_sat: 9_999, ..other("a") }, "AMOUNT_OUT_OF_RANGE"),
        (v1::WithdrawRequest { amount_sat: 99_999, ..other("b") }, "LIQUIDITY_INSUFFICIENT"),
        (v1::WithdrawRequest { address: Some("x".into()), ..other("c") }, "ADDRESS_INVALID"),
        (v1::WithdrawRequest { channel_record_id: Some(vec![1]), ..other("d") }, "FIELD_INVALID"),
        (other(""), "IDEMPOTENCY_KEY_MISSING"),
    ] {
        assert_eq!(reason(&ours.withdraw(wrong).await.unwrap_err()), why);
    }
    let begun = ours.withdraw(withdraw.clone()).await.unwrap().into_inner();
    let again = ours.withdraw(withdraw.clone()).await.unwrap().into_inner();
    assert_eq!(begun.swap_id, again.swap_id, "one key, one withdrawal");
    let more = v1::WithdrawRequest { amount_sat: 50_000, ..withdraw };
    assert_eq!(reason(&ours.withdraw(more).await.unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    let watch = v1::WatchSwapRequest { swap_id: begun.swap_id.clone() };
    let states = ours.watch_swap(watch).await.unwrap().into_inner();
    let seen = to_the_end(&cluster, states).await;
    assert!(seen.is_sorted_by_key(|state| i32::from(*state)), "{seen:?}");
    assert_eq!(seen.last(), Some(&SwapState::Done));

    let deposit = v1::DepositRequest {
        idempotency_key: "deposit".into(),
        amount_sat: 30_000,
        ..Default::default()
    };
    let rich = v1::DepositRequest {
        idempotency_key: "e".into(),
        amount_sat: 2_000_000,
        ..Default::default()
    };
    assert_eq!(reason(&ours.deposit(rich).await.unwrap_err()), "FUNDS_INSUFFICIENT");
    let fast = v1::DepositRequest {
        idempotency_key: "f".into(),
        feerate_sat_per_vb: Some(10_001),
        ..deposit.clone()
    };
    assert_eq!(reason(&ours.deposit(fast).await.unwrap_err()), "FEERATE_OUT_OF_RANGE");
    let begun = ours.deposit(deposit).await.unwrap().into_inner();
    let watch = v1::WatchSwapRequest { swap_id: begun.swap_id.clone() };
    let states = ours.watch_swap(watch).await.unwrap().into_inner();
    let seen = to_the_end(&cluster, states).await;
    assert_eq!(seen.last(), Some(&SwapState::Done), "{seen:?}");
    let get = v1::GetSwapRequest { swap_id: begun.swap_id };
    let deposit = ours.get_swap(get).await.unwrap().into_inner();
    assert!(deposit.payment_msat() < 30_000_000 && deposit.payment_msat() > 28_000_000);
    assert!(deposit.funding_txid.is_some());

    let list = batches(&hub).list_swaps(v1::ListSwapsRequest::default()).await.unwrap();
    let hosted = list.into_inner().swaps;
    assert_eq!(hosted.len(), 2);
    assert!(hosted.iter().all(|swap| swap.role() == SwapRole::Hub));
    let unknown = v1::GetSwapRequest { swap_id: vec![9; 32] };
    assert_eq!(reason(&ours.get_swap(unknown).await.unwrap_err()), "SWAP_UNKNOWN");
    drop((hub, user));
    cluster.shut_down().await;
}
