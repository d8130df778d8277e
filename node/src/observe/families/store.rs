//! The commit cycle, the store and its disk.

use crate::observe::Observer;
use crate::runtime::metrics::{Kind, Page, Seconds};

pub(super) fn write(observer: &Observer, page: &mut Page) {
    let parts = observer.parts();
    let stats = parts.committer.stats();
    let (ops, age) = parts.committer.waiting();
    page.counter(
        "tributary_commit_batches_total",
        "Batches made durable, one sync of the disk each.",
        stats.batches,
    );
    page.counter("tributary_commit_ops_total", "Writes in them.", stats.ops);
    page.counter("tributary_commit_bytes_total", "Bytes of keys and values in them.", stats.bytes);
    page.gauge("tributary_commit_waiting_ops", "Writes that no cycle has taken yet.", ops);
    page.gauge(
        "tributary_commit_waiting_seconds",
        "How long the oldest of them waits.",
        Seconds(age),
    );
    if let Some(figures) = parts.committer.probe().figures() {
        let help = "Steps of a commit cycle: gather (from a batch's first write to its cycle), seal \
                    (outputs taken, manager encoded), sync (written, with its one sync), release.";
        page.family("tributary_commit_seconds", Kind::Histogram, help)
            .histogram(&[("step", "gather")], &figures.gather)
            .histogram(&[("step", "seal")], &figures.seal)
            .histogram(&[("step", "sync")], &figures.sync)
            .histogram(&[("step", "release")], &figures.release);
        page.histogram("tributary_commit_batch_ops", "Writes in a batch.", &figures.ops);
        page.histogram("tributary_commit_batch_bytes", "Bytes in a batch.", &figures.bytes);
    }
    page.gauge(
        "tributary_store_size_bytes",
        "What the store takes on disk.",
        parts.committer.store().disk_bytes(),
    );
    if let Ok(bytes) = fs4::available_space(parts.config.data_dir()) {
        page.gauge("tributary_disk_free_bytes", "Room left where the data is.", bytes);
    }
}
