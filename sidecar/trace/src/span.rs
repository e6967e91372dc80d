//! One span, from its begin to its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, StatusCode};

use crate::context::Context;
use crate::export::Exporting;

pub type Name = Cow<'static, str>;

/// Bytes of one value that are kept.
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

/// What is told about a span.
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
    pub name: Name,
    pub attributes: Vec<(Name, String)>,
    pub start: SystemTime,
    pub took: Duration,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Finished {
    /// Bytes that it takes in a queue, roughly.
    pub fn size(&self) -> usize {
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| 48 + name.len() + value.len());
        256 + self.name.len() + self.state.len() + attributes.sum::<usize>()
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
        let finished = Finished {
            context: self.context,
            parent,
            state: state.unwrap_or_default().to_owned(),
            kind,
            name: Name::Borrowed(""),
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

    /// What is told about it, where somebody wants to know.
    pub fn recording(&mut self) -> Option<&mut Recording> {
        self.recording.as_deref_mut()
    }
}

impl Recording {
    pub fn name(&mut self, name: impl Into<Name>) {
        self.finished.name = cut_name(name.into());
    }

    /// Sets an attribute, if it has a value.
    pub fn set(&mut self, name: impl Into<Name>, value: impl Into<String>) {
        let (name, value) = (cut_name(name.into()), value.into());
        if value.is_empty() {
            return;
        }
        let value = cut(value);
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
            self.fail(format!("Code({status}): {reason}"));
        }
    }

    pub fn fail(&mut self, cause: impl Into<String>) {
        self.finished.error = Some(cut(cause.into()));
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

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(VALUE));
    text
}

fn cut_name(name: Name) -> Name {
    if name.len() <= VALUE {
        return name;
    }
    Name::Owned(cut(name.into_owned()))
}
