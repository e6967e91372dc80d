//! Volumes of the pod and mounts of its containers.

use outrider_crds::annotations as a;
use outrider_crds::annotations::Annotation;
use serde_json::{Value, json};

use super::pluggable::Components;
use super::pod::{Container, Pod};
use super::{Error, Patch, Situation};

/// Where the sidecar keeps its API sockets.
pub const SOCKET_FOLDER: &str = "/var/run/dapr-sockets";
const SOCKETS: &str = "dapr-unix-domain-socket";
const TOKEN: &str = "dapr-identity-token";
const TOKEN_FOLDER: &str = "/var/run/secrets/dapr.io/sentrytoken";
/// In seconds; the kubelet renews it at four fifths.
const TOKEN_LIFE: u32 = 7200;

/// What is added to the pod, and what of it is mounted where.
pub struct Volumes {
    added: Vec<Value>,
    sidecar: Vec<Value>,
    app: Option<Value>,
}

impl Volumes {
    pub fn of(pod: &Pod, situation: &Situation<'_>, components: &Components) -> Self {
        let mut volumes = Self {
            added: Vec::new(),
            sidecar: Vec::new(),
            app: None,
        };
        let socket = a::UNIX_DOMAIN_SOCKET_PATH.read(&pod.metadata.annotations);
        if !socket.is_empty() {
            volumes
                .added
                .push(json!({"name": SOCKETS, "emptyDir": {"medium": "Memory"}}));
            volumes
                .sidecar
                .push(json!({"name": SOCKETS, "mountPath": SOCKET_FOLDER}));
            volumes.app = Some(json!({"name": SOCKETS, "mountPath": socket}));
        }
        if situation.settings.identity_token {
            let token = json!({
                "audience": situation.settings.audience(),
                "expirationSeconds": TOKEN_LIFE,
                "path": "token",
            });
            volumes.added.push(json!({
                "name": TOKEN,
                "projected": {"sources": [{"serviceAccountToken": token}], "defaultMode": 420},
            }));
            volumes
                .sidecar
                .push(json!({"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": true}));
        }
        volumes.sidecar.extend(components.mount());
        volumes.added.extend(components.volumes(pod));
        volumes
    }

    pub fn app_mount(&self) -> Option<&Value> {
        self.app.as_ref()
    }

    /// The sidecar's mounts: those its annotations ask for, then our own.
    pub fn sidecar_mounts(
        &self,
        pod: &Pod,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<Value>, Error> {
        let mut mounts = Vec::new();
        requested(pod, &a::VOLUME_MOUNTS, true, &mut mounts, warnings)?;
        requested(pod, &a::VOLUME_MOUNTS_RW, false, &mut mounts, warnings)?;
        mounts.extend(self.sidecar.iter().cloned());
        Ok(mounts)
    }

    /// A list that is not there cannot be appended to.
    pub fn add_to(&self, pod: &Pod, patch: &mut Patch) {
        let missing: Vec<_> = self
            .added
            .iter()
            .filter(|volume| !pod.has_volume(volume["name"].as_str().unwrap_or_default()))
            .collect();
        if missing.is_empty() {
            return;
        }
        if pod.spec.volumes.is_empty() {
            return patch.add("/spec/volumes", json!(missing));
        }
        for volume in missing {
            patch.add("/spec/volumes/-", volume.clone());
        }
    }
}

fn requested(
    pod: &Pod,
    annotation: &Annotation<&'static str>,
    read_only: bool,
    mounts: &mut Vec<Value>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let text = annotation.read(&pod.metadata.annotations);
    for entry in text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let pair = entry
            .split_once(':')
            .map(|(volume, path)| (volume.trim(), path.trim()));
        let (volume, path) = match pair {
            Some((volume, path)) if !path.contains(':') => (volume, path),
            _ => {
                return Err(annotation
                    .error("volume:path pairs with commas between", entry)
                    .into());
            }
        };
        if !pod.has_volume(volume) {
            warnings.push(format!(
                "annotation {}: the pod has no volume {volume:?}",
                annotation.name
            ));
            continue;
        }
        let mut mount = json!({"name": volume, "mountPath": path});
        if read_only {
            mount["readOnly"] = json!(true);
        }
        mounts.push(mount);
    }
    Ok(())
}

/// Mounts into a container of the pod, unless the volume or the path is taken.
pub fn mount(mount: &Value, container: &Container, path: &str, patch: &mut Patch) {
    let taken = |known: &super::pod::Mount| {
        mount["name"] == known.name.as_str() || mount["mountPath"] == known.mount_path.as_str()
    };
    if container.volume_mounts.is_empty() {
        patch.add(format!("{path}/volumeMounts"), json!([mount]));
    } else if !container.volume_mounts.iter().any(taken) {
        patch.add(format!("{path}/volumeMounts/-"), mount.clone());
    }
}
