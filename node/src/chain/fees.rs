//! Feerates for every purpose, cached so that they can be read without waiting.
//!
//! A task refreshes them from the [`FeeSource`]; readers, LDK among them, take the last good
//! figures. A source that fails or says nothing leaves the old ones, or the fallbacks if there
//! never were any.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Amount, FeeRate};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::follower::SyncState;
use super::{ChainError, FeeSource};

/// LDK's lower bound: 1 sat/vB, rounded up so that weight never rounds below relay.
pub const FEERATE_FLOOR: FeeRate = FeeRate::from_sat_per_kwu(253);
/// No estimate above this is believed: 2,000 sat/vB [500,000 sat per 1,000 weight units].
pub const FEERATE_CEILING: FeeRate = FeeRate::from_sat_per_kwu(500_000);
/// Time between two looks at the source when no block comes.
const REFRESH_EVERY: Duration = Duration::from_secs(60);

/// What a transaction is for, from hurried to patient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FeePurpose {
    /// A deadline is near: HTLC claims, justice, exits [2 blocks].
    Urgent,
    /// Funding a channel or a batch [6 blocks].
    Open,
    /// A person waits, but nothing is lost [12 blocks].
    Normal,
    /// Sweeps and consolidation [144 blocks].
    Background,
    /// The least that the mempool takes and keeps [1,008 blocks].
    Minimum,
}

impl FeePurpose {
    /// All purposes, the hurried first.
    pub const ALL: [Self; 5] =
        [Self::Urgent, Self::Open, Self::Normal, Self::Background, Self::Minimum];

    /// Returns the confirmation target in blocks.
    pub const fn target_blocks(self) -> u16 {
        match self {
            Self::Urgent => 2,
            Self::Open => 6,
            Self::Normal => 12,
            Self::Background => 144,
            Self::Minimum => 1_008,
        }
    }

    /// What is paid while nothing is known: enough on a calm day, affordable on any.
    const fn fallback(self) -> FeeRate {
        FeeRate::from_sat_per_kwu(match self {
            Self::Urgent => 5_000,
            Self::Open => 2_500,
            Self::Normal => 2_000,
            Self::Background => 500,
            Self::Minimum => 253,
        })
    }
}

/// Cached feerates; clones share them.
#[derive(Clone)]
pub struct FeeEstimates {
    source: Arc<dyn FeeSource>,
    rates: Arc<RwLock<Rates>>,
    refresh_every: Duration,
}

struct Rates {
    /// Rising with urgency.
    by_purpose: BTreeMap<FeePurpose, FeeRate>,
    mempool_minimum: FeeRate,
    /// Whether the source ever gave an estimate.
    estimated: bool,
}

impl FeeEstimates {
    /// Starts with the fallbacks; [`Self::refresh`] or [`Self::run`] fills in the real ones.
    pub fn new(source: Arc<dyn FeeSource>) -> Self {
        let by_purpose = FeePurpose::ALL.map(|p| (p, p.fallback())).into();
        let rates = Rates { by_purpose, mempool_minimum: FEERATE_FLOOR, estimated: false };
        Self { source, rates: Arc::new(RwLock::new(rates)), refresh_every: REFRESH_EVERY }
    }

    /// Sets the time between two looks at the source when no block comes [60 s].
    pub fn refresh_every(self, refresh_every: Duration) -> Self {
        Self { refresh_every, ..self }
    }

    /// Returns the feerate for `purpose`: at least 253 sat per 1,000 weight units and what the
    /// mempool asks.
    pub fn get(&self, purpose: FeePurpose) -> FeeRate {
        self.rates.read().by_purpose[&purpose]
    }

    /// Returns the feerate for a target of `blocks`, that of the nearest more hurried purpose.
    pub fn for_target(&self, blocks: u16) -> FeeRate {
        let purpose = FeePurpose::ALL
            .into_iter()
            .rev()
            .find(|p| p.target_blocks() <= blocks)
            .unwrap_or(FeePurpose::Urgent);
        self.get(purpose)
    }

    /// Returns the lowest feerate that the mempool takes, 253 at least.
    pub fn mempool_minimum(&self) -> FeeRate {
        self.rates.read().mempool_minimum
    }

    /// Says whether any estimate of the source is in use, rather than fallbacks alone.
    pub fn is_estimated(&self) -> bool {
        self.rates.read().estimated
    }

    /// Asks the source once.
    ///
    /// # Errors
    ///
    /// [`ChainError`] if it does not answer; the old figures stay.
    pub async fn refresh(&self) -> Result<(), ChainError> {
        let minimum = self.source.mempool_minimum().await?;
        let floor = minimum.clamp(FEERATE_FLOOR, FEERATE_CEILING);
        let mut estimates = BTreeMap::new();
        for purpose in FeePurpose::ALL {
            if let Some(rate) = self.source.estimate(purpose.target_blocks()).await? {
                estimates.insert(purpose, rate);
            }
        }
        let mut rates = self.rates.write();
        rates.estimated |= !estimates.is_empty();
        rates.mempool_minimum = floor;
        let mut at_least = floor;
        for purpose in FeePurpose::ALL.into_iter().rev() {
            let rate = match estimates.get(&purpose) {
                Some(rate) => *rate,
                // What the mempool asks is known even where nothing is estimated.
                None if purpose == FeePurpose::Minimum => floor,
                None => rates.by_purpose[&purpose],
            };
            // Hurry never costs less than patience.
            at_least = rate.clamp(at_least, FEERATE_CEILING);
            rates.by_purpose.insert(purpose, at_least);
        }
        debug!(
            urgent_sat_per_kw = rates.by_purpose[&FeePurpose::Urgent].to_sat_per_kwu(),
            minimum_sat_per_kw = floor.to_sat_per_kwu(),
            "feerates refreshed"
        );
        Ok(())
    }

