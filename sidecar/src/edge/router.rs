//! Every route of the HTTP API.
//! <https://docs.dapr.io/reference/api/>

use http::{Method, Response, StatusCode};

use crate::blocks::error::{malformed, unimplemented};
use crate::blocks::http::{Request, text};
use crate::blocks::{health, invoke, metadata, pubsub, secrets, shutdown, state};
use crate::edge::Apis;
use outrider_net::body::Body;
use outrider_net::path::{check_query, query_unescape};

/// What a request is for; the names are those of metrics, the API log and the
/// lists of allowed APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    GetState,
    SaveState,
    DeleteState,
    GetBulkState,
    ExecuteStateTransaction,
    QueryStateAlpha1,
    GetSecret,
    GetBulkSecret,
    PublishEvent,
    BulkPublishEvent,
    InvokeService,
    GetMetadata,
    PutMetadata,
    Shutdown,
    Healthz,
    HealthzOutbound,
    /// A building block that this release does not have, by its name in URLs.
    Absent(&'static str),
}

const ABSENT: [&str; 10] = [
    "bindings",
    "configuration",
    "actors",
    "lock",
    "unlock",
    "crypto",
    "subtlecrypto",
    "jobs",
    "workflows",
    "conversation",
];

/// A route that fits, with its parameters still escaped.
#[derive(Debug, PartialEq, Eq)]
struct Match<'a> {
    endpoint: Endpoint,
    version: &'static str,
    first: &'a str,
    second: &'a str,
}

fn route<'a>(method: &Method, path: &'a str) -> Option<Match<'a>> {
    use Endpoint::*;
    let mut segments = path.trim_start_matches('/').splitn(4, '/');
    let version = match segments.next()? {
        "v1.0" => "v1",
        "v1.0-alpha1" => "v1alpha1",
        "v1.0-alpha2" => "v1alpha2",
        "v1.0-beta1" => "v1beta1",
        _ => return None,
    };
    let block = segments.next()?;
    let first = segments.next();
    let rest = segments.next();
    let one = rest.filter(|r| !r.contains('/'));
    let (get, delete) = (*method == Method::GET, *method == Method::DELETE);
    let post = *method == Method::POST || *method == Method::PUT;
    let found = |endpoint, first, second| {
        Some(Match {
            endpoint,
            version,
            first,
            second,
        })
    };
    let v1 = version == "v1";
    match (block, first, rest) {
        ("state", Some(store), None) if v1 && post => found(SaveState, store, ""),
        ("state", Some(store), Some("bulk")) if v1 && post => found(GetBulkState, store, ""),
        ("state", Some(store), Some("transaction")) if v1 && post => {
            found(ExecuteStateTransaction, store, "")
        }
        ("state", Some(store), Some("query")) if version == "v1alpha1" && post => {
            found(QueryStateAlpha1, store, "")
        }
        ("state", Some(store), Some(_)) if v1 && get => found(GetState, store, one?),
        ("state", Some(store), Some(_)) if v1 && delete => found(DeleteState, store, one?),
        ("secrets", Some(store), Some("bulk")) if v1 && get => found(GetBulkSecret, store, ""),
        ("secrets", Some(store), Some(_)) if v1 && get => found(GetSecret, store, one?),
        ("publish", Some("bulk"), Some(rest))
            if (v1 || version == "v1alpha1") && post && rest.contains('/') =>
        {
            let (pubsub, topic) = rest.split_once('/')?;
            found(BulkPublishEvent, pubsub, topic)
        }
        ("publish", Some(pubsub), Some(topic)) if v1 && post => found(PublishEvent, pubsub, topic),
        ("metadata", None, None) if v1 && get => found(GetMetadata, "", ""),
        ("metadata", Some(key), None) if v1 && *method == Method::PUT => {
            found(PutMetadata, key, "")
        }
        ("shutdown", None, None) if v1 && *method == Method::POST => found(Shutdown, "", ""),
        ("healthz", None, None) if v1 && get => found(Healthz, "", ""),
        ("healthz", Some("outbound"), None) if v1 && get => found(HealthzOutbound, "", ""),
        ("invoke", ..) if v1 => None,
        (_, Some(_), _) => {
            let name = ABSENT.into_iter().find(|name| *name == block)?;
            found(Absent(name), "", "")
        }
        _ => None,
    }
}

impl Endpoint {
    /// The name that lists of allowed APIs know it by.
    fn group(self) -> &'static str {
        use Endpoint::*;
        match self {
            GetState
            | SaveState
            | DeleteState
            | GetBulkState
            | ExecuteStateTransaction
            | QueryStateAlpha1 => "state",
            GetSecret | GetBulkSecret => "secrets",
            PublishEvent | BulkPublishEvent => "publish",
            InvokeService => "invoke",
            GetMetadata | PutMetadata => "metadata",
            Shutdown => "shutdown",
            Healthz | HealthzOutbound => "healthz",
            Absent(name) => name,
        }
    }
}

