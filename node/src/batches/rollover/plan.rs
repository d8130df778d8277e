//! What is next in a rollover. Pure.

use channel_contracts::batch::{LeafState, UserPhase};

use crate::payments::PaymentState;

/// A channel, as far as a rollover looks at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ChannelLook {
    /// It can carry payments now.
    pub usable: bool,
    /// It is being closed.
    pub closing: bool,
    /// What we can send at most in one payment, msat.
    pub spendable_msat: u64,
    /// What we can receive, msat.
    pub receivable_msat: u64,
    /// What is ours, msat.
    pub local_msat: u64,
    /// HTLCs under way, of either direction.
    pub htlcs: u32,
}

/// Where a swap of a user stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SwapLook {
    /// The hub has not said yes or no.
    AwaitsHub {
        /// It was asked at this best block already.
        asked: bool,
    },
    /// The hub said yes; what became of the payment, once it began.
    Agreed(Option<PaymentState>),
}

/// What a user sees of a rollover at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserLook {
    /// The channel that is left, in words of its batch.
    pub leaf: LeafState,
    /// It, if LDK still has it.
    pub old: Option<ChannelLook>,
    /// The newer wish, if there is one, and its channel.
    pub successor: Option<(UserPhase, Option<ChannelLook>)>,
    /// The swap under way.
    pub swap: Option<SwapLook>,
    /// A swap begun now would end before the old batch's deadline.
    pub in_time: bool,
    /// The hub is connected.
    pub connected: bool,
    /// Something failed at this best block already.
    pub failed: bool,
}

/// What a user does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UserStep {
    /// The rollover is over: forget it.
    End,
    /// Nothing for now.
    Wait,
    /// Ask the hub for a place in its next batch.
    Join,
    /// Begin a swap of this amount, msat.
    Begin(u64),
    /// Ask the hub, or ask it again.
    Ask,
    /// Pay leg 1, or find out what became of it.
    Pay,
    /// Forget a swap that has its outcome.
    EndSwap {
        /// The money moved.
        moved: bool,
    },
    /// Close the old channel together with the hub.
    Close,
}

impl UserLook {
    /// Says what is next.
    pub fn step(&self) -> UserStep {
        match self.swap {
            Some(SwapLook::Agreed(Some(PaymentState::Succeeded))) => {
                return UserStep::EndSwap { moved: true };
            }
            Some(SwapLook::Agreed(Some(PaymentState::Failed))) => {
                return UserStep::EndSwap { moved: false };
            }
            Some(SwapLook::Agreed(Some(_))) => return UserStep::Wait,
            Some(SwapLook::Agreed(None)) => {
                return if self.in_time {
                    UserStep::Pay
                } else {
                    UserStep::EndSwap { moved: false }
                };
            }
            Some(SwapLook::AwaitsHub { .. }) if !self.in_time => {
                return UserStep::EndSwap { moved: false };
            }
            Some(SwapLook::AwaitsHub { asked }) => {
                return if self.connected && !asked { UserStep::Ask } else { UserStep::Wait };
            }
            None => {}
        }
        // Retired, or on chain after all: what is left of it is other rooms' business.
        let (LeafState::Confirmed { .. }, Some(old)) = (self.leaf, self.old) else {
            return UserStep::End;
        };
        if !self.connected || self.failed || old.closing {
            return UserStep::Wait;
        }
        let new = match self.successor {
            None | Some((UserPhase::Over(_), _)) => {
                return if self.in_time { UserStep::Join } else { UserStep::Wait };
            }
            Some((UserPhase::Leaf(LeafState::Confirmed { .. }), Some(new))) if new.usable => new,
            Some(_) => return UserStep::Wait,
        };
        let movable = old.spendable_msat.min(new.receivable_msat);
        if old.usable && movable > 0 && self.in_time {
            return UserStep::Begin(movable);
        }
        // Only an empty channel is closed: what is left in one could not be had back off chain.
        let is_empty = old.local_msat == 0 && old.htlcs == 0;
        if is_empty { UserStep::Close } else { UserStep::Wait }
    }
}

/// What a hub sees of one swap.
#[derive(Debug, Clone, Copy)]
pub(super) struct LegLook {
    /// The user's payment to it, once it arrived.
    pub first: Option<PaymentState>,
    /// Its payment to the user, once it began.
    pub second: Option<PaymentState>,
    /// Leg 1's invoice can still be paid.
    pub is_open: bool,
    /// A payment begun now would have its outcome well before leg 1 must be claimed.
    pub in_time: bool,
}

/// What a hub does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LegStep {
    /// Nothing for now.
    Wait,
    /// Pay leg 2.
    Pay,
    /// Take leg 1 with the preimage of leg 2.
    Take,
    /// Give leg 1 back.
    GiveBack,
    /// It is over: forget it.
    End,
}

