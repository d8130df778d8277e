//! The signature on a webhook, by which a receiver knows this node.
//!
//! Source: Standard Webhooks 1.0.0, "Signature scheme", symmetric: HMAC-SHA256 over
//! `id.timestamp.body`, and secrets written `whsec_` and base64.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use zeroize::Zeroizing;

/// What a secret begins with when it is written out.
const PREFIX: &str = "whsec_";

/// A secret that an endpoint and this node share.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Zeroizing<Vec<u8>>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret([redacted])")
    }
}

impl SigningSecret {
    /// Takes its bytes: 24 to 64, says the scheme.
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Writes it out, for the one who is to verify.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", STANDARD.encode(&*self.0)))
    }

    /// Signs one delivery, in the form of one element of the header.
    pub fn sign(&self, id: &str, unix_seconds: u64, body: &[u8]) -> String {
        let mut engine = HmacEngine::<sha256::Hash>::new(&self.0);
        engine.input(format!("{id}.{unix_seconds}.").as_bytes());
        engine.input(body);
        let tag = Hmac::from_engine(engine).to_byte_array();
        format!("v1,{}", STANDARD.encode(tag))
    }
}

/// The header `webhook-signature`: one signature for each secret that counts, the newest first.
pub fn header(secrets: &[SigningSecret], id: &str, unix_seconds: u64, body: &[u8]) -> String {
    let all: Vec<String> = secrets.iter().map(|s| s.sign(id, unix_seconds, body)).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that the scheme's own libraries are tested with.
    #[test]
    fn the_published_vector_is_signed_as_published() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let secret = SigningSecret::new(Zeroizing::new(key));
        assert_eq!(*secret.reveal(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signed = secret.sign(id, 1_614_265_330, b"{\"test\": 2432232314}");
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_replaced_both_sign() {
        let secret = |byte| SigningSecret::new(Zeroizing::new(vec![byte; 32]));
        let both = header(&[secret(1), secret(2)], "id", 5, b"body");
        let (new, old) = both.split_once(' ').unwrap();
        assert_eq!(new, secret(1).sign("id", 5, b"body"));
        assert_eq!(old, secret(2).sign("id", 5, b"body"));
        assert_ne!(new, old);
        assert_eq!(format!("{:?}", secret(1)), "SigningSecret([redacted])");
    }
}
