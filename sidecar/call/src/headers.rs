//! Headers across the hops of an invocation.

use std::str::Utf8Error;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_security::Peer;
use outrider_trace as trace;

use super::message::{Metadata, Origin};
use crate::token;

pub const CALLER_ID: &str = "dapr-caller-app-id";
pub const CALLER_NAMESPACE: &str = "dapr-caller-namespace";
pub const CALLEE_ID: &str = "dapr-callee-app-id";
pub const DESTINATION: &str = "destination-app-id";

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

/// Whether only sidecars may set a header: who calls whom, and their tokens.
/// Many servers read an underscore as a dash.
pub fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 5] = [
        CALLER_ID,
        CALLER_NAMESPACE,
        CALLEE_ID,
        DESTINATION,
        token::HEADER,
    ];
    let like = |reserved: &&str| {
        let mut pairs = name.bytes().zip(reserved.bytes());
        name.len() == reserved.len()
            && pairs.all(|(a, b)| a.eq_ignore_ascii_case(&b) || (a == b'_' && b == b'-'))
    };
    NAMES.iter().any(like)
}

/// Who calls whom, as applications read it; all of it is text.
pub struct Parties {
    /// None where the caller is unknown.
    pub caller: Option<Bytes>,
    pub namespace: Option<Bytes>,
    pub callee: Bytes,
}

impl Parties {
    /// Of a call by another sidecar: the certificate says who that is. Without
    /// one there are the values that it set itself, its last ones under these
    /// very names.
    pub fn of_peer(
        peer: Option<&Peer>,
        claimed: impl Fn(&str) -> Option<Bytes>,
        callee: Bytes,
    ) -> Self {
        let (caller, namespace) = match peer.and_then(|peer| peer.id.as_ref()) {
            Some(id) => {
                let workload = id.as_workload();
                (
                    workload.map(|workload| bytes(workload.app_id)),
                    workload.map(|workload| bytes(workload.namespace)),
                )
            }
            None => {
                let text = |value: &Bytes| std::str::from_utf8(value).is_ok();
                (
                    claimed(CALLER_ID).filter(text),
                    claimed(CALLER_NAMESPACE).filter(text),
                )
            }
        };
        Self {
            caller,
            namespace,
            callee,
        }
    }

    pub fn caller(&self) -> Option<&str> {
        std::str::from_utf8(self.caller.as_deref()?).ok()
    }

    fn pairs(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let pairs = [
            (CALLER_ID, self.caller.as_ref()),
            (CALLER_NAMESPACE, self.namespace.as_ref()),
            (CALLEE_ID, Some(&self.callee)),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Replaces the metadata that names caller and callee.
    pub fn set_in_metadata(&self, metadata: &mut Metadata) {
        metadata.retain(|(name, _)| !is_reserved(name));
        let pairs = self.pairs();
        metadata.extend(pairs.map(|(name, value)| (name.to_owned(), value.clone())));
    }

    /// Replaces the headers that name caller and callee.
    pub fn set_in_headers(&self, headers: &mut HeaderMap) {
        let reserved: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_reserved(name.as_str()))
            .cloned()
            .collect();
        for name in reserved {
            headers.remove(name);
        }
        for (name, value) in self.pairs() {
            if let Ok(value) = HeaderValue::from_maybe_shared(value.clone()) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
    }
}

/// A value.
pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The content type, if there is one. It has to be text, since gRPC messages
/// carry it.
pub fn content_type(headers: &HeaderMap) -> Result<Option<String>, Utf8Error> {
    let value = headers.get(http::header::CONTENT_TYPE);
    let text = value.map(|value| std::str::from_utf8(value.as_bytes()));
    Ok(text.transpose()?.map(str::to_owned))
}

/// The headers of an HTTP client, on their way to another application. Who
/// calls is not for the client to say.
pub fn of_client(headers: &HeaderMap) -> Metadata {
    let named = named_by_connection(headers);
    let mut metadata = Vec::with_capacity(headers.len() + 8);
    for (name, value) in headers {
        let lower = name.as_str();
        let ours = matches!(lower, "host" | "content-length" | "content-type");
        if ours || is_reserved(lower) || is_hop_by_hop(lower, &named) {
            continue;
        }
        let value = Bytes::copy_from_slice(value.as_bytes());
        metadata.push((canonical(lower), value));
    }
    metadata
}

/// The metadata of a gRPC client; binary values as base64. A length is that of
/// the gRPC messages and not of what is in them.
pub fn of_grpc(headers: &HeaderMap) -> Metadata {
    headers
        .iter()
        .filter(|(name, _)| {
            !is_reserved(name.as_str())
                && !matches!(
                    name.as_str(),
                    "te" | "content-length"
                        | "grpc-status"
                        | "grpc-message"
                        | "grpc-status-details-bin"
                )
        })
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        })
        .collect()
}

