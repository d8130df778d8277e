//! What a ledger promises, over restarts and against clients who try things.

use std::sync::Arc;

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use channel_contracts::tower::{ChannelTag, Locator};

use super::ledger::{AddError, Entry, Ledger};
use crate::store::{Committer, MemoryDisk};

const BEST: u32 = 100;

struct World {
    disk: MemoryDisk,
    committer: Committer,
    ledger: Ledger,
}

impl World {
    fn new() -> Self {
        Self::on(MemoryDisk::new())
    }

    fn on(disk: MemoryDisk) -> Self {
        let committer = Committer::new(Arc::new(disk.open()));
        let ledger = Ledger::open(committer.clone()).unwrap();
        Self { disk, committer, ledger }
    }

    fn register(&self, number: u8, slots: u64, blocks: u32) {
        let _written_with_the_next = self.ledger.register(client(number), slots, BEST, blocks);
    }

    /// Starts anew from what was written.
    fn again(self) -> Self {
        self.committer.cycle().unwrap();
        Self::on(self.disk)
    }
}

fn client(number: u8) -> PublicKey {
    SecretKey::from_slice(&[number; 32]).unwrap().public_key(&Secp256k1::new())
}

fn entry(channel: u8, sequence: u64) -> Entry {
    let mut locator = [channel; 16];
    locator[..8].copy_from_slice(&sequence.to_be_bytes());
    let blob = vec![0, channel, sequence as u8];
    Entry { channel: ChannelTag([channel; 16]), sequence, locator: Locator(locator), blob }
}

fn registered(slots: u64) -> World {
    let world = World::new();
    world.register(1, slots, 1_000);
    world
}

#[test]
fn what_was_taken_is_found_after_a_restart() {
    let world = registered(1_000);
    let some: Vec<Entry> = (1..=50).map(|sequence| entry(7, sequence)).collect();
    assert_eq!(world.ledger.add(client(1), &some, BEST).unwrap().new, 50);
    world.ledger.add(client(1), &[entry(8, 1)], BEST).unwrap();
    let world = world.again();
    assert_eq!(world.ledger.len(), 51);
    for wanted in some.iter().chain([&entry(8, 1)]) {
        let found = world.ledger.find(&wanted.locator).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].channel, found[0].sequence), (wanted.channel, wanted.sequence));
        assert_eq!((&found[0].blob, found[0].client), (&wanted.blob, client(1)));
    }
    assert_eq!(world.ledger.account(&client(1)).unwrap().used, 51);
    // Numbers go on where they were.
    world.ledger.add(client(1), &[entry(9, 1)], BEST).unwrap();
    assert_eq!(world.ledger.find(&entry(9, 1).locator).unwrap()[0].number, 51);
}

#[test]
fn a_repetition_is_harmless_and_a_conflict_changes_nothing() {
    let world = registered(1_000);
    let both = [entry(7, 1), entry(7, 2)];
    world.ledger.add(client(1), &both, BEST).unwrap();
    let again = world.ledger.add(client(1), &both, BEST).unwrap();
    assert_eq!((again.new, again.account.used), (0, 2));
    let other = Entry { blob: vec![0, 9], ..entry(7, 2) };
    let refused = world.ledger.add(client(1), &[entry(7, 3), other], BEST);
    assert!(matches!(refused, Err(AddError::Conflict { sequence: 2, .. })), "{refused:?}");
    assert_eq!(world.ledger.len(), 2, "all or none");
    // The same place twice in one request, once with another blob.
    let twice = [entry(7, 3), Entry { blob: vec![0, 9], ..entry(7, 3) }];
    let refused = world.ledger.add(client(1), &twice, BEST);
    assert!(matches!(refused, Err(AddError::Conflict { sequence: 3, .. })), "{refused:?}");
}

#[test]
fn strangers_and_those_who_are_over_are_refused() {
    let world = registered(2);
    let unknown = world.ledger.add(client(2), &[entry(7, 1)], BEST);
    assert!(matches!(unknown, Err(AddError::Unknown(key)) if key == client(2)));
    let over = world.ledger.add(client(1), &[entry(7, 1)], BEST + 1_000);
    assert!(matches!(over, Err(AddError::Expired { expires: 1_100, best: 1_100 })), "{over:?}");
    let three: Vec<Entry> = (1..=3).map(|sequence| entry(7, sequence)).collect();
    let full = world.ledger.add(client(1), &three, BEST);
    assert!(matches!(full, Err(AddError::NoSlots { wanted: 3, left: 2 })), "{full:?}");
    let large = Entry { blob: vec![0; 2_049], ..entry(7, 1) };
    world.ledger.add(client(1), &[large], BEST).unwrap();
    assert_eq!(world.ledger.account(&client(1)).unwrap().used, 2, "one slot for each 2,048 bytes");
}

