//! What the store has of towers.

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::PublicKey;
use channel_contracts::tower::Mode;
use serde::{Deserialize, Serialize};

use crate::lightning::types::ChannelId;
use crate::store::cbor::{decode, encode};
use crate::store::{Batch, Committer, StoreError, Table};

/// A tower that guards this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerRecord {
    /// Its key.
    pub tower: PublicKey,
    /// Where it is.
    pub address: String,
    /// Whether it is one of this household, see [`Mode::Trusted`].
    pub trusted: bool,
    /// The next entry of the outbox that it is to have.
    pub next: u64,
    /// Appointments that it signed for.
    pub delivered: u64,
    /// Appointments that it refused for good.
    pub refused: u64,
    /// States that it never heard of, since too much waited.
    #[serde(default)]
    pub missed: u64,
    /// Height at which the subscription ends.
    pub expires: u32,
    /// What it spends on one path of this node, or adds to the answer to one breach.
    #[serde(default)]
    pub fee_budget_sat: u64,
    /// When it last signed for something, ms since 1970.
    pub last_receipt_ms: Option<u64>,
}

impl TowerRecord {
    /// How far it is trusted.
    pub fn mode(&self) -> Mode {
        if self.trusted { Mode::Trusted } else { Mode::Blind }
    }

    pub(super) fn put(&self, writes: &mut Batch) {
        writes.put(Table::Guarding.key(self.tower.serialize()), encode(self));
    }

    pub(super) fn delete(tower: &PublicKey, writes: &mut Batch) {
        writes.delete(Table::Guarding.key(tower.serialize()));
    }
}

/// Reads the towers of this node.
pub(super) fn load(committer: &Committer) -> Result<Vec<TowerRecord>, StoreError> {
    let pairs = committer.scan_all(Table::Guarding, [])?;
    pairs.iter().map(|(_, value)| decode(Table::Guarding, value)).collect()
}

/// Where what a tower takes back for `channel` goes to, if that was decided.
pub(super) fn sweep_script(
    committer: &Committer,
    channel: ChannelId,
) -> Result<Option<ScriptBuf>, StoreError> {
    Ok(committer.get(&sweep_key(channel))?.map(ScriptBuf::from_bytes))
}

pub(super) fn put_sweep_script(channel: ChannelId, script: &ScriptBuf, writes: &mut Batch) {
    writes.put(sweep_key(channel), script.to_bytes());
}

pub(super) fn delete_sweep_script(channel: ChannelId, writes: &mut Batch) {
    writes.delete(sweep_key(channel));
}

fn sweep_key(channel: ChannelId) -> Vec<u8> {
    Table::TowerSweep.key(channel.0)
}
