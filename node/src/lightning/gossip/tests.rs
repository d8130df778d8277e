use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::{Amount, ScriptBuf, TxOut};
use lightning::ln::chan_utils::make_funding_redeemscript;
use lightning::ln::msgs::{UnsignedChannelAnnouncement, UnsignedChannelUpdate};
use lightning::routing::utxo::{UtxoFuture, UtxoLookupError, UtxoResult};
use lightning::types::features::ChannelFeatures;
use lightning::util::logger::Record;
use lightning::util::ser::Writeable;
use lightning::util::wakers::Notifier;

use super::*;

const SCID: u64 = (103 << 40) | (1 << 16);

struct NoLog;

impl Logger for NoLog {
    fn log(&self, _record: Record<'_>) {}
}

/// Answers when the test says so.
#[derive(Default)]
struct SlowChain {
    asked: Mutex<Vec<UtxoFuture>>,
}

impl SlowChain {
    fn answer(&self, output: &TxOut) {
        for question in self.asked.lock().drain(..) {
            question.resolve(Ok::<_, UtxoLookupError>(output.clone()));
        }
    }
}

impl UtxoLookup for SlowChain {
    fn get_utxo(&self, _: &ChainHash, _: u64, notifier: Arc<Notifier>) -> UtxoResult {
        let question = UtxoFuture::new(notifier);
        self.asked.lock().push(question.clone());
        UtxoResult::Async(question)
    }
}

/// A channel of two nodes whose keys are known.
struct PublicChannel {
    secp: Secp256k1<All>,
    nodes: [SecretKey; 2],
    funding: [SecretKey; 2],
}

impl PublicChannel {
    fn new() -> Self {
        let secp = Secp256k1::new();
        let key = |byte| SecretKey::from_slice(&[byte; 32]).unwrap();
        let mut nodes = [key(1), key(2)];
        // BOLT 7: node 1 is the one whose key is lower.
        nodes.sort_by_key(|node| node.public_key(&secp).serialize());
        Self { secp, nodes, funding: [key(3), key(4)] }
    }

    fn id(&self, key: SecretKey) -> NodeId {
        NodeId::from_pubkey(&key.public_key(&self.secp))
    }

    fn sign(&self, key: SecretKey, signed: &[u8]) -> bitcoin::secp256k1::ecdsa::Signature {
        let digest = Message::from_digest(sha256d::Hash::hash(signed).to_byte_array());
        self.secp.sign_ecdsa(&digest, &key)
    }

    fn funding_output(&self) -> TxOut {
        let [one, two] = self.funding.map(|key| key.public_key(&self.secp));
        let script: ScriptBuf = make_funding_redeemscript(&one, &two);
        TxOut { value: Amount::from_sat(100_000), script_pubkey: script.to_p2wsh() }
    }

    fn announcement(&self) -> ChannelAnnouncement {
        let contents = UnsignedChannelAnnouncement {
            features: ChannelFeatures::empty(),
            chain_hash: ChainHash::using_genesis_block(Network::Regtest),
            short_channel_id: SCID,
            node_id_1: self.id(self.nodes[0]),
            node_id_2: self.id(self.nodes[1]),
            bitcoin_key_1: self.id(self.funding[0]),
            bitcoin_key_2: self.id(self.funding[1]),
            excess_data: Vec::new(),
        };
        let signed = contents.encode();
        ChannelAnnouncement {
            node_signature_1: self.sign(self.nodes[0], &signed),
            node_signature_2: self.sign(self.nodes[1], &signed),
            bitcoin_signature_1: self.sign(self.funding[0], &signed),
            bitcoin_signature_2: self.sign(self.funding[1], &signed),
            contents,
        }
    }

