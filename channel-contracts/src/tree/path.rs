//! One user's path: the transactions from the root output to its channel, and their encoding.
//!
//! A [`Path`] holds only what cannot be computed: the internal key of each node, what stands
//! beside the path, and where it begins. Each level's own child gets what is left of the input
//! after its siblings, so values conserve by construction and a wrong value anywhere ends in a
//! wrong channel. A [`SignedPath`] adds one signature for each level; it is what a user stores,
//! exports and gives to towers. It holds no secret.
//!
//! A signed path proves itself against the root output and the channel; that the user's key is
//! in every aggregate was checked from the cosigners' keys before the user signed
//! ([`proposal`](super::proposal)), and a signature by those aggregates could not exist
//! otherwise.
//!
//! ```text
//! version 1 (1) │ E (4) │ S (32) │ root txid (32) vout (2) │ root value (BigSize)
//! levels (1) │ per level: internal key (32) │ own index (1) │ siblings (1) │ each: value
//!            (BigSize) witness version (1) program (32)
//! channel script: witness version (1) program (32) │ signatures (64 each), if signed
//! ```
//!
//! Source: BATCHES §2 and §3.3.

use bitcoin::{Amount, OutPoint, ScriptBuf, Transaction, TxOut, XOnlyPublicKey};

use super::shape::{LEVELS_MAX, RADIX_MAX};
use super::transactions::tree_transaction;
use crate::encoding::{
    DecodeError, Reader, push_big_size, push_outpoint, push_output, push_script_pubkey, within,
};
use crate::musig::{AggregateError, SchnorrSignature};
use crate::script::batch_node::key_path_message;
use crate::script::{BatchNode, ExpiryLeaf};

/// Version of the encoding of a path.
pub const PATH_VERSION: u8 = 1;

/// Longest encoding of a path: [`LEVELS_MAX`] levels with 15 siblings each.
pub const PATH_LEN_MAX: usize =
    1 + 4 + 32 + 34 + 9 + 1 + LEVELS_MAX * (32 + 2 + (RADIX_MAX as usize - 1) * 42 + 64) + 33;

/// The transactions above one channel, as little of them as it takes to rebuild them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The leaf of every node on it.
    pub leaf: ExpiryLeaf,
    /// Where the root output stands.
    pub root: OutPoint,
    /// The value of the root output.
    pub root_value: Amount,
    /// One for each transaction, from the root down: 1 to [`LEVELS_MAX`].
    pub levels: Vec<PathLevel>,
    /// The script of the channel's funding output.
    pub channel_script: ScriptBuf,
}

/// One transaction of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathLevel {
    /// The MuSig2 key of the node output it spends.
    pub internal_key: XOnlyPublicKey,
    /// Index of the output that leads on to the channel.
    pub own: u8,
    /// The other outputs but the anchor, by ascending index: at most 15.
    pub siblings: Vec<TxOut>,
}

/// One transaction of a path, rebuilt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTransaction {
    /// The node output it spends.
    pub node: BatchNode,
    /// The output it spends.
    pub spent: TxOut,
    /// The transaction. Its witness is there if the path is signed and verified.
    pub transaction: Transaction,
}

impl PathTransaction {
    /// Returns what the cosigners of the node sign.
    pub fn message(&self) -> [u8; 32] {
        key_path_message(&self.transaction, 0, std::slice::from_ref(&self.spent))
    }
}

/// A path with the final signature of each transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPath {
    /// The path.
    pub path: Path,
    /// One signature for each level, from the root down.
    pub signatures: Vec<SchnorrSignature>,
}

/// A path that can be published: every transaction complete and valid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifiedPath {
    /// The transactions, from the root down. The last one funds the channel.
    pub transactions: Vec<PathTransaction>,
    /// Where the root output stands.
    pub root: OutPoint,
    /// Where the channel's funding output stands.
    pub funding: OutPoint,
}

