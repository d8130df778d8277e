//! What the process has used: syncs, processor time, bytes to the disk.
//!
//! `fsync` and `fdatasync` are defined here, so that every caller in this binary is counted:
//! the standard library and the SQLite that is linked into it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libc::{c_int, c_long};

use crate::Failure;

static SYNCS: AtomicU64 = AtomicU64::new(0);

/// What the process has used so far. Its children are not in it as long as they run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Calls of `fsync` and `fdatasync`.
    pub(crate) syncs: u64,
    /// User and system time.
    pub(crate) cpu: Duration,
    /// Bytes that went to the disk, by the kernel's count.
    pub(crate) disk_bytes: u64,
}

impl Usage {
    /// Reads the counters.
    ///
    /// # Errors
    ///
    /// If the system does not say.
    pub(crate) fn now() -> Result<Self, Failure> {
        let io = std::fs::read_to_string("/proc/self/io")
            .map_err(|error| format!("/proc/self/io cannot be read: {error}"))?;
        let disk_bytes = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes:"))
            .ok_or("/proc/self/io has no write_bytes")?
            .trim()
            .parse()?;
        Ok(Self { syncs: SYNCS.load(Ordering::Relaxed), cpu: cpu()?, disk_bytes })
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            syncs: self.syncs - earlier.syncs,
            cpu: self.cpu.saturating_sub(earlier.cpu),
            disk_bytes: self.disk_bytes.saturating_sub(earlier.disk_bytes),
        }
    }
}

fn cpu() -> Result<Duration, Failure> {
    // SAFETY: all zeros is a valid `rusage`, and the call writes only to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        usage
    };
    Ok(duration(usage.ru_utime)? + duration(usage.ru_stime)?)
}

fn duration(time: libc::timeval) -> Result<Duration, Failure> {
    Ok(Duration::from_secs(time.tv_sec.try_into()?)
        + Duration::from_micros(time.tv_usec.try_into()?))
}

/// Counts, then syncs file and metadata.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(fd: c_int) -> c_int {
    counted(libc::SYS_fsync, fd)
}

/// Counts, then syncs what is needed to read the file back.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(fd: c_int) -> c_int {
    counted(libc::SYS_fdatasync, fd)
}

fn counted(call: c_long, fd: c_int) -> c_int {
    SYNCS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: both calls take one file descriptor and touch no memory of ours. `syscall` sets
    // `errno` as the C library's own functions do.
    let result = unsafe { libc::syscall(call, fd) };
    if result == 0 { 0 } else { -1 }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    // One test: the counter is one of the whole process.
    #[test]
    fn syncs_of_the_standard_library_are_counted() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bytes").unwrap();
        let before = Usage::now().unwrap();
        file.sync_all().unwrap();
        file.sync_data().unwrap();
        assert_eq!(Usage::now().unwrap().since(before).syncs, 2);

        assert_eq!(fsync(-1), -1);
        assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EBADF));
    }
}
