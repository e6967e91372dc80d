//! One request and its answer.

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use outrider_components::bindings::{Answer, Failure, Request};
use outrider_components::{Error, Pairs, Secret};
use outrider_kit::{error, quote, truthy};
use reqwest::{Response, Url};

use super::Http;
use super::redirects::Sent;

const JSON: &str = "application/json; charset=utf-8";
/// Metadata that become headers under their names although they are not
/// written with a capital letter: the context of the call.
const CONTEXT: [&str; 3] = ["traceparent", "tracestate", "baggage"];
/// What the connection says by itself.
const OF_CONNECTION: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub async fn run(http: &Http, request: &Request) -> Result<Answer, Failure> {
    let metadata = &request.metadata;
    let text = |name: &str| metadata.get(name).map_or("", String::as_str);
    let method = match request.operation.to_ascii_uppercase().as_str() {
        "CREATE" => Method::POST,
        other => Method::from_bytes(other.as_bytes())
            .map_err(|_| Error::invalid(format!("invalid operation: {}", request.operation)))?,
    };
    let url = http.base.with(text("path"))?;
    let has_body = matches!(method, Method::PUT | Method::POST | Method::PATCH);
    let body = match has_body {
        true => request.data.clone(),
        false => bytes::Bytes::new(),
    };
    let headers = headers(http, metadata, has_body)?;
    let sent = Sent::new(&method, &body, &headers, http.certified);
    let mut call = http
        .client
        .request(method.clone(), url.clone())
        .headers(headers);
    if has_body {
        call = call.body(body);
    }
    let work = async {
        let answer = sent
            .during(call.send())
            .await
            .map_err(|error| failed(&method, &url, &error))?;
        read(http, answer)
            .await
            .map_err(|error| failed(&method, &url, &error))
    };
    let (status, answer) = match http.timeout {
        None => work.await?,
        Some(limit) => match tokio::time::timeout(limit, work).await {
            Ok(answered) => answered?,
            Err(_) => {
                let text = begin(&method, &url);
                let text = format!("{text}: context deadline exceeded");
                return Err(Error::unavailable(text).into());
            }
        },
    };
    let strict = match text("errorIfNot2XX") {
        "" => http.strict,
        said => truthy(said),
    };
    if strict && !status.is_success() {
        let cause = format!("received status code {}", status.as_u16());
        return Err(Failure {
            cause: Error::unavailable(cause),
            answer: Some(Box::new(answer)),
        });
    }
    Ok(answer)
}

fn headers(http: &Http, metadata: &Pairs, has_body: bool) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    }
    headers.insert(ACCEPT, HeaderValue::from_static(JSON));
    if let Some((name, Secret(token))) = &http.token {
        let (name, mut value) = header(name, token)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    for (name, value) in metadata {
        if name.starts_with(|first: char| first.is_ascii_uppercase()) {
            let (name, value) = header(name, value)?;
            if !OF_CONNECTION.contains(&name.as_str()) {
                headers.insert(name, value);
            }
        }
    }
    for name in CONTEXT {
        let Some(value) = metadata.get(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let (key, value) = header(name, value)?;
        if headers.insert(key, value).is_some() {
            tracing::warn!(target: "dapr.contrib", "the header {name} of a request through an HTTP binding is replaced by that of the call: it cannot be chosen");
        }
    }
    Ok(headers)
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Error> {
    let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
    match parsed {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Err(_), _) => Err(Error::invalid(format!(
            "net/http: invalid header field name {}",
            quote::go(name)
        ))),
        (_, Err(_)) => Err(Error::invalid(format!(
            "net/http: invalid header field value for {}",
            quote::go(name)
        ))),
    }
}

/// Reads an answer, of its body as much as is wanted.
async fn read(
    http: &Http,
    mut answer: Response,
) -> Result<(http::StatusCode, Answer), reqwest::Error> {
    let status = answer.status();
    let metadata = of_head(status, answer.headers());
    let Some(longest) = http.longest else {
        let data = answer.bytes().await?;
        return Ok((status, with(data, metadata)));
    };
    let first = answer.chunk().await?.unwrap_or_default();
    let mut data = bytes::BytesMut::from(first);
    while data.len() < longest {
        match answer.chunk().await? {
            Some(more) => data.extend_from_slice(&more),
            None => break,
        }
    }
    data.truncate(longest);
    Ok((status, with(data.freeze(), metadata)))
}

fn with(data: bytes::Bytes, metadata: Pairs) -> Answer {
    Answer {
        data,
        metadata,
        content_type: None,
    }
}

/// Status and headers; several values of a header are joined.
fn of_head(status: http::StatusCode, headers: &HeaderMap) -> Pairs {
    let reason = status.canonical_reason().unwrap_or_default();
    let line = format!("{} {reason}", status.as_u16());
    let mut metadata = Pairs::from([
        ("statusCode".to_owned(), status.as_str().to_owned()),
        ("status".to_owned(), line.trim_end().to_owned()),
    ]);
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        metadata.insert(canonical(name.as_str()), values.join(", "));
    }
    metadata
}

/// `content-type` as `Content-Type`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    let spelled = name.chars().map(|c| {
        let c = if upper { c.to_ascii_uppercase() } else { c };
        upper = c == '-';
        c
    });
    spelled.collect()
}

/// How an error begins: `Get "http://localhost/"`.
fn begin(method: &Method, url: &Url) -> String {
    let mut shown = url.clone();
    // It may be a password.
    let _ = shown.set_password(None);
    let (first, rest) = method.as_str().split_at(1);
    format!(
        "{first}{} {}",
        rest.to_ascii_lowercase(),
        quote::go(shown.as_str())
    )
}

fn failed(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
    let refused = causes(error).any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    let cause = match (refused, url.host_str(), url.port_or_known_default()) {
        (true, Some(host), Some(port)) => {
            format!("dial tcp {host}:{port}: connect: connection refused")
        }
        _ => {
            let inner: Option<&dyn std::error::Error> = std::error::Error::source(error);
            inner.map_or_else(|| error.to_string(), error::chain)
        }
    };
    Error::unavailable(format!("{}: {cause}", begin(method, url)))
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_headers_are_metadata() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.append(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        let metadata = of_head(http::StatusCode::NOT_FOUND, &headers);
        for (key, value) in [
            ("statusCode", "404"),
            ("status", "404 Not Found"),
            ("X-A", "1, 2"),
            ("Content-Type", "text/plain"),
        ] {
            assert_eq!(metadata.get(key).map(String::as_str), Some(value), "{key}");
        }
        let unknown = http::StatusCode::from_u16(599).expect("three digits");
        assert_eq!(of_head(unknown, &HeaderMap::new())["status"], "599");
    }

    #[test]
    fn errors_begin_with_the_request_but_without_a_password() {
        let url = Url::parse("http://u:secret@h/p").expect("is valid");
        assert_eq!(begin(&Method::GET, &url), r#"Get "http://u@h/p""#);
    }
}
