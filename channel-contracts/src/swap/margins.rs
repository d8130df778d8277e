//! How the times of a swap's two legs are ordered so that neither side can take both.
//!
//! Each bound says which theft it stops. `D` is the number of transactions on the path of the
//! channel that carries the Lightning leg: whoever must claim or time out on chain needs them
//! confirmed first.
//!
//! Source: BATCHES §5.4 and §7.

use bitcoin::{absolute, relative};

use crate::batch::deadlines::{BLOCKS_PER_LEVEL, CLAIM_BUFFER};

/// Confirmations from which an output of a swap counts as buried.
pub const BURIED_DEPTH: u32 = 2;
/// Blocks within which a transaction that pays the going feerate, and is bumped, is confirmed.
pub const CONFIRM_BLOCKS: u32 = 36;
/// Blocks before its expiry at which LDK fails a held HTLC back by itself: the claim buffer and
/// three blocks of grace.
pub const FAIL_BACK_BUFFER: u32 = CLAIM_BUFFER + 3;
/// Blocks after its expiry at which LDK goes on chain to time an HTLC out.
pub const TIMEOUT_GRACE: u32 = 3;
/// Blocks on top of every bound, for blocks that come while a decision is made.
pub const MARGIN: u32 = 6;
/// Confirmations from which the end of a swap on chain is final.
pub const FINAL_DEPTH: u32 = 6;
/// Longest a refund of a deposit may take, in blocks.
pub const DEPOSIT_REFUND_BLOCKS: u16 = 1_008;
/// Blocks from a withdrawal's beginning to `T` that the batch transaction may take to be buried.
pub const WITHDRAWAL_FUND_BLOCKS: u32 = 144;

/// Why times are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarginError {
    /// The output could not be funded, buried and claimed before the refund.
    #[error("refund at {refund} leaves no {needed} blocks from {best} to fund and claim")]
    RefundTooEarly {
        /// `T`.
        refund: u32,
        /// The best block.
        best: u32,
        /// Blocks needed.
        needed: u32,
    },
    /// The Lightning leg of a withdrawal could expire before the hub learns the preimage.
    #[error("payment expires at {expiry}, less than {needed} blocks after the refund at {refund}")]
    PaymentTooShort {
        /// Its expiry.
        expiry: u32,
        /// `T`.
        refund: u32,
        /// Blocks needed between them.
        needed: u32,
    },
    /// The Lightning leg would outlive the channel's deadline.
    #[error("payment expires at {expiry}, after the channel's deadline {deadline}")]
    BeyondDeadline {
        /// Its expiry.
        expiry: u32,
        /// `U`.
        deadline: u32,
    },
    /// The user of a deposit could claim the payment and take the deposit back.
    #[error("payment expires at {expiry}, less than {needed} blocks before the refund at {refund}")]
    RefundTooClose {
        /// Its expiry.
        expiry: u32,
        /// Height from which the refund can be mined.
        refund: u32,
        /// Blocks needed between them.
        needed: u32,
    },
    /// A height is beyond what a locktime can say.
    #[error("height {height} is beyond what a locktime can say")]
    HeightOverflow {
        /// The height.
        height: u64,
    },
}

/// The times of a withdrawal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WithdrawalTimes {
    /// `T`: from here on the hub takes its output back.
    pub refund: absolute::Height,
    /// Expiry of the HTLC by which the user pays the hub.
    pub payment_expiry: absolute::Height,
}

impl WithdrawalTimes {
    /// Chooses the shortest times for a withdrawal begun at `best` over a channel of `levels`.
    ///
    /// # Errors
    ///
    /// [`MarginError::BeyondDeadline`] if the payment would outlive `deadline`, the channel's
    /// `U` (§5.3).
    pub fn choose(
        best: absolute::Height,
        levels: u32,
        deadline: absolute::Height,
    ) -> Result<Self, MarginError> {
        let refund = above(best, WITHDRAWAL_FUND_BLOCKS + Self::claim_blocks())?;
        let payment_expiry = above(refund, Self::gap(levels))?;
        let times = Self { refund, payment_expiry };
        times.check(best, levels, deadline)?;
        Ok(times)
    }

