//! Where a client's connection stands between two requests.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

const HEAD: u8 = 0;
const BODY: u8 = 1;
const REST: u8 = 2;
const SHARED: u8 = 3;

/// Whether the end is near: from then on answers of HTTP/1 carry
/// `Connection: close`, so that clients connect to another process.
#[derive(Clone, Default)]
pub struct Leaving(Arc<AtomicBool>);

impl Leaving {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Of one connection, between its stream and its requests. A new one has
/// not sent the head of a request yet.
#[derive(Clone, Default)]
pub struct Phase(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: AtomicU8,
    leaving: Leaving,
    /// Of the client; none of a unix socket's.
    address: Option<SocketAddr>,
}

impl Phase {
    pub fn new(leaving: Leaving, address: Option<SocketAddr>) -> Self {
        let state = AtomicU8::new(HEAD);
        Self(Arc::new(Inner {
            state,
            leaving,
            address,
        }))
    }

    /// Whether the request at hand is to be the connection's last.
    pub fn is_last(&self) -> bool {
        self.0.leaving.0.load(Ordering::Relaxed)
    }

    /// The first bytes of a request have come, but not all of its head.
    pub fn head(&self) {
        self.set(HEAD);
    }

    /// A body is on its way.
    pub fn body(&self) {
        self.set(BODY);
    }

    /// The client owes nothing.
    pub fn rest(&self) {
        self.set(REST);
    }

    /// Many requests share the connection: HTTP/2 has its own means. Nothing
    /// changes this.
    pub fn share(&self) {
        self.0.state.store(SHARED, Ordering::Relaxed);
    }

    pub fn owes_head(&self) -> bool {
        self.get() == HEAD
    }

    /// The client may be in the middle of a body.
    pub fn is_sending(&self) -> bool {
        self.get() == BODY
    }

    pub fn is_resting(&self) -> bool {
        self.get() == REST
    }

    fn get(&self) -> u8 {
        self.0.state.load(Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        if self.get() != SHARED {
            self.0.state.store(phase, Ordering::Relaxed);
        }
    }
}

/// The body of a client's request, which knows when it is read to its end.
pub struct Incoming {
    body: hyper::body::Incoming,
    phase: Phase,
}

impl Incoming {
    pub fn new(body: hyper::body::Incoming, phase: Phase) -> Self {
        if body.is_end_stream() {
            phase.rest();
        } else {
            phase.body();
        }
        Self { body, phase }
    }

    /// Where the client is, unless it came by a unix socket.
    pub fn client(&self) -> Option<SocketAddr> {
        self.phase.0.address
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        if frame.is_none() || this.body.is_end_stream() {
            this.phase.rest();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
