//! A blob as it is stored: which protocol it came by, then its bytes.

use channel_contracts::DecodeError;
use channel_contracts::tower::SealedBlob;

/// First byte of a blob of ours.
const SEALED: u8 = 0;
/// First byte of a blob of the open tower protocol.
const OPEN: u8 = 1;

/// What a client left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBlob {
    /// A remedy of ours.
    Sealed(SealedBlob),
    /// An appointment of the open tower protocol.
    Open {
        /// The cheater's delay, blocks, as the client said; for its information.
        to_self_delay: u32,
        /// An encrypted penalty transaction.
        blob: Vec<u8>,
    },
}

impl StoredBlob {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Sealed(blob) => [&[SEALED], &blob.encode()[..]].concat(),
            Self::Open { to_self_delay, blob } => {
                [&[OPEN], &to_self_delay.to_be_bytes()[..], blob].concat()
            }
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if it is neither.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let open = bytes.strip_prefix(&[OPEN]).and_then(|rest| rest.split_first_chunk::<4>());
        if let Some((delay, blob)) = open {
            let to_self_delay = u32::from_be_bytes(*delay);
            return Ok(Self::Open { to_self_delay, blob: blob.to_vec() });
        }
        // What begins otherwise is refused by its version.
        let sealed = bytes.strip_prefix(&[SEALED]).unwrap_or_default();
        SealedBlob::decode(sealed).map(Self::Sealed)
    }
}
