//! Transactions of our own, holds, the reserve, bumps.

use super::*;

#[test]
fn funding_is_valid_and_its_change_is_usable_at_once() {
    let mut world = World::new();
    world.deposit(&[400_000]);
    let built = world.wallet.build_funding(&funding(100_000, 0)).unwrap();
    world.assert_valid(&built);
    assert!(rate_of(&built) >= 5.0 && rate_of(&built) < 5.2);
    assert!(built.transaction.input.iter().all(|i| i.script_sig.is_empty()));

    let balance = world.wallet.balance();
    assert_eq!(balance.held, sat(400_000));
    assert_eq!(balance.spendable, Amount::ZERO);

    let _ = world.wallet.apply_unconfirmed(&built.transaction);
    let left = sat(300_000) - built.fee;
    assert_eq!(world.wallet.balance().unconfirmed, left);
    assert_eq!(world.wallet.balance().spendable, left);
    let second = world.wallet.build_funding(&funding(50_000, 0)).unwrap();
    world.assert_valid(&second);
    assert_eq!(second.transaction.input[0].previous_output.txid, built.txid());

    world.mine(vec![built.transaction.clone()]);
    assert_eq!(world.wallet.holds().len(), 1, "only the second one's coin");
    let listed = world.wallet.list_transactions();
    let funding = listed.iter().find(|tx| tx.txid == built.txid()).unwrap();
    assert_eq!(funding.purpose, Some(Purpose::Funding));
    assert_eq!(funding.fee, Some(built.fee));
    assert_eq!(funding.sent - funding.received, sat(100_000) + built.fee);
    assert_eq!(funding.confirmed_in.unwrap().height, 2);
}

#[test]
fn a_coin_is_given_to_one_of_many_threads() {
    let mut world = World::new();
    world.deposit(&[50_000; 8]);
    let built: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                let wallet = world.wallet.clone();
                scope.spawn(move || wallet.build_funding(&funding(40_000, 0)))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let spent: Vec<OutPoint> = built
        .iter()
        .flatten()
        .flat_map(|b| b.transaction.input.iter().map(|i| i.previous_output))
        .collect();
    let distinct: BTreeSet<_> = spent.iter().collect();
    assert_eq!(distinct.len(), spent.len());
    assert_eq!(built.iter().filter(|b| b.is_ok()).count(), 8);
    for refused in built.into_iter().filter_map(Result::err) {
        assert!(matches!(
            refused,
            SpendError::InsufficientFunds { held, .. } if held == sat(400_000)
        ));
    }
}

#[test]
fn reserve_is_kept_for_the_channels() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    world.wallet.set_channel_count(3);
    assert_eq!(world.wallet.balance().reserved_for_anchors, sat(30_000));
    assert_eq!(world.wallet.balance().spendable, sat(70_000));
    let refused = world.wallet.build_funding(&funding(65_000, 1)).unwrap_err();
    assert!(matches!(
        refused,
        SpendError::BreaksReserve { reserve, channels: 4, available, .. }
            if reserve == sat(40_000) && available == sat(100_000)
    ));
    assert!(refused.to_string().contains("anchor_reserve_sat_per_channel"));
    assert!(world.wallet.holds().is_empty(), "a refusal holds nothing");
    assert!(matches!(
        world.wallet.send(FOREIGN, SendAmount::Exact(sat(75_000)), sat_vb(1)),
        Err(SpendError::BreaksReserve { .. })
    ));

    let all = world.wallet.send(FOREIGN, SendAmount::All, sat_vb(3)).unwrap();
    world.assert_valid(&all);
    let _ = world.wallet.apply_unconfirmed(&all.transaction);
    assert_eq!(world.wallet.balance().unconfirmed, sat(30_000));
    assert_eq!(world.wallet.balance().spendable, Amount::ZERO);
    assert_eq!(
        world.wallet.balance().anchor_reserve_missing,
        sat(30_000),
        "what is pending cannot pay for an exit"
    );
    assert!(matches!(
        world.wallet.send(FOREIGN, SendAmount::All, sat_vb(3)),
        Err(SpendError::InsufficientFunds { .. } | SpendError::BreaksReserve { .. })
    ));
}

