//! The second version of the API: messages of several kinds, and tools.

use std::time::Duration;

use outrider_components::conversation::{
    Choice, Message, Part, Request, Role, Tool, ToolCall, ToolChoice, Usage,
};
use outrider_proto::runtime::v1 as wire;
use wire::conversation_message::MessageTypes;
use wire::conversation_tool_calls::ToolTypes as CallTypes;
use wire::conversation_tools::ToolTypes;

use super::{Api, error, redact};
use crate::blocks::error::Result;
use crate::blocks::proto_json::of_struct;

/// What is wrong with a request.
type Invalid = &'static str;

impl Api {
    /// Asks a model. Each of its answers is an output.
    pub async fn converse_alpha2(
        &self,
        request: wire::ConversationRequestAlpha2,
    ) -> Result<wire::ConversationResponseAlpha2> {
        let name = request.name.clone();
        let model = self.model(&name)?;
        if request.inputs.is_empty() {
            return Err(error::missing_inputs(&name));
        }
        let context_id = request.context_id.clone().filter(|id| !id.is_empty());
        let scrubs = request.scrub_pii.unwrap_or_default();
        let asked = asked(request).map_err(|what| error::invalid(&name, what))?;
        let response = model.converse(&asked).await?;
        let answering = Some(response.model).filter(|model| !model.is_empty());
        let usage = response.usage.map(usage);
        let choices = response.choices.into_iter().enumerate();
        let outputs = choices.map(|(index, choice)| wire::ConversationResultAlpha2 {
            choices: vec![answer(index, choice, scrubs)],
            model: answering.clone(),
            usage,
        });
        Ok(wire::ConversationResponseAlpha2 {
            context_id,
            outputs: outputs.collect(),
        })
    }
}

fn asked(request: wire::ConversationRequestAlpha2) -> std::result::Result<Request, Invalid> {
    let mut messages = Vec::new();
    for input in request.inputs {
        let scrubs = input.scrub_pii.unwrap_or_default();
        for message in input.messages {
            let kind = message.message_types.ok_or("message type cannot be nil")?;
            messages.push(said(kind, scrubs)?);
        }
    }
    let tool_choice = tool_choice(request.tool_choice.as_deref(), &request.tools)?;
    let max_tokens = match request.max_tokens {
        None | Some(0) => None,
        Some(most) => Some(u64::try_from(most).map_err(|_| "max tokens cannot be negative")?),
    };
    Ok(Request {
        messages,
        tools: request.tools.into_iter().filter_map(tool).collect(),
        tool_choice,
        temperature: request.temperature,
        max_tokens,
        metadata: request.metadata,
        response_format: request.response_format.map(of_struct),
        prompt_cache_retention: match request.prompt_cache_retention {
            None => None,
            Some(time) => Some(
                Duration::try_from(time).map_err(|_| "prompt cache retention is out of range")?,
            ),
        },
    })
}

fn said(kind: MessageTypes, scrubs: bool) -> std::result::Result<Message, Invalid> {
    let text = |content: Vec<wire::ConversationMessageContent>| {
        let texts = content.into_iter();
        let texts = texts.map(|content| redact::text_if(scrubs, content.text));
        texts.map(Part::Text).collect::<Vec<_>>()
    };
    let (role, parts) = match kind {
        MessageTypes::OfDeveloper(message) => (Role::User, text(message.content)),
        MessageTypes::OfUser(message) => (Role::User, text(message.content)),
        MessageTypes::OfSystem(message) => (Role::System, text(message.content)),
        MessageTypes::OfAssistant(message) => {
            let mut parts = text(message.content);
            for call in message.tool_calls {
                let id = call.id.unwrap_or_default();
                let Some(CallTypes::Function(function)) = call.tool_types else {
                    return Err("tool types cannot be nil");
                };
                parts.push(Part::Call(ToolCall {
                    id,
                    name: function.name,
                    arguments: function.arguments,
                }));
            }
            (Role::Assistant, parts)
        }
        MessageTypes::OfTool(message) => {
            let results = message.content.into_iter().map(|content| Part::Result {
                id: message.tool_id.clone().unwrap_or_default(),
                name: message.name.clone(),
                content: redact::text_if(scrubs, content.text),
            });
            (Role::Tool, results.collect())
        }
    };
    Ok(Message { role, parts })
}

