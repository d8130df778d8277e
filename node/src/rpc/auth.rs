//! Who calls: the node's owner, or the holder of a token that was baked.
//!
//! The owner's token is 32 random bytes, written as hex to `admin.token`. A client that can read
//! the file may do everything. Tokens with limits are those of `crate::tokens`. Handlers ask
//! [`Caller`], never the header; whether a method may be called at all, `gate` has asked before.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use subtle::ConstantTimeEq;
use tonic::Request;
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use super::files::{Readable, bits_of_others, write_whole};
use super::status::{Reason, Refusal};
use crate::environment::Entropy;
use crate::tokens::{Holder, PREFIX, Purse, Token, Tokens};

/// How often a stream looks whether its token has expired.
const EXPIRY_LOOK: Duration = Duration::from_millis(500);

/// Name of the token's file in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// Length of the token in bytes; its text is twice as long.
const TOKEN_LEN: usize = 32;

/// Why the token cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("cannot use the token file {path}: {source}; check that its directory is yours")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "the token file {path} holds no token of {TOKEN_LEN} bytes as hex; remove it and restart the node, which makes a new one"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner have rights on the file.
    #[error(
        "the token file {path} is open to other users (mode bits {bits:03o}); run chmod 600 on it, and remove it first if others may have read it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Permission bits of group and others.
        bits: u32,
    },
}

/// The token that opens every method.
#[derive(Clone)]
pub struct AdminToken(Zeroizing<[u8; TOKEN_LEN]>);

impl AdminToken {
    /// Reads the token from `path`, or makes one there, readable by the owner alone.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the file cannot be used, holds no token, or is open to others.
    pub fn load_or_create(path: &Path, entropy: &dyn Entropy) -> Result<Self, TokenError> {
        match bits_of_others(path) {
            Ok(0) => Self::load(path),
            Ok(bits) => Err(TokenError::Exposed { path: path.to_owned(), bits }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
                entropy.fill(&mut *bytes);
                let token = Self(bytes);
                let line = Zeroizing::new(format!("{}\n", *token.reveal()));
                write_whole(path, line.as_bytes(), Readable::ByOwner)
                    .map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
                Ok(token)
            }
            Err(source) => Err(TokenError::Io { path: path.to_owned(), source }),
        }
    }

    /// Reads the token from `path`, as a client does.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the file cannot be read or holds no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
        Self::parse(text.trim()).ok_or_else(|| TokenError::Malformed { path: path.to_owned() })
    }

    /// Returns the token as lower-case hex. Not for logs.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(*self.0))
    }

    /// Reads the text of a token from `path`, the owner's or one with limits, as a client does.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if the file cannot be read or holds neither.
    pub fn read_any(path: &Path) -> Result<Zeroizing<String>, TokenError> {
        let text = fs::read_to_string(path)
            .map(Zeroizing::new)
            .map_err(|source| TokenError::Io { path: path.to_owned(), source })?;
        match Token::parse(text.trim()) {
            Ok(token) => Ok(token.reveal()),
            Err(_) => Ok(Self::load(path)?.reveal()),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; TOKEN_LEN]);
        hex::decode_to_slice(text, &mut *bytes).ok()?;
        Some(Self(bytes))
    }

    /// Whether both are the same, in a time that does not tell where they differ.
    fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken([redacted])")
    }
}

/// Who made a call; an extension of every request that was let in.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The holder of the admin token: every method, no limit.
    Admin,
    /// The holder of a baked token, or of one narrowed from it.
    Token(Arc<Holder>),
}

impl Caller {
    /// Who made `request`.
    ///
    /// # Errors
    ///
    /// [`Reason::Internal`] if it did not come through the gate: nobody is let in by mistake.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Refusal::new(Reason::Internal, "the call did not come by the gate"))
    }

    /// What bounds its spending, if anything does.
    pub(super) fn purse(&self) -> Option<Purse> {
        match self {
            Self::Admin => None,
            Self::Token(holder) => holder.purse().cloned(),
        }
    }

    /// Whether nothing at all bounds it.
    pub(super) fn is_unrestricted(&self) -> bool {
        match self {
            Self::Admin => true,
            Self::Token(holder) => holder.is_unrestricted(),
        }
    }
}

/// Knows callers by their tokens.
#[derive(Clone)]
pub struct Authenticator {
    admin: Arc<AdminToken>,
    tokens: Arc<Tokens>,
}

impl Authenticator {
    /// Knows the holder of `admin`, and of what `tokens` has baked.
    pub fn new(admin: AdminToken, tokens: Arc<Tokens>) -> Self {
        Self { admin: Arc::new(admin), tokens }
    }

