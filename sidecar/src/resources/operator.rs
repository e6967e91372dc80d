//! Resources of a sidecar in Kubernetes, which come from the operator.

use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use outrider_crds::configuration::Spec;
use outrider_crds::{
    Component, Configuration, HttpEndpoint, Kind, Resiliency, Subscription, decode,
};
use outrider_proto::operator::v1::operator_client::OperatorClient;
use outrider_proto::operator::v1::{self as wire, ResourceEventType as Type};
use outrider_proto::reports::v1::FailureReport;
use outrider_proto::reports::v1::reports_client::ReportsClient;
use outrider_security::Security;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status, Streaming};

use super::disk::Resources;
use super::reload::policies;
use outrider_metrics as metrics;

/// What an operator that answers takes to open a stream; others say nothing
/// before the first change. Until this has passed the resources are not listed
/// again, so what changes meanwhile is seen later.
const ANSWER: Duration = Duration::from_millis(10);
const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Tries at the start, before the process gives up.
const TRIES: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a report may take.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// What is sent of the text of a report, in bytes: an Event has no more.
const LONGEST_REPORT: usize = 1024;
const SCOPE: &str = "dapr.runtime.loader.operator";

/// Asks again while the operator cannot answer: it may start after the
/// sidecar, and what is asked for may be created after the pod.
pub async fn retry_until_answered<T>(
    what: &str,
    ask: impl AsyncFn() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match ask().await {
            Err(Error::Call(status)) => {
                tracing::error!(target: SCOPE, "failed to get {what} from the operator, trying again in {}ms: {}", pause.as_millis(), outrider_net::grpc::text(&status));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            answered => return answered,
        }
    }
    ask().await
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "--control-plane-address is missing: a sidecar in Kubernetes needs the operator's address"
    )]
    Address,
    #[error("cannot connect to the operator at {0}: {1}")]
    Connect(String, String),
    #[error("configuration {0} not found")]
    NoConfiguration(String),
    #[error("the operator sent the {kind} {name} that cannot be read: {cause}")]
    Decode {
        kind: &'static str,
        name: String,
        cause: String,
    },
    #[error("operator: {}", outrider_net::grpc::text(.0))]
    Call(#[from] Status),
}

/// The operator, for one sidecar.
#[derive(Clone)]
pub struct Operator {
    client: OperatorClient<Channel>,
    reports: ReportsClient<Channel>,
    namespace: String,
    app_id: String,
    metrics: metrics::grpc::Client,
}