impl LegLook {
    /// Says what is next.
    pub fn step(&self) -> LegStep {
        use PaymentState as S;
        match (self.first, self.second) {
            (None, _) if self.is_open => LegStep::Wait,
            (None, _) => LegStep::End,
            (Some(S::Held), None) if self.in_time => LegStep::Pay,
            (Some(S::Held), None | Some(S::Failed)) => LegStep::GiveBack,
            (Some(S::Held), Some(S::Succeeded)) => LegStep::Take,
            (Some(S::Held | S::Claiming | S::InFlight), _) => LegStep::Wait,
            // Leg 1 went back; leg 2 is watched to its end, whatever that is.
            (Some(S::Failed), Some(S::InFlight)) => LegStep::Wait,
            (Some(S::Succeeded | S::Failed), _) => LegStep::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::Height;
    use channel_contracts::batch::user::OverReason;

    use super::*;

    const CONFIRMED: LeafState = LeafState::Confirmed { at: Height::ZERO };

    fn channel(spendable_msat: u64, receivable_msat: u64) -> ChannelLook {
        ChannelLook {
            usable: true,
            closing: false,
            spendable_msat,
            receivable_msat,
            local_msat: spendable_msat,
            htlcs: 0,
        }
    }

    fn look() -> UserLook {
        UserLook {
            leaf: CONFIRMED,
            old: Some(channel(70, 30)),
            successor: Some((UserPhase::Leaf(CONFIRMED), Some(channel(0, 100)))),
            swap: None,
            in_time: true,
            connected: true,
            failed: false,
        }
    }

    #[test]
    fn a_balance_moves_before_its_channel_is_closed() {
        assert_eq!(look().step(), UserStep::Begin(70));
        let small = Some((UserPhase::Leaf(CONFIRMED), Some(channel(0, 50))));
        assert_eq!(UserLook { successor: small, ..look() }.step(), UserStep::Begin(50));
        let empty = UserLook { old: Some(channel(0, 100)), ..look() };
        assert_eq!(empty.step(), UserStep::Close);
        // Under way it is nobody's; stuck behind a limit it is still ours.
        let busy = ChannelLook { htlcs: 1, ..channel(0, 100) };
        assert_eq!(UserLook { old: Some(busy), ..look() }.step(), UserStep::Wait);
        let stuck = ChannelLook { local_msat: 1, ..channel(0, 100) };
        assert_eq!(UserLook { old: Some(stuck), ..look() }.step(), UserStep::Wait);
        let closing = ChannelLook { closing: true, ..channel(0, 100) };
        assert_eq!(UserLook { old: Some(closing), ..look() }.step(), UserStep::Wait);
    }

    #[test]
    fn nothing_moves_into_a_channel_that_is_not_there() {
        let over = Some((UserPhase::Over(OverReason::Terms), None));
        for successor in [None, over] {
            assert_eq!(UserLook { successor, ..look() }.step(), UserStep::Join);
            let late = UserLook { successor, in_time: false, ..look() };
            assert_eq!(late.step(), UserStep::Wait);
            let failed = UserLook { successor, failed: true, ..look() };
            assert_eq!(failed.step(), UserStep::Wait);
            let away = UserLook { successor, connected: false, ..look() };
            assert_eq!(away.step(), UserStep::Wait);
        }
        let forming = UserPhase::Leaf(LeafState::Funded);
        let unready = ChannelLook { usable: false, ..channel(0, 100) };
        for successor in [
            (forming, None),
            (forming, Some(channel(0, 100))),
            (UserPhase::Leaf(CONFIRMED), Some(unready)),
        ] {
            let waiting = UserLook { successor: Some(successor), ..look() };
            assert_eq!(waiting.step(), UserStep::Wait);
        }
    }

    #[test]
    fn a_swap_ends_before_anything_else_begins() {
        let with = |swap| UserLook { swap: Some(swap), ..look() };
        assert_eq!(with(SwapLook::AwaitsHub { asked: false }).step(), UserStep::Ask);
        assert_eq!(with(SwapLook::AwaitsHub { asked: true }).step(), UserStep::Wait);
        assert_eq!(with(SwapLook::Agreed(None)).step(), UserStep::Pay);
        for (state, step) in [
            (PaymentState::InFlight, UserStep::Wait),
            (PaymentState::Succeeded, UserStep::EndSwap { moved: true }),
            (PaymentState::Failed, UserStep::EndSwap { moved: false }),
        ] {
            let look = with(SwapLook::Agreed(Some(state)));
            assert_eq!(look.step(), step);
            // What became of a payment matters also when the channel is gone, or it is late.
            let gone = UserLook { old: None, leaf: LeafState::Unrolled, in_time: false, ..look };
            assert_eq!(gone.step(), step);
        }
        for swap in [SwapLook::AwaitsHub { asked: false }, SwapLook::Agreed(None)] {
            let late = UserLook { in_time: false, ..with(swap) };
            assert_eq!(late.step(), UserStep::EndSwap { moved: false });
        }
    }

    #[test]
    fn a_rollover_ends_with_its_channel() {
        for leaf in [LeafState::Retired, LeafState::Unrolled, LeafState::Dead] {
            assert_eq!(UserLook { leaf, ..look() }.step(), UserStep::End);
        }
        assert_eq!(UserLook { old: None, ..look() }.step(), UserStep::End);
    }

    #[test]
    fn a_hub_never_gives_back_what_may_still_be_taken_from_it() {
        use PaymentState as S;
        let step =
            |first, second, is_open, in_time| LegLook { first, second, is_open, in_time }.step();
        for is_open in [true, false] {
            assert_eq!(step(Some(S::Held), None, is_open, true), LegStep::Pay);
            assert_eq!(step(Some(S::Held), None, is_open, false), LegStep::GiveBack);
            for in_time in [true, false] {
                let held = |second| step(Some(S::Held), Some(second), is_open, in_time);
                assert_eq!(held(S::InFlight), LegStep::Wait);
                assert_eq!(held(S::Succeeded), LegStep::Take);
                assert_eq!(held(S::Failed), LegStep::GiveBack);
                assert_eq!(
                    step(Some(S::Claiming), Some(S::Succeeded), is_open, in_time),
                    LegStep::Wait
                );
                assert_eq!(
                    step(Some(S::Failed), Some(S::InFlight), is_open, in_time),
                    LegStep::Wait
                );
                assert_eq!(
                    step(Some(S::Succeeded), Some(S::Succeeded), is_open, in_time),
                    LegStep::End
                );
            }
        }
        assert_eq!(step(None, None, true, true), LegStep::Wait);
        assert_eq!(step(None, None, false, true), LegStep::End);
    }
}
