//! Appointments for one tower, out of what was revealed.

use bitcoin::ScriptBuf;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use channel_contracts::justice::{RevocationSecret, RevokedState};
use channel_contracts::tower::{
    Appointment, ChannelTag, FeeLevels, Locator, Mode, Remedy, SealedBlob,
};

use crate::lightning::types::ChannelId;
use crate::lightning::{Revealed, RevealedState};
use crate::tower::server::SignedAppointment;

/// What makes appointments for one tower.
pub(super) struct Maker {
    /// The tower.
    pub tower: PublicKey,
    /// How far it is trusted.
    pub mode: Mode,
    /// The feerates to sign for.
    pub fee_levels: FeeLevels,
    /// This node's key at this tower alone.
    pub client: SecretKey,
    /// What names of channels are derived from.
    pub tag_secret: [u8; 32],
}

impl Maker {
    /// The name of `channel` at this tower.
    pub fn tag(&self, channel: ChannelId) -> ChannelTag {
        ChannelTag::derive(&self.tag_secret, &channel.0)
    }

    /// The appointment for a revealed state, which is entry `number` of the outbox; what it takes
    /// goes to `sweep_script`. `None` if there is nothing to take at any feerate.
    ///
    /// # Errors
    ///
    /// What is wrong with the state; it is never right.
    pub fn make(
        &self,
        secp: &Secp256k1<All>,
        number: u64,
        revealed: &RevealedState,
        sweep_script: ScriptBuf,
    ) -> Result<Option<SignedAppointment>, String> {
        let RevealedState { channel, state, secret, .. } = revealed;
        if state.to_local().is_none() && state.htlcs().is_empty() {
            return Ok(None);
        }
        let blob = match self.mode {
            Mode::Blind => self.blind(secp, state, &sweep_script, secret)?,
            Mode::Trusted => {
                let remedy = Remedy::trusted(secp, state.clone(), sweep_script, secret.clone());
                remedy.map_err(text)?.seal().map_err(text)?
            }
        };
        let appointment = Appointment {
            channel: self.tag(*channel),
            sequence: number,
            locator: Locator::of(state.commitment_txid()),
            blob,
        };
        let message = appointment.message_hash(&self.tower);
        let signature = secp.sign_ecdsa(&message, &self.client);
        Ok(Some(SignedAppointment { appointment, signature }))
    }
}

impl Maker {
    /// Signs for as much as fits into a blob: a peer that fills a channel with small payments must
    /// not keep the tower from the rest. First fewer feerates, then the largest HTLCs alone.
    fn blind(
        &self,
        secp: &Secp256k1<All>,
        state: &RevokedState,
        sweep_script: &ScriptBuf,
        secret: &RevocationSecret,
    ) -> Result<SealedBlob, String> {
        let all = self.fee_levels.feerates();
        let highest = &all[all.len() - 1..];
        let mut most = state.htlcs().len();
        let mut levels = self.fee_levels.clone();
        loop {
            let part = state.with_largest(most);
            let remedy = Remedy::blind(secp, part, sweep_script.clone(), &levels, secret.expose());
            match remedy.map_err(text)?.seal() {
                Ok(blob) => return Ok(blob),
                Err(error) if most == 0 => return Err(text(error)),
                Err(_) if levels.feerates().len() > 1 => {
                    levels = FeeLevels::new(highest.to_vec()).map_err(text)?;
                }
                Err(_) => most /= 2,
            }
        }
    }
}

/// What is said of an entry, if it is one about a state.
pub(super) fn state_of(revealed: &Revealed) -> Option<&RevealedState> {
    match revealed {
        Revealed::State(state) => Some(state),
        Revealed::Gone { .. } => None,
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
