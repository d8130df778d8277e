//! A user that joined by the batch protocol leaves by it.

use bitcoin::Amount;
use channel_contracts::batch::{HubPhase, LeafState, RegistrationId, UserPhase};
use node::batches::{ExitError, JoinRequest, JoinView};
use node::dev::{Cluster, NodeOptions};
use node::store::MemoryDisk;
use node::unroll::{Reason, UnrollState};
use tests::e2e::{WAIT, conserved, usable_channel};

use crate::stage::{CAPACITY_SAT, HUB, in_mempool, pays, unroll, unroll_is};

async fn wish(net: &Cluster) -> JoinView {
    net.node("ada").batches.joins().await.pop().unwrap()
}

async fn until(net: &Cluster, done: impl Fn(&JoinView) -> bool) -> JoinView {
    let end = tokio::time::Instant::now() + WAIT;
    loop {
        let wish = wish(net).await;
        if done(&wish) {
            return wish;
        }
        assert!(tokio::time::Instant::now() < end, "{wish:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

pub async fn a_member_leaves_by_its_own_machine(net: &mut Cluster) {
    for name in [HUB, "ada"] {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB, "ada"], Amount::from_sat(2_000_000), 2).await.unwrap();
    let hub = net.node(HUB).lightning.node_id();
    let address = net.get(HUB).unwrap().address();
    let _kept = net.node("ada").peers.remember(hub, &address, true);
    net.node("ada").lightning.connect(hub, &address).await.unwrap();
    let capacity = Amount::from_sat(CAPACITY_SAT);
    let request = JoinRequest { hub, capacity, inbound: Amount::ZERO };
    net.node("ada").batches.join(&request, None).await.unwrap();
    let joined = until(net, |wish| wish.state == UserPhase::Leaf(LeafState::Funded)).await;
    let funding = joined.funding.unwrap();
    let early = net.node("ada").batches.exit(joined.registration).await.unwrap_err();
    assert!(matches!(early, ExitError::NotConfirmed { .. }), "{early}");
    let root = net.node("ada").confirmations.batches()[0].root();
    in_mempool(net, root.txid).await;
    net.mine(3).await.unwrap();
    until(net, |w| matches!(w.state, UserPhase::Leaf(LeafState::Confirmed { .. }))).await;
    net.wait("usable channel", WAIT, || {
        [HUB, "ada"].iter().all(|name| {
            let channels = net.node(name).lightning.channels();
            channels.iter().any(|c| c.usable && c.counterparty_fees.is_some())
        })
    })
    .await
    .unwrap();
    pays(net, HUB, "ada", 50_000_000).await;

    let ada = &net.node("ada").batches;
    let other = ada.exit(RegistrationId([7; 32])).await.unwrap_err();
    assert!(matches!(other, ExitError::Unknown { .. }), "{other}");
    for _ in 0..2 {
        let leaving = ada.exit(joined.registration).await.unwrap();
        assert_eq!(leaving.unroll.unwrap().reason, Reason::Requested);
    }
    assert_eq!(unroll(net, "ada").unwrap().reason, Reason::Requested);
    // What the machine asked for is there again after a power cut.
    net.crash("ada").await.unwrap();
    net.start("ada").await.unwrap();
    in_mempool(net, funding.txid).await;
    net.mine(1).await.unwrap();
    until(net, |wish| wish.state == UserPhase::Leaf(LeafState::Unrolled)).await;
    unroll_is(net, "ada", |state| matches!(state, UnrollState::OnChain { .. })).await;
    usable_channel(net, "ada", |_| true).await;
    pays(net, "ada", HUB, 10_000_000).await;
    let late = net.node("ada").batches.exit(joined.registration).await.unwrap();
    assert_eq!(late.state, UserPhase::Leaf(LeafState::Unrolled), "asked again, nothing happens");
    // Once that is buried nothing is left of the batch, and its channel is one like others.
    let phase = async || net.node(HUB).batches.batches().await.pop().unwrap().phase;
    assert!(matches!(phase().await, HubPhase::Live { .. }));
    net.mine(5).await.unwrap();
    let end = tokio::time::Instant::now() + WAIT;
    while phase().await != HubPhase::Settled {
        assert!(tokio::time::Instant::now() < end, "{:?}", phase().await);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    pays(net, HUB, "ada", 5_000_000).await;
    conserved(net).await;
}
