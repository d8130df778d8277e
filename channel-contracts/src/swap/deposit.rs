//! A deposit: the user pays on chain and is paid over its channel, under one hash.
//!
//! ```text
//! user: output on chain ──► buried ──► hub pays over the channel ──► user claims, p is known
//!   ──► user hands its key over ──► hub spends the deposit in the next batch transaction
//!                                   └─ or claims it by p by itself before the refund
//!   hub silent ──► user takes the deposit back after its time
//! ```
//!
//! The hub pays only with an expiry so early that, even if the user claims in the last moment on
//! chain, the deposit can still be spent before the refund. The user never claims a payment once
//! it has begun to take the deposit back: that would be the theft the hub guards against. The
//! bounds are in [`margins`](super::margins).
//!
//! Source: BATCHES §7, "Deposit".

use bitcoin::{Amount, OutPoint, TxOut, absolute};

use super::margins::{BURIED_DEPTH, DepositTimes, FINAL_DEPTH, is_deep};
use crate::batch::Decision;
use crate::musig::AggregateError;
use crate::script::Preimage;
use crate::script::swap::{RefundTime, SwapContract};

/// What both sides agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DepositTerms {
    /// The output: claimed by the hub, refunded by the user some blocks after confirmation.
    pub contract: SwapContract,
    /// Value of the output.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub amount: Amount,
    /// What the hub pays for it, in millisatoshi: the amount without the hub's fee.
    pub payment_msat: u64,
    /// Transactions on the path of the channel.
    pub levels: u32,
    /// `min_final_cltv_expiry_delta` of the payment, in blocks.
    pub final_cltv: u32,
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DepositRejection {
    /// The contract is not that of a deposit.
    #[error("a deposit is refunded after blocks, not at {0:?}")]
    RefundTime(RefundTime),
    /// The keys are not usable.
    #[error(transparent)]
    Keys(#[from] AggregateError),
    /// The output on chain is not the contract's.
    #[error("output {actual:?} is not the one agreed on, {expected:?}")]
    WrongOutput {
        /// The output.
        actual: Box<TxOut>,
        /// The contract's.
        expected: Box<TxOut>,
    },
    /// The preimage is another's.
    #[error("preimage does not hash to {expected}")]
    WrongPreimage {
        /// The hash of the swap.
        expected: bitcoin::hashes::sha256::Hash,
    },
    /// The hub pays too little.
    #[error("payment is {actual_msat} msat, agreed was {expected_msat}")]
    PaymentTooSmall {
        /// What came.
        actual_msat: u64,
        /// What was agreed.
        expected_msat: u64,
    },
    /// Nothing of the kind is expected now.
    #[error("{input} does not fit here")]
    OutOfOrder {
        /// What came.
        input: &'static str,
    },
}

impl DepositTerms {
    /// Checks the terms before either side commits itself.
    ///
    /// # Errors
    ///
    /// [`DepositRejection`] naming what is wrong.
    pub fn check(&self) -> Result<(), DepositRejection> {
        match self.contract.refund_time {
            RefundTime::Blocks(_) => {}
            other => return Err(DepositRejection::RefundTime(other)),
        }
        self.contract.output()?;
        Ok(())
    }

    /// Returns the output that the user pays to.
    ///
    /// # Errors
    ///
    /// [`AggregateError`] if both keys are the same.
    pub fn output(&self) -> Result<TxOut, AggregateError> {
        Ok(self.contract.output()?.tx_out(self.amount))
    }

    fn check_output(&self, actual: TxOut) -> Result<(), DepositRejection> {
        let expected = self.output()?;
        if actual != expected {
            let (actual, expected) = (Box::new(actual), Box::new(expected));
            return Err(DepositRejection::WrongOutput { actual, expected });
        }
        Ok(())
    }

    fn times(&self, confirmed: absolute::Height) -> Option<DepositTimes> {
        match self.contract.refund_time {
            RefundTime::Blocks(refund) => {
                Some(DepositTimes { confirmed, refund, levels: self.levels })
            }
            RefundTime::Height(_) => None,
        }
    }
}

/// Where a deposit's output stands, for either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Confirmation {
    /// Where the output stands.
    pub outpoint: OutPoint,
    /// Height of the block that contains it.
    pub at: absolute::Height,
}

