use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use http::Method;
use outrider_harness::http::Client;
use outrider_harness::{Authority, Builder, Daprd, GrpcApp, HttpApp, Sentry, wait};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::InvokeServiceRequest;
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tonic::Code;

fn echo() -> Router {
    Router::new().fallback(async |body: String| body)
}

/// A rule for one caller: everything but one path is allowed.
const RULES: &str = "accessControl: {defaultAction: deny, trustDomain: public, policies: [{appId: caller, defaultAction: allow, trustDomain: public, namespace: default, operations: [{name: /secret, httpVerb: ['*'], action: deny}]}]}";

fn named(app_id: &str, folder: &tempfile::TempDir, sentry: &Sentry) -> Result<Builder> {
    Daprd::builder()
        .app_id(app_id)
        .names(folder.path())
        .sentry(sentry)
}

#[tokio::test]
async fn an_access_list_decides_by_the_identity_of_the_caller() -> Result<()> {
    let sentry = Sentry::start().await?;
    let folder = tempfile::tempdir()?;
    let app = HttpApp::start(echo()).await?;
    let caller = named("caller", &folder, &sentry)?.start().await?;
    let called = named("called", &folder, &sentry)?
        .app(&app)
        .config(RULES)
        .start()
        .await?;
    let unlisted = named("unlisted", &folder, &sentry)?.start().await?;

    let call = |daprd: &Daprd, path: &str| {
        let http = daprd.http();
        let path = format!("/v1.0/invoke/called/method/{path}");
        async move { http.request(Method::POST, &path, "hello").await }
    };
    let answer = call(&caller, "echo").await?;
    assert_eq!((answer.status, &*answer.text()), (200, "hello"));
    for (daprd, path) in [(&caller, "secret"), (&unlisted, "echo")] {
        let refused = call(daprd, path).await?;
        let (code, message) = refused.error()?;
        assert_eq!(
            (refused.status, &*code),
            (403, "ERR_DIRECT_INVOKE"),
            "{message}"
        );
        assert!(
            message.contains("access control policy has denied access to id: "),
            "{message}"
        );
    }
    assert_eq!(app.seen().len(), 1);

    // A client without a certificate does not get past the handshake.
    assert!(Client::h2c(called.internal_port()).get("/").await.is_err());
    Ok(())
}

