//! A hub, its users and what surrounds them: both machines, real trees and real MuSig2, messages
//! as bytes, and a queue from which anything may be taken next.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute, hashes::Hash};
use channel_contracts::batch::hub::{HubBatch, HubEffect, HubEvent, HubInput, HubPhase, HubPolicy};
use channel_contracts::batch::message::{
    Message, Partial, Propose, RefuseReason, Sign, Signed, Stored,
};
use channel_contracts::batch::user::{
    Agreed, UserBatch, UserEffect, UserInput, UserPhase, UserPolicy, UserRequest,
};
use channel_contracts::batch::{Attempt, BatchId, LeafState, Peer, RegistrationId, Timestamp};
use channel_contracts::musig::{
    HubNonces, HubPartials, HubSessionError, NonceSeed, PartialSignature, SignedTree, TreeSecret,
    UserNonces, UserSigned,
};
use channel_contracts::script::ExpiryLeaf;
use channel_contracts::tree::{
    AgreedPath, BatchTree, Member, PlannedTree, Radix, Terms, TreeTerms, UserSlot,
};

use super::batch::{EXPIRY, bytes, channel, secret};

/// What a user does that it should not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Never says this type of message.
    Silent(u16),
    /// Sends garbage instead of this type of message.
    Garbage(u16),
    /// Signs wrongly at this level.
    WrongPartial(usize),
    /// Finds its channel to be another.
    OtherChannel,
    /// Says that it has stored the path instead of signing it.
    EarlyStored,
    /// Its channel is never ready for funding.
    NoChannel,
    /// Never exchanges commitments.
    NoCommitments,
}

/// Something on its way.
#[derive(Debug, Clone)]
pub enum Event {
    ToHub(Peer, u16, Vec<u8>),
    ToUser(Peer, u16, Vec<u8>),
    Hub(HubInput),
    User(Peer, UserInput),
}

pub struct User {
    pub machine: UserBatch,
    pub fault: Fault,
    pub secrets: [TreeSecret; 3],
    pub channel: TxOut,
    agreed: Option<AgreedPath>,
    session: Option<UserNonces>,
    signed: Option<UserSigned>,
    pub stored: BTreeMap<Attempt, OutPoint>,
    pub effects: Vec<UserEffect>,
    nonces: BTreeSet<Vec<u8>>,
}

#[derive(Default)]
struct Ceremony {
    peers: Vec<Peer>,
    secret: Option<TreeSecret>,
    tree: Option<BatchTree>,
    nonces: Option<HubNonces>,
    partials: Option<HubPartials>,
    signed: Option<SignedTree>,
}

pub struct World {
    pub hub: HubBatch,
    pub users: BTreeMap<Peer, User>,
    pub queue: Vec<Event>,
    pub now: Timestamp,
    pub broadcast: Vec<Txid>,
    pub named: Vec<HubSessionError>,
    pub safe: BTreeSet<Peer>,
    pub rejections: Vec<String>,
    /// Every event of the hub, as a journal would keep it.
    pub journal: Vec<HubEvent>,
    ceremonies: BTreeMap<Attempt, Ceremony>,
    seeds: u64,
    trees: u64,
    agreed_by_user: BTreeMap<(Peer, Attempt), usize>,
}

pub fn peer(number: u64) -> Peer {
    Peer(secret("node", number).public_key())
}

impl World {
    /// A hub that gathers as many users as there are faults, each of whom has registered.
    pub fn new(faults: &[Fault]) -> Self {
        let policy = HubPolicy { users_max: faults.len(), ..HubPolicy::default() };
        let expiry = absolute::Height::from_consensus(EXPIRY).unwrap();
        let now = Timestamp(1_000);
        let hub = HubBatch::open(BatchId([7; 32]), policy, expiry, now);
        let mut world = Self {
            hub,
            users: BTreeMap::new(),
            queue: vec![],
            now,
            broadcast: vec![],
            named: vec![],
            safe: BTreeSet::new(),
            rejections: vec![],
            journal: vec![],
            ceremonies: BTreeMap::new(),
            seeds: 0,
            trees: 0,
            agreed_by_user: BTreeMap::new(),
        };
        for (number, fault) in (0u64..).zip(faults) {
            world.add_user(number, *fault);
        }
        world
    }

