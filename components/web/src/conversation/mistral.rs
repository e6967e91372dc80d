//! `conversation.mistral`: <https://docs.dapr.io/reference/components-reference/supported-conversation/mistral/>.

use std::sync::Arc;

use outrider_components::conversation::Conversation;
use outrider_components::{Context, Error, Field, Metadata, Secret};

use super::Shared;
use super::chat::{Dialect, Service};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, Shared::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The API key.
        "key" => key: Secret, missing "mistral api key is required";
    }
}

const SERVICE: Service = Service {
    endpoint: "https://api.mistral.ai/v1",
    variable: "MISTRAL_MODEL",
    model: "open-mistral-7b",
    dialect: Dialect {
        max_tokens: "max_tokens",
        required: "any",
        metadata: false,
        keeps_prompts: false,
    },
};

pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Conversation>, Error> {
    let fields = Fields::read(&metadata)?;
    SERVICE.connect(&metadata, &context, &fields.key)
}
