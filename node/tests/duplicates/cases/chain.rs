//! The wallet and channels.

use std::sync::Arc;

use bitcoin::{Address, Network, ScriptBuf, WPubkeyHash, hashes::Hash};
use proto::v1::channels_client::ChannelsClient;
use proto::v1::wallet_client::WalletClient;
use proto::v1::{self as pb};

use super::payments::whole;
use crate::callers::{Call, NOT_BACK, duplicates};
use crate::process::{info, wait_until};
use crate::world::{ALICE, BOB, World};

/// Channels that are opened and closed here.
const SPARE_SAT: u64 = 300_000;

pub async fn new_address(world: &Arc<World>) {
    let first = world.new_address(ALICE).await;
    let request = pb::NewAddressRequest { idempotency_key: world.name("new-address") };
    let call = Call::new(ALICE, "Wallet/NewAddress", &request);
    let given: pb::NewAddressResponse = duplicates(world, call, whole).await.remove(0);
    let next = world.new_address(ALICE).await;
    let mut places = Vec::new();
    for address in [&first, &given.address, &next] {
        places.push(world.address_index(ALICE, address).await);
    }
    assert_eq!(places, [places[0], places[0] + 1, places[0] + 2], "one address was given out");
}

/// A script of nobody here.
fn elsewhere(world: &World) -> (String, ScriptBuf) {
    let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(world.bytes()));
    let address = Address::from_script(&script, Network::Regtest).unwrap();
    (address.to_string(), script)
}

/// What transactions in the mempool and in blocks since `height` pay to a script, in satoshis.
async fn paid_to(world: &World, script: &ScriptBuf, height: u32) -> u64 {
    let source = world.chain.source();
    let embedded = world.chain.as_embedded().unwrap();
    let waiting = source.mempool().await.unwrap();
    let mut transactions: Vec<_> =
        waiting.iter().filter_map(|txid| embedded.transaction(*txid)).collect();
    let tip = world.chain.tip().await.unwrap();
    let mut hash = tip.hash;
    for _ in height..tip.height {
        let block = source.block(hash).await.unwrap();
        hash = block.header.prev_blockhash;
        transactions.extend(block.txdata.iter().cloned());
    }
    let outputs = transactions.iter().flat_map(|transaction| transaction.output.iter());
    let theirs = outputs.filter(|output| output.script_pubkey == *script);
    theirs.map(|output| output.value.to_sat()).sum()
}

async fn total_sat(world: &World) -> u64 {
    let mut alice = WalletClient::new(world.door(ALICE).await);
    let balance = alice.get_balance(pb::GetBalanceRequest {}).await.unwrap().into_inner();
    balance.confirmed_sat + balance.unconfirmed_sat
}

pub async fn send(world: &Arc<World>) {
    let (address, script) = elsewhere(world);
    let height = world.chain.tip().await.unwrap().height;
    let (count, had_sat) = (world.transactions(ALICE).await.len(), total_sat(world).await);
    let request = pb::SendRequest {
        idempotency_key: world.name("send"),
        address,
        amount: Some(pb::send_request::Amount::AmountSat(54_321)),
        feerate_sat_per_vb: Some(3),
        max_fee_sat: None,
    };
    let call = Call::new(ALICE, "Wallet/Send", &request).not_yet(NOT_BACK);
    // No block comes meanwhile.
    let sent: pb::WalletTransaction = duplicates(world, call, whole).await.remove(0);
    assert_eq!(world.transactions(ALICE).await.len(), count + 1, "one more transaction");
    let fee_sat = sent.fee_sat.unwrap();
    assert_eq!(total_sat(world).await, had_sat - 54_321 - fee_sat, "what is left");
    wait_until("the transaction on chain", || async { paid_to(world, &script, height).await > 0 })
        .await;
    assert_eq!(paid_to(world, &script, height).await, 54_321, "sent once");
    world.mine(1).await;
    assert_eq!(paid_to(world, &script, height).await, 54_321, "sent once");
}

pub async fn bump_fee(world: &Arc<World>) {
    let (address, script) = elsewhere(world);
    let height = world.chain.tip().await.unwrap().height;
    let mut alice = WalletClient::new(world.door(ALICE).await);
    let had_sat = total_sat(world).await;
    let request = pb::SendRequest {
        idempotency_key: world.name("slow"),
        address,
        amount: Some(pb::send_request::Amount::AmountSat(65_432)),
        feerate_sat_per_vb: Some(2),
        max_fee_sat: None,
    };
    let slow = alice.send(request).await.unwrap().into_inner();
    wait_until("the slow transaction on chain", || async {
        paid_to(world, &script, height).await > 0
    })
    .await;
    let count = world.transactions(ALICE).await.len();
    let request = pb::BumpFeeRequest {
        idempotency_key: world.name("bump"),
        txid: slow.txid.clone(),
        feerate_sat_per_vb: Some(20),
    };
    let call = Call::new(ALICE, "Wallet/BumpFee", &request).not_yet(NOT_BACK);
    let fast: pb::WalletTransaction = duplicates(world, call, whole).await.remove(0);
    let listed = world.transactions(ALICE).await;
    // What was replaced is not listed any more.
    assert_eq!(listed.len(), count, "one in the place of another");
    assert!(listed.contains(&fast) && listed.iter().all(|other| other.txid != slow.txid));
    let left_sat = had_sat - 65_432 - fast.fee_sat.unwrap();
    assert_eq!(total_sat(world).await, left_sat, "paid for once");
    wait_until("the fast transaction on chain", || async {
        let mempool = world.chain.source().mempool().await.unwrap();
        mempool.iter().any(|txid| txid.to_string() == hex::encode(&fast.txid))
    })
    .await;
    world.mine(1).await;
    assert_eq!(paid_to(world, &script, height).await, 65_432, "sent once");
    assert_eq!(total_sat(world).await, left_sat, "paid for once");
}