    /// Returns who calls with `metadata` from `source_ip`.
    ///
    /// # Errors
    ///
    /// [`Reason::TokenMissing`], [`Reason::TokenInvalid`], or what a [`TokenRefusal`] says.
    ///
    /// [`TokenRefusal`]: crate::tokens::TokenRefusal
    pub fn check(
        &self,
        metadata: &MetadataMap,
        source_ip: Option<IpAddr>,
    ) -> Result<Caller, Refusal> {
        self.known(metadata, source_ip).inspect_err(|refusal| {
            let from = source_ip.map(|ip| format!(", from {ip}")).unwrap_or_default();
            self.tokens.note_refused(&format!("{refusal}{from}"));
        })
    }

    fn known(&self, metadata: &MetadataMap, source_ip: Option<IpAddr>) -> Result<Caller, Refusal> {
        let header = metadata
            .get("authorization")
            .ok_or_else(|| Refusal::new(Reason::TokenMissing, "the call carries no token"))?;
        let text = header
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, text)| text.trim())
            .unwrap_or_default();
        if text.starts_with(PREFIX) {
            let holder = self.tokens.check(text, source_ip)?;
            return Ok(Caller::Token(Arc::new(holder)));
        }
        match AdminToken::parse(text) {
            Some(token) if self.admin.matches(&token) => Ok(Caller::Admin),
            _ => Err(Refusal::new(Reason::TokenInvalid, "the token is not this node's")),
        }
    }

    /// Resolves when the token of `caller` is not good any more.
    pub(super) async fn over(&self, caller: &Caller) -> Refusal {
        let Caller::Token(holder) = caller else {
            return std::future::pending().await;
        };
        let mut revocations = self.tokens.revocations();
        let mut look = tokio::time::interval(EXPIRY_LOOK);
        let expires = holder.expires().is_some();
        loop {
            if let Some(over) = self.tokens.is_over(holder) {
                return over.into();
            }
            tokio::select! {
                biased;
                changed = revocations.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                _ = look.tick(), if expires => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::environment::OsEntropy;

    fn called_with(header: Option<&str>, guard: &Authenticator) -> Result<(), Reason> {
        let mut metadata = MetadataMap::new();
        if let Some(header) = header {
            metadata.insert("authorization", header.parse().unwrap());
        }
        let caller = guard.check(&metadata, None).map_err(|refusal| refusal.reason())?;
        assert!(matches!(caller, Caller::Admin));
        Ok(())
    }

    #[test]
    fn only_the_whole_token_is_let_in() {
        let token = AdminToken(Zeroizing::new([0xa5; TOKEN_LEN]));
        let text = token.reveal();
        let guard = Authenticator::new(token, crate::rpc::testing::tokens());
        assert_eq!(called_with(Some(&format!("Bearer {}", *text)), &guard), Ok(()));
        assert_eq!(called_with(Some(&format!("bearer  {}", text.to_uppercase())), &guard), Ok(()));
        assert_eq!(called_with(None, &guard), Err(Reason::TokenMissing));
        for wrong in [
            String::new(),
            "Bearer ".to_owned(),
            text.to_string(),
            format!("Basic {}", *text),
            format!("Bearer {}", &text[2..]),
            format!("Bearer {}00", *text),
        ] {
            assert_eq!(called_with(Some(&wrong), &guard), Err(Reason::TokenInvalid), "{wrong:?}");
        }
        // Each single bit counts.
        for bit in 0..TOKEN_LEN * 8 {
            let mut bytes = [0xa5; TOKEN_LEN];
            bytes[bit / 8] ^= 1 << (bit % 8);
            let wrong = format!("Bearer {}", hex::encode(bytes));
            assert_eq!(called_with(Some(&wrong), &guard), Err(Reason::TokenInvalid));
        }
    }

    #[test]
    fn the_token_is_made_once_for_the_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        let made = AdminToken::load_or_create(&path, &OsEntropy).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = AdminToken::load_or_create(&path, &OsEntropy).unwrap();
        assert!(made.matches(&again));
        assert!(made.matches(&AdminToken::load(&path).unwrap()));
        let other = directory.path().join("other");
        let other = AdminToken::load_or_create(&other, &OsEntropy).unwrap();
        assert!(!made.matches(&other));
        assert_eq!(format!("{made:?}"), "AdminToken([redacted])");
    }

    #[test]
    fn a_bad_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(TOKEN_FILE);
        AdminToken::load_or_create(&path, &OsEntropy).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = AdminToken::load_or_create(&path, &OsEntropy).unwrap_err();
        assert!(matches!(error, TokenError::Exposed { bits: 0o044, .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "not a token").unwrap();
        let error = AdminToken::load_or_create(&path, &OsEntropy).unwrap_err();
        assert!(matches!(error, TokenError::Malformed { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "not a token");
    }
}
