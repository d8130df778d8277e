//! The batch interface over a real hub and a real user: from the quote to the path.

use std::time::Duration;

use bitcoin::{Amount, ScriptBuf, TxOut};
use futures::TryStreamExt;
use proto::v1;
use proto::v1::MembershipState;
use proto::v1::batches_client::BatchesClient;

use super::whole::{Api, reason};
use crate::batches::PathFile;
use crate::dev::{Cluster, DevChain, NodeOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wish_is_made_once_told_step_by_step_and_leaves_a_path() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["hub", "user"] {
        cluster.add(name, NodeOptions::default()).await.unwrap();
    }
    cluster.fund(&["hub"], Amount::from_sat(1_000_000), 2).await.unwrap();
    let hub = Api::of(&cluster, "hub").await;
    let user = Api::of(&cluster, "user").await;
    let mut batches = BatchesClient::new(user.signed());

    let quote = |capacity_sat| v1::EstimateBatchExitRequest { capacity_sat, users: None };
    let small = batches.estimate_exit(quote(1_000)).await.unwrap().into_inner().exit.unwrap();
    let large = batches.estimate_exit(quote(10_000_000)).await.unwrap().into_inner().exit.unwrap();
    assert!(!small.is_worth && large.is_worth && large.levels == 4, "{small:?} {large:?}");
    let nobody = v1::EstimateBatchExitRequest { capacity_sat: 1, users: Some(0) };
    assert_eq!(reason(&batches.estimate_exit(nobody).await.unwrap_err()), "FIELD_INVALID");

    let info = hub.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let join = v1::JoinBatchRequest {
        idempotency_key: "join".into(),
        hub_node_id: info.node_id.clone(),
        capacity_sat: 200_000,
        inbound_sat: None,
    };
    let status = batches.join(join.clone()).await.unwrap_err();
    assert_eq!(reason(&status), "PEER_OFFLINE");
    let connect = v1::ConnectPeerRequest {
        idempotency_key: "connect".into(),
        node_id: info.node_id,
        address: info.listen_addresses[0].clone(),
        keep: true,
    };
    user.node().connect_peer(connect).await.unwrap();
    let first = batches.join(join.clone()).await.unwrap().into_inner();
    let again = batches.join(join.clone()).await.unwrap().into_inner();
    assert_eq!(first.registration_id, again.registration_id, "one key, one wish");
    let other = v1::JoinBatchRequest { capacity_sat: 300_000, ..join.clone() };
    assert_eq!(reason(&batches.join(other).await.unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    let too_much = v1::JoinBatchRequest {
        idempotency_key: "too much".into(),
        inbound_sat: Some(200_001),
        ..join
    };
    assert_eq!(reason(&batches.join(too_much).await.unwrap_err()), "CAPACITY_OUT_OF_RANGE");

    let registration_id = first.registration_id;
    let watch = v1::WatchBatchRequest { registration_id: registration_id.clone() };
    let mut states = batches.watch(watch).await.unwrap().into_inner();
    let mut seen = Vec::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), states.try_next()).await;
        let membership = next.expect("the batch forms").unwrap().unwrap();
        seen.push(membership.state());
        match membership.state() {
            MembershipState::Confirmed => break,
            MembershipState::Funded => {
                let root = membership.root_outpoint.clone().unwrap();
                let txid = crate::rpc::convert::txid("txid", &root.txid).unwrap();
                while !cluster.chain.knows(txid).await.unwrap() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                cluster.mine(3).await.unwrap();
            }
            _ => {}
        }
    }
    assert!(seen.is_sorted_by_key(|state| i32::from(*state)), "{seen:?}");

    let get = v1::GetBatchRequest { registration_id };
    let membership = batches.get(get).await.unwrap().into_inner();
    assert_eq!(membership.exit.as_ref().unwrap().levels, 1);
    assert!(membership.deadline_height.unwrap() < membership.expires_height.unwrap());
    let path = membership.path.unwrap();
    let output = |value_sat, script| TxOut {
        value: Amount::from_sat(value_sat),
        script_pubkey: ScriptBuf::from_bytes(script),
    };
    let root = output(path.root_value_sat, path.root_script.clone());
    let channel = output(path.channel_value_sat, path.channel_script.clone());
    let file = PathFile::of_encoded(&path.encoded, root.clone(), channel.clone()).unwrap();
    let report = PathFile::read(&file.text()).unwrap().verify().unwrap();
    let funding = membership.funding_outpoint.unwrap();
    assert_eq!(crate::rpc::convert::outpoint(report.funding), funding);
    // A file that was tampered with is refused.
    let richer = TxOut { value: channel.value + Amount::ONE_SAT, ..channel };
    let forged = PathFile::of_encoded(&path.encoded, root, richer).unwrap();
    assert!(forged.verify().is_err());

    let mut hosted = BatchesClient::new(hub.signed());
    let list =
        hosted.list_hosted(v1::ListHostedBatchesRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.batches.len(), 1);
    assert_eq!(list.batches[0].state(), v1::HostedBatchState::Live);
    assert_eq!(list.batches[0].user_node_ids.len(), 1);
    let unknown = v1::GetBatchRequest { registration_id: vec![9; 32] };
    assert_eq!(reason(&batches.get(unknown).await.unwrap_err()), "BATCH_UNKNOWN");

    let list = v1::ListChannelsRequest::default();
    let channels = user.channels().list(list).await.unwrap().into_inner().channels;
    assert_eq!(channels[0].funding(), v1::FundingKind::Batch);
    drop((hub, user));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_a_batch_opens_like_any_other_and_leaves() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    for name in ["hub", "user"] {
        cluster.add(name, NodeOptions::default()).await.unwrap();
    }
    cluster.fund(&["hub", "user"], Amount::from_sat(1_000_000), 2).await.unwrap();
    let hub = Api::of(&cluster, "hub").await;
    let user = Api::of(&cluster, "user").await;
    let mut batches = BatchesClient::new(user.signed());
    let info = hub.node().get_info(v1::GetInfoRequest {}).await.unwrap().into_inner();
    let open = v1::OpenChannelRequest {
        idempotency_key: "open".into(),
        node_id: info.node_id,
        address: Some(info.listen_addresses[0].clone()),
        capacity_sat: 200_000,
        funding: v1::FundingKind::Batch.into(),
        ..Default::default()
    };
    let public = v1::OpenChannelRequest { public: true, ..open.clone() };
    let status = user.channels().open(public).await.unwrap_err();
    assert_eq!(reason(&status), "FUNDING_UNSUPPORTED");
    let opening = user.channels().open(open.clone()).await.unwrap().into_inner();
    assert_eq!(opening.state(), v1::ChannelState::Opening);
    let again = user.channels().open(open).await.unwrap().into_inner();
    assert_eq!(opening.record_id, again.record_id, "one key, one channel");

    let list = v1::ListBatchesRequest::default();
    let wish = batches.list(list).await.unwrap().into_inner().memberships.remove(0);
    assert_eq!(wish.channel_record_id.as_ref(), Some(&opening.record_id));
    let exit = v1::ExitBatchRequest {
        idempotency_key: "exit".into(),
        registration_id: wish.registration_id.clone(),
    };
    let early = batches.exit(exit.clone()).await.unwrap_err();
    assert_eq!(reason(&early), "BATCH_STATE");

    let registration_id = wish.registration_id.clone();
    let release = v1::ReleaseBatchRequest { idempotency_key: "r".into(), registration_id };
    let kept = batches.release(release).await.unwrap_err();
    assert_eq!(reason(&kept), "BATCH_STATE");

    let watch = v1::WatchBatchRequest { registration_id: wish.registration_id };
    let mut states = batches.watch(watch).await.unwrap().into_inner();
    let mut left = false;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), states.try_next()).await;
        let membership = next.expect("it goes on").unwrap().unwrap();
        let waits_for = match (membership.state(), &membership.unroll) {
            (MembershipState::Funded, _) => membership.root_outpoint.map(|root| root.txid),
            (MembershipState::Confirmed, Some(unroll)) => unroll.txid.clone(),
            (MembershipState::Confirmed, None) if !left => {
                let record_id = opening.record_id.clone();
                let get = v1::GetChannelRequest { record_id };
                let channel = user.channels().get(get).await.unwrap().into_inner();
                assert_eq!(channel.funding(), v1::FundingKind::Batch);
                let leaving = batches.exit(exit.clone()).await.unwrap().into_inner();
                assert_eq!(leaving.unroll.unwrap().reason(), v1::UnrollReason::Requested);
                left = true;
                None
            }
            (MembershipState::Unrolled, _) => break,
            _ => None,
        };
        if let Some(txid) = waits_for {
            let txid = crate::rpc::convert::txid("txid", &txid).unwrap();
            while !cluster.chain.knows(txid).await.unwrap() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            cluster.mine(3).await.unwrap();
        }
    }
    // Leaving is asked for once: the same key says what became of it.
    let after = batches.exit(exit).await.unwrap().into_inner();
    assert_eq!(after.state(), MembershipState::Unrolled);
    drop((hub, user));
    cluster.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_opens_and_closes_a_batch_and_changes_the_offer() {
    let directory = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(DevChain::embedded(), directory.path());
    cluster.add("hub", NodeOptions::default()).await.unwrap();
    cluster.fund(&["hub"], Amount::from_sat(1_000_000), 1).await.unwrap();
    let hub = Api::of(&cluster, "hub").await;
    let mut batches = BatchesClient::new(hub.signed());
    let before = batches.get_policy(v1::GetBatchPolicyRequest {}).await.unwrap().into_inner();
    let change =
        |key: &str| v1::SetBatchPolicyRequest { idempotency_key: key.into(), ..Default::default() };
    let set = v1::SetBatchPolicyRequest { fee_sat: Some(77), users_max: Some(9), ..change("a") };
    let after = batches.set_policy(set).await.unwrap().into_inner();
    assert_eq!(after, v1::BatchPolicy { fee_sat: 77, users_max: 9, ..before });
    let short = v1::SetBatchPolicyRequest { life_blocks: Some(1_007), ..change("b") };
    let refused = batches.set_policy(short).await.unwrap_err();
    assert_eq!(reason(&refused), "POLICY_OUT_OF_RANGE");
    let now = batches.get_policy(v1::GetBatchPolicyRequest {}).await.unwrap().into_inner();
    assert_eq!(now, after);

    let open = |key: &str, gathering_ms| v1::OpenHostedBatchRequest {
        idempotency_key: key.into(),
        gathering_ms,
    };
    let hasty = batches.open_hosted(open("c", Some(99))).await.unwrap_err();
    assert_eq!(reason(&hasty), "POLICY_OUT_OF_RANGE");
    let opened = batches.open_hosted(open("d", Some(600_000))).await.unwrap().into_inner();
    assert_eq!(opened.state(), v1::HostedBatchState::Gathering);
    let again = batches.open_hosted(open("d", Some(600_000))).await.unwrap().into_inner();
    assert_eq!(again.batch_id, opened.batch_id);
    let second = batches.open_hosted(open("e", None)).await.unwrap_err();
    assert_eq!(reason(&second), "BATCH_STATE");

    let close = |key: &str| v1::CloseHostedBatchRequest {
        idempotency_key: key.into(),
        batch_id: opened.batch_id.clone(),
    };
    let closed = batches.close_hosted(close("f")).await.unwrap().into_inner();
    assert_eq!(closed.state(), v1::HostedBatchState::Failed, "nobody registered");
    let twice = batches.close_hosted(close("g")).await.unwrap_err();
    assert_eq!(reason(&twice), "BATCH_STATE");
    drop(hub);
    cluster.shut_down().await;
}
