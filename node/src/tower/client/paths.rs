//! Paths of this node's batches that a tower of its household publishes while it sleeps.
//!
//! There is nothing to remember but what each tower signed for: what it should have follows from
//! the leaves that live. The two are compared every few seconds; what is new is handed over, what
//! is retired is taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint};
use channel_contracts::tower::BatchWatch;
use tokio::time::Instant;

use super::deliver::Undelivered;
use super::link::{LinkFailure, TowerLink};
use super::record::TowerRecord;
use super::service::{Towers, in_time};
use crate::batches::{Batches, LiveLeaf};
use crate::store::{Batch, StoreError, Table};
use crate::tower::server::{UNWATCH_DOMAIN, WATCH_DOMAIN, request_hash, watch_hash};

/// How often the leaves are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long a tower is left alone that did not do as asked.
const REST: Duration = Duration::from_secs(60);

impl Towers {
    /// Sees to it that trusted towers have the paths of what lives in `batches`, until the stop
    /// signal.
    pub async fn guard_paths(self: Arc<Self>, batches: Arc<Batches>) {
        let mut resting: BTreeMap<PublicKey, Instant> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = self.parts.tasks.stopped() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            resting.retain(|_, since| since.elapsed() < REST);
            let mut trusted: Vec<TowerRecord> =
                self.list().into_iter().map(|view| view.record).filter(|one| one.trusted).collect();
            trusted.retain(|one| !resting.contains_key(&one.tower));
            if trusted.is_empty() {
                continue;
            }
            let leaves = batches.live_leaves().await;
            for tower in trusted {
                match self.compare(&tower, &leaves).await {
                    Ok(()) => {}
                    Err(Undelivered::Store(error)) => {
                        return tracing::error!(%error, "towers hear of no paths any more");
                    }
                    Err(Undelivered::Link(failure)) => {
                        tracing::warn!(tower = %tower.tower, %failure, "tower has not taken a path");
                        self.note(&tower.tower, Some(failure.to_string()));
                        resting.insert(tower.tower, Instant::now());
                    }
                }
            }
        }
    }

    /// The funding outputs whose paths `tower` has signed for.
    ///
    /// # Errors
    ///
    /// If the store cannot be read.
    pub fn guarded_paths(&self, tower: &PublicKey) -> Result<BTreeSet<OutPoint>, StoreError> {
        let own = tower.serialize();
        let funding =
            |key: &[u8]| deserialize(Table::GuardedPath.rest(key)?.strip_prefix(&own[..])?).ok();
        let pairs = self.parts.committer.scan_all(Table::GuardedPath, own)?;
        Ok(pairs.iter().filter_map(|(key, _)| funding(key)).collect())
    }

    /// Forgets which paths `tower` has.
    pub(super) fn forget_paths(
        &self,
        tower: &PublicKey,
        writes: &mut Batch,
    ) -> Result<(), StoreError> {
        for funding in self.guarded_paths(tower)? {
            writes.delete(key(tower, funding));
        }
        Ok(())
    }

    /// Brings one tower up to date. What it refuses holds up nothing else.
    async fn compare(&self, tower: &TowerRecord, leaves: &[LiveLeaf]) -> Result<(), Undelivered> {
        let known = self.guarded_paths(&tower.tower)?;
        let live: BTreeSet<OutPoint> = leaves.iter().map(|leaf| leaf.funding).collect();
        if live == known {
            return Ok(());
        }
        let link = self.parts.links.link(tower.tower, &tower.address);
        let link = link.map_err(LinkFailure::Unreachable)?;
        for gone in known.difference(&live) {
            self.unwatch(&*link, &tower.tower, *gone).await?;
        }
        let mut budget_sat = tower.fee_budget_sat;
        if budget_sat == 0 {
            // Its operator may have taken us into the household since.
            self.register(&*link, tower.tower).await?;
            budget_sat = self.record(&tower.tower).map_or(0, |record| record.fee_budget_sat);
        }
        if budget_sat == 0 {
            let why = "it spends nothing on paths of this node: its operator can add this node's key there to its household";
            return Err(LinkFailure::Refused(why.to_owned()).into());
        }
        let mut refused = None;
        for leaf in leaves.iter().filter(|leaf| !known.contains(&leaf.funding)) {
            let watch = BatchWatch {
                path: leaf.path.clone(),
                guard_height: leaf.deadline,
                budget: Amount::from_sat(budget_sat),
            };
            match self.watch(&*link, &tower.tower, leaf.funding, &watch).await {
                Err(Undelivered::Link(failure @ LinkFailure::Refused(_))) => {
                    refused = Some(failure)
                }
                outcome => outcome?,
            }
        }
        match refused {
            None => Ok(()),
            Some(failure) => Err(failure.into()),
        }
    }

    async fn watch(
        &self,
        link: &dyn TowerLink,
        tower: &PublicKey,
        funding: OutPoint,
        watch: &BatchWatch,
    ) -> Result<(), Undelivered> {
        let secret = self.parts.secrets.client(tower);
        let client = secret.public_key(&self.secp);
        let encoded = watch.encode();
        let asks = self.secp.sign_ecdsa(&request_hash(WATCH_DOMAIN, tower, &encoded), &secret);
        let word = in_time(link.watch(client, encoded.clone(), asks)).await?;
        let promised = watch_hash(tower, &client, &encoded);
        if self.secp.verify_ecdsa(&promised, &word, tower).is_err() {
            let why = "its word for a path is not signed by it".to_owned();
            return Err(LinkFailure::Unreachable(why).into());
        }
        let mut writes = Batch::default();
        writes.put(key(tower, funding), word.serialize_compact().to_vec());
        let _handed_over_again_after_a_crash = self.parts.committer.enqueue(writes);
        tracing::info!(%tower, %funding, "tower publishes a path when its time comes");
        Ok(())
    }

    async fn unwatch(
        &self,
        link: &dyn TowerLink,
        tower: &PublicKey,
        funding: OutPoint,
    ) -> Result<(), Undelivered> {
        let secret = self.parts.secrets.client(tower);
        let client = secret.public_key(&self.secp);
        let message = request_hash(UNWATCH_DOMAIN, tower, &serialize(&funding));
        let asks = self.secp.sign_ecdsa(&message, &secret);
        match in_time(link.unwatch(client, funding, asks)).await {
            Ok(()) | Err(LinkFailure::Refused(_) | LinkFailure::Conflict(_)) => {}
            Err(failure) => return Err(failure.into()),
        }
        let mut writes = Batch::default();
        writes.delete(key(tower, funding));
        let _said_again_after_a_crash = self.parts.committer.enqueue(writes);
        Ok(())
    }
}

fn key(tower: &PublicKey, funding: OutPoint) -> Vec<u8> {
    Table::GuardedPath.key([&tower.serialize()[..], &serialize(&funding)].concat())
}
