//! The certificate authorities of webhooks, as the API server has them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kube::Client;
use serde_json::json;

use crate::Error;
use crate::objects::{self, Collection};

#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    #[error(
        "crd {0:?} does not have an existing webhook client config. Applying resources of this type will fail"
    )]
    NoWebhook(String),
    #[error("crd {0:?} not found: install the chart's crds folder")]
    NoDefinition(String),
    #[error(transparent)]
    Api(#[from] Error),
}

/// Writes the authority, PEM, into the first webhook of a MutatingWebhookConfiguration.
pub async fn trust_mutating(client: &Client, name: &str, authority: &str) -> Result<(), Error> {
    // Unlike `replace`, `add` works with or without a former value.
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": BASE64.encode(authority)}]);
    let path = Collection::MUTATING_WEBHOOKS.cluster_object(name)?;
    objects::json_patch(client, &path, &patch).await.map(drop)
}

/// Writes namespace and authority, PEM, into a definition's conversion webhook. Returns whether they had to be changed.
pub async fn trust_conversion(
    client: &Client,
    definition: &str,
    namespace: &str,
    authority: &str,
) -> Result<bool, ConversionError> {
    let path = Collection::DEFINITIONS
        .cluster_object(definition)
        .map_err(Error::from)?;
    let Some(object) = objects::get(client, &path).await? else {
        return Err(ConversionError::NoDefinition(definition.to_owned()));
    };
    let config = &object["spec"]["conversion"]["webhook"]["clientConfig"];
    if !config.is_object() {
        return Err(ConversionError::NoWebhook(definition.to_owned()));
    }
    let bundle = BASE64.encode(authority);
    if config["caBundle"] == bundle.as_str() && config["service"]["namespace"] == namespace {
        return Ok(false);
    }
    let within = |member: &str| format!("/spec/conversion/webhook/clientConfig/{member}");
    let patch = json!([
        {"op": "add", "path": within("service/namespace"), "value": namespace},
        {"op": "add", "path": within("caBundle"), "value": bundle},
    ]);
    objects::json_patch(client, &path, &patch).await?;
    Ok(true)
}
