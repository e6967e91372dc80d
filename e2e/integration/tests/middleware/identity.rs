//! Middleware that asks an identity provider, which is an application of the
//! test.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use outrider_harness::{Daprd, HttpApp, Pair};
use rcgen::{KeyPair, PKCS_ED25519};
use serde_json::{Value, json};

use super::{middleware, pipeline};

fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let groups = bytes.chunks(3).map(|chunk| {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - chunk.len()));
        let letters = (0..=chunk.len()).map(|at| (bits >> (18 - 6 * at)) as usize & 63);
        letters
            .map(|at| char::from(LETTERS[at]))
            .collect::<String>()
    });
    groups.collect()
}

fn token(key: &KeyPair, claims: &Value) -> Result<String> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("one".to_owned());
    let key = EncodingKey::from_ed_der(&key.serialize_der());
    Ok(jsonwebtoken::encode(&header, claims, &key)?)
}

#[tokio::test]
async fn bearer_guards_the_api_and_the_application() -> Result<()> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let jwk =
        json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": base64url(key.public_key_raw())});
    let keys = json!({"keys": [jwk]});
    let provider =
        HttpApp::start(Router::new().route("/keys", get(async move || Json(keys)))).await?;
    let app = HttpApp::start(Router::new().fallback(any(async || "app"))).await?;
    let metadata = format!(
        "{{name: issuer, value: 'https://issuer'}}, {{name: audience, value: me}}, {{name: jwksURL, value: 'http://127.0.0.1:{}/keys'}}",
        provider.port()
    );
    let bearer = middleware("auth", "bearer", &metadata);
    let handlers = [("auth", "bearer")];
    let pair = Pair::both(
        |caller| {
            caller
                .config(&pipeline("httpPipeline", &handlers))
                .resource(&bearer)
        },
        |called| {
            called
                .app(&app)
                .config(&pipeline("appHttpPipeline", &handlers))
                .resource(&bearer)
        },
    )
    .await?;
    let exp = SystemTime::now() + Duration::from_secs(60);
    let exp = exp.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let good = token(
        &key,
        &json!({"iss": "https://issuer", "aud": "me", "exp": exp}),
    )?;
    let bad = token(
        &key,
        &json!({"iss": "https://issuer", "aud": "you", "exp": exp}),
    )?;
    let path = "/v1.0/invoke/called/method/x";
    for (caller, token, status) in [
        (&pair.caller, Some(&good), 200),
        (&pair.caller, Some(&bad), 401),
        (&pair.caller, None, 401),
        // The application has a guard of its own.
        (&pair.called, Some(&good), 200),
        (&pair.called, Some(&bad), 401),
        (&pair.called, None, 401),
    ] {
        let mut http = caller.http();
        if let Some(token) = token {
            http = http.with("authorization", &format!("Bearer {token}"));
        }
        let answer = http.get(path).await?;
        assert_eq!(answer.status, status, "{} {token:?}", caller.app_id());
    }
    assert_eq!(app.seen().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_does_not_answer_fails_the_sidecar() -> Result<()> {
    let metadata = format!(
        "{{name: issuer, value: 'http://127.0.0.1:{}'}}, {{name: audience, value: me}}",
        outrider_harness::port::free()
    );
    let daprd = Daprd::builder()
        .resource(&middleware("auth", "bearer", &metadata))
        .spawn()?;
    daprd
        .line("Fatal error from runtime: failed to load components: process component auth error")
        .await?;
    Ok(())
}

#[tokio::test]
async fn tokens_are_added_to_calls_of_the_application() -> Result<()> {
    let issue =
        async || Json(json!({"access_token": "t", "token_type": "bearer", "expires_in": 60}));
    let provider = HttpApp::start(Router::new().route("/token", post(issue))).await?;
    let app = HttpApp::start(Router::new().fallback(any(async || "app"))).await?;
    let metadata = format!(
        "{{name: clientID, value: id}}, {{name: clientSecret, value: s3cret}}, {{name: scopes, value: a}}, {{name: headerName, value: authorization}}, {{name: tokenURL, value: 'http://127.0.0.1:{}/token'}}",
        provider.port()
    );
    let daprd = Daprd::builder()
        .app(&app)
        .config(&pipeline(
            "appHttpPipeline",
            &[("auth", "oauth2clientcredentials")],
        ))
        .resource(&middleware("auth", "oauth2clientcredentials", &metadata))
        .start()
        .await?;
    let http = daprd.http().with("authorization", "mine");
    for _ in 0..2 {
        assert_eq!(http.get("/v1.0/invoke/app/method/x").await?.status, 200);
        let seen = app.last().context("was not called")?;
        assert_eq!(seen.header("authorization"), Some("Bearer t"));
    }
    assert_eq!(provider.seen().len(), 1);
    assert!(!daprd.lines().iter().any(|line| line.contains("s3cret")));
    Ok(())
}

#[tokio::test]
async fn browsers_are_sent_to_log_in() -> Result<()> {
    let metadata = "{name: clientID, value: id}, {name: clientSecret, value: s}, {name: authURL, value: 'https://idp/auth?x=1'}, {name: tokenURL, value: 'https://idp/token'}, {name: pathFilter, value: '^/v1.0/invoke'}";
    let daprd = Daprd::builder()
        .config(&pipeline("httpPipeline", &[("login", "oauth2")]))
        .resource(&middleware("login", "oauth2", metadata))
        .start()
        .await?;
    let http = daprd.http();
    let answer = http.get("/v1.0/invoke/app/method/x").await?;
    let location = answer.header("location").unwrap_or_default();
    assert!(
        answer.status == 302
            && location.starts_with(
                "https://idp/auth?x=1&access_type=offline&client_id=id&response_type=code&state="
            ),
        "{location}"
    );
    assert_eq!(http.get("/v1.0/metadata").await?.status, 200);
    assert_eq!(
        http.get("/v1.0/invoke/app/method/x?state=y&code=z")
            .await?
            .status,
        400
    );
    Ok(())
}
