//! The context of a call. <https://www.w3.org/TR/trace-context/>

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderValue;

pub const TRACEPARENT: &str = "traceparent";
/// The context as gRPC carries it, too.
pub const BINARY: &str = "grpc-trace-bin";
pub const TRACESTATE: &str = "tracestate";
/// The context of a call that is not traced.
pub const NOTHING: &str = "00-00000000000000000000000000000000-0000000000000000-00";

/// The same in gRPC's binary form.
pub const BINARY_NOTHING: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAQAAAAAAAAAAAgA";

/// The bit that says that the caller may have recorded the trace.
const SAMPLED: u8 = 1;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// A trace and one span of it; neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
}

impl Context {
    /// Of `version-trace-span-flags` with ids that are not zero; a later
    /// version may have more parts.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let part = |from: usize, to: usize| text.get(from..to);
        let dashes = [2, 35, 52];
        if dashes.iter().any(|at| text.get(*at) != Some(&b'-')) {
            return None;
        }
        let [version] = unhex::<1>(part(0, 2)?)?;
        let is_whole = match text.get(55) {
            None => true,
            Some(b'-') => version != 0,
            Some(_) => false,
        };
        let context = Self {
            trace_id: unhex(part(3, 35)?)?,
            span_id: unhex(part(36, 52)?)?,
            flags: unhex::<1>(part(53, 55)?)?[0],
        };
        (version != 0xff && is_whole && context.is_valid()).then_some(context)
    }

    /// Of gRPC's binary form, as base64.
    /// <https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>
    pub fn parse_binary(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|b| *b != b'=')? + 1;
        let bytes = STANDARD_NO_PAD
            .decode(&text[..end])
            .or_else(|_| STANDARD.decode(text))
            .ok()?;
        let [0, 0, rest @ ..] = bytes.as_slice() else {
            return None;
        };
        let (trace_id, rest) = rest.split_first_chunk()?;
        let [1, rest @ ..] = rest else { return None };
        let (span_id, rest) = rest.split_first_chunk()?;
        let flags = match rest {
            [2, flags, ..] => *flags,
            _ => 0,
        };
        let context = Self {
            trace_id: *trace_id,
            span_id: *span_id,
            flags,
        };
        context.is_valid().then_some(context)
    }

    fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }

    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same trace with another span.
    pub(crate) fn with_span(self, span_id: [u8; 8], sampled: bool) -> Self {
        Self {
            span_id,
            flags: (self.flags & !SAMPLED) | u8::from(sampled),
            ..self
        }
    }

    /// The ids of trace and span, in hexadecimal digits.
    pub fn ids(&self) -> (String, String) {
        (hex(&self.trace_id), hex(&self.span_id))
    }

    /// As the value of `traceparent`.
    pub fn header(&self) -> HeaderValue {
        // Hexadecimal digits and dashes only.
        HeaderValue::from_bytes(&self.bytes()).unwrap_or(HeaderValue::from_static(NOTHING))
    }

    fn bytes(&self) -> [u8; 55] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], &self.trace_id);
        write_hex(&mut text[36..52], &self.span_id);
        write_hex(&mut text[53..55], &[self.flags]);
        text
    }

    /// As the value of `grpc-trace-bin`.
    pub fn binary(&self) -> String {
        let mut bytes = [0; 29];
        bytes[2..18].copy_from_slice(&self.trace_id);
        bytes[18] = 1;
        bytes[19..27].copy_from_slice(&self.span_id);
        bytes[27] = 2;
        bytes[28] = self.flags;
        STANDARD_NO_PAD.encode(bytes)
    }

    pub fn binary_header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.binary()).ok()
    }
}

impl std::fmt::Display for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(&self.bytes()).unwrap_or(NOTHING))
    }
}

/// A `traceparent` in gRPC's binary form.
pub fn to_binary(parent: &str) -> Option<String> {
    Some(Context::parse(parent.as_bytes())?.binary())
}

/// The reverse.
pub fn of_binary(text: &str) -> Option<String> {
    Some(Context::parse_binary(text.as_bytes())?.to_string())
}

/// Whether the text is a context.
pub fn is_valid(text: &[u8]) -> bool {
    Context::parse(text).is_some()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = vec![0; bytes.len() * 2];
    write_hex(&mut text, bytes);
    String::from_utf8(text).unwrap_or_default()
}

fn write_hex(into: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in into.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
}

/// Lower case only, as the standard has it.
fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn validity() {
        assert!(is_valid(GOOD.as_bytes()));
        assert!(is_valid(
            b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"
        ));
        for text in [
            "",
            NOTHING,
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "hello",
        ] {
            assert!(!is_valid(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_context_keeps_its_ids_in_both_forms() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert_eq!(context.header(), GOOD);
        assert_eq!(of_binary(&to_binary(GOOD).unwrap()).as_deref(), Some(GOOD));
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_keeps_its_meaning(text in "[0-9a-f-]{0,60}|.{0,80}") {
            if let Some(context) = Context::parse(text.as_bytes()) {
                prop_assert_eq!(Context::parse(context.to_string().as_bytes()), Some(context));
            }
        }

        #[test]
        fn any_binary_is_refused_or_keeps_its_meaning(bytes in proptest::collection::vec(0u8..4, 0..40)) {
            let text = STANDARD.encode(&bytes);
            if let Some(context) = Context::parse_binary(text.as_bytes()) {
                prop_assert_eq!(Context::parse_binary(context.binary().as_bytes()), Some(context));
            }
        }
    }
}
