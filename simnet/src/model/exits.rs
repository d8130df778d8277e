//! Exits from batches: paths onto the chain, one level a block, in what room blocks have.
//!
//! Each tree transaction carries a fee child. Users of one batch share what is above them: what
//! one has published the others need not. Then follows the commitment, then the claim. Where
//! more wants into a block than fits, everybody pays more: the feerate grows with what waits.
//!
//! Source: BATCHES §9.

use channel_contracts::tree::cost::{
    CLAIM_VB, COMMITMENT_VB, ExitCost, FEE_CHILD_VB, tree_transaction_vb,
};
use channel_contracts::tree::{ShapeNode, UserSlot};

use super::engine::Engine;
use crate::random::Random;
use crate::scenario::Fault;

/// Randomness of faults of batches.
const FAULTS: u64 = 1 << 20;
/// Blocks in which an old state can be punished, LDK's default `to_self_delay`.
const CONTEST_BLOCKS: u32 = 144;
/// A transaction that punishes an old state: one revoked output to a wallet, in vB.
const JUSTICE_VB: u64 = 150;

/// Why a path goes onto the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The deadline has come.
    Deadline,
    /// The user wants to.
    Wish,
    /// The user wants more than it has.
    Cheat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Level(usize),
    Commitment,
    Contest { until: u32 },
    Claim,
}

struct Exit {
    user: u32,
    batch: usize,
    slot: usize,
    path: Vec<ShapeNode>,
    step: Step,
    reason: Reason,
}

/// Exits under way, and what is on chain.
#[derive(Default)]
pub(super) struct Exits {
    exits: Vec<Exit>,
    chain_vb: u64,
    chain_fee_msat: u64,
    backlog_vb: u64,
}

impl Exits {
    /// Counts a transaction.
    pub fn on_chain(&mut self, vb: u64, feerate_msat_per_vb: u64) {
        self.chain_vb += vb;
        self.chain_fee_msat += vb * feerate_msat_per_vb;
    }

    pub fn chain_vb(&self) -> u64 {
        self.chain_vb
    }

    pub fn chain_fee_sat(&self) -> u64 {
        self.chain_fee_msat.div_ceil(1_000)
    }

    /// What wanted into the last block and did not fit, vB.
    pub fn backlog_vb(&self) -> u64 {
        self.backlog_vb
    }

    pub fn waiting(&self) -> usize {
        self.exits.len()
    }

    pub fn are_waiting(&self) -> bool {
        !self.exits.is_empty()
    }

    /// Ends a user's exit if its leaf is not on chain; tells whether it was not.
    pub fn forget(&mut self, user: u32) -> bool {
        let late = |exit: &Exit| exit.user == user && matches!(exit.step, Step::Level(_));
        let before = self.exits.len();
        self.exits.retain(|exit| !late(exit));
        self.exits.len() < before
    }
}