    /// Checks times at `best`, before the user pays and before the hub funds.
    ///
    /// # Errors
    ///
    /// [`MarginError`] naming the first bound that does not hold.
    pub fn check(
        &self,
        best: absolute::Height,
        levels: u32,
        deadline: absolute::Height,
    ) -> Result<(), MarginError> {
        let (refund, expiry) =
            (self.refund.to_consensus_u32(), self.payment_expiry.to_consensus_u32());
        // The user must see its output buried and its claim confirmed before T, or the hub,
        // which has the preimage by then, takes both.
        let needed = BURIED_DEPTH + Self::claim_blocks();
        if !self.may_fund(best) {
            let best = best.to_consensus_u32();
            return Err(MarginError::RefundTooEarly { refund, best, needed });
        }
        // The hub's refund may take its time to confirm, and until then the user can claim. The
        // hub, which learns the preimage from that claim, must still be able to claim the
        // payment: before LDK fails it back, on chain if need be.
        let needed = Self::gap(levels);
        if expiry.checked_sub(refund).is_none_or(|gap| gap < needed) {
            return Err(MarginError::PaymentTooShort { expiry, refund, needed });
        }
        if self.payment_expiry > deadline {
            let deadline = deadline.to_consensus_u32();
            return Err(MarginError::BeyondDeadline { expiry, deadline });
        }
        Ok(())
    }

    /// Tells whether an output funded at `best` can be buried and claimed before `T`.
    pub fn may_fund(&self, best: absolute::Height) -> bool {
        self.is_before_refund(best, BURIED_DEPTH + Self::claim_blocks())
    }

    /// Tells whether the user may reveal the preimage at `best`: its claim confirms before `T`.
    pub fn may_reveal(&self, best: absolute::Height) -> bool {
        self.is_before_refund(best, Self::claim_blocks())
    }

    /// Tells whether the hub may refund at `best`.
    pub fn may_refund(&self, best: absolute::Height) -> bool {
        best >= self.refund
    }

    fn is_before_refund(&self, best: absolute::Height, blocks: u32) -> bool {
        let last = best.to_consensus_u32().checked_add(blocks);
        last.is_some_and(|last| last <= self.refund.to_consensus_u32())
    }

    /// Blocks that the user keeps for its claim.
    fn claim_blocks() -> u32 {
        CONFIRM_BLOCKS + MARGIN
    }

    /// Blocks between `T` and the payment's expiry.
    fn gap(levels: u32) -> u32 {
        let exit = BLOCKS_PER_LEVEL.saturating_mul(levels);
        exit.saturating_add(CONFIRM_BLOCKS + FAIL_BACK_BUFFER + MARGIN)
    }
}

/// The times of a deposit whose output is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DepositTimes {
    /// Height of the block that confirmed the output.
    pub confirmed: absolute::Height,
    /// Blocks after which the user takes it back.
    pub refund: relative::Height,
    /// Transactions on the path of the channel that carries the payment.
    pub levels: u32,
}

impl DepositTimes {
    /// Returns the first height at which the refund can be mined.
    pub fn refund_height(&self) -> u32 {
        // BIP 68: an output confirmed at c with a lock of n can be spent in block c + n.
        self.confirmed.to_consensus_u32().saturating_add(u32::from(self.refund.value()))
    }

    /// Checks the expiry of the payment by which the hub pays.
    ///
    /// The user may claim that payment on chain as late as the hub's timeout confirms: grace,
    /// the path, the commitment. Only then the hub learns the preimage, and its spend of the
    /// deposit must confirm before the refund can.
    ///
    /// # Errors
    ///
    /// [`MarginError::RefundTooClose`] if it would be too late.
    pub fn check_payment(&self, expiry: absolute::Height) -> Result<(), MarginError> {
        let (expiry, refund) = (expiry.to_consensus_u32(), self.refund_height());
        let needed = self.gap();
        if refund.checked_sub(expiry).is_none_or(|gap| gap < needed) {
            return Err(MarginError::RefundTooClose { expiry, refund, needed });
        }
        Ok(())
    }

