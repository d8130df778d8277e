//! From a channel to the chain.

use std::collections::BTreeSet;

use bitcoin::Amount;
use channel_contracts::swap::margins::FINAL_DEPTH;
use node::chain::BURIED_DEPTH;
use node::dev::{Cluster, NodeOptions};
use node::journal::DomainEvent;
use node::store::MemoryDisk;
use node::swaps::{SwapState, WithdrawRequest};
use tests::e2e::{
    WAIT, channel_balance, connect, conserved, double_spend, forming_ended, in_time, join, pays,
    spender, told, until, usable, wallet_sat,
};

use crate::stage::{
    CAPACITY_SAT, FAULTS, HUB, SWAP_SAT, USERS, carried, ended, power_cuts, spent, stands, start,
    start_with, swap, withdraw,
};

/// Blocks from a withdrawal's beginning until its output is taken back for good, and more.
const TO_THE_END: u32 = 230;
/// Blocks for which a withdrawal waits for a batch; fewer than it takes to end.
const PATIENT: u32 = 5;
/// A capacity of which many fit into the hub's coins.
const SMALL_SAT: u64 = 20_000;

pub async fn withdrawals_of_many_ride_in_one_transaction(net: &mut Cluster) {
    start(net, &USERS).await;
    let mut swaps = Vec::new();
    for user in USERS {
        assert_eq!(wallet_sat(net, user), 0);
        swaps.push((user, withdraw(net, user, SWAP_SAT).await));
    }
    for (_, id) in &swaps {
        stands(net, HUB, *id, &[SwapState::Funding]).await;
    }
    net.mine(1).await.unwrap();
    let mut carriers = BTreeSet::new();
    for (_, id) in &swaps {
        carried(net, HUB, *id).await;
        carriers.insert(swap(net, HUB, *id).await.carrier);
    }
    assert_eq!(carriers.len(), 1, "one transaction pays all");
    // Buried: revealed, claimed, handed over, spent with both keys.
    net.mine(2).await.unwrap();
    for (user, id) in &swaps {
        spent(net, user, *id).await;
        let output = swap(net, user, *id).await.output.unwrap();
        let spend = spender(net, output).await.unwrap();
        assert_eq!(spend.input[0].witness.len(), 1, "a signature for both keys, no script");
    }
    net.mine(FINAL_DEPTH).await.unwrap();
    for (user, id) in &swaps {
        for name in [HUB, user] {
            stands(net, name, *id, &[SwapState::Done]).await;
        }
        let view = swap(net, user, *id).await;
        let fee_msat = view.payment_msat.unwrap() - SWAP_SAT * 1_000;
        println!("  {user} paid the hub {fee_msat} msat to withdraw {SWAP_SAT} sat");
        let received = wallet_sat(net, user);
        assert!((SWAP_SAT - 2_000..SWAP_SAT).contains(&received), "{received} sat");
    }
    conserved(net).await;
    let (user, id) = swaps[0];
    for (name, first) in [(user, SwapState::Asking), (HUB, SwapState::Paying)] {
        let states = told(net, name).into_iter().filter_map(|event| match event {
            DomainEvent::Swap(event) if event.swap == id => Some(event.state),
            _ => None,
        });
        let states: Vec<SwapState> = states.collect();
        assert_eq!((states[0], states.last()), (first, Some(&SwapState::Done)), "{states:?}");
        let mut once = states.clone();
        once.dedup();
        assert_eq!(once, states, "a step is told twice");
    }
}

pub async fn a_withdrawal_rides_in_the_next_batch(net: &mut Cluster) {
    start_with(net, &["ada"], PATIENT).await;
    let id = withdraw(net, "ada", SWAP_SAT).await;
    stands(net, HUB, id, &[SwapState::Funding]).await;
    net.mine(2).await.unwrap();
    assert_eq!(swap(net, HUB, id).await.carrier, None, "it waits for a batch");
    let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
    net.add("ben", options).await.unwrap();
    connect(net, "ben").await;
    join(net, "ben", CAPACITY_SAT).await;
    carried(net, HUB, id).await;
    let carrier = swap(net, HUB, id).await.carrier;
    let batches = net.node(HUB).batches.batches().await;
    assert!(batches.iter().any(|batch| batch.txid == carrier), "{carrier:?} of {batches:?}");
    ended(net, "ada", id, 60).await;
    stands(net, HUB, id, &[SwapState::Done]).await;
    usable(net, &["ben"]).await;
    pays(net, HUB, "ben", 1_000_000).await;
    conserved(net).await;
}