#[test]
fn bad_requests_are_named() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let send = |address: &str, amount, rate| {
        world.wallet.send(address, SendAmount::Exact(sat(amount)), rate).unwrap_err()
    };
    assert!(matches!(
        send(MAINNET, 1_000, sat_vb(1)),
        SpendError::WrongNetwork { expected: Network::Regtest, .. }
    ));
    assert!(matches!(send("bcrt1nonsense", 1_000, sat_vb(1)), SpendError::BadAddress { .. }));
    assert!(matches!(
        send(FOREIGN, 293, sat_vb(1)),
        SpendError::Dust { minimum, .. } if minimum == sat(294)
    ));
    for rate in [FeeRate::from_sat_per_kwu(249), FeeRate::from_sat_per_kwu(2_500_001)] {
        assert!(matches!(send(FOREIGN, 1_000, rate), SpendError::FeerateOutOfRange { .. }));
    }
    assert!(matches!(
        send(FOREIGN, 200_000, sat_vb(1)),
        SpendError::InsufficientFunds { available, .. } if available == sat(100_000)
    ));
    assert!(matches!(send(FOREIGN, u64::MAX, sat_vb(1)), SpendError::InsufficientFunds { .. }));
    let none = FundingRequest { outputs: vec![], ..funding(1, 0) };
    assert_eq!(world.wallet.build_funding(&none).unwrap_err(), SpendError::NoOutputs);
}

#[test]
fn replacement_is_valid_and_takes_the_coins_over() {
    let mut world = World::new();
    world.deposit(&[100_000, 60_000]);
    let old = world.wallet.send(FOREIGN, SendAmount::Exact(sat(40_000)), sat_vb(2)).unwrap();
    let _ = world.wallet.apply_unconfirmed(&old.transaction);
    assert!(matches!(
        world.wallet.bump_fee(old.txid(), sat_vb(2)),
        Err(BumpError::FeerateTooLow { required: 750.., .. })
    ));
    let new = world.wallet.bump_fee(old.txid(), sat_vb(20)).unwrap();
    world.assert_valid(&new);
    assert!(rate_of(&new) >= 20.0 && rate_of(&new) < 20.5);
    assert!(
        new.transaction
            .output
            .iter()
            .any(|o| o.value == sat(40_000) && o.script_pubkey == foreign())
    );
    for input in &old.transaction.input {
        assert!(new.transaction.input.iter().any(|i| i.previous_output == input.previous_output));
        let owner = Owner::Transaction(new.txid());
        assert!(world.wallet.holds().contains(&(input.previous_output, owner)));
    }
    // The clock stands still, yet the later one counts.
    let _ = world.wallet.apply_unconfirmed(&new.transaction);
    let listed: Vec<_> = world.wallet.list_transactions();
    assert!(listed.iter().any(|tx| tx.txid == new.txid()));
    assert!(!listed.iter().any(|tx| tx.txid == old.txid()));
    // The old one confirms all the same: its holds end, the money is right.
    world.mine(vec![old.transaction.clone()]);
    assert!(world.wallet.holds().is_empty());
    assert_eq!(world.wallet.balance().confirmed, sat(120_000) - old.fee);
    assert!(matches!(
        world.wallet.bump_fee(old.txid(), sat_vb(30)),
        Err(BumpError::Confirmed { height: 2, .. })
    ));
}

#[test]
fn replacing_a_send_of_all_takes_the_fee_from_the_receiver() {
    let mut world = World::new();
    world.deposit(&[100_000, 60_000]);
    world.wallet.set_channel_count(1);
    let old = world.wallet.send(FOREIGN, SendAmount::All, sat_vb(2)).unwrap();
    let _ = world.wallet.apply_unconfirmed(&old.transaction);
    let new = world.wallet.bump_fee(old.txid(), sat_vb(10)).unwrap();
    world.assert_valid(&new);
    let paid =
        new.transaction.output.iter().find(|output| output.script_pubkey == foreign()).unwrap();
    assert_eq!(paid.value, sat(150_000) - new.fee);
    assert_eq!(new.transaction.output.len(), 2, "the reserve stays");
}

#[test]
fn funding_is_bumped_by_a_child_only() {
    let mut world = World::new();
    world.deposit(&[100_000, 50_000]);
    let built = world.wallet.build_funding(&funding(60_000, 0)).unwrap();
    let _ = world.wallet.apply_unconfirmed(&built.transaction);
    assert!(matches!(
        world.wallet.bump_fee(built.txid(), sat_vb(20)),
        Err(BumpError::NotReplaceable { .. })
    ));
    let child = world.wallet.bump_by_child(built.txid(), sat_vb(20)).unwrap();
    world.assert_valid(&child);
    let fees = (built.fee + child.fee).to_sat() as f64;
    let vsize = (built.transaction.vsize() + child.transaction.vsize()) as f64;
    assert!((20.0..20.5).contains(&(fees / vsize)), "{}", fees / vsize);
    assert!(matches!(
        world.wallet.bump_by_child(built.txid(), sat_vb(30)),
        Err(BumpError::NoOutput { .. })
    ));
}

#[test]
fn child_adds_coins_where_the_output_is_too_small() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let incoming = world.payment(&[1_000]);
    let _ = world.wallet.apply_unconfirmed(&incoming);
    let child = world.wallet.bump_by_child(incoming.compute_txid(), sat_vb(50)).unwrap();
    world.assert_valid(&child);
    assert_eq!(child.transaction.input.len(), 2);
    let vsize = (incoming.vsize() + child.transaction.vsize()) as f64;
    assert!(child.fee.to_sat() as f64 / vsize >= 50.0);
    assert!(matches!(
        world.wallet.bump_by_child(Txid::from_byte_array([9; 32]), sat_vb(5)),
        Err(BumpError::Unknown { .. })
    ));
}

