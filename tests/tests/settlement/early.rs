//! A hub takes its coins back before the expiry.

use std::collections::BTreeSet;

use bitcoin::Amount;
use channel_contracts::batch::message::{Message, Release};
use channel_contracts::batch::{Attempt, HubPhase, LeafState, RegistrationId, UserPhase};
use channel_contracts::musig::TreeSecret;
use node::batches::ReleaseError;
use node::dev::Cluster;
use node::lightning::WithheldKind;
use tests::e2e::{conserved, wallet_sat};

use crate::stage::{
    CAPACITY_SAT, HUB, PATIENCE, USERS, batch, close, connect, crash, hub_batch, is_confirmed,
    is_quiet, is_watched, mine_heard, mine_until_settled, pays, released, retired, settlement,
    spender, until, usable, wish,
};

/// What one user keeps in its channel.
const KEPT_SAT: u64 = 50_000;

pub async fn five_who_close_and_release_are_taken_in_one_transaction(net: &mut Cluster) {
    let users = &USERS[..5];
    batch(net, users, |_| {}).await;
    let root = wish(net, "ada").await.root.unwrap();
    let (before, coins) = (net.on_chain().await.unwrap(), wallet_sat(net, HUB));
    for user in users {
        pays(net, HUB, user, 70_000_001).await;
        pays(net, user, HUB, 70_000_001).await;
    }
    for user in &users[..4] {
        close(net, user).await;
    }
    released(net, &users[..4]).await;
    assert_eq!(settlement(net).await.transaction, None, "one key is missing");
    close(net, users[4]).await;
    released(net, users).await;

    let taking = spender(net, root).await;
    assert_eq!((taking.input.len(), taking.output.len()), (1, 1));
    assert_eq!(taking.input[0].witness.len(), 1, "spent by its key");
    assert!(taking.vsize() <= 111, "{} vB", taking.vsize());
    mine_heard(net, 1).await;
    assert!(is_confirmed(net, taking.compute_txid()).await);
    let after = net.on_chain().await.unwrap();
    assert_eq!(after.transactions, before.transactions + 1);
    let fee_sat = (after.fees - before.fees).to_sat();
    assert_eq!(wallet_sat(net, HUB), coins + 5 * CAPACITY_SAT - fee_sat);
    mine_heard(net, 4).await;
    assert!(matches!(settlement(net).await.phase, HubPhase::Live { .. }));
    mine_heard(net, 1).await;
    until("a settled batch", async || settlement(net).await.phase == HubPhase::Settled).await;
    conserved(net).await;

    // Its channels are remembered until nothing can undo it, and not for ever.
    mine_heard(net, 93).await;
    assert_eq!(wish(net, "ada").await.state, UserPhase::Leaf(LeafState::Retired));
    mine_heard(net, 2).await;
    for user in users {
        until("a dead channel", async || {
            wish(net, user).await.state == UserPhase::Leaf(LeafState::Dead)
        })
        .await;
    }
    assert!(is_watched(net, HUB, "ada").await && is_watched(net, "ada", "ada").await);
    for name in [HUB, "ada"] {
        until("the mark of dead channels", async || {
            net.node(name).lightning.parked_fundings().is_empty()
        })
        .await;
        net.node(name).committer.durable(net.node(name).committer.now()).await.unwrap();
        crash(net, name).await;
        assert!(!is_watched(net, name, "ada").await, "{name} keeps a dead monitor");
        assert!(is_quiet(net, name));
    }
    assert!(!is_watched(net, HUB, "eve").await);
}

