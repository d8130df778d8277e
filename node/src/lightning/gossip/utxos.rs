//! Checks announced channels against the chain, so that gossip cannot invent liquidity.

use std::sync::Arc;

use bitcoin::constants::ChainHash;
use bitcoin::{Network, OutPoint, TxOut};
use lightning::routing::utxo::{UtxoFuture, UtxoLookup, UtxoLookupError, UtxoResult};
use lightning::util::wakers::Notifier;

use crate::chain::ChainSource;
use crate::runtime::Tasks;

/// Looks funding outputs up in the chain source.
pub struct ChainUtxos {
    chain: Arc<dyn ChainSource>,
    network: Network,
    tasks: Tasks,
}

impl ChainUtxos {
    /// Looks up in `chain`, on `tasks`.
    pub fn new(chain: Arc<dyn ChainSource>, network: Network, tasks: Tasks) -> Self {
        Self { chain, network, tasks }
    }
}

impl UtxoLookup for ChainUtxos {
    fn get_utxo(
        &self,
        chain_hash: &ChainHash,
        short_channel_id: u64,
        notifier: Arc<Notifier>,
    ) -> UtxoResult {
        if *chain_hash != ChainHash::using_genesis_block(self.network) {
            return UtxoResult::Sync(Err(UtxoLookupError::UnknownChain));
        }
        let answer = UtxoFuture::new(notifier);
        let chain = Arc::clone(&self.chain);
        let resolve = answer.clone();
        self.tasks.spawn("gossip look-up", async move {
            let found = funding_output(&*chain, short_channel_id).await;
            resolve.resolve(found.ok_or(UtxoLookupError::UnknownTx));
        });
        UtxoResult::Async(answer)
    }
}

/// The unspent output at the place `scid` names (BOLT 7: block, transaction, output).
async fn funding_output(chain: &dyn ChainSource, scid: u64) -> Option<TxOut> {
    let height = u32::try_from(scid >> 40).ok()?;
    let index = usize::try_from((scid >> 16) & 0xff_ffff).ok()?;
    let vout = u32::try_from(scid & 0xffff).ok()?;
    let hash = chain.block_hash(height).await.ok()??;
    let block = chain.block(hash).await.ok()?;
    let txid = block.txdata.get(index)?.compute_txid();
    chain.unspent_output(OutPoint { txid, vout }).await.ok()?
}
