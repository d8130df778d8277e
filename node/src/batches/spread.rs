//! When the next batch expires: not with too many others, lest all their users want blocks at once.
//!
//! Whoever is not retired publishes its path in the last weeks before the expiry. The chain takes
//! the paths of some thousand users in a day without a storm of fees; so a hub lets no more users
//! than that expire within a day, and gives a batch that would be too many a later expiry.
//!
//! Source: BATCHES §11.

/// Blocks within which expiries are counted together: a day.
const WINDOW: u32 = 144;
/// By how much an expiry is put off at a time: what users have for their last claims.
const STEP: u32 = 36;

/// The first height from `earliest` on at which a batch of `users` may expire, so that no more than
/// `most` users expire within a day of it. `expiring` are the live batches: expiry and users. A
/// batch that is too large by itself has a day of its own.
pub(super) fn expiry(earliest: u32, users: usize, most: usize, expiring: &[(u32, usize)]) -> u32 {
    let crowd = |at: u32| -> usize {
        let near = expiring.iter().filter(|(expiry, _)| expiry.abs_diff(at) < WINDOW);
        near.map(|(_, users)| users).sum()
    };
    let mut at = earliest;
    while crowd(at) > 0 && crowd(at) + users > most {
        at += STEP;
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_expires_at_its_time_while_there_is_room() {
        assert_eq!(expiry(5_000, 256, 1_024, &[]), 5_000);
        assert_eq!(expiry(5_000, 256, 1_024, &[(4_990, 512), (5_010, 256)]), 5_000);
        assert_eq!(expiry(5_000, 2_000, 1_024, &[]), 5_000, "too large, and alone");
        // Full: the first step that is a day away from enough of them.
        assert_eq!(expiry(5_000, 256, 1_024, &[(4_990, 1_024)]), 5_144);
        assert_eq!(expiry(5_000, 256, 1_024, &[(4_990, 600), (5_100, 400)]), 5_144);
    }

    proptest! {
        #[test]
        fn no_day_has_more_than_it_may(sizes in proptest::collection::vec(1..=256_usize, 1..60)) {
            let mut expiring: Vec<(u32, usize)> = Vec::new();
            for (number, users) in sizes.iter().enumerate() {
                // Batches come an hour apart.
                let at = expiry(4_000 + 6 * number as u32, *users, 1_024, &expiring);
                expiring.push((at, *users));
            }
            for (at, _) in &expiring {
                let after = expiring.iter().filter(|(e, _)| (*at..at + WINDOW).contains(e));
                prop_assert!(after.map(|(_, users)| users).sum::<usize>() <= 1_024);
            }
        }
    }
}
