//! Payouts for people.

use comfy_table::{Cell, Color};
use proto::v1::{
    Payout, PayoutLine, PayoutLineReason, PayoutLineState, PayoutPeriod, PayoutProgress,
    PayoutQuote, PayoutRecurrence, PayoutState, Reconciliation,
};

use super::table::{begin, finish, shortened, words};
use super::text::{Card, msats, sats, utc};
use crate::amount::{grouped, sat_from_msat};

/// Longest text of others in a table, in characters.
const CELL_MAX: usize = 60;

fn state(state: PayoutState) -> (String, Color) {
    let colour = match state {
        PayoutState::Completed => Color::Green,
        PayoutState::Running | PayoutState::Scheduled => Color::Yellow,
        PayoutState::Quoted | PayoutState::Paused => Color::DarkYellow,
        _ => Color::DarkGrey,
    };
    (words(state.as_str_name(), "PAYOUT_STATE_"), colour)
}

fn line_state(state: PayoutLineState) -> (String, Color) {
    let colour = match state {
        PayoutLineState::Paid => Color::Green,
        PayoutLineState::Bad | PayoutLineState::Failed => Color::Red,
        PayoutLineState::Pending | PayoutLineState::Paying => Color::Yellow,
        _ => Color::DarkGrey,
    };
    (words(state.as_str_name(), "PAYOUT_LINE_STATE_"), colour)
}

fn why(line: &PayoutLine) -> String {
    let reason = line.reason.and_then(|reason| PayoutLineReason::try_from(reason).ok());
    let reason = reason.map(|reason| words(reason.as_str_name(), "PAYOUT_LINE_REASON_"));
    match (reason, line.detail.as_str()) {
        (None, detail) => shortened(detail, CELL_MAX),
        (Some(reason), "") => reason,
        (Some(reason), detail) => format!("{reason}: {}", shortened(detail, CELL_MAX)),
    }
}

/// One payout.
pub fn one(payout: &Payout) -> String {
    let mut card = Card::default();
    let settings = payout.settings.clone().unwrap_or_default();
    let (state, _) = state(payout.state());
    card.line("payout", hex::encode(&payout.payout_id))
        .maybe("name", Some(shortened(&settings.name, 256)).filter(|name| !name.is_empty()))
        .line("state", state)
        .maybe("", Some(shortened(&payout.detail, 700)).filter(|detail| !detail.is_empty()))
        .maybe(
            "run",
            payout.run.map(|run| {
                let schedule =
                    hex::encode(payout.schedule_payout_id.as_deref().unwrap_or_default());
                format!("{run} of schedule {schedule}")
            }),
        );
    if let Some(quote) = &payout.quote {
        quoted(&mut card, quote);
    }
    if let Some(recurrence) = &settings.recurrence {
        card.line("repeated", repeated(recurrence));
        card.line("budget", msats(recurrence.budget_msat));
    }
    if let Some(runs) = &payout.runs {
        card.line("runs", format!("{} made, {} missed", runs.made, runs.missed))
            .line("spent", msats(runs.spent_msat))
            .maybe("under way", runs.open_payout_id.as_ref().map(hex::encode));
    }
    if let Some(progress) = payout.progress.filter(|_| payout.state() != PayoutState::Quoted) {
        card.line("lines", counts(&progress))
            .line("paid", msats(progress.done_msat))
            .line("fees", msats(progress.fee_msat));
    }
    card.maybe("begins", settings.not_before_unix_ms.map(utc))
        .line("created", utc(payout.created_unix_ms))
        .maybe("ended", payout.ended_unix_ms.map(utc));
    card.finish()
}

