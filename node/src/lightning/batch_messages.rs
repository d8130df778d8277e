//! Messages of the batch protocol, on the peers' own connections.
//!
//! What arrives waits here for whoever runs batches, and what is sent leaves with the next pass
//! of the peer handler. The gate has no part in it: a batch's state is its owner's, who sends a
//! message once its cause is durable.
//!
//! A message is dropped with the connection it was meant for: the machines of both roles say
//! again what was not heard.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use channel_contracts::batch::Message;
use channel_contracts::batch::wire::MESSAGE_LEN_MAX;
use lightning::io::{self, Read};
use lightning::ln::msgs::{DecodeError, ErrorAction, Init, LightningError};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::types::{ChannelId, NodeId};

/// Messages of one peer that may wait: an honest one waits for an answer after two.
const WAITING_MAX: usize = 32;

/// What reaches the batch service from a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchArrival {
    /// A message.
    Message {
        /// Who sent it.
        peer: NodeId,
        /// What it says.
        message: Message,
    },
    /// A message of a type that belongs to the protocol, which does not decode.
    Malformed {
        /// Who sent it.
        peer: NodeId,
        /// Its Lightning message type.
        kind: u16,
        /// What is wrong with it.
        detail: String,
    },
    /// There is a connection.
    Connected {
        /// To whom.
        peer: NodeId,
    },
    /// The peer takes up a channel of a batch that is closed here.
    TakenUp {
        /// Who.
        peer: NodeId,
        /// LDK's name of the channel.
        channel: ChannelId,
    },
    /// The connection is lost.
    Gone {
        /// To whom.
        peer: NodeId,
    },
}

/// The post of the batch protocol.
pub struct BatchMessages {
    state: Mutex<State>,
    /// Wakes whoever lets the peer handler send.
    pump: Arc<Notify>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    arrivals: VecDeque<BatchArrival>,
    waiting: HashMap<NodeId, usize>,
    outgoing: Vec<(NodeId, Wire)>,
}

impl BatchMessages {
    pub(super) fn new(pump: Arc<Notify>) -> Self {
        Self { state: Mutex::default(), pump, arrived: Notify::new() }
    }

    /// Sends `message` to `peer`, if it is connected.
    pub fn send(&self, peer: NodeId, message: &Message) {
        let wire = Wire::Encoded { kind: message.kind(), bytes: message.encode() };
        self.state.lock().outgoing.push((peer, wire));
        self.pump.notify_one();
    }

    /// Waits until something has arrived. One caller at a time.
    pub async fn arrived(&self) {
        while self.state.lock().arrivals.is_empty() {
            self.arrived.notified().await;
        }
    }

    /// Takes what has arrived, in the order of each connection.
    pub fn take(&self) -> Vec<BatchArrival> {
        let mut state = self.state.lock();
        state.waiting.clear();
        state.arrivals.drain(..).collect()
    }

    /// Notes that `peer` takes up a channel that is closed here.
    pub(super) fn taken_up(&self, peer: NodeId, channel: ChannelId) {
        self.arrive(BatchArrival::TakenUp { peer, channel });
    }

    fn arrive(&self, arrival: BatchArrival) {
        self.state.lock().arrivals.push_back(arrival);
        self.arrived.notify_one();
    }
}

impl CustomMessageHandler for BatchMessages {
    fn handle_custom_message(&self, message: Wire, peer: PublicKey) -> Result<(), LightningError> {
        let arrival = match message {
            Wire::Decoded(message) => BatchArrival::Message { peer, message: *message },
            Wire::Malformed { kind, detail } => BatchArrival::Malformed { peer, kind, detail },
            // Nothing is read as this.
            Wire::Encoded { .. } => return Ok(()),
        };
        let waiting = {
            let mut state = self.state.lock();
            let waiting = state.waiting.entry(peer).or_default();
            *waiting += 1;
            *waiting
        };
        if waiting > WAITING_MAX {
            return Err(LightningError {
                err: format!("more than {WAITING_MAX} batch messages without waiting for answers"),
                action: ErrorAction::DisconnectPeer { msg: None },
            });
        }
        self.arrive(arrival);
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Wire)> {
        std::mem::take(&mut self.state.lock().outgoing)
    }

    fn peer_disconnected(&self, peer: PublicKey) {
        self.state.lock().outgoing.retain(|(receiver, _)| *receiver != peer);
        self.arrive(BatchArrival::Gone { peer });
    }