    fn add_user(&mut self, number: u64, fault: Fault) {
        let secrets = [0, 1, 2].map(|attempt| secret("tree key", number * 3 + attempt));
        let request = UserRequest {
            registration: RegistrationId(bytes("registration", number)),
            capacity: Amount::from_sat(50_000 + number),
            inbound: Amount::ZERO,
            tree_keys: secrets.each_ref().map(TreeSecret::public_key),
            best: absolute::Height::from_consensus(EXPIRY - 4_032).unwrap(),
        };
        let (machine, effects) = UserBatch::register(request, UserPolicy::default(), self.now);
        let user = User {
            machine,
            fault,
            secrets,
            channel: channel(number, 50_000 + number),
            agreed: None,
            session: None,
            signed: None,
            stored: BTreeMap::new(),
            effects: vec![],
            nonces: BTreeSet::new(),
        };
        self.users.insert(peer(number), user);
        self.run_user(peer(number), effects);
    }

    /// Delivers everything in order, and lets time pass whenever nothing is under way.
    pub fn run(&mut self) {
        for _ in 0..40 {
            while !self.queue.is_empty() {
                let event = self.queue.remove(0);
                self.deliver(event);
            }
            if self.is_over() {
                return;
            }
            self.pass_time();
        }
    }

    /// Moves the clock to the next deadline and tells everybody.
    pub fn pass_time(&mut self) {
        let hub = self.hub.phase().deadline();
        let users = self.users.values().filter_map(|user| user.machine.phase().deadline());
        let next = hub.into_iter().chain(users).min();
        self.now = next.unwrap_or(self.now).max(self.now);
        self.queue.push(Event::Hub(HubInput::Tick));
        let peers: Vec<Peer> = self.users.keys().copied().collect();
        self.queue.extend(peers.into_iter().map(|peer| Event::User(peer, UserInput::Tick)));
    }

    pub fn is_over(&self) -> bool {
        matches!(
            self.hub.phase(),
            HubPhase::Confirming | HubPhase::Live { .. } | HubPhase::Failed { .. }
        )
    }

    pub fn deliver(&mut self, event: Event) {
        match event {
            Event::ToHub(peer, kind, bytes) => {
                let input = match Message::decode(kind, &bytes).unwrap() {
                    Ok(message) => HubInput::Message { peer, message, banned_until: None },
                    Err(_) => HubInput::Malformed { peer },
                };
                self.hub_input(input);
            }
            Event::ToUser(peer, kind, bytes) => {
                let message = Message::decode(kind, &bytes).unwrap().unwrap();
                self.user_input(peer, UserInput::Message { message });
            }
            Event::Hub(input) => self.hub_input(input),
            Event::User(peer, input) => self.user_input(peer, input),
        }
    }

    pub fn hub_input(&mut self, input: HubInput) {
        match self.hub.decide(input, self.now) {
            Ok(decision) => {
                self.journal.extend(decision.events.iter().cloned());
                decision.events.into_iter().for_each(|event| self.hub.apply(event));
                self.run_hub(decision.effects);
            }
            Err(rejection) => self.rejections.push(rejection.to_string()),
        }
    }

    pub fn user_input(&mut self, peer: Peer, input: UserInput) {
        let Some(user) = self.users.get_mut(&peer) else { return };
        match user.machine.decide(input, self.now) {
            Ok(decision) => {
                decision.events.into_iter().for_each(|event| user.machine.apply(event));
                self.run_user(peer, decision.effects);
            }
            Err(rejection) => self.rejections.push(rejection.to_string()),
        }
    }

    fn seed(&mut self) -> NonceSeed {
        self.seeds += 1;
        NonceSeed::from_fresh_randomness(bytes("seed", self.seeds))
    }

