//! Pathfinding behind LDK's `Router` trait.
//!
//! A payment to a peer, or through one, needs no search. For the rest the public network is kept
//! as a compact snapshot, and lower bounds of what it costs to get from us to anywhere lead the
//! search. What a path is worth is LDK's word throughout: fees plus the scorer's penalty, with
//! LDK's limits. Read `search.rs` first, then `collect.rs` and `guide.rs`.
//!
//! What this room does not answer (a request that makes no sense, mostly) goes to LDK's router.

mod assemble;
mod collect;
mod direct;
mod guide;
mod hop;
mod journal;
mod parts;
mod paths;
mod penalties;
mod request;
mod search;
mod snapshot;
#[cfg(test)]
pub(super) mod tests;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock as StdRwLock};

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::PaymentId;
use lightning::routing::gossip::{NetworkGraph, NodeId, ReadOnlyNetworkGraph};
use lightning::routing::router::{DefaultRouter, InFlightHtlcs, Route, RouteParameters, Router};
use lightning::routing::scoring::{ProbabilisticScoringFeeParameters, ScoreUpdate};
use lightning::sign::{EntropySource, ReceiveAuthKey};
use lightning::types::payment::PaymentHash;
use lightning::util::logger::Logger;
use parking_lot::{Mutex, RwLock};

use assemble::{Ingredients, Stale};
use collect::{Collected, NoRoute, Sources};
use direct::{Shortcut, Shortcuts};
use guide::{Class, Guide};
use penalties::Penalties;
use request::{Limits, Odd, Question, Terminals};

pub use journal::{Journal, JournalingScorer};
pub use parts::PartsInFlight;
pub use penalties::Score;
pub use snapshot::Snapshot;

/// Guides kept. Each holds four bytes per edge and eight per node.
const GUIDES_MAX: usize = 32;
/// How often a request is tried on a fresh snapshot before LDK gets it.
const ATTEMPTS: usize = 3;

/// LDK's own router, as it is asked for what is not done here.
type Ldk<L, E, S> = DefaultRouter<
    Arc<NetworkGraph<L>>,
    L,
    E,
    Arc<StdRwLock<S>>,
    ProbabilisticScoringFeeParameters,
    S,
>;

/// How requests were answered so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteAnswers {
    /// Over channels with the payee itself.
    pub direct: u64,
    /// Over one peer, without a search.
    pub hub: u64,
    /// By a search on the snapshot, with or without success.
    pub snapshot: u64,
    /// By LDK's router.
    pub fallback: u64,
}

/// What the graph looked like when it was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Looks {
    changes: u64,
    nodes: usize,
    channels: usize,
}

/// Which snapshot was taken last, and when.
struct Taken {
    serial: u64,
    looks: Looks,
}

#[derive(Default)]
struct Counters {
    direct: AtomicU64,
    hub: AtomicU64,
    snapshot: AtomicU64,
    fallback: AtomicU64,
}

/// A router that looks at as little of the network as it can.
pub struct FastRouter<L: Logger, E: EntropySource, S: Score + ScoreUpdate + 'static> {
    ldk: Ldk<L, E, S>,
    graph: Arc<NetworkGraph<L>>,
    entropy: E,
    scorer: Arc<StdRwLock<S>>,
    parameters: ProbabilisticScoringFeeParameters,
    snapshot: RwLock<Arc<Snapshot>>,
    refreshing: Mutex<Taken>,
    changes: Arc<AtomicU64>,
    guides: Mutex<Vec<Arc<Mutex<Guide>>>>,
    desks: Mutex<Vec<Desk>>,
    counters: Counters,
    parts: PartsInFlight,
}

/// Memory of one search.
#[derive(Default)]
struct Desk {
    terminals: Terminals,
    collected: Collected,
}

/// How a route was found.
enum Way {
    Direct,
    Hub,
    Snapshot,
}

/// Why this room has no route.
enum Miss {
    NoRoute(NoRoute),
    Stale,
    Odd,
}

