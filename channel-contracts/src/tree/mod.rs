//! The tree of a batch: pre-signed transactions between one on-chain output and N channels.
//!
//! ```text
//! batch transaction ── root ──► tree transaction ──► node ──► tree transaction ──► funding 0
//!                      (chain)   (level 0)      │             (level 1)       ├──► funding 1
//!                                               ├──► node ──► …               └──► P2A, 0 sat
//!                                               └──► P2A, 0 sat
//! ```
//!
//! - [`shape`]: who stands where, from N and radix alone.
//! - [`transactions`]: the hub's view, all transactions.
//! - [`path`]: a user's view, the transactions above its channel, encoded in about 1 kB.
//! - [`proposal`]: what the hub offers a user to sign, and what the user checks first.
//! - [`cost`]: what an exit, a batch and a settlement weigh on the chain.
//!
//! Signing is done by [`musig`](crate::musig), over what is built here. Publishing, and fee
//! children, stay outside.
//!
//! Source: BATCHES §2; John Law, "Scaling Lightning With Simple Covenants" (timeout trees).

pub mod cost;
pub mod path;
pub mod proposal;
pub mod shape;
pub mod transactions;

pub use cost::{BatchCost, ExitCost};
pub use path::{Path, PathError, PathLevel, PathTransaction, SignedPath, VerifiedPath};
pub use proposal::{AgreedLevel, AgreedPath, Proposal, ProposalError, Terms};
pub use shape::{Child, LeafSlot, Radix, Shape, ShapeError, ShapeNode, UserSlot};
pub use transactions::{BatchTree, Member, PlannedTree, TreeError, TreeNode, TreeTerms};
