//! `conversation.echo`: <https://docs.dapr.io/reference/components-reference/supported-conversation/local-echo/>.
//! It is for tests.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::conversation::{
    Choice, Conversation, Part, Request, Response, Tool, ToolCall, Usage,
};
use outrider_components::{Context, Error, Field, Metadata};
use serde_json::Value;

/// The metadata fields: there are none, and what a file gives is not looked at.
pub const FIELDS: &[&[Field]] = &[];

struct Echo;

/// There is nothing to connect to.
pub async fn connect(_: Metadata, _: Context) -> Result<Arc<dyn Conversation>, Error> {
    Ok(Arc::new(Echo))
}

#[async_trait]
impl Conversation for Echo {
    /// Answers with the text of all messages, a line each. Each tool of the
    /// request is called with the names of its arguments, and each call in its
    /// messages once more.
    async fn converse(&self, request: &Request) -> Result<Response, Error> {
        let tools = request.tools.iter().enumerate();
        let mut calls = tools
            .map(|(index, tool)| call(index, tool))
            .collect::<Result<Vec<_>, _>>()?;
        let mut lines = Vec::new();
        for part in request.messages.iter().flat_map(|message| &message.parts) {
            match part {
                Part::Text(text) => lines.push(text.clone()),
                Part::Call(call) => calls.push(call.clone()),
                Part::Result { id, name, content } => lines.push(format!(
                    "Tool Response for tool ID '{id}' with name '{name}': {content}"
                )),
            }
        }
        let content = lines.join("\n");
        // A word counts as a token.
        let words = content.split_whitespace().count() as u64;
        let finish_reason = if calls.is_empty() {
            "stop"
        } else {
            "tool_calls"
        };
        Ok(Response {
            choices: vec![Choice {
                finish_reason: finish_reason.to_owned(),
                content,
                calls,
            }],
            model: String::new(),
            usage: Some(Usage {
                completion: words,
                prompt: words,
                total: words.saturating_mul(2),
                ..Usage::default()
            }),
        })
    }
}

fn call(index: usize, tool: &Tool) -> Result<ToolCall, Error> {
    let properties = tool.parameters.as_ref().and_then(|p| p.get("properties"));
    let names = match properties {
        None => Vec::new(),
        Some(Value::Object(properties)) => {
            let mut names: Vec<&str> = properties.keys().map(String::as_str).collect();
            names.sort_unstable();
            names
        }
        Some(_) => {
            return Err(Error::invalid(format!(
                "the properties of the parameters of tool {} must be an object",
                tool.name
            )));
        }
    };
    Ok(ToolCall {
        id: index.to_string(),
        name: tool.name.clone(),
        arguments: names.join(","),
    })
}

#[cfg(test)]
mod tests {
    use outrider_components::conversation::{Message, Role};
    use serde_json::json;

    use super::*;

    fn message(role: Role, parts: Vec<Part>) -> Message {
        Message { role, parts }
    }

    #[tokio::test]
    async fn all_messages_come_back_in_one_answer() {
        let result = Part::Result {
            id: "1".to_owned(),
            name: "clock".to_owned(),
            content: "noon".to_owned(),
        };
        let request = Request {
            messages: vec![
                message(Role::User, vec![Part::Text("what time".to_owned())]),
                message(Role::Tool, vec![result]),
            ],
            ..Request::default()
        };
        let response = Echo.converse(&request).await.expect("an answer");
        let [choice] = &response.choices[..] else {
            panic!("one answer: {response:?}");
        };
        assert_eq!(
            choice.content,
            "what time\nTool Response for tool ID '1' with name 'clock': noon"
        );
        assert_eq!(choice.finish_reason, "stop");
        let usage = response.usage.expect("a usage");
        assert_eq!((usage.prompt, usage.completion, usage.total), (12, 12, 24));
    }

    #[tokio::test]
    async fn tools_are_called_with_the_sorted_names_of_their_arguments() {
        let tool = |parameters: Value| Tool {
            name: "weather".to_owned(),
            parameters: parameters.as_object().cloned(),
            ..Tool::default()
        };
        let mut request = Request {
            tools: vec![tool(json!({"properties": {"unit": {}, "city": {}}}))],
            ..Request::default()
        };
        let response = Echo.converse(&request).await.expect("an answer");
        let [choice] = &response.choices[..] else {
            panic!("one answer: {response:?}");
        };
        assert_eq!(choice.finish_reason, "tool_calls");
        let [call] = &choice.calls[..] else {
            panic!("one call: {choice:?}");
        };
        assert_eq!((&*call.id, &*call.arguments), ("0", "city,unit"));
        request.tools = vec![tool(json!({"properties": 1}))];
        assert!(Echo.converse(&request).await.is_err());
    }
}
