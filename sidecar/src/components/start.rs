//! Starts components and takes them into use.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_components::{Context, Metadata, Registry};
use outrider_crds::Component;
use outrider_host::Tasks;
use outrider_kit::duration;
use outrider_resiliency::Resiliency;

use super::SCOPE;
use super::block::{Installed, ToConnect};
use super::live::{Live, retire};
use super::redact::without_secrets;
use super::resolve::{MissingStore, Sources};
use super::status::WaitsFor;
use outrider_metrics::Metrics;

/// How long a component may take where it does not say.
const INIT_LIMIT: Duration = Duration::from_secs(5);

/// What a Configuration may demand of WebAssembly components.
const STRICT_SANDBOX: &str = "strictSandbox";

/// Why a component is not in use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("incorrect type {0}")]
    Type(String),
    #[error("couldn't find binding {0}")]
    NoBinding(String),
    #[error("[{}]: initialization error occurred for {component}: {cause}", stage.code())]
    Init {
        stage: Stage,
        component: String,
        cause: String,
    },
}

/// Where the start of a component failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It could not be made.
    Create,
    /// It could not be connected.
    Init,
}

impl Stage {
    fn code(self) -> &'static str {
        match self {
            Self::Create => "CREATE_COMPONENT_FAILURE",
            Self::Init => "INIT_COMPONENT_FAILURE",
        }
    }

    /// What the metric of failures says.
    fn reason(self) -> &'static str {
        match self {
            Self::Create => "creation",
            Self::Init => "init",
        }
    }
}

impl Error {
    /// A component that cannot be made.
    pub fn create(component: &Component, cause: String) -> Self {
        Self::of(Stage::Create, component, cause)
    }

    /// A component that cannot be connected.
    pub fn init(component: &Component, cause: String) -> Self {
        Self::of(Stage::Init, component, cause)
    }

    fn map_cause(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Type(_) | Self::NoBinding(_) => self,
            Self::Init {
                stage,
                component,
                cause,
            } => Self::Init {
                stage,
                component,
                cause: change(cause),
            },
        }
    }

    fn of(stage: Stage, component: &Component, cause: String) -> Self {
        Self::Init {
            stage,
            component: component.log_name(),
            cause,
        }
    }
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
    /// Whether WebAssembly components have to be in a strict sandbox.
    pub strict_wasm: bool,
    /// Components that wait for a secret store.
    pub parked: Mutex<Vec<Component>>,
    pub metrics: Metrics,
    /// Owns what closes components that were replaced.
    pub tasks: Tasks,
}

/// What became of a component that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartOutcome {
    InUse,
    /// The Configuration forbids its type.
    Denied,
    /// Its secret store is not in use yet.
    Waiting,
}

pub fn is_secret_store(component: &Component) -> bool {
    component.spec.component_type.starts_with("secretstores.")
}

/// Others may need them. The order is kept besides.
pub fn secret_stores_first(components: &mut [Component]) {
    components.sort_by_key(|component| !is_secret_store(component));
}

impl Starter {
    /// Brings all into use, secret stores first. The first that fails without
    /// `ignoreErrors` ends it, unless this is `lenient`; the others that failed
    /// are returned.
    pub async fn all(
        &self,
        components: Vec<Component>,
        lenient: bool,
    ) -> Result<Vec<Component>, String> {
        tracing::info!(target: SCOPE, "Loading components\u{2026}");
        let mut failed = Vec::new();
        let mut next: VecDeque<Component> = components.into();
        secret_stores_first(next.make_contiguous());
        while let Some(component) = next.pop_front() {
            match self.start(&component).await {
                Ok(StartOutcome::InUse) => self
                    .waiting_for(&component)
                    .into_iter()
                    .for_each(|waiting| next.push_front(waiting)),
                Ok(StartOutcome::Denied | StartOutcome::Waiting) => {}
                Err(text) if component.spec.ignore_errors || lenient => {
                    tracing::error!(target: SCOPE, "Ignoring error processing component: {text}");
                    failed.push(component);
                }
                Err(text) => {
                    tracing::warn!(target: SCOPE, "Error processing component, daprd will exit gracefully: {text}");
                    return Err(text);
                }
            }
        }
        tracing::info!(target: SCOPE, "Waiting for all outstanding components to be processed\u{2026}");
        tracing::info!(target: SCOPE, "All outstanding components processed");
        Ok(failed)
    }

    /// Starts one component, and only then lets go of the one that had its
    /// name until now.
    pub async fn start(&self, component: &Component) -> Result<StartOutcome, String> {
        let outcome = self.bring_into_use(component).await;
        if outcome != Ok(StartOutcome::InUse) {
            self.live.missing();
        }
        outcome
    }

