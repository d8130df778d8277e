//! Both machines against each other with real signatures: who is left out, who gets a batch,
//! and that nothing is broadcast before everything that must come first.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, absolute};
use channel_contracts::batch::hub::{HubEffect, HubInput, HubPhase, HubPolicy, HubRejection};
use channel_contracts::batch::message::{
    DropReason, Dropped, Message, Nonces, Register, Release, Stored,
};
use channel_contracts::batch::user::{
    OverReason, UnrollReason, UserEffect, UserInput, UserPhase, UserRejection,
};
use channel_contracts::batch::wire::kind;
use channel_contracts::batch::{
    Attempt, BatchId, DeclineReason, HubBatch, LeafState, Peer, PendingHtlc, RefuseReason,
    RegistrationId, Timestamp,
};
use channel_contracts::musig::HubSessionError;
use common::batch::{EXPIRY, secret};
use common::world::{Event, Fault, World, peer};
use proptest::prelude::*;

fn honest(users: usize) -> Vec<Fault> {
    vec![Fault::None; users]
}

fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap()
}

#[test]
fn honest_users_get_their_batch_in_one_attempt() {
    for users in [1, 2, 5, 17] {
        let mut world = World::new(&honest(users));
        world.run();
        assert_eq!(world.hub.phase(), HubPhase::Confirming);
        assert_eq!(world.hub.attempt(), Attempt::FIRST);
        assert_eq!(world.broadcast.len(), 1);
        assert_eq!(world.with_path().len(), users);
        assert_eq!(world.rejections, Vec::<String>::new());
    }
}

#[test]
fn a_user_silent_or_wrong_at_any_step_is_left_out_and_the_others_get_their_batch() {
    let faults = [
        (Fault::Silent(kind::NONCES), DropReason::Silent),
        (Fault::Silent(kind::PARTIAL), DropReason::Silent),
        (Fault::Silent(kind::STORED), DropReason::Silent),
        (Fault::Garbage(kind::NONCES), DropReason::Wrong),
        (Fault::Garbage(kind::PARTIAL), DropReason::Wrong),
        (Fault::Garbage(kind::STORED), DropReason::Wrong),
        (Fault::WrongPartial(0), DropReason::Partial),
        (Fault::WrongPartial(1), DropReason::Partial),
        (Fault::OtherChannel, DropReason::Refused),
        (Fault::EarlyStored, DropReason::Silent),
    ];
    for (fault, reason) in faults {
        let mut world = World::new(&[Fault::None, fault, Fault::None, Fault::None, Fault::None]);
        world.run();
        assert_eq!(world.hub.phase(), HubPhase::Confirming, "{fault:?}");
        assert_eq!(world.hub.attempt().get(), 1, "{fault:?}");
        assert_eq!(world.hub.left_out().get(&peer(1)), Some(&reason), "{fault:?}");
        assert!(reason.is_fault());
        let others: BTreeSet<Peer> = [0, 2, 3, 4].map(peer).into();
        assert_eq!(world.hub.members().keys().copied().collect::<BTreeSet<_>>(), others);
        assert!(world.with_path().is_superset(&others));
    }
}

#[test]
fn several_culprits_of_one_step_cost_one_attempt() {
    let wrong = Fault::WrongPartial(1);
    let mut world =
        World::new(&[wrong, Fault::None, wrong, Fault::Silent(kind::PARTIAL), Fault::None]);
    world.run();
    assert_eq!((world.hub.phase(), world.hub.attempt().get()), (HubPhase::Confirming, 1));
    assert_eq!(world.named.len(), 2);
    assert!(world.named.iter().all(|error| matches!(
        error,
        HubSessionError::WrongPartial { level: 1, .. }
            | HubSessionError::WrongPartial { level: 0, .. }
    )));
}

#[test]
fn three_failed_attempts_end_the_batch() {
    let mut world = World::new(&[
        Fault::Silent(kind::NONCES),
        Fault::Silent(kind::PARTIAL),
        Fault::Silent(kind::STORED),
        Fault::None,
    ]);
    world.run();
    let failed = HubPhase::Failed { reason: DropReason::Attempts };
    assert_eq!(world.hub.phase(), failed);
    assert!(world.broadcast.is_empty());
    while let Some(event) = world.queue.pop() {
        world.deliver(event);
    }
    let over = UserPhase::Over(OverReason::Dropped(DropReason::Attempts));
    assert_eq!(world.users[&peer(3)].machine.phase(), over);
}