impl Engine<'_> {
    /// A user's path begins to go onto the chain, unless that costs more than it has.
    pub(super) fn start_exit(&mut self, user: u32, reason: Reason) {
        let Some((batch, slot)) = self.batches.place_of(user) else { return };
        let shape = self.batches.batch(batch).shape;
        let slot_there = UserSlot(slot as u16);
        let (Ok(cost), Ok(path)) = (ExitCost::of(&shape, slot_there), shape.path(slot_there))
        else {
            return;
        };
        let balance_msat = self.lanes.balance_msat(self.user_lane(user));
        if reason != Reason::Cheat && cost.total_vb() * self.feerate() > balance_msat {
            if reason == Reason::Wish {
                self.recorder.totals.exits_not_worth += 1;
            }
            return;
        }
        self.batches.leaves(batch, slot);
        self.exits.exits.push(Exit { user, batch, slot, path, step: Step::Level(0), reason });
    }

    /// A fault of batches begins: users leave, or cheat.
    pub(super) fn fault(&mut self, place: u32) {
        let (share_ppm, reason) = match self.scenario.faults[place as usize] {
            Fault::MassExit { share_ppm, .. } => (share_ppm, Reason::Wish),
            Fault::Cheat { share_ppm, .. } => (share_ppm, Reason::Cheat),
            _ => return,
        };
        let mut random = Random::stream(self.scenario.seed, FAULTS + u64::from(place));
        for user in 0..self.batches.users() {
            if random.below(1_000_000) < u64::from(share_ppm) {
                self.start_exit(user, reason);
            }
        }
    }

    /// A block takes what fits, first come first served.
    pub(super) fn exits_block(&mut self) {
        let mut room_vb = self.scenario.chain.room_vb;
        let feerate = self.feerate();
        let mut missed_vb = 0;
        let mut exits = std::mem::take(&mut self.exits.exits);
        exits.retain_mut(|exit| {
            self.skip_published(exit);
            let vb = self.next_vb(exit);
            if vb > room_vb {
                missed_vb += vb;
                return true;
            }
            if vb > 0 {
                room_vb -= vb;
                self.exits.on_chain(vb, feerate);
            }
            self.step(exit)
        });
        // Nothing of the above starts an exit, so nothing was added meanwhile.
        self.exits.exits = exits;
        self.exits.backlog_vb = missed_vb;
    }

    /// Passes over levels that others have published in earlier blocks.
    fn skip_published(&mut self, exit: &mut Exit) {
        let height = self.batches.height;
        while let Step::Level(level) = exit.step {
            let batch = self.batches.batch(exit.batch);
            match published(&batch.published, &exit.path[level]) {
                Some(at) if at < height => exit.step = self.after_level(exit, level),
                _ => break,
            }
        }
    }

    /// What an exit wants into this block, vB.
    fn next_vb(&mut self, exit: &Exit) -> u64 {
        match exit.step {
            Step::Level(level) => {
                let node = &exit.path[level];
                let batch = self.batches.batch(exit.batch);
                if published(&batch.published, node).is_some() {
                    return 0;
                }
                tree_transaction_vb(node.children.len()) + FEE_CHILD_VB
            }
            Step::Commitment => COMMITMENT_VB + FEE_CHILD_VB,
            Step::Contest { .. } => 0,
            Step::Claim => CLAIM_VB,
        }
    }

    /// An exit's next transaction is in a block. Returns whether it goes on.
    fn step(&mut self, exit: &mut Exit) -> bool {
        let height = self.batches.height;
        match exit.step {
            Step::Level(level) => {
                let node = &exit.path[level];
                let batch = self.batches.batch(exit.batch);
                // Somebody else's in this block: what spends it goes into the next.
                if published(&batch.published, node).is_some() {
                    return true;
                }
                batch.published.push((node.level, node.users.start, height));
                exit.step = self.after_level(exit, level);
                true
            }
            Step::Commitment => {
                let lane = self.user_lane(exit.user);
                self.close(lane);
                exit.step = match exit.reason {
                    Reason::Cheat => Step::Contest { until: height + CONTEST_BLOCKS },
                    Reason::Wish | Reason::Deadline => Step::Claim,
                };
                true
            }
            Step::Contest { until } => self.contest(exit, until),
            Step::Claim => {
                self.recorder.totals.exits_done += 1;
                false
            }
        }
    }

    fn after_level(&mut self, exit: &Exit, level: usize) -> Step {
        if level + 1 < exit.path.len() {
            return Step::Level(level + 1);
        }
        // The leaf is on chain: the batch's expiry cannot touch the channel any more.
        self.batches.is_gone(exit.batch, exit.slot);
        Step::Commitment
    }

    /// An old state is on chain: who watches punishes it. Returns whether that is still open.
    fn contest(&mut self, exit: &mut Exit, until: u32) -> bool {
        let lane = self.user_lane(exit.user);
        let hub = self.batches.hub(exit.user);
        if self.world.is_online(hub) || self.batches.has_tower(exit.user) {
            self.lanes.forfeit(lane);
            self.recorder.totals.cheats += 1;
            self.recorder.totals.cheats_punished += 1;
            self.exits.on_chain(JUSTICE_VB, self.feerate());
            return false;
        }
        if self.batches.height < until {
            return true;
        }
        // Nobody watched: the best state for the cheater stands.
        self.lanes.forfeit(lane ^ 1);
        self.recorder.totals.cheats += 1;
        exit.step = Step::Claim;
        true
    }
}

fn published(published: &[(usize, usize, u32)], node: &ShapeNode) -> Option<u32> {
    let same = |(level, first, _): &&(usize, usize, u32)| {
        (*level, *first) == (node.level, node.users.start)
    };
    published.iter().find(same).map(|(_, _, height)| *height)
}
