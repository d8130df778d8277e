//! Peers, towers, webhooks, and who reads the log of events.

use super::{Check, count};
use crate::lightning::ChannelSnapshot;
use crate::observe::Observer;
use crate::webhooks::EndpointState;

/// States that a tower may be behind without a word.
const BACKLOG_MAX: u64 = 1_000;
/// Events that a subscriber may be behind.
const LAG_MAX: u64 = 10_000;
/// Blocks before the end of a registration.
const REGISTRATION_MIN: u32 = 1_008;

pub(super) fn peers(observer: &Observer, channels: &[ChannelSnapshot]) -> Check {
    const NAME: &str = "peers";
    let connected = observer.parts().lightning.peers().len();
    match (connected, channels.len()) {
        (0, 0) => Check::ok(NAME, "none is connected, and no channel needs one"),
        (0, channels) => Check::error(
            NAME,
            format_args!("none is connected, with {} to serve", count(channels, "channel")),
            "check the network, and lightning.peers; `tributary connect ID@HOST:PORT` tries one",
        ),
        (connected, _) => Check::ok(NAME, format_args!("{} connected", count(connected, "peer"))),
    }
}

pub(super) fn towers(observer: &Observer, channels: &[ChannelSnapshot]) -> Check {
    const NAME: &str = "towers";
    let towers = observer.parts().towers.list();
    let height = observer.parts().sync.borrow().synced.map_or(0, |block| block.height);
    let bytes = observer.parts().towers.outbox_bytes();
    if towers.is_empty() {
        return match channels.len() {
            0 => Check::ok(NAME, "none, and no channel to guard"),
            channels => Check::warning(
                NAME,
                format_args!("none guards {} while this node is off", count(channels, "channel")),
                "add one with `tributary tower add KEY@HOST:PORT`; `tributary tower` runs one",
            ),
        };
    }
    for tower in &towers {
        let (key, record) = (&tower.record.tower, &tower.record);
        if record.missed > 0 {
            return Check::error(
                NAME,
                format_args!(
                    "{key} never heard of {} states: they were forgotten here",
                    record.missed
                ),
                "raise tower.outbox_max_mib; add another tower, which guards what comes from now on",
            );
        }
        if let Some(error) = &tower.last_error {
            return Check::warning(
                NAME,
                format_args!("{key} is {} states behind: {error}", tower.backlog),
                "check that it runs; add another one meanwhile",
            );
        }
        if tower.backlog > BACKLOG_MAX {
            return Check::warning(
                NAME,
                format_args!("{key} is {} states behind; {bytes} bytes wait", tower.backlog),
                "it is too slow for this node: look at its machine, or add another one",
            );
        }
        if record.expires < height.saturating_add(REGISTRATION_MIN) {
            return Check::warning(
                NAME,
                format_args!("the registration at {key} ends at height {}", record.expires),
                "it is renewed by itself while the tower answers; if not, remove and add it anew",
            );
        }
    }
    Check::ok(NAME, format_args!("{} in order", count(towers.len(), "tower")))
}

pub(super) fn webhooks(observer: &Observer) -> Check {
    const NAME: &str = "webhooks";
    let endpoints = observer.parts().webhooks.list();
    for endpoint in &endpoints {
        let (id, url) = (endpoint.id, &endpoint.record.url);
        if let EndpointState::Gone { .. } = endpoint.record.state {
            return Check::warning(
                NAME,
                format_args!("{id} ({url}) said that it is gone, and is told nothing"),
                "enable it anew with `tributary webhook update`, or delete it",
            );
        }
        if let (Some(error), EndpointState::Enabled) = (&endpoint.last_error, endpoint.record.state)
        {
            return Check::warning(
                NAME,
                format_args!("{id} ({url}) fails, {} events wait: {error}", endpoint.waiting),
                "mend the receiver; `tributary webhook test` tries it",
            );
        }
        if endpoint.progress.dead_letters > 0 {
            return Check::warning(
                NAME,
                format_args!(
                    "{} events for {id} ({url}) were given up",
                    endpoint.progress.dead_letters
                ),
                "`tributary webhook dead` shows them, `tributary webhook replay` sends them again",
            );
        }
    }
    Check::ok(NAME, format_args!("{} in order", count(endpoints.len(), "endpoint")))
}

pub(super) fn subscribers(observer: &Observer) -> Check {
    const NAME: &str = "event_log";
    let newest = observer.parts().journal.last_durable();
    let (readers, slowest) = observer.subscribers().look();
    let lag = slowest.map_or(0, |slowest| newest.saturating_sub(slowest));
    let finding =
        format!("{newest} events; {}, the slowest {lag} behind", count(readers, "reader"));
    match lag > LAG_MAX {
        true => {
            Check::warning(NAME, finding, "a subscriber reads too slowly, or hangs: look at it")
        }
        false => Check::ok(NAME, finding),
    }
}
