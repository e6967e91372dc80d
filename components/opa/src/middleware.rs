//! `middleware.http.opa`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-opa/>.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::BodyExt as _;
use outrider_components::middleware::{
    Body, BoxError, Middleware, Next, Outcome, Request, Response, decoded_path, full,
    refusal_by_status,
};
use outrider_components::{Context, Error, Field, FieldValue, Metadata, Truthy};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

/// What a policy decides by.
const RULE: &str = "data.http.allow";
/// Tells clients that the policy could not decide.
const ERROR_HEADER: HeaderName = HeaderName::from_static("x-dapr-opa-error");

/// How long a policy may take for a request, and after how much work that is
/// looked at.
const TIME_LIMIT: Duration = Duration::from_millis(250);
const WORK: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// Bytes of a body that a policy sees.
const LARGEST_BODY: usize = 4 << 20;

outrider_components::fields! {
    struct Fields {
        /// The policy, in Rego of either version. Its rule `allow` in the
        /// package `http` decides: `true`, `false`, or an object with `allow`,
        /// `status_code` and `additional_headers`. It gets no answers from
        /// other servers (`http.send`), and has 250 ms.
        "rego" => rego: String;
        /// The status of requests that are not allowed, unless the policy says
        /// another one.
        "defaultStatus" => status: Status = "403";
        /// Headers that the policy sees, with commas between them.
        "includedHeaders" => headers: Option<String>;
        /// Whether the policy sees the body, which is read as a whole before.
        /// One of more than 4 MiB is refused.
        "readBody" => body: Truthy = "false";
    }
}

#[derive(Debug, Clone, Copy)]
struct Status(StatusCode);

impl FieldValue for Status {
    const KIND: &'static str = "number";

    fn parse(text: &str) -> Result<Status, String> {
        let status = text.parse().ok();
        let status = status.filter(|status: &u16| (100..600).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        status.map(Status).ok_or_else(|| {
            let quoted = outrider_kit::quote::go(text);
            format!("must be a status from 100 to 599, not {quoted}")
        })
    }
}

struct Opa {
    /// With the policy; copied for each request.
    engine: Engine,
    /// As many policies run at a time as there are processors.
    room: Arc<Semaphore>,
    status: StatusCode,
    headers: Vec<HeaderName>,
    reads_body: bool,
}

/// Compiles the policy.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let fields = Fields::read(&metadata)?;
    let engine = engine(&fields.rego, true)
        .or_else(|first| engine(&fields.rego, false).map_err(|_| first))
        .map_err(|cause| metadata.wrong("rego", format!("is not a policy: {cause}")))?;
    let Status(status) = fields.status;
    let Truthy(reads_body) = fields.body;
    let names = fields.headers.unwrap_or_default().replace(' ', "");
    let names = names.split(',').filter(|name| !name.is_empty());
    let headers: Result<_, _> = names.map(HeaderName::try_from).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Arc::new(Opa {
        engine,
        room: Arc::new(Semaphore::new(processors)),
        status,
        headers: headers
            .map_err(|_| metadata.wrong("includedHeaders", "must be names of headers"))?,
        reads_body,
    }))
}

fn engine(rego: &str, v0: bool) -> Result<Engine, String> {
    let mut engine = Engine::new();
    engine.set_rego_v0(v0);
    engine.set_execution_timer_config(ExecutionTimerConfig {
        limit: TIME_LIMIT,
        check_interval: WORK,
    });
    engine
        .add_policy("inline.rego".to_owned(), rego.to_owned())
        .map_err(|error| error.to_string())?;
    // What is wrong with it is found now, and done once for all requests.
    let input = Value::new_object();
    engine.set_input(input);
    match engine.eval_rule(RULE.to_owned()) {
        Err(error) if error.to_string().contains("not a valid rule path") => {
            Err(format!("it has no rule {RULE}"))
        }
        _ => Ok(engine),
    }
}

/// What a policy says in its object form.
#[derive(Deserialize)]
struct Decision {
    #[serde(default)]
    allow: bool,
    status_code: Option<i64>,
    #[serde(default)]
    additional_headers: BTreeMap<String, String>,
}

fn decision(result: &Value) -> Result<Decision, String> {
    match result {
        Value::Undefined => Err(
            "received no results back from rego policy. Are you setting data.http.allow?"
                .to_owned(),
        ),
        Value::Bool(allow) => Ok(Decision {
            allow: *allow,
            status_code: None,
            additional_headers: BTreeMap::new(),
        }),
        Value::Object(_) => {
            let text = result.to_json_str().map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        }
        _ => Err(
            "got an invalid type back from repo policy. Only a boolean or map is valid".to_owned(),
        ),
    }
}

