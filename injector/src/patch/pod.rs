//! The parts of a pod that decide its patch.

use outrider_crds::annotations::Map;
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub metadata: Metadata,
    pub spec: Spec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Metadata {
    pub name: String,
    pub annotations: Map,
    pub labels: Option<Map>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub containers: Vec<Container>,
    pub init_containers: Vec<Container>,
    pub volumes: Vec<Named>,
    pub tolerations: Vec<Value>,
    pub os: Named,
    pub node_selector: Map,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Container {
    pub name: String,
    pub env: Vec<Named>,
    pub volume_mounts: Vec<Mount>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Named {
    pub name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    pub name: String,
    pub mount_path: String,
}

impl Pod {
    /// The annotation, or the pod's name; pods made from a template have none yet.
    pub fn app_id(&self) -> &str {
        match self
            .metadata
            .annotations
            .get(outrider_crds::annotations::APP_ID.name)
        {
            Some(app_id) if !app_id.is_empty() => app_id,
            _ => &self.metadata.name,
        }
    }

    /// <https://kubernetes.io/docs/concepts/windows/user-guide/>
    pub fn is_for_windows(&self) -> bool {
        let selected = self.spec.node_selector.get("kubernetes.io/os");
        self.spec.os.name == "windows" || selected.is_some_and(|os| os == "windows")
    }

    pub fn has_container(&self, name: &str) -> bool {
        self.spec
            .containers
            .iter()
            .chain(&self.spec.init_containers)
            .any(|container| container.name == name)
    }

    pub fn has_volume(&self, name: &str) -> bool {
        self.spec.volumes.iter().any(|volume| volume.name == name)
    }
}
