use anyhow::Result;
use axum::Router;
use http::StatusCode;
use outrider_harness::{Daprd, HttpApp};
use outrider_proto::runtime::v1::conversation_message::MessageTypes;
use outrider_proto::runtime::v1::conversation_tool_calls::ToolTypes;
use outrider_proto::runtime::v1::{
    ConversationInputAlpha2, ConversationMessage, ConversationMessageContent,
    ConversationMessageOfUser, ConversationRequestAlpha2, ConversationTools,
    ConversationToolsFunction, conversation_tools,
};
use serde_json::{Value, json};
use tonic::Code;

const ALPHA1: &str = "/v1.0-alpha1/conversation/echo/converse";
const ALPHA2: &str = "/v1.0-alpha2/conversation/echo/converse";

async fn echo() -> Result<Daprd> {
    let daprd = Daprd::builder().component("echo", "conversation.echo");
    daprd.start().await
}

fn said(text: &str) -> Value {
    json!({"inputs": [{"messages": [{"ofUser": {"content": [{"text": text}]}}]}]})
}

#[tokio::test]
async fn a_model_answers_over_both_versions_and_protocols() -> Result<()> {
    let daprd = echo().await?;
    let http = daprd.http();
    let body = json!({
        "contextID": "c1",
        "scrubPII": true,
        "parameters": {"p": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "v"}},
        "inputs": [{"content": "mail a@b.com, call 555-0123", "role": "user"}],
    });
    let answer = http.post(ALPHA1, &body).await?;
    assert_eq!(
        (answer.status, answer.json()?),
        (
            200,
            json!({
                "contextID": "c1",
                "outputs": [{
                    "result": "mail <EMAIL_ADDRESS>, call <PHONE_NUMBER>",
                    "parameters": body["parameters"],
                }],
            })
        )
    );
    let mut body = said("hello there");
    body["contextId"] = "c2".into();
    body["max_tokens"] = 5.into();
    body["tools"] =
        json!([{"function": {"name": "weather", "parameters": {"properties": {"city": {}}}}}]);
    let answer = http.post(ALPHA2, &body).await?;
    let wanted = json!({
        "contextId": "c2",
        "outputs": [{
            "choices": [{
                "finishReason": "tool_calls",
                "message": {
                    "content": "hello there",
                    "toolCalls": [{"id": "0", "function": {"name": "weather", "arguments": "city"}}],
                },
            }],
            "usage": {"completionTokens": "2", "promptTokens": "2", "totalTokens": "4"},
        }],
    });
    assert_eq!((answer.status, answer.json()?), (200, wanted));

    let mut grpc = daprd.grpc().await?;
    let user = ConversationMessageOfUser {
        content: vec![ConversationMessageContent {
            text: "from 10.8.9.1".to_owned(),
        }],
        ..Default::default()
    };
    let function = ConversationToolsFunction {
        name: "weather".to_owned(),
        ..Default::default()
    };
    let request = ConversationRequestAlpha2 {
        name: "echo".to_owned(),
        inputs: vec![ConversationInputAlpha2 {
            messages: vec![ConversationMessage {
                message_types: Some(MessageTypes::OfUser(user)),
            }],
            scrub_pii: Some(true),
        }],
        tools: vec![ConversationTools {
            tool_types: Some(conversation_tools::ToolTypes::Function(function)),
        }],
        ..Default::default()
    };
    let answer = grpc.converse_alpha2(request.clone()).await?.into_inner();
    let choice = &answer.outputs[0].choices[0];
    let message = choice.message.as_ref().expect("a message");
    assert_eq!(message.content, "from <IP>");
    let Some(ToolTypes::Function(called)) = &message.tool_calls[0].tool_types else {
        panic!("no call: {message:?}");
    };
    assert_eq!(called.name, "weather");

    let elsewhere = ConversationRequestAlpha2 {
        name: "nowhere".to_owned(),
        ..request
    };
    let error = grpc
        .converse_alpha2(elsewhere)
        .await
        .expect_err("is no model");
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(
        error.message(),
        "failed finding conversation component nowhere"
    );
    Ok(())
}

#[tokio::test]
async fn a_request_that_makes_no_sense_is_refused() -> Result<()> {
    let daprd = echo().await?;
    let http = daprd.http();
    let begin = "failed conversing with component echo: ";
    let mut without_tools = said("x");
    without_tools["toolChoice"] = "required".into();
    for (path, body, code, message) in [
        (
            ALPHA1,
            json!({}),
            "ERR_CONVERSATION_MISSING_INPUTS",
            "missing inputs in request",
        ),
        (
            ALPHA2,
            json!({"inputs": [{"messages": [{}]}]}),
            "ERR_CONVERSATION_INVALID_PARMS",
            "invalid params: message type cannot be nil",
        ),
        (
            ALPHA2,
            without_tools,
            "ERR_CONVERSATION_INVALID_PARMS",
            "invalid params: tool choice must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used",
        ),
    ] {
        let answer = http.post(path, &body).await?;
        let wanted = (code.to_owned(), format!("{begin}{message}"));
        assert_eq!((answer.status, answer.error()?), (400, wanted));
    }
    let no_model = http
        .post("/v1.0-alpha2/conversation/x/converse", &said("x"))
        .await?;
    assert_eq!(
        (no_model.status, no_model.error()?.0.as_str()),
        (400, "ERR_CONVERSATION_NOT_FOUND")
    );
    for body in ["{", r#"{"inputs":3}"#, &"[".repeat(10_000)] {
        let answer = http
            .request(http::Method::POST, ALPHA2, body.to_owned())
            .await?;
        assert_eq!(
            (answer.status, answer.error()?.0.as_str()),
            (400, "ERR_MALFORMED_REQUEST")
        );
    }
    let empty = http.post(ALPHA2, &json!({"inputs": [{}]})).await?;
    assert_eq!(empty.status, 200);
    Ok(())
}

#[tokio::test]
async fn policies_and_metrics_are_those_of_the_component() -> Result<()> {
    let service = Router::new().fallback(async || (StatusCode::SERVICE_UNAVAILABLE, "{}"));
    let service = HttpApp::start(service).await?;
    let model = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: model}}\nspec:\n  type: conversation.openai\n  version: v1\n  metadata:\n  - {{name: key, value: k}}\n  - {{name: endpoint, value: 'http://127.0.0.1:{}/v1'}}\n",
        service.port()
    );
    let rules = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: rules}\nspec:\n  policies: {retries: {quick: {duration: 10ms, maxRetries: 2}}}\n  targets: {components: {model: {outbound: {retry: quick}}}}\n";
    let daprd = Daprd::builder()
        .resource(&model)
        .resource(rules)
        .start()
        .await?;
    let path = "/v1.0-alpha2/conversation/model/converse";
    let answer = daprd.http().post(path, &said("x")).await?;
    let wanted = (
        "ERR_CONVERSATION_INVOKE".to_owned(),
        "failed conversing with component model: API returned unexpected status code: 503"
            .to_owned(),
    );
    assert_eq!((answer.status, answer.error()?), (500, wanted));
    assert_eq!(service.seen().len(), 3);
    let metrics = outrider_harness::http::Client::new(daprd.metrics_port());
    let metrics = metrics.get("/metrics").await?.text();
    let counted = r#"component="model",namespace="",success="false"} 1"#;
    let counted = metrics
        .lines()
        .find(|line| line.contains(counted))
        .unwrap_or_default();
    assert!(
        counted.starts_with("dapr_component_conversation_count{"),
        "{metrics}"
    );
    Ok(())
}
