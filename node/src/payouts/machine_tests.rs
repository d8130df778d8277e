//! The machine, by tables and against a model.

use proptest::prelude::*;

use super::*;
use crate::payouts::record::{Quote, Runs, Settings, Tally};
use crate::payouts::schedule::{Period, Recurrence};

pub(super) fn record(good_lines: u32, bad_lines: u32) -> PayoutRecord {
    PayoutRecord {
        id: PayoutId([1; 16]),
        settings: Settings {
            name: String::new(),
            max_total_msat: None,
            max_line_msat: None,
            max_line_fee_msat: None,
            concurrency: 5,
            feerate_sat_per_vb: None,
            time_limit_seconds: 60,
            not_before_ms: None,
            recurrence: None,
        },
        quote: Quote {
            good_lines,
            bad_lines,
            total_msat: u64::from(good_lines) * 1_000,
            max_fee_msat: u64::from(good_lines) * 10,
            ..Quote::default()
        },
        state: PayoutState::Quoted,
        skips_bad_lines: false,
        tally: Tally { pending: good_lines, ..Tally::default() },
        runs: Runs::default(),
        parent: None,
        created_ms: 1,
        accepted_ms: None,
        started_ms: None,
        ended_ms: None,
        deadline_ms: None,
        charged_msat: 0,
        detail: String::new(),
    }
}

fn accept(record: &PayoutRecord, skip_bad_lines: bool) -> Input {
    let Quote { total_msat, max_fee_msat, .. } = record.quote;
    Input::Accept { total_msat, max_fee_msat, skip_bad_lines }
}

fn after(record: &PayoutRecord, input: Input) -> PayoutRecord {
    decide(record, input, 1_000).unwrap().after
}

fn line(from: LineState, to: LineState) -> Input {
    let (paid_msat, fee_msat) = if to == LineState::Paid { (1_000, 3) } else { (0, 0) };
    Input::Line { number: 1, from, to, paid_msat, fee_msat }
}

#[test]
fn only_what_was_quoted_can_be_accepted() {
    let quoted = record(3, 1);
    let Input::Accept { total_msat, max_fee_msat, .. } = accept(&quoted, true) else {
        unreachable!("it is one")
    };
    for (total, fee) in [(total_msat + 1, max_fee_msat), (total_msat, max_fee_msat - 1)] {
        let other = Input::Accept { total_msat: total, max_fee_msat: fee, skip_bad_lines: true };
        assert!(matches!(decide(&quoted, other, 1), Err(Rejection::Quote { .. })));
    }
    let refused = decide(&quoted, accept(&quoted, false), 1);
    assert_eq!(refused, Err(Rejection::BadLines { lines: 1 }));
    let empty = record(0, 4);
    assert_eq!(decide(&empty, accept(&empty, true), 1), Err(Rejection::NothingToPay));
    let running = after(&quoted, accept(&quoted, true));
    assert_eq!((running.state, running.deadline_ms), (PayoutState::Running, Some(61_000)));
    assert!(matches!(decide(&running, accept(&running, true), 1), Err(Rejection::State { .. })));
}

#[test]
fn a_payout_waits_for_its_time() {
    let mut quoted = record(1, 0);
    quoted.settings.not_before_ms = Some(5_000);
    let waits = after(&quoted, accept(&quoted, false));
    assert_eq!((waits.state, waits.deadline_ms), (PayoutState::Scheduled, None));
    let begins = decide(&waits, Input::Due, 5_000).unwrap();
    assert_eq!(
        (begins.after.state, begins.steps),
        (PayoutState::Running, vec![PayoutStep::Started])
    );
    // Paused over its time, it begins when it is resumed.
    let paused = after(&waits, Input::Pause);
    assert_eq!(decide(&paused, Input::Due, 5_000).unwrap().after.state, PayoutState::Paused);
    let resumed = decide(&paused, Input::Resume, 6_000).unwrap();
    assert_eq!(resumed.steps, [PayoutStep::Resumed, PayoutStep::Started]);
}

#[test]
fn what_is_under_way_ends_before_a_payout_does() {
    use LineState as L;
    let quoted = record(2, 0);
    let running = after(&quoted, accept(&quoted, false));
    let one = after(&running, line(L::Pending, L::Paying));
    let cancelled = decide(&one, Input::Cancel, 2_000).unwrap();
    assert_eq!(
        (cancelled.after.state, cancelled.pending),
        (PayoutState::Cancelling, Pending::Cancel)
    );
    assert_eq!(cancelled.after.tally.cancelled, 1);
    assert!(matches!(decide(&cancelled.after, Input::Resume, 1), Err(Rejection::State { .. })));
    let ended = decide(&cancelled.after, line(L::Paying, L::Paid), 3_000).unwrap();
    assert_eq!(ended.after.state, PayoutState::Cancelled);
    assert_eq!(ended.steps, [PayoutStep::Cancelled { paid_msat: 1_000, fee_msat: 3 }]);
    // Nothing under way: at once.
    let at_once = decide(&quoted, Input::Cancel, 1).unwrap();
    assert_eq!(at_once.after.state, PayoutState::Cancelled);
}

