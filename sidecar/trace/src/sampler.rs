//! Which traces are recorded: those whose parent is, and of those that begin
//! here a part.

use std::fmt;

/// What counts where the rate is not given or is no number.
const DEFAULT_RATE: f64 = 1e-4;

/// The part of traces that are recorded, by their ids: sidecars with the same
/// rate choose the same ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    rate: f64,
    /// Ids below this are chosen.
    bound: u64,
}

impl Sampler {
    /// Also says whether the rate is exactly 0, which turns tracing off.
    pub fn parse(rate: &str) -> (Self, bool) {
        let rate = rate.parse().unwrap_or(DEFAULT_RATE);
        // Of a number that is none, nothing is sampled.
        let part = if rate > 0.0 { rate } else { 0.0 };
        let bound = if part >= 1.0 {
            u64::MAX
        } else {
            (part * (1u64 << 63) as f64) as u64
        };
        let sampler = Self { rate: part, bound };
        (sampler, rate == 0.0)
    }

    pub fn chooses(&self, trace_id: &[u8; 16]) -> bool {
        let mut low = [0; 8];
        low.copy_from_slice(&trace_id[8..]);
        u64::from_be_bytes(low) >> 1 < self.bound
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ParentBased{root:")?;
        if self.rate >= 1.0 {
            f.write_str("AlwaysOnSampler")?;
        } else {
            write!(f, "TraceIDRatioBased{{{}}}", self.rate)?;
        }
        f.write_str(",remoteParentSampled:AlwaysOnSampler,remoteParentNotSampled:AlwaysOffSampler,localParentSampled:AlwaysOnSampler,localParentNotSampled:AlwaysOffSampler}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(rate: &str) -> usize {
        let (sampler, _) = Sampler::parse(rate);
        let ids = (0..=255u8).map(|n| {
            let mut id = [1; 16];
            id[8] = n;
            id
        });
        ids.filter(|id| sampler.chooses(id)).count()
    }

    #[test]
    fn the_rate_is_the_part_that_is_chosen() {
        assert_eq!(chosen("1"), 256);
        assert_eq!(chosen("2"), 256);
        assert_eq!(chosen("0.5"), 128);
        assert_eq!(chosen("0"), 0);
        assert_eq!(chosen("-1"), 0);
        assert_eq!(chosen("nan"), 0);
    }

    #[test]
    fn only_zero_turns_tracing_off() {
        assert!(Sampler::parse("0").1 && Sampler::parse("0.0").1);
        for rate in ["", "abc", "-1", "1", "0.0001"] {
            assert!(!Sampler::parse(rate).1, "{rate}");
        }
    }

    #[test]
    fn the_log_says_how_it_samples() {
        let text = |rate: &str| Sampler::parse(rate).0.to_string();
        assert!(text("0").starts_with("ParentBased{root:TraceIDRatioBased{0},"));
        assert!(text("").starts_with("ParentBased{root:TraceIDRatioBased{0.0001},"));
        assert!(text("1").starts_with("ParentBased{root:AlwaysOnSampler,"));
    }
}
