//! Batches of channels: their life, their rollover, and what hubs have locked in them.
//!
//! A hub's users are put into batches in their order, at the start of the run. At half life the
//! hub opens the next batch for those who are still there, and both are funded until the old one
//! is settled. A user moves over at a moment of its own within the window, or as soon as it is
//! back; the model moves the whole balance at once. At the deadline the node of whoever is left,
//! or its tower, publishes the path; at the expiry the hub takes what is not on chain.
//!
//! Source: BATCHES §5, §6, §8; sizes are those of `channel_contracts::tree::cost`.

use channel_contracts::tree::cost::{expiry_sweep_vb, key_path_spend_vb};
use channel_contracts::tree::{BatchCost, Radix, Shape};

use super::engine::Engine;
use super::exits::Reason;
use super::graph::Lane;
use crate::random::Random;
use crate::scenario::{BatchSpec, Scenario};
use crate::topology::{Node, Topology};

/// Randomness of batches.
const BATCHES: u64 = 4;
/// Blocks that the rollover window ends before the deadline. BATCHES §5.2.
const WINDOW_MARGIN: u32 = 200;
/// Blocks after which a user that was away tries again.
const TRY_AGAIN: u32 = 6;

/// How a user's channel is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Member {
    /// In this batch; it moves over at this height.
    Here { moves_at: u32 },
    /// In the next one.
    Moved,
    /// On its way onto the chain.
    Leaving,
    /// An ordinary channel, or closed, or lost.
    Gone,
}

/// A batch.
pub(super) struct Batch {
    users: Vec<u32>,
    members: Vec<Member>,
    pub shape: Shape,
    half_life: u32,
    deadline: u32,
    pub expiry: u32,
    capacity_sat: u64,
    next: Option<usize>,
    settled: bool,
    /// Tree transactions on chain, as level and first user, with their heights.
    pub published: Vec<(usize, usize, u32)>,
}

/// All batches.
pub(super) struct Batches {
    spec: BatchSpec,
    batches: Vec<Batch>,
    live: Vec<usize>,
    pub height: u32,
    random: Random,
    locked_sat: u64,
    /// Where each user is: batch and slot.
    places: Vec<(usize, usize)>,
    towers: Vec<bool>,
    hubs: Vec<Node>,
}

impl Batches {
    pub fn new(scenario: &Scenario, topology: &Topology) -> Self {
        let spec = scenario.batches.unwrap_or_default();
        let mut random = Random::stream(scenario.seed, BATCHES);
        let users = topology.users.len();
        let towers = (0..users).map(|_| random.below(1_000_000) < u64::from(spec.tower_ppm));
        let towers = towers.collect();
        let hub =
            |user: usize| topology.network.channels[topology.user_channel_start + user].ends[0];
        Self {
            spec,
            batches: Vec::new(),
            live: Vec::new(),
            height: 0,
            random,
            locked_sat: 0,
            places: vec![(0, 0); users],
            towers,
            hubs: (0..users).map(hub).collect(),
        }
    }

    /// What hubs have in batches, sat.
    pub fn locked_sat(&self) -> u64 {
        self.locked_sat
    }

    pub fn batch(&mut self, place: usize) -> &mut Batch {
        &mut self.batches[place]
    }

    pub fn has_tower(&self, user: u32) -> bool {
        self.towers[user as usize]
    }

    pub fn hub(&self, user: u32) -> Node {
        self.hubs[user as usize]
    }

    /// Batch and slot of a user whose channel is in one and stays there.
    pub fn place_of(&self, user: u32) -> Option<(usize, usize)> {
        let (batch, slot) = *self.places.get(user as usize)?;
        let member = self.batches.get(batch)?.members[slot];
        matches!(member, Member::Here { .. }).then_some((batch, slot))
    }

    pub fn users(&self) -> u32 {
        self.places.len() as u32
    }

    /// A user's path begins to go onto the chain: it will not move to the next batch.
    pub fn leaves(&mut self, batch: usize, slot: usize) {
        self.batches[batch].members[slot] = Member::Leaving;
        self.is_missed(batch, slot);
    }

