//! The heights at which something must have happened, as functions of E and the path's depth.
//!
//! `D` is the number of transactions of the user's path. An exit takes `D + 1` blocks at best;
//! the deadlines leave six blocks for each and 36 on top. Whoever acts at a height acts before
//! the next block is mined: a height here is that of the best block when the decision is made.
//!
//! Source: BATCHES §5 and §6.4.

use bitcoin::absolute;

/// Blocks left for each transaction of an exit.
pub const BLOCKS_PER_LEVEL: u32 = 6;
/// Blocks before an HTLC's expiry at which LDK goes on chain for a claim (§5.4).
pub const CLAIM_BUFFER: u32 = 36;
/// Blocks between the end of the rollover window and `U` (§5.2).
pub const ROLLOVER_RESERVE: u32 = 200;
/// Blocks from confirmation to expiry of a usual batch (§2).
pub const BATCH_LIFE: u32 = 4_032;
/// CLTV of the payment that moves the balance off the old channel (§6.2), at least.
pub const ROLLOVER_FIRST_CLTV: u32 = 150;
/// CLTV of the payment that brings it back on the new channel (§6.3), at most.
pub const ROLLOVER_SECOND_CLTV_MAX: u32 = 100;
/// Blocks that an HTLC of a virtual channel has, when it arrives, before its path must be
/// published for it.
pub const ARRIVAL_MARGIN: u32 = 12;
/// Blocks that leg 1 of a rollover outlives what §6.4 demands: a hub gives a held payment back
/// some 15 blocks before LDK would have to go on chain for it.
pub const ROLLOVER_MARGIN: u32 = 24;

/// A number of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockDelta(pub u32);

/// Why there are no deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeadlineError {
    /// The batch expires before anything could be done.
    #[error(
        "a batch of {levels} levels that expires at {expiry} has no time; choose a later expiry"
    )]
    TooEarly {
        /// The expiry.
        expiry: absolute::Height,
        /// Transactions of the path.
        levels: usize,
    },
    /// The rollover window is over, or closes before both legs would expire.
    #[error("leg 1 would expire at {leg_1}, after the old channel's deadline {deadline}")]
    LegsTooLate {
        /// Height at which leg 1 would expire.
        leg_1: u32,
        /// `U` of the old channel.
        deadline: absolute::Height,
    },
    /// A height is beyond what a locktime can say.
    #[error("height {height} is beyond what a locktime can say")]
    HeightOverflow {
        /// The height.
        height: u64,
    },
}

/// The deadlines of one user's channel in one batch.
///
/// ```
/// use bitcoin::absolute::Height;
/// use channel_contracts::batch::Deadlines;
///
/// let deadlines = Deadlines::new(Height::from_consensus(904_032)?, 4)?;
/// assert_eq!(deadlines.user_deadline().to_consensus_u32(), 904_032 - 6 * 5 - 36);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadlines {
    expiry: u32,
    levels: u32,
}

/// When both legs of a rollover expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LegExpiries {
    /// Leg 1, user to hub over the old channel. Held by the hub.
    pub old_channel: absolute::Height,
    /// Leg 2, hub to user over the new channel.
    pub new_channel: absolute::Height,
}

/// An HTLC that is pending on a virtual channel, as far as an exit for it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingHtlc {
    /// `cltv_expiry`.
    pub cltv_expiry: absolute::Height,
    /// It pays us and we know its preimage.
    pub claimable: bool,
    /// The peer answers.
    pub peer_reachable: bool,
}

impl Deadlines {
    /// Makes the deadlines of a path of `levels` transactions under a batch that expires at
    /// `expiry`.
    ///
    /// # Errors
    ///
    /// [`DeadlineError::TooEarly`] if one of them would lie before the first block.
    pub fn new(expiry: absolute::Height, levels: usize) -> Result<Self, DeadlineError> {
        let too_early = DeadlineError::TooEarly { expiry, levels };
        let count = u32::try_from(levels).map_err(|_| too_early)?;
        let reserve = count
            .checked_add(1)
            .and_then(|steps| steps.checked_mul(BLOCKS_PER_LEVEL))
            .and_then(|blocks| blocks.checked_add(CLAIM_BUFFER + ROLLOVER_RESERVE))
            .ok_or(too_early)?;
        if levels == 0 || expiry.to_consensus_u32() <= reserve {
            return Err(too_early);
        }
        Ok(Self { expiry: expiry.to_consensus_u32(), levels: count })
    }

    /// Returns `E`.
    pub fn expiry(&self) -> absolute::Height {
        height(self.expiry)
    }

    /// Returns `U`: a user that is not retired publishes its path at this height (§5.1).
    pub fn user_deadline(&self) -> absolute::Height {
        height(self.expiry - BLOCKS_PER_LEVEL * (self.levels + 1) - CLAIM_BUFFER)
    }

