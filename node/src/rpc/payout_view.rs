//! What payouts and their lines look like to a caller.

use proto::v1;

use super::convert::outpoint;
use crate::journal::{PayoutEvent, PayoutId, PayoutStep};
use crate::payouts::{
    Balance, LineKind, LineReason, LineRecord, LineState, PayoutRecord, PayoutState, Period, Quote,
    Recurrence, Settings, Tally,
};

const DAY_SECONDS: u64 = 86_400;

/// Writes a payout.
pub(super) fn payout(record: &PayoutRecord) -> v1::Payout {
    let is_schedule = record.is_schedule();
    v1::Payout {
        payout_id: record.id.0.to_vec(),
        settings: Some(settings(&record.settings)),
        quote: Some(quote(&record.quote)),
        state: state(record.state).into(),
        detail: record.detail.clone(),
        progress: (!is_schedule).then(|| progress(&record.tally)),
        runs: is_schedule.then(|| v1::PayoutRuns {
            made: record.runs.made,
            missed: record.runs.missed,
            spent_msat: record.runs.spent_msat,
            open_payout_id: record.runs.open.map(|PayoutId(id)| id.to_vec()),
        }),
        schedule_payout_id: record.parent.map(|(PayoutId(id), _)| id.to_vec()),
        run: record.parent.map(|(_, run)| run),
        skips_bad_lines: record.skips_bad_lines,
        created_unix_ms: record.created_ms,
        accepted_unix_ms: record.accepted_ms,
        started_unix_ms: record.started_ms,
        deadline_unix_ms: record.deadline_ms,
        ended_unix_ms: record.ended_ms,
    }
}

fn settings(settings: &Settings) -> v1::PayoutSettings {
    v1::PayoutSettings {
        name: settings.name.clone(),
        max_total_msat: settings.max_total_msat,
        max_line_msat: settings.max_line_msat,
        max_line_fee_msat: settings.max_line_fee_msat,
        concurrency: Some(settings.concurrency),
        feerate_sat_per_vb: settings.feerate_sat_per_vb,
        time_limit_seconds: Some(settings.time_limit_seconds),
        not_before_unix_ms: settings.not_before_ms,
        recurrence: settings.recurrence.as_ref().map(recurrence),
    }
}

fn recurrence(recurrence: &Recurrence) -> v1::PayoutRecurrence {
    use v1::PayoutPeriod as P;
    let (period, every_seconds) = match recurrence.period {
        Period::Seconds(DAY_SECONDS) => (P::Daily, None),
        Period::Seconds(seconds) if seconds == 7 * DAY_SECONDS => (P::Weekly, None),
        Period::Seconds(seconds) => (P::Seconds, Some(seconds)),
        Period::Month => (P::Monthly, None),
    };
    v1::PayoutRecurrence {
        period: period.into(),
        every_seconds,
        runs_max: recurrence.runs_max,
        until_unix_ms: recurrence.until_ms,
        budget_msat: recurrence.budget_msat,
    }
}

fn quote(quote: &Quote) -> v1::PayoutQuote {
    v1::PayoutQuote {
        good_lines: quote.good_lines,
        bad_lines: quote.bad_lines,
        onchain_lines: quote.onchain_lines,
        total_msat: quote.total_msat,
        onchain_msat: quote.onchain_msat,
        max_fee_msat: quote.max_fee_msat,
        onchain_max_fee_msat: quote.onchain_max_fee_msat,
        estimated_fee_msat: quote.estimated_fee_msat,
        unestimated_lines: quote.unestimated_lines,
        earliest_expiry_unix_ms: quote.earliest_expiry_ms,
        lightning_spendable_msat: quote.lightning_spendable_msat,
        onchain_spendable_sat: quote.onchain_spendable_sat,
        covered: quote.is_covered(),
    }
}

fn progress(tally: &Tally) -> v1::PayoutProgress {
    v1::PayoutProgress {
        pending_lines: tally.pending,
        paying_lines: tally.paying,
        done_lines: tally.paid,
        failed_lines: tally.failed,
        cancelled_lines: tally.cancelled,
        done_msat: tally.paid_msat,
        fee_msat: tally.fee_msat,
    }
}

fn state(state: PayoutState) -> v1::PayoutState {
    match state {
        PayoutState::Quoted => v1::PayoutState::Quoted,
        PayoutState::Scheduled => v1::PayoutState::Scheduled,
        PayoutState::Running => v1::PayoutState::Running,
        PayoutState::Paused => v1::PayoutState::Paused,
        PayoutState::Cancelling => v1::PayoutState::Cancelling,
        PayoutState::Completed => v1::PayoutState::Completed,
        PayoutState::Cancelled => v1::PayoutState::Cancelled,
    }
}

/// Reads a state; `None` for none.
pub(super) fn read_state(state: v1::PayoutState) -> Option<PayoutState> {
    Some(match state {
        v1::PayoutState::Unspecified => return None,
        v1::PayoutState::Quoted => PayoutState::Quoted,
        v1::PayoutState::Scheduled => PayoutState::Scheduled,
        v1::PayoutState::Running => PayoutState::Running,
        v1::PayoutState::Paused => PayoutState::Paused,
        v1::PayoutState::Cancelling => PayoutState::Cancelling,
        v1::PayoutState::Completed => PayoutState::Completed,
        v1::PayoutState::Cancelled => PayoutState::Cancelled,
    })
}

