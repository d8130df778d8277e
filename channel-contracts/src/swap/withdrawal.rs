//! A withdrawal: the user pays the hub over its channel and is paid on chain, under one hash.
//!
//! ```text
//! user: pay, hub holds ──► hub: output into the next batch transaction ──► buried
//!   ──► user reveals p ──► hub claims the payment, hands its key over ──► user spends by key
//!                          └─ or not: the user claims by p before T
//!   user silent ──► hub refunds from T on ──► refund final ──► hub fails the payment back
//! ```
//!
//! The user knows p from the beginning, so the hub funds nothing before it holds the payment,
//! and fails it back only when its refund can no longer be undone. The user reveals p only when
//! its output is buried and its claim confirms before T. The bounds are in [`margins`].
//!
//! Source: BATCHES §7, "Withdraw", with the payment before the output.
//!
//! [`margins`]: super::margins

use bitcoin::{Amount, OutPoint, TxOut, absolute};

use super::margins::{BURIED_DEPTH, FINAL_DEPTH, MarginError, WithdrawalTimes, is_deep};
use crate::batch::Decision;
use crate::musig::AggregateError;
use crate::script::Preimage;
use crate::script::swap::{RefundTime, SwapContract};

/// What both sides agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct WithdrawalTerms {
    /// The output: claimed by the user, refunded by the hub at the height `T`.
    pub contract: SwapContract,
    /// Value of the output.
    #[serde(with = "bitcoin::amount::serde::as_sat")]
    pub amount: Amount,
    /// What the user pays for it, in millisatoshi: the amount and the hub's fee.
    pub payment_msat: u64,
    /// When the payment expires. `T` is in the contract.
    pub payment_expiry: absolute::Height,
    /// Transactions on the path of the channel.
    pub levels: u32,
    /// `U` of the channel.
    pub deadline: absolute::Height,
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WithdrawalRejection {
    /// The contract is not that of a withdrawal.
    #[error("a withdrawal is refunded at a height, not after {0:?}")]
    RefundTime(RefundTime),
    /// The times are not safe.
    #[error(transparent)]
    Margin(#[from] MarginError),
    /// The keys are not usable.
    #[error(transparent)]
    Keys(#[from] AggregateError),
    /// The payment is too small.
    #[error("payment is {actual_msat} msat, agreed was {expected_msat}")]
    PaymentTooSmall {
        /// What is held.
        actual_msat: u64,
        /// What was agreed.
        expected_msat: u64,
    },
    /// The payment expires at another height.
    #[error("payment expires at {actual}, agreed was {expected} or later")]
    PaymentExpiry {
        /// Its expiry.
        actual: absolute::Height,
        /// The expiry agreed on.
        expected: absolute::Height,
    },
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
    /// Nothing of the kind is expected now.
    #[error("{input} does not fit here")]
    OutOfOrder {
        /// What came.
        input: &'static str,
    },
}

impl WithdrawalTerms {
    /// Checks the terms at `best`, before either side commits itself.
    ///
    /// # Errors
    ///
    /// [`WithdrawalRejection`] naming what is not safe.
    pub fn check(&self, best: absolute::Height) -> Result<WithdrawalTimes, WithdrawalRejection> {
        let times = self.times()?;
        times.check(best, self.levels, self.deadline)?;
        self.contract.output()?;
        Ok(times)
    }

    /// Returns the output that the batch transaction must have.
    ///
    /// # Errors
    ///
    /// [`AggregateError`] if both keys are the same.
    pub fn output(&self) -> Result<TxOut, AggregateError> {
        Ok(self.contract.output()?.tx_out(self.amount))
    }

    fn times(&self) -> Result<WithdrawalTimes, WithdrawalRejection> {
        match self.contract.refund_time {
            RefundTime::Height(refund) => {
                Ok(WithdrawalTimes { refund, payment_expiry: self.payment_expiry })
            }
            other => Err(WithdrawalRejection::RefundTime(other)),
        }
    }
}

/// Where a withdrawal stands for the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HubWithdrawalPhase {
    /// The payment has not come.
    AwaitingPayment,
    /// The payment is held; the output waits for a batch transaction.
    Held,
    /// The output is in a batch transaction that may be on its way.
    Funded,
    /// The refund is published.
    Refunding,
    /// The refund is in the block at this height.
    Refunded {
        /// The height.
        at: absolute::Height,
    },
    /// The preimage is known: the payment is, or is being, claimed.
    Paid,
    /// The payment was failed back.
    Over,
}

/// What reaches the hub's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubWithdrawalInput {
    /// A payment to the hash is held.
    PaymentHeld {
        /// Its amount, in millisatoshi.
        amount_msat: u64,
        /// The least expiry of its HTLCs.
        expiry: absolute::Height,
        /// The best block.
        best: absolute::Height,
    },
    /// The payment is held no more, although nothing was claimed.
    PaymentGone,
    /// The output is in a batch transaction that is signed and will be broadcast.
    Included,
    /// That transaction can never be confirmed.
    Conflicted,
    /// The preimage came, from the user or from its claim on chain.
    Preimage {
        /// What came.
        preimage: Preimage,
    },
    /// LDK says that the payment is claimed.
    PaymentClaimed,
    /// The best block.
    Block {
        /// Its height.
        best: absolute::Height,
    },
    /// The refund is in a block.
    RefundConfirmed {
        /// Its height.
        at: absolute::Height,
    },
    /// That block is gone.
    RefundDisconnected,
}