impl<L, E, S> FastRouter<L, E, S>
where
    L: Logger + Clone,
    E: EntropySource + Clone,
    S: Score + ScoreUpdate + Journal + 'static,
{
    /// Takes a first snapshot of `graph`.
    pub fn new(
        graph: Arc<NetworkGraph<L>>,
        logger: L,
        entropy: E,
        scorer: Arc<StdRwLock<S>>,
        parameters: ProbabilisticScoringFeeParameters,
    ) -> Self {
        let (snapshot, looks) = {
            let graph = graph.read_only();
            (Snapshot::take(&graph, 0), looks(&graph, 0))
        };
        let ldk = DefaultRouter::new(
            Arc::clone(&graph),
            logger,
            entropy.clone(),
            Arc::clone(&scorer),
            parameters.clone(),
        );
        Self {
            ldk,
            graph,
            entropy,
            scorer,
            parameters,
            snapshot: RwLock::new(Arc::new(snapshot)),
            refreshing: Mutex::new(Taken { serial: 0, looks }),
            changes: Arc::default(),
            guides: Mutex::default(),
            desks: Mutex::default(),
            counters: Counters::default(),
            parts: PartsInFlight::default(),
        }
    }

    /// The parts of payments under way.
    pub fn parts(&self) -> &PartsInFlight {
        &self.parts
    }

    /// Counts what may have changed in the graph. Whoever feeds the graph adds to it afterwards.
    pub fn changes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.changes)
    }

    /// Reads the graph anew if it has changed. Returns whether searches see something new.
    pub fn refresh(&self) -> bool {
        self.retake(false)
    }

    /// Reads the graph anew; unless `surely`, only if it looks changed.
    fn retake(&self, surely: bool) -> bool {
        let mut taken = self.refreshing.lock();
        // Read first: what changes meanwhile is seen next time.
        let changes = self.changes.load(Ordering::Acquire);
        let fresh = {
            let graph = self.graph.read_only();
            let looks = looks(&graph, changes);
            if !surely && looks == taken.looks {
                return false;
            }
            taken.looks = looks;
            Snapshot::take(&graph, taken.serial + 1)
        };
        if fresh.is_same_network(&self.snapshot.read()) {
            return false;
        }
        taken.serial += 1;
        *self.snapshot.write() = Arc::new(fresh);
        self.guides.lock().clear();
        true
    }

    /// The network as searches see it now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read())
    }

    /// How requests were answered so far.
    pub fn answers(&self) -> RouteAnswers {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RouteAnswers {
            direct: read(&self.counters.direct),
            hub: read(&self.counters.hub),
            snapshot: read(&self.counters.snapshot),
            fallback: read(&self.counters.fallback),
        }
    }

    fn find(
        &self,
        question: Question<'_>,
        in_flight: &InFlightHtlcs,
    ) -> Result<(Route, Way), Miss> {
        let mut desk = self.desks.lock().pop().unwrap_or_default();
        let mut found = Err(Miss::Stale);
        for _ in 0..ATTEMPTS {
            found = self.find_once(&mut desk, question, in_flight);
            let again = match &found {
                Err(Miss::Stale) => {
                    self.retake(true);
                    true
                }
                // Perhaps the way was announced a moment ago.
                Err(Miss::NoRoute(_)) => self.refresh(),
                _ => false,
            };
            if !again {
                break;
            }
        }
        self.desks.lock().push(desk);
        found
    }

    fn find_once(
        &self,
        desk: &mut Desk,
        question: Question<'_>,
        in_flight: &InFlightHtlcs,
    ) -> Result<(Route, Way), Miss> {
        let snapshot = self.snapshot();
        let limits =
            desk.terminals.read(question, &snapshot, &self.graph).map_err(|Odd| Miss::Odd)?;
        let way =
            self.search(desk, question, &snapshot, limits, in_flight).map_err(Miss::NoRoute)?;
        let terminals = &desk.terminals;
        let from = Ingredients { question, snapshot: &snapshot, terminals, limits };
        let seed = self.entropy.get_secure_random_bytes();
        let route = assemble::route(&from, &desk.collected.paths, &self.graph, &seed)
            .map_err(|Stale| Miss::Stale)?;
        Ok((route, way))
    }

    fn search(
        &self,
        desk: &mut Desk,
        question: Question<'_>,
        snapshot: &Snapshot,
        limits: Limits,
        in_flight: &InFlightHtlcs,
    ) -> Result<Way, NoRoute> {
        let Desk { terminals, collected } = desk;
        let terminals = &*terminals;
        let scorer = self.scorer.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (parameters, template) = (&self.parameters, snapshot.template());
        let mut penalties = Penalties::new(&*scorer, parameters, Some(in_flight), template);
        collected.clear();
        let penalties = &mut penalties;
        let mut shortcuts =
            Shortcuts { question, snapshot, terminals, limits, parameters, penalties };
        match shortcuts.find(&mut collected.paths) {
            Some(Shortcut::Direct) => return Ok(Way::Direct),
            Some(Shortcut::Hub) => return Ok(Way::Hub),
            None => {}
        }
        let unused = &mut Penalties::new(&*scorer, parameters, None, template);
        let scorer = &*scorer;
        let sources = Sources { question, snapshot, terminals, limits, scorer, penalties, unused };
        collected.collect(sources, |class| self.guide(snapshot, class))?;
        Ok(Way::Snapshot)
    }

    /// The guide for a class, the most recently used ones first.
    fn guide(&self, snapshot: &Snapshot, class: Class) -> Arc<Mutex<Guide>> {
        let mut guides = self.guides.lock();
        let known = guides.iter().position(|guide| guide.lock().serves(snapshot, class));
        let guide = match known {
            Some(place) => guides.remove(place),
            None => {
                guides.truncate(GUIDES_MAX - 1);
                Arc::new(Mutex::new(Guide::new(snapshot, class)))
            }
        };
        guides.insert(0, Arc::clone(&guide));
        guide
    }
}

