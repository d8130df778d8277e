//! Records as CBOR, for the rooms that keep one value for each id.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Committer, StoreError, Table};

/// A record as it is stored.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing to memory cannot fail");
    bytes
}

/// Reads what [`encode`] wrote for `table`.
///
/// # Errors
///
/// [`StoreError::Corrupt`].
pub(crate) fn decode<T: DeserializeOwned>(table: Table, bytes: &[u8]) -> Result<T, StoreError> {
    ciborium::from_reader(bytes).map_err(|error| corrupt(table, &error))
}

/// Reads all records of a table whose keys are ids of 32 bytes.
///
/// # Errors
///
/// If the store cannot be read.
pub(crate) fn load_all<T: DeserializeOwned>(
    committer: &Committer,
    table: Table,
) -> Result<Vec<([u8; 32], T)>, StoreError> {
    let pairs = committer.scan_all(table, [])?;
    pairs
        .into_iter()
        .map(|(key, value)| {
            let id = table.rest(&key).and_then(|rest| rest.try_into().ok());
            let id = id.ok_or_else(|| corrupt(table, &"its id is odd"))?;
            Ok((id, decode(table, &value)?))
        })
        .collect()
}

/// A record that does not read back.
pub(crate) fn corrupt(table: Table, detail: &dyn std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("record in {}: {detail}", table.name()))
}
