//! Payments drawn from a seed.

use super::{Intent, micros};
use crate::random::Random;
use crate::scenario::{Amounts, Arrivals, Hold, Pairs, Stream, Who};
use crate::topology::{Node, Topology};

/// Streams of workloads begin here, apart from those of networks and faults.
const LABEL: u64 = 1_000;

/// A stream's payments.
pub(super) struct Drawn {
    random: Random,
    arrivals: Arrivals,
    amounts: Amounts,
    hold: Hold,
    people: People,
    left: u64,
    start_us: f64,
    end_us: f64,
    /// Of the next payment, since the stream's start.
    next_us: f64,
    made: u64,
}

enum People {
    Anybody { senders: Vec<Node>, receivers: Vec<Node> },
    Ranked { senders: Vec<Node>, receivers: Vec<Node>, cumulative: Vec<f64> },
    Two { from: Node, to: Node },
    Rings { members: Vec<Node>, size: usize },
}

impl Drawn {
    pub fn new(stream: &Stream, topology: &Topology, seed: u64, place: u64) -> Self {
        let mut random = Random::stream(seed, LABEL + place);
        let people = People::new(stream.pairs.as_ref(), topology, &mut random);
        let duration_us = stream.duration_s.map_or(f64::INFINITY, |seconds| seconds * 1e6);
        let mut drawn = Self {
            random,
            arrivals: stream.arrivals.clone(),
            // A stream without amounts was refused before.
            amounts: stream.amounts.unwrap_or(Amounts::Fixed { msat: 1 }),
            hold: stream.hold,
            people,
            left: stream.payments.unwrap_or(u64::MAX),
            start_us: stream.start_s * 1e6,
            end_us: duration_us,
            next_us: 0.0,
            made: 0,
        };
        if matches!(drawn.arrivals, Arrivals::Poisson { .. }) {
            drawn.advance();
        }
        drawn
    }

    fn advance(&mut self) {
        match self.arrivals {
            Arrivals::Poisson { per_second } => {
                self.next_us += self.random.exponential(1e6 / per_second);
            }
            Arrivals::Even { per_second } => self.next_us = self.made as f64 * 1e6 / per_second,
            Arrivals::Burst { size, every_s } => {
                self.next_us = (self.made / size) as f64 * every_s * 1e6;
            }
            Arrivals::Trace { .. } => {}
        }
    }
}

impl Iterator for Drawn {
    type Item = Intent;

    fn next(&mut self) -> Option<Intent> {
        if self.left == 0 || self.next_us >= self.end_us {
            return None;
        }
        let at_us = libm::round(self.start_us + self.next_us) as u64;
        let (from, to) = self.people.pair(&mut self.random, self.made);
        let amount_msat = amount(&self.amounts, &mut self.random);
        let hold_us = match self.hold {
            Hold::None => 0,
            Hold::Fixed { ms } => micros(ms / 1e3),
            Hold::Exponential { mean_ms } => micros(self.random.exponential(mean_ms) / 1e3),
        };
        self.left -= 1;
        self.made += 1;
        self.advance();
        Some(Intent { at_us, from, to, amount_msat, hold_us })
    }
}

fn amount(amounts: &Amounts, random: &mut Random) -> u64 {
    match *amounts {
        Amounts::Fixed { msat } => msat,
        Amounts::Uniform { min_msat, max_msat } => min_msat + random.below(max_msat - min_msat + 1),
        Amounts::LogUniform { min_msat, max_msat } => {
            let [low, high] = [min_msat, max_msat].map(|msat| libm::log(msat as f64));
            let msat = libm::exp(low + random.unit() * (high - low));
            (libm::round(msat) as u64).clamp(min_msat, max_msat)
        }
        Amounts::LogNormal { median_msat, sigma, max_msat } => {
            let msat = median_msat as f64 * libm::exp(sigma * random.normal());
            (libm::round(msat) as u64).clamp(1, max_msat)
        }
    }
}

impl People {
    fn new(pairs: Option<&Pairs>, topology: &Topology, random: &mut Random) -> Self {
        let members = |who: Who| crate::scenario::members(topology, who);
        match pairs {
            Some(Pairs::Fixed { from, to }) => Self::Two { from: *from, to: *to },
            Some(Pairs::Random { senders, receivers }) => {
                Self::Anybody { senders: members(*senders), receivers: members(*receivers) }
            }
            Some(Pairs::Zipf { senders, receivers, exponent }) => {
                let mut receivers = members(*receivers);
                shuffle(&mut receivers, random);
                let mut sum = 0.0;
                let cumulative = (1..=receivers.len())
                    .map(|rank| {
                        sum += libm::pow(rank as f64, -exponent);
                        sum
                    })
                    .collect();
                Self::Ranked { senders: members(*senders), receivers, cumulative }
            }
            Some(Pairs::Ring { among, size }) => {
                let mut members = members(*among);
                shuffle(&mut members, random);
                let size = (*size as usize).min(members.len()).max(1);
                members.truncate(members.len() / size * size);
                Self::Rings { members, size }
            }
            // Refused before.
            None => Self::Two { from: 0, to: 1 },
        }
    }

    fn pair(&self, random: &mut Random, made: u64) -> (Node, Node) {
        match self {
            Self::Two { from, to } => (*from, *to),
            Self::Anybody { senders, receivers } => {
                let from = random.choose(senders);
                (from, other(from, receivers, random, |random| random.choose(receivers)))
            }
            Self::Ranked { senders, receivers, cumulative } => {
                let from = random.choose(senders);
                let total = cumulative.last().copied().unwrap_or(1.0);
                let ranked = |random: &mut Random| {
                    let at = random.unit() * total;
                    let place = cumulative.partition_point(|sum| *sum <= at);
                    receivers[place.min(receivers.len() - 1)]
                };
                (from, other(from, receivers, random, ranked))
            }
            Self::Rings { members, size } => {
                // In turn, so that what flows in flows out.
                let place = usize::try_from(made % members.len() as u64).unwrap_or(0);
                let group = place / size * size;
                (members[place], members[group + (place - group + 1) % size])
            }
        }
    }
}

/// Draws until somebody else than `from` comes out, or gives up on a set of one.
fn other(
    from: Node,
    receivers: &[Node],
    random: &mut Random,
    draw: impl Fn(&mut Random) -> Node,
) -> Node {
    for _ in 0..1_000 {
        let to = draw(random);
        if to != from {
            return to;
        }
    }
    receivers.iter().copied().find(|to| *to != from).unwrap_or(from)
}

fn shuffle(nodes: &mut [Node], random: &mut Random) {
    for place in (1..nodes.len()).rev() {
        nodes.swap(place, random.place(place + 1));
    }
}
