//! Payments that need no search: to a peer, and through one.
//!
//! Over a channel with the payee there is no fee and no doubt, so nothing is cheaper. One hop
//! beyond a peer (behind a wallet's hub, at the end of a blinded path, or one public channel away)
//! nothing is cheaper as long as it costs less than the scorer's flat penalties for the hops any
//! other path would have. If that cannot be said, the search decides.

use lightning::routing::scoring::ProbabilisticScoringFeeParameters;

use super::hop::{Hop, NOBODY};
use super::paths::PaymentPath;
use super::penalties::{Penalties, Score, Usage};
use super::request::{Limits, Question, Terminals};
use super::search::Step;
use super::snapshot::Snapshot;

/// Which way was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortcut {
    /// Channels with the payee.
    Direct,
    /// One hop beyond a peer.
    Hub,
}

/// What a shortcut is looked for in.
pub(super) struct Shortcuts<'a, 'p, S> {
    pub question: Question<'a>,
    pub snapshot: &'a Snapshot,
    pub terminals: &'a Terminals,
    pub limits: Limits,
    pub parameters: &'a ProbabilisticScoringFeeParameters,
    pub penalties: &'a mut Penalties<'p, S>,
}

impl<S: Score> Shortcuts<'_, '_, S> {
    /// Looks for a way without a search; its paths go to `paths`, which must be empty.
    pub fn find(&mut self, paths: &mut Vec<PaymentPath>) -> Option<Shortcut> {
        let payee = self.terminals.payee;
        let to_payee = if payee == NOBODY { &[] } else { self.terminals.own_to(payee) };
        if !to_payee.is_empty() {
            return self.direct(to_payee, paths).then_some(Shortcut::Direct);
        }
        if self.terminals.own.is_empty() || self.terminals.has_long_hints {
            return None;
        }
        let found = if payee == NOBODY {
            self.beyond_peer(&self.terminals.blinded)
        } else if !self.terminals.is_public(payee) {
            self.beyond_peer(&self.terminals.hints)
        } else if self.terminals.hints.is_empty() {
            self.one_channel_away(payee)
        } else {
            None
        };
        let value_msat = self.limits.value_msat;
        let path = found.and_then(|found| found.path(value_msat))?;
        if path.fees_msat() > self.limits.fee_max_msat || path.value_msat() != value_msat {
            return None;
        }
        paths.push(path);
        Some(Shortcut::Hub)
    }

    /// Over channels with the payee, in LDK's order of preference; whole if one carries it.
    fn direct(&self, own: &[Hop], paths: &mut Vec<PaymentPath>) -> bool {
        let value_msat = self.limits.value_msat;
        if let Some(hop) = self.carrier(own, value_msat) {
            paths.extend(Found { own: hop, last: None, cost_msat: 0 }.path(value_msat));
            return !paths.is_empty();
        }
        if !self.limits.in_parts {
            return false;
        }
        let mut own: Vec<Hop> = own.iter().filter(|hop| self.may_use(hop)).copied().collect();
        own.sort_by_key(|hop| std::cmp::Reverse(hop.htlc_maximum_msat(0)));
        own.truncate(self.question.payment.payment_params.max_path_count.into());
        let Some(shares) = shares(&own, value_msat, self.limits.contribution_min_msat) else {
            return false;
        };
        for (hop, share_msat) in own.iter().zip(shares) {
            paths.extend(Found { own: *hop, last: None, cost_msat: 0 }.path(share_msat));
        }
        let arrives: u64 = paths.iter().map(PaymentPath::value_msat).sum();
        if arrives != value_msat {
            paths.clear();
        }
        arrives == value_msat
    }

    /// Over one of `lasts`, which lead from a node to the payee, if we have a channel with it.
    fn beyond_peer(&mut self, lasts: &[Hop]) -> Option<Found> {
        let (mut best, mut doubt) = (None::<Found>, false);
        for last in lasts {
            let found = self.terms(last).and_then(|terms| self.reach(last, terms));
            match found {
                Some(found) if best.is_none_or(|best| found.cost_msat < best.cost_msat) => {
                    best = Some(found);
                }
                Some(_) => {}
                None => doubt = true,
            }
        }
        // Another way goes over at least one public channel.
        best.filter(|found| !doubt || found.cost_msat <= self.flat_penalty_msat())
    }

    /// Over a public channel between a peer and the payee.
    fn one_channel_away(&mut self, payee: u32) -> Option<Found> {
        // The search does not look at all channels of a large node; this does.
        const CHANNELS_MAX: usize = 64;
        let edges = self.snapshot.incoming(payee);
        if edges.len() > CHANNELS_MAX {
            return None;
        }
        let (mut best, mut cheapest_last_msat) = (None::<Found>, u64::MAX);
        for edge in edges {
            let last = self.snapshot.hop(edge, payee);
            let Some(terms) = self.terms(&last) else { continue };
            cheapest_last_msat = cheapest_last_msat.min(terms.cost_msat);
            if best.is_none_or(|best| terms.cost_msat < best.cost_msat) {
                best = self.reach(&last, terms).or(best);
            }
        }
        // Another way ends with one of these channels too, after another public one.
        let others_msat = cheapest_last_msat.saturating_add(self.flat_penalty_msat());
        best.filter(|found| found.cost_msat <= others_msat)
    }

