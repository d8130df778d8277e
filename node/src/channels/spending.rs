//! What opening a channel takes from a token's budget: what is given away, and the funding's fee.
//!
//! The capacity itself stays ours and is not counted: it leaves by payments, which are. The fee is
//! not known when a channel is asked for, so that a bound is set aside; it is lowered when the
//! transaction is built, gone when both commitments exist, and given back if the channel is never
//! funded.

use bitcoin::Amount;

use super::request::{OpenError, OpenRequest};
use super::service::Channels;
use crate::journal::ChannelEvent;
use crate::lightning::CloseKind;
use crate::lightning::types::ChannelRef;
use crate::store::Batch;
use crate::tokens::{Held, Purse, Subject};
use crate::wallet::{Built, Owner};

/// A funding transaction for which a token pays: some fourteen inputs.
const FUNDING_VBYTES_MAX: u64 = 1_000;

impl Channels {
    /// Sets aside what the channel may cost, in the batch of its first record.
    pub(super) fn set_aside<'a>(
        &self,
        channel: ChannelRef,
        request: &OpenRequest,
        purse: Option<&'a Purse>,
        batch: &mut Batch,
    ) -> Result<Option<Held<'a>>, OpenError> {
        let Some(purse) = purse else { return Ok(None) };
        let feerate = self.funding_feerate(request.feerate_sat_per_vb);
        let fee_sat = feerate.to_sat_per_vb_ceil().saturating_mul(FUNDING_VBYTES_MAX);
        let most_msat = request.push_msat.saturating_add(fee_sat.saturating_mul(1_000));
        Ok(Some(purse.reserve(Subject::Channel(channel), Some(request.peer), most_msat, batch)?))
    }

    /// Frees the coins of a funding transaction whose fee is above what the token has set aside.
    pub(super) fn affords(
        &self,
        channel: ChannelRef,
        push_msat: u64,
        built: &Built,
    ) -> Result<(), String> {
        let subject = Subject::Channel(channel);
        let Some(reserved_msat) = self.parts.ledger.reserved_msat(subject) else {
            return Ok(());
        };
        let cost_msat = cost_msat(push_msat, built.fee);
        if cost_msat <= reserved_msat {
            let mut batch = Batch::default();
            let held = self.parts.ledger.lower(subject, cost_msat, &mut batch);
            // Durable with the record of the funding, or by itself: it only gives back.
            let _with_the_next = self.parts.committer.enqueue(batch);
            drop(held);
            return Ok(());
        }
        if let Err(error) = self.parts.wallet.release(Owner::Transaction(built.txid())) {
            tracing::warn!(%channel, %error, "funding coins stay held");
        }
        let fee_sat = built.fee.to_sat();
        Err(format!("its funding would cost {fee_sat} sat, more than its token set aside"))
    }

    /// Notes in the batch of `event` what it means for the budget.
    pub(super) fn settle_budget(
        &self,
        channel: ChannelRef,
        event: &ChannelEvent,
        batch: &mut Batch,
    ) -> Option<Held<'_>> {
        let cost_msat = match event {
            ChannelEvent::Closed { kind: CloseKind::NeverOpened, .. } => Some(0),
            // Both commitments exist, and the funding transaction leaves: all of it is gone.
            ChannelEvent::Pending { .. }
            | ChannelEvent::Ready { .. }
            | ChannelEvent::Breached { .. }
            | ChannelEvent::Closed { .. } => None,
            _ => return None,
        };
        Some(self.parts.ledger.settle(Subject::Channel(channel), cost_msat, batch))
    }
}

fn cost_msat(push_msat: u64, fee: Amount) -> u64 {
    push_msat.saturating_add(fee.to_sat().saturating_mul(1_000))
}
