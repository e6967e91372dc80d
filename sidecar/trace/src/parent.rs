//! The trace that a message belongs to.

use http::HeaderMap;

use crate::context::TRACESTATE;
use crate::span::Span;
use crate::traced::{self, Wire};

/// As messages carry it; empty without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parent {
    pub parent: String,
    pub state: String,
}

impl Parent {
    /// Of the headers of an HTTP client or the metadata of a gRPC one.
    pub fn of_headers(headers: &HeaderMap, wire: Wire) -> Self {
        let found = traced::find(headers, wire);
        let Some(parent) = found.as_ref().and_then(|(_, text)| text.to_str().ok()) else {
            return Self::default();
        };
        let state = headers.get(TRACESTATE).and_then(|v| v.to_str().ok());
        Self {
            parent: parent.to_owned(),
            state: state.unwrap_or_default().to_owned(),
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