/// A name counts only where there are tools.
fn tool_choice(
    given: Option<&str>,
    tools: &[wire::ConversationTools],
) -> std::result::Result<Option<ToolChoice>, Invalid> {
    let named = |name: &str| {
        tools
            .iter()
            .any(|tool| matches!(&tool.tool_types, Some(ToolTypes::Function(f)) if f.name == name))
    };
    Ok(Some(match given.unwrap_or_default() {
        "" if tools.is_empty() => return Ok(None),
        "" | "auto" => ToolChoice::Auto,
        "none" => ToolChoice::None,
        "required" if tools.is_empty() => {
            return Err(
                "tool choice must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used",
            );
        }
        "required" => ToolChoice::Required,
        name if tools.is_empty() || named(name) => ToolChoice::Named(name.to_owned()),
        _ => {
            return Err(
                "tool choice selected was not found. Must be 'auto', 'none', 'required', or a specific tool name matching the tools available to be used",
            );
        }
    }))
}

fn tool(tool: wire::ConversationTools) -> Option<Tool> {
    let ToolTypes::Function(function) = tool.tool_types?;
    Some(Tool {
        name: function.name,
        description: function.description.unwrap_or_default(),
        parameters: function.parameters.map(of_struct),
    })
}

fn answer(index: usize, choice: Choice, scrubs: bool) -> wire::ConversationResultChoices {
    let calls = choice.calls.into_iter();
    let calls = calls.map(|call| wire::ConversationToolCalls {
        id: Some(call.id).filter(|id| !id.is_empty()),
        tool_types: Some(CallTypes::Function(wire::ConversationToolCallsOfFunction {
            name: call.name,
            arguments: call.arguments,
        })),
    });
    wire::ConversationResultChoices {
        finish_reason: choice.finish_reason,
        index: i64::try_from(index).unwrap_or(i64::MAX),
        message: Some(wire::ConversationResultMessage {
            content: redact::text_if(scrubs, choice.content),
            tool_calls: calls.collect(),
        }),
    }
}

fn usage(usage: Usage) -> wire::ConversationResultAlpha2CompletionUsage {
    wire::ConversationResultAlpha2CompletionUsage {
        completion_tokens: usage.completion,
        prompt_tokens: usage.prompt,
        total_tokens: usage.total,
        completion_tokens_details: usage.completion_details.map(|details| {
            wire::ConversationResultAlpha2CompletionUsageCompletionTokensDetails {
                accepted_prediction_tokens: details.accepted_prediction,
                audio_tokens: details.audio,
                reasoning_tokens: details.reasoning,
                rejected_prediction_tokens: details.rejected_prediction,
            }
        }),
        prompt_tokens_details: usage.prompt_details.map(|details| {
            wire::ConversationResultAlpha2CompletionUsagePromptTokensDetails {
                audio_tokens: details.audio,
                cached_tokens: details.cached,
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools() -> Vec<wire::ConversationTools> {
        let function = wire::ConversationToolsFunction {
            name: "weather".to_owned(),
            ..Default::default()
        };
        vec![wire::ConversationTools {
            tool_types: Some(ToolTypes::Function(function)),
        }]
    }

    #[test]
    fn a_tool_is_chosen_among_those_that_there_are() {
        let with = |given| tool_choice(given, &tools());
        assert_eq!(with(None), Ok(Some(ToolChoice::Auto)));
        assert_eq!(with(Some("required")), Ok(Some(ToolChoice::Required)));
        let named = Ok(Some(ToolChoice::Named("weather".to_owned())));
        assert_eq!(with(Some("weather")), named);
        assert!(with(Some("Weather")).is_err());
        let without = |given| tool_choice(given, &[]);
        assert_eq!(without(None), Ok(None));
        assert_eq!(without(Some("none")), Ok(Some(ToolChoice::None)));
        assert_eq!(without(Some("weather")), named);
        assert!(without(Some("required")).is_err());
    }

    #[test]
    fn a_message_and_a_call_need_a_kind() {
        let of = |messages| wire::ConversationRequestAlpha2 {
            inputs: vec![wire::ConversationInputAlpha2 {
                messages,
                scrub_pii: None,
            }],
            ..Default::default()
        };
        let none = wire::ConversationMessage::default();
        assert_eq!(asked(of(vec![none])), Err("message type cannot be nil"));
        let call = wire::ConversationMessage {
            message_types: Some(MessageTypes::OfAssistant(
                wire::ConversationMessageOfAssistant {
                    tool_calls: vec![wire::ConversationToolCalls::default()],
                    ..Default::default()
                },
            )),
        };
        assert_eq!(asked(of(vec![call])), Err("tool types cannot be nil"));
        let mut negative = of(vec![]);
        negative.max_tokens = Some(-1);
        assert_eq!(asked(negative), Err("max tokens cannot be negative"));
    }
}
