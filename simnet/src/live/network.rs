//! Makes a network of a topology: hosts, coins, channels, and what gossip tells of them.
//!
//! Everything happens in as few blocks as it can: one that funds all wallets, one with all
//! funding and batch transactions, five that bury them, and those that batches are to have behind
//! them; more only where a wallet's coins are all tied up in the first channels. That takes
//! virtual time, all of it before the scenario's zero.

use std::collections::HashMap;
use std::time::Duration;

use bitcoin::{Amount, FeeRate, OutPoint, ScriptBuf};
use futures::future::try_join_all;
use futures::stream::{self, StreamExt, TryStreamExt};
use node::channels::{ChannelState, OpenError, OpenRequest};
use node::lightning::ForwardingFees;
use tokio::time::{Instant, sleep};

use super::LiveError;
use super::hosts::{Hosts, Outside};
use super::joining::{self, Groups};
use super::net::SimNet;
use crate::scenario::{Scenario, latencies_us};
use crate::topology::{Channel, Node, Topology};

/// Longest virtual time that a step of the making may take.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// How often a wait looks again, in virtual time.
const LOOK: Duration = Duration::from_millis(100);
/// Channels that a host opens at a time.
const OPENS_AT_ONCE: usize = 16;
/// How the reason begins for which a channel is not opened that there are no coins for any more,
/// and how long others have to be funded before the next block.
const SHORT_OF_COINS: &str = "insufficient funds";
const COINS_ROUND: Duration = Duration::from_secs(30);
/// What a coin has beyond the channel that it is for, for the fee of the funding transaction.
const FEE_ROOM_SAT: u64 = 20_000;
/// How long gossip spreads before those who missed some connect anew, and how often they do.
const GOSSIP_ROUND: Duration = Duration::from_secs(60);
const GOSSIP_ROUNDS: u32 = 20;
/// For so many coins of a wallet there is one to spare.
const SPARE_EVERY: usize = 4;
/// What a wallet has beside that, to take part in what happens on chain.
const PURSE_SAT: u64 = 200_000;
/// Blocks on top of a funding transaction until its channel is announced (BOLT 7: 6).
const BURIED: u32 = 5;
/// Coins that the faucet pays in one transaction. Every wallet that it pays keeps all of it.
const COINS_AT_ONCE: usize = 50;
/// What an opener keeps at least of each satoshi of the channel, msat.
const OPENER_LEAST_MSAT: u64 = 50;
/// LDK's bound on HTLCs of a channel with zero-fee commitments.
const SLOTS_MAX: u16 = 114;

/// A network that stands.
pub struct Network {
    /// Its hosts.
    pub hosts: Hosts,
    /// The funding output of each channel of the topology.
    pub fundings: Vec<OutPoint>,
}

/// What a link takes one way, by the pair of its ends: that of their first channel.
pub fn latencies(scenario: &Scenario, topology: &Topology) -> HashMap<(Node, Node), Duration> {
    let channels = &topology.network.channels;
    let drawn = latencies_us(channels.len(), &scenario.links, scenario.seed);
    let mut latencies = HashMap::new();
    for (channel, us) in channels.iter().zip(drawn) {
        let [one, other] = channel.ends;
        let pair = (one.min(other), one.max(other));
        latencies.entry(pair).or_insert(Duration::from_micros(us.into()));
    }
    latencies
}

/// Who opens each channel: the end with more of them, as it may have any number that wait for
/// confirmations, while LDK takes few from others. The rest is pushed over. Who would keep next
/// to nothing leaves it to the other end: an opener has a reserve to keep.
struct Plan {
    openers: Vec<usize>,
    degrees: Vec<u64>,
    /// Whether users' channels stay private: hints in invoices make them known.
    has_users: bool,
    /// Who shares a batch, where users are in batches.
    groups: Option<Groups>,
}

impl Plan {
    fn new(scenario: &Scenario, topology: &Topology) -> Self {
        let mut degrees = vec![0_u64; topology.network.nodes as usize];
        for channel in &topology.network.channels {
            for end in channel.ends {
                degrees[end as usize] += 1;
            }
        }
        let opener = |(channel, first_msat): (&Channel, &u64)| {
            let [one, other] = channel.ends.map(|end| degrees[end as usize]);
            let side = usize::from(other > one);
            let owns_msat = [*first_msat, channel.capacity_sat * 1_000 - first_msat];
            if owns_msat[side] < channel.capacity_sat * OPENER_LEAST_MSAT { 1 - side } else { side }
        };
        let channels = topology.network.channels.iter();
        let openers = channels.zip(&topology.first_end_msat).map(opener).collect();
        let groups = scenario.batches.map(|spec| Groups::new(&spec, topology));
        Self { openers, degrees, has_users: !topology.users.is_empty(), groups }
    }

