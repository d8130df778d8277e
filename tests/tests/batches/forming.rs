//! From the wish to a channel that pays.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Amount;
use channel_contracts::batch::message::{
    DeclineReason, Declined, DropReason, Dropped, Message, Release, Stored,
};
use channel_contracts::batch::{Attempt, BatchId, HubPhase, LeafState, RegistrationId, UserPhase};
use channel_contracts::musig::TreeSecret;
use node::chain::BURIED_DEPTH;
use node::config::Config;
use node::dev::{Cluster, NodeOptions};
use node::journal::{BatchEvent, DomainEvent};
use node::store::{DiskFault, MemoryDisk};
use tests::e2e::{
    WAIT, channel_balance, clear_end, conserved, double_spend, forming_ended, mine_heard, told,
};

use crate::stage::{
    DEPTH, FUNDS_SAT, HUB, USERS, connect, formed, in_mempool, in_time, join, newest, pays,
    request, start, until, usable, wish,
};

pub async fn one_user_joins_and_is_paid(net: &mut Cluster) {
    start(net, 1).await;
    formed(net, &USERS[..1]).await;
    pays(net, HUB, USERS[0], 1_000_000).await;
    assert_eq!(channel_balance(net, USERS[0], HUB), 1_000_000);
    both_journals_tell_of_it(net).await;
}

/// Each step is in the log of events once, in order, on both sides.
async fn both_journals_tell_of_it(net: &Cluster) {
    let wish = wish(net, USERS[0]).await;
    let phases: Vec<UserPhase> = told(net, USERS[0])
        .into_iter()
        .filter_map(|event| match event {
            DomainEvent::Batch(BatchEvent::Wish { registration, phase, .. }) => {
                assert_eq!(registration, wish.registration);
                Some(phase)
            }
            _ => None,
        })
        .collect();
    assert!(matches!(phases[0], UserPhase::Registering { .. }), "{phases:?}");
    assert!(matches!(phases[1], UserPhase::Accepted { .. }), "{phases:?}");
    assert_eq!(phases.last(), Some(&wish.state));
    let mut once = phases.clone();
    once.dedup();
    assert_eq!(once, phases, "a step is told twice");
    let mut hosted = told(net, HUB);
    hosted.retain(|event| matches!(event, DomainEvent::Batch(BatchEvent::Hosted { .. })));
    let last = hosted.pop().unwrap();
    assert!(
        matches!(last, DomainEvent::Batch(BatchEvent::Hosted { phase: HubPhase::Live { .. }, .. })),
        "{last:?}"
    );
}

pub async fn five_users_join_and_pay_each_other(net: &mut Cluster) {
    start(net, 5).await;
    let before = net.on_chain().await.unwrap().transactions;
    formed(net, &USERS).await;
    assert_eq!(net.on_chain().await.unwrap().transactions, before + 1);
    for user in USERS {
        pays(net, HUB, user, 50_000_000).await;
    }
    for pair in USERS.windows(2) {
        pays(net, pair[0], pair[1], 1_234_567).await;
        pays(net, pair[1], pair[0], 1).await;
    }
    assert_eq!(newest(net).await.unwrap().users.len(), 5);
}

