//! `tributary.v1.Payouts`: many payments from one file.
//!
//! What payouts look like to a caller is in `payout_view.rs`. Each mutation is one call of the
//! service, which records its key in the batch of its effect.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use proto::v1;
use tonic::{Request, Response, Status};

use super::auth::Caller;
use super::channels::feerate;
use super::convert::{exact, idempotency_key, known, within};
use super::mutation::to_the_end;
use super::page::{self, Answers, List};
use super::payout_view::{line, payout, read_line_state, read_state, reconciliation};
use super::server::{Door, RpcParts, stopping};
use super::status::{Reason, Refusal};
use crate::journal::{IdempotencyError, IdempotencyKey, PayoutId};
use crate::payouts::{
    Ask, LineState, PayoutError, PayoutRecord, PayoutState, PayoutWatch, Period, Recurrence,
    Rejection, Row, Settings, Source,
};
use crate::store::StoreError;

/// Largest message: some 30,000 lines with an invoice each.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Most bytes of one payout's lines, over all messages of a stream.
const LINES_BYTES_MAX: usize = 64 << 20;
/// Longest name, in bytes.
const NAME_LENGTH_MAX: usize = 256;
/// Longest period and time limit: a year; thirty days.
const PERIOD_SECONDS_MAX: u64 = 366 * 86_400;
const TIME_LIMIT_SECONDS_MAX: u64 = 30 * 86_400;

/// The service.
pub(super) struct PayoutsService {
    door: Door,
}

impl PayoutsService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }

    async fn change(
        &self,
        caller: Caller,
        method: &'static str,
        key: &str,
        payout_id: &[u8],
        ask: Ask,
    ) -> Result<Response<v1::Payout>, Status> {
        let parts = self.door.parts()?;
        let key = idempotency_key(method, key)?;
        let id = id(payout_id)?;
        let purse = caller.purse();
        let shared = Arc::clone(&parts);
        let work = async move {
            Ok(payout(&shared.payouts.change(id, &ask, &key, purse.as_ref()).await?))
        };
        Ok(Response::new(to_the_end(&parts.tasks, work).await?))
    }
}

/// Makes a payout of messages, whether one or many.
async fn create(
    parts: Arc<RpcParts>,
    messages: impl Stream<Item = Result<v1::CreatePayoutRequest, Status>> + Send + Unpin,
) -> Result<v1::Payout, Status> {
    let (key, settings, source) = gather(&parts, messages).await?;
    let shared = Arc::clone(&parts);
    let work = async move { Ok(payout(&shared.payouts.create(settings, source, &key).await?)) };
    Ok(to_the_end(&parts.tasks, work).await?)
}

async fn gather(
    parts: &RpcParts,
    mut messages: impl Stream<Item = Result<v1::CreatePayoutRequest, Status>> + Send + Unpin,
) -> Result<(IdempotencyKey, Settings, Source), Status> {
    use v1::create_payout_request::Source as S;
    let mut first = None;
    let mut source: Option<Source> = None;
    let mut bytes = 0_usize;
    while let Some(message) = messages.next().await {
        let message = message?;
        bytes = bytes.saturating_add(prost::Message::encoded_len(&message));
        if bytes > LINES_BYTES_MAX {
            let text = format!("the lines have more than {LINES_BYTES_MAX} bytes");
            return Err(Refusal::new(Reason::PayoutFileInvalid, text).into());
        }
        if first.is_none() {
            // One name for both ways: a key makes one payout.
            let key = idempotency_key("CreatePayout", &message.idempotency_key)?;
            first = Some((key, read_settings(parts, message.settings.unwrap_or_default())?));
        } else if !message.idempotency_key.is_empty() || message.settings.is_some() {
            let text = "belongs into the first message alone, with idempotency_key";
            return Err(Refusal::field("settings", text).into());
        }
        match (message.source, &mut source) {
            (None, _) => {}
            (Some(S::Csv(piece)), None) => source = Some(Source::Csv(piece)),
            (Some(S::Csv(piece)), Some(Source::Csv(file))) => file.extend(piece),
            (Some(S::Lines(lines)), None) => {
                source = Some(Source::Rows(lines.lines.into_iter().map(row).collect()));
            }
            (Some(S::Lines(lines)), Some(Source::Rows(rows))) => {
                rows.extend(lines.lines.into_iter().map(row));
            }
            (Some(_), Some(_)) => {
                let text = "is a file in one message and lines in another";
                return Err(Refusal::field("source", text).into());
            }
        }
    }
    let (key, settings) =
        first.ok_or_else(|| Refusal::field("idempotency_key", "is missing: no message came"))?;
    Ok((key, settings, source.unwrap_or(Source::Rows(Vec::new()))))
}