    /// Whether a channel is one of a batch.
    fn is_batched(&self, topology: &Topology, channel: usize) -> bool {
        self.groups.is_some() && channel >= topology.user_channel_start
    }

    fn is_announced(&self, topology: &Topology, channel: usize) -> bool {
        !self.has_users || channel < topology.user_channel_start
    }
}

/// Starts all hosts of `topology` and opens all its channels.
///
/// # Errors
///
/// [`LiveError`] if a node does not start or a channel does not open.
pub async fn make(
    outside: Outside,
    scenario: &Scenario,
    topology: &Topology,
) -> Result<Network, LiveError> {
    let plan = Plan::new(scenario, topology);
    let rate = FeeRate::from_sat_per_vb(scenario.chain.feerate_sat_per_vb);
    outside.chain.set_fee_estimate(1, rate.unwrap_or(FeeRate::BROADCAST_MIN));
    let configs = topology_configs(scenario, topology);
    let hosts = Hosts::new(outside, scenario.seed, configs);
    for number in hosts.numbers() {
        hosts.start(number).await?;
    }
    fund(&hosts, topology, &plan).await?;
    open(&hosts, topology, &plan).await?;
    let in_batches = match &plan.groups {
        Some(groups) => joining::join_all(&hosts, topology, groups).await?,
        None => HashMap::new(),
    };
    let fundings = confirm(&hosts, topology, &plan, &in_batches).await?;
    set_policies(&hosts, topology, &plan, &fundings).await?;
    hear_gossip(&hosts, topology, &plan).await?;
    if let (Some(groups), Some(spec)) = (&plan.groups, &scenario.batches) {
        joining::pay_balances(&hosts, topology, groups, &fundings).await?;
        mine(&hosts, spec.age_blocks).await?;
    }
    Ok(Network { hosts, fundings })
}

fn topology_configs(scenario: &Scenario, topology: &Topology) -> Vec<node::config::Config> {
    let config = |number| {
        let mut config = Hosts::config(number);
        let lightning = &mut config.lightning;
        lightning.max_accepted_htlcs = scenario.channels.htlc_slots.min(SLOTS_MAX);
        let wait_ms = scenario.links.processing_ms.round();
        // What a node takes to handle an HTLC, as far as a setting of it can say so.
        lightning.forward_delay_ms = wait_ms as u64;
        lightning.inbound_channel_max_sat = u64::MAX / 2_000;
        joining::configure(&mut config, number, scenario, topology);
        config
    };
    (0..topology.network.nodes).map(config).collect()
}

/// Mines a block to nobody and waits until all have seen it.
///
/// # Errors
///
/// [`LiveError::Late`].
pub async fn mine(hosts: &Hosts, blocks: u32) -> Result<(), LiveError> {
    for _ in 0..blocks {
        hosts.outside().chain.mine(1, &ScriptBuf::new_op_return([]));
        wait("the nodes to follow the chain", || hosts.are_synced()).await?;
    }
    Ok(())
}

/// Waits until `done` says so.
///
/// # Errors
///
/// [`LiveError::Late`].
pub async fn wait(what: &str, done: impl Fn() -> bool) -> Result<(), LiveError> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            let what = what.to_owned();
            return Err(LiveError::Late { what, seconds: PATIENCE.as_secs() });
        }
        sleep(LOOK).await;
    }
    Ok(())
}

/// The coins that each wallet begins with, sat.
fn coins_sat(topology: &Topology, plan: &Plan) -> Vec<Vec<u64>> {
    let purse = |degree: &u64| vec![PURSE_SAT + degree * 10_000];
    let mut coins: Vec<Vec<u64>> = plan.degrees.iter().map(purse).collect();
    for (place, opener) in plan.openers.iter().enumerate() {
        let channel = &topology.network.channels[place];
        if !plan.is_batched(topology, place) {
            coins[channel.ends[*opener] as usize].push(channel.capacity_sat + FEE_ROOM_SAT);
        }
    }
    if let Some(groups) = &plan.groups {
        for (hub, sat) in groups.coins_sat(topology, FEE_ROOM_SAT) {
            coins[hub as usize].push(sat);
        }
    }
    for coins in &mut coins {
        // A wallet may choose two coins for one channel: some are there to spare.
        let largest = coins.iter().copied().max().unwrap_or(0);
        coins.extend(std::iter::repeat_n(largest, coins.len().div_ceil(SPARE_EVERY)));
    }
    coins
}

/// What the faucet must have at least, in sat.
pub fn coins_needed_sat(scenario: &Scenario, topology: &Topology) -> u64 {
    coins_sat(topology, &Plan::new(scenario, topology)).iter().flatten().sum()
}

