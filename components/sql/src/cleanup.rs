//! Deletes expired rows from time to time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::Error;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A clean-up that comes too early by less than this counts as on time.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Deletes the rows of one table that have expired.
#[async_trait]
pub trait Cleanup: Send + Sync + 'static {
    /// How many rows were deleted; `None` if another process that shares the
    /// database has cleaned up less than `age` milliseconds ago.
    async fn once(&self, age: i64) -> Result<Option<u64>, Error>;
}

/// Runs until `stopping` is cancelled.
pub async fn run(cleanup: impl Cleanup, interval: Duration, stopping: CancellationToken) {
    let every = outrider_kit::duration::format(interval);
    tracing::info!(target: "dapr.contrib", "Schedule expired data clean up every {every}");
    let age = interval.saturating_sub(TOLERANCE).as_millis();
    let age = i64::try_from(age).unwrap_or(i64::MAX);
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stopping.cancelled() => return,
        }
        match cleanup.once(age).await {
            Ok(Some(rows)) => {
                tracing::info!(target: "dapr.contrib", "Removed {rows} expired rows");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(target: "dapr.contrib", "Error removing expired data: {error}");
            }
        }
    }
}

/// Cleans up in the background, in a task that ends with this.
#[derive(Default)]
pub struct Background {
    stopping: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

impl Background {
    /// Cleans up once in each `interval`; never if there is none or it is 0.
    pub fn start(cleanup: impl Cleanup, interval: Option<Duration>) -> Background {
        let background = Background::default();
        if let Some(interval) = interval.filter(|interval| !interval.is_zero()) {
            let task = run(cleanup, interval, background.stopping.clone());
            let mut tasks = background
                .tasks
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            tasks.spawn(task);
        }
        background
    }

    /// Returns when the task has ended.
    pub async fn stop(&self) {
        self.stopping.cancel();
        let mut tasks =
            std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }
}