/// What the hub's shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HubWithdrawalEffect {
    /// Put the output into the next batch transaction.
    IncludeOutput,
    /// Claim the held payment. Never late: see the margins.
    ClaimPayment {
        /// With this.
        preimage: Preimage,
    },
    /// Fail the held payment back.
    FailPayment,
    /// Hand the hub's key over, so that the user spends by key path.
    HandKeyOver,
    /// Publish the refund, and bump it until it is confirmed.
    PublishRefund,
}

/// What happened to the hub's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum HubWithdrawalEvent {
    /// Another phase begins.
    Entered(HubWithdrawalPhase),
    /// The preimage is known.
    PreimageKnown(Preimage),
}

/// The hub's side of a withdrawal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubWithdrawal {
    terms: WithdrawalTerms,
    times: WithdrawalTimes,
    phase: HubWithdrawalPhase,
    preimage: Option<Preimage>,
}

type HubOutcome = Result<Decision<HubWithdrawalEvent, HubWithdrawalEffect>, WithdrawalRejection>;

impl HubWithdrawal {
    /// Agrees to `terms` at `best`.
    ///
    /// # Errors
    ///
    /// [`WithdrawalRejection`] if they are not safe.
    pub fn new(
        terms: WithdrawalTerms,
        best: absolute::Height,
    ) -> Result<Self, WithdrawalRejection> {
        let times = terms.check(best)?;
        Ok(Self { terms, times, phase: HubWithdrawalPhase::AwaitingPayment, preimage: None })
    }

    /// Returns where it stands.
    pub fn phase(&self) -> HubWithdrawalPhase {
        self.phase
    }

