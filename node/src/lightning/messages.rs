//! The channel manager as the peer handler sees it: behind the gate.
//!
//! Every message goes straight in, but for two about channels that a batch funds. A splice is
//! refused: the funding output is not on chain, and the batch's tree has no room for another. And
//! a peer that takes up a channel which is closed here is answered by the batch service, with the
//! closing transaction (`closed.rs`). What comes out is what [`OutputGate`] has released.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};

use super::batch_messages::BatchMessages;
use super::build::ChannelManager;
use super::gate::OutputGate;
use super::htlcs::End;
use super::strangers::Strangers;
use crate::chain::virtual_confirmation::VirtualConfirmations;

/// LDK's channel manager with its outgoing messages gated.
pub struct GatedManager {
    manager: Arc<ChannelManager>,
    gate: Arc<OutputGate>,
    confirmations: Arc<VirtualConfirmations>,
    batch_messages: Arc<BatchMessages>,
    strangers: Strangers,
}

impl GatedManager {
    /// Puts `gate` in front of `manager`; `confirmations` knows which channels a batch funds.
    /// Peers without a channel may be connected `strangers_max` at a time.
    pub fn new(
        manager: Arc<ChannelManager>,
        gate: Arc<OutputGate>,
        confirmations: Arc<VirtualConfirmations>,
        batch_messages: Arc<BatchMessages>,
        strangers_max: usize,
    ) -> Self {
        let strangers = Strangers::new(strangers_max);
        Self { manager, gate, confirmations, batch_messages, strangers }
    }

    /// Whether `channel` of `peer`, which a batch funds, is closed here.
    fn is_retired(&self, peer: &PublicKey, channel: ChannelId) -> bool {
        let open = self.manager.list_channels_with_counterparty(peer);
        !open.iter().any(|details| details.channel_id == channel)
            && self.gate.withheld.parked_of(channel).is_some()
    }

    fn has_channel(&self, peer: &PublicKey) -> bool {
        !self.manager.list_channels_with_counterparty(peer).is_empty()
    }

    /// Whether a batch funds `channel` of `peer`, off the chain.
    fn is_virtual(&self, peer: PublicKey, channel: ChannelId) -> bool {
        let channels = self.manager.list_channels_with_counterparty(&peer);
        let details = channels.into_iter().find(|details| details.channel_id == channel);
        details
            .and_then(|details| details.funding_txo)
            .is_some_and(|funding| self.confirmations.path_to(funding.txid).is_some())
    }

    /// Ends the connection: what the peer began on `channel` ends with it.
    fn refuse_splice(&self, peer: PublicKey, channel: ChannelId) {
        tracing::warn!(%peer, %channel, "peer wants to splice a channel of a batch; refused");
        let data = "a channel of a batch cannot be spliced; roll it over instead".to_owned();
        let msg = msgs::WarningMessage { channel_id: channel, data };
        let action = msgs::ErrorAction::DisconnectPeerWithWarning { msg };
        self.gate.answer(MessageSendEvent::HandleError { node_id: peer, action });
    }
}

impl BaseMessageHandler for GatedManager {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.gate.take_ready()
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.strangers.gone(&peer);
        self.gate.peer_disconnected(&self.manager, peer);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.manager.provided_node_features()
    }

    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.manager.provided_init_features(peer)
    }

    fn peer_connected(&self, peer: PublicKey, init: &msgs::Init, inbound: bool) -> Result<(), ()> {
        let is_limited = inbound
            && !self.has_channel(&peer)
            && !self.strangers.admit(peer, |other| self.has_channel(other));
        self.manager.peer_connected(peer, init, is_limited)
    }
}

