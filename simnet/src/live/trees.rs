//! Where the money of each batch is, as the chain has it: every batch is settled once.
//!
//! What hubs know of their trees is taken down once; from then on only the chain is asked. Each
//! node output of a tree is not there yet, unspent, spent by its tree transaction, or taken by
//! another. So each satoshi of a batch is under an unspent node output, in a funding output on
//! chain, or taken; and it is the hub who takes, and only from those who have left.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bitcoin::{OutPoint, Transaction, Txid};
use node::channels::ChannelState;
use parking_lot::Mutex;

use super::hosts::Hosts;
use crate::topology::Node;

/// What a side may leave behind in a channel that is closed: nobody can pay it out, msat.
pub const DUST_MSAT: u64 = 354_999;

/// The trees of a run.
pub struct Trees {
    hosts: Hosts,
    hubs: Vec<Node>,
    known: Mutex<BTreeMap<OutPoint, Tree>>,
}

/// A tree, as its hub knows it.
#[derive(Clone)]
struct Tree {
    hub: Node,
    expiry: u32,
    /// The tree transaction that spends each node output, and the output's value, sat.
    nodes: BTreeMap<OutPoint, (Txid, u64)>,
    /// By funding output: the node outputs above it, and its value, sat.
    channels: BTreeMap<OutPoint, (Vec<OutPoint>, u64)>,
}

/// Where the money of a tree is, sat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Under node outputs that are unspent.
    pub held_sat: u64,
    /// In funding outputs that are or were on chain.
    pub unrolled_sat: u64,
    /// Taken by others than tree transactions.
    pub taken_sat: u64,
}

impl Trees {
    /// The trees of `hubs`.
    pub fn new(hosts: Hosts, hubs: Vec<Node>) -> Self {
        Self { hosts, hubs, known: Mutex::default() }
    }

    /// Takes down trees that are new.
    pub fn look(&self) {
        for hub in &self.hubs {
            let batches = self.hosts.ask(*hub, |node| node.confirmations.batches());
            for batch in batches.into_iter().flatten() {
                let mut known = self.known.lock();
                if known.contains_key(&batch.root()) {
                    continue;
                }
                let expiry = batch.expiry().map_or(u32::MAX, |expiry| expiry.to_consensus_u32());
                let mut tree =
                    Tree { hub: *hub, expiry, nodes: BTreeMap::new(), channels: BTreeMap::new() };
                for leaf in batch.leaves() {
                    tree.add_path(leaf.path());
                }
                tree.channels.retain(|funding, _| !tree.nodes.contains_key(funding));
                known.insert(batch.root(), tree);
            }
        }
    }

    fn on_chain(&self) -> Vec<(OutPoint, Tree)> {
        let known = self.known.lock();
        let there = known.iter().filter(|(root, _)| self.hosts.outside().is_in_block(root.txid));
        there.map(|(root, tree)| (*root, tree.clone())).collect()
    }

    /// Batches that came onto the chain, and those of them of which nothing is left there.
    pub fn counts(&self) -> (u64, u64) {
        let trees = self.on_chain();
        let over = trees.iter().filter(|(_, tree)| self.standing(tree).held_sat == 0);
        (trees.len() as u64, over.count() as u64)
    }

    /// What hubs have in batches, sat.
    pub fn held_sat(&self) -> u64 {
        self.on_chain().iter().map(|(_, tree)| self.standing(tree).held_sat).sum()
    }

    /// Where the money of a batch is, by its transaction; `None` if it is not known or not on
    /// chain.
    pub fn standing_of(&self, txid: Txid) -> Option<Standing> {
        let trees = self.on_chain();
        let found = trees.iter().find(|(root, _)| root.txid == txid);
        found.map(|(_, tree)| self.standing(tree))
    }

    /// Who takes a node output, if it is in a block and spent by another than its tree
    /// transaction.
    fn taker(&self, node: OutPoint, tree: &Tree) -> Option<Transaction> {
        let chain = &self.hosts.outside().chain;
        if chain.output(node).is_some() {
            return None;
        }
        let by = chain.spender(node).filter(|by| *by != tree.nodes[&node].0)?;
        chain.transaction(by).filter(|_| self.hosts.outside().is_in_block(by))
    }

