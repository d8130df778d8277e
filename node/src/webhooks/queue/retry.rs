//! When an event is tried again.

/// How long, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The wait after the first try, in ms; it doubles with each.
    pub first_ms: u64,
    /// The longest wait, in ms.
    pub longest_ms: u64,
    /// How long an event is tried, in ms.
    pub give_up_ms: u64,
}

impl RetryPolicy {
    /// How long to wait after `tries` tries, in ms: between half of what doubling gives and all of
    /// it, so that what failed together does not come back together; not less than a receiver asks
    /// for, within the longest wait.
    pub fn wait_ms(&self, tries: u32, asked_ms: Option<u64>, random: u64) -> u64 {
        let doublings = tries.saturating_sub(1).min(63);
        let whole = self.first_ms.saturating_mul(1 << doublings).min(self.longest_ms).max(1);
        let half = whole.div_ceil(2);
        let wait = half + random % (whole - half + 1);
        wait.max(asked_ms.unwrap_or(0).min(self.longest_ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { first_ms: 5_000, longest_ms: 21_600_000, give_up_ms: 259_200_000 };

    #[test]
    fn waits_double_to_the_longest() {
        // The most that randomness gives.
        let most = |tries| {
            (0..=u64::from(u16::MAX)).map(|random| POLICY.wait_ms(tries, None, random)).max()
        };
        assert_eq!(most(1), Some(5_000));
        assert_eq!(most(2), Some(10_000));
        assert_eq!(most(3), Some(20_000));
        for tries in [14, 64, 65, u32::MAX] {
            assert!(POLICY.wait_ms(tries, None, u64::MAX) <= POLICY.longest_ms, "{tries}");
            assert!(POLICY.wait_ms(tries, None, 0) >= POLICY.longest_ms / 2, "{tries}");
        }
    }

    #[test]
    fn a_receiver_is_left_alone_for_as_long_as_it_asks_within_reason() {
        assert_eq!(POLICY.wait_ms(1, Some(60_000), 0), 60_000);
        assert_eq!(POLICY.wait_ms(1, Some(u64::MAX), 0), POLICY.longest_ms);
        assert!(POLICY.wait_ms(1, Some(1), 0) >= 2_500);
    }

    proptest! {
        #[test]
        fn a_wait_lies_between_half_and_all(
            first_ms: u64, longest_ms: u64, tries: u32, random: u64,
        ) {
            let policy = RetryPolicy { first_ms, longest_ms, give_up_ms: 0 };
            let doubled = u128::from(first_ms) << tries.saturating_sub(1).min(63);
            let whole = doubled.min(u128::from(longest_ms)).max(1);
            let wait = u128::from(policy.wait_ms(tries, None, random));
            prop_assert!(wait <= whole && wait * 2 >= whole, "{wait} of {whole}");
        }
    }
}
