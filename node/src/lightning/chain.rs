//! LDK's side of the chain: block listeners, and feerates in LDK's terms.

use std::sync::Arc;

use bitcoin::Block;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BlockLocator, Listen};
use lightning::sign::InMemorySigner;

use super::build::{Log, Parts};
use super::gate::OutputGate;
use crate::chain::BlockRef;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::chain::follower::ChainListener;
use crate::chain::virtual_confirmation::VirtualConfirmations;

/// Feerates as LDK asks for them, in sat per 1,000 weight units.
pub struct LdkFees {
    estimates: FeeEstimates,
}

impl LdkFees {
    /// Answers from `estimates`.
    pub fn new(estimates: FeeEstimates) -> Self {
        Self { estimates }
    }
}

impl FeeEstimator for LdkFees {
    fn get_est_sat_per_1000_weight(&self, target: ConfirmationTarget) -> u32 {
        use ConfirmationTarget as T;
        let rate = |purpose| {
            u32::try_from(self.estimates.get(purpose).to_sat_per_kwu()).unwrap_or(u32::MAX)
        };
        match target {
            // Only judges others' feerates: far above the estimate is suspicious, not wrong.
            T::MaximumFeeEstimate => rate(FeePurpose::Urgent).saturating_mul(10),
            T::UrgentOnChainSweep => rate(FeePurpose::Urgent),
            // Anchors bump whatever confirms too slowly, so the floor is enough here.
            T::MinAllowedAnchorChannelRemoteFee => rate(FeePurpose::Minimum),
            T::MinAllowedNonAnchorChannelRemoteFee => rate(FeePurpose::Background),
            T::AnchorChannelFee => rate(FeePurpose::Background),
            T::NonAnchorChannelFee => rate(FeePurpose::Normal),
            T::ChannelCloseMinimum => rate(FeePurpose::Minimum),
            T::OutputSpendingFee => rate(FeePurpose::Normal),
        }
    }
}

fn positions(best: &BlockLocator) -> Vec<BlockRef> {
    let tip = BlockRef { height: best.height, hash: best.block_hash };
    let ancestors = best.previous_blocks.iter().zip(1..).filter_map(|(hash, depth)| {
        Some(BlockRef { height: best.height.checked_sub(depth)?, hash: (*hash)? })
    });
    std::iter::once(tip).chain(ancestors).collect()
}

fn locator(block: BlockRef) -> BlockLocator {
    BlockLocator::new(block.hash, block.height)
}

/// One monitor before it is put under watch.
pub struct MonitorListener {
    monitor: ChannelMonitor<InMemorySigner>,
    name: String,
    broadcaster: Arc<OutputGate>,
    fees: Arc<LdkFees>,
    log: Log,
    confirmations: Arc<VirtualConfirmations>,
}

impl MonitorListener {
    pub(super) fn new(
        monitor: ChannelMonitor<InMemorySigner>,
        broadcaster: Arc<OutputGate>,
        fees: Arc<LdkFees>,
        log: Log,
        confirmations: Arc<VirtualConfirmations>,
    ) -> Self {
        let name = format!("monitor of channel {}", monitor.channel_id());
        Self { monitor, name, broadcaster, fees, log, confirmations }
    }

    pub(super) fn into_monitor(self) -> ChannelMonitor<InMemorySigner> {
        self.monitor
    }
}

impl ChainListener for MonitorListener {
    fn name(&self) -> &str {
        &self.name
    }

    fn positions(&self) -> Vec<BlockRef> {
        positions(&self.monitor.current_best_block())
    }

    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let seen = self.confirmations.connect(block, height);
        self.monitor.block_connected(
            &block.header,
            &seen.transactions(block),
            height,
            &self.broadcaster,
            &self.fees,
            &self.log,
        );
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        self.confirmations.blocks_disconnected(fork_point);
        self.monitor.blocks_disconnected(
            locator(fork_point),
            &self.broadcaster,
            &self.fees,
            &self.log,
        );
    }
}

/// A part of LDK that follows the chain, and who knows how far it has come. All parts see a block
/// with the leaves of the batches it confirms.
struct Follows<L, T> {
    name: &'static str,
    listener: Arc<L>,
    tip: T,
    confirmations: Arc<VirtualConfirmations>,
}

impl<L, T> ChainListener for Follows<L, T>
where
    L: Listen + Send + Sync + 'static,
    T: Fn() -> BlockLocator + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.name
    }
    fn positions(&self) -> Vec<BlockRef> {
        positions(&(self.tip)())
    }
    fn block_connected(&self, block: &Arc<Block>, height: u32) {
        let seen = self.confirmations.connect(block, height);
        self.listener.filtered_block_connected(&block.header, &seen.transactions(block), height);
    }
    fn blocks_disconnected(&self, fork_point: BlockRef) {
        self.confirmations.blocks_disconnected(fork_point);
        Listen::blocks_disconnected(&*self.listener, locator(fork_point));
    }
}

/// The listeners of a room: manager and sweeper, and once `watching` the monitors between them.
pub(super) fn listeners(parts: &Parts, watching: bool) -> Vec<Arc<dyn ChainListener>> {
    let tip = || {
        let manager = Arc::clone(&parts.manager);
        move || manager.current_best_block()
    };
    let confirmations = || Arc::clone(&parts.confirmations);
    let mut listeners: Vec<Arc<dyn ChainListener>> = Vec::new();
    if watching {
        // Before the manager: its position is then still that of the monitors, which were
        // brought to its tip one by one and move with it since.
        listeners.push(Arc::new(Follows {
            name: "channel monitors",
            listener: Arc::clone(&parts.chain_monitor),
            tip: tip(),
            confirmations: confirmations(),
        }));
    }
    listeners.push(Arc::new(Follows {
        name: "channel manager",
        listener: Arc::clone(&parts.manager),
        tip: tip(),
        confirmations: confirmations(),
    }));
    let sweeper = Arc::clone(&parts.sweeper);
    listeners.push(Arc::new(Follows {
        name: "output sweeper",
        listener: Arc::clone(&parts.sweeper),
        tip: move || sweeper.current_best_block(),
        confirmations: confirmations(),
    }));
    listeners
}
