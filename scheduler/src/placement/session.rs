//! What becomes of the messages of one sidecar.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use outrider_placement_engine::StreamId;
use outrider_placement_engine::by_type::Event;
use outrider_placement_stream::{Orders, Reports, permit};
use outrider_proto::scheduler::v1::ReportActorTypesRequest;
use outrider_proto::scheduler::v1::report_actor_types_request::Msg;
use outrider_security::SpiffeId;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;

use super::{Placement, stopped, wire};

/// For the first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

pub struct Sidecar {
    placement: Placement,
    id: Option<SpiffeId>,
    /// From the first message on.
    open: Option<(StreamId, Orders)>,
    /// Until the first message has come.
    first_message: Option<Pin<Box<Sleep>>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Sidecar {
    pub fn new(placement: Placement, id: Option<SpiffeId>, stopping: &CancellationToken) -> Self {
        Self {
            placement,
            id,
            open: None,
            first_message: Some(Box::pin(tokio::time::sleep(FIRST_MESSAGE))),
            stopping: Box::pin(stopping.clone().cancelled_owned()),
        }
    }
}

impl Reports for Sidecar {
    type Message = ReportActorTypesRequest;

    fn take(&mut self, message: ReportActorTypesRequest) -> Result<(), Status> {
        match (message.msg, &self.open) {
            (Some(Msg::Report(report)), open) => {
                let host = wire::host(report)?;
                permit(&host, self.id.as_ref())?;
                match open {
                    Some((stream, _)) => self.placement.report(*stream, host)?,
                    None => {
                        self.open = Some(self.placement.open(host)?);
                        self.first_message = None;
                    }
                }
            }
            (Some(Msg::Ack(ack)), Some((stream, _))) => {
                let (stream, seq) = (*stream, ack.seq);
                if let Some(phase) = wire::phase(ack.operation()) {
                    self.placement
                        .handle(Event::Acknowledged { stream, phase, seq });
                }
            }
            (_, None) => {
                let text = "first message must be a host report";
                return Err(Status::invalid_argument(text));
            }
            (None, Some(_)) => return Err(Status::invalid_argument("received nil host report")),
        }
        Ok(())
    }

    fn orders(&mut self) -> Option<&mut Orders> {
        self.open.as_mut().map(|(_, orders)| orders)
    }

    fn close(&mut self) {
        if let Some((stream, _)) = self.open.take() {
            self.placement.close(stream);
        }
    }

    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        self.stopping.as_mut().poll(context).map(|()| stopped())
    }

    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(first_message) = &mut self.first_message else {
            return Poll::Pending;
        };
        let late = |()| Status::deadline_exceeded("no host report");
        first_message.as_mut().poll(context).map(late)
    }
}
