//! What this node hands to towers of its choice.
//!
//! Everything that is revealed waits in one durable outbox, `lightning/justice`. Each tower has a
//! place in it and a task that brings it forward: it makes the appointments in the form that this
//! tower wants, sends them in order, checks the receipts, and notes how far it came. A tower that
//! is slow or gone holds up nobody but its own place; what the slowest one has is forgotten.
//!
//! - `service.rs`: the towers, and what the operator sees. `deliver.rs`: the task of each.
//! - `record.rs`: what the store has of them. `make.rs`: appointments for one tower.
//! - `paths.rs`: paths of batches, for towers of the household.
//! - `link.rs`: the way to a tower, a seam: gRPC, or a tower in this process.

mod deliver;
mod link;
mod make;
mod paths;
mod record;
mod service;

pub use link::{LinkFailure, Registration, Terms, TowerLink, TowerLinks};
pub use record::TowerRecord;
pub use service::{AddTowerError, GuardView, Parts, RemoveTowerError, Towers};
