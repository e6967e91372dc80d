//! Whether this process has run all the time. Its machine may stop it, or a
//! signal may: by the time it goes on, others may have its actors.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Between two beats.
pub const PAUSE: Duration = Duration::from_millis(250);
/// A process without a beat for this long has stood still.
const LAPSE: Duration = Duration::from_secs(1);

pub struct Beat {
    start: Instant,
    /// The last one, in milliseconds since the start. 0 while there are none.
    last: AtomicU64,
    /// Set by a beat that came too late, until somebody has done what follows.
    is_late: AtomicBool,
}

impl Beat {
    pub fn new(now: Instant) -> Self {
        Self {
            start: now,
            last: AtomicU64::new(0),
            is_late: AtomicBool::new(false),
        }
    }

    /// To be called each [`PAUSE`].
    pub fn beat(&self, now: Instant) {
        if self.has_lapsed(now) {
            self.is_late.store(true, Ordering::Release);
        }
        self.last.store(self.millis(now), Ordering::Release);
    }

    /// What follows from a lapse is done, or there are beats from now on.
    pub fn begin(&self, now: Instant) {
        self.last.store(self.millis(now), Ordering::Release);
        self.is_late.store(false, Ordering::Release);
    }

    /// From now on there are none, and nothing follows from that.
    pub fn stop(&self) {
        self.last.store(0, Ordering::Release);
        self.is_late.store(false, Ordering::Release);
    }

    /// Whether the process has stood still.
    pub fn has_lapsed(&self, now: Instant) -> bool {
        let last = self.last.load(Ordering::Acquire);
        let is_late =
            last != 0 && u128::from(self.millis(now).saturating_sub(last)) > LAPSE.as_millis();
        is_late || self.is_late.load(Ordering::Acquire)
    }

    /// Never 0.
    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// A thread that beats until this is dropped. It does nothing else: work that
/// takes long, of a thread that is busy, is no lapse.
pub struct Beating {
    beat: Arc<Beat>,
    is_over: Arc<AtomicBool>,
    thread: Thread,
}

impl Beating {
    pub fn start(beat: &Arc<Beat>) -> std::io::Result<Self> {
        beat.begin(Instant::now());
        let is_over = Arc::new(AtomicBool::new(false));
        let (own, over) = (beat.clone(), is_over.clone());
        let thread = std::thread::Builder::new()
            .name("beat".to_owned())
            .stack_size(64 << 10)
            .spawn(move || {
                while !over.load(Ordering::Acquire) {
                    own.beat(Instant::now());
                    std::thread::park_timeout(PAUSE);
                }
                own.stop();
            })?;
        Ok(Self {
            beat: beat.clone(),
            is_over,
            thread: thread.thread().clone(),
        })
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.thread.unpark();
        self.beat.stop();
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
        beat.begin(later);
        assert!(!beat.has_lapsed(later + PAUSE));
        assert!(!beat.has_lapsed(later + LAPSE));
        let late = later + LAPSE + PAUSE;
        assert!(beat.has_lapsed(late));
        beat.beat(late);
        assert!(beat.has_lapsed(late + PAUSE), "until what follows is done");
        beat.begin(late);
        assert!(!beat.has_lapsed(late + PAUSE));
        beat.stop();
        assert!(!beat.has_lapsed(late + LAPSE * 9), "nobody beats any more");
    }

    #[test]
    fn a_thread_beats_while_others_are_busy() {
        let beat = Arc::new(Beat::new(Instant::now()));
        let beating = Beating::start(&beat).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < LAPSE + PAUSE {
            std::hint::spin_loop();
        }
        assert!(!beat.has_lapsed(Instant::now()));
        drop(beating);
        assert!(!beat.has_lapsed(begun + LAPSE * 100));
    }
}
