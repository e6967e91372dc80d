//! The protocol that OpenAI has made and many services speak:
//! <https://platform.openai.com/docs/api-reference/chat>.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::conversation::{
    Choice, CompletionDetails, Conversation, Message, Part, PromptDetails, Request, Response, Role,
    Tool, ToolCall, ToolChoice, Usage,
};
use outrider_components::{Context, Error, Metadata, Pairs, Secret};
use outrider_kit::duration;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Shared;
use super::cache::{self, Cache};
use super::client::Api;

/// How services differ that speak the protocol.
#[derive(Debug, Clone, Copy)]
pub struct Dialect {
    /// The field with the most tokens that an answer may have.
    pub max_tokens: &'static str,
    /// The word for a tool that has to be used.
    pub required: &'static str,
    /// Whether it takes the pairs of a request.
    pub metadata: bool,
    /// Whether it keeps prompts as long as a request says.
    pub keeps_prompts: bool,
}

/// A service that takes its key as a bearer token.
pub struct Service {
    pub endpoint: &'static str,
    /// The variable of the environment that names the model.
    pub variable: &'static str,
    pub model: &'static str,
    pub dialect: Dialect,
}

impl Service {
    /// Connects with the first request.
    pub fn connect(
        &self,
        metadata: &Metadata,
        context: &Context,
        key: &Secret,
    ) -> Result<Arc<dyn Conversation>, Error> {
        let shared = Shared::read(metadata)?;
        let endpoint = super::endpoint(metadata, shared.endpoint.as_deref(), self.endpoint)?;
        let url = format!("{endpoint}/chat/completions");
        Ok(Arc::new(Chat {
            api: Api::new(url, ("authorization", "Bearer "), key, &[])?,
            dialect: self.dialect,
            model: super::model(context, self.variable, shared.model, self.model),
            max_tokens: shared.max_tokens,
            cache: Cache::new(shared.cache),
        }))
    }
}

/// A model behind the protocol.
pub struct Chat {
    pub api: Api,
    pub dialect: Dialect,
    pub model: String,
    pub max_tokens: Option<u64>,
    pub cache: Option<Cache>,
}

#[async_trait]
impl Conversation for Chat {
    async fn converse(&self, request: &Request) -> Result<Response, Error> {
        let body = Value::Object(self.body(request)?).to_string().into_bytes();
        let ask = async |body| {
            let answer: Answer = self.api.ask(body).await?;
            self.response(answer, request)
        };
        cache::answer(self.cache.as_ref(), body, ask).await
    }
}

impl Chat {
    fn body(&self, request: &Request) -> Result<Map<String, Value>, Error> {
        let mut messages = Vec::new();
        for message in &request.messages {
            add_message(&mut messages, message)?;
        }
        let mut body = Map::new();
        let mut set = |name: &str, value: Value| {
            body.insert(name.to_owned(), value);
        };
        set("model", self.model.clone().into());
        set("messages", messages.into());
        if let Some(temperature) = request.temperature
            && !has_one_temperature(&self.model)
        {
            set("temperature", temperature.into());
        }
        if let Some(most) = request.max_tokens.or(self.max_tokens) {
            set(self.dialect.max_tokens, most.into());
        }
        if !request.tools.is_empty() {
            let tools: Vec<Value> = request.tools.iter().map(tool).collect();
            set("tools", tools.into());
        }
        match &request.tool_choice {
            // Services refuse a choice among nothing.
            Some(choice) if !request.tools.is_empty() => set(
                "tool_choice",
                match choice {
                    ToolChoice::Auto => "auto".into(),
                    ToolChoice::None => "none".into(),
                    ToolChoice::Required => self.dialect.required.into(),
                    ToolChoice::Named(name) => {
                        json!({"type": "function", "function": {"name": name}})
                    }
                },
            ),
            _ => {}
        }
        if let Some(schema) = &request.response_format {
            set("response_format", response_format(schema));
        }
        if self.dialect.metadata && !request.metadata.is_empty() {
            set("metadata", pairs(&request.metadata));
        }
        if let Some(time) = request.prompt_cache_retention
            && self.dialect.keeps_prompts
        {
            let text = duration::format(time);
            // `24h`, not `24h0m0s`.
            let text = match text.strip_suffix("m0s") {
                Some(minutes) => format!("{minutes}m"),
                None => text,
            };
            let text = match text.strip_suffix("h0m") {
                Some(hours) => format!("{hours}h"),
                None => text,
            };
            set("prompt_cache_retention", text.into());
        }
        Ok(body)
    }

