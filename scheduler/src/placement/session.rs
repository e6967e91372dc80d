//! One sidecar's stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use outrider_placement_engine::by_type::Event;
use outrider_placement_engine::{Caller, Refused, StreamId, authorize};
use outrider_proto::scheduler::v1::ReportActorTypesRequest;
use outrider_proto::scheduler::v1::report_actor_types_request::Msg;
use outrider_security::SpiffeId;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use super::lead::Orders;
use super::{Placement, stopped, wire};

/// Messages that are taken in a row before orders get their turn.
const BATCH: usize = 32;
/// For the first message.
const FIRST_MESSAGE: Duration = Duration::from_secs(30);

/// What the sidecar sends is read whenever its orders are asked for: it needs
/// no task of its own, and is gone when the stream is.
pub struct Session {
    placement: Placement,
    messages: Streaming<ReportActorTypesRequest>,
    id: Option<SpiffeId>,
    /// From the first message on.
    open: Option<(StreamId, Orders)>,
    /// Until the first message has come.
    patience: Option<Pin<Box<Sleep>>>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
    has_ended: bool,
}

impl Session {
    pub fn new(
        placement: Placement,
        messages: Streaming<ReportActorTypesRequest>,
        id: Option<SpiffeId>,
        stopping: &CancellationToken,
    ) -> Self {
        Self {
            placement,
            messages,
            id,
            open: None,
            patience: Some(Box::pin(tokio::time::sleep(FIRST_MESSAGE))),
            stopping: Box::pin(stopping.clone().cancelled_owned()),
            has_ended: false,
        }
    }

    /// Takes messages until none is there. An error ends the stream.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if self.stopping.as_mut().poll(context).is_ready() {
            return Err(stopped());
        }
        for _ in 0..BATCH {
            match Pin::new(&mut self.messages).poll_next(context) {
                Poll::Pending => return self.wait(context),
                Poll::Ready(Some(message)) => self.take(message?)?,
                Poll::Ready(None) => return Err(Status::unknown("EOF")),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn wait(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Err(Status::deadline_exceeded("no host report"));
        }
        Ok(())
    }

    fn take(&mut self, message: ReportActorTypesRequest) -> Result<(), Status> {
        match (message.msg, &self.open) {
            (Some(Msg::Report(report)), open) => {
                let host = wire::host(report)?;
                authorize(&host, caller(self.id.as_ref())).map_err(refused)?;
                match open {
                    Some((stream, _)) => self.placement.report(*stream, host)?,
                    None => {
                        self.open = Some(self.placement.open(host)?);
                        self.patience = None;
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

    fn close(&mut self) {
        self.has_ended = true;
        if let Some((stream, _)) = self.open.take() {
            self.placement.close(stream);
        }
    }
}

/// App id and namespace that a certificate proves.
pub fn caller(id: Option<&SpiffeId>) -> Option<Caller<'_>> {
    let workload = id?.as_workload()?;
    Some(Caller {
        app_id: workload.app_id,
        namespace: workload.namespace,
    })
}

fn refused(refused: Refused) -> Status {
    match refused {
        Refused::Invalid(text) => Status::invalid_argument(text),
        Refused::Denied(text) => Status::permission_denied(text),
    }
}

impl Stream for Session {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Err(status) = self.read(context) {
            self.close();
            return Poll::Ready(Some(Err(status)));
        }
        let Some((_, orders)) = &mut self.open else {
            return Poll::Pending;
        };
        let order = ready!(orders.poll_recv(context)).unwrap_or_else(|| {
            let text = "the sidecar has not taken its orders: it has to connect again";
            Err(Status::resource_exhausted(text))
        });
        if order.is_err() {
            self.close();
        }
        Poll::Ready(Some(order))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.close();
    }
}
