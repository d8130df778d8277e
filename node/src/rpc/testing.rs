//! What tests of this room share.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::auth::{AdminToken, Authenticator};
use super::gate::{CallLimits, Gate};
use crate::config::RpcConfig;
use crate::environment::{OsEntropy, SystemClock};
use crate::journal::Journal;
use crate::store::{Committer, MemoryDisk};
use crate::tokens::{TokenParts, Tokens};

/// A tokens service of its own, with a store in memory.
pub(super) fn tokens() -> Arc<Tokens> {
    let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
    let _ends_with_the_test = committer.run_thread().unwrap();
    let parts = TokenParts {
        secret: Zeroizing::new([7; 32]),
        journal: Journal::open(committer.clone(), Arc::new(SystemClock)).unwrap(),
        committer,
        clock: Arc::new(SystemClock),
        entropy: Arc::new(OsEntropy),
    };
    Arc::new(Tokens::open(parts).unwrap())
}

/// The gate of a server, with the limits of an empty configuration.
pub(super) fn gate(admin: AdminToken, tokens: Arc<Tokens>) -> Arc<Gate> {
    Gate::new(Authenticator::new(admin, tokens), CallLimits::new(&RpcConfig::default()))
}
