//! A channel of a batch that both sides have closed, and one of them does not know it.
//!
//! The side that signs last in a cooperative close is done with its channel; the other may lose
//! power before it hears that. LDK answers its `channel_reestablish` with an error, upon which it
//! would close by force and bring the path of a batch onto the chain. So whoever has the closing
//! transaction parked shows it instead, and the other takes it as if the last signature had come:
//! both sides have signed it, which neither does for any other transaction but a commitment.

use bitcoin::Transaction;
use channel_contracts::script::{ClosingError, verify_closing};
use lightning::events::Event;

use super::build::Parts;
use super::events::{CloseKind, LightningEvent};
use super::room::Lightning;
use super::types::{ChannelId, NodeId};

/// What LDK tells the other side with a channel that it takes for open, and says in its log.
const REASON: &str = "both sides have signed the closing transaction";

impl Lightning {
    /// The closing transaction of a channel of a batch that is closed here; it may be shown once
    /// what is pending is durable.
    pub fn parked_closing_of(&self, channel: ChannelId) -> Option<Transaction> {
        self.parts.gate.withheld.parked_of(channel.into())
    }

    /// Takes a closing transaction that `peer` shows for a channel which is open here, and retires
    /// the channel. Says whether there is one.
    ///
    /// # Errors
    ///
    /// [`ClosingError`] if it is not what both sides signed to close it; nothing has changed.
    pub fn take_closing(
        &self,
        peer: NodeId,
        transaction: &Transaction,
    ) -> Result<bool, ClosingError> {
        let Parts { manager, gate, confirmations, .. } = &*self.parts;
        let Some(leaf) = confirmations.waits_for(transaction) else { return Ok(false) };
        let open = manager.list_channels_with_counterparty(&peer);
        let open = open.into_iter().find_map(|details| {
            let funding = details.funding_txo?.into_bitcoin_outpoint();
            (funding == leaf).then_some((details.channel_id, details.get_funding_output()?))
        });
        let Some((channel, output)) = open else { return Ok(false) };
        verify_closing(transaction, leaf, &output)?;
        // Parked first: the commitment that LDK offers now is dropped for it.
        gate.withheld.park(leaf, transaction);
        let closed = manager.force_close_broadcasting_latest_txn(&channel, &peer, REASON.into());
        if let Err(error) = closed {
            tracing::error!(%peer, %channel, ?error, "a channel that is closed cannot be let go of");
        }
        Ok(true)
    }
}

/// Corrects `said`, the translation of `event`: LDK lets go of a channel whose closing transaction
/// was taken as of one that it closes by force.
pub(super) fn correct(parts: &Parts, event: &Event, said: &mut LightningEvent) {
    let Event::ChannelClosed { channel_funding_txo: Some(funding), .. } = event else { return };
    let LightningEvent::ChannelClosed { kind, reason, .. } = said else { return };
    let is_parked = parts.gate.withheld.parked(funding.into_bitcoin_outpoint()).is_some();
    if is_parked && *kind != CloseKind::Cooperative {
        *kind = CloseKind::Cooperative;
        *reason = REASON.into();
    }
}
