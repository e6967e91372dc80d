//! Bringing components into use, one after the other.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_components::{Context, Metadata, Registry};
use outrider_crds::Component;
use outrider_kit::duration;
use outrider_resiliency::Resiliency;

use super::live::{self, Live};
use super::resilient;
use super::resolve::{MissingStore, Sources};
use crate::api::pubsub::Broker;
use crate::api::pubsub::scope::Scopes;
use crate::api::state::prefix::Prefix;
use crate::api::{secrets, state};
use crate::metrics::Metrics;

/// How long a component may take where it does not say.
const INIT_LIMIT: Duration = Duration::from_secs(5);
const SCOPE: &str = "dapr.runtime.processor";

/// Why a component is not in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("incorrect type {0}")]
    Type(String),
    #[error("[{code}]: initialization error occurred for {component}: {cause}")]
    Init {
        code: &'static str,
        component: String,
        cause: String,
    },
}

/// What initialisation needs.
pub struct Starter {
    pub registry: Registry,
    pub live: Arc<Live>,
    pub sources: Sources,
    pub context: Context,
    /// What applies to the calls of components.
    pub resiliency: Resiliency,
    /// Types, with or without version, that the Configuration forbids.
    pub denied: Vec<String>,
    /// Components that wait for a secret store.
    pub parked: Mutex<Vec<Component>>,
    pub metrics: Metrics,
}

impl Starter {
    /// Brings all into use, secret stores first. The first that fails without
    /// `ignoreErrors` ends it.
    pub async fn all(&self, components: Vec<Component>) -> Result<(), String> {
        tracing::info!(target: SCOPE, "Loading components\u{2026}");
        let (stores, others): (Vec<_>, Vec<_>) = components
            .into_iter()
            .partition(|c| c.spec.component_type.starts_with("secretstores."));
        for component in stores.into_iter().chain(others) {
            self.add(component).await?;
        }
        tracing::info!(target: SCOPE, "Waiting for all outstanding components to be processed\u{2026}");
        tracing::info!(target: SCOPE, "All outstanding components processed");
        Ok(())
    }

    /// Brings one component into use, and with a secret store those that
    /// waited for it.
    pub async fn add(&self, component: Component) -> Result<(), String> {
        let mut next = vec![component];
        while let Some(component) = next.pop() {
            if !self.is_allowed(&component) {
                continue;
            }
            if let Some(MissingStore(store)) = self.sources.missing_store(
                &component.spec.metadata,
                &component.auth.secret_store,
                &self.live,
            ) {
                tracing::warn!(target: SCOPE, "Component {} references a secret store that isn't loaded: {store}", component.metadata.name);
                self.parked().push(component);
                continue;
            }
            self.one(&component).await?;
            if component.spec.component_type.starts_with("secretstores.") {
                next.append(&mut self.parked());
            }
        }
        Ok(())
    }

