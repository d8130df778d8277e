//! A power cut at the level of file writes, for the engines behind `node::store`.
//!
//! 1. `tracer` runs a workload in a child process and records, with ptrace, every system call
//!    that changes a file below one directory, with its data, and every sync.
//! 2. `disk` replays the record up to a cut: what was synced is there, of the rest an arbitrary,
//!    seeded part is, some of it torn at sectors.
//! 3. `checker` opens the store on that image in another child and compares it with the workload.
//!
//! `workload` says what is written, `suite` ties the steps together. The children are the binary
//! `power_cut_child`. What is assumed of a disk is written at the top of `disk`.

pub mod checker;
pub mod disk;
pub mod suite;
pub mod tracer;
pub mod workload;
