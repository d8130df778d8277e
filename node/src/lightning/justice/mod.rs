//! What channels reveal as their states are revoked, kept for watchtowers.
//!
//! LDK shows every commitment of the counterparty when it is made, and the secret that revokes it
//! one update later; from both follows all that a tower needs to punish it. What is revealed is
//! written in the batch of the update that reveals it, so that no power cut comes between, and
//! waits here until every tower has it. Nothing is signed or sealed here: each tower wants it in
//! its own form, and a payment must not wait for that.
//!
//! Nothing is kept while no tower is wanted. A state that was revoked before, and the one that a
//! channel is in when the first tower is added, is known to nobody but LDK's monitor; a splice or a
//! new channel leaves such states behind.

mod record;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey, SignOnly};
use bitcoin::{Amount, absolute, relative};
use channel_contracts::justice::{
    RevocationSecret, RevokedHtlc, RevokedKeys, RevokedState, RevokedTerms, RevokedToLocal,
};
use channel_contracts::script::{
    CommitmentFormat, HtlcDirection, RevocationSecrets, ToLocal, keys,
};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::chan_utils::CommitmentTransaction;
use lightning::sign::{InMemorySigner, SignerProvider};
use lightning::util::ser::Writeable;
use parking_lot::Mutex;
use tokio::sync::watch;

use record::{
    corrupt, decode_revealed, decode_revocable, encode_revealed, encode_revocable, entry_key,
    keys_id_in, next_key, number_of, revocable_key, secrets_in,
};

use super::signer::NodeKeys;
use super::types::ChannelId;
use crate::store::{Batch, Committer, StoreError, Table, Ticket};

/// LDK counts commitments down from here.
const FIRST_COMMITMENT: u64 = (1 << 48) - 1;
/// Entries read or forgotten at once.
const STEP: usize = 1_000;
/// Longest `to_self_delay` that LDK lets us ask for, and more than anybody does.
const DELAY_MAX: u16 = 2_016;

/// Something a tower is to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revealed {
    /// A state was revoked.
    State(Box<RevealedState>),
    /// `channel` is closed and settled: nothing of it can be misused any more.
    Gone {
        /// The channel.
        channel: ChannelId,
    },
}

/// A state that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevealedState {
    /// The channel.
    pub channel: ChannelId,
    /// The number of the commitment, from 0.
    pub number: u64,
    /// What it was.
    pub state: RevokedState,
    /// What punishes it.
    pub secret: RevocationSecret,
}

/// Entries that are to be written with a batch.
#[derive(Debug, Default)]
pub(super) struct Staged(Vec<Revealed>);

/// The outbox of revealed states, one for all towers.
pub struct JusticeLog {
    committer: Committer,
    wanted: AtomicBool,
    /// What we ask peers to wait for their own money, in blocks: tried first.
    to_self_delay: u16,
    keys: Arc<NodeKeys>,
    secp: Secp256k1<SignOnly>,
    inner: Mutex<Inner>,
    /// The next entry's number.
    next: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    /// Commitments that are not revoked, by channel. Usually one; two while a splice is under way
    /// or a new one is signed.
    revocable: HashMap<ChannelId, Vec<Revocable>>,
    delays: HashMap<ChannelId, u16>,
    basepoints: HashMap<ChannelId, SecretKey>,
    bytes_waiting: u64,
    /// The first entry that is kept.
    first: u64,
}

/// A commitment that may be revoked one day.
struct Revocable {
    number: u64,
    state: RevokedState,
}