#[test]
fn a_channel_without_commitments_ends_the_batch_unbroadcast() {
    let mut world = World::new(&[Fault::None, Fault::NoCommitments, Fault::None]);
    world.run();
    assert_eq!(world.hub.phase(), HubPhase::Failed { reason: DropReason::Funding });
    assert!(world.broadcast.is_empty());
    // The hub's word does not end a funded channel: only the chain does.
    while !world.queue.is_empty() {
        let event = world.queue.remove(0);
        world.deliver(event);
    }
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Funded));
    world.user_input(peer(0), UserInput::RootConflicted);
    let over = UserPhase::Over(OverReason::Conflicted);
    assert_eq!(world.users[&peer(0)].machine.phase(), over);
}

#[test]
fn a_lone_user_who_fails_leaves_an_empty_batch() {
    let mut world = World::new(&[Fault::Silent(kind::NONCES)]);
    world.run();
    assert_eq!(world.hub.phase(), HubPhase::Failed { reason: DropReason::Empty });
}

/// A batch of three in `Nonces`, with everything of the hub delivered and nothing of the users.
fn proposed() -> World {
    let mut world = World::new(&honest(3));
    while !matches!(world.hub.phase(), HubPhase::Nonces { .. }) {
        let event = world.queue.remove(0);
        world.deliver(event);
    }
    world
}

/// Delivers until every user's message of `wanted` is in the queue, and returns the first.
fn until_said(world: &mut World, wanted: u16) -> Message {
    loop {
        let said = world.queue.iter().find_map(|event| match event {
            Event::ToHub(_, kind, bytes) if *kind == wanted => Message::decode(*kind, bytes),
            _ => None,
        });
        if let Some(message) = said {
            return message.unwrap();
        }
        let event = world.queue.remove(0);
        world.deliver(event);
    }
}

#[test]
fn stale_and_foreign_messages_are_rejected_by_name() {
    let mut world = proposed();
    let Message::Nonces(nonces) = until_said(&mut world, kind::NONCES) else { unreachable!() };
    let message = |message| HubInput::Message { peer: peer(0), message, banned_until: None };
    let decide = |input| world.hub.decide(input, world.now);

    let attempt = Attempt::new(1).unwrap();
    let stale = Message::Nonces(Nonces { attempt, ..nonces.clone() });
    assert_eq!(
        decide(message(stale)),
        Err(HubRejection::OtherAttempt { named: attempt, attempt: Attempt::FIRST })
    );
    let batch = BatchId([8; 32]);
    let foreign = Message::Nonces(Nonces { batch, ..nonces.clone() });
    assert!(matches!(decide(message(foreign)), Err(HubRejection::OtherBatch { .. })));
    let stranger = HubInput::Message {
        peer: peer(99),
        message: Message::Nonces(nonces.clone()),
        banned_until: None,
    };
    assert!(matches!(decide(stranger), Err(HubRejection::NotMember { .. })));
    let early = Message::Stored(Stored { batch: nonces.batch, attempt: nonces.attempt });
    assert!(matches!(decide(message(early)), Err(HubRejection::OutOfOrder { .. })));
    let dropped = Message::Dropped(Dropped {
        batch: nonces.batch,
        attempt: nonces.attempt,
        reason: DropReason::Silent,
    });
    assert_eq!(decide(message(dropped)), Err(HubRejection::NotForHub { kind: kind::DROPPED }));
    // A result nobody asked for.
    let checked = HubInput::NoncesChecked { attempt: nonces.attempt, peer: peer(0), right: true };
    assert!(matches!(decide(checked), Err(HubRejection::OutOfOrder { .. })));
}

