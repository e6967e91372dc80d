//! Language models behind HTTP APIs.

pub mod anthropic;
mod cache;
mod chat;
mod client;
pub mod deepseek;
pub mod mistral;
pub mod ollama;
pub mod openai;

use std::time::Duration;

use outrider_components::{Context, Metadata};

outrider_components::fields! {
    /// What every component of this folder reads besides its own.
    pub struct Shared {
        /// The model. The environment of the sidecar may name another one,
        /// which counts first.
        "model" => model: Option<String>;
        /// Where the API is, instead of the service's own address.
        "endpoint" => endpoint: Option<String>;
        /// Tokens that an answer may have, where a request does not say.
        "maxTokens" => max_tokens: Option<u64>;
        /// How long an answer is kept, and given again for the same request.
        /// None is kept if absent.
        "responseCacheTTL" | "cacheTTL" => cache: Option<Duration>;
    }
}

/// The model to ask: a variable of the environment names it, the component's
/// file, or nothing does.
fn model(context: &Context, variable: &str, given: Option<String>, default: &str) -> String {
    let of_environment = context.environment.get(variable).cloned();
    let of_environment = of_environment.filter(|model| !model.is_empty());
    of_environment
        .or(given)
        .unwrap_or_else(|| default.to_owned())
}

/// An address that requests can be sent to.
fn endpoint(
    metadata: &Metadata,
    given: Option<&str>,
    default: &str,
) -> Result<String, outrider_components::Error> {
    let url = given.unwrap_or(default).trim_end_matches('/');
    match reqwest::Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") => Ok(url.to_owned()),
        _ => Err(metadata.wrong("endpoint", "must be an http or https URL")),
    }
}
