//! The locators of appointments that came together, as one record.
//!
//! Layout: for each entry the distance of its number from the page's (4 bytes), the number of its
//! channel (4) and its locator (16), big endian. The key is the first number.

use channel_contracts::tower::Locator;

use crate::store::{StoreError, Table};

/// Bytes of one entry.
const ENTRY: usize = 24;

/// A page.
pub(super) struct Page {
    first: u64,
    bytes: Vec<u8>,
}

/// An appointment as a page knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageEntry {
    pub number: u64,
    pub channel: u32,
    pub locator: Locator,
}

impl Page {
    /// Begins a page whose least number is `first`.
    pub fn new(first: u64) -> Self {
        Self { first, bytes: Vec::new() }
    }

    /// The least number.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.bytes.len() / ENTRY
    }

    /// Adds an entry.
    ///
    /// # Panics
    ///
    /// If `number` is less than the first one, or more than 4 billion above it.
    pub fn push(&mut self, number: u64, channel: u32, locator: Locator) {
        let distance = number.checked_sub(self.first).and_then(|d| u32::try_from(d).ok());
        let distance = distance.expect("a page holds neighbours, in order");
        self.bytes.extend_from_slice(&distance.to_be_bytes());
        self.bytes.extend_from_slice(&channel.to_be_bytes());
        self.bytes.extend_from_slice(&locator.0);
    }

    /// Its entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = PageEntry> + '_ {
        self.bytes.chunks_exact(ENTRY).map(|chunk| {
            let word = |at: usize| {
                let bytes = chunk[at..at + 4].try_into().expect("four bytes are four");
                u32::from_be_bytes(bytes)
            };
            PageEntry {
                number: self.first + u64::from(word(0)),
                channel: word(4),
                locator: Locator(chunk[8..ENTRY].try_into().expect("sixteen bytes are left")),
            }
        })
    }

    /// The key of the page that begins with `first`.
    pub fn key_of(first: u64) -> Vec<u8> {
        Table::TowerPage.key(first.to_be_bytes())
    }

    /// Its key.
    pub fn key(&self) -> Vec<u8> {
        Self::key_of(self.first)
    }

    /// Its value.
    pub fn encode(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads it back.
    ///
    /// # Errors
    ///
    /// [`StoreError::Corrupt`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self, StoreError> {
        let first = Table::TowerPage.rest(key).and_then(|rest| rest.try_into().ok());
        match first.map(u64::from_be_bytes) {
            Some(first) if value.len().is_multiple_of(ENTRY) => {
                Ok(Self { first, bytes: value.to_vec() })
            }
            _ => Err(StoreError::Corrupt(format!(
                "page {} of a tower has {} bytes",
                hex::encode(key),
                value.len()
            ))),
        }
    }
}