#[test]
fn a_registration_gets_the_same_answer_again_and_a_bad_one_its_reason() {
    let mut world = World::new(&honest(2));
    let hub = HubBatch::open(
        world.hub.id(),
        HubPolicy { users_max: 2, ..HubPolicy::default() },
        world.hub.expiry(),
        world.now,
    );
    let Message::Register(register) = until_said(&mut world, kind::REGISTER) else {
        unreachable!()
    };
    let answer = |hub: &HubBatch, number, register: &Register, banned_until| {
        let message = Message::Register(Box::new(register.clone()));
        let input = HubInput::Message { peer: peer(number), message, banned_until };
        let decision = hub.decide(input, Timestamp(2_000)).unwrap();
        let said = decision.effects.iter().find_map(|effect| match effect {
            HubEffect::Send { message, .. } => Some(message.clone()),
            _ => None,
        });
        (decision.events, said.unwrap())
    };
    let declined = |hub: &HubBatch, number, register: &Register, banned_until| {
        let (events, said) = answer(hub, number, register, banned_until);
        assert_eq!(events, vec![]);
        match said {
            Message::Declined(declined) => declined.reason,
            other => panic!("{other:?}"),
        }
    };

    let (events, accepted) = answer(&hub, 0, &register, None);
    let mut one = hub.clone();
    events.into_iter().for_each(|event| one.apply(event));
    assert_eq!(answer(&one, 0, &register, None), (vec![], accepted));

    let other = |number: u64| Register {
        registration: RegistrationId([number as u8; 32]),
        tree_keys: [0, 1, 2].map(|key| secret("other", number * 3 + key).public_key()),
        ..(*register).clone()
    };
    assert_eq!(declined(&one, 0, &other(1), None), DeclineReason::Registered);
    let keys = Register { registration: RegistrationId([9; 32]), ..(*register).clone() };
    assert_eq!(declined(&one, 1, &keys, None), DeclineReason::Key);
    let mut twice = other(1);
    twice.tree_keys[2] = twice.tree_keys[0];
    assert_eq!(declined(&one, 1, &twice, None), DeclineReason::Key);
    let small = Register { capacity: Amount::from_sat(1_499), ..other(1) };
    assert_eq!(declined(&one, 1, &small, None), DeclineReason::Capacity);
    let inbound = Register { inbound: register.capacity + Amount::from_sat(1), ..other(1) };
    assert_eq!(declined(&one, 1, &inbound, None), DeclineReason::Inbound);
    let banned = Some(Timestamp(2_001));
    assert_eq!(declined(&one, 1, &other(1), banned), DeclineReason::BackOff);
    // The second fills the batch, which closes.
    let (events, _) = answer(&one, 1, &other(1), None);
    events.into_iter().for_each(|event| one.apply(event));
    assert!(matches!(one.phase(), HubPhase::Opening { .. }));
    assert_eq!(declined(&one, 2, &other(2), None), DeclineReason::Closed);

    let waits: Vec<u64> = (0..5).map(HubPolicy::back_off_ms).collect();
    assert_eq!(waits, [0, 0, 60_000, 120_000, 240_000]);
    assert_eq!(HubPolicy::back_off_ms(u32::MAX), 60_000 << 10);
}

#[test]
fn a_restart_ends_what_is_not_published_and_resumes_what_is() {
    let mut world = World::new(&honest(3));
    let mut seen = 0;
    loop {
        let hub = world.hub.clone();
        let restarted = hub.decide(HubInput::Restarted, world.now).unwrap();
        let mut after = hub.clone();
        restarted.events.iter().cloned().for_each(|event| after.apply(event));
        match hub.phase() {
            HubPhase::Publishing | HubPhase::Confirming => {
                assert_eq!(after.phase(), hub.phase());
                let txid = hub.tree().unwrap().root.txid;
                let attempt = hub.attempt();
                let again = vec![HubEffect::BroadcastBatch { attempt, txid }];
                assert_eq!(after.unfinished_effects(), again);
            }
            _ => {
                assert_eq!(after.phase(), HubPhase::Failed { reason: DropReason::Restart });
                let effects = after.unfinished_effects();
                assert!(effects.iter().all(|effect| matches!(
                    effect,
                    HubEffect::CloseChannel { .. } | HubEffect::ForgetAttempt { .. }
                )));
            }
        }
        if world.queue.is_empty() {
            break;
        }
        seen += 1;
        let event = world.queue.remove(0);
        world.deliver(event);
    }
    assert!(seen > 30);
    assert_eq!(world.hub.phase(), HubPhase::Confirming);
}

