//! One span, from its begin to its end.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, StatusCode};

use crate::context::Context;
use crate::export::Exporting;
use crate::state;

pub type Name = Cow<'static, str>;

/// Bytes that are kept of one text.
const VALUE: usize = 4 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Server,
    Client,
    Producer,
}

/// A span that has begun. It ends where it is dropped.
pub struct Span {
    context: Context,
    state: Option<HeaderValue>,
    /// Present where it is sampled and somebody wants it.
    recording: Option<Box<Recording>>,
}

/// What is recorded of a span.
pub struct Recording {
    exporting: Arc<Exporting>,
    began: Instant,
    finished: Finished,
}

/// A span on its way to the collectors.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    pub context: Context,
    /// The span that caused this one; none where the trace begins here.
    pub parent: Option<[u8; 8]>,
    pub state: String,
    pub kind: Kind,
    pub name: String,
    pub attributes: Vec<(Name, String)>,
    pub start: SystemTime,
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Finished {
    /// Bytes that it takes in a queue: what is held, which may be more than
    /// what is shown.
    pub fn size(&self) -> usize {
        let texts = [&self.name, &self.state];
        let texts = texts.into_iter().chain(&self.error);
        let texts = texts.map(String::capacity);
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| held(name) + value.capacity());
        let places = self.attributes.capacity() * size_of::<(Name, String)>();
        size_of::<Self>() + places + texts.sum::<usize>() + attributes.sum::<usize>()
    }

    pub fn end(&self) -> SystemTime {
        self.start + self.took
    }
}

impl Span {
    pub(crate) fn new(context: Context, state: Option<HeaderValue>) -> Self {
        Self {
            context,
            state,
            recording: None,
        }
    }

    /// The same, which is recorded.
    pub(crate) fn recorded(
        mut self,
        parent: Option<[u8; 8]>,
        kind: Kind,
        exporting: Arc<Exporting>,
    ) -> Self {
        let state = self.state.as_ref().and_then(|state| state.to_str().ok());
        let state = state.filter(|state| state.len() <= state::MAX);
        let finished = Finished {
            context: self.context,
            parent,
            state: state.unwrap_or_default().to_owned(),
            kind,
            name: String::new(),
            attributes: Vec::new(),
            start: SystemTime::now(),
            took: Duration::ZERO,
            error: None,
        };
        let recording = Recording {
            exporting,
            began: Instant::now(),
            finished,
        };
        self.recording = Some(Box::new(recording));
        self
    }

    pub fn context(&self) -> Context {
        self.context
    }

    pub fn state(&self) -> Option<&HeaderValue> {
        self.state.as_ref()
    }

    /// What is recorded of it; none if nothing is.
    pub fn recording(&mut self) -> Option<&mut Recording> {
        self.recording.as_deref_mut()
    }
}

impl Recording {
    pub fn name(&mut self, name: impl Display) {
        self.finished.name = cut(name);
    }

    /// Sets an attribute, if it has a value.
    pub fn set(&mut self, name: impl Into<Name>, value: impl Display) {
        let (name, value) = (cut_name(name.into()), cut(value));
        if value.is_empty() {
            return;
        }
        let mut known = self.finished.attributes.iter_mut();
        match known.find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.finished.attributes.push((name, value)),
        }
    }

    /// An HTTP status that is an error makes the span one.
    pub fn answered(&mut self, status: u16) {
        if status >= 400 {
            let code = StatusCode::from_u16(status).ok();
            let reason = code.and_then(|code| code.canonical_reason());
            let reason = reason.unwrap_or("Unknown");
            self.fail(format_args!("Code({status}): {reason}"));
        }
    }

    pub fn fail(&mut self, cause: impl Display) {
        self.finished.error = Some(cut(cause));
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(recording) = self.recording.take() {
            let Recording {
                exporting,
                began,
                mut finished,
            } = *recording;
            finished.took = began.elapsed();
            exporting.take(finished);
        }
    }
}

/// The beginning of a text, as much as spans keep. The rest is not copied.
pub fn cut(text: impl Display) -> String {
    let mut begin = Begin(String::new());
    // It fails where the text is longer.
    let _ = write!(begin, "{text}");
    begin.0
}

struct Begin(String);

impl fmt::Write for Begin {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(VALUE - self.0.len());
        self.0.push_str(&text[..fits]);
        if fits < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

fn cut_name(name: Name) -> Name {
    match name {
        Name::Owned(name) if name.capacity() > VALUE => Name::Owned(cut(name)),
        name => name,
    }
}

fn held(name: &Name) -> usize {
    match name {
        Name::Borrowed(_) => 0,
        Name::Owned(name) => name.capacity(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::tests::collecting;
    use crate::sampler::Sampler;
    use crate::tracer::Tracer;

    #[test]
    fn a_span_holds_no_more_than_the_beginning_of_a_long_text() {
        let exporting = collecting();
        let tracer = Tracer::on(Sampler::parse("1").0, exporting.clone());
        let long = "\u{e4}".repeat(2 << 20);
        let mut span = tracer.start(None, None, Kind::Server).unwrap();
        let recording = span.recording().unwrap();
        recording.name(format_args!("CallLocal/a/{long}"));
        recording.set("dapr.invoke_method", &long);
        recording.set(long.clone(), "value");
        recording.fail(long.clone());
        drop(span);
        let spans = exporting.waiting();
        let finished = &spans[0];
        assert!(finished.name.starts_with("CallLocal/a/\u{e4}"));
        assert_eq!(finished.attributes[0].1.len(), VALUE);
        let error = finished.error.as_ref().unwrap();
        for text in [&finished.name, &finished.attributes[0].1, error] {
            assert!(text.capacity() <= 2 * VALUE, "{}", text.capacity());
        }
        assert!(held(&finished.attributes[1].0) <= 2 * VALUE);
    }

    #[test]
    fn the_size_counts_the_error_and_what_is_held() {
        let mut finished = crate::export::tests::span("n");
        let small = finished.size();
        finished.error = Some(String::with_capacity(10_000));
        finished.name = String::with_capacity(20_000);
        let mut value = String::with_capacity(40_000);
        value.push('v');
        finished.attributes.push(("a".into(), value));
        assert!(finished.size() >= small - 1 + 70_000, "{}", finished.size());
    }
}