/// A name as Go writes it: `Content-Type`.
fn canonical(name: &HeaderName) -> String {
    let parts = name.as_str().split('-').map(|part| {
        let mut letters = part.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    });
    parts.collect::<Vec<_>>().join("-")
}

impl Opa {
    /// The values of headers that the policy sees.
    fn seen(&self, headers: &HeaderMap) -> BTreeMap<String, String> {
        let names = self.headers.iter();
        let seen = names.filter_map(|name| {
            let values = headers.get_all(name).iter();
            let values: Vec<_> = values
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
                .collect();
            (!values.is_empty()).then(|| (canonical(name), values.join(", ")))
        });
        seen.collect()
    }

    /// What the policy sees of a request.
    fn input(&self, parts: &http::request::Parts, body: &[u8]) -> Value {
        let (path, raw) = (
            decoded_path(&parts.uri),
            parts.uri.query().unwrap_or_default(),
        );
        let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
            let values = query.entry(name.into_owned()).or_default();
            values.push(value.into_owned());
        }
        Value::from(json!({"request": {
            "method": parts.method.as_str(),
            "path": path,
            "path_parts": path.trim_matches('/').split('/').collect::<Vec<_>>(),
            "raw_query": raw,
            "query": query,
            "headers": self.seen(&parts.headers),
            "scheme": parts.uri.scheme_str().unwrap_or_default(),
            "body": String::from_utf8_lossy(body),
        }}))
    }

    /// Runs the policy on a thread of its own, where it holds up nothing else.
    async fn decide(&self, input: Value) -> Result<Decision, String> {
        let room = self.room.clone().acquire_owned().await;
        let room = room.map_err(|error| error.to_string())?;
        let mut engine = self.engine.clone();
        let deciding = tokio::task::spawn_blocking(move || {
            let _room = room;
            engine.set_input(input);
            let result = engine.eval_rule(RULE.to_owned());
            decision(&result.map_err(|error| error.to_string())?)
        });
        deciding.await.map_err(|error| error.to_string())?
    }

    fn failed(&self, cause: &str) -> Response {
        tracing::warn!(target: SCOPE, "Error procesing rego policy: {cause}");
        let mut response = refusal_by_status(self.status);
        let value = HeaderValue::from_static("true");
        response.headers_mut().insert(ERROR_HEADER, value);
        response
    }
}

/// The whole of a body, unless it is too large.
async fn read(mut body: Body) -> Result<Option<Vec<u8>>, BoxError> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if read.len() + data.len() > LARGEST_BODY {
            return Ok(None);
        }
        read.extend_from_slice(&data);
    }
    Ok(Some(read))
}

/// Replaces headers by those of a policy.
fn set(headers: &mut HeaderMap, more: BTreeMap<String, String>) -> Result<(), String> {
    for (name, value) in more {
        let wrong = || format!("{name:?} with that value is no header");
        let name = HeaderName::try_from(&name).map_err(|_| wrong())?;
        let value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        headers.insert(name, value);
    }
    Ok(())
}

#[async_trait]
impl Middleware for Opa {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        let (mut parts, mut body) = request.into_parts();
        let mut text = Vec::new();
        if self.reads_body {
            let Some(read) = read(body).await? else {
                return Ok(refusal_by_status(StatusCode::PAYLOAD_TOO_LARGE));
            };
            text.clone_from(&read);
            body = full(read);
        }
        let input = self.input(&parts, &text);
        let decision = match self.decide(input).await {
            Ok(decision) => decision,
            Err(cause) => return Ok(self.failed(&cause)),
        };
        if decision.allow {
            if let Err(cause) = set(&mut parts.headers, decision.additional_headers) {
                return Ok(self.failed(&cause));
            }
            return next.run(Request::from_parts(parts, body)).await;
        }
        let status = decision.status_code.map_or(Ok(self.status), |status| {
            let status = u16::try_from(status).unwrap_or_default();
            StatusCode::from_u16(status)
        });
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = refusal_by_status(status);
        let text = response.headers().get(header::CONTENT_TYPE).cloned();
        if let Err(cause) = set(response.headers_mut(), decision.additional_headers) {
            return Ok(self.failed(&cause));
        }
        // The body is ours.
        if let Some(text) = text {
            response.headers_mut().insert(header::CONTENT_TYPE, text);
        }
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use outrider_components::middleware::End;

    use super::*;

    /// Answers with the header `x-user` and the body.
    struct Echo;

