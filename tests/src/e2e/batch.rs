//! A channel batch formed with the protocol left out: one process has all secrets, signs the tree
//! and tells each node what the protocol would have told it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{FeeRate, OutPoint, Transaction, TxOut, Txid, absolute};
use channel_contracts::musig::reclaim::SweepSecret;
use channel_contracts::musig::{HubNonces, NonceSeed, SignedTree, TreeSecret, UserNonces};
use channel_contracts::script::ExpiryLeaf;
use channel_contracts::tree::path::PathEnds;
use channel_contracts::tree::{Member, PlannedTree, Radix, Terms, TreeTerms, UserSlot};
use node::chain::virtual_confirmation::{SignedLeaf, VirtualBatch};
use node::channels::ChannelState;
use node::dev::Cluster;
use node::lightning::types::ChannelRef;
use node::wallet::FundingRequest;

use super::WAIT;

/// Height at which trees expire: never, as far as a scenario goes.
const EXPIRY: u32 = 1_000_000;

/// Trees signed so far: each has keys of its own.
static TREES: AtomicU64 = AtomicU64::new(0);

/// One channel of a formed batch.
#[derive(Debug, Clone)]
pub struct BatchMember {
    /// The user's node.
    pub user: String,
    /// The hub's id of the channel.
    pub at_hub: ChannelRef,
    /// The user's id of the channel.
    pub at_user: ChannelRef,
    /// Its funding output, an output of a leaf.
    pub funding: OutPoint,
}

/// A batch as it stands before step 7 of BATCHES §3: recorded everywhere, not broadcast.
#[derive(Debug)]
pub struct FormedBatch {
    /// The tree with all signatures.
    pub signed: SignedTree,
    /// The batch transaction.
    pub transaction: Transaction,
    /// The channels, by slot.
    pub members: Vec<BatchMember>,
}

impl FormedBatch {
    /// Where the root stands.
    pub fn root(&self) -> OutPoint {
        self.signed.tree().root()
    }

    /// Every tree transaction, parents first.
    pub fn tree_transactions(&self) -> Vec<Transaction> {
        (0..self.signed.tree().nodes().len()).map(|node| self.signed.transaction(node)).collect()
    }
}

/// Builds the tree above `fundings`, puts its root where `place` says, and signs it for all.
///
/// # Panics
///
/// If a step fails.
pub fn signed_tree(fundings: &[TxOut], place: impl FnOnce(&TxOut) -> OutPoint) -> SignedTree {
    signed_tree_of(Radix::for_size(fundings.len()), fundings, place)
}

/// As [`signed_tree`]; each transaction of the tree has `radix` children at most.
///
/// # Panics
///
/// If a step fails.
pub fn signed_tree_of(
    radix: Radix,
    fundings: &[TxOut],
    place: impl FnOnce(&TxOut) -> OutPoint,
) -> SignedTree {
    let tree_number = TREES.fetch_add(1, Ordering::Relaxed);
    let bytes = |name: &str, number: usize| {
        let text = format!("{tree_number} {name} {number}");
        sha256::Hash::hash(text.as_bytes()).to_byte_array()
    };
    let secret = |name, number| TreeSecret::from_bytes(bytes(name, number)).expect("a valid key");
    let sweep = SweepSecret::from_bytes(bytes("sweep", 0)).expect("a valid key");
    let hub_secret = secret("hub", 0);
    let users: Vec<TreeSecret> = (0..fundings.len()).map(|user| secret("user", user)).collect();
    let expiry = absolute::Height::from_consensus(EXPIRY).expect("a height");
    let terms = TreeTerms {
        hub_key: hub_secret.public_key(),
        leaf: ExpiryLeaf { expiry, sweep_key: sweep.public_key() },
        radix,
    };
    let members = users
        .iter()
        .zip(fundings)
        .map(|(user, funding)| Member { tree_key: user.public_key(), funding: funding.clone() })
        .collect();
    let planned = PlannedTree::new(terms, members).expect("a tree");
    let root_output = planned.root_output();
    let root = place(&root_output);
    let tree = planned.fund(root).expect("a root among the first outputs");

    let seed = |name, number| NonceSeed::from_fresh_randomness(bytes(name, number));
    let begin = |(slot, user): (UserSlot, &TreeSecret)| {
        let terms = Terms {
            own_key: user.public_key(),
            root,
            root_output: root_output.clone(),
            expiry,
            channel: fundings[slot.index()].clone(),
        };
        let agreed = tree.proposal(slot).expect("a slot").verify(&terms).expect("agreement");
        let seed = seed("user seed", slot.index());
        UserNonces::begin(agreed, user.clone(), seed).expect("the user's own key")
    };
    let sessions: Vec<_> = slots(users.len()).zip(&users).map(begin).collect();
    let mut hub = HubNonces::begin(tree.clone(), hub_secret, seed("hub seed", 0)).expect("own key");
    for (slot, (_, nonces)) in slots(users.len()).zip(&sessions) {
        hub.add(slot, nonces.clone()).expect("nonces");
    }
    let mut hub = hub.aggregate().expect("all nonces");
    for (slot, (user, _)) in slots(users.len()).zip(sessions) {
        let signed = user.sign(&hub.aggregated(slot).expect("a slot")).expect("signatures");
        hub.add(slot, signed.partials().to_vec()).expect("good signatures");
    }
    hub.finish().expect("all signatures")
}

