//! What a connection is doing, and by when it has to do something else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::BodyError;
use super::gate::{Gate, Place};
use super::limits::Limits;
use super::slots::{Id, State};

/// A late body is refused first; its connection is closed this much later if it
/// is still there.
const AFTER_BODY: Duration = Duration::from_secs(5);

/// Requests of one connection. Cloning shares it.
#[derive(Clone)]
pub(super) struct Activity(Arc<Inner>);

struct Inner {
    gate: Arc<Gate>,
    id: Id,
    requests: Mutex<Requests>,
    changed: Notify,
}

struct Requests {
    next: u64,
    /// Nothing has come yet.
    is_silent: bool,
    /// Since when the head of a request is owed.
    head: Option<Instant>,
    /// When each request began whose body is not here yet.
    receiving: BTreeMap<u64, Instant>,
    /// When each request began that is being answered.
    answering: BTreeMap<u64, Instant>,
    /// When each request began whose answer the client has to read.
    sending: BTreeMap<u64, Instant>,
    idle: Instant,
}

/// What a connection has to do in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The connection is closed then.
    Close(Instant),
    /// The connection is shut down gracefully then.
    Shutdown(Instant),
    Nothing,
}

impl Requests {
    /// Where answers are streams without end, their readers are served; else a
    /// client that does not read its answer owes that.
    fn state(&self, limits: &Limits) -> State {
        let streams = limits.answer_time.is_none() && !self.sending.is_empty();
        if self.is_silent {
            State::Silent
        } else if !self.answering.is_empty() || streams {
            State::Busy
        } else if self.head.is_some() || !self.receiving.is_empty() || !self.sending.is_empty() {
            State::Waiting
        } else {
            State::Idle
        }
    }

    fn due(&self, limits: &Limits) -> Due {
        let first = |requests: &BTreeMap<u64, Instant>| requests.values().next().copied();
        let is_served = !self.answering.is_empty() || !self.sending.is_empty();
        let head = self.head.filter(|_| !is_served);
        let head = head.map(|since| since + limits.head_time);
        let body = first(&self.receiving).zip(limits.body_time);
        let body = body.map(|(since, time)| since + time + AFTER_BODY);
        let answers = [first(&self.answering), first(&self.sending)];
        let answer = answers.into_iter().flatten().min().zip(limits.answer_time);
        let answer = answer.map(|(since, time)| since + time);
        match [head, body, answer].into_iter().flatten().min() {
            Some(at) => Due::Close(at),
            None if self.state(limits) == State::Idle => {
                Due::Shutdown(self.idle + limits.idle_time)
            }
            None => Due::Nothing,
        }
    }
}

impl Activity {
    /// Of a connection that was accepted just now.
    pub fn new(place: &Place) -> Self {
        let now = Instant::now();
        Self(Arc::new(Inner {
            gate: place.gate.clone(),
            id: place.id,
            requests: Mutex::new(Requests {
                next: 0,
                is_silent: true,
                head: Some(now),
                receiving: BTreeMap::new(),
                answering: BTreeMap::new(),
                sending: BTreeMap::new(),
                idle: now,
            }),
            changed: Notify::new(),
        }))
    }

    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    pub fn due(&self) -> Due {
        self.requests().due(&self.0.gate.limits)
    }

    /// Waits for a change of what is due.
    pub async fn changed(&self) {
        self.0.changed.notified().await;
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.0
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Requests)) {
        let mut requests = self.requests();
        let limits = &self.0.gate.limits;
        let before = requests.state(limits);
        change(&mut requests);
        let after = requests.state(limits);
        if after == State::Idle && before != State::Idle {
            requests.idle = Instant::now();
        }
        if before != after {
            self.0.gate.set(self.0.id, after);
        }
        drop(requests);
        self.0.changed.notify_one();
    }

    /// The first byte is here.
    pub fn heard(&self) {
        self.change(|requests| requests.is_silent = false);
    }

    /// Bytes came on a connection that serves one request after another.
    pub fn bytes(&self) {
        let mut requests = self.requests();
        if requests.state(&self.0.gate.limits) != State::Idle {
            return;
        }
        requests.head = Some(Instant::now());
        self.0.gate.set(self.0.id, State::Waiting);
        drop(requests);
        self.0.changed.notify_one();
    }

    /// The head of a request is here.
    pub fn request(&self) -> Arc<Request> {
        let mut number = 0;
        self.change(|requests| {
            number = requests.next;
            requests.next += 1;
            requests.head = None;
            requests.receiving.insert(number, Instant::now());
        });
        Arc::new(Request {
            activity: self.clone(),
            number,
            held: AtomicUsize::new(0),
            refused: OnceLock::new(),
        })
    }
}

