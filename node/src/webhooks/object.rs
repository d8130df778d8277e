//! What an event is about: events of one object arrive in the order of the log.

use bitcoin::Txid;
use channel_contracts::batch::{BatchId, RegistrationId, SwapId};
use serde::{Deserialize, Serialize};

use crate::journal::{
    BatchEvent, DomainEvent, EndpointId, InvoiceEvent, PaymentEvent, PayoutId, SecurityEvent,
};
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash, PaymentId};

/// What an event is about. Names are part of the store's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names say it")]
pub enum Object {
    Payment(PaymentId),
    Invoice(PaymentHash),
    Channel(ChannelRef),
    /// A wish for a channel of a batch.
    Wish(RegistrationId),
    Batch(BatchId),
    Swap(SwapId),
    Node,
    Endpoint(EndpointId),
    Payout(PayoutId),
    Transaction(Txid),
    Chain,
    Tower(NodeId),
    Token([u8; 16]),
}

impl Object {
    /// What `event` is about; `None` if about nothing that has a second event.
    pub fn of(event: &DomainEvent) -> Option<Self> {
        match event {
            DomainEvent::Payment(event) => payment(event).map(Self::Payment),
            DomainEvent::Invoice(
                InvoiceEvent::Created { hash, .. }
                | InvoiceEvent::Cancelled { hash }
                | InvoiceEvent::Held { hash, .. }
                | InvoiceEvent::Settled { hash, .. },
            ) => Some(Self::Invoice(*hash)),
            DomainEvent::Invoice(InvoiceEvent::OfferCreated { .. }) => None,
            DomainEvent::Channel(event) => event.channel().map(Self::Channel),
            DomainEvent::Batch(BatchEvent::Wish { registration, .. }) => {
                Some(Self::Wish(*registration))
            }
            DomainEvent::Batch(BatchEvent::Hosted { batch, .. }) => Some(Self::Batch(*batch)),
            DomainEvent::Swap(event) => Some(Self::Swap(event.swap)),
            DomainEvent::Node(_) => Some(Self::Node),
            DomainEvent::Webhook(event) => Some(Self::Endpoint(event.endpoint)),
            DomainEvent::Payout(event) => Some(Self::Payout(event.payout)),
            DomainEvent::Wallet(event) => Some(Self::Transaction(event.txid)),
            DomainEvent::Chain(_) => Some(Self::Chain),
            DomainEvent::Tower(event) => Some(Self::Tower(event.tower)),
            DomainEvent::Security(event) => security(event),
        }
    }
}

fn security(event: &SecurityEvent) -> Option<Object> {
    match event {
        SecurityEvent::TokenBaked { token, .. } | SecurityEvent::TokenRevoked { token, .. } => {
            Some(Object::Token(*token))
        }
        SecurityEvent::Breach { channel, .. } => Some(Object::Channel(*channel)),
        SecurityEvent::AccessRefused { .. } => None,
    }
}

fn payment(event: &PaymentEvent) -> Option<PaymentId> {
    match event {
        PaymentEvent::Initiated { id, .. }
        | PaymentEvent::Succeeded { id, .. }
        | PaymentEvent::Failed { id, .. }
        | PaymentEvent::Held { id, .. }
        | PaymentEvent::Claiming { id, .. }
        | PaymentEvent::Received { id, .. }
        | PaymentEvent::Returned { id, .. } => Some(*id),
        PaymentEvent::Forwarded { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::NodeEvent;
    use crate::lightning::FailureReason;
    use crate::lightning::types::Preimage;

    #[test]
    fn a_payments_events_are_about_that_payment() {
        let id = PaymentId([1; 32]);
        let end = |id| {
            let success = PaymentEvent::Succeeded {
                id,
                preimage: Preimage([2; 32]),
                parts: 1,
                amount_msat: 1,
                fee_msat: 0,
            };
            Object::of(&DomainEvent::Payment(success))
        };
        let failed = PaymentEvent::Failed { id, reason: FailureReason::Expired };
        assert_eq!(end(id), Object::of(&DomainEvent::Payment(failed)));
        assert_ne!(end(id), end(PaymentId([3; 32])));
        // The same bytes as another thing's name are another thing.
        let cancelled = InvoiceEvent::Cancelled { hash: PaymentHash([1; 32]) };
        assert_ne!(end(id), Object::of(&DomainEvent::Invoice(cancelled)));
        let forward =
            PaymentEvent::Forwarded { fee_msat: 1, amount_msat: 2, claimed_on_chain: false };
        assert_eq!(Object::of(&DomainEvent::Payment(forward)), None);
        let stopping = DomainEvent::Node(NodeEvent::Stopping);
        assert_eq!(Object::of(&stopping), Some(Object::Node));
    }
}