async fn fund(hosts: &Hosts, topology: &Topology, plan: &Plan) -> Result<(), LiveError> {
    let mut payments = Vec::new();
    for (number, coins) in (0..).zip(coins_sat(topology, plan)) {
        let address = hosts.ask(number, |node| node.wallet.new_address().0.script_pubkey());
        let script = address.ok_or(LiveError::Away { host: number })?;
        let coin = |sat| (script.clone(), Amount::from_sat(sat));
        payments.extend(coins.into_iter().map(coin));
    }
    for payments in payments.chunks(COINS_AT_ONCE) {
        hosts.outside().chain.fund_many(payments)?;
    }
    mine(hosts, 1).await
}

async fn open(hosts: &Hosts, topology: &Topology, plan: &Plan) -> Result<(), LiveError> {
    let mut by_opener: Vec<Vec<usize>> = vec![Vec::new(); topology.network.nodes as usize];
    for (place, opener) in plan.openers.iter().enumerate() {
        if !plan.is_batched(topology, place) {
            by_opener[topology.network.channels[place].ends[*opener] as usize].push(place);
        }
    }
    let all = by_opener.iter().map(|places| async move {
        stream::iter(places)
            .map(|place| open_one(hosts, topology, plan, *place))
            .buffer_unordered(OPENS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await
    });
    try_join_all(all).await.map(|_| ())
}

async fn open_one(
    hosts: &Hosts,
    topology: &Topology,
    plan: &Plan,
    place: usize,
) -> Result<(), LiveError> {
    let channel = &topology.network.channels[place];
    let side = plan.openers[place];
    let (opener, peer) = (channel.ends[side], channel.ends[1 - side]);
    let first_msat = topology.first_end_msat[place];
    let push_msat = if side == 0 { channel.capacity_sat * 1_000 - first_msat } else { first_msat };
    let terms = &channel.directions[side];
    let request = OpenRequest {
        peer: hosts.node_id(peer),
        address: Some(SimNet::address(peer)),
        capacity_sat: channel.capacity_sat,
        push_msat,
        announced: plan.is_announced(topology, place),
        feerate_sat_per_vb: None,
        zero_reserve: false,
        fees: Some(ForwardingFees {
            base_msat: terms.base_msat,
            ppm: terms.ppm,
            cltv_expiry_delta: terms.cltv_expiry_delta,
        }),
    };
    let refused = |why: String| LiveError::NotOpened { channel: place, opener, peer, why };
    let away = LiveError::Away { host: opener };
    let channels = hosts.ask(opener, |node| std::sync::Arc::clone(&node.channels)).ok_or(away)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let opened = loop {
            match channels.request_open(request.clone(), None).await {
                Ok(view) => break view.record.channel,
                // Two channels with one peer open one after the other; coins come back as change.
                Err(OpenError::InProgress { .. } | OpenError::InsufficientFunds { .. })
                    if Instant::now() < deadline =>
                {
                    sleep(LOOK).await;
                }
                Err(error) => return Err(refused(error.to_string())),
            }
        };
        let why = loop {
            let record = channels.recorded(opened).ok_or_else(|| refused("it is gone".into()))?;
            match record.state {
                ChannelState::Opening if Instant::now() < deadline => sleep(LOOK).await,
                ChannelState::Opening => return Err(refused("the peer does not answer".into())),
                ChannelState::AwaitingConfirmation | ChannelState::Active => return Ok(()),
                _ => break record.close_reason.unwrap_or_default(),
            }
        };
        // Meanwhile the wallet had put several coins into another channel: in a block they become
        // change.
        if !why.starts_with(SHORT_OF_COINS) || Instant::now() > deadline {
            return Err(refused(why));
        }
        sleep(COINS_ROUND).await;
        mine(hosts, 1).await?;
    }
}

/// Buries all channels and returns the funding output of each.
async fn confirm(
    hosts: &Hosts,
    topology: &Topology,
    plan: &Plan,
    in_batches: &HashMap<usize, OutPoint>,
) -> Result<Vec<OutPoint>, LiveError> {
    let chain = &hosts.outside().chain;
    let fundings = fundings(hosts, topology, plan, in_batches)?;
    let are_sent = || {
        let opened = fundings.iter().enumerate().filter(|(p, _)| !plan.is_batched(topology, *p));
        opened.into_iter().all(|(_, funding)| chain.transaction(funding.txid).is_some())
    };
    wait("the funding transactions", are_sent).await?;
    mine(hosts, 1 + BURIED).await?;
    let are_usable = || {
        hosts.numbers().all(|number| {
            let channels = hosts.ask(number, |node| node.lightning.channels()).unwrap_or_default();
            let ready = channels.iter().filter(|c| c.usable && c.counterparty_fees.is_some());
            ready.count() as u64 == plan.degrees[number as usize]
        })
    };
    wait("the channels", are_usable).await?;
    Ok(fundings)
}

