//! What a node says of itself that a restart must not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use bitcoin::OutPoint;
use node::payments::PaymentState;

/// What a node says of itself that a restart must not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// By funding output: what is ours and what is theirs, msat.
    pub channels: BTreeMap<Option<OutPoint>, (u64, u64)>,
    /// By id.
    pub payments: BTreeMap<[u8; 32], PaymentState>,
    /// Wishes and batches, in words.
    pub batches: BTreeMap<String, String>,
    /// What the wallet has, sat.
    pub wallet_sat: u64,
}

impl Memory {
    /// What `after` says otherwise, in words.
    pub fn changes(&self, after: &Self) -> Vec<String> {
        let mut changes = changed(&self.channels, &after.channels);
        changes.extend(changed(&self.payments, &after.payments));
        changes.extend(changed(&self.batches, &after.batches));
        if self.wallet_sat != after.wallet_sat {
            changes.push(format!("wallet: {} sat, now {}", self.wallet_sat, after.wallet_sat));
        }
        changes
    }
}

/// Entries that are not the same in both.
fn changed<K: Ord + Debug, V: Eq + Debug>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
) -> Vec<String> {
    let keys: BTreeSet<&K> = before.keys().chain(after.keys()).collect();
    let differ = keys.into_iter().filter(|key| before.get(key) != after.get(key));
    differ.map(|key| format!("{key:?}: {:?}, now {:?}", before.get(key), after.get(key))).collect()
}