    fn response(&self, answer: Answer, request: &Request) -> Result<Response, Error> {
        let choices: Vec<Choice> = answer.choices.into_iter().map(Choice::from).collect();
        if choices.is_empty() {
            return Err(Error::internal("the API has sent no answer"));
        }
        check_required(&choices, request)?;
        Ok(Response {
            choices,
            model: self.model.clone(),
            usage: answer.usage.and_then(Answered::usage),
        })
    }
}

/// A model that had to use a tool has to have said something.
pub fn check_required(choices: &[Choice], request: &Request) -> Result<(), Error> {
    let is_empty = |choice: &Choice| choice.content.is_empty() && choice.calls.is_empty();
    let required = request.tool_choice == Some(ToolChoice::Required);
    if required && !request.tools.is_empty() && choices.iter().all(is_empty) {
        return Err(Error::internal(format!(
            "LLM returned empty response with no tool calls despite {} tools being available",
            request.tools.len()
        )));
    }
    Ok(())
}

/// The name of a schema, and the schema itself without what is not of it.
pub fn named_schema(given: &Map<String, Value>) -> (&str, Value) {
    let name = given.get("name").and_then(Value::as_str);
    let mut schema = given.clone();
    schema.remove("name");
    schema.remove("strict");
    let name = name.filter(|name| !name.is_empty());
    (name.unwrap_or("response"), Value::Object(schema))
}

fn response_format(given: &Map<String, Value>) -> Value {
    let (name, schema) = named_schema(given);
    let strict = given.get("strict").and_then(Value::as_bool);
    json!({
        "type": "json_schema",
        "json_schema": {"name": name, "strict": strict.unwrap_or(false), "schema": schema},
    })
}

/// Models that think before they answer refuse every temperature but their own.
fn has_one_temperature(model: &str) -> bool {
    let is_of = |series: &str| {
        let rest = model.strip_prefix(series);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    model.starts_with("gpt-5") || ["o1", "o3", "o4"].into_iter().any(is_of)
}

fn pairs(pairs: &Pairs) -> Value {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| (key.clone(), Value::String(value.clone())))
        .collect::<Map<_, _>>()
        .into()
}

fn add_message(messages: &mut Vec<Value>, message: &Message) -> Result<(), Error> {
    let role = match message.role {
        Role::User => "user",
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut texts = Vec::new();
    let mut calls = Vec::new();
    for part in &message.parts {
        match part {
            Part::Text(_) if message.role == Role::Tool => return Err(result_without_call()),
            Part::Text(text) => texts.push(text.as_str()),
            Part::Call(call) => calls.push(json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })),
            Part::Result { id, content, .. } => messages.push(json!({
                "role": role,
                "tool_call_id": id,
                "content": content,
            })),
        }
    }
    if texts.is_empty() && calls.is_empty() {
        return Ok(());
    }
    let content = match texts[..] {
        [] => Value::Null,
        [text] => text.into(),
        _ => {
            let texts = texts.iter();
            let texts = texts.map(|text| json!({"type": "text", "text": text}));
            texts.collect()
        }
    };
    let mut said = json!({"role": role, "content": content});
    if !calls.is_empty() {
        said["tool_calls"] = calls.into();
    }
    messages.push(said);
    Ok(())
}

/// The first version of the API has such messages.
pub fn result_without_call() -> Error {
    Error::invalid(
        "a message of the role tool does not say which call it answers: send it as ofTool, with its toolId",
    )
}

fn tool(tool: &Tool) -> Value {
    let mut function = json!({"name": tool.name});
    if !tool.description.is_empty() {
        function["description"] = tool.description.clone().into();
    }
    if let Some(parameters) = &tool.parameters {
        function["parameters"] = Value::Object(parameters.clone());
    }
    json!({"type": "function", "function": function})
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    choices: Vec<AnsweredChoice>,
    usage: Option<Answered>,
}

#[derive(Deserialize)]
struct AnsweredChoice {
    message: AnsweredMessage,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct AnsweredMessage {
    content: Option<Content>,
    tool_calls: Option<Vec<AnsweredCall>>,
}

/// Text, or text in parts among others.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<AnsweredPart>),
}

#[derive(Deserialize)]
struct AnsweredPart {
    text: Option<String>,
}

#[derive(Deserialize)]
struct AnsweredCall {
    id: Option<String>,
    function: AnsweredFunction,
}

