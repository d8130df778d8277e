//! Blocks in, ending transactions out.

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use bitcoin::{Transaction, TxIn, absolute, block, transaction};

use super::*;
use crate::channels::SpliceRecord;
use crate::journal::ChannelEvent;
use crate::lightning::types::{ChannelId, ChannelRef};
use crate::store::MemoryDisk;

fn spender(spent: OutPoint) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: absolute::LockTime::ZERO,
        input: vec![TxIn { previous_output: spent, ..TxIn::default() }],
        output: Vec::new(),
    }
}

fn block(txdata: Vec<Transaction>) -> Arc<Block> {
    let header = block::Header {
        version: block::Version::TWO,
        prev_blockhash: bitcoin::BlockHash::all_zeros(),
        merkle_root: bitcoin::TxMerkleNode::all_zeros(),
        time: 0,
        bits: bitcoin::CompactTarget::from_consensus(0),
        nonce: 0,
    };
    Arc::new(Block { header, txdata })
}

fn fork(height: u32) -> BlockRef {
    BlockRef { height, hash: bitcoin::BlockHash::all_zeros() }
}

fn outpoint(byte: u8) -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([byte; 32]), vout: u32::from(byte) }
}

fn funded(byte: u8) -> ChannelRecord {
    let peer = SecretKey::from_slice(&[1; 32]).unwrap().public_key(&Secp256k1::new());
    let channel = ChannelRef([byte; 16]);
    let events = [
        ChannelEvent::InboundAccepted {
            channel,
            peer,
            capacity_sat: 70_000,
            push_msat: 0,
            announced: false,
            batch: false,
        },
        ChannelEvent::Pending {
            channel,
            channel_id: ChannelId([byte; 32]),
            funding: outpoint(byte),
        },
    ];
    let apply = |record, event| ChannelRecord::apply(record, event, std::time::Duration::ZERO);
    events.iter().fold(None, apply).unwrap()
}

#[tokio::test]
async fn an_ending_comes_goes_and_survives_a_restart() {
    let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
    let endings = Endings::load(committer.clone()).unwrap();
    let (ended, other) = (funded(1), funded(2));
    endings.watch(&ended);
    endings.watch(&other);
    let (end, elsewhere) = (spender(outpoint(1)), spender(outpoint(9)));
    endings.block_connected(&block(vec![elsewhere.clone()]), 100);
    assert_eq!(endings.of(&ended), None);
    endings.block_connected(&block(vec![elsewhere, end.clone()]), 101);
    assert_eq!(endings.of(&ended), Some(end.compute_txid()));
    assert_eq!(endings.of(&other), None);

    endings.blocks_disconnected(fork(100));
    assert_eq!(endings.of(&ended), None, "its block left the chain");
    assert_eq!(endings.positions()[0].height, 100);
    let mut batch = Batch::default();
    for record in [&ended, &other] {
        batch.put(Table::Channel.key(record.channel), encode(record));
    }
    let _with_the_rest = committer.enqueue(batch);
    endings.block_connected(&block(vec![end.clone()]), 101);

    let written = tokio::spawn(committer.clone().run_task(std::time::Duration::ZERO));
    committer.durable(committer.now()).await.unwrap();
    let again = Endings::load(committer.clone()).unwrap();
    assert_eq!(again.of(&ended), Some(end.compute_txid()));
    assert_eq!(again.positions(), endings.positions());
    again.block_connected(&block(vec![spender(outpoint(2))]), 102);
    assert!(again.of(&other).is_some(), "fundings are those of the records");
    committer.stop();
    written.await.unwrap();
}

#[test]
fn a_splice_ends_nothing() {
    let committer = Committer::new(Arc::new(MemoryDisk::new().open()));
    let endings = Endings::load(committer).unwrap();
    let mut record = funded(1);
    let splice = spender(outpoint(1));
    let funding = OutPoint { txid: splice.compute_txid(), vout: 0 };
    record.splice = Some(SpliceRecord { funding, capacity_sat: 60_000, fee_sat: 300 });
    endings.watch(&record);
    endings.block_connected(&block(vec![splice]), 100);
    assert_eq!(endings.of(&record), None);
    let end = spender(funding);
    endings.block_connected(&block(vec![end.clone()]), 101);
    assert_eq!(endings.of(&record), Some(end.compute_txid()));
}
