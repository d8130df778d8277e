//! What the process uses of its machine, as the kernel counts it.
//!
//! The only room that looks at real time and memory. Nothing of it goes into results, except
//! where a report says so.

use std::time::Duration;

/// Ticks of processor time by second, the same on every Linux of today.
const TICKS_PER_SECOND: u64 = 100;

/// A moment, to measure from.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch {
    wall: std::time::Instant,
    cpu: Duration,
}

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "this measures the machine, not a simulation")]
    pub fn start() -> Self {
        Self { wall: std::time::Instant::now(), cpu: cpu_time() }
    }

    /// Time that has passed.
    pub fn wall(&self) -> Duration {
        self.wall.elapsed()
    }

    /// Processor time of this thread, user and system; time that has passed, where the system
    /// does not tell.
    pub fn cpu(&self) -> Duration {
        match cpu_time().checked_sub(self.cpu) {
            Some(used) if used > Duration::ZERO => used,
            _ => self.wall(),
        }
    }
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    processor_time(&std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default())
}

/// Processor time that all threads of a process have used; none where the system does not tell.
pub fn cpu_time_of(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    Some(processor_time(&text))
}

/// Fields 14 and 15 of `stat`, after the name in brackets.
fn processor_time(text: &str) -> Duration {
    let after_name = text.rsplit(')').next().unwrap_or("");
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

fn kibibytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Most memory that the process ever had, in bytes; 0 where the system does not tell.
pub fn peak_rss_bytes() -> u64 {
    kibibytes("/proc/self/status", "VmHWM:").unwrap_or(0) * 1_024
}

/// Memory that is free for use, in bytes, where the system tells.
pub fn available_bytes() -> Option<u64> {
    kibibytes("/proc/meminfo", "MemAvailable:").map(|kibibytes| kibibytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_tells_what_is_used() {
        let watch = Stopwatch::start();
        let mut sum = 0_u64;
        while watch.wall() < Duration::from_millis(60) {
            sum = sum.wrapping_add(1);
        }
        assert!(sum > 0 && watch.cpu() > Duration::ZERO);
        assert!(peak_rss_bytes() > 1 << 20);
        assert!(available_bytes().unwrap() > 1 << 20);
    }
}
