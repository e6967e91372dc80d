//! Trust anchors in objects of the API server, for webhooks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outrider_security::{Roots, TrustAnchors};
use tokio_util::sync::CancellationToken;

/// When trust anchors are written to where the API server looks for them.
pub struct Publication {
    pub anchors: TrustAnchors,
    /// After a failure.
    pub retry: Duration,
    /// After a success, for an object that others overwrite; none where that
    /// does not happen.
    pub check: Option<Duration>,
}

impl Publication {
    /// Writes now, when the trust anchors change, and at the intervals. `write`
    /// returns whether it succeeded, and logs why not.
    pub async fn run<F>(self, stopping: CancellationToken, mut write: impl FnMut(Arc<Roots>) -> F)
    where
        F: Future<Output = bool>,
    {
        let mut changes = self.anchors.subscribe();
        loop {
            let roots = changes.borrow_and_update().clone();
            let pause = match write(roots).await {
                true => self.check,
                false => Some(self.retry),
            };
            tokio::select! {
                () = stopping.cancelled() => return,
                Ok(()) = changes.changed() => {}
                () = wait(pause) => {}
            }
        }
    }
}

async fn wait(pause: Option<Duration>) {
    match pause {
        Some(pause) => tokio::time::sleep(pause).await,
        None => std::future::pending().await,
    }
}