pub async fn a_withdrawal_whose_transaction_is_double_spent_is_given_back(net: &mut Cluster) {
    start(net, &["ada"]).await;
    let before = channel_balance(net, "ada", HUB);
    let id = withdraw(net, "ada", SWAP_SAT).await;
    stands(net, HUB, id, &[SwapState::Funding]).await;
    net.mine(1).await.unwrap();
    carried(net, HUB, id).await;
    double_spend(net, HUB, swap(net, HUB, id).await.carrier.unwrap()).await;
    // Once the rival is buried, and long before the payment's time is over.
    ended(net, "ada", id, BURIED_DEPTH + 2).await;
    for side in [HUB, "ada"] {
        stands(net, side, id, &[SwapState::Failed]).await;
    }
    until("the balance", async || channel_balance(net, "ada", HUB) == before).await;
    let again = withdraw(net, "ada", SWAP_SAT).await;
    ended(net, "ada", again, 60).await;
    stands(net, "ada", again, &[SwapState::Done]).await;
    conserved(net).await;
}

pub async fn a_power_cut_while_a_withdrawal_boards_pays_it_once(net: &mut Cluster) {
    let disks = start_with(net, &["ada"], PATIENT).await;
    let users = ["ben", "cid", "dot", "eve", "fay", "gus"];
    for (cut, user) in (0..).zip(users) {
        let options = NodeOptions { disk: Some(MemoryDisk::new()), ..NodeOptions::default() };
        net.add(user, options).await.unwrap();
        connect(net, user).await;
        let id = withdraw(net, "ada", 10_000 + cut).await;
        stands(net, HUB, id, &[SwapState::Funding]).await;
        let fault = FAULTS[(cut % 3) as usize];
        let cut_at = disks[0].commits() + 2 + cut * 3;
        disks[0].fault_at(cut_at, fault);
        join(net, user, SMALL_SAT).await;
        let mut over = async || disks[0].commits() >= cut_at || forming_ended(net, &[user]).await;
        assert!(in_time(&mut over).await, "neither the end of forming nor the cut comes");
        disks[0].clear_faults();
        println!("  the hub lost power {} commits into the forming ({fault:?})", 2 + cut * 3);
        net.crash(HUB).await.unwrap();
        net.start(HUB).await.unwrap();
        connect(net, "ada").await;
        ended(net, "ada", id, 100).await;
        for side in [HUB, "ada"] {
            stands(net, side, id, &[SwapState::Done]).await;
        }
    }
    net.mine(FINAL_DEPTH).await.unwrap();
    conserved(net).await;
}

pub async fn a_user_whose_hub_is_gone_claims_by_the_preimage(net: &mut Cluster) {
    start(net, &["ada"]).await;
    let id = withdraw(net, "ada", SWAP_SAT).await;
    stands(net, HUB, id, &[SwapState::Funding]).await;
    net.mine(1).await.unwrap();
    carried(net, HUB, id).await;
    net.stop(HUB).await.unwrap();
    net.mine(2).await.unwrap();
    stands(net, "ada", id, &[SwapState::Settling]).await;
    net.mine(1).await.unwrap();
    spent(net, "ada", id).await;
    let output = swap(net, "ada", id).await.output.unwrap();
    let claim = spender(net, output).await.unwrap();
    assert_eq!(claim.input[0].witness.len(), 4, "signature, preimage, script, control block");
    net.mine(1).await.unwrap();
    // The hub finds the preimage on chain and takes the payment with it.
    net.start(HUB).await.unwrap();
    connect(net, "ada").await;
    ended(net, "ada", id, 60).await;
    for name in [HUB, "ada"] {
        stands(net, name, id, &[SwapState::Done]).await;
    }
    conserved(net).await;
}