#[test]
fn a_closed_channel_goes_in_one_write_and_is_tidied_away() {
    let world = registered(100_000);
    for channel in [7, 8] {
        for start in (0..5_000).step_by(250) {
            let some: Vec<Entry> = (start + 1..=start + 250).map(|n| entry(channel, n)).collect();
            world.ledger.add(client(1), &some, BEST).unwrap();
        }
    }
    let world = world.again();
    let before = world.disk.commits();
    let (was_known, _) = world.ledger.remove_channel(&client(1), ChannelTag([7; 16]));
    assert!(was_known);
    world.committer.cycle().unwrap();
    assert!(world.disk.commits() <= before + 1);
    assert_eq!(world.ledger.find(&entry(7, 3).locator).unwrap(), [], "void at once");
    assert_eq!(world.ledger.account(&client(1)).unwrap().used, 5_000);
    // A start finds what is void, and goes on.
    let world = world.again();
    let mut steps = 0;
    while world.ledger.tidy().unwrap() {
        world.committer.cycle().unwrap();
        steps += 1;
    }
    assert!((1..20).contains(&steps), "{steps}");
    assert_eq!(world.ledger.len(), 5_000);
    let world = world.again();
    assert_eq!(world.ledger.len(), 5_000);
    for sequence in [1, 2_500, 5_000] {
        assert_eq!(world.ledger.find(&entry(8, sequence).locator).unwrap().len(), 1);
    }
    // A tag that was removed begins anew.
    world.ledger.add(client(1), &[entry(7, 1)], BEST).unwrap();
    assert_eq!(world.ledger.find(&entry(7, 1).locator).unwrap().len(), 1);
}

#[test]
fn one_client_cannot_crowd_a_locator_and_takes_nobody_elses_place() {
    let world = registered(1_000);
    world.register(2, 10, 1_000);
    let locator = Locator([5; 16]);
    let crowd = |channel: u8| Entry { locator, ..entry(channel, 1) };
    for channel in 1..=4 {
        world.ledger.add(client(1), &[crowd(channel)], BEST).unwrap();
    }
    let refused = world.ledger.add(client(1), &[crowd(5)], BEST);
    assert!(matches!(refused, Err(AddError::Crowded(found)) if found == locator));
    world.ledger.add(client(2), &[crowd(5)], BEST).unwrap();
    assert_eq!(world.ledger.find(&locator).unwrap().len(), 5);
}

#[test]
fn what_is_expired_is_void_after_a_grace() {
    let world = registered(1_000);
    world.register(2, 10, 5_000);
    world.ledger.add(client(1), &[entry(7, 1)], BEST).unwrap();
    world.ledger.add(client(2), &[entry(8, 1)], BEST).unwrap();
    let _written_with_the_next = world.ledger.expire(BEST + 1_999, 1_000);
    assert_eq!(world.ledger.find(&entry(7, 1).locator).unwrap().len(), 1);
    let _written_with_the_next = world.ledger.expire(BEST + 2_000, 1_000);
    assert_eq!(world.ledger.find(&entry(7, 1).locator).unwrap(), []);
    assert_eq!(world.ledger.find(&entry(8, 1).locator).unwrap().len(), 1);
    assert_eq!(world.ledger.account(&client(1)), None);
    // Who comes back begins anew.
    let (account, _) = world.ledger.register(client(1), 0, BEST + 3_000, 1_000);
    assert_eq!((account.used, account.expires), (0, BEST + 4_000));
}

#[test]
fn small_pages_are_tidied_to_the_end_and_joined() {
    let world = registered(100_000);
    for sequence in 1..=5_000 {
        let channel = if sequence % 2 == 0 { 7 } else { 8 };
        world.ledger.add(client(1), &[entry(channel, sequence)], BEST).unwrap();
    }
    world.committer.cycle().unwrap();
    let _written_with_the_next = world.ledger.remove_channel(&client(1), ChannelTag([7; 16]));
    while world.ledger.tidy().unwrap() {
        world.committer.cycle().unwrap();
    }
    assert_eq!(world.ledger.len(), 2_500);
    let world = world.again();
    assert_eq!(world.ledger.len(), 2_500);
    assert_eq!(world.ledger.find(&entry(8, 4_999).locator).unwrap().len(), 1);
    // One that became void while tidying was under way is not forgotten.
    let _written_with_the_next = world.ledger.remove_channel(&client(1), ChannelTag([8; 16]));
    world.ledger.add(client(1), &[entry(9, 1)], BEST).unwrap();
    let _written_with_the_next = world.ledger.remove_channel(&client(1), ChannelTag([9; 16]));
    while world.ledger.tidy().unwrap() {
        world.committer.cycle().unwrap();
    }
    assert!(world.ledger.is_empty());
}

#[test]
fn who_leaves_nothing_makes_room() {
    let world = registered(10);
    world.register(2, 10, 1_000);
    world.ledger.add(client(1), &[entry(7, 1)], BEST).unwrap();
    assert!(world.ledger.forget_one_unused());
    assert_eq!(world.ledger.account(&client(2)), None);
    assert!(!world.ledger.forget_one_unused());
    world.register(3, 10, 1_000);
    let _written_with_the_next = world.ledger.expire(BEST + 144, 1_008);
    assert_eq!(world.ledger.account(&client(3)), None);
    assert!(world.ledger.account(&client(1)).is_some());
    // A number is never given twice, over a restart neither.
    let world = world.again();
    let (account, _) = world.ledger.register(client(4), 10, BEST, 1_000);
    assert_eq!(account.number, 3);
}

#[test]
fn a_replacement_takes_the_place_and_its_slots() {
    let world = registered(1);
    world.ledger.add(client(1), &[entry(7, 1)], BEST).unwrap();
    let other = Entry { blob: vec![1, 9], ..entry(7, 1) };
    world.ledger.replace(client(1), &other, BEST).unwrap();
    let world = world.again();
    let found = world.ledger.find(&other.locator).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].blob, other.blob);
    assert_eq!(world.ledger.account(&client(1)).unwrap().used, 1);
    let large = Entry { blob: vec![0; 2_049], ..entry(7, 1) };
    let refused = world.ledger.replace(client(1), &large, BEST);
    assert!(matches!(refused, Err(AddError::NoSlots { wanted: 2, left: 1 })), "{refused:?}");
    assert_eq!(world.ledger.find(&other.locator).unwrap().len(), 1);
}
