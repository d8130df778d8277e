//! How a client finds a node on its own machine: address, certificate and token in a file.
//!
//! A running node writes [`CONNECTION_FILE`] into its data directory; the development
//! network keeps one such file for each of its nodes in `dev_registry`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{Readable, write_whole};

/// Name of the file in the data directory of a node that has served.
pub const CONNECTION_FILE: &str = "rpc.json";

/// Where a node answers and what opens it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// `host:port` of the gRPC server, as clients on this machine reach it.
    pub rpc: String,
    /// `host:port` of its REST door, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rest: Option<String>,
    /// Its certificate, PEM; an absolute path, or relative to the file's directory.
    pub tls_cert: PathBuf,
    /// Its token; an absolute path, or relative to the file's directory.
    pub token_file: PathBuf,
}

/// Why a connection file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// There is none.
    #[error("there is no {path}")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot use {path}: {source}; check that its directory is yours")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system says.
        source: io::Error,
    },
    /// It holds something else.
    #[error("{path} is no connection file: {source}; restart the node, which writes it anew")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the reader says.
        source: serde_json::Error,
    },
}

impl Connection {
    /// Reads a connection file.
    ///
    /// # Errors
    ///
    /// [`ConnectionError`] if there is none, it cannot be read, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, ConnectionError> {
        let bytes = fs::read(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                ConnectionError::Missing { path: path.to_owned() }
            }
            _ => ConnectionError::Io { path: path.to_owned(), source },
        })?;
        let read: Self = serde_json::from_slice(&bytes)
            .map_err(|source| ConnectionError::Malformed { path: path.to_owned(), source })?;
        let directory = path.parent().unwrap_or(Path::new("."));
        Ok(Self {
            tls_cert: directory.join(&read.tls_cert),
            token_file: directory.join(&read.token_file),
            rpc: read.rpc,
            rest: read.rest,
        })
    }

    /// Writes a connection file, for its owner alone. Holds no secret itself.
    ///
    /// # Errors
    ///
    /// [`ConnectionError::Io`] if it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ConnectionError> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| ConnectionError::Malformed { path: path.to_owned(), source })?;
        write_whole(path, format!("{text}\n").as_bytes(), Readable::ByOwner)
            .map_err(|source| ConnectionError::Io { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_written_and_relative_paths_follow_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CONNECTION_FILE);
        let error = Connection::read(&path).unwrap_err();
        assert!(matches!(error, ConnectionError::Missing { .. }), "{error}");
        let written = Connection {
            rpc: "127.0.0.1:9736".to_owned(),
            rest: Some("127.0.0.1:9737".to_owned()),
            tls_cert: PathBuf::from("tls.cert"),
            token_file: PathBuf::from("/elsewhere/token"),
        };
        written.write(&path).unwrap();
        let read = Connection::read(&path).unwrap();
        assert_eq!((read.rpc, read.rest), (written.rpc, written.rest));
        assert_eq!(read.tls_cert, directory.path().join("tls.cert"));
        assert_eq!(read.token_file, written.token_file);
        fs::write(&path, "{}").unwrap();
        let error = Connection::read(&path).unwrap_err();
        assert!(matches!(error, ConnectionError::Malformed { .. }), "{error}");
    }
}
