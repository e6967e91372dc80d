//! Components that are containers of the pod, with sockets in a shared folder.
//! <https://docs.dapr.io/operations/components/pluggable-components-registration/>

use outrider_crds::annotations as a;
use serde_json::{Value, json};

use super::container::SECCOMP_PROFILE;
use super::pod::{Container, Pod};
use super::volumes;
use super::{Patch, Settings, Situation, env};

const SOCKETS: &str = "dapr-components-unix-domain-socket";
const VARIABLE: &str = "DAPR_COMPONENT_SOCKETS_FOLDER";

/// A Component that brings its container.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    pub name: String,
    pub scopes: Vec<String>,
    /// JSON of a container.
    pub container: String,
}

/// The component containers of a pod.
pub struct Components {
    /// Those that the pod has.
    names: Vec<String>,
    /// Those that it gets.
    pub added: Vec<Value>,
    folder: String,
    /// Volumes that the new ones mount.
    mounted: Vec<String>,
}

pub fn containers(pod: &Pod, situation: &Situation<'_>) -> Components {
    let map = &pod.metadata.annotations;
    let folder = a::PLUGGABLE_COMPONENTS_SOCKETS_FOLDER.read_filled(map);
    let names = a::PLUGGABLE_COMPONENTS.read(map).split(',');
    let mut components = Components {
        names: names
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
        added: Vec::new(),
        folder: folder
            .unwrap_or(&situation.settings.sockets_folder)
            .to_owned(),
        mounted: Vec::new(),
    };
    components.names.retain(|name| {
        pod.spec
            .containers
            .iter()
            .any(|container| container.name == *name)
    });
    if a::INJECT_PLUGGABLE_COMPONENTS.read(map) {
        let app_id = pod.app_id();
        let in_scope = |declared: &&Declared| {
            declared.scopes.is_empty() || declared.scopes.iter().any(|it| it == app_id)
        };
        for declared in situation.declared.iter().filter(in_scope) {
            components.declare(declared, pod, situation.settings);
        }
    }
    components
}

/// Gives a component container of the pod the shared folder.
pub fn connect(components: &Components, container: &Container, path: &str, patch: &mut Patch) {
    env::add_missing(components.env(), container, path, patch);
    if let Some(mount) = components.mount() {
        volumes::mount(&mount, container, path, patch);
    }
}

/// Adds what restricted Pod Security requires, where the container sets nothing itself.
/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/>
fn restrict(context: &mut Value, settings: &Settings) {
    if !context.is_object() {
        *context = json!({});
    }
    if context["windowsOptions"].is_object() {
        return;
    }
    let mut defaults = vec![
        ("allowPrivilegeEscalation", json!(false)),
        ("seccompProfile", json!({"type": SECCOMP_PROFILE})),
    ];
    if settings.run_as_non_root {
        defaults.push(("runAsNonRoot", json!(true)));
    }
    if settings.drop_all_capabilities {
        defaults.push(("capabilities", json!({"drop": ["ALL"]})));
    }
    // Kubernetes refuses a privileged container that forbids escalation.
    if context["privileged"] == true {
        defaults.clear();
    }
    for (member, value) in defaults {
        if context[member].is_null() {
            context[member] = value;
        }
    }
}

impl Components {
    fn declare(&mut self, declared: &Declared, pod: &Pod, settings: &Settings) {
        let container: Option<Value> = serde_json::from_str(&declared.container)
            .ok()
            .filter(Value::is_object);
        let Some(mut container) = container else {
            tracing::warn!(target: "dapr.injector", "annotation {} of component {} is not a container: it is ignored", a::COMPONENT_CONTAINER.name, declared.name);
            return;
        };
        if self
            .added
            .iter()
            .any(|known| known["image"] == container["image"])
        {
            return;
        }
        if container["name"].as_str().unwrap_or_default().is_empty() {
            container["name"] = json!(declared.name);
        }
        let mounted = container["volumeMounts"].as_array().into_iter().flatten();
        self.mounted
            .extend(mounted.filter_map(|mount| mount["name"].as_str().map(str::to_owned)));
        for (list, additions) in [
            ("env", self.env()),
            ("volumeMounts", vec![self.shared_mount()]),
        ] {
            match container[list].as_array_mut() {
                Some(known) => known.extend(additions),
                None => container[list] = json!(additions),
            }
        }
        if !pod.is_for_windows() {
            restrict(&mut container["securityContext"], settings);
        }
        self.added.push(container);
    }

    fn any(&self) -> bool {
        !self.names.is_empty() || !self.added.is_empty()
    }

    pub fn is_component(&self, container: &str) -> bool {
        self.names.iter().any(|name| name == container)
    }

    /// For each component.
    fn env(&self) -> Vec<Value> {
        vec![json!({"name": VARIABLE, "value": self.folder})]
    }

    /// For the sidecar: nothing without components.
    pub fn sidecar_env(&self) -> Vec<Value> {
        if self.any() { self.env() } else { Vec::new() }
    }

    fn shared_mount(&self) -> Value {
        json!({"name": SOCKETS, "mountPath": self.folder})
    }

    pub fn mount(&self) -> Option<Value> {
        self.any().then(|| self.shared_mount())
    }

    /// The shared folder, and whatever the new containers mount that the pod has not.
    pub fn volumes(&self, pod: &Pod) -> Vec<Value> {
        let mut names: Vec<&str> = self.any().then_some(SOCKETS).into_iter().collect();
        for name in &self.mounted {
            if !names.contains(&name.as_str()) && !pod.has_volume(name) {
                names.push(name);
            }
        }
        names
            .into_iter()
            .map(|name| json!({"name": name, "emptyDir": {}}))
            .collect()
    }
}
