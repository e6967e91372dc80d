//! Trust anchors in objects of the API server, for webhooks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outrider_security::{Roots, TrustAnchors};
use tokio_util::sync::CancellationToken;

/// Between two tries to write, at most.
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// When trust anchors are written to where the API server looks for them.
pub struct Publication {
    pub anchors: TrustAnchors,
    /// After a first failure; twice as long after each further one, up to
    /// 30 s.
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
        let mut retry = self.retry;
        loop {
            let roots = changes.borrow_and_update().clone();
            let pause = match write(roots).await {
                true => {
                    retry = self.retry;
                    self.check
                }
                false => {
                    let pause = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                    Some(pause)
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn roots() -> Roots {
        let mut authority = rcgen::CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        Roots::parse(&authority.self_signed(&key).unwrap().pem()).unwrap()
    }

    /// What is written within 100 seconds, with the second. The first
    /// `failures` writes fail, and after 50 seconds the anchors become `second`.
    async fn writes(
        anchors: TrustAnchors,
        second: Roots,
        failures: usize,
        check: Option<Duration>,
    ) -> Vec<(u64, String)> {
        let written = Mutex::new(Vec::new());
        let start = Instant::now();
        let publication = Publication {
            anchors: anchors.clone(),
            retry: SECOND,
            check,
        };
        let stopping = CancellationToken::new();
        let publishing = publication.run(stopping.clone(), |roots| {
            let mut written = written.lock().unwrap();
            written.push((start.elapsed().as_secs(), roots.pem().to_owned()));
            std::future::ready(written.len() > failures)
        });
        let change = async {
            tokio::time::sleep(50 * SECOND).await;
            anchors.replace(second);
            tokio::time::sleep(50 * SECOND).await;
            stopping.cancel();
        };
        tokio::join!(publishing, change);
        written.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_write_is_retried_and_a_change_is_written_at_once() {
        let (first, second) = (roots(), roots());
        let (old, new) = (first.pem().to_owned(), second.pem().to_owned());
        let written = writes(TrustAnchors::new(first), second, 2, None).await;
        let expected = [(0, &old), (1, &old), (3, &old), (50, &new)];
        assert_eq!(written, expected.map(|(at, pem)| (at, pem.clone())));
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_others_overwrite_is_written_at_each_check() {
        let written = writes(TrustAnchors::new(roots()), roots(), 0, Some(30 * SECOND)).await;
        let seconds: Vec<u64> = written.iter().map(|(at, _)| *at).collect();
        assert_eq!(seconds, [0, 30, 50, 80]);
    }
}