/// Why a path does not lead where it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It has no transaction, or too many.
    #[error("path has {levels} levels, allowed is 1 to {max}", max = LEVELS_MAX)]
    Levels {
        /// How many it has.
        levels: usize,
    },
    /// A level says that its own output stands behind the last.
    #[error("own output {own} of level {level} is beyond its {outputs} outputs")]
    OwnIndex {
        /// The level.
        level: usize,
        /// The index it names.
        own: u8,
        /// How many outputs it has besides the anchor.
        outputs: usize,
    },
    /// A level has more outputs than a tree transaction may have.
    #[error("level {level} has {outputs} outputs, at most {max} are allowed", max = RADIX_MAX)]
    TooWide {
        /// The level.
        level: usize,
        /// How many outputs it has besides the anchor.
        outputs: usize,
    },
    /// The siblings take everything or more.
    #[error("siblings of level {level} leave nothing of {input}")]
    NothingLeft {
        /// The level.
        level: usize,
        /// What the level spends.
        input: Amount,
    },
    /// Keys cannot be aggregated.
    #[error(transparent)]
    Aggregate(#[from] AggregateError),
    /// The root output is another one.
    #[error("path begins at {actual:?}, the batch transaction has {expected:?}")]
    WrongRoot {
        /// The output the path spends.
        actual: Box<(OutPoint, TxOut)>,
        /// The output that is on chain or was announced.
        expected: Box<(OutPoint, TxOut)>,
    },
    /// The expiry is another one.
    #[error("path expires at {actual}, promised is {expected}")]
    WrongExpiry {
        /// Its expiry.
        actual: bitcoin::absolute::Height,
        /// The expiry agreed on.
        expected: bitcoin::absolute::Height,
    },
    /// The last output is not the channel's.
    #[error("path ends in {actual:?}, the channel has {expected:?}")]
    WrongChannel {
        /// The output it ends in.
        actual: Box<TxOut>,
        /// The funding output of the channel.
        expected: Box<TxOut>,
    },
    /// There is not one signature for each transaction.
    #[error("path has {levels} levels and {signatures} signatures")]
    SignatureCount {
        /// How many transactions.
        levels: usize,
        /// How many signatures.
        signatures: usize,
    },
    /// A signature is wrong.
    #[error("signature of level {level} is not by its cosigners; the path cannot be published")]
    WrongSignature {
        /// The level.
        level: usize,
    },
}

/// What a path must begin and end with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathEnds {
    /// Where the root output stands.
    pub root: OutPoint,
    /// The root output, from the batch transaction.
    pub root_output: TxOut,
    /// The expiry promised.
    pub expiry: bitcoin::absolute::Height,
    /// The channel's funding output.
    pub channel: TxOut,
}

impl Path {
    /// Rebuilds the transactions, without witnesses, and the output the last one ends in.
    ///
    /// # Errors
    ///
    /// [`PathError`] if the levels do not fit together.
    pub fn transactions(&self) -> Result<(Vec<PathTransaction>, TxOut), PathError> {
        if !(1..=LEVELS_MAX).contains(&self.levels.len()) {
            return Err(PathError::Levels { levels: self.levels.len() });
        }
        let node_of = |level: &PathLevel| BatchNode::new(level.internal_key, self.leaf);
        let mut place = self.root;
        let mut spent = node_of(&self.levels[0])?.output(self.root_value);
        let mut transactions = Vec::with_capacity(self.levels.len());
        for (index, level) in self.levels.iter().enumerate() {
            let script_pubkey = match self.levels.get(index + 1) {
                Some(next) => node_of(next)?.script_pubkey(),
                None => self.channel_script.clone(),
            };
            let own = TxOut { value: level.own_value(index, spent.value)?, script_pubkey };
            let mut outputs = level.siblings.clone();
            outputs.insert(usize::from(level.own), own.clone());
            let transaction = tree_transaction(place, outputs);
            place = OutPoint::new(transaction.compute_txid(), u32::from(level.own));
            let node = node_of(level)?;
            transactions.push(PathTransaction { node, spent, transaction });
            spent = own;
        }
        Ok((transactions, spent))
    }

    /// Rebuilds the transactions and checks where they begin and end.
    ///
    /// # Errors
    ///
    /// [`PathError`] naming the first difference.
    pub fn check_ends(&self, ends: &PathEnds) -> Result<Vec<PathTransaction>, PathError> {
        if self.leaf.expiry != ends.expiry {
            let actual = self.leaf.expiry;
            return Err(PathError::WrongExpiry { actual, expected: ends.expiry });
        }
        let (transactions, channel) = self.transactions()?;
        let actual = (self.root, transactions[0].spent.clone());
        let expected = (ends.root, ends.root_output.clone());
        if actual != expected {
            let (actual, expected) = (Box::new(actual), Box::new(expected));
            return Err(PathError::WrongRoot { actual, expected });
        }
        if channel != ends.channel {
            let (actual, expected) = (Box::new(channel), Box::new(ends.channel.clone()));
            return Err(PathError::WrongChannel { actual, expected });
        }
        Ok(transactions)
    }