#[test]
fn what_failed_can_be_paid_anew_after_the_end() {
    use LineState as L;
    let quoted = record(1, 0);
    let mut now = after(&quoted, accept(&quoted, false));
    assert_eq!(decide(&now, Input::Retry { lines: 0 }, 1), Err(Rejection::NothingToRetry));
    now = after(&now, line(L::Pending, L::Paying));
    let failed = decide(&now, line(L::Paying, L::Failed), 9).unwrap();
    let end = PayoutStep::Completed { paid_msat: 0, fee_msat: 0, failed_lines: 1 };
    assert_eq!(failed.steps, [PayoutStep::LineFailed { line: 1 }, end]);
    let again = decide(&failed.after, Input::Retry { lines: 1 }, 70_000).unwrap().after;
    assert_eq!((again.state, again.tally.pending, again.ended_ms), (PayoutState::Running, 1, None));
    assert_eq!(again.deadline_ms, Some(130_000));
    let mut run = failed.after;
    run.parent = Some((PayoutId([2; 16]), 1));
    assert!(matches!(
        decide(&run, Input::Retry { lines: 1 }, 1),
        Err(Rejection::OfSchedule { .. })
    ));
}

#[test]
fn a_schedule_counts_what_its_runs_cost() {
    let mut quoted = record(2, 0);
    quoted.tally = Tally::default();
    let recurrence =
        Recurrence { period: Period::Month, runs_max: None, until_ms: None, budget_msat: 2_019 };
    quoted.settings.recurrence = Some(recurrence.clone());
    let dear = decide(&quoted, accept(&quoted, false), 1);
    assert_eq!(dear, Err(Rejection::Budget { run_msat: 2_020, budget_msat: 2_019 }));
    quoted.settings.recurrence = Some(Recurrence { budget_msat: 2_020, ..recurrence });
    let mut now = after(&quoted, accept(&quoted, false));
    assert_eq!(now.state, PayoutState::Scheduled);
    let run = PayoutId([9; 16]);
    let made = decide(&now, Input::Run { run, number: 4, missed: 4 }, 1).unwrap();
    assert_eq!(made.steps, [PayoutStep::RunsMissed { runs: 4 }]);
    now = after(&made.after, Input::Cancel);
    assert_eq!(now.state, PayoutState::Cancelling, "its run has not ended");
    now = after(&now, Input::RunEnded { cost_msat: 2_001 });
    assert_eq!((now.state, now.runs.spent_msat), (PayoutState::Cancelled, 2_001));
    // Heard twice, counted once.
    assert_eq!(after(&now, Input::RunEnded { cost_msat: 2_001 }).runs.spent_msat, 2_001);
}

proptest! {
    /// Whatever comes in whatever order: no line is lost or doubled, what ended stays ended
    /// unless it is retried, and each end is told once.
    #[test]
    fn lines_are_conserved(good in 1..6_u32, inputs in proptest::collection::vec(any::<u8>(), 1..120)) {
        use LineState as L;
        let mut now = record(good, 0);
        let mut lines = vec![L::Pending; good as usize];
        let mut ends = 0_i32;
        for (at, choice) in inputs.into_iter().enumerate() {
            let number = usize::from(choice / 16) % lines.len();
            let move_to = |from: L, to: L, lines: &mut Vec<L>| {
                (lines[number] == from).then(|| { lines[number] = to; line(from, to) })
            };
            let runs = now.state == PayoutState::Running;
            let failed = lines.iter().filter(|state| **state == L::Failed).count() as u32;
            let input = match choice % 16 {
                0 | 1 => Some(accept(&now, false)),
                2 => Some(Input::Pause),
                3 => Some(Input::Resume),
                4 if choice > 240 => Some(Input::Cancel),
                5 => Some(Input::Retry { lines: failed }),
                6 if runs && choice > 200 => Some(Input::Deadline),
                7..=9 if runs => move_to(L::Pending, L::Paying, &mut lines),
                10 | 11 => move_to(L::Paying, L::Paid, &mut lines),
                12 => move_to(L::Paying, L::Failed, &mut lines),
                13 if matches!(now.state, PayoutState::Running | PayoutState::Paused) => {
                    move_to(L::Paying, L::Pending, &mut lines)
                }
                _ => Some(Input::Due),
            };
            let Some(input) = input else { continue };
            let before = now.clone();
            let Ok(decision) = decide(&now, input, at as u64) else { continue };
            if let Input::Retry { .. } = input {
                ends -= i32::from(before.state.is_final());
                for state in lines.iter_mut().filter(|state| **state == L::Failed) {
                    *state = L::Pending;
                }
            }
            for state in lines.iter_mut().filter(|state| **state == L::Pending) {
                match decision.pending {
                    Pending::Stay => {}
                    Pending::Cancel => *state = L::Cancelled,
                    Pending::Fail => *state = L::Failed,
                }
            }
            now = decision.after;
            ends += decision.steps.iter().filter(|step| {
                matches!(step, PayoutStep::Completed { .. } | PayoutStep::Cancelled { .. })
            }).count() as i32;
            let mut counted = Tally { paid_msat: now.tally.paid_msat, fee_msat: now.tally.fee_msat, ..Tally::default() };
            for state in &lines {
                counted.moved(L::Bad, *state);
            }
            prop_assert_eq!(now.tally, counted, "after {:?}", input);
            prop_assert_eq!(now.tally.paid_msat, u64::from(now.tally.paid) * 1_000);
            prop_assert_eq!(i32::from(now.state.is_final()), ends);
            prop_assert_eq!(now.ended_ms.is_some(), now.state.is_final());
            if now.state.is_final() {
                prop_assert_eq!((now.tally.pending, now.tally.paying), (0, 0));
            }
        }
    }
}