#[test]
fn replayed_events_make_the_same_batch() {
    let mut world = World::new(&[Fault::None, Fault::WrongPartial(0), Fault::None]);
    let mut replayed = world.hub.clone();
    world.run();
    assert_eq!((world.hub.phase(), world.hub.attempt().get()), (HubPhase::Confirming, 1));
    assert_ne!(replayed, world.hub);
    world.journal.iter().cloned().for_each(|event| replayed.apply(event));
    assert_eq!(replayed, world.hub);
}

/// A batch of two whose transaction is in block 800,000, and the user 0's machine in it.
fn live() -> (World, u32) {
    let mut world = World::new(&honest(2));
    world.run();
    let confirmed = EXPIRY - 4_032;
    let txid = world.broadcast[0];
    let at = height(confirmed);
    world.hub_input(HubInput::BatchConfirmed { txid, at });
    for number in 0..2 {
        let agreed = world.users[&peer(number)].machine.agreed().unwrap().clone();
        let (root, output) = (agreed.root, agreed.root_output);
        world.user_input(peer(number), UserInput::RootConfirmed { root, output, at });
        let phase = world.users[&peer(number)].machine.phase();
        assert_eq!(phase, UserPhase::Leaf(LeafState::Confirmed { at }));
    }
    assert_eq!(world.hub.phase(), HubPhase::Live { at });
    (world, confirmed)
}

fn effects_at(world: &World, best: u32, htlcs: Vec<PendingHtlc>) -> Vec<UserEffect> {
    let user = &world.users[&peer(0)].machine;
    user.decide(UserInput::Block { best: height(best), htlcs }, world.now).unwrap().effects
}

#[test]
fn a_live_channel_rolls_over_at_half_life_and_unrolls_by_itself_at_the_deadline() {
    let (world, confirmed) = live();
    let deadlines = world.users[&peer(0)].machine.deadlines().unwrap();
    let deadline = deadlines.user_deadline().to_consensus_u32();
    assert_eq!(deadline, EXPIRY - 6 * 2 - 36);
    assert_eq!(effects_at(&world, confirmed + 2_015, vec![]), vec![]);
    let rollover = vec![UserEffect::BeginRollover];
    assert_eq!(effects_at(&world, confirmed + 2_016, vec![]), rollover);
    assert_eq!(effects_at(&world, deadline - 200, vec![]), rollover);
    assert_eq!(effects_at(&world, deadline - 199, vec![]), vec![]);
    assert_eq!(effects_at(&world, deadline - 1, vec![]), vec![]);
    let publish = |reason| vec![UserEffect::PublishPath { reason }];
    assert_eq!(effects_at(&world, deadline, vec![]), publish(UnrollReason::Deadline));

    let htlc = |claimable| PendingHtlc {
        cltv_expiry: height(confirmed + 100),
        claimable,
        peer_reachable: true,
    };
    let last = confirmed + 100 - 36 - 6;
    assert_eq!(effects_at(&world, last, vec![htlc(true)]), publish(UnrollReason::Htlc));
    assert_eq!(effects_at(&world, last - 1, vec![htlc(true)]), vec![]);
    assert_eq!(effects_at(&world, last, vec![htlc(false)]), vec![]);
}

#[test]
fn a_path_is_published_once_and_again_after_a_restart() {
    let (mut world, _) = live();
    world.user_input(peer(0), UserInput::UnrollRequested);
    let user = &world.users[&peer(0)].machine;
    assert_eq!(user.unrolling(), Some(UnrollReason::Requested));
    let again = user.decide(UserInput::UnrollRequested, world.now).unwrap();
    assert!(again.effects.is_empty());
    let publish = UserEffect::PublishPath { reason: UnrollReason::Requested };
    assert!(user.unfinished_effects().contains(&publish));
    world.user_input(peer(0), UserInput::LeafConfirmed);
    let user = &world.users[&peer(0)].machine;
    assert_eq!(user.phase(), UserPhase::Leaf(LeafState::Unrolled));
    // An ordinary channel now: no deadline of the batch touches it.
    assert_eq!(effects_at(&world, EXPIRY, vec![]), vec![]);
    assert_eq!(user.unfinished_effects(), vec![]);
}

