//! The body of an answer, whose actor is busy until its end.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use outrider_host::Tasks;
use outrider_net::body::{self, Body, BoxError};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a client may read nothing of what is there.
const UNREAD_LIMIT: Duration = Duration::from_secs(30);

struct State<G> {
    /// None once the body has broken off.
    guard: Option<G>,
    /// Whether there is something that the client has not asked for: the
    /// application does not keep it waiting.
    is_unread: bool,
    /// Counts what the client has read.
    read: u64,
}

struct Held<G> {
    body: Body,
    state: Arc<Mutex<State<G>>>,
    /// Ends the task that watches it.
    _over: DropGuard,
}

/// `body`, which keeps `guard` until its end, or until a client has stopped
/// reading: it breaks off then.
pub fn until_read<G: Send + Unpin + 'static>(body: Body, guard: G, tasks: &Tasks) -> Body {
    let state = Arc::new(Mutex::new(State {
        guard: Some(guard),
        is_unread: true,
        read: 0,
    }));
    let over = CancellationToken::new();
    let watched = state.clone();
    let watching = over.clone();
    tasks.spawn("answer of an actor", async move {
        let watch = async {
            let mut before = 0;
            loop {
                tokio::time::sleep(UNREAD_LIMIT).await;
                let mut state = locked(&watched);
                if state.is_unread && state.read == before {
                    return state.guard.take();
                }
                before = state.read;
            }
        };
        let _given_up = watching.run_until_cancelled(watch).await;
    });
    body::stream(Held {
        body,
        state,
        _over: over.drop_guard(),
    })
}

impl<G: Send + Unpin> http_body::Body for Held<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if locked(&this.state).guard.is_none() {
            let why = "the answer was not read for 30s";
            return Poll::Ready(Some(Err(why.into())));
        }
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let mut state = locked(&this.state);
        state.is_unread = polled.is_ready();
        state.read += 1;
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<G> Drop for Held<G> {
    fn drop(&mut self) {
        // The task that watches may take a while to end.
        let guard = locked(&self.state).guard.take();
        drop(guard);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;

    use super::*;

    fn held(frames: usize) -> (Body, Weak<()>) {
        let frame = || Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")));
        let frames = stream::iter((0..frames).map(move |_| frame()));
        let guard = Arc::new(());
        let weak = Arc::downgrade(&guard);
        let body = body::stream(StreamBody::new(frames));
        (until_read(body, guard, &Tasks::new()), weak)
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_reading_keeps_no_actor() {
        let (mut body, guard) = held(1000);
        body.frame().await.unwrap().unwrap();
        assert!(guard.upgrade().is_some());
        let freed = async {
            while guard.upgrade().is_some() {
                tokio::time::sleep(UNREAD_LIMIT).await;
            }
        };
        tokio::time::timeout(UNREAD_LIMIT * 4, freed).await.unwrap();
        assert!(body.frame().await.unwrap().is_err(), "it is not whole");
    }

    #[tokio::test(start_paused = true)]
    async fn an_application_may_take_its_time() {
        let late = stream::once(async {
            tokio::time::sleep(UNREAD_LIMIT * 10).await;
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x")))
        });
        let body = body::stream(StreamBody::new(late));
        let body = until_read(body, (), &Tasks::new());
        let begun = Instant::now();
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
        assert!(begun.elapsed() > UNREAD_LIMIT);
    }

    #[tokio::test]
    async fn the_end_of_a_body_frees_its_actor() {
        let (body, guard) = held(3);
        body.collect().await.unwrap();
        assert!(guard.upgrade().is_none());
    }
}
