//! From walks to the paths of a payment: collects paths until they carry the amount, then keeps
//! the cheapest.
//!
//! The order of events is LDK's, numbered as in its `get_route`: paths are collected until three
//! times the amount could be sent or no further path is found (2–4), the dearest are dropped (6),
//! the last one sends less (7), and paths over the same channels are joined (8).

use std::sync::Arc;

use parking_lot::Mutex;

use super::guide::{Class, Guide, Span, Start};
use super::hop::HopId;
use super::journal::Journal;
use super::paths::{FeesOverflow, PaymentPath};
use super::penalties::{Penalties, Score};
use super::request::{Limits, Question, Terminals};
use super::search::{Scratch, Step, Used, Walk};
use super::snapshot::Snapshot;

/// Paths kept for the next collection: about as many as a search looks at.
const SPARE_MAX: usize = 64;

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoute {
    /// Nothing leads to the payee.
    NoPath,
    /// Not enough can be sent.
    TooLittle,
    /// The paths found ask for more than the fee limit.
    TooDear,
}

impl NoRoute {
    /// In LDK's words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoPath => "Failed to find a path to the given destination",
            Self::TooLittle => "Failed to find a sufficient route to the given destination",
            Self::TooDear => "Failed to find route that adheres to the maximum total fee limit",
        }
    }
}

/// Memory of a collection, used again by the next.
#[derive(Default)]
pub(super) struct Collected {
    scratch: Scratch,
    used: Used,
    steps: Vec<Step>,
    spare: Vec<PaymentPath>,
    /// The paths of the route.
    pub paths: Vec<PaymentPath>,
    peers: Vec<u32>,
}

/// What paths are collected from.
pub(super) struct Sources<'a, 'p, S> {
    pub question: Question<'a>,
    pub snapshot: &'a Snapshot,
    pub terminals: &'a Terminals,
    pub limits: Limits,
    pub scorer: &'a S,
    pub penalties: &'a mut Penalties<'p, S>,
    /// Penalties without regard to what is under way: what guides are made from.
    pub unused: &'a mut Penalties<'p, S>,
}

/// What a walk came to.
struct Walked {
    brings_msat: Option<u64>,
    hit_minimum: bool,
}

impl Collected {
    /// Forgets the paths found before.
    pub fn clear(&mut self) {
        // Shortcuts bring paths of their own and take none back.
        self.paths.truncate(SPARE_MAX.saturating_sub(self.spare.len()));
        self.spare.append(&mut self.paths);
        self.used.clear();
    }

    /// Finds the paths of a payment, into `self.paths`. `guide` gives the guide for a class.
    pub fn collect<S: Score + Journal>(
        &mut self,
        mut sources: Sources<'_, '_, S>,
        guide: impl Fn(Class) -> Arc<Mutex<Guide>>,
    ) -> Result<(), NoRoute> {
        self.clear();
        let limits = sources.limits;
        let mut value_msat = limits.value_msat;
        let mut saturation_shift = limits.saturation_shift;
        let mut collected_msat: u64 = 0;
        loop {
            let walked = self.walk(&mut sources, &guide, value_msat, saturation_shift);
            let found = match walked.brings_msat {
                Some(_) => match self.keep(&sources, saturation_shift) {
                    Ok(value) => {
                        collected_msat = collected_msat.saturating_add(value);
                        true
                    }
                    Err(AgainWithout) => continue,
                },
                None => false,
            };
            if !found && saturation_shift != 0 {
                saturation_shift = 0;
                continue;
            }
            if !limits.in_parts {
                break;
            }
            if !found
                && walked.hit_minimum
                && collected_msat < limits.value_msat
                && value_msat != limits.recommended_msat
            {
                value_msat = limits.recommended_msat;
            } else if !found || collected_msat >= limits.recommended_msat {
                break;
            } else if collected_msat == limits.value_msat && self.paths.len() == 1 {
                if !walked.hit_minimum {
                    break;
                }
                value_msat = limits.recommended_msat;
            }
        }
        if self.paths.is_empty() {
            return Err(NoRoute::NoPath);
        }
        if collected_msat < limits.value_msat {
            return Err(NoRoute::TooLittle);
        }
        self.choose(collected_msat - limits.value_msat);
        let arrives = self.paths.iter().map(PaymentPath::value_msat).sum::<u64>();
        let fees = self.paths.iter().map(PaymentPath::fees_msat).sum::<u64>();
        if fees.saturating_add(arrives.saturating_sub(limits.value_msat)) > limits.fee_max_msat {
            return Err(NoRoute::TooDear);
        }
        Ok(())
    }

    /// Steps 2 and 3.
    fn walk<S: Score + Journal>(
        &mut self,
        sources: &mut Sources<'_, '_, S>,
        guide: impl Fn(Class) -> Arc<Mutex<Guide>>,
        value_msat: u64,
        saturation_shift: u8,
    ) -> Walked {
        let limits = sources.limits;
        let parts = sources.question.payment.payment_params.max_path_count;
        let span = match (limits.in_parts, value_msat == limits.value_msat) {
            (false, _) => Span::Whole,
            (true, true) => Span::Parts(parts),
            (true, false) => Span::Provision(parts),
        };
        // Hops between hints are ways that no guide knows of.
        let guide = (!sources.terminals.has_long_hints)
            .then(|| guide(Class::of(limits.value_msat, span, saturation_shift)));
        let mut guide = guide.as_ref().map(|guide| guide.lock());
        if let Some(guide) = &mut guide {
            self.make_ready(guide, sources);
        }
        let mut walk = Walk {
            question: sources.question,
            snapshot: sources.snapshot,
            terminals: sources.terminals,
            limits,
            used: &self.used,
            guide: guide.as_deref(),
            penalties: sources.penalties,
            value_msat,
            saturation_shift,
            hit_minimum: false,
        };
        let brings_msat = walk.run(&mut self.scratch, &mut self.steps);
        Walked { brings_msat, hit_minimum: walk.hit_minimum }
    }

