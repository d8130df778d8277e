//! The chain, the disk, the clock and the operating system.

use std::time::Duration;

use bitcoin::Network;
use tokio::time::{Instant, timeout};

use super::{Check, count};
use crate::chain::fees::FeePurpose;
use crate::observe::{Observer, ProcessFigures};
use crate::store::{Batch, Table};

/// A block's time may be this far ahead of the network's (Bitcoin's consensus): a clock that is
/// further behind is wrong.
const AHEAD_MAX: u64 = 2 * 3_600;
/// From here on a clock is worth a word.
const AHEAD_WARNING: u64 = 600;
/// Room on the disk, bytes.
const FREE_WARNING: u64 = 5_000_000_000;
const FREE_ERROR: u64 = 500_000_000;
/// One write, with its sync.
const WRITE_WARNING: Duration = Duration::from_millis(100);
const WRITE_ERROR: Duration = Duration::from_secs(1);
const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long writes may wait for a cycle.
const WAIT_WARNING: Duration = Duration::from_secs(1);
/// Files that a node with a few hundred peers needs.
const FILES_MIN: u64 = 4_096;

pub(super) fn chain_sync(observer: &Observer) -> Check {
    const NAME: &str = "chain_sync";
    let parts = observer.parts();
    let sync = parts.sync.borrow().clone();
    let height = sync.synced.map_or(0, |block| block.height);
    let tip = sync.tip.map_or(0, |block| block.height);
    if let Some(error) = &sync.last_error {
        return Check::error(
            NAME,
            format_args!("the chain source cannot be read at height {height}: {error}"),
            "start bitcoind, or correct chain.bitcoind.urls and its credentials; until then no \
             new risk is taken, and nobody watches for breaches",
        );
    }
    if let Some(since) = sync.stalled_since {
        let late = parts.clock.now().saturating_sub(since).as_secs() / 60;
        return Check::error(
            NAME,
            format_args!("no block after height {tip}; the next was due {late} minutes ago"),
            "compare the tip with another source of blocks: bitcoind may have no peers, or follow \
             a dead branch",
        );
    }
    if sync.behind > 0 {
        return Check::warning(
            NAME,
            format_args!(
                "{} behind: at height {height} of {tip}",
                count(sync.behind as usize, "block")
            ),
            "wait: the node catches up by itself, and takes new risk once it has",
        );
    }
    Check::ok(NAME, format_args!("at the tip, height {height}"))
}

pub(super) fn chain_endpoints(observer: &Observer) -> Check {
    const NAME: &str = "chain_endpoints";
    let endpoints = observer.parts().chain.endpoints();
    let failing: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.failures > 0).collect();
    let Some(worst) = failing.iter().max_by_key(|endpoint| endpoint.failures) else {
        let failures = observer.parts().chain_failures.get();
        let since = match failures {
            0 => "none has failed since the start".to_owned(),
            failures => format!("{} since the start", count(failures as usize, "failed look")),
        };
        return match endpoints.len() {
            0 => Check::ok(NAME, format_args!("the chain is in this process; {since}")),
            number => {
                Check::ok(NAME, format_args!("{} in order; {since}", count(number, "endpoint")))
            }
        };
    };
    let why = worst.last_error.as_deref().unwrap_or("no word");
    let finding = format!(
        "{} of {} failing; {} failed {} times in a row: {why}",
        failing.len(),
        count(endpoints.len(), "endpoint"),
        worst.url,
        worst.failures,
    );
    let remedy = "check that bitcoind runs there and takes the node's credentials";
    match failing.len() == endpoints.len() {
        true => Check::error(NAME, finding, remedy),
        false => Check::warning(NAME, finding, remedy),
    }
}

