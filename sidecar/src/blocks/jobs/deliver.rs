//! A job that is due, to the application.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use http::HeaderMap;
use outrider_call::channel::{Channel, Kind, grpc as app};
use outrider_metrics::job::Jobs;
use outrider_net::grpc;
use outrider_proto::Any;
use outrider_proto::common::v1::HttpExtension;
use outrider_proto::common::v1::http_extension::Verb;
use outrider_proto::runtime::v1 as wire;
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_scheduler_client::{Deliver, Outcome, Trigger};
use tonic::{Code, Status};

use super::{SCOPE, value};
use crate::blocks::pubsub::subscribe::deliver::{post, send};

const EVENT: &str = "/dapr.proto.runtime.v1.AppCallback/OnJobEvent";
/// For applications from before jobs were stable.
const ALPHA: &str = "/dapr.proto.runtime.v1.AppCallbackAlpha/OnJobEventAlpha1";

/// Delivers jobs to the application.
pub struct ToApplication {
    pub channel: Arc<Channel>,
    pub metrics: Jobs,
}

/// Why the application has not done a job.
#[derive(Debug)]
enum Failed {
    /// It does not know the job, and is not asked again.
    Unknown,
    Other(String),
}

#[async_trait]
impl Deliver for ToApplication {
    async fn deliver(&self, trigger: Trigger) -> Outcome {
        let target = trigger.metadata.target.as_ref();
        if !matches!(
            target.and_then(|target| target.r#type.as_ref()),
            Some(Type::Job(_))
        ) {
            tracing::error!(target: SCOPE, "the scheduler triggers {} for a target that this sidecar does not serve", trigger.name);
            return Outcome::Failed;
        }
        let started = Instant::now();
        let name = trigger.name.clone();
        let delivered = match &self.channel.kind {
            Kind::Http(_) => self.over_http(trigger).await,
            Kind::Grpc(client) if self.channel.healthy.is_healthy() => {
                self.over_grpc(client, trigger).await
            }
            Kind::Grpc(_) => Err(Failed::Other("app is not in a healthy state".to_owned())),
        };
        self.metrics.delivered(delivered.is_ok(), started.elapsed());
        match delivered {
            Ok(()) => Outcome::Success,
            Err(Failed::Unknown) => {
                tracing::error!(target: SCOPE, "the application does not know job {name}: it is not delivered again");
                Outcome::Success
            }
            Err(Failed::Other(cause)) => {
                tracing::error!(target: SCOPE, "job {name} has failed: {cause}");
                Outcome::Failed
            }
        }
    }
}

impl ToApplication {
    async fn over_http(&self, trigger: Trigger) -> Result<(), Failed> {
        let body = trigger.data.as_ref().map(value::body).unwrap_or_default();
        let path = format!("job/{}", trigger.name);
        let mut request = post(&path, Default::default(), "application/json", body.into());
        // A question mark in the name is part of it.
        request.method = path;
        request.query = String::new();
        let (status, body) = send(&self.channel, request).await.map_err(Failed::Other)?;
        match status {
            200..300 => Ok(()),
            404 => Err(Failed::Unknown),
            status => {
                let body = String::from_utf8_lossy(&body);
                let body: String = body.chars().take(1024).collect();
                Err(Failed::Other(format!("status {status}: {body}")))
            }
        }
    }

    async fn over_grpc(&self, client: &app::Client, trigger: Trigger) -> Result<(), Failed> {
        let data = trigger.data.filter(|data| *data != Any::default());
        let content_type = data.as_ref().map(|data| data.type_url.clone());
        let request = wire::JobEventRequest {
            method: format!("job/{}", trigger.name),
            name: trigger.name,
            content_type: content_type.unwrap_or_default(),
            data,
            http_extension: Some(HttpExtension {
                verb: Verb::Post.into(),
                ..Default::default()
            }),
        };
        let answered = match self.ask(client, EVENT, &request).await {
            Err(status) if status.code() == Code::Unimplemented => {
                self.ask(client, ALPHA, &request).await
            }
            answered => answered,
        };
        match answered {
            Ok(()) => Ok(()),
            Err(status) if status.code() == Code::NotFound => Err(Failed::Unknown),
            Err(status) => Err(Failed::Other(grpc::text(&status))),
        }
    }

    async fn ask(
        &self,
        client: &app::Client,
        path: &'static str,
        request: &wire::JobEventRequest,
    ) -> Result<(), Status> {
        let permit = self.channel.permit().await;
        let answered = client.unary(permit, path, request, HeaderMap::new());
        let (wire::JobEventResponse {}, _, _) = answered.await?;
        Ok(())
    }
}
