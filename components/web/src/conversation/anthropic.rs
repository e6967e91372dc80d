//! `conversation.anthropic`: <https://docs.dapr.io/reference/components-reference/supported-conversation/anthropic/>.
//! The API: <https://platform.claude.com/docs/en/api/messages>.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::conversation::{
    Choice, Conversation, Message, Part, PromptDetails, Request, Response, Role, ToolCall,
    ToolChoice, Usage,
};
use outrider_components::{Context, Error, Field, Metadata, Secret};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::cache::{self, Cache};
use super::chat::{check_required, named_schema, result_without_call};
use super::client::Api;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, Shared::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The API key.
        "key" => key: Secret;
        /// `foundry` for a model of Microsoft Foundry, which needs `endpoint`.
        "apiType" => api_type: Option<String>;
    }
}

const ENDPOINT: &str = "https://api.anthropic.com/v1";
const MODEL: &str = "claude-sonnet-4-6";
/// The API requires it.
const MAX_TOKENS: u64 = 2_048;
const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

struct Anthropic {
    api: Api,
    model: String,
    max_tokens: u64,
    cache: Option<Cache>,
}

/// Connects with the first request.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Conversation>, Error> {
    let fields = Fields::read(&metadata)?;
    let shared = Shared::read(&metadata)?;
    let kind = fields.api_type.as_deref().unwrap_or_default();
    if kind.eq_ignore_ascii_case("foundry") && shared.endpoint.is_none() {
        return Err(Error::invalid(
            "endpoint must be provided when apiType is set to 'foundry'",
        ));
    }
    let endpoint = super::endpoint(&metadata, shared.endpoint.as_deref(), ENDPOINT)?;
    let url = format!("{endpoint}/messages");
    Ok(Arc::new(Anthropic {
        api: Api::new(url, ("x-api-key", ""), &fields.key, &[VERSION])?,
        model: super::model(&context, "ANTHROPIC_MODEL", shared.model, MODEL),
        max_tokens: shared.max_tokens.unwrap_or(MAX_TOKENS),
        cache: Cache::new(shared.cache),
    }))
}

#[async_trait]
impl Conversation for Anthropic {
    async fn converse(&self, request: &Request) -> Result<Response, Error> {
        let body = Value::Object(self.body(request)?).to_string().into_bytes();
        let ask = async |body| {
            let answer: Answer = self.api.ask(body).await?;
            self.response(answer, request)
        };
        cache::answer(self.cache.as_ref(), body, ask).await
    }
}

impl Anthropic {
    fn body(&self, request: &Request) -> Result<Map<String, Value>, Error> {
        let (system, messages) = messages(&request.messages)?;
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        set("model", self.model.clone().into());
        set("messages", messages.into());
        let most = request.max_tokens.unwrap_or(self.max_tokens);
        set("max_tokens", most.into());
        if !system.is_empty() {
            set("system", system.into());
        }
        if let Some(temperature) = request.temperature {
            set("temperature", temperature.into());
        }
        let mut tools: Vec<Value> = request.tools.iter().map(tool).collect();
        let choice = match (&request.response_format, &request.tool_choice) {
            // A schema is a tool that has to be used.
            (Some(given), _) => {
                let (name, schema) = named_schema(given);
                tools.push(json!({"name": name, "input_schema": schema}));
                Some(json!({"type": "tool", "name": name}))
            }
            (None, Some(choice)) if !tools.is_empty() => Some(match choice {
                ToolChoice::Auto => json!({"type": "auto"}),
                ToolChoice::None => json!({"type": "none"}),
                ToolChoice::Required => json!({"type": "any"}),
                ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
            }),
            (None, _) => None,
        };
        if !tools.is_empty() {
            set("tools", tools.into());
        }
        if let Some(choice) = choice {
            set("tool_choice", choice);
        }
        Ok(body)
    }

    fn response(&self, answer: Answer, request: &Request) -> Result<Response, Error> {
        let schema = request.response_format.as_ref();
        let schema = schema.map(|schema| named_schema(schema).0);
        let (mut texts, mut calls) = (Vec::new(), Vec::new());
        for block in answer.content {
            match block {
                Block::Text { text } => texts.push(text),
                Block::ToolUse { name, input, .. } if schema == Some(&*name) => {
                    texts.push(input.to_string());
                }
                Block::ToolUse { id, name, input } => calls.push(ToolCall {
                    id,
                    name,
                    arguments: input.to_string(),
                }),
                Block::Other => {}
            }
        }
        let reason = answer.stop_reason.filter(|reason| !reason.is_empty());
        let choices = vec![Choice {
            finish_reason: reason.unwrap_or_else(|| "unknown".to_owned()),
            content: texts.join("\n"),
            calls,
        }];
        check_required(&choices, request)?;
        Ok(Response {
            choices,
            model: self.model.clone(),
            usage: answer.usage.map(Answered::usage),
        })
    }
}

