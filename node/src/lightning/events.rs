//! LDK's events in our words. Translation only: what an event means is decided by the services.

use bitcoin::{OutPoint, ScriptBuf};
use lightning::events::{
    ClosureReason, Event, NegotiationFailureReason, PaymentFailureReason, PaymentPurpose,
};

use super::types::{ChannelId, ChannelRef, NodeId, PaymentHash, PaymentId, Preimage};

/// What happened in the LDK room that a service has to know.
///
/// LDK repeats an event after a crash, so handling one twice must change nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are named after the BOLT's terms")]
pub enum LightningEvent {
    /// A peer accepted our channel: it wants a funding transaction.
    FundingNeeded {
        channel: ChannelRef,
        temporary_id: ChannelId,
        peer: NodeId,
        capacity_sat: u64,
        funding_script: ScriptBuf,
    },
    /// A peer wants to open a channel to us.
    InboundChannelRequested {
        temporary_id: ChannelId,
        peer: NodeId,
        capacity_sat: u64,
        push_msat: u64,
        announced: bool,
    },
    /// Both sides hold commitments; the funding transaction may be broadcast.
    ChannelPending { channel: ChannelRef, channel_id: ChannelId, peer: NodeId, funding: OutPoint },
    /// Both sides hold commitments on an outpoint of a batch: the batch transaction may be
    /// broadcast as far as this channel is concerned.
    FundingSafe { channel: ChannelRef, channel_id: ChannelId, peer: NodeId, funding: OutPoint },
    /// The channel can carry payments, from the funding output that is now its own: the first, or
    /// that of a splice.
    ChannelReady { channel: ChannelRef, channel_id: ChannelId, peer: NodeId },
    /// A splice with a part of ours is signed; its transaction waits for confirmations.
    SplicePending { channel: ChannelRef, funding: OutPoint },
    /// A splice we asked for did not come to be. The channel is as it was. `disconnected`: the
    /// connection was lost meanwhile, or this node stopped; nobody refused.
    SpliceFailed { channel: ChannelRef, reason: String, disconnected: bool },
    /// The channel is over. Its money may still be on its way home.
    ChannelClosed {
        channel: ChannelRef,
        channel_id: ChannelId,
        peer: Option<NodeId>,
        kind: CloseKind,
        reason: String,
        last_local_balance_msat: Option<u64>,
    },
    /// A funding transaction will not be used; its coins are free.
    FundingDiscarded { channel_id: ChannelId, funding: OutPoint },
    /// A payment waits to be claimed.
    Claimable {
        hash: PaymentHash,
        amount_msat: u64,
        kind: InboundKind,
        /// What LDK or the sender knows of the preimage; `None` for a hold invoice.
        preimage: Option<Preimage>,
        /// The height by which it must be claimed.
        claim_deadline: Option<u32>,
        parts: u32,
    },
    /// A payment is ours.
    Claimed { hash: PaymentHash, amount_msat: u64, parts: u32 },
    /// HTLCs of our payments have left their channels: there is room for others.
    HtlcsEnded,
    /// Our payment reached its receiver.
    /// `parts` is 0 where it is not known: it was sent before a restart.
    Sent {
        id: PaymentId,
        preimage: Preimage,
        amount_msat: Option<u64>,
        fee_msat: Option<u64>,
        parts: u32,
    },
    /// Our payment failed for good; no part of it can still succeed.
    /// `temporary`: an attempt failed on the way for a reason that passes, a full channel say.
    Failed { id: PaymentId, reason: FailureReason, temporary: bool },
    /// We forwarded a payment and earned a fee.
    Forwarded { fee_msat: u64, amount_msat: u64, claimed_on_chain: bool },
    /// Outputs of a closed channel are ours alone now, and on their way to the wallet.
    OutputsToSweep { channel_id: Option<ChannelId>, count: u32, value_sat: u64 },
    /// A peer must be reached to go on, for an onion message say.
    ConnectionNeeded { peer: NodeId, addresses: Vec<String> },
}

