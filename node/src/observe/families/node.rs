//! The node itself and its process.

use std::time::Duration;

use crate::config::{ChainBackend, network_name};
use crate::observe::{Observer, ProcessFigures};
use crate::runtime::metrics::{Kind, Page, Seconds};

pub(super) fn write(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let config = &parts.config;
    let backend = match config.chain.backend {
        ChainBackend::Bitcoind => "bitcoind",
        ChainBackend::Embedded => "embedded",
    };
    let node_id = parts.lightning.node_id().to_string();
    let help = "Who the node is and what it is built of; always 1.";
    page.family("tributary_node_info", Kind::Gauge, help).sample(
        &[
            ("version", env!("CARGO_PKG_VERSION")),
            ("node_id", &node_id),
            ("alias", &config.alias),
            ("network", network_name(config.network)),
            ("chain", backend),
            ("store", parts.committer.store().engine()),
        ],
        1,
    );
    let uptime = parts.clock.now().saturating_sub(parts.started);
    page.gauge("tributary_uptime_seconds", "Time since the node started.", uptime.as_secs());
    page.counter(
        "tributary_scrapes_total",
        "Pages of figures written since the start.",
        observer.scrapes.get(),
    );
    let process = ProcessFigures::read();
    let started = Seconds(parts.started);
    page.gauge("process_start_time_seconds", "When the node started, since 1970.", started);
    if let Some(hundredths) = process.cpu_hundredths {
        let seconds = Seconds(Duration::from_millis(hundredths.saturating_mul(10)));
        page.counter("process_cpu_seconds_total", "Time on the processor.", seconds);
    }
    if let Some(bytes) = process.resident_bytes {
        page.gauge("process_resident_memory_bytes", "Memory in use.", bytes);
    }
    if let Some(files) = process.open_files {
        page.gauge("process_open_fds", "Files that are open.", files);
    }
    if let Some(files) = process.open_files_max {
        page.gauge("process_max_fds", "Files that may be open.", files);
    }
    if let Some(counts) = parts.spans.counts() {
        let help = "Spans by what became of them: told to the collector, refused by it, dropped.";
        page.family("tributary_spans_total", Kind::Counter, help)
            .sample(&[("outcome", "exported")], counts.exported.get())
            .sample(&[("outcome", "refused")], counts.refused.get())
            .sample(&[("outcome", "dropped")], counts.dropped.get());
    }
}