#[tokio::test]
async fn an_access_list_covers_grpc_calls() -> Result<()> {
    let sentry = Sentry::start().await?;
    let folder = tempfile::tempdir()?;
    let app = GrpcApp::start(|request| {
        Ok(InvokeResponse {
            data: request.data,
            ..Default::default()
        })
    })
    .await?;
    let caller = named("caller", &folder, &sentry)?.start().await?;
    let _called = named("called", &folder, &sentry)?
        .grpc_app(&app)
        .config(RULES)
        .start()
        .await?;
    let unlisted = named("unlisted", &folder, &sentry)?.start().await?;
    let message = || InvokeRequest {
        method: "echo".to_owned(),
        ..Default::default()
    };
    let service = || InvokeServiceRequest {
        id: "called".to_owned(),
        message: Some(message()),
    };
    let proxied = || {
        let mut request = tonic::Request::new(message());
        let target = tonic::metadata::MetadataValue::from_static("called");
        request.metadata_mut().insert("dapr-app-id", target);
        request
    };
    caller.grpc().await?.invoke_service(service()).await?;
    // A proxied `OnInvoke` has its method in the message, where the rules do not see it.
    let refused = AppCallbackClient::new(caller.channel().await?)
        .on_invoke(proxied())
        .await
        .expect_err("not everything is allowed");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    let refused = unlisted.grpc().await?.invoke_service(service()).await;
    let refused = refused.expect_err("is not on the list");
    assert_eq!(refused.code(), Code::Internal, "{refused}");
    assert!(
        refused
            .message()
            .contains("access control policy has denied access"),
        "{refused}"
    );
    let refused = AppCallbackClient::new(unlisted.channel().await?)
        .on_invoke(proxied())
        .await;
    let refused = refused.expect_err("is not on the list");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_expired_certificate_is_refused_on_both_sides() -> Result<()> {
    let life = Duration::from_secs(3);
    let authority = Authority::new()?;
    let sentry = Sentry::of(&authority, "24h").await?;
    let hasty = Sentry::of(&authority, &format!("{}s", life.as_secs())).await?;
    let folder = tempfile::tempdir()?;
    let app = HttpApp::start(echo()).await?;
    let late = named("late", &folder, &hasty)?.app(&app).start().await?;
    let prompt = named("prompt", &folder, &sentry)?.app(&app).start().await?;
    // It is not renewed. It is valid until its last second is over.
    hasty.stop().await?;
    let end = Instant::now() + life + Duration::from_secs(1);
    wait::until("the certificate has expired", async || {
        (Instant::now() > end).then_some(())
    })
    .await?;
    // The side with the expired certificate may have sent its request before it
    // is refused, and then sees just a broken connection.
    let refused = "rpc error: code = Unavailable desc = ";
    for (from, to, reason) in [
        (&prompt, "late", "invalid peer certificate: Expired"),
        (&late, "prompt", refused),
    ] {
        let path = format!("/v1.0/invoke/{to}/method/echo");
        let refused = from.http().get(&path).await?;
        let (code, message) = refused.error()?;
        assert_eq!(
            (refused.status, &*code),
            (500, "ERR_DIRECT_INVOKE"),
            "{message}"
        );
        let start = format!("failed to invoke, id: {to}, err: ");
        assert!(
            message.starts_with(&start) && message.contains(reason),
            "{message}"
        );
    }
    prompt
        .line("was refused: invalid peer certificate: Expired")
        .await?;
    late.line("Error renewing identity, trying again").await?;
    assert!(app.seen().is_empty());
    Ok(())
}

/// An answer that goes on until the client disconnects.
fn ticking() -> Router {
    let ticks = || {
        tokio_stream::iter(std::iter::repeat(())).then(async |()| {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, std::convert::Infallible>("tick")
        })
    };
    Router::new()
        .route(
            "/ticks",
            axum::routing::get(async move || Body::from_stream(ticks())),
        )
        .fallback(async |body: String| body)
}

#[tokio::test]
async fn a_connection_ends_when_the_certificate_expires() -> Result<()> {
    let life = Duration::from_secs(20);
    let authority = Authority::new()?;
    let sentry = Sentry::of(&authority, "24h").await?;
    let hasty = Sentry::of(&authority, &format!("{}s", life.as_secs())).await?;
    let folder = tempfile::tempdir()?;
    let app = HttpApp::start(ticking()).await?;
    let prompt = named("prompt", &folder, &sentry)?.app(&app).start().await?;
    let late = named("late", &folder, &hasty)?.app(&app).start().await?;
    hasty.stop().await?;
    let start = Instant::now();
    let read = |from: &Daprd, to: &'static str| {
        let port = from.http_port();
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let head = format!("GET /v1.0/invoke/{to}/method/ticks HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            let mut answer = Vec::new();
            let limit = life + Duration::from_secs(20);
            let ended = tokio::time::timeout(limit, stream.read_to_end(&mut answer)).await;
            anyhow::ensure!(ended.is_ok(), "{to} still answers");
            anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{to} never answered");
            anyhow::Ok(answer)
        }
    };
    let (one, another) = tokio::try_join!(read(&prompt, "late"), read(&late, "prompt"))?;
    for answer in [one, another] {
        // Without the last chunk the client sees that the answer is not complete.
        assert!(!answer.ends_with(b"0\r\n\r\n"));
    }
    assert!(start.elapsed() < life + Duration::from_secs(10));
    Ok(())
}

#[tokio::test]
async fn without_mtls_the_default_action_of_an_access_list_applies() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let app = HttpApp::start(echo()).await?;
    let caller = Daprd::builder()
        .app_id("caller")
        .names(folder.path())
        .start()
        .await?;
    let _called = Daprd::builder()
        .app_id("called")
        .names(folder.path())
        .app(&app)
        .config(RULES)
        .start()
        .await?;
    let refused = caller.http().get("/v1.0/invoke/called/method/echo").await?;
    assert_eq!(
        (refused.status, &*refused.error()?.0),
        (403, "ERR_DIRECT_INVOKE")
    );
    assert!(app.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_access_list_without_a_default_action_is_warned_of() -> Result<()> {
    let policies = "policies: [{appId: a, trustDomain: public, namespace: default}]";
    let warning = "accessControl has no defaultAction";
    let silent = format!("accessControl: {{defaultAction: deny, {policies}}}");
    let daprd = Daprd::builder().config(&silent).start().await?;
    assert!(!daprd.lines().iter().any(|line| line.contains(warning)));
    let lacking = format!("accessControl: {{{policies}}}");
    let daprd = Daprd::builder().config(&lacking).start().await?;
    let line = daprd.line(warning).await?;
    assert!(
        line.contains("Set spec.accessControl.defaultAction to deny"),
        "{line}"
    );
    Ok(())
}