#[test]
fn a_key_leaves_only_when_the_channel_is_retired_and_empty() {
    let (mut world, _) = live();
    let request = |closing_balance, htlcs| UserInput::ReleaseRequested { closing_balance, htlcs };
    let decide = |world: &World, input| world.users[&peer(0)].machine.decide(input, world.now);
    let refused = decide(&world, request(Amount::ZERO, 0)).unwrap_err();
    assert!(matches!(refused, UserRejection::NotReleasable { .. }));
    world.user_input(peer(0), UserInput::ChannelClosed);
    for input in [request(Amount::from_sat(1), 0), request(Amount::ZERO, 1)] {
        assert!(decide(&world, input).is_err());
    }
    let released = decide(&world, request(Amount::ZERO, 0)).unwrap();
    let (batch, attempt) = (world.hub.id(), Attempt::FIRST);
    assert_eq!(released.effects, vec![UserEffect::SendRelease { batch, attempt }]);

    // The hub takes it from a retired channel only, and only if it is right.
    let secret = world.users[&peer(0)].secrets[0].clone();
    let message = Message::Release(Release { batch, attempt, secret: secret.clone() });
    let release = HubInput::Message { peer: peer(0), message, banned_until: None };
    let refused = world.hub.decide(release.clone(), world.now);
    assert_eq!(refused, Err(HubRejection::NotRetired { peer: peer(0) }));
    world.hub_input(HubInput::ChannelRetired { peer: peer(0) });
    let taken = world.hub.decide(release.clone(), world.now).unwrap();
    assert_eq!(taken.effects, vec![HubEffect::CheckRelease { peer: peer(0), secret }]);
    let wrong = HubInput::ReleaseChecked { peer: peer(0), right: false };
    assert!(world.hub.decide(wrong, world.now).is_err());
    let right = HubInput::ReleaseChecked { peer: peer(0), right: true };
    let planned = world.hub.decide(right.clone(), world.now).unwrap();
    assert_eq!(planned.effects, vec![HubEffect::PlanReclaim]);
    world.hub_input(right);
    assert!(world.hub.members()[&peer(0)].released);
    assert_eq!(world.hub.decide(release, world.now).unwrap().effects, vec![]);

    world.user_input(peer(0), UserInput::AncestorSpent { confirmations: 99 });
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Retired));
    world.user_input(peer(0), UserInput::AncestorSpent { confirmations: 100 });
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Dead));
    assert!(world.users[&peer(0)].effects.contains(&UserEffect::ForgetChannel));
    world.hub_input(HubInput::RootSettled);
    assert_eq!(world.hub.phase(), HubPhase::Settled);
}

#[test]
fn at_the_expiry_open_channels_are_closed_before_anything_is_swept() {
    let (mut world, _) = live();
    world.hub_input(HubInput::ChannelRetired { peer: peer(0) });
    let block = |best| HubInput::Block { best: height(best) };
    let early = world.hub.decide(block(EXPIRY - 1), world.now).unwrap();
    assert_eq!((early.events, early.effects), (vec![], vec![]));
    assert!(world.hub.decide(HubInput::ClosedForSweep, world.now).is_err());
    let due = world.hub.decide(block(EXPIRY), world.now).unwrap();
    let close = vec![HubEffect::CloseForSweep { peers: vec![peer(1)] }];
    assert_eq!(due.effects, close);
    world.hub_input(block(EXPIRY));
    assert_eq!(world.hub.unfinished_effects(), close);
    assert_eq!(world.hub.decide(block(EXPIRY + 1), world.now).unwrap().effects, vec![]);
    let closed = world.hub.decide(HubInput::ClosedForSweep, world.now).unwrap();
    assert_eq!(closed.effects, vec![HubEffect::SweepExpired]);
    world.hub_input(HubInput::RootSettled);
    assert_eq!(world.hub.phase(), HubPhase::Settled);
}

#[test]
fn a_retired_channel_that_comes_on_chain_publishes_its_parked_close() {
    let (mut world, _) = live();
    world.user_input(peer(0), UserInput::ChannelClosed);
    world.user_input(peer(0), UserInput::LeafConfirmed);
    assert!(world.users[&peer(0)].effects.contains(&UserEffect::PublishClosing));
}

