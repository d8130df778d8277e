//! What is checked before a payment begins: nothing has changed when it is refused.

use super::machine::Input;
use super::request::{PayError, PayRequest, PayTarget};
use super::service::Payments;
use crate::journal::PaymentRequestKind;
use crate::lightning::DecodedKind;
use crate::lightning::types::Preimage;

/// A payment larger than all bitcoin is a mistake in units.
pub(super) const AMOUNT_MSAT_MAX: u64 = 21_000_000 * 100_000_000 * 1_000;

impl Payments {
    /// Turns a request into the machine's input, with the node's settings where it is silent.
    pub(super) fn validate(&self, request: &PayRequest) -> Result<Input, PayError> {
        let now = self.journal.now();
        let (kind, hash, preimage, payee, asked, description) = match &request.target {
            PayTarget::Request(text) | PayTarget::Over { invoice: text, .. } => {
                let over = match &request.target {
                    PayTarget::Over { channel, .. } => Some(*channel),
                    _ => None,
                };
                let decoded = self.lightning.decode(text)?;
                if !decoded.on_our_network {
                    return Err(PayError::WrongNetwork { ours: self.network });
                }
                if let Some(expires) = decoded.expires
                    && expires <= now
                {
                    return Err(PayError::Expired { seconds: (now - expires).as_secs() });
                }
                let kind = match decoded.kind {
                    DecodedKind::Invoice => {
                        PaymentRequestKind::Bolt11 { invoice: decoded.text, over }
                    }
                    DecodedKind::Offer => PaymentRequestKind::Bolt12 {
                        offer: decoded.text,
                        payer_note: request.payer_note.clone(),
                    },
                };
                let description = decoded.description;
                (kind, decoded.hash, None, decoded.payee, decoded.amount_msat, description)
            }
            PayTarget::Keysend { payee, records } => {
                let preimage = Preimage(self.entropy.bytes());
                let kind = PaymentRequestKind::Keysend { records: records.clone() };
                (kind, Some(preimage.hash()), Some(preimage), Some(*payee), None, None)
            }
        };
        if payee == Some(self.lightning.node_id()) {
            return Err(PayError::PaysItself);
        }
        let amount_msat = match (request.amount_msat, asked) {
            (Some(0), _) => return Err(PayError::ZeroAmount),
            (Some(given_msat), Some(asked_msat)) if given_msat != asked_msat => {
                return Err(PayError::AmountMismatch { asked_msat, given_msat });
            }
            (Some(given_msat), _) => given_msat,
            (None, Some(asked_msat)) => asked_msat,
            (None, None) => return Err(PayError::AmountMissing),
        };
        if amount_msat > AMOUNT_MSAT_MAX {
            return Err(PayError::AmountTooHigh { amount_msat });
        }
        let channels = self.lightning.spendable();
        if channels.usable == 0 {
            return Err(PayError::NoUsableChannel);
        }
        if amount_msat > channels.msat {
            return Err(PayError::InsufficientBalance {
                amount_msat,
                spendable_msat: channels.msat,
            });
        }
        let default_fee = self.default_fee_msat(amount_msat);
        Ok(Input::Pay {
            request: kind,
            hash,
            preimage,
            payee,
            amount_msat,
            max_fee_msat: request.max_fee_msat.unwrap_or(default_fee),
            max_parts: request.max_parts.unwrap_or(self.defaults.max_parts),
            retry_seconds: request.retry_for.unwrap_or(self.defaults.retry_for).as_secs(),
            description,
        })
    }
}
