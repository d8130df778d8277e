//! Many payments from one file, on whole nodes: each line once, over kills, repetitions and
//! neighbours who are away, and sums that agree to the millisatoshi.
#![allow(missing_docs, clippy::unwrap_used)]

mod chain;
mod duplicates;
mod kills;
mod schedules;
mod stage;
mod waits;