/// The funding output of each channel, as its opener knows it.
fn fundings(
    hosts: &Hosts,
    topology: &Topology,
    plan: &Plan,
    in_batches: &HashMap<usize, OutPoint>,
) -> Result<Vec<OutPoint>, LiveError> {
    let mut left: HashMap<(Node, Node), Vec<OutPoint>> = HashMap::new();
    let numbers: HashMap<_, Node> = hosts.numbers().map(|n| (hosts.node_id(n), n)).collect();
    for number in hosts.numbers() {
        let channels = hosts.ask(number, |node| node.lightning.channels()).unwrap_or_default();
        let mut ours: Vec<_> = channels.iter().filter(|channel| channel.outbound).collect();
        // Several channels of one pair are told apart by capacity below.
        ours.sort_by_key(|channel| (channel.capacity_sat, channel.funding));
        for channel in ours {
            if let (Some(peer), Some(funding)) = (numbers.get(&channel.peer), channel.funding) {
                left.entry((number, *peer)).or_default().push(funding);
            }
        }
    }
    let mut places: Vec<usize> = (0..topology.network.channels.len()).collect();
    places.sort_by_key(|place| topology.network.channels[*place].capacity_sat);
    let mut fundings = vec![OutPoint::null(); places.len()];
    for place in places {
        if let Some(funding) = in_batches.get(&place) {
            fundings[place] = *funding;
            continue;
        }
        let channel = &topology.network.channels[place];
        let side = plan.openers[place];
        let (opener, peer) = (channel.ends[side], channel.ends[1 - side]);
        let mine = left.get_mut(&(opener, peer)).filter(|mine| !mine.is_empty());
        let why = || "its funding output is unknown".to_owned();
        let not_opened = || LiveError::NotOpened { channel: place, opener, peer, why: why() };
        fundings[place] = mine.ok_or_else(not_opened)?.remove(0);
    }
    Ok(fundings)
}

/// Sets what acceptors charge; openers said it when they opened. Who has one channel forwards
/// nothing and charges nothing.
async fn set_policies(
    hosts: &Hosts,
    topology: &Topology,
    plan: &Plan,
    fundings: &[OutPoint],
) -> Result<(), LiveError> {
    for (place, channel) in topology.network.channels.iter().enumerate() {
        let side = 1 - plan.openers[place];
        let acceptor = channel.ends[side];
        if plan.degrees[acceptor as usize] < 2 {
            continue;
        }
        let terms = channel.directions[side];
        let away = LiveError::Away { host: acceptor };
        let channels =
            hosts.ask(acceptor, |node| std::sync::Arc::clone(&node.channels)).ok_or(away)?;
        let known = channels.by_funding();
        let Some(ours) = known.get(&fundings[place]) else { continue };
        let (base_msat, ppm) = (Some(terms.base_msat), Some(terms.ppm));
        channels
            .update_policy(*ours, base_msat, ppm, Some(terms.cltv_expiry_delta))
            .await
            .map_err(|error| LiveError::NotOpened {
                channel: place,
                opener: channel.ends[1 - side],
                peer: acceptor,
                why: error.to_string(),
            })?;
    }
    Ok(())
}

/// Waits until everybody knows every announced channel in both directions.
///
/// LDK tells each piece of news once; whoever missed it hears it with the next connection, when
/// it asks for all. So those who miss something connect anew.
async fn hear_gossip(hosts: &Hosts, topology: &Topology, plan: &Plan) -> Result<(), LiveError> {
    let places = 0..topology.network.channels.len();
    let announced = places.filter(|place| plan.is_announced(topology, *place)).count();
    let ignorant = || -> Vec<Node> {
        let misses = |number: &Node| {
            let known = hosts.ask(*number, |node| node.lightning.known_directions());
            known.is_some_and(|known| known < announced * 2)
        };
        hosts.numbers().filter(misses).collect()
    };
    for _ in 0..GOSSIP_ROUNDS {
        // What acceptors charge is told after the announcement; routers look every five seconds.
        sleep(GOSSIP_ROUND).await;
        let ignorant = ignorant();
        if ignorant.is_empty() {
            return Ok(());
        }
        for number in ignorant {
            hosts.ask(number, |node| {
                for peer in node.lightning.peers() {
                    node.lightning.disconnect(peer.node_id);
                }
            });
        }
    }
    let what = format!("gossip to all of {} nodes", topology.network.nodes);
    let seconds = u64::from(GOSSIP_ROUNDS) * GOSSIP_ROUND.as_secs();
    Err(LiveError::Late { what, seconds })
}
