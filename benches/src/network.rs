//! LDK's graph of a network, and scorers that have learnt something about it.
//!
//! Networks themselves, read or generated, are `simnet::topology`.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, SignOnly};
use lightning::ln::msgs::UnsignedChannelUpdate;
use lightning::routing::gossip::{NetworkGraph, NodeId};
use lightning::routing::router::Path;
use lightning::routing::scoring::ScoreUpdate;
use lightning::types::features::ChannelFeatures;
use lightning::util::logger::{Logger, Record};

use simnet::random::Random;
use simnet::topology::{Network, Node};

/// A logger that says nothing: measurements are not of logging.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

/// LDK's graph.
pub type Graph = NetworkGraph<Silent>;

/// A network as LDK knows it.
pub struct Known {
    /// LDK's graph.
    pub graph: Arc<Graph>,
    /// Who the nodes are, by their places.
    pub keys: Vec<PublicKey>,
}

impl Known {
    /// Announces all of `network` to a fresh graph. Keys follow from the places.
    pub fn new(network: &Network) -> Self {
        let graph = Arc::new(Graph::new(bitcoin::Network::Bitcoin, Silent));
        let secp = Secp256k1::signing_only();
        let keys: Vec<PublicKey> = (0..network.nodes).map(|node| key(&secp, node)).collect();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        for (place, channel) in (1_u64..).zip(&network.channels) {
            let scid = (500_000 + place) << 40;
            let ids = channel.ends.map(|end| NodeId::from_pubkey(&keys[end as usize]));
            // BOLT 7: the lesser id is node 1.
            let swapped = ids[0] > ids[1];
            let [one, two] = if swapped { [ids[1], ids[0]] } else { ids };
            let added = graph.add_channel_from_partial_announcement(
                scid,
                Some(channel.capacity_sat),
                now.as_secs(),
                ChannelFeatures::empty(),
                one,
                two,
            );
            if added.is_err() {
                continue;
            }
            for (side, direction) in (0_u8..).zip(&channel.directions) {
                let side = if swapped { 1 - side } else { side };
                let most = direction.htlc_maximum_msat.min(channel.capacity_sat * 1_000);
                // A limit that LDK finds absurd leaves the channel unknown in that direction.
                let _updated = graph.update_channel_unsigned(&UnsignedChannelUpdate {
                    chain_hash: ChainHash::using_genesis_block(bitcoin::Network::Bitcoin),
                    short_channel_id: scid,
                    timestamp: u32::try_from(now.as_secs()).unwrap_or(u32::MAX),
                    message_flags: 1,
                    channel_flags: side | if direction.enabled { 0 } else { 2 },
                    cltv_expiry_delta: direction.cltv_expiry_delta,
                    htlc_minimum_msat: direction.htlc_minimum_msat,
                    htlc_maximum_msat: most,
                    fee_base_msat: direction.base_msat,
                    fee_proportional_millionths: direction.ppm,
                    excess_data: vec![],
                });
            }
        }
        Self { graph, keys }
    }
}

fn key(secp: &Secp256k1<SignOnly>, node: Node) -> PublicKey {
    let mut secret = [0x11; 32];
    secret[..4].copy_from_slice(&node.to_be_bytes());
    let secret = SecretKey::from_slice(&secret).expect("neither zero nor above the group order");
    PublicKey::from_secret_key(secp, &secret)
}

/// Where the money is in each channel, unknown to the payer.
pub struct Liquidity {
    random_start: u64,
}

impl Liquidity {
    /// Drawn from `seed`, evenly.
    pub fn new(seed: u64) -> Self {
        Self { random_start: seed }
    }

    /// Sends along `path` and tells `scorer` what came of it.
    pub fn send<S: ScoreUpdate>(
        &self,
        path: &Path,
        payer: &PublicKey,
        graph: &Graph,
        scorer: &mut S,
        now: Duration,
    ) {
        let mut source = NodeId::from_pubkey(payer);
        for hop in &path.hops {
            let target = NodeId::from_pubkey(&hop.pubkey);
            let forth = source < target;
            let capacity_msat = graph
                .read_only()
                .channel(hop.short_channel_id)
                .and_then(|channel| channel.capacity_sats)
                .unwrap_or(0)
                * 1_000;
            let mut random = Random::new(self.random_start ^ hop.short_channel_id);
            let lesser_has = random.below(capacity_msat + 1);
            let has = if forth { lesser_has } else { capacity_msat - lesser_has };
            if has < path.final_value_msat() {
                scorer.payment_path_failed(path, hop.short_channel_id, now);
                return;
            }
            source = target;
        }
        scorer.payment_path_successful(path, now);
    }
}
