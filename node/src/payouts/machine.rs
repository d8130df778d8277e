//! The life of a payout as a pure machine: a record, an input, a decision.
//!
//! ```text
//! Quoted → Scheduled → Running → Completed ─(retry)→ Running
//!    │          └──┬──────┘ ↕
//!    │             └──── Paused
//!    └──→ Cancelled ←─ Cancelling ←── any of them, once what is under way has ended
//! ```
//!
//! A schedule goes the same way without `Running`: its runs are payouts of their own.

use super::record::{LineState, PayoutRecord, PayoutState};
use crate::journal::{PayoutId, PayoutStep};

/// What can come to a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Somebody agrees to what was quoted.
    Accept {
        /// What the receivers get, as he saw it, msat.
        total_msat: u64,
        /// The most it may cost beyond, as he saw it, msat.
        max_fee_msat: u64,
        /// Whether bad lines are left out.
        skip_bad_lines: bool,
    },
    /// Its time has come.
    Due,
    /// Begin nothing new.
    Pause,
    /// Go on.
    Resume,
    /// Begin nothing new, ever.
    Cancel,
    /// Lines that failed are to be paid.
    Retry {
        /// How many.
        lines: u32,
    },
    /// A line changed.
    Line {
        /// Its number.
        number: u32,
        /// The state it was in.
        from: LineState,
        /// The state it is in.
        to: LineState,
        /// What its receiver got, msat.
        paid_msat: u64,
        /// What that cost, msat.
        fee_msat: u64,
    },
    /// The time for pending lines is over.
    Deadline,
    /// A schedule makes a run.
    Run {
        /// Its name.
        run: PayoutId,
        /// The number of its time.
        number: u32,
        /// Times that went by before it.
        missed: u32,
    },
    /// A run of it has ended.
    RunEnded {
        /// What it cost, msat.
        cost_msat: u64,
    },
    /// There will be no further run.
    Over,
}

/// What happens to all lines that are pending, in the batch of the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    Stay,
    /// They are cancelled.
    Cancel,
    /// They are given up.
    Fail,
}

/// What an input comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The payout after it.
    pub after: PayoutRecord,
    /// What happened.
    pub steps: Vec<PayoutStep>,
    /// What becomes of pending lines; they are counted already.
    pub pending: Pending,
}

/// Why an input is refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// It is in another state.
    #[error("the payout is {state:?}; it can be {verb} while it is {wanted}")]
    State {
        /// Which.
        state: PayoutState,
        /// What was wanted.
        verb: &'static str,
        /// When that can be.
        wanted: &'static str,
    },
    /// Something else was quoted.
    #[error(
        "the quote is {total_msat} msat and at most {max_fee_msat} msat in fees, accepted were {given_total_msat} msat and {given_max_fee_msat} msat; read the quote again"
    )]
    Quote {
        /// What the receivers get, msat.
        total_msat: u64,
        /// The most it may cost beyond, msat.
        max_fee_msat: u64,
        /// What was accepted.
        given_total_msat: u64,
        /// What was accepted.
        given_max_fee_msat: u64,
    },
    /// Some lines cannot be paid.
    #[error("{lines} lines cannot be paid; correct the file, or accept with skip_bad_lines")]
    BadLines {
        /// How many.
        lines: u32,
    },
    /// No line can be paid.
    #[error("no line can be paid")]
    NothingToPay,
    /// One run costs more than all may.
    #[error("one run may cost {run_msat} msat, the budget of all is {budget_msat} msat")]
    Budget {
        /// Most that a run may cost, msat.
        run_msat: u64,
        /// The budget, msat.
        budget_msat: u64,
    },
    /// No line has failed.
    #[error("no line of those named has failed for good")]
    NothingToRetry,
    /// It belongs to a schedule.
    #[error(
        "the payout is a run of schedule {schedule}; what failed can be paid by a payout of its own"
    )]
    OfSchedule {
        /// Which.
        schedule: PayoutId,
    },
}

