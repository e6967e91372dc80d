//! `conversation.openai`: <https://docs.dapr.io/reference/components-reference/supported-conversation/openai/>.

use std::sync::Arc;

use outrider_components::conversation::Conversation;
use outrider_components::{Context, Error, Field, Metadata, Secret};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Shared;
use super::cache::Cache;
use super::chat::{Chat, Dialect};
use super::client::Api;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, Shared::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// The API key. `OPENAI_API_KEY` in the environment of the sidecar if
        /// absent.
        "key" => key: Option<Secret>;
        /// `azure` for a model of Azure OpenAI, which needs `endpoint` and
        /// `apiVersion`; its `model` is the name of the deployment.
        "apiType" => api_type: Option<String>;
        /// Version of the API of Azure OpenAI.
        "apiVersion" => api_version: Option<String>;
    }
}

const ENDPOINT: &str = "https://api.openai.com/v1";
const MODEL: &str = "gpt-5-nano";
const AZURE_MODEL: &str = "gpt-4.1-nano";

const DIALECT: Dialect = Dialect {
    max_tokens: "max_completion_tokens",
    required: "required",
    metadata: true,
    keeps_prompts: true,
};

/// What stands in a URL as it is.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Connects with the first request.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Conversation>, Error> {
    let fields = Fields::read(&metadata)?;
    let shared = Shared::read(&metadata)?;
    let of_environment = || {
        let key = context.environment.get("OPENAI_API_KEY").cloned();
        key.filter(|key| !key.is_empty()).map(Secret)
    };
    let key = fields.key.or_else(of_environment);
    let key =
        key.ok_or_else(|| metadata.wrong("key", "is missing, and OPENAI_API_KEY is not set"))?;
    let kind = fields.api_type.as_deref().unwrap_or_default();
    let is_azure = kind.eq_ignore_ascii_case("azure");
    let endpoint = super::endpoint(&metadata, shared.endpoint.as_deref(), ENDPOINT)?;
    let (model, api) = if is_azure {
        let version = fields.api_version.filter(|_| shared.endpoint.is_some());
        let Some(version) = version else {
            return Err(Error::invalid(
                "endpoint and apiVersion must be provided when apiType is set to 'azure'",
            ));
        };
        let model = super::model(&context, "AZURE_OPENAI_MODEL", shared.model, AZURE_MODEL);
        let url = format!(
            "{endpoint}/openai/deployments/{}/chat/completions?api-version={}",
            utf8_percent_encode(&model, SEGMENT),
            utf8_percent_encode(&version, SEGMENT),
        );
        (model, Api::new(url, ("api-key", ""), &key, &[])?)
    } else {
        let model = super::model(&context, "OPENAI_MODEL", shared.model, MODEL);
        let url = format!("{endpoint}/chat/completions");
        (
            model,
            Api::new(url, ("authorization", "Bearer "), &key, &[])?,
        )
    };
    Ok(Arc::new(Chat {
        api,
        dialect: DIALECT,
        model,
        max_tokens: shared.max_tokens,
        cache: Cache::new(shared.cache),
    }))
}
