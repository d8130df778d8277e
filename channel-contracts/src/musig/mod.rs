//! MuSig2 (BIP 327) for batch trees: keys of many, signed for by all.
//!
//! - [`key`]: the aggregated key of one node output; [`TreeSecret`], one party's half.
//! - [`nonce`]: secret nonces that can be used once and printed never.
//! - [`hub`]: the session of a whole tree, from the hub's side. Names who sent a wrong partial.
//! - [`user`]: the session of one path, from a user's side.
//! - [`reclaim`]: what the hub can take when it holds released keys, and what it costs.
//!
//! A session is a typestate: each step consumes the one before, so a nonce that has signed is
//! gone. Nothing here is random; the shell draws a [`NonceSeed`] for every attempt and forgets
//! it. Nothing here can be serialised except what is meant for the other side.
//!
//! The `secp256k1` of the `bitcoin` crate has no MuSig2; a newer one is used beside it and keys
//! cross over as bytes. Types of the newer one that are public here are re-exported.
//!
//! Source: BIP 327; BIP 341, "Constructing and spending Taproot outputs".

pub mod hub;
pub mod key;
pub mod nonce;
pub mod reclaim;
pub mod user;

pub use hub::{HubNonces, HubPartials, HubSessionError, SignedTree};
pub use key::{AggregateError, AggregateKey, AggregateSecret, TreeSecret};
pub use nonce::NonceSeed;
pub use reclaim::{ReclaimError, ReclaimPlan, ReclaimPolicy};
pub use user::{UserNonces, UserSessionError, UserSigned};

/// What a signer shows before signing: 66 bytes.
pub use secp256k1_musig::musig::PublicNonce;

/// The sum of all signers' nonces: 66 bytes.
pub use secp256k1_musig::musig::AggregatedNonce;

/// One signer's share of a signature: 32 bytes.
pub use secp256k1_musig::musig::PartialSignature;

/// Bytes of a [`PublicNonce`] and of an [`AggregatedNonce`].
pub const NONCE_LEN: usize = secp256k1_musig::musig::PUBNONCE_SERIALIZED_SIZE;

/// Bytes of a [`PartialSignature`].
pub const PARTIAL_SIGNATURE_LEN: usize = secp256k1_musig::musig::PART_SIG_SERIALIZED_SIZE;

/// A BIP 340 signature with the default sighash type: 64 bytes in a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SchnorrSignature(pub [u8; 64]);

impl SchnorrSignature {
    /// Tells whether it signs `message` with `output_key`.
    pub fn is_valid(&self, message: &[u8; 32], output_key: &bitcoin::XOnlyPublicKey) -> bool {
        let signature = secp256k1_musig::schnorr::Signature::from_byte_array(self.0);
        let key = key::newer_x_only(output_key);
        secp256k1_musig::schnorr::verify(&signature, message, &key).is_ok()
    }
}
