//! Records every change a child process makes to files below one directory.
//!
//! The child runs under ptrace and stops at each system call of each of its threads, so nothing
//! escapes: not a call around libc, not a thread the engine starts. A change is recorded when its
//! call has returned, a sync when it is entered and again when it has returned: a write that
//! overlaps a sync counts as not covered. Calls that change files in a way the model of `disk`
//! does not know (shared writable maps, `io_uring`, holes) end the run with an error, and
//! [`Recording::disagreement`] compares the record with the directory afterwards.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::disk::{Content, Disk, Event, Node, NsOp, Tree};

/// What a traced run changed, in order.
#[derive(Debug)]
pub struct Recording {
    /// The directory before the run.
    pub base: Tree,
    /// The changes, syncs and marks.
    pub events: Vec<Event>,
    /// How often each recorded system call was seen.
    pub calls: HashMap<&'static str, u64>,
}

impl Recording {
    /// Compares the record, replayed in full, with `dir` as it is; returns the first difference.
    ///
    /// # Errors
    ///
    /// If `dir` cannot be read.
    pub fn disagreement(&self, dir: &Path) -> io::Result<Option<String>> {
        let mut disk = Disk::new(&self.base);
        for event in &self.events {
            disk.step(event);
        }
        let replayed = disk.everything();
        let (found, _) = Tree::read(dir)?;
        Ok(replayed.difference(&found))
    }
}

/// Runs `command`, records what it changes below `dir`, and reads its marks from `marks`.
///
/// # Errors
///
/// If ptrace is not permitted, the child fails, or it changes files in an unknown way.
pub fn record(command: &mut Command, dir: &Path, marks: &Path) -> io::Result<Recording> {
    let dir = dir.canonicalize()?;
    let (base, inodes) = Tree::read(&dir)?;
    let mut tracer = Tracer {
        dir,
        marks: marks.to_owned(),
        tree: base.clone(),
        inodes,
        entered: HashMap::new(),
        events: Vec::new(),
        calls: HashMap::new(),
        next_sync: 0,
    };
    sys::trace_from_exec(command);
    let child = command.spawn()?;
    tracer.run(child.id() as sys::Pid)?;
    Ok(Recording { base, events: tracer.events, calls: tracer.calls })
}

struct Tracer {
    dir: PathBuf,
    marks: PathBuf,
    tree: Tree,
    inodes: HashMap<u64, Node>,
    /// The call each thread is in, and the sync it began.
    entered: HashMap<sys::Pid, (u64, [u64; 6], Option<u64>)>,
    events: Vec<Event>,
    calls: HashMap<&'static str, u64>,
    next_sync: u64,
}

impl Tracer {
    fn run(&mut self, child: sys::Pid) -> io::Result<()> {
        sys::wait_for_exec(child)?;
        loop {
            match sys::wait()? {
                sys::Stop::Exited { pid, ok } if pid == child => {
                    return match ok {
                        true => Ok(()),
                        false => Err(io::Error::other("the traced child failed")),
                    };
                }
                sys::Stop::Exited { .. } => {}
                sys::Stop::Syscall { pid } => {
                    match sys::syscall_info(pid)? {
                        sys::Info::Entry { number, args } => {
                            let sync = self.enter(pid, number, args)?;
                            self.entered.insert(pid, (number, args, sync));
                        }
                        sys::Info::Exit { result } => {
                            if let Some((number, args, sync)) = self.entered.remove(&pid) {
                                self.leave(pid, number, args, sync, result)?;
                            }
                        }
                        sys::Info::Other => {}
                    }
                    sys::resume(pid, 0);
                }
                sys::Stop::Signal { pid, signal } => sys::resume(pid, signal),
            }
        }
    }

