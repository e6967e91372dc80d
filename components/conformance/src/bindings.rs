//! The suite for output bindings that keep what they are given, and what those
//! for all bindings share.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outrider_components::bindings::{Answer, Binding, CREATE, Failure, Output, Request};
use outrider_components::{Error, Pairs};

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