    async fn bring_into_use(&self, component: &Component) -> Result<StartOutcome, String> {
        let (name, shown) = (&component.metadata.name, component.log_name());
        self.parked().retain(|parked| parked.metadata.name != *name);
        if !self.is_allowed(component) {
            let spec = &component.spec;
            let kind = format!("{}/{}", spec.component_type, spec.version);
            let why = format!("components of type {kind} are not allowed");
            // Before it goes: chains of middleware ask why it is not there.
            self.live.status.failed::<Component>(name, &why);
            if let Some(running) = self.live.take(name) {
                self.retire(running);
            }
            return Ok(StartOutcome::Denied);
        }
        if let Some(MissingStore(store)) = self.sources.missing_store(
            &component.spec.metadata,
            &component.auth.secret_store,
            &self.live.secrets,
        ) {
            tracing::warn!(target: SCOPE, "Component {name} references a secret store that isn't loaded: {store}");
            let waits_for = WaitsFor::SecretStore(store);
            self.live.status.parked::<Component>(name, waits_for);
            self.parked().push(component.clone());
            return Ok(StartOutcome::Waiting);
        }
        match self.init(component).await {
            Ok(running) => {
                if let Some(before) = self.live.install(running) {
                    tracing::info!(target: SCOPE, "Closing existing Component to reload: {shown}");
                    self.retire(before);
                }
                tracing::info!(target: SCOPE, "Component loaded: {shown}");
                let kind = &component.spec.component_type;
                self.metrics.calls().component_loaded(kind);
                Ok(StartOutcome::InUse)
            }
            Err(error) => {
                let text = self.count_failure(component, &error);
                self.live.status.failed::<Component>(name, &text);
                Err(text)
            }
        }
    }

    /// Components that waited for this one, which is in use now.
    pub fn waiting_for(&self, store: &Component) -> Vec<Component> {
        if !is_secret_store(store) {
            return Vec::new();
        }
        let waits = |component: &mut Component| {
            self.sources.store(&component.auth.secret_store) == store.metadata.name
        };
        self.parked().extract_if(.., waits).collect()
    }

    /// Takes a component out of use. Calls on it may end before it is closed.
    pub fn remove(&self, name: &str) {
        self.parked().retain(|parked| parked.metadata.name != name);
        self.live.status.remove::<Component>(name);
        if let Some(running) = self.live.take(name) {
            self.retire(running);
        }
    }

    fn retire(&self, running: Box<dyn Installed>) {
        let stopping = self.tasks.stopping();
        self.tasks
            .spawn("component that was replaced", retire(running, stopping));
    }

    fn parked(&self) -> std::sync::MutexGuard<'_, Vec<Component>> {
        self.parked.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Logs and counts a failure, and returns its whole text.
    fn count_failure(&self, component: &Component, error: &Error) -> String {
        let (kind, name) = (&component.spec.component_type, &component.metadata.name);
        let reason = match error {
            Error::Type(_) | Error::NoBinding(_) => Stage::Create.reason(),
            Error::Init { stage, .. } => stage.reason(),
        };
        self.metrics.calls().component_failed(kind, reason, name);
        match error {
            Error::Type(_) | Error::NoBinding(_) => {
                format!("process component {name} error: {error}")
            }
            Error::Init { .. } => {
                let component = component.log_name();
                tracing::error!(target: SCOPE, "Failed to init component {component}: {error}");
                let outer = Error::Init {
                    stage: Stage::Init,
                    component,
                    cause: error.to_string(),
                };
                format!("process component {name} error: {outer}")
            }
        }
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

    async fn init(&self, component: &Component) -> Result<Box<dyn Installed>, Error> {
        let limit = duration::parse(&component.spec.init_timeout)
            .ok()
            .filter(|d| !d.is_zero())
            .unwrap_or(INIT_LIMIT);
        match tokio::time::timeout(limit, self.connect(component)).await {
            Ok(result) => result,
            Err(_) => Err(Error::init(
                component,
                format!("init timeout for component {}", component.log_name()),
            )),
        }
    }

    async fn connect(&self, component: &Component) -> Result<Box<dyn Installed>, Error> {
        let kind = &component.spec.component_type;
        let category = kind.split('.').next().unwrap_or_default();
        let Some(block) = self.live.category(category) else {
            return Err(Error::Type(kind.clone()));
        };
        let name = &component.metadata.name;
        let mut values = self
            .sources
            .values(
                &format!("Component {name}"),
                &component.spec.metadata,
                &component.auth.secret_store,
                &self.live.secrets,
            )
            .await
            .map_err(|cause| Error::init(component, cause.to_string()))?;
        if self.strict_wasm && kind.to_lowercase().ends_with(".wasm") {
            values.retain(|(name, _)| !name.eq_ignore_ascii_case(STRICT_SANDBOX));
            values.push((STRICT_SANDBOX.to_owned(), "true".to_owned()));
        }
        let secrets: Vec<String> = values.iter().map(|(_, value)| value.clone()).collect();
        let new = ToConnect {
            resource: component,
            metadata: Metadata::new(name, values),
            context: self.context.clone(),
        };
        let connected = block.clone().connect(self, new).await;
        connected.map_err(|error| {
            error.map_cause(|cause| without_secrets(cause, &component.spec.metadata, &secrets))
        })
    }
}
