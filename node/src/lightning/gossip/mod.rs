//! Gossip: what peers say about the network, checked and put into LDK's graph.

mod early;
#[cfg(test)]
mod tests;
mod utxos;

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelAnnouncement, ChannelUpdate, ErrorAction, LightningError,
    MessageSendEvent, NodeAnnouncement, RoutingMessageHandler,
};
use lightning::routing::gossip::{NetworkGraph, NodeId, P2PGossipSync};
use lightning::routing::utxo::UtxoLookup;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::Logger;
use lightning::util::wakers::Future;
use parking_lot::Mutex;

use early::EarlyUpdates;
pub use utxos::ChainUtxos;

/// The gossip handler of the node: loses no update, and counts changes.
///
/// *Updates*: LDK refuses the `channel_update` of a channel that is not in its graph, and may
/// forget one that comes while the announcement is looked up on the chain. Neither is sent again
/// for a day or more, and LDK routes over no channel of which one direction is unknown. Yet such
/// updates are ordinary: the peer of a channel has announced it while our own announcement
/// still waits for its batch, or an update took another way than its announcement. So they are
/// kept here, and repeated to LDK once the channel is announced.
///
/// *Changes*: what changes the graph is counted, so that the router knows when to look again.
pub struct NodeGossip<H> {
    handler: H,
    early: EarlyUpdates,
    /// Updates that LDK took when they were repeated: peers are to hear of them.
    repeated: Mutex<Vec<MessageSendEvent>>,
    changes: Arc<AtomicU64>,
}

impl<H> NodeGossip<H> {
    /// Stands before `handler`, and counts its changes in `changes`.
    pub fn new(handler: H, changes: Arc<AtomicU64>) -> Self {
        Self { handler, early: EarlyUpdates::default(), repeated: Mutex::default(), changes }
    }

    fn count_change(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn counted<T>(&self, handled: Result<T, LightningError>) -> Result<T, LightningError> {
        if handled.is_ok() {
            self.count_change();
        }
        handled
    }
}

impl<H: RoutingMessageHandler> NodeGossip<H> {
    fn is_announced(&self, scid: u64) -> bool {
        let next = self.handler.get_next_channel_announcement(scid);
        next.is_some_and(|(announcement, ..)| announcement.contents.short_channel_id == scid)
    }

    /// Gives LDK the updates that came before the announcement of `scid`.
    fn repeat_early(&self, scid: u64) {
        for msg in self.early.take(scid) {
            if let Ok(Some((node_id_1, node_id_2))) = self.handler.handle_channel_update(None, &msg)
            {
                let event = MessageSendEvent::BroadcastChannelUpdate { msg, node_id_1, node_id_2 };
                self.repeated.lock().push(event);
            }
        }
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

impl<H: RoutingMessageHandler> BaseMessageHandler for NodeGossip<H> {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let mut events = self.handler.get_and_clear_pending_msg_events();
        // LDK has put announcements whose look-up has ended into the graph.
        let announced: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                MessageSendEvent::BroadcastChannelAnnouncement { msg, .. } => {
                    Some(msg.contents.short_channel_id)
                }
                _ => None,
            })
            .collect();
        for scid in announced {
            self.repeat_early(scid);
        }
        events.append(&mut self.repeated.lock());
        if !events.is_empty() {
            self.count_change();
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
        self.counted(self.handler.handle_node_announcement(peer, message))
    }

    fn handle_channel_announcement(
        &self,
        peer: Option<PublicKey>,
        message: &ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        let handled = self.counted(self.handler.handle_channel_announcement(peer, message));
        if handled.is_ok() {
            self.repeat_early(message.contents.short_channel_id);
        }
        handled
    }

    fn handle_channel_update(
        &self,
        peer: Option<PublicKey>,
        message: &ChannelUpdate,
    ) -> Result<Option<(NodeId, NodeId)>, LightningError> {
        let handled = self.counted(self.handler.handle_channel_update(peer, message));
        let scid = message.contents.short_channel_id;
        // A duplicate is the common case, and shows that the channel is known.
        if let Err(error) = &handled
            && !matches!(error.action, ErrorAction::IgnoreDuplicateGossip)
        {
            // Kept before it is looked whether that is needed: the announcement may come now.
            self.early.keep(message);
            if self.is_announced(scid) {
                self.repeat_early(scid);
            }
        }
        handled
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