    /// A user's path is on chain.
    pub fn is_gone(&mut self, batch: usize, slot: usize) {
        self.batches[batch].members[slot] = Member::Gone;
    }

    /// The next batch, if there is one, goes on without a user of this one.
    fn is_missed(&mut self, batch: usize, slot: usize) {
        let user = self.batches[batch].users[slot];
        if let Some(next) = self.batches[batch].next {
            let there = &mut self.batches[next];
            if let Some(slot) = there.users.iter().position(|other| *other == user) {
                there.members[slot] = Member::Gone;
            }
        }
    }

    /// Takes from a first batch what of its life was before the scenario's zero.
    fn age(&mut self, place: usize) {
        let age = self.spec.age_blocks;
        let batch = &mut self.batches[place];
        batch.half_life -= age;
        batch.deadline -= age;
        batch.expiry -= age;
        for member in &mut batch.members {
            if let Member::Here { moves_at } = member {
                *moves_at -= age;
            }
        }
    }

    fn open(&mut self, users: Vec<u32>, capacity_sat: u64) -> usize {
        let radix = Radix::new(self.spec.radix).unwrap_or(Radix::for_size(users.len()));
        let shape = Shape::new(users.len(), radix).expect("sizes were checked with the scenario");
        let expiry = self.height + self.spec.lifetime_blocks;
        // BATCHES §5.1.
        let deadline = expiry - 6 * (shape.levels() as u32 + 1) - 36;
        let half_life = self.height + self.spec.lifetime_blocks / 2;
        let window = u64::from((deadline - WINDOW_MARGIN).saturating_sub(half_life).max(1));
        let place = self.batches.len();
        let mut members = Vec::with_capacity(users.len());
        for (slot, user) in users.iter().enumerate() {
            self.places[*user as usize] = (place, slot);
            let moves_at = half_life + 1 + self.random.below(window) as u32;
            members.push(Member::Here { moves_at });
        }
        self.batches.push(Batch {
            users,
            members,
            shape,
            half_life,
            deadline,
            expiry,
            capacity_sat,
            next: None,
            settled: false,
            published: Vec::new(),
        });
        self.live.push(place);
        self.locked_sat += capacity_sat;
        place
    }
}

impl Batch {
    /// Outputs that the hub takes at the end: the root, or what hangs beside published paths.
    fn outputs_left(&self) -> usize {
        if self.published.is_empty() {
            return 1;
        }
        let is_published = |level: usize, first: usize| {
            self.published.iter().any(|(l, f, _)| (*l, *f) == (level, first))
        };
        let nodes = self.shape.nodes();
        let below = nodes.iter().filter(|node| is_published(node.level, node.users.start));
        let hanging = below.flat_map(|node| {
            let next_level = node.level + 1;
            node.children.iter().filter(move |child| match child {
                channel_contracts::tree::Child::Node(users) => {
                    !is_published(next_level, users.start)
                }
                channel_contracts::tree::Child::Channel(_) => false,
            })
        });
        hanging.count()
    }
}

