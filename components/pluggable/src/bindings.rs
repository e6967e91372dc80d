//! Bindings that other programs serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use outrider_components::bindings::{
    Answer, Binding, Directions, Event, Failure, Handler, Input, Output, Request, Subscription,
};
use outrider_components::{Error, Metadata};
use outrider_proto::components::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use wire::input_binding_client::InputBindingClient;
use wire::output_binding_client::OutputBindingClient;

use crate::connection::{self, Connection};
use crate::error::{self, check, from_status};

const SCOPE: &str = "dapr.contrib";
/// Pauses before a stream that has failed is opened again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a component may take to read the last verdicts.
const LAST_ACK_TIMEOUT: Duration = Duration::from_secs(1);
/// Events that wait for the application at a time.
const MOST_IN_FLIGHT: usize = 1000;
/// Verdicts that wait for the component.
const VERDICTS: usize = 16;

/// Which services of bindings a program has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Services {
    pub input: bool,
    pub output: bool,
}

/// Connects the sides that the program serves and the metadata want.
pub async fn connect(
    socket: Arc<Path>,
    services: Services,
    metadata: Metadata,
) -> Result<Arc<Binding>, Error> {
    let directions = Directions::of(&metadata);
    let mut binding = Binding::default();
    if services.input && directions.input {
        binding.input = Some(Arc::new(RemoteInput::connect(&socket, &metadata).await?));
    }
    if services.output && directions.output {
        binding.output = Some(Arc::new(RemoteOutput::connect(&socket, &metadata).await?));
    }
    Ok(Arc::new(binding))
}

struct RemoteOutput {
    client: OutputBindingClient<Connection>,
    operations: Vec<String>,
}

impl RemoteOutput {
    async fn connect(socket: &Path, metadata: &Metadata) -> Result<RemoteOutput, Error> {
        let connection = connection::open(socket, metadata.component()).await?;
        let mut client = OutputBindingClient::new(connection).max_decoding_message_size(usize::MAX);
        let metadata = Some(connection::properties(metadata));
        let init = wire::OutputBindingInitRequest { metadata };
        check(client.init(init).await)?;
        let listed = client.list_operations(wire::ListOperationsRequest {}).await;
        let operations = listed.map_err(from_status)?.into_inner().operations;
        Ok(RemoteOutput { client, operations })
    }
}

#[async_trait]
impl Output for RemoteOutput {
    fn operations(&self) -> Vec<&str> {
        self.operations.iter().map(String::as_str).collect()
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        let request = wire::InvokeRequest {
            data: request.data.clone(),
            metadata: request.metadata.clone(),
            operation: request.operation.clone(),
        };
        let answer = self.client.clone().invoke(request).await;
        let answer = answer.map_err(from_status)?.into_inner();
        Ok(Some(Answer {
            data: answer.data,
            metadata: answer.metadata,
            content_type: Some(answer.content_type).filter(|text| !text.is_empty()),
        }))
    }

    async fn ping(&self) -> Result<(), Error> {
        check(self.client.clone().ping(wire::PingRequest {}).await)
    }
}

struct RemoteInput {
    client: InputBindingClient<Connection>,
    name: String,
    closing: CancellationToken,
}

impl RemoteInput {
    async fn connect(socket: &Path, metadata: &Metadata) -> Result<RemoteInput, Error> {
        let name = metadata.component().to_owned();
        let connection = connection::open(socket, &name).await?;
        let mut client = InputBindingClient::new(connection).max_decoding_message_size(usize::MAX);
        let metadata = Some(connection::properties(metadata));
        let init = wire::InputBindingInitRequest { metadata };
        check(client.init(init).await)?;
        Ok(RemoteInput {
            client,
            name,
            closing: CancellationToken::new(),
        })
    }
}

#[async_trait]
impl Input for RemoteInput {
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error> {
        let mut subscription = Subscription::new(&self.closing);
        let reading = Reading {
            client: self.client.clone(),
            name: self.name.clone(),
            handler,
            stopping: subscription.stopping(),
        };
        subscription.spawn(reading.run());
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        check(self.client.clone().ping(wire::PingRequest {}).await)
    }

    async fn close(&self) -> Result<(), Error> {
        self.closing.cancel();
        Ok(())
    }
}

/// Events come side by side, and each gets its verdict when the application
/// has answered.
struct Reading {
    client: InputBindingClient<Connection>,
    name: String,
    handler: Arc<dyn Handler>,
    stopping: CancellationToken,
}

impl Reading {
    async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        while let Err(cause) = self.stream(&mut pause).await {
            let (name, millis) = (&self.name, pause.as_millis());
            tracing::error!(target: SCOPE, "failed to receive binding message: {}; reading from {name} again in {millis}ms", error::text(&cause));
            tokio::select! {
                () = self.stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Handles events until reading stops; fails if the stream does.
    async fn stream(&mut self, pause: &mut Duration) -> Result<(), Status> {
        let stopping = self.stopping.clone();
        let (verdicts, outgoing) = mpsc::channel(VERDICTS);
        let ended = || Status::new(Code::Unavailable, "the component ended the stream");
        let opening = self.client.read(ReceiverStream::new(outgoing));
        let mut events = tokio::select! {
            biased;
            () = stopping.cancelled() => return Ok(()),
            opened = opening => opened?.into_inner(),
        };
        let mut in_flight = FuturesUnordered::new();
        loop {
            let has_room = in_flight.len() < MOST_IN_FLIGHT;
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(verdict) = in_flight.next() => {
                    verdicts.send(verdict).await.map_err(|_| ended())?;
                }
                event = events.message(), if has_room => {
                    let event = event?.ok_or_else(ended)?;
                    *pause = FIRST_PAUSE;
                    in_flight.push(self.handle(event));
                }
            }
        }
        // The handler takes no events any more: these are the last verdicts.
        while let Some(verdict) = in_flight.next().await {
            verdicts.send(verdict).await.map_err(|_| ended())?;
        }
        drop(verdicts);
        let rest = async { while let Ok(Some(_)) = events.message().await {} };
        let _ = tokio::time::timeout(LAST_ACK_TIMEOUT, rest).await;
        Ok(())
    }

    async fn handle(&self, event: wire::ReadResponse) -> wire::ReadRequest {
        let (message_id, content_type) = (event.message_id, event.content_type);
        let handled = self.handler.handle(Event {
            data: event.data,
            metadata: event.metadata,
            content_type: Some(content_type).filter(|text| !text.is_empty()),
        });
        let (response_data, response_error) = match handled.await {
            Ok(data) => (data, None),
            Err(cause) => {
                let name = &self.name;
                tracing::error!(target: SCOPE, "error when handling message of binding {name}: {message_id}: {cause}");
                let message = cause.to_string();
                (Default::default(), Some(wire::AckResponseError { message }))
            }
        };
        wire::ReadRequest {
            response_data,
            message_id,
            response_error,
        }
    }
}
