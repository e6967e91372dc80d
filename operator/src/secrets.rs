//! Fills in the values of references to Secrets of the cluster.
//! <https://docs.dapr.io/operations/components/component-secrets/>
//!
//! A Secret that does not exist, or that may not be read, leaves its reference unresolved, so that only the resource
//! with that reference is affected. A Secret that was read is kept for a second, so that a thousand sidecars that get
//! one change cost one read; after a change of a resource its Secrets are read again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::{Client, Error};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

/// How long a Secret that was read is used, unless the resource changes meanwhile.
const KEPT: Duration = Duration::from_secs(1);
/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Secrets that are kept at a time, and the bytes in them.
const MAX_SECRETS: usize = 512;
const MAX_BYTES: usize = 32 << 20;

/// The API server could not be reached, or refuses everybody for now. That is temporary and not about one Secret.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    #[error("{0}")]
    Api(Arc<Error>),
    #[error("no answer within {}s", TIMEOUT.as_secs())]
    TimedOut,
}

#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    #[error("secret key is required for header {0}")]
    NoKey(String),
    #[error("failed to get secret {secret} for header {header}: Secret {secret:?} not found")]
    NoSecret { secret: String, header: String },
    #[error("key {key} not found in secret {secret}")]
    NoMember { key: String, secret: String },
    #[error("failed to get secret {secret} for header {header}: {source}")]
    Unavailable {
        secret: String,
        header: String,
        source: Unavailable,
    },
}

/// The data of a Secret; nothing if there is none.
type Data = Option<Arc<Map<String, Value>>>;

/// Secrets of the cluster, each read once for all requests of the same moment.
pub struct Secrets {
    client: Client,
    /// By namespace and name.
    readings: Mutex<HashMap<(String, String), Reading>>,
}

#[derive(Clone)]
struct Reading {
    since: Instant,
    data: Shared<BoxFuture<'static, Result<Data, Unavailable>>>,
}

impl Reading {
    fn bytes(&self) -> usize {
        let data = self.data.peek().and_then(|read| read.as_ref().ok());
        let members = data.and_then(Option::as_ref);
        members.map_or(0, |members| {
            let sizes = members
                .iter()
                .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len));
            sizes.sum()
        })
    }
}

impl Secrets {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            readings: Mutex::default(),
        }
    }

    /// For one answer. `changed` is when its resources last changed: what was read before is read again.
    pub fn reader<'a>(&'a self, namespace: &'a str, changed: Option<Instant>) -> Reader<'a> {
        Reader {
            secrets: self,
            namespace,
            not_before: changed.max(Instant::now().checked_sub(KEPT)),
        }
    }

    /// Drops what was read more than a second ago, until `stopping` is cancelled.
    pub async fn drop_old(self: Arc<Self>, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(KEPT) => {}
            }
            self.lock()
                .retain(|_, reading| reading.since.elapsed() <= KEPT);
        }
    }

    async fn get(
        &self,
        namespace: &str,
        name: &str,
        not_before: Option<Instant>,
    ) -> Result<Data, Unavailable> {
        let data = {
            let mut readings = self.lock();
            let key = (namespace.to_owned(), name.to_owned());
            match readings.get(&key) {
                Some(known) if not_before.is_none_or(|at| known.since >= at) => known.data.clone(),
                _ => {
                    make_room(&mut readings);
                    let since = Instant::now();
                    let data = read(self.client.clone(), key.clone()).boxed().shared();
                    let reading = Reading { since, data };
                    readings.entry(key).insert_entry(reading).get().data.clone()
                }
            }
        };
        data.await
    }

    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a Secret that is dropped here still gets it.
fn make_room(readings: &mut HashMap<(String, String), Reading>) {
    let full = |readings: &HashMap<_, Reading>| {
        readings.len() >= MAX_SECRETS
            || readings.values().map(Reading::bytes).sum::<usize>() > MAX_BYTES
    };
    if full(readings) {
        readings.retain(|_, reading| reading.since.elapsed() <= KEPT);
    }
    if full(readings) {
        readings.clear();
    }
}

async fn read(client: Client, (namespace, name): (String, String)) -> Result<Data, Unavailable> {
    let found = match Collection::SECRETS.object(&namespace, &name) {
        Ok(path) => tokio::time::timeout(TIMEOUT, objects::get(&client, &path))
            .await
            .map_err(|_| Unavailable::TimedOut)?,
        Err(error) => Err(error.into()),
    };
    match found {
        Ok(Some(mut secret)) => Ok(Some(Arc::new(match secret["data"].take() {
            Value::Object(data) => data,
            _ => Map::new(),
        }))),
        Ok(None) => {
            tracing::warn!(target: "dapr.operator", "secret {namespace}/{name} not found: references to it are sent to sidecars unresolved");
            Ok(None)
        }
        Err(error) if is_temporary(&error) => Err(Unavailable::Api(Arc::new(error))),
        Err(error) => {
            tracing::warn!(target: "dapr.operator", "a secret of namespace {namespace} cannot be read, references to it are sent to sidecars unresolved: {error}");
            Ok(None)
        }
    }
}

/// Whether a failure is not about the one Secret that was requested.
fn is_temporary(error: &Error) -> bool {
    match error {
        Error::Name(_) => false,
        Error::Client(_) => matches!(error.code(), None | Some(401 | 429 | 502 | 503 | 504)),
    }
}

/// Secrets of one namespace, for one answer.
#[derive(Clone, Copy)]
pub struct Reader<'a> {
    secrets: &'a Secrets,
    namespace: &'a str,
    not_before: Option<Instant>,
}

/// What to write when the Secret has no such member.
enum Missing {
    Leave,
    Null,
}

impl Reader<'_> {
    pub async fn resolve_component(&self, component: &mut Value) -> Result<(), Unavailable> {
        if !of_cluster(&component["auth"]["secretStore"]) {
            return Ok(());
        }
        let items = component
            .pointer_mut("/spec/metadata")
            .and_then(Value::as_array_mut);
        self.resolve_all(items.into_iter().flatten(), Missing::Leave)
            .await
    }

    pub async fn resolve_http_endpoint(&self, endpoint: &mut Value) -> Result<(), Unavailable> {
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

    pub async fn resolve_mcp_server(&self, server: &mut Value) -> Result<(), Unavailable> {
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
        &self,
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
            let read = read.map_err(|source| HeaderError::Unavailable {
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
        &self,
        items: impl IntoIterator<Item = &mut Value>,
        missing: Missing,
    ) -> Result<(), Unavailable> {
        for item in items {
            let Some((secret, key)) = reference(item) else {
                continue;
            };
            let key = if key.is_empty() { secret.clone() } else { key };
            let Some(data) = self.get(&secret).await? else {
                continue;
            };
            match (data.get(&key), &missing) {
                // The data of a Secret is base64 already, and sidecars expect it so.
                (Some(value), _) => item["value"] = value.clone(),
                (None, Missing::Null) => item["value"] = Value::Null,
                (None, Missing::Leave) => {}
            }
        }
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Data, Unavailable> {
        self.secrets
            .get(self.namespace, name, self.not_before)
            .await
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
