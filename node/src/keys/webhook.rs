//! The secrets that webhooks are signed with: derived anew when they are needed, never stored.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use zeroize::Zeroizing;

/// Derives the secrets of webhook endpoints.
#[derive(Clone)]
pub struct WebhookSecrets(Zeroizing<[u8; 32]>);

impl std::fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecrets([redacted])")
    }
}

impl WebhookSecrets {
    pub(super) fn new(seed: Zeroizing<[u8; 32]>) -> Self {
        Self(seed)
    }

    /// The secret with this number of the endpoint with this id.
    pub fn secret(&self, endpoint: &[u8; 16], number: u32) -> Zeroizing<[u8; 32]> {
        let mut engine = HmacEngine::<sha256::Hash>::new(&*self.0);
        for part in [&b"webhook/"[..], endpoint, &number.to_be_bytes()] {
            engine.input(part);
        }
        Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_endpoint_and_each_rotation_has_its_own_secret() {
        let secrets = WebhookSecrets::new(Zeroizing::new([5; 32]));
        let first = secrets.secret(&[1; 16], 0);
        assert_ne!(first, secrets.secret(&[1; 16], 1));
        assert_ne!(first, secrets.secret(&[2; 16], 0));
        assert_eq!(first, secrets.secret(&[1; 16], 0), "it comes back");
        let other = WebhookSecrets::new(Zeroizing::new([6; 32]));
        assert_ne!(first, other.secret(&[1; 16], 0));
        assert_eq!(format!("{secrets:?}"), "WebhookSecrets([redacted])");
    }
}
