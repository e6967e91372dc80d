use anyhow::{Context, Result};
use http::{Method, Request as HttpRequest};
use http_body_util::Full;
use outrider_harness::http::{Client, over_unix};
use outrider_harness::{Daprd, GrpcApp, HttpApp};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use outrider_proto::runtime::v1::{GetMetadataRequest, InvokeServiceRequest};
use tonic::{Code, Request};

#[tokio::test]
async fn the_api_requires_its_token() -> Result<()> {
    let daprd = Daprd::builder()
        .env("DAPR_API_TOKEN", "secret")
        .start()
        .await?;
    let http = daprd.http();
    for client in [http.clone(), http.clone().with("dapr-api-token", "wrong")] {
        let refused = client.get("/v1.0/metadata").await?;
        assert_eq!(
            (refused.status, refused.text().trim()),
            (401, "invalid api token")
        );
    }
    let known = http.clone().with("dapr-api-token", "secret");
    assert_eq!(known.get("/v1.0/metadata").await?.status, 200);
    for open in ["/v1.0/healthz", "/v1.0/healthz/outbound"] {
        assert_eq!(http.get(open).await?.status, 204, "{open}");
    }

    let mut grpc = daprd.grpc().await?;
    let refused = grpc
        .get_metadata(GetMetadataRequest {})
        .await
        .expect_err("has no token");
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut request = Request::new(GetMetadataRequest {});
    request
        .metadata_mut()
        .insert("dapr-api-token", "secret".parse()?);
    grpc.get_metadata(request).await?;
    Ok(())
}

#[tokio::test]
async fn the_application_gets_its_token() -> Result<()> {
    let app = HttpApp::start(axum::Router::new().fallback(async || "ok")).await?;
    let daprd = Daprd::builder()
        .app(&app)
        .env("APP_API_TOKEN", "for the app")
        .start()
        .await?;
    assert_eq!(
        daprd.http().get("/v1.0/invoke/app/method/x").await?.status,
        200
    );
    let seen = app.last().expect("was called");
    assert_eq!(seen.header("dapr-api-token"), Some("for the app"));
    Ok(())
}

/// Requests that come close to the two that need no token.
fn near_misses() -> Vec<(Method, &'static str, bool)> {
    let health = "/v1.0/healthz";
    let mut all: Vec<_> = [
        "/v1.0/healthz/",
        "//v1.0/healthz",
        "/v1.0//healthz",
        "/v1.0/./healthz",
        "/x/../v1.0/healthz",
        "/v1.0/invoke/app/method/x/../../../../healthz",
        "/v1.0/invoke%2Fapp%2Fmethod%2Frefund%2Fx/../healthz",
        "/v1.0/%68ealthz",
        "/v1.0/healthz%2F",
        "/v1.0/healthz/outbound/",
        "/v1.0/healthz/../metadata",
    ]
    .into_iter()
    .flat_map(|path| [(Method::GET, path, false), (Method::POST, path, true)])
    .collect();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::HEAD] {
        all.push((method.clone(), health, true));
        all.push((method, "/v1.0/healthz/outbound", false));
    }
    all
}

#[tokio::test]
async fn only_health_needs_no_token() -> Result<()> {
    let app = HttpApp::start(axum::Router::new().fallback(async || "ok")).await?;
    let folder = tempfile::tempdir()?;
    let by_port = Daprd::builder()
        .app(&app)
        .env("DAPR_API_TOKEN", "secret")
        .start()
        .await?;
    let by_socket = Daprd::builder()
        .app(&app)
        .flag(&format!("--unix-domain-socket={}", folder.path().display()))
        .env("DAPR_API_TOKEN", "secret")
        .start()
        .await?;
    let socket = folder.path().join("dapr-app-http.socket");
    for (method, path, named) in near_misses() {
        let request = |uri: &str| {
            let mut request = HttpRequest::builder()
                .method(method.clone())
                .uri(uri)
                .header("host", "localhost");
            if named {
                request = request.header("dapr-app-id", "app");
            }
            request.body(Full::default())
        };
        let h2c = Client::h2c(by_port.http_port());
        let answers = [
            by_port.http().send(request(path)?).await?,
            h2c.send(request(path)?).await?,
            over_unix(&socket, request(path)?).await?,
        ];
        for answer in answers {
            assert_eq!(answer.status, 401, "{method} {path} {named}");
        }
    }
    // With the header, too, the health page is the sidecar's own.
    let named = by_port.http().with("dapr-app-id", "app");
    assert_eq!(named.get("/v1.0/healthz").await?.status, 204);
    assert!(app.seen().is_empty());
    drop(by_socket);
    Ok(())
}

#[tokio::test]
async fn the_api_token_is_not_passed_on() -> Result<()> {
    let http = HttpApp::start(axum::Router::new().fallback(async || "ok")).await?;
    let grpc = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    // Also where no token is required: clients send it to every sidecar.
    for token in ["secret", ""] {
        let web = Daprd::builder().app_id("web").app(&http);
        let rpc = Daprd::builder().app_id("rpc").grpc_app(&grpc);
        let web = web.env("DAPR_API_TOKEN", token).start().await?;
        let rpc = rpc.env("DAPR_API_TOKEN", token).start().await?;
        for client in [web.http(), Client::h2c(web.http_port())] {
            let client = client.with("dapr-api-token", "secret");
            let answer = client.get("/v1.0/invoke/web/method/x").await?;
            assert_eq!(answer.status, 200);
            let seen = http.last().context("was not called")?;
            assert_eq!(seen.header("dapr-api-token"), None);
        }
        let message = || InvokeRequest {
            method: "x".to_owned(),
            ..Default::default()
        };
        let with_token = |target: &'static str| {
            let mut request = Request::new(());
            let metadata = request.metadata_mut();
            metadata.insert("dapr-api-token", "secret".parse()?);
            metadata.insert("dapr-app-id", target.parse()?);
            anyhow::Ok(request)
        };
        let service = InvokeServiceRequest {
            id: "rpc".to_owned(),
            message: Some(message()),
        };
        let request = with_token("rpc")?.map(|()| service);
        rpc.grpc().await?.invoke_service(request).await?;
        let (metadata, _) = grpc.last().context("was not called")?;
        assert!(metadata.get("dapr-api-token").is_none());
        let request = with_token("rpc")?.map(|()| message());
        let mut proxied = AppCallbackClient::new(rpc.channel().await?);
        proxied.on_invoke(request).await?;
        let (metadata, _) = grpc.last().context("was not called")?;
        assert!(metadata.get("dapr-api-token").is_none());
    }
    Ok(())
}
