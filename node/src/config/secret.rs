//! References to secrets: the configuration says where a secret is, never the secret itself.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Where a secret is: `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The first line of a file.
    File(PathBuf),
}

/// The text is not a reference. It is not repeated: it may be the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a secret is given by reference: env:NAME or file:PATH, never as text")]
pub struct SecretRefError;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is absent or not text.
    #[error("environment variable {name} is not set; set it, or refer to a file: with file:PATH")]
    Unset {
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read the secret in {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is nothing there.
    #[error("the secret at {reference} is empty")]
    Empty {
        /// The reference.
        reference: String,
    },
}

impl SecretRef {
    /// Reads the secret. Call it where the secret is used, and drop it soon.
    ///
    /// # Errors
    ///
    /// [`SecretError`] names the reference.
    pub fn resolve(&self) -> Result<Zeroizing<String>, SecretError> {
        let text = match self {
            SecretRef::Env(name) => Zeroizing::new(
                std::env::var(name).map_err(|_| SecretError::Unset { name: name.clone() })?,
            ),
            SecretRef::File(path) => Zeroizing::new(
                fs::read_to_string(path)
                    .map_err(|source| SecretError::Unreadable { path: path.clone(), source })?,
            ),
        };
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            return Err(SecretError::Empty { reference: self.to_string() });
        }
        Ok(Zeroizing::new(line.to_owned()))
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Env(name) => write!(f, "env:{name}"),
            SecretRef::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(SecretRef::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(SecretRef::File(path.into())),
            _ => Err(SecretRefError),
        }
    }
}

impl TryFrom<String> for SecretRef {
    type Error = SecretRefError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // The text may be a secret put here by mistake.
        Zeroizing::new(text).parse()
    }
}

impl From<SecretRef> for String {
    fn from(reference: SecretRef) -> Self {
        reference.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_gives_its_first_line_at_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let reference: SecretRef = format!("file:{}", path.display()).parse().unwrap();
        assert!(matches!(reference.resolve(), Err(SecretError::Unreadable { .. })));
        fs::write(&path, "hunter2\nsecond line\n").unwrap();
        assert_eq!(*reference.resolve().unwrap(), "hunter2");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(reference.resolve(), Err(SecretError::Empty { .. })));
    }

    #[test]
    fn environment_is_read_by_name() {
        let reference: SecretRef = "env:CARGO_PKG_NAME".parse().unwrap();
        assert_eq!(*reference.resolve().unwrap(), "node");
        let unset = SecretRef::Env("TRIBUTARY_NOT_SET_ANYWHERE".into());
        let error = unset.resolve().unwrap_err();
        assert!(error.to_string().contains("TRIBUTARY_NOT_SET_ANYWHERE"));
    }

    #[test]
    fn plain_text_is_refused_and_not_repeated() {
        for text in ["hunter2", "env:", "file:", "", "http:hunter2"] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