/// What a request is for, without names of things: for the API log.
pub fn name(method: &Method, path: &str, headers: &http::HeaderMap) -> String {
    match route(method, path) {
        Some(found) => match found.endpoint {
            Endpoint::Absent(name) => name.to_owned(),
            endpoint => format!("{endpoint:?}"),
        },
        None => match invoke::address::of_http(headers, path) {
            Ok(address) => format!("InvokeService/{}", address.target),
            Err(_) => "InvokeService".to_owned(),
        },
    }
}

/// Health is always told, to everyone.
pub fn is_health(method: &Method, path: &str) -> bool {
    *method == Method::GET && matches!(path, "/v1.0/healthz" | "/v1.0/healthz/outbound")
}

/// Answers one request. `path` is the cleaned path of its URL.
pub async fn dispatch(apis: &Apis, path: &str, request: Request) -> Response<Body> {
    use Endpoint::*;
    let invoke_allowed = apis.allowed.http("v1", InvokeService.group());
    let Some(found) = route(&request.method, path).filter(|m| {
        is_health(&request.method, path) || apis.allowed.http(m.version, m.endpoint.group())
    }) else {
        return if invoke_allowed {
            invoke::http::invoke(&apis.invoke, request).await
        } else {
            text(StatusCode::NOT_FOUND, "404 page not found\n")
        };
    };
    let names = check_query(request.query())
        .and_then(|()| Ok((query_unescape(found.first)?, query_unescape(found.second)?)));
    let (first, second) = match names {
        Ok(names) => names,
        Err(cause) => return malformed(cause.to_string()).into(),
    };
    let (first, second) = (first.as_ref(), second.as_ref());
    match found.endpoint {
        GetState => state::http::get(&apis.state, request, first, second).await,
        SaveState => state::http::save(&apis.state, request, first).await,
        DeleteState => state::http::delete(&apis.state, request, first, second).await,
        GetBulkState => state::http::bulk_get(&apis.state, request, first).await,
        ExecuteStateTransaction => state::http::transact(&apis.state, request, first).await,
        QueryStateAlpha1 => state::http::query(&apis.state, request, first).await,
        GetSecret => secrets::http::get(&apis.secrets, request, first, second).await,
        GetBulkSecret => secrets::http::bulk_get(&apis.secrets, request, first).await,
        PublishEvent => pubsub::http::publish(&apis.pubsub, request, first, second).await,
        BulkPublishEvent => pubsub::http::bulk_publish(&apis.pubsub, request, first, second).await,
        GetMetadata => metadata::http_get(&apis.metadata),
        PutMetadata => metadata::http_put(&apis.metadata, request, first).await,
        Shutdown => shutdown::http(&apis.shutdown, &request),
        Healthz => health::http(&apis.health, &request),
        HealthzOutbound => health::http_outbound(&apis.health),
        InvokeService => invoke::http::invoke(&apis.invoke, request).await,
        Absent(name) => unimplemented(name).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<(Endpoint, &str, &str)> {
        route(&method, path).map(|m| (m.endpoint, m.first, m.second))
    }

    #[test]
    fn routes() {
        use Endpoint::*;
        assert_eq!(
            found(Method::GET, "/v1.0/state/s/k%2Fl"),
            Some((GetState, "s", "k%2Fl"))
        );
        assert_eq!(
            found(Method::PUT, "/v1.0/state/s"),
            Some((SaveState, "s", ""))
        );
        assert_eq!(
            found(Method::POST, "/v1.0/state/s/bulk"),
            Some((GetBulkState, "s", ""))
        );
        assert_eq!(
            found(Method::GET, "/v1.0/state/s/bulk"),
            Some((GetState, "s", "bulk"))
        );
        assert_eq!(
            found(Method::POST, "/v1.0/publish/p/a/b/c"),
            Some((PublishEvent, "p", "a/b/c"))
        );
        assert_eq!(
            found(Method::POST, "/v1.0-alpha1/publish/bulk/p/a/b"),
            Some((BulkPublishEvent, "p", "a/b"))
        );
        assert_eq!(
            found(Method::GET, "/v1.0/healthz/outbound"),
            Some((HealthzOutbound, "", ""))
        );
    }

    #[test]
    fn lists_of_allowed_apis_know_every_group() {
        use Endpoint::*;
        let served = [
            GetState,
            GetSecret,
            PublishEvent,
            InvokeService,
            GetMetadata,
            Shutdown,
            Healthz,
        ];
        for endpoint in served.into_iter().chain(ABSENT.map(Absent)) {
            let name = endpoint.group();
            assert!(crate::edge::allow::NAMES.contains(&name), "{name}");
        }
    }

    #[test]
    fn what_falls_through_to_invocation() {
        for (method, path) in [
            (Method::HEAD, "/v1.0/healthz"),
            (Method::GET, "/v1.0/state/s/k/l"),
            (Method::GET, "/v1.0/invoke/a/method/b"),
            (Method::POST, "/v1.0/publish/p"),
            (Method::GET, "/anything"),
            (Method::GET, "/v1.0/metadata/x"),
        ] {
            assert_eq!(found(method, path), None, "{path}");
        }
    }
}
