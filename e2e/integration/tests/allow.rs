//! Lists of allowed and denied APIs.

use anyhow::Result;
use outrider_harness::{Daprd, GrpcApp};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::GetMetadataRequest;
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tonic::{Code, Request};

#[tokio::test]
async fn a_denied_api_is_denied_however_the_entry_is_written() -> Result<()> {
    for (protocol, http, grpc) in [
        // What no route serves is a call of an application, here one without a name.
        ("", 404, Code::Unimplemented),
        (", protocol: HTTP", 404, Code::Ok),
        (", protocol: GRPC", 200, Code::Unimplemented),
    ] {
        let list = format!("api: {{denied: [{{name: metadata, version: v1.0{protocol}}}]}}");
        let daprd = Daprd::builder().config(&list).start().await?;
        let answer = daprd.http().get("/v1.0/metadata").await?;
        assert_eq!(answer.status, http, "{protocol}");
        let answered = daprd
            .grpc()
            .await?
            .get_metadata(GetMetadataRequest {})
            .await;
        assert_eq!(
            answered.err().map_or(Code::Ok, |status| status.code()),
            grpc,
            "{protocol}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_word_ends_the_start() -> Result<()> {
    let daprd = Daprd::builder()
        .config("api: {denied: [{name: shutdown, version: v1.0, protocol: tcp}]}")
        .spawn()?;
    assert!(!daprd.end().await?.success());
    daprd.line("use http, grpc, or none for both").await?;
    Ok(())
}

#[tokio::test]
async fn denied_invocation_is_denied_to_the_proxy_too() -> Result<()> {
    let app = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
    let daprd = Daprd::builder()
        .grpc_app(&app)
        .config("api: {denied: [{name: invoke, version: v1.0}]}")
        .start()
        .await?;
    let mut request = Request::new(InvokeRequest::default());
    request.metadata_mut().insert("dapr-app-id", "app".parse()?);
    let refused = AppCallbackClient::new(daprd.channel().await?)
        .on_invoke(request)
        .await
        .expect_err("is denied");
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(app.last().is_none());
    Ok(())
}