fn quoted(card: &mut Card, quote: &PayoutQuote) {
    let onchain = match quote.onchain_lines {
        0 => String::new(),
        lines => format!(", {} on chain", grouped(lines.into())),
    };
    let lines = format!(
        "{} good{onchain}, {} bad",
        grouped(quote.good_lines.into()),
        grouped(quote.bad_lines.into())
    );
    let left_out = match quote.unestimated_lines {
        0 => String::new(),
        lines => format!(", {} lines left out", grouped(lines.into())),
    };
    card.line("quote", lines)
        .line("total", msats(quote.total_msat))
        .line("fees at most", msats(quote.max_fee_msat))
        .line("fees about", format!("{}{left_out}", msats(quote.estimated_fee_msat)))
        .maybe("first expiry", quote.earliest_expiry_unix_ms.map(utc));
    if !quote.covered {
        card.line(
            "too little",
            format!(
                "channels could send {}, the wallet {}: lines will wait",
                msats(quote.lightning_spendable_msat),
                sats(quote.onchain_spendable_sat)
            ),
        );
    }
}

fn repeated(recurrence: &PayoutRecurrence) -> String {
    let every = match recurrence.period() {
        PayoutPeriod::Seconds => format!("every {} s", recurrence.every_seconds.unwrap_or(0)),
        period => words(period.as_str_name(), "PAYOUT_PERIOD_"),
    };
    let runs = recurrence.runs_max.map(|runs| format!(", {runs} times")).unwrap_or_default();
    let until = recurrence.until_unix_ms.map(|at| format!(", until {}", utc(at)));
    format!("{every}{runs}{}", until.unwrap_or_default())
}

fn counts(progress: &PayoutProgress) -> String {
    let counts = [
        (progress.done_lines, "paid"),
        (progress.paying_lines, "under way"),
        (progress.pending_lines, "waiting"),
        (progress.failed_lines, "given up"),
        (progress.cancelled_lines, "cancelled"),
    ];
    let told = counts.iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> =
        told.map(|(count, word)| format!("{} {word}", grouped((*count).into()))).collect();
    told.join(", ")
}

/// A payout's state on one line.
pub fn progress(payout: &Payout) -> String {
    let (state, _) = state(payout.state());
    let rest = match (&payout.progress, &payout.runs) {
        (Some(progress), _) => {
            format!("{}; {}", counts(progress), msats(progress.done_msat))
        }
        (None, Some(runs)) => format!("{} runs; {}", runs.made, msats(runs.spent_msat)),
        (None, None) => String::new(),
    };
    format!("{state:<10} {rest}")
}

/// Payouts.
pub fn list(payouts: &[Payout]) -> String {
    let mut table = begin(&[
        "payout",
        "name",
        "state",
        ">good",
        ">bad",
        ">done",
        ">total sat",
        ">paid sat",
        "created",
    ]);
    for payout in payouts {
        let quote = payout.quote.unwrap_or_default();
        let (state, colour) = state(payout.state());
        let name = payout.settings.as_ref().map(|settings| shortened(&settings.name, CELL_MAX));
        let (done, paid_msat) = match (&payout.progress, &payout.runs) {
            (Some(progress), _) => (progress.done_lines.into(), progress.done_msat),
            (None, runs) => {
                runs.as_ref().map_or((0, 0), |runs| (runs.made.into(), runs.spent_msat))
            }
        };
        table.add_row(vec![
            Cell::new(hex::encode(&payout.payout_id)),
            Cell::new(name.unwrap_or_default()),
            Cell::new(state).fg(colour),
            Cell::new(grouped(quote.good_lines.into())),
            Cell::new(grouped(quote.bad_lines.into())),
            Cell::new(grouped(done)),
            Cell::new(sat_from_msat(quote.total_msat)),
            Cell::new(sat_from_msat(paid_msat)),
            Cell::new(utc(payout.created_unix_ms)),
        ]);
    }
    finish(table, "no payouts; `tributary payout create FILE` makes one")
}

/// Lines.
pub fn lines(lines: &[PayoutLine]) -> String {
    let mut table = begin(&[">line", "reference", "target", ">sat", ">fee sat", "state", "why"]);
    for line in lines {
        let (state, colour) = line_state(line.state());
        let number = match line.file_line {
            Some(at) => format!("{} (file {at})", line.number),
            None => line.number.to_string(),
        };
        table.add_row(vec![
            Cell::new(number),
            Cell::new(shortened(&line.reference, 30)),
            Cell::new(shortened(&line.target, 30)),
            Cell::new(sat_from_msat(line.amount_msat)),
            Cell::new(line.fee_msat.map(sat_from_msat).unwrap_or_default()),
            Cell::new(state).fg(colour),
            Cell::new(why(line)),
        ]);
    }
    finish(table, "no such lines")
}