    fn send_to_user(&mut self, peer: Peer, message: &Message) {
        self.queue.push(Event::ToUser(peer, message.kind(), message.encode()));
    }

    fn run_hub(&mut self, effects: Vec<HubEffect>) {
        for effect in effects {
            self.run_hub_effect(effect);
        }
    }

    fn run_hub_effect(&mut self, effect: HubEffect) {
        let batch = self.hub.id();
        match effect {
            HubEffect::Send { peer, message } => self.send_to_user(peer, &message),
            HubEffect::OpenChannel { peer, capacity } => {
                let funding = self.users[&peer].channel.clone();
                assert_eq!(funding.value, capacity);
                if self.users[&peer].fault == Fault::NoChannel {
                    return;
                }
                self.queue.push(Event::Hub(HubInput::ChannelReady { peer, funding }));
            }
            HubEffect::BuildTree { attempt, members, expiry } => {
                self.trees += 1;
                let hub = secret("hub tree key", self.trees);
                let sweep_key = secret("sweep", 0).public_key().into();
                let leaf = ExpiryLeaf { expiry, sweep_key };
                let terms = TreeTerms {
                    hub_key: hub.public_key(),
                    leaf,
                    radix: Radix::for_size(members.len()),
                };
                let peers = members.iter().map(|member| member.peer).collect();
                let members = members
                    .into_iter()
                    .map(|m| Member { tree_key: m.tree_key, funding: m.funding })
                    .collect();
                let txid = Txid::from_byte_array(bytes("batch transaction", self.trees));
                let root = OutPoint::new(txid, 0);
                let tree = PlannedTree::new(terms, members).unwrap().fund(root).unwrap();
                let ceremony =
                    Ceremony { peers, secret: Some(hub), tree: Some(tree), ..Ceremony::default() };
                self.ceremonies.insert(attempt, ceremony);
                self.queue.push(Event::Hub(HubInput::TreeBuilt { attempt, root }));
            }
            HubEffect::Propose { attempt, peers } => {
                let seed = self.seed();
                let ceremony = self.ceremonies.get_mut(&attempt).unwrap();
                let tree = ceremony.tree.clone().unwrap();
                let secret = ceremony.secret.take().unwrap();
                ceremony.nonces = Some(HubNonces::begin(tree.clone(), secret, seed).unwrap());
                for peer in peers {
                    let slot = self.slot(attempt, peer);
                    let proposal = tree.proposal(slot).unwrap();
                    let root_output = tree.nodes()[0].spent.clone();
                    let propose = Propose { batch, attempt, root_output, proposal };
                    self.send_to_user(peer, &Message::Propose(Box::new(propose)));
                }
            }
            HubEffect::TakeNonces { attempt, peer, nonces } => {
                let slot = self.slot(attempt, peer);
                let session = self.ceremonies.get_mut(&attempt).unwrap().nonces.as_mut().unwrap();
                let right = session.add(slot, nonces).is_ok();
                self.queue.push(Event::Hub(HubInput::NoncesChecked { attempt, peer, right }));
            }
            HubEffect::Aggregate { attempt } => {
                let ceremony = self.ceremonies.get_mut(&attempt).unwrap();
                // Asked for only when everybody's nonces are in.
                let partials = ceremony.nonces.take().unwrap().aggregate().unwrap();
                ceremony.partials = Some(partials);
                self.queue.push(Event::Hub(HubInput::Aggregated { attempt }));
            }
            HubEffect::SendAggregated { attempt, peers } => {
                for peer in peers {
                    let slot = self.slot(attempt, peer);
                    let partials = self.ceremonies[&attempt].partials.as_ref().unwrap();
                    let aggregated = partials.aggregated(slot).unwrap();
                    self.send_to_user(peer, &Message::Sign(Sign { batch, attempt, aggregated }));
                }
            }
            HubEffect::CheckPartials { attempt, peer, partials } => {
                let slot = self.slot(attempt, peer);
                let session = self.ceremonies.get_mut(&attempt).unwrap().partials.as_mut().unwrap();
                let wrong_level = match session.add(slot, partials) {
                    Ok(()) => None,
                    Err(error @ HubSessionError::WrongPartial { level, .. }) => {
                        self.named.push(error);
                        Some(level)
                    }
                    Err(_) => Some(0),
                };
                let checked = HubInput::PartialsChecked { attempt, peer, wrong_level };
                self.queue.push(Event::Hub(checked));
            }
            HubEffect::Finish { attempt } => {
                let ceremony = self.ceremonies.get_mut(&attempt).unwrap();
                let signed = ceremony.partials.take().unwrap().finish().unwrap();
                ceremony.signed = Some(signed);
                self.queue.push(Event::Hub(HubInput::TreeSigned { attempt }));
            }
            HubEffect::SendSigned { attempt, peers } => {
                for peer in peers {
                    let slot = self.slot(attempt, peer);
                    let signed = self.ceremonies[&attempt].signed.as_ref().unwrap();
                    let signatures = signed.path(slot).unwrap().signatures;
                    self.send_to_user(
                        peer,
                        &Message::Signed(Signed { batch, attempt, signatures }),
                    );
                }
            }
            HubEffect::ForgetAttempt { attempt } => {
                self.ceremonies.remove(&attempt);
            }
            HubEffect::FundChannels { attempt, peers } => {
                for peer in peers {
                    // §3.6: never before the user has its path.
                    assert!(self.users[&peer].stored.contains_key(&attempt));
                    if self.users[&peer].fault == Fault::NoCommitments {
                        continue;
                    }
                    let slot = self.slot(attempt, peer);
                    let tree = self.ceremonies[&attempt].signed.as_ref().unwrap().tree();
                    let funding = tree.funding_outpoint(slot).unwrap();
                    let exchanged = UserInput::CommitmentsExchanged { funding };
                    self.queue.push(Event::User(peer, exchanged));
                    self.safe.insert(peer);
                    self.queue.push(Event::Hub(HubInput::FundingSafe { peer }));
                }
            }
            HubEffect::BroadcastBatch { attempt, txid } => self.check_broadcast(attempt, txid),
            _ => {}
        }
    }

