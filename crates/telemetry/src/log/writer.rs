//! A queue of log lines that a thread of its own writes, so that logging never
//! waits for a slow reader of the log.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of lines that may wait; those beyond are dropped and counted.
const MAX_BYTES: usize = 1 << 20;
/// Room beyond that for lines that say why a process ends.
const RESERVE: usize = 64 << 10;

/// The queue of lines. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Writer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: String,
    dropped: u64,
    /// Lines were taken that are not written yet.
    is_writing: bool,
}

impl Writer {
    /// Starts the thread. It ends with the process. `report` makes the line
    /// that says how many were dropped.
    pub fn start(
        mut output: impl Write + Send + 'static,
        report: impl Fn(u64) -> String + Send + 'static,
    ) -> std::io::Result<Self> {
        let writer = Self::default();
        let shared = writer.0.clone();
        std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || {
                // Lines that could not be written count as dropped too.
                let mut lost = 0;
                loop {
                    let (lines, dropped) = shared.take();
                    lost += match output.write_all(lines.as_bytes()) {
                        Ok(()) => dropped,
                        Err(_) => dropped + lines.matches('\n').count() as u64,
                    };
                    if lost > 0 && output.write_all(report(lost).as_bytes()).is_ok() {
                        lost = 0;
                    }
                    let _ = output.flush();
                }
            })?;
        Ok(writer)
    }

    /// `must` is for lines that may not be dropped.
    pub fn write(&self, line: &str, must: bool) {
        let mut queue = self.0.lock();
        let most = if must { MAX_BYTES + RESERVE } else { MAX_BYTES };
        if queue.lines.len() + line.len() > most {
            queue.dropped += 1;
            return;
        }
        queue.lines.push_str(line);
        drop(queue);
        self.0.changed.notify_all();
    }

    /// Waits until everything is written, but no longer than `timeout`.
    pub fn flush(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        let mut queue = self.0.lock();
        while queue.is_writing || !queue.lines.is_empty() || queue.dropped > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.0.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lines that wait, and how many were dropped behind them. Waits for
    /// some.
    fn take(&self) -> (String, u64) {
        let mut queue = self.lock();
        queue.is_writing = false;
        self.changed.notify_all();
        while queue.lines.is_empty() && queue.dropped == 0 {
            let waited = self.changed.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_writing = true;
        (
            std::mem::take(&mut queue.lines),
            std::mem::take(&mut queue.dropped),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Takes a piece only when it is allowed to.
    struct Slow {
        allowed: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.allowed.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_reader_does_not_block_writers_and_dropped_lines_are_counted() {
        let (allow, allowed) = channel();
        let (written, read) = channel();
        let output = Slow { allowed, written };
        let writer = Writer::start(output, |dropped| format!("{dropped} dropped\n")).unwrap();
        let line = format!("{}\n", "x".repeat(1023));
        // One queue may be on its way out besides the one that waits.
        for _ in 0..3 * MAX_BYTES / line.len() {
            writer.write(&line, false);
        }
        writer.write("fatal\n", true);
        writer.flush(Duration::from_millis(1));
        drop(allow);
        writer.flush(Duration::from_secs(10));
        let out: Vec<u8> = read.try_iter().flatten().collect();
        let out = String::from_utf8(out).unwrap();
        let (lines, report): (Vec<&str>, Vec<&str>) =
            out.lines().partition(|line| !line.ends_with("dropped"));
        let dropped: u64 = report
            .iter()
            .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap())
            .sum();
        assert!(dropped > 0);
        assert_eq!(lines.len() as u64 + dropped, 3 * 1024 + 1);
        assert!(lines.contains(&"fatal"));
        writer.write("after\n", false);
        writer.flush(Duration::from_secs(10));
        assert_eq!(read.recv().unwrap(), b"after\n");
    }

    /// A disk that is full at first.
    struct Full {
        times: u32,
        written: Sender<Vec<u8>>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.times > 0 {
                self.times -= 1;
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted() {
        let (written, read) = channel();
        let output = Full { times: 2, written };
        let writer = Writer::start(output, |dropped| format!("{dropped} dropped\n")).unwrap();
        writer.write("one\n", false);
        writer.flush(Duration::from_secs(10));
        writer.write("two\n", false);
        writer.flush(Duration::from_secs(10));
        drop(writer);
        let out: Vec<Vec<u8>> = read.try_iter().collect();
        assert_eq!(out, [b"two\n".to_vec(), b"1 dropped\n".to_vec()]);
    }
}
