//! Invalid certificates and keys.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::routing::get;
use outrider_harness::{Authority, Daprd, HttpApp, Sentry};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use time::OffsetDateTime;

/// An authority for `days` from yesterday, signed by `issuer` or by itself.
fn authority(
    name: &str,
    days: i64,
    issuer: Option<&Issuer<'_, KeyPair>>,
) -> Result<(Certificate, Issuer<'static, KeyPair>)> {
    let day = Duration::from_secs(24 * 3600);
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - day * 10;
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
    let key = KeyPair::generate()?;
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer)?,
        None => params.self_signed(&key)?,
    };
    Ok((certificate, Issuer::new(params, key)))
}

fn credentials(
    root: &Certificate,
    issuer: &Certificate,
    key: &Issuer<'_, KeyPair>,
) -> [(&'static str, String); 3] {
    [
        ("ca.crt", root.pem()),
        ("issuer.crt", issuer.pem()),
        ("issuer.key", key.key().serialize_pem()),
    ]
}

async fn refuses(credentials: &[(&str, String)], text: &str) -> Result<()> {
    let sentry = Sentry::spawn(credentials)?;
    assert_eq!(sentry.end().await?.code(), Some(1), "{:?}", sentry.lines());
    sentry.line(text).await?;
    Ok(())
}

#[tokio::test]
async fn given_credentials_are_used() -> Result<()> {
    let (root, signer) = authority("root", 10, None)?;
    let (issuer, key) = authority("issuer", 10, Some(&signer))?;
    let sentry = Sentry::spawn(&credentials(&root, &issuer, &key))?;
    sentry.ready().await?;
    assert_eq!(sentry.anchors()?, root.pem());
    Ok(())
}

#[tokio::test]
async fn an_expired_issuer_is_refused() -> Result<()> {
    let (root, signer) = authority("root", 10, None)?;
    let (issuer, key) = authority("issuer", -1, Some(&signer))?;
    refuses(
        &credentials(&root, &issuer, &key),
        "issuer certificate has expired",
    )
    .await
}

#[tokio::test]
async fn an_issuer_of_another_root_is_refused() -> Result<()> {
    let (root, _) = authority("root", 10, None)?;
    let (_, other) = authority("other", 10, None)?;
    let (issuer, key) = authority("issuer", 10, Some(&other))?;
    let wanted = "issuer chain does not belong to trust anchors";
    refuses(&credentials(&root, &issuer, &key), wanted).await
}

#[tokio::test]
async fn a_key_of_another_issuer_is_refused() -> Result<()> {
    let (root, signer) = authority("root", 10, None)?;
    let (issuer, _) = authority("issuer", 10, Some(&signer))?;
    let (_, key) = authority("issuer", 10, Some(&signer))?;
    let wanted = "issuer key does not match issuer certificate";
    refuses(&credentials(&root, &issuer, &key), wanted).await
}

#[tokio::test]
async fn credentials_that_are_not_pem_are_refused() -> Result<()> {
    let text = |name| (name, "nonsense\n".to_owned());
    let all = [text("ca.crt"), text("issuer.crt"), text("issuer.key")];
    refuses(&all, "no certificates found").await
}

#[tokio::test]
async fn a_sidecar_that_trusts_another_root_is_never_ready() -> Result<()> {
    let sentry = Sentry::start().await?;
    let (other, _) = authority("other", 10, None)?;
    let daprd = Daprd::builder()
        .sentry(&sentry)?
        .env("DAPR_TRUST_ANCHORS", &other.pem())
        .spawn()?;
    daprd
        .line("invalid peer certificate: UnknownIssuer")
        .await?;
    let ready = daprd.public().get("/v1.0/healthz").await;
    assert!(ready.is_err() || ready.is_ok_and(|answer| answer.status != 204));
    Ok(())
}

#[tokio::test]
async fn malformed_trust_anchors_fail_the_start_and_expired_ones_are_retried() -> Result<()> {
    let sentry = Sentry::start().await?;
    let daprd = Daprd::builder()
        .sentry(&sentry)?
        .env("DAPR_TRUST_ANCHORS", "nonsense")
        .spawn()?;
    assert_eq!(daprd.end().await?.code(), Some(1), "{:?}", daprd.lines());
    daprd
        .line("failed to decode trust anchors: no certificates found")
        .await?;

    let (old, _) = authority("old", -1, None)?;
    let daprd = Daprd::builder()
        .sentry(&sentry)?
        .env("DAPR_TRUST_ANCHORS", &old.pem())
        .spawn()?;
    daprd
        .line("failed to retrieve the initial identity")
        .await?;
    assert_eq!(daprd.status(), None);
    Ok(())
}

/// Starts a sentry whose callers are known by keys of a server of this
/// authority, and returns once it has ended with this text in its log.
async fn refuses_keys(router: Router, text: &str) -> Result<()> {
    let authority = Authority::new()?;
    let server = HttpApp::over_tls(router, authority.server(false)?).await?;
    let options = serde_json::json!({
        "source": format!("https://localhost:{}/keys", server.port()),
        "caCertificate": authority.pem(),
    });
    let validator = serde_json::json!({"name": "jwks", "options": options});
    let sentry = Sentry::configured(&[], &format!("tokenValidators: [{validator}]"))?;
    assert_eq!(sentry.end().await?.code(), Some(1), "{:?}", sentry.lines());
    sentry.line(text).await?;
    Ok(())
}

#[tokio::test]
async fn keys_of_a_redirect_to_plain_http_are_refused() -> Result<()> {
    let keys = Router::new().fallback(async || r#"{"keys": []}"#);
    let plain = HttpApp::start(keys).await?;
    let location = format!("http://127.0.0.1:{}/keys", plain.port());
    let redirect = async move || (StatusCode::FOUND, [(LOCATION, location)]);
    let router = Router::new().route("/keys", get(redirect));
    refuses_keys(router, "redirected from https to plain http").await
}

#[tokio::test]
async fn keys_without_an_end_are_refused() -> Result<()> {
    let endless = async || {
        let piece = bytes::Bytes::from_static(&[b' '; 16 << 10]);
        let pieces = tokio_stream::iter(std::iter::repeat_with(move || {
            Ok::<_, std::io::Error>(piece.clone())
        }));
        Body::from_stream(pieces)
    };
    let router = Router::new().route("/keys", get(endless));
    refuses_keys(router, "bytes of keys").await
}