/// One request, from its head to the end of its answer. Its body counts until it
/// is answered, since the handler may still hold it.
pub(super) struct Request {
    activity: Activity,
    number: u64,
    held: AtomicUsize,
    refused: OnceLock<BodyError>,
}

impl Request {
    /// Its body is here whole.
    pub fn received(&self) {
        self.activity.change(|requests| {
            if let Some(since) = requests.receiving.remove(&self.number) {
                requests.answering.insert(self.number, since);
            }
        });
    }

    /// Its answer is there, and the client has to read it. Its body is not needed
    /// any more.
    pub fn answered(&self) {
        self.release();
        self.activity.change(|requests| {
            let received = requests.answering.remove(&self.number);
            let since = received.or_else(|| requests.receiving.remove(&self.number));
            if let Some(since) = since {
                requests.sending.insert(self.number, since);
            }
        });
    }

    fn release(&self) {
        let inner = &self.activity.0;
        inner.gate.release(inner.id, self.held.swap(0, Relaxed));
    }

    /// Its body is refused: the answer is this error, whatever the handler returns.
    pub fn refuse(&self, why: BodyError) {
        let _ = self.refused.set(why);
    }

    pub fn refused(&self) -> Option<BodyError> {
        self.refused.get().copied()
    }

    /// Room for more of its body.
    pub fn hold(&self, bytes: usize) -> bool {
        let inner = &self.activity.0;
        let held = inner.gate.hold(inner.id, bytes);
        if held {
            self.held.fetch_add(bytes, Relaxed);
        }
        held
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.release();
        self.activity.change(|requests| {
            requests.receiving.remove(&self.number);
            requests.answering.remove(&self.number);
            requests.sending.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits() -> Limits {
        Limits {
            head_time: 10 * SECOND,
            body_time: Some(20 * SECOND),
            answer_time: Some(60 * SECOND),
            idle_time: 120 * SECOND,
            bodies: 100,
            ..Limits::UNAUTHENTICATED
        }
    }

    fn place(gate: &Arc<Gate>) -> Place {
        gate.admit(([127, 0, 0, 1], 1).into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_of_a_request_has_its_time() {
        let place = place(&Gate::new("test", limits()));
        let activity = Activity::new(&place);
        activity.heard();
        let start = Instant::now();
        assert_eq!(activity.due(), Due::Close(start + 10 * SECOND));
        let request = activity.request();
        assert_eq!(activity.due(), Due::Close(start + 25 * SECOND));
        request.received();
        assert_eq!(activity.due(), Due::Close(start + 60 * SECOND));
        request.answered();
        assert_eq!(activity.due(), Due::Close(start + 60 * SECOND));
        tokio::time::advance(SECOND).await;
        drop(request);
        assert_eq!(activity.due(), Due::Shutdown(start + 121 * SECOND));
        activity.bytes();
        assert_eq!(activity.due(), Due::Close(start + 11 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn later_requests_do_not_prolong_an_earlier_one() {
        let place = place(&Gate::new("test", limits()));
        let activity = Activity::new(&place);
        activity.heard();
        let start = Instant::now();
        let _slow = activity.request();
        tokio::time::advance(3 * SECOND).await;
        let good = activity.request();
        good.received();
        assert_eq!(activity.due(), Due::Close(start + 25 * SECOND));
    }

    #[tokio::test]
    async fn bodies_share_a_budget_and_the_largest_unfinished_one_makes_room() {
        let gate = Gate::new("test", limits());
        let (old, new) = (place(&gate), place(&gate));
        let (first, second) = (Activity::new(&old), Activity::new(&new));
        first.heard();
        second.heard();
        let (slow, good) = (first.request(), second.request());
        assert!(slow.hold(90));
        assert!(good.hold(20));
        assert!(old.evicted.is_cancelled() && !new.evicted.is_cancelled());
        assert!(!slow.hold(1), "it was evicted");
        drop((slow, first, old));
        assert!(good.hold(80));
        assert!(!good.hold(1), "there is nothing to evict");
        drop(good);
        assert!(second.request().hold(100));
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_its_answer_can_be_evicted() {
        let busy = |answer_time| {
            let gate = Gate::new(
                "test",
                Limits {
                    answer_time,
                    ..limits()
                },
            );
            let place = place(&gate);
            let activity = Activity::new(&place);
            activity.heard();
            let request = activity.request();
            request.received();
            request.answered();
            activity.requests().state(&gate.limits)
        };
        assert_eq!(busy(Some(SECOND)), State::Waiting);
        assert_eq!(busy(None), State::Busy);
    }
}