/// How a received payment was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundKind {
    /// A BOLT 11 invoice.
    Bolt11,
    /// A BOLT 12 offer or refund.
    Bolt12,
    /// Nothing: the sender chose the preimage.
    Keysend,
}

/// How a channel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CloseKind {
    /// It never came to be.
    NeverOpened,
    /// Both sides signed the closing transaction.
    Cooperative,
    /// We published our commitment.
    ForcedByUs,
    /// The counterparty published its commitment.
    ForcedByPeer,
    /// A protocol error ended it.
    Error,
}

/// Why a payment failed, the part a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The receiver refused it: unknown hash, wrong amount, expired.
    RecipientRejected,
    /// It was cancelled here.
    Abandoned,
    /// Every retry failed.
    RetriesExhausted,
    /// The invoice expired before the payment could be made.
    Expired,
    /// No path carries this amount to the receiver within the fee limit.
    RouteNotFound,
    /// The receiver asks for features we do not have.
    UnknownFeatures,
    /// The offer's issuer did not answer in time.
    InvoiceRequestExpired,
    /// The offer's issuer refused.
    InvoiceRequestRejected,
    /// The node was restarted before the payment had left.
    NeverSent,
    /// Anything else.
    Unexpected,
}

impl FailureReason {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::RecipientRejected,
        Self::Abandoned,
        Self::RetriesExhausted,
        Self::Expired,
        Self::RouteNotFound,
        Self::UnknownFeatures,
        Self::InvoiceRequestExpired,
        Self::InvoiceRequestRejected,
        Self::NeverSent,
        Self::Unexpected,
    ];

    /// Its name, as in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RecipientRejected => "recipient_rejected",
            Self::Abandoned => "abandoned",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Expired => "expired",
            Self::RouteNotFound => "route_not_found",
            Self::UnknownFeatures => "unknown_features",
            Self::InvoiceRequestExpired => "invoice_request_expired",
            Self::InvoiceRequestRejected => "invoice_request_rejected",
            Self::NeverSent => "never_sent",
            Self::Unexpected => "unexpected",
        }
    }
}

impl From<Option<PaymentFailureReason>> for FailureReason {
    fn from(reason: Option<PaymentFailureReason>) -> Self {
        use PaymentFailureReason as R;
        match reason {
            Some(R::RecipientRejected) => Self::RecipientRejected,
            Some(R::UserAbandoned) => Self::Abandoned,
            Some(R::RetriesExhausted) => Self::RetriesExhausted,
            Some(R::PaymentExpired) => Self::Expired,
            Some(R::RouteNotFound) => Self::RouteNotFound,
            Some(R::UnknownRequiredFeatures) => Self::UnknownFeatures,
            Some(R::InvoiceRequestExpired) => Self::InvoiceRequestExpired,
            Some(R::InvoiceRequestRejected) => Self::InvoiceRequestRejected,
            Some(R::UnexpectedError | R::BlindedPathCreationFailed) | None => Self::Unexpected,
        }
    }
}

impl From<&ClosureReason> for CloseKind {
    fn from(reason: &ClosureReason) -> Self {
        use ClosureReason as R;
        match reason {
            R::LegacyCooperativeClosure
            | R::CounterpartyInitiatedCooperativeClosure
            | R::LocallyInitiatedCooperativeClosure => Self::Cooperative,
            R::FundingTimedOut
            | R::DisconnectedPeer
            | R::CounterpartyCoopClosedUnfundedChannel
            | R::LocallyCoopClosedUnfundedChannel
            | R::FundingBatchClosure => Self::NeverOpened,
            R::CommitmentTxConfirmed | R::CounterpartyForceClosed { .. } => Self::ForcedByPeer,
            R::HolderForceClosed { .. } | R::HTLCsTimedOut { .. } => Self::ForcedByUs,
            R::ProcessingError { .. } | R::OutdatedChannelManager | R::PeerFeerateTooLow { .. } => {
                Self::Error
            }
        }
    }
}