/// Where a deposit stands for the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HubDepositPhase {
    /// No output is seen.
    AwaitingOutput,
    /// The output is in a block.
    Confirmed,
    /// The payment is under way.
    Paying,
    /// The preimage is known; the deposit is ours to spend.
    Owned {
        /// The user handed its key over.
        by_key: bool,
    },
    /// The spend is final.
    Settled,
    /// Nothing was paid; the user takes the deposit back.
    Over,
}

/// What reaches the hub's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubDepositInput {
    /// An output that should be the contract's is in a block.
    OutputConfirmed {
        /// Where it stands.
        outpoint: OutPoint,
        /// The output.
        output: TxOut,
        /// The height.
        at: absolute::Height,
    },
    /// That block is gone.
    OutputDisconnected,
    /// The best block.
    Block {
        /// Its height.
        best: absolute::Height,
    },
    /// The payment succeeded, or its HTLC was claimed on chain.
    PaymentSucceeded {
        /// What it bought.
        preimage: Preimage,
    },
    /// The payment failed for good: no HTLC of it is left.
    PaymentFailed,
    /// The user handed its key over, and it is the contract's.
    KeyHandedOver,
    /// The spend is in the block at this height.
    SpendConfirmed {
        /// The height.
        at: absolute::Height,
        /// The best block.
        best: absolute::Height,
    },
}

/// What the hub's shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubDepositEffect {
    /// Pay the user, with no HTLC that expires later.
    Pay {
        /// The amount, in millisatoshi.
        amount_msat: u64,
        /// The latest expiry.
        expiry_max: absolute::Height,
    },
    /// Spend the deposit as an input of the next batch transaction.
    OfferToBatch {
        /// By key path; else by the preimage.
        by_key: bool,
    },
    /// Spend the deposit by itself, now, and bump the spend until it is confirmed.
    ClaimAlone {
        /// By key path; else by the preimage.
        by_key: bool,
    },
}

/// What happened to the hub's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HubDepositEvent {
    /// Another phase begins.
    Entered(HubDepositPhase),
    /// The output is, or is no more, in a block.
    Output(Option<Confirmation>),
    /// The preimage is known.
    PreimageKnown(Preimage),
    /// The deposit is spent by itself instead of by a batch transaction.
    ClaimBegun,
}

/// The hub's side of a deposit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubDeposit {
    terms: DepositTerms,
    phase: HubDepositPhase,
    output: Option<Confirmation>,
    preimage: Option<Preimage>,
    alone: bool,
}

type HubDecision = Decision<HubDepositEvent, HubDepositEffect>;

impl HubDeposit {
    /// Agrees to `terms`.
    ///
    /// # Errors
    ///
    /// [`DepositRejection`] if they are not those of a deposit.
    pub fn new(terms: DepositTerms) -> Result<Self, DepositRejection> {
        terms.check()?;
        let phase = HubDepositPhase::AwaitingOutput;
        Ok(Self { terms, phase, output: None, preimage: None, alone: false })
    }

    /// Returns where it stands.
    pub fn phase(&self) -> HubDepositPhase {
        self.phase
    }

    /// Returns the preimage, once it is known.
    pub fn preimage(&self) -> Option<&Preimage> {
        self.preimage.as_ref()
    }

    /// Decides about an input. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`DepositRejection`] if the input is wrong or out of order.
    pub fn decide(&self, input: HubDepositInput) -> Result<HubDecision, DepositRejection> {
        use HubDepositPhase as Phase;
        match (input, self.phase) {
            (HubDepositInput::OutputConfirmed { outpoint, output, at }, phase) => {
                self.terms.check_output(output)?;
                let mut events = vec![HubDepositEvent::Output(Some(Confirmation { outpoint, at }))];
                if phase == Phase::AwaitingOutput {
                    events.push(HubDepositEvent::Entered(Phase::Confirmed));
                }
                Ok(Decision::new(events, vec![]))
            }
            (HubDepositInput::OutputDisconnected, phase) => {
                let mut events = vec![HubDepositEvent::Output(None)];
                if phase == Phase::Confirmed {
                    events.push(HubDepositEvent::Entered(Phase::AwaitingOutput));
                }
                Ok(Decision::new(events, vec![]))
            }
            (HubDepositInput::Block { best }, _) => Ok(self.block(best)),
            (HubDepositInput::PaymentSucceeded { preimage }, phase) => {
                let expected = self.terms.contract.hash;
                if preimage.hash() != expected {
                    return Err(DepositRejection::WrongPreimage { expected });
                }
                match phase {
                    Phase::Owned { .. } | Phase::Settled => Ok(Decision::nothing()),
                    // Whatever was thought before: the preimage is the deposit.
                    _ => {
                        let mut decision = own(false);
                        decision.events.push(HubDepositEvent::PreimageKnown(preimage));
                        Ok(decision)
                    }
                }
            }
            (HubDepositInput::PaymentFailed, Phase::Paying) => {
                Ok(Decision::one(HubDepositEvent::Entered(Phase::Over), None))
            }
            (HubDepositInput::KeyHandedOver, Phase::Owned { by_key: false }) => Ok(own(true)),
            (HubDepositInput::KeyHandedOver, Phase::Owned { .. } | Phase::Settled) => {
                Ok(Decision::nothing())
            }
            (HubDepositInput::KeyHandedOver, _) => {
                Err(DepositRejection::OutOfOrder { input: "key before the payment" })
            }
            (HubDepositInput::SpendConfirmed { at, best }, Phase::Owned { .. })
                if is_deep(at, best, FINAL_DEPTH) =>
            {
                Ok(Decision::one(HubDepositEvent::Entered(Phase::Settled), None))
            }
            _ => Ok(Decision::nothing()),
        }
    }

