//! Withdrawals and deposits of `tributary.v1.Batches`.

use std::sync::Arc;

use bitcoin::{Amount, FeeRate};
use channel_contracts::batch::SwapId;
use futures::stream;
use proto::v1;
use tokio::sync::watch::Receiver;

use super::channels::feerate;
use super::convert::{channel_ref, exact, idempotency_key, outpoint, txid_bytes};
use super::mutation::to_the_end;
use super::page::{self, Answers, List};
use super::server::{RpcParts, stopping};
use super::status::{Reason, Refusal};
use crate::lightning::types::ChannelRef;
use crate::swaps::{DepositRequest, SwapKind, SwapRole, SwapState, SwapView, WithdrawRequest};

pub(super) async fn withdraw(
    parts: Arc<RpcParts>,
    request: v1::WithdrawRequest,
) -> Result<v1::Swap, Refusal> {
    let key = idempotency_key("Withdraw", &request.idempotency_key)?;
    let withdraw = WithdrawRequest {
        amount: Amount::from_sat(request.amount_sat),
        destination: request.address,
        max_fee: request.max_fee_sat.map(Amount::from_sat),
        channel: channel(request.channel_record_id.as_deref())?,
    };
    let shared = Arc::clone(&parts);
    let begun = to_the_end(&parts.tasks, async move {
        shared.require_synced()?;
        Ok(shared.swaps.withdraw(&withdraw, Some(&key)).await?)
    });
    Ok(swap(&begun.await?))
}

pub(super) async fn deposit(
    parts: Arc<RpcParts>,
    request: v1::DepositRequest,
) -> Result<v1::Swap, Refusal> {
    let key = idempotency_key("Deposit", &request.idempotency_key)?;
    let feerate = feerate(request.feerate_sat_per_vb)?;
    let deposit = DepositRequest {
        amount: Amount::from_sat(request.amount_sat),
        max_fee: request.max_fee_sat.map(Amount::from_sat),
        feerate: feerate.and_then(FeeRate::from_sat_per_vb),
        channel: channel(request.channel_record_id.as_deref())?,
    };
    let shared = Arc::clone(&parts);
    let begun = to_the_end(&parts.tasks, async move {
        shared.require_synced()?;
        Ok(shared.swaps.deposit(&deposit, Some(&key)).await?)
    });
    Ok(swap(&begun.await?))
}

pub(super) async fn get(parts: &RpcParts, id: &[u8]) -> Result<v1::Swap, Refusal> {
    Ok(swap(&look_up(parts, swap_id(id)?).await?))
}

pub(super) async fn watch(parts: Arc<RpcParts>, id: Vec<u8>) -> Result<Answers<v1::Swap>, Refusal> {
    let id = swap_id(&id)?;
    look_up(&parts, id).await?;
    let changes = parts.swaps.changes();
    let follow = Follow { parts, id, changes, shown: None };
    let states = stream::try_unfold(follow, |mut follow| async move {
        Ok(follow.next().await?.map(|view| (swap(&view), follow)))
    });
    Ok(Box::pin(states))
}

pub(super) async fn list(
    parts: &RpcParts,
    request: v1::ListSwapsRequest,
) -> Result<v1::ListSwapsResponse, Refusal> {
    let size = page::size(request.page_size)?;
    let from = page::position(List::Swaps, &(), request.page_token.as_deref())?;
    let from = page::own_position(from)?;
    let views = parts.swaps.list().await;
    let (views, next) = page::cut(views, from, size, |view| view.id.0);
    Ok(v1::ListSwapsResponse {
        swaps: views.iter().map(swap).collect(),
        next_page_token: next.map(|next| page::token(List::Swaps, &(), &next)),
    })
}

/// Follows one swap.
struct Follow {
    parts: Arc<RpcParts>,
    id: SwapId,
    changes: Receiver<u64>,
    /// What was sent last.
    shown: Option<SwapView>,
}

impl Follow {
    /// The next state to send; `None` after the final one.
    async fn next(&mut self) -> Result<Option<SwapView>, Refusal> {
        if self.shown.as_ref().is_some_and(|view| view.state.is_final()) {
            return Ok(None);
        }
        loop {
            self.changes.mark_unchanged();
            let view = look_up(&self.parts, self.id).await?;
            if self.shown.as_ref() != Some(&view) {
                self.shown = Some(view.clone());
                return Ok(Some(view));
            }
            tokio::select! {
                biased;
                () = self.parts.tasks.stopped() => return Err(stopping()),
                changed = self.changes.changed() => if changed.is_err() { return Ok(None) },
            }
        }
    }
}

/// One swap. Whatever is shown of it is durable: a turn ends with it.
async fn look_up(parts: &RpcParts, id: SwapId) -> Result<SwapView, Refusal> {
    parts.swaps.get(id).await.ok_or_else(|| {
        Refusal::new(Reason::SwapUnknown, format_args!("there is no swap {id}")).with("swap_id", id)
    })
}

fn swap_id(bytes: &[u8]) -> Result<SwapId, Refusal> {
    exact(Reason::FieldInvalid, "swap_id", bytes).map(SwapId)
}

fn channel(id: Option<&[u8]>) -> Result<Option<ChannelRef>, Refusal> {
    id.map(|id| channel_ref("channel_record_id", id)).transpose()
}

/// Writes which way the money goes.
pub(super) fn kind(kind: SwapKind) -> v1::SwapKind {
    match kind {
        SwapKind::Withdrawal => v1::SwapKind::Withdrawal,
        SwapKind::Deposit => v1::SwapKind::Deposit,
    }
}

/// Writes where a swap stands.
pub(super) fn state(state: SwapState) -> v1::SwapState {
    match state {
        SwapState::Asking => v1::SwapState::Asking,
        SwapState::Paying => v1::SwapState::Paying,
        SwapState::Funding => v1::SwapState::Funding,
        SwapState::Confirmed => v1::SwapState::Confirmed,
        SwapState::Settling => v1::SwapState::Settling,
        SwapState::Spending => v1::SwapState::Spending,
        SwapState::Refunding => v1::SwapState::Refunding,
        SwapState::Done => v1::SwapState::Done,
        SwapState::Refunded => v1::SwapState::Refunded,
        SwapState::Failed => v1::SwapState::Failed,
    }
}

/// Writes a swap.
fn swap(view: &SwapView) -> v1::Swap {
    let role = match view.role {
        SwapRole::User => v1::SwapRole::User,
        SwapRole::Hub => v1::SwapRole::Hub,
    };
    v1::Swap {
        swap_id: view.id.0.to_vec(),
        kind: kind(view.kind).into(),
        role: role.into(),
        peer_node_id: view.peer.serialize().to_vec(),
        funding_outpoint: Some(outpoint(view.channel)),
        amount_sat: view.amount.to_sat(),
        payment_msat: view.payment_msat,
        payment_hash: view.hash.0.to_vec(),
        state: state(view.state).into(),
        detail: view.detail.clone().unwrap_or_default(),
        output_outpoint: view.output.map(outpoint),
        funding_txid: view.carrier.map(txid_bytes),
        spend_txid: view.spend.map(txid_bytes),
        created_unix_ms: view.begun_ms,
    }
}