    /// What going over `last` costs, if it carries the whole amount.
    fn terms(&mut self, last: &Hop) -> Option<Terms> {
        let Limits { value_msat, saturation_shift, fee_max_msat, cltv_max, .. } = self.limits;
        let fits = self.may_use(last)
            && last.source != self.terminals.payer
            && last.htlc_minimum_msat <= value_msat
            && last.htlc_maximum_msat(saturation_shift) >= value_msat
            && last.cltv_expiry_delta <= cltv_max
            && self.limits.length_max >= if last.is_blinded() { 1 } else { 2 };
        let fee_msat = last.fee.on(value_msat).filter(|fee| fits && *fee <= fee_max_msat)?;
        let minimum_msat = last.htlc_minimum_msat;
        let path_minimum_msat = last.fee.on_saturating(minimum_msat).saturating_add(minimum_msat);
        let node = |place| self.terminals.node(self.snapshot, place);
        let target = if last.target == NOBODY { self.terminals.payer } else { last.target };
        let ends = [node(last.source), node(target)];
        let usage = Usage { amount_msat: value_msat, used_msat: 0 };
        let penalty_msat = self.penalties.of(self.question.payment, ends, last, usage);
        let cost_msat = fee_msat.max(path_minimum_msat).saturating_add(penalty_msat);
        (cost_msat < u64::MAX).then_some(Terms { fee_msat, cost_msat })
    }

    /// The way over one of our channels and then `last`.
    fn reach(&self, last: &Hop, terms: Terms) -> Option<Found> {
        let amount_msat = self.limits.value_msat.checked_add(terms.fee_msat)?;
        let own = self.carrier(self.terminals.own_to(last.source), amount_msat)?;
        Some(Found { own, last: Some(*last), cost_msat: terms.cost_msat })
    }

    /// The channel LDK would take: the first in order of preference that carries the amount,
    /// unless a later one asks for a smaller least amount.
    fn carrier(&self, own: &[Hop], amount_msat: u64) -> Option<Hop> {
        let carries = |hop: &&Hop| {
            self.may_use(hop)
                && hop.htlc_minimum_msat <= amount_msat
                && hop.htlc_maximum_msat(0) >= amount_msat
                && self.limits.length_max > 0
        };
        own.iter().filter(carries).min_by_key(|hop| hop.htlc_minimum_msat).copied()
    }

    fn may_use(&self, hop: &Hop) -> bool {
        !self.question.has_failed_before(hop.id)
    }

    /// The least that a public hop costs, msat: the penalties that do not depend on what the
    /// scorer knows.
    fn flat_penalty_msat(&self) -> u64 {
        if !self.parameters.manual_node_penalties.is_empty() {
            return 0;
        }
        let per_amount = self.parameters.base_penalty_amount_multiplier_msat;
        let by_amount = per_amount.saturating_mul(self.limits.value_msat) >> 30;
        self.parameters.base_penalty_msat.saturating_add(by_amount)
    }
}

/// What the last hop of a way takes.
#[derive(Debug, Clone, Copy)]
struct Terms {
    fee_msat: u64,
    cost_msat: u64,
}

/// A way of one or two hops.
#[derive(Debug, Clone, Copy)]
struct Found {
    own: Hop,
    last: Option<Hop>,
    cost_msat: u64,
}

impl Found {
    fn path(self, value_msat: u64) -> Option<PaymentPath> {
        let step = |hop| Step { hop, hop_use_fee_msat: 0, path_penalty_msat: 0 };
        let mut path = PaymentPath::default();
        match self.last {
            Some(last) => path.set(&[step(self.own), step(last)]),
            None => path.set(&[step(self.own)]),
        }
        path.send(value_msat).map(|_| path)
    }
}

/// Divides `value_msat` among `own`, the largest channels first. `None` if they do not carry it
/// or a share would be below what a channel, or `least_msat`, asks for.
fn shares(own: &[Hop], value_msat: u64, least_msat: u64) -> Option<Vec<u64>> {
    let floor = |hop: &Hop| hop.htlc_minimum_msat.max(least_msat);
    let mut shares: Vec<u64> = Vec::new();
    let mut left_msat = value_msat;
    for hop in own {
        if left_msat == 0 {
            break;
        }
        let most_msat = hop.htlc_maximum_msat(0);
        if most_msat < floor(hop) {
            return None;
        }
        let share_msat = left_msat.min(most_msat);
        if let Some(missing) = floor(hop).checked_sub(share_msat) {
            // The channel before gives up what this one lacks.
            let before = shares.len().checked_sub(1)?;
            let kept = shares[before].checked_sub(missing)?;
            if kept < floor(&own[before]) {
                return None;
            }
            shares[before] = kept;
            shares.push(floor(hop));
            left_msat = 0;
        } else {
            shares.push(share_msat);
            left_msat -= share_msat;
        }
    }
    (left_msat == 0).then_some(shares)
}
