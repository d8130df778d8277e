//! A batch on the chain: rollover, deadlines, exits, release, reorgs, and the sweep at E.
#![allow(clippy::unwrap_used)]

mod common;

use bitcoin::hashes::Hash;
use bitcoin::{Amount, OutPoint, TxOut, Txid, absolute};
use channel_contracts::batch::hub::{HubEffect, HubInput, HubPhase, HubPolicy, HubRejection};
use channel_contracts::batch::message::{DropReason, Dropped, Message, Release};
use channel_contracts::batch::user::{
    UnrollReason, UserEffect, UserInput, UserPhase, UserRejection,
};
use channel_contracts::batch::{Attempt, BatchId, HubBatch, LeafState, PendingHtlc, Timestamp};
use common::batch::EXPIRY;
use common::world::{Fault, World, peer};
use proptest::prelude::*;

fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).unwrap()
}

/// A batch of two whose transaction is in block 800,000, and the user 0's machine in it.
fn live() -> (World, u32) {
    let mut world = World::new(&[Fault::None; 2]);
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
fn a_closing_that_pays_its_user_is_brought_onto_the_chain_in_time() {
    let (mut world, _) = live();
    let deadlines = world.users[&peer(0)].machine.deadlines().unwrap();
    let deadline = deadlines.user_deadline().to_consensus_u32();
    world.user_input(peer(0), UserInput::ChannelClosed);
    assert_eq!(effects_at(&world, deadline - 1, vec![]), vec![]);
    let publish = vec![UserEffect::PublishPath { reason: UnrollReason::Deadline }];
    assert_eq!(effects_at(&world, deadline, vec![]), publish);
    // Who has nothing in it has handed the key over, and has no reason to.
    let (closing_balance, htlcs) = (Amount::ZERO, 0);
    world.user_input(peer(0), UserInput::ReleaseRequested { closing_balance, htlcs });
    assert_eq!(effects_at(&world, deadline, vec![]), vec![]);
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
        Just(UserInput::Message {
            message: Message::Dropped(Dropped {
                batch: BatchId([7; 32]),
                attempt: Attempt::FIRST,
                reason: DropReason::Restart,
            }),
        }),
        Just(UserInput::RootConfirmed {
            root: OutPoint::null(),
            output: TxOut::NULL,
            at: height(EXPIRY - 4_032),
        }),
    ]
}

proptest! {
    #[test]
    fn a_live_leaf_keeps_its_rules_under_any_events(
        inputs in proptest::collection::vec(any_life(), 1..60),
    ) {
        let (mut world, _) = live();
        let mut published = 0;
        for mut input in inputs {
            let before = world.users[&peer(0)].machine.clone();
            if let UserInput::RootConfirmed { root, output, .. } = &mut input {
                let agreed = before.agreed().unwrap();
                (*root, *output) = (agreed.root, agreed.root_output.clone());
            }
            let by_chain = matches!(input, UserInput::RootConflicted);
            let Ok(decision) = before.decide(input, world.now) else { continue };
            for effect in &decision.effects {
                match effect {
                    UserEffect::PublishPath { .. } => {
                        published += 1;
                        // Open, or closed with something for this user in it.
                        let guards = match before.phase() {
                            UserPhase::Leaf(LeafState::Confirmed { .. }) => true,
                            UserPhase::Leaf(LeafState::Retired) => !before.released(),
                            _ => false,
                        };
                        prop_assert!(guards);
                    }
                    UserEffect::SendRelease { .. } => {
                        prop_assert_eq!(before.phase(), UserPhase::Leaf(LeafState::Retired));
                    }
                    UserEffect::PublishClosing => {
                        prop_assert_eq!(before.phase(), UserPhase::Leaf(LeafState::Retired));
                    }
                    // Nothing but the chain ends a live channel.
                    UserEffect::AbandonChannel => {
                        prop_assert!(by_chain);
                        let unconfirmed = matches!(
                            before.phase(),
                            UserPhase::Leaf(LeafState::Funded | LeafState::Dropped)
                        );
                        prop_assert!(unconfirmed);
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

#[test]
fn a_batch_that_is_closed_by_hand_waits_for_nobody_more() {
    let (id, expiry) = (BatchId([3; 32]), absolute::Height::from_consensus(5_000).unwrap());
    let mut hub = HubBatch::open(id, HubPolicy::default(), expiry, Timestamp(0));
    let decision = hub.decide(HubInput::Close, Timestamp(1)).unwrap();
    decision.events.into_iter().for_each(|event| hub.apply(event));
    assert_eq!(hub.phase(), HubPhase::Failed { reason: DropReason::Empty });
    let again = hub.decide(HubInput::Close, Timestamp(2));
    assert_eq!(again, Err(HubRejection::NotGathering));
}
