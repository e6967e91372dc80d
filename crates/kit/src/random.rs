//! Random numbers for pauses, trace ids and the like. Not for secrets.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// A number of at least 0 and below 1.
pub fn fraction() -> f64 {
    (bits() >> 11) as f64 / (1u64 << 53) as f64
}

/// 64 random bits.
pub fn bits() -> u64 {
    // Every hasher of the standard library has keys of its own.
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_differ_and_are_below_one() {
        let all: Vec<f64> = (0..100).map(|_| fraction()).collect();
        assert!(all.iter().all(|n| (0.0..1.0).contains(n)));
        assert!(all.iter().any(|n| *n > 0.5) && all.iter().any(|n| *n < 0.5));
    }
}
