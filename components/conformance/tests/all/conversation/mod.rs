//! Language models, on doubles of their services.

mod double;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_components::conversation::{Conversation, Part, Role, ToolChoice};
use outrider_components::{Context, Error, Kind, Metadata};
use outrider_conformance::conversation::{message, run, text, tool};
use serde_json::json;

use double::{Double, Protocol};

/// The types that ask a service, with what it speaks.
const SERVICES: [(&str, Protocol); 5] = [
    ("conversation.openai", Protocol::Chat),
    ("conversation.ollama", Protocol::Chat),
    ("conversation.deepseek", Protocol::Chat),
    ("conversation.mistral", Protocol::Chat),
    ("conversation.anthropic", Protocol::Messages),
];

async fn connect(
    type_name: &str,
    properties: &[(&str, &str)],
    environment: &[(&str, &str)],
) -> Result<Arc<dyn Conversation>, Error> {
    assert!(
        crate::TYPES.contains(&type_name),
        "add {type_name} to TYPES"
    );
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let found = crate::registry()
        .conversation
        .find(type_name, "v1")
        .expect("is registered");
    let environment: BTreeMap<_, _> = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let context = Context {
        environment: Arc::new(environment),
        ..Context::default()
    };
    let metadata = Metadata::new("model", properties.iter().copied());
    (found.constructor)(metadata, context).await
}

async fn on(double: &Double, type_name: &str, more: &[(&str, &str)]) -> Arc<dyn Conversation> {
    let mut properties = vec![("key", "secret"), ("endpoint", &*double.url)];
    properties.extend(more);
    let connected = connect(type_name, &properties, &[]).await;
    connected.expect("connects")
}

#[tokio::test]
async fn echo() {
    let model = connect("conversation.echo", &[("key", "testkey")], &[]).await;
    run(&*model.expect("connects")).await;
}

