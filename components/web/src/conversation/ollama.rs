//! `conversation.ollama`: <https://docs.dapr.io/reference/components-reference/supported-conversation/ollama/>.

use std::sync::Arc;

use outrider_components::conversation::Conversation;
use outrider_components::{Context, Error, Field, Metadata, Secret};

use super::Shared;
use super::chat::{Dialect, Service};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, Shared::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The API key, which Ollama itself does not look at.
        "key" => key: Secret = "ollama";
    }
}

const SERVICE: Service = Service {
    endpoint: "http://localhost:11434/v1",
    variable: "OLLAMA_MODEL",
    model: "llama3.2:latest",
    dialect: Dialect {
        max_tokens: "max_tokens",
        required: "required",
        metadata: true,
        keeps_prompts: false,
    },
};

pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Conversation>, Error> {
    let fields = Fields::read(&metadata)?;
    SERVICE.connect(&metadata, &context, &fields.key)
}
