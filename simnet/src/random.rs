//! Numbers from a seed, the same on every machine.
//!
//! Logarithms come from `libm`, not from the system, whose last digits differ between machines.

/// SplitMix64: small, seeded, the same on every machine.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A stream of its own under `seed`, one for each `label`.
    pub fn stream(seed: u64, label: u64) -> Self {
        let mut mixed = Self(seed ^ label.wrapping_mul(0xd134_2543_de82_ef95));
        let start = mixed.number() ^ seed.rotate_left(32);
        Self(start)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// One of `items`, which must not be empty.
    pub fn choose<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or(0)]
    }

    /// A place in a list of `length`, which must not be 0.
    pub fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// Evenly from 0 up to, without, 1; 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed around `mean`.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -libm::log(1.0 - self.unit()) * mean
    }

    /// Normally distributed, mean 0 and deviation 1.
    ///
    /// Source: Box, Muller, "A Note on the Generation of Random Normal Deviates" (1958).
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.unit()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, label| Random::stream(seed, label).number();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
    }

    #[test]
    fn means_are_as_asked() {
        let mut random = Random::new(1);
        let count = 100_000;
        let exponential: f64 = (0..count).map(|_| random.exponential(5.0)).sum();
        let normal: f64 = (0..count).map(|_| random.normal()).sum();
        let squares: f64 = (0..count).map(|_| random.normal().powi(2)).sum();
        assert!((exponential / f64::from(count) - 5.0).abs() < 0.1);
        assert!((normal / f64::from(count)).abs() < 0.02);
        assert!((squares / f64::from(count) - 1.0).abs() < 0.02);
    }
}