    /// Decides about an input. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`WithdrawalRejection`] if the input is wrong or out of order.
    pub fn decide(&self, input: HubWithdrawalInput) -> HubOutcome {
        use HubWithdrawalPhase as Phase;
        match (input, self.phase) {
            (HubWithdrawalInput::Preimage { preimage }, _) => self.preimage(preimage),
            (
                HubWithdrawalInput::PaymentHeld { amount_msat, expiry, best },
                Phase::AwaitingPayment,
            ) => self.payment_held(amount_msat, expiry, best),
            (HubWithdrawalInput::PaymentHeld { .. }, Phase::Over) => {
                Ok(Decision::new(vec![], vec![HubWithdrawalEffect::FailPayment]))
            }
            (HubWithdrawalInput::PaymentHeld { .. }, _) => Ok(Decision::nothing()),
            (HubWithdrawalInput::PaymentGone, Phase::Held) => Ok(enter(Phase::Over, None)),
            (HubWithdrawalInput::PaymentGone, _) => Ok(Decision::nothing()),
            (HubWithdrawalInput::Included, Phase::Held) => Ok(enter(Phase::Funded, None)),
            (HubWithdrawalInput::Included, Phase::AwaitingPayment | Phase::Over) => {
                Err(WithdrawalRejection::OutOfOrder { input: "output without a held payment" })
            }
            (HubWithdrawalInput::Included, _) => Ok(Decision::nothing()),
            (HubWithdrawalInput::Conflicted, Phase::Funded | Phase::Refunding) => {
                Ok(enter(Phase::Over, Some(HubWithdrawalEffect::FailPayment)))
            }
            // A reorg took an output that was paid for: the user gets another.
            (HubWithdrawalInput::Conflicted, Phase::Paid) => {
                Ok(Decision::new(vec![], vec![HubWithdrawalEffect::IncludeOutput]))
            }
            (HubWithdrawalInput::Conflicted, _) => Ok(Decision::nothing()),
            (HubWithdrawalInput::PaymentClaimed, Phase::Paid) => {
                Ok(Decision::new(vec![], vec![HubWithdrawalEffect::HandKeyOver]))
            }
            (HubWithdrawalInput::PaymentClaimed, _) => {
                Err(WithdrawalRejection::OutOfOrder { input: "claim without a preimage" })
            }
            (HubWithdrawalInput::Block { best }, _) => Ok(self.block(best)),
            (HubWithdrawalInput::RefundConfirmed { at }, Phase::Refunding) => {
                Ok(enter(Phase::Refunded { at }, None))
            }
            (HubWithdrawalInput::RefundDisconnected, Phase::Refunded { .. }) => {
                Ok(enter(Phase::Refunding, Some(HubWithdrawalEffect::PublishRefund)))
            }
            (HubWithdrawalInput::RefundConfirmed { .. }, Phase::Refunded { .. })
            | (HubWithdrawalInput::RefundDisconnected, Phase::Refunding) => Ok(Decision::nothing()),
            (HubWithdrawalInput::RefundConfirmed { .. }, _) => {
                Err(WithdrawalRejection::OutOfOrder { input: "refund" })
            }
            (HubWithdrawalInput::RefundDisconnected, _) => {
                Err(WithdrawalRejection::OutOfOrder { input: "lost refund" })
            }
        }
    }

    /// Applies an event that [`Self::decide`] returned, or that a journal kept.
    pub fn apply(&mut self, event: HubWithdrawalEvent) {
        match event {
            HubWithdrawalEvent::Entered(phase) => self.phase = phase,
            HubWithdrawalEvent::PreimageKnown(preimage) => self.preimage = Some(preimage),
        }
    }

    /// Returns what must be done again after a restart.
    pub fn unfinished_effects(&self) -> Vec<HubWithdrawalEffect> {
        match (self.phase, self.preimage) {
            (HubWithdrawalPhase::Paid, Some(preimage)) => {
                vec![HubWithdrawalEffect::ClaimPayment { preimage }]
            }
            (HubWithdrawalPhase::Held, _) => vec![HubWithdrawalEffect::IncludeOutput],
            (HubWithdrawalPhase::Refunding, _) => vec![HubWithdrawalEffect::PublishRefund],
            (HubWithdrawalPhase::Over, _) => vec![HubWithdrawalEffect::FailPayment],
            _ => vec![],
        }
    }

    /// Only a held payment of the agreed size and length lets the hub commit coins.
    fn payment_held(
        &self,
        actual_msat: u64,
        expiry: absolute::Height,
        best: absolute::Height,
    ) -> HubOutcome {
        let refused = if actual_msat < self.terms.payment_msat {
            let expected_msat = self.terms.payment_msat;
            Some(WithdrawalRejection::PaymentTooSmall { actual_msat, expected_msat })
        } else if expiry < self.terms.payment_expiry {
            let expected = self.terms.payment_expiry;
            Some(WithdrawalRejection::PaymentExpiry { actual: expiry, expected })
        } else {
            None
        };
        match refused {
            Some(rejection) => Err(rejection),
            None if !self.times.may_fund(best) => {
                Ok(enter(HubWithdrawalPhase::Over, Some(HubWithdrawalEffect::FailPayment)))
            }
            None => Ok(enter(HubWithdrawalPhase::Held, Some(HubWithdrawalEffect::IncludeOutput))),
        }
    }

