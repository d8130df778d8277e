//! Reads what LND's `describegraph` prints.
//!
//! Numbers stand there as text in some versions and as numbers in others; both are read. A
//! policy that is missing means that the direction is not in use.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

use super::import::Malformed;
use super::{Channel, Direction, Names, Network, Topology};

#[derive(Deserialize)]
struct Graph {
    #[serde(default)]
    nodes: Vec<GraphNode>,
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct GraphNode {
    pub_key: String,
}

#[derive(Deserialize)]
struct Edge {
    node1_pub: String,
    node2_pub: String,
    #[serde(deserialize_with = "number")]
    capacity: u64,
    node1_policy: Option<Policy>,
    node2_policy: Option<Policy>,
}

#[derive(Deserialize)]
struct Policy {
    #[serde(default, deserialize_with = "number")]
    time_lock_delta: u64,
    #[serde(default, deserialize_with = "number")]
    min_htlc: u64,
    #[serde(default, deserialize_with = "number")]
    fee_base_msat: u64,
    #[serde(default, deserialize_with = "number")]
    fee_rate_milli_msat: u64,
    #[serde(default, deserialize_with = "number")]
    max_htlc_msat: u64,
    #[serde(default)]
    disabled: bool,
}

/// Reads a network from the bytes of a file.
///
/// # Errors
///
/// [`Malformed`], with line and value.
pub fn read(file: &[u8]) -> Result<Topology, Malformed> {
    let graph: Graph = serde_json::from_slice(file).map_err(|error| Malformed::json(&error))?;
    let mut names = Names::default();
    for node in &graph.nodes {
        names.place(&node.pub_key);
    }
    let channels = graph
        .edges
        .iter()
        .map(|edge| Channel {
            ends: [names.place(&edge.node1_pub), names.place(&edge.node2_pub)],
            capacity_sat: edge.capacity,
            directions: [
                direction(edge.node1_policy.as_ref(), edge.capacity),
                direction(edge.node2_policy.as_ref(), edge.capacity),
            ],
        })
        .collect();
    let names = names.into_names();
    let nodes = u32::try_from(names.len()).unwrap_or(u32::MAX);
    Ok(Topology { network: Network { nodes, channels }, names, ..Topology::default() })
}

fn direction(policy: Option<&Policy>, capacity_sat: u64) -> Direction {
    let Some(policy) = policy else { return Direction::DISABLED };
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let capacity_msat = capacity_sat.saturating_mul(1_000);
    Direction {
        enabled: !policy.disabled,
        htlc_minimum_msat: policy.min_htlc,
        htlc_maximum_msat: match policy.max_htlc_msat {
            0 => capacity_msat,
            most => most.min(capacity_msat),
        },
        base_msat: narrow(policy.fee_base_msat),
        ppm: narrow(policy.fee_rate_milli_msat),
        cltv_expiry_delta: u16::try_from(policy.time_lock_delta).unwrap_or(u16::MAX),
    }
}

/// A number, or a number as text.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Number;
    impl Visitor<'_> for Number {
        type Value = u64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number, at least 0, plain or as text")
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            text.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))
        }
    }
    from.deserialize_any(Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRAPH: &str = r#"{
 "nodes": [{"pub_key": "02aa", "alias": "a"}, {"pub_key": "02bb"}],
 "edges": [
  {"channel_id": "1", "node1_pub": "02bb", "node2_pub": "02cc", "capacity": "1000",
   "node1_policy": {"time_lock_delta": 40, "min_htlc": "1", "fee_base_msat": "1000",
                    "fee_rate_milli_msat": "5", "disabled": false, "max_htlc_msat": "990000"},
   "node2_policy": null}
 ]
}"#;

    #[test]
    fn a_graph_is_read_field_by_field() {
        let topology = read(GRAPH.as_bytes()).unwrap();
        assert_eq!(topology.names, ["02aa", "02bb", "02cc"]);
        let channel = &topology.network.channels[0];
        assert_eq!((channel.ends, channel.capacity_sat), ([1, 2], 1_000));
        let [forth, back] = channel.directions;
        assert_eq!((forth.base_msat, forth.ppm, forth.cltv_expiry_delta), (1_000, 5, 40));
        assert_eq!((forth.htlc_minimum_msat, forth.htlc_maximum_msat), (1, 990_000));
        assert!(forth.enabled && !back.enabled);
    }

    #[test]
    fn what_is_wrong_is_named_with_line_and_value() {
        let wrong = GRAPH.replace("\"1000\",\n", "\"many\",\n");
        let error = read(wrong.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 4: ") && error.contains("many"), "{error}");
        let error = read(b"{\n\"edges\": 3}").unwrap_err().to_string();
        assert!(error.starts_with("line 2: "), "{error}");
    }
}
