//! Headers across the hops of an invocation.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::message::{Metadata, Origin};
use crate::api::trace;

pub const CALLER_ID: &str = "dapr-caller-app-id";
pub const CALLER_NAMESPACE: &str = "dapr-caller-namespace";
pub const CALLEE_ID: &str = "dapr-callee-app-id";
pub const DESTINATION: &str = "destination-app-id";
const GRPC_TRACE: &str = "grpc-trace-bin";

/// Headers that concern one connection only.
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "te",
    "trailer",
    "proxy-authorization",
    "proxy-authenticate",
];

/// HTTP's own headers, which would mean something else to gRPC.
const HTTP_ONLY: [&str; 28] = [
    "accept",
    "accept-charset",
    "accept-language",
    "accept-ranges",
    "cache-control",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "expect",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-schedule-tag-match",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "origin",
    "pragma",
    "proxy-connection",
    "referer",
    "transfer-encoding",
    "upgrade",
    "via",
    "warning",
];

/// `content-type` as `Content-Type`, which tells the callee that the header is
/// an HTTP one.
pub fn canonical(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut upper = true;
    for c in name.chars() {
        text.push(if upper {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        });
        upper = c == '-';
    }
    text
}

fn is_hop_by_hop(name: &str, named: &[String]) -> bool {
    HOP_BY_HOP.contains(&name) || named.iter().any(|n| n == name)
}

/// Headers named by `Connection`, in lower case.
fn named_by_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("connection")
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(|n| n.trim().to_ascii_lowercase())
        .filter(|n| !n.is_empty())
        .collect()
}

/// The headers of an HTTP client, on their way to another application. Who
/// calls is not for the client to say.
pub fn of_client(headers: &HeaderMap) -> Metadata {
    let named = named_by_connection(headers);
    let mut metadata = Vec::with_capacity(headers.len() + 8);
    for (name, value) in headers {
        let lower = name.as_str();
        let ours = matches!(
            lower,
            CALLER_ID
                | CALLER_NAMESPACE
                | CALLEE_ID
                | DESTINATION
                | "host"
                | "content-length"
                | "content-type"
        );
        if ours || is_hop_by_hop(lower, &named) {
            continue;
        }
        if let Ok(value) = value.to_str() {
            metadata.push((canonical(lower), value.to_owned()));
        } else {
            metadata.push((
                canonical(lower),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ));
        }
    }
    metadata
}

