//! What theory says about small cases, to hold the model against.

/// The share of arrivals that find all `slots` taken, at `load` arrivals per holding time.
///
/// Source: Erlang, "Solution of some Problems in the Theory of Probabilities of Significance in
/// Automatic Telephone Exchanges" (1917): the loss formula of M/M/c/c.
pub fn erlang_b(load: f64, slots: u32) -> f64 {
    (1..=slots).fold(1.0, |blocked, slot| load * blocked / (f64::from(slot) + load * blocked))
}

/// The chance that an amount passes a channel whose balance is anything from nothing to its
/// capacity with equal likelihood.
///
/// Source: Pickhardt, Tikhomirov, Biryukov, Nowostawski, "Security and Privacy of Lightning
/// Network Payments with Uncertain Channel Balances" (2021).
pub fn passes(amount: u64, capacity: u64) -> f64 {
    if amount > capacity { 0.0 } else { 1.0 - amount as f64 / (capacity as f64 + 1.0) }
}

/// The share of payments that fail on a channel that holds `units` payments, where each comes
/// from either side with equal likelihood and moves one unit.
///
/// The balance is then a walk over 0 to `units` that stays where it is at an end; it is at each
/// place equally often, and half of the payments at an end fail.
pub fn balanced_walk_fails(units: u32) -> f64 {
    1.0 / (f64::from(units) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlangs_formula_is_that_of_the_tables() {
        assert!((erlang_b(1.0, 1) - 0.5).abs() < 1e-12);
        assert!((erlang_b(2.0, 2) - 0.4).abs() < 1e-12);
        // 117 lines carry 100 erlangs with a loss of 1 %.
        assert!((erlang_b(100.0, 117) - 0.01).abs() < 5e-4);
    }

    #[test]
    fn an_amount_passes_by_its_share() {
        assert!((passes(0, 10) - 1.0).abs() < 1e-12);
        assert!((passes(10, 10) - 1.0 / 11.0).abs() < 1e-12);
        assert!(passes(11, 10).abs() < 1e-12);
    }
}
