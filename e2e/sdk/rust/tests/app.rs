use anyhow::Result;
use dapr::appcallback::{
    AppCallbackService, BindingEventRequest, BindingEventResponse, Handler, HandlerMethod,
    InvokeRequest, InvokeResponse, JobEventRequest, JobEventResponse, ListInputBindingsResponse,
    ListTopicSubscriptionsResponse, TopicEventBulkRequest, TopicEventBulkResponse,
    TopicEventRequest, TopicEventResponse,
};
use dapr::dapr::proto::runtime::v1::app_callback_server::{AppCallback, AppCallbackServer};
use dapr::dapr::proto::runtime::v1::topic_event_response::TopicEventResponseStatus;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::{Request, Response, Status, async_trait};

use crate::sidecar::{BROKER, Client, Setup, Sidecar, free_port};

/// The name of an input binding that applications know.
pub const TICK: &str = "tick";

/// An application behind the SDK's server, with its sidecar.
pub struct App {
    pub sidecar: Sidecar,
    pub client: Client,
    pub events: mpsc::UnboundedReceiver<TopicEventRequest>,
    /// Names of bindings and jobs that came, and their data.
    pub calls: mpsc::UnboundedReceiver<(String, Vec<u8>)>,
    server: JoinHandle<()>,
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl App {
    pub async fn start() -> Result<App> {
        App::with(Setup::default()).await
    }

    /// One whose sidecar has components and flags of its own.
    pub async fn with(mut setup: Setup) -> Result<App> {
        let (called, calls) = mpsc::unbounded_channel();
        let (sender, events) = mpsc::unbounded_channel();
        let mut topics = AppCallbackService::new();
        topics.add_handler(Handler {
            pub_sub_name: BROKER.to_owned(),
            topic: "orders".to_owned(),
            handler: Box::new(Keep(sender)),
        });
        let port = free_port();
        let service =
            Server::builder().add_service(AppCallbackServer::new(Service { topics, called }));
        let address = format!("127.0.0.1:{port}").parse()?;
        let server = tokio::spawn(async move {
            if let Err(error) = service.serve(address).await {
                eprintln!("the application: {error}");
            }
        });
        setup.flags.extend([
            format!("--app-port={port}"),
            "--app-protocol=grpc".to_owned(),
        ]);
        let (sidecar, client) = setup.ready().await?;
        Ok(App {
            sidecar,
            client,
            events,
            calls,
            server,
        })
    }
}

struct Keep(mpsc::UnboundedSender<TopicEventRequest>);

#[async_trait]
impl HandlerMethod for Keep {
    async fn handler(
        &self,
        request: TopicEventRequest,
    ) -> Result<Response<TopicEventResponse>, Status> {
        let _ = self.0.send(request);
        Ok(Response::new(TopicEventResponse {
            status: TopicEventResponseStatus::Success as i32,
        }))
    }
}

/// Topics are the SDK's; its own answer to a call panics.
struct Service {
    topics: AppCallbackService,
    called: mpsc::UnboundedSender<(String, Vec<u8>)>,
}

#[async_trait]
impl AppCallback for Service {
    async fn on_invoke(
        &self,
        request: Request<InvokeRequest>,
    ) -> Result<Response<InvokeResponse>, Status> {
        let request = request.into_inner();
        match request.method.as_str() {
            "echo" => Ok(Response::new(InvokeResponse {
                content_type: request.content_type,
                data: request.data,
            })),
            "fails" => Err(Status::aborted("it went wrong")),
            other => Err(Status::not_found(format!("no method {other}"))),
        }
    }

    async fn list_topic_subscriptions(
        &self,
        request: Request<()>,
    ) -> Result<Response<ListTopicSubscriptionsResponse>, Status> {
        self.topics.list_topic_subscriptions(request).await
    }

    async fn on_topic_event(
        &self,
        request: Request<TopicEventRequest>,
    ) -> Result<Response<TopicEventResponse>, Status> {
        self.topics.on_topic_event(request).await
    }

    async fn list_input_bindings(
        &self,
        _: Request<()>,
    ) -> Result<Response<ListInputBindingsResponse>, Status> {
        Ok(Response::new(ListInputBindingsResponse {
            bindings: vec![TICK.to_owned()],
        }))
    }

    async fn on_binding_event(
        &self,
        request: Request<BindingEventRequest>,
    ) -> Result<Response<BindingEventResponse>, Status> {
        let event = request.into_inner();
        let _ = self.called.send((event.name, event.data));
        Ok(Response::new(BindingEventResponse::default()))
    }

    async fn on_bulk_topic_event(
        &self,
        _: Request<TopicEventBulkRequest>,
    ) -> Result<Response<TopicEventBulkResponse>, Status> {
        Err(Status::unimplemented("no bulk"))
    }

    async fn on_job_event(
        &self,
        request: Request<JobEventRequest>,
    ) -> Result<Response<JobEventResponse>, Status> {
        let event = request.into_inner();
        let fails = event.name == "fails";
        let data = event.data.map(|data| data.value).unwrap_or_default();
        let _ = self.called.send((event.name, data));
        if fails {
            return Err(Status::internal("never"));
        }
        Ok(Response::new(JobEventResponse::default()))
    }
}