/// The metadata of a gRPC client; binary values as base64.
pub fn of_grpc(headers: &HeaderMap) -> Metadata {
    headers
        .iter()
        .filter(|(name, _)| {
            !matches!(
                name.as_str(),
                CALLER_ID
                    | CALLER_NAMESPACE
                    | DESTINATION
                    | "te"
                    | "grpc-status"
                    | "grpc-message"
                    | "grpc-status-details-bin"
            )
        })
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// The headers of an application's HTTP answer.
pub fn of_answer(headers: &HeaderMap) -> Metadata {
    let named = named_by_connection(headers);
    headers
        .iter()
        .filter(|(name, _)| {
            !is_hop_by_hop(name.as_str(), &named) && *name != http::header::CONTENT_LENGTH
        })
        .map(|(name, value)| {
            (
                canonical(name.as_str()),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        })
        .collect()
}

/// Metadata as HTTP headers, for an application or for a client.
pub fn to_http(metadata: Metadata, origin: Origin, into: &mut HeaderMap) {
    let parent = match origin {
        Origin::Grpc => find(&metadata, GRPC_TRACE).and_then(parse_binary_trace),
        Origin::Http => None,
    };
    let mut baggage = false;
    for (name, value) in metadata {
        // Lower case from here on.
        let name = match name.strip_prefix(':') {
            Some(pseudo) => HeaderName::try_from(format!("dapr-{pseudo}")),
            None => HeaderName::from_bytes(name.as_bytes()),
        };
        let Ok(mut name) = name else { continue };
        let lower = name.as_str();
        if lower == DESTINATION
            || lower.ends_with("-bin")
            || matches!(lower, "content-length" | "content-type")
            || HOP_BY_HOP.contains(&lower)
        {
            continue;
        }
        if lower == "baggage" && std::mem::replace(&mut baggage, true) {
            continue;
        }
        if lower.starts_with("grpc-")
            && let Ok(prefixed) = HeaderName::try_from(format!("dapr-{lower}"))
        {
            name = prefixed;
        }
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
            into.append(name, value);
        }
    }
    if let Some(parent) = parent
        && let Ok(parent) = HeaderValue::try_from(parent)
    {
        into.insert(trace::TRACEPARENT, parent);
    }
    if !into.contains_key(trace::TRACEPARENT) {
        into.insert(trace::TRACEPARENT, HeaderValue::from_static(trace::NOTHING));
    }
}

/// Metadata for a gRPC application or client.
pub fn to_grpc(metadata: &Metadata, origin: Origin, into: &mut HeaderMap) {
    for (name, value) in metadata {
        let lower = name.to_ascii_lowercase();
        if lower == DESTINATION
            || lower.starts_with(':')
            || matches!(
                lower.as_str(),
                "te" | "grpc-timeout" | "grpc-encoding" | "grpc-accept-encoding"
            )
        {
            continue;
        }
        // Spelled as HTTP spells it, or plainly of an HTTP client.
        let http = HTTP_ONLY.contains(&lower.as_str())
            && (origin == Origin::Http || name.starts_with(|c: char| c.is_ascii_uppercase()));
        if !http && lower == "content-type" {
            continue;
        }
        let name = if http { format!("dapr-{lower}") } else { lower };
        if let (Ok(name), Ok(value)) = (
            HeaderName::try_from(name),
            HeaderValue::try_from(value.as_str()),
        ) {
            into.append(name, value);
        }
    }
    if !into.contains_key(GRPC_TRACE)
        && let Some(parent) = find(metadata, trace::TRACEPARENT).and_then(binary_trace)
        && let Ok(parent) = HeaderValue::try_from(parent)
    {
        into.insert(HeaderName::from_static(GRPC_TRACE), parent);
    }
}

fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    metadata
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A `traceparent` in gRPC's binary form, as base64.
/// <https://github.com/census-instrumentation/opencensus-specs/blob/master/encodings/BinaryEncoding.md>
fn binary_trace(parent: &str) -> Option<String> {
    if !trace::is_valid(parent.as_bytes()) {
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

pub fn parse_binary_trace(text: &str) -> Option<String> {
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

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn connection_headers_and_forged_identities_stay_behind() {
        let metadata = of_client(&map(&[
            ("connection", "x-mine, close"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("dapr-caller-app-id", "forged"),
            ("x-kept", "2"),
        ]));
        assert_eq!(metadata, [("X-Kept".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn to_an_http_application() {
        let metadata = vec![
            ("grpc-timeout".to_owned(), "1S".to_owned()),
            (":authority".to_owned(), "a".to_owned()),
            ("x-bin".to_owned(), "AA".to_owned()),
            ("Baggage".to_owned(), "a=1".to_owned()),
            ("Baggage".to_owned(), "b=2".to_owned()),
            ("X-Two".to_owned(), "1".to_owned()),
            ("X-Two".to_owned(), "2".to_owned()),
        ];
        let mut headers = HeaderMap::new();
        to_http(metadata, Origin::Http, &mut headers);
        assert_eq!(headers["dapr-grpc-timeout"], "1S");
        assert_eq!(headers["dapr-authority"], "a");
        assert!(!headers.contains_key("x-bin"));
        assert_eq!(headers.get_all("baggage").iter().count(), 1);
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert_eq!(headers["traceparent"], trace::NOTHING);
    }

    #[test]
    fn to_a_grpc_application() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let metadata = vec![
            ("Cookie".to_owned(), "c".to_owned()),
            ("X-A".to_owned(), "1".to_owned()),
            ("Traceparent".to_owned(), parent.to_owned()),
        ];
        let mut headers = HeaderMap::new();
        to_grpc(&metadata, Origin::Http, &mut headers);
        assert_eq!(headers["dapr-cookie"], "c");
        assert_eq!(headers["x-a"], "1");
        let back = parse_binary_trace(headers[GRPC_TRACE].to_str().unwrap());
        assert_eq!(back.as_deref(), Some(parent));
    }
}
