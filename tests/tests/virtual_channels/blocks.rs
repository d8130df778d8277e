//! What LDK is shown of a block, for batches and blocks made by hand.

use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Witness, absolute, block, transaction,
};
use channel_contracts::musig::{SchnorrSignature, SignedTree};
use channel_contracts::tree::PathError;
use channel_contracts::tree::shape::{VIRTUAL_INDEX_BASE, VIRTUAL_INDICES_PER_ROOT};
use node::chain::BlockRef;
use node::chain::embedded::{EmbeddedChain, EmbeddedConfig};
use node::chain::virtual_confirmation::{
    AddError, ForgetError, VirtualBatch, VirtualBatchError, VirtualBlock, VirtualConfirmations,
};
use node::environment::SystemClock;
use node::store::{Committer, MemoryDisk, PowerCut};
use tests::e2e::{hub_record, signed_leaves, signed_tree, slots};

/// A tree of `users` channels, and the batch transaction with its root as second output.
fn batch(users: u8) -> (SignedTree, Transaction) {
    let funding = |user: u8| TxOut {
        value: Amount::from_sat(100_000 + u64::from(user)),
        script_pubkey: ScriptBuf::from_bytes(vec![user]).to_p2wsh(),
    };
    let fundings: Vec<TxOut> = (0..users).map(funding).collect();
    let mut made = None;
    let signed = signed_tree(&fundings, |root_output| {
        let change = TxOut { value: Amount::from_sat(9_000), script_pubkey: ScriptBuf::new() };
        let spent = OutPoint { txid: Hash::hash(&[users]), vout: 0 };
        let transaction = made.insert(spending(spent, vec![change, root_output.clone()]));
        OutPoint { txid: transaction.compute_txid(), vout: 1 }
    });
    (signed, made.unwrap())
}

fn spending(spent: OutPoint, output: Vec<TxOut>) -> Transaction {
    let input = TxIn {
        previous_output: spent,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::MAX,
        witness: Witness::new(),
    };
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![input],
        output,
    }
}

/// The first virtual index of a batch transaction behind one other.
const FIRST: u32 = VIRTUAL_INDEX_BASE + VIRTUAL_INDICES_PER_ROOT;

/// A block of other people's transactions around `txdata`; `nonce` tells blocks apart.
fn block_with(nonce: u32, txdata: &[&Transaction]) -> Block {
    let header = block::Header {
        version: block::Version::TWO,
        prev_blockhash: BlockHash::all_zeros(),
        merkle_root: TxMerkleNode::all_zeros(),
        time: 0,
        bits: CompactTarget::from_consensus(0),
        nonce,
    };
    let others = |number: u8| spending(OutPoint { txid: Hash::hash(&[number]), vout: 9 }, vec![]);
    let (first, last) = (others(101), others(102));
    let txdata = [&first].into_iter().chain(txdata.iter().copied()).chain([&last]);
    Block { header, txdata: txdata.cloned().collect() }
}

/// The tree transactions that fund channels, signed.
fn leaves(signed: &SignedTree) -> Vec<Transaction> {
    let nodes = signed.tree().nodes().iter().enumerate();
    let leaves = nodes.filter(|(_, node)| node.shape.is_leaf());
    leaves.map(|(index, _)| signed.transaction(index)).collect()
}

fn at(height: u32, block: &Block) -> BlockRef {
    BlockRef { height, hash: block.block_hash() }
}

fn source() -> EmbeddedChain {
    EmbeddedChain::new(EmbeddedConfig::default(), Arc::new(SystemClock))
}

fn open(disk: &MemoryDisk) -> (VirtualConfirmations, Committer) {
    let committer = Committer::new(Arc::new(disk.open()));
    drop(committer.run_thread().unwrap());
    (VirtualConfirmations::load(committer.clone()).unwrap(), committer)
}

#[test]
fn a_block_with_the_root_shows_its_own_transactions_then_the_leaves() {
    let (signed, transaction) = batch(5);
    let record = hub_record(&signed);
    let block = block_with(0, &[&transaction]);
    let seen = VirtualBlock::new(&block, [&record]);
    let leaves = leaves(&signed);
    let expected = [(0, &block.txdata[0]), (1, &transaction), (2, &block.txdata[2])];
    let expected = expected
        .into_iter()
        .chain([(FIRST as usize, &leaves[0]), (FIRST as usize + 1, &leaves[1])]);
    assert_eq!(seen.transactions(&block), expected.collect::<Vec<_>>());
    assert!(seen.confirms(record.root()));

    // A user sees its own leaf, where the hub sees it.
    let user = VirtualBatch::new(signed_leaves(&signed, slots(1))).unwrap();
    assert_eq!(VirtualBlock::new(&block, [&user]).leaves(), [(FIRST + 1, leaves[1].clone())]);

    let other = block_with(1, &[]);
    let seen = VirtualBlock::new(&other, [&record]);
    let own: Vec<_> = other.txdata.iter().enumerate().collect();
    assert_eq!(seen.transactions(&other), own);
}