    /// Tells whether a channel that is not retired must be unrolled at `best`.
    pub fn must_unroll(&self, best: absolute::Height) -> bool {
        best >= self.user_deadline()
    }

    /// Returns how many blocks an exit takes at best: every level, then the commitment.
    pub fn exit_blocks(&self) -> BlockDelta {
        BlockDelta(self.levels + 1)
    }

    /// Tells whether an exit begun at `best` has the leaf confirmed by `E`, if every block takes
    /// one level. An exit that does not loses to the sweep.
    pub fn exit_can_win(&self, best: absolute::Height) -> bool {
        best.to_consensus_u32().checked_add(self.levels).is_some_and(|last| last <= self.expiry)
    }

    /// Returns the first height of the rollover window: half life of a batch confirmed at
    /// `confirmed` (§5.2).
    pub fn rollover_opens(&self, confirmed: absolute::Height) -> absolute::Height {
        let confirmed = confirmed.to_consensus_u32();
        height(confirmed + self.expiry.saturating_sub(confirmed) / 2)
    }

    /// Returns the last height of the rollover window.
    pub fn rollover_ends(&self) -> absolute::Height {
        height(self.user_deadline().to_consensus_u32() - ROLLOVER_RESERVE)
    }

    /// Tells whether the rollover window is open at `best`.
    pub fn in_rollover_window(&self, confirmed: absolute::Height, best: absolute::Height) -> bool {
        (self.rollover_opens(confirmed)..=self.rollover_ends()).contains(&best)
    }

    /// Tells whether the hub may forward into the batch at `best`, if it lets payments live for
    /// `cltv_max` blocks at most (§5.3).
    pub fn may_forward(&self, best: absolute::Height, cltv_max: BlockDelta) -> bool {
        let last = self.user_deadline().to_consensus_u32().checked_sub(cltv_max.0);
        last.is_some_and(|last| best.to_consensus_u32() < last)
    }

    /// Tells whether a user may hold an HTLC with this expiry: none outlives `U` (§5.3).
    pub fn may_hold(&self, cltv_expiry: absolute::Height) -> bool {
        cltv_expiry <= self.user_deadline()
    }

    /// Tells whether the path must be published for this HTLC at `best`, without closing
    /// anything (§5.4).
    pub fn must_pre_unroll(&self, htlc: &PendingHtlc, best: absolute::Height) -> bool {
        let left = htlc.cltv_expiry.to_consensus_u32().saturating_sub(best.to_consensus_u32());
        let needs_chain = htlc.claimable || !htlc.peer_reachable;
        needs_chain && left <= CLAIM_BUFFER + BLOCKS_PER_LEVEL * self.levels
    }

    /// Returns the least `cltv_expiry_delta` of the channel (§5.5).
    pub fn cltv_expiry_delta_min(&self) -> BlockDelta {
        BlockDelta(72 + BLOCKS_PER_LEVEL * self.levels)
    }

    /// Returns the least `min_final_cltv_expiry_delta` of its invoices: [`ARRIVAL_MARGIN`] blocks
    /// above [`Deadlines::must_pre_unroll`]. The 42 + 4D of §5.5 lie below that from a depth of 4
    /// on, and every payment would publish its path.
    pub fn min_final_cltv_expiry_delta_min(&self) -> BlockDelta {
        BlockDelta(CLAIM_BUFFER + BLOCKS_PER_LEVEL * self.levels + ARRIVAL_MARGIN)
    }

    /// Returns when both legs of a rollover begun at `best` expire, if leg 2 has a CLTV of
    /// `second`; `self` is the old channel's.
    ///
    /// Margin: the hub learns the preimage from leg 2 in its last block, on chain at the latest,
    /// and must then still claim leg 1, whose leaf may be virtual: 6 blocks for each level, 36
    /// for the claim, and [`ROLLOVER_MARGIN`] (§6.4).
    ///
    /// # Errors
    ///
    /// [`DeadlineError::LegsTooLate`] if leg 1 would not expire before the old `U`.
    pub fn rollover_legs(
        &self,
        best: absolute::Height,
        second: BlockDelta,
    ) -> Result<LegExpiries, DeadlineError> {
        let best = u64::from(best.to_consensus_u32());
        let leg_2 = best + u64::from(second.0);
        let gap = CLAIM_BUFFER + BLOCKS_PER_LEVEL * self.levels + ROLLOVER_MARGIN;
        let leg_1 = (leg_2 + u64::from(gap)).max(best + u64::from(ROLLOVER_FIRST_CLTV));
        let expires = |height: u64| {
            let overflow = DeadlineError::HeightOverflow { height };
            let height = u32::try_from(height).map_err(|_| overflow)?;
            absolute::Height::from_consensus(height).map_err(|_| overflow)
        };
        let legs = LegExpiries { old_channel: expires(leg_1)?, new_channel: expires(leg_2)? };
        let deadline = self.user_deadline();
        if legs.old_channel >= deadline {
            let leg_1 = legs.old_channel.to_consensus_u32();
            return Err(DeadlineError::LegsTooLate { leg_1, deadline });
        }
        Ok(legs)
    }
}