    /// The preimage is the payment, from the moment the output may be on chain until the refund
    /// is. Outside of that an honest hub takes nothing: the user would get nothing for it. If the
    /// refund is undone by a reorg, the claim that took its place shows the preimage again.
    fn preimage(&self, preimage: Preimage) -> HubOutcome {
        let expected = self.terms.contract.hash;
        if preimage.hash() != expected {
            return Err(WithdrawalRejection::WrongPreimage { expected });
        }
        match self.phase {
            HubWithdrawalPhase::AwaitingPayment | HubWithdrawalPhase::Held => {
                Err(WithdrawalRejection::OutOfOrder { input: "preimage before the output" })
            }
            HubWithdrawalPhase::Refunded { .. } => {
                Err(WithdrawalRejection::OutOfOrder { input: "preimage after the refund" })
            }
            HubWithdrawalPhase::Paid | HubWithdrawalPhase::Over => Ok(Decision::nothing()),
            _ => {
                let mut decision = enter(
                    HubWithdrawalPhase::Paid,
                    Some(HubWithdrawalEffect::ClaimPayment { preimage }),
                );
                decision.events.push(HubWithdrawalEvent::PreimageKnown(preimage));
                Ok(decision)
            }
        }
    }

    fn block(&self, best: absolute::Height) -> Decision<HubWithdrawalEvent, HubWithdrawalEffect> {
        match self.phase {
            HubWithdrawalPhase::Held if !self.times.may_fund(best) => {
                enter(HubWithdrawalPhase::Over, Some(HubWithdrawalEffect::FailPayment))
            }
            HubWithdrawalPhase::AwaitingPayment if !self.times.may_fund(best) => {
                enter(HubWithdrawalPhase::Over, None)
            }
            HubWithdrawalPhase::Funded if self.times.may_refund(best) => {
                enter(HubWithdrawalPhase::Refunding, Some(HubWithdrawalEffect::PublishRefund))
            }
            // Not a block earlier: until then the user could still claim both.
            HubWithdrawalPhase::Refunded { at } if is_deep(at, best, FINAL_DEPTH) => {
                enter(HubWithdrawalPhase::Over, Some(HubWithdrawalEffect::FailPayment))
            }
            _ => Decision::nothing(),
        }
    }
}

fn enter(
    phase: HubWithdrawalPhase,
    effect: Option<HubWithdrawalEffect>,
) -> Decision<HubWithdrawalEvent, HubWithdrawalEffect> {
    Decision::one(HubWithdrawalEvent::Entered(phase), effect)
}

/// Where a withdrawal stands for the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UserWithdrawalPhase {
    /// The payment is under way or held; no output is seen.
    Paying,
    /// The output is in the block at this height.
    Confirmed {
        /// Where it stands.
        outpoint: OutPoint,
        /// The height.
        at: absolute::Height,
    },
    /// The preimage is revealed to the hub; its key may come.
    Revealed {
        /// Where the output stands.
        outpoint: OutPoint,
        /// The best block then.
        since: absolute::Height,
    },
    /// A spend is published: by key path or by preimage.
    Spending,
    /// The spend is in a block.
    Settled,
    /// The payment came back and nothing was revealed.
    Over,
}

/// What reaches the user's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserWithdrawalInput {
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
    /// The hub handed its key over, and it is the contract's.
    KeyHandedOver,
    /// A spend of ours is in a block.
    SpendConfirmed,
    /// The payment came back.
    PaymentFailed,
}

/// What the user's shell is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserWithdrawalEffect {
    /// Tell the hub the preimage.
    RevealPreimage,
    /// Spend the output by key path with both keys.
    SpendByKey,
    /// Claim the output by the preimage, and bump the claim until it is confirmed.
    ClaimByPreimage,
}

/// What happened to the user's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum UserWithdrawalEvent {
    /// Another phase begins.
    Entered(UserWithdrawalPhase),
}