    /// Encodes it, without signatures.
    ///
    /// # Panics
    ///
    /// If an output of it is neither P2WSH nor P2TR; no tree is built with one.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![PATH_VERSION];
        bytes.extend(self.leaf.expiry.to_consensus_u32().to_be_bytes());
        bytes.extend(self.leaf.sweep_key.serialize());
        push_outpoint(&mut bytes, self.root);
        push_big_size(&mut bytes, self.root_value.to_sat());
        bytes.push(u8::try_from(self.levels.len()).expect("a path has at most 11 levels"));
        for level in &self.levels {
            bytes.extend(level.internal_key.serialize());
            bytes.push(level.own);
            bytes.push(u8::try_from(level.siblings.len()).expect("a node has at most 16 children"));
            level.siblings.iter().for_each(|sibling| push_output(&mut bytes, sibling));
        }
        push_script_pubkey(&mut bytes, &self.channel_script);
        bytes
    }

    /// Decodes an unsigned path.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(checked_length(bytes)?);
        let path = Self::read(&mut reader)?;
        reader.finish("path")?;
        Ok(path)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = reader.u8("path version")?;
        within("path version", version.into(), PATH_VERSION.into(), PATH_VERSION.into())?;
        let leaf = ExpiryLeaf {
            expiry: reader.height("expiry")?,
            sweep_key: reader.x_only_key("sweep key")?,
        };
        let root = reader.outpoint("root outpoint")?;
        let root_value = reader.amount("root value")?;
        let levels = reader.u8("levels")?;
        within("levels", levels.into(), 1, LEVELS_MAX as u64)?;
        let levels = (0..levels).map(|_| PathLevel::read(reader)).collect::<Result<_, _>>()?;
        let channel_script = reader.script_pubkey("channel script")?;
        Ok(Self { leaf, root, root_value, levels, channel_script })
    }
}

impl PathLevel {
    /// Returns what is left of `input` for the own output.
    fn own_value(&self, level: usize, input: Amount) -> Result<Amount, PathError> {
        let outputs = self.siblings.len() + 1;
        if outputs > usize::from(RADIX_MAX) {
            return Err(PathError::TooWide { level, outputs });
        }
        if usize::from(self.own) >= outputs {
            return Err(PathError::OwnIndex { level, own: self.own, outputs });
        }
        let left = self
            .siblings
            .iter()
            .try_fold(input, |left, sibling| left.checked_sub(sibling.value))
            .filter(|left| *left > Amount::ZERO);
        left.ok_or(PathError::NothingLeft { level, input })
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let internal_key = reader.x_only_key("internal key")?;
        let own = reader.u8("own index")?;
        let count = reader.u8("sibling count")?;
        within("sibling count", count.into(), 0, u64::from(RADIX_MAX) - 1)?;
        within("own index", own.into(), 0, count.into())?;
        let siblings = (0..count).map(|_| reader.output("sibling")).collect::<Result<_, _>>()?;
        Ok(Self { internal_key, own, siblings })
    }
}

impl SignedPath {
    /// Checks everything that the path itself can prove, and completes its transactions.
    ///
    /// # Errors
    ///
    /// [`PathError`] naming the first thing that is wrong.
    pub fn verify(&self, ends: &PathEnds) -> Result<VerifiedPath, PathError> {
        let mut transactions = self.path.check_ends(ends)?;
        let (levels, signatures) = (transactions.len(), self.signatures.len());
        if levels != signatures {
            return Err(PathError::SignatureCount { levels, signatures });
        }
        for (level, (step, signature)) in transactions.iter_mut().zip(&self.signatures).enumerate()
        {
            if !signature.is_valid(&step.message(), &step.node.output_key()) {
                return Err(PathError::WrongSignature { level });
            }
            step.transaction.input[0].witness = step.node.key_witness(signature);
        }
        let last = transactions.last().expect("check_ends refuses an empty path");
        let own = self.path.levels.last().map_or(0, |level| u32::from(level.own));
        let funding = OutPoint::new(last.transaction.compute_txid(), own);
        Ok(VerifiedPath { transactions, root: ends.root, funding })
    }

    /// Returns what the path says of its own ends, for a check against the chain by a reader
    /// who has nothing but the file.
    ///
    /// # Errors
    ///
    /// [`PathError`] if the levels do not fit together.
    pub fn stated_ends(&self) -> Result<PathEnds, PathError> {
        let (transactions, channel) = self.path.transactions()?;
        Ok(PathEnds {
            root: self.path.root,
            root_output: transactions[0].spent.clone(),
            expiry: self.path.leaf.expiry,
            channel,
        })
    }

    /// Encodes it: about 1 kB for a batch of 256.
    ///
    /// # Panics
    ///
    /// If an output of it is neither P2WSH nor P2TR; no tree is built with one.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.path.encode();
        self.signatures.iter().for_each(|signature| bytes.extend(signature.0));
        bytes
    }

    /// Decodes a signed path.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] naming the field that is not as it must be.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(checked_length(bytes)?);
        let path = Path::read(&mut reader)?;
        let signature = |_: &PathLevel| reader.array("signature").map(SchnorrSignature);
        let signatures = path.levels.iter().map(signature).collect::<Result<_, _>>()?;
        reader.finish("signed path")?;
        Ok(Self { path, signatures })
    }
}

impl VerifiedPath {
    /// Returns the transaction that funds the channel.
    pub fn leaf_transaction(&self) -> &Transaction {
        &self.transactions.last().expect("a verified path has a transaction").transaction
    }
}

fn checked_length(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    if bytes.len() > PATH_LEN_MAX {
        let (length, max) = (bytes.len(), PATH_LEN_MAX);
        return Err(DecodeError::TooLong { field: "path", length, max });
    }
    Ok(bytes)
}
