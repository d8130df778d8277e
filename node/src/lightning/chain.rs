//! LDK's side of the chain: block listeners, and feerates in LDK's terms.

use std::sync::Arc;

use bitcoin::Block;
use lightning::chain::chaininterface::{ConfirmationTarget, FeeEstimator};
use lightning::chain::channelmonitor::ChannelMonitor;
use lightning::chain::{BlockLocator, Listen};
use lightning::sign::InMemorySigner;

use super::build::{ChainMonitor, ChannelManager, Log, Parts, Sweeper};
use super::gate::OutputGate;
use crate::chain::BlockRef;
use crate::chain::fees::{FeeEstimates, FeePurpose};
use crate::chain::follower::ChainListener;

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
}

impl MonitorListener {
    pub(super) fn new(
        monitor: ChannelMonitor<InMemorySigner>,
        broadcaster: Arc<OutputGate>,
        fees: Arc<LdkFees>,
        log: Log,
    ) -> Self {
        let name = format!("monitor of channel {}", monitor.channel_id());
        Self { monitor, name, broadcaster, fees, log }
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

    fn block_connected(&self, block: &Block, height: u32) {
        let transactions: Vec<_> = block.txdata.iter().enumerate().collect();
        self.monitor.block_connected(
            &block.header,
            &transactions,
            height,
            &self.broadcaster,
            &self.fees,
            &self.log,
        );
    }

    fn blocks_disconnected(&self, fork_point: BlockRef) {
        self.monitor.blocks_disconnected(
            locator(fork_point),
            &self.broadcaster,
            &self.fees,
            &self.log,
        );
    }
}

struct ManagerListener(Arc<ChannelManager>);
struct WatchListener(Arc<ChainMonitor>, Arc<ChannelManager>);
struct SweeperListener(Arc<Sweeper>);

impl ChainListener for ManagerListener {
    fn name(&self) -> &str {
        "channel manager"
    }
    fn positions(&self) -> Vec<BlockRef> {
        positions(&self.0.current_best_block())
    }
    fn block_connected(&self, block: &Block, height: u32) {
        Listen::block_connected(&*self.0, block, height);
    }
    fn blocks_disconnected(&self, fork_point: BlockRef) {
        Listen::blocks_disconnected(&*self.0, locator(fork_point));
    }
}

impl ChainListener for WatchListener {
    fn name(&self) -> &str {
        "channel monitors"
    }
    fn positions(&self) -> Vec<BlockRef> {
        // The monitors were brought to the manager's tip one by one and move with it since.
        positions(&self.1.current_best_block())
    }
    fn block_connected(&self, block: &Block, height: u32) {
        Listen::block_connected(&*self.0, block, height);
    }
    fn blocks_disconnected(&self, fork_point: BlockRef) {
        Listen::blocks_disconnected(&*self.0, locator(fork_point));
    }
}

impl ChainListener for SweeperListener {
    fn name(&self) -> &str {
        "output sweeper"
    }
    fn positions(&self) -> Vec<BlockRef> {
        positions(&self.0.current_best_block())
    }
    fn block_connected(&self, block: &Block, height: u32) {
        Listen::block_connected(&*self.0, block, height);
    }
    fn blocks_disconnected(&self, fork_point: BlockRef) {
        Listen::blocks_disconnected(&*self.0, locator(fork_point));
    }
}

/// The listeners of a room: manager and sweeper, and once `watching` the monitors between them.
pub(super) fn listeners(parts: &Parts, watching: bool) -> Vec<Arc<dyn ChainListener>> {
    let manager = Arc::clone(&parts.manager);
    let mut listeners: Vec<Arc<dyn ChainListener>> = Vec::new();
    if watching {
        // Before the manager: its position is then still that of the monitors.
        listeners
            .push(Arc::new(WatchListener(Arc::clone(&parts.chain_monitor), Arc::clone(&manager))));
    }
    listeners.push(Arc::new(ManagerListener(manager)));
    listeners.push(Arc::new(SweeperListener(Arc::clone(&parts.sweeper))));
    listeners
}