fn row(line: v1::PayoutLineInput) -> Row {
    Row {
        target: line.target,
        amount_msat: line.amount_msat,
        max_fee_msat: line.max_fee_msat,
        reference: line.reference,
        note: line.note,
        ..Row::default()
    }
}

fn read_settings(parts: &RpcParts, asked: v1::PayoutSettings) -> Result<Settings, Refusal> {
    let policy = parts.payouts.policy();
    if asked.name.len() > NAME_LENGTH_MAX {
        let text = format!("has {} bytes, at most {NAME_LENGTH_MAX} are allowed", asked.name.len());
        return Err(Refusal::field("name", text));
    }
    let concurrency = asked.concurrency.unwrap_or(policy.concurrency);
    let seconds = asked.time_limit_seconds.unwrap_or(policy.time_limit.as_secs());
    let range = 1..=TIME_LIMIT_SECONDS_MAX;
    Ok(Settings {
        name: asked.name,
        max_total_msat: asked.max_total_msat,
        max_line_msat: asked.max_line_msat,
        max_line_fee_msat: asked.max_line_fee_msat,
        concurrency: within(Reason::FieldInvalid, "concurrency", concurrency, 1..=100)?,
        feerate_sat_per_vb: feerate(asked.feerate_sat_per_vb)?,
        time_limit_seconds: within(Reason::FieldInvalid, "time_limit_seconds", seconds, range)?,
        not_before_ms: asked.not_before_unix_ms,
        recurrence: asked.recurrence.map(|asked| read_recurrence(&asked)).transpose()?,
    })
}

fn read_recurrence(asked: &v1::PayoutRecurrence) -> Result<Recurrence, Refusal> {
    use v1::PayoutPeriod as P;
    let every = |seconds| {
        let range = 1..=PERIOD_SECONDS_MAX;
        within(Reason::FieldInvalid, "every_seconds", seconds, range).map(Period::Seconds)
    };
    let period = match (known::<P>("period", asked.period)?, asked.every_seconds) {
        (P::Seconds, Some(seconds)) => every(seconds)?,
        (P::Seconds, None) => return Err(Refusal::field("every_seconds", "is missing")),
        (_, Some(_)) => {
            return Err(Refusal::field("every_seconds", "goes with the period SECONDS alone"));
        }
        (P::Daily, None) => Period::Seconds(86_400),
        (P::Weekly, None) => Period::Seconds(7 * 86_400),
        (P::Monthly, None) => Period::Month,
        (P::Unspecified, None) => return Err(Refusal::field("period", "is missing")),
    };
    if asked.budget_msat == 0 {
        return Err(Refusal::field("budget_msat", "is missing: say what all runs may cost"));
    }
    if asked.runs_max == Some(0) {
        return Err(Refusal::field("runs_max", "must be 1 or more"));
    }
    Ok(Recurrence {
        period,
        runs_max: asked.runs_max,
        until_ms: asked.until_unix_ms,
        budget_msat: asked.budget_msat,
    })
}

fn id(bytes: &[u8]) -> Result<PayoutId, Refusal> {
    exact(Reason::FieldInvalid, "payout_id", bytes).map(PayoutId)
}

fn states(asked: &[i32]) -> Result<Vec<PayoutState>, Refusal> {
    let read = |value: &i32| {
        let state: v1::PayoutState = known("states", *value)?;
        read_state(state).ok_or_else(|| Refusal::field("states", "has an unknown value"))
    };
    asked.iter().map(read).collect()
}

fn line_states(asked: &[i32]) -> Result<Vec<LineState>, Refusal> {
    let read = |value: &i32| {
        let state: v1::PayoutLineState = known("states", *value)?;
        read_line_state(state).ok_or_else(|| Refusal::field("states", "has an unknown value"))
    };
    asked.iter().map(read).collect()
}

#[tonic::async_trait]
impl v1::payouts_server::Payouts for PayoutsService {
    async fn create(
        &self,
        request: Request<v1::CreatePayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let message = Box::pin(stream::once(async { Ok(request.into_inner()) }));
        Ok(Response::new(create(self.door.parts()?, message).await?))
    }

