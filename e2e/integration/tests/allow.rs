//! Lists of allowed and denied APIs.

use anyhow::Result;
use outrider_harness::{Daprd, GrpcApp};
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse};
use outrider_proto::runtime::v1::GetMetadataRequest;
use outrider_proto::runtime::v1::app_callback_client::AppCallbackClient;
use tonic::{Code, Request};

#[tokio::test]
async fn an_entry_denies_its_protocol_in_any_case_or_both() -> Result<()> {
    for (protocol, http, grpc) in [
        // A denied route is not there: its path is read as an invocation without an app id, hence 404.
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
async fn an_unknown_name_or_protocol_fails_the_start() -> Result<()> {
    for (entry, hint) in [
        (
            "name: shutdown, version: v1.0, protocol: tcp",
            "use http, grpc, or none for both",
        ),
        ("name: states, version: v1.0", "the unknown name"),
    ] {
        let list = format!("api: {{denied: [{{{entry}}}]}}");
        let daprd = Daprd::builder().config(&list).spawn()?;
        assert!(!daprd.end().await?.success(), "{entry}");
        daprd.line(hint).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_api_list_for_invoke_covers_the_proxy() -> Result<()> {
    for (list, expected) in [
        (
            "denied: [{name: invoke, version: v1.0}]",
            Code::Unimplemented,
        ),
        (
            "allowed: [{name: state, version: v1.0}]",
            Code::Unimplemented,
        ),
        ("allowed: [{name: invoke, version: v1.0}]", Code::Ok),
        ("denied: [{name: state, version: v1.0}]", Code::Ok),
    ] {
        let app = GrpcApp::start(|_| Ok(InvokeResponse::default())).await?;
        let daprd = Daprd::builder()
            .grpc_app(&app)
            .config(&format!("api: {{{list}}}"))
            .start()
            .await?;
        let mut request = Request::new(InvokeRequest::default());
        request.metadata_mut().insert("dapr-app-id", "app".parse()?);
        let answered = AppCallbackClient::new(daprd.channel().await?)
            .on_invoke(request)
            .await;
        let code = answered.err().map_or(Code::Ok, |status| status.code());
        assert_eq!(code, expected, "{list}");
        assert_eq!(app.last().is_some(), expected == Code::Ok, "{list}");
    }
    Ok(())
}
