//! Relay policy as a table: transactions, and what becomes of them.
//!
//! The table is run on the embedded chain alone and side by side with a real bitcoind.

use bitcoin::{ScriptBuf, Transaction, Witness, absolute::LockTime};

use super::bench::*;
use crate::chain::embedded::EmbeddedChain;

/// Steps that follow each other; each is a package and Core's word, empty if it is taken.
pub(crate) struct Case {
    pub name: &'static str,
    pub steps: Vec<(Vec<Transaction>, &'static str)>,
}

const SAT: u64 = 100_000;
/// Coins that the cases need, made in one transaction.
const COINS: u32 = 80;

/// Builds all cases on coins of `chain`, which must stand still until they have run.
pub(crate) fn all(chain: &EmbeddedChain) -> Vec<Case> {
    // The coins confirm together: one is then 1 deep, in a block whose parent gives BIP 68
    // its time.
    let mut coins = coins(chain, SAT, 1_000..1_000 + COINS).into_iter();
    let mut coin = move || coins.next().unwrap();
    let next_height = chain.best().height + 1;
    let mut cases = Vec::new();
    let mut case = |name, steps: Vec<(Vec<Transaction>, &'static str)>| {
        cases.push(Case { name, steps });
    };

    // Feerates, values, double spends.
    let a = coin();
    let first = spend(2, &[&a], vec![pay(1, SAT - 1_000)]);
    let same_fee = spend(2, &[&a], vec![pay(2, SAT - 1_000)]);
    let small_step = spend(2, &[&a], vec![pay(3, SAT - 1_050)]);
    let better = spend(2, &[&a], vec![pay(4, SAT - 2_000)]);
    case(
        "a replacement pays for itself",
        vec![
            (vec![first.clone()], ""),
            (vec![first], ""),
            (vec![same_fee], "insufficient fee"),
            (vec![small_step], "insufficient fee"),
            (vec![better], ""),
        ],
    );
    let a = coin();
    case(
        "relay fee, value and existence",
        vec![
            (vec![spend(2, &[&a], vec![pay(1, SAT - 90)])], "min relay fee not met"),
            (vec![spend(2, &[&a], vec![pay(1, SAT + 1)])], "bad-txns-in-belowout"),
            (vec![spend(2, &[&a, &a], vec![pay(1, SAT)])], "bad-txns-inputs-duplicate"),
            (vec![spend(2, &[], vec![pay(1, SAT)])], "bad-txns-vin-empty"),
            (vec![spend(2, &[&a], vec![])], "bad-txns-vout-empty"),
            (vec![spend(2, &[&a], vec![pay(1, SAT - 130)])], ""),
        ],
    );
    let a = coin();
    let orphan = spend(2, &[&a], vec![pay(9, SAT - 500)]);
    let child = spend(2, &[&output_coin(&orphan, 0, 9)], vec![pay(1, SAT - 1_000)]);
    case(
        "a child waits for its parent",
        vec![
            (vec![child.clone()], "bad-txns-inputs-missingorspent"),
            (vec![orphan], ""),
            (vec![child], ""),
        ],
    );

    // Scripts and forms.
    let a = coin();
    let wrong = Coin { witness: Witness::from_slice(&[open_script(5).as_bytes()]), ..a.clone() };
    let none = Coin { witness: Witness::new(), ..a.clone() };
    case(
        "scripts are run",
        vec![
            (
                vec![spend(2, &[&wrong], vec![pay(1, SAT - 500)])],
                "mempool-script-verify-flag-failed",
            ),
            (
                vec![spend(2, &[&none], vec![pay(1, SAT - 500)])],
                "mempool-script-verify-flag-failed",
            ),
        ],
    );
    let a = coin();
    let odd = bitcoin::TxOut {
        script_pubkey: ScriptBuf::from_bytes(vec![0x93, 0x93]),
        ..pay(1, SAT - 1_000)
    };
    let long_program = bitcoin::TxOut {
        script_pubkey: ScriptBuf::from_bytes(vec![0x00, 0x02, 1, 2]),
        ..pay(1, SAT - 1_000)
    };
    case(
        "forms are standard",
        vec![
            (vec![spend(4, &[&a], vec![pay(1, SAT - 500)])], "version"),
            (vec![spend(0, &[&a], vec![pay(1, SAT - 500)])], "version"),
            (vec![spend(2, &[&a], vec![odd])], "scriptpubkey"),
            (vec![spend(2, &[&a], vec![long_program])], "scriptpubkey"),
            (vec![spend(2, &[&a], vec![padding(1)])], "tx-size-small"),
            (vec![spend(2, &[&a], vec![padding(99_990), pay(1, 330)])], "tx-size"),
            (vec![spend(2, &[&a], vec![padding(2_000), pay(1, 330)])], ""),
        ],
    );
    let a = coin();
    case(
        "dust",
        vec![
            (vec![spend(2, &[&a], vec![pay(1, SAT - 1_000), pay(2, 329)])], "dust"),
            (vec![spend(2, &[&a], vec![pay(1, SAT - 1_000), anchor(239)])], "dust"),
            (vec![spend(2, &[&a], vec![pay(1, SAT - 478), anchor(239), anchor(239)])], "dust"),
            (vec![spend(2, &[&a], vec![pay(1, SAT - 1_000), pay(2, 330), anchor(240)])], ""),
        ],
    );
    let a = coin();
    let parent = spend(2, &[&a], vec![pay(1, SAT - 2_000), anchor(240)]);
    let stuffed = Coin { witness: Witness::from_slice(&[[1u8]]), ..anchor_coin(&parent, 1) };
    let payer = output_coin(&parent, 0, 1);
    case(
        "an anchor takes no witness",
        vec![
            (vec![parent.clone()], ""),
            (
                vec![spend(2, &[&payer, &stuffed], vec![pay(1, SAT - 4_000)])],
                "bad-witness-nonstandard",
            ),
            (vec![spend(2, &[&payer, &anchor_coin(&parent, 1)], vec![pay(1, SAT - 4_000)])], ""),
        ],
    );

    // Locks.
    let locked = |coin: &Coin, height: u32| Transaction {
        lock_time: LockTime::from_consensus(height),
        ..spend(2, &[coin], vec![pay(1, SAT - 500)])
    };
    let a = coin();
    let mut ignored = locked(&a, next_height + 10);
    ignored.input[0].sequence = bitcoin::Sequence::MAX;
    case(
        "absolute locks",
        vec![
            (vec![locked(&a, next_height)], "non-final"),
            (vec![locked(&a, 2_000_000_000)], "non-final"),
            (vec![ignored], ""),
        ],
    );
    let a = coin();
    case("an absolute lock just met", vec![(vec![locked(&a, next_height - 1)], "")]);
    let a = coin();
    let relative = |version, sequence: u32| {
        vec![spend(version, &[&a.with_sequence(sequence)], vec![pay(1, SAT - 500)])]
    };
    case(
        "relative locks",
        vec![
            (relative(2, 2), "non-BIP68-final"),
            (relative(3, 2), "non-BIP68-final"),
            (relative(2, (1 << 22) | 100), "non-BIP68-final"),
            (relative(2, 1), ""),
        ],
    );
    let a = coin();
    let ignored = spend(1, &[&a.with_sequence(1_000)], vec![pay(1, SAT - 500)]);
    let b = coin();
    let disabled = spend(2, &[&b.with_sequence((1 << 31) | 9)], vec![pay(1, SAT - 500)]);
    case("relative locks switched off", vec![(vec![ignored], ""), (vec![disabled], "")]);
    let a = coin();
    let young = spend(2, &[&a], vec![pay(1, SAT - 500)]);
    let unconfirmed = output_coin(&young, 0, 1);
    let after = |sequence| {
        vec![spend(2, &[&unconfirmed.with_sequence(sequence)], vec![pay(1, SAT - 1_000)])]
    };
    case(
        "relative lock on an unconfirmed coin",
        vec![(vec![young.clone()], ""), (after(1), "non-BIP68-final"), (after(0), "")],
    );

    // Version 3.
    let a = coin();
    case(
        "version 3 is at most 10,000 vB",
        vec![
            (vec![spend(3, &[&a], vec![padding(10_000), pay(1, SAT / 2)])], "TRUC-violation"),
            (vec![spend(3, &[&a], vec![padding(9_800), pay(1, SAT / 2)])], ""),
        ],
    );
    let (a, b) = (coin(), coin());
    let parent = spend(3, &[&a], vec![pay(1, 40_000), pay(2, 50_000)]);
    let second = spend(3, &[&b], vec![pay(3, 90_000)]);
    let left = output_coin(&parent, 0, 1);
    let right = output_coin(&parent, 1, 2);
    let child = spend(3, &[&left], vec![pay(5, 39_000)]);
    let fat = spend(3, &[&left], vec![pay(5, 30_000), padding(1_000)]);
    let both = spend(3, &[&left, &output_coin(&second, 0, 3)], vec![pay(5, 100_000)]);
    let old_child = spend(2, &[&left], vec![pay(5, 39_000)]);
    let grandchild = spend(3, &[&output_coin(&child, 0, 5)], vec![pay(6, 38_000)]);
    let cheap_sibling = spend(3, &[&right], vec![pay(7, 49_000)]);
    let sibling = spend(3, &[&right], vec![pay(8, 48_000)]);
    case(
        "version 3 family",
        vec![
            (vec![parent], ""),
            (vec![second], ""),
            (vec![fat], "TRUC-violation"),
            (vec![both], "TRUC-violation"),
            (vec![old_child], "TRUC-violation"),
            (vec![child], ""),
            (vec![grandchild], "TRUC-violation"),
            (vec![cheap_sibling], "insufficient fee (including sibling eviction)"),
            (vec![sibling], ""),
        ],
    );
    let a = coin();
    let old = spend(2, &[&a], vec![pay(1, 90_000)]);
    let new = spend(3, &[&output_coin(&old, 0, 1)], vec![pay(2, 80_000)]);
    case(
        "version 3 spends no unconfirmed version 2",
        vec![(vec![old], ""), (vec![new], "TRUC-violation")],
    );

    // Packages.
    let (a, b) = (coin(), coin());
    let parent = spend(3, &[&a], vec![pay(1, SAT), anchor(0)]);
    let hook = anchor_coin(&parent, 1);
    let kept = output_coin(&parent, 0, 1);
    let poor = spend(3, &[&b, &hook], vec![pay(2, SAT - 200)]);
    let blind = spend(3, &[&kept, &b], vec![pay(2, 2 * SAT - 2_000)]);
    let good = spend(3, &[&b, &hook], vec![pay(2, SAT - 1_000)]);
    let dearer = spend(3, &[&b, &hook], vec![pay(2, SAT - 3_000)]);
    case(
        "a child pays for a parent without fee and takes its dust",
        vec![
            (vec![parent.clone()], "min relay fee not met"),
            (vec![parent.clone(), poor], "min relay fee not met"),
            (vec![parent.clone(), blind], "missing-ephemeral-spends"),
            (vec![good.clone(), parent.clone()], "package-not-sorted"),
            (vec![parent.clone(), good.clone()], ""),
            (vec![parent.clone(), good], ""),
            (vec![parent, dearer], ""),
        ],
    );
    let (a, b, c) = (coin(), coin(), coin());
    let one = spend(2, &[&a], vec![pay(1, SAT)]);
    let two = spend(2, &[&b], vec![pay(2, SAT)]);
    let both = spend(
        2,
        &[&output_coin(&one, 0, 1), &output_coin(&two, 0, 2), &c],
        vec![pay(3, 3 * SAT - 5_000)],
    );
    let alone = spend(2, &[&c], vec![pay(4, SAT - 9_000)]);
    case(
        "a child with two parents",
        vec![
            (vec![one.clone(), alone], "package-not-child-with-parents"),
            (vec![one, two, both], ""),
        ],
    );
    let (a, b, c) = (coin(), coin(), coin());
    let theirs = spend(3, &[&a], vec![pay(1, SAT), anchor(0)]);
    let ours = spend(3, &[&a], vec![pay(2, SAT), anchor(0)]);
    let their_child = spend(3, &[&b, &anchor_coin(&theirs, 1)], vec![pay(3, SAT - 2_000)]);
    let hook = anchor_coin(&ours, 1);
    let too_low = spend(3, &[&c, &hook], vec![pay(4, SAT - 2_050)]);
    let enough = spend(3, &[&c, &hook], vec![pay(4, SAT - 4_000)]);
    case(
        "a package replaces a package",
        vec![
            (vec![theirs, their_child], ""),
            (vec![ours.clone(), too_low], "package RBF failed: insufficient anti-DoS fees"),
            (vec![ours, enough], ""),
        ],
    );
    let (a, b) = (coin(), coin());
    let small = spend(3, &[&a], vec![pay(1, SAT), anchor(0)]);
    let payer = spend(3, &[&b, &anchor_coin(&small, 1)], vec![pay(3, SAT - 1_500)]);
    let bulky = spend(3, &[&a], vec![pay(2, SAT - 3_200), padding(1_400)]);
    case(
        "more fee at a worse feerate replaces nothing",
        vec![(vec![small, payer], ""), (vec![bulky], "replacement-failed")],
    );
    cases
}