    /// Applies an event that [`Self::decide`] returned, or that a journal kept.
    pub fn apply(&mut self, event: HubDepositEvent) {
        match event {
            HubDepositEvent::Entered(phase) => self.phase = phase,
            HubDepositEvent::Output(output) => self.output = output,
            HubDepositEvent::PreimageKnown(preimage) => self.preimage = Some(preimage),
            HubDepositEvent::ClaimBegun => self.alone = true,
        }
    }

    /// Returns what must be done again after a restart. A payment is not: the shell's own
    /// payment record says whether it was sent.
    pub fn unfinished_effects(&self) -> Vec<HubDepositEffect> {
        match self.phase {
            HubDepositPhase::Owned { by_key } if self.alone => {
                vec![HubDepositEffect::ClaimAlone { by_key }]
            }
            HubDepositPhase::Owned { by_key } => vec![HubDepositEffect::OfferToBatch { by_key }],
            _ => vec![],
        }
    }

    fn block(&self, best: absolute::Height) -> HubDecision {
        let Some(Confirmation { at, .. }) = self.output else {
            return Decision::nothing();
        };
        let Some(times) = self.terms.times(at) else {
            return Decision::nothing();
        };
        match self.phase {
            HubDepositPhase::Confirmed if is_deep(at, best, BURIED_DEPTH) => {
                let least = best.to_consensus_u32().saturating_add(self.terms.final_cltv);
                let last = times.payment_expiry_max();
                match last.filter(|last| last.to_consensus_u32() >= least) {
                    Some(expiry_max) => {
                        let amount_msat = self.terms.payment_msat;
                        let pay = HubDepositEffect::Pay { amount_msat, expiry_max };
                        Decision::one(HubDepositEvent::Entered(HubDepositPhase::Paying), Some(pay))
                    }
                    // Too late to pay safely: the user takes it back.
                    None => Decision::one(HubDepositEvent::Entered(HubDepositPhase::Over), None),
                }
            }
            HubDepositPhase::Owned { by_key } if !self.alone && times.must_claim(best) => {
                let claim = HubDepositEffect::ClaimAlone { by_key };
                Decision::one(HubDepositEvent::ClaimBegun, Some(claim))
            }
            _ => Decision::nothing(),
        }
    }
}

fn own(by_key: bool) -> HubDecision {
    let event = HubDepositEvent::Entered(HubDepositPhase::Owned { by_key });
    Decision::one(event, Some(HubDepositEffect::OfferToBatch { by_key }))
}

/// Where a deposit stands for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UserDepositPhase {
    /// The output is not in a block.
    Funding,
    /// It is, and the payment has not come.
    Confirmed(Confirmation),
    /// The payment is being claimed: the preimage is out.
    Claiming,
    /// The payment is claimed.
    Paid,
    /// The refund is published.
    Refunding,
    /// The refund is in a block.
    Refunded,
}

/// What reaches the user's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserDepositInput {
    /// The output is in a block.
    OutputConfirmed {
        /// Where it stands.
        outpoint: OutPoint,
        /// The height.
        at: absolute::Height,
    },
    /// That block is gone.
    OutputDisconnected,
    /// A payment to the hash waits to be claimed.
    PaymentOffered {
        /// Its amount, in millisatoshi.
        amount_msat: u64,
    },
    /// LDK says that the payment is claimed.
    PaymentClaimed,
    /// The payment went back before it was claimed: the preimage is not out.
    PaymentFailed,
    /// The best block.
    Block {
        /// Its height.
        best: absolute::Height,
    },
    /// The refund is in a block.
    RefundConfirmed,
}

