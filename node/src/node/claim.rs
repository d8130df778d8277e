//! Whose store this is, and where a new wallet begins.

use bitcoin::Network;

use super::StartError;
use crate::chain::{BlockRef, ChainError};
use crate::config::{Config, network_name};
use crate::environment::Environment;
use crate::lightning::types::NodeId;
use crate::store::{Batch, Committer, Table};

/// Notes whose store this is, or refuses another's.
pub(super) fn claim_store(
    committer: &Committer,
    node: NodeId,
    network: Network,
) -> Result<(), StartError> {
    let network = network_name(network).to_owned();
    let ours = format!("{node} {network}");
    let key = Table::Meta.key("owner");
    match committer.get(&key)? {
        None => {
            let mut batch = Batch::default();
            batch.put(key, ours.into_bytes());
            let _durable_with_the_first_event = committer.enqueue(batch);
            Ok(())
        }
        Some(found) if found == ours.as_bytes() => Ok(()),
        Some(found) => {
            let found = String::from_utf8_lossy(&found).into_owned();
            let (found_node, found_network) = found.split_once(' ').unwrap_or((&found, "?"));
            Err(StartError::OtherNode {
                found_node: found_node.to_owned(),
                found_network: found_network.to_owned(),
                node,
                network,
            })
        }
    }
}

/// The block a new wallet starts at: the configured height, else the tip.
pub(super) async fn birthday(
    config: &Config,
    environment: &Environment,
    tip: BlockRef,
) -> Result<Option<BlockRef>, ChainError> {
    let height = config.chain.birthday_height;
    if height == 0 || height >= tip.height {
        return Ok(Some(tip));
    }
    let hash = environment.chain.block_hash(height).await?;
    Ok(hash.map(|hash| BlockRef { height, hash }))
}
