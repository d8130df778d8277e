//! One endpoint: what it was set up as, how far it came, and what it is still to have.

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::courier::Connections;
use super::queue::Queue;
use super::record::{EndpointRecord, EndpointState, Progress, Stored};
use super::target::{Target, UrlError};
use crate::journal::{EndpointId, EventKind};
use crate::store::Batch;

/// An endpoint to be made.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    /// Where it is.
    pub url: String,
    /// What it is for.
    pub description: String,
    /// What it is told of; everything when empty.
    pub kinds: Vec<EventKind>,
    /// The place in the log after which it begins; only what is yet to come when absent.
    pub after: Option<u64>,
}

/// What changes of an endpoint; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct EndpointChange {
    /// Where it is.
    pub url: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// What it is told of from now on.
    pub kinds: Option<Vec<EventKind>>,
    /// Whether it is told. One that is told again gets what happened meanwhile.
    pub is_enabled: Option<bool>,
}

/// An endpoint, as its owner sees it.
#[derive(Debug, Clone)]
pub struct EndpointView {
    /// Its name.
    pub id: EndpointId,
    /// How it was set up.
    pub record: EndpointRecord,
    /// How far it came.
    pub progress: Progress,
    /// Events that wait for it, those under way included.
    pub waiting: usize,
    /// Events of the log that it has not come to.
    pub behind: u64,
    /// What went wrong last, if nothing went right since.
    pub last_error: Option<String>,
}

/// One endpoint.
pub(super) struct Endpoint {
    pub id: EndpointId,
    pub state: Mutex<State>,
    /// Wakes its task.
    pub changed: Notify,
    /// Ends its task.
    pub stop: CancellationToken,
    pub connections: Connections,
}

/// What changes of an endpoint.
pub(super) struct State {
    pub record: EndpointRecord,
    /// Where that is; what was allowed once may not be any more.
    pub target: Result<Target, UrlError>,
    pub progress: Progress,
    pub queue: Queue,
    /// Counts what makes deliveries that are under way void.
    pub epoch: u64,
    pub last_error: Option<String>,
    /// Whether something was given up since the last delivery.
    pub is_failing: bool,
    pub is_deleted: bool,
}

impl Endpoint {
    pub fn new(stored: Stored, allow_private: bool) -> Self {
        let Stored { id, record, progress, queue } = stored;
        let state = State {
            target: Target::parse(&record.url, allow_private),
            record,
            progress,
            queue,
            epoch: 0,
            last_error: None,
            is_failing: false,
            is_deleted: false,
        };
        Self {
            id,
            state: Mutex::new(state),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            connections: Connections::default(),
        }
    }
}

impl State {
    /// Makes void what is under way.
    pub fn interrupt(&mut self) {
        self.epoch += 1;
        self.queue.land_all();
    }

    /// Whether it is told of events.
    pub fn is_enabled(&self) -> bool {
        self.record.state == EndpointState::Enabled && !self.is_deleted
    }

    /// Writes how far it came; nothing of an endpoint that was deleted.
    pub fn write(&mut self, id: EndpointId, writes: &mut Batch) {
        let changes = self.queue.take_changes();
        if !self.is_deleted {
            self.progress.read_to = changes.read_to;
            self.progress.put(id, changes, writes);
        }
    }
}
