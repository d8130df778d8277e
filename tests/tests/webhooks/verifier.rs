//! Checks a signature as the text of Standard Webhooks 1.0.0 says, sharing nothing with the node
//! but SHA-256.

use bitcoin::hashes::{Hash, sha256};

/// Whether one of the signatures in `header` is of the holder of `secret`.
pub fn verifies(secret: &str, id: &str, timestamp: &str, body: &[u8], header: &str) -> bool {
    let key = base64(secret.strip_prefix("whsec_").unwrap());
    let mut signed = format!("{id}.{timestamp}.").into_bytes();
    signed.extend_from_slice(body);
    let expected = hmac(&key, &signed);
    header.split(' ').any(|one| {
        let (version, signature) = one.split_once(',').unwrap();
        version == "v1" && base64(signature) == expected
    })
}

/// RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64, "a longer one would be hashed first");
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = sha256::Hash::hash(&[&padded(0x36)[..], message].concat());
    let outer = [&padded(0x5c)[..], &inner.to_byte_array()].concat();
    sha256::Hash::hash(&outer).to_byte_array().to_vec()
}

/// RFC 4648.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    bytes
}

#[test]
fn the_published_vector_verifies_and_nothing_else_does() {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let (id, time) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
    let (body, signature) =
        (b"{\"test\": 2432232314}", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    assert!(verifies(secret, id, time, body, signature));
    assert!(verifies(secret, id, time, body, &format!("v1,AAAA {signature}")));
    assert!(!verifies(secret, id, "1614265331", body, signature));
    assert!(!verifies(secret, "msg_other", time, body, signature));
    assert!(!verifies(secret, id, time, b"{\"test\": 2432232315}", signature));
    assert!(!verifies(secret, id, time, body, &signature.replace("v1,", "v1a,")));
}
