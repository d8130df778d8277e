//! Events told over HTTP, to receivers on loopback that fail, hang, and lie.
//!
//! Most suites run the service alone, on a log and a disk of their own; `nodes` runs whole nodes.
//! A receiver checks signatures by itself, from the scheme's text: see `verifier`.
#![allow(missing_docs, clippy::unwrap_used)]

mod changes;
mod faults;
mod neighbours;
mod nodes;
mod receiver;
mod refusals;
mod stage;
mod verifier;