/// Forwards each named message to the manager unchanged.
macro_rules! forward {
    (by_ref { $($by_ref:ident: $ref_type:ident),* $(,)? } by_value { $($by_value:ident: $value_type:ident),* $(,)? }) => {
        impl ChannelMessageHandler for GatedManager {
            $(fn $by_ref(&self, peer: PublicKey, message: &msgs::$ref_type) {
                self.manager.$by_ref(peer, message);
            })*
            $(fn $by_value(&self, peer: PublicKey, message: msgs::$value_type) {
                self.manager.$by_value(peer, message);
            })*

            fn handle_commitment_signed_batch(
                &self,
                peer: PublicKey,
                channel_id: ChannelId,
                batch: Vec<msgs::CommitmentSigned>,
            ) {
                self.manager.handle_commitment_signed_batch(peer, channel_id, batch);
            }

            fn handle_revoke_and_ack(&self, peer: PublicKey, message: &msgs::RevokeAndACK) {
                self.gate.answers.answered(peer, message.channel_id);
                self.manager.handle_revoke_and_ack(peer, message);
            }

            fn handle_update_add_htlc(&self, peer: PublicKey, message: &msgs::UpdateAddHTLC) {
                let channel = message.channel_id;
                self.gate.htlcs.received(peer, message, || {
                    let open = self.manager.list_channels_with_counterparty(&peer);
                    open.iter().any(|details| details.channel_id == channel)
                });
                self.manager.handle_update_add_htlc(peer, message);
            }

            fn handle_update_fulfill_htlc(
                &self,
                peer: PublicKey,
                message: msgs::UpdateFulfillHTLC,
            ) {
                self.gate.htlcs.answered(peer, message.channel_id, message.htlc_id, End::Fulfilled);
                self.manager.handle_update_fulfill_htlc(peer, message);
            }

            fn handle_update_fail_htlc(&self, peer: PublicKey, message: &msgs::UpdateFailHTLC) {
                self.gate.htlcs.answered(peer, message.channel_id, message.htlc_id, End::Failed);
                self.manager.handle_update_fail_htlc(peer, message);
            }

            fn handle_update_fail_malformed_htlc(
                &self,
                peer: PublicKey,
                message: &msgs::UpdateFailMalformedHTLC,
            ) {
                self.gate.htlcs.answered(peer, message.channel_id, message.htlc_id, End::Failed);
                self.manager.handle_update_fail_malformed_htlc(peer, message);
            }

            fn handle_channel_reestablish(
                &self,
                peer: PublicKey,
                message: &msgs::ChannelReestablish,
            ) {
                if self.is_retired(&peer, message.channel_id) {
                    self.batch_messages.taken_up(peer, message.channel_id.into());
                } else {
                    self.manager.handle_channel_reestablish(peer, message);
                }
            }

            fn handle_splice_init(&self, peer: PublicKey, message: &msgs::SpliceInit) {
                if self.is_virtual(peer, message.channel_id) {
                    self.refuse_splice(peer, message.channel_id);
                } else {
                    self.manager.handle_splice_init(peer, message);
                }
            }

            fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
                self.manager.get_chain_hashes()
            }

            fn message_received(&self) {
                self.manager.message_received();
            }
        }
    };
}

forward! {
    by_ref {
        handle_open_channel: OpenChannel,
        handle_open_channel_v2: OpenChannelV2,
        handle_accept_channel: AcceptChannel,
        handle_accept_channel_v2: AcceptChannelV2,
        handle_funding_created: FundingCreated,
        handle_funding_signed: FundingSigned,
        handle_channel_ready: ChannelReady,
        handle_shutdown: Shutdown,
        handle_closing_signed: ClosingSigned,
        handle_stfu: Stfu,
        handle_splice_ack: SpliceAck,
        handle_splice_locked: SpliceLocked,
        handle_tx_add_input: TxAddInput,
        handle_tx_add_output: TxAddOutput,
        handle_tx_remove_input: TxRemoveInput,
        handle_tx_remove_output: TxRemoveOutput,
        handle_tx_complete: TxComplete,
        handle_tx_signatures: TxSignatures,
        handle_tx_init_rbf: TxInitRbf,
        handle_tx_ack_rbf: TxAckRbf,
        handle_tx_abort: TxAbort,
        handle_commitment_signed: CommitmentSigned,
        handle_update_fee: UpdateFee,
        handle_announcement_signatures: AnnouncementSignatures,
        handle_channel_update: ChannelUpdate,
        handle_error: ErrorMessage,
    }
    by_value {
        handle_peer_storage: PeerStorage,
        handle_peer_storage_retrieval: PeerStorageRetrieval,
    }
}
