//! Reads a compressed gossip store: a snapshot of the public network as Core Lightning publishes.
//!
//! gzip around a text header that ends with a zero byte, then BOLT 1 bigsize integers: channel
//! count, start nodes, end nodes, disabled directions, and six columns (capacity, least and most
//! per HTLC, flat and proportional fee, CLTV delta), each a table of values and an index per entry.

use std::io::Read;

use flate2::read::GzDecoder;

use super::{Channel, Direction, Network};

/// Most channels and nodes that are believed; the public network has about 50,000 channels.
const COUNT_MAX: u64 = 10_000_000;
/// Most bytes after decompression.
const BYTES_MAX: u64 = 1 << 30;

/// Why a file is no network.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not gzip, or cut off.
    #[error("cannot be decompressed: {0}")]
    Gzip(std::io::Error),
    /// More than anybody would publish.
    #[error("more than {BYTES_MAX} bytes when decompressed")]
    TooLong,
    /// No zero byte.
    #[error("text header has no end")]
    Header,
    /// The file ends too early.
    #[error("{field} at byte {offset}: the file ends here")]
    Short {
        /// What was to be read.
        field: &'static str,
        /// Where, after decompression.
        offset: usize,
    },
    /// BOLT 1: a bigsize is written as short as it can be.
    #[error("{field} at byte {offset}: {value} is not written in its shortest form")]
    NotShortest {
        /// What was to be read.
        field: &'static str,
        /// Where, after decompression.
        offset: usize,
        /// What was read.
        value: u64,
    },
    /// A number that cannot be.
    #[error("{field} at byte {offset}: {value} is out of range")]
    OutOfRange {
        /// What was read.
        field: &'static str,
        /// Where, after decompression.
        offset: usize,
        /// What was read.
        value: u64,
    },
    /// Something follows the last column.
    #[error("{bytes} bytes follow the last column")]
    Trailing {
        /// How many.
        bytes: usize,
    },
}

/// Reads a network from the bytes of a file.
///
/// # Errors
///
/// [`ReadError`], which names field, offset and value.
pub fn read(file: &[u8]) -> Result<Network, ReadError> {
    let mut bytes = Vec::new();
    GzDecoder::new(file).take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(ReadError::Gzip)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(ReadError::TooLong);
    }
    let header = bytes.iter().position(|byte| *byte == 0).ok_or(ReadError::Header)?;
    read_numbers(&mut Numbers { bytes: &bytes, at: header + 1 })
}

fn read_numbers(from: &mut Numbers<'_>) -> Result<Network, ReadError> {
    let count = from.count("channel count")?;
    let starts = from.list("start node", count, COUNT_MAX)?;
    let ends = from.list("end node", count, COUNT_MAX)?;
    let mut enabled = vec![[true; 2]; count];
    loop {
        let place = from.next("disabled direction")?;
        match usize::try_from(place / 2).ok().and_then(|channel| enabled.get_mut(channel)) {
            Some(channel) => channel[(place % 2) as usize] = false,
            None => break,
        }
    }
    let capacities = from.column("capacity", count, u64::MAX / 1_000)?;
    let minima = from.column("htlc_minimum_msat", count * 2, u64::MAX)?;
    let maxima = from.column("htlc_maximum_msat", count * 2, u64::MAX)?;
    let bases = from.column("fee_base_msat", count * 2, u32::MAX.into())?;
    let rates = from.column("fee_proportional_millionths", count * 2, u32::MAX.into())?;
    let deltas = from.column("cltv_expiry_delta", count * 2, u16::MAX.into())?;
    let left = from.bytes.len() - from.at;
    if left > 0 {
        return Err(ReadError::Trailing { bytes: left });
    }
    let nodes = starts.iter().chain(&ends).max().map_or(0, |most| most + 1);
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let channel = |place: usize| {
        let capacity_msat = capacities[place] * 1_000;
        let direction = |side: usize| {
            let at = place * 2 + side;
            Direction {
                enabled: enabled[place][side],
                htlc_minimum_msat: minima[at],
                htlc_maximum_msat: match maxima[at] {
                    0 => capacity_msat,
                    1 => capacity_msat / 100 * 99,
                    most => most,
                },
                base_msat: narrow(bases[at]),
                ppm: narrow(rates[at]),
                cltv_expiry_delta: u16::try_from(deltas[at]).unwrap_or(u16::MAX),
            }
        };
        Channel {
            ends: [narrow(starts[place]), narrow(ends[place])],
            capacity_sat: capacities[place],
            directions: [direction(0), direction(1)],
        }
    };
    Ok(Network { nodes: narrow(nodes), channels: (0..count).map(channel).collect() })
}