pub async fn a_user_that_leaves_before_the_tree_is_built_is_left_out(net: &mut Cluster) {
    start(net, 3).await;
    for user in &USERS[..3] {
        join(net, user).await;
    }
    until("three members", async || newest(net).await.is_some_and(|b| b.users.len() == 3)).await;
    net.stop(USERS[2]).await.unwrap();
    until("the batch transaction", async || {
        newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    let batch = newest(net).await.unwrap();
    assert_eq!((batch.users.len(), batch.left_out.len()), (2, 1), "{batch:?}");
    usable(net, &USERS[..2]).await;
    net.start(USERS[2]).await.unwrap();
    until("the end of a wish", async || {
        matches!(wish(net, USERS[2]).await.state, UserPhase::Over(_))
    })
    .await;
    pays(net, HUB, USERS[0], 1_000_000).await;
}

/// What a power cut may come to.
const FAULTS: [DiskFault; 3] = [DiskFault::FailWrite, DiskFault::FailSync, DiskFault::FailAnswer];
/// Every so many commits of a node are tried.
const CUT_EVERY: u64 = 2;
/// A capacity of which many fit into the hub's coins.
const SMALL_SAT: u64 = 20_000;

pub async fn a_power_cut_at_any_commit_loses_no_coin(net: &mut Cluster) {
    let disks = [MemoryDisk::new(), MemoryDisk::new()];
    let names = [HUB, USERS[0]];
    for (name, disk) in names.iter().zip(&disks) {
        let configure = |config: &mut Config| {
            config.batch.gathering_ms = 100;
            config.batch.step_seconds = 1;
        };
        let options = NodeOptions { disk: Some(disk.clone()), configure: Arc::new(configure) };
        net.add(name, options).await.unwrap();
    }
    net.fund(&[HUB], Amount::from_sat(FUNDS_SAT), 2).await.unwrap();
    for (name, disk) in names.iter().zip(&disks) {
        let mut after = 1;
        loop {
            connect(net, USERS[0]).await;
            let fault = FAULTS[(after % 3) as usize];
            let cut_at = disk.commits() + after;
            disk.fault_at(cut_at, fault);
            let request = request(net, SMALL_SAT);
            let _joined_or_cut = net.node(USERS[0]).batches.join(&request, None).await;
            until("an end of forming, or the cut", async || {
                disk.commits() >= cut_at || forming_ended(net, &USERS[..1]).await
            })
            .await;
            let was_cut = disk.commits() >= cut_at;
            disk.clear_faults();
            if was_cut {
                println!("  {name} lost power {after} commits after the wish ({fault:?})");
                net.crash(name).await.unwrap();
                net.start(name).await.unwrap();
                connect(net, USERS[0]).await;
            }
            until("an end of forming", async || forming_ended(net, &USERS[..1]).await).await;
            in_mempool(net).await;
            net.mine(DEPTH).await.unwrap();
            if !in_time(&mut async || clear_end(net, &USERS[..1]).await).await {
                let hub = net.node(HUB);
                let batches = hub.batches.batches().await;
                let wishes = net.node(USERS[0]).batches.joins().await;
                let held = hub.wallet.holds();
                panic!("no clear end: {batches:#?}, {wishes:#?}, held: {held:?}");
            }
            if !was_cut {
                break;
            }
            after += CUT_EVERY;
        }
        assert!(after > CUT_EVERY, "{name} was never cut");
    }
    // Every batch that came about carries payments.
    let live = net.node(HUB).batches.batches().await;
    let live = live.iter().filter(|batch| matches!(batch.phase, HubPhase::Live { .. })).count();
    let usable = || {
        let channels = net.node(HUB).lightning.channels();
        channels.iter().filter(|channel| channel.usable).count()
    };
    net.wait("usable channels", WAIT, || usable() == live).await.unwrap();
    pays(net, HUB, USERS[0], 1_000_000).await;
    conserved(net).await;
}

pub async fn both_sides_crash_after_the_broadcast_and_go_on(net: &mut Cluster) {
    start(net, 2).await;
    for user in &USERS[..2] {
        join(net, user).await;
    }
    until("the batch transaction", async || {
        newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    for name in [HUB, USERS[0], USERS[1]] {
        net.crash(name).await.unwrap();
    }
    for name in [HUB, USERS[0], USERS[1]] {
        net.start(name).await.unwrap();
    }
    for user in &USERS[..2] {
        connect(net, user).await;
    }
    usable(net, &USERS[..2]).await;
    pays(net, HUB, USERS[0], 1_000_000).await;
    pays(net, USERS[0], USERS[1], 500_000).await;
}

pub async fn a_batch_whose_transaction_is_double_spent_is_given_up(net: &mut Cluster) {
    start(net, 2).await;
    for user in &USERS[..2] {
        join(net, user).await;
    }
    until("the batch transaction", async || {
        newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    in_mempool(net).await;
    let beaten = newest(net).await.unwrap();
    double_spend(net, HUB, beaten.txid.unwrap()).await;
    let hub_view = async || {
        let batches = net.node(HUB).batches.batches().await;
        batches.into_iter().find(|batch| batch.batch == beaten.batch).unwrap()
    };
    mine_heard(net, BURIED_DEPTH - 2).await;
    assert_eq!(hub_view().await.phase, HubPhase::Confirming, "the rival may be gone again");
    net.mine(1).await.unwrap();
    until("the end of the batch", async || {
        hub_view().await.phase == HubPhase::Failed { reason: DropReason::Conflict }
    })
    .await;
    for user in &USERS[..2] {
        until("word of it", async || {
            wish(net, user).await.state == UserPhase::Leaf(LeafState::Dropped)
        })
        .await;
    }
    let hub = net.node(HUB);
    net.wait("closed channels", WAIT, || hub.lightning.channels().is_empty()).await.unwrap();
    assert_eq!(hub.wallet.holds(), []);
    assert!(!net.chain.knows(beaten.txid.unwrap()).await.unwrap());
    // All are as they were before, and try again.
    for user in &USERS[..2] {
        join(net, user).await;
    }
    until("another batch transaction", async || {
        let batches = net.node(HUB).batches.batches().await;
        batches.iter().any(|batch| batch.phase == HubPhase::Confirming)
    })
    .await;
    in_mempool(net).await;
    net.mine(DEPTH).await.unwrap();
    for user in &USERS[..2] {
        let there = net.node(user);
        net.wait("a usable channel", WAIT, || there.lightning.channels().iter().any(|c| c.usable))
            .await
            .unwrap();
        pays(net, HUB, user, 1_000_000).await;
    }
    conserved(net).await;
}

pub async fn nonsense_of_a_member_does_not_stop_the_others(net: &mut Cluster) {
    start(net, 3).await;
    for user in &USERS[..3] {
        join(net, user).await;
    }
    let hub = net.node(HUB).lightning.node_id();
    let until_formed = async {
        until("the batch transaction", async || {
            newest(net).await.is_some_and(|batch| batch.phase == HubPhase::Confirming)
        })
        .await;
    };
    let nonsense = async {
        // What is out of order, stale, of another batch, of the other role, or of nobody.
        for round in 0_u8.. {
            let batch = match round % 2 {
                0 => newest(net).await.map_or(BatchId([0; 32]), |batch| batch.batch),
                _ => BatchId([round; 32]),
            };
            let attempt = Attempt::new(round % 3).unwrap();
            let secret = TreeSecret::from_bytes([round.max(1); 32]).unwrap();
            let registration = RegistrationId([round; 32]);
            let reason = DropReason::Conflict;
            let messages = [
                Message::Stored(Stored { batch, attempt }),
                Message::Release(Release { batch, attempt, secret }),
                Message::Dropped(Dropped { batch, attempt, reason }),
                Message::Declined(Declined { registration, reason: DeclineReason::Full }),
            ];
            let mallory = net.node(USERS[2]).lightning.batch_messages();
            mallory.send(hub, &messages[usize::from(round) % messages.len()]);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = until_formed => {}
        () = nonsense => {}
    }
    usable(net, &USERS[..2]).await;
    pays(net, HUB, USERS[0], 1_000_000).await;
    pays(net, USERS[0], USERS[1], 500_000).await;
}
