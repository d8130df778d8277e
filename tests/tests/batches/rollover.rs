//! From one batch into the next.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use node::batches::{JoinView, OfferChange};
use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::payments::PaymentState;
use node::store::{DiskFault, MemoryDisk};
use tests::e2e::{
    conserved, has_moved, invoice, is_left, next_batch, pay, pay_request, usable_channel, wishes,
};

use crate::stage::{FUNDS_SAT, HUB, USERS, connect, formed, in_time, pays, until};

/// Life of a batch here, in blocks: long enough for a window to roll over in.
const LIFE: u32 = 600;
/// Blocks to mine until the window opens.
const HALF_LIFE: u32 = LIFE / 2;
/// What each user has before.
const BALANCE_MSAT: u64 = 50_000_001;
/// What a place in the next batch costs it.
const FEE_MSAT: u64 = 300_000;

fn short_lived(config: &mut Config) {
    config.batch.life_blocks = LIFE;
    config.batch.gathering_ms = 300;
    config.batch.fee_sat = FEE_MSAT / 1_000;
}

/// The shortest life that an operator may choose.
fn just_long_enough(config: &mut Config) {
    config.batch.life_blocks = 1_008;
}

async fn start(net: &mut Cluster, users: &[&str]) -> Vec<MemoryDisk> {
    start_with(net, users, short_lived).await
}

async fn start_with(
    net: &mut Cluster,
    users: &[&str],
    configure: fn(&mut Config),
) -> Vec<MemoryDisk> {
    let mut disks = Vec::new();
    for name in [HUB].iter().chain(users) {
        let disk = MemoryDisk::new();
        let configure = Arc::new(configure);
        net.add(name, NodeOptions { disk: Some(disk.clone()), configure }).await.unwrap();
        disks.push(disk);
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 4).await.unwrap();
    for user in users {
        connect(net, user).await;
    }
    disks
}

async fn balance_msat(net: &Cluster, user: &str) -> u64 {
    net.node(user).lightning.channels().iter().map(|channel| channel.local_msat).sum()
}

async fn newest_is(net: &Cluster, is: impl Fn(HubPhase) -> bool) -> bool {
    net.node(HUB).batches.batches().await.iter().any(|batch| is(batch.phase))
}

