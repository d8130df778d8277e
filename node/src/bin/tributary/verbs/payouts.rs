//! `payout create`, `list`, `show`, `lines`, `accept`, `pause`, `resume`, `cancel`, `retry`,
//! `watch`, `reconcile`.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::Path;

use node::environment::{Clock, SystemClock};
use proto::v1::{
    AcceptPayoutRequest, CancelPayoutRequest, CreatePayoutRequest, ExportPayoutLinesRequest,
    GetPayoutRequest, GetReconciliationRequest, ListPayoutLinesRequest, ListPayoutLinesResponse,
    ListPayoutsRequest, ListPayoutsResponse, PausePayoutRequest, Payout, PayoutLineState,
    PayoutPeriod, PayoutRecurrence, PayoutSettings, PayoutState, ResumePayoutRequest,
    RetryPayoutRequest, WatchPayoutRequest, create_payout_request,
};
use tokio_stream::iter;

use super::{money, note_cut, pages};
use crate::amount::sat_from_msat;
use crate::args::payout::{
    Calendar, Every, PayoutAcceptArgs, PayoutCreateArgs, PayoutLineStateArg, PayoutLinesArgs,
    PayoutListArgs, PayoutOneArgs, PayoutReconcileArgs, PayoutRetryArgs, PayoutShowArgs,
    PayoutStateArg, PayoutVerb,
};
use crate::client::Client;
use crate::error::CliError;
use crate::output::{Output, payout};

/// Bytes of a file in one message.
const PIECE: usize = 1 << 20;
/// Bad lines shown with a quote.
const BAD_LINES_SHOWN: u32 = 20;

/// Runs one of them.
pub async fn run(verb: PayoutVerb, client: &Client, out: Output) -> Result<(), CliError> {
    match verb {
        PayoutVerb::Create(args) => create(client, out, args).await,
        PayoutVerb::List(args) => list(client, out, &args).await,
        PayoutVerb::Show(args) => show(client, out, &args).await,
        PayoutVerb::Lines(args) => lines(client, out, &args).await,
        PayoutVerb::Accept(args) => accept(client, out, args).await,
        PayoutVerb::Pause(args) => {
            let (idempotency_key, payout_id) = key_and_id(&args);
            let request =
                PausePayoutRequest { idempotency_key: idempotency_key.clone(), payout_id };
            changed(out, client.payouts().pause(request).await, &idempotency_key)
        }
        PayoutVerb::Resume(args) => {
            let (idempotency_key, payout_id) = key_and_id(&args);
            let request =
                ResumePayoutRequest { idempotency_key: idempotency_key.clone(), payout_id };
            changed(out, client.payouts().resume(request).await, &idempotency_key)
        }
        PayoutVerb::Cancel(args) => {
            let (idempotency_key, payout_id) = key_and_id(&args);
            let request =
                CancelPayoutRequest { idempotency_key: idempotency_key.clone(), payout_id };
            changed(out, client.payouts().cancel(request).await, &idempotency_key)
        }
        PayoutVerb::Retry(args) => retry(client, out, args).await,
        PayoutVerb::Watch(args) => watch(client, out, args.payout.into()).await,
        PayoutVerb::Reconcile(args) => reconcile(client, out, &args).await,
    }
}

fn key_and_id(args: &PayoutOneArgs) -> (String, Vec<u8>) {
    (args.mutation.key(), args.payout.into())
}

fn changed(
    out: Output,
    answer: Result<tonic::Response<Payout>, tonic::Status>,
    key: &str,
) -> Result<(), CliError> {
    out.answer(&money(answer, key)?, payout::one)
}