    #[async_trait]
    impl End for Echo {
        async fn answer(&self, request: Request) -> Outcome {
            let (parts, body) = request.into_parts();
            let user = parts.headers.get("x-user").cloned();
            let body = body.collect().await?.to_bytes();
            let user = user.unwrap_or(HeaderValue::from_static("none"));
            Ok(Response::new(full([user.as_bytes(), b" ", &body].concat())))
        }
    }

    async fn opa(rego: &str, more: &[(&str, &str)]) -> Result<Arc<dyn Middleware>, Error> {
        let pairs = more.iter().copied().chain([("rego", rego)]);
        connect(Metadata::new("opa", pairs), Context::default()).await
    }

    async fn send(opa: &Arc<dyn Middleware>, uri: &str, body: &str) -> Response {
        let mut request = Request::new(full(body.to_owned()));
        *request.uri_mut() = uri.parse().expect("a URI");
        let headers = request.headers_mut();
        headers.insert("x-jwt-user", HeaderValue::from_static("me"));
        headers.insert("x-hidden", HeaderValue::from_static("secret"));
        let chain = [opa.clone()];
        Next::new(&chain, &Echo)
            .run(request)
            .await
            .expect("an answer")
    }

    async fn text(response: Response) -> String {
        let body = response.into_body().collect().await.expect("a body");
        String::from_utf8_lossy(&body.to_bytes()).into_owned()
    }

    const V0: &str = r#"
package http

default allow = {"status_code": 301, "additional_headers": {"location": "https://my.site/login"}}

allow = {"allow": true, "additional_headers": {"x-user": user}} {
    user := input.request.headers["X-Jwt-User"]
    input.request.path_parts[0] == "in"
    input.request.query["a"][1] == "2"
    not input.request.headers["X-Hidden"]
}
"#;

    #[tokio::test]
    async fn policies_see_the_request_and_set_status_and_headers() {
        let opa = opa(V0, &[("includedHeaders", "x-jwt-user, other")]).await;
        let opa = opa.expect("a policy");
        let allowed = send(&opa, "/in/x?a=1&a=2", "body").await;
        assert_eq!(text(allowed).await, "me body");
        let refused = send(&opa, "/out?a=1&a=2", "").await;
        assert_eq!(refused.status(), 301);
        assert_eq!(refused.headers()["location"], "https://my.site/login");
        assert!(!refused.headers().contains_key(ERROR_HEADER));
        assert_eq!(text(refused).await, "Moved Permanently");
    }

    const V1: &str = r#"
package http

import rego.v1

default allow := false

allow if {
    input.request.method == "GET"
    json.unmarshal(input.request.body).ok == true
}
"#;

    #[tokio::test]
    async fn bodies_are_seen_and_passed_on_where_that_is_wanted() {
        let seeing = opa(V1, &[("readBody", "true"), ("defaultStatus", "418")]).await;
        let seeing = seeing.expect("a policy");
        let body = r#"{"ok": true}"#;
        let allowed = send(&seeing, "/", body).await;
        assert_eq!(text(allowed).await, format!("none {body}"));
        assert_eq!(send(&seeing, "/", r#"{"ok": false}"#).await.status(), 418);
        let large = "x".repeat(LARGEST_BODY + 1);
        assert_eq!(send(&seeing, "/", &large).await.status(), 413);
        let blind = opa(V1, &[]).await.expect("a policy");
        assert_eq!(send(&blind, "/", body).await.status(), 403);
    }

    #[tokio::test]
    async fn what_a_policy_cannot_decide_is_refused_with_a_header() {
        for rego in [
            "package http\nallow = 1 { true }",
            "package http\nallow { input.request.method == \"NONE\" }",
            "package http\nallow = {\"allow\": \"yes\"} { true }",
            "package http\nallow = {\"allow\": true, \"additional_headers\": {\"a b\": \"c\"}} { true }",
            // More work than there is time for.
            "package http\nallow { n := numbers.range(1, 3000)\n count([1 | a := n[_]; b := n[_]; c := n[_]; a + b == c]) == 0 }",
        ] {
            let opa = opa(rego, &[]).await.expect("a policy");
            let refused = send(&opa, "/", "").await;
            assert_eq!(refused.status(), 403, "{rego}");
            assert_eq!(refused.headers()[ERROR_HEADER], "true", "{rego}");
        }
    }

    #[tokio::test]
    async fn policies_and_settings_have_to_make_sense() {
        for rego in [
            "",
            "package",
            "package http\nallow {",
            "package other\nallow = true",
        ] {
            assert!(opa(rego, &[]).await.is_err(), "{rego}");
        }
        for more in [
            ("defaultStatus", "99"),
            ("defaultStatus", "x"),
            ("includedHeaders", "a b,("),
        ] {
            assert!(opa(V1, &[more]).await.is_err(), "{more:?}");
        }
    }
}
