//! A program of somebody: started with a log of its own, killed without a word, removed at the end.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::wait::Failure;

const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// A program that runs, or may run again.
pub struct Process {
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

/// The ends of a program's standard streams.
pub type Pipes = (ChildStdin, ChildStdout);

impl Process {
    /// A program that logs to `log`; not started yet.
    pub fn new(log: PathBuf) -> Self {
        Self { log, child: Mutex::new(None) }
    }

    /// Starts `command`; its output goes to the end of the log.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn start(&self, mut command: Command) -> Result<(), Failure> {
        let log = self.log_file()?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.spawn(command).map(drop)
    }

    /// Starts `command` and returns its standard input and output; its errors go to the log.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn start_piped(&self, mut command: Command) -> Result<Pipes, Failure> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(self.log_file()?);
        self.spawn(command)?.ok_or_else(|| "the program has no standard streams".into())
    }

    fn spawn(&self, mut command: Command) -> Result<Option<Pipes>, Failure> {
        let mut child = command.spawn().map_err(|error| {
            format!("{} does not start: {error}", command.get_program().display())
        })?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        *self.child() = Some(child);
        Ok(pipes)
    }

    /// Kills the program at once (SIGKILL): what is on disk is what it starts from.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub fn kill(&self) -> Result<(), Failure> {
        if let Some(mut child) = self.child().take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits for a program that was asked to end, and kills it if it does not.
    pub fn ended(&self) {
        let Some(mut child) = self.child().take() else { return };
        let deadline = Instant::now() + STOP_PATIENCE;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.child().as_mut().is_none_or(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// The last lines of its log.
    pub fn tail(&self, lines: usize) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log_file(&self) -> std::io::Result<File> {
        File::options().create(true).append(true).open(&self.log)
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An address on loopback that nothing listens on.
///
/// # Errors
///
/// If the system has none.
pub fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Makes the directory of one program.
///
/// # Errors
///
/// If the system refuses.
pub fn directory(root: &Path, name: &str) -> std::io::Result<PathBuf> {
    let dir = root.join(name);
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
