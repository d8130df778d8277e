//! How often a token may call: at all, and one method.
//!
//! A bucket holds what may be called at once, a second's worth, and fills evenly. It is kept as
//! one time: when it would be full again (the generic cell rate algorithm of ATM, ITU-T I.371).
//! Narrowed tokens share the buckets of the one they came from.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::tokens::TokenId;

/// Buckets kept before those that are full are dropped.
const BUCKETS_MAX: usize = 4_096;
const SECOND: Duration = Duration::from_secs(1);

/// Calls a second; 0 is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Rates {
    /// Of one token.
    pub per_token: u32,
    /// Of one token, of one method.
    pub per_method: u32,
}

/// The buckets of all tokens.
pub(super) struct Buckets {
    rates: Rates,
    /// When each is full again; without a method, that of all of them.
    full_at: Mutex<HashMap<(TokenId, Option<String>), Instant>>,
}

impl Buckets {
    pub(super) fn new(rates: Rates) -> Self {
        Self { rates, full_at: Mutex::default() }
    }

    /// Counts a call of `method` with `token`.
    ///
    /// # Errors
    ///
    /// How long to wait; the call is not counted then.
    pub(super) fn take(&self, token: TokenId, method: &str, now: Instant) -> Result<(), Duration> {
        let mut full_at = self.full_at.lock();
        if full_at.len() >= BUCKETS_MAX {
            full_at.retain(|_, full_at| *full_at > now);
        }
        let asked = [
            (self.rates.per_token, (token, None)),
            (self.rates.per_method, (token, Some(method.to_owned()))),
        ];
        let mut after = Vec::new();
        for (rate, bucket) in asked {
            if rate == 0 {
                continue;
            }
            let full = full_at.get(&bucket).copied().unwrap_or(now).max(now);
            let full = full + SECOND / rate;
            // A bucket that is full in more than a second has nothing in it.
            let wait = full.duration_since(now).saturating_sub(SECOND);
            if wait > Duration::ZERO {
                return Err(wait);
            }
            after.push((bucket, full));
        }
        full_at.extend(after);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: TokenId = TokenId([1; 16]);
    const OTHER: TokenId = TokenId([2; 16]);

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_a_seconds_worth_and_fills_evenly() {
        let buckets = Buckets::new(Rates { per_token: 4, per_method: 0 });
        let take = || buckets.take(TOKEN, "a/B", Instant::now());
        for _ in 0..4 {
            take().unwrap();
        }
        assert_eq!(take(), Err(Duration::from_millis(250)));
        assert_eq!(take(), Err(Duration::from_millis(250)), "a refusal costs nothing");
        buckets.take(OTHER, "a/B", Instant::now()).unwrap();
        tokio::time::advance(Duration::from_millis(249)).await;
        assert_eq!(take(), Err(Duration::from_millis(1)));
        tokio::time::advance(Duration::from_millis(1)).await;
        take().unwrap();
        tokio::time::advance(Duration::from_secs(3_600)).await;
        for _ in 0..4 {
            take().unwrap();
        }
        assert!(take().is_err(), "what is not called is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn each_method_has_its_own_bucket_beside_that_of_all() {
        let buckets = Buckets::new(Rates { per_token: 3, per_method: 2 });
        let take = |method| buckets.take(TOKEN, method, Instant::now());
        take("a/B").unwrap();
        take("a/B").unwrap();
        assert_eq!(take("a/B"), Err(Duration::from_millis(500)));
        // The refused call took nothing from the bucket of all.
        take("a/C").unwrap();
        assert!(take("a/C").is_err());
        let free = Buckets::new(Rates::default());
        for _ in 0..10_000 {
            free.take(TOKEN, "a/B", Instant::now()).unwrap();
        }
        assert!(free.full_at.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn full_buckets_are_forgotten() {
        let buckets = Buckets::new(Rates { per_token: 0, per_method: 10 });
        for number in 0..BUCKETS_MAX {
            buckets.take(TOKEN, &format!("a/{number}"), Instant::now()).unwrap();
        }
        tokio::time::advance(SECOND).await;
        buckets.take(TOKEN, "a/B", Instant::now()).unwrap();
        assert_eq!(buckets.full_at.lock().len(), 1);
    }
}
