//! How a side learns that its channel is closed: the other shows the closing transaction.

use bitcoin::Transaction;
use channel_contracts::batch::Peer;
use channel_contracts::batch::message::{Closed, Message};

use super::service::{Batches, State};
use crate::lightning::types::{ChannelId, NodeId};
use crate::store::StoreError;

/// What a peer said of a channel that one side takes for open.
pub(super) enum ClosedWord {
    /// It takes up one that is closed here.
    TakenUp { peer: NodeId, channel: ChannelId },
    /// It shows the closing transaction of one.
    Shown { peer: NodeId, transaction: Transaction },
}

impl Batches {
    /// Shows closing transactions to who asked for one, and takes what was shown.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub(super) async fn answer_closed(&self, state: &mut State) -> Result<(), StoreError> {
        for word in std::mem::take(&mut state.closed) {
            match word {
                ClosedWord::TakenUp { peer, channel } => {
                    let Some(transaction) = self.parts.lightning.parked_closing_of(channel) else {
                        continue;
                    };
                    // Parked durably, or a crash would leave the peer alone with it.
                    self.parts.committer.durable(self.parts.committer.now()).await?;
                    let closed = Closed { transaction };
                    self.parts.send(Peer(peer), &Message::Closed(closed));
                }
                ClosedWord::Shown { peer, transaction } => {
                    match self.parts.lightning.take_closing(peer, &transaction) {
                        Ok(true) => {
                            tracing::info!(%peer, "channel of a batch was closed by both sides");
                        }
                        Ok(false) => tracing::debug!(%peer, "peer shows a closing of no channel"),
                        Err(error) => {
                            tracing::warn!(%peer, %error, "peer shows a wrong closing transaction");
                        }
                    }
                }
            }
        }
        Ok(())
    }
}
