//! Headers across the hops of an invocation.

use std::str::Utf8Error;

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_security::Peer;
use outrider_trace as trace;

use super::message::Origin;
use crate::metadata::{self, Metadata, Name};
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
pub fn is_reserved(name: &[u8]) -> bool {
    const NAMES: [&str; 5] = [
        CALLER_ID,
        CALLER_NAMESPACE,
        CALLEE_ID,
        DESTINATION,
        token::HEADER,
    ];
    // All of them begin with it.
    if !matches!(name.first(), Some(b'd' | b'D')) {
        return false;
    }
    let like = |reserved: &&str| {
        let mut pairs = name.iter().zip(reserved.as_bytes());
        name.len() == reserved.len()
            && pairs.all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-'))
    };
    NAMES.iter().any(like)
}

/// The application that calls, and its namespace.
#[derive(Debug, Clone)]
pub struct Caller {
    app_id: Option<HeaderValue>,
    namespace: Option<HeaderValue>,
}

impl Caller {
    pub fn new(app_id: &str, namespace: &str) -> Self {
        Self {
            app_id: metadata::value(app_id),
            namespace: metadata::value(namespace),
        }
    }

    /// A call by it.
    pub fn calling(&self, callee: &str) -> Parties {
        Parties {
            caller: self.app_id.clone(),
            namespace: self.namespace.clone(),
            callee: metadata::value(callee),
        }
    }
}

/// Who calls whom, as applications read it; all of it is text.
pub struct Parties {
    /// None where the caller is unknown.
    pub caller: Option<HeaderValue>,
    pub namespace: Option<HeaderValue>,
    /// None if its name cannot be the value of a header.
    pub callee: Option<HeaderValue>,
}

