//! What the injector's environment decides about sidecars.

use serde_json::Value;

/// The same for all pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub image: String,
    pub image_pull_policy: String,
    /// Of the control plane.
    pub namespace: String,
    pub trust_domain: String,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// Nothing if actors are off.
    pub actors: Option<Actors>,
    /// `<name>:<address>`
    pub reminders: Option<String>,
    /// Whether sidecars get the address of the scheduler.
    pub scheduler: bool,
    /// Pods that tolerate one of these get a command: their node would not keep the image's entry point.
    pub ignore_entrypoint_tolerations: Vec<Value>,
    pub run_as_non_root: bool,
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub read_only_root_filesystem: bool,
    pub drop_all_capabilities: bool,
    /// Gives sidecars their pod's address.
    pub downward_apis: bool,
    /// The default of an annotation.
    pub native_sidecar: bool,
    /// Where component sockets are mounted.
    pub sockets_folder: String,
    /// Whether sidecars get a token to identify themselves to sentry.
    pub identity_token: bool,
}

/// The service from which sidecars learn where actors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actors {
    /// `host:port` of placement.
    Placement(String),
    /// `<name>:<address>` of another service.
    Other(String),
}

impl Settings {
    /// Address of a service of the control plane.
    pub fn address(&self, service: &str, port: u16) -> String {
        format!(
            "{service}.{}.svc.{}:{port}",
            self.namespace, self.cluster_domain
        )
    }

    /// The audience of sidecars' tokens.
    pub fn audience(&self) -> String {
        format!(
            "spiffe://{}/ns/{}/dapr-sentry",
            self.trust_domain, self.namespace
        )
    }
}
