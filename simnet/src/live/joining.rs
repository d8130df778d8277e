//! Puts users into batches: each asks its hub for a place, the hub forms a batch of them, and then
//! pays each what its side of the channel begins with.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, OutPoint};
use channel_contracts::batch::{HubPhase, LeafState, UserPhase};
use futures::stream::{self, StreamExt, TryStreamExt};
use node::batches::{Batches, JoinError, JoinRequest, JoinView};
use node::config::{BatchRole, Config};
use node::lightning::InvoiceDescription;
use node::payments::{CreateInvoice, PayRequest, PaymentState};
use tokio::time::{Instant, sleep};

use super::LiveError;
use super::hosts::Hosts;
use super::net::SimNet;
use crate::scenario::{BatchSpec, Scenario};
use crate::topology::{Node, Topology};

/// Longest virtual time that a step may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(100);
/// How long a hub waits for more users, milliseconds.
const GATHERING_MS: u64 = 10_000;
/// How often a user asks for a place.
const WISHES_MAX: usize = 3;
/// Users that are paid at a time.
const PAID_AT_ONCE: usize = 16;
/// Batches of the same users that a hub can fund at a time: the old one, the next, one to spare.
const COINS_EACH: usize = 3;

/// Who is in batches, and with whom.
pub struct Groups {
    /// The place of each user's channel in the topology, by groups that are to share a batch.
    groups: Vec<(Node, Vec<usize>)>,
}

impl Groups {
    /// The users of each hub in their order, as many in a batch as fit.
    pub fn new(spec: &BatchSpec, topology: &Topology) -> Self {
        let mut groups = Vec::new();
        for hub in &topology.hubs {
            let places = topology.user_channel_start..topology.network.channels.len();
            let own: Vec<usize> =
                places.filter(|place| topology.network.channels[*place].ends[0] == *hub).collect();
            groups.extend(own.chunks(spec.users_max as usize).map(|own| (*hub, own.to_vec())));
        }
        Self { groups }
    }

    /// The coins that hubs need to fund them, sat.
    pub fn coins_sat(&self, topology: &Topology, fee_room_sat: u64) -> Vec<(Node, u64)> {
        let channels = &topology.network.channels;
        let all = |places: &[usize]| -> u64 {
            places.iter().map(|place| channels[*place].capacity_sat).sum()
        };
        let coins = self.groups.iter().flat_map(|(hub, places)| {
            std::iter::repeat_n((*hub, all(places) + fee_room_sat), COINS_EACH)
        });
        coins.collect()
    }
}

/// Makes `config` that of a hub or a user of batches.
pub fn configure(config: &mut Config, number: Node, scenario: &Scenario, topology: &Topology) {
    let Some(spec) = &scenario.batches else { return };
    let users = topology.network.channels.iter().skip(topology.user_channel_start);
    let batch = &mut config.batch;
    batch.life_blocks = spec.lifetime_blocks;
    batch.users_max = spec.users_max as usize;
    batch.gathering_ms = GATHERING_MS;
    batch.capacity_max_sat = users.clone().map(|channel| channel.capacity_sat).max().unwrap_or(0);
    batch.role = if topology.hubs.contains(&number) { BatchRole::Hub } else { BatchRole::User };
    // A hub's terms towards its users; with other hubs it has terms by channel.
    if let Some(terms) = users.map(|channel| &channel.directions[0]).next() {
        config.lightning.forwarding_fee_base_msat = terms.base_msat;
        config.lightning.forwarding_fee_ppm = terms.ppm;
        config.lightning.cltv_expiry_delta = terms.cltv_expiry_delta;
    }
}

/// Lets all users join, up to batch transactions that wait for a block. Returns the funding
/// output of each user's channel, by its place in the topology.
///
/// # Errors
///
/// [`LiveError::NotOpened`], [`LiveError::Late`].
pub async fn join_all(
    hosts: &Hosts,
    topology: &Topology,
    groups: &Groups,
) -> Result<HashMap<usize, OutPoint>, LiveError> {
    let mut found = HashMap::new();
    for (hub, places) in &groups.groups {
        for place in places {
            connect(hosts, topology.network.channels[*place].ends).await?;
        }
        // One after the other: who is first has its place first.
        let mut wishes = BTreeMap::new();
        for place in places {
            wish(hosts, topology, *place).await?;
            wishes.insert(*place, 1);
        }
        let deadline = Instant::now() + PATIENCE;
        while !wishes.is_empty() {
            let mut done = Vec::new();
            for (place, asked) in &mut wishes {
                let newest = newest(hosts, topology, *place).await?;
                match newest.as_ref().map(|view| view.state) {
                    Some(UserPhase::Leaf(LeafState::Funded)) => done.push(*place),
                    Some(UserPhase::Over(reason)) if *asked == WISHES_MAX => {
                        return Err(not_opened(topology, *place, reason.to_string()));
                    }
                    None | Some(UserPhase::Over(_)) => {
                        *asked += 1;
                        wish(hosts, topology, *place).await?;
                    }
                    Some(_) => {}
                }
                if let Some(funding) = newest.and_then(|view| view.funding) {
                    found.insert(*place, funding);
                }
            }
            wishes.retain(|place, _| !done.contains(place));
            if Instant::now() > deadline {
                let (what, seconds) = (format!("a batch of n{hub}"), PATIENCE.as_secs());
                return Err(LiveError::Late { what, seconds });
            }
            sleep(LOOK).await;
        }
    }
    for hub in topology.hubs.iter().copied() {
        published(hosts, hub).await?;
    }
    Ok(found)
}

fn not_opened(topology: &Topology, place: usize, why: String) -> LiveError {
    let [opener, peer] = topology.network.channels[place].ends;
    LiveError::NotOpened { channel: place, opener, peer, why }
}

