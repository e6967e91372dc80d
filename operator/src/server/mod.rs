//! The gRPC API for sidecars. Lists and streams have the objects of the caller's namespace and scope.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use outrider_k8s::watch::Object;
use outrider_proto::operator::v1::operator_server::Operator;
use outrider_proto::operator::v1::{
    ComponentUpdateEvent, ComponentUpdateRequest, ConfigurationUpdateEvent,
    ConfigurationUpdateRequest, GetConfigurationRequest, GetConfigurationResponse,
    GetResiliencyRequest, GetResiliencyResponse, HttpEndpointUpdateEvent,
    HttpEndpointUpdateRequest, ListComponentResponse, ListComponentsRequest,
    ListHttpEndpointsRequest, ListHttpEndpointsResponse, ListMcpServersRequest,
    ListMcpServersResponse, ListResiliencyRequest, ListResiliencyResponse,
    ListSubscriptionsRequest, ListSubscriptionsResponse, ListWorkflowAccessPolicyRequest,
    ListWorkflowAccessPolicyResponse, McpServerUpdateEvent, McpServerUpdateRequest,
    ResiliencyUpdateEvent, ResiliencyUpdateRequest, ResourceEventType as Type,
    SubscriptionUpdateEvent, SubscriptionUpdateRequest, WorkflowAccessPolicyUpdateEvent,
    WorkflowAccessPolicyUpdateRequest,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status};

use crate::authorise::{self, Caller};
use crate::resources::{self, Resource, Resources, encode};
use crate::secrets::{Reader, Secrets};
use crate::stream::Updates;

/// What has to be filled in before an object is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    Nothing,
    Component,
    Configuration,
    HttpEndpoint,
    McpServer,
}

impl Finish {
    pub async fn apply(self, secrets: Reader<'_>, json: &mut Value) -> Result<(), Status> {
        let resolved = match self {
            Self::Nothing => Ok(()),
            Self::Component => secrets.resolve_component(json).await,
            Self::HttpEndpoint => secrets.resolve_http_endpoint(json).await,
            Self::McpServer => secrets.resolve_mcp_server(json).await,
            Self::Configuration => {
                return secrets
                    .resolve_configuration(json)
                    .await
                    .map_err(|error| Status::unknown(error.to_string()));
            }
        };
        // This is temporary, so the sidecar should try again.
        resolved.map_err(|error| Status::unavailable(format!("error reading secrets: {error}")))
    }
}

pub struct Server {
    pub secrets: Arc<Secrets>,
    pub resources: Resources,
    pub stopping: CancellationToken,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    /// Secrets for the present version of a resource.
    fn reader<'a>(&'a self, namespace: &'a str, resource: &Resource) -> Reader<'a> {
        self.secrets.reader(namespace, resource.store.last_change())
    }

    async fn list(
        &self,
        extensions: &Extensions,
        namespace: &str,
        resource: &Resource,
        finish: Finish,
    ) -> Result<Vec<Bytes>, Status> {
        let caller = authorise::caller(extensions, namespace)?;
        let secrets = self.reader(namespace, resource);
        let mut answer = Vec::new();
        for object in resource.store.list(Some(namespace)) {
            if !resources::in_scope(&object, &caller.app_id) {
                continue;
            }
            let mut json = resource.typed(&object);
            finish.apply(secrets, &mut json).await?;
            answer.push(encode(&json));
        }
        Ok(answer)
    }

    /// For kinds that every installation has.
    fn installed(&self, resource: &Resource, what: &str) -> Result<(), Status> {
        match resource.is_installed() {
            true => Ok(()),
            false => Err(Status::unknown(format!(
                "{what}: no matches for kind {:?}",
                resource.kind
            ))),
        }
    }

    async fn one(
        &self,
        extensions: &Extensions,
        (namespace, name): (&str, &str),
        resource: &Resource,
        finish: Finish,
        missing: impl FnOnce() -> String,
    ) -> Result<Bytes, Status> {
        authorise::caller(extensions, namespace)?;
        let Some(object) = resource.store.get(namespace, name) else {
            return Err(Status::unknown(format!(
                "{}: {}.dapr.io {name:?} not found",
                missing(),
                resource.kind
            )));
        };
        let mut json = resource.typed(&object);
        let secrets = self.reader(namespace, resource);
        finish.apply(secrets, &mut json).await?;
        Ok(encode(&json))
    }

