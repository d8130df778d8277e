//! Blocks, reorgs, restarts.

use super::*;

#[test]
fn deposits_count_when_they_confirm() {
    let mut world = World::new();
    let pending = world.payment(&[50_000]);
    let _ = world.wallet.apply_unconfirmed(&pending);
    let balance = world.wallet.balance();
    assert_eq!(balance.unconfirmed, sat(50_000));
    assert_eq!(balance.spendable, Amount::ZERO, "others can undo it");
    let refused = world.wallet.build_funding(&funding(10_000, 0)).unwrap_err();
    assert!(matches!(refused, SpendError::InsufficientFunds { .. }));

    world.mine(vec![pending]);
    let balance = world.wallet.balance();
    assert_eq!(balance.confirmed, sat(50_000));
    assert_eq!(balance.unconfirmed, Amount::ZERO);
    assert_eq!(balance.spendable, sat(50_000));
    assert_eq!(world.wallet.list_unspent()[0].confirmations, 1);
}

#[test]
fn coinbase_is_immature_for_a_hundred_blocks() {
    let mut world = World::new();
    let mut coinbase = world.payment(&[1_000_000]);
    coinbase.input[0] = TxIn { script_sig: ScriptBuf::from_bytes(vec![1, 1]), ..TxIn::default() };
    let block = world.block_with(coinbase, vec![]);
    world.wallet.block_connected(&Arc::new(block.clone()), 1).unwrap();
    world.blocks.push(block);
    for _ in 0..98 {
        world.mine(vec![]);
    }
    assert_eq!(world.wallet.balance().immature, sat(1_000_000));
    assert_eq!(world.wallet.balance().spendable, Amount::ZERO);
    world.mine(vec![]);
    assert_eq!(world.wallet.balance().immature, Amount::ZERO);
    assert_eq!(world.wallet.balance().spendable, sat(1_000_000));
}

#[test]
fn restart_replays_to_the_same_wallet() {
    let mut world = World::new();
    for round in 0..80 {
        world.deposit(&[20_000 + round]);
    }
    let _ = world.wallet.build_funding(&funding(90_000, 0)).unwrap();
    let sent = world.wallet.send(FOREIGN, SendAmount::Exact(sat(30_000)), sat_vb(2)).unwrap();
    let _ = world.wallet.apply_unconfirmed(&sent.transaction);
    world.wallet.set_channel_count(2);
    let before = (
        world.wallet.balance(),
        world.wallet.list_unspent(),
        world.wallet.list_transactions(),
        world.wallet.holds(),
        world.wallet.positions(),
    );
    world.committer.cycle().unwrap();
    let records = |world: &World| {
        let (from, to) = Table::Wallet.range();
        world.store.scan(&from, &to, usize::MAX).unwrap().len()
    };
    assert!(records(&world) > 80);
    // The first restart reads many records and makes them one; the second reads that one.
    for _ in 0..2 {
        world.restart();
        world.wallet.set_channel_count(2);
        let after = (
            world.wallet.balance(),
            world.wallet.list_unspent(),
            world.wallet.list_transactions(),
            world.wallet.holds(),
            world.wallet.positions(),
        );
        assert_eq!(before, after);
        world.committer.cycle().unwrap();
    }
    assert_eq!(records(&world), 1);
    // The held coins are still given to nobody else.
    let held: BTreeSet<_> = world.wallet.holds().into_iter().map(|(o, _)| o).collect();
    let next = world.wallet.build_funding(&funding(50_000, 0)).unwrap();
    assert!(next.transaction.input.iter().all(|input| !held.contains(&input.previous_output)));
}

#[test]
fn an_address_is_durable_with_its_ticket_and_never_given_twice() {
    let mut world = World::new();
    let (shown, _ticket) = world.wallet.new_address();
    world.committer.cycle().unwrap();
    // Not durable: lost with the crash, which is why nobody may have seen it.
    let (lost, _) = world.wallet.new_address();
    world.restart();
    let (next, _) = world.wallet.new_address();
    assert_ne!(next, shown);
    assert_eq!(next, lost);
    let scripts = [
        world.wallet.shutdown_script().0,
        world.wallet.sweep_script().0,
        world.wallet.shutdown_script().0,
    ];
    assert_eq!(scripts.iter().collect::<BTreeSet<_>>().len(), 3);
}

