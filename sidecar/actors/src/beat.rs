//! Whether this process has run all the time. Its machine may stop it, or a
//! signal may: by the time it goes on, others may have its actors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two beats.
pub const PAUSE: Duration = Duration::from_millis(250);
/// A process without a beat for this long has stood still.
const LAPSE: Duration = Duration::from_secs(1);

pub struct Beat {
    start: Instant,
    /// The last one, in milliseconds since the start. 0 while there are none.
    last: AtomicU64,
}

impl Beat {
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            last: AtomicU64::new(0),
        }
    }

    pub fn beat(&self, now: Instant) {
        self.last.store(self.millis(now), Ordering::Relaxed);
    }

    /// From now on there are none, and nothing follows from that.
    pub fn stop(&self) {
        self.last.store(0, Ordering::Relaxed);
    }

    /// Whether the process has stood still since the last beat.
    pub fn has_lapsed(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        last != 0 && self.millis(now).saturating_sub(last) > LAPSE.as_millis() as u64
    }

    /// Never 0.
    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stands_still_knows_it_when_it_goes_on() {
        let start = Instant::now();
        let beat = Beat::new(start);
        let later = start + Duration::from_secs(60);
        assert!(!beat.has_lapsed(later), "nobody beats yet");
        beat.beat(later);
        assert!(!beat.has_lapsed(later + PAUSE));
        assert!(!beat.has_lapsed(later + LAPSE));
        assert!(beat.has_lapsed(later + LAPSE + PAUSE));
        beat.stop();
        assert!(!beat.has_lapsed(later + LAPSE * 9), "nobody beats any more");
    }
}