pub async fn balances_move_into_the_next_batch(net: &mut Cluster) {
    let users = &USERS[..3];
    start(net, users).await;
    formed(net, users).await;
    for user in users {
        pays(net, HUB, user, BALANCE_MSAT).await;
    }
    let before = net.on_chain().await.unwrap().transactions;
    next_batch(net, HALF_LIFE, 2).await;
    // What comes in on the way moves too, whichever channel it takes.
    let mut paid = 0;
    until("every balance in the next batch", async || {
        if paid < 5 {
            pays(net, HUB, users[0], 1_000).await;
            paid += 1;
        }
        let mut moved = true;
        for user in users {
            moved &= has_moved(net, user).await;
        }
        moved
    })
    .await;
    // The first place was free, for nothing moved into it; the second is paid once.
    assert_eq!(balance_msat(net, users[0]).await, BALANCE_MSAT + paid * 1_000 - FEE_MSAT);
    assert_eq!(balance_msat(net, users[1]).await, BALANCE_MSAT - FEE_MSAT);
    // It took one transaction, and the one in which the hub takes the first batch back; closings
    // stay off the chain.
    for _ in 0..20 {
        net.mine(1).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(newest_is(net, |phase| phase == HubPhase::Settled).await);
    assert_eq!(net.on_chain().await.unwrap().transactions, before + 2);
    pays(net, users[1], users[2], 1_234_567).await;
    for name in [HUB, users[0]] {
        net.crash(name).await.unwrap();
        net.start(name).await.unwrap();
    }
    connect(net, users[0]).await;
    pays(net, users[0], HUB, 1_000_000).await;
    // A restart does not bring what is retired back.
    net.mine(6).await.unwrap();
    assert!(has_moved(net, users[0]).await);
    assert_eq!(net.on_chain().await.unwrap().transactions, before + 2);
    conserved(net).await;
}

pub async fn nothing_is_forwarded_into_a_batch_that_ends(net: &mut Cluster) {
    let users = &USERS[..2];
    start_with(net, users, just_long_enough).await;
    formed(net, users).await;
    for user in users {
        pays(net, HUB, user, BALANCE_MSAT).await;
    }
    pays(net, users[0], users[1], 1_000_000).await;
    // Nobody can roll over: the hub has no place for channels of this size.
    let closed = OfferChange { capacity_max_sat: Some(10_000), ..OfferChange::default() };
    net.node(HUB).batches.change_offer(&closed).unwrap();
    let deadline = wishes(net, users[0]).await.0.deadline.unwrap().to_consensus_u32();
    let tip = net.chain.tip().await.unwrap().height;
    // A quarter of its life before the deadline.
    net.mine(deadline - 1_008 / 4 + 1 - tip).await.unwrap();
    let net = &*net;
    let forwarded = async || {
        let bill = invoice(net, users[0], Some(1_000_000)).await;
        pay(net, users[1], &pay_request(&bill.invoice, None)).await.state
    };
    until("a payment that is refused", async || forwarded().await == PaymentState::Failed).await;
    // What the two have with each other goes on.
    pays(net, HUB, users[0], 1_000).await;
    pays(net, users[1], HUB, 1_000).await;
    // Who leaves the batch has a channel like any other.
    net.fund(&users[..1], Amount::from_sat(200_000), 1).await.unwrap();
    let joined = wishes(net, users[0]).await.0.registration;
    net.node(users[0]).batches.exit(joined).await.unwrap();
    until("an ordinary channel", async || {
        net.mine(1).await.unwrap();
        wishes(net, users[0]).await.0.state == UserPhase::Leaf(LeafState::Unrolled)
    })
    .await;
    let arrived = PaymentState::Succeeded;
    until("a payment that is forwarded again", async || forwarded().await == arrived).await;
    conserved(net).await;
}

pub async fn a_user_without_its_hub_leaves_by_itself_at_the_deadline(net: &mut Cluster) {
    let user = USERS[0];
    start(net, &[user]).await;
    net.fund(&[user], Amount::from_sat(200_000), 1).await.unwrap();
    formed(net, &[user]).await;
    pays(net, HUB, user, BALANCE_MSAT).await;
    net.stop(HUB).await.unwrap();
    let wish = wishes(net, user).await.0;
    let (funding, deadline) = (wish.funding.unwrap(), wish.deadline.unwrap().to_consensus_u32());
    let tip = net.chain.tip().await.unwrap().height;
    net.mine(deadline - 1 - tip).await.unwrap();
    assert!(!net.chain.knows(funding.txid).await.unwrap(), "not a block too early");
    net.mine(1).await.unwrap();
    until("the leaf", async || net.chain.knows(funding.txid).await.unwrap()).await;
    net.mine(1).await.unwrap();
    until("an ordinary channel", async || {
        wishes(net, user).await.0.state == UserPhase::Leaf(LeafState::Unrolled)
    })
    .await;
    // Nothing was closed: with the hub back, it pays.
    net.start(HUB).await.unwrap();
    connect(net, user).await;
    usable_channel(net, user, |_| true).await;
    pays(net, user, HUB, 1_000_000).await;
    conserved(net).await;
}

/// What a power cut may come to.
const FAULTS: [DiskFault; 3] = [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer];
/// Every so many commits of a node are tried.
const CUT_EVERY: u64 = 5;
/// Cuts of one node; each takes a batch.
const CUTS_MAX: u64 = 8;

pub async fn a_power_cut_at_any_commit_of_a_rollover_loses_nothing(net: &mut Cluster) {
    let user = USERS[0];
    let disks = start(net, &[user]).await;
    formed(net, &[user]).await;
    pays(net, HUB, user, BALANCE_MSAT).await;
    let mut balance = BALANCE_MSAT;
    for (name, disk) in [HUB, user].iter().zip(&disks) {
        let mut cuts = 0;
        for cut in 0..CUTS_MAX {
            let batches = net.node(HUB).batches.batches().await.len();
            next_batch(net, HALF_LIFE, batches + 1).await;
            let fault = FAULTS[(cut % 3) as usize];
            let cut_at = disk.commits() + 1 + cut * CUT_EVERY;
            disk.fault_at(cut_at, fault);
            let mut over = async || disk.commits() >= cut_at || is_settled(net, user).await;
            assert!(in_time(&mut over).await, "neither the end nor the cut comes");
            let was_cut = disk.commits() >= cut_at;
            disk.clear_faults();
            if was_cut {
                println!(
                    "  {name} lost power {} commits into the rollover ({fault:?})",
                    cut * CUT_EVERY
                );
                net.crash(name).await.unwrap();
                net.start(name).await.unwrap();
                connect(net, user).await;
                cuts += 1;
            }
            // What failed is tried again at the next blocks.
            let mut moved = false;
            for _ in 0..10 {
                net.mine(1).await.unwrap();
                moved = in_time(&mut async || is_settled(net, user).await).await;
                if moved {
                    break;
                }
            }
            assert!(moved, "{name}, cut {cut}: {:#?}", net.node(user).batches.joins().await);
            balance -= FEE_MSAT;
            assert_eq!(balance_msat(net, user).await, balance);
            if !was_cut {
                break;
            }
        }
        assert!(cuts > 0, "{name} was never cut");
    }
    pays(net, user, HUB, 1_000_000).await;
    // What the hub takes back is either where it was or in the wallet, not on its way.
    net.mine(10).await.unwrap();
    conserved(net).await;
}

/// Whether the newest wish is alive, all others retired, and no payment under way.
async fn is_settled(net: &Cluster, user: &str) -> bool {
    let joins = net.node(user).batches.joins().await;
    let rest: Vec<&JoinView> = joins.iter().filter(|wish| !is_left(wish)).collect();
    let is_one =
        rest.len() == 1 && matches!(rest[0].state, UserPhase::Leaf(LeafState::Confirmed { .. }));
    let channels = net.node(user).lightning.channels();
    is_one && channels.len() == 1 && channels[0].usable
}
