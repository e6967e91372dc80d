//! One sidecar's stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use outrider_placement_engine::{Event, Refused, StreamId, authorize};
use outrider_proto::placement::v1::{Host, HostOperation};
use outrider_security::SpiffeId;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::lead::{Lead, Orders};
use super::{caller, wire};

/// Messages that are taken in a row before orders get their turn.
const BATCH: usize = 32;

/// What the sidecar sends is read whenever its orders are asked for: it needs
/// no task of its own, and is gone when the stream is.
pub struct Session {
    lead: Lead,
    messages: Streaming<Host>,
    id: Option<SpiffeId>,
    /// From the first message on.
    open: Option<(StreamId, Orders)>,
    ended: bool,
}

impl Session {
    pub fn new(lead: Lead, messages: Streaming<Host>, id: Option<SpiffeId>) -> Self {
        Self {
            lead,
            messages,
            id,
            open: None,
            ended: false,
        }
    }

    /// Takes messages until none is there. An error ends the stream.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..BATCH {
            match Pin::new(&mut self.messages).poll_next(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(message)) => self.take(&message?)?,
                // What Dapr answers.
                Poll::Ready(None) => return Err(Status::unknown("EOF")),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn take(&mut self, message: &Host) -> Result<(), Status> {
        if message.operation() == HostOperation::Unknown && message.version.is_some() {
            return Err(Status::invalid_argument(
                "both operation and version must be set or both must be unset",
            ));
        }
        let host = wire::host(message);
        authorize(&host, caller(self.id.as_ref())).map_err(refused)?;
        match &self.open {
            Some((stream, _)) => self.lead.handle(wire::event(*stream, message)),
            None => {
                let opened = |stream| Event::Opened { stream, host };
                self.open = Some(self.lead.open(opened)?);
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        self.ended = true;
        if let Some((stream, _)) = self.open.take() {
            self.lead.close(stream);
        }
    }
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
        if self.ended {
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
