//! Children that pay by an anchor.

use channel_contracts::script::anchor::pay_to_anchor;

use super::*;

/// A transaction of version 3 without a fee that pays others, and its anchor.
fn parent(number: u8) -> Transaction {
    Transaction {
        version: Version(3),
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            // Deposits spend output 0 of such ids.
            previous_output: OutPoint::new(Txid::from_byte_array([number; 32]), 7),
            witness: Witness::from_slice(&[[7; 64]]),
            ..TxIn::default()
        }],
        output: vec![
            TxOut { value: sat(100_000), script_pubkey: foreign() },
            TxOut { value: Amount::ZERO, script_pubkey: pay_to_anchor() },
        ],
    }
}

fn owner(number: u8) -> Owner {
    Owner::Claim([number; 32])
}

fn request(parent: &Transaction, sat_per_vb: u32, number: u8) -> AnchorRequest<'_> {
    let feerate = FeeRate::from_sat_per_vb_u32(sat_per_vb);
    AnchorRequest { parent, vout: 1, feerate, fee_max: Amount::MAX_MONEY, owner: owner(number) }
}

fn anchor_of(parent: &Transaction) -> OutPoint {
    OutPoint { txid: parent.compute_txid(), vout: 1 }
}

#[test]
fn a_child_pays_for_both_from_one_confirmed_coin() {
    let mut world = World::new();
    world.deposit(&[60_000, 500_000, 900_000]);
    let payment = world.payment(&[3_000_000]);
    let _pending = world.wallet.apply_unconfirmed(&payment);
    world.wallet.set_channel_count(100);
    let parent = parent(1);
    let built = world.wallet.pay_by_anchor(&request(&parent, 20, 1)).unwrap();
    world.assert_valid(&built);
    let child = &built.transaction;
    assert_eq!((child.version, child.input.len(), child.output.len()), (Version(3), 2, 1));
    assert_eq!(child.input[0].previous_output, anchor_of(&parent));
    assert!(child.vsize() <= 1_000);
    let vsize = (parent.vsize() + child.vsize()) as u64;
    assert!((20 * vsize..=20 * vsize + 40).contains(&built.fee.to_sat()), "{}", built.fee);
    // The smallest coin that also pays eight times as much.
    let coin = child.input[1].previous_output;
    let deposit = world.wallet.previous_transaction(coin).unwrap();
    assert_eq!(deposit.output[coin.vout as usize].value, sat(60_000));
    assert_eq!(world.wallet.holds(), vec![(coin, owner(1))]);
    assert_eq!(world.wallet.confirmed_coins(None).len(), 2);
    let of_anchor = world.wallet.child_of(anchor_of(&parent)).unwrap();
    assert_eq!((&of_anchor.transaction, of_anchor.fee), (child, built.fee));

    world.mine(vec![parent.clone(), child.clone()]);
    assert!(world.wallet.holds().is_empty());
    assert_eq!(world.wallet.child_of(anchor_of(&parent)), None);
    assert_eq!(world.wallet.confirmed_coins(None).len(), 3);
}

#[test]
fn a_later_child_takes_the_same_coin_and_outbids_the_one_before() {
    let mut world = World::new();
    world.deposit(&[60_000, 500_000]);
    let parent = parent(1);
    let first = world.wallet.pay_by_anchor(&request(&parent, 20, 1)).unwrap();
    // The same feerate again still pays for its own relay.
    let second = world.wallet.pay_by_anchor(&request(&parent, 20, 1)).unwrap();
    assert_eq!(second.fee, first.fee + sat(second.transaction.vsize() as u64));
    world.committer.cycle().unwrap();
    world.restart();
    let known = world.wallet.child_of(anchor_of(&parent)).unwrap();
    assert_eq!((known.transaction, known.fee), (second.transaction.clone(), second.fee));
    let third = world.wallet.pay_by_anchor(&request(&parent, 40, 1)).unwrap();
    for later in [&second, &third] {
        world.assert_valid(later);
        assert_eq!(later.transaction.input, {
            let mut input = first.transaction.input.clone();
            input[1].witness = later.transaction.input[1].witness.clone();
            input
        });
        let script = |built: &Built| built.transaction.output[0].script_pubkey.clone();
        assert_eq!(script(later), script(&first));
    }
    assert_eq!(world.wallet.holds().len(), 1);
    assert_eq!(world.wallet.balance().unconfirmed, sat(60_000) - third.fee);

    // A coin that is too small for the next is free again.
    let fourth = world.wallet.pay_by_anchor(&request(&parent, 300, 1)).unwrap();
    let coin = fourth.transaction.input[1].previous_output;
    assert_ne!(coin, first.transaction.input[1].previous_output);
    assert_eq!(world.wallet.holds(), vec![(coin, owner(1))]);
    assert_eq!(world.wallet.confirmed_coins(None).len(), 1);
    let refused = world.wallet.pay_by_anchor(&request(&parent, 3_000, 1)).unwrap_err();
    assert!(matches!(refused, AnchorError::NoCoin { largest, .. } if largest == sat(60_000)));
    assert_eq!(world.wallet.holds(), vec![(coin, owner(1))], "the one before stands");
}

