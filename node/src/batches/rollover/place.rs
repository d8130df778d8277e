//! What a place in a batch costs, and when it is paid: by the balance that moves into it. Pure.
//!
//! Whoever joins with nothing pays nothing. A balance pays once for its new place, and never more
//! than a third of what leaves the old channel, in however many swaps it comes.

use crate::payments::PaymentState;

/// What still is to be paid for a place, msat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Due(pub u64);

impl Due {
    /// What is left of `fee_msat` after `paid_msat`.
    pub fn after(fee_msat: u64, paid_msat: u64) -> Self {
        Self(fee_msat.saturating_sub(paid_msat))
    }

    /// What is left of `fee_msat` after `paid_msat` and what is under way: `swaps`, each with its
    /// fee and where the payment of that stands. A swap that was only asked for, or whose payment
    /// failed, brings nothing: else asking twice would save the fee.
    pub fn beside(
        fee_msat: u64,
        paid_msat: u64,
        swaps: impl Iterator<Item = (u64, Option<PaymentState>)>,
    ) -> Self {
        let comes = swaps.filter(|(_, payment)| {
            matches!(
                payment,
                Some(PaymentState::Held | PaymentState::Claiming | PaymentState::Succeeded)
            )
        });
        Self::after(fee_msat, comes.fold(paid_msat, |paid, (fee, _)| paid.saturating_add(fee)))
    }

    /// What a swap that brings `moved_msat` into the new channel pays, msat: half of that, rounded
    /// down, at most.
    pub fn of(self, moved_msat: u64) -> u64 {
        self.0.min(moved_msat / 2)
    }

    /// The most that arrives if `leaves_msat` can leave the old channel.
    pub fn arrives(self, leaves_msat: u64) -> u64 {
        if leaves_msat / 3 >= self.0 {
            return leaves_msat - self.0;
        }
        // The most `moved` with `moved + moved / 2 <= leaves`.
        let thirds = leaves_msat % 3;
        (leaves_msat / 3) * 2 + u64::from(thirds > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_the_most_that_leaves_with_its_fee() {
        for due in (0..12).map(Due) {
            for leaves in 0..200 {
                let pays = |moved| moved + due.of(moved);
                let most = (0..=leaves).filter(|moved| pays(*moved) <= leaves).max();
                assert_eq!(Some(due.arrives(leaves)), most, "{due:?} of {leaves}");
                assert!(due.of(due.arrives(leaves)) <= leaves / 3);
            }
        }
        assert_eq!(Due(5_000).arrives(u64::MAX), u64::MAX - 5_000);
        assert_eq!(Due(u64::MAX).of(u64::MAX), u64::MAX / 2);
    }

    #[test]
    fn asking_for_a_swap_pays_nothing() {
        let due =
            |swaps: &[(u64, Option<PaymentState>)]| Due::beside(300, 50, swaps.iter().copied());
        assert_eq!(due(&[]), Due(250));
        assert_eq!(due(&[(250, None)]), Due(250), "asked for, and left");
        assert_eq!(due(&[(250, Some(PaymentState::Failed))]), Due(250));
        assert_eq!(due(&[(250, Some(PaymentState::Held))]), Due(0));
        assert_eq!(due(&[(100, Some(PaymentState::Succeeded)), (250, None)]), Due(150));
        assert_eq!(due(&[(u64::MAX, Some(PaymentState::Claiming))]), Due(0));
    }

    #[test]
    fn a_place_is_paid_once_in_however_many_swaps() {
        let fee = 1_000;
        let mut paid = 0;
        for moved in [1, 100, 500, 3_000, 100_000] {
            paid += Due::after(fee, paid).of(moved);
        }
        assert_eq!(paid, fee);
        assert_eq!(Due::after(fee, fee + 1).of(100), 0);
    }
}
