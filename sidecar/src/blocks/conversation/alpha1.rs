//! The first version of the API: text with a role.

use outrider_components::conversation::{Message, Part, Request, Role};
use outrider_proto::runtime::v1 as wire;

use super::{Api, error, redact};
use crate::blocks::error::Result;

impl Api {
    /// Asks a model. Of its answers the first counts.
    pub async fn converse_alpha1(
        &self,
        request: wire::ConversationRequest,
    ) -> Result<wire::ConversationResponse> {
        let name = &request.name;
        let model = self.model(name)?;
        if request.inputs.is_empty() {
            return Err(error::missing_inputs(name));
        }
        let asked = Request {
            messages: request.inputs.into_iter().map(message).collect(),
            temperature: request.temperature,
            ..Request::default()
        };
        let response = model.converse(&asked).await?;
        let scrubs = request.scrub_pii.unwrap_or_default();
        let outputs = response
            .choices
            .into_iter()
            .map(|choice| wire::ConversationResult {
                result: redact::text_if(scrubs, choice.content),
                parameters: request.parameters.clone(),
            });
        Ok(wire::ConversationResponse {
            context_id: request.context_id.filter(|id| !id.is_empty()),
            outputs: outputs.collect(),
        })
    }
}

fn message(input: wire::ConversationInput) -> Message {
    let role = match input.role.as_deref().unwrap_or_default() {
        "system" => Role::System,
        "assistant" | "ai" => Role::Assistant,
        "tool" | "function" => Role::Tool,
        _ => Role::User,
    };
    let scrubs = input.scrub_pii.unwrap_or_default();
    Message {
        role,
        parts: vec![Part::Text(redact::text_if(scrubs, input.content))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_role_is_the_user() {
        for (given, wanted) in [
            (None, Role::User),
            (Some("human"), Role::User),
            (Some("generic"), Role::User),
            (Some("no such role"), Role::User),
            (Some("ai"), Role::Assistant),
            (Some("assistant"), Role::Assistant),
            (Some("system"), Role::System),
            (Some("function"), Role::Tool),
        ] {
            let input = wire::ConversationInput {
                role: given.map(str::to_owned),
                ..Default::default()
            };
            assert_eq!(message(input).role, wanted, "{given:?}");
        }
    }
}
