//! Networks from files, in the formats of others.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Topology, cloth, gossip_store, lnd, sim_ln, snapshot};

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// What LND's `describegraph` prints.
    Lnd,
    /// Core Lightning's `gossip_store`, as it lies in a node's directory.
    GossipStore,
    /// A compressed gossip store: a snapshot as Core Lightning publishes with its tests.
    Snapshot,
    /// CLoTH's three CSV files; the path is the folder that holds them.
    Cloth,
    /// The network of a sim-ln `sim.json`.
    SimLn,
}

/// Where in a file something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A line, from 1.
    Line(usize),
    /// A byte, from 0.
    Byte(usize),
    /// The whole file.
    File,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}: "),
            Self::Byte(byte) => write!(f, "byte {byte}: "),
            Self::File => Ok(()),
        }
    }
}

/// What is wrong with the contents of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{detail}")]
pub struct Malformed {
    /// Where.
    pub place: Place,
    /// What, with the value.
    pub detail: String,
}

impl Malformed {
    pub(crate) fn line(line: usize, detail: impl Into<String>) -> Self {
        Self { place: Place::Line(line), detail: detail.into() }
    }

    pub(crate) fn json(error: &serde_json::Error) -> Self {
        // serde_json says the line at the end of its text; here it stands in front.
        let text = error.to_string();
        let detail = text.split(" at line ").next().unwrap_or(&text);
        Self::line(error.line(), detail)
    }
}

/// Why a file gives no network.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error("cannot read topology {path}: {source}")]
    Read {
        /// It.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what its format says.
    #[error("topology {path}: {problem}")]
    Malformed {
        /// It.
        path: String,
        /// What is wrong with it.
        problem: Malformed,
    },
}

/// Reads a network from a file or, for [`Format::Cloth`], a folder.
///
/// # Errors
///
/// [`ImportError`], which names file, line or byte, and value.
pub fn import(path: &Path, format: Format) -> Result<Topology, ImportError> {
    if format == Format::Cloth {
        return cloth::read_folder(path);
    }
    let name = path.display().to_string();
    let bytes = read(path)?;
    let topology = match format {
        Format::Lnd => lnd::read(&bytes),
        Format::GossipStore => gossip_store::read(&bytes),
        Format::SimLn => sim_ln::read(&bytes),
        Format::Snapshot | Format::Cloth => snapshot::read(&bytes)
            .map(Topology::from)
            .map_err(|error| Malformed { place: Place::File, detail: error.to_string() }),
    };
    topology.map_err(|problem| ImportError::Malformed { path: name, problem })
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ImportError> {
    std::fs::read(path)
        .map_err(|source| ImportError::Read { path: path.display().to_string(), source })
}