    fn standing(&self, tree: &Tree) -> Standing {
        let chain = &self.hosts.outside().chain;
        let mut standing = Standing::default();
        for (node, (_, value_sat)) in &tree.nodes {
            if chain.output(*node).is_some() {
                standing.held_sat += value_sat;
            } else if self.taker(*node, tree).is_some() {
                standing.taken_sat += value_sat;
            }
        }
        for (funding, (_, value_sat)) in &tree.channels {
            if self.hosts.outside().is_in_block(funding.txid) {
                standing.unrolled_sat += value_sat;
            }
        }
        standing
    }

    /// Says what is wrong with one, if anything is.
    pub fn wrong(&self, excused: &BTreeSet<Node>) -> Option<String> {
        let best = self.hosts.outside().chain.best().height;
        // Looked up once somebody takes.
        let owners = OnceCell::new();
        for (root, tree) in self.on_chain() {
            let standing = self.standing(&tree);
            let found = standing.held_sat + standing.unrolled_sat + standing.taken_sat;
            let value_sat = tree.nodes.get(&root).map_or(0, |(_, value_sat)| *value_sat);
            if found != value_sat {
                return Some(format!("{root} holds {value_sat} sat: {standing:?}"));
            }
            for node in tree.nodes.keys() {
                let Some(taker) = self.taker(*node, &tree) else { continue };
                if let Some(wrong) = self.wrong_taker(*node, &taker, tree.hub) {
                    return Some(wrong);
                }
                if best >= tree.expiry {
                    continue;
                }
                for (funding, (above, _)) in &tree.channels {
                    let users = owners.get_or_init(|| self.owners());
                    let Some((user, left)) = users.get(funding) else { continue };
                    if above.contains(node) && !left && !excused.contains(user) {
                        let by = taker.compute_txid();
                        return Some(format!("{by} takes {funding} from n{user}, who is in it"));
                    }
                }
            }
        }
        None
    }

    /// Whether a transaction that takes a node output pays anybody but the hub.
    fn wrong_taker(&self, node: OutPoint, taker: &Transaction, hub: Node) -> Option<String> {
        let strange = |running: &node::node::Node| {
            taker.output.iter().any(|output| !running.wallet.owns(&output.script_pubkey))
        };
        let pays_others = self.hosts.ask(hub, strange).unwrap_or(false);
        let by = taker.compute_txid();
        pays_others.then(|| format!("{by} takes {node} and pays another than n{hub}"))
    }

    /// Whose each funding output is, and whether that user has left it empty.
    fn owners(&self) -> HashMap<OutPoint, (Node, bool)> {
        let mut owners = HashMap::new();
        for user in self.hosts.numbers().filter(|number| !self.hubs.contains(number)) {
            let left = |node: &node::node::Node| {
                let all = node.channels.by_funding().into_iter();
                let left = all.filter_map(|(funding, channel)| {
                    let record = node.channels.recorded(channel)?;
                    let is_empty = record.final_balance_msat.is_some_and(|msat| msat <= DUST_MSAT);
                    Some((funding, record.state == ChannelState::Closed && is_empty))
                });
                left.collect::<Vec<_>>()
            };
            for (funding, left) in self.hosts.ask(user, left).unwrap_or_default() {
                owners.insert(funding, (user, left));
            }
        }
        owners
    }
}

impl Tree {
    fn add_path(&mut self, path: &channel_contracts::tree::SignedPath) {
        let Ok((steps, _)) = path.path.transactions() else { return };
        let mut above = Vec::new();
        for step in steps {
            let (spent, txid) =
                (step.transaction.input[0].previous_output, step.transaction.compute_txid());
            self.nodes.insert(spent, (txid, step.spent.value.to_sat()));
            above.push(spent);
            // Child nodes are sorted out when all paths are there.
            for (vout, output) in (0..).zip(&step.transaction.output) {
                let value_sat = output.value.to_sat();
                if value_sat > 0 {
                    let place = (above.clone(), value_sat);
                    self.channels.insert(OutPoint { txid, vout }, place);
                }
            }
        }
    }
}