    /// Takes a component out of use and closes it.
    pub async fn remove(&self, name: &str) {
        self.parked().retain(|parked| parked.metadata.name != name);
        let closed = if let Some(entry) = self.live.state.remove(name) {
            entry.store.close().await
        } else if let Some(entry) = self.live.pubsub.remove(name) {
            entry.broker.close().await
        } else if let Some(entry) = self.live.secrets.remove(name) {
            entry.store.close().await
        } else {
            Ok(())
        };
        if let Err(error) = closed {
            tracing::warn!(target: SCOPE, "error closing component {name}: {error}");
        }
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<Component>> {
        self.parked.lock().unwrap_or_else(|e| e.into_inner())
    }

    async fn one(&self, component: &Component) -> Result<(), String> {
        let name = component.log_name();
        let Err(error) = self.init(component).await else {
            tracing::info!(target: SCOPE, "Component loaded: {name}");
            let kind = &component.spec.component_type;
            self.metrics.calls().component_loaded(kind);
            return Ok(());
        };
        if let Error::Init { code, .. } = &error {
            let reason = match *code {
                "CREATE_COMPONENT_FAILURE" => "creation",
                _ => "init",
            };
            let (kind, name) = (&component.spec.component_type, &component.metadata.name);
            self.metrics.calls().component_failed(kind, reason, name);
        }
        let text = match &error {
            Error::Type(_) => format!(
                "process component {} error: {error}",
                component.metadata.name
            ),
            Error::Init { .. } => {
                tracing::error!(target: SCOPE, "Failed to init component {name}: {error}");
                let outer = Error::Init {
                    code: "INIT_COMPONENT_FAILURE",
                    component: name,
                    cause: error.to_string(),
                };
                format!(
                    "process component {} error: {outer}",
                    component.metadata.name
                )
            }
        };
        if component.spec.ignore_errors {
            tracing::error!(target: SCOPE, "Ignoring error processing component: {text}");
            return Ok(());
        }
        tracing::warn!(target: SCOPE, "Error processing component, daprd will exit gracefully: {text}");
        Err(text)
    }

    fn is_allowed(&self, component: &Component) -> bool {
        if self.denied.is_empty() {
            return true;
        }
        let spec = &component.spec;
        let full = format!("{}/{}", spec.component_type, spec.version);
        let allowed = !spec.component_type.is_empty()
            && !spec.version.is_empty()
            && !self
                .denied
                .iter()
                .any(|d| *d == spec.component_type || *d == full);
        if !allowed {
            tracing::warn!(target: SCOPE, "component '{}' cannot be loaded because components of type '{}' are not allowed", component.metadata.name, component.log_name());
        }
        allowed
    }

    async fn init(&self, component: &Component) -> Result<(), Error> {
        let limit = duration::parse(&component.spec.init_timeout)
            .ok()
            .filter(|d| !d.is_zero())
            .unwrap_or(INIT_LIMIT);
        match tokio::time::timeout(limit, self.connect(component)).await {
            Ok(result) => result,
            Err(_) => Err(failed(
                "INIT_COMPONENT_FAILURE",
                component,
                format!("init timeout for component {}", component.log_name()),
            )),
        }
    }

    async fn connect(&self, component: &Component) -> Result<(), Error> {
        let spec = &component.spec;
        let name = &component.metadata.name;
        let init = |cause: &dyn std::fmt::Display| {
            failed("INIT_COMPONENT_FAILURE", component, cause.to_string())
        };
        let create = |cause: &dyn std::fmt::Display| {
            failed("CREATE_COMPONENT_FAILURE", component, cause.to_string())
        };
        let block = spec.component_type.split('.').next().unwrap_or_default();
        if !matches!(block, "state" | "pubsub" | "secretstores") {
            return Err(match block {
                "bindings" | "lock" | "configuration" | "crypto" | "conversation"
                | "middleware" => create(&format_args!(
                    "components of type {} are not part of this release of Outrider",
                    spec.component_type
                )),
                _ => Error::Type(spec.component_type.clone()),
            });
        }
        let values = self
            .sources
            .values(
                &format!("Component {name}"),
                &spec.metadata,
                &component.auth.secret_store,
                &self.live,
            )
            .await
            .map_err(|e| init(&e))?;
        let metadata = Metadata::new(name, values);
        let context = self.context.clone();
        let mut entry = live::Component {
            name: name.clone(),
            kind: spec.component_type.clone(),
            version: spec.version.clone(),
            capabilities: Vec::new(),
        };
        let warn = |warning: Option<String>| {
            if let Some(warning) = warning {
                tracing::warn!(target: SCOPE, "{warning}");
            }
        };
        match block {
            "state" => {
                let found = self
                    .registry
                    .state
                    .find(&spec.component_type, &spec.version)
                    .map_err(|e| create(&e))?;
                warn(found.warning);
                let prefix = Prefix::new(
                    metadata.get("keyPrefix"),
                    &self.context.app_id,
                    &self.context.namespace,
                    name,
                );
                let store = (found.constructor)(metadata, context)
                    .await
                    .map_err(|e| init(&e))?;
                let features = store.features();
                entry.capabilities = features.iter().map(|f| f.name()).collect();
                use outrider_components::state::Feature;
                if features.contains(&Feature::Etag) && features.contains(&Feature::Transactional) {
                    entry.capabilities.push("ACTOR");
                }
                self.live.state.insert(
                    name,
                    Arc::new(state::Store {
                        component: entry,
                        store: resilient::state::wrap(store, &self.resiliency, name),
                        prefix,
                        metrics: self.metrics.state(name),
                    }),
                );
            }
            "pubsub" => {
                let found = self
                    .registry
                    .pubsub
                    .find(&spec.component_type, &spec.version)
                    .map_err(|e| create(&e))?;
                warn(found.warning);
                let scopes = Scopes::new(&metadata, &self.context.app_id);
                let namespaced = spec
                    .metadata
                    .iter()
                    .any(|item| outrider_crds::property::text(&item.value).contains("{namespace}"));
                let prefix = if namespaced {
                    self.context.namespace.clone()
                } else {
                    String::new()
                };
                let broker = (found.constructor)(metadata, context)
                    .await
                    .map_err(|e| init(&e))?;
                entry.capabilities = broker.features().iter().map(|f| f.name()).collect();
                self.live.pubsub.insert(
                    name,
                    Arc::new(Broker {
                        component: entry,
                        broker: resilient::pubsub::wrap(broker, &self.resiliency, name),
                        scopes,
                        prefix,
                        metrics: self.metrics.topics(name),
                    }),
                );
            }
            _ => {
                let found = self
                    .registry
                    .secrets
                    .find(&spec.component_type, &spec.version)
                    .map_err(|e| create(&e))?;
                warn(found.warning);
                let store = (found.constructor)(metadata, context)
                    .await
                    .map_err(|e| init(&e))?;
                entry.capabilities = store.features().iter().map(|f| f.name()).collect();
                self.live.secrets.insert(
                    name,
                    Arc::new(secrets::Store {
                        component: entry,
                        store: resilient::secrets::wrap(store, &self.resiliency, name),
                        metrics: self.metrics.secrets(name),
                    }),
                );
            }
        }
        Ok(())
    }
}

fn failed(code: &'static str, component: &Component, cause: String) -> Error {
    Error::Init {
        code,
        component: component.log_name(),
        cause,
    }
}