impl Engine<'_> {
    /// The lane of a user's own side.
    pub(super) fn user_lane(&self, user: u32) -> Lane {
        ((self.topology.user_channel_start + user as usize) * 2 + 1) as Lane
    }

    pub(super) fn open_first_batches(&mut self) {
        let users = self.topology.users.len() as u32;
        let most = self.batches.spec.users_max as usize;
        for hub in &self.topology.hubs {
            let of_hub: Vec<u32> =
                (0..users).filter(|user| self.batches.hub(*user) == *hub).collect();
            for users in of_hub.chunks(most) {
                let place = self.open_batch(users.to_vec());
                self.batches.age(place);
            }
        }
    }

    fn open_batch(&mut self, users: Vec<u32>) -> usize {
        let lanes = users.iter().map(|user| self.user_lane(*user));
        let capacity_sat = lanes.map(|lane| self.lanes.capacity_msat(lane) / 1_000).sum();
        let place = self.batches.open(users, capacity_sat);
        let cost = BatchCost::of(&self.batches.batch(place).shape);
        self.exits.on_chain(cost.open_vb, self.feerate());
        self.recorder.totals.batches_opened += 1;
        place
    }

    /// A block: exits go on, batches live on.
    pub(super) fn block(&mut self) {
        self.batches.height += 1;
        self.exits_block();
        for place in self.batches.live.clone() {
            self.batch_block(place);
        }
        let settled: Vec<bool> = self.batches.batches.iter().map(|batch| batch.settled).collect();
        self.batches.live.retain(|place| !settled[*place]);
        self.queue.push(self.now_us + self.block_us, crate::model::events::Event::Block);
    }

    fn batch_block(&mut self, place: usize) {
        let height = self.batches.height;
        let batch = &self.batches.batches[place];
        if height >= batch.expiry {
            return self.expire(place);
        }
        if height >= batch.half_life && batch.next.is_none() {
            let stay = |member: &Member| matches!(member, Member::Here { .. });
            let members = batch.users.iter().zip(&batch.members);
            let users: Vec<u32> =
                members.filter(|(_, member)| stay(member)).map(|(user, _)| *user).collect();
            if !users.is_empty() {
                let places = self.batches.places.clone();
                let next = self.open_batch(users);
                // Until they move, they are where they were.
                self.batches.places = places;
                self.batches.batches[place].next = Some(next);
            }
        }
        self.roll_over(place);
        let batch = &self.batches.batches[place];
        let over = |member: &Member| matches!(member, Member::Moved | Member::Gone);
        if batch.next.is_some() && batch.members.iter().all(over) {
            let vb = key_path_spend_vb(batch.outputs_left(), 0);
            self.settle_batch(place, vb);
        }
    }

    fn roll_over(&mut self, place: usize) {
        let height = self.batches.height;
        let Some(next) = self.batches.batches[place].next else { return };
        for slot in 0..self.batches.batches[place].members.len() {
            let batch = &self.batches.batches[place];
            let Member::Here { moves_at } = batch.members[slot] else { continue };
            let user = batch.users[slot];
            let awake = self.world.is_online(self.topology.users[user as usize])
                && self.world.is_online(self.batches.hub(user));
            if height >= batch.deadline {
                if awake || self.batches.has_tower(user) {
                    self.start_exit(user, Reason::Deadline);
                }
            } else if height >= moves_at && height < batch.deadline - WINDOW_MARGIN {
                if awake {
                    let slot_there =
                        self.batches.batches[next].users.iter().position(|u| *u == user);
                    self.batches.batches[place].members[slot] = Member::Moved;
                    self.batches.places[user as usize] = (next, slot_there.unwrap_or(0));
                    self.recorder.totals.rolled_over += 1;
                } else {
                    self.batches.batches[place].members[slot] =
                        Member::Here { moves_at: height + TRY_AGAIN };
                }
            }
        }
    }

    /// The expiry: who is not on chain has lost, the hub takes the rest.
    fn expire(&mut self, place: usize) {
        for slot in 0..self.batches.batches[place].members.len() {
            let batch = &mut self.batches.batches[place];
            let user = batch.users[slot];
            match batch.members[slot] {
                Member::Moved | Member::Gone => {}
                Member::Here { .. } => {
                    batch.members[slot] = Member::Gone;
                    self.batches.is_missed(place, slot);
                    self.lose(user);
                }
                Member::Leaving => {
                    batch.members[slot] = Member::Gone;
                    if self.exits.forget(user) {
                        self.recorder.totals.exits_late += 1;
                        self.lose(user);
                    }
                }
            }
        }
        let outputs = self.batches.batches[place].outputs_left();
        if outputs > 0 {
            self.settle_batch(place, expiry_sweep_vb(outputs));
        } else {
            self.settle_batch(place, 0);
        }
    }

    fn lose(&mut self, user: u32) {
        let lane = self.user_lane(user);
        if !self.lanes.is_closed(lane) {
            self.recorder.totals.lost_sat += self.lanes.forfeit(lane) / 1_000;
            self.close(lane);
        }
    }

    fn settle_batch(&mut self, place: usize, vb: u64) {
        let batch = &mut self.batches.batches[place];
        if batch.settled {
            return;
        }
        batch.settled = true;
        self.batches.locked_sat -= batch.capacity_sat;
        self.exits.on_chain(vb, self.feerate());
        self.recorder.totals.batches_settled += 1;
    }
}