    /// At the entry of a call: begins syncs, refuses what the model does not know.
    fn enter(&mut self, pid: sys::Pid, number: u64, args: [u64; 6]) -> io::Result<Option<u64>> {
        let call = number as i64;
        match call {
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let Some(node) = self.node_of(pid, args[0]) else {
                    return Ok(None);
                };
                let sync = self.next_sync;
                self.next_sync += 1;
                self.events.push(Event::SyncBegin { sync, node });
                return Ok(Some(sync));
            }
            libc::SYS_io_uring_setup => return Err(unknown("io_uring")),
            libc::SYS_mmap => {
                let shared = args[3] & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64;
                let writes = args[2] & libc::PROT_WRITE as u64 != 0;
                let file = args[3] & libc::MAP_ANONYMOUS as u64 == 0;
                if shared && writes && file && self.node_of(pid, args[4]).is_some() {
                    return Err(unknown("mmap, shared and writable"));
                }
            }
            libc::SYS_copy_file_range | libc::SYS_splice
                if self.node_of(pid, args[2]).is_some() =>
            {
                return Err(unknown("copy_file_range or splice"));
            }
            libc::SYS_sendfile if self.node_of(pid, args[0]).is_some() => {
                return Err(unknown("sendfile"));
            }
            _ => {}
        }
        Ok(None)
    }

    /// At the return of a call that succeeded: records what it changed.
    fn leave(
        &mut self,
        pid: sys::Pid,
        number: u64,
        args: [u64; 6],
        sync: Option<u64>,
        result: i64,
    ) -> io::Result<()> {
        if result < 0 {
            return Ok(());
        }
        let cwd = libc::AT_FDCWD as u64;
        let call = number as i64;
        let name = match call {
            libc::SYS_fsync | libc::SYS_fdatasync => {
                let Some(sync) = sync else { return Ok(()) };
                self.events.push(Event::SyncEnd { sync });
                if call == libc::SYS_fsync { "fsync" } else { "fdatasync" }
            }
            libc::SYS_sync_file_range if self.node_of(pid, args[0]).is_some() => {
                // Deliberately no sync: it neither flushes the drive's cache nor metadata.
                "sync_file_range"
            }
            libc::SYS_write => {
                return self.written(pid, args[0], None, vec![(args[1], result as u64)]);
            }
            libc::SYS_pwrite64 => {
                let parts = vec![(args[1], result as u64)];
                return self.written(pid, args[0], Some(args[3]), parts);
            }
            libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 => {
                let offset = (call != libc::SYS_writev).then_some(args[3]);
                let parts = sys::io_vectors(pid, args[1], args[2], result as u64)?;
                return self.written(pid, args[0], offset, parts);
            }
            libc::SYS_ftruncate => {
                let Some(node) = self.node_of(pid, args[0]) else {
                    return Ok(());
                };
                self.events.push(Event::SetLen { node, len: args[1] });
                "ftruncate"
            }
            libc::SYS_fallocate => {
                let Some(node) = self.node_of(pid, args[0]) else {
                    return Ok(());
                };
                match args[1] {
                    0 => self.events.push(Event::Extend { node, len: args[2] + args[3] }),
                    1 => {}
                    _ => return Err(unknown("fallocate with holes")),
                }
                "fallocate"
            }
            libc::SYS_openat => {
                return self.opened(pid, result as u64, args[2]);
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open | libc::SYS_creat => {
                let truncates = libc::O_TRUNC as u64;
                let flags = if call == libc::SYS_open { args[1] } else { truncates };
                return self.opened(pid, result as u64, flags);
            }
            libc::SYS_openat2 => return Err(unknown("openat2")),
            libc::SYS_mkdirat => return self.made_dir(pid, args[0], args[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => return self.made_dir(pid, cwd, args[0]),
            libc::SYS_unlinkat => return self.removed(pid, args[0], args[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink | libc::SYS_rmdir => return self.removed(pid, cwd, args[0]),
            libc::SYS_renameat2 | libc::SYS_renameat => {
                if call == libc::SYS_renameat2 && args[4] & libc::RENAME_EXCHANGE as u64 != 0 {
                    return Err(unknown("renameat2 with exchange"));
                }
                return self.renamed(pid, (args[0], args[1]), (args[2], args[3]));
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => return self.renamed(pid, (cwd, args[0]), (cwd, args[1])),
            libc::SYS_linkat => return self.linked(pid, args[2], args[3]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link => return self.linked(pid, cwd, args[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_truncate => return Err(unknown("truncate by path")),
            _ => return Ok(()),
        };
        self.count(name);
        Ok(())
    }

    fn count(&mut self, name: &'static str) {
        *self.calls.entry(name).or_default() += 1;
    }

    /// Returns the node behind a descriptor, if it is one of ours.
    fn node_of(&self, pid: sys::Pid, fd: u64) -> Option<Node> {
        let link = format!("/proc/{pid}/fd/{}", fd as i32);
        let path = fs::read_link(&link).ok()?;
        if !path.starts_with(&self.dir) {
            return None;
        }
        let inode = fs::metadata(&link).ok()?.ino();
        self.inodes.get(&inode).copied()
    }

    fn written(
        &mut self,
        pid: sys::Pid,
        fd: u64,
        offset: Option<u64>,
        parts: Vec<(u64, u64)>,
    ) -> io::Result<()> {
        let link = format!("/proc/{pid}/fd/{}", fd as i32);
        let marks = fs::read_link(&link).is_ok_and(|path| path == self.marks);
        let node = self.node_of(pid, fd);
        if !marks && node.is_none() {
            return Ok(());
        }
        let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
        let mut data = Vec::new();
        for (address, len) in parts {
            let mut part = vec![0; len as usize];
            memory.read_exact_at(&mut part, address)?;
            data.extend_from_slice(&part);
        }
        if marks {
            return self.marked(&String::from_utf8_lossy(&data));
        }
        let Some(node) = node else { return Ok(()) };
        let offset = match offset {
            Some(offset) => offset,
            // The position after the write; true for appends as well.
            None => position(pid, fd)?.saturating_sub(data.len() as u64),
        };
        self.events.push(Event::Write { node, offset, data });
        self.count("write");
        Ok(())
    }

    fn marked(&mut self, line: &str) -> io::Result<()> {
        let bad = || unknown("a mark that does not read");
        let (what, number) = line.trim_end().split_once(' ').ok_or_else(bad)?;
        let number = number.parse().map_err(|_| bad())?;
        self.events.push(match what {
            "begin" => Event::Begin(number),
            "ack" => Event::Ack(number),
            _ => return Err(bad()),
        });
        Ok(())
    }

    fn opened(&mut self, pid: sys::Pid, fd: u64, flags: u64) -> io::Result<()> {
        let link = format!("/proc/{pid}/fd/{fd}");
        let Ok(path) = fs::read_link(&link) else {
            return Ok(());
        };
        let Ok(below) = path.strip_prefix(&self.dir) else {
            return Ok(());
        };
        if flags & libc::O_TMPFILE as u64 == libc::O_TMPFILE as u64 {
            return Err(unknown("O_TMPFILE"));
        }
        let below = below.to_owned();
        if let Some(node) = self.tree.find(&below) {
            if flags & libc::O_TRUNC as u64 != 0 {
                self.events.push(Event::SetLen { node, len: 0 });
                self.count("open with O_TRUNC");
            }
            return Ok(());
        }
        let node = self.tree.add_file(Content::default());
        self.inodes.insert(fs::metadata(&link)?.ino(), node);
        self.count("create");
        self.place(&below, Some(node), false)
    }

    fn made_dir(&mut self, pid: sys::Pid, at: u64, path: u64) -> io::Result<()> {
        let Some(below) = self.path(pid, at, path)? else {
            return Ok(());
        };
        let node = self.tree.add_dir();
        self.inodes.insert(fs::metadata(self.dir.join(&below))?.ino(), node);
        self.count("mkdir");
        self.place(&below, Some(node), true)
    }

    fn removed(&mut self, pid: sys::Pid, at: u64, path: u64) -> io::Result<()> {
        let Some(below) = self.path(pid, at, path)? else {
            return Ok(());
        };
        self.count("unlink");
        self.place(&below, None, false)
    }

    fn renamed(&mut self, pid: sys::Pid, from: (u64, u64), to: (u64, u64)) -> io::Result<()> {
        let (from, to) = (self.path(pid, from.0, from.1)?, self.path(pid, to.0, to.1)?);
        let (Some(from), Some(to)) = (from, to) else {
            return Err(unknown("rename across the border"));
        };
        let node = self.tree.find(&from).ok_or_else(|| unknown("rename"))?;
        let op = NsOp {
            changes: vec![
                self.tree.entry(&from, None).ok_or_else(|| unknown("rename"))?,
                self.tree.entry(&to, Some(node)).ok_or_else(|| unknown("rename"))?,
            ],
            new_dir: None,
        };
        self.tree.apply(&op);
        self.events.push(Event::Namespace(op));
        self.count("rename");
        Ok(())
    }

    fn linked(&mut self, pid: sys::Pid, at: u64, path: u64) -> io::Result<()> {
        match self.path(pid, at, path)? {
            Some(_) => Err(unknown("link")),
            None => Ok(()),
        }
    }

    fn place(&mut self, below: &Path, node: Option<Node>, new_dir: bool) -> io::Result<()> {
        let change = self
            .tree
            .entry(below, node)
            .ok_or_else(|| unknown("an entry in an unknown directory"))?;
        let op = NsOp { changes: vec![change], new_dir: if new_dir { node } else { None } };
        self.tree.apply(&op);
        self.events.push(Event::Namespace(op));
        Ok(())
    }

    /// Reads a path argument; returns it relative to our directory, or none if it is elsewhere.
    fn path(&self, pid: sys::Pid, at: u64, address: u64) -> io::Result<Option<PathBuf>> {
        let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < libc::PATH_MAX as usize {
            memory.read_exact_at(&mut byte, address + bytes.len() as u64)?;
            if byte[0] == 0 {
                break;
            }
            bytes.push(byte[0]);
        }
        let path = PathBuf::from(OsString::from_vec(bytes));
        let base = if at as i32 == libc::AT_FDCWD {
            fs::read_link(format!("/proc/{pid}/cwd"))?
        } else {
            fs::read_link(format!("/proc/{pid}/fd/{}", at as i32))?
        };
        let whole = base.join(path);
        Ok(whole.strip_prefix(&self.dir).ok().map(Path::to_owned))
    }
}

fn position(pid: sys::Pid, fd: u64) -> io::Result<u64> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd as i32))?;
    info.lines()
        .find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok())
        .ok_or_else(|| unknown("a descriptor without position"))
}

fn unknown(what: &str) -> io::Error {
    io::Error::other(format!("the workload uses {what}, which the power-cut suite does not model"))
}

/// The few calls of ptrace and wait that have no safe wrapper in the standard library.
#[allow(unsafe_code)]
mod sys {
    use super::{Command, CommandExt, io};
    use std::os::unix::fs::FileExt;

    pub(super) type Pid = libc::pid_t;

    pub(super) enum Stop {
        Exited { pid: Pid, ok: bool },
        Syscall { pid: Pid },
        Signal { pid: Pid, signal: i32 },
    }

    pub(super) enum Info {
        Entry { number: u64, args: [u64; 6] },
        Exit { result: i64 },
        Other,
    }

    /// Makes the child ask to be traced by the thread that spawns it.
    pub(super) fn trace_from_exec(command: &mut Command) {
        // SAFETY: between fork and exec only this one async-signal-safe call is made.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
    }

    pub(super) fn wait_for_exec(child: Pid) -> io::Result<()> {
        let mut status = 0;
        // SAFETY: `status` outlives the call; `child` is a child of this thread.
        if unsafe { libc::waitpid(child, &mut status, libc::__WALL) } != child {
            return Err(io::Error::last_os_error());
        }
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_EXITKILL;
        // SAFETY: PTRACE_SETOPTIONS reads its options from the last argument, no pointer.
        if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, child, 0, options) } != 0 {
            return Err(io::Error::last_os_error());
        }
        resume(child, 0);
        Ok(())
    }

    pub(super) fn wait() -> io::Result<Stop> {
        let mut status = 0;
        // SAFETY: `status` outlives the call. Only children of this very thread are waited for,
        // so other tests of the process keep theirs.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            let ok = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            return Ok(Stop::Exited { pid, ok });
        }
        let signal = libc::WSTOPSIG(status);
        Ok(if signal == libc::SIGTRAP | 0x80 {
            Stop::Syscall { pid }
        } else if signal == libc::SIGTRAP || (signal == libc::SIGSTOP && status >> 16 == 0) {
            // Events of ptrace, and the first stop of a new thread, are not for the child.
            Stop::Signal { pid, signal: 0 }
        } else {
            Stop::Signal { pid, signal }
        })
    }

    pub(super) fn syscall_info(pid: Pid) -> io::Result<Info> {
        // Layout of `struct ptrace_syscall_info`: op at 0, then at 24 number and six arguments,
        // or the result.
        let mut info = [0_u64; 11];
        let len = std::mem::size_of_val(&info);
        // SAFETY: the kernel writes at most `len` bytes into `info`.
        let got =
            unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, len, info.as_mut_ptr()) };
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(match info[0].to_ne_bytes()[0] {
            1 => Info::Entry {
                number: info[3],
                args: [info[4], info[5], info[6], info[7], info[8], info[9]],
            },
            2 => Info::Exit { result: info[3] as i64 },
            _ => Info::Other,
        })
    }

    /// Lets a stopped thread run to its next stop. A thread that was killed meanwhile is reported
    /// by the next wait, so the result says nothing.
    pub(super) fn resume(pid: Pid, signal: i32) {
        // SAFETY: PTRACE_SYSCALL takes the signal by value, no pointer.
        unsafe {
            libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal);
        }
    }

    /// Returns address and length of what the first `total` bytes of a vectored write came from.
    pub(super) fn io_vectors(
        pid: Pid,
        address: u64,
        count: u64,
        total: u64,
    ) -> io::Result<Vec<(u64, u64)>> {
        let memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
        let mut left = total;
        let mut parts = Vec::new();
        for index in 0..count {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, address + index * 16)?;
            let base = u64::from_ne_bytes(word);
            memory.read_exact_at(&mut word, address + index * 16 + 8)?;
            let len = u64::from_ne_bytes(word).min(left);
            left -= len;
            parts.push((base, len));
        }
        Ok(parts)
    }
}