#[test]
fn a_reorg_takes_both_sides_back_and_a_double_spend_ends_the_batch() {
    let (mut world, confirmed) = live();
    world.hub_input(HubInput::BatchDisconnected);
    world.user_input(peer(0), UserInput::RootDisconnected);
    assert_eq!(world.hub.phase(), HubPhase::Confirming);
    // It is broadcast again, the same one.
    let txid = world.broadcast[0];
    assert_eq!(world.broadcast, [txid, txid]);
    assert!(matches!(
        world.hub.decide(
            HubInput::BatchConfirmed { txid: Txid::all_zeros(), at: height(confirmed) },
            world.now
        ),
        Err(HubRejection::OtherTransaction { .. })
    ));
    let mut other = world.hub.clone();
    let ended = other.decide(HubInput::BatchConflicted, world.now).unwrap();
    ended.events.into_iter().for_each(|event| other.apply(event));
    assert_eq!(other.phase(), HubPhase::Failed { reason: DropReason::Conflict });
    world.hub_input(HubInput::BatchConfirmed { txid, at: height(confirmed + 1) });
    assert_eq!(world.hub.phase(), HubPhase::Live { at: height(confirmed + 1) });
    let agreed = world.users[&peer(0)].machine.agreed().unwrap().clone();
    let (root, output, at) = (agreed.root, agreed.root_output, height(confirmed + 1));
    world.user_input(peer(0), UserInput::RootConfirmed { root, output, at });
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Confirmed { at }));
}

#[test]
fn a_second_proposal_in_an_attempt_is_never_signed() {
    let mut world = proposed();
    let proposal = world.queue.iter().find_map(|event| match event {
        Event::ToUser(_, kind::PROPOSE, bytes) => Message::decode(kind::PROPOSE, bytes),
        _ => None,
    });
    let Some(Ok(Message::Propose(first))) = proposal else { unreachable!() };
    until_said(&mut world, kind::NONCES);
    let user = &world.users[&peer(first_user(&world, &first))].machine;
    let input = |propose: &channel_contracts::batch::message::Propose| UserInput::Message {
        message: Message::Propose(Box::new(propose.clone())),
    };
    // The same again: the same nonces again, or nothing while they are made.
    let again = user.decide(input(&first), world.now).unwrap();
    assert!(again.events.is_empty());
    let mut other = first.clone();
    other.proposal.leaf_txid = Txid::all_zeros();
    let refused = user.decide(input(&other), world.now).unwrap_err();
    assert!(matches!(refused, UserRejection::Changed { .. }));
    let mut other = first.clone();
    other.proposal.path.root = OutPoint::null();
    let refused = user.decide(input(&other), world.now).unwrap_err();
    assert!(matches!(refused, UserRejection::Changed { .. }));
}

/// The number of the user to whose slot a proposal belongs.
fn first_user(world: &World, propose: &channel_contracts::batch::message::Propose) -> u64 {
    let key = propose.proposal.user_keys[propose.proposal.slot.index()];
    (0..3).find(|n| world.users[&peer(*n)].machine.request().tree_keys[0] == key).unwrap()
}

#[test]
fn commitments_on_another_outpoint_and_foreign_roots_do_not_count() {
    let mut world = World::new(&[Fault::NoCommitments, Fault::None]);
    while !world.queue.is_empty() {
        let event = world.queue.remove(0);
        world.deliver(event);
    }
    let user = world.users[&peer(0)].machine.clone();
    assert_eq!(user.phase(), UserPhase::Leaf(LeafState::Signed));
    let agreed = user.agreed().unwrap().clone();
    // §4.4: without commitments a confirmed root means nothing.
    let root = |output| UserInput::RootConfirmed { root: agreed.root, output, at: height(1) };
    let early = user.decide(root(agreed.root_output.clone()), world.now);
    assert!(matches!(early, Err(UserRejection::Leaf(_))));
    let mut funding = agreed.funding;
    funding.vout += 1;
    let wrong = user.decide(UserInput::CommitmentsExchanged { funding }, world.now).unwrap();
    assert!(wrong.effects.contains(&UserEffect::AbandonChannel));
    // A hub that proposed a root output which its transaction does not have.
    let mut less = agreed.root_output.clone();
    less.value -= Amount::from_sat(1);
    assert!(matches!(user.decide(root(less), world.now), Err(UserRejection::WrongRoot { .. })));
    let foreign = UserInput::RootConfirmed {
        root: OutPoint::null(),
        output: agreed.root_output.clone(),
        at: height(1),
    };
    assert!(matches!(user.decide(foreign, world.now), Err(UserRejection::WrongRoot { .. })));
}