    fn updates<T>(
        &self,
        caller: Caller,
        resource: &Resource,
        finish: Finish,
        wanted: impl Fn(&Object) -> bool + Send + 'static,
        event: impl Fn(Bytes, i32) -> T + Send + 'static,
    ) -> Result<Response<Events<T>>, Status> {
        if self.stopping.is_cancelled() {
            return Err(Status::unavailable("operator is shutting down"));
        }
        let (recent, changes) = resource.store.subscribe_recent();
        let updates = Updates {
            secrets: self.secrets.clone(),
            store: resource.store.clone(),
            caller,
            recent: recent.into(),
            changes,
            stopping: self.stopping.clone(),
            finish,
            wanted: Box::new(wanted),
        };
        let events = updates
            .events()
            .map(move |update| update.map(|(json, kind): (Bytes, Type)| event(json, kind.into())));
        Ok(Response::new(Box::pin(events)))
    }
}

fn every(_: &Object) -> bool {
    true
}

#[tonic::async_trait]
impl Operator for Server {
    async fn list_components(
        &self,
        request: Request<ListComponentsRequest>,
    ) -> Result<Response<ListComponentResponse>, Status> {
        let resource = &self.resources.components;
        let namespace = &request.get_ref().namespace;
        let components = self
            .list(request.extensions(), namespace, resource, Finish::Component)
            .await?;
        self.installed(resource, "error getting components")?;
        Ok(Response::new(ListComponentResponse { components }))
    }

