//! Closing by agreement.

use bitcoin::Amount;
use node::channels::{ChannelState, CloseError};
use node::dev::{Cluster, NodeOptions};
use node::lightning::CloseKind;
use tests::e2e::{
    WAIT, channel_balance, conserved, invoice, mine_until_swept, paid, settled, wallet_sat,
};

const CAPACITY_SAT: u64 = 600_000;

pub async fn the_opener_closes_by_agreement(net: &mut Cluster) {
    close(net, "alice").await;
}

pub async fn the_acceptor_closes_by_agreement(net: &mut Cluster) {
    close(net, "bob").await;
}

async fn close(net: &mut Cluster, closer: &str) {
    for name in ["alice", "bob"] {
        net.add(name, NodeOptions::default()).await.unwrap();
    }
    net.fund(&["alice"], Amount::from_sat(1_000_000), 1).await.unwrap();
    net.open_channel("alice", "bob", CAPACITY_SAT, 200_000_000).await.unwrap();
    // Millisatoshis do not exist on chain: what is below one satoshi goes to the miners.
    let bill = invoice(net, "bob", Some(1_234_567)).await;
    paid(net, "alice", &bill.invoice, None).await;
    settled(net).await;
    assert_eq!(channel_balance(net, "bob", "alice"), 201_234_567);
    let before_sat = wallet_sat(net, "alice");

    let channel = crate::open::records(net, closer).await[0].channel;
    net.node(closer).channels.close(channel, false, None, None).await.unwrap();
    for name in ["alice", "bob"] {
        let channel = crate::open::records(net, name).await[0].channel;
        net.wait_channel(name, channel, "closed channel", |view| {
            view.record.state == ChannelState::Closed
        })
        .await
        .unwrap();
        let view = net.node(name).channels.get(channel).unwrap();
        assert_eq!(view.record.close_kind, Some(CloseKind::Cooperative));
        assert_eq!(view.live, None);
    }
    // Both sides broadcast the same transaction; the next block has it.
    net.wait("closing transaction in both wallets", WAIT, || {
        wallet_sat(net, "bob") > 0 && wallet_sat(net, "alice") > before_sat
    })
    .await
    .unwrap();
    mine_until_swept(net, 30).await;
    let fees_sat = net.on_chain().await.unwrap().fees.to_sat();
    assert_eq!(wallet_sat(net, "bob"), 201_234);
    assert_eq!(wallet_sat(net, "alice"), 1_000_000 - 201_234 - fees_sat);
    conserved(net).await;

    let again = net.node(closer).channels.close(channel, false, None, None).await.unwrap_err();
    assert!(matches!(again, CloseError::WrongState { state: ChannelState::Closed }), "{again}");
}