pub async fn the_hub_reclaims_around_a_user_who_keeps_its_key(net: &mut Cluster) {
    batch(net, &USERS, |_| {}).await;
    // The root's transaction funds some channels itself: not the keeper's.
    let mut keeper = None;
    for user in USERS {
        let levels = wish(net, user).await.exit.unwrap().levels;
        keeper = keeper.or((levels == 2).then_some(user));
    }
    let keeper = keeper.unwrap();
    pays(net, HUB, keeper, KEPT_SAT * 1_000).await;
    let before = (net.on_chain().await.unwrap(), wallet_sat(net, HUB));
    let kept = wish(net, keeper).await;
    let (root, leaf) = (kept.root.unwrap(), kept.funding.unwrap().txid);
    let closers: Vec<&str> = USERS.into_iter().filter(|user| *user != keeper).collect();
    let (mut neighbours, mut direct, mut subtrees) = (0, 0, BTreeSet::new());
    for user in &closers {
        let own = wish(net, user).await;
        match (own.funding.unwrap().txid, own.exit.unwrap().levels) {
            (txid, _) if txid == leaf => neighbours += 1,
            (_, 1) => direct += 1,
            (txid, _) => drop(subtrees.insert(txid)),
        }
    }
    assert!(neighbours > 0 && direct > 0 && subtrees.len() > 1, "{subtrees:?}");
    let closers = &closers[..];
    for user in closers {
        close(net, user).await;
    }
    released(net, closers).await;
    // Its channel is open: only what leaves it in peace is published.
    mine_heard(net, PATIENCE - 1).await;
    assert!(is_quiet(net, HUB), "others may release yet");
    mine_heard(net, 1).await;
    let top = spender(net, root).await;
    assert_eq!(top.version.0, 3);
    assert_eq!(settlement(net).await.transaction, None, "one transaction is to take all");
    mine_heard(net, 1).await;
    assert!(is_confirmed(net, top.compute_txid()).await);
    until("the transaction that takes the rest", async || {
        settlement(net).await.transaction.is_some()
    })
    .await;
    let (taking, _) = settlement(net).await.transaction.unwrap();
    until("it in the mempool", async || net.chain.knows(taking).await.unwrap()).await;
    let source = net.chain.source();
    let transaction = source.mempool_transaction(taking).await.unwrap().unwrap();
    assert_eq!(transaction.input.len(), subtrees.len(), "the subtrees beside it");
    assert!(transaction.input.iter().all(|input| input.previous_output.txid == top.compute_txid()));
    assert!(transaction.input.iter().all(|input| input.witness.len() == 1));
    let vsize = transaction.vsize();
    assert!(vsize <= 54 + 58 * subtrees.len(), "{vsize} vB");
    mine_heard(net, 8).await;
    assert!(is_confirmed(net, taking).await);
    // One level with its child, what closes the channels on it, and one that takes the rest.
    let after = net.on_chain().await.unwrap();
    let first = before.0.transactions + 2 + direct + 1;
    assert_eq!(after.transactions, first);
    assert!(!net.chain.knows(leaf).await.unwrap());
    assert!(matches!(settlement(net).await.phase, HubPhase::Live { .. }));
    usable(net, keeper).await;
    pays(net, keeper, HUB, 1_000_000).await;
    pays(net, HUB, keeper, 1_000_000).await;

    // It closes and keeps its key, which still guards something: the hub publishes the leaf with
    // its child, and the parked transactions of all its channels pay.
    let coins = wallet_sat(net, keeper);
    close(net, keeper).await;
    mine_heard(net, PATIENCE + 1).await;
    until("the leaf", async || net.chain.knows(leaf).await.unwrap()).await;
    assert_eq!(settlement(net).await.released.len(), closers.len());
    mine_until_settled(net, 12).await;
    until("the closing", async || wallet_sat(net, keeper) == coins + KEPT_SAT).await;
    mine_heard(net, 6).await;
    let after = net.on_chain().await.unwrap();
    assert_eq!(after.transactions, first + 2 + neighbours + 1);
    let fees_sat = (after.fees - before.0.fees).to_sat();
    let all_sat = before.1 + USERS.len() as u64 * CAPACITY_SAT - KEPT_SAT;
    assert_eq!(wallet_sat(net, HUB), all_sat - fees_sat);
    crash(net, HUB).await;
    until("a settled batch", async || settlement(net).await.phase == HubPhase::Settled).await;
    assert!(is_quiet(net, HUB));
    conserved(net).await;
}

