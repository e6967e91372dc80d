//! The resources of the cluster, kept up to date, and how they look to a sidecar.

mod assignment;

use bytes::Bytes;
use outrider_crds::{
    Component, Configuration, HttpEndpoint, Kind, McpServer, Resiliency, Subscription,
    WorkflowAccessPolicy,
};
use outrider_host::Tasks;
use outrider_k8s::Client;
use outrider_k8s::objects::Collection;
use outrider_k8s::watch::{self, Interest, Object, State, Store};
use serde_json::Value;

pub use assignment::configurations;

/// One kind.
#[derive(Clone)]
pub struct Resource {
    pub store: Store,
    pub kind: &'static str,
    pub api_version: &'static str,
}

/// Every kind that sidecars request, and the pods, whose annotations name the Configuration of an app.
#[derive(Clone)]
pub struct Resources {
    pub components: Resource,
    pub configurations: Resource,
    pub subscriptions: Resource,
    pub resiliencies: Resource,
    pub http_endpoints: Resource,
    pub mcp_servers: Resource,
    pub workflow_access_policies: Resource,
    pub pods: Store,
}

const V1: &str = "dapr.io/v1alpha1";
const V2: &str = "dapr.io/v2alpha1";

impl Resources {
    /// Starts watching; in one namespace if one is given.
    pub fn watch(client: &Client, namespace: Option<&str>, tasks: &Tasks) -> Self {
        let start = |interest: Interest| {
            let (store, driver) = watch::new(client.clone(), interest);
            tasks.spawn("watch", driver.run(tasks.stopping()));
            store
        };
        let resource = |api_version: &'static str, kind: &'static str, plural: &'static str| {
            let version = if api_version == V1 {
                "/apis/dapr.io/v1alpha1"
            } else {
                "/apis/dapr.io/v2alpha1"
            };
            let interest =
                Interest::whole(Collection { version, plural }, namespace.map(str::to_owned));
            Resource {
                store: start(interest),
                kind,
                api_version,
            }
        };
        Self {
            components: resource(V1, Component::KIND, Component::PLURAL),
            configurations: resource(V1, Configuration::KIND, Configuration::PLURAL),
            subscriptions: resource(V2, Subscription::KIND, Subscription::PLURAL),
            resiliencies: resource(V1, Resiliency::KIND, Resiliency::PLURAL),
            http_endpoints: resource(V1, HttpEndpoint::KIND, HttpEndpoint::PLURAL),
            mcp_servers: resource(V1, McpServer::KIND, McpServer::PLURAL),
            workflow_access_policies: resource(
                V1,
                WorkflowAccessPolicy::KIND,
                WorkflowAccessPolicy::PLURAL,
            ),
            pods: start(Interest {
                metadata_only: true,
                keep: assignment::keep,
                ..Interest::whole(Collection::PODS, namespace.map(str::to_owned))
            }),
        }
    }

    /// Waits for the first list of each kind.
    pub async fn synced(&self) {
        for resource in [
            &self.components,
            &self.configurations,
            &self.subscriptions,
            &self.resiliencies,
            &self.http_endpoints,
            &self.mcp_servers,
            &self.workflow_access_policies,
        ] {
            resource.store.synced().await;
        }
        self.pods.synced().await;
    }
}

impl Resource {
    pub fn is_installed(&self) -> bool {
        self.store.state() != State::Absent
    }

    /// With `kind` and `apiVersion`.
    pub fn typed(&self, object: &Object) -> Value {
        object.typed(self.api_version, self.kind)
    }
}

/// Whether an app may see an object.
pub fn in_scope(object: &Object, app_id: &str) -> bool {
    match object.json["scopes"].as_array().map(Vec::as_slice) {
        None | Some([]) => true,
        Some(scopes) => scopes.iter().any(|scope| scope == app_id),
    }
}

/// As it goes over the wire.
pub fn encode(json: &Value) -> Bytes {
    json.to_string().into()
}
