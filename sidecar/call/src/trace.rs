//! W3C trace context through the sidecar. <https://www.w3.org/TR/trace-context/>
//!
//! Without an exporter no spans are made: what a client sent goes on as it is,
//! and where it sent nothing the answer carries the context of zeros.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::{HeaderMap, HeaderValue};

pub const TRACEPARENT: &str = "traceparent";
/// The context as gRPC carries it, too.
pub const GRPC: &str = "grpc-trace-bin";
pub const TRACESTATE: &str = "tracestate";
/// The context of a call that is not traced.
pub const NOTHING: &str = "00-00000000000000000000000000000000-0000000000000000-00";

/// The trace context of one call.
pub struct Context {
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
    /// Calls of health routes are not traced at all.
    silent: bool,
}

impl Context {
    pub fn of_http(headers: &HeaderMap, path: &str) -> Self {
        if path.contains("/healthz") {
            return Self {
                parent: None,
                state: None,
                silent: true,
            };
        }
        let parent = headers
            .get(TRACEPARENT)
            .filter(|v| is_valid(v.as_bytes()))
            .cloned();
        let state = parent
            .as_ref()
            .and_then(|_| headers.get(TRACESTATE))
            .filter(|v| v.len() <= 512)
            .cloned();
        Self {
            parent,
            state,
            silent: false,
        }
    }

    /// Adds the context to an answer that has none.
    pub fn answer_http(self, headers: &mut HeaderMap) {
        if self.silent || headers.contains_key(TRACEPARENT) {
            return;
        }
        headers.insert(
            TRACEPARENT,
            self.parent.unwrap_or(HeaderValue::from_static(NOTHING)),
        );
        if let Some(state) = self.state {
            headers.insert(TRACESTATE, state);
        }
    }
}

/// The trace that a message belongs to, as messages carry it; empty without one.
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
            .or_else(|| text(GRPC).and_then(of_binary))
            .filter(|parent| is_valid(parent.as_bytes()));
        let state = parent.as_ref().and_then(|_| text(TRACESTATE));
        Self {
            state: state.unwrap_or_default().to_owned(),
            parent: parent.unwrap_or_default(),
        }
    }
}

/// Whether the text is `version-trace-parent-flags` with ids that are not zero.
pub fn is_valid(text: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(text) else {
        return false;
    };
    let mut parts = text.split('-');
    let (Some(version), Some(trace), Some(span), Some(flags)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |part: &str| part.bytes().any(|b| b != b'0');
    hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && some(trace)
        && hex(span, 16)
        && some(span)
        && hex(flags, 2)
}

/// A `traceparent` in gRPC's binary form, as base64.
/// <https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>
pub fn to_binary(parent: &str) -> Option<String> {
    if !is_valid(parent.as_bytes()) {
        return None;
    }
    let mut parts = parent.split('-').skip(1);
    let (trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?);
    let mut bytes = vec![0, 0];
    bytes.extend(unhex(trace_id)?);
    bytes.push(1);
    bytes.extend(unhex(span_id)?);
    bytes.push(2);
    bytes.extend(unhex(flags)?);
    Some(STANDARD_NO_PAD.encode(bytes))
}

/// The reverse.
pub fn of_binary(text: &str) -> Option<String> {
    let bytes = STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .or_else(|_| STANDARD.decode(text))
        .ok()?;
    let [0, 0, rest @ ..] = bytes.as_slice() else {
        return None;
    };
    let (trace_id, rest) = rest.split_at_checked(16)?;
    let [1, rest @ ..] = rest else { return None };
    let (span_id, rest) = rest.split_at_checked(8)?;
    let flags = match rest {
        [2, flags, ..] => *flags,
        _ => 0,
    };
    Some(format!("00-{}-{}-{flags:02x}", hex(trace_id), hex(span_id)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(text.get(i..i + 2)?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity() {
        assert!(is_valid(
            b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ));
        assert!(is_valid(
            b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"
        ));
        for text in [
            NOTHING,
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "hello",
        ] {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn an_answer_always_has_a_context_except_for_health() {
        let mut answer = HeaderMap::new();
        Context::of_http(&HeaderMap::new(), "/v1.0/state/a/b").answer_http(&mut answer);
        assert_eq!(answer[TRACEPARENT], NOTHING);
        let mut answer = HeaderMap::new();
        Context::of_http(&HeaderMap::new(), "/v1.0/healthz").answer_http(&mut answer);
        assert!(answer.is_empty());
    }
}