/// A channel shows how far it came; who it is with and what it holds stays. The kill may end the
/// negotiation: then the record says so, and nothing was funded.
pub async fn open(world: &Arc<World>) {
    use pb::TransactionPurpose::ChannelFunding;
    let (ours, theirs) = (world.channels(ALICE).await.len(), world.channels(BOB).await.len());
    let fundings = world.count_of(ALICE, ChannelFunding).await;
    let request = pb::OpenChannelRequest {
        idempotency_key: world.name("open"),
        node_id: world.id(BOB).await,
        address: Some(world.address(BOB).await),
        capacity_sat: SPARE_SAT,
        push_msat: 10_000_000,
        ..pb::OpenChannelRequest::default()
    };
    let call = Call::new(ALICE, "Channels/Open", &request).not_yet(NOT_BACK);
    let same = |answer: &[pb::Channel]| {
        let channel = whole(answer);
        (channel.record_id, channel.counterparty_node_id, channel.capacity_sat)
    };
    let record_id = duplicates(world, call, same).await.remove(0).record_id;
    wait_until("the end of the opening", || async {
        world.mine_what_waits().await;
        let state = world.channel(ALICE, &record_id).await.state();
        matches!(state, pb::ChannelState::Active | pb::ChannelState::Closed)
    })
    .await;
    let channel = world.channel(ALICE, &record_id).await;
    assert_eq!(world.channels(ALICE).await.len(), ours + 1, "one more channel");
    let funded = world.count_of(ALICE, ChannelFunding).await - fundings;
    let at_bob = world.channels(BOB).await;
    if channel.state() == pb::ChannelState::Active {
        assert_eq!(funded, 1, "funded once");
        assert_eq!(at_bob.len(), theirs + 1, "bob has one more channel");
    } else {
        let cause = channel.closing.map(|closing| closing.cause());
        assert_eq!(cause, Some(pb::ClosingCause::OpenFailed));
        assert_eq!(funded, 0, "nothing was funded");
        let not_closed =
            at_bob.iter().filter(|one| one.state() != pb::ChannelState::Closed).count();
        assert!(not_closed <= theirs, "bob has no more channels that work");
    }
}

/// Both answers of a channel that stays have the same policy; what it carries is not compared.
pub async fn update_policy(world: &Arc<World>) {
    let channel = world.channels(ALICE).await.into_iter().find(|channel| {
        channel.state() == pb::ChannelState::Active && channel.capacity_sat > SPARE_SAT
    });
    let record_id = channel.unwrap().record_id;
    let request = |base_msat| pb::UpdatePolicyRequest {
        idempotency_key: world.name("policy"),
        record_id: record_id.clone(),
        fee_base_msat: Some(base_msat),
        fee_proportional_millionths: Some(321),
        cltv_expiry_delta: None,
    };
    let base_msat = 1 + u32::from(world.bytes::<1>()[0]);
    let first = request(base_msat);
    let call = Call::new(ALICE, "Channels/UpdatePolicy", &first);
    let same = |answer: &[pb::Channel]| {
        let channel = whole(answer);
        (channel.record_id, channel.holder_policy)
    };
    duplicates(world, call, same).await;
    let asked = world.channel(ALICE, &record_id).await.holder_policy.unwrap();
    assert_eq!((asked.fee_base_msat, asked.fee_proportional_millionths), (base_msat, 321));
    // A repetition that comes late does not undo what came between.
    let mut alice = ChannelsClient::new(world.door(ALICE).await);
    alice.update_policy(request(0)).await.unwrap();
    alice.update_policy(first).await.unwrap();
    let asked = world.channel(ALICE, &record_id).await.holder_policy.unwrap();
    assert_eq!(asked.fee_base_msat, 0, "a repetition changed it again");
}

/// A close by agreement. The channel is on its way to CLOSED: which one it is stays.
pub async fn close(world: &Arc<World>) {
    let is_spare = |channel: &&pb::Channel| {
        channel.capacity_sat == SPARE_SAT && channel.state() == pb::ChannelState::Active
    };
    if world.channels(ALICE).await.iter().filter(is_spare).count() == 0 {
        world.open_to_bob(SPARE_SAT).await;
    }
    let record_id = world.channels(ALICE).await.iter().find(is_spare).unwrap().record_id.clone();
    let count = world.transactions(ALICE).await.len();
    let request = pb::CloseChannelRequest {
        idempotency_key: world.name("close"),
        record_id: record_id.clone(),
        ..pb::CloseChannelRequest::default()
    };
    let call = Call::new(ALICE, "Channels/Close", &request).not_yet(NOT_BACK);
    let same = |answer: &[pb::Channel]| {
        let channel = whole(answer);
        (channel.record_id, channel.counterparty_node_id, channel.capacity_sat)
    };
    duplicates(world, call, same).await;
    wait_until("a closed channel", || async {
        world.mine_what_waits().await;
        world.channel(ALICE, &record_id).await.state() == pb::ChannelState::Closed
    })
    .await;
    let closing = world.channel(ALICE, &record_id).await.closing.unwrap();
    assert_eq!(closing.cause(), pb::ClosingCause::CooperativeByHolder, "{closing:?}");
    wait_until("the closing transaction in the wallet", || async {
        world.transactions(ALICE).await.len() > count
    })
    .await;
    assert_eq!(world.transactions(ALICE).await.len(), count + 1, "one more transaction");
    let bob = info(&*world.nodes[BOB].read().await).await;
    assert!(bob.channels.is_some_and(|channels| channels.closing == 0), "{bob:?}");
}