    /// Makes the bounds of a guide ready for a request.
    fn make_ready<S: Score + Journal>(
        &mut self,
        guide: &mut Guide,
        sources: &mut Sources<'_, '_, S>,
    ) {
        let (snapshot, terminals) = (sources.snapshot, sources.terminals);
        self.peers.clear();
        let public = terminals.own.iter().map(|hop| hop.target).filter(|n| terminals.is_public(*n));
        self.peers.extend(public);
        self.peers.dedup();
        let peers = sources.question.first_hops.is_some().then_some(self.peers.as_slice());
        let start = Start { payer: terminals.payer, peers };
        guide.prepare(start, snapshot, sources.scorer, sources.unused);
        let hints = terminals.hints.iter().chain(&terminals.blinded).map(|hop| hop.source);
        for node in hints.chain([terminals.payee]).filter(|node| terminals.is_public(*node)) {
            guide.grow_to(node, snapshot, sources.unused);
        }
    }

    /// Keeps the path just found, notes the liquidity it uses, and returns what it brings, msat.
    fn keep<S>(
        &mut self,
        sources: &Sources<'_, '_, S>,
        saturation_shift: u8,
    ) -> Result<u64, AgainWithout> {
        let mut path = self.spare.pop().unwrap_or_default();
        path.set(&self.steps);
        let most_msat = match path.value_max_msat(&self.used, saturation_shift) {
            Ok(most) => most,
            Err(FeesOverflow(place)) => {
                exhaust(&mut self.used, self.steps[place].hop.id);
                return Err(AgainWithout);
            }
        };
        let wanted_msat = most_msat.min(sources.limits.value_msat);
        let sent = path.send(wanted_msat).filter(|_| wanted_msat > 0);
        let Some(value_msat) = sent else {
            exhaust(&mut self.used, self.steps[self.steps.len() / 2].hop.id);
            return Err(AgainWithout);
        };
        for paid in &path.steps {
            let spent_msat = value_msat.saturating_add(paid.next_hops_fee_msat);
            let used = self.used.entry(paid.step.hop.id).or_insert(0);
            *used = used.saturating_add(spent_msat);
        }
        if most_msat > value_msat {
            // The same path would be found again: close a hop in its middle.
            let middle = path.steps[path.steps.len() / 2].step.hop.id;
            if let HopId::Channel(..) = middle {
                exhaust(&mut self.used, middle);
            }
        }
        self.paths.push(path);
        Ok(value_msat)
    }

    /// Steps 6 to 8. `surplus_msat` is what the paths bring too much.
    fn choose(&mut self, mut surplus_msat: u64) {
        let paths = &mut self.paths;
        paths.sort_by_cached_key(|path| std::cmp::Reverse(path.cost_per_msat()));
        let mut left = paths.len();
        let mut place = 0;
        while place < paths.len() {
            let value_msat = paths[place].value_msat();
            if left > 1 && value_msat <= surplus_msat {
                surplus_msat -= value_msat;
                left -= 1;
                self.spare.push(paths.remove(place));
            } else {
                place += 1;
            }
        }
        if surplus_msat > 0 {
            paths.sort_by_cached_key(|path| (path.ppm(), std::cmp::Reverse(path.cost_msat())));
            if let Some(first) = paths.first_mut() {
                let value_msat = first.value_msat().saturating_sub(surplus_msat);
                first.send(value_msat);
            }
        }
        if paths.len() > 1 {
            paths.sort_by_cached_key(|path| path.ids().collect::<Vec<_>>());
        }
        let mut place = 0;
        while place + 1 < paths.len() {
            if paths[place].is_same_way(&paths[place + 1]) {
                let joined =
                    paths[place].value_msat().saturating_add(paths[place + 1].value_msat());
                paths[place].send(joined);
                self.spare.push(paths.remove(place + 1));
            } else {
                place += 1;
            }
        }
    }
}

/// The path cannot be kept; a hop of it is closed for the next walk.
struct AgainWithout;

/// Closes a channel in both directions, or a blinded path.
fn exhaust(used: &mut Used, id: HopId) {
    match id {
        HopId::Channel(channel, _) => {
            used.insert(HopId::Channel(channel, false), u64::MAX);
            used.insert(HopId::Channel(channel, true), u64::MAX);
        }
        HopId::Blinded(_) => {
            used.insert(id, u64::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_nobody_takes_back_do_not_pile_up() {
        let mut collected = Collected::default();
        for _ in 0..1_000 {
            collected.clear();
            collected.paths.push(PaymentPath::default());
        }
        assert_eq!(collected.spare.len(), SPARE_MAX);
    }
}