    /// Refreshes at each new block and every minute until cancelled.
    pub async fn run(self, mut sync: watch::Receiver<SyncState>, cancel: CancellationToken) {
        let mut failing = false;
        loop {
            match self.refresh().await {
                Ok(()) => failing = false,
                Err(error) => {
                    if !failing {
                        warn!(%error, "feerates are not refreshed; the last ones stay in use");
                    }
                    failing = true;
                }
            }
            let known = sync.borrow_and_update().tip;
            let next_block = sync.wait_for(|state| state.tip != known);
            tokio::select! {
                biased;
                () = cancel.cancelled() => return,
                // A closed channel means that the follower is gone; the clock goes on.
                Ok(_) = next_block => {}
                () = tokio::time::sleep(self.refresh_every) => {}
            }
        }
    }
}

/// Returns the fee for `weight` at `rate`, rounded up; `None` above the money supply's range.
pub fn fee_ceil(rate: FeeRate, weight: bitcoin::Weight) -> Option<Amount> {
    let fee = u128::from(rate.to_sat_per_kwu()) * u128::from(weight.to_wu());
    u64::try_from(fee.div_ceil(1_000)).ok().map(Amount::from_sat)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;

    /// A source whose answers a test writes down.
    struct Script {
        estimates: Mutex<BTreeMap<u16, u64>>,
        minimum: Mutex<Result<u64, ()>>,
    }

    #[async_trait]
    impl FeeSource for Script {
        async fn estimate(&self, target_blocks: u16) -> Result<Option<FeeRate>, ChainError> {
            let rate = self.estimates.lock().get(&target_blocks).copied();
            Ok(rate.map(FeeRate::from_sat_per_kwu))
        }

        async fn mempool_minimum(&self) -> Result<FeeRate, ChainError> {
            let minimum = *self.minimum.lock();
            minimum
                .map(FeeRate::from_sat_per_kwu)
                .map_err(|()| ChainError::Unreachable("test".to_owned()))
        }
    }

    fn script(estimates: &[(u16, u64)], minimum: u64) -> (Arc<Script>, FeeEstimates) {
        let source = Arc::new(Script {
            estimates: Mutex::new(estimates.iter().copied().collect()),
            minimum: Mutex::new(Ok(minimum)),
        });
        (source.clone(), FeeEstimates::new(source))
    }

    fn sat(rate: FeeRate) -> u64 {
        rate.to_sat_per_kwu()
    }

    #[tokio::test]
    async fn estimates_are_floored_capped_and_ordered() {
        let (_, fees) =
            script(&[(2, 900_000), (6, 4_000), (12, 9_000), (144, 10), (1_008, 1)], 1_000);
        fees.refresh().await.unwrap();
        assert_eq!(sat(fees.get(FeePurpose::Urgent)), 500_000);
        // Twelve blocks were estimated above six: six is lifted.
        assert_eq!(sat(fees.get(FeePurpose::Open)), 9_000);
        assert_eq!(sat(fees.get(FeePurpose::Background)), 1_000);
        assert_eq!(sat(fees.get(FeePurpose::Minimum)), 1_000);
        assert_eq!(sat(fees.for_target(1)), 500_000);
        assert_eq!(sat(fees.for_target(7)), 9_000);
        assert_eq!(sat(fees.for_target(5_000)), 1_000);
    }

    #[tokio::test]
    async fn silent_source_leaves_fallbacks_and_failed_one_the_last_figures() {
        let (source, fees) = script(&[], 0);
        fees.refresh().await.unwrap();
        assert!(!fees.is_estimated());
        assert_eq!(fees.get(FeePurpose::Urgent), FeePurpose::Urgent.fallback());
        assert_eq!(fees.get(FeePurpose::Minimum), FEERATE_FLOOR);
        source.estimates.lock().insert(2, 20_000);
        fees.refresh().await.unwrap();
        assert_eq!(sat(fees.get(FeePurpose::Urgent)), 20_000);
        *source.minimum.lock() = Err(());
        source.estimates.lock().insert(2, 99);
        assert!(fees.refresh().await.is_err());
        assert_eq!(sat(fees.get(FeePurpose::Urgent)), 20_000);
        assert!(fees.is_estimated());
    }

    #[tokio::test]
    async fn new_block_and_time_refresh() {
        async fn until(fees: &FeeEstimates, urgent: u64) {
            while sat(fees.get(FeePurpose::Urgent)) != urgent {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        let (source, slow) = script(&[(2, 3_000)], 253);
        let state = watch::Sender::new(SyncState::default());
        let cancel = CancellationToken::new();
        let task = tokio::spawn(slow.clone().run(state.subscribe(), cancel.clone()));
        until(&slow, 3_000).await;
        source.estimates.lock().insert(2, 7_000);
        state.send_modify(|s| {
            let hash = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
            s.tip = Some(crate::chain::BlockRef { height: 1, hash });
        });
        until(&slow, 7_000).await;
        cancel.cancel();
        task.await.unwrap();
        // No block, but time.
        let cancel = CancellationToken::new();
        let quick = slow.refresh_every(Duration::from_millis(5));
        let task = tokio::spawn(quick.clone().run(state.subscribe(), cancel.clone()));
        source.estimates.lock().insert(2, 8_000);
        until(&quick, 8_000).await;
        source.estimates.lock().insert(2, 9_000);
        until(&quick, 9_000).await;
        cancel.cancel();
        task.await.unwrap();
    }
}
