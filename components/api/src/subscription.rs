//! What delivers messages or events, from its start to its end.

use std::future::Future;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Owns the tasks of a subscription. Dropping it stops delivery at once; messages
/// that are being handled then count as not acknowledged.
/// [`close`](Subscription::close) lets the handlers finish first.
#[derive(Debug, Default)]
pub struct Subscription {
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl Subscription {
    /// A subscription that is also stopped when `parent` is.
    pub fn new(parent: &CancellationToken) -> Subscription {
        Subscription {
            stopping: parent.child_token(),
            tasks: JoinSet::new(),
        }
    }

    /// Cancelled when no more messages are to be fetched.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Spawns a task of the subscription. It has to end soon after
    /// [`stopping`](Subscription::stopping) is cancelled.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Stops fetching, and waits for the messages that are being handled.
    pub async fn close(mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn closing_waits_for_tasks_and_dropping_aborts_them() {
        let parent = CancellationToken::new();
        let (done, finished) = tokio::sync::oneshot::channel();
        let mut subscription = Subscription::new(&parent);
        let stopping = subscription.stopping();
        subscription.spawn(async move {
            stopping.cancelled().await;
            tokio::task::yield_now().await;
            done.send(()).expect("the test waits for this");
        });
        subscription.close().await;
        finished.await.expect("closing waited for the task");

        let (kept, dropped) = tokio::sync::oneshot::channel::<()>();
        let mut subscription = Subscription::new(&parent);
        subscription.spawn(async move {
            let _kept = kept;
            std::future::pending::<()>().await;
        });
        drop(subscription);
        dropped.await.expect_err("the task was aborted");
        assert!(!parent.is_cancelled());
    }
}