#[test]
fn a_user_without_a_channel_is_left_out_before_the_first_attempt() {
    let mut world = World::new(&[Fault::None, Fault::NoChannel, Fault::None]);
    world.run();
    assert_eq!((world.hub.phase(), world.hub.attempt()), (HubPhase::Confirming, Attempt::FIRST));
    assert_eq!(world.hub.left_out().get(&peer(1)), Some(&DropReason::Silent));
}

#[test]
fn a_user_refuses_wrong_final_signatures_and_a_hub_that_withholds_them() {
    let mut world = World::new(&honest(2));
    loop {
        let event = world.queue.remove(0);
        if let Event::ToUser(to, kind::SIGNED, bytes) = &event {
            let Some(Ok(Message::Signed(mut signed))) = Message::decode(kind::SIGNED, bytes) else {
                unreachable!()
            };
            // Withheld from this user, who gives up in time with nothing at stake.
            let mut withheld = world.users[to].machine.clone();
            let deadline = withheld.phase().deadline().unwrap();
            let over = withheld.decide(UserInput::Tick, deadline).unwrap();
            over.events.into_iter().for_each(|event| withheld.apply(event));
            assert_eq!(withheld.phase(), UserPhase::Over(OverReason::HubSilent));

            signed.signatures[0].0[0] ^= 1;
            let to = *to;
            world.user_input(to, UserInput::Message { message: Message::Signed(signed) });
            let event = world.queue.pop().unwrap();
            assert!(matches!(event, Event::User(_, UserInput::PathWrong { .. })));
            world.deliver(event);
            let over = UserPhase::Over(OverReason::Refused(RefuseReason::Signature));
            assert_eq!(world.users[&to].machine.phase(), over);
            assert!(world.users[&to].stored.is_empty());
            return;
        }
        world.deliver(event);
    }
}

#[test]
fn a_hub_that_asks_too_much_gets_no_member() {
    let mut world = World::new(&honest(1));
    let user = world.users[&peer(0)].machine.clone();
    let message = loop {
        let event = world.queue.remove(0);
        if let Event::ToUser(_, kind::ACCEPTED, bytes) = &event {
            break Message::decode(kind::ACCEPTED, bytes).unwrap().unwrap();
        }
        world.deliver(event);
    };
    let Message::Accepted(accepted) = message else { unreachable!() };
    let over = |accepted| {
        let message = Message::Accepted(accepted);
        let decision = user.decide(UserInput::Message { message }, world.now).unwrap();
        let mut user = user.clone();
        decision.events.into_iter().for_each(|event| user.apply(event));
        user.phase() == UserPhase::Over(OverReason::Terms)
    };
    assert!(!over(accepted));
    let mut dear = accepted;
    dear.fee = Amount::from_sat(1_001);
    let mut slow = accepted;
    slow.closes_in_ms = 600_001;
    let mut short = accepted;
    short.expiry = height(EXPIRY - 2_017);
    assert!(over(dear) && over(slow) && over(short));
}

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        6 => Just(Fault::None),
        1 => prop::sample::select(vec![kind::NONCES, kind::PARTIAL, kind::STORED]).prop_map(Fault::Silent),
        1 => prop::sample::select(vec![kind::NONCES, kind::PARTIAL, kind::STORED]).prop_map(Fault::Garbage),
        1 => (0usize..2).prop_map(Fault::WrongPartial),
        1 => Just(Fault::OtherChannel),
        1 => Just(Fault::EarlyStored),
        1 => Just(Fault::NoChannel),
        1 => Just(Fault::NoCommitments),
    ]
}