/// Translates what services need to know of `event`; `None` for what stays in the LDK room.
pub(super) fn translate(event: &Event) -> Option<LightningEvent> {
    Some(match event {
        Event::FundingGenerationReady {
            temporary_channel_id,
            counterparty_node_id,
            channel_value_satoshis,
            output_script,
            user_channel_id,
        } => LightningEvent::FundingNeeded {
            channel: ChannelRef::from_user(*user_channel_id),
            temporary_id: (*temporary_channel_id).into(),
            peer: *counterparty_node_id,
            capacity_sat: *channel_value_satoshis,
            funding_script: output_script.clone(),
        },
        Event::OpenChannelRequest {
            temporary_channel_id,
            counterparty_node_id,
            funding_satoshis,
            channel_negotiation_type,
            is_announced,
            ..
        } => LightningEvent::InboundChannelRequested {
            temporary_id: (*temporary_channel_id).into(),
            peer: *counterparty_node_id,
            capacity_sat: *funding_satoshis,
            push_msat: match channel_negotiation_type {
                lightning::events::InboundChannelFunds::PushMsat(msat) => *msat,
                lightning::events::InboundChannelFunds::DualFunded => 0,
            },
            announced: *is_announced,
        },
        Event::ChannelPending {
            channel_id,
            user_channel_id,
            counterparty_node_id,
            funding_txo,
            ..
        } => LightningEvent::ChannelPending {
            channel: ChannelRef::from_user(*user_channel_id),
            channel_id: (*channel_id).into(),
            peer: *counterparty_node_id,
            funding: *funding_txo,
        },
        Event::FundingTxBroadcastSafe {
            channel_id,
            user_channel_id,
            funding_txo,
            counterparty_node_id,
            ..
        } => LightningEvent::FundingSafe {
            channel: ChannelRef::from_user(*user_channel_id),
            channel_id: (*channel_id).into(),
            peer: *counterparty_node_id,
            funding: *funding_txo,
        },
        Event::ChannelReady { channel_id, user_channel_id, counterparty_node_id, .. } => {
            LightningEvent::ChannelReady {
                channel: ChannelRef::from_user(*user_channel_id),
                channel_id: (*channel_id).into(),
                peer: *counterparty_node_id,
            }
        }
        Event::SpliceNegotiated { user_channel_id, new_funding_txo, .. } => {
            LightningEvent::SplicePending {
                channel: ChannelRef::from_user(*user_channel_id),
                funding: *new_funding_txo,
            }
        }
        Event::SpliceNegotiationFailed { user_channel_id, reason, .. } => {
            LightningEvent::SpliceFailed {
                channel: ChannelRef::from_user(*user_channel_id),
                reason: reason.to_string(),
                disconnected: matches!(reason, NegotiationFailureReason::PeerDisconnected),
            }
        }
        Event::ChannelClosed {
            channel_id,
            user_channel_id,
            reason,
            counterparty_node_id,
            last_local_balance_msat,
            ..
        } => LightningEvent::ChannelClosed {
            channel: ChannelRef::from_user(*user_channel_id),
            channel_id: (*channel_id).into(),
            peer: *counterparty_node_id,
            kind: reason.into(),
            reason: reason.to_string(),
            last_local_balance_msat: *last_local_balance_msat,
        },
        Event::DiscardFunding { channel_id, funding_info } => LightningEvent::FundingDiscarded {
            channel_id: (*channel_id).into(),
            funding: match funding_info {
                lightning::events::FundingInfo::OutPoint { outpoint } => {
                    outpoint.into_bitcoin_outpoint()
                }
                lightning::events::FundingInfo::Tx { transaction } => {
                    OutPoint { txid: transaction.compute_txid(), vout: 0 }
                }
                _ => return None,
            },
        },
        Event::PaymentClaimable {
            payment_hash,
            amount_msat,
            purpose,
            claim_deadline,
            receiving_channel_ids,
            ..
        } => LightningEvent::Claimable {
            hash: (*payment_hash).into(),
            amount_msat: *amount_msat,
            kind: match purpose {
                PaymentPurpose::Bolt11InvoicePayment { .. } => InboundKind::Bolt11,
                PaymentPurpose::Bolt12OfferPayment { .. }
                | PaymentPurpose::Bolt12RefundPayment { .. } => InboundKind::Bolt12,
                PaymentPurpose::SpontaneousPayment(_) => InboundKind::Keysend,
            },
            preimage: purpose.preimage().map(Into::into),
            claim_deadline: *claim_deadline,
            parts: u32::try_from(receiving_channel_ids.len()).unwrap_or(u32::MAX),
        },
        Event::PaymentClaimed { payment_hash, amount_msat, htlcs, .. } => LightningEvent::Claimed {
            hash: (*payment_hash).into(),
            amount_msat: *amount_msat,
            parts: u32::try_from(htlcs.len()).unwrap_or(u32::MAX),
        },
        Event::PaymentSent { payment_id, payment_preimage, amount_msat, fee_paid_msat, .. } => {
            LightningEvent::Sent {
                id: (*payment_id)?.into(),
                preimage: (*payment_preimage).into(),
                amount_msat: *amount_msat,
                fee_msat: *fee_paid_msat,
                parts: 0,
            }
        }
        Event::PaymentFailed { payment_id, reason, .. } => LightningEvent::Failed {
            id: (*payment_id).into(),
            reason: (*reason).into(),
            temporary: false,
        },
        Event::PaymentForwarded {
            total_fee_earned_msat,
            outbound_amount_forwarded_msat,
            claim_from_onchain_tx,
            ..
        } => LightningEvent::Forwarded {
            fee_msat: total_fee_earned_msat.unwrap_or(0),
            amount_msat: *outbound_amount_forwarded_msat,
            claimed_on_chain: *claim_from_onchain_tx,
        },
        Event::SpendableOutputs { outputs, channel_id, .. } => LightningEvent::OutputsToSweep {
            channel_id: channel_id.map(Into::into),
            count: u32::try_from(outputs.len()).unwrap_or(u32::MAX),
            value_sat: outputs.iter().map(output_value_sat).sum(),
        },
        Event::ConnectionNeeded { node_id, addresses } => LightningEvent::ConnectionNeeded {
            peer: *node_id,
            addresses: addresses.iter().map(ToString::to_string).collect(),
        },
        _ => return None,
    })
}

fn output_value_sat(descriptor: &lightning::sign::SpendableOutputDescriptor) -> u64 {
    use lightning::sign::SpendableOutputDescriptor as D;
    match descriptor {
        D::StaticOutput { output, .. } => output.value.to_sat(),
        D::DelayedPaymentOutput(output) => output.output.value.to_sat(),
        D::StaticPaymentOutput(output) => output.output.value.to_sat(),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use lightning::ln::types::ChannelId as LdkChannelId;

    use super::*;

    #[test]
    fn funding_that_is_not_ldks_to_broadcast_is_reported_safe() {
        let funding = OutPoint { txid: bitcoin::Txid::all_zeros(), vout: 2 };
        let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
        let event = Event::FundingTxBroadcastSafe {
            channel_id: LdkChannelId([3; 32]),
            user_channel_id: u128::from_be_bytes([4; 16]),
            funding_txo: funding,
            counterparty_node_id: peer,
            former_temporary_channel_id: LdkChannelId([5; 32]),
        };
        let (channel, channel_id) = (ChannelRef([4; 16]), ChannelId([3; 32]));
        let safe = LightningEvent::FundingSafe { channel, channel_id, peer, funding };
        assert_eq!(translate(&event), Some(safe));
    }
}