#[derive(Deserialize)]
struct AnsweredFunction {
    name: String,
    /// JSON in a text; of some services the JSON itself.
    #[serde(default)]
    arguments: Value,
}

impl From<AnsweredChoice> for Choice {
    fn from(answered: AnsweredChoice) -> Choice {
        let AnsweredMessage {
            content,
            tool_calls,
        } = answered.message;
        let content = match content {
            None => String::new(),
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                let texts = parts.into_iter().filter_map(|part| part.text);
                texts.collect::<Vec<_>>().concat()
            }
        };
        let calls = tool_calls.into_iter().flatten().map(|call| ToolCall {
            id: call.id.unwrap_or_default(),
            name: call.function.name,
            arguments: match call.function.arguments {
                Value::Null => String::new(),
                Value::String(text) => text,
                json => json.to_string(),
            },
        });
        let reason = answered.finish_reason.filter(|reason| !reason.is_empty());
        Choice {
            finish_reason: reason.unwrap_or_else(|| "unknown".to_owned()),
            content,
            calls: calls.collect(),
        }
    }
}

/// Tokens. Services leave out what they do not count.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answered {
    completion_tokens: Option<u64>,
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
    completion_tokens_details: Option<AnsweredCompletion>,
    prompt_tokens_details: Option<AnsweredPrompt>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AnsweredCompletion {
    accepted_prediction_tokens: Option<u64>,
    audio_tokens: Option<u64>,
    reasoning_tokens: Option<u64>,
    rejected_prediction_tokens: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AnsweredPrompt {
    audio_tokens: Option<u64>,
    cached_tokens: Option<u64>,
}

impl Answered {
    /// Nothing, where nothing was counted; so with the details.
    fn usage(self) -> Option<Usage> {
        let completion = self.completion_tokens_details.unwrap_or_default();
        let completion = CompletionDetails {
            accepted_prediction: completion.accepted_prediction_tokens.unwrap_or(0),
            audio: completion.audio_tokens.unwrap_or(0),
            reasoning: completion.reasoning_tokens.unwrap_or(0),
            rejected_prediction: completion.rejected_prediction_tokens.unwrap_or(0),
        };
        let prompt = self.prompt_tokens_details.unwrap_or_default();
        let prompt = PromptDetails {
            audio: prompt.audio_tokens.unwrap_or(0),
            cached: prompt.cached_tokens.unwrap_or(0),
        };
        let usage = Usage {
            completion: self.completion_tokens.unwrap_or(0),
            prompt: self.prompt_tokens.unwrap_or(0),
            total: self.total_tokens.unwrap_or(0),
            completion_details: Some(completion).filter(|d| *d != CompletionDetails::default()),
            prompt_details: Some(prompt).filter(|d| *d != PromptDetails::default()),
        };
        Some(usage).filter(|usage| *usage != Usage::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_think_have_one_temperature() {
        for model in ["gpt-5-nano", "gpt-5.2", "o1", "o3-mini", "o4-mini"] {
            assert!(has_one_temperature(model), "{model}");
        }
        for model in ["gpt-4.1", "o10", "llama3.2:latest"] {
            assert!(!has_one_temperature(model), "{model}");
        }
    }

    #[test]
    fn answers_of_many_services_are_read() {
        let read = |text: &str| {
            let answer: Answer = serde_json::from_str(text).expect("is an answer");
            let choices: Vec<Choice> = answer.choices.into_iter().map(Choice::from).collect();
            (choices, answer.usage.and_then(Answered::usage))
        };
        let (choices, usage) = read(
            r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"},{"type":"thinking"},{"text":"b"}]}}],"usage":{"prompt_tokens":0}}"#,
        );
        assert_eq!(choices[0].content, "ab");
        assert_eq!(choices[0].finish_reason, "unknown");
        assert_eq!(usage, None);
        let (choices, usage) = read(
            r#"{"choices":[{"finish_reason":"tool_calls","message":{"content":null,"tool_calls":[{"function":{"name":"f","arguments":{"a":1}}}]}}],"usage":{"prompt_tokens":1,"completion_tokens_details":null,"prompt_tokens_details":{"cached_tokens":1}}}"#,
        );
        assert_eq!(choices[0].calls[0].arguments, r#"{"a":1}"#);
        let usage = usage.expect("is counted");
        assert_eq!((usage.prompt, usage.completion_details), (1, None));
        assert_eq!(usage.prompt_details.expect("is counted").cached, 1);
        assert!(serde_json::from_str::<Answer>(r#"{"choices":[{"message":3}]}"#).is_err());
    }
}