    fn update(&self, direction: u8, message_flags: u8) -> ChannelUpdate {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let contents = UnsignedChannelUpdate {
            chain_hash: ChainHash::using_genesis_block(Network::Regtest),
            short_channel_id: SCID,
            timestamp: u32::try_from(now).unwrap(),
            message_flags,
            channel_flags: direction,
            cltv_expiry_delta: 80,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 90_000_000,
            fee_base_msat: 0,
            fee_proportional_millionths: 500,
            excess_data: Vec::new(),
        };
        let signature = self.sign(self.nodes[usize::from(direction)], &contents.encode());
        ChannelUpdate { signature, contents }
    }
}

type Graph = NetworkGraph<Arc<NoLog>>;

struct Fixture {
    channel: PublicChannel,
    graph: Arc<Graph>,
    chain: Arc<SlowChain>,
    gossip: NodeGossip<P2PGossipSync<Arc<Graph>, Arc<SlowChain>, Arc<NoLog>>>,
}

fn fixture(with_chain: bool) -> Fixture {
    let log = Arc::new(NoLog);
    let graph = Arc::new(NetworkGraph::new(Network::Regtest, Arc::clone(&log)));
    let chain = Arc::new(SlowChain::default());
    let utxos = with_chain.then(|| Arc::clone(&chain));
    let handler = P2PGossipSync::new(Arc::clone(&graph), utxos, log);
    let gossip = NodeGossip::new(handler, Arc::default());
    Fixture { channel: PublicChannel::new(), graph, chain, gossip }
}

impl Fixture {
    fn hear_update(&self, direction: u8) {
        // LDK's answer is not what is tested.
        let _answer = self.gossip.handle_channel_update(None, &self.channel.update(direction, 1));
    }

    fn hear_announcement(&self) {
        let _answer = self.gossip.handle_channel_announcement(None, &self.channel.announcement());
    }

    /// The directions the graph knows.
    fn known(&self) -> [bool; 2] {
        let graph = self.graph.read_only();
        let channel = graph.channel(SCID);
        channel.map_or([false; 2], |c| [c.one_to_two.is_some(), c.two_to_one.is_some()])
    }

    /// The directions peers are told of by now.
    fn told(&self) -> Vec<u8> {
        let events = self.gossip.get_and_clear_pending_msg_events();
        let told = events.into_iter().filter_map(|event| match event {
            MessageSendEvent::BroadcastChannelUpdate { msg, .. } => {
                Some(msg.contents.channel_flags)
            }
            _ => None,
        });
        told.collect()
    }
}

#[test]
fn an_update_before_its_announcement_is_not_lost() {
    let net = fixture(false);
    net.hear_update(1);
    assert_eq!(net.known(), [false, false]);
    net.hear_announcement();
    assert_eq!(net.known(), [false, true]);
    assert_eq!(net.told(), [1]);
    net.hear_update(0);
    assert_eq!(net.known(), [true, true]);
    assert_eq!(net.told(), [0_u8; 0], "LDK passes on what it took at once");
}

#[test]
fn updates_before_and_during_the_look_up_are_not_lost() {
    let net = fixture(true);
    net.hear_update(1);
    net.hear_announcement();
    net.hear_update(0);
    assert_eq!(net.known(), [false, false]);
    net.chain.answer(&net.channel.funding_output());
    let mut told = net.told();
    told.sort_unstable();
    assert_eq!(net.known(), [true, true]);
    assert_eq!(told, [0, 1]);
}

#[test]
fn an_announcement_the_chain_does_not_know_brings_nothing() {
    let net = fixture(true);
    net.hear_update(1);
    net.hear_announcement();
    let other = TxOut { value: Amount::from_sat(100_000), script_pubkey: ScriptBuf::new() };
    net.chain.answer(&other);
    assert_eq!(net.told(), [0_u8; 0]);
    assert!(net.graph.read_only().channel(SCID).is_none());
}

#[test]
fn updates_for_a_peer_alone_are_not_kept() {
    let net = fixture(false);
    let _refused = net.gossip.handle_channel_update(None, &net.channel.update(1, 3));
    assert_eq!(net.gossip.early.take(SCID).count(), 0);
}

#[test]
fn the_oldest_makes_room() {
    let early = EarlyUpdates::default();
    let mut update = PublicChannel::new().update(0, 1);
    for scid in 0..1_001 {
        update.contents.short_channel_id = scid;
        early.keep(&update);
    }
    assert_eq!(early.take(0).count(), 0);
    assert_eq!(early.take(1).count(), 1);
    assert_eq!(early.take(1).count(), 0);
    assert_eq!(early.take(1_000).count(), 1);
}

#[test]
fn a_channel_taken_and_kept_again_is_the_newest() {
    let early = EarlyUpdates::default();
    let mut update = PublicChannel::new().update(0, 1);
    let mut keep = |scid| {
        update.contents.short_channel_id = scid;
        early.keep(&update);
    };
    for scid in 0..1_000 {
        keep(scid);
    }
    assert_eq!(early.take(0).count(), 1);
    keep(0);
    keep(1_000);
    assert_eq!(early.take(1).count(), 0, "the oldest made room");
    assert_eq!(early.take(0).count(), 1);
}
