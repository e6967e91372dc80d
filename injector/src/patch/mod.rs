//! From a pod to the JSON patch that gives it a sidecar. Nothing here does I/O.

mod arguments;
mod container;
mod env;
mod pluggable;
mod pod;
mod settings;
#[cfg(test)]
mod tests;
mod volumes;

use outrider_crds::annotations::{self, Map};
use serde_json::{Value, json};

use pluggable::Components;
pub use pluggable::Declared;
pub use pod::Pod;
pub use settings::{Actors, Settings};

/// Name of the sidecar's container.
pub const SIDECAR: &str = "daprd";
/// The sidecar's HTTP API, and the port of its health for the kubelet.
const HTTP_PORT: u16 = 3500;
const PUBLIC_PORT: u16 = 3501;

/// Why a pod is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    AppId(#[from] outrider_crds::app_id::Error),
    #[error(transparent)]
    Annotation(#[from] annotations::Error),
}

/// What is known at the time of the admission.
pub struct Situation<'a> {
    pub settings: &'a Settings,
    /// The pod's namespace.
    pub namespace: &'a str,
    /// Whether sidecars talk to each other over mTLS.
    pub mtls: bool,
    /// Trust anchors, PEM.
    pub anchors: &'a str,
    /// Components whose containers may be added.
    pub declared: &'a [Declared],
}

/// JSON patch operations, and what the pod's author should know.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Patch {
    pub operations: Vec<Value>,
    pub warnings: Vec<String>,
}

impl Patch {
    fn add(&mut self, path: impl AsRef<str>, value: impl Into<Value>) {
        self.operations
            .push(json!({"op": "add", "path": path.as_ref(), "value": value.into()}));
    }
}

/// Whether a pod asks for a sidecar. Only this word counts here.
pub fn wants_sidecar(annotations: &Map) -> bool {
    annotations
        .get(annotations::ENABLED.name)
        .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
}

/// The patch; it is empty if there is a sidecar already.
pub fn patch(pod: &Pod, situation: &Situation<'_>) -> Result<Patch, Error> {
    let app_id = pod.app_id();
    outrider_crds::app_id::service_name(app_id)?;
    if pod.has_container(SIDECAR) {
        return Ok(Patch::default());
    }
    let map = &pod.metadata.annotations;
    let native = annotations::ENABLE_NATIVE_SIDECAR
        .read(map)
        .unwrap_or(situation.settings.native_sidecar);
    let metrics = annotations::ENABLE_METRICS.read(map);
    let grpc_port = annotations::GRPC_PORT.read(map)?;
    let components = pluggable::containers(pod, situation);
    let volumes = volumes::Volumes::of(pod, situation, &components);
    let mut patch = Patch::default();
    let sidecar = container::sidecar(pod, situation, &volumes, &components, &mut patch.warnings)?;

    if pod.spec.containers.is_empty() {
        patch.add("/spec/containers", json!([]));
    }
    if pod.metadata.labels.is_none() {
        patch.add("/metadata/labels", json!({}));
    }
    volumes.add_to(pod, &mut patch);
    if native {
        add_native_sidecars(pod, &components, sidecar, &mut patch);
    } else {
        patch.add("/spec/containers/-", sidecar);
    }
    patch.add("/metadata/labels/dapr.io~1sidecar-injected", "true");
    patch.add("/metadata/labels/dapr.io~1app-id", app_id);
    patch.add(
        "/metadata/labels/dapr.io~1metrics-enabled",
        metrics.to_string(),
    );
    for (index, container) in pod.spec.containers.iter().enumerate() {
        let path = format!("/spec/containers/{index}");
        if components.is_component(&container.name) {
            pluggable::connect(&components, container, &path, &mut patch);
        } else {
            env::add_to_app(map, grpc_port, container, &path, &mut patch);
            if let Some(mount) = volumes.app_mount() {
                volumes::mount(mount, container, &path, &mut patch);
            }
        }
    }
    if !native {
        for component in components.added {
            patch.add("/spec/containers/-", component);
        }
    }
    Ok(patch)
}

/// Adds the sidecar, and the component containers that it waits for, as init
/// containers that are restarted: they end with the pod's other containers,
/// so that a Job completes. They come after the pod's own init containers,
/// which may prepare what the sidecar mounts.
/// <https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/>
fn add_native_sidecars(pod: &Pod, components: &Components, sidecar: Value, patch: &mut Patch) {
    if pod.spec.init_containers.is_empty() {
        patch.add("/spec/initContainers", json!([]));
    }
    for mut container in components.added.iter().cloned().chain([sidecar]) {
        container["restartPolicy"] = json!("Always");
        patch.add("/spec/initContainers/-", container);
    }
}
