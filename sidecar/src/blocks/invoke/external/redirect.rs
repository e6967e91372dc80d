//! Following redirects, as Go's client does.
//! <https://pkg.go.dev/net/http#Client>

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};

use outrider_call::channel::http::title;
use outrider_net::body::{self, Body};
use outrider_net::path::clean;

/// Headers that are for one host only.
const SECRET: [header::HeaderName; 3] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::WWW_AUTHENTICATE,
];

/// A request that is on its way, without its body.
pub struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Sent {
    pub fn of(request: &Request<Body>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        }
    }

    /// The way Go's client begins its errors.
    pub fn shown(&self) -> String {
        let uri = outrider_kit::quote::go(&self.uri.to_string());
        format!("{} {uri}", title(&self.method))
    }
}

/// What an answer asks for instead, if it can be asked. A body is not sent
/// again: the client has to decide about that. Another origin gets neither
/// credentials nor the headers in `own`.
pub fn next<B>(
    sent: Sent,
    answer: &Response<B>,
    is_empty: bool,
    own: Option<&HeaderMap>,
) -> Option<Request<Body>> {
    let location = answer.headers().get(header::LOCATION)?.to_str().ok()?;
    let Sent {
        method,
        uri,
        mut headers,
    } = sent;
    let keeps = match answer.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => false,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => return None,
    };
    let to = join(&uri, location)?;
    if to.scheme() != uri.scheme() || to.authority() != uri.authority() {
        for name in own.into_iter().flat_map(HeaderMap::keys).chain(&SECRET) {
            headers.remove(name);
        }
    }
    if keeps && !is_empty {
        return None;
    }
    let mut request = Request::new(body::empty());
    if keeps || method == Method::HEAD {
        *request.method_mut() = method;
    }
    for name in [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_ENCODING,
    ] {
        headers.remove(name);
    }
    *request.headers_mut() = headers;
    *request.uri_mut() = to;
    Some(request)
}

/// A reference, seen from a URL. <https://www.rfc-editor.org/rfc/rfc3986#section-5.2>
fn join(base: &Uri, reference: &str) -> Option<Uri> {
    let reference = reference.split('#').next().unwrap_or_default();
    let (scheme, authority) = (base.scheme_str()?, base.authority()?.as_str());
    let text = if reference.starts_with("http://") || reference.starts_with("https://") {
        reference.to_owned()
    } else if reference.starts_with("//") {
        format!("{scheme}:{reference}")
    } else if reference.starts_with('/') {
        format!("{scheme}://{authority}{reference}")
    } else if reference.starts_with('?') {
        format!("{scheme}://{authority}{}{reference}", base.path())
    } else {
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (reference, None),
        };
        let folder = base
            .path()
            .rsplit_once('/')
            .map_or("", |(folder, _)| folder);
        let joined = format!("{folder}/{path}");
        let mut path = clean(&joined).into_owned();
        if joined.ends_with('/') && !path.ends_with('/') {
            path.push('/');
        }
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{authority}{path}{query}")
    };
    let uri: Uri = text.parse().ok()?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && uri.host().is_some()).then_some(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let base: Uri = "https://h:1/a/b?q".parse().unwrap();
        for (reference, expected) in [
            ("https://other/x", Some("https://other/x")),
            ("//other/x", Some("https://other/x")),
            ("/c?d#e", Some("https://h:1/c?d")),
            ("c", Some("https://h:1/a/c")),
            ("../c/?d", Some("https://h:1/c/?d")),
            ("?d", Some("https://h:1/a/b?d")),
            ("mailto:a", Some("https://h:1/a/mailto:a")),
            ("http://", None),
        ] {
            let joined = join(&base, reference).map(|uri| uri.to_string());
            assert_eq!(joined.as_deref(), expected, "{reference}");
        }
    }

    fn redirect(
        status: u16,
        method: Method,
        is_empty: bool,
        location: &str,
    ) -> Option<Request<Body>> {
        let headers = HeaderMap::from_iter([
            (header::AUTHORIZATION, "secret".parse().unwrap()),
            (
                header::HeaderName::from_static("x-key"),
                "k".parse().unwrap(),
            ),
            (header::CONTENT_TYPE, "text/plain".parse().unwrap()),
        ]);
        let own = HeaderMap::from_iter([(
            header::HeaderName::from_static("x-key"),
            "k".parse().unwrap(),
        )]);
        let sent = Sent {
            method,
            uri: Uri::from_static("http://h/a"),
            headers,
        };
        let answer = Response::builder()
            .status(status)
            .header(header::LOCATION, location)
            .body(())
            .unwrap();
        next(sent, &answer, is_empty, Some(&own))
    }

    #[test]
    fn methods_and_bodies() {
        for (status, given, is_empty, asked) in [
            (302, Method::POST, false, Method::GET),
            (303, Method::HEAD, true, Method::HEAD),
            (308, Method::DELETE, true, Method::DELETE),
        ] {
            let next = redirect(status, given, is_empty, "/b").unwrap();
            assert_eq!((next.method(), next.uri().path()), (&asked, "/b"));
            assert!(!next.headers().contains_key("content-type"));
            assert!(next.headers().contains_key("authorization"));
        }
        assert!(redirect(304, Method::GET, true, "/b").is_none());
        assert!(redirect(307, Method::POST, false, "/b").is_none());
    }

    #[test]
    fn strangers_get_no_credentials() {
        for location in ["http://other/b", "https://h/b", "http://h:81/b"] {
            let next = redirect(307, Method::GET, true, location).unwrap();
            for name in ["authorization", "x-key"] {
                assert!(!next.headers().contains_key(name), "{location} {name}");
            }
        }
    }
}
