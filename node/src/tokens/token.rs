//! The text of a token: an id, restrictions, and one HMAC that covers them all in order.
//!
//! ```text
//! text   = "trbt1_" base64url( id[16] restriction* tag[32] )      without padding
//! restriction = kind[1] length[2, big endian] body[length]
//!
//! tag 0  = HMAC-SHA256( the node's secret, "tributary token 1" id )
//! tag i  = HMAC-SHA256( tag i-1, restriction i as it is written )
//! ```
//!
//! The text carries the last tag alone, so a restriction is added without the secret and taken
//! off only by whoever guesses an earlier tag. Each link of the chain has a public name, a digest
//! of its tag: what is spent under a budget is counted by the name of the link that set it, and a
//! narrowed token is revoked by the name of its last link.
//!
//! Source: Birgisson et al., "Macaroons: Cookies with Contextual Caveats" (2014), section 2.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::restriction::{Restriction, RestrictionError};

/// How every token begins; the number is that of the format.
pub const PREFIX: &str = "trbt1_";
/// Longest token, in bytes before base64: it travels in a header with every call.
const LEN_MAX: usize = 4_096;
/// Most restrictions of one token.
const RESTRICTIONS_MAX: usize = 64;
const TAG_LEN: usize = 32;
const ID_LEN: usize = 16;

/// Names a token that the node baked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub [u8; ID_LEN]);

/// Names one link of a chain, and with it every token that has it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub [u8; ID_LEN]);

/// Why a text is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTokenError {
    /// Another beginning.
    #[error("the text does not begin with {PREFIX}")]
    Prefix,
    /// Not base64url.
    #[error("the text is not base64url")]
    Base64,
    /// Cut short, or too long.
    #[error("the token has {bytes} bytes or is cut short, at most {LEN_MAX} are allowed")]
    Length {
        /// How many there are.
        bytes: usize,
    },
    /// More restrictions than are taken.
    #[error("the token has more than {RESTRICTIONS_MAX} restrictions")]
    TooMany,
    /// A restriction that this program does not understand.
    #[error(transparent)]
    Restriction(#[from] RestrictionError),
}

/// A token. Its text is a secret: whoever has it may do what it allows.
#[derive(Clone)]
pub struct Token {
    id: TokenId,
    restrictions: Vec<Restriction>,
    tag: Zeroizing<[u8; TAG_LEN]>,
}

impl Token {
    /// Bakes a token.
    ///
    /// # Errors
    ///
    /// [`ParseTokenError`] if it would be too long.
    pub fn bake(
        secret: &[u8; 32],
        id: TokenId,
        restrictions: Vec<Restriction>,
    ) -> Result<Self, ParseTokenError> {
        let mut token = Self { id, restrictions: Vec::new(), tag: first_tag(secret, id) };
        for restriction in restrictions {
            token = token.narrowed(restriction)?;
        }
        Ok(token)
    }

    /// This token with one more restriction. Needs no secret.
    ///
    /// # Errors
    ///
    /// [`ParseTokenError`] if it would be too long.
    pub fn narrowed(mut self, restriction: Restriction) -> Result<Self, ParseTokenError> {
        if self.restrictions.len() == RESTRICTIONS_MAX {
            return Err(ParseTokenError::TooMany);
        }
        self.tag = next_tag(&self.tag, &written(&restriction));
        self.restrictions.push(restriction);
        let bytes = self.bytes().len();
        if bytes > LEN_MAX {
            return Err(ParseTokenError::Length { bytes });
        }
        Ok(self)
    }

    /// Reads a token. Whether this node baked it, [`Token::links`] tells.
    ///
    /// # Errors
    ///
    /// See [`ParseTokenError`].
    pub fn parse(text: &str) -> Result<Self, ParseTokenError> {
        let text = text.trim().strip_prefix(PREFIX).ok_or(ParseTokenError::Prefix)?;
        if text.len() > LEN_MAX.div_ceil(3) * 4 {
            return Err(ParseTokenError::Length { bytes: text.len() / 4 * 3 });
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ParseTokenError::Base64)?;
        let bytes = Zeroizing::new(bytes);
        let short = || ParseTokenError::Length { bytes: bytes.len() };
        if bytes.len() > LEN_MAX {
            return Err(short());
        }
        let (id, rest) = bytes.split_first_chunk::<ID_LEN>().ok_or_else(short)?;
        let (mut middle, tag) = rest.split_last_chunk::<TAG_LEN>().ok_or_else(short)?;
        let mut restrictions = Vec::new();
        while let Some((kind, rest)) = middle.split_first() {
            if restrictions.len() == RESTRICTIONS_MAX {
                return Err(ParseTokenError::TooMany);
            }
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (body, rest) = rest.split_at_checked(length).ok_or_else(short)?;
            restrictions.push(Restriction::decode(*kind, body)?);
            middle = rest;
        }
        Ok(Self { id: TokenId(*id), restrictions, tag: Zeroizing::new(*tag) })
    }

    /// Returns the token as text. Not for logs.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*self.bytes())))
    }

    /// The id of the token it was narrowed from, or its own.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What it is restricted to, in the order in which it was.
    pub fn restrictions(&self) -> &[Restriction] {
        &self.restrictions
    }

    /// The name of the last link: what a narrowed token is revoked by.
    pub fn last_link(&self) -> LinkId {
        link_of(&self.tag)
    }

    /// The names of all links, first that of the id, then one for each restriction; `None` if the
    /// chain was not begun with `secret`, or was changed since.
    pub fn links(&self, secret: &[u8; 32]) -> Option<Vec<LinkId>> {
        let mut tag = first_tag(secret, self.id);
        let mut links = vec![link_of(&tag)];
        for restriction in &self.restrictions {
            tag = next_tag(&tag, &written(restriction));
            links.push(link_of(&tag));
        }
        bool::from(tag.ct_eq(&*self.tag)).then_some(links)
    }

    fn bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(self.id.0.to_vec());
        for restriction in &self.restrictions {
            bytes.extend_from_slice(&written(restriction));
        }
        bytes.extend_from_slice(&*self.tag);
        bytes
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("id", &self.id).field("tag", &"[redacted]").finish()
    }
}

/// A restriction as it stands in the token and under the HMAC.
fn written(restriction: &Restriction) -> Vec<u8> {
    let (kind, body) = restriction.encode();
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

fn first_tag(secret: &[u8; 32], id: TokenId) -> Zeroizing<[u8; TAG_LEN]> {
    hmac(secret, &[b"tributary token 1", &id.0])
}

fn next_tag(tag: &[u8; TAG_LEN], restriction: &[u8]) -> Zeroizing<[u8; TAG_LEN]> {
    hmac(tag, &[restriction])
}

fn link_of(tag: &[u8; TAG_LEN]) -> LinkId {
    let digest = hmac(tag, &[b"tributary token link"]);
    let mut id = [0; ID_LEN];
    id.copy_from_slice(&digest[..ID_LEN]);
    LinkId(id)
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; TAG_LEN]> {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    for part in parts {
        engine.input(part);
    }
    Zeroizing::new(Hmac::from_engine(engine).to_byte_array())
}

macro_rules! shown_as_hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

shown_as_hex!(TokenId);
shown_as_hex!(LinkId);
