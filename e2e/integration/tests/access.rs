//! Ways around an access list: the path that is checked is the one that the
//! application gets.

use anyhow::Result;
use axum::Router;
use http::Request;
use http_body_util::Full;
use outrider_harness::http::Client;
use outrider_harness::{Daprd, GrpcApp, HttpApp, Pair, Sentry, invocation};
use outrider_proto::common::v1::InvokeResponse;
use outrider_proto::internals::v1::InternalInvokeRequest;
use outrider_proto::runtime::v1::InvokeServiceRequest;
use tonic::Code;

/// One path is allowed, or all but one.
const ONLY: &str = "accessControl: {defaultAction: deny, trustDomain: public, policies: [{appId: caller, defaultAction: deny, trustDomain: public, namespace: default, operations: [{name: /public/*, httpVerb: ['*'], action: allow}]}]}";
const ALL_BUT: &str = "accessControl: {defaultAction: deny, trustDomain: public, policies: [{appId: caller, defaultAction: deny, trustDomain: public, namespace: default, operations: [{name: /*, httpVerb: ['*'], action: allow}, {name: /admin, httpVerb: ['*'], action: deny}]}]}";

#[tokio::test]
async fn dot_segments_and_escapes_do_not_lead_out_of_an_allowed_path() -> Result<()> {
    let sentry = Sentry::start().await?;
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let pair = Pair::mtls(&sentry, |called| called.app(&app).config(ONLY)).await?;
    for (path, status) in [
        ("public/a", 200),
        ("public/a%20b", 200),
        ("public%2Fa", 200),
        ("public/a%2520b", 200),
        ("admin", 403),
        ("public%2F..%2Fadmin", 403),
        ("public/%2e%2e/admin", 403),
        ("public%23/../admin", 403),
        ("public/%252e%252e%252fadmin", 500),
        ("public/%25252e%25252e%25252fadmin", 500),
        ("public/%25%32%65%25%32%65/admin", 500),
        ("public/..;/admin", 500),
        ("public/..%3Bx=1/admin", 500),
        ("public/..%5cadmin", 500),
        ("public/..%255cadmin", 500),
        ("public/%c0%ae%c0%ae/admin", 500),
        ("public/a%2500", 500),
    ] {
        let target = format!("/v1.0/invoke/called/method/{path}");
        let answer = pair.caller.http().get(&target).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 500 {
            let expected = "rpc error: code = InvalidArgument desc = invalid method: ";
            assert!(answer.text().contains(expected), "{}", answer.text());
        }
    }
    // The same by gRPC, where nothing is decoded before it is checked.
    let mut grpc = pair.caller.grpc().await?;
    for (method, code) in [
        ("public/a", Code::Ok),
        ("public/a%20b", Code::Ok),
        ("public/%2e%2e/admin", Code::Internal),
        ("public/..%2Fadmin", Code::Internal),
        ("public/..\\admin", Code::Internal),
        ("public/..;/admin", Code::Internal),
    ] {
        let request = InvokeServiceRequest {
            id: "called".to_owned(),
            message: Some(invocation(method)),
        };
        let answered = grpc.invoke_service(request).await;
        let answered = answered.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(answered, code, "{method}");
    }
    for seen in app.seen() {
        assert!(seen.target.starts_with("/public/a"), "{}", seen.target);
    }
    Ok(())
}

#[tokio::test]
async fn a_denied_path_is_denied_in_every_spelling() -> Result<()> {
    let sentry = Sentry::start().await?;
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let pair = Pair::mtls(&sentry, |called| called.app(&app).config(ALL_BUT)).await?;
    for (path, status) in [
        ("other", 200),
        ("admin", 403),
        ("ADMIN", 403),
        ("admin/below", 403),
        ("%61dmin", 403),
        ("%2561dmin", 403),
        ("admin;v=1", 403),
        ("admin%253Bv=1", 403),
        ("./admin", 403),
    ] {
        let target = format!("/v1.0/invoke/called/method/{path}");
        let answer = pair.caller.http().get(&target).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
    }
    assert_eq!(app.seen().len(), 1);
    Ok(())
}

/// A peer that checks nothing itself.
#[tokio::test]
async fn the_called_sidecar_checks_paths_itself() -> Result<()> {
    let http = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let grpc = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let to_http = Daprd::builder().app(&http).start().await?;
    let to_grpc = Daprd::builder().grpc_app(&grpc).start().await?;
    for daprd in [&to_http, &to_grpc] {
        let mut peer = daprd.internal().await?;
        for method in ["a%2Fb", "a/%2E%2e/b", "a\\b", "a/..;/b", "a?b"] {
            let request = InternalInvokeRequest {
                message: Some(invocation(method)),
                ..Default::default()
            };
            let refused = peer.call_local(request).await.expect_err(method);
            assert_eq!(refused.code(), Code::InvalidArgument, "{method}");
            assert!(
                refused.message().starts_with("invalid method: "),
                "{refused}"
            );
        }
    }
    assert!(http.seen().is_empty() && grpc.last().is_none());
    Ok(())
}

#[tokio::test]
async fn other_spellings_of_a_proxied_path_are_refused() -> Result<()> {
    let app = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let daprd = Daprd::builder().grpc_app(&app).start().await?;
    let call = async |path: &str| {
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("dapr-app-id", "app");
        let body = Full::from(&[0; 5][..]);
        Client::h2c(daprd.grpc_port())
            .send(request.body(body)?)
            .await
    };
    for path in [
        "/open.Service/..%2Fdapr.proto.runtime.v1.AppCallback/OnInvoke",
        "/open.Service/../dapr.proto.runtime.v1.AppCallback/OnInvoke",
        "/dapr.proto.runtime.v1.AppCallback%2FOnInvoke",
        "/dapr.proto.runtime.v1.AppCallback//OnInvoke",
        "/dapr.proto.runtime.v1.AppCallback/%2e/OnInvoke",
        "/dapr.proto.runtime.v1.AppCallback/..;/OnInvoke",
    ] {
        let refused = call(path).await?;
        assert_eq!(refused.header("grpc-status"), Some("3"), "{path}");
    }
    assert!(app.last().is_none());
    let answer = call("/dapr.proto.runtime.v1.AppCallback/OnInvoke").await?;
    assert_eq!((answer.status, answer.header("grpc-status")), (200, None));
    assert!(app.last().is_some());
    Ok(())
}

/// The callback of the application takes the method in its message.
#[tokio::test]
async fn the_proxy_cannot_call_the_callback_past_an_access_list() -> Result<()> {
    let sentry = Sentry::start().await?;
    let app = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let pair = Pair::mtls(&sentry, |called| called.grpc_app(&app).config(ALL_BUT)).await?;
    for method in ["OnInvoke", "OnTopicEvent", "OnBindingEvent"] {
        let path = format!("/dapr.proto.runtime.v1.AppCallback/{method}");
        let request = Request::post(path)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("dapr-app-id", "called");
        let message = &b"\0\0\0\0\x07\x0a\x05admin"[..];
        let answer = Client::h2c(pair.caller.grpc_port())
            .send(request.body(Full::from(message))?)
            .await?;
        assert_eq!(answer.header("grpc-status"), Some("7"), "{method}");
    }
    assert!(app.last().is_none());
    Ok(())
}