/// The user's side of a withdrawal. The preimage stays in the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserWithdrawal {
    terms: WithdrawalTerms,
    times: WithdrawalTimes,
    phase: UserWithdrawalPhase,
}

impl UserWithdrawal {
    /// Agrees to `terms` at `best`: from here on the user may pay.
    ///
    /// # Errors
    ///
    /// [`WithdrawalRejection`] if they are not safe.
    pub fn new(
        terms: WithdrawalTerms,
        best: absolute::Height,
    ) -> Result<Self, WithdrawalRejection> {
        let times = terms.check(best)?;
        Ok(Self { terms, times, phase: UserWithdrawalPhase::Paying })
    }

    /// Returns where it stands.
    pub fn phase(&self) -> UserWithdrawalPhase {
        self.phase
    }

    /// Decides about an input. Changes nothing by itself.
    ///
    /// # Errors
    ///
    /// [`WithdrawalRejection`] if the input is wrong or out of order.
    pub fn decide(
        &self,
        input: UserWithdrawalInput,
    ) -> Result<Decision<UserWithdrawalEvent, UserWithdrawalEffect>, WithdrawalRejection> {
        use UserWithdrawalPhase as Phase;
        let enter = |phase, effect| Ok(Decision::one(UserWithdrawalEvent::Entered(phase), effect));
        match (input, self.phase) {
            (
                UserWithdrawalInput::OutputConfirmed { outpoint, output, at },
                Phase::Paying | Phase::Confirmed { .. },
            ) => {
                let expected = self.terms.output()?;
                if output != expected {
                    let (actual, expected) = (Box::new(output), Box::new(expected));
                    return Err(WithdrawalRejection::WrongOutput { actual, expected });
                }
                enter(Phase::Confirmed { outpoint, at }, None)
            }
            (UserWithdrawalInput::OutputDisconnected, Phase::Confirmed { .. }) => {
                enter(Phase::Paying, None)
            }
            (UserWithdrawalInput::Block { best }, Phase::Confirmed { outpoint, at })
                if is_deep(at, best, BURIED_DEPTH) && self.times.may_reveal(best) =>
            {
                let phase = Phase::Revealed { outpoint, since: best };
                enter(phase, Some(UserWithdrawalEffect::RevealPreimage))
            }
            // One block for the hub to answer; the claim still has all the blocks it needs.
            (UserWithdrawalInput::Block { best }, Phase::Revealed { since, .. })
                if best > since =>
            {
                enter(Phase::Spending, Some(UserWithdrawalEffect::ClaimByPreimage))
            }
            (UserWithdrawalInput::KeyHandedOver, Phase::Revealed { .. }) => {
                enter(Phase::Spending, Some(UserWithdrawalEffect::SpendByKey))
            }
            (UserWithdrawalInput::SpendConfirmed, Phase::Spending) => enter(Phase::Settled, None),
            (UserWithdrawalInput::PaymentFailed, Phase::Paying | Phase::Confirmed { .. }) => {
                enter(Phase::Over, None)
            }
            (UserWithdrawalInput::SpendConfirmed, Phase::Paying | Phase::Over) => {
                Err(WithdrawalRejection::OutOfOrder { input: "spend of nothing" })
            }
            (UserWithdrawalInput::KeyHandedOver, Phase::Paying | Phase::Confirmed { .. }) => {
                Err(WithdrawalRejection::OutOfOrder { input: "key before the preimage" })
            }
            _ => Ok(Decision::nothing()),
        }
    }

    /// Applies an event that [`Self::decide`] returned, or that a journal kept.
    pub fn apply(&mut self, event: UserWithdrawalEvent) {
        let UserWithdrawalEvent::Entered(phase) = event;
        self.phase = phase;
    }

    /// Returns what must be done again after a restart.
    pub fn unfinished_effects(&self) -> Vec<UserWithdrawalEffect> {
        match self.phase {
            UserWithdrawalPhase::Revealed { .. } => vec![UserWithdrawalEffect::RevealPreimage],
            UserWithdrawalPhase::Spending => vec![UserWithdrawalEffect::ClaimByPreimage],
            _ => vec![],
        }
    }
}
