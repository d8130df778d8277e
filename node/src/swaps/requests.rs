//! What callers ask for, and what the sides share.

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, FeeRate, Network, OutPoint};
use channel_contracts::batch::SwapId;
use channel_contracts::batch::message::SwapRefusal;
use channel_contracts::musig::TreeSecret;
use channel_contracts::script::Preimage;

use super::record::{End, Life, SwapRecord, UserDepositLife, UserWithdrawalLife};
use super::service::{Carrying, State, Swap, Swaps};
use super::view::{SwapView, view};
use crate::chain::fees::FeePurpose;
use crate::journal::{Fingerprint, Idempotency, IdempotencyError, IdempotencyKey, millis};
use crate::lightning::InvoiceDescription;
use crate::lightning::types::{ChannelRef, NodeId, PaymentHash, PaymentId};
use crate::payments::{CreateInvoice, CreateInvoiceError, HoldError, PaymentRecord};
use crate::store::{Batch, StoreError};

/// Swaps that one user may have under way at a hub.
const OPEN_MAX: usize = 16;
/// Withdrawals of one user that this hub takes back within [`REFUNDED_BLOCKS`] before it makes no
/// more.
const REFUNDED_MAX: usize = 2;
/// See [`REFUNDED_MAX`].
const REFUNDED_BLOCKS: u32 = 1_008;

/// A withdrawal, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawRequest {
    /// What is to arrive on chain, before the fee of the transaction that takes it there.
    pub amount: Amount,
    /// Where to; `None` for this node's wallet.
    pub destination: Option<String>,
    /// The most the hub may take; `None` for what this node's own terms would take.
    pub max_fee: Option<Amount>,
    /// The channel of a batch that pays; `None` for the one that can pay most.
    pub channel: Option<ChannelRef>,
}

/// A deposit, as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DepositRequest {
    /// What leaves the wallet, beside the fee of its transaction.
    pub amount: Amount,
    /// The most the hub may take; `None` for what this node's own terms would take.
    pub max_fee: Option<Amount>,
    /// What the transaction pays; `None` for the estimate.
    pub feerate: Option<FeeRate>,
    /// The channel of a batch that is paid; `None` for the one that can take most.
    pub channel: Option<ChannelRef>,
}

/// Why a swap does not begin. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are the values named in the message")]
pub enum SwapError {
    #[error("this node is no user of batches; set batch.role to \"user\" or \"both\"")]
    NotUser,
    #[error("amount {amount} is not enough for an output; swap {least} or more")]
    TooSmall { amount: Amount, least: Amount },
    #[error(
        "no usable channel of a batch can {what} {needed_msat} msat, at most {most_msat} msat; swap less, or join a batch"
    )]
    NoChannel { what: &'static str, needed_msat: u64, most_msat: u64 },
    #[error("{address:?} is no address on {network}: {detail}")]
    Address { address: String, network: Network, detail: String },
    #[error(
        "insufficient funds: {available} can be spent, the deposit is {needed} and the fee of its transaction; deposit less"
    )]
    InsufficientFunds { available: Amount, needed: Amount },
    #[error(transparent)]
    Idempotency(#[from] IdempotencyError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What makes a call the same as an earlier one.
type Asked<'a> = (Option<&'a IdempotencyKey>, Fingerprint);

/// Why a hub does not swap.
pub(super) enum Refusal {
    Says(SwapRefusal),
    /// The channel is being taken up again: the user asks once more in a moment.
    NotNow,
    Store(StoreError),
}

