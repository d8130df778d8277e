//! The plan as tables.

use bitcoin::FeeRate;

use super::plan::{Look, Paid, Rates, Standing, Step, step};

const BEST: u32 = 700;

#[test]
fn a_path_stands_where_the_chain_says() {
    let next = |level| Standing::Next { level };
    let on_chain = |confirmations| Standing::OnChain { confirmations };
    #[rustfmt::skip]
    let table: [(bool, Option<u32>, &[bool], Standing); 12] = [
        // Root in a block, height of the leaf, unspent inputs by level.
        (false, None, &[false, false], Standing::AwaitsRoot),
        // A source that is a block ahead of us counts from its block on.
        (false, None, &[true, false], Standing::AwaitsRoot),
        (true, None, &[true], next(0)),
        (true, None, &[true, false, false], next(0)),
        (true, None, &[false, true, false], next(1)),
        (true, None, &[false, false, true], next(2)),
        (true, None, &[false, false, false], Standing::Lost),
        (true, Some(700), &[], on_chain(1)),
        (true, Some(696), &[], on_chain(5)),
        (true, Some(695), &[], Standing::Buried),
        (true, Some(1), &[], Standing::Buried),
        // A leaf in a block that a reorg of the root has not caught up with.
        (false, Some(701), &[], on_chain(0)),
    ];
    for (row, (root_confirmed, leaf, inputs, expected)) in table.into_iter().enumerate() {
        let look = Look { best: BEST, root_confirmed, leaf, inputs };
        assert_eq!(look.standing(), expected, "row {row}");
    }
}

#[test]
fn a_child_is_replaced_at_each_block_for_a_quarter_more() {
    let rate = FeeRate::from_sat_per_kwu;
    let paid = |feerate, at| Some(Paid { feerate: rate(feerate), at });
    let pay = |feerate| Step::Pay(rate(feerate));
    #[rustfmt::skip]
    let table = [
        // The last child, the estimate, what comes of it. The most is 100,000.
        (None, 5_000, pay(5_000)),
        (None, 400_000, pay(100_000)),
        (paid(5_000, None), 5_000, Step::Repeat),
        (paid(5_000, Some(BEST)), 50_000, Step::Keep),
        (paid(5_000, Some(BEST + 1)), 50_000, Step::Keep),
        (paid(5_000, Some(BEST - 1)), 5_000, pay(6_250)),
        (paid(5_001, Some(BEST - 1)), 253, pay(6_252)),
        (paid(5_000, Some(BEST - 9)), 20_000, pay(20_000)),
        (paid(90_000, Some(BEST - 1)), 5_000, pay(100_000)),
        (paid(100_000, Some(BEST - 1)), 400_000, Step::Keep),
        // The setting was lowered since.
        (paid(200_000, Some(BEST - 1)), 5_000, Step::Keep),
    ];
    for (row, (paid, wanted, expected)) in table.into_iter().enumerate() {
        let rates = Rates { wanted: rate(wanted), most: rate(100_000) };
        assert_eq!(step(paid, BEST, rates), expected, "row {row}");
    }
}