/// The headers of an application's HTTP answer. The length is that of the
/// body, unless there is none to measure.
pub fn of_answer(headers: &HeaderMap, is_head: bool) -> Metadata {
    let named = named_by_connection(headers);
    headers
        .iter()
        .filter(|(name, _)| {
            !is_hop_by_hop(name.as_str(), &named)
                && (is_head || *name != http::header::CONTENT_LENGTH)
        })
        .map(|(name, value)| {
            (
                canonical(name.as_str()),
                Bytes::copy_from_slice(value.as_bytes()),
            )
        })
        .collect()
}

/// Metadata as HTTP headers, for an application or for a client.
pub fn to_http(metadata: Metadata, origin: Origin, into: &mut HeaderMap) {
    let parent = match origin {
        Origin::Grpc => text(&metadata, trace::BINARY).and_then(trace::of_binary),
        Origin::Http => None,
    };
    let mut baggage = false;
    for (name, value) in metadata {
        // Lower case from here on.
        let name = match name.as_str() {
            ":authority" => Ok(HeaderName::from_static("dapr-authority")),
            ":method" => Ok(HeaderName::from_static("dapr-method")),
            ":path" => Ok(HeaderName::from_static("dapr-path")),
            ":scheme" => Ok(HeaderName::from_static("dapr-scheme")),
            name => HeaderName::from_bytes(name.as_bytes()),
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
        if let Ok(value) = HeaderValue::from_maybe_shared(value)
            && !add(into, name, value)
        {
            break;
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

/// Values that a message may have; a map of headers panics beyond 24,576 names.
const MOST_VALUES: usize = 16 << 10;

/// Whether there is room for a further value.
fn add(into: &mut HeaderMap, name: HeaderName, value: HeaderValue) -> bool {
    let has_room = into.len() < MOST_VALUES;
    if has_room {
        into.append(name, value);
    } else {
        tracing::warn!(target: "dapr.runtime", "a call or its answer has more than {MOST_VALUES} headers: the rest is left out");
    }
    has_room
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
            HeaderValue::from_maybe_shared(value.clone()),
        ) && !add(into, name, value)
        {
            break;
        }
    }
    if !into.contains_key(trace::BINARY)
        && let Some(parent) = text(metadata, trace::TRACEPARENT).and_then(trace::to_binary)
        && let Ok(parent) = HeaderValue::try_from(parent)
    {
        into.insert(HeaderName::from_static(trace::BINARY), parent);
    }
}

/// Takes the context of a call without a trace away.
pub fn remove_zero_trace(headers: &mut HeaderMap) {
    let said = headers.get(trace::TRACEPARENT);
    if said.is_some_and(|value| value == trace::NOTHING) {
        headers.remove(trace::TRACEPARENT);
    }
}

/// Gives a proxied call its trace in both forms, if it has one of them.
pub fn complete_trace(headers: &mut HeaderMap) {
    let of = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let missing = match (of(trace::TRACEPARENT), of(trace::BINARY)) {
        (Some(parent), None) => trace::to_binary(parent).map(|value| (trace::BINARY, value)),
        (None, Some(binary)) => trace::of_binary(binary)
            .filter(|parent| trace::is_valid(parent.as_bytes()))
            .map(|value| (trace::TRACEPARENT, value)),
        _ => None,
    };
    if let Some((name, value)) = missing
        && let Ok(value) = HeaderValue::try_from(value)
    {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// Gives a call the context of a span in place of others.
pub fn set_trace(metadata: &mut Metadata, origin: Origin, span: &trace::Span) {
    let names = [trace::TRACEPARENT, trace::TRACESTATE, trace::BINARY];
    metadata.retain(|(name, _)| !names.iter().any(|n| name.eq_ignore_ascii_case(n)));
    let mut set = |name: &str, value: Bytes| metadata.push((name.to_owned(), value));
    let context = span.context();
    set(trace::TRACEPARENT, context.to_string().into());
    if let Some(state) = span.state() {
        set(trace::TRACESTATE, Bytes::copy_from_slice(state.as_bytes()));
    }
    if origin == Origin::Grpc {
        set(trace::BINARY, context.binary().into());
    }
}

/// The first value of a name in any case.
pub fn find<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a Bytes> {
    metadata
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

/// The same if it is text.
pub fn text<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    std::str::from_utf8(find(metadata, name)?).ok()
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
        assert_eq!(metadata, [("X-Kept".to_owned(), bytes("2"))]);
    }

    #[test]
    fn reserved_names_in_any_spelling() {
        for name in [
            "dapr-caller-app-id",
            "Dapr-Caller-Namespace",
            "DAPR_CALLEE_APP_ID",
            "dapr-api_token",
        ] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["dapr-caller-app-ids", "dapr-app-id", "x"] {
            assert!(!is_reserved(name), "{name}");
        }
    }

    #[test]
    fn a_certificate_says_who_calls() {
        let forged = |name: &str| Some(Bytes::from(format!("forged {name}")));
        let peer = |id: Option<&str>| Peer {
            id: id.map(|id| id.parse().unwrap()),
            ..Peer::default()
        };
        let replaced = |peer: Option<&Peer>| {
            let mut metadata = vec![
                ("Dapr-Caller-App-Id".to_owned(), bytes("client")),
                ("dapr-callee-app-id".to_owned(), bytes("client")),
                ("dapr_caller_namespace".to_owned(), bytes("client")),
            ];
            Parties::of_peer(peer, forged, bytes("own")).set_in_metadata(&mut metadata);
            let values = metadata.into_iter().map(|(name, value)| {
                let value = String::from_utf8(value.to_vec()).unwrap();
                format!("{name}: {value}")
            });
            values.collect::<Vec<_>>()
        };
        let known = peer(Some("spiffe://public/ns/shop/cart"));
        assert_eq!(
            replaced(Some(&known)),
            [
                "dapr-caller-app-id: cart",
                "dapr-caller-namespace: shop",
                "dapr-callee-app-id: own"
            ]
        );
        let no_workload = peer(Some("spiffe://public/else"));
        assert_eq!(replaced(Some(&no_workload)), ["dapr-callee-app-id: own"]);
        assert_eq!(replaced(None).len(), 3);
    }

    #[test]
    fn pseudo_headers_do_not_become_ours() {
        let mut headers = HeaderMap::new();
        let metadata = vec![
            (":caller-app-id".to_owned(), bytes("forged")),
            (":api-token".to_owned(), bytes("forged")),
        ];
        to_http(metadata, Origin::Http, &mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn more_headers_than_a_message_can_have() {
        let many = |count: usize| (0..count).map(|n| (format!("x-{n}"), bytes("1"))).collect();
        let mut headers = HeaderMap::new();
        to_http(many(40_000), Origin::Http, &mut headers);
        assert!(headers.len() <= MOST_VALUES + 1);
        let mut headers = HeaderMap::new();
        to_grpc(&many(40_000), Origin::Http, &mut headers);
        assert!(headers.len() <= MOST_VALUES + 1);
    }

    #[test]
    fn values_keep_their_bytes() {
        let latin = HeaderValue::from_bytes(b"caf\xe9").unwrap();
        let given = HeaderMap::from_iter([(HeaderName::from_static("x-a"), latin.clone())]);
        let mut headers = HeaderMap::new();
        to_http(of_client(&given), Origin::Http, &mut headers);
        assert_eq!(headers["x-a"], latin);
        let mut headers = HeaderMap::new();
        to_grpc(&of_answer(&given, false), Origin::Http, &mut headers);
        assert_eq!(headers["x-a"], latin);
    }

    #[test]
    fn a_trace_has_both_forms() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = map(&[(trace::TRACEPARENT, parent)]);
        complete_trace(&mut headers);
        headers.remove(trace::TRACEPARENT).unwrap();
        complete_trace(&mut headers);
        assert_eq!(headers[trace::TRACEPARENT], parent);
        let mut headers = map(&[(trace::BINARY, "AAAA")]);
        complete_trace(&mut headers);
        assert_eq!(headers.len(), 1);
    }

    #[test]
    fn to_an_http_application() {
        let metadata = vec![
            ("grpc-timeout".to_owned(), bytes("1S")),
            (":authority".to_owned(), bytes("a")),
            ("x-bin".to_owned(), bytes("AA")),
            ("Baggage".to_owned(), bytes("a=1")),
            ("Baggage".to_owned(), bytes("b=2")),
            ("X-Two".to_owned(), bytes("1")),
            ("X-Two".to_owned(), bytes("2")),
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
            ("Cookie".to_owned(), bytes("c")),
            ("X-A".to_owned(), bytes("1")),
            ("Traceparent".to_owned(), bytes(parent)),
        ];
        let mut headers = HeaderMap::new();
        to_grpc(&metadata, Origin::Http, &mut headers);
        assert_eq!(headers["dapr-cookie"], "c");
        assert_eq!(headers["x-a"], "1");
        let back = trace::of_binary(headers[trace::BINARY].to_str().unwrap());
        assert_eq!(back.as_deref(), Some(parent));
    }
}