/// Decides what `input` means for a payout.
///
/// # Errors
///
/// See [`Rejection`].
pub fn decide(before: &PayoutRecord, input: Input, now_ms: u64) -> Result<Decision, Rejection> {
    let mut decision =
        Decision { after: before.clone(), steps: Vec::new(), pending: Pending::Stay };
    let state = before.state;
    let refuse = |verb, wanted| Err(Rejection::State { state, verb, wanted });
    use PayoutState as S;
    match input {
        Input::Accept { total_msat, max_fee_msat, skip_bad_lines } => {
            if state != S::Quoted {
                return refuse("accepted", "quoted");
            }
            acceptable(before, total_msat, max_fee_msat, skip_bad_lines)?;
            decision.after.skips_bad_lines = skip_bad_lines;
            decision.after.accepted_ms = Some(now_ms);
            decision.steps.push(PayoutStep::Accepted { total_msat, max_fee_msat });
            go_on(&mut decision, now_ms);
        }
        Input::Due if state == S::Scheduled && !before.is_schedule() => {
            go_on(&mut decision, now_ms)
        }
        Input::Due => {}
        Input::Pause => {
            if !matches!(state, S::Scheduled | S::Running) {
                return refuse("paused", "scheduled or running");
            }
            decision.after.state = S::Paused;
            decision.after.detail.clear();
            decision.steps.push(PayoutStep::Paused);
        }
        Input::Resume => {
            if state != S::Paused {
                return refuse("resumed", "paused");
            }
            decision.steps.push(PayoutStep::Resumed);
            go_on(&mut decision, now_ms);
        }
        Input::Cancel => {
            if state.is_final() || state == S::Cancelling {
                return refuse("cancelled", "not at its end");
            }
            let tally = &mut decision.after.tally;
            tally.cancelled += std::mem::take(&mut tally.pending);
            decision.after.state = S::Cancelling;
            decision.pending = Pending::Cancel;
        }
        Input::Retry { lines } => {
            if !matches!(state, S::Running | S::Paused | S::Completed) || before.is_schedule() {
                return refuse("retried", "running, paused or completed, and no schedule");
            }
            if let Some((schedule, _)) = before.parent {
                return Err(Rejection::OfSchedule { schedule });
            }
            if lines == 0 {
                return Err(Rejection::NothingToRetry);
            }
            let tally = &mut decision.after.tally;
            tally.failed = tally.failed.saturating_sub(lines);
            tally.pending += lines;
            decision.after.ended_ms = None;
            decision.steps.push(PayoutStep::Retried { lines });
            if state != S::Paused {
                decision.after.state = S::Running;
                set_deadline(&mut decision.after, now_ms);
            }
        }
        Input::Line { number, from, to, paid_msat, fee_msat } => {
            let tally = &mut decision.after.tally;
            tally.moved(from, to);
            tally.paid_msat = tally.paid_msat.saturating_add(paid_msat);
            tally.fee_msat = tally.fee_msat.saturating_add(fee_msat);
            if to == LineState::Failed {
                decision.steps.push(PayoutStep::LineFailed { line: number });
            }
        }
        Input::Deadline => {
            let tally = &mut decision.after.tally;
            tally.failed += std::mem::take(&mut tally.pending);
            decision.pending = Pending::Fail;
        }
        Input::Run { run, number, missed } => {
            let runs = &mut decision.after.runs;
            runs.next = number.saturating_add(1);
            runs.made += 1;
            runs.missed = runs.missed.saturating_add(missed);
            runs.open = Some(run);
            if missed > 0 {
                decision.steps.push(PayoutStep::RunsMissed { runs: missed });
            }
        }
        Input::RunEnded { cost_msat } => {
            let runs = &mut decision.after.runs;
            if runs.open.take().is_some() {
                runs.spent_msat = runs.spent_msat.saturating_add(cost_msat);
            }
        }
        Input::Over => decision.after.state = S::Completed,
    }
    end(&mut decision, state, now_ms);
    Ok(decision)
}

fn acceptable(
    before: &PayoutRecord,
    total_msat: u64,
    max_fee_msat: u64,
    skip_bad_lines: bool,
) -> Result<(), Rejection> {
    let quote = &before.quote;
    if (total_msat, max_fee_msat) != (quote.total_msat, quote.max_fee_msat) {
        return Err(Rejection::Quote {
            total_msat: quote.total_msat,
            max_fee_msat: quote.max_fee_msat,
            given_total_msat: total_msat,
            given_max_fee_msat: max_fee_msat,
        });
    }
    if quote.good_lines == 0 {
        return Err(Rejection::NothingToPay);
    }
    if quote.bad_lines > 0 && !skip_bad_lines {
        return Err(Rejection::BadLines { lines: quote.bad_lines });
    }
    let run_msat = quote.most_msat();
    match &before.settings.recurrence {
        Some(recurrence) if run_msat > recurrence.budget_msat => {
            Err(Rejection::Budget { run_msat, budget_msat: recurrence.budget_msat })
        }
        _ => Ok(()),
    }
}

/// Leads an accepted payout to where it belongs now.
fn go_on(decision: &mut Decision, now_ms: u64) {
    let after = &mut decision.after;
    let is_early = after.settings.not_before_ms.is_some_and(|at_ms| at_ms > now_ms);
    after.detail.clear();
    if after.is_schedule() || is_early {
        after.state = PayoutState::Scheduled;
        return;
    }
    after.state = PayoutState::Running;
    set_deadline(after, now_ms);
    if after.started_ms.is_none() {
        after.started_ms = Some(now_ms);
        decision.steps.push(PayoutStep::Started);
    }
}

fn set_deadline(after: &mut PayoutRecord, now_ms: u64) {
    let limit_ms = after.settings.time_limit_seconds.saturating_mul(1_000);
    after.deadline_ms = Some(now_ms.saturating_add(limit_ms));
}

/// Ends what has nothing left to do.
fn end(decision: &mut Decision, before: PayoutState, now_ms: u64) {
    let after = &mut decision.after;
    let tally = after.tally;
    let is_idle = tally.paying == 0 && after.runs.open.is_none();
    match after.state {
        PayoutState::Cancelling if is_idle => after.state = PayoutState::Cancelled,
        PayoutState::Running if is_idle && tally.pending == 0 => {
            after.state = PayoutState::Completed;
        }
        _ => {}
    }
    if !after.state.is_final() || before.is_final() {
        return;
    }
    after.ended_ms = Some(now_ms);
    let (cost_msat, fee_msat) = (after.cost_msat(), tally.fee_msat);
    let paid_msat = cost_msat.saturating_sub(fee_msat);
    decision.steps.push(match after.state {
        PayoutState::Cancelled => PayoutStep::Cancelled { paid_msat, fee_msat },
        _ => PayoutStep::Completed { paid_msat, fee_msat, failed_lines: tally.failed },
    });
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
