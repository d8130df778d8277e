//! Where satoshis are that a wallet does not count, or counts and has not: for whoever reads what
//! broke.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Transaction, TxIn, TxOut, Txid};

use super::hosts::{Hosts, Outside};
use crate::topology::Node;

/// Outputs that are named one by one.
const NAMED: usize = 10;

/// What a wallet counts that no block has, with what became of the outputs that it spends.
pub fn unconfirmed(hosts: &Hosts, number: Node) -> Vec<String> {
    let own = hosts.ask(number, |node| node.wallet.list_transactions());
    let unconfirmed = own.into_iter().flatten().filter(|own| own.confirmed_in.is_none());
    unconfirmed.map(|own| told(hosts.outside(), &own.transaction)).collect()
}

/// What wallets count that no block has, and the largest of the outputs that blocks above
/// `height` made, nobody spent and no wallet has.
pub fn of_all(hosts: &Hosts, height: u32) -> String {
    let waiting: Vec<(Node, Vec<String>)> = hosts
        .numbers()
        .map(|number| (number, unconfirmed(hosts, number)))
        .filter(|(_, waiting)| !waiting.is_empty())
        .collect();
    let mut nobodys = in_nobodys_wallet(hosts, height);
    nobodys.sort_by_key(|(_, output)| std::cmp::Reverse(output.value));
    let sum: u64 = nobodys.iter().map(|(_, output)| output.value.to_sat()).sum();
    nobodys.truncate(NAMED);
    let named: BTreeMap<String, u64> = nobodys
        .iter()
        .map(|(outpoint, output)| (outpoint.to_string(), output.value.to_sat()))
        .collect();
    format!("in no block: {waiting:?}; in nobody's wallet: {sum} sat, of them {named:?}")
}

/// What lies in outputs of transactions that closed one of the channels `fundings` above `height`,
/// and no wallet has, sat: somebody may take it in its time.
pub fn left_of(hosts: &Hosts, height: u32, fundings: &BTreeSet<OutPoint>) -> u64 {
    let chain = &hosts.outside().chain;
    let closes: BTreeSet<Txid> =
        fundings.iter().filter_map(|funding| chain.spender(*funding)).collect();
    let left = in_nobodys_wallet(hosts, height).into_iter();
    left.filter(|(at, _)| closes.contains(&at.txid)).map(|(_, output)| output.value.to_sat()).sum()
}

/// Outputs that blocks above `height` made, nobody spent and no wallet has.
fn in_nobodys_wallet(hosts: &Hosts, height: u32) -> Vec<(OutPoint, TxOut)> {
    let mut unspent: Vec<_> = unspent_above(hosts.outside(), height).into_iter().collect();
    unspent.retain(|(_, output)| {
        let owns = |node: &node::node::Node| node.wallet.owns(&output.script_pubkey);
        !hosts.numbers().any(|number| hosts.ask(number, owns) == Some(true))
    });
    unspent
}

fn unspent_above(outside: &Outside, height: u32) -> BTreeMap<OutPoint, TxOut> {
    let blocks = outside.chain.export().into_iter().skip(height as usize);
    let mut unspent = BTreeMap::new();
    for transaction in blocks.flat_map(|block| block.txdata) {
        if transaction.is_coinbase() {
            continue;
        }
        for input in &transaction.input {
            unspent.remove(&input.previous_output);
        }
        let txid = transaction.compute_txid();
        let outputs = (0..).zip(transaction.output);
        unspent.extend(outputs.map(|(vout, output)| (OutPoint { txid, vout }, output)));
    }
    unspent
}

/// A transaction that waits, and what has become of the outputs that it spends.
fn told(outside: &Outside, transaction: &Transaction) -> String {
    let told = |input: &TxIn| {
        let spent = input.previous_output;
        let by = outside.chain.spender(spent);
        let is_there = outside.is_in_block(spent.txid);
        format!("{spent}, in a block: {is_there}, spent by {by:?}")
    };
    let inputs: Vec<String> = transaction.input.iter().map(told).collect();
    format!("{} of {inputs:?}", transaction.compute_txid())
}