/// Makes a height that lies below a valid one.
fn height(height: u32) -> absolute::Height {
    absolute::Height::from_consensus(height).expect("it is not above the expiry or a best block")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deadlines(levels: usize) -> Deadlines {
        Deadlines::new(height(10_000), levels).unwrap()
    }

    #[test]
    fn heights_follow_the_formulas() {
        for levels in 1..=11usize {
            let d = levels as u32;
            let deadlines = deadlines(levels);
            let u = 10_000 - 6 * (d + 1) - 36;
            assert_eq!(deadlines.user_deadline(), height(u));
            assert!(deadlines.must_unroll(height(u)) && !deadlines.must_unroll(height(u - 1)));
            assert_eq!(deadlines.rollover_ends(), height(u - 200));
            assert_eq!(deadlines.rollover_opens(height(5_968)), height(7_984));
            assert_eq!(deadlines.exit_blocks(), BlockDelta(d + 1));
            assert!(deadlines.may_forward(height(u - 1_009), BlockDelta(1_008)));
            assert!(!deadlines.may_forward(height(u - 1_008), BlockDelta(1_008)));
            assert!(deadlines.may_hold(height(u)) && !deadlines.may_hold(height(u + 1)));
            assert_eq!(deadlines.cltv_expiry_delta_min(), BlockDelta(72 + 6 * d));
            let BlockDelta(final_cltv) = deadlines.min_final_cltv_expiry_delta_min();
            assert_eq!(final_cltv, 48 + 6 * d);
            assert!(final_cltv >= 42 + 4 * d, "§5.5");
            let htlc = |cltv| PendingHtlc {
                cltv_expiry: height(cltv),
                claimable: true,
                peer_reachable: true,
            };
            assert!(!deadlines.must_pre_unroll(&htlc(1_000 + final_cltv), height(1_000)));
        }
    }

    #[test]
    fn an_exit_two_blocks_before_the_expiry_loses() {
        let deadlines = deadlines(3);
        assert!(deadlines.exit_can_win(height(9_997)));
        assert!(!deadlines.exit_can_win(height(9_998)));
        // At U there is time for every level six times over.
        assert!(deadlines.exit_can_win(deadlines.user_deadline()));
    }

    #[test]
    fn a_path_is_published_for_htlcs_that_need_the_chain() {
        let deadlines = deadlines(4);
        let htlc = |claimable, peer_reachable| PendingHtlc {
            cltv_expiry: height(5_000),
            claimable,
            peer_reachable,
        };
        let last = height(5_000 - 36 - 24);
        let before = height(5_000 - 36 - 25);
        for (claimable, reachable, needed) in
            [(true, true, true), (true, false, true), (false, false, true), (false, true, false)]
        {
            let htlc = htlc(claimable, reachable);
            assert_eq!(deadlines.must_pre_unroll(&htlc, last), needed);
            assert!(!deadlines.must_pre_unroll(&htlc, before));
            // An HTLC that has expired already needs it all the more.
            assert_eq!(deadlines.must_pre_unroll(&htlc, height(5_001)), needed);
        }
    }

    #[test]
    fn leg_1_outlives_leg_2_and_not_the_channel() {
        for levels in 1..=6usize {
            let deadlines = deadlines(levels);
            let second = BlockDelta(ROLLOVER_SECOND_CLTV_MAX);
            let legs = deadlines.rollover_legs(deadlines.rollover_ends(), second).unwrap();
            let gap = legs.old_channel.to_consensus_u32() - legs.new_channel.to_consensus_u32();
            assert!(gap >= 36 + 6 * levels as u32);
            assert!(legs.old_channel < deadlines.user_deadline());
            let late = height(deadlines.user_deadline().to_consensus_u32() - 150);
            let refused = deadlines.rollover_legs(late, BlockDelta(42));
            assert!(matches!(refused, Err(DeadlineError::LegsTooLate { .. })));
        }
    }

    #[test]
    fn a_batch_without_time_is_refused() {
        assert!(Deadlines::new(height(278), 6).is_err());
        assert!(Deadlines::new(height(279), 6).is_ok());
        assert!(Deadlines::new(height(10_000), 0).is_err());
        assert!(Deadlines::new(height(10_000), usize::MAX).is_err());
    }
}
