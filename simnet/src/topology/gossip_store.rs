//! Reads Core Lightning's `gossip_store`: a version byte, then records.
//!
//! A record is a header of 12 bytes (flags, length, checksum, timestamp) and a message of BOLT 7
//! or one of Core Lightning's own, which says the amount of the channel announced before it.
//! Deleted records are passed over; a later update of a direction replaces the earlier one.
//! Checksums are not verified: a file cut or damaged in its lengths is refused, a damaged value
//! is not noticed.

use std::collections::BTreeMap;

use super::import::{Malformed, Place};
use super::{Channel, Direction, Names, Network, Topology};

const HEADER_BYTES: usize = 12;
const DELETED: u16 = 0x8000;
const CHANNEL_ANNOUNCEMENT: u16 = 256;
const CHANNEL_UPDATE: u16 = 258;
const CHANNEL_AMOUNT: u16 = 4_101;
const CHANNEL_DELETED: u16 = 4_103;
/// The three high bits of the version: another number is another format.
const MAJOR_VERSION_MASK: u8 = 0xe0;
/// The first minor version with two bytes of flags and two of length.
const MINOR_VERSION_MIN: u8 = 10;

struct Known {
    keys: [String; 2],
    capacity_sat: u64,
    directions: [Direction; 2],
}

/// Reads a network from the bytes of a file.
///
/// # Errors
///
/// [`Malformed`], with byte and value.
pub fn read(file: &[u8]) -> Result<Topology, Malformed> {
    let version = *file.first().ok_or_else(|| wrong(0, "the file is empty"))?;
    if version & MAJOR_VERSION_MASK != 0 || version < MINOR_VERSION_MIN {
        return Err(wrong(0, &format!("version {version} is unknown")));
    }
    let mut channels = BTreeMap::new();
    let mut announced = None;
    let mut at = 1;
    while at < file.len() {
        let header = file.get(at..at + HEADER_BYTES);
        let header = header.ok_or_else(|| wrong(at, "the file ends in a record's header"))?;
        let flags = u16::from_be_bytes([header[0], header[1]]);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let start = at + HEADER_BYTES;
        let message = file.get(start..start + length);
        let message = message
            .ok_or_else(|| wrong(at, &format!("length {length}: the file ends before that")))?;
        at = start + length;
        if flags & DELETED != 0 {
            continue;
        }
        let mut fields = Fields { message, at: 0, offset: start };
        match fields.u16()? {
            CHANNEL_ANNOUNCEMENT => announced = Some(announcement(&mut fields, &mut channels)?),
            CHANNEL_UPDATE => update(&mut fields, &mut channels)?,
            CHANNEL_AMOUNT => {
                let sat = fields.u64()?;
                if let Some(known) = announced.take().and_then(|scid| channels.get_mut(&scid)) {
                    known.capacity_sat = sat;
                }
            }
            CHANNEL_DELETED => {
                channels.remove(&fields.u64()?);
            }
            _ => {}
        }
    }
    Ok(topology(channels))
}

fn topology(channels: BTreeMap<u64, Known>) -> Topology {
    let mut names = Names::default();
    let channels = channels
        .into_values()
        .map(|known| {
            let limited = |mut direction: Direction| {
                let capacity_msat = known.capacity_sat.saturating_mul(1_000);
                direction.htlc_maximum_msat = direction.htlc_maximum_msat.min(capacity_msat);
                direction
            };
            Channel {
                ends: [names.place(&known.keys[0]), names.place(&known.keys[1])],
                capacity_sat: known.capacity_sat,
                directions: known.directions.map(limited),
            }
        })
        .collect();
    let names = names.into_names();
    let nodes = u32::try_from(names.len()).unwrap_or(u32::MAX);
    Topology { network: Network { nodes, channels }, names, ..Topology::default() }
}

/// BOLT 7: four signatures, features, chain hash, scid, two node keys, two funding keys.
fn announcement(
    fields: &mut Fields<'_>,
    channels: &mut BTreeMap<u64, Known>,
) -> Result<u64, Malformed> {
    fields.skip(4 * 64)?;
    let features = usize::from(fields.u16()?);
    fields.skip(features + 32)?;
    let scid = fields.u64()?;
    let keys = [fields.key()?, fields.key()?];
    let directions = [Direction::DISABLED; 2];
    channels.insert(scid, Known { keys, capacity_sat: 0, directions });
    Ok(scid)
}

