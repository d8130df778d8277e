//! The file of a user's path: to keep elsewhere, to give to a tower, to check without a node.
//!
//! ```json
//! {
//!   "format": "tributary-batch-path", "version": 1,
//!   "root": "<txid>:<output>", "root_value_sat": 1, "root_script": "<hex>",
//!   "expiry_height": 1,
//!   "channel_value_sat": 1, "channel_script": "<hex>",
//!   "path": "<hex>"
//! }
//! ```
//!
//! Nothing in it is secret. What it cannot show is whether the root is on chain and unspent.

use bitcoin::{Amount, OutPoint, ScriptBuf, TxOut, Txid};
use channel_contracts::batch::Deadlines;
use channel_contracts::tree::path::PathEnds;
use channel_contracts::tree::{ExitCost, PathError, SignedPath};
use serde::{Deserialize, Serialize};

use crate::chain::virtual_confirmation::SignedLeaf;

const FORMAT: &str = "tributary-batch-path";
const VERSION: u32 = 1;

/// A path with what it must begin and end with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathFile {
    format: String,
    version: u32,
    root: OutPoint,
    root_value_sat: u64,
    root_script: ScriptBuf,
    expiry_height: u32,
    channel_value_sat: u64,
    channel_script: ScriptBuf,
    path: String,
}

/// What a file of a path that is right says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PathReport {
    /// Where the root must be on chain.
    pub root: OutPoint,
    /// What it must hold.
    pub root_value_sat: u64,
    /// Its script, in hexadecimal.
    pub root_script: String,
    /// From here on the hub can take back what is left.
    pub expiry_height: u32,
    /// By here the path must be published, or the channel rolled over.
    pub deadline_height: u32,
    /// The transactions, the one that spends the root first.
    pub txids: Vec<Txid>,
    /// The channel's funding output.
    pub funding: OutPoint,
    /// Its value.
    pub channel_value_sat: u64,
    /// What publishing takes with everything behind it, in vB.
    pub exit_vbytes: u64,
}

/// Why a file is not a path that can be published.
#[derive(Debug, thiserror::Error)]
pub enum PathFileError {
    /// It is no JSON of this form.
    #[error("not a path file: {0}; export it again with `tributary batch export`")]
    Json(#[from] serde_json::Error),
    /// It is of another kind or a later version.
    #[error(
        "file is {format:?} version {version}, this program reads {FORMAT:?} version {VERSION}"
    )]
    Format {
        /// What it says it is.
        format: String,
        /// Of which version.
        version: u32,
    },
    /// The path in it cannot be read.
    #[error("path does not decode: {0}; the file is damaged")]
    Encoding(String),
    /// What the file says about the path is not what the path is.
    #[error(
        "file names root {named} and expiry {expiry}, the path has {actual} and {actual_expiry}"
    )]
    Ends {
        /// The root named.
        named: OutPoint,
        /// The expiry named.
        expiry: u32,
        /// The root of the path.
        actual: OutPoint,
        /// Its expiry.
        actual_expiry: u32,
    },
    /// The path is wrong.
    #[error("path cannot be published: {0}")]
    Path(#[from] PathError),
}

impl PathFile {
    /// Makes the file of a leaf.
    pub fn new(leaf: &SignedLeaf) -> Self {
        let PathEnds { root, root_output, expiry, channel } = &leaf.ends;
        Self {
            format: FORMAT.into(),
            version: VERSION,
            root: *root,
            root_value_sat: root_output.value.to_sat(),
            root_script: root_output.script_pubkey.clone(),
            expiry_height: expiry.to_consensus_u32(),
            channel_value_sat: channel.value.to_sat(),
            channel_script: channel.script_pubkey.clone(),
            path: hex::encode(leaf.path.encode()),
        }
    }

    /// Makes the file of an encoded path and the outputs at its ends.
    ///
    /// # Errors
    ///
    /// If the path does not decode.
    pub fn of_encoded(
        path: &[u8],
        root_output: TxOut,
        channel: TxOut,
    ) -> Result<Self, PathFileError> {
        let decoded =
            SignedPath::decode(path).map_err(|error| PathFileError::Encoding(error.to_string()))?;
        let stated = decoded.stated_ends()?;
        Ok(Self {
            format: FORMAT.into(),
            version: VERSION,
            root: stated.root,
            root_value_sat: root_output.value.to_sat(),
            root_script: root_output.script_pubkey,
            expiry_height: stated.expiry.to_consensus_u32(),
            channel_value_sat: channel.value.to_sat(),
            channel_script: channel.script_pubkey,
            path: hex::encode(path),
        })
    }

    /// Reads a file's text.
    ///
    /// # Errors
    ///
    /// See [`PathFileError`].
    pub fn read(text: &str) -> Result<Self, PathFileError> {
        let file: Self = serde_json::from_str(text)?;
        if file.format != FORMAT || file.version != VERSION {
            return Err(PathFileError::Format { format: file.format, version: file.version });
        }
        Ok(file)
    }

    /// Writes the file's text.
    pub fn text(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("a path file has nothing JSON cannot write");
        text.push('\n');
        text
    }

    /// Checks every signature and amount, from the root to the channel.
    ///
    /// # Errors
    ///
    /// See [`PathFileError`].
    pub fn verify(&self) -> Result<PathReport, PathFileError> {
        let bytes =
            hex::decode(&self.path).map_err(|error| PathFileError::Encoding(error.to_string()))?;
        let path = SignedPath::decode(&bytes)
            .map_err(|error| PathFileError::Encoding(error.to_string()))?;
        let stated = path.stated_ends()?;
        let actual_expiry = stated.expiry.to_consensus_u32();
        if (stated.root, actual_expiry) != (self.root, self.expiry_height) {
            return Err(PathFileError::Ends {
                named: self.root,
                expiry: self.expiry_height,
                actual: stated.root,
                actual_expiry,
            });
        }
        let output = |value_sat, script_pubkey: &ScriptBuf| TxOut {
            value: Amount::from_sat(value_sat),
            script_pubkey: script_pubkey.clone(),
        };
        let verified = path.verify(&PathEnds {
            root_output: output(self.root_value_sat, &self.root_script),
            channel: output(self.channel_value_sat, &self.channel_script),
            ..stated.clone()
        })?;
        let deadlines = Deadlines::new(stated.expiry, verified.transactions.len()).ok();
        let txids = verified.transactions.iter().map(|level| level.transaction.compute_txid());
        Ok(PathReport {
            root: self.root,
            root_value_sat: self.root_value_sat,
            root_script: self.root_script.to_hex_string(),
            expiry_height: self.expiry_height,
            deadline_height: deadlines
                .map_or(0, |deadlines| deadlines.user_deadline().to_consensus_u32()),
            txids: txids.collect(),
            funding: verified.funding,
            channel_value_sat: self.channel_value_sat,
            exit_vbytes: ExitCost::of_path(&path.path).map_or(0, |cost| cost.total_vb()),
        })
    }
}
