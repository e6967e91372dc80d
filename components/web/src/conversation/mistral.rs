//! `conversation.mistral`: <https://docs.dapr.io/reference/components-reference/supported-conversation/mistral/>.

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
        /// The API key.
        "key" => key: Secret, missing "mistral api key is required";
    }
}

const ENDPOINT: &str = "https://api.mistral.ai/v1";
const MODEL: &str = "open-mistral-7b";

const DIALECT: Dialect = Dialect {
    max_tokens: "max_tokens",
    required: "any",
    metadata: false,
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
        model: super::model(&context, "MISTRAL_MODEL", shared.model, MODEL),
        max_tokens: shared.max_tokens,
        cache: Cache::new(shared.cache),
    }))
}