impl Operator {
    /// Nothing is sent yet; a connection is made when it is needed.
    pub fn new(
        address: &str,
        security: &Security,
        namespace: &str,
        app_id: &str,
    ) -> Result<Self, Error> {
        if address.is_empty() {
            return Err(Error::Address);
        }
        let failed =
            |cause: &dyn std::fmt::Display| Error::Connect(address.to_owned(), cause.to_string());
        let connector = security
            .connector_to_service("dapr-operator")
            .map_err(|e| failed(&e))?;
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|e| failed(&e))?
            .connect_timeout(DIAL_LIMIT)
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(connector);
        Ok(Self {
            reports: ReportsClient::new(channel.clone()),
            client: OperatorClient::new(channel).max_decoding_message_size(64 << 20),
            namespace: namespace.to_owned(),
            app_id: app_id.to_owned(),
            metrics: Default::default(),
        })
    }

    /// The same, with its calls counted.
    pub fn counted(self, metrics: metrics::grpc::Client) -> Self {
        Self { metrics, ..self }
    }

    /// Counts the call of a method that lists things.
    async fn timed<M: Message>(
        &self,
        method: &str,
        sent: usize,
        call: impl Future<Output = Result<Response<M>, Status>>,
    ) -> Result<M, Error> {
        let started = Instant::now();
        let answered = call.await.map(Response::into_inner);
        let (code, received) = match &answered {
            Ok(message) => (Code::Ok, message.encoded_len()),
            Err(status) => (status.code(), 0),
        };
        let path = format!("/dapr.proto.operator.v1.Operator/{method}");
        let took = started.elapsed();
        self.metrics.called(&path, code, sent, received, took);
        Ok(answered?)
    }

    /// The Configuration of this name.
    pub async fn configuration(&self, name: &str) -> Result<Spec, Error> {
        let request = wire::GetConfigurationRequest {
            name: name.to_owned(),
            namespace: self.namespace.clone(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client.clone());
        let getting = client.get_configuration(request);
        let bytes = self
            .timed("GetConfiguration", sent, getting)
            .await?
            .configuration;
        if bytes.is_empty() {
            return Err(Error::NoConfiguration(name.to_owned()));
        }
        one::<Configuration>(&bytes).map(|configuration| configuration.spec)
    }

    /// All that this application may see.
    pub async fn resources(&self) -> Result<Resources, Error> {
        Ok(Resources {
            components: self.components().await?,
            http_endpoints: self.http_endpoints().await?,
            subscriptions: self.subscriptions().await?,
            // Policies are not worth staying down for.
            resiliencies: self.resiliencies().await.unwrap_or_else(|error| {
                tracing::error!(target: SCOPE, "Error listing resiliency policies: {error}");
                Vec::new()
            }),
        })
    }

    pub async fn components(&self) -> Result<Vec<Component>, Error> {
        let request = wire::ListComponentsRequest {
            namespace: self.namespace.clone(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client.clone());
        let listing = client.list_components(request);
        let answer = self.timed("ListComponents", sent, listing).await?;
        Ok(self.scoped(&answer.components))
    }

    pub async fn http_endpoints(&self) -> Result<Vec<HttpEndpoint>, Error> {
        let request = wire::ListHttpEndpointsRequest {
            namespace: self.namespace.clone(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client.clone());
        let listing = client.list_http_endpoints(request);
        let answer = self.timed("ListHTTPEndpoints", sent, listing).await?;
        Ok(self.scoped(&answer.http_endpoints))
    }

    pub async fn subscriptions(&self) -> Result<Vec<Subscription>, Error> {
        let request = wire::ListSubscriptionsRequest {
            namespace: self.namespace.clone(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client.clone());
        let listing = client.list_subscriptions_v2(request);
        let answer = self.timed("ListSubscriptionsV2", sent, listing).await?;
        Ok(self.scoped(&answer.subscriptions))
    }

    /// In the order of their names.
    pub async fn resiliencies(&self) -> Result<Vec<Resiliency>, Error> {
        let request = wire::ListResiliencyRequest {
            namespace: self.namespace.clone(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client.clone());
        let listing = client.list_resiliency(request);
        let answer = self.timed("ListResiliency", sent, listing).await?;
        let mut resiliencies = self.scoped(&answer.resiliencies);
        policies::in_order(&mut resiliencies);
        Ok(resiliencies)
    }

    /// What this application may see. One that cannot be read is left out, so
    /// that it does not keep others from being used.
    fn scoped<K: Kind>(&self, all: &[bytes::Bytes]) -> Vec<K> {
        let decoded = all.iter().filter_map(|bytes| match one::<K>(bytes) {
            Ok(resource) => Some(resource),
            Err(error) => {
                tracing::error!(target: SCOPE, "{error}");
                None
            }
        });
        decoded.filter(|resource| self.sees(resource)).collect()
    }

    /// Changes of components, as they come.
    pub async fn component_events(&self) -> Result<Events<wire::ComponentUpdateEvent>, Error> {
        let namespace = self.namespace.clone();
        let request = wire::ComponentUpdateRequest { namespace };
        let mut client = self.client.clone();
        Events::open(async move { client.component_update(request).await }).await
    }

    /// Changes of Subscriptions, as they come.
    pub async fn subscription_events(
        &self,
    ) -> Result<Events<wire::SubscriptionUpdateEvent>, Error> {
        let namespace = self.namespace.clone();
        let request = wire::SubscriptionUpdateRequest { namespace };
        let mut client = self.client.clone();
        Events::open(async move { client.subscription_update(request).await }).await
    }

    /// Changes of Configurations, as they come.
    pub async fn configuration_events(
        &self,
    ) -> Result<Events<wire::ConfigurationUpdateEvent>, Error> {
        let namespace = self.namespace.clone();
        let request = wire::ConfigurationUpdateRequest { namespace };
        let mut client = self.client.clone();
        Events::open(async move { client.configuration_update(request).await }).await
    }

    /// Changes of HTTPEndpoints, as they come.
    pub async fn http_endpoint_events(
        &self,
    ) -> Result<Events<wire::HttpEndpointUpdateEvent>, Error> {
        let namespace = self.namespace.clone();
        let request = wire::HttpEndpointUpdateRequest { namespace };
        let mut client = self.client.clone();
        Events::open(async move { client.http_endpoint_update(request).await }).await
    }

    /// Changes of Resiliency resources, as they come.
    pub async fn resiliency_events(&self) -> Result<Events<wire::ResiliencyUpdateEvent>, Error> {
        let namespace = self.namespace.clone();
        let request = wire::ResiliencyUpdateRequest { namespace };
        let mut client = self.client.clone();
        Events::open(async move { client.resiliency_update(request).await }).await
    }

    /// Has the operator note on a component that it cannot start here. Nothing
    /// depends on it.
    pub async fn report_failure(&self, component: String, mut text: String) {
        text.truncate(text.floor_char_boundary(LONGEST_REPORT));
        let report = FailureReport {
            namespace: self.namespace.clone(),
            kind: Component::KIND.to_owned(),
            name: component,
            reason: "InitFailed".to_owned(),
            message: text,
        };
        let mut client = self.reports.clone();
        let cause = match tokio::time::timeout(REPORT_LIMIT, client.report_failure(report)).await {
            Ok(Ok(_)) => return,
            // The operator of Dapr takes no reports.
            Ok(Err(status)) if status.code() == Code::Unimplemented => return,
            Ok(Err(status)) => outrider_net::grpc::text(&status),
            Err(_) => format!("no answer within {}s", REPORT_LIMIT.as_secs()),
        };
        tracing::debug!(target: SCOPE, "the failure of a component was not reported to the operator: {cause}");
    }

    pub fn sees(&self, resource: &impl Kind) -> bool {
        resource.in_scope(&self.app_id)
    }
}

type Opened<E> = Result<Response<Streaming<E>>, Status>;

/// A stream of changes.
pub enum Events<E> {
    /// The operator has not answered yet, as some do only with the first
    /// change.
    Opening(BoxFuture<'static, Opened<E>>),
    Open(Box<Streaming<E>>),
}

/// What happened to a resource.
pub enum Change<K> {
    Set(K),
    Deleted(K),
}

impl<K: Kind> Change<K> {
    /// Makes the change in a list, by name. What the application does not see
    /// counts as deleted.
    pub fn amend(self, all: &mut Vec<K>, sees: impl Fn(&K) -> bool) {
        let (Change::Set(changed) | Change::Deleted(changed)) = &self;
        let name = &changed.metadata().name;
        all.retain(|kept| kept.metadata().name != *name);
        if let Change::Set(resource) = self
            && sees(&resource)
        {
            all.push(resource);
        }
    }
}

/// A message of such a stream.
pub trait Event {
    type Resource: Kind;

    /// The resource as JSON, and what happened to it.
    fn parts(&self) -> (&[u8], i32);
}

impl Event for wire::ComponentUpdateEvent {
    type Resource = Component;

    fn parts(&self) -> (&[u8], i32) {
        (&self.component, self.r#type)
    }
}

impl Event for wire::SubscriptionUpdateEvent {
    type Resource = Subscription;

    fn parts(&self) -> (&[u8], i32) {
        (&self.subscription, self.r#type)
    }
}

impl Event for wire::ConfigurationUpdateEvent {
    type Resource = Configuration;

    fn parts(&self) -> (&[u8], i32) {
        (&self.configuration, self.r#type)
    }
}

impl Event for wire::HttpEndpointUpdateEvent {
    type Resource = HttpEndpoint;

    fn parts(&self) -> (&[u8], i32) {
        (&self.http_endpoints, self.r#type)
    }
}

impl Event for wire::ResiliencyUpdateEvent {
    type Resource = Resiliency;

    fn parts(&self) -> (&[u8], i32) {
        (&self.resiliency, self.r#type)
    }
}

impl<E: Event> Events<E> {
    /// Sends the call, and waits a moment for the answer.
    async fn open(call: impl Future<Output = Opened<E>> + Send + 'static) -> Result<Self, Error> {
        let mut call = call.boxed();
        Ok(match tokio::time::timeout(ANSWER, &mut call).await {
            Ok(answer) => Self::Open(Box::new(answer?.into_inner())),
            Err(_) => Self::Opening(call),
        })
    }

    /// The next change that can be read; an error if the stream has ended.
    pub async fn next(&mut self) -> Result<Change<E::Resource>, Error> {
        if let Self::Opening(call) = self {
            *self = Self::Open(Box::new(call.await?.into_inner()));
        }
        loop {
            let message = match self {
                Self::Open(stream) => stream.message().await?,
                Self::Opening(_) => None,
            };
            let ended = || Status::unavailable("the operator ended the stream");
            let event = message.ok_or_else(ended)?;
            let (bytes, kind) = event.parts();
            match one(bytes) {
                Ok(resource) if kind == Type::Deleted as i32 => {
                    return Ok(Change::Deleted(resource));
                }
                Ok(resource) => return Ok(Change::Set(resource)),
                Err(error) => tracing::error!(target: SCOPE, "{error}"),
            }
        }
    }
}

fn one<K: Kind>(bytes: &[u8]) -> Result<K, Error> {
    decode::from_slice(bytes).map_err(|cause| {
        let object: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let name = object["metadata"]["name"]
            .as_str()
            .unwrap_or("without a name");
        Error::Decode {
            kind: K::KIND,
            name: name.to_owned(),
            cause: cause.to_string(),
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_operator_that_says_nothing_at_first_holds_up_the_listing_for_a_moment_only() {
        let started = Instant::now();
        let silent = std::future::pending::<Opened<wire::ComponentUpdateEvent>>();
        let events = Events::open(silent).await;
        assert!(matches!(events, Ok(Events::Opening(_))));
        assert!(started.elapsed() <= Duration::from_millis(20));
    }
}
