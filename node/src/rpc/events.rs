//! `tributary.v1.Events`: the journal as a stream that can be taken up again.
//!
//! A subscriber reads the durable journal at its own speed: what it has not read stays on disk,
//! so a slow one costs nothing and loses nothing. What an event looks like is in
//! `event_view.rs`.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream;
use proto::v1;
use tonic::{Request, Response, Status};

use super::convert::known;
use super::event_view::{Records, event, is_kind};
use super::page::{self, Answers, List};
use super::server::{Door, RpcParts, stopping};
use super::status::{Reason, Refusal};

/// Events read at once.
const STEP: usize = 256;

/// The service.
pub(super) struct EventsService {
    door: Door,
}

impl EventsService {
    pub(super) fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl v1::events_server::Events for EventsService {
    type SubscribeStream = Answers<v1::Event>;

    async fn subscribe(
        &self,
        request: Request<v1::SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let kinds = kinds(request.kinds)?;
        let newest = parts.journal.last_durable();
        let after = request.after_sequence.unwrap_or(newest);
        not_ahead(after, newest)?;
        // A sequence that is gone is refused now, not at the first event.
        parts.journal.read(after, 1).map_err(Refusal::from)?;
        let tail = Tail { parts, kinds, after, ready: VecDeque::new() };
        let events = stream::try_unfold(tail, |mut tail| async move {
            let event = tail.next().await?;
            Ok(Some((event, tail)))
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        let parts = self.door.parts()?;
        let request = request.into_inner();
        let kinds = kinds(request.kinds)?;
        let size = page::size(request.page_size)?;
        if request.after_sequence.is_some() && request.page_token.is_some() {
            let problem = "cannot be given together with a page token";
            return Err(Refusal::field("after_sequence", problem).into());
        }
        let token = request.page_token.as_deref();
        let position = page::own_position(page::position(List::Events, &kinds, token)?)?;
        let oldest = parts.journal.oldest().map_err(Refusal::from)?;
        let newest = parts.journal.last_durable();
        let after = match (position, request.after_sequence) {
            (Some(bytes), _) => u64::from_be_bytes(bytes),
            (None, Some(after)) => after,
            (None, None) => oldest.map_or(0, |oldest| oldest - 1),
        };
        not_ahead(after, newest)?;
        let (events, next) = list(&parts, &kinds, after, size)?;
        let next_page_token =
            next.map(|after| page::token(List::Events, &kinds, &after.to_be_bytes()));
        Ok(Response::new(v1::ListEventsResponse {
            events,
            next_page_token,
            oldest_sequence: oldest,
            newest_sequence: (newest > 0).then_some(newest),
        }))
    }
}

fn kinds(kinds: Vec<i32>) -> Result<Vec<v1::EventKind>, Refusal> {
    kinds.into_iter().map(|value| known("kinds", value)).collect()
}

fn not_ahead(after: u64, newest: u64) -> Result<(), Refusal> {
    if after <= newest {
        return Ok(());
    }
    let message = format_args!("sequence {after} is yet to come, the newest is {newest}");
    Err(Refusal::new(Reason::EventsAhead, message)
        .with("after_sequence", after)
        .with("newest_sequence", newest))
}

fn records(parts: &RpcParts) -> Records<'_> {
    Records { payments: &parts.payments, channels: &parts.channels }
}

/// A page of events after a sequence, and after which the next page begins.
fn list(
    parts: &RpcParts,
    kinds: &[v1::EventKind],
    mut after: u64,
    size: usize,
) -> Result<(Vec<v1::Event>, Option<u64>), Refusal> {
    let mut events = Vec::new();
    loop {
        let entries = parts.journal.read(after, STEP)?;
        if entries.is_empty() {
            return Ok((events, None));
        }
        for entry in entries {
            after = entry.sequence;
            if is_kind(&entry, kinds) {
                events.push(event(&records(parts), &entry)?);
                if events.len() == size {
                    let more = parts.journal.last_durable() > after;
                    return Ok((events, more.then_some(after)));
                }
            }
        }
    }
}

/// One subscriber.
struct Tail {
    parts: Arc<RpcParts>,
    kinds: Vec<v1::EventKind>,
    /// The last sequence read.
    after: u64,
    ready: VecDeque<v1::Event>,
}

impl Tail {
    /// The next event of the kinds asked for. Waits for it.
    async fn next(&mut self) -> Result<v1::Event, Refusal> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            tokio::select! {
                biased;
                () = self.parts.tasks.stopped() => return Err(stopping()),
                durable = self.parts.journal.beyond(self.after) => durable?,
            }
            for entry in self.parts.journal.read(self.after, STEP)? {
                self.after = entry.sequence;
                if is_kind(&entry, &self.kinds) {
                    self.ready.push_back(event(&records(&self.parts), &entry)?);
                }
            }
            // A filter that takes nothing must not keep the worker.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_yet_to_come_is_refused() {
        assert_eq!(not_ahead(0, 0), Ok(()));
        assert_eq!(not_ahead(5, 5), Ok(()));
        let refusal = not_ahead(6, 5).unwrap_err();
        assert_eq!(refusal.reason(), Reason::EventsAhead);
        let read = super::super::status::explain(&refusal.into());
        assert_eq!(read.metadata["newest_sequence"], "5");
        assert_eq!(read.code, tonic::Code::OutOfRange);
    }

    #[test]
    fn kinds_are_checked() {
        let read = kinds(vec![1, 3]).unwrap();
        assert_eq!(read, [v1::EventKind::Payment, v1::EventKind::Channel]);
        assert_eq!(kinds(vec![0]).unwrap_err().reason(), Reason::FieldInvalid);
        assert_eq!(kinds(vec![42]).unwrap_err().reason(), Reason::FieldInvalid);
    }
}
