//! Middleware on an identity provider.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use outrider_components::middleware::{End, Middleware, Next, Outcome, Request, Response, full};
use outrider_components::{Context, Error, Metadata};
use serde_json::{Value, json};

use crate::identity::{ID, Key, Provider, SECRET};
use crate::{TYPES, registry};

async fn connect(type_name: &str, pairs: &[(&str, &str)]) -> Result<Arc<dyn Middleware>, Error> {
    assert!(TYPES.contains(&type_name), "add {type_name} to TYPES");
    // As every process of ours does; the first call counts.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let registry = registry();
    let found = registry.middleware.find(type_name, "v1");
    let metadata = Metadata::new("m", pairs.iter().copied());
    (found.expect("is registered").constructor)(metadata, Context::default()).await
}

/// Answers with the values of `Authorization`.
struct Echo;

#[async_trait]
impl End for Echo {
    async fn answer(&self, request: Request) -> Outcome {
        let values = request.headers().get_all("authorization").iter();
        let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
        Ok(Response::new(full(values.join(","))))
    }
}

fn get(uri: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = Request::new(full(""));
    *request.uri_mut() = uri.parse().expect("a URI");
    for (name, value) in headers {
        let value = HeaderValue::try_from(*value).expect("a value");
        request.headers_mut().append(*name, value);
    }
    request
}

