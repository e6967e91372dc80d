//! `conversation.ollama`: <https://docs.dapr.io/reference/components-reference/supported-conversation/ollama/>.

use std::sync::Arc;

use outrider_components::conversation::Conversation;
use outrider_components::{Context, Error, Field, Metadata, Secret};

use super::Shared;
use super::cache::Cache;
use super::chat::{Chat, Dialect};
use super::client::Api;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, Shared::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The API key, which Ollama itself does not look at.
        "key" => key: Secret = "ollama";
    }
}

const ENDPOINT: &str = "http://localhost:11434/v1";
const MODEL: &str = "llama3.2:latest";

const DIALECT: Dialect = Dialect {
    max_tokens: "max_tokens",
    required: "required",
    metadata: true,
    keeps_prompts: false,
};

/// Connects with the first request.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Conversation>, Error> {
    let fields = Fields::read(&metadata)?;
    let shared = Shared::read(&metadata)?;
    let endpoint = super::endpoint(&metadata, shared.endpoint.as_deref(), ENDPOINT)?;
    let url = format!("{endpoint}/chat/completions");
    Ok(Arc::new(Chat {
        api: Api::new(url, ("authorization", "Bearer "), &fields.key, &[])?,
        dialect: DIALECT,
        model: super::model(&context, "OLLAMA_MODEL", shared.model, MODEL),
        max_tokens: shared.max_tokens,
        cache: Cache::new(shared.cache),
    }))
}