impl JusticeLog {
    /// Reads what waits. `to_self_delay` is what we ask of peers now, in blocks.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(
        committer: Committer,
        keys: Arc<NodeKeys>,
        to_self_delay: u16,
    ) -> Result<Self, StoreError> {
        let mut inner = Inner::default();
        for (key, value) in committer.scan_all(Table::Revocable, [])? {
            let (channel, revocable) =
                decode_revocable(&key, &value).ok_or_else(|| corrupt(Table::Revocable, &key))?;
            inner.revocable.entry(channel).or_default().push(revocable);
        }
        let (from, to) = Table::Revealed.range();
        committer.scan_steps(&from, &to, STEP, |pairs| {
            inner.bytes_waiting += pairs.iter().map(|(_, value)| value.len() as u64).sum::<u64>();
            Ok(())
        })?;
        let oldest = committer.scan(&from, &to, 1)?;
        let last = committer.scan_back(&from, &to, 1)?;
        let next = match last.first() {
            Some((key, _)) => number_of(key)? + 1,
            None => match committer.get(&next_key())? {
                Some(value) => value
                    .try_into()
                    .map(u64::from_be_bytes)
                    .map_err(|_| corrupt(Table::RevealedNext, &next_key()))?,
                None => 0,
            },
        };
        inner.first = oldest.first().map_or(Ok(next), |(key, _)| number_of(key))?;
        Ok(Self {
            committer,
            wanted: AtomicBool::new(false),
            to_self_delay,
            keys,
            secp: Secp256k1::signing_only(),
            inner: Mutex::new(inner),
            next: watch::Sender::new(next),
        })
    }

    /// Says whether there is a tower to keep anything for.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
        if wanted {
            return;
        }
        // Their secrets will go by unheard.
        let mut writes = Batch::default();
        for (channel, revocable) in self.inner.lock().revocable.drain() {
            for revocable in revocable {
                writes.delete(revocable_key(channel, &revocable));
            }
        }
        if !writes.is_empty() {
            let _forgotten_again_at_the_next_start = self.committer.enqueue(writes);
        }
    }

    /// The number of the entry that comes next; changes with each.
    pub fn next(&self) -> watch::Receiver<u64> {
        self.next.subscribe()
    }

    /// Bytes of entries that wait for a tower.
    pub fn bytes_waiting(&self) -> u64 {
        self.inner.lock().bytes_waiting
    }

    /// Returns entries from `number` on, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn read(&self, number: u64, limit: usize) -> Result<Vec<(u64, Revealed)>, StoreError> {
        let (_, to) = Table::Revealed.range();
        let pairs = self.committer.scan(&entry_key(number), &to, limit)?;
        let entries = pairs.iter().map(|(key, value)| {
            let revealed = decode_revealed(value).ok_or_else(|| corrupt(Table::Revealed, key))?;
            Ok((number_of(key)?, revealed))
        });
        entries.collect()
    }

    /// Forgets the entries before `number`: all towers have them.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn forget_before(&self, number: u64) -> Result<(), StoreError> {
        loop {
            let mut inner = self.inner.lock();
            if inner.first >= number {
                return Ok(());
            }
            let pairs = self.committer.scan(&entry_key(inner.first), &entry_key(number), STEP)?;
            let mut writes = Batch::default();
            let is_last = pairs.len() < STEP;
            for (key, value) in pairs {
                inner.bytes_waiting = inner.bytes_waiting.saturating_sub(value.len() as u64);
                inner.first = number_of(&key)? + 1;
                writes.delete(key);
            }
            if is_last {
                inner.first = number;
            }
            // The number goes on where it was when nothing is left to read it from.
            writes.put(next_key(), self.next.borrow().to_be_bytes().to_vec());
            let _forgotten_again_after_a_crash = self.committer.enqueue(writes);
        }
    }

    /// Writes `batch` with the entries in `staged`. An entry is announced when it can be read, and
    /// all before it.
    pub(super) fn enqueue(&self, mut batch: Batch, staged: Staged) -> Ticket {
        if staged.0.is_empty() {
            return self.committer.enqueue(batch);
        }
        let mut inner = self.inner.lock();
        let mut next = *self.next.borrow();
        for revealed in &staged.0 {
            let value = encode_revealed(revealed);
            inner.bytes_waiting += value.len() as u64;
            batch.put(entry_key(next), value);
            next += 1;
        }
        let ticket = self.committer.enqueue(batch);
        self.next.send_replace(next);
        ticket
    }

    /// Learns the first commitment of a new channel.
    pub(super) fn begin(&self, monitor: &ChannelMonitor<InMemorySigner>, writes: &mut Batch) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        if let Some(commitment) = monitor.initial_counterparty_commitment_tx() {
            self.learn(monitor.channel_id().into(), &commitment, writes);
        }
    }

    /// Learns what an update has: commitments, and secrets that revoke earlier ones.
    pub(super) fn update(
        &self,
        monitor: &ChannelMonitor<InMemorySigner>,
        update: &ChannelMonitorUpdate,
        encoded: &[u8],
        writes: &mut Batch,
    ) -> Staged {
        let mut staged = Staged::default();
        if !self.wanted.load(Ordering::Relaxed) {
            return staged;
        }
        let channel = monitor.channel_id().into();
        for commitment in monitor.counterparty_commitment_txs_from_update(update) {
            self.learn(channel, &commitment, writes);
        }
        for (index, secret) in secrets_in(encoded) {
            let number = FIRST_COMMITMENT.saturating_sub(index);
            staged.0.extend(self.reveal(channel, monitor, number, secret, writes));
        }
        staged
    }

    /// The channel is closed, and nothing of it is left on chain.
    pub(super) fn gone(&self, channel: ChannelId, writes: &mut Batch) -> Staged {
        let mut inner = self.inner.lock();
        for revocable in inner.revocable.remove(&channel).unwrap_or_default() {
            writes.delete(revocable_key(channel, &revocable));
        }
        inner.delays.remove(&channel);
        inner.basepoints.remove(&channel);
        let is_wanted = self.wanted.load(Ordering::Relaxed);
        Staged(is_wanted.then_some(Revealed::Gone { channel }).into_iter().collect())
    }

    fn learn(&self, channel: ChannelId, commitment: &CommitmentTransaction, writes: &mut Batch) {
        let known = self.inner.lock().delays.get(&channel).copied();
        let Some((delay, revocable)) = self.revocable(commitment, known) else {
            return tracing::error!(%channel, "a commitment is not as expected; towers do not guard it");
        };
        let mut inner = self.inner.lock();
        inner.delays.insert(channel, delay);
        writes.put(revocable_key(channel, &revocable), encode_revocable(&revocable));
        let of_channel = inner.revocable.entry(channel).or_default();
        of_channel
            .retain(|known| known.state.commitment_txid() != revocable.state.commitment_txid());
        of_channel.push(revocable);
    }

    /// The commitment in our words, and the delay in it.
    fn revocable(
        &self,
        commitment: &CommitmentTransaction,
        delay: Option<u16>,
    ) -> Option<(u16, Revocable)> {
        let trusted = commitment.trust();
        let features = trusted.channel_type_features();
        let format = if features.supports_anchor_zero_fee_commitments() {
            CommitmentFormat::ZeroFee
        } else if features.supports_anchors_zero_fee_htlc_tx() {
            CommitmentFormat::Anchors
        } else {
            CommitmentFormat::StaticRemoteKey
        };
        let keys = trusted.keys();
        let keys = RevokedKeys {
            revocation: keys.revocation_key.to_public_key(),
            broadcaster_delayed: keys.broadcaster_delayed_payment_key.to_public_key(),
            broadcaster_htlc: keys.broadcaster_htlc_key.to_public_key(),
            countersignatory_htlc: keys.countersignatory_htlc_key.to_public_key(),
        };
        let transaction = &trusted.built_transaction().transaction;
        let output = trusted
            .revokeable_output_index()
            .and_then(|vout| Some((u16::try_from(vout).ok()?, transaction.output.get(vout)?)));
        let delay = match output {
            // LDK does not say which delay the channel has; its script does.
            Some((_, output)) => {
                let fits = |delay: &u16| {
                    let script = ToLocal {
                        revocation_key: keys.revocation,
                        delayed_key: keys.broadcaster_delayed,
                        to_self_delay: relative::Height::from(*delay),
                    };
                    script.script_pubkey() == output.script_pubkey
                };
                let likely = [delay.unwrap_or(self.to_self_delay)];
                likely.into_iter().chain(1..=DELAY_MAX).find(fits)?
            }
            None => delay.unwrap_or(self.to_self_delay),
        };
        let terms = RevokedTerms { format, keys, to_self_delay: relative::Height::from(delay) };
        let to_local = output.map(|(vout, output)| RevokedToLocal { vout, value: output.value });
        let htlcs = commitment.nondust_htlcs().iter().filter_map(|htlc| {
            Some(RevokedHtlc {
                vout: u16::try_from(htlc.transaction_output_index?).ok()?,
                value: Amount::from_sat(htlc.amount_msat / 1_000),
                direction: if htlc.offered {
                    HtlcDirection::Offered
                } else {
                    HtlcDirection::Received
                },
                payment_hash: Hash::from_byte_array(htlc.payment_hash.0),
                cltv_expiry: absolute::Height::from_consensus(htlc.cltv_expiry).ok()?,
            })
        });
        let state = RevokedState::new(trusted.txid(), &terms, to_local, htlcs.collect()).ok()?;
        let number = FIRST_COMMITMENT.checked_sub(commitment.commitment_number())?;
        Some((delay, Revocable { number, state }))
    }

    /// A secret revokes the commitments of its number: one for each funding output.
    fn reveal(
        &self,
        channel: ChannelId,
        monitor: &ChannelMonitor<InMemorySigner>,
        number: u64,
        secret: SecretKey,
        writes: &mut Batch,
    ) -> Vec<Revealed> {
        let revoked: Vec<Revocable> = {
            let mut inner = self.inner.lock();
            let Some(of_channel) = inner.revocable.get_mut(&channel) else { return Vec::new() };
            let all = std::mem::take(of_channel).into_iter();
            let (revoked, rest) = all.partition(|known| known.number <= number);
            *of_channel = rest;
            revoked
        };
        if revoked.is_empty() {
            return Vec::new();
        }
        let known = self.inner.lock().basepoints.get(&channel).copied();
        let basepoint = known.or_else(|| self.basepoint_secret(monitor));
        self.inner.lock().basepoints.extend(basepoint.map(|basepoint| (channel, basepoint)));
        let derived = basepoint.and_then(|revocation_basepoint_secret| {
            let per_commitment_secret = secret;
            let secrets = RevocationSecrets { revocation_basepoint_secret, per_commitment_secret };
            keys::revocation_secret(&self.secp, &secrets).ok()
        });
        let mut revealed = Vec::new();
        for revocable in revoked {
            writes.delete(revocable_key(channel, &revocable));
            let Some(derived) = derived.filter(|_| revocable.number == number) else {
                tracing::error!(%channel, number = revocable.number, "secret of a commitment was missed, or our half of its key; towers do not guard it");
                continue;
            };
            let (state, secret) = (revocable.state, RevocationSecret::new(derived));
            let state = RevealedState { channel, number, state, secret };
            revealed.push(Revealed::State(Box::new(state)));
        }
        revealed
    }

    /// Our secret behind the revocation keys of a channel.
    fn basepoint_secret(&self, monitor: &ChannelMonitor<InMemorySigner>) -> Option<SecretKey> {
        let (keys_id, basepoint) = keys_id_in(&monitor.encode())?;
        let secret = self.keys.derive_channel_signer(keys_id).revocation_base_key;
        (secret.public_key(&self.secp) == basepoint).then_some(secret)
    }
}