struct Numbers<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Numbers<'_> {
    /// BOLT 1: one byte up to 0xfc; 0xfd, 0xfe and 0xff announce two, four and eight.
    fn next(&mut self, field: &'static str) -> Result<u64, ReadError> {
        let offset = self.at;
        let short = ReadError::Short { field, offset };
        let Some(first) = self.bytes.get(offset) else { return Err(short) };
        let (length, least) = match first {
            0xfd => (2, 0xfd),
            0xfe => (4, 0x1_0000),
            0xff => (8, 0x1_0000_0000),
            value => {
                self.at += 1;
                return Ok(u64::from(*value));
            }
        };
        let Some(bytes) = self.bytes.get(offset + 1..offset + 1 + length) else {
            return Err(short);
        };
        let value = bytes.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
        if value < least {
            return Err(ReadError::NotShortest { field, offset, value });
        }
        self.at += 1 + length;
        Ok(value)
    }

    fn up_to(&mut self, field: &'static str, most: u64) -> Result<u64, ReadError> {
        let offset = self.at;
        let value = self.next(field)?;
        if value > most {
            return Err(ReadError::OutOfRange { field, offset, value });
        }
        Ok(value)
    }

    fn count(&mut self, field: &'static str) -> Result<usize, ReadError> {
        let value = self.up_to(field, COUNT_MAX)?;
        Ok(usize::try_from(value).unwrap_or(usize::MAX))
    }

    fn list(
        &mut self,
        field: &'static str,
        count: usize,
        most: u64,
    ) -> Result<Vec<u64>, ReadError> {
        (0..count).map(|_| self.up_to(field, most)).collect()
    }

    fn column(
        &mut self,
        field: &'static str,
        count: usize,
        most: u64,
    ) -> Result<Vec<u64>, ReadError> {
        let length = self.count(field)?;
        let table = self.list(field, length, most)?;
        let mut column = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = self.at;
            let place = self.next(field)?;
            let value = usize::try_from(place).ok().and_then(|place| table.get(place));
            column.push(*value.ok_or(ReadError::OutOfRange { field, offset, value: place })?);
        }
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Two channels, 0-1 and 1-2; the second is disabled from 2 to 1.
    fn numbers() -> Vec<u8> {
        let mut bytes = b"a header\0".to_vec();
        bytes.extend([2]);
        bytes.extend([0, 1]);
        bytes.extend([1, 2]);
        bytes.extend([3, 4]);
        // Capacities: 100 and 256.
        bytes.extend([2, 100, 0xfd, 1, 0]);
        bytes.extend([0, 1]);
        // Least amounts: all 7. Most: the capacity, but 99 % of it for 1 to 0.
        bytes.extend([1, 7, 0, 0, 0, 0]);
        bytes.extend([2, 0, 1, 0, 1, 0, 0]);
        // Fees 5 and 9, delta 40.
        for value in [5, 9, 40] {
            bytes.extend([1, value, 0, 0, 0, 0]);
        }
        bytes
    }

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_file_is_read_field_by_field() {
        let network = read(&compressed(&numbers())).unwrap();
        assert_eq!(network.nodes, 3);
        assert_eq!(network.channels.len(), 2);
        let first = &network.channels[0];
        assert_eq!((first.ends, first.capacity_sat), ([0, 1], 100));
        assert_eq!(first.directions[0].htlc_maximum_msat, 100_000);
        assert_eq!(first.directions[1].htlc_maximum_msat, 99_000);
        assert_eq!(first.directions[0].htlc_minimum_msat, 7);
        assert_eq!((first.directions[0].base_msat, first.directions[0].ppm), (5, 9));
        let second = &network.channels[1];
        assert_eq!(second.capacity_sat, 256);
        assert!(second.directions[0].enabled && !second.directions[1].enabled);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_with_its_field() {
        let bytes = numbers();
        for length in 9..bytes.len() {
            let error = read(&compressed(&bytes[..length])).unwrap_err();
            assert!(matches!(error, ReadError::Short { .. }), "{length}: {error}");
        }
        let whole = compressed(&bytes);
        assert!(matches!(read(&whole[..whole.len() / 2]), Err(ReadError::Gzip(_))));
        assert!(matches!(read(b"plain"), Err(ReadError::Gzip(_))));
        assert!(matches!(read(&compressed(b"header")), Err(ReadError::Header)));
    }

    #[test]
    fn impossible_values_are_named() {
        let mut long_form = numbers();
        long_form.splice(9..10, [0xfd, 0, 2]);
        let error = read(&compressed(&long_form)).unwrap_err().to_string();
        assert_eq!(error, "channel count at byte 9: 2 is not written in its shortest form");
        let mut no_such_entry = numbers();
        *no_such_entry.last_mut().unwrap() = 9;
        let error = read(&compressed(&no_such_entry)).unwrap_err().to_string();
        assert!(error.ends_with("9 is out of range") && error.contains("cltv"), "{error}");
        let mut trailing = numbers();
        trailing.push(0);
        assert!(matches!(read(&compressed(&trailing)), Err(ReadError::Trailing { bytes: 1 })));
    }
}