    async fn create_stream(
        &self,
        request: Request<tonic::Streaming<v1::CreatePayoutRequest>>,
    ) -> Result<Response<v1::Payout>, Status> {
        Ok(Response::new(create(self.door.parts()?, request.into_inner()).await?))
    }

    async fn accept(
        &self,
        request: Request<v1::AcceptPayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let ask = Ask::Accept {
            total_msat: request.total_msat,
            max_fee_msat: request.max_fee_msat,
            skip_bad_lines: request.skip_bad_lines,
        };
        let (key, id) = (&request.idempotency_key, &request.payout_id);
        self.change(caller, "AcceptPayout", key, id, ask).await
    }

    async fn pause(
        &self,
        request: Request<v1::PausePayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (key, id) = (&request.idempotency_key, &request.payout_id);
        self.change(caller, "PausePayout", key, id, Ask::Pause).await
    }

    async fn resume(
        &self,
        request: Request<v1::ResumePayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (key, id) = (&request.idempotency_key, &request.payout_id);
        self.change(caller, "ResumePayout", key, id, Ask::Resume).await
    }

    async fn cancel(
        &self,
        request: Request<v1::CancelPayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (key, id) = (&request.idempotency_key, &request.payout_id);
        self.change(caller, "CancelPayout", key, id, Ask::Cancel).await
    }

    async fn retry(
        &self,
        request: Request<v1::RetryPayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let caller = Caller::of(&request)?;
        let mut request = request.into_inner();
        request.lines.sort_unstable();
        request.lines.dedup();
        let ask = Ask::Retry { lines: request.lines };
        let (key, id) = (&request.idempotency_key, &request.payout_id);
        self.change(caller, "RetryPayout", key, id, ask).await
    }

    async fn get(
        &self,
        request: Request<v1::GetPayoutRequest>,
    ) -> Result<Response<v1::Payout>, Status> {
        let parts = self.door.parts()?;
        let id = id(&request.into_inner().payout_id)?;
        let record = parts.payouts.get(id).await.map_err(Refusal::from)?;
        Ok(Response::new(payout(&record)))
    }

    type WatchStream = Answers<v1::Payout>;

    async fn watch(
        &self,
        request: Request<v1::WatchPayoutRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let parts = self.door.parts()?;
        let id = id(&request.into_inner().payout_id)?;
        let watch = parts.payouts.watch(id).map_err(Refusal::from)?;
        Ok(Response::new(follow(parts, watch)))
    }

    async fn list(
        &self,
        request: Request<v1::ListPayoutsRequest>,
    ) -> Result<Response<v1::ListPayoutsResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let states = states(&request.states)?;
        let schedule = request.schedule_payout_id.as_deref().map(id).transpose()?;
        let filter = (states, schedule);
        let size = page::size(request.page_size)?;
        let from = page::position(List::Payouts, &filter, request.page_token.as_deref())?;
        let takes = |record: &PayoutRecord| {
            (filter.0.is_empty() || filter.0.contains(&record.state))
                && filter.1.is_none_or(|id| record.parent.is_some_and(|(parent, _)| parent == id))
        };
        let found = parts.payouts.list(takes, from.as_deref(), size).await;
        let (payouts, next) = found.map_err(Refusal::from)?;
        Ok(Response::new(v1::ListPayoutsResponse {
            payouts: payouts.iter().map(payout).collect(),
            next_page_token: next.map(|next| page::token(List::Payouts, &filter, &next)),
        }))
    }

    async fn list_lines(
        &self,
        request: Request<v1::ListPayoutLinesRequest>,
    ) -> Result<Response<v1::ListPayoutLinesResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let filter = (id(&request.payout_id)?, line_states(&request.states)?);
        let size = page::size(request.page_size)?;
        let from = page::position(List::PayoutLines, &filter, request.page_token.as_deref())?;
        let (lines, next) = lines(&parts, filter.0, &filter.1, from, size).await?;
        Ok(Response::new(v1::ListPayoutLinesResponse {
            lines,
            next_page_token: next.map(|next| page::token(List::PayoutLines, &filter, &next)),
        }))
    }

    type ExportLinesStream = Answers<v1::PayoutLine>;

    async fn export_lines(
        &self,
        request: Request<v1::ExportPayoutLinesRequest>,
    ) -> Result<Response<Self::ExportLinesStream>, Status> {
        let request = request.into_inner();
        let filter = Arc::new((id(&request.payout_id)?, line_states(&request.states)?));
        let door = self.door.clone();
        door.parts()?.payouts.get(filter.0).await.map_err(Refusal::from)?;
        Ok(Response::new(page::export(move |from| {
            let (door, filter) = (door.clone(), Arc::clone(&filter));
            async move {
                let size = page::SIZE_MAX as usize;
                lines(&*door.parts()?, filter.0, &filter.1, from, size).await
            }
        })))
    }

    async fn get_reconciliation(
        &self,
        request: Request<v1::GetReconciliationRequest>,
    ) -> Result<Response<v1::Reconciliation>, Status> {
        let parts = self.door.parts()?;
        let id = id(&request.into_inner().payout_id)?;
        let balance = parts.payouts.reconcile(id).await.map_err(Refusal::from)?;
        Ok(Response::new(reconciliation(id, &balance)))
    }
}