    async fn component_update(
        &self,
        request: Request<ComponentUpdateRequest>,
    ) -> Result<Response<Events<ComponentUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        self.updates(
            caller,
            &self.resources.components,
            Finish::Component,
            every,
            |component, r#type| ComponentUpdateEvent { component, r#type },
        )
    }

    async fn get_configuration(
        &self,
        request: Request<GetConfigurationRequest>,
    ) -> Result<Response<GetConfigurationResponse>, Status> {
        let GetConfigurationRequest { name, namespace } = request.get_ref();
        let resource = &self.resources.configurations;
        let missing = || format!("error getting configuration {namespace}/{name}");
        let key = (namespace.as_str(), name.as_str());
        let configuration = self
            .one(
                request.extensions(),
                key,
                resource,
                Finish::Configuration,
                missing,
            )
            .await?;
        Ok(Response::new(GetConfigurationResponse { configuration }))
    }

    async fn configuration_update(
        &self,
        request: Request<ConfigurationUpdateRequest>,
    ) -> Result<Response<Events<ConfigurationUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace).map_err(|status| {
            let text = status.message();
            Status::permission_denied(format!(
                "failed to authorize configuration update request: rpc error: code = PermissionDenied desc = {text}"
            ))
        })?;
        let (pods, namespace, app_id) = (
            self.resources.pods.clone(),
            caller.namespace.clone(),
            caller.app_id.clone(),
        );
        let assigned = move |object: &Object| {
            resources::configurations(&pods, &namespace, &app_id, &object.name)
        };
        let resource = &self.resources.configurations;
        self.updates(
            caller,
            resource,
            Finish::Configuration,
            assigned,
            |configuration, r#type| ConfigurationUpdateEvent {
                configuration,
                r#type,
            },
        )
    }

    /// The request has no namespace, so it is always refused.
    async fn list_subscriptions(
        &self,
        request: Request<()>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        authorise::caller(request.extensions(), "")
            .map(|_| Response::new(ListSubscriptionsResponse::default()))
    }

    async fn list_subscriptions_v2(
        &self,
        request: Request<ListSubscriptionsRequest>,
    ) -> Result<Response<ListSubscriptionsResponse>, Status> {
        let resource = &self.resources.subscriptions;
        let namespace = &request.get_ref().namespace;
        let subscriptions = self
            .list(request.extensions(), namespace, resource, Finish::Nothing)
            .await?;
        self.installed(resource, "error getting subscriptions")?;
        Ok(Response::new(ListSubscriptionsResponse { subscriptions }))
    }

    async fn subscription_update(
        &self,
        request: Request<SubscriptionUpdateRequest>,
    ) -> Result<Response<Events<SubscriptionUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        self.updates(
            caller,
            &self.resources.subscriptions,
            Finish::Nothing,
            every,
            |subscription, r#type| SubscriptionUpdateEvent {
                subscription,
                r#type,
            },
        )
    }

    async fn get_resiliency(
        &self,
        request: Request<GetResiliencyRequest>,
    ) -> Result<Response<GetResiliencyResponse>, Status> {
        let GetResiliencyRequest { name, namespace } = request.get_ref();
        let resource = &self.resources.resiliencies;
        let missing = || "error getting resiliency".to_owned();
        let key = (namespace.as_str(), name.as_str());
        let resiliency = self
            .one(
                request.extensions(),
                key,
                resource,
                Finish::Nothing,
                missing,
            )
            .await?;
        Ok(Response::new(GetResiliencyResponse { resiliency }))
    }

    async fn list_resiliency(
        &self,
        request: Request<ListResiliencyRequest>,
    ) -> Result<Response<ListResiliencyResponse>, Status> {
        let resource = &self.resources.resiliencies;
        let namespace = &request.get_ref().namespace;
        let resiliencies = self
            .list(request.extensions(), namespace, resource, Finish::Nothing)
            .await?;
        self.installed(resource, "error listing resiliencies")?;
        Ok(Response::new(ListResiliencyResponse { resiliencies }))
    }

    async fn resiliency_update(
        &self,
        request: Request<ResiliencyUpdateRequest>,
    ) -> Result<Response<Events<ResiliencyUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        self.updates(
            caller,
            &self.resources.resiliencies,
            Finish::Nothing,
            every,
            |resiliency, r#type| ResiliencyUpdateEvent { resiliency, r#type },
        )
    }

    async fn list_http_endpoints(
        &self,
        request: Request<ListHttpEndpointsRequest>,
    ) -> Result<Response<ListHttpEndpointsResponse>, Status> {
        let resource = &self.resources.http_endpoints;
        let namespace = &request.get_ref().namespace;
        let http_endpoints = self
            .list(
                request.extensions(),
                namespace,
                resource,
                Finish::HttpEndpoint,
            )
            .await?;
        self.installed(resource, "error listing http endpoints")?;
        Ok(Response::new(ListHttpEndpointsResponse { http_endpoints }))
    }

    async fn http_endpoint_update(
        &self,
        request: Request<HttpEndpointUpdateRequest>,
    ) -> Result<Response<Events<HttpEndpointUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        self.updates(
            caller,
            &self.resources.http_endpoints,
            Finish::HttpEndpoint,
            every,
            |http_endpoints, r#type| HttpEndpointUpdateEvent {
                http_endpoints,
                r#type,
            },
        )
    }

    async fn list_mcp_servers(
        &self,
        request: Request<ListMcpServersRequest>,
    ) -> Result<Response<ListMcpServersResponse>, Status> {
        let namespace = &request.get_ref().namespace;
        let resource = &self.resources.mcp_servers;
        let mcp_servers = self
            .list(request.extensions(), namespace, resource, Finish::McpServer)
            .await?;
        Ok(Response::new(ListMcpServersResponse { mcp_servers }))
    }

    async fn mcp_server_update(
        &self,
        request: Request<McpServerUpdateRequest>,
    ) -> Result<Response<Events<McpServerUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        self.updates(
            caller,
            &self.resources.mcp_servers,
            Finish::McpServer,
            every,
            |mcp_server, r#type| McpServerUpdateEvent { mcp_server, r#type },
        )
    }

    async fn list_workflow_access_policy(
        &self,
        request: Request<ListWorkflowAccessPolicyRequest>,
    ) -> Result<Response<ListWorkflowAccessPolicyResponse>, Status> {
        let namespace = &request.get_ref().namespace;
        let resource = &self.resources.workflow_access_policies;
        let policies = self
            .list(request.extensions(), namespace, resource, Finish::Nothing)
            .await?;
        Ok(Response::new(ListWorkflowAccessPolicyResponse { policies }))
    }

    async fn workflow_access_policy_update(
        &self,
        request: Request<WorkflowAccessPolicyUpdateRequest>,
    ) -> Result<Response<Events<WorkflowAccessPolicyUpdateEvent>>, Status> {
        let caller = authorise::caller(request.extensions(), &request.get_ref().namespace)?;
        let resource = &self.resources.workflow_access_policies;
        self.updates(
            caller,
            resource,
            Finish::Nothing,
            every,
            |policy, r#type| WorkflowAccessPolicyUpdateEvent { policy, r#type },
        )
    }
}