pub(super) async fn clock(observer: &Observer) -> Check {
    const NAME: &str = "clock";
    let now = observer.parts().clock.now().as_secs();
    let Some(time) = observer.tip_time().await else {
        let remedy = "mend the chain source first";
        return Check::warning(NAME, "the tip's time is not known to compare with", remedy);
    };
    let remedy = "set the machine's clock, and keep it set (chrony, systemd-timesyncd): invoices, \
                  batches and tokens expire by it";
    let behind = time.saturating_sub(now);
    let minutes = behind / 60;
    match behind {
        0 => Check::ok(NAME, format_args!("{} s after the tip's own time", now - time)),
        _ if behind > AHEAD_MAX => Check::error(
            NAME,
            format_args!(
                "{minutes} minutes behind the tip's time; a block may be 120 ahead at most"
            ),
            remedy,
        ),
        _ if behind > AHEAD_WARNING => {
            Check::warning(NAME, format_args!("{minutes} minutes behind the tip's time"), remedy)
        }
        _ => Check::ok(NAME, format_args!("{behind} s before the tip's own time")),
    }
}

pub(super) fn feerates(observer: &Observer) -> Check {
    let fees = &observer.parts().fees;
    let urgent = fees.get(FeePurpose::Urgent).to_sat_per_vb_ceil();
    judge_feerates(fees.is_estimated(), urgent, observer.parts().config.network)
}

fn judge_feerates(is_estimated: bool, urgent: u64, network: Network) -> Check {
    const NAME: &str = "feerates";
    match (is_estimated, network) {
        (true, _) => Check::ok(NAME, format_args!("{urgent} sat/vB for what is urgent")),
        (false, Network::Regtest) => Check::ok(
            NAME,
            format_args!("no estimates, as on a regtest; {urgent} sat/vB stands in"),
        ),
        (false, _) => Check::warning(
            NAME,
            format_args!("the chain source gives no estimates; {urgent} sat/vB stands in"),
            "a bitcoind estimates after some hours with a mempool; with blocksonly=1 it never does",
        ),
    }
}

pub(super) fn broadcasts(observer: &Observer) -> Check {
    const NAME: &str = "broadcasts";
    let pending = observer.parts().broadcasts.pending();
    let refused = pending.iter().find_map(|package| Some((package, package.refusal.as_ref()?)));
    match refused {
        None => Check::ok(NAME, format_args!("{} wait for a block", pending.len())),
        Some((package, why)) => Check::warning(
            NAME,
            format_args!(
                "the mempool refuses {}: {why}",
                package.txids.last().map_or("a transaction".into(), ToString::to_string)
            ),
            "one with too low a fee is replaced at the next block; if it stays, show the log to \
             somebody who knows",
        ),
    }
}

pub(super) fn disk_space(observer: &Observer) -> Check {
    let parts = observer.parts();
    let store = parts.committer.store().disk_bytes();
    judge_space(fs4::available_space(parts.config.data_dir()).map_err(|e| e.to_string()), store)
}

fn judge_space(free: Result<u64, String>, store: u64) -> Check {
    const NAME: &str = "disk_space";
    let mb = |bytes: u64| bytes / 1_000_000;
    let free = match free {
        Ok(free) => free,
        Err(error) => {
            let remedy = "check that data_dir exists and may be read";
            return Check::warning(NAME, format_args!("free space is not known: {error}"), remedy);
        }
    };
    let finding = format!("{} MB free, the store takes {} MB", mb(free), mb(store));
    let remedy =
        "make room, or move the data to a larger disk: the node stops when it cannot write";
    match free {
        _ if free < FREE_ERROR => Check::error(NAME, finding, remedy),
        // A store needs room for a copy of itself while it merges.
        _ if free < FREE_WARNING.max(store) => Check::warning(NAME, finding, remedy),
        _ => Check::ok(NAME, finding),
    }
}

