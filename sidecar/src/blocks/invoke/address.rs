//! Whom a request is for, and what it asks of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;

use super::error;
use crate::blocks::error::{Result, malformed};
use outrider_net::path;

pub const APP_ID: &str = "dapr-app-id";
const PREFIX: [&str; 2] = ["v1.0", "invoke"];
const METHOD: &str = "/method/";

/// The target's text and the method's, both decoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Address {
    pub target: String,
    pub method: String,
    /// The header named the target and goes no further.
    pub by_header: bool,
}

/// Reads the three forms, in this order: the header, Basic credentials, the
/// path.
pub fn of_http(headers: &HeaderMap, raw_path: &str) -> Result<Address> {
    let decoded = path::unescape(raw_path);
    if let Some(target) = headers.get(APP_ID).filter(|t| !t.is_empty()) {
        let target = std::str::from_utf8(target.as_bytes());
        let target = target.map_err(|_| malformed("the header dapr-app-id is not UTF-8"))?;
        return Ok(Address {
            target: target.to_owned(),
            method: whole(&decoded),
            by_header: true,
        });
    }
    if let Some(target) = of_credentials(headers) {
        return Ok(Address {
            target,
            method: whole(&decoded),
            by_header: false,
        });
    }
    let (target, method) = behind_prefix(&decoded)
        .and_then(split)
        .ok_or_else(error::no_target)?;
    if target.is_empty() {
        return Err(error::no_target());
    }
    let target = path::query_unescape(target).map_err(|cause| malformed(cause.to_string()))?;
    Ok(Address {
        target: target.into_owned(),
        method: match path::clean(method).as_ref() {
            "." => String::new(),
            clean => clean.to_owned(),
        },
        by_header: false,
    })
}

/// What follows the prefix, whose parts may have any number of slashes between
/// them. Those of a URL as target are not touched.
fn behind_prefix(path: &str) -> Option<&str> {
    let mut rest = path.trim_start_matches('/');
    for part in PREFIX {
        let after = rest.strip_prefix(part)?;
        rest = after.trim_start_matches('/');
        if rest.len() == after.len() {
            return None;
        }
    }
    Some(rest)
}

fn split(rest: &str) -> Option<(&str, &str)> {
    match rest.split_once(METHOD) {
        Some(parts) => Some(parts),
        None => rest.strip_suffix("/method").map(|target| (target, "")),
    }
}

fn whole(decoded: &str) -> String {
    path::clean(decoded).trim_start_matches('/').to_owned()
}

fn of_credentials(headers: &HeaderMap) -> Option<String> {
    let given = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let encoded = given.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, id) = decoded.split_once(':')?;
    (user.eq_ignore_ascii_case(APP_ID) && !id.is_empty() && !id.contains(':'))
        .then(|| id.to_owned())
}

/// Where a call goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Target<'a> {
    App {
        app_id: &'a str,
        namespace: &'a str,
    },
    /// A URL outside the mesh.
    Url(&'a str),
    /// The name of an HTTPEndpoint resource.
    Endpoint(&'a str),
}

/// `app`, `app.namespace`, a URL, or the name of an endpoint.
pub fn target<'a>(
    text: &'a str,
    own_namespace: &'a str,
    is_endpoint: impl Fn(&str) -> bool,
) -> std::result::Result<Target<'a>, String> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(Target::Url(text.trim_end_matches('/')));
    }
    if is_endpoint(text) {
        return Ok(Target::Endpoint(text));
    }
    let mut parts = text.split('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(""), None, None) => Err("app id is empty".to_owned()),
        (Some(id), None, None) => Ok(Target::App {
            app_id: id,
            namespace: own_namespace,
        }),
        (Some(id), Some(namespace), None) => Ok(Target::App {
            app_id: id,
            namespace,
        }),
        _ => Err(format!("invalid app id {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_path(path: &str) -> Option<(String, String)> {
        of_http(&HeaderMap::new(), path)
            .ok()
            .map(|a| (a.target, a.method))
    }

    #[test]
    fn paths() {
        let both = |t: &str, m: &str| Some((t.to_owned(), m.to_owned()));
        assert_eq!(by_path("/v1.0/invoke/app/method/a/b"), both("app", "a/b"));
        assert_eq!(by_path("//v1.0/invoke//app/method/"), both("app", ""));
        assert_eq!(
            by_path("/v1.0/invoke/http%3A%2F%2Fh%3A1/method/x"),
            both("http://h:1", "x")
        );
        assert_eq!(
            by_path("/v1.0/invoke/http://h:1/method/x"),
            both("http://h:1", "x")
        );
        assert_eq!(
            by_path("/v1.0/invoke/app.ns/method/x%2Fy"),
            both("app.ns", "x/y")
        );
        assert_eq!(by_path("/v1.0////invoke/app/method/a"), both("app", "a"));
        assert_eq!(
            by_path("//v1.0//invoke//app/method//a"),
            both("app", "/a"),
            "the method is tidied with all others"
        );
        assert_eq!(
            by_path("/v1.0/invoke/app/method/public%23/../admin"),
            both("app", "admin")
        );
        assert_eq!(
            by_path("/v1.0/invoke/app/method/caf%E9"),
            both("app", "caf%E9")
        );
        assert_eq!(by_path("/v1.0/invoke/a%25E9/method/x"), None);
        assert_eq!(by_path("/v1.0invoke/app/method/a"), None);
        assert_eq!(by_path("/v1.0/invokeapp/method/a"), None);
        assert_eq!(by_path("/v1.0/invoke/app"), None);
        assert_eq!(by_path("/other"), None);
    }

    #[test]
    fn headers_come_first() {
        let headers =
            HeaderMap::from_iter([(http::HeaderName::from_static(APP_ID), "x".parse().unwrap())]);
        let address = of_http(&headers, "/a//b/../c").unwrap();
        assert_eq!(
            (
                address.target.as_str(),
                address.method.as_str(),
                address.by_header
            ),
            ("x", "a/c", true)
        );
        let basic = |text: &str| {
            let value = format!("Basic {}", STANDARD.encode(text));
            let headers =
                HeaderMap::from_iter([(http::header::AUTHORIZATION, value.parse().unwrap())]);
            of_http(&headers, "/m").ok().map(|a| a.target)
        };
        assert_eq!(basic("Dapr-App-Id:y").as_deref(), Some("y"));
        assert_eq!(basic("dapr-app-id:y:z"), None);
    }

    #[test]
    fn targets() {
        let read = |text| target(text, "own", |name| name == "end.point");
        assert_eq!(
            read("a"),
            Ok(Target::App {
                app_id: "a",
                namespace: "own"
            })
        );
        assert_eq!(
            read("a.b"),
            Ok(Target::App {
                app_id: "a",
                namespace: "b"
            })
        );
        assert_eq!(read("end.point"), Ok(Target::Endpoint("end.point")));
        assert_eq!(read("a.b.c"), Err("invalid app id a.b.c".into()));
        assert_eq!(read(""), Err("app id is empty".into()));
    }

    proptest::proptest! {
        #[test]
        fn prop_never_panics(path in "\\PC{0,60}") {
            let _ = of_http(&HeaderMap::new(), &path);
            let _ = target(&path, "", |_| false);
        }
    }
}