/// Sums that agree.
pub fn reconciliation(sums: &Reconciliation) -> String {
    let progress = sums.progress.unwrap_or_default();
    let mut card = Card::default();
    card.line("payout", hex::encode(&sums.payout_id))
        .line("lines", format!("{}: {}", grouped(sums.lines.into()), counts(&progress)))
        .line("paid", msats(progress.done_msat))
        .line("fees", msats(progress.fee_msat))
        .line("channels", format!("{} in {} payments", msats(sums.lightning_msat), sums.payments))
        .line(
            "chain",
            format!("{} in {} transactions", msats(sums.onchain_msat), sums.transactions),
        )
        .maybe("runs", Some(sums.runs_msat).filter(|msat| *msat > 0).map(msats))
        .line("balances", "to the millisatoshi");
    card.finish()
}

/// The head of the reconciliation file.
pub const COLUMNS: [&str; 15] = [
    "line",
    "file_line",
    "reference",
    "kind",
    "target",
    "state",
    "amount_msat",
    "fee_msat",
    "payment_id",
    "outpoint",
    "preimage",
    "attempts",
    "begun_unix_ms",
    "ended_unix_ms",
    "reason",
];

/// A row of the reconciliation file.
pub fn row(line: &PayoutLine) -> [String; COLUMNS.len()] {
    let reason = line.reason.and_then(|reason| PayoutLineReason::try_from(reason).ok());
    let reason = reason.map(|reason| words(reason.as_str_name(), "PAYOUT_LINE_REASON_"));
    let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    let id = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode).unwrap_or_default();
    let output = line.output.as_ref();
    [
        line.number.to_string(),
        text(line.file_line),
        line.reference.clone(),
        words(line.kind().as_str_name(), "PAYOUT_LINE_KIND_"),
        line.target.clone(),
        words(line.state().as_str_name(), "PAYOUT_LINE_STATE_"),
        line.amount_msat.to_string(),
        text(line.fee_msat),
        id(&line.payment_id),
        output
            .map(|output| format!("{}:{}", hex::encode(&output.txid), output.output_index))
            .unwrap_or_default(),
        id(&line.preimage),
        line.attempts.to_string(),
        text(line.begun_unix_ms),
        text(line.ended_unix_ms),
        match (reason, line.detail.as_str()) {
            (Some(reason), detail) => format!("{reason}: {detail}"),
            (None, detail) => detail.to_owned(),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_shows_what_is_a_bound_and_what_is_not() {
        let quote = PayoutQuote {
            good_lines: 9_700,
            bad_lines: 300,
            total_msat: 5_000_500,
            max_fee_msat: 70_000,
            estimated_fee_msat: 12,
            ..PayoutQuote::default()
        };
        let payout = Payout {
            quote: Some(quote),
            state: PayoutState::Quoted.into(),
            progress: Some(PayoutProgress::default()),
            ..Payout::default()
        };
        let text = one(&payout);
        for part in
            ["9,700 good, 300 bad", "5,000.500 sat", "fees at most", "fees about", "too little"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("under way"));
    }

    #[test]
    fn a_line_says_why() {
        let mut line = PayoutLine {
            state: PayoutLineState::Bad.into(),
            reason: Some(PayoutLineReason::Dust.into()),
            detail: "1 sat is dust\u{1b}[2J".to_owned(),
            ..PayoutLine::default()
        };
        assert_eq!(why(&line), "dust: 1 sat is dust[2J", "nobody paints on the terminal");
        line.reason = None;
        line.detail.clear();
        assert_eq!(why(&line), "");
        assert_eq!(row(&line).len(), COLUMNS.len());
    }
}