pub(super) async fn disk_write(observer: &Observer) -> Check {
    const NAME: &str = "disk_write";
    let committer = &observer.parts().committer;
    let mut batch = Batch::default();
    batch.put(
        Table::Meta.key("doctor"),
        observer.parts().clock.now().as_secs().to_be_bytes().to_vec(),
    );
    let begun = Instant::now();
    let ticket = committer.enqueue(batch);
    let remedy = "every payment waits for this: use a disk with power-loss protection, and keep \
                  other programs off it";
    let took = match timeout(WRITE_MAX, committer.durable(ticket)).await {
        Ok(Ok(())) => begun.elapsed(),
        Ok(Err(error)) => {
            let remedy = "start the node anew once the disk is in order";
            return Check::error(NAME, format_args!("the store takes no writes: {error}"), remedy);
        }
        Err(_) => {
            let finding = format!("a write was not durable after {} s", WRITE_MAX.as_secs());
            return Check::error(NAME, finding, remedy);
        }
    };
    let ms = took.as_secs_f64() * 1_000.0;
    let finding = format!("a write was durable after {ms:.1} ms");
    match took {
        _ if took > WRITE_ERROR => Check::error(NAME, finding, remedy),
        _ if took > WRITE_WARNING => Check::warning(NAME, finding, remedy),
        _ => Check::ok(NAME, finding),
    }
}

pub(super) fn commit_backlog(observer: &Observer) -> Check {
    const NAME: &str = "commit_backlog";
    let (ops, age) = observer.parts().committer.waiting();
    let finding =
        format!("{} not taken yet, the oldest for {} ms", count(ops, "write"), age.as_millis());
    match age > WAIT_WARNING {
        true => Check::warning(NAME, finding, "the disk does not keep up with what the node does"),
        false => Check::ok(NAME, finding),
    }
}

pub(super) fn open_files() -> Check {
    judge_files(&ProcessFigures::read())
}

fn judge_files(process: &ProcessFigures) -> Check {
    const NAME: &str = "open_files";
    let (Some(open), Some(most)) = (process.open_files, process.open_files_max) else {
        return Check::ok(NAME, "without a limit, or not known here");
    };
    let finding = format!("{open} files open, {most} allowed");
    let remedy =
        "raise the limit of open files to 65536 (LimitNOFILE in a systemd unit, ulimit -n)";
    match () {
        () if open.saturating_mul(10) > most.saturating_mul(8) => {
            Check::error(NAME, finding, remedy)
        }
        () if most < FILES_MIN => Check::warning(NAME, finding, remedy),
        () => Check::ok(NAME, finding),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn little_room_is_told_before_there_is_none() {
        let severity = |free, store| judge_space(Ok(free), store).severity;
        assert_eq!(severity(50_000_000_000, 0), Severity::Ok);
        assert_eq!(severity(4_000_000_000, 0), Severity::Warning);
        assert_eq!(severity(50_000_000_000, 60_000_000_000), Severity::Warning, "no room to merge");
        let full = judge_space(Ok(100_000_000), 1_000_000);
        assert_eq!(full.severity, Severity::Error);
        assert_eq!(full.finding, "100 MB free, the store takes 1 MB");
        assert_eq!(judge_space(Err("gone".into()), 0).severity, Severity::Warning);
    }

    #[test]
    fn feerates_that_nobody_estimates_are_told_where_they_cost_money() {
        let severity = |is_estimated, network| judge_feerates(is_estimated, 20, network).severity;
        assert_eq!(severity(true, Network::Bitcoin), Severity::Ok);
        assert_eq!(severity(false, Network::Bitcoin), Severity::Warning);
        assert_eq!(severity(false, Network::Regtest), Severity::Ok);
    }

    #[test]
    fn a_low_limit_of_files_is_told() {
        let severity = |open, most| {
            let (open_files, open_files_max) = (Some(open), Some(most));
            judge_files(&ProcessFigures { open_files, open_files_max, ..Default::default() })
                .severity
        };
        assert_eq!(severity(100, 65_536), Severity::Ok);
        assert_eq!(severity(100, 1_024), Severity::Warning);
        assert_eq!(severity(900, 1_024), Severity::Error);
        assert_eq!(judge_files(&ProcessFigures::default()).severity, Severity::Ok);
    }
}