    /// Everything that must hold when a batch transaction goes out.
    fn check_broadcast(&mut self, attempt: Attempt, txid: Txid) {
        assert_eq!(attempt, self.hub.attempt());
        assert!(matches!(self.hub.phase(), HubPhase::Publishing | HubPhase::Confirming));
        let ceremony = &self.ceremonies[&attempt];
        let tree = ceremony.signed.as_ref().expect("broadcast without signatures").tree();
        assert_eq!(tree.root().txid, txid);
        assert_eq!(tree.members().len(), self.hub.members().len());
        for member in self.hub.members().keys() {
            assert!(self.safe.contains(member), "broadcast without commitments");
            assert!(self.users[member].stored.contains_key(&attempt), "broadcast before stored");
        }
        assert!(self.broadcast.iter().all(|known| *known == txid), "batch transaction replaced");
        self.broadcast.push(txid);
        self.queue.push(Event::Hub(HubInput::BatchBroadcast { txid }));
    }

    fn slot(&self, attempt: Attempt, peer: Peer) -> UserSlot {
        let peers = &self.ceremonies[&attempt].peers;
        UserSlot(peers.iter().position(|known| *known == peer).unwrap() as u16)
    }

    fn run_user(&mut self, peer: Peer, effects: Vec<UserEffect>) {
        for effect in effects {
            self.run_user_effect(peer, effect);
        }
    }

