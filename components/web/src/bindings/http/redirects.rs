//! Which redirects are followed: what a request carries for its server does not
//! go to another one. A redirect that is not followed is the answer.

use http::{HeaderMap, HeaderName, Method, StatusCode};
use reqwest::redirect::Policy;

const MOST_REDIRECTS: usize = 10;
/// Headers that say nothing secret, unless they are marked as sensitive.
const OF_NO_WEIGHT: [HeaderName; 4] = [
    http::header::ACCEPT,
    http::header::CONTENT_TYPE,
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

tokio::task_local! {
    /// The request that is under way: the policy belongs to the client, and is
    /// asked in the task of the request.
    static SENT: Sent;
}

/// What a request carries.
pub struct Sent {
    method: Method,
    has_body: bool,
    /// Whether something else is for its server only.
    is_bound: bool,
}

impl Sent {
    pub fn new(method: &Method, body: &[u8], headers: &HeaderMap, certified: bool) -> Sent {
        let weighs = headers
            .iter()
            .any(|(name, value)| value.is_sensitive() || !OF_NO_WEIGHT.contains(name));
        Sent {
            method: method.clone(),
            has_body: !body.is_empty(),
            is_bound: certified || weighs,
        }
    }

    /// Runs the request.
    pub async fn during<T>(self, request: impl Future<Output = T>) -> T {
        SENT.scope(self, request).await
    }

    /// Whether a redirect with this status may go to the same server only. A
    /// body goes along unless the redirect makes a GET of the request.
    fn stays(&self, status: StatusCode) -> bool {
        let drops_body = match status {
            StatusCode::SEE_OTHER => true,
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => self.method == Method::POST,
            _ => false,
        };
        self.is_bound || (self.has_body && !drops_body)
    }
}

/// Follows redirects of requests that [`Sent::during`] runs.
pub fn policy() -> Policy {
    Policy::custom(|attempt| {
        if attempt.previous().len() > MOST_REDIRECTS {
            return attempt.error(format!("stopped after {MOST_REDIRECTS} redirects"));
        }
        let from = attempt.previous().last().map(reqwest::Url::origin);
        let leaves = from.is_none_or(|from| from != attempt.url().origin());
        let stays = SENT.try_with(|sent| sent.stays(attempt.status()));
        if leaves && stays.unwrap_or(true) {
            return attempt.stop();
        }
        attempt.follow()
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_for_one_server_stays_there() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &'static str)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            };
            pairs.iter().map(pair).collect()
        };
        let plain = headers(&[("accept", "*/*"), ("traceparent", "00")]);
        let key = headers(&[("x-api-key", "k")]);
        let baggage = headers(&[("baggage", "user=1")]);
        let mut token = plain.clone();
        if let Some(value) = token.get_mut("accept") {
            value.set_sensitive(true);
        }
        for (method, body, headers, certified, status, stays) in [
            (Method::GET, "", &plain, false, 307, false),
            (Method::POST, "", &plain, false, 308, false),
            (Method::GET, "", &plain, true, 302, true),
            (Method::GET, "", &key, false, 302, true),
            (Method::GET, "", &baggage, false, 302, true),
            (Method::GET, "", &token, false, 302, true),
            (Method::POST, "x", &plain, false, 307, true),
            (Method::POST, "x", &plain, false, 308, true),
            (Method::POST, "x", &plain, false, 302, false),
            (Method::PUT, "x", &plain, false, 302, true),
            (Method::PUT, "x", &plain, false, 303, false),
            (Method::POST, "x", &key, false, 303, true),
        ] {
            let sent = Sent::new(&method, body.as_bytes(), headers, certified);
            let status = StatusCode::from_u16(status).expect("three digits");
            assert_eq!(sent.stays(status), stays, "{method} {status} {headers:?}");
        }
    }
}
