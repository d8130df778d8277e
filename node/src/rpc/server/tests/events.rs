//! What is told of coins, the chain and access; and how a channel ended.

use std::time::Duration;

use proto::v1;
use proto::v1::event::Kind;
use proto::v1::tokens_client::TokensClient;
use proto::v1::wallet_client::WalletClient;

use super::whole::{Api, pair};
use crate::dev::Cluster;

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for the first event that `wanted` takes.
async fn event<T>(api: &Api, wanted: impl Fn(&Kind) -> Option<T>) -> T {
    let all = v1::SubscribeRequest { after_sequence: Some(0), kinds: vec![] };
    let mut events = api.events().subscribe(all).await.unwrap().into_inner();
    let found = async {
        loop {
            let event = events.message().await.unwrap().unwrap();
            if let Some(found) = event.kind.as_ref().and_then(&wanted) {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("it is told")
}

/// Mines until `api` says by which transaction its channel ended.
async fn ended(cluster: &Cluster, api: &Api, record_id: &[u8]) -> v1::ClosingInfo {
    let watched = async {
        loop {
            cluster.mine(1).await.unwrap();
            let get = v1::GetChannelRequest { record_id: record_id.to_vec() };
            let channel = api.channels().get(get).await.unwrap().into_inner();
            match channel.closing {
                Some(closing) if closing.closing_txid.is_some() => return closing,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(DEADLINE, watched).await.expect("it ends in a block")
}

async fn transactions(api: &Api) -> Vec<v1::WalletTransaction> {
    let list = v1::ListTransactionsRequest::default();
    api.wallet().list_transactions(list).await.unwrap().into_inner().transactions
}

async fn close(api: &Api, key: &str, record_id: &[u8], force: bool) {
    let close = v1::CloseChannelRequest {
        idempotency_key: key.into(),
        record_id: record_id.to_vec(),
        force,
        ..v1::CloseChannelRequest::default()
    };
    api.channels().close(close).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cooperative_end_and_its_coins_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, bob, channel) = pair(&directory).await;
    close(&alice, "close", &channel.record_id, false).await;
    let closing = ended(&cluster, &alice, &channel.record_id).await;
    assert_eq!(closing.cause(), v1::ClosingCause::CooperativeByHolder);
    let txid = closing.closing_txid.unwrap();
    let all = transactions(&alice).await;
    let home = all.iter().find(|tx| tx.txid == txid).expect("it pays the wallet");
    assert_eq!(home.purpose(), v1::TransactionPurpose::ChannelClose);
    assert!(home.received_sat > 0 && home.confirmations > 0, "{home:?}");
    let funding = channel.funding_outpoint.unwrap().txid;
    for (txid, what) in [
        (&funding, v1::WalletEventKind::Created),
        (&funding, v1::WalletEventKind::Confirmed),
        (&txid, v1::WalletEventKind::Created),
        (&txid, v1::WalletEventKind::Confirmed),
    ] {
        event(&alice, |kind| match kind {
            Kind::Wallet(event) if event.txid == *txid && event.kind() == what => Some(()),
            _ => None,
        })
        .await;
    }
    let theirs = ended(&cluster, &bob, &bob_record(&bob).await).await;
    assert_eq!(theirs.closing_txid, Some(txid));
    // As after a crash between the close and its key.
    close(&alice, "again", &channel.record_id, false).await;
    cluster.shut_down().await;
}

async fn bob_record(bob: &Api) -> Vec<u8> {
    let list = v1::ListChannelsRequest::default();
    let channels = bob.channels().list(list).await.unwrap().into_inner().channels;
    channels[0].record_id.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_end_is_swept_into_the_wallet() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, _bob, channel) = pair(&directory).await;
    close(&alice, "close", &channel.record_id, true).await;
    let closing = ended(&cluster, &alice, &channel.record_id).await;
    assert_eq!(closing.cause(), v1::ClosingCause::ForcedByHolder);
    let swept = async {
        loop {
            let all = transactions(&alice).await;
            let sweep = v1::TransactionPurpose::Sweep;
            if let Some(swept) = all.into_iter().find(|tx| tx.purpose() == sweep) {
                return swept;
            }
            cluster.mine(10).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let swept = tokio::time::timeout(DEADLINE, swept).await.expect("the delay ends");
    assert!(swept.received_sat > 900_000, "{swept:?}");
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_call_and_where_the_chain_stands_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (cluster, alice, _bob, _) = pair(&directory).await;
    let height = event(&alice, |kind| match kind {
        Kind::Chain(event) if event.kind() == v1::ChainEventKind::Synced => {
            Some(event.block_height)
        }
        _ => None,
    });
    let _before_the_channel = height.await;
    let bake = v1::BakeTokenRequest {
        idempotency_key: "bake".into(),
        name: "shop".into(),
        restrictions: Some(v1::TokenRestrictions::default()),
    };
    let mut tokens = TokensClient::new(alice.signed());
    let baked = tokens.bake_token(bake.clone()).await.unwrap().into_inner();
    let _the_same = tokens.bake_token(bake).await.unwrap();
    let token_id = baked.token.unwrap().token_id;
    for _ in 0..3 {
        let mut stranger = WalletClient::new(alice.held("nonsense"));
        stranger.get_balance(v1::GetBalanceRequest {}).await.unwrap_err();
    }
    let refused = event(&alice, |kind| match kind {
        Kind::Security(event) if event.kind() == v1::SecurityEventKind::AccessRefused => {
            Some(event.clone())
        }
        _ => None,
    })
    .await;
    assert_eq!(refused.calls_refused, Some(1), "the others are told of in a minute");
    assert!(!refused.detail.contains("nonsense"), "{}", refused.detail);
    let list = v1::ListEventsRequest {
        kinds: vec![v1::EventKind::Security.into()],
        ..v1::ListEventsRequest::default()
    };
    let told = alice.events().list(list).await.unwrap().into_inner().events;
    let told: Vec<_> = told.into_iter().filter_map(|event| event.kind).collect();
    let baked = told.iter().filter(|kind| match kind {
        Kind::Security(event) => event.token_id.as_ref() == Some(&token_id),
        _ => false,
    });
    assert_eq!((baked.count(), told.len()), (1, 2), "one key, one event: {told:?}");
    cluster.shut_down().await;
}
