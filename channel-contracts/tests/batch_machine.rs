//! Both machines against each other with real signatures: who is left out, who gets a batch,
//! and that nothing is broadcast before everything that must come first.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, Txid, absolute};
use channel_contracts::batch::hub::{HubEffect, HubInput, HubPhase, HubPolicy, HubRejection};
use channel_contracts::batch::message::{DropReason, Dropped, Message, Nonces, Register, Stored};
use channel_contracts::batch::user::{
    OverReason, UnrollReason, UserEffect, UserInput, UserPhase, UserRejection,
};
use channel_contracts::batch::wire::kind;
use channel_contracts::batch::{
    Attempt, BatchId, DeclineReason, HubBatch, LeafState, Peer, RefuseReason, RegistrationId,
    Timestamp,
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
    deliver_all(&mut world);
    // The hub's word does not end a funded channel: only the chain does.
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Dropped));
    // Who has no commitments has nothing to keep.
    let over = UserPhase::Over(OverReason::Dropped(DropReason::Funding));
    assert_eq!(world.users[&peer(1)].machine.phase(), over);
    world.user_input(peer(0), UserInput::RootConflicted);
    let over = UserPhase::Over(OverReason::Conflicted);
    assert_eq!(world.users[&peer(0)].machine.phase(), over);
}

fn deliver_all(world: &mut World) {
    while !world.queue.is_empty() {
        let event = world.queue.remove(0);
        world.deliver(event);
    }
}

/// A batch that waits for the commitments of user 1, in vain.
fn funding() -> World {
    let mut world = World::new(&[Fault::None, Fault::NoCommitments, Fault::None]);
    deliver_all(&mut world);
    world
}

#[test]
fn a_dropped_user_keeps_its_path_and_lives_if_the_root_is_confirmed_after_all() {
    let mut world = funding();
    world.run();
    deliver_all(&mut world);
    let user = world.users[&peer(0)].machine.clone();
    assert_eq!(user.phase(), UserPhase::Leaf(LeafState::Dropped));
    let gone = |effect: &UserEffect| {
        matches!(effect, UserEffect::AbandonChannel | UserEffect::ForgetAttempt { .. })
    };
    assert!(!world.users[&peer(0)].effects.iter().any(gone));
    let agreed = user.agreed().unwrap().clone();
    let watch = vec![UserEffect::WatchRoot { agreed: agreed.clone() }];
    assert_eq!(user.unfinished_effects(), watch);
    // Neither that nor a channel that is gone, a restart, or silence, changes anything.
    let dropped =
        Dropped { batch: world.hub.id(), attempt: Attempt::FIRST, reason: DropReason::Restart };
    for input in [
        UserInput::Message { message: Message::Dropped(dropped) },
        UserInput::ChannelFailed,
        UserInput::Restarted,
        UserInput::Tick,
        UserInput::Block { best: height(EXPIRY - 4_000), htlcs: vec![] },
    ] {
        let decision = user.decide(input, Timestamp(u64::MAX)).unwrap();
        assert_eq!((decision.events, decision.effects), (vec![], vec![]));
    }
    assert!(user.decide(UserInput::UnrollRequested, world.now).is_err());

    let at = height(EXPIRY - 4_000);
    let (root, output) = (agreed.root, agreed.root_output);
    world.user_input(peer(0), UserInput::RootConfirmed { root, output, at });
    let user = &world.users[&peer(0)].machine;
    assert_eq!(user.phase(), UserPhase::Leaf(LeafState::Confirmed { at }));
    // It goes by the chain again, and the hub's word counts for nothing.
    let message = Message::Dropped(dropped);
    assert!(user.decide(UserInput::Message { message }, world.now).is_err());
    let best = user.deadlines().unwrap().user_deadline();
    let late = user.decide(UserInput::Block { best, htlcs: vec![] }, world.now).unwrap();
    let reason = UnrollReason::Deadline;
    assert_eq!(late.effects, vec![UserEffect::PublishPath { reason }]);
}

#[test]
fn a_funded_user_that_was_away_hears_that_its_batch_is_over() {
    let mut world = funding();
    let user = world.users[&peer(0)].machine.clone();
    assert_eq!(user.phase(), UserPhase::Leaf(LeafState::Funded));
    let (batch, attempt) = (world.hub.id(), Attempt::FIRST);
    let stored = Message::Stored(Stored { batch, attempt });
    let asks = UserEffect::Send { message: stored.clone() };
    assert!(user.unfinished_effects().contains(&asks));
    // A hub whose batch goes on has nothing to say to it.
    let heard = HubInput::Message { peer: peer(0), message: stored, banned_until: None };
    let decision = world.hub.decide(heard, world.now).unwrap();
    assert_eq!((decision.events, decision.effects), (vec![], vec![]));
    let reason = DropReason::Restart;
    let message = Message::Dropped(Dropped { batch, attempt, reason });
    world.user_input(peer(0), UserInput::Message { message });
    assert_eq!(world.users[&peer(0)].machine.phase(), UserPhase::Leaf(LeafState::Dropped));
}

#[test]
fn a_hub_whose_batch_fails_while_funding_closes_every_channel_before_it_forgets_the_tree() {
    let world = funding();
    let closes: Vec<_> = (0..3).map(|n| HubEffect::CloseChannel { peer: peer(n) }).collect();
    let ends = [
        (HubInput::Restarted, world.now),
        (HubInput::ChannelFailed { peer: peer(1) }, world.now),
        (HubInput::Tick, world.hub.phase().deadline().unwrap()),
    ];
    for (input, now) in ends {
        let mut hub = world.hub.clone();
        let decision = hub.decide(input, now).unwrap();
        decision.events.into_iter().for_each(|event| hub.apply(event));
        let again = hub.unfinished_effects();
        assert!(decision.effects.ends_with(&again));
        let (forget, close) = again.split_last().unwrap();
        assert_eq!(*forget, HubEffect::ForgetAttempt { attempt: Attempt::FIRST });
        assert!(closes.iter().all(|effect| close.contains(effect)));
        assert_eq!(close.len(), closes.len());
        // The tree's root is still known: by it the channels are found after a restart.
        assert!(hub.tree().is_some());
    }
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
    deliver_all(&mut world);
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
    // One that has its own is not given up for it.
    let funded = &world.users[&peer(1)].machine;
    assert_eq!(funded.phase(), UserPhase::Leaf(LeafState::Funded));
    let other = UserInput::CommitmentsExchanged { funding: OutPoint::null() };
    assert!(funded.decide(other, world.now).is_err());
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