/// Status, headers and body of the answer.
async fn send(
    middleware: &Arc<dyn Middleware>,
    uri: &str,
    headers: &[(&'static str, &str)],
) -> (u16, http::HeaderMap, String) {
    let chain = [middleware.clone()];
    let sent = Next::new(&chain, &Echo).run(get(uri, headers)).await;
    let (parts, body) = sent.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&body).into_owned();
    (parts.status.as_u16(), parts.headers, text)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_secs()
}

const BEARER: &str = "middleware.http.bearer";

fn claims(issuer: &str) -> Value {
    json!({"iss": issuer, "aud": ["other", "me"], "exp": now() + 60, "sub": "someone"})
}

async fn status_with(bearer: &Arc<dyn Middleware>, token: &str) -> u16 {
    let value = format!("Bearer {token}");
    send(bearer, "/", &[("authorization", &value)]).await.0
}

#[tokio::test]
async fn bearer_accepts_the_issuers_tokens_for_the_audience_and_no_others() {
    let (provider, key, other) = (Provider::start().await, Key::new("one"), Key::new("one"));
    provider.set(|provider| provider.keys = vec![key.jwk(), json!({"kty": "later"})]);
    let issuer = provider.url.clone();
    let properties = [("issuerURL", issuer.as_str()), ("clientID", "me")];
    let bearer = connect(BEARER, &properties).await.expect("connects");
    let right = key.sign(&claims(&issuer));
    assert_eq!(status_with(&bearer, &right).await, 200);
    let with = |name: &str, value: Value| {
        let mut claims = claims(&issuer);
        match value {
            Value::Null => drop(claims.as_object_mut().expect("an object").remove(name)),
            value => claims[name] = value,
        }
        key.sign(&claims)
    };
    // Clocks may differ.
    assert_eq!(
        status_with(&bearer, &with("exp", json!(now() - 200))).await,
        200
    );
    assert_eq!(
        status_with(&bearer, &with("nbf", json!(now() + 200))).await,
        200
    );
    let (head, rest) = right.split_once('.').expect("three parts");
    let (payload, signature) = rest.split_once('.').expect("three parts");
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let none = part(json!({"alg": "none", "kid": "one"}));
    // Signed with the public key as if it were a shared secret.
    let mut symmetric = Header::new(Algorithm::HS256);
    symmetric.kid = Some("one".to_owned());
    let public = EncodingKey::from_secret(key.jwk().to_string().as_bytes());
    let confused = jsonwebtoken::encode(&symmetric, &claims(&issuer), &public);
    for (what, token) in [
        ("expired", with("exp", json!(now() - 400))),
        ("not yet", with("nbf", json!(now() + 400))),
        ("not issued yet", with("iat", json!(now() + 400))),
        ("no end", with("exp", Value::Null)),
        ("issuer", with("iss", json!("https://elsewhere"))),
        ("no issuer", with("iss", Value::Null)),
        ("audience", with("aud", json!("other"))),
        ("no audience", with("aud", Value::Null)),
        ("key", other.sign(&claims(&issuer))),
        ("unknown key", Key::new("two").sign(&claims(&issuer))),
        ("none", format!("{none}.{payload}.")),
        ("confused", confused.expect("a token")),
        ("cut", format!("{head}.{payload}.{}", &signature[..20])),
        ("unsigned", format!("{head}.{payload}")),
        ("garbage", "x".repeat(100_000)),
        ("dots", ".".repeat(1000)),
    ] {
        assert_eq!(status_with(&bearer, &token).await, 401, "{what}");
    }
    let (status, _, text) = send(&bearer, "/", &[]).await;
    assert_eq!((status, &*text), (401, "Unauthorized"));
}

#[tokio::test]
async fn bearer_takes_new_keys_and_is_not_made_to_ask_for_them_often() {
    let (provider, old, new) = (Provider::start().await, Key::new("old"), Key::new("new"));
    provider.set(|provider| provider.keys = vec![old.jwk()]);
    let (url, issuer) = (format!("{}/keys", provider.url), "the issuer");
    let properties = [("issuer", issuer), ("audience", "me"), ("jwksURL", &url)];
    let bearer = connect(BEARER, &properties).await.expect("connects");
    provider.set(|provider| provider.keys = vec![new.jwk()]);
    assert_eq!(status_with(&bearer, &new.sign(&claims(issuer))).await, 200);
    assert_eq!(status_with(&bearer, &old.sign(&claims(issuer))).await, 401);
    for n in 0..20 {
        let stranger = Key::new(&n.to_string()).sign(&claims(issuer));
        assert_eq!(status_with(&bearer, &stranger).await, 401);
    }
    assert_eq!(provider.key_requests(), 2);
}

#[tokio::test]
async fn bearer_needs_its_provider_at_the_start() {
    let provider = Provider::start().await;
    provider.set(|provider| provider.issuer = Some("https://elsewhere".to_owned()));
    let failed = async |pairs: &[(&str, &str)]| {
        let error = connect(BEARER, pairs).await.err().expect("fails");
        error.to_string()
    };
    let url = provider.url.as_str();
    let error = failed(&[("issuer", url), ("audience", "me")]).await;
    assert!(
        error.contains("('https://elsewhere') doesn't match"),
        "{error}"
    );
    let missing = format!("{url}/nothing");
    let error = failed(&[("issuer", url), ("audience", "me"), ("jwksURL", &missing)]).await;
    assert!(
        error.contains("failed to fetch JWKS: invalid response status code: 404"),
        "{error}"
    );
    let error = failed(&[("issuer", url)]).await;
    assert_eq!(error, "metadata property 'audience' is required");
}

const CREDENTIALS: &str = "middleware.http.oauth2clientcredentials";

async fn credentials(provider: &Provider, more: &[(&str, &str)]) -> Arc<dyn Middleware> {
    let url = format!("{}/token", provider.url);
    let mut pairs = vec![
        ("clientID", ID),
        ("clientSecret", SECRET),
        ("tokenURL", &url),
        ("headerName", "authorization"),
        ("scopes", "read,write"),
    ];
    pairs.extend(more);
    connect(CREDENTIALS, &pairs).await.expect("is valid")
}

#[tokio::test]
async fn client_credentials_get_one_token_for_many_requests() {
    for in_body in [false, true] {
        let provider = Provider::start().await;
        provider.set(|provider| provider.in_body = in_body);
        let more = [
            ("endpointParamsQuery", "resource=a&x=%20"),
            ("pathFilter", "^/in"),
        ];
        let middleware = credentials(&provider, &more).await;
        let sent = (0..5).map(|_| send(&middleware, "/in", &[("authorization", "mine")]));
        let first = format!("Bearer token{}", if in_body { 2 } else { 1 });
        for (status, _, text) in futures_util::future::join_all(sent).await {
            assert_eq!((status, &text), (200, &first));
        }
        let (_, _, text) = send(&middleware, "/out", &[("authorization", "mine")]).await;
        assert_eq!(text, "mine");
        let forms = provider.forms();
        assert_eq!(forms.len(), if in_body { 2 } else { 1 });
        let form = forms.last().expect("a form");
        for (name, value) in [
            ("grant_type", "client_credentials"),
            ("scope", "read write"),
            ("resource", "a"),
            ("x", " "),
        ] {
            assert_eq!(form[name], value);
        }
        assert_eq!(form.contains_key("client_secret"), in_body);
    }
}

#[tokio::test]
async fn client_credentials_are_used_up_and_failures_are_answered() {
    let provider = Provider::start().await;
    provider.set(|provider| {
        provider.fails = true;
        provider.expires_in = Some(11);
    });
    let middleware = credentials(&provider, &[("authStyle", "2")]).await;
    for _ in 0..3 {
        let (status, _, text) = send(&middleware, "/", &[]).await;
        assert_eq!((status, &*text), (500, "Internal Server Error"));
    }
    assert_eq!(provider.forms().len(), 1, "it is left alone for a while");
    provider.set(|provider| provider.fails = false);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for token in ["Bearer token2", "Bearer token2", "Bearer token3"] {
        assert_eq!(send(&middleware, "/", &[]).await.2, token);
        if token != "Bearer token2" || provider.forms().len() > 2 {
            continue;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn client_credentials_have_to_be_complete() {
    for (missing, text) in [
        (
            "clientID",
            "metadata errors: Parameter 'clientID' needs to be set. ",
        ),
        (
            "headerName",
            "metadata errors: Parameter 'headerName' needs to be set. ",
        ),
    ] {
        let all = [
            ("clientID", "a"),
            ("clientSecret", "b"),
            ("tokenURL", "http://c"),
            ("headerName", "d"),
        ];
        let pairs: Vec<_> = all
            .into_iter()
            .filter(|(name, _)| *name != missing)
            .collect();
        let error = connect(CREDENTIALS, &pairs).await.err().expect("is wrong");
        assert_eq!(error.to_string(), text);
        for wrong in [("authStyle", "3"), ("pathFilter", "(")] {
            let pairs: Vec<_> = all.into_iter().chain([wrong]).collect();
            assert!(connect(CREDENTIALS, &pairs).await.is_err(), "{wrong:?}");
        }
    }
}

fn query(url: &str) -> HashMap<String, String> {
    let (_, query) = url.split_once('?').expect("a query");
    form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect()
}

/// The cookie that an answer sets, as the browser sends it back.
fn cookie(headers: &http::HeaderMap) -> String {
    let set = headers["set-cookie"].to_str().expect("text");
    assert!(
        set.contains("; HttpOnly") && set.contains("; SameSite=Lax"),
        "{set}"
    );
    set.split(';').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn browsers_log_in_and_get_what_they_asked_for_with_a_token() {
    let provider = Provider::start().await;
    let (auth, token) = (
        format!("{}/authorize", provider.url),
        format!("{}/token", provider.url),
    );
    let oauth2 = connect(
        "middleware.http.oauth2",
        &[
            ("clientID", ID),
            ("clientSecret", SECRET),
            ("authURL", &auth),
            ("tokenURL", &token),
            ("scopes", "openid,email"),
            ("redirectURL", "http://localhost/back"),
            ("pathFilter", "^/+(in|back)"),
        ],
    )
    .await
    .expect("is valid");
    assert_eq!(
        send(&oauth2, "/free", &[("authorization", "mine")]).await.2,
        "mine"
    );

    let (status, headers, _) = send(&oauth2, "/in/x?y=1", &[("authorization", "mine")]).await;
    let location = headers["location"].to_str().expect("text");
    assert!(status == 302 && location.starts_with(&auth), "{location}");
    let asked = query(location);
    assert_eq!(
        (&*asked["scope"], &*asked["redirect_uri"]),
        ("openid email", "http://localhost/back")
    );
    let browser = cookie(&headers);
    let back = |state: &str, code: &str| format!("/back?state={state}&code={code}");
    let state = &asked["state"];
    // Another browser, another state, no code.
    for (target, cookie, text) in [
        (back(state, "right"), "", "invalid state"),
        (
            back(state, "right"),
            "gosessionsid=00000000-0000-0000-0000-000000000000",
            "invalid state",
        ),
        (back("other", "right"), &browser, "invalid state"),
    ] {
        let (status, _, answer) = send(&oauth2, &target, &[("cookie", cookie)]).await;
        assert_eq!((status, &*answer), (400, text), "{target}");
    }
    let (status, headers, _) = send(&oauth2, &back(state, "right"), &[("cookie", &browser)]).await;
    assert_eq!(
        (status, &headers["location"]),
        (302, &HeaderValue::from_static("/in/x?y=1"))
    );
    assert_eq!(provider.forms()[0]["redirect_uri"], "http://localhost/back");
    let session = cookie(&headers);
    assert_ne!(session, browser);
    let (status, _, text) = send(
        &oauth2,
        "/in/x?y=1",
        &[("cookie", &session), ("authorization", "mine")],
    )
    .await;
    assert_eq!((status, &*text), (200, "Bearer token1"));
    // The old cookie is good for nothing, and the state only once.
    assert_eq!(send(&oauth2, "/in/x", &[("cookie", &browser)]).await.0, 302);
    assert_eq!(
        send(&oauth2, &back(state, "right"), &[("cookie", &browser)])
            .await
            .0,
        400
    );

    // A wrong code, and a target that looks like a host.
    for (path, code, status) in [("/in", "wrong", 500), ("//in.example/x", "right", 302)] {
        let (_, headers, _) = send(&oauth2, path, &[]).await;
        let state = query(headers["location"].to_str().expect("text"))["state"].clone();
        let browser = cookie(&headers);
        let (answered, headers, _) =
            send(&oauth2, &back(&state, code), &[("cookie", &browser)]).await;
        assert_eq!(answered, status, "{path}");
        if status == 302 {
            assert_eq!(headers["location"], "/in.example/x");
        }
    }
}