async fn lines(
    parts: &RpcParts,
    id: PayoutId,
    states: &[LineState],
    from: Option<Vec<u8>>,
    size: usize,
) -> Result<(Vec<v1::PayoutLine>, Option<Vec<u8>>), Refusal> {
    let after = page::own_position(from)?.map_or(0, u32::from_be_bytes);
    // One more tells whether there is a next page.
    let mut found = parts.payouts.lines(id, states, after, size + 1).await?;
    let is_more = found.len() > size;
    found.truncate(size);
    let last = found.last().filter(|_| is_more).map(|last| last.number.to_be_bytes().to_vec());
    Ok((found.iter().map(line).collect(), last))
}

/// Streams the states of a payout, the present one first, until the final one.
fn follow(parts: Arc<RpcParts>, watch: PayoutWatch) -> Answers<v1::Payout> {
    Box::pin(stream::try_unfold((parts, watch, true), |(parts, mut watch, first)| async move {
        let step = async {
            match first {
                true => watch.current().await.map(Some),
                false => watch.next().await,
            }
        };
        let record = tokio::select! {
            biased;
            record = step => record.map_err(Refusal::from)?,
            () = parts.tasks.stopped() => return Err(stopping().into()),
        };
        Ok(record.map(|record| (payout(&record), (parts, watch, false))))
    }))
}

impl From<PayoutError> for Refusal {
    fn from(error: PayoutError) -> Self {
        let refuse = |reason| Self::new(reason, &error).money_may_have_moved(false);
        match &error {
            PayoutError::Unknown(id) => refuse(Reason::PayoutUnknown).with("payout_id", id),
            PayoutError::UnknownLine { payout, line } => {
                refuse(Reason::PayoutLineUnknown).with("payout_id", payout).with("line", line)
            }
            PayoutError::File(_) => refuse(Reason::PayoutFileInvalid),
            PayoutError::Full { max } => refuse(Reason::PayoutsFull).with("open_max", max),
            PayoutError::Rejected(rejection) => rejected(rejection),
            PayoutError::Mismatch(mismatch) => Self::new(Reason::PayoutUnbalanced, mismatch)
                .with("payout_id", mismatch.payout)
                .money_may_have_moved(true),
            PayoutError::Token(error) => Self::from(error),
            PayoutError::Idempotency(IdempotencyError::Store(store))
            | PayoutError::Store(store) => unknown(store),
            PayoutError::Idempotency(error) => Self::from(error),
        }
    }
}

/// The store failed: only the next start tells what was recorded.
fn unknown(store: &StoreError) -> Refusal {
    Refusal::new(Reason::StoreFailed, store).money_may_have_moved(true)
}

fn rejected(rejection: &Rejection) -> Refusal {
    let refuse = |reason| Refusal::new(reason, rejection).money_may_have_moved(false);
    match rejection {
        Rejection::Quote { total_msat, max_fee_msat, .. } => refuse(Reason::PayoutQuote)
            .with("total_msat", total_msat)
            .with("max_fee_msat", max_fee_msat),
        Rejection::BadLines { lines } => refuse(Reason::PayoutBadLines).with("bad_lines", lines),
        Rejection::State { state, .. } => {
            refuse(Reason::PayoutState).with("state", format_args!("{state:?}"))
        }
        Rejection::Budget { run_msat, budget_msat } => refuse(Reason::PayoutState)
            .with("run_msat", run_msat)
            .with("budget_msat", budget_msat)
            .remedy("make the payout anew with a budget that covers one run"),
        Rejection::OfSchedule { schedule } => {
            refuse(Reason::PayoutState).with("schedule_payout_id", schedule)
        }
        Rejection::NothingToPay | Rejection::NothingToRetry => refuse(Reason::PayoutState),
    }
}