impl<L, E, S> Router for FastRouter<L, E, S>
where
    L: Logger + Clone,
    E: EntropySource + Clone,
    S: Score + ScoreUpdate + Journal + 'static,
{
    fn find_route(
        &self,
        payer: &PublicKey,
        payment: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let question = Question { payer: NodeId::from_pubkey(payer), payment, first_hops };
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        match self.find(question, &in_flight) {
            Ok((route, way)) => {
                count(match way {
                    Way::Direct => &self.counters.direct,
                    Way::Hub => &self.counters.hub,
                    Way::Snapshot => &self.counters.snapshot,
                });
                Ok(route)
            }
            Err(Miss::NoRoute(why)) => {
                count(&self.counters.snapshot);
                Err(why.reason())
            }
            Err(Miss::Stale | Miss::Odd) => {
                count(&self.counters.fallback);
                if first_hops.is_some_and(has_unusable) {
                    return Err("one of our channels has no short channel id yet");
                }
                self.ldk.find_route(payer, payment, first_hops, in_flight)
            }
        }
    }

    fn find_route_with_id(
        &self,
        payer: &PublicKey,
        payment: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        in_flight: InFlightHtlcs,
        _hash: PaymentHash,
        id: PaymentId,
    ) -> Result<Route, &'static str> {
        let found = self.find_route(payer, payment, first_hops, in_flight);
        self.parts.routed(id, found.as_ref().map_or(0, |route| route.paths.len()));
        found
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        first_hops: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        amount_msats: Option<u64>,
        secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        self.ldk.create_blinded_payment_paths(recipient, key, first_hops, tlvs, amount_msats, secp)
    }
}

fn looks(graph: &ReadOnlyNetworkGraph<'_>, changes: u64) -> Looks {
    Looks { changes, nodes: graph.nodes().len(), channels: graph.channels().len() }
}

/// LDK panics on such a channel.
fn has_unusable(own: &[&ChannelDetails]) -> bool {
    own.iter().any(|channel| channel.get_outbound_payment_scid().is_none())
}
