//! Headers with the identity of the caller: clients cannot set them.

use anyhow::{Context, Result};
use axum::Router;
use http::Request;
use http_body_util::Full;
use outrider_harness::{Daprd, GrpcApp, HttpApp, Seen, Sentry};
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse};
use outrider_proto::internals::v1::{InternalInvokeRequest, ListStringValue};
use outrider_proto::runtime::v1::InvokeServiceRequest;
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap};

const FORGED: [&str; 6] = [
    "dapr-caller-app-id",
    "dapr-caller-namespace",
    "dapr-callee-app-id",
    "dapr_caller_app_id",
    "Dapr-Caller_Namespace",
    "dapr-api-token",
];

fn forge<T>(message: T) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    for name in FORGED {
        // The target may be named by this one.
        if name != "dapr-callee-app-id" {
            let name = MetadataKey::<Ascii>::from_bytes(name.to_ascii_lowercase().as_bytes())?;
            request.metadata_mut().append(name, "forged".parse()?);
        }
    }
    Ok(request)
}

fn invocation() -> InvokeRequest {
    InvokeRequest {
        method: "x".to_owned(),
        http_extension: Some(HttpExtension {
            verb: Verb::Get.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn http_says(seen: &Seen) -> Vec<String> {
    let named = seen.headers.iter().filter(|(name, _)| {
        let name = name.as_str().replace('_', "-");
        name.starts_with("dapr-call") || name == "dapr-api-token"
    });
    let mut shown: Vec<_> = named
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
        .collect();
    shown.sort();
    shown
}

fn grpc_says(metadata: &MetadataMap) -> Vec<String> {
    http_says(&Seen {
        version: http::Version::HTTP_2,
        method: String::new(),
        authority: None,
        target: String::new(),
        headers: metadata.clone().into_headers(),
        body: Default::default(),
    })
}

fn expected(caller: &str, namespace: &str, callee: &str) -> Vec<String> {
    vec![
        format!("dapr-callee-app-id: {callee}"),
        format!("dapr-caller-app-id: {caller}"),
        format!("dapr-caller-namespace: {namespace}"),
    ]
}

/// Every way in to both kinds of application, with forged values.
async fn attack(from: &Daprd, target: &'static str) -> Result<()> {
    let mut request = Request::get(format!("/v1.0/invoke/{target}/method/x"));
    for name in FORGED {
        request = request.header(name, "forged");
    }
    from.http().send(request.body(Full::default())?).await?;
    let service = InvokeServiceRequest {
        id: target.to_owned(),
        message: Some(invocation()),
    };
    let mut forged = forge(service)?;
    let callee = "dapr-callee-app-id";
    forged.metadata_mut().insert(callee, "forged".parse()?);
    from.grpc().await?.invoke_service(forged).await?;
    Ok(())
}

async fn attack_by_proxy(from: &Daprd, target: &str) -> Result<()> {
    for name in ["dapr-app-id", "dapr-callee-app-id"] {
        let mut request = forge(invocation())?;
        request.metadata_mut().insert(name, target.parse()?);
        let mut client = AppCallbackClient::new(from.channel().await?);
        client.on_invoke(request).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_cannot_set_the_identity_headers() -> Result<()> {
    let sentry = Sentry::start().await?;
    for mtls in [false, true] {
        let http = HttpApp::start(Router::new().fallback(async || "ok")).await?;
        let grpc = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
        let names = tempfile::tempdir()?;
        let named = |app_id: &str| {
            let builder = Daprd::builder().app_id(app_id).names(names.path());
            match mtls {
                true => builder.sentry(&sentry),
                false => Ok(builder.env("NAMESPACE", "default")),
            }
        };
        let caller = named("caller")?.start().await?;
        let web = named("web")?.app(&http).start().await?;
        let rpc = named("rpc")?.grpc_app(&grpc).start().await?;
        for (from, name) in [(&caller, "caller"), (&web, "web")] {
            attack(from, "web").await?;
            for seen in http.seen().iter().rev().take(2) {
                assert_eq!(http_says(seen), expected(name, "default", "web"));
            }
        }
        for (from, name) in [(&caller, "caller"), (&rpc, "rpc")] {
            attack(from, "rpc").await?;
            let (metadata, _) = grpc.last().context("was not called")?;
            assert_eq!(grpc_says(&metadata), expected(name, "default", "rpc"));
            attack_by_proxy(from, "rpc").await?;
            let (metadata, _) = grpc.last().context("was not called")?;
            assert_eq!(grpc_says(&metadata), expected(name, "default", "rpc"));
        }
    }
    Ok(())
}

/// A peer that is not Outrider, without mTLS: headers that it set itself stay.
#[tokio::test]
async fn a_peer_sets_each_identity_header_once() -> Result<()> {
    let app = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder().app_id("called").app(&app).start().await?;
    let list = |values: &[&str]| ListStringValue {
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    };
    let metadata = [
        ("Dapr-Caller-App-Id", list(&["client"])),
        ("dapr-caller-app-id", list(&["client", "peer"])),
        ("DAPR-CALLER-NAMESPACE", list(&["client"])),
        ("dapr-caller-namespace", list(&["ns"])),
        ("dapr-callee-app-id", list(&["another"])),
        ("Dapr-Api-Token", list(&["client"])),
        (":caller-app-id", list(&["client"])),
    ];
    let request = InternalInvokeRequest {
        metadata: metadata.map(|(n, v)| (n.to_owned(), v)).into(),
        message: Some(invocation()),
        ..Default::default()
    };
    daprd.internal().await?.call_local(request).await?;
    let seen = app.last().context("was not called")?;
    assert_eq!(http_says(&seen), expected("peer", "ns", "called"));
    Ok(())
}

#[tokio::test]
async fn hosts_outside_get_no_identity_headers() -> Result<()> {
    let host = HttpApp::start(Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder()
        .env("DAPR_API_TOKEN", "secret")
        .start()
        .await?;
    let mut request = Request::get(format!(
        "/v1.0/invoke/http://127.0.0.1:{}/method/x",
        host.port()
    ))
    .header("dapr-api-token", "secret");
    for name in &FORGED[..5] {
        request = request.header(*name, "forged");
    }
    let answer = daprd.http().send(request.body(Full::default())?).await?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = host.last().context("was not called")?;
    assert_eq!(http_says(&seen), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_delivered_message_has_no_identity_headers() -> Result<()> {
    let router = Router::new()
        .route(
            "/dapr/subscribe",
            axum::routing::get(async || r#"[{"pubsubname":"ps","topic":"t","route":"/t"}]"#),
        )
        .fallback(async || "");
    let app = HttpApp::start(router).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .component("ps", "pubsub.in-memory")
        .start()
        .await?;
    let path = "/v1.0/publish/ps/t?metadata.dapr-caller-app-id=forged&metadata.x-kept=1";
    let delivered = async || {
        let answer = daprd.http().post(path, &serde_json::json!(1)).await.ok()?;
        (answer.status == 204).then_some(())?;
        app.last()
    };
    let seen = outrider_harness::wait::until("it is delivered", delivered).await?;
    assert_eq!(http_says(&seen), Vec::<String>::new());
    Ok(())
}