    fn peer_connected(&self, peer: PublicKey, _init: &Init, _inbound: bool) -> Result<(), ()> {
        self.arrive(BatchArrival::Connected { peer });
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _peer: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

/// A message of the protocol between LDK and us.
#[derive(Debug)]
pub enum Wire {
    /// To be sent.
    Encoded {
        /// Its Lightning message type.
        kind: u16,
        /// What follows it.
        bytes: Vec<u8>,
    },
    /// Received and understood.
    Decoded(Box<Message>),
    /// Received, and wrong. Not an error of decoding to LDK, which would not say whose it was.
    Malformed {
        /// Its Lightning message type.
        kind: u16,
        /// What is wrong with it.
        detail: String,
    },
}

impl Type for Wire {
    fn type_id(&self) -> u16 {
        match self {
            Self::Encoded { kind, .. } | Self::Malformed { kind, .. } => *kind,
            Self::Decoded(message) => message.kind(),
        }
    }
}

impl Writeable for Wire {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        match self {
            Self::Encoded { bytes, .. } => writer.write_all(bytes),
            Self::Decoded(message) => writer.write_all(&message.encode()),
            Self::Malformed { .. } => Ok(()),
        }
    }
}

impl CustomMessageReader for BatchMessages {
    type CustomMessage = Wire;

    fn read<R: LengthLimitedRead>(
        &self,
        kind: u16,
        buffer: &mut R,
    ) -> Result<Option<Wire>, DecodeError> {
        // An empty message of a type that is not ours is not ours either.
        if Message::decode(kind, &[]).is_none() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut limited = Read::take(buffer, MESSAGE_LEN_MAX as u64 + 1);
        limited.read_to_end(&mut bytes).map_err(|error| DecodeError::Io(error.kind()))?;
        Ok(Message::decode(kind, &bytes).map(|decoded| match decoded {
            Ok(message) => Wire::Decoded(Box::new(message)),
            Err(error) => Wire::Malformed { kind, detail: error.to_string() },
        }))
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use channel_contracts::batch::message::{DropReason, Dropped, Stored};
    use channel_contracts::batch::{Attempt, BatchId};

    use super::*;

    fn peer() -> NodeId {
        SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new())
    }

    fn post() -> BatchMessages {
        BatchMessages::new(Arc::new(Notify::new()))
    }

    fn stored() -> Message {
        Message::Stored(Stored { batch: BatchId([7; 32]), attempt: Attempt::FIRST })
    }

    #[test]
    fn what_is_sent_reads_back() {
        let post = post();
        post.send(peer(), &stored());
        let (receiver, wire) = post.get_and_clear_pending_msg().pop().unwrap();
        let bytes = wire.encode();
        let read = post.read(wire.type_id(), &mut &bytes[..]).unwrap().unwrap();
        post.handle_custom_message(read, receiver).unwrap();
        assert_eq!(post.take(), [BatchArrival::Message { peer: peer(), message: stored() }]);
    }

    #[test]
    fn wrong_bytes_name_their_sender_and_foreign_types_are_left_alone() {
        let post = post();
        let read = post.read(stored().kind(), &mut &[1, 2, 3][..]).unwrap().unwrap();
        post.handle_custom_message(read, peer()).unwrap();
        let arrived = post.take();
        assert!(
            matches!(&arrived[..], [BatchArrival::Malformed { peer: from, .. }] if *from == peer())
        );
        assert!(post.read(40_001, &mut &[1][..]).unwrap().is_none());
    }

    #[test]
    fn a_peer_that_floods_is_disconnected() {
        let post = post();
        for number in 0..=WAITING_MAX {
            let message = Wire::Decoded(Box::new(stored()));
            assert_eq!(post.handle_custom_message(message, peer()).is_err(), number == WAITING_MAX);
        }
        assert_eq!(post.take().len(), WAITING_MAX);
        assert!(post.handle_custom_message(Wire::Decoded(Box::new(stored())), peer()).is_ok());
    }

    #[test]
    fn what_was_meant_for_a_lost_connection_is_not_sent_on_the_next() {
        let post = post();
        let dropped = Message::Dropped(Dropped {
            batch: BatchId([7; 32]),
            attempt: Attempt::FIRST,
            reason: DropReason::Silent,
        });
        post.send(peer(), &dropped);
        post.peer_disconnected(peer());
        assert!(post.get_and_clear_pending_msg().is_empty());
        assert_eq!(post.take(), [BatchArrival::Gone { peer: peer() }]);
    }
}
