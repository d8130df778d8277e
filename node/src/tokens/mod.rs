//! Tokens: who may call which method, and what that may cost.
//!
//! A token is an id and a chain of restrictions, each sealed by an HMAC under the one before
//! (`token.rs`, which has the format). Whoever holds one can add a restriction without the node,
//! and nobody can take one off. `restriction.rs` says what there is to restrict, `roles.rs` which
//! methods a role has. What a token may spend is counted in accounts: `account.rs` is their
//! arithmetic, `ledger.rs` keeps them in the batch of what is paid for, `purse.rs` is what a
//! service is shown of it. `service.rs` bakes, lists, revokes and checks; `refusals.rs` tells of calls
//! that were refused.
//!
//! Nothing here knows gRPC: a method is its full name.

mod account;
mod ledger;
mod purse;
mod refusals;
mod restriction;
mod roles;
mod service;
mod token;

pub use account::{Account, AccountId};
pub use ledger::{Held, Ledger, Subject};
pub use purse::{Purse, SpendingError};
pub use restriction::{Cidr, MethodPattern, Restriction, RestrictionError};
pub use roles::Role;
pub use service::{
    BakeError, Baked, Holder, RevokeError, Revoking, TokenParts, TokenRefusal, TokenView, Tokens,
};
pub use token::{LinkId, PREFIX, ParseTokenError, Token, TokenId};

#[cfg(test)]
mod tests;