/// The system prompt, and the messages. Of two in a row that are of the
/// same side one is made: results of tools that were asked for together have
/// to be in one message.
fn messages(given: &[Message]) -> Result<(String, Vec<Value>), Error> {
    let mut system = Vec::new();
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for message in given {
        let role = match message.role {
            Role::System => {
                for part in &message.parts {
                    if let Part::Text(text) = part {
                        system.push(text.as_str());
                    }
                }
                continue;
            }
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
        };
        let content = message.parts.iter().filter_map(|part| match part {
            Part::Text(_) if message.role == Role::Tool => Some(Err(result_without_call())),
            // The API refuses texts without a character.
            Part::Text(text) if text.is_empty() => None,
            Part::Text(text) => Some(Ok(json!({"type": "text", "text": text}))),
            Part::Call(call) => Some(called(call)),
            Part::Result { id, content, .. } => Some(Ok(json!({
                "type": "tool_result",
                "tool_use_id": id,
                "content": content,
            }))),
        });
        let content = content.collect::<Result<Vec<_>, _>>()?;
        match messages.last_mut() {
            Some((before, contents)) if *before == role => contents.extend(content),
            _ if content.is_empty() => {}
            _ => messages.push((role, content)),
        }
    }
    let messages = messages.into_iter();
    let messages = messages.map(|(role, content)| json!({"role": role, "content": content}));
    Ok((system.join("\n\n"), messages.collect()))
}

fn called(call: &ToolCall) -> Result<Value, Error> {
    let arguments = match call.arguments.as_str() {
        "" => "{}",
        arguments => arguments,
    };
    let input: Map<String, Value> = serde_json::from_str(arguments).map_err(|cause| {
        Error::invalid(format!(
            "the arguments of the call of {} must be a JSON object: {cause}",
            call.name
        ))
    })?;
    Ok(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}))
}

fn tool(tool: &outrider_components::conversation::Tool) -> Value {
    let schema = match &tool.parameters {
        Some(parameters) => Value::Object(parameters.clone()),
        None => json!({"type": "object"}),
    };
    let mut given = json!({"name": tool.name, "input_schema": schema});
    if !tool.description.is_empty() {
        given["description"] = tool.description.clone().into();
    }
    given
}

#[derive(Deserialize)]
struct Answer {
    content: Vec<Block>,
    stop_reason: Option<String>,
    usage: Option<Answered>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block {
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        #[serde(default)]
        input: Value,
    },
    #[serde(other)]
    Other,
}

/// Tokens. What was read before is not among those of the input.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answered {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Answered {
    fn usage(self) -> Usage {
        let cached = self.cache_read_input_tokens.unwrap_or(0);
        let others = self.cache_creation_input_tokens.unwrap_or(0);
        let prompt = self.input_tokens.unwrap_or(0);
        let prompt = prompt.saturating_add(cached).saturating_add(others);
        let completion = self.output_tokens.unwrap_or(0);
        Usage {
            completion,
            prompt,
            total: prompt.saturating_add(completion),
            completion_details: None,
            prompt_details: (cached > 0).then(|| PromptDetails {
                cached,
                ..PromptDetails::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_side_in_a_row_are_one() {
        let text = |role, text: &str| Message {
            role,
            parts: vec![Part::Text(text.to_owned())],
        };
        let result = |id: &str| Message {
            role: Role::Tool,
            parts: vec![Part::Result {
                id: id.to_owned(),
                name: String::new(),
                content: String::new(),
            }],
        };
        let given = [
            text(Role::System, "be brief"),
            text(Role::User, ""),
            text(Role::Assistant, "a"),
            result("1"),
            result("2"),
            text(Role::System, "be kind"),
            text(Role::User, "b"),
        ];
        let (system, all) = messages(&given).expect("is valid");
        assert_eq!(system, "be brief\n\nbe kind");
        let roles: Vec<_> = all.iter().map(|message| &message["role"]).collect();
        assert_eq!(roles, ["assistant", "user"]);
        assert_eq!(all[1]["content"].as_array().map(Vec::len), Some(3));
        assert!(messages(&[text(Role::Tool, "x")]).is_err());
    }

    #[test]
    fn arguments_of_a_call_are_an_object() {
        let call = |arguments: &str| {
            let call = ToolCall {
                id: "1".to_owned(),
                name: "f".to_owned(),
                arguments: arguments.to_owned(),
            };
            called(&call).map(|called| called["input"].to_string()).ok()
        };
        assert_eq!(call("").as_deref(), Some("{}"));
        assert_eq!(call(r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(call("[1]"), None);
        assert_eq!(call("a=1"), None);
    }
}