#[test]
fn release_frees_the_coins_of_what_will_never_be_mined() {
    let mut world = World::new();
    world.deposit(&[100_000]);
    let built = world.wallet.build_funding(&funding(60_000, 0)).unwrap();
    let _ = world.wallet.apply_unconfirmed(&built.transaction);
    let owner = Owner::Transaction(built.txid());
    for _ in 0..2 {
        let _ = world.wallet.release(owner).unwrap();
        assert_eq!(world.wallet.balance().spendable, sat(100_000));
    }
    world.committer.cycle().unwrap();
    world.restart();
    assert_eq!(world.wallet.balance().spendable, sat(100_000));
    assert!(world.wallet.holds().is_empty());

    let again = world.wallet.build_funding(&funding(60_000, 0)).unwrap();
    world.mine(vec![again.transaction.clone()]);
    assert!(matches!(
        world.wallet.release(Owner::Transaction(again.txid())),
        Err(ReleaseError::Confirmed { height: 2, .. })
    ));
}

#[test]
fn claims_hold_coins_and_their_signatures_stand_beside_others() {
    let mut world = World::new();
    let deposit = world.deposit(&[80_000, 90_000]);
    let (mine, other) = (Owner::Claim([1; 32]), Owner::Claim([2; 32]));
    let coins = world.wallet.confirmed_coins(None);
    assert_eq!(coins.len(), 2);
    let coin = coins[0].clone();
    let _ = world.wallet.hold(&[coin.outpoint], mine).unwrap();
    let _ = world.wallet.hold(&[coin.outpoint], mine).unwrap();
    assert_eq!(
        world.wallet.hold(&[coin.outpoint], other).unwrap_err(),
        HoldError::Held { outpoint: coin.outpoint, owner: mine }
    );
    assert_eq!(world.wallet.confirmed_coins(None).len(), 1);
    assert_eq!(world.wallet.confirmed_coins(Some(other)).len(), 1);
    assert_eq!(world.wallet.confirmed_coins(Some(mine)).len(), 2);
    let nowhere = OutPoint::new(deposit.compute_txid(), 7);
    assert!(matches!(world.wallet.hold(&[nowhere], other), Err(HoldError::Unknown { .. })));

    // A child of somebody's anchor, paid by our coin, as LDK's bump handler builds it.
    let anchor = TxOut { value: sat(330), script_pubkey: foreign() };
    let unsigned = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: [OutPoint::new(Txid::from_byte_array([7; 32]), 0), coin.outpoint]
            .map(|previous_output| TxIn {
                previous_output,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .to_vec(),
        output: vec![TxOut { value: sat(70_000), script_pubkey: world.wallet.change_script().0 }],
    };
    let mut psbt = Psbt::from_unsigned_tx(unsigned).unwrap();
    let refused = world.wallet.sign_psbt(psbt.clone()).unwrap_err();
    assert!(matches!(
        refused,
        SignPsbtError::Sign(crate::keys::SignError::MissingPrevout { index: 0 })
    ));
    psbt.inputs[0].witness_utxo = Some(anchor.clone());
    psbt.inputs[0].final_script_witness = Some(Witness::from_slice(&[[1u8; 3]]));
    psbt.inputs[1].witness_utxo =
        Some(TxOut { value: coin.txout.value + sat(1), ..coin.txout.clone() });
    assert!(matches!(world.wallet.sign_psbt(psbt.clone()), Err(SignPsbtError::WrongCoin { .. })));
    psbt.inputs[1].witness_utxo = None;
    psbt.inputs[1].sighash_type = Some(bitcoin::TapSighashType::NonePlusAnyoneCanPay.into());
    assert!(matches!(
        world.wallet.sign_psbt(psbt.clone()),
        Err(SignPsbtError::Sign(crate::keys::SignError::Sighash { index: 1 }))
    ));
    psbt.inputs[1].sighash_type = None;
    let signed = world.wallet.sign_psbt(psbt.clone()).unwrap();
    verify(&signed, &[anchor, coin.txout.clone()], &[1]);
    assert_eq!(signed.input[0].witness, Witness::from_slice(&[[1u8; 3]]));
    let witness = serialize(&signed.input[1].witness).len() as u64;
    assert_eq!(witness, coin.satisfaction_weight.to_wu());

    psbt.unsigned_tx.input.truncate(1);
    psbt.inputs.truncate(1);
    assert_eq!(world.wallet.sign_psbt(psbt).unwrap_err(), SignPsbtError::NothingToSign);

    world.mine(vec![signed]);
    assert!(world.wallet.holds().is_empty(), "the claim is confirmed");
}
