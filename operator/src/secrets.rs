//! Fills the values of secret references in, where the cluster's own secrets are meant.
//! <https://docs.dapr.io/operations/components/component-secrets/>
//!
//! A Secret that is not there leaves its reference unresolved: only the resource that wants it is affected. Secrets are
//! read when they are needed and forgotten after the answer, so a rotated one counts from the next answer on.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use outrider_k8s::objects::{self, Collection, encode};
use outrider_k8s::{Client, Error};
use serde_json::{Map, Value};

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("secret key is required for header {0}")]
    NoKey(String),
    #[error("failed to get secret {secret} for header {header}: Secret {secret:?} not found")]
    NoSecret { secret: String, header: String },
    #[error("key {key} not found in secret {secret}")]
    NoMember { key: String, secret: String },
    #[error("failed to get secret {secret} for header {header}: {source}")]
    Api {
        secret: String,
        header: String,
        source: Error,
    },
}

/// Secrets of one namespace, each read at most once.
pub struct Secrets<'a> {
    client: &'a Client,
    namespace: &'a str,
    read: HashMap<String, Option<Map<String, Value>>>,
}

/// What to write when the Secret has no such member.
enum Missing {
    Leave,
    Null,
}

impl<'a> Secrets<'a> {
    pub fn new(client: &'a Client, namespace: &'a str) -> Self {
        Self {
            client,
            namespace,
            read: HashMap::new(),
        }
    }

    pub async fn resolve_component(&mut self, component: &mut Value) -> Result<(), Error> {
        if !of_cluster(&component["auth"]["secretStore"]) {
            return Ok(());
        }
        let items = component
            .pointer_mut("/spec/metadata")
            .and_then(Value::as_array_mut);
        self.resolve_all(items.into_iter().flatten(), Missing::Leave)
            .await
    }

    pub async fn resolve_http_endpoint(&mut self, endpoint: &mut Value) -> Result<(), Error> {
        if !of_cluster(&endpoint["auth"]["secretStore"]) {
            return Ok(());
        }
        let headers = endpoint
            .pointer_mut("/spec/headers")
            .and_then(Value::as_array_mut);
        self.resolve_all(headers.into_iter().flatten(), Missing::Null)
            .await?;
        for document in ["rootCA", "certificate", "privateKey"] {
            let document = endpoint.pointer_mut(&format!("/spec/clientTLS/{document}"));
            self.resolve_all(document.filter(|it| it.is_object()), Missing::Null)
                .await?;
        }
        Ok(())
    }

    pub async fn resolve_mcp_server(&mut self, server: &mut Value) -> Result<(), Error> {
        for (transport, list) in [
            ("streamableHTTP", "headers"),
            ("sse", "headers"),
            ("stdio", "env"),
        ] {
            let Some(transport) = server.pointer_mut(&format!("/spec/endpoint/{transport}")) else {
                continue;
            };
            if of_cluster(&transport["auth"]["secretStore"]) {
                let items = transport.get_mut(list).and_then(Value::as_array_mut);
                self.resolve_all(items.into_iter().flatten(), Missing::Null)
                    .await?;
            }
        }
        Ok(())
    }

    /// Headers of trace exports get the plain text.
    pub async fn resolve_configuration(
        &mut self,
        configuration: &mut Value,
    ) -> Result<(), HeaderError> {
        let headers = configuration
            .pointer_mut("/spec/tracing/otel/headers")
            .and_then(Value::as_array_mut);
        for header in headers.into_iter().flatten() {
            let Some((secret, key)) = reference(header) else {
                continue;
            };
            let name = header["name"].as_str().unwrap_or_default().to_owned();
            if key.is_empty() {
                return Err(HeaderError::NoKey(name));
            }
            let read = self.get(&secret).await;
            let read = read.map_err(|source| HeaderError::Api {
                secret: secret.clone(),
                header: name.clone(),
                source,
            })?;
            let Some(data) = read else {
                return Err(HeaderError::NoSecret {
                    secret,
                    header: name,
                });
            };
            let decoded = data
                .get(&key)
                .and_then(Value::as_str)
                .and_then(|text| BASE64.decode(text).ok());
            let Some(plain) = decoded else {
                return Err(HeaderError::NoMember { key, secret });
            };
            header["value"] = String::from_utf8_lossy(&plain).into();
        }
        Ok(())
    }

    async fn resolve_all(
        &mut self,
        items: impl IntoIterator<Item = &mut Value>,
        missing: Missing,
    ) -> Result<(), Error> {
        for item in items {
            let Some((secret, key)) = reference(item) else {
                continue;
            };
            let key = if key.is_empty() { secret.clone() } else { key };
            let Some(data) = self.get(&secret).await? else {
                continue;
            };
            match (data.get(&key), &missing) {
                // What a Secret's data holds is base64 already, and that is what sidecars expect.
                (Some(value), _) => item["value"] = value.clone(),
                (None, Missing::Null) => item["value"] = Value::Null,
                (None, Missing::Leave) => {}
            }
        }
        Ok(())
    }

    /// The data of a Secret; nothing if there is none.
    async fn get(&mut self, name: &str) -> Result<Option<&Map<String, Value>>, Error> {
        if !self.read.contains_key(name) {
            let data = self
                .fetch(name)
                .await?
                .map(|mut secret| match secret["data"].take() {
                    Value::Object(data) => data,
                    _ => Map::new(),
                });
            if data.is_none() {
                let namespace = self.namespace;
                tracing::warn!(target: "dapr.operator", "secret {namespace}/{name} not found: what refers to it is sent unresolved");
            }
            self.read.insert(name.to_owned(), data);
        }
        Ok(self.read.get(name).and_then(Option::as_ref))
    }

    async fn fetch(&self, name: &str) -> Result<Option<Value>, Error> {
        let path = Collection::SECRETS.object(self.namespace, name);
        if let Some(secret) = objects::get(self.client, &path).await? {
            return Ok(Some(secret));
        }
        // Some servers, test doubles among them, only answer for whole collections.
        let selector = encode(&format!(
            "metadata.name={name},metadata.namespace={}",
            self.namespace
        ));
        let query = format!("fieldSelector={selector}");
        let found = match objects::list(self.client, &Collection::SECRETS.path(None), &query).await
        {
            Ok(found) => found,
            Err(error) if outrider_k8s::is_not_found(&error) => Vec::new(),
            Err(error) => return Err(error),
        };
        let wanted = |secret: &Value| {
            let metadata = &secret["metadata"];
            metadata["name"] == name && metadata["namespace"] == self.namespace
        };
        Ok(found.into_iter().find(wanted))
    }
}

/// Secret and key.
fn reference(item: &Value) -> Option<(String, String)> {
    let text = |key: &str| {
        item["secretKeyRef"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Some((text("name"), text("key"))).filter(|(name, _)| !name.is_empty())
}

fn of_cluster(store: &Value) -> bool {
    matches!(store.as_str(), None | Some("" | "kubernetes"))
}
