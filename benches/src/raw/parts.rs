//! What LDK wants around a manager, each as little as it can be: a store that forgets, a log that
//! is silent, a feerate that never moves, a route that is given.

use std::mem;
use std::sync::{Mutex, OnceLock, PoisonError};

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use bitcoin::{Script, Transaction, Txid};
use lightning::blinded_path::payment::{BlindedPaymentPath, ReceiveTlvs};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FeeEstimator, TransactionType,
};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{ChannelMonitorUpdateStatus, Filter, WatchedOutput};
use lightning::ln::channel_state::ChannelDetails;
use lightning::routing::router::{InFlightHtlcs, Path, Route, RouteParameters, Router};
use lightning::sign::{InMemorySigner, ReceiveAuthKey};
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::MonitorName;

const FEERATE_SAT_PER_KW: u32 = 1_000;
const FEERATE_MIN_SAT_PER_KW: u32 = 253;

/// Collects what is broadcast.
#[derive(Default)]
pub(crate) struct Outbox(Mutex<Vec<Transaction>>);

impl Outbox {
    /// Takes what is in it.
    pub(crate) fn take(&self) -> Vec<Transaction> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl BroadcasterInterface for Outbox {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(transactions.iter().map(|(transaction, _)| (*transaction).clone()));
    }
}

/// The feerate never moves.
pub(crate) struct FixedFeerate;

impl FeeEstimator for FixedFeerate {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        match target {
            ConfirmationTarget::MinAllowedAnchorChannelRemoteFee
            | ConfirmationTarget::MinAllowedNonAnchorChannelRemoteFee
            | ConfirmationTarget::AnchorChannelFee
            | ConfirmationTarget::ChannelCloseMinimum => FEERATE_MIN_SAT_PER_KW,
            _ => FEERATE_SAT_PER_KW,
        }
    }
}

/// Drops every record unformatted.
pub(crate) struct Silence;

impl Logger for Silence {
    fn log(&self, _record: Record) {}
}

/// Keeps no monitor and says that it did.
pub(crate) struct Forget;

impl Persist<InMemorySigner> for Forget {
    fn persist_new_channel(
        &self,
        _name: MonitorName,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _name: MonitorName,
        _update: Option<&ChannelMonitorUpdate>,
        _monitor: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _name: MonitorName) {}
}

/// Blocks come whole: nothing needs to be watched for.
pub(crate) struct NoFilter;

impl Filter for NoFilter {
    fn register_tx(&self, _txid: &Txid, _script: &Script) {}
    fn register_output(&self, _output: WatchedOutput) {}
}

/// Answers every search with the one path it was given.
#[derive(Default)]
pub(crate) struct GivenRoute(OnceLock<Path>);

impl GivenRoute {
    /// Sets the path. The first one stays.
    pub(crate) fn set(&self, path: Path) {
        self.0.get_or_init(|| path);
    }
}

impl Router for GivenRoute {
    fn find_route(
        &self,
        _payer: &PublicKey,
        params: &RouteParameters,
        _first_hops: Option<&[&ChannelDetails]>,
        _in_flight: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let path = self.0.get().ok_or("no route was given")?;
        Ok(Route { paths: vec![path.clone()], route_params: Some(params.clone()) })
    }

    fn create_blinded_payment_paths<T: secp256k1::Signing + secp256k1::Verification>(
        &self,
        _recipient: PublicKey,
        _key: ReceiveAuthKey,
        _first_hops: Vec<ChannelDetails>,
        _tlvs: ReceiveTlvs,
        _amount_msat: Option<u64>,
        _secp: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        Err(())
    }
}