/// Everything that chain, channel and user can do to a live leaf.
fn any_life() -> impl Strategy<Value = UserInput> {
    prop_oneof![
        (0u32..4_100, any::<bool>()).prop_map(|(after, claimable)| UserInput::Block {
            best: height(EXPIRY - 4_032 + after),
            htlcs: vec![PendingHtlc {
                cltv_expiry: height(EXPIRY - 4_000 + after),
                claimable,
                peer_reachable: true,
            }],
        }),
        Just(UserInput::RootDisconnected),
        Just(UserInput::RootConflicted),
        Just(UserInput::RolloverFailed),
        Just(UserInput::ChannelClosed),
        (0u64..2, 0usize..2).prop_map(|(sat, htlcs)| UserInput::ReleaseRequested {
            closing_balance: Amount::from_sat(sat),
            htlcs,
        }),
        Just(UserInput::UnrollRequested),
        Just(UserInput::LeafConfirmed),
        (95u32..105).prop_map(|confirmations| UserInput::AncestorSpent { confirmations }),
        Just(UserInput::Restarted),
        Just(UserInput::Tick),
        Just(UserInput::Malformed),
        Just(UserInput::ChannelFailed),
    ]
}

proptest! {
    #[test]
    fn a_live_leaf_keeps_its_rules_under_any_events(
        inputs in proptest::collection::vec(any_life(), 1..60),
    ) {
        let (mut world, _) = live();
        let mut published = 0;
        for input in inputs {
            let before = world.users[&peer(0)].machine.clone();
            let Ok(decision) = before.decide(input, world.now) else { continue };
            for effect in &decision.effects {
                match effect {
                    UserEffect::PublishPath { .. } => {
                        published += 1;
                        let confirmed = matches!(before.phase(), UserPhase::Leaf(LeafState::Confirmed { .. }));
                        prop_assert!(confirmed);
                    }
                    UserEffect::SendRelease { .. } => {
                        prop_assert_eq!(before.phase(), UserPhase::Leaf(LeafState::Retired));
                    }
                    UserEffect::PublishClosing => {
                        prop_assert_eq!(before.phase(), UserPhase::Leaf(LeafState::Retired));
                    }
                    // Nothing but the chain ends a live channel.
                    UserEffect::AbandonChannel => {
                        prop_assert_eq!(before.phase(), UserPhase::Leaf(LeafState::Funded));
                    }
                    _ => {}
                }
            }
            let user = world.users.get_mut(&peer(0)).unwrap();
            decision.events.into_iter().for_each(|event| user.machine.apply(event));
        }
        prop_assert!(published <= 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Messages and results in any order, some twice, some lost, time passing at any moment,
    /// peers vanishing. `World` asserts at every broadcast that all that must come first has,
    /// that no session begins twice in an attempt, and that no nonce repeats.
    #[test]
    fn nothing_is_broadcast_too_early_in_any_order(
        faults in proptest::collection::vec(any_fault(), 1..6),
        choices in proptest::collection::vec((any::<u16>(), 0u8..150), 20..400),
    ) {
        let mut world = World::new(&faults);
        for (index, action) in choices {
            if world.queue.is_empty() {
                world.pass_time();
            }
            let index = usize::from(index) % world.queue.len();
            match action {
                0 => world.pass_time(),
                1 | 5..10 => {
                    let event = world.queue[index].clone();
                    world.queue.push(event);
                }
                // Only messages are lost: what the shell was asked for it answers.
                2 => {
                    if let Event::ToHub(..) | Event::ToUser(..) = world.queue[index] {
                        world.queue.remove(index);
                    }
                }
                3 => world.hub_input(HubInput::PeerGone { peer: peer(index as u64 % 6) }),
                4 => world.hub_input(HubInput::ChannelFailed { peer: peer(index as u64 % 6) }),
                _ => {
                    let event = world.queue.remove(index);
                    world.deliver(event);
                }
            }
        }
        // Whatever happened, time ends it: broadcast or failed, and no user waits for ever.
        world.run();
        prop_assert!(world.is_over(), "{:?}", world.hub.phase());
        if world.broadcast.is_empty() {
            let failed = matches!(world.hub.phase(), HubPhase::Failed { .. });
            prop_assert!(failed);
        }
    }
}