#[test]
fn a_child_pays_no_more_than_it_may() {
    let mut world = World::new();
    world.deposit(&[60_000]);
    let parent = parent(1);
    let dear = world.wallet.pay_by_anchor(&request(&parent, 50, 1)).unwrap();
    let limited = |fee_max| AnchorRequest { fee_max: sat(fee_max), ..request(&parent, 80, 1) };
    // Less than the feerate asks for, as long as it outbids the one before.
    let most = dear.fee.to_sat() + 1_000;
    let capped = world.wallet.pay_by_anchor(&limited(most)).unwrap();
    world.assert_valid(&capped);
    assert_eq!(capped.fee, sat(most));
    let refused = world.wallet.pay_by_anchor(&limited(most)).unwrap_err();
    assert!(
        matches!(refused, AnchorError::TooDear { needed, fee_max }
            if fee_max == sat(most) && needed > fee_max),
        "{refused}"
    );
    let known = world.wallet.child_of(anchor_of(&parent)).unwrap();
    assert_eq!(known.fee, capped.fee, "the one before stands");
    // A feerate that no node relays is none.
    let other = self::parent(2);
    let poor = AnchorRequest { fee_max: sat(100), ..request(&other, 80, 2) };
    let refused = world.wallet.pay_by_anchor(&poor).unwrap_err();
    assert!(matches!(refused, AnchorError::TooDear { .. }), "{refused}");
}

#[test]
fn two_children_never_share_a_coin_and_a_third_finds_none() {
    let mut world = World::new();
    world.deposit(&[50_000, 50_000]);
    let parents = [parent(1), parent(2), parent(3)];
    let mut coins = BTreeSet::new();
    for (number, parent) in (1..).zip(&parents[..2]) {
        let built = world.wallet.pay_by_anchor(&request(parent, 10, number)).unwrap();
        assert!(coins.insert(built.transaction.input[1].previous_output));
    }
    let refused = world.wallet.pay_by_anchor(&request(&parents[2], 10, 3)).unwrap_err();
    assert!(matches!(refused, AnchorError::NoCoin { largest: Amount::ZERO, .. }), "{refused}");
    assert!(world.wallet.build_funding(&funding(1_000, 0)).is_err(), "change of others' parents");
    assert_eq!(world.wallet.holds().len(), 2);
}

#[test]
fn a_strangers_child_that_confirms_gives_the_coin_back() {
    let mut world = World::new();
    world.deposit(&[50_000]);
    let parent = parent(1);
    let built = world.wallet.pay_by_anchor(&request(&parent, 10, 1)).unwrap();
    let mut stranger = built.transaction.clone();
    stranger.input[1].previous_output = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
    stranger.output[0].script_pubkey = foreign();
    world.mine(vec![parent.clone(), stranger]);
    assert_eq!(world.wallet.child_of(anchor_of(&parent)), None);
    assert_eq!(world.wallet.holds().len(), 1, "its owner lets go");
    let _ = world.wallet.release(owner(1)).unwrap();
    assert_eq!(world.wallet.confirmed_coins(None).len(), 1);
    assert_eq!(world.wallet.balance().confirmed, sat(50_000));
}