impl Parties {
    /// Of a call by another sidecar: the certificate says who that is. Without
    /// one there are the values that it set itself, its last ones under these
    /// very names.
    pub fn of_peer(
        peer: Option<&Peer>,
        claimed: impl Fn(&str) -> Option<HeaderValue>,
        callee: Option<HeaderValue>,
    ) -> Self {
        let (caller, namespace) = match peer.and_then(|peer| peer.id.as_ref()) {
            Some(id) => {
                let workload = id.as_workload();
                (
                    workload.and_then(|workload| metadata::value(workload.app_id)),
                    workload.and_then(|workload| metadata::value(workload.namespace)),
                )
            }
            None => {
                let text = |value: &HeaderValue| std::str::from_utf8(value.as_bytes()).is_ok();
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
        std::str::from_utf8(self.caller.as_ref()?.as_bytes()).ok()
    }

    fn into_pairs(self) -> impl Iterator<Item = (&'static str, HeaderValue)> {
        let pairs = [
            (CALLER_ID, self.caller),
            (CALLER_NAMESPACE, self.namespace),
            (CALLEE_ID, self.callee),
        ];
        pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Replaces the metadata that names caller and callee.
    pub fn set_in_metadata(self, metadata: &mut Metadata) {
        metadata.retain(|(name, _)| !is_reserved(name.as_bytes()));
        let pairs = self.into_pairs();
        metadata.extend(pairs.map(|(name, value)| (Name::from_static(name), value)));
    }

    /// Replaces the headers that name caller and callee.
    pub fn set_in_headers(self, headers: &mut HeaderMap) {
        let reserved: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_reserved(name.as_str().as_bytes()))
            .cloned()
            .collect();
        for name in reserved {
            headers.remove(name);
        }
        for (name, value) in self.into_pairs() {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
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
    metadata::of_headers(headers, |name| {
        let lower = name.as_str();
        let ours = matches!(lower, "host" | "content-length" | "content-type");
        !(ours || is_reserved(lower.as_bytes()) || is_hop_by_hop(lower, &named))
    })
}

/// The metadata of a gRPC client; binary values as base64. A length is that of
/// the gRPC messages and not of what is in them.
pub fn of_grpc(headers: &HeaderMap) -> Metadata {
    headers
        .iter()
        .filter(|(name, _)| {
            !is_reserved(name.as_str().as_bytes())
                && !matches!(
                    name.as_str(),
                    "te" | "content-length"
                        | "grpc-status"
                        | "grpc-message"
                        | "grpc-status-details-bin"
                )
        })
        .map(|(name, value)| (Name::from(name.as_str()), value.clone()))
        .collect()
}

/// The headers of an application's HTTP answer. The length is that of the
/// body, unless there is none to measure.
pub fn of_answer(headers: &HeaderMap, is_head: bool) -> Metadata {
    let named = named_by_connection(headers);
    metadata::of_headers(headers, |name| {
        !is_hop_by_hop(name.as_str(), &named) && (is_head || *name != http::header::CONTENT_LENGTH)
    })
}

/// Headers that a map has room for before it is known how many are kept.
const RESERVED: usize = 64;

/// Metadata as HTTP headers, for an application or for a client.
pub fn to_http(metadata: Metadata, origin: Origin, into: &mut HeaderMap) {
    let parent = match origin {
        Origin::Grpc => metadata::text(&metadata, trace::BINARY).and_then(trace::of_binary),
        Origin::Http => None,
    };
    into.reserve(metadata.len().min(RESERVED) + 4);
    let mut baggage = false;
    for (name, value) in metadata {
        let name = match name.as_bytes() {
            b":authority" => Some(HeaderName::from_static("dapr-authority")),
            b":method" => Some(HeaderName::from_static("dapr-method")),
            b":path" => Some(HeaderName::from_static("dapr-path")),
            b":scheme" => Some(HeaderName::from_static("dapr-scheme")),
            // Lower case from here on.
            _ => name.into_header(),
        };
        let Some(mut name) = name else { continue };
        let lower = name.as_str();
        if lower == DESTINATION
            || lower.ends_with("-bin")
            // The host is the application's own.
            || matches!(lower, "host" | "content-length" | "content-type")
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
        if !add(into, name, value) {
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
        let spelled_http = origin == Origin::Http || name.is_http();
        // Lower case from here on; no header's name begins with a colon.
        let Some(mut name) = name.clone().into_header() else {
            continue;
        };
        let lower = name.as_str();
        if lower == DESTINATION
            || matches!(
                lower,
                "te" | "grpc-timeout" | "grpc-encoding" | "grpc-accept-encoding"
            )
        {
            continue;
        }
        // Spelled as HTTP spells it, or plainly of an HTTP client.
        let http = spelled_http && HTTP_ONLY.contains(&lower);
        if !http && lower == "content-type" {
            continue;
        }
        if http && let Ok(prefixed) = HeaderName::try_from(format!("dapr-{lower}")) {
            name = prefixed;
        }
        if !add(into, name, value.clone()) {
            break;
        }
    }
    if !into.contains_key(trace::BINARY)
        && let Some(parent) = metadata::text(metadata, trace::TRACEPARENT)
        && let Some(parent) = trace::to_binary(parent)
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
    metadata.retain(|(name, _)| !names.iter().any(|known| name.is(known)));
    let mut set = |name, value| metadata.push((Name::from_static(name), value));
    let context = span.context();
    if let Some(parent) = metadata::value(&context.to_string()) {
        set(trace::TRACEPARENT, parent);
    }
    if let Some(state) = span.state() {
        set(trace::TRACESTATE, state.clone());
    }
    if origin == Origin::Grpc
        && let Some(binary) = metadata::value(&context.binary())
    {
        set(trace::BINARY, binary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> HeaderValue {
        HeaderValue::from_str(text).unwrap()
    }

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
        assert_eq!(metadata, [(Name::from("X-Kept"), value("2"))]);
    }

    #[test]
    fn reserved_names_in_any_spelling() {
        for name in [
            "dapr-caller-app-id",
            "Dapr-Caller-Namespace",
            "DAPR_CALLEE_APP_ID",
            "dapr-api_token",
        ] {
            assert!(is_reserved(name.as_bytes()), "{name}");
        }
        for name in ["dapr-caller-app-ids", "dapr-app-id", "x"] {
            assert!(!is_reserved(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn a_certificate_says_who_calls() {
        let forged = |name: &str| Some(value(&format!("forged {name}")));
        let peer = |id: Option<&str>| Peer {
            id: id.map(|id| id.parse().unwrap()),
            ..Peer::default()
        };
        let replaced = |peer: Option<&Peer>| {
            let mut metadata = vec![
                (Name::from("Dapr-Caller-App-Id"), value("client")),
                (Name::from("dapr-callee-app-id"), value("client")),
                (Name::from("dapr_caller_namespace"), value("client")),
            ];
            Parties::of_peer(peer, forged, Some(value("own"))).set_in_metadata(&mut metadata);
            let values = metadata.into_iter().map(|(name, value)| {
                let name = String::from_utf8_lossy(name.as_bytes());
                format!("{name}: {}", value.to_str().unwrap())
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
            (Name::from(":caller-app-id"), value("forged")),
            (Name::from(":api-token"), value("forged")),
        ];
        to_http(metadata, Origin::Http, &mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
    }

    #[test]
    fn more_headers_than_a_message_can_have() {
        let many = |count: usize| {
            (0..count)
                .map(|n| (Name::from(&*format!("x-{n}")), value("1")))
                .collect()
        };
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
            (Name::from("grpc-timeout"), value("1S")),
            (Name::from(":authority"), value("a")),
            (Name::from("x-bin"), value("AA")),
            (Name::from("Host"), value("other.example")),
            (Name::from("Baggage"), value("a=1")),
            (Name::from("Baggage"), value("b=2")),
            (Name::from("X-Two"), value("1")),
            (Name::from("X-Two"), value("2")),
        ];
        let mut headers = HeaderMap::new();
        to_http(metadata, Origin::Http, &mut headers);
        assert_eq!(headers["dapr-grpc-timeout"], "1S");
        assert_eq!(headers["dapr-authority"], "a");
        assert!(!headers.contains_key("x-bin"));
        assert!(!headers.contains_key("host"));
        assert_eq!(headers.get_all("baggage").iter().count(), 1);
        assert_eq!(headers.get_all("x-two").iter().count(), 2);
        assert_eq!(headers["traceparent"], trace::NOTHING);
    }

    #[test]
    fn to_a_grpc_application() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let metadata = vec![
            (Name::from("Cookie"), value("c")),
            (Name::from("X-A"), value("1")),
            (Name::from("Traceparent"), value(parent)),
        ];
        let mut headers = HeaderMap::new();
        to_grpc(&metadata, Origin::Http, &mut headers);
        assert_eq!(headers["dapr-cookie"], "c");
        assert_eq!(headers["x-a"], "1");
        let back = trace::of_binary(headers[trace::BINARY].to_str().unwrap());
        assert_eq!(back.as_deref(), Some(parent));
    }
}