#[test]
fn a_transaction_and_its_child_are_beaten_once_a_rival_is_buried() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let ours = world.wallet.build_funding(&funding(50_000, 0)).unwrap().transaction;
    let _ = world.wallet.apply_unconfirmed(&ours);
    let mut child = world.payment(&[40_000]);
    child.input[0].previous_output = OutPoint { txid: ours.compute_txid(), vout: 0 };
    let _ = world.wallet.apply_unconfirmed(&child);
    let mut rival = ours.clone();
    rival.output.truncate(1);
    let is_beaten = |world: &World| {
        assert!(!world.wallet.is_beaten(rival.compute_txid()));
        let [ours, child] = [&ours, &child].map(|tx| world.wallet.is_beaten(tx.compute_txid()));
        assert_eq!(ours, child);
        ours
    };
    assert!(!is_beaten(&world), "nothing has confirmed");
    world.mine(vec![rival.clone()]);
    for depth in 1..6 {
        assert!(!is_beaten(&world), "a rival at depth {depth} may go again");
        world.mine(vec![]);
    }
    assert!(is_beaten(&world));
    world.committer.cycle().unwrap();
    world.restart();
    assert!(is_beaten(&world));
    let fork = BlockRef { height: 1, hash: world.blocks[1].block_hash() };
    world.wallet.blocks_disconnected(fork).unwrap();
    assert!(!is_beaten(&world), "its block is gone");
}

#[test]
fn reorg_takes_a_deposit_back() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let fork = BlockRef { height: 1, hash: world.blocks[1].block_hash() };
    let second = world.deposit(&[70_000]);
    world.mine(vec![]);
    assert_eq!(world.wallet.balance().confirmed, sat(170_000));

    world.wallet.blocks_disconnected(fork).unwrap();
    world.blocks.truncate(2);
    assert_eq!(world.wallet.positions()[0], fork);
    assert_eq!(world.wallet.balance().confirmed, sat(100_000));
    assert_eq!(world.wallet.balance().unconfirmed, sat(70_000));

    // The other branch has a conflicting payment, and the deposit is gone for good.
    let mut conflict = second.clone();
    conflict.output = vec![TxOut {
        value: sat(70_000),
        script_pubkey: world.wallet.new_address().0.script_pubkey(),
    }];
    world.mine(vec![]);
    world.mine(vec![conflict]);
    world.committer.cycle().unwrap();
    for _ in 0..2 {
        assert_eq!(world.wallet.balance().confirmed, sat(170_000));
        assert_eq!(world.wallet.balance().unconfirmed, Amount::ZERO);
        assert_eq!(world.wallet.positions()[0].height, 3);
        world.restart();
    }
}

#[test]
fn reorg_of_our_own_transaction_leaves_it_pending() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let fork = BlockRef { height: 1, hash: world.blocks[1].block_hash() };
    let built = world.wallet.build_funding(&funding(60_000, 0)).unwrap();
    world.mine(vec![built.transaction.clone()]);
    assert!(world.wallet.holds().is_empty());
    world.wallet.blocks_disconnected(fork).unwrap();
    world.blocks.truncate(2);
    assert_eq!(world.wallet.balance().unconfirmed, sat(40_000) - built.fee);
    assert_eq!(world.wallet.balance().confirmed, Amount::ZERO);
    world.mine(vec![built.transaction]);
    assert_eq!(world.wallet.balance().confirmed, sat(40_000) - built.fee);
}

#[test]
fn other_seed_or_network_is_refused() {
    let world = World::new();
    world.committer.cycle().unwrap();
    let other = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";
    assert!(matches!(
        open_with(&world.store, other, Network::Regtest),
        Err(OpenWalletError::OtherSeed)
    ));
    assert!(matches!(
        open_with(&world.store, PHRASE, Network::Signet),
        Err(OpenWalletError::OtherNetwork { .. })
    ));
}

