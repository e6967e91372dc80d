//! Conversations with language models:
//! <https://docs.dapr.io/developing-applications/building-blocks/conversation/>.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::{Error, Pairs};

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Request {
    /// The conversation until now, oldest first.
    pub messages: Vec<Message>,
    /// What the model may ask the application to do.
    pub tools: Vec<Tool>,
    /// Which of the tools it uses; the model's own default if absent.
    pub tool_choice: Option<ToolChoice>,
    /// How freely it answers; the model's own default if absent.
    pub temperature: Option<f64>,
    /// Tokens that an answer may have; never 0.
    pub max_tokens: Option<u64>,
    /// Pairs that go to the service with the request.
    pub metadata: Pairs,
    /// A JSON schema that the answer has to fit.
    pub response_format: Option<Map<String, Value>>,
    /// How long the service keeps what it has read of the prompt.
    pub prompt_cache_retention: Option<Duration>,
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who said it.
    pub role: Role,
    /// What was said, in order.
    pub parts: Vec<Part>,
}

/// Who said a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The user, or the developer of the application.
    User,
    /// Instructions for the model.
    System,
    /// The model.
    Assistant,
    /// The application, with the result of a tool.
    Tool,
}

/// A part of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text.
    Text(String),
    /// What the model asked the application to do.
    Call(ToolCall),
    /// What came of it.
    Result {
        /// The id of the call.
        id: String,
        /// The name of the tool.
        name: String,
        /// What the tool answered.
        content: String,
    },
}

/// A tool that the model wants used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// By which the result refers to it; may be empty.
    pub id: String,
    /// The name of the tool.
    pub name: String,
    /// What it is called with: JSON, if the model keeps to what it was told.
    pub arguments: String,
}

/// What the application can do for the model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// A JSON schema of its arguments.
    pub parameters: Option<Map<String, Value>>,
}

/// Which tools a model uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// Those that it wants.
    Auto,
    /// None.
    None,
    /// At least one.
    Required,
    /// The one of this name.
    Named(String),
}

/// What a model answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Response {
    /// The answers, of which there is mostly one.
    pub choices: Vec<Choice>,
    /// The model, if there is one.
    pub model: String,
    /// What it took.
    pub usage: Option<Usage>,
}

/// One answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Why it ends, in the words of the service.
    pub finish_reason: String,
    /// Its text; may be empty where there are calls.
    pub content: String,
    /// The tools that the model wants used.
    pub calls: Vec<ToolCall>,
}

/// Tokens that a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the answer.
    pub completion: u64,
    /// Of the request.
    pub prompt: u64,
    /// Of both.
    pub total: u64,
    /// What those of the answer were for, where the service says so.
    pub completion_details: Option<CompletionDetails>,
    /// What those of the request were, where the service says so.
    pub prompt_details: Option<PromptDetails>,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompletionDetails {
    /// Predicted, and used.
    pub accepted_prediction: u64,
    /// Sound.
    pub audio: u64,
    /// Not shown.
    pub reasoning: u64,
    /// Predicted, and not used.
    pub rejected_prediction: u64,
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PromptDetails {
    /// Sound.
    pub audio: u64,
    /// Read before.
    pub cached: u64,
}

/// A connected language model.
#[async_trait]
pub trait Conversation: Send + Sync {
    /// Asks the model.
    async fn converse(&self, request: &Request) -> Result<Response, Error>;

    /// Ends background work and connections. No other call comes after it.
    async fn close(&self) -> Result<(), Error> {
        Ok(())
    }
}
