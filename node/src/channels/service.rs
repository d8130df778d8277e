//! The channels service: calls, LDK's events and the wallet, kept in step by records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{FeeRate, ScriptBuf, TxOut};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::batch::Expected;
use super::breaches::security;
use super::endings::Endings;
use super::record::{ChannelRecord, ChannelState};
use super::renewal::{Attempts, RenewalPolicy};
use super::request::{CAPACITY_SAT_MAX, CAPACITY_SAT_MIN, CloseError, OpenError, OpenRequest};
use super::view::{ChannelView, Records};
use crate::chain::broadcast::BroadcastQueue;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::environment::Entropy;
use crate::journal::{
    ChannelEvent, DomainEvent, Fingerprint, Idempotency, IdempotencyError, IdempotencyKey, Journal,
    millis,
};
use crate::lightning::types::{ChannelId, ChannelRef, NodeId};
use crate::lightning::{CloseKind, Lightning, LightningEvent, OpenChannel, PeerBook};
use crate::store::{Batch, Committer, StoreError, Table};
use crate::tokens::{Ledger, Purse};
use crate::wallet::{FundingRequest, Owner, Wallet};

/// A peer that has not agreed by then will not.
const OPENING_TIMEOUT: Duration = Duration::from_secs(60);
/// A funding transaction's size with one input and change, for the check before asking a peer.
const FUNDING_VBYTES: u64 = 155;

/// What the service is made from.
pub struct ChannelParts {
    /// Records.
    pub journal: Journal,
    /// The way to the store.
    pub committer: Committer,
    /// LDK.
    pub lightning: Arc<Lightning>,
    /// Coins.
    pub wallet: Arc<Wallet>,
    /// Feerates.
    pub fees: FeeEstimates,
    /// Addresses of peers.
    pub peers: Arc<PeerBook>,
    /// Randomness for ids.
    pub entropy: Arc<dyn Entropy>,
    /// Transactions on their way out.
    pub broadcasts: BroadcastQueue,
    /// When channels are renewed.
    pub renewal: RenewalPolicy,
    /// What callers' tokens have spent.
    pub ledger: Arc<Ledger>,
    /// What ended channels.
    pub endings: Arc<Endings>,
}

/// The channels service.
pub struct Channels {
    pub(super) parts: ChannelParts,
    idempotency: Idempotency,
    /// Channels that peers may open to us for a batch.
    pub(super) expected: Mutex<Vec<Expected>>,
    pub(super) records: Mutex<Records>,
    pub(super) attempts: Mutex<HashMap<ChannelRef, Attempts>>,
    /// Closed channels that the chain owes nothing any more.
    pub(super) settled: Mutex<HashSet<ChannelRef>>,
}