    fn run_user_effect(&mut self, peer: Peer, effect: UserEffect) {
        let seed = self.seed();
        let user = self.users.get_mut(&peer).unwrap();
        user.effects.push(effect.clone());
        match effect {
            UserEffect::Send { message } => self.send_of_user(peer, message),
            UserEffect::CheckProposal { propose, expiry } => {
                let attempt = propose.attempt;
                let mut channel = user.channel.clone();
                if user.fault == Fault::OtherChannel {
                    channel.value += Amount::from_sat(1);
                }
                let terms = Terms {
                    own_key: attempt.key_of(&user.machine.request().tree_keys),
                    root: propose.proposal.path.root,
                    root_output: propose.root_output.clone(),
                    expiry,
                    channel,
                };
                let result = match propose.proposal.verify(&terms) {
                    Ok(agreed) => {
                        let kept = Agreed {
                            attempt,
                            root: agreed.ends.root,
                            root_output: agreed.ends.root_output.clone(),
                            funding: agreed.funding,
                            leaf_slot: agreed.leaf_slot,
                            levels: agreed.levels.len(),
                        };
                        user.agreed = Some(agreed);
                        Ok(kept)
                    }
                    Err(error) => Err(RefuseReason::from(&error)),
                };
                self.queue.push(Event::User(peer, UserInput::ProposalChecked { attempt, result }));
            }
            UserEffect::MakeNonces { attempt } => {
                let secret = user.secrets[usize::from(attempt.get())].clone();
                let agreed = user.agreed.clone().unwrap();
                let (session, nonces) = UserNonces::begin(agreed, secret, seed).unwrap();
                // One session per attempt, and no nonce twice in the user's life.
                *self.agreed_by_user.entry((peer, attempt)).or_default() += 1;
                assert_eq!(self.agreed_by_user[&(peer, attempt)], 1, "two sessions in an attempt");
                for nonce in &nonces {
                    assert!(user.nonces.insert(nonce.serialize().to_vec()), "nonce repeated");
                }
                user.session = Some(session);
                self.queue.push(Event::User(peer, UserInput::NoncesMade { attempt, nonces }));
            }
            UserEffect::SignPartials { attempt, aggregated } => {
                let signed = user.session.take().unwrap().sign(&aggregated).unwrap();
                let partials = signed.partials().to_vec();
                user.signed = Some(signed);
                self.queue.push(Event::User(peer, UserInput::PartialsMade { attempt, partials }));
            }
            UserEffect::CompletePath { attempt, signatures } => {
                let input = match user.signed.as_ref().unwrap().complete(signatures) {
                    Ok((_, path)) => {
                        user.stored.insert(attempt, path.funding);
                        UserInput::PathStored { attempt }
                    }
                    Err(_) => UserInput::PathWrong { attempt },
                };
                self.queue.push(Event::User(peer, input));
            }
            UserEffect::ForgetAttempt { .. } => {
                user.session = None;
                user.signed = None;
            }
            _ => {}
        }
    }

    /// Sends what the user says, or what its fault makes of it.
    fn send_of_user(&mut self, peer: Peer, message: Message) {
        let kind = message.kind();
        let bytes = match (self.users[&peer].fault, message) {
            (Fault::Silent(silent), _) if silent == kind => return,
            (Fault::Garbage(garbage), _) if garbage == kind => vec![0xfd],
            (Fault::WrongPartial(level), Message::Partial(partial)) => {
                let mut partials = partial.partials.clone();
                let level = level.min(partials.len() - 1);
                let mut bytes = partials[level].serialize();
                bytes[31] ^= 1;
                partials[level] = PartialSignature::from_byte_array(&bytes).unwrap();
                Message::Partial(Partial { partials, ..partial }).encode()
            }
            (Fault::EarlyStored, Message::Partial(partial)) => {
                let Partial { batch, attempt, .. } = partial;
                let stored = Message::Stored(Stored { batch, attempt });
                self.queue.push(Event::ToHub(peer, stored.kind(), stored.encode()));
                return;
            }
            (_, message) => message.encode(),
        };
        self.queue.push(Event::ToHub(peer, kind, bytes));
    }

    /// The peers whose path is stored or more.
    pub fn with_path(&self) -> BTreeSet<Peer> {
        let has_path = |user: &User| {
            matches!(user.machine.phase(), UserPhase::Leaf(LeafState::Signed | LeafState::Funded))
        };
        self.users.iter().filter(|(_, user)| has_path(user)).map(|(peer, _)| *peer).collect()
    }
}