/// Writes a line.
pub(super) fn line(line: &LineRecord) -> v1::PayoutLine {
    let kind = match line.kind {
        LineKind::Invoice => v1::PayoutLineKind::Invoice,
        LineKind::Offer => v1::PayoutLineKind::Offer,
        LineKind::Keysend => v1::PayoutLineKind::Keysend,
        LineKind::Address => v1::PayoutLineKind::Address,
    };
    let is_paid = line.state == LineState::Paid;
    v1::PayoutLine {
        number: line.number,
        file_line: line.file_line,
        kind: kind.into(),
        target: line.target.clone(),
        amount_msat: line.amount_msat,
        max_fee_msat: line.max_fee_msat,
        reference: line.reference.clone(),
        note: line.note.clone(),
        state: line_state(line.state).into(),
        reason: line.reason.map(|why| reason(why).into()),
        detail: line.detail.clone(),
        attempts: line.attempts,
        payment_id: line.payment.map(|id| id.0.to_vec()),
        output: line.output.map(outpoint),
        fee_msat: is_paid.then_some(line.fee_msat),
        preimage: line.preimage.filter(|_| is_paid).map(|preimage| preimage.0.to_vec()),
        begun_unix_ms: line.begun_ms,
        ended_unix_ms: line.ended_ms,
    }
}

fn line_state(state: LineState) -> v1::PayoutLineState {
    match state {
        LineState::Bad => v1::PayoutLineState::Bad,
        LineState::Pending => v1::PayoutLineState::Pending,
        LineState::Paying => v1::PayoutLineState::Paying,
        LineState::Paid => v1::PayoutLineState::Paid,
        LineState::Failed => v1::PayoutLineState::Failed,
        LineState::Cancelled => v1::PayoutLineState::Cancelled,
    }
}

/// Reads a line's state; `None` for none.
pub(super) fn read_line_state(state: v1::PayoutLineState) -> Option<LineState> {
    Some(match state {
        v1::PayoutLineState::Unspecified => return None,
        v1::PayoutLineState::Bad => LineState::Bad,
        v1::PayoutLineState::Pending => LineState::Pending,
        v1::PayoutLineState::Paying => LineState::Paying,
        v1::PayoutLineState::Paid => LineState::Paid,
        v1::PayoutLineState::Failed => LineState::Failed,
        v1::PayoutLineState::Cancelled => LineState::Cancelled,
    })
}

fn reason(reason: LineReason) -> v1::PayoutLineReason {
    use v1::PayoutLineReason as R;
    match reason {
        LineReason::Unreadable => R::Unreadable,
        LineReason::WrongNetwork => R::WrongNetwork,
        LineReason::Expired => R::Expired,
        LineReason::AmountMissing => R::AmountMissing,
        LineReason::AmountMismatch => R::AmountMismatch,
        LineReason::AmountOutOfRange => R::AmountOutOfRange,
        LineReason::Duplicate => R::Duplicate,
        LineReason::AlreadyPaid => R::AlreadyPaid,
        LineReason::PaysItself => R::PaysItself,
        LineReason::Dust => R::Dust,
        LineReason::AboveLineLimit => R::AboveLineLimit,
        LineReason::AboveTotalLimit => R::AboveTotalLimit,
        LineReason::NotRepeatable => R::NotRepeatable,
        LineReason::NoteUnsupported => R::NoteUnsupported,
        LineReason::Liquidity => R::Liquidity,
        LineReason::NoRoute => R::NoRoute,
        LineReason::Rejected => R::Rejected,
        LineReason::NoAnswer => R::NoAnswer,
        LineReason::FeeTooHigh => R::FeeTooHigh,
        LineReason::TimedOut => R::TimedOut,
        LineReason::DoubleSpent => R::DoubleSpent,
        LineReason::Unexpected => R::Unexpected,
    }
}

/// Writes sums that agree.
pub(super) fn reconciliation(id: PayoutId, balance: &Balance) -> v1::Reconciliation {
    v1::Reconciliation {
        payout_id: id.0.to_vec(),
        lines: balance.lines,
        progress: Some(progress(&balance.tally)),
        lightning_msat: balance.lightning_msat,
        onchain_msat: balance.onchain_msat,
        payments: balance.payments,
        transactions: balance.transactions,
        runs_msat: balance.runs_msat,
    }
}

/// Writes an event.
pub(super) fn event(event: &PayoutEvent) -> v1::PayoutEvent {
    use v1::PayoutEventKind as K;
    let (kind, line, count, total_msat, fee_msat) = match &event.what {
        PayoutStep::Created { good_lines, total_msat, .. } => {
            (K::Created, None, Some(*good_lines), Some(*total_msat), None)
        }
        PayoutStep::Accepted { total_msat, max_fee_msat } => {
            (K::Accepted, None, None, Some(*total_msat), Some(*max_fee_msat))
        }
        PayoutStep::Started => (K::Started, None, None, None, None),
        PayoutStep::Paused => (K::Paused, None, None, None, None),
        PayoutStep::Resumed => (K::Resumed, None, None, None, None),
        PayoutStep::Retried { lines } => (K::Retried, None, Some(*lines), None, None),
        PayoutStep::LineFailed { line } => (K::LineFailed, Some(*line), None, None, None),
        PayoutStep::RunsMissed { runs } => (K::RunsMissed, None, Some(*runs), None, None),
        PayoutStep::Completed { paid_msat, fee_msat, failed_lines } => {
            (K::Completed, None, Some(*failed_lines), Some(*paid_msat), Some(*fee_msat))
        }
        PayoutStep::Cancelled { paid_msat, fee_msat } => {
            (K::Cancelled, None, None, Some(*paid_msat), Some(*fee_msat))
        }
    };
    let payout_id = event.payout.0.to_vec();
    v1::PayoutEvent { payout_id, kind: kind.into(), line, count, total_msat, fee_msat }
}
