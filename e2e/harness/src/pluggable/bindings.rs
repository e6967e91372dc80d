//! The program's binding, both ways.

use std::sync::PoisonError;

use anyhow::Result;
use bytes::Bytes;
use outrider_proto::components::v1 as wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Streaming};
use wire::input_binding_server::InputBinding;
use wire::output_binding_server::OutputBinding;

use super::{Answer, Memory, done};

/// What its output binding can do.
const OPERATIONS: [&str; 2] = ["create", "echo"];

impl Memory {
    /// Streams that read events.
    pub fn readers(&self) -> usize {
        let inner = self.inner();
        inner.readers.iter().filter(|r| !r.is_closed()).count()
    }

    /// Sends an event to all that read.
    pub async fn emit(&self, id: &str, data: &'static str) -> Result<()> {
        let readers = self.inner().readers.clone();
        for reader in readers.iter().filter(|reader| !reader.is_closed()) {
            let event = wire::ReadResponse {
                data: Bytes::from(data),
                metadata: [("kind".to_owned(), "test".to_owned())].into(),
                content_type: "text/plain".to_owned(),
                message_id: id.to_owned(),
            };
            reader.send(Ok(event)).await?;
        }
        Ok(())
    }

    /// What the sidecar said about events.
    pub fn verdicts(&self) -> Vec<wire::ReadRequest> {
        let verdicts = self.inner().verdicts.clone();
        let verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.clone()
    }
}

#[tonic::async_trait]
impl InputBinding for Memory {
    async fn init(
        &self,
        request: Request<wire::InputBindingInitRequest>,
    ) -> Answer<wire::InputBindingInitResponse> {
        self.called("InputInit", request.metadata())?;
        self.init(request.into_inner().metadata);
        done()
    }

    async fn read(
        &self,
        request: Request<Streaming<wire::ReadRequest>>,
    ) -> Answer<BoxStream<wire::ReadResponse>> {
        self.called("Read", request.metadata())?;
        let mut requests = request.into_inner();
        let (sender, mut events) = mpsc::channel(16);
        let (relay, relayed) = mpsc::channel(16);
        let mut inner = self.inner();
        inner.readers.push(sender);
        let verdicts = inner.verdicts.clone();
        // The stream ends when the sidecar says no more.
        inner.streams.spawn(async move {
            loop {
                tokio::select! {
                    event = events.recv() => match event {
                        Some(event) => if relay.send(event).await.is_err() { return },
                        None => return,
                    },
                    verdict = requests.message() => match verdict {
                        Ok(Some(verdict)) => verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(verdict),
                        _ => return,
                    },
                }
            }
        });
        drop(inner);
        Ok(Response::new(Box::pin(ReceiverStream::new(relayed))))
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        done()
    }
}

#[tonic::async_trait]
impl OutputBinding for Memory {
    async fn init(
        &self,
        request: Request<wire::OutputBindingInitRequest>,
    ) -> Answer<wire::OutputBindingInitResponse> {
        self.called("OutputInit", request.metadata())?;
        self.init(request.into_inner().metadata);
        done()
    }

    async fn list_operations(
        &self,
        request: Request<wire::ListOperationsRequest>,
    ) -> Answer<wire::ListOperationsResponse> {
        self.called("ListOperations", request.metadata())?;
        let operations = OPERATIONS.map(str::to_owned).into();
        Ok(Response::new(wire::ListOperationsResponse { operations }))
    }

    /// Answers with what it was asked.
    async fn invoke(&self, request: Request<wire::InvokeRequest>) -> Answer<wire::InvokeResponse> {
        self.called("Invoke", request.metadata())?;
        let request = request.into_inner();
        let mut metadata = request.metadata;
        metadata.insert("operation".to_owned(), request.operation);
        Ok(Response::new(wire::InvokeResponse {
            data: request.data,
            metadata,
            content_type: "text/plain".to_owned(),
        }))
    }

    async fn ping(&self, _: Request<wire::PingRequest>) -> Answer<wire::PingResponse> {
        done()
    }
}
