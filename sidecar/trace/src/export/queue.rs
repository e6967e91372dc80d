//! Spans on their way to one collector. What does not fit is dropped and
//! counted: a request never waits for a collector.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::span::Finished;

/// Bytes of spans that may wait for one collector.
const MAX_BYTES: usize = 8 << 20;

/// How spans are put together.
/// <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Spans that may wait.
    pub most: usize,
    /// Spans of one batch.
    pub batch: usize,
    /// How long a span waits for others.
    pub delay: Duration,
    /// What sending a batch may take, with all tries.
    pub timeout: Duration,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            most: 2048,
            batch: 512,
            delay: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
        }
    }
}

pub struct Queue {
    pub name: &'static str,
    pub batching: Batching,
    waiting: Mutex<Waiting>,
    changed: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    spans: VecDeque<Arc<Finished>>,
    bytes: usize,
}

impl Queue {
    pub fn new(name: &'static str, batching: Batching) -> Self {
        Self {
            name,
            batching,
            waiting: Mutex::default(),
            changed: Notify::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub fn push(&self, span: Arc<Finished>) {
        let size = span.size();
        let mut waiting = self.lock();
        if waiting.spans.len() >= self.batching.most || waiting.bytes + size > MAX_BYTES {
            drop(waiting);
            self.lost(1);
            return;
        }
        waiting.bytes += size;
        waiting.spans.push_back(span);
        let number = waiting.spans.len();
        drop(waiting);
        if number == 1 || number == self.batching.batch {
            self.changed.notify_one();
        }
    }

    /// Waits until a batch is complete, or has waited long enough.
    pub async fn batch(&self) {
        while self.len() == 0 {
            self.changed.notified().await;
        }
        let full = async {
            while self.len() < self.batching.batch {
                self.changed.notified().await;
            }
        };
        // Either way there is something to send.
        let _ = tokio::time::timeout(self.batching.delay, full).await;
    }

    /// What is sent next; nothing if nothing waits.
    pub fn next(&self) -> Vec<Arc<Finished>> {
        let mut waiting = self.lock();
        let number = waiting.spans.len().min(self.batching.batch);
        let batch: Vec<_> = waiting.spans.drain(..number).collect();
        let size: usize = batch.iter().map(|span| span.size()).sum();
        waiting.bytes = waiting.bytes.saturating_sub(size);
        batch
    }

    pub fn len(&self) -> usize {
        self.lock().spans.len()
    }

    pub fn arrived(&self, number: usize) {
        self.sent.fetch_add(number as u64, Ordering::Relaxed);
    }

    pub fn lost(&self, number: usize) {
        self.dropped.fetch_add(number as u64, Ordering::Relaxed);
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
