//! Suites for output bindings that keep what they are given and for input
//! bindings that something comes from, and what those of all bindings share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::bindings::{
    Answer, Binding, CREATE, Event, Failure, Handler, Output, Request,
};
use outrider_components::{Error, Pairs};
use tokio::sync::{Semaphore, mpsc};

/// What a binding that keeps things promises.
pub struct Keeps {
    /// The metadata that names a thing.
    pub key: &'static str,
    /// Whether a thing that is not there is an error, or else nothing.
    pub absent_is_an_error: bool,
    /// Whether `ttlInSeconds` lets things expire.
    pub expires: bool,
}

/// Invokes an operation with these metadata.
pub async fn invoke(
    output: &dyn Output,
    operation: &str,
    data: impl Into<Bytes>,
    metadata: &[(&str, &str)],
) -> Result<Option<Answer>, Failure> {
    let pairs = metadata.iter();
    let metadata: Pairs = pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let request = Request {
        operation: operation.to_owned(),
        data: data.into(),
        metadata,
    };
    output.invoke(&request).await
}

/// The output side, which has to be there.
pub fn output(binding: &Binding) -> &dyn Output {
    binding.output.as_deref().expect("an output binding")
}

/// Tests a binding with the operations `create`, `get` and `delete`, and with
/// `list` and `increment` if it has them.
pub async fn keeps(binding: &Binding, promises: &Keeps) {
    let output = output(binding);
    output.ping().await.expect("ping");
    let operations = output.operations();
    for needed in [CREATE, "get", "delete"] {
        assert!(operations.contains(&needed), "{operations:?}");
    }
    let key = crate::unique("key");
    let named = [(promises.key, key.as_str())];
    let get = async || invoke(output, "get", "", &named).await;
    let is_absent = async || match get().await {
        Ok(answer) => !promises.absent_is_an_error && answer.unwrap_or_default().data.is_empty(),
        Err(_) => promises.absent_is_an_error,
    };
    assert!(is_absent().await, "nothing is there yet");
    for data in ["first value", "a value, later"] {
        invoke(output, CREATE, data, &named).await.expect("create");
        let answer = get().await.expect("get").expect("an answer");
        assert_eq!(answer.data, data);
    }
    if operations.contains(&"list") {
        let listed = invoke(output, "list", "", &[]).await.expect("list");
        let listed = listed.expect("an answer").data;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        assert!(listed.contains(&key), "{listed}");
    }
    invoke(output, "delete", "", &named).await.expect("delete");
    assert!(is_absent().await, "it is deleted");
    if operations.contains(&"increment") {
        for _ in 0..3 {
            let answer = invoke(output, "increment", "", &named).await;
            answer.expect("increment");
        }
        let answer = get().await.expect("get").expect("an answer");
        assert_eq!(answer.data, "3");
        invoke(output, "delete", "", &named).await.expect("delete");
    }
    if promises.expires {
        let named = [named[0], ("ttlInSeconds", "1")];
        invoke(output, CREATE, "x", &named).await.expect("create");
        let answer = get().await.expect("get").expect("an answer");
        assert_eq!(answer.data, "x");
        crate::eventually("it expires", Duration::from_secs(5), is_absent).await;
        let wrong = [named[0], ("ttlInSeconds", "0")];
        assert!(invoke(output, CREATE, "x", &wrong).await.is_err());
    }
    let unnamed = invoke(output, "delete", "", &[]).await;
    assert!(unnamed.is_err(), "what is to be deleted has no name");
    binding.close().await.expect("close");
}

/// Tells of every event, and answers as often as it is let.
struct Slow {
    events: mpsc::UnboundedSender<Event>,
    answers: Semaphore,
}

#[async_trait]
impl Handler for Slow {
    async fn handle(&self, event: Event) -> Result<Bytes, Error> {
        let _ = self.events.send(event);
        let answer = self.answers.acquire().await;
        answer.map_err(|e| Error::internal(e.to_string()))?.forget();
        Ok(Bytes::new())
    }
}

/// Tests an input binding from which events come by themselves.
pub async fn reads(binding: &Binding) {
    let input = binding.input.as_deref().expect("an input binding");
    input.ping().await.expect("ping");
    for _ in 0..2 {
        let (events, mut events_rx) = mpsc::unbounded_channel();
        let handler = Arc::new(Slow {
            events,
            answers: Semaphore::new(0),
        });
        let subscription = input.read(handler.clone()).await.expect("reads");
        for _ in 0..2 {
            let event = tokio::time::timeout(Duration::from_secs(10), events_rx.recv()).await;
            event.expect("in time").expect("an event");
            handler.answers.add_permits(1);
        }
        // Closing waits for the handlers.
        handler.answers.add_permits(10_000);
        subscription.close().await;
        drop(handler);
        while events_rx.recv().await.is_some() {}
    }
    let (events, mut events_rx) = mpsc::unbounded_channel();
    let handler = Arc::new(Slow {
        events,
        answers: Semaphore::new(10_000),
    });
    let _subscription = input.read(handler).await.expect("reads");
    binding.close().await.expect("close");
    // Nothing is read from a binding that is closed.
    let ended = async { while events_rx.recv().await.is_some() {} };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    ended.expect("reading ends");
}

/// Keeps the events that arrive, and fails on the first.
struct Once {
    events: mpsc::UnboundedSender<Event>,
    failed: std::sync::atomic::AtomicBool,
}

#[async_trait]
impl Handler for Once {
    async fn handle(&self, event: Event) -> Result<Bytes, Error> {
        let _ = self.events.send(event);
        if self.failed.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Ok(Bytes::new());
        }
        Err(Error::internal("failed"))
    }
}

/// Tests a binding of both directions, where what is created is read. An event
/// whose handler failed comes again; `metadata` arrives with it.
pub async fn passes(binding: &Binding, metadata: &[(&str, &str)]) {
    let input = binding.input.as_deref().expect("an input binding");
    let output = output(binding);
    output.ping().await.expect("ping");
    let (events, mut events_rx) = mpsc::unbounded_channel();
    let handler = Arc::new(Once {
        events,
        failed: false.into(),
    });
    let subscription = input.read(handler).await.expect("reads");
    // Reading may begin in the background.
    tokio::time::sleep(Duration::from_millis(500)).await;
    invoke(output, CREATE, "an event", metadata)
        .await
        .expect("create");
    for _ in 0..2 {
        let event = tokio::time::timeout(Duration::from_secs(10), events_rx.recv()).await;
        let event = event.expect("in time").expect("an event");
        assert_eq!(event.data, "an event");
        for (name, value) in metadata {
            assert_eq!(event.metadata[*name], *value);
        }
    }
    subscription.close().await;
    let again = events_rx.recv().await;
    assert!(again.is_none(), "it was acknowledged: {again:?}");
    let unknown = invoke(output, "no such operation", "", &[]).await;
    assert!(unknown.is_err() || output.operations().len() == 1);
    binding.close().await.expect("close");
}

/// Tests that `connect` honours `direction`.
pub async fn has_directions<Connecting>(
    capable: (bool, bool),
    connect: impl Fn(&'static str) -> Connecting,
) where
    Connecting: Future<Output = Result<Arc<Binding>, Error>>,
{
    for (direction, input, output) in [
        ("input", true, false),
        ("output", false, true),
        ("input, output", true, true),
        ("sideways", false, false),
    ] {
        let binding = connect(direction).await.expect("connects");
        let has = (binding.input.is_some(), binding.output.is_some());
        assert_eq!(
            has,
            (input && capable.0, output && capable.1),
            "{direction}"
        );
        binding.close().await.expect("close");
    }
}