/// The slots of `users` users.
pub fn slots(users: usize) -> impl Iterator<Item = UserSlot> {
    (0..).map(UserSlot).take(users)
}

/// The paths of `slots` as a record takes them.
///
/// # Panics
///
/// If the tree has no such slot.
pub fn signed_leaves(
    signed: &SignedTree,
    slots: impl IntoIterator<Item = UserSlot>,
) -> Vec<SignedLeaf> {
    let tree = signed.tree();
    slots
        .into_iter()
        .map(|slot| SignedLeaf {
            slot: tree.shape().leaf_slot(slot).expect("a slot of the tree"),
            path: signed.path(slot).expect("a slot of the tree"),
            ends: PathEnds {
                root: tree.root(),
                root_output: tree.nodes()[0].spent.clone(),
                expiry: tree.terms().leaf.expiry,
                channel: tree.members()[slot.index()].funding.clone(),
            },
        })
        .collect()
}

/// The record of the whole tree, as a hub has it.
///
/// # Panics
///
/// If it cannot be made.
pub fn hub_record(signed: &SignedTree) -> VirtualBatch {
    let all = slots(signed.tree().members().len());
    VirtualBatch::new(signed_leaves(signed, all)).expect("a signed tree makes a record")
}

/// Forms a batch of channels of `capacity_sat` from `hub` to each of `users`: steps 1 to 6.
///
/// # Panics
///
/// If a step fails.
pub async fn form(net: &Cluster, hub: &str, users: &[&str], capacity_sat: u64) -> FormedBatch {
    form_paying(net, hub, users, capacity_sat, TxOut::clone).await
}

/// As [`form`], with a binary tree: the deepest there is for so many channels.
///
/// # Panics
///
/// If a step fails.
pub async fn form_deep(net: &Cluster, hub: &str, users: &[&str], capacity_sat: u64) -> FormedBatch {
    let binary = Radix::new(2).expect("a tree may be binary");
    form_of(net, hub, users, capacity_sat, binary, TxOut::clone).await
}

/// As [`form`]; the batch transaction has the root output that `pay` makes of the one agreed.
///
/// # Panics
///
/// If a step fails.
pub async fn form_paying(
    net: &Cluster,
    hub: &str,
    users: &[&str],
    capacity_sat: u64,
    pay: impl Fn(&TxOut) -> TxOut,
) -> FormedBatch {
    let radix = Radix::for_size(users.len());
    form_of(net, hub, users, capacity_sat, radix, pay).await
}

/// Steps 1 to 6. A user that is named several times has as many channels.
async fn form_of(
    net: &Cluster,
    hub: &str,
    users: &[&str],
    capacity_sat: u64,
    radix: Radix,
    pay: impl Fn(&TxOut) -> TxOut,
) -> FormedBatch {
    let here = net.node(hub);
    let mut members = Vec::new();
    let mut fundings = Vec::new();
    for user in users {
        let (at_hub, at_user, funding) = open_unfunded(net, hub, user, capacity_sat).await;
        fundings.push(funding);
        members.push((user.to_string(), at_hub, at_user));
    }

    let mut built = None;
    let signed = signed_tree_of(radix, &fundings, |root_output| {
        let paid = pay(root_output);
        let feerate = FeeRate::from_sat_per_vb(2).expect("a small feerate");
        let outputs = vec![paid.clone()];
        let request = FundingRequest { outputs, feerate, new_channels: 0 };
        let transaction = built.insert(here.wallet.build_funding(&request).expect("hub's coins"));
        let outputs = &transaction.transaction.output;
        let vout = outputs.iter().position(|output| *output == paid).expect("it pays the root");
        OutPoint::new(transaction.txid(), u32::try_from(vout).expect("a few outputs"))
    });
    let built = built.expect("the tree was placed");
    here.committer.durable(built.ticket).await.expect("the store works");

    let source = &here.environment.chain;
    here.confirmations.add(hub_record(&signed), &**source).await.expect("recorded in time");
    for user in users.iter().collect::<BTreeSet<_>>() {
        let there = net.node(user);
        let own = slots(users.len()).filter(|slot| users[slot.index()] == *user);
        let record = VirtualBatch::new(signed_leaves(&signed, own)).expect("a record");
        let source = &there.environment.chain;
        there.confirmations.add(record, &**source).await.expect("recorded in time");
    }
    let mut formed = FormedBatch { signed, transaction: built.transaction, members: vec![] };
    for (slot, (user, at_hub, at_user)) in slots(members.len()).zip(members) {
        let funding = formed.signed.tree().funding_outpoint(slot).expect("a slot of the tree");
        here.channels.fund_from_batch(at_hub, funding).expect("the outpoint is taken");
        formed.members.push(BatchMember { user, at_hub, at_user, funding });
    }
    for BatchMember { user, at_hub, at_user, .. } in &formed.members {
        for (name, channel) in [(hub, at_hub), (user.as_str(), at_user)] {
            net.wait_channel(name, *channel, "commitments of both sides", |view| {
                view.record.state == ChannelState::AwaitingConfirmation
            })
            .await
            .expect("both sides sign");
        }
    }
    formed
}