#[test]
fn batches_of_one_block_share_no_index() {
    let ((one, first), (two, second)) = (batch(5), batch(2));
    let records = [hub_record(&one), hub_record(&two)];
    let indices = |block: &Block| {
        let seen = VirtualBlock::new(block, &records);
        let indices: Vec<u32> = seen.leaves().iter().map(|(index, _)| *index).collect();
        (indices, seen.leaves()[0].1.compute_txid())
    };
    // The order is that of the block, not of the records.
    let block = block_with(0, &[&first, &second]);
    let expected = vec![FIRST, FIRST + 1, FIRST + VIRTUAL_INDICES_PER_ROOT];
    assert_eq!(indices(&block), (expected, leaves(&one)[0].compute_txid()));
    let block = block_with(0, &[&second, &first]);
    let second_at = FIRST + VIRTUAL_INDICES_PER_ROOT;
    let expected = vec![FIRST, second_at, second_at + 1];
    assert_eq!(indices(&block), (expected, leaves(&two)[0].compute_txid()));
    // A user of one of them, who knows of no other, finds the same.
    let user = VirtualBatch::new(signed_leaves(&one, slots(1))).unwrap();
    let seen = VirtualBlock::new(&block, [&user]);
    assert_eq!(seen.leaves(), [(second_at + 1, leaves(&one)[1].clone())]);
}

#[test]
fn a_root_that_is_not_as_agreed_or_is_taken_at_once_confirms_nothing() {
    let (signed, transaction) = batch(2);
    let record = hub_record(&signed);
    let thief = spending(record.root(), vec![]);
    let block = block_with(0, &[&transaction, &thief]);
    assert_eq!(VirtualBlock::new(&block, [&record]), VirtualBlock::default());

    // A tree that was signed for another output at the same place.
    let value = signed.tree().members()[0].funding.value + Amount::ONE_SAT;
    let funding = TxOut { value, ..signed.tree().members()[0].funding.clone() };
    let other = hub_record(&signed_tree(&[funding], |_| record.root()));
    let block = block_with(0, &[&transaction]);
    let seen = VirtualBlock::new(&block, [&other]);
    assert_eq!((seen.leaves(), seen.confirms(record.root())), (&[][..], false));
}

#[test]
fn a_leaf_on_chain_is_shown_once_in_its_block() {
    let (signed, transaction) = batch(2);
    let record = hub_record(&signed);
    let leaf = &leaves(&signed)[0];
    let block = block_with(0, &[&transaction, leaf]);
    let seen = VirtualBlock::new(&block, [&record]);
    let places: Vec<usize> = seen.transactions(&block).iter().map(|(place, _)| *place).collect();
    assert_eq!(places, [0, 1, 3, FIRST as usize]);
    assert!(seen.has_leaf(leaf.compute_txid()));
    // Later it is a transaction like others.
    let block = block_with(1, &[leaf]);
    let seen = VirtualBlock::new(&block, [&record]);
    assert_eq!(seen.transactions(&block)[1], (1, leaf));
    assert!(seen.has_leaf(leaf.compute_txid()));
}

#[test]
fn paths_that_prove_nothing_make_no_record() {
    assert_eq!(VirtualBatch::new(vec![]), Err(VirtualBatchError::Empty));
    let (signed, _) = batch(5);
    let good = signed_leaves(&signed, slots(5));

    let mut unsigned = good.clone();
    unsigned[3].path.signatures[0] = SchnorrSignature([1; 64]);
    let slot = unsigned[3].slot;
    let source = PathError::WrongSignature { level: 0 };
    assert_eq!(VirtualBatch::new(unsigned), Err(VirtualBatchError::Path { slot, source }));

    let mut elsewhere = good.clone();
    elsewhere[4].ends.channel.value += Amount::ONE_SAT;
    let error = VirtualBatch::new(elsewhere).unwrap_err();
    assert!(
        matches!(error, VirtualBatchError::Path { source: PathError::WrongChannel { .. }, .. }),
        "{error}"
    );

    let mut mixed = good.clone();
    mixed.extend(signed_leaves(&batch(2).0, slots(1)));
    assert!(matches!(VirtualBatch::new(mixed), Err(VirtualBatchError::Trees { .. })));
    let mut swapped = good;
    swapped[0].slot = swapped[4].slot;
    assert!(matches!(VirtualBatch::new(swapped), Err(VirtualBatchError::Trees { .. })));
}