async fn create(client: &Client, out: Output, args: PayoutCreateArgs) -> Result<(), CliError> {
    let file = read(&args.file)?;
    let key = args.mutation.key();
    let now_ms = u64::try_from(SystemClock.now().as_millis()).unwrap_or(u64::MAX);
    let settings = settings(&args, now_ms);
    let messages = messages(key.clone(), settings, file);
    let made = money(client.payouts().create_stream(iter(messages)).await, &key)?;
    let quote = made.quote.unwrap_or_default();
    let bad = match quote.bad_lines {
        0 => Vec::new(),
        _ => bad_lines(client, &made.payout_id).await?,
    };
    // A repetition of a lost command begins where that ended; the key of the second step is the
    // first's with a letter behind.
    let wanted = match (args.yes, args.accept) {
        (true, _) => true,
        (false, Some(total)) if total.0 == quote.total_msat => true,
        (false, Some(total)) => {
            show_quote(out, &made, &bad)?;
            return Err(CliError::Failed(format!(
                "the quote pays {} sat, not {} sat: nothing was accepted",
                sat_from_msat(quote.total_msat),
                sat_from_msat(total.0)
            )));
        }
        (false, None) => false,
    };
    if !wanted {
        show_quote(out, &made, &bad)?;
        if out.is_json() || !io::stdin().is_terminal() || args.file.as_os_str() == "-" {
            out.note(&format!(
                "to pay it: tributary payout accept {} --total {}msat --max-fee {}msat{}",
                hex::encode(&made.payout_id),
                quote.total_msat,
                quote.max_fee_msat,
                if quote.bad_lines > 0 { " --skip-bad" } else { "" }
            ));
            return Ok(());
        }
        if !ask(quote.bad_lines > 0 && !args.skip_bad)? {
            return Ok(());
        }
    }
    let accept_key = format!("{}a", key.get(..63).unwrap_or(&key));
    let request = AcceptPayoutRequest {
        idempotency_key: accept_key.clone(),
        payout_id: made.payout_id.clone(),
        total_msat: quote.total_msat,
        max_fee_msat: quote.max_fee_msat,
        skip_bad_lines: args.skip_bad || (!wanted && quote.bad_lines > 0),
    };
    let accepted = money(client.payouts().accept(request).await, &accept_key)?;
    match args.wait {
        true => watch(client, out, accepted.payout_id).await,
        false => out.answer(&accepted, payout::one),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CliError> {
    let read = match path.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        false => std::fs::read(path),
    };
    read.map_err(|error| CliError::Usage(format!("cannot read {}: {error}", path.display())))
}

fn settings(args: &PayoutCreateArgs, now_ms: u64) -> PayoutSettings {
    let after = |from_ms: u64, seconds: u64| from_ms.saturating_add(seconds.saturating_mul(1_000));
    let not_before_unix_ms = args.later.map(|seconds| after(now_ms, seconds));
    let recurrence = args.every.map(|every| {
        let (period, every_seconds) = match every {
            Every::Named(Calendar::Daily) => (PayoutPeriod::Daily, None),
            Every::Named(Calendar::Weekly) => (PayoutPeriod::Weekly, None),
            Every::Named(Calendar::Monthly) => (PayoutPeriod::Monthly, None),
            Every::Seconds(seconds) => (PayoutPeriod::Seconds, Some(seconds)),
        };
        PayoutRecurrence {
            period: period.into(),
            every_seconds,
            runs_max: args.runs,
            until_unix_ms: args
                .lasting
                .map(|seconds| after(not_before_unix_ms.unwrap_or(now_ms), seconds)),
            budget_msat: args.budget.map(|budget| budget.0).unwrap_or_default(),
        }
    });
    PayoutSettings {
        name: args.name.clone(),
        max_total_msat: args.max_total.map(|amount| amount.0),
        max_line_msat: args.max_line.map(|amount| amount.0),
        max_line_fee_msat: args.max_line_fee.map(|amount| amount.0),
        concurrency: args.concurrency,
        feerate_sat_per_vb: args.feerate,
        time_limit_seconds: args.time_limit,
        not_before_unix_ms,
        recurrence,
    }
}

/// A file as messages: the first has key and settings.
fn messages(key: String, settings: PayoutSettings, file: Vec<u8>) -> Vec<CreatePayoutRequest> {
    let first = CreatePayoutRequest {
        idempotency_key: key,
        settings: Some(settings),
        source: Some(create_payout_request::Source::Csv(Vec::new())),
    };
    let piece = |piece: &[u8]| CreatePayoutRequest {
        source: Some(create_payout_request::Source::Csv(piece.to_vec())),
        ..CreatePayoutRequest::default()
    };
    std::iter::once(first).chain(file.chunks(PIECE).map(piece)).collect()
}

async fn bad_lines(
    client: &Client,
    payout_id: &[u8],
) -> Result<Vec<proto::v1::PayoutLine>, CliError> {
    let request = ListPayoutLinesRequest {
        payout_id: payout_id.to_vec(),
        states: vec![PayoutLineState::Bad.into()],
        page_size: Some(BAD_LINES_SHOWN),
        page_token: None,
    };
    Ok(client.payouts().list_lines(request).await?.into_inner().lines)
}

fn show_quote(out: Output, made: &Payout, bad: &[proto::v1::PayoutLine]) -> Result<(), CliError> {
    out.answer(made, |made| {
        let mut text = payout::one(made);
        if !bad.is_empty() {
            text = format!("{text}\n\n{}", payout::lines(bad).trim_end());
            let more = made.quote.unwrap_or_default().bad_lines as usize - bad.len();
            if more > 0 {
                let id = hex::encode(&made.payout_id);
                text = format!("{text}\n… {more} more: tributary payout lines {id} --state bad");
            }
        }
        text
    })
}

/// Asks at the terminal.
fn ask(has_bad_lines: bool) -> Result<bool, CliError> {
    let without = if has_bad_lines { " without the bad lines" } else { "" };
    anstream::eprint!("Pay this{without}? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

async fn list(client: &Client, out: Output, args: &PayoutListArgs) -> Result<(), CliError> {
    let states: Vec<i32> = args.state.iter().map(|state| state.code()).collect();
    let (payouts, next_page_token) = pages(args.list.limit, |size, page_token| {
        let mut service = client.payouts();
        let request = ListPayoutsRequest {
            states: states.clone(),
            schedule_payout_id: args.runs_of.map(Into::into),
            page_size: Some(size),
            page_token,
        };
        async move {
            let page = service.list(request).await?.into_inner();
            Ok((page.payouts, page.next_page_token))
        }
    })
    .await?;
    let list = ListPayoutsResponse { payouts, next_page_token };
    out.answer(&list, |list| payout::list(&list.payouts))?;
    note_cut(out, &list.next_page_token);
    Ok(())
}

async fn show(client: &Client, out: Output, args: &PayoutShowArgs) -> Result<(), CliError> {
    let request = GetPayoutRequest { payout_id: args.payout.into() };
    out.answer(&client.payouts().get(request).await?.into_inner(), payout::one)
}

async fn lines(client: &Client, out: Output, args: &PayoutLinesArgs) -> Result<(), CliError> {
    let states: Vec<i32> = args.state.iter().map(|state| state.code()).collect();
    let (lines, next_page_token) = pages(args.list.limit, |size, page_token| {
        let mut service = client.payouts();
        let request = ListPayoutLinesRequest {
            payout_id: args.payout.into(),
            states: states.clone(),
            page_size: Some(size),
            page_token,
        };
        async move {
            let page = service.list_lines(request).await?.into_inner();
            Ok((page.lines, page.next_page_token))
        }
    })
    .await?;
    let list = ListPayoutLinesResponse { lines, next_page_token };
    out.answer(&list, |list| payout::lines(&list.lines))?;
    note_cut(out, &list.next_page_token);
    Ok(())
}

async fn accept(client: &Client, out: Output, args: PayoutAcceptArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = AcceptPayoutRequest {
        idempotency_key: key.clone(),
        payout_id: args.payout.into(),
        total_msat: args.total.0,
        max_fee_msat: args.max_fee.0,
        skip_bad_lines: args.skip_bad,
    };
    changed(out, client.payouts().accept(request).await, &key)
}

async fn retry(client: &Client, out: Output, args: PayoutRetryArgs) -> Result<(), CliError> {
    let key = args.mutation.key();
    let request = RetryPayoutRequest {
        idempotency_key: key.clone(),
        payout_id: args.payout.into(),
        lines: args.line,
    };
    changed(out, client.payouts().retry(request).await, &key)
}

/// Follows a payout to its end, one line for each change.
async fn watch(client: &Client, out: Output, payout_id: Vec<u8>) -> Result<(), CliError> {
    let request = WatchPayoutRequest { payout_id };
    let mut states = client.payouts().watch(request).await?.into_inner();
    let mut last = None;
    while let Some(state) = states.message().await? {
        out.item(&state, payout::progress)?;
        last = Some(state);
    }
    match last {
        Some(end) if end.progress.is_some_and(|progress| progress.failed_lines > 0) => {
            Err(CliError::PaymentFailed(format!(
                "some lines were given up; see `tributary payout lines {} --state failed`",
                hex::encode(&end.payout_id)
            )))
        }
        _ => Ok(()),
    }
}

async fn reconcile(
    client: &Client,
    out: Output,
    args: &PayoutReconcileArgs,
) -> Result<(), CliError> {
    let request = GetReconciliationRequest { payout_id: args.payout.into() };
    let sums = client.payouts().get_reconciliation(request).await?.into_inner();
    let request = ExportPayoutLinesRequest { payout_id: args.payout.into(), states: Vec::new() };
    let mut rows = client.payouts().export_lines(request).await?.into_inner();
    if out.is_json() && args.out.is_none() {
        while let Some(line) = rows.message().await? {
            out.item(&line, |_| String::new())?;
        }
        return out.item(&sums, |_| String::new());
    }
    let mut written = csv::Writer::from_writer(Vec::new());
    let failed = |error: csv::Error| CliError::Failed(format!("cannot write a row: {error}"));
    written.write_record(payout::COLUMNS).map_err(failed)?;
    while let Some(line) = rows.message().await? {
        written.write_record(payout::row(&line)).map_err(failed)?;
    }
    let bytes = written
        .into_inner()
        .map_err(|error| CliError::Failed(format!("cannot write rows: {error}")))?;
    match &args.out {
        None => {
            out.text(&String::from_utf8_lossy(&bytes))?;
            out.note(&payout::reconciliation(&sums));
            Ok(())
        }
        Some(path) => {
            std::fs::write(path, bytes).map_err(|error| {
                CliError::Failed(format!("cannot write {}: {error}", path.display()))
            })?;
            out.answer(&sums, payout::reconciliation)
        }
    }
}

impl PayoutStateArg {
    fn code(self) -> i32 {
        let state = match self {
            Self::Quoted => PayoutState::Quoted,
            Self::Scheduled => PayoutState::Scheduled,
            Self::Running => PayoutState::Running,
            Self::Paused => PayoutState::Paused,
            Self::Cancelling => PayoutState::Cancelling,
            Self::Completed => PayoutState::Completed,
            Self::Cancelled => PayoutState::Cancelled,
        };
        state.into()
    }
}

impl PayoutLineStateArg {
    fn code(self) -> i32 {
        let state = match self {
            Self::Bad => PayoutLineState::Bad,
            Self::Pending => PayoutLineState::Pending,
            Self::Paying => PayoutLineState::Paying,
            Self::Paid => PayoutLineState::Paid,
            Self::Failed => PayoutLineState::Failed,
            Self::Cancelled => PayoutLineState::Cancelled,
        };
        state.into()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn parsed(words: &str) -> PayoutCreateArgs {
        let words = ["tributary", "payout", "create"].into_iter().chain(words.split(' '));
        match Cli::try_parse_from(words).unwrap().verb {
            Verb::Payout(PayoutVerb::Create(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_schedule_says_when_and_how_much() {
        let args = parsed("f.csv --every monthly --runs 12 --budget 1000 --in 1h --lasting 2h");
        let made = settings(&args, 5_000);
        assert_eq!(made.not_before_unix_ms, Some(3_605_000));
        let recurrence = made.recurrence.unwrap();
        assert_eq!(recurrence.period(), PayoutPeriod::Monthly);
        assert_eq!((recurrence.runs_max, recurrence.budget_msat), (Some(12), 1_000_000));
        assert_eq!(recurrence.until_unix_ms, Some(3_605_000 + 7_200_000));
        let args = parsed("f.csv --every 90s --budget 1msat");
        let recurrence = settings(&args, 0).recurrence.unwrap();
        assert_eq!(
            (recurrence.period(), recurrence.every_seconds),
            (PayoutPeriod::Seconds, Some(90))
        );
        assert_eq!(settings(&parsed("f.csv"), 0).recurrence, None);
    }

    #[test]
    fn a_file_of_any_size_is_sent_in_pieces() {
        let file = vec![7; 2 * PIECE + 1];
        let messages = messages("k".to_owned(), PayoutSettings::default(), file.clone());
        assert_eq!(messages.len(), 4);
        let mut sent = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            assert_eq!(message.settings.is_some(), number == 0);
            if let Some(create_payout_request::Source::Csv(piece)) = &message.source {
                sent.extend_from_slice(piece);
            }
        }
        assert_eq!(sent, file);
    }
}
