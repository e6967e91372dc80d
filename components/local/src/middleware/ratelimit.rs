//! `middleware.http.ratelimit`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-rate-limit/>.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use outrider_components::middleware::{
    Client, Middleware, Next, Outcome, Request, decoded_path, refusal,
};
use outrider_components::{Context, Error, Field, Metadata};
use tokio::time::Instant;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// Buckets that are kept. Clients choose addresses and paths: what comes
/// beyond shares one bucket.
const MOST_BUCKETS: usize = 64 << 10;

const FORWARDED_FOR: &str = "x-forwarded-for";
const REAL_IP: &str = "x-real-ip";

outrider_components::fields! {
    struct Fields {
        /// Requests that a client may make of one path in a second, and at
        /// once. Of each sidecar: their counts are not added up.
        "maxRequestsPerSecond" => most: f64 = "100";
    }
}

struct Limiter {
    /// Tokens that a bucket gets in a second.
    rate: f64,
    /// Tokens that a bucket may have.
    burst: f64,
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    /// By the client and the path.
    known: HashMap<Key, Bucket>,
    /// That of all who found no place.
    shared: Option<Bucket>,
    swept: Option<Instant>,
}

type Key = (Box<str>, Box<str>);

/// Tokens as they were at a time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, rate: f64, burst: f64, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at);
        (self.tokens + since.as_secs_f64() * rate).min(burst)
    }
}

/// Reads the limit.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let Fields { most } = Fields::read(&metadata)?;
    if most <= 0.0 {
        return Err(Error::invalid(
            "metadata property maxRequestsPerSecond must be a positive value",
        ));
    }
    Ok(Arc::new(Limiter::new(most)))
}

impl Limiter {
    fn new(most: f64) -> Limiter {
        Limiter {
            rate: most,
            burst: most.trunc().max(1.0),
            buckets: Mutex::default(),
        }
    }

    /// Takes a token; how many are left. None if there was none.
    fn take(&self, client: &str, path: &str, now: Instant) -> Option<f64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (Box::from(client), Box::from(path));
        if buckets.known.len() >= MOST_BUCKETS && !buckets.known.contains_key(&key) {
            self.sweep(&mut buckets, now);
        }
        let has_room = buckets.known.len() < MOST_BUCKETS || buckets.known.contains_key(&key);
        let new = Bucket {
            tokens: self.burst,
            at: now,
        };
        let bucket = match has_room {
            true => buckets.known.entry(key).or_insert(new),
            false => buckets.shared.get_or_insert(new),
        };
        let tokens = bucket.filled(self.rate, self.burst, now);
        let left = (tokens >= 1.0).then_some(tokens - 1.0);
        *bucket = Bucket {
            tokens: left.unwrap_or(tokens),
            at: now,
        };
        left
    }

    /// Forgets full buckets, which are as good as new ones; once a second at
    /// most.
    fn sweep(&self, buckets: &mut Buckets, now: Instant) {
        let is_early = |at| now.saturating_duration_since(at) < Duration::from_secs(1);
        if buckets.swept.is_some_and(is_early) {
            return;
        }
        buckets.swept = Some(now);
        let (rate, burst) = (self.rate, self.burst);
        buckets
            .known
            .retain(|_, bucket| bucket.filled(rate, burst, now) < burst);
    }
}

/// Whom a request is counted for: the last address in `X-Forwarded-For`, that
/// in `X-Real-Ip`, or the one that it came from.
fn client(request: &Request) -> Cow<'_, str> {
    let header = |name| {
        let value: &HeaderValue = request.headers().get(name)?;
        value.to_str().ok().filter(|text| !text.is_empty())
    };
    let forwarded = header(FORWARDED_FOR).map(|all| all.rsplit(',').next().unwrap_or(all).trim());
    let named = forwarded.or_else(|| header(REAL_IP));
    let Some(named) = named else {
        let peer = request.extensions().get::<Client>();
        let peer = peer.map(|Client(address)| canonical(address.ip()));
        return peer.map_or(Cow::Borrowed("0.0.0.0"), |peer| peer.to_string().into());
    };
    match named.parse() {
        Ok(address @ IpAddr::V6(_)) => canonical(address).to_string().into(),
        Ok(_) | Err(_) => named.into(),
    }
}

/// Of IPv6 the network, which belongs to one client.
fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.into(),
            None => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        },
    }
}

/// Says in an answer what the limit is, and whom it was counted for.
fn describe(headers: &mut HeaderMap, limit: f64, left: f64, from: &From) {
    let mut add = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(HeaderName::from_static(name), value);
        }
    };
    add("x-rate-limit-limit", format!("{limit:.2}"));
    add("x-rate-limit-duration", "1".to_owned());
    add("ratelimit-limit", format!("{:.0}", limit.round()));
    add("ratelimit-reset", "1".to_owned());
    add("ratelimit-remaining", format!("{:.0}", left.trunc()));
    if let Some(Client(address)) = from.client {
        add("x-rate-limit-request-remote-addr", address.to_string());
    }
    if let Some(forwarded) = &from.forwarded {
        headers.append("x-rate-limit-request-forwarded-for", forwarded.clone());
    }
}