#[tokio::test]
async fn services_are_asked_as_their_apis_want() {
    for (type_name, protocol) in SERVICES {
        let double = Double::start(protocol).await;
        let model = on(&double, type_name, &[("model", "m1")]).await;
        run(&*model).await;
        let asked = double.asked();
        assert_eq!(asked.len(), 3, "{type_name}");
        for (headers, body) in asked {
            assert_eq!(body["model"], "m1");
            match protocol {
                Protocol::Chat => assert_eq!(headers["authorization"], "Bearer secret"),
                Protocol::Messages => {
                    assert_eq!(headers["x-api-key"], "secret");
                    assert_eq!(headers["anthropic-version"], "2023-06-01");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_a_request_says_of_the_answer_goes_along() {
    for (type_name, protocol) in SERVICES {
        let double = Double::start(protocol).await;
        let more = [("model", "m1"), ("maxTokens", "50")];
        let model = on(&double, type_name, &more).await;
        model.converse(&text("hello")).await.expect("answers");
        let mut request = text("hello");
        request.temperature = Some(0.5);
        request.max_tokens = Some(7);
        request.tools = vec![tool("weather"), tool("news")];
        request.tool_choice = Some(ToolChoice::Named("news".to_owned()));
        request.metadata = [("user".to_owned(), "u1".to_owned())].into();
        request.prompt_cache_retention = Some(Duration::from_secs(24 * 60 * 60));
        let response = model.converse(&request).await.expect("answers");
        assert_eq!(response.choices[0].calls[0].name, "news", "{type_name}");
        assert_eq!(response.model, "m1");
        let [(_, plain), (_, body)] = &double.asked()[..] else {
            panic!("two requests");
        };
        let most = match type_name {
            "conversation.openai" => "max_completion_tokens",
            _ => "max_tokens",
        };
        assert_eq!((&plain[most], &body[most]), (&json!(50), &json!(7)));
        assert!(plain.get("temperature").is_none() && plain.get("tools").is_none());
        assert_eq!(body["temperature"], 0.5);
        let takes_pairs = matches!(
            type_name,
            "conversation.openai" | "conversation.ollama" | "conversation.deepseek"
        );
        assert_eq!(body.get("metadata").is_some(), takes_pairs, "{type_name}");
        let kept = body.get("prompt_cache_retention");
        let wanted = (type_name == "conversation.openai").then(|| json!("24h"));
        assert_eq!(kept.cloned(), wanted, "{type_name}");
    }
}

#[tokio::test]
async fn an_answer_fits_the_schema_of_the_request() {
    let schema = json!({
        "name": "place", "strict": true, "type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"],
    });
    for (type_name, protocol) in SERVICES {
        let double = Double::start(protocol).await;
        let model = on(&double, type_name, &[]).await;
        let mut request = text("where");
        request.response_format = schema.as_object().cloned();
        let response = model.converse(&request).await.expect("answers");
        let choice = &response.choices[0];
        assert!(choice.calls.is_empty(), "{type_name}: {choice:?}");
        let said: serde_json::Value = serde_json::from_str(&choice.content).expect("is JSON");
        assert_eq!(said, json!({"city": "where"}), "{type_name}");
    }
}

#[tokio::test]
async fn an_answer_is_kept_as_long_as_the_component_says() {
    for (type_name, protocol) in SERVICES {
        let double = Double::start(protocol).await;
        let model = on(&double, type_name, &[("cacheTTL", "1h")]).await;
        for _ in 0..3 {
            model.converse(&text("hello")).await.expect("answers");
        }
        model.converse(&text("other")).await.expect("answers");
        assert_eq!(double.asked().len(), 2, "{type_name}");
    }
}

#[tokio::test]
async fn a_service_that_fails_is_an_error_that_says_so() {
    for (type_name, protocol) in SERVICES {
        let double = Double::start(protocol).await;
        let model = on(&double, type_name, &[]).await;
        for (said, wanted, kind) in [
            (
                "401",
                "API returned unexpected status code: 401: no such key",
                Kind::Denied,
            ),
            (
                "429",
                "API returned unexpected status code: 429: no such key",
                Kind::Unavailable,
            ),
            (
                "malformed",
                "the API has sent an answer that cannot be read: ",
                Kind::Internal,
            ),
            (
                "huge",
                "the API has sent an answer of more than 16777216 bytes",
                Kind::Internal,
            ),
            (
                "huge 500",
                "API returned unexpected status code: 500",
                Kind::Unavailable,
            ),
            ("broken", "the API cannot be reached: ", Kind::Unavailable),
            (
                "elsewhere",
                "API returned unexpected status code: 307",
                Kind::Invalid,
            ),
        ] {
            let error = model.converse(&text(said)).await.expect_err(said);
            let shown = error.to_string();
            assert!(shown.starts_with(wanted), "{type_name}: {said}: {shown}");
            assert_eq!(error.kind(), kind, "{type_name}: {said}");
        }
        assert_eq!(double.asked().len(), 7, "the redirect is not followed");
        let mut request = text("silence");
        request.tools = vec![tool("weather")];
        request.tool_choice = Some(ToolChoice::Required);
        let error = model.converse(&request).await.expect_err("says nothing");
        let wanted =
            "LLM returned empty response with no tool calls despite 1 tools being available";
        assert_eq!(error.to_string(), wanted, "{type_name}");
        let result = message(Role::Tool, vec![Part::Text("x".to_owned())]);
        request.messages = vec![result];
        let error = model.converse(&request).await.expect_err("answers no call");
        assert_eq!(error.kind(), Kind::Invalid, "{type_name}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_given_up() {
    let double = Double::start(Protocol::Chat).await;
    let model = on(&double, "conversation.openai", &[]).await;
    let request = text("slow");
    let asking = model.converse(&request);
    let waiting = async {
        while double.asked().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // From here on the clock jumps to what is waited for.
        tokio::time::pause();
        std::future::pending::<()>().await
    };
    let error = tokio::select! {
        answered = asking => answered.expect_err("does not answer"),
        () = waiting => unreachable!("waits for ever"),
    };
    let wanted = "the API has not answered within 600 s";
    assert_eq!(error.to_string(), wanted);
}

#[tokio::test]
async fn models_of_azure_have_an_address_of_their_own() {
    let double = Double::start(Protocol::Chat).await;
    let azure = [("apiType", "Azure"), ("apiVersion", "2025-01-01")];
    let model = on(&double, "conversation.openai", &azure).await;
    model.converse(&text("hello")).await.expect("answers");
    let (headers, body) = double.asked().remove(0);
    assert_eq!(headers["api-key"], "secret");
    assert!(!headers.contains_key("authorization"));
    assert_eq!(
        headers["asked-path"],
        "/v1/openai/deployments/gpt-4.1-nano/chat/completions?api-version=2025-01-01"
    );
    assert_eq!(body["model"], "gpt-4.1-nano");
    let without = [("key", "k"), ("apiType", "azure"), ("apiVersion", "1")];
    let error = connect("conversation.openai", &without, &[]).await.err();
    assert_eq!(
        error.expect("no endpoint").to_string(),
        "endpoint and apiVersion must be provided when apiType is set to 'azure'"
    );
}

#[tokio::test]
async fn keys_and_models_come_from_the_environment_too() {
    let double = Double::start(Protocol::Chat).await;
    let environment = [("OPENAI_API_KEY", "of env"), ("OPENAI_MODEL", "m2")];
    let properties = [("endpoint", &*double.url), ("model", "m1")];
    let model = connect("conversation.openai", &properties, &environment).await;
    let model = model.expect("connects");
    model.converse(&text("hello")).await.expect("answers");
    let (headers, body) = double.asked().remove(0);
    assert_eq!(headers["authorization"], "Bearer of env");
    assert_eq!(body["model"], "m2");
    for (type_name, wanted) in [
        (
            "conversation.openai",
            "property key is missing, and OPENAI_API_KEY is not set",
        ),
        ("conversation.mistral", "mistral api key is required"),
        ("conversation.anthropic", "property key is missing or empty"),
        ("conversation.deepseek", "property key is missing or empty"),
    ] {
        let error = connect(type_name, &[], &[]).await.err().expect("no key");
        assert!(error.to_string().ends_with(wanted), "{error}");
    }
    let odd = [("key", "k"), ("endpoint", "localhost:1")];
    let error = connect("conversation.openai", &odd, &[]).await.err();
    assert!(error.expect("no URL").to_string().contains("endpoint"));
}
