//! Reads the network of a sim-ln `sim.json`: its `sim_network`, or such a list alone.

use serde::Deserialize;

use super::import::Malformed;
use super::{Channel, Direction, Names, Network, Topology};

#[derive(Deserialize)]
#[serde(untagged)]
enum File {
    Whole { sim_network: Vec<SimChannel> },
    List(Vec<SimChannel>),
}

#[derive(Deserialize)]
struct SimChannel {
    capacity_msat: u64,
    node_1: Policy,
    node_2: Policy,
}

#[derive(Deserialize)]
struct Policy {
    pubkey: String,
    min_htlc_size_msat: u64,
    max_htlc_size_msat: u64,
    cltv_expiry_delta: u16,
    base_fee: u32,
    fee_rate_prop: u32,
}

impl Policy {
    fn direction(&self) -> Direction {
        Direction {
            enabled: true,
            htlc_minimum_msat: self.min_htlc_size_msat,
            htlc_maximum_msat: self.max_htlc_size_msat,
            base_msat: self.base_fee,
            ppm: self.fee_rate_prop,
            cltv_expiry_delta: self.cltv_expiry_delta,
        }
    }
}

/// Reads a network from the bytes of a file.
///
/// # Errors
///
/// [`Malformed`], with line and value.
pub fn read(file: &[u8]) -> Result<Topology, Malformed> {
    let channels = match serde_json::from_slice::<File>(file) {
        Ok(File::Whole { sim_network: channels } | File::List(channels)) => channels,
        Err(_) => return Err(problem(file)),
    };
    let mut names = Names::default();
    let channels = channels
        .iter()
        .map(|channel| Channel {
            ends: [names.place(&channel.node_1.pubkey), names.place(&channel.node_2.pubkey)],
            capacity_sat: channel.capacity_msat / 1_000,
            directions: [channel.node_1.direction(), channel.node_2.direction()],
        })
        .collect();
    let names = names.into_names();
    let nodes = u32::try_from(names.len()).unwrap_or(u32::MAX);
    Ok(Topology { network: Network { nodes, channels }, names, ..Topology::default() })
}

/// What is wrong and where: a choice of two forms loses that, so the likelier one is read alone.
fn problem(file: &[u8]) -> Malformed {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(rename = "sim_network")]
        _channels: Vec<SimChannel>,
    }
    let is_list = file.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let error = if is_list {
        serde_json::from_slice::<Vec<SimChannel>>(file).err()
    } else {
        serde_json::from_slice::<Whole>(file).err()
    };
    match error {
        Some(error) => Malformed::json(&error),
        None => Malformed::line(1, "neither an object with sim_network nor a list of channels"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel() -> String {
        let node = |key: &str, base: u32| {
            format!(
                r#"{{"pubkey": "{key}", "max_htlc_count": 483, "max_in_flight_msat": 9,
                "min_htlc_size_msat": 1, "max_htlc_size_msat": 900, "cltv_expiry_delta": 40,
                "base_fee": {base}, "fee_rate_prop": 7}}"#
            )
        };
        format!(
            r#"{{"scid": 1, "capacity_msat": 1000000,
 "node_1": {},
 "node_2": {}}}"#,
            node("02aa", 1),
            node("02bb", 2)
        )
    }

    #[test]
    fn a_network_is_read_with_and_without_what_is_around_it() {
        let whole = format!("{{\"sim_network\": [{}]}}", channel());
        let list = format!("[{}]", channel());
        let topology = read(whole.as_bytes()).unwrap();
        assert_eq!(topology, read(list.as_bytes()).unwrap());
        assert_eq!(topology.network.nodes, 2);
        let channel = &topology.network.channels[0];
        assert_eq!(channel.capacity_sat, 1_000);
        assert_eq!((channel.directions[0].base_msat, channel.directions[1].base_msat), (1, 2));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let wrong = format!("[{}]", channel().replacen("\"base_fee\": 1", "\"base_fee\": -1", 1));
        let error = read(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 4: ") && error.contains("-1"), "{error}");
    }
}
