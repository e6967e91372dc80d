//! Bindings: <https://docs.dapr.io/developing-applications/building-blocks/bindings/>.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::subscription::Subscription;
use crate::{Error, Metadata, Pairs};

/// The operation that nearly every output binding has.
pub const CREATE: &str = "create";

/// A connected binding: an input, an output or both.
#[derive(Default, Clone)]
pub struct Binding {
    /// What triggers the application.
    pub input: Option<Arc<dyn Input>>,
    /// What the application invokes.
    pub output: Option<Arc<dyn Output>>,
}

impl Binding {
    /// A binding that can only trigger the application. It does not where its
    /// `direction` says so.
    pub fn of_input(metadata: &Metadata, input: impl Input + 'static) -> Arc<Binding> {
        let wanted = Directions::of(metadata).input;
        Arc::new(Binding {
            input: wanted.then(|| Arc::new(input) as _),
            output: None,
        })
    }

    /// A binding that the application can only invoke. It cannot where its
    /// `direction` says so.
    pub fn of_output(metadata: &Metadata, output: impl Output + 'static) -> Arc<Binding> {
        let wanted = Directions::of(metadata).output;
        Arc::new(Binding {
            input: None,
            output: wanted.then(|| Arc::new(output) as _),
        })
    }

    /// Ends background work and connections of both sides. No other call comes
    /// after it.
    pub async fn close(&self) -> Result<(), Error> {
        let input = match &self.input {
            Some(input) => input.close().await,
            None => Ok(()),
        };
        let output = match &self.output {
            Some(output) => output.close().await,
            None => Ok(()),
        };
        input.and(output)
    }
}

/// The sides of a binding that its component file wants: the property
/// `direction`, with `input` and `output` separated by commas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directions {
    /// Events are read.
    pub input: bool,
    /// Operations are invoked.
    pub output: bool,
    /// The file names them, instead of leaving it to what the type has.
    pub named: bool,
}

impl Directions {
    /// What the properties of a component say.
    pub fn of(metadata: &Metadata) -> Directions {
        let Some(given) = metadata.get("direction") else {
            return Directions {
                input: true,
                output: true,
                named: false,
            };
        };
        let has = |side: &str| {
            let mut sides = given.split(',').map(str::trim);
            sides.any(|given| given.eq_ignore_ascii_case(side))
        };
        Directions {
            input: has("input"),
            output: has("output"),
            named: true,
        }
    }
}

/// What an input binding read.
#[derive(Debug, Clone, Default)]
pub struct Event {
    /// The event itself.
    pub data: Bytes,
    /// What the binding knows about it.
    pub metadata: Pairs,
    /// The content type of `data`.
    pub content_type: Option<String>,
}

/// Takes the events of an input binding.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one event. `Ok` acknowledges it, with what the application
    /// answered. After an error it is not acknowledged.
    async fn handle(&self, event: Event) -> Result<Bytes, Error>;
}

/// What triggers the application.
#[async_trait]
pub trait Input: Send + Sync {
    /// Starts giving events to `handler`, until the subscription is closed or
    /// dropped, or the binding is closed.
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error>;

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Invokes an operation of an output binding.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One of [`Output::operations`].
    pub operation: String,
    /// What it works with; may be empty.
    pub data: Bytes,
    /// The client's metadata.
    pub metadata: Pairs,
}

impl Request {
    /// How long what it writes is kept: see [`time_to_live`].
    pub fn ttl(&self) -> Result<Option<Duration>, Error> {
        time_to_live(&self.metadata)
    }
}

/// The metadata `ttl` or `ttlInSeconds`, a number of seconds or a duration such
/// as `1m`.
pub fn time_to_live(metadata: &Pairs) -> Result<Option<Duration>, Error> {
    let find = |name: &str| {
        let mut pairs = metadata.iter();
        let found = pairs.find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    };
    let Some(text) = find("ttl").or_else(|| find("ttlInSeconds")) else {
        return Ok(None);
    };
    let time = match (text, text.parse::<i64>()) {
        ("", _) => return Ok(None),
        (_, Ok(seconds)) => u64::try_from(seconds).ok().map(Duration::from_secs),
        (_, Err(_)) => match outrider_kit::duration::parse_signed(text) {
            Ok(nanoseconds) => u64::try_from(nanoseconds).ok().map(Duration::from_nanos),
            Err(_) => {
                return Err(Error::invalid(format!(
                    "ttl value must be a valid integer: actual is '{text}'"
                )));
            }
        },
    };
    match time.filter(|time| !time.is_zero()) {
        Some(time) => Ok(Some(time)),
        None => Err(Error::invalid(format!(
            "ttl value must be higher than zero: actual is '{text}'"
        ))),
    }
}

/// What an output binding answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// May be empty.
    pub data: Bytes,
    /// What the binding says besides.
    pub metadata: Pairs,
    /// The content type of `data`.
    pub content_type: Option<String>,
}

impl Answer {
    /// An answer that is nothing but data.
    pub fn of_data(data: impl Into<Bytes>) -> Answer {
        Answer {
            data: data.into(),
            ..Answer::default()
        }
    }
}

/// Why an invocation failed.
#[derive(Debug)]
pub struct Failure {
    /// The cause; its text is what applications see.
    pub cause: Error,
    /// What came back nevertheless, such as an HTTP answer that says no.
    pub answer: Option<Box<Answer>>,
}

impl From<Error> for Failure {
    fn from(cause: Error) -> Failure {
        Failure {
            cause,
            answer: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }
}

/// What the application invokes.
#[async_trait]
pub trait Output: Send + Sync {
    /// The operations that there are, in the order in which errors list them.
    fn operations(&self) -> Vec<&str>;

    /// Invokes one of them. `None` where there is nothing to answer.
    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure>;

    /// Whether the backing service answers.
    async fn ping(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_seconds_or_a_duration_above_zero() {
        let ttl = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let metadata = pairs.map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let request = Request {
                metadata: metadata.collect(),
                ..Request::default()
            };
            request.ttl().map_err(|error| error.to_string())
        };
        let seconds = |n| Ok(Some(Duration::from_secs(n)));
        assert_eq!(ttl(&[]), Ok(None));
        assert_eq!(ttl(&[("ttl", "")]), Ok(None));
        assert_eq!(ttl(&[("TTLInSeconds", "5")]), seconds(5));
        assert_eq!(ttl(&[("ttl", "1m"), ("ttlInSeconds", "5")]), seconds(60));
        for text in ["0", "-1", "0s", "-5m"] {
            assert_eq!(
                ttl(&[("ttl", text)]),
                Err(format!(
                    "ttl value must be higher than zero: actual is '{text}'"
                ))
            );
        }
        assert_eq!(
            ttl(&[("ttl", "soon")]),
            Err("ttl value must be a valid integer: actual is 'soon'".to_owned())
        );
    }

    #[test]
    fn directions_are_listed_in_any_case_and_default_to_both() {
        let of = |pairs: &[(&str, &str)]| {
            let directions = Directions::of(&Metadata::new("b", pairs.iter().copied()));
            (directions.input, directions.output, directions.named)
        };
        assert_eq!(of(&[]), (true, true, false));
        assert_eq!(of(&[("Direction", "Input")]), (true, false, true));
        assert_eq!(of(&[("direction", "output , input")]), (true, true, true));
        assert_eq!(of(&[("direction", "inputs")]), (false, false, true));
        assert_eq!(of(&[("direction", "")]), (false, false, true));
    }
}
