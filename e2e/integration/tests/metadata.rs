use anyhow::Result;
use http::Method;
use outrider_harness::{Daprd, HttpApp};
use outrider_proto::runtime::v1::{GetMetadataRequest, SetMetadataRequest};
use serde_json::json;

#[tokio::test]
async fn metadata_has_id_components_and_custom_entries_over_both_protocols() -> Result<()> {
    let app = HttpApp::start(axum::Router::new()).await?;
    let daprd = Daprd::builder()
        .app_id("cart")
        .app(&app)
        .component("store", "state.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    let note = http.request(Method::PUT, "/v1.0/metadata/colour", "red");
    assert_eq!(note.await?.status, 204);
    let answer = http.get("/v1.0/metadata").await?;
    let metadata = answer.json()?;
    assert_eq!(answer.status, 200);
    assert_eq!(metadata["id"], "cart");
    let store = &metadata["components"][0];
    assert_eq!(
        (&store["name"], &store["type"], &store["version"]),
        (&json!("store"), &json!("state.in-memory"), &json!("v1"))
    );
    let capabilities = store["capabilities"].to_string();
    for capability in ["ETAG", "TRANSACTIONAL", "TTL", "ACTOR"] {
        assert!(capabilities.contains(capability), "{capabilities}");
    }
    assert_eq!(metadata["extended"]["colour"], "red");
    assert!(metadata["resources"].is_null());
    assert_eq!(metadata["appConnectionProperties"]["port"], app.port());
    assert_eq!(metadata["appConnectionProperties"]["protocol"], "http");

    let mut grpc = daprd.grpc().await?;
    let set = SetMetadataRequest {
        key: "shape".to_owned(),
        value: "round".to_owned(),
    };
    grpc.set_metadata(set).await?;
    let metadata = grpc.get_metadata(GetMetadataRequest {}).await?.into_inner();
    assert_eq!(metadata.id, "cart");
    let extended = &metadata.extended_metadata;
    assert_eq!(
        (extended["colour"].as_str(), extended["shape"].as_str()),
        ("red", "round")
    );
    Ok(())
}