/// Step 2: a channel without funding, as hub and user name it, and the output that must fund it.
///
/// # Panics
///
/// If the two do not agree on one.
pub async fn open_unfunded(
    net: &Cluster,
    hub: &str,
    user: &str,
    capacity_sat: u64,
) -> (ChannelRef, ChannelRef, TxOut) {
    let (here, there) = (net.node(hub), net.node(user));
    let hub_id = here.lightning.node_id();
    let address = net.get(hub).expect("the hub is there").address();
    let _kept = there.peers.remember(hub_id, &address, true);
    there.lightning.connect(hub_id, &address).await.expect("the hub listens");
    let user_id = there.lightning.node_id();
    net.wait("connection", WAIT, || here.lightning.is_connected(&user_id)).await.expect("a peer");
    let at_user = there.channels.expect_for_batch(hub_id, capacity_sat);
    // A second connection may just take the place of the first.
    let asked = std::sync::OnceLock::new();
    net.wait("a channel that is asked for", WAIT, || {
        let channel = here.channels.open_for_batch(user_id, capacity_sat, 4, None);
        channel.is_ok_and(|channel| asked.set(channel).is_ok())
    })
    .await
    .expect("it is asked");
    let at_hub = asked.into_inner().expect("it was asked");
    net.wait("funding output at both sides", WAIT, || {
        here.lightning.unfunded_channel(at_hub).is_some()
            && there.lightning.unfunded_channel(at_user).is_some()
    })
    .await
    .expect("the user accepts");
    let ours = here.lightning.unfunded_channel(at_hub).expect("it is there");
    let theirs = there.lightning.unfunded_channel(at_user).expect("it is there");
    assert_eq!(ours.funding_output, theirs.funding_output);
    assert!(ours.confirmations_required >= here.lightning.virtual_depth_min());
    (at_hub, at_user, ours.funding_output)
}

/// Step 7: broadcasts the batch transaction.
///
/// # Panics
///
/// If the network does not take it.
pub async fn broadcast(net: &Cluster, hub: &str, batch: &FormedBatch) {
    let here = net.node(hub);
    let counted = here.wallet.apply_unconfirmed(&batch.transaction);
    here.committer.durable(counted).await.expect("the store works");
    let package = std::slice::from_ref(&batch.transaction);
    here.environment.broadcaster.submit(package).await.expect("the network takes it");
}

/// Waits until every channel of `batch` is usable on both sides.
///
/// # Panics
///
/// If that does not come about in time.
pub async fn batch_usable(net: &Cluster, hub: &str, batch: &FormedBatch) {
    let usable = |name: &str, channel: ChannelRef| {
        let channels = net.node(name).lightning.channels();
        channels.iter().any(|c| c.channel == channel && c.usable && c.counterparty_fees.is_some())
    };
    net.wait("usable channels of the batch", WAIT, || {
        let mut members = batch.members.iter();
        members.all(|member| usable(hub, member.at_hub) && usable(&member.user, member.at_user))
    })
    .await
    .expect("the batch becomes usable");
}

/// Asserts that neither mempool nor chain has a transaction of the tree.
///
/// # Panics
///
/// If one does.
pub async fn tree_stays_off_chain(net: &Cluster, batch: &FormedBatch) {
    let txids: Vec<Txid> =
        batch.tree_transactions().iter().map(Transaction::compute_txid).collect();
    for txid in txids {
        assert!(!net.chain.knows(txid).await.expect("the chain answers"), "{txid} is published");
    }
}
