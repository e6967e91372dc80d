//! The suite for language models. Their service has to say in its answers what
//! it was told, as a double of a test does.

use outrider_components::conversation::{
    Conversation, Message, Part, Request, Role, Tool, ToolCall, ToolChoice,
};
use serde_json::json;

/// A request with one text of the user.
pub fn text(said: &str) -> Request {
    Request {
        messages: vec![message(Role::User, vec![Part::Text(said.to_owned())])],
        ..Request::default()
    }
}

/// A message.
pub fn message(role: Role, parts: Vec<Part>) -> Message {
    Message { role, parts }
}

/// A tool with one argument.
pub fn tool(name: &str) -> Tool {
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    Tool {
        name: name.to_owned(),
        description: "tells the weather".to_owned(),
        parameters: parameters.as_object().cloned(),
    }
}

/// Tests a model.
pub async fn run(model: &dyn Conversation) {
    let response = model.converse(&text("hello there")).await.expect("answers");
    let choice = response.choices.first().expect("an answer");
    assert!(choice.content.contains("hello there"), "{choice:?}");
    assert!(choice.calls.is_empty() && !choice.finish_reason.is_empty());
    let usage = response.usage.expect("tokens are counted");
    assert!(usage.prompt > 0 && usage.completion > 0);
    assert_eq!(usage.total, usage.prompt + usage.completion);

    let mut request = text("the weather in Oslo");
    request.tools = vec![tool("weather")];
    request.tool_choice = Some(ToolChoice::Required);
    let response = model.converse(&request).await.expect("answers");
    let choice = response.choices.into_iter().next().expect("an answer");
    let call = choice.calls.into_iter().next().expect("a call");
    assert_eq!(call.name, "weather");

    // The conversation goes on with the result.
    let ToolCall { id, name, .. } = call.clone();
    let asked = ToolCall {
        arguments: r#"{"city":"Oslo"}"#.to_owned(),
        ..call
    };
    let content = "four degrees".to_owned();
    let result = Part::Result { id, name, content };
    request
        .messages
        .push(message(Role::Assistant, vec![Part::Call(asked)]));
    request.messages.push(message(Role::Tool, vec![result]));
    request.tools.clear();
    request.tool_choice = None;
    let response = model.converse(&request).await.expect("answers");
    let choice = response.choices.first().expect("an answer");
    assert!(choice.content.contains("four degrees"), "{choice:?}");
    model.close().await.expect("close");
}
