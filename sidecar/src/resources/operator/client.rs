//! What is asked of the operator.

use std::time::{Duration, Instant};

use outrider_crds::{Component, Configuration, Kind, decode};
use outrider_proto::operator::v1 as wire;
use outrider_proto::operator::v1::operator_client::OperatorClient;
use outrider_proto::reports::v1::FailureReport;
use outrider_proto::reports::v1::reports_client::ReportsClient;
use outrider_security::Security;
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use super::SCOPE;
use outrider_metrics as metrics;

const DIAL_LIMIT: Duration = Duration::from_secs(30);
/// Tries at the start, before the process gives up.
const TRIES: u32 = 100;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a report may take.
const REPORT_LIMIT: Duration = Duration::from_secs(5);
/// What is sent of the text of a report, in bytes: an Event has no more.
const LONGEST_REPORT: usize = 1024;

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

    /// The namespace of the sidecar.
    pub fn namespace(&self) -> String {
        self.namespace.clone()
    }

    pub fn client(&self) -> OperatorClient<Channel> {
        self.client.clone()
    }

    /// Counts the call of a method that lists things.
    pub async fn timed<M: Message>(
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
    pub async fn configuration(&self, name: &str) -> Result<Configuration, Error> {
        let request = wire::GetConfigurationRequest {
            name: name.to_owned(),
            namespace: self.namespace(),
        };
        let (sent, mut client) = (request.encoded_len(), self.client());
        let getting = client.get_configuration(request);
        let bytes = self
            .timed("GetConfiguration", sent, getting)
            .await?
            .configuration;
        if bytes.is_empty() {
            return Err(Error::NoConfiguration(name.to_owned()));
        }
        one(&bytes)
    }

    /// What this application may see. One that cannot be read is left out, so
    /// that it does not keep others from being used.
    pub fn scoped<K: Kind>(&self, all: &[bytes::Bytes]) -> Vec<K> {
        let decoded = all.iter().filter_map(|bytes| match one::<K>(bytes) {
            Ok(resource) => Some(resource),
            Err(error) => {
                tracing::error!(target: SCOPE, "{error}");
                None
            }
        });
        decoded.filter(|resource| self.sees(resource)).collect()
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

/// A resource as the operator sends it.
pub fn one<K: Kind>(bytes: &[u8]) -> Result<K, Error> {
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
