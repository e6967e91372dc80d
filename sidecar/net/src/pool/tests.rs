// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::disallowed_methods)]

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::watch;

use super::*;
use crate::body;
use crate::connection::boxed;

fn target() -> Destination {
    Destination {
        address: "callee:50002".to_owned(),
        app: None,
    }
}

/// Servers behind a pool, of which each answers `most` exchanges at once, and
/// none before it is allowed to.
struct Servers {
    dials: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    answer: watch::Sender<bool>,
    pool: Pool,
}

fn servers(most: u32) -> Servers {
    let (dials, asked) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (answer, may_answer) = watch::channel(false);
    let (counted, heard) = (dials.clone(), asked.clone());
    let pool = Pool::new(1, Scheme::HTTP, move |_: &Destination| {
        counted.fetch_add(1, Ordering::SeqCst);
        let (near, far) = tokio::io::duplex(64 << 10);
        tokio::spawn(serve(far, most, heard.clone(), may_answer.clone()));
        Box::pin(async move { Ok(boxed(near)) })
    });
    Servers {
        dials,
        asked,
        answer,
        pool,
    }
}

async fn serve(
    far: DuplexStream,
    most: u32,
    asked: Arc<AtomicUsize>,
    answer: watch::Receiver<bool>,
) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(most);
    let mut server = builder.handshake::<_, Bytes>(far).await.unwrap();
    while let Some(Ok((_, mut respond))) = server.accept().await {
        asked.fetch_add(1, Ordering::SeqCst);
        let mut answer = answer.clone();
        tokio::spawn(async move {
            answer.wait_for(|may| *may).await.unwrap();
            let _ = respond.send_response(Response::new(()), true);
        });
    }
}

impl Servers {
    fn ask(&self, calls: usize) -> tokio::task::JoinSet<Result<(), Status>> {
        let mut running = tokio::task::JoinSet::new();
        for _ in 0..calls {
            let pool = self.pool.clone();
            running.spawn(async move {
                let request = Request::new(body::empty());
                pool.send(&target(), request).await.map(drop)
            });
        }
        running
    }

    async fn asked(&self, count: usize) {
        let there = async {
            while self.asked.load(Ordering::SeqCst) < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), there)
            .await
            .unwrap_or_else(|_| panic!("{count} requests never were there at once"));
    }
}

#[tokio::test]
async fn calls_that_begin_together_share_a_connection() {
    let servers = servers(200);
    let running = servers.ask(50);
    servers.asked(50).await;
    servers.answer.send_replace(true);
    assert!(running.join_all().await.iter().all(Result::is_ok));
    assert_eq!(servers.dials.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_other_end_takes_at_once_is_not_got_round() {
    let servers = servers(100);
    let running = servers.ask(SHARED);
    servers.asked(100).await;
    // One more goes over a connection of its own.
    let another = servers.ask(1);
    servers.asked(101).await;
    assert_eq!(servers.dials.load(Ordering::SeqCst), 2);
    servers.answer.send_replace(true);
    for calls in [running, another] {
        assert!(calls.join_all().await.iter().all(Result::is_ok));
    }
    assert_eq!(servers.asked.load(Ordering::SeqCst), SHARED + 1);
}

#[tokio::test]
async fn there_is_an_end_to_connections() {
    let servers = servers(100);
    let running = servers.ask(SHARED * MOST + 1);
    servers.asked(100 * MOST).await;
    servers.answer.send_replace(true);
    assert!(running.join_all().await.iter().all(Result::is_ok));
    assert_eq!(servers.dials.load(Ordering::SeqCst), MOST);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_fails_fails_for_all_that_waited() {
    let dials = Arc::<AtomicUsize>::default();
    let counted = dials.clone();
    let pool = Pool::new(1, Scheme::HTTP, move |_: &Destination| {
        counted.fetch_add(1, Ordering::SeqCst);
        Box::pin(std::future::pending())
    });
    let calls = (0..20).map(|_| {
        let pool = pool.clone();
        async move {
            let placed = pool.place(&target()).await.map(drop);
            // What the first does then is nothing to the others.
            pool.forget(&target());
            placed
        }
    });
    let start = tokio::time::Instant::now();
    let answers = futures_util::future::join_all(calls).await;
    assert!(start.elapsed() < DIAL_LIMIT * 2);
    assert!(answers.iter().all(|answer| {
        let status = answer.as_ref().unwrap_err();
        status.message().ends_with("i/o timeout\"")
    }));
    assert_eq!(dials.load(Ordering::SeqCst), 1);
    // The next one tries for itself.
    assert!(pool.place(&target()).await.is_err());
    assert_eq!(dials.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn unused_connections_are_closed() {
    let servers = servers(200);
    let running = servers.ask(1);
    servers.asked(1).await;
    let kept = || {
        purge(&mut servers.pool.slot(), Duration::ZERO);
        servers.pool.slot().len()
    };
    assert_eq!(kept(), 1, "an exchange is open");
    servers.answer.send_replace(true);
    assert!(running.join_all().await.iter().all(Result::is_ok));
    assert_eq!(kept(), 0);
    let mut again = servers.ask(1);
    assert!(again.join_next().await.unwrap().unwrap().is_ok());
    assert_eq!(servers.dials.load(Ordering::SeqCst), 2);
}

/// Refuses the first requests unseen.
async fn refusing(far: DuplexStream, refusals: usize, answered: Arc<AtomicUsize>) {
    let mut server = h2::server::handshake(far).await.unwrap();
    let mut left = refusals;
    while let Some(Ok((request, mut respond))) = server.accept().await {
        if left > 0 {
            left -= 1;
            respond.send_reset(h2::Reason::REFUSED_STREAM);
            continue;
        }
        assert_eq!(request.headers()["name"], "value");
        answered.fetch_add(1, Ordering::SeqCst);
        respond.send_response(Response::new(()), true).unwrap();
    }
}

#[tokio::test]
async fn what_was_refused_unseen_is_sent_again() {
    for (refusals, body, goes_well) in [
        (REFUSALS, body::full("x"), true),
        (REFUSALS + 1, body::full("x"), false),
        // What passes through cannot be sent again.
        (
            1,
            body::stream(http_body_util::Full::new(Bytes::from("x"))),
            false,
        ),
    ] {
        let answered = Arc::<AtomicUsize>::default();
        let counted = answered.clone();
        let pool = Pool::new(1, Scheme::HTTP, move |_: &Destination| {
            let (near, far) = tokio::io::duplex(64 << 10);
            tokio::spawn(refusing(far, refusals, counted.clone()));
            Box::pin(async move { Ok(boxed(near)) })
        });
        let mut request = Request::new(body);
        request
            .headers_mut()
            .insert("name", "value".parse().unwrap());
        let answer = pool.send(&target(), request).await;
        assert_eq!(answer.is_ok(), goes_well);
        assert_eq!(answered.load(Ordering::SeqCst), usize::from(goes_well));
        if let Err(status) = answer {
            assert_eq!(status.code(), tonic::Code::Unavailable);
        }
    }
}