#[test]
fn damaged_records_are_refused() {
    let world = World::new();
    world.committer.cycle().unwrap();
    let key = Table::Wallet.key(0u64.to_be_bytes());
    for (value, newer) in [(vec![], false), (vec![1, 0xff], false), (vec![2], true)] {
        world.store.0.lock().insert(key.clone(), value);
        let error = open_with(&world.store, PHRASE, Network::Regtest).err();
        match error.unwrap() {
            OpenWalletError::Store(StoreError::NewerVersion { .. }) => assert!(newer),
            OpenWalletError::Store(StoreError::Corrupt(_)) => assert!(!newer),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn blocks_with_a_gap_are_refused() {
    let mut world = World::new();
    world.mine(vec![]);
    let tip = world.wallet.positions()[0];
    let coinbase = world.payment(&[1]);
    world.blocks.push(constants::genesis_block(Network::Signet));
    let stray = world.block_with(coinbase, vec![]);
    assert!(matches!(
        world.wallet.block_connected(&Arc::new(stray), 5),
        Err(BlockError::Unconnected { height: 5, tip_height: 1, .. })
    ));
    assert_eq!(world.wallet.positions()[0], tip);
}

#[test]
fn positions_thin_out_towards_genesis() {
    let mut world = World::new();
    for _ in 0..100 {
        world.mine(vec![]);
    }
    let positions = world.wallet.positions();
    assert_eq!(positions[0].height, 100);
    assert_eq!(positions.last().unwrap().height, 0);
    assert!(positions.len() < 20, "{}", positions.len());
    for position in &positions {
        assert_eq!(position.hash, world.blocks[position.height as usize].block_hash());
    }
}

#[test]
fn a_new_wallet_starts_at_its_birthday() {
    let store = Arc::new(MemoryStore::default());
    let birthday = BlockRef { height: 800_000, hash: BlockHash::from_byte_array([8; 32]) };
    let keys = Keys::in_memory(Network::Signet, &RecoveryPhrase::parse(PHRASE).unwrap(), "");
    let committer = Committer::new(store);
    let wallet = Wallet::open(WalletParams {
        keys: Arc::new(keys),
        book: Arc::new(committer.clone()),
        committer,
        clock: Arc::new(StoppedClock),
        entropy: Arc::new(OsEntropy),
        anchor_reserve_per_channel: Amount::ZERO,
        birthday: Some(birthday),
        lookahead: 25,
    })
    .unwrap();
    assert_eq!(wallet.positions()[0], birthday);
}

/// A transaction of others that spends `from` and pays `to`.
fn spend(from: &[OutPoint], to: &[(u64, ScriptBuf)]) -> Transaction {
    let input = |previous_output: &OutPoint| TxIn {
        previous_output: *previous_output,
        sequence: Sequence::MAX,
        ..TxIn::default()
    };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: from.iter().map(input).collect(),
        output: to
            .iter()
            .map(|(value, script)| TxOut { value: sat(*value), script_pubkey: script.clone() })
            .collect(),
    }
}

#[test]
fn a_bump_of_a_commitment_that_lost_gives_its_coins_back() {
    for block_first in [false, true] {
        let mut world = World::new();
        let deposit = world.deposit(&[100_000]);
        let coin = OutPoint { txid: deposit.compute_txid(), vout: 0 };
        // Two commitments spend one funding output; neither is about the wallet.
        let funding = OutPoint::new(Txid::from_byte_array([0xfa; 32]), 0);
        let ours = spend(&[funding], &[(500_000, foreign()), (0, foreign())]);
        let theirs = spend(&[funding], &[(499_999, foreign())]);
        let anchor = OutPoint { txid: ours.compute_txid(), vout: 1 };
        let change = world.wallet.change_script().0;
        let bump = spend(&[anchor, coin], &[(99_000, change)]);
        let broadcast = |world: &World| {
            let _ = world.wallet.apply_unconfirmed(&ours);
            let _ = world.wallet.apply_unconfirmed(&bump);
        };
        if block_first {
            world.mine(vec![theirs]);
            broadcast(&world);
        } else {
            broadcast(&world);
            assert_eq!(world.wallet.balance().unconfirmed, sat(99_000));
            world.mine(vec![theirs]);
        }
        let balance = world.wallet.balance();
        assert_eq!((balance.confirmed, balance.unconfirmed), (sat(100_000), Amount::ZERO));
        assert_eq!(world.wallet.confirmed_coins(None).len(), 1);
        world.committer.cycle().unwrap();
        world.restart();
        assert_eq!(world.wallet.balance().confirmed, sat(100_000));

        // A reorg can still let ours win.
        world.blocks.pop();
        let fork = world.blocks.last().unwrap().block_hash();
        let fork = BlockRef { height: world.blocks.len() as u32 - 1, hash: fork };
        world.wallet.blocks_disconnected(fork).unwrap();
        world.mine(vec![ours.clone(), bump.clone()]);
        let balance = world.wallet.balance();
        assert_eq!((balance.confirmed, balance.unconfirmed), (sat(99_000), Amount::ZERO));
    }
}

#[test]
fn a_bump_after_a_restart_hears_what_the_last_blocks_decided() {
    let mut world = World::new();
    let deposit = world.deposit(&[100_000]);
    let coin = OutPoint { txid: deposit.compute_txid(), vout: 0 };
    // An output that both sides may claim, taken by the other one.
    let output = OutPoint::new(Txid::from_byte_array([0xfa; 32]), 0);
    world.mine(vec![spend(&[output], &[(1_000, foreign())])]);
    let taken_at = world.blocks.len() as u32 - 1;
    world.mine(vec![]);
    world.committer.cycle().unwrap();
    world.restart();
    for height in taken_at..=taken_at + 1 {
        world.wallet.recall(&Arc::new(world.blocks[height as usize].clone()), height);
    }
    let change = world.wallet.change_script().0;
    let claim = spend(&[output, coin], &[(1_000, foreign()), (99_000, change)]);
    let _ = world.wallet.apply_unconfirmed(&claim);
    let balance = world.wallet.balance();
    assert_eq!((balance.confirmed, balance.unconfirmed), (sat(100_000), Amount::ZERO));
    assert_eq!(world.wallet.confirmed_coins(None).len(), 1, "its coin is free");
}

#[test]
fn a_claim_of_what_is_long_spent_is_dropped_for_good_with_its_children() {
    let mut world = World::new();
    let deposit = world.deposit(&[100_000]);
    let coin = OutPoint { txid: deposit.compute_txid(), vout: 0 };
    // An output of others that a block has spent before the wallet heard of it.
    let output = OutPoint::new(Txid::from_byte_array([0xfa; 32]), 0);
    let change = world.wallet.change_script().0;
    let claim = spend(&[output, coin], &[(1_000, foreign()), (99_000, change)]);
    let coin_of_claim = OutPoint { txid: claim.compute_txid(), vout: 1 };
    let child = spend(&[coin_of_claim], &[(98_000, world.wallet.new_address().0.into())]);
    let balance = |world: &World| {
        let balance = world.wallet.balance();
        (balance.confirmed.to_sat(), balance.unconfirmed.to_sat())
    };
    let other = OutPoint::new(Txid::from_byte_array([0xfb; 32]), 0);
    for told in [&claim, &child] {
        let _ = world.wallet.apply_unconfirmed(told);
    }
    assert_eq!(balance(&world), (0, 98_000));
    assert_eq!(world.wallet.drop_spenders(&[other]), []);
    assert_eq!(balance(&world), (0, 98_000));

    let dropped = [claim.compute_txid(), child.compute_txid()];
    assert_eq!(world.wallet.drop_spenders(&[output]), dropped);
    for is_restarted in [false, true] {
        if is_restarted {
            world.committer.cycle().unwrap();
            world.restart();
        }
        assert_eq!(balance(&world), (100_000, 0), "restarted: {is_restarted}");
        assert_eq!(world.wallet.confirmed_coins(None).len(), 1, "its coin is free");
    }

    // Whoever vouches for it is right: it is broadcast again, and a block has it.
    let _ = world.wallet.apply_unconfirmed(&claim);
    assert_eq!(balance(&world), (0, 99_000));
    assert_eq!(world.wallet.drop_spenders(&[output]), dropped[..1]);
    world.mine(vec![claim]);
    assert_eq!(balance(&world), (99_000, 0));
    assert_eq!(world.wallet.drop_spenders(&[output]), []);
}
