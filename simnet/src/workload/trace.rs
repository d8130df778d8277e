//! Payments as a CSV file says: `at_s`, `from`, `to`, `amount_msat`, by any order of columns.
//!
//! Nodes are named by their numbers, or by their names where the topology's source has names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{Intent, micros};
use crate::scenario::{Arrivals, Hold, Stream};
use crate::topology::{Node, Topology};

/// Why a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("cannot read trace {path}: {source}")]
    Read {
        /// It.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A line is wrong.
    #[error("trace {path}: line {line}: {detail}")]
    Malformed {
        /// It.
        path: String,
        /// From 1.
        line: usize,
        /// What is wrong, with the value.
        detail: String,
    },
}

pub(super) fn path(stream: &Stream) -> Option<&PathBuf> {
    match &stream.arrivals {
        Arrivals::Trace { path } => Some(path),
        _ => None,
    }
}

/// What a trace says, by time.
#[derive(Debug)]
pub(super) struct Trace(std::vec::IntoIter<Intent>);

impl Iterator for Trace {
    type Item = Intent;

    fn next(&mut self) -> Option<Intent> {
        self.0.next()
    }
}

impl Trace {
    pub fn read(path: &Path, topology: &Topology, stream: &Stream) -> Result<Self, TraceError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|source| TraceError::Read { path: name.clone(), source })?;
        Self::parse(&text, topology, stream).map_err(|(line, detail)| TraceError::Malformed {
            path: name,
            line,
            detail,
        })
    }

    pub(super) fn parse(
        text: &str,
        topology: &Topology,
        stream: &Stream,
    ) -> Result<Self, (usize, String)> {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let (_, header) = lines.next().ok_or((1, "no header".to_owned()))?;
        let words: Vec<&str> = header.split(',').map(str::trim).collect();
        let column = |word: &str| {
            let place = words.iter().position(|other| *other == word);
            place.ok_or_else(|| (1, format!("no column `{word}`")))
        };
        let columns = [column("at_s")?, column("from")?, column("to")?, column("amount_msat")?];
        let places: HashMap<&str, Node> =
            topology.names.iter().map(String::as_str).zip(0..).collect();
        let node = |word: &str| {
            let number = word.parse().ok().filter(|node| *node < topology.network.nodes);
            places.get(word).copied().or(number).ok_or_else(|| format!("no node `{word}`"))
        };
        let hold_us = match stream.hold {
            Hold::Fixed { ms } | Hold::Exponential { mean_ms: ms } => micros(ms / 1e3),
            Hold::None => 0,
        };
        let read = |row: [&str; 4]| -> Result<Intent, String> {
            let [at, from, to, amount] = row;
            let at_s: f64 = at.parse().map_err(|_| format!("at_s: `{at}` is no number"))?;
            if !(at_s.is_finite() && at_s >= 0.0) {
                return Err(format!("at_s: {at} is negative"));
            }
            let (from, to) = (node(from)?, node(to)?);
            let amount_msat = amount.parse().ok().filter(|msat| *msat > 0);
            let amount_msat =
                amount_msat.ok_or_else(|| format!("amount_msat: `{amount}` is no amount"))?;
            if from == to {
                return Err(format!("from and to are both {from}"));
            }
            let at_us = micros(at_s + stream.start_s);
            Ok(Intent { at_us, from, to, amount_msat, hold_us })
        };
        let mut intents = Vec::new();
        for (line, text) in lines {
            let values: Vec<&str> = text.split(',').map(str::trim).collect();
            let row = columns.map(|place| values.get(place).copied().unwrap_or(""));
            intents.push(read(row).map_err(|detail| (line, detail))?);
        }
        intents.sort_by_key(|intent| intent.at_us);
        let kept = usize::try_from(stream.payments.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        intents.truncate(kept);
        Ok(Self(intents.into_iter()))
    }
}
