//! The trace that a message belongs to.

use http::HeaderMap;

use crate::context::{BINARY, TRACEPARENT, TRACESTATE, is_valid, of_binary};
use crate::span::Span;

/// As messages carry it; empty without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parent {
    pub parent: String,
    pub state: String,
}

impl Parent {
    /// Of the headers of an HTTP client or the metadata of a gRPC one.
    pub fn of_headers(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let parent = text(TRACEPARENT)
            .map(str::to_owned)
            .or_else(|| text(BINARY).and_then(of_binary))
            .filter(|parent| is_valid(parent.as_bytes()));
        let state = parent.as_ref().and_then(|_| text(TRACESTATE));
        Self {
            state: state.unwrap_or_default().to_owned(),
            parent: parent.unwrap_or_default(),
        }
    }

    pub fn of_span(span: &Span) -> Self {
        let state = span.state().and_then(|state| state.to_str().ok());
        Self {
            parent: span.context().to_string(),
            state: state.unwrap_or_default().to_owned(),
        }
    }
}