impl Channels {
    /// Loads all records from the store.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn open(parts: ChannelParts) -> Result<Self, StoreError> {
        let mut records = HashMap::new();
        for (_, value) in parts.committer.scan_all(Table::Channel, [])? {
            let record: ChannelRecord = ciborium::from_reader(&value[..])
                .map_err(|error| StoreError::Corrupt(format!("channel record: {error}")))?;
            let ticket = parts.committer.now();
            records.insert(record.channel, watch::Sender::new((record, ticket)));
        }
        let idempotency = Idempotency::new(parts.committer.clone());
        let this = Self {
            parts,
            idempotency,
            expected: Mutex::default(),
            records: Mutex::new(records),
            attempts: Mutex::default(),
            settled: Mutex::default(),
        };
        this.count_reserve();
        Ok(this)
    }

    /// Ends what a crash interrupted. Called once LDK has repeated its events: a channel that
    /// was never funded is gone from LDK after a restart.
    pub fn resume(&self) {
        let live: HashSet<ChannelRef> =
            self.parts.lightning.channels().into_iter().map(|c| c.channel).collect();
        let records = self.snapshot_records();
        self.resume_splices(&records);
        let lost: Vec<ChannelRecord> = records
            .into_iter()
            .filter(|record| record.state == ChannelState::Opening)
            .filter(|record| !live.contains(&record.channel))
            .collect();
        for record in lost {
            self.ended_before_funding(&record, "the node restarted before it was funded");
        }
    }

    pub(super) fn ended_before_funding(&self, record: &ChannelRecord, why: &str) {
        if let Some(funding) = record.funding {
            self.release(funding);
        }
        self.append(ChannelEvent::Closed {
            channel: record.channel,
            kind: CloseKind::NeverOpened,
            reason: why.to_owned(),
            local_balance_msat: None,
        });
    }

    /// Gives back the coins of a funding transaction that will not be broadcast.
    fn release(&self, funding: bitcoin::OutPoint) {
        match self.parts.wallet.release(Owner::Transaction(funding.txid)) {
            Ok(_durable_with_the_record) => {}
            Err(error) => tracing::debug!(%error, "funding coins stay where they are"),
        }
    }

    /// Asks a peer for a channel. Returns once the request is durable; follow it with
    /// [`Channels::watch`]. A repetition under the same key returns the first channel.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn request_open(
        &self,
        request: OpenRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<ChannelView, OpenError> {
        self.request_open_from(request, key, None).await
    }

    /// As [`Channels::request_open`], out of `purse`: see `spending.rs`.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn request_open_from(
        &self,
        request: OpenRequest,
        key: Option<&IdempotencyKey>,
        purse: Option<&Purse>,
    ) -> Result<ChannelView, OpenError> {
        let fingerprint = Fingerprint::of(&request);
        if let Some(channel) = self.recalled(key, fingerprint)? {
            return Ok(self.get_durable(channel).await?);
        }
        self.validate(&request)?;
        self.connect(&request).await?;

        let channel = ChannelRef(self.parts.entropy.bytes());
        {
            let records = self.records.lock();
            if let Some(first) = self.recalled(key, fingerprint)? {
                drop(records);
                return Ok(self.get_durable(first).await?);
            }
            let opening = records.values().map(|latest| latest.borrow().0.clone()).find(|record| {
                record.outbound
                    && record.peer == request.peer
                    && record.state == ChannelState::Opening
            });
            if let Some(record) = opening {
                return Err(OpenError::InProgress { peer: request.peer, channel: record.channel });
            }
            let mut batch = Batch::default();
            let _until_it_is_enqueued = self.set_aside(channel, &request, purse, &mut batch)?;
            let now = self.parts.journal.now();
            self.idempotency.record(&mut batch, key, fingerprint, channel.as_ref(), now);
            let event = ChannelEvent::OpenRequested {
                channel,
                peer: request.peer,
                capacity_sat: request.capacity_sat,
                push_msat: request.push_msat,
                announced: request.announced,
                feerate_sat_per_vb: request.feerate_sat_per_vb,
                batch: false,
            };
            self.append_locked(records, channel, event, batch);
        }
        if let Some(address) = &request.address {
            let _with_the_record = self.parts.peers.remember(request.peer, address, true);
        }
        let opened = self.parts.lightning.open_channel(OpenChannel {
            channel,
            peer: request.peer,
            capacity_sat: request.capacity_sat,
            push_msat: request.push_msat,
            announced: request.announced,
            zero_reserve: request.zero_reserve,
            fees: request.fees,
            cltv_expiry_delta_min: 0,
        });
        if let Err(error) = opened {
            self.never_opened(channel, &error);
            return Err(error.into());
        }
        Ok(self.get_durable(channel).await?)
    }

    /// The channel that an earlier call under `key` asked for, if there is one.
    ///
    /// # Errors
    ///
    /// [`OpenError::Idempotency`] if the key was used for another request.
    pub async fn repetition(
        &self,
        request: &OpenRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<ChannelView>, OpenError> {
        match self.recalled(key, Fingerprint::of(request))? {
            Some(channel) => Ok(Some(self.get_durable(channel).await?)),
            None => Ok(None),
        }
    }

    fn recalled(
        &self,
        key: Option<&IdempotencyKey>,
        fingerprint: Fingerprint,
    ) -> Result<Option<ChannelRef>, IdempotencyError> {
        let answer = self.idempotency.recall(key, fingerprint, self.parts.journal.now())?;
        Ok(answer
            .map(|answer| {
                ChannelRef::from_slice(&answer)
                    .map_err(|error| StoreError::Corrupt(format!("idempotency record: {error}")))
            })
            .transpose()?)
    }

    fn validate(&self, request: &OpenRequest) -> Result<(), OpenError> {
        let OpenRequest { capacity_sat, push_msat, .. } = *request;
        if !(CAPACITY_SAT_MIN..=CAPACITY_SAT_MAX).contains(&capacity_sat) {
            return Err(OpenError::CapacityOutOfRange { capacity_sat });
        }
        if push_msat > capacity_sat * 1_000 {
            return Err(OpenError::PushExceedsCapacity { push_msat, capacity_sat });
        }
        if let Some(sat_per_vb) = request.feerate_sat_per_vb
            && !(1..=10_000).contains(&sat_per_vb)
        {
            return Err(OpenError::FeerateOutOfRange { sat_per_vb });
        }
        let fee_sat =
            self.funding_feerate(request.feerate_sat_per_vb).to_sat_per_vb_ceil() * FUNDING_VBYTES;
        let balance = self.parts.wallet.balance();
        let spendable_sat = balance.spendable.to_sat();
        if capacity_sat + fee_sat > spendable_sat {
            let reserved_sat = balance.reserved_for_anchors.to_sat();
            return Err(OpenError::InsufficientFunds {
                capacity_sat,
                fee_sat,
                spendable_sat,
                reserved_sat,
            });
        }
        Ok(())
    }

    async fn connect(&self, request: &OpenRequest) -> Result<(), OpenError> {
        let lightning = &self.parts.lightning;
        if lightning.is_connected(&request.peer) {
            return Ok(());
        }
        let mut addresses: Vec<String> = request.address.iter().cloned().collect();
        addresses.extend(self.parts.peers.addresses(&request.peer));
        addresses.extend(lightning.known_addresses(&request.peer));
        let mut last = OpenError::AddressUnknown { peer: request.peer };
        for address in addresses {
            match lightning.connect(request.peer, &address).await {
                Ok(()) => return Ok(()),
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    pub(super) fn funding_feerate(&self, asked: Option<u64>) -> FeeRate {
        asked
            .and_then(FeeRate::from_sat_per_vb)
            .unwrap_or_else(|| self.parts.fees.get(FeePurpose::Open))
    }

    /// Closes a channel, by agreement or by force. Returns once the request is durable.
    ///
    /// # Errors
    ///
    /// See [`CloseError`].
    pub async fn close(
        &self,
        channel: ChannelRef,
        force: bool,
        script: Option<ScriptBuf>,
        feerate_sat_per_vb: Option<u64>,
    ) -> Result<ChannelView, CloseError> {
        let view = self.get(channel).ok_or(CloseError::Unknown(channel))?;
        let state = view.record.state;
        let peer = view.record.peer;
        let Some(live) = view.live.filter(|_| state != ChannelState::Closed) else {
            return Err(CloseError::WrongState { state });
        };
        if force || !live.ready && state == ChannelState::Opening {
            if state != ChannelState::ForceClosing {
                self.append(ChannelEvent::CloseRequested { channel, force: true });
            }
            self.parts.lightning.force_close_channel(
                live.channel_id,
                peer,
                "closed by its operator",
            )?;
        } else if state != ChannelState::Closing && !live.closing {
            if !self.parts.lightning.is_connected(&peer) {
                return Err(CloseError::PeerOffline { peer });
            }
            let feerate = feerate_sat_per_vb
                .and_then(FeeRate::from_sat_per_vb)
                .map(|rate| u32::try_from(rate.to_sat_per_kwu()).unwrap_or(u32::MAX));
            self.parts.lightning.close_channel(live.channel_id, peer, script, feerate)?;
            self.append(ChannelEvent::CloseRequested { channel, force: false });
        }
        Ok(self.get_durable(channel).await?)
    }

    /// Changes what we charge for forwarding over a channel.
    ///
    /// # Errors
    ///
    /// See [`CloseError`].
    pub async fn update_policy(
        &self,
        channel: ChannelRef,
        fee_base_msat: Option<u32>,
        fee_ppm: Option<u32>,
        cltv_expiry_delta: Option<u16>,
    ) -> Result<ChannelView, CloseError> {
        let view = self.get(channel).ok_or(CloseError::Unknown(channel))?;
        let Some(live) = view.live else {
            return Err(CloseError::WrongState { state: view.record.state });
        };
        self.parts.lightning.update_policy(
            live.channel_id,
            view.record.peer,
            fee_base_msat,
            fee_ppm,
            cltv_expiry_delta,
        )?;
        Ok(self.get_durable(channel).await?)
    }

    /// Renews heavy channels, and gives up those whose peer does not answer. Called every few
    /// seconds.
    pub fn tick(&self) {
        let now_ms = millis(self.parts.journal.now());
        let channels = self.parts.lightning.channels();
        self.renew_heavy(&channels);
        self.note_breaches();
        for snapshot in channels {
            let Some(view) =
                self.records.lock().get(&snapshot.channel).map(|l| l.borrow().0.clone())
            else {
                continue;
            };
            let waited = now_ms.saturating_sub(view.created_ms);
            let unfunded = view.state == ChannelState::Opening && view.funding.is_none();
            // A batch takes its own time.
            if view.outbound && !view.batch && unfunded && waited > millis(OPENING_TIMEOUT) {
                tracing::info!(channel = %view.channel, peer = %view.peer, "peer did not answer");
                self.give_up(&view, snapshot.channel_id, "the peer did not answer in time");
            }
        }
    }

    pub(super) fn give_up(&self, record: &ChannelRecord, temporary_id: ChannelId, why: &str) {
        // An unfunded channel has nothing to broadcast: LDK just drops it and tells the peer.
        if let Err(error) = self.parts.lightning.force_close_channel(temporary_id, record.peer, why)
        {
            tracing::debug!(%error, "channel was gone already");
        }
        self.ended_before_funding(record, why);
    }

    /// Hears LDK.
    pub fn handle(&self, event: &LightningEvent) {
        match event {
            LightningEvent::FundingNeeded {
                channel,
                temporary_id,
                peer,
                capacity_sat,
                funding_script,
            } => self.fund(*channel, *temporary_id, *peer, *capacity_sat, funding_script.clone()),
            LightningEvent::InboundChannelRequested {
                temporary_id,
                peer,
                capacity_sat,
                push_msat,
                announced,
            } => self.accept(*temporary_id, *peer, *capacity_sat, *push_msat, *announced),
            LightningEvent::ChannelPending { channel, channel_id, funding, .. }
                if self.state(*channel) == Some(ChannelState::Opening) =>
            {
                self.append(ChannelEvent::Pending {
                    channel: *channel,
                    channel_id: *channel_id,
                    funding: *funding,
                });
            }
            LightningEvent::ChannelReady { channel, channel_id, .. }
                if matches!(
                    self.state(*channel),
                    Some(ChannelState::Opening | ChannelState::AwaitingConfirmation)
                ) =>
            {
                self.append(ChannelEvent::Ready { channel: *channel, channel_id: *channel_id });
            }
            LightningEvent::ChannelReady { channel, .. } => self.ready_again(*channel),
            LightningEvent::SplicePending { channel, funding } => {
                self.splice_pending(*channel, *funding);
            }
            LightningEvent::SpliceFailed { channel, reason, disconnected } => {
                self.splice_failed(*channel, reason, *disconnected);
            }
            LightningEvent::ChannelClosed {
                channel,
                kind,
                reason,
                last_local_balance_msat,
                ..
            } if self.state(*channel).is_some_and(|state| state != ChannelState::Closed) => {
                // Before both commitments exist there is nothing anybody could publish: a peer
                // that says no then has not closed a channel by force.
                let opening = self.state(*channel) == Some(ChannelState::Opening);
                self.append(ChannelEvent::Closed {
                    channel: *channel,
                    kind: if opening { CloseKind::NeverOpened } else { *kind },
                    reason: reason.clone(),
                    local_balance_msat: *last_local_balance_msat,
                });
            }
            LightningEvent::FundingDiscarded { funding, .. } => {
                self.release(*funding);
            }
            LightningEvent::OutputsToSweep { channel_id, count, value_sat } => {
                let event = ChannelEvent::Sweeping {
                    channel_id: *channel_id,
                    outputs: *count,
                    value_sat: *value_sat,
                };
                let events = [DomainEvent::Channel(event)];
                let _nobody_waits = self.parts.journal.append(&events, Batch::default());
            }
            _ => {}
        }
    }

    fn fund(
        &self,
        channel: ChannelRef,
        temporary_id: ChannelId,
        peer: NodeId,
        capacity_sat: u64,
        script: ScriptBuf,
    ) {
        let record = self.records.lock().get(&channel).map(|latest| latest.borrow().0.clone());
        let Some(record) = record.filter(|record| record.funding.is_none() && !record.batch) else {
            return;
        };
        let feerate = self.funding_feerate(record.feerate_sat_per_vb);
        let request = FundingRequest {
            outputs: vec![TxOut {
                value: bitcoin::Amount::from_sat(capacity_sat),
                script_pubkey: script.clone(),
            }],
            feerate,
            // The reserve already counts this channel: its record exists.
            new_channels: 0,
        };
        let funded =
            self.parts.wallet.build_funding(&request).map_err(|error| error.to_string()).and_then(
                |built| {
                    self.affords(channel, record.push_msat, &built)?;
                    let transaction = built.transaction;
                    let vout = transaction.output.iter().position(|o| o.script_pubkey == script);
                    let vout = vout.and_then(|at| u32::try_from(at).ok()).unwrap_or(0);
                    let funding = bitcoin::OutPoint { txid: transaction.compute_txid(), vout };
                    self.append(ChannelEvent::Funded { channel, funding });
                    self.parts
                        .lightning
                        .provide_funding(temporary_id, peer, transaction)
                        .map_err(|error| error.to_string())
                },
            );
        if let Err(why) = funded {
            tracing::warn!(%channel, why, "channel could not be funded");
            let record = self.get(channel).map_or(record, |view| view.record);
            self.give_up(&record, temporary_id, &why);
        }
    }

    fn accept(
        &self,
        temporary_id: ChannelId,
        peer: NodeId,
        capacity_sat: u64,
        push_msat: u64,
        announced: bool,
    ) {
        let for_batch =
            if announced || push_msat > 0 { None } else { self.take_expected(peer, capacity_sat) };
        if let Some(channel) = for_batch {
            return self.accept_for_batch(channel, temporary_id, peer);
        }
        let channel = ChannelRef(self.parts.entropy.bytes());
        self.append(ChannelEvent::InboundAccepted {
            channel,
            peer,
            capacity_sat,
            push_msat,
            announced,
            batch: false,
        });
        if let Err(error) = self.parts.lightning.accept_channel(temporary_id, peer, channel) {
            tracing::info!(%peer, %error, "channel of a peer was not accepted");
            self.never_opened(channel, &error);
        }
    }

    pub(super) fn append(&self, event: ChannelEvent) {
        let Some(channel) = event.channel() else { return };
        self.append_locked(self.records.lock(), channel, event, Batch::default());
        self.count_reserve();
    }

    fn append_locked(
        &self,
        mut records: parking_lot::MutexGuard<'_, Records>,
        channel: ChannelRef,
        event: ChannelEvent,
        mut batch: Batch,
    ) {
        let before = records.get(&channel).map(|latest| latest.borrow().0.clone());
        let Some(record) = ChannelRecord::apply(before, &event, self.parts.journal.now()) else {
            tracing::warn!(%channel, ?event, "event of a channel without a record");
            return;
        };
        self.parts.endings.watch(&record);
        let mut value = Vec::with_capacity(512);
        ciborium::into_writer(&record, &mut value).expect("writing to memory cannot fail");
        batch.put(Table::Channel.key(channel), value);
        let settled = self.settle_budget(channel, &event, &mut batch);
        let mut events = Vec::from_iter(security(&event, &record));
        events.insert(0, DomainEvent::Channel(event));
        let ticket = self.parts.journal.append(&events, batch);
        drop(settled);
        match records.get(&channel) {
            Some(latest) => {
                let _before = latest.send_replace((record, ticket));
            }
            None => {
                records.insert(channel, watch::Sender::new((record, ticket)));
            }
        }
    }

    /// Tells the wallet how many channels may one day need a fee bump.
    fn count_reserve(&self) {
        // A hub leaves its batches by spending their roots, not channel by channel; who leaves
        // alone is the user.
        let needs_exit = |record: &ChannelRecord| {
            record.state != ChannelState::Closed && !(record.batch && record.outbound)
        };
        let open =
            self.records.lock().values().filter(|latest| needs_exit(&latest.borrow().0)).count();
        self.parts.wallet.set_channel_count(u32::try_from(open).unwrap_or(u32::MAX));
    }
}