impl From<SwapRefusal> for Refusal {
    fn from(reason: SwapRefusal) -> Self {
        Self::Says(reason)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Which way the payment of a swap goes, for the one who asks.
#[derive(Clone, Copy)]
enum Way {
    Send,
    Receive,
}

impl Swaps {
    /// Asks the hub of a channel to pay on chain for a payment over it. Returns the swap at once;
    /// the same key returns the same swap.
    ///
    /// # Errors
    ///
    /// See [`SwapError`].
    pub async fn withdraw(
        &self,
        request: &WithdrawRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<SwapView, SwapError> {
        let mut state = self.state.lock().await;
        let asked = (key, Fingerprint::of(request));
        if let Some(first) = self.recalled(&state, asked)? {
            return Ok(first);
        }
        self.check(request.amount)?;
        let estimate = self.parts.fees.get(FeePurpose::Open);
        let fee_msat = match request.max_fee {
            Some(fee) => fee.to_sat().saturating_mul(1_000),
            None => self.parts.policy.withdrawal_fee_msat(request.amount, estimate),
        };
        let needed = request.amount.to_sat().saturating_mul(1_000).saturating_add(fee_msat);
        let (peer, channel) = self.choose(request.channel, needed, Way::Send)?;
        let destination = match &request.destination {
            Some(address) => self.address(address)?,
            None => {
                let (script, ticket) = self.parts.wallet.sweep_script();
                self.parts.committer.durable(ticket).await?;
                script
            }
        };
        let life = UserWithdrawalLife { destination, max_fee_msat: fee_msat, agreed: None };
        let life = Life::UserWithdrawal(life);
        self.begin(&mut state, asked, (peer, channel, request.amount), life).await
    }

    /// Pays to an output that the hub of a channel pays for over it. Returns the swap at once; the
    /// same key returns the same swap.
    ///
    /// # Errors
    ///
    /// See [`SwapError`].
    pub async fn deposit(
        &self,
        request: &DepositRequest,
        key: Option<&IdempotencyKey>,
    ) -> Result<SwapView, SwapError> {
        let mut state = self.state.lock().await;
        let asked = (key, Fingerprint::of(request));
        if let Some(first) = self.recalled(&state, asked)? {
            return Ok(first);
        }
        self.check(request.amount)?;
        let estimate = self.parts.fees.get(FeePurpose::Open);
        let max_fee_msat = match request.max_fee {
            Some(fee) => fee.to_sat().saturating_mul(1_000),
            None => self.parts.policy.deposit_fee_msat(request.amount, estimate),
        };
        let available = self.parts.wallet.balance().spendable;
        if available < request.amount {
            return Err(SwapError::InsufficientFunds { available, needed: request.amount });
        }
        let most = request.amount.to_sat().saturating_mul(1_000);
        let (peer, channel) = self.choose(request.channel, most, Way::Receive)?;
        let feerate = request.feerate.unwrap_or(estimate);
        let life = UserDepositLife { max_fee_msat, feerate, agreed: None };
        let life = Life::UserDeposit(life);
        self.begin(&mut state, asked, (peer, channel, request.amount), life).await
    }

    /// One swap.
    pub async fn get(&self, id: SwapId) -> Option<SwapView> {
        let state = self.state.lock().await;
        state.swaps.get(&id).map(|swap| view(&self.parts, id, &swap.record))
    }

    /// This node's swaps, of both roles.
    pub async fn list(&self) -> Vec<SwapView> {
        let state = self.state.lock().await;
        state.swaps.iter().map(|(id, swap)| view(&self.parts, *id, &swap.record)).collect()
    }

    async fn begin(
        &self,
        state: &mut State,
        (key, fingerprint): Asked<'_>,
        (peer, channel, amount): (NodeId, OutPoint, Amount),
        life: Life,
    ) -> Result<SwapView, SwapError> {
        let id = SwapId(self.parts.entropy.bytes());
        let hash = PaymentHash(*self.parts.secrets.swap_preimage(id).hash().as_ref());
        let now = self.parts.clock.now();
        let mut record = SwapRecord {
            peer,
            channel,
            amount,
            hash,
            begun_ms: millis(now),
            begun_at: state.best,
            life,
            spend: None,
            end: None,
            told: None,
        };
        let mut writes = Batch::default();
        self.idempotency().record(&mut writes, key, fingerprint, &id.0, now);
        let ticket = self.write(id, &mut record, writes);
        self.parts.committer.durable(ticket).await?;
        let view = view(&self.parts, id, &record);
        state.swaps.insert(id, Swap::new(record));
        self.wake();
        Ok(view)
    }

    /// The swap that an earlier call under the same key began, if there is one.
    fn recalled(
        &self,
        state: &State,
        (key, fingerprint): Asked<'_>,
    ) -> Result<Option<SwapView>, SwapError> {
        let answer = self.idempotency().recall(key, fingerprint, self.parts.clock.now())?;
        let id = answer.and_then(|id| id.try_into().ok()).map(SwapId);
        let known = id.and_then(|id| Some((id, state.swaps.get(&id)?)));
        Ok(known.map(|(id, swap)| view(&self.parts, id, &swap.record)))
    }

    fn idempotency(&self) -> Idempotency {
        Idempotency::new(self.parts.committer.clone())
    }

    fn check(&self, amount: Amount) -> Result<(), SwapError> {
        if !self.parts.policy.role.is_user() {
            return Err(SwapError::NotUser);
        }
        // What cannot pay for its own spend is lost on chain.
        let least = self.parts.policy.amount_min;
        if amount < least {
            return Err(SwapError::TooSmall { amount, least });
        }
        Ok(())
    }

    fn address(&self, text: &str) -> Result<bitcoin::ScriptBuf, SwapError> {
        let network = self.parts.network;
        let parsed = text.trim().parse::<Address<NetworkUnchecked>>();
        let checked = parsed.and_then(|address| address.require_network(network));
        checked.map(|address| address.script_pubkey()).map_err(|error| SwapError::Address {
            address: text.to_owned(),
            network,
            detail: error.to_string(),
        })
    }

    /// The channel of a batch that carries `needed_msat`, and its peer.
    fn choose(
        &self,
        wanted: Option<ChannelRef>,
        needed_msat: u64,
        way: Way,
    ) -> Result<(NodeId, OutPoint), SwapError> {
        let channels = self.parts.channels.by_funding();
        let of_batches = channels.into_iter().filter_map(|(funding, channel)| {
            let view = self.parts.channels.get(channel)?;
            let carrying = self.carrying(view.record.peer, funding)?;
            let msat = match way {
                Way::Send => carrying.live.spendable_msat,
                Way::Receive => carrying.live.receivable_msat,
            };
            let is_it = wanted.is_none_or(|wanted| wanted == channel) && carrying.live.usable;
            is_it.then_some((msat, funding, view.record.peer))
        });
        let best = of_batches.max();
        match best.filter(|(msat, ..)| *msat >= needed_msat) {
            Some((_, funding, peer)) => Ok((peer, funding)),
            None => Err(SwapError::NoChannel {
                what: match way {
                    Way::Send => "send",
                    Way::Receive => "receive",
                },
                needed_msat,
                most_msat: best.map_or(0, |(msat, ..)| msat),
            }),
        }
    }

    /// What every hub asks before it swaps: the role, the amount, the channel, and that nothing of
    /// it was used before.
    pub(super) fn admit(
        &self,
        state: &State,
        user: NodeId,
        (id, channel, amount, hash): (SwapId, OutPoint, Amount, PaymentHash),
    ) -> Result<Carrying, Refusal> {
        if !self.parts.policy.role.is_hub() {
            return Err(SwapRefusal::Unavailable.into());
        }
        if !self.parts.policy.takes(amount) {
            return Err(SwapRefusal::Amount.into());
        }
        let is_used = state.swaps.values().any(|swap| swap.record.hash == hash)
            || state.swaps.contains_key(&id)
            || self.parts.payments.recorded(hash.inbound_id())?.is_some();
        if is_used {
            return Err(SwapRefusal::Key.into());
        }
        let of_user = || state.swaps.values().map(|swap| &swap.record).filter(|s| s.peer == user);
        let open = of_user().filter(|swap| swap.end.is_none()).count();
        // An output that is taken back costs this hub two transactions, and the user nothing.
        let refunded = of_user().filter(|swap| {
            swap.end == Some(End::Refunded)
                && swap.begun_at.saturating_add(REFUNDED_BLOCKS) > state.best
        });
        if open >= OPEN_MAX || refunded.count() >= REFUNDED_MAX {
            return Err(SwapRefusal::Busy.into());
        }
        match self.carrying(user, channel) {
            Some(carrying) if carrying.live.usable => Ok(carrying),
            Some(_) => Err(Refusal::NotNow),
            None => Err(SwapRefusal::Channel.into()),
        }
    }

    /// Makes a hold invoice, or finds the one that was made before a crash lost the record of what
    /// it is for.
    /// Another of the same hash is for something else: what is paid once buys one thing.
    pub(super) async fn hold_invoice(
        &self,
        create: CreateInvoice,
        purpose: String,
    ) -> Result<String, Refusal> {
        let (amount_msat, hash) = (create.amount_msat, create.hash);
        let create =
            CreateInvoice { description: InvoiceDescription::Text(purpose.clone()), ..create };
        match self.parts.payments.create_invoice(create, None).await {
            Ok(invoice) => Ok(invoice.invoice),
            Err(CreateInvoiceError::HashUsed { .. }) => {
                let known = hash.map(|hash| self.parts.payments.invoice(hash)).transpose()?;
                let same = known.flatten().filter(|known| {
                    known.hold && known.amount_msat == amount_msat && known.description == purpose
                });
                same.map(|known| known.invoice).ok_or(SwapRefusal::Key.into())
            }
            Err(CreateInvoiceError::Store(error)) => Err(error.into()),
            Err(error) => {
                tracing::error!(%error, "no invoice can be made for a swap");
                Err(SwapRefusal::Internal.into())
            }
        }
    }

    /// The payment of a swap: by its id, or by its key while the id is not recorded yet.
    pub(super) fn payment(
        &self,
        begun: Option<PaymentId>,
        key: &IdempotencyKey,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        match begun {
            Some(id) => self.parts.payments.recorded(id),
            None => self.parts.payments.recorded_under(key),
        }
    }

    /// Takes a held payment.
    pub(super) async fn settle(
        &self,
        id: SwapId,
        preimage: Option<Preimage>,
    ) -> Result<(), StoreError> {
        let Some(preimage) = preimage else {
            tracing::error!(swap = %id, "the preimage of a swap is missing");
            return Ok(());
        };
        let preimage = crate::lightning::types::Preimage(preimage.0);
        looked_at_again(self.parts.payments.settle(preimage).await.map(drop))
    }

    /// Gives a held payment back.
    pub(super) async fn give_back(&self, hash: PaymentHash) -> Result<(), StoreError> {
        looked_at_again(self.parts.payments.give_back(hash).await.map(drop))
    }

    /// Lets an invoice of ours be paid no more.
    pub(super) async fn cancel(&self, hash: PaymentHash) -> Result<(), StoreError> {
        let invoice = self.parts.payments.invoice(hash)?;
        if invoice.is_none_or(|invoice| invoice.cancelled) {
            return Ok(());
        }
        looked_at_again(self.parts.payments.cancel_invoice(hash, Batch::default()).await.map(drop))
    }

    /// A key that the other side hands over.
    pub(super) async fn hear_key(
        &self,
        id: SwapId,
        swap: &mut Swap,
        secret: TreeSecret,
    ) -> Result<(), StoreError> {
        match swap.record.life {
            Life::UserWithdrawal(_) => self.hear_withdrawal_key(id, swap, secret).await,
            Life::HubDeposit(_) => self.hear_deposit_key(id, swap, secret).await,
            Life::HubWithdrawal(_) | Life::UserDeposit(_) => Ok(()),
        }
    }
}

/// A payment that is in another state by now is looked at again anyway.
fn looked_at_again(done: Result<(), HoldError>) -> Result<(), StoreError> {
    match done {
        Err(HoldError::Store(error)) => Err(error),
        Err(error) => {
            tracing::debug!(%error, "payment of a swap has its outcome already");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}
