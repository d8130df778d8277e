//! What callers ask for: a place in a batch, and what became of it.

use bitcoin::{Amount, FeeRate};
use channel_contracts::batch::user::UserRequest;
use channel_contracts::batch::{Attempt, RegistrationId, UserBatch};
use channel_contracts::tree::path::PathEnds;
use channel_contracts::tree::transactions::FUNDING_VALUE_MIN;

use super::BatchPolicy;
use super::phases::PhaseProbe;
use super::record::{EventLog, UserBegun};
use super::service::{Batches, Effect, State, height};
use super::user::UserLife;
use super::view::{BatchView, JoinView, LiveLeaf, batch_view, join_view, live_leaf};
use crate::chain::fees::FeePurpose;
use crate::chain::virtual_confirmation::SignedLeaf;
use crate::journal::{Fingerprint, Idempotency, IdempotencyError, IdempotencyKey};
use crate::lightning::types::NodeId;
use crate::store::{Batch, StoreError};

/// A wish for a channel in a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The hub, which must be connected.
    pub hub: NodeId,
    /// Capacity of the channel.
    pub capacity: Amount,
    /// How much of it the user wants to be able to receive at once.
    pub inbound: Amount,
}

/// Why a wish is refused. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The configuration says so.
    #[error("this node takes no part in batches as a user; set batch.role to \"user\" or \"both\"")]
    NotUser,
    /// There is no connection.
    #[error("hub {0} is not connected; connect to it first")]
    NotConnected(NodeId),
    /// No channel is so small.
    #[error("capacity {capacity} is below {least}, the least that a funding output may hold")]
    Capacity {
        /// What was asked for.
        capacity: Amount,
        /// The least.
        least: Amount,
    },
    /// The inbound amount is more than the channel holds.
    #[error("inbound {inbound} is more than the capacity {capacity}")]
    Inbound {
        /// What should be receivable.
        inbound: Amount,
        /// What the channel holds.
        capacity: Amount,
    },
    /// The key was used for another wish, or is too long.
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Batches {
    /// Asks a hub for a channel in its next batch.
    ///
    /// # Errors
    ///
    /// See [`JoinError`].
    pub async fn join(
        &self,
        request: &JoinRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<JoinView, JoinError> {
        let mut state = self.state.lock().await;
        if let Some(first) = self.recalled(&state, request, key)? {
            return Ok(first);
        }
        let registration = self.begin_join(&mut state, request, None, key).await?;
        let view = state.user.get(&registration).map(|life| join_view(&self.parts, life));
        view.ok_or_else(|| StoreError::Corrupt("a wish is gone".into()).into())
    }

    /// Makes a new wish; with `follows`, for the channel that another wish's rolls over into.
    pub(super) async fn begin_join(
        &self,
        state: &mut State,
        request: &JoinRequest,
        follows: Option<RegistrationId>,
        key: Option<&IdempotencyKey>,
    ) -> Result<RegistrationId, JoinError> {
        if !self.parts.policy.role.is_user() {
            return Err(JoinError::NotUser);
        }
        if !self.parts.lightning.is_connected(&request.hub) {
            return Err(JoinError::NotConnected(request.hub));
        }
        let JoinRequest { hub, capacity, inbound } = *request;
        if inbound > capacity {
            return Err(JoinError::Inbound { inbound, capacity });
        }
        if capacity < FUNDING_VALUE_MIN {
            return Err(JoinError::Capacity { capacity, least: FUNDING_VALUE_MIN });
        }
        let registration = RegistrationId(self.parts.entropy.bytes());
        let tree_keys = [0, 1, 2].map(|number| {
            let attempt = Attempt::new(number).unwrap_or(Attempt::FIRST);
            self.parts.secrets.user_tree(registration, attempt).public_key()
        });
        let best = height(state.best);
        let wish = UserRequest { registration, capacity, inbound, tree_keys, best };
        let (policy, at) = (self.parts.policy.user.clone(), self.parts.now());
        let channel = self.parts.channels.expect_for_batch(hub, capacity.to_sat());
        let mut writes = Batch::default();
        let begun = UserBegun {
            hub,
            follows,
            channel: Some(channel),
            request: wish.clone(),
            policy: policy.clone(),
            at,
        };
        let log = EventLog::begin_user(registration, &begun, &mut writes);
        let (fingerprint, moment) = (Fingerprint::of(request), self.parts.clock.now());
        self.idempotency().record(&mut writes, key, fingerprint, &registration.0, moment);
        let (machine, effects) = UserBatch::register(wish, policy, at);
        let mut life = UserLife::new(hub, follows, machine, log);
        life.channel = Some(channel);
        let begun = life.entered(life.machine.phase());
        state.user.insert(registration, life);
        let ticket = self.parts.journal.append(&[begun], writes);
        self.parts.committer.durable(ticket).await?;
        let effects = effects.into_iter().map(|effect| Effect::User(registration, effect));
        let inputs = self.act(state, effects.collect()).await?;
        self.turn(state, inputs).await?;
        Ok(registration)
    }

    /// The wish that an earlier call under `key` made, if there is one.
    ///
    /// # Errors
    ///
    /// [`JoinError::Idempotency`] if the key was used for another one.
    pub async fn repetition(
        &self,
        request: &JoinRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<JoinView>, JoinError> {
        let found = self.recalled(&*self.state.lock().await, request, key)?;
        self.parts.committer.durable(self.parts.committer.now()).await?;
        Ok(found)
    }

    fn recalled(
        &self,
        state: &State,
        request: &JoinRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<JoinView>, JoinError> {
        let now = self.parts.clock.now();
        let answer = self.idempotency().recall(key, Fingerprint::of(request), now)?;
        let registration = answer.and_then(|id| id.try_into().ok()).map(RegistrationId);
        Ok(registration.and_then(|id| state.user.get(&id)).map(|life| join_view(&self.parts, life)))
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.parts.committer.clone())
    }

    /// One wish.
    pub async fn get(&self, registration: RegistrationId) -> Option<JoinView> {
        self.state.lock().await.user.get(&registration).map(|life| join_view(&self.parts, life))
    }

    /// The signed path to the channel of a wish, once it is stored.
    pub fn path(&self, view: &JoinView) -> Option<SignedLeaf> {
        let record = self.parts.confirmations.get(view.root?)?;
        let leaf = record
            .leaves()
            .iter()
            .find(|leaf| Some(leaf.txid()) == view.funding.map(|f| f.txid))?;
        let stated = leaf.path().stated_ends().ok()?;
        let ends = PathEnds { root_output: record.root_output().clone(), ..stated };
        Some(SignedLeaf { slot: leaf.slot(), path: leaf.path().clone(), ends })
    }

    /// What this node offers and accepts.
    pub fn policy(&self) -> &BatchPolicy {
        &self.parts.policy
    }

    /// The feerate at which an exit is reckoned.
    pub fn urgent_feerate(&self) -> FeeRate {
        self.parts.fees.get(FeePurpose::Urgent)
    }

    /// This node's wishes.
    pub async fn joins(&self) -> Vec<JoinView> {
        self.state.lock().await.user.values().map(|life| join_view(&self.parts, life)).collect()
    }

    /// This user's channels that live in batches.
    pub async fn live_leaves(&self) -> Vec<LiveLeaf> {
        let state = self.state.lock().await;
        state.user.values().filter_map(|life| live_leaf(&self.parts, life)).collect()
    }

    /// What measures how long batches stay in each phase.
    pub fn phases(&self) -> &PhaseProbe {
        &self.phases
    }

    /// This hub's batches.
    pub async fn batches(&self) -> Vec<BatchView> {
        self.state.lock().await.hub.values().map(batch_view).collect()
    }
}
