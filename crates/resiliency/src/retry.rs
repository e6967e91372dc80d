//! How long to wait before an operation is tried again, and how often.

use std::time::Duration;

use outrider_kit::random;
use tokio::time::Instant;

use crate::parse::Matching;

const FIRST: Duration = Duration::from_millis(500);
const FACTOR: f64 = 1.5;
/// Waits lie this share above or below the interval.
const JITTER: f64 = 0.5;

/// A policy that tries again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub wait: Wait,
    /// None without a limit.
    pub most: Option<u64>,
    pub matching: Matching,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Wait {
    Constant(Duration),
    /// From half a second on, half as long again each time.
    Exponential {
        longest: Duration,
        /// No wait ends later than this after the first attempt began.
        within: Duration,
    },
}

impl Wait {
    pub fn exponential(longest: Duration) -> Self {
        Wait::Exponential {
            longest,
            within: Duration::from_secs(15 * 60),
        }
    }
}

/// The waits of one operation.
pub struct Waits<'a> {
    retry: &'a Retry,
    began: Instant,
    given: u64,
    interval: Duration,
}

impl Retry {
    pub fn waits(&self) -> Waits<'_> {
        Waits {
            retry: self,
            began: Instant::now(),
            given: 0,
            interval: FIRST,
        }
    }
}

impl Waits<'_> {
    /// The next wait; none when it is time to give up.
    pub fn next(&mut self) -> Option<Duration> {
        self.next_with(random::fraction())
    }

    /// `random` is at least 0 and below 1.
    fn next_with(&mut self, random: f64) -> Option<Duration> {
        if self.retry.most.is_some_and(|most| self.given >= most) {
            return None;
        }
        self.given += 1;
        match self.retry.wait {
            Wait::Constant(wait) => Some(wait),
            Wait::Exponential { longest, within } => {
                let interval = self.interval.min(longest);
                self.interval = interval.mul_f64(FACTOR);
                let wait = interval.mul_f64(1.0 - JITTER + 2.0 * JITTER * random);
                (self.began.elapsed() + wait <= within).then_some(wait)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exponential(longest: Duration, most: Option<u64>) -> Retry {
        Retry {
            wait: Wait::exponential(longest),
            most,
            matching: Matching::default(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn intervals_grow_up_to_the_longest() {
        let retry = exponential(Duration::from_secs(1), None);
        let mut waits = retry.waits();
        let middle: Vec<u128> = (0..4)
            .map(|_| waits.next_with(0.5).unwrap().as_millis())
            .collect();
        assert_eq!(middle, [500, 750, 1000, 1000]);
        // The jitter comes after the limit.
        assert_eq!(waits.next_with(0.0).unwrap().as_millis(), 500);
        assert!(waits.next_with(0.999).unwrap().as_millis() > 1490);
        let mut short = exponential(Duration::from_millis(100), None);
        assert_eq!(
            short.waits().next_with(0.5),
            Some(Duration::from_millis(100))
        );
        short.most = Some(0);
        assert_eq!(short.waits().next(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_without_a_count_end_after_15_minutes() {
        let retry = exponential(Duration::from_secs(60), None);
        let mut waits = retry.waits();
        let began = Instant::now();
        while let Some(wait) = waits.next() {
            tokio::time::advance(wait).await;
        }
        let took = began.elapsed();
        let bounds = Duration::from_secs(13 * 60)..=Duration::from_secs(15 * 60);
        assert!(bounds.contains(&took), "{took:?}");
    }
}
