//! Calls from browsers. <https://fetch.spec.whatwg.org/#http-cors-protocol>

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::blocks::http::empty;
use outrider_net::body::Body;

const METHODS: [&str; 6] = ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"];

/// Which origins may call.
pub struct Cors {
    any: bool,
    origins: Vec<String>,
}

impl Cors {
    /// Nothing if no origin is allowed: then no request is treated specially.
    pub fn new(origins: &[String]) -> Option<Self> {
        let origins: Vec<String> = origins
            .iter()
            .map(|o| o.trim().to_ascii_lowercase())
            .filter(|o| !o.is_empty())
            .collect();
        (!origins.is_empty()).then(|| Self {
            any: origins.iter().any(|o| o == "*"),
            origins,
        })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.any
            || origin.to_str().is_ok_and(|o| {
                self.origins
                    .iter()
                    .any(|allowed| allowed.eq_ignore_ascii_case(o))
            })
    }

    /// The answer to a preflight; nothing for any other request.
    pub fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response<Body>> {
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if *method != Method::OPTIONS {
            return None;
        }
        let mut answer = empty(StatusCode::OK);
        let given = answer.headers_mut();
        for name in [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ] {
            given.append(header::VARY, HeaderValue::from_static(name));
        }
        let known = METHODS
            .iter()
            .any(|m| m.as_bytes().eq_ignore_ascii_case(asked.as_bytes()));
        if let Some(origin) = headers.get(header::ORIGIN)
            && self.allows(origin)
            && known
        {
            self.allow_origin(origin, given);
            given.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked.clone());
            if let Some(names) = headers
                .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
                .and_then(|v| v.to_str().ok())
                && let Ok(names) = HeaderValue::try_from(
                    names
                        .split(',')
                        .map(canonical)
                        .collect::<Vec<_>>()
                        .join(", "),
                )
            {
                given.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
        }
        Some(answer)
    }

    /// Adds what a browser wants to see on an ordinary answer.
    pub fn answer(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin
            && self.allows(origin)
        {
            self.allow_origin(origin, headers);
        }
    }

    fn allow_origin(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let value = if self.any {
            HeaderValue::from_static("*")
        } else {
            origin.clone()
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
    }
}

/// `content-type` as `Content-Type`.
fn canonical(name: &str) -> String {
    name.trim()
        .split('-')
        .map(|word| {
            let mut chars = word.chars();
            chars.next().map_or(String::new(), |first| {
                first.to_ascii_uppercase().to_string() + &chars.as_str().to_ascii_lowercase()
            })
        })
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(n, v)| {
                (
                    http::HeaderName::from_static(n),
                    HeaderValue::from_static(v),
                )
            })
            .collect()
    }

    #[test]
    fn off_without_origins() {
        assert!(Cors::new(&[]).is_none());
        assert!(Cors::new(&[String::new()]).is_none());
    }

    #[test]
    fn preflights() {
        let cors = Cors::new(&["http://a.example".into()]).unwrap();
        let asked = |origin| {
            headers(&[
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("access-control-request-headers", "content-type,x-y"),
            ])
        };
        let answer = cors
            .preflight(&Method::OPTIONS, &asked("http://a.example"))
            .unwrap();
        assert_eq!(
            answer.headers()["access-control-allow-origin"],
            "http://a.example"
        );
        assert_eq!(
            answer.headers()["access-control-allow-headers"],
            "Content-Type, X-Y"
        );
        let foreign = cors
            .preflight(&Method::OPTIONS, &asked("http://b.example"))
            .unwrap();
        assert_eq!(foreign.status(), StatusCode::OK);
        assert!(
            !foreign
                .headers()
                .contains_key("access-control-allow-origin")
        );
        assert!(
            cors.preflight(
                &Method::OPTIONS,
                &headers(&[("origin", "http://a.example")])
            )
            .is_none()
        );
    }
}
