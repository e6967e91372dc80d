//! One sidecar's stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::Orders;

/// Messages that are taken in a row before orders get their turn.
const BATCH: usize = 32;

/// What becomes of the messages of one stream.
pub trait Reports: Unpin {
    type Message;

    /// Takes a message. An error ends the stream.
    fn take(&mut self, message: Self::Message) -> Result<(), Status>;

    /// None before the first report.
    fn orders(&mut self) -> Option<&mut Orders>;

    /// The stream has ended. May be called again.
    fn close(&mut self);

    /// Whether the stream has to end, whatever comes.
    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<Status> {
        Poll::Pending
    }

    /// Whether the stream has to end because nothing has come.
    fn poll_late(&mut self, _: &mut Context<'_>) -> Poll<Status> {
        Poll::Pending
    }
}

/// What the sidecar sends is read whenever its orders are asked for: it needs
/// no task of its own, and is gone when the stream is.
pub struct Session<R: Reports> {
    reports: R,
    messages: Streaming<R::Message>,
    has_ended: bool,
}

impl<R: Reports> Session<R> {
    pub fn new(reports: R, messages: Streaming<R::Message>) -> Self {
        Self {
            reports,
            messages,
            has_ended: false,
        }
    }

    /// Takes messages until none is there. An error ends the stream.
    fn read(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if let Poll::Ready(status) = self.reports.poll_end(context) {
            return Err(status);
        }
        for _ in 0..BATCH {
            match Pin::new(&mut self.messages).poll_next(context) {
                Poll::Pending => {
                    return match self.reports.poll_late(context) {
                        Poll::Ready(status) => Err(status),
                        Poll::Pending => Ok(()),
                    };
                }
                Poll::Ready(Some(message)) => self.reports.take(message?)?,
                // What Dapr answers.
                Poll::Ready(None) => return Err(Status::unknown("EOF")),
            }
        }
        context.waker().wake_by_ref();
        Ok(())
    }

    fn close(&mut self) {
        self.has_ended = true;
        self.reports.close();
    }
}

impl<R: Reports> Stream for Session<R> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Err(status) = self.read(context) {
            self.close();
            return Poll::Ready(Some(Err(status)));
        }
        let Some(orders) = self.reports.orders() else {
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

impl<R: Reports> Drop for Session<R> {
    fn drop(&mut self) {
        self.close();
    }
}