pub async fn a_hub_takes_back_what_a_silent_user_leaves(net: &mut Cluster) {
    start(net, &["ada"]).await;
    let before = net.node("ada").lightning.channels()[0].local_msat;
    let id = withdraw(net, "ada", SWAP_SAT).await;
    stands(net, HUB, id, &[SwapState::Funding]).await;
    net.mine(1).await.unwrap();
    carried(net, HUB, id).await;
    net.stop("ada").await.unwrap();
    let begun = net.chain.tip().await.unwrap().height;
    for _ in 0..TO_THE_END {
        net.mine(1).await.unwrap();
        if swap(net, HUB, id).await.state == SwapState::Refunding {
            break;
        }
    }
    stands(net, HUB, id, &[SwapState::Refunding]).await;
    println!(
        "  the hub takes it back {} blocks later",
        net.chain.tip().await.unwrap().height - begun
    );
    spent(net, HUB, id).await;
    net.mine(1).await.unwrap();
    stands(net, HUB, id, &[SwapState::Refunding]).await;
    net.mine(FINAL_DEPTH).await.unwrap();
    net.start("ada").await.unwrap();
    connect(net, "ada").await;
    stands(net, HUB, id, &[SwapState::Refunded]).await;
    stands(net, "ada", id, &[SwapState::Failed]).await;
    let channels = net.node("ada").lightning.channels();
    assert_eq!(channels[0].local_msat, before, "the payment went back");
    conserved(net).await;
}

pub async fn what_a_hub_does_not_swap_costs_nothing(net: &mut Cluster) {
    start(net, &["ada"]).await;
    let before = net.node("ada").lightning.channels()[0].local_msat;
    let swaps = &net.node("ada").swaps;
    let sat = Amount::from_sat;
    let ask = |amount: u64, max_fee: Option<u64>| WithdrawRequest {
        amount: sat(amount),
        destination: None,
        max_fee: max_fee.map(sat),
        channel: None,
    };
    let small = swaps.withdraw(&ask(9_999, None), None).await.unwrap_err();
    assert!(small.to_string().contains("0.00009999 BTC is not enough"), "{small}");
    let large = swaps.withdraw(&ask(200_000, None), None).await.unwrap_err();
    assert!(large.to_string().contains("can send"), "{large}");
    let nowhere = WithdrawRequest { destination: Some("bc1q".into()), ..ask(SWAP_SAT, None) };
    let nowhere = swaps.withdraw(&nowhere, None).await.unwrap_err();
    assert!(nowhere.to_string().contains("\"bc1q\" is no address"), "{nowhere}");
    // The hub's price is above what may be paid.
    let dear = swaps.withdraw(&ask(SWAP_SAT, Some(1)), None).await.unwrap();
    stands(net, "ada", dear.id, &[SwapState::Failed]).await;
    let why = swap(net, "ada", dear.id).await.detail.unwrap();
    assert!(why.contains("more than 1000 msat"), "{why}");
    // A hub that is not there.
    net.stop(HUB).await.unwrap();
    let net = &*net;
    let is_usable = || net.node("ada").lightning.channels()[0].usable;
    net.wait("a lost connection", WAIT, || !is_usable()).await.unwrap();
    let nobody = net.node("ada").swaps.withdraw(&ask(SWAP_SAT, None), None).await;
    assert!(nobody.is_err(), "the channel is not usable: {nobody:?}");
    let now = net.node("ada").lightning.channels()[0].local_msat;
    assert_eq!(now, before);
}

pub async fn a_power_cut_at_any_commit_of_a_withdrawal_loses_nothing(net: &mut Cluster) {
    let disks = start(net, &["ada"]).await;
    power_cuts(net, &disks, async |net, number| {
        let amount = Amount::from_sat(10_000 + number);
        let ask = WithdrawRequest { amount, destination: None, max_fee: None, channel: None };
        net.node("ada").swaps.withdraw(&ask, None).await
    })
    .await;
    net.mine(FINAL_DEPTH).await.unwrap();
    conserved(net).await;
}
