//! Counts every satoshi of a private network: what was paid in is in wallets, in channels, on
//! its way from one to the other, or was paid to miners.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bitcoin::{Amount, OutPoint, TxOut, Txid};

use super::chain::DevChainError;
use super::cluster::{Cluster, ClusterError, DevNode};
use crate::chain::ChainError;
use crate::channels::ChannelState;
use crate::lightning::CloseKind;
use crate::node::Node;
use crate::unroll::{Reason, path_to};

/// How long the last HTLCs may take.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the money is, msat.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Audit {
    /// Paid in from outside.
    pub paid_in_msat: u64,
    /// In the nodes' wallets.
    pub wallets_msat: u64,
    /// In funding outputs on chain that no wallet counts.
    pub channels_msat: u64,
    /// What the nodes say they own in those channels, both sides, HTLCs in flight included.
    pub channel_balances_msat: u64,
    /// In channels of batches that both sides closed: their outputs stay off the chain until the
    /// hub takes all of them back at once. All of it is the hub's.
    pub retired_msat: u64,
    /// Paid to miners.
    pub fees_msat: u64,
}

impl Audit {
    /// Whether nothing is lost and nothing is doubled.
    pub fn conserved(&self) -> bool {
        let found =
            self.wallets_msat + self.channel_balances_msat + self.retired_msat + self.fees_msat;
        self.paid_in_msat == found && self.channels_msat == self.channel_balances_msat
    }
}

/// Why it could not be counted.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The chain.
    #[error(transparent)]
    DevChain(#[from] DevChainError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The nodes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// Transactions of the nodes on chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OnChain {
    /// How many.
    pub transactions: u64,
    /// Their virtual bytes.
    pub vbytes: u64,
    /// Their fees.
    pub fees: Amount,
}

impl Cluster {
    /// The nodes' transactions on chain, by reading every block: what miners and the faucet do
    /// among themselves does not count.
    ///
    /// # Errors
    ///
    /// If the chain cannot be read.
    pub async fn on_chain(&self) -> Result<OnChain, AuditError> {
        let source = self.chain.source();
        let tip = source.tip().await?;
        let faucet: HashSet<Txid> = self.chain.payments().into_iter().collect();
        let mut outputs: HashMap<OutPoint, TxOut> = HashMap::new();
        let mut ours = OnChain::default();
        for height in self.chain.first_height()..=tip.height {
            let Some(hash) = source.block_hash(height).await? else {
                break;
            };
            let block = source.block(hash).await?;
            for transaction in &block.txdata {
                let txid = transaction.compute_txid();
                for (vout, output) in (0..).zip(&transaction.output) {
                    outputs.insert(OutPoint { txid, vout }, output.clone());
                }
                if transaction.is_coinbase() || faucet.contains(&txid) {
                    continue;
                }
                let spent: Amount = transaction
                    .input
                    .iter()
                    .filter_map(|input| outputs.get(&input.previous_output))
                    .map(|output| output.value)
                    .sum();
                let paid: Amount = transaction.output.iter().map(|output| output.value).sum();
                ours.transactions += 1;
                ours.vbytes += transaction.vsize() as u64;
                ours.fees += spent.checked_sub(paid).unwrap_or(Amount::ZERO);
            }
        }
        Ok(ours)
    }

    /// Waits until no HTLC is in flight, then counts. Exact when no force-close is being
    /// resolved.
    ///
    /// # Errors
    ///
    /// If payments do not settle within ten seconds, or the chain cannot be read.
    pub async fn audit(&self) -> Result<Audit, AuditError> {
        self.wait("settling of payments", SETTLE_TIMEOUT, || {
            self.nodes().filter_map(DevNode::running).all(|node| {
                let channels = node.lightning.channels();
                channels
                    .iter()
                    .all(|channel| channel.inbound_htlcs == 0 && channel.outbound_htlcs == 0)
            })
        })
        .await?;
        let mut audit = Audit {
            paid_in_msat: self.chain.paid_in().to_sat() * 1_000,
            fees_msat: self.on_chain().await?.fees.to_sat() * 1_000,
            ..Audit::default()
        };
        let mut seen: HashSet<OutPoint> = HashSet::new();
        for node in self.nodes().filter_map(DevNode::running) {
            let balance = node.wallet.balance();
            let wallet = balance.confirmed + balance.unconfirmed + balance.immature;
            audit.wallets_msat += wallet.to_sat() * 1_000;
            audit.retired_msat += self.retired_sat(node).await? * 1_000;
            for channel in node.lightning.channels() {
                let Some(funding) = channel.funding else {
                    continue;
                };
                let in_flight =
                    (channel.capacity_sat * 1_000) - channel.local_msat - channel.remote_msat;
                audit.channel_balances_msat += channel.local_msat;
                if seen.insert(funding) {
                    audit.channels_msat += channel.capacity_sat * 1_000;
                    audit.channel_balances_msat += in_flight;
                }
                // Until a splice is locked the channel still shows what has left it already: the
                // output counts with the wallet, the fee once it is on chain.
                let record = node.channels.recorded(channel.channel);
                if let (Some(pending), Some(splice)) =
                    (channel.splice, record.and_then(|record| record.splice))
                {
                    let mut gone_sat = channel.capacity_sat - splice.capacity_sat;
                    if pending.confirmations == 0 {
                        gone_sat -= splice.fee_sat;
                    }
                    audit.channels_msat -= gone_sat * 1_000;
                    audit.channel_balances_msat -= gone_sat * 1_000;
                }
            }
        }
        Ok(audit)
    }

    /// What `node`, as a hub, has in retired channels under outputs that nobody has spent.
    async fn retired_sat(&self, node: &Node) -> Result<u64, AuditError> {
        let mut sum = 0;
        for (funding, channel) in node.channels.by_funding() {
            let record = node.channels.recorded(channel).filter(|record| {
                record.batch
                    && record.outbound
                    && record.state == ChannelState::Closed
                    && record.close_kind == Some(CloseKind::Cooperative)
            });
            let (Some(record), Ok(path)) =
                (record, path_to(&node.confirmations, funding, Reason::Requested))
            else {
                continue;
            };
            for transaction in path {
                let above = transaction.input[0].previous_output;
                if self.chain.source().unspent_output(above).await?.is_some() {
                    sum += record.capacity_sat;
                    break;
                }
            }
        }
        Ok(sum)
    }
}