/// What a request says of its client.
struct From {
    client: Option<Client>,
    forwarded: Option<HeaderValue>,
}

#[async_trait]
impl Middleware for Limiter {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        let path = decoded_path(request.uri());
        let left = self.take(&client(&request), &path, Instant::now());
        let from = From {
            client: request.extensions().get().copied(),
            forwarded: request.headers().get(FORWARDED_FOR).cloned(),
        };
        let mut response = match left {
            Some(_) => next.run(request).await?,
            None => refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "You have reached maximum request limit.",
            ),
        };
        let left = left.unwrap_or_default();
        describe(response.headers_mut(), self.rate, left, &from);
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use outrider_components::middleware::{End, Response, full};

    use super::*;

    struct Done;

    #[async_trait]
    impl End for Done {
        async fn answer(&self, _: Request) -> Outcome {
            Ok(Response::new(full("done")))
        }
    }

    async fn limiter(most: &str) -> Result<Arc<dyn Middleware>, Error> {
        let metadata = Metadata::new("limit", [("maxRequestsPerSecond", most)]);
        connect(metadata, Context::default()).await
    }

    fn request(path: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(full(""));
        *request.uri_mut() = path.parse().expect("a path");
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        request
    }

    async fn send(limiter: &Arc<dyn Middleware>, request: Request) -> Response {
        let chain = [limiter.clone()];
        let sent = Next::new(&chain, &Done).run(request).await;
        sent.expect("an answer")
    }

    #[tokio::test(start_paused = true)]
    async fn each_client_has_its_own_bucket_for_each_path() {
        let limiter = limiter("2").await.expect("valid");
        let status = async |path, headers| send(&limiter, request(path, headers)).await.status();
        for (path, headers) in [
            ("/a", &[][..]),
            ("/b", &[][..]),
            ("/a", &[(FORWARDED_FOR, "9.9.9.9, 1.2.3.4")][..]),
            ("/a", &[(REAL_IP, "4.3.2.1")][..]),
        ] {
            for wanted in [200, 200, 429, 429] {
                assert_eq!(status(path, headers).await, wanted, "{path} {headers:?}");
            }
        }
        // The last proxy says who called it.
        assert_eq!(status("/a", &[(FORWARDED_FOR, "1.2.3.4")]).await, 429);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(status("/a?x=1", &[]).await, 200);
        assert_eq!(status("/a", &[]).await, 429);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_say_what_the_limit_is() {
        let limiter = limiter("1.5").await.expect("valid");
        let forwarded = &[(FORWARDED_FOR, "1.2.3.4")];
        send(&limiter, request("/a", forwarded)).await;
        let refused = send(&limiter, request("/a", forwarded)).await;
        for (name, value) in [
            ("x-rate-limit-limit", "1.50"),
            ("x-rate-limit-duration", "1"),
            ("x-rate-limit-request-forwarded-for", "1.2.3.4"),
            ("ratelimit-limit", "2"),
            ("ratelimit-reset", "1"),
            ("ratelimit-remaining", "0"),
            ("content-type", "text/plain; charset=utf-8"),
        ] {
            assert_eq!(refused.headers()[name], value, "{name}");
        }
        let body = refused.into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "You have reached maximum request limit.");
    }

    #[test]
    fn clients_of_one_ipv6_network_are_one() {
        let mut direct = request("/", &[]);
        direct
            .extensions_mut()
            .insert(Client("[2001:db8::1:2:3:4]:5".parse().expect("an address")));
        for (request, wanted) in [
            (direct, "2001:db8::"),
            (request("/", &[(REAL_IP, "2001:db8::9:9")]), "2001:db8::"),
            (request("/", &[(REAL_IP, "::ffff:1.2.3.4")]), "1.2.3.4"),
            (request("/", &[(REAL_IP, "unknown")]), "unknown"),
            (request("/", &[]), "0.0.0.0"),
        ] {
            assert_eq!(client(&request), wanted);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_clients_take_bounded_memory_and_are_limited_together() {
        let limiter = Limiter::new(1.0);
        let start = Instant::now();
        for n in 0..MOST_BUCKETS {
            assert!(limiter.take(&n.to_string(), "/", start).is_some());
        }
        assert!(limiter.take("one more", "/", start).is_some());
        assert!(limiter.take("and another", "/", start).is_none());
        assert!(limiter.take("7", "/", start).is_none(), "known ones stay");
        let later = start + Duration::from_secs(2);
        assert!(limiter.take("late", "/", later).is_some());
        assert_eq!(limiter.buckets.lock().unwrap().known.len(), 1);
    }

    #[tokio::test]
    async fn the_limit_has_to_be_positive() {
        for wrong in ["0", "-1", "many", "inf"] {
            assert!(limiter(wrong).await.is_err(), "{wrong}");
        }
    }
}
