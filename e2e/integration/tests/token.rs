use anyhow::Result;
use outrider_harness::{Daprd, HttpApp};
use outrider_proto::runtime::v1::GetMetadataRequest;
use tonic::{Code, Request};

#[tokio::test]
async fn the_api_asks_for_its_token() -> Result<()> {
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
