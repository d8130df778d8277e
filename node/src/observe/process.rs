//! What the operating system knows of this process. On systems other than Linux, nothing.

use std::fs;

/// Clock ticks in a second, as `/proc` counts them: 100 on every Linux there is.
const TICKS: u64 = 100;

/// Figures of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessFigures {
    /// Memory in use, bytes.
    pub resident_bytes: Option<u64>,
    /// Files that are open.
    pub open_files: Option<u64>,
    /// How many may be; `None` also where there is no limit.
    pub open_files_max: Option<u64>,
    /// Time on the processor, hundredths of a second.
    pub cpu_hundredths: Option<u64>,
}

impl ProcessFigures {
    /// Looks now.
    pub fn read() -> Self {
        let text = |file: &str| fs::read_to_string(format!("/proc/self/{file}")).ok();
        Self {
            resident_bytes: text("status").as_deref().and_then(resident_bytes),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            open_files_max: text("limits").as_deref().and_then(open_files_max),
            cpu_hundredths: text("stat").as_deref().and_then(cpu_ticks).map(|t| t * 100 / TICKS),
        }
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1_024)
}

fn open_files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, after the name in brackets, which may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    field(14)?.checked_add(field(15)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_of_linux_are_read() {
        assert_eq!(resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        let limits = "Limit                     Soft Limit           Hard Limit\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files_max(limits), Some(1_024));
        assert_eq!(open_files_max("Max open files            unlimited  unlimited files"), None);
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(175));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_figures() {
        let figures = ProcessFigures::read();
        assert!(figures.resident_bytes.unwrap() > 1 << 20, "{figures:?}");
        assert!(figures.open_files.unwrap() >= 3, "{figures:?}");
        assert!(figures.cpu_hundredths.is_some());
    }
}