pub async fn power_cuts_at_every_step_change_nothing(net: &mut Cluster) {
    let users = ["ada", "ben"];
    batch(net, &users, |_| {}).await;
    let root = wish(net, "ada").await.root.unwrap();
    let funding = wish(net, "ada").await.funding.unwrap();
    let coins = wallet_sat(net, HUB);

    // Ada is cut off as soon as the channel is closed.
    close(net, "ada").await;
    for name in ["ada", HUB] {
        crash(net, name).await;
        let parked = net.node(name).lightning.parked_closing(funding);
        assert!(parked.is_some(), "{name} has lost the closing transaction");
        let withheld = net.node(name).lightning.withheld_leaves();
        assert_eq!(withheld.get(&funding), Some(&WithheldKind::Closing), "{name}");
    }
    for user in users {
        connect(net, user).await;
    }
    retired(net, "ada").await;
    released(net, &["ada"]).await;
    crash(net, HUB).await;
    released(net, &["ada"]).await;
    for user in users {
        connect(net, user).await;
    }
    usable(net, "ben").await;
    close(net, "ben").await;
    released(net, &users).await;
    let first = spender(net, root).await;
    crash(net, HUB).await;
    mine_heard(net, 1).await;
    assert!(is_confirmed(net, first.compute_txid()).await);
    assert!(is_quiet(net, HUB) && is_quiet(net, "ada") && is_quiet(net, "ben"));

    // A reorg takes it back, in a process that did not broadcast it.
    crash(net, HUB).await;
    net.chain.reorg(1).await.unwrap();
    net.synced().await.unwrap();
    until("it again", async || net.chain.knows(first.compute_txid()).await.unwrap()).await;
    crash(net, HUB).await;
    mine_until_settled(net, 10).await;
    crash(net, HUB).await;
    // It is found again if the cut came before it was durable.
    until("a settled batch", async || settlement(net).await.phase == HubPhase::Settled).await;
    let taken_sat = wallet_sat(net, HUB) - coins;
    assert!((2 * CAPACITY_SAT - 5_000..2 * CAPACITY_SAT).contains(&taken_sat), "{taken_sat}");
    conserved(net).await;
}

pub async fn what_is_not_empty_is_not_released(net: &mut Cluster) {
    batch(net, &USERS[..2], |_| {}).await;
    pays(net, HUB, "ada", 1_000_001).await;
    let joined = wish(net, "ada").await;
    let ada = &net.node("ada").batches;
    let open = ada.release(joined.registration).await.unwrap_err();
    assert!(
        matches!(
            open,
            ReleaseError::NotReleasable {
                phase: UserPhase::Leaf(LeafState::Confirmed { .. }),
                closing_balance,
                htlcs: 0,
            } if closing_balance == Amount::from_sat(CAPACITY_SAT)
        ),
        "{open}"
    );
    let nobody = ada.release(RegistrationId([7; 32])).await.unwrap_err();
    assert!(matches!(nobody, ReleaseError::Unknown { .. }), "{nobody}");

    close(net, "ada").await;
    close(net, "ben").await;
    released(net, &["ben"]).await;
    let undrained = net.node("ada").batches.release(joined.registration).await.unwrap_err();
    assert!(
        matches!(
            undrained,
            ReleaseError::NotReleasable {
                phase: UserPhase::Leaf(LeafState::Retired),
                closing_balance,
                htlcs: 0,
            } if closing_balance == Amount::from_sat(1_001)
        ),
        "{undrained}"
    );
    // A key that is another's is refused, and its sender named.
    let (hub, id) = (net.node(HUB).lightning.node_id(), net.node("ada").lightning.node_id());
    let batch = hub_batch(net).await.batch;
    let secret = TreeSecret::from_bytes([3; 32]).unwrap();
    let release = Release { batch, attempt: Attempt::FIRST, secret };
    net.node("ada").lightning.batch_messages().send(hub, &Message::Release(release));
    until("a refusal", async || settlement(net).await.refused == [id]).await;
    mine_heard(net, 2).await;
    released(net, &["ben"]).await;
    let root = joined.root.unwrap();
    assert!(net.chain.source().unspent_output(root).await.unwrap().is_some());
    assert_eq!(settlement(net).await.transaction, None);
}