/// BOLT 7: signature, chain hash, scid, timestamp, flags, delta, least, fees, most.
fn update(fields: &mut Fields<'_>, channels: &mut BTreeMap<u64, Known>) -> Result<(), Malformed> {
    fields.skip(64 + 32)?;
    let scid = fields.u64()?;
    fields.skip(4)?;
    let flags = fields.u16()?;
    let cltv_expiry_delta = fields.u16()?;
    let htlc_minimum_msat = fields.u64()?;
    let (base_msat, ppm) = (fields.u32()?, fields.u32()?);
    // The most was once optional.
    let htlc_maximum_msat = if fields.at < fields.message.len() { fields.u64()? } else { u64::MAX };
    // The low byte holds the channel's flags: which direction, and whether it is disabled.
    let (side, enabled) = (usize::from(flags & 1), flags & 2 == 0);
    if let Some(known) = channels.get_mut(&scid) {
        known.directions[side] = Direction {
            enabled,
            htlc_minimum_msat,
            htlc_maximum_msat,
            base_msat,
            ppm,
            cltv_expiry_delta,
        };
    }
    Ok(())
}

fn wrong(byte: usize, detail: &str) -> Malformed {
    Malformed { place: Place::Byte(byte), detail: detail.to_owned() }
}

struct Fields<'a> {
    message: &'a [u8],
    at: usize,
    offset: usize,
}

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let bytes = self.message.get(self.at..self.at + count).ok_or_else(|| {
            wrong(self.offset + self.at, &format!("the message ends, {count} bytes are missing"))
        })?;
        self.at += count;
        Ok(bytes)
    }

    fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        self.bytes(count).map(|_| ())
    }

    fn number(&mut self, count: usize) -> Result<u64, Malformed> {
        Ok(self.bytes(count)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.number(2).map(|value| value as u16)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.number(4).map(|value| value as u32)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.number(8)
    }

    fn key(&mut self) -> Result<String, Malformed> {
        Ok(self.bytes(33)?.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flags: u16, message: &[u8]) -> Vec<u8> {
        let mut bytes = flags.to_be_bytes().to_vec();
        bytes.extend((message.len() as u16).to_be_bytes());
        bytes.extend([0; 8]);
        bytes.extend(message);
        bytes
    }

    fn announcement(scid: u64, keys: [u8; 2]) -> Vec<u8> {
        let mut message = CHANNEL_ANNOUNCEMENT.to_be_bytes().to_vec();
        message.extend([0; 256]);
        message.extend([0, 1, 9]);
        message.extend([0; 32]);
        message.extend(scid.to_be_bytes());
        message.extend([keys[0]; 33]);
        message.extend([keys[1]; 33]);
        message.extend([0; 66]);
        message
    }

    fn update(scid: u64, flags: u8, base: u32) -> Vec<u8> {
        let mut message = CHANNEL_UPDATE.to_be_bytes().to_vec();
        message.extend([0; 96]);
        message.extend(scid.to_be_bytes());
        message.extend([0, 0, 0, 1, 1, flags, 0, 40]);
        message.extend(1_000_u64.to_be_bytes());
        message.extend(base.to_be_bytes());
        message.extend(7_u32.to_be_bytes());
        message.extend(990_000_u64.to_be_bytes());
        message
    }

    fn store() -> Vec<u8> {
        let mut amount = CHANNEL_AMOUNT.to_be_bytes().to_vec();
        amount.extend(1_000_u64.to_be_bytes());
        let mut bytes = vec![14];
        bytes.extend(record(0, &announcement(5, [2, 3])));
        bytes.extend(record(0, &amount));
        bytes.extend(record(0, &update(5, 0, 11)));
        bytes.extend(record(0, &update(5, 3, 12)));
        bytes.extend(record(DELETED, &update(5, 0, 99)));
        bytes.extend(record(0, &update(5, 0, 13)));
        bytes.extend(record(DELETED, &announcement(6, [2, 4])));
        bytes
    }

    #[test]
    fn the_last_update_that_is_not_deleted_counts() {
        let topology = read(&store()).unwrap();
        assert_eq!(topology.network.nodes, 2);
        assert_eq!(topology.names, ["02".repeat(33), "03".repeat(33)]);
        let channel = &topology.network.channels[0];
        assert_eq!(channel.capacity_sat, 1_000);
        let [forth, back] = channel.directions;
        assert_eq!((forth.base_msat, forth.ppm, forth.cltv_expiry_delta), (13, 7, 40));
        assert_eq!((forth.htlc_minimum_msat, forth.htlc_maximum_msat), (1_000, 990_000));
        assert!(forth.enabled && !back.enabled);
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_or_a_shorter_network() {
        let bytes = store();
        for length in 1..bytes.len() {
            match read(&bytes[..length]) {
                Ok(topology) => assert!(topology.network.channels.len() <= 1),
                Err(error) => assert!(error.to_string().starts_with("byte "), "{error}"),
            }
        }
    }

    #[test]
    fn another_version_is_refused_by_number() {
        assert_eq!(read(&[0x25]).unwrap_err().to_string(), "byte 0: version 37 is unknown");
    }
}
