//! Checks announced channels against the chain, so that gossip cannot invent liquidity, and
//! counts what gossip changes.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Network, OutPoint, TxOut};
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelAnnouncement, ChannelUpdate, LightningError, MessageSendEvent,
    NodeAnnouncement, RoutingMessageHandler,
};
use lightning::routing::gossip::{NetworkGraph, NodeId, P2PGossipSync};
use lightning::routing::utxo::{UtxoFuture, UtxoLookup, UtxoLookupError, UtxoResult};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::Logger;
use lightning::util::wakers::{Future, Notifier};
use parking_lot::RwLock;

use crate::chain::ChainSource;
use crate::runtime::Tasks;

/// Looks funding outputs up in the chain source.
pub struct ChainUtxos {
    chain: Arc<dyn ChainSource>,
    network: Network,
    tasks: Tasks,
}

impl ChainUtxos {
    /// Looks up in `chain`, on `tasks`.
    pub fn new(chain: Arc<dyn ChainSource>, network: Network, tasks: Tasks) -> Self {
        Self { chain, network, tasks }
    }
}

impl UtxoLookup for ChainUtxos {
    fn get_utxo(
        &self,
        chain_hash: &ChainHash,
        short_channel_id: u64,
        notifier: Arc<Notifier>,
    ) -> UtxoResult {
        if *chain_hash != ChainHash::using_genesis_block(self.network) {
            return UtxoResult::Sync(Err(UtxoLookupError::UnknownChain));
        }
        let answer = UtxoFuture::new(notifier);
        let chain = Arc::clone(&self.chain);
        let resolve = answer.clone();
        self.tasks.spawn("gossip look-up", async move {
            let found = funding_output(&*chain, short_channel_id).await;
            resolve.resolve(found.ok_or(UtxoLookupError::UnknownTx));
        });
        UtxoResult::Async(answer)
    }
}

/// The unspent output at the place `scid` names (BOLT 7: block, transaction, output).
async fn funding_output(chain: &dyn ChainSource, scid: u64) -> Option<TxOut> {
    let height = u32::try_from(scid >> 40).ok()?;
    let index = usize::try_from((scid >> 16) & 0xff_ffff).ok()?;
    let vout = u32::try_from(scid & 0xffff).ok()?;
    let hash = chain.block_hash(height).await.ok()??;
    let block = chain.block(hash).await.ok()?;
    let txid = block.txdata.get(index)?.compute_txid();
    chain.unspent_output(OutPoint { txid, vout }).await.ok()?
}

/// The gossip handler of the node: in order, and counted.
///
/// *In order*: LDK keeps a `channel_update` that comes during the look-up of its announcement
/// with the announcement. One that comes just when LDK takes the announcement out again is kept
/// for nobody, and the channel stays without that direction until the peer's next update, for a
/// day or more. So no message is heard while announcements whose look-up has ended are put into
/// the graph.
///
/// *Counted*: what changes the graph is counted, so that the router knows when to look again.
pub struct NodeGossip<H> {
    handler: H,
    /// Written while announcements are put in, read while messages are handled.
    order: RwLock<()>,
    changes: Arc<AtomicU64>,
}

impl<H> NodeGossip<H> {
    /// Orders what `handler` does and counts its changes in `changes`.
    pub fn new(handler: H, changes: Arc<AtomicU64>) -> Self {
        Self { handler, order: RwLock::new(()), changes }
    }

    fn hear<T>(
        &self,
        handle: impl FnOnce(&H) -> Result<T, LightningError>,
    ) -> Result<T, LightningError> {
        let _with_others = self.order.read();
        let handled = handle(&self.handler);
        if handled.is_ok() {
            self.changes.fetch_add(1, Ordering::Release);
        }
        handled
    }
}

impl<G, U, L> NodeGossip<P2PGossipSync<G, U, L>>
where
    G: Deref<Target = NetworkGraph<L>>,
    U: UtxoLookup,
    L: Logger,
{
    /// Ends when a look-up on the chain has ended.
    pub fn validation_completion_future(&self) -> Future {
        self.handler.validation_completion_future()
    }
}

impl<H: BaseMessageHandler> BaseMessageHandler for NodeGossip<H> {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let _nobody_else = self.order.write();
        let events = self.handler.get_and_clear_pending_msg_events();
        if !events.is_empty() {
            self.changes.fetch_add(1, Ordering::Release);
        }
        events
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.handler.peer_disconnected(peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.handler.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.handler.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        self.handler.peer_connected(peer, init, inbound)
    }
}

impl<H: RoutingMessageHandler> RoutingMessageHandler for NodeGossip<H> {
    fn handle_node_announcement(
        &self,
        peer: Option<PublicKey>,
        message: &NodeAnnouncement,
    ) -> Result<bool, LightningError> {
        self.hear(|handler| handler.handle_node_announcement(peer, message))
    }

    fn handle_channel_announcement(
        &self,
        peer: Option<PublicKey>,
        message: &ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        self.hear(|handler| handler.handle_channel_announcement(peer, message))
    }

    fn handle_channel_update(
        &self,
        peer: Option<PublicKey>,
        message: &ChannelUpdate,
    ) -> Result<Option<(NodeId, NodeId)>, LightningError> {
        self.hear(|handler| handler.handle_channel_update(peer, message))
    }

    fn get_next_channel_announcement(
        &self,
        start: u64,
    ) -> Option<(ChannelAnnouncement, Option<ChannelUpdate>, Option<ChannelUpdate>)> {
        self.handler.get_next_channel_announcement(start)
    }

    fn get_next_node_announcement(&self, start: Option<&NodeId>) -> Option<NodeAnnouncement> {
        self.handler.get_next_node_announcement(start)
    }

    fn handle_reply_channel_range(
        &self,
        peer: PublicKey,
        message: msgs::ReplyChannelRange,
    ) -> Result<(), LightningError> {
        self.handler.handle_reply_channel_range(peer, message)
    }

    fn handle_reply_short_channel_ids_end(
        &self,
        peer: PublicKey,
        message: msgs::ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.handler.handle_reply_short_channel_ids_end(peer, message)
    }

    fn handle_query_channel_range(
        &self,
        peer: PublicKey,
        message: msgs::QueryChannelRange,
    ) -> Result<(), LightningError> {
        self.handler.handle_query_channel_range(peer, message)
    }

    fn handle_query_short_channel_ids(
        &self,
        peer: PublicKey,
        message: msgs::QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        self.handler.handle_query_short_channel_ids(peer, message)
    }

    fn processing_queue_high(&self) -> bool {
        self.handler.processing_queue_high()
    }
}
