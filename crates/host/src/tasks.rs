//! Tasks that end when their process does.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Owner of spawned tasks. Cloning shares it.
///
/// Stopping has two phases: the token from [`Tasks::stopping`] asks tasks to
/// finish; those still running at the deadline are dropped where they stand.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stopping: CancellationToken,
    aborting: CancellationToken,
}

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// A set whose tasks are also asked to finish when this one's are, but
    /// which can be stopped on its own before.
    pub fn child(&self) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stopping: self.stopping.child_token(),
            aborting: self.aborting.child_token(),
        }
    }

    /// Runs `task` until it ends or the set is stopped. `name` shows up in the
    /// log when it has to be dropped.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn_on(&tokio::runtime::Handle::current(), name, task);
    }

    /// The same on another runtime.
    pub fn spawn_on(
        &self,
        runtime: &tokio::runtime::Handle,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let aborting = self.aborting.clone();
        self.tracker.spawn_on(
            async move {
                tokio::select! {
                    biased;
                    () = aborting.cancelled() => tracing::debug!(target: "dapr.host", "task {name} was cut off at the end of the grace period"),
                    () = task => {}
                }
            },
            runtime,
        );
    }

    /// Cancelled when the tasks should finish.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Number of tasks still running.
    pub fn running(&self) -> usize {
        self.tracker.len()
    }

    /// Asks every task to finish and waits for them, at most `deadline` long
    /// (none: without limit). Returns whether all finished by themselves.
    pub async fn stop(&self, deadline: Option<Duration>) -> bool {
        self.tracker.close();
        self.stopping.cancel();
        let Some(deadline) = deadline else {
            self.tracker.wait().await;
            return true;
        };
        let finished = tokio::time::timeout(deadline, self.tracker.wait())
            .await
            .is_ok();
        if !finished {
            self.aborting.cancel();
            self.tracker.wait().await;
        }
        finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stop_waits_for_tasks_that_listen() {
        let tasks = Tasks::new();
        let stopping = tasks.stopping();
        tasks.spawn("listens", async move { stopping.cancelled().await });
        assert!(tasks.stop(Some(Duration::from_secs(5))).await);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn stop_drops_tasks_that_do_not() {
        let tasks = Tasks::new();
        tasks.spawn("does not listen", std::future::pending());
        assert!(!tasks.stop(Some(Duration::from_secs(1))).await);
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn a_child_stops_alone_or_with_its_parent() {
        let parent = Tasks::new();
        let (first, second) = (parent.child(), parent.child());
        first.stop(None).await;
        assert!(!parent.stopping().is_cancelled());
        parent.stop(None).await;
        assert!(second.stopping().is_cancelled());
    }
}