/// Connects a user to its hub; from then on it sees to that itself.
async fn connect(hosts: &Hosts, [hub, user]: [Node; 2]) -> Result<(), LiveError> {
    let (id, address) = (hosts.node_id(hub), SimNet::address(hub));
    let services = |node: &node::node::Node| (Arc::clone(&node.peers), Arc::clone(&node.lightning));
    let (peers, lightning) = hosts.ask(user, services).ok_or(LiveError::Away { host: user })?;
    let _kept = peers.remember(id, &address, true);
    let deadline = Instant::now() + PATIENCE;
    while lightning.connect(id, &address).await.is_err() || !lightning.is_connected(&id) {
        if Instant::now() > deadline {
            let what = format!("a connection of n{user} with n{hub}");
            return Err(LiveError::Late { what, seconds: PATIENCE.as_secs() });
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The batches of a node.
///
/// # Errors
///
/// [`LiveError::Away`] if it does not run.
pub fn batches(hosts: &Hosts, number: Node) -> Result<Arc<Batches>, LiveError> {
    let away = LiveError::Away { host: number };
    hosts.ask(number, |node| Arc::clone(&node.batches)).ok_or(away)
}

/// Asks for a place of the user whose channel is at `place`.
async fn wish(hosts: &Hosts, topology: &Topology, place: usize) -> Result<(), LiveError> {
    let channel = &topology.network.channels[place];
    let [hub, user] = channel.ends;
    let capacity = Amount::from_sat(channel.capacity_sat);
    let request = JoinRequest { hub: hosts.node_id(hub), capacity, inbound: capacity };
    let deadline = Instant::now() + PATIENCE;
    loop {
        match batches(hosts, user)?.join(&request, None).await {
            Ok(_followed_by_its_state) => return Ok(()),
            Err(JoinError::NotConnected(_)) if Instant::now() < deadline => sleep(LOOK).await,
            Err(error) => return Err(not_opened(topology, place, error.to_string())),
        }
    }
}

/// The wish of that user that has come furthest.
async fn newest(
    hosts: &Hosts,
    topology: &Topology,
    place: usize,
) -> Result<Option<JoinView>, LiveError> {
    let user = topology.network.channels[place].ends[1];
    let joins = batches(hosts, user)?.joins().await;
    let is_over = |view: &&JoinView| matches!(view.state, UserPhase::Over(_));
    let open = joins.iter().find(|view| !is_over(view));
    Ok(open.or(joins.first()).cloned())
}

/// Waits until every batch transaction of a hub is where a block finds it.
async fn published(hosts: &Hosts, hub: Node) -> Result<(), LiveError> {
    let deadline = Instant::now() + PATIENCE;
    let chain = &hosts.outside().chain;
    loop {
        let mut all = true;
        for batch in batches(hosts, hub)?.batches().await {
            all &= match batch.phase {
                HubPhase::Failed { .. } => true,
                HubPhase::Confirming => batch.txid.is_some_and(|t| chain.transaction(t).is_some()),
                _ => false,
            };
        }
        if all {
            return Ok(());
        }
        if Instant::now() > deadline {
            let what = format!("the batch transactions of n{hub}");
            return Err(LiveError::Late { what, seconds: PATIENCE.as_secs() });
        }
        sleep(LOOK).await;
    }
}

/// Lets hubs pay their users what their sides of the channels begin with.
///
/// # Errors
///
/// [`LiveError::NotOpened`] if a payment fails.
pub async fn pay_balances(
    hosts: &Hosts,
    topology: &Topology,
    groups: &Groups,
    fundings: &[OutPoint],
) -> Result<(), LiveError> {
    let places = groups.groups.iter().flat_map(|(_, places)| places);
    stream::iter(places)
        .map(|place| pay_balance(hosts, topology, *place, fundings[*place]))
        .buffer_unordered(PAID_AT_ONCE)
        .try_collect::<Vec<()>>()
        .await
        .map(|_| ())
}

async fn pay_balance(
    hosts: &Hosts,
    topology: &Topology,
    place: usize,
    funding: OutPoint,
) -> Result<(), LiveError> {
    let [hub, user] = topology.network.channels[place].ends;
    let refused = |why: String| not_opened(topology, place, why);
    let services =
        |node: &node::node::Node| (Arc::clone(&node.payments), node.lightning.channels());
    let (payer, channels) = hosts.ask(hub, services).ok_or(LiveError::Away { host: hub })?;
    let (payee, _) = hosts.ask(user, services).ok_or(LiveError::Away { host: user })?;
    let channel = channels.iter().find(|channel| channel.funding == Some(funding));
    let channel = channel.ok_or_else(|| refused("it has no channel for its balance".into()))?;
    let whole_msat = topology.network.channels[place].capacity_sat * 1_000;
    let due_msat = whole_msat - topology.first_end_msat[place];
    // As far as the hub can.
    let amount_msat = due_msat.min(channel.spendable_msat);
    if amount_msat == 0 {
        return Ok(());
    }
    let create = CreateInvoice {
        amount_msat: Some(amount_msat),
        description: InvoiceDescription::Text("what it begins with".into()),
        expiry: PATIENCE,
        min_final_cltv_expiry_delta: None,
        hash: None,
    };
    let invoice = payee.create_invoice(create, None).await;
    let invoice = invoice.map_err(|error| refused(error.to_string()))?.invoice;
    let watch = payer.pay(&PayRequest::over(invoice, channel.channel), None);
    let outcome = watch.map_err(|error| refused(error.to_string()))?.outcome().await?;
    if outcome.state != PaymentState::Succeeded {
        let why =
            format!("{amount_msat} msat for its balance did not arrive: {:?}", outcome.failure);
        return Err(refused(why));
    }
    Ok(())
}