#[tokio::test]
async fn a_restart_shows_the_same_block_again() {
    let (signed, transaction) = batch(5);
    let record = hub_record(&signed);
    let disk = MemoryDisk::new();
    let (confirmations, _) = open(&disk);
    confirmations.add(record.clone(), &source()).await.unwrap();
    // Told again, it is the same; another batch with a leaf of it is not.
    confirmations.add(record.clone(), &source()).await.unwrap();
    let part = VirtualBatch::new(signed_leaves(&signed, slots(1))).unwrap();
    let conflict = confirmations.add(part, &source()).await.unwrap_err();
    assert!(matches!(conflict, AddError::Conflict { root } if root == record.root()));

    let block = block_with(0, &[&transaction]);
    let first = confirmations.connect(&block, 700);
    assert_eq!(first.leaves().len(), 2);
    drop(confirmations);

    // What the store has at a power cut is the record, and not yet where it confirmed.
    disk.cut_power(PowerCut::default());
    let (confirmations, committer) = open(&disk);
    assert_eq!(confirmations.get(record.root()).unwrap().leaves(), record.leaves());
    assert_eq!(confirmations.connect(&block, 700), first);
    committer.durable(committer.now()).await.unwrap();

    let (confirmations, _) = open(&disk);
    let confirmed = confirmations.get(record.root()).unwrap().confirmed();
    assert_eq!(confirmed, Some(at(700, &block)));
    assert_eq!(confirmations.connect(&block, 700), first);
    let error = confirmations.forget(record.root()).unwrap_err();
    assert_eq!(error, ForgetError { root: record.root(), height: 700 });
}

#[tokio::test]
async fn a_reorg_takes_a_confirmation_away_told_or_not() {
    let (signed, transaction) = batch(2);
    let record = hub_record(&signed);
    let (confirmations, committer) = open(&MemoryDisk::new());
    confirmations.add(record.clone(), &source()).await.unwrap();
    let confirmed = || confirmations.get(record.root()).unwrap().confirmed();
    let blocks = [0, 1].map(|nonce| block_with(nonce, &[&transaction]));
    let below = at(699, &block_with(2, &[]));
    let _first = confirmations.connect(&blocks[0], 700);
    assert_eq!(confirmed(), Some(at(700, &blocks[0])));
    confirmations.blocks_disconnected(below);
    assert_eq!(confirmed(), None);
    let second = confirmations.connect(&blocks[1], 701);
    assert_eq!((second.leaves().len(), confirmed()), (1, Some(at(701, &blocks[1]))));
    // LDK had not come so far before a crash, and follows another branch after it.
    let _other = confirmations.connect(&block_with(3, &[]), 701);
    assert_eq!(confirmed(), None);

    // A batch that is not confirmed can be given up.
    committer.durable(confirmations.forget(record.root()).unwrap()).await.unwrap();
    assert_eq!(confirmations.get(record.root()), None);
    assert_eq!(confirmations.connect(&blocks[0], 702).leaves(), []);
}

#[tokio::test]
async fn a_record_in_force_between_two_listeners_waits_for_the_next_block() {
    let (signed, transaction) = batch(2);
    let (confirmations, _) = open(&MemoryDisk::new());
    let block = block_with(0, &[&transaction]);
    let monitors = confirmations.connect(&block, 700);
    confirmations.add(hub_record(&signed), &source()).await.unwrap();
    assert_eq!(confirmations.connect(&block, 700), monitors);
    assert_eq!(monitors.leaves(), []);
}

#[tokio::test]
async fn what_spends_a_leaf_waits_until_the_leaf_is_on_chain() {
    let (signed, transaction) = batch(5);
    let record = hub_record(&signed);
    let (confirmations, _) = open(&MemoryDisk::new());
    confirmations.add(record.clone(), &source()).await.unwrap();
    let leaf = &leaves(&signed)[1];
    let funding = OutPoint { txid: leaf.compute_txid(), vout: 1 };
    let commitment = spending(funding, vec![]);
    assert_eq!(confirmations.waits_for(&commitment), Some(funding));
    let _virtual = confirmations.connect(&block_with(0, &[&transaction]), 700);
    assert_eq!(confirmations.waits_for(&commitment), Some(funding));
    let _real = confirmations.connect(&block_with(1, &[leaf]), 701);
    assert_eq!(confirmations.waits_for(&commitment), None);
    assert!(confirmations.is_on_chain(funding));
    confirmations.blocks_disconnected(at(700, &block_with(0, &[])));
    assert_eq!(confirmations.waits_for(&commitment), Some(funding));

    let others = spending(OutPoint { txid: transaction.compute_txid(), vout: 0 }, vec![]);
    assert_eq!(confirmations.waits_for(&others), None);
    let path = confirmations.path_to(leaf.compute_txid()).unwrap();
    let ends = path.stated_ends().unwrap();
    assert_eq!(path.verify(&ends).unwrap().leaf_transaction(), leaf);
}