/// What the user's shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserDepositEffect {
    /// Claim the payment, which reveals the preimage.
    ClaimPayment,
    /// Fail the payment back.
    FailPayment,
    /// Hand the user's key over, so that the hub spends by key path.
    HandKeyOver,
    /// Publish the refund, and bump it until it is confirmed.
    PublishRefund,
}

/// What happened to the user's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UserDepositEvent {
    /// Another phase begins.
    Entered(UserDepositPhase),
}

/// The user's side of a deposit. The preimage stays in the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserDeposit {
    terms: DepositTerms,
    phase: UserDepositPhase,
}

impl UserDeposit {
    /// Agrees to `terms`: from here on the user may pay to [`DepositTerms::output`].
    ///
    /// # Errors
    ///
    /// [`DepositRejection`] if they are not those of a deposit.
    pub fn new(terms: DepositTerms) -> Result<Self, DepositRejection> {
        terms.check()?;
        Ok(Self { terms, phase: UserDepositPhase::Funding })
    }

    /// Returns where it stands.
    pub fn phase(&self) -> UserDepositPhase {
        self.phase
    }

    /// Decides about an input. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`DepositRejection`] if the input is wrong or out of order.
    pub fn decide(
        &self,
        input: UserDepositInput,
    ) -> Result<Decision<UserDepositEvent, UserDepositEffect>, DepositRejection> {
        use UserDepositPhase as Phase;
        let enter = |phase, effect| Ok(Decision::one(UserDepositEvent::Entered(phase), effect));
        match (input, self.phase) {
            (
                UserDepositInput::OutputConfirmed { outpoint, at },
                Phase::Funding | Phase::Confirmed(_),
            ) => enter(Phase::Confirmed(Confirmation { outpoint, at }), None),
            (UserDepositInput::OutputDisconnected, Phase::Confirmed(_)) => {
                enter(Phase::Funding, None)
            }
            (
                UserDepositInput::PaymentOffered { amount_msat },
                Phase::Funding | Phase::Confirmed(_),
            ) => {
                let expected_msat = self.terms.payment_msat;
                if amount_msat < expected_msat {
                    let actual_msat = amount_msat;
                    return Err(DepositRejection::PaymentTooSmall { actual_msat, expected_msat });
                }
                enter(Phase::Claiming, Some(UserDepositEffect::ClaimPayment))
            }
            // Taking both would be theft: what comes after the refund was begun goes back.
            (UserDepositInput::PaymentOffered { .. }, Phase::Refunding | Phase::Refunded) => {
                Ok(Decision::new(vec![], vec![UserDepositEffect::FailPayment]))
            }
            (UserDepositInput::PaymentClaimed, Phase::Claiming) => {
                enter(Phase::Paid, Some(UserDepositEffect::HandKeyOver))
            }
            (UserDepositInput::PaymentClaimed, Phase::Paid) => Ok(Decision::nothing()),
            // The output is found again at the next look, and taken back when that is due.
            (UserDepositInput::PaymentFailed, Phase::Claiming) => enter(Phase::Funding, None),
            (UserDepositInput::PaymentClaimed, _) => {
                Err(DepositRejection::OutOfOrder { input: "claim without an offer" })
            }
            (UserDepositInput::Block { best }, Phase::Confirmed(Confirmation { at, .. }))
                if self.terms.times(at).is_some_and(|times| times.may_refund(best)) =>
            {
                enter(Phase::Refunding, Some(UserDepositEffect::PublishRefund))
            }
            (UserDepositInput::RefundConfirmed, Phase::Refunding) => enter(Phase::Refunded, None),
            _ => Ok(Decision::nothing()),
        }
    }

    /// Applies an event that [`Self::decide`] returned, or that a journal kept.
    pub fn apply(&mut self, event: UserDepositEvent) {
        let UserDepositEvent::Entered(phase) = event;
        self.phase = phase;
    }

    /// Returns what must be done again after a restart.
    pub fn unfinished_effects(&self) -> Vec<UserDepositEffect> {
        match self.phase {
            UserDepositPhase::Claiming => vec![UserDepositEffect::ClaimPayment],
            UserDepositPhase::Paid => vec![UserDepositEffect::HandKeyOver],
            UserDepositPhase::Refunding => vec![UserDepositEffect::PublishRefund],
            _ => vec![],
        }
    }
}