    /// Returns the latest expiry of the hub's payment, if there is one.
    pub fn payment_expiry_max(&self) -> Option<absolute::Height> {
        let last = self.refund_height().checked_sub(self.gap())?;
        absolute::Height::from_consensus(last).ok()
    }

    /// Tells whether a hub that knows the preimage must spend the deposit by itself at `best`
    /// instead of waiting for a batch transaction.
    pub fn must_claim(&self, best: absolute::Height) -> bool {
        let best = best.to_consensus_u32();
        best.saturating_add(CONFIRM_BLOCKS + MARGIN) >= self.refund_height()
    }

    /// Tells whether a refund published at `best` is mined in the next block at the earliest.
    pub fn may_refund(&self, best: absolute::Height) -> bool {
        best.to_consensus_u32().saturating_add(1) >= self.refund_height()
    }

    fn gap(&self) -> u32 {
        let steps = self.levels.saturating_add(1);
        BLOCKS_PER_LEVEL
            .saturating_mul(steps)
            .saturating_add(TIMEOUT_GRACE + 2 * CONFIRM_BLOCKS + MARGIN)
    }
}

/// Tells whether something confirmed at `at` is `depth` deep at `best`.
pub(crate) fn is_deep(at: absolute::Height, best: absolute::Height, depth: u32) -> bool {
    let (at, best) = (at.to_consensus_u32(), best.to_consensus_u32());
    best.checked_sub(at).is_some_and(|above| above.saturating_add(1) >= depth)
}

fn above(height: absolute::Height, blocks: u32) -> Result<absolute::Height, MarginError> {
    let height = u64::from(height.to_consensus_u32()) + u64::from(blocks);
    let overflow = MarginError::HeightOverflow { height };
    let height = u32::try_from(height).map_err(|_| overflow)?;
    absolute::Height::from_consensus(height).map_err(|_| overflow)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn height(height: u32) -> absolute::Height {
        absolute::Height::from_consensus(height).unwrap()
    }

    #[test]
    fn chosen_times_hold_and_one_block_less_does_not() {
        for levels in 1..=11 {
            let (best, deadline) = (height(1_000), height(3_000));
            let times = WithdrawalTimes::choose(best, levels, deadline).unwrap();
            assert_eq!(times.refund, height(1_000 + 144 + 42));
            assert!(times.may_fund(height(1_000 + 142)) && !times.may_fund(height(1_000 + 143)));
            assert!(times.may_reveal(height(1_144)) && !times.may_reveal(height(1_145)));
            let expiry = times.payment_expiry.to_consensus_u32();
            let gap = expiry - times.refund.to_consensus_u32();
            assert_eq!(gap, 36 + 39 + 6 + 6 * levels);
            let short = WithdrawalTimes { payment_expiry: height(expiry - 1), ..times };
            let refused = short.check(best, levels, deadline);
            assert!(matches!(refused, Err(MarginError::PaymentTooShort { .. })));
            let refused = times.check(best, levels, height(expiry - 1));
            assert!(matches!(refused, Err(MarginError::BeyondDeadline { .. })));
            let refused = times.check(height(1_143), levels, deadline);
            assert!(matches!(refused, Err(MarginError::RefundTooEarly { .. })));
        }
        let last = height(499_999_999);
        assert!(matches!(
            WithdrawalTimes::choose(last, 4, last),
            Err(MarginError::HeightOverflow { .. })
        ));
    }

    #[test]
    fn a_deposit_is_paid_only_long_before_its_refund() {
        let refund = relative::Height::from_height(DEPOSIT_REFUND_BLOCKS);
        let times = DepositTimes { confirmed: height(1_000), refund, levels: 4 };
        assert_eq!(times.refund_height(), 2_008);
        let last = times.payment_expiry_max().unwrap();
        assert_eq!(last, height(2_008 - 30 - 3 - 72 - 6));
        assert_eq!(times.check_payment(last), Ok(()));
        let late = height(last.to_consensus_u32() + 1);
        assert!(matches!(times.check_payment(late), Err(MarginError::RefundTooClose { .. })));
        assert!(times.must_claim(height(1_966)) && !times.must_claim(height(1_965)));
        assert!(times.may_refund(height(2_007)) && !times.may_refund(height(2_006)));
    }
}
