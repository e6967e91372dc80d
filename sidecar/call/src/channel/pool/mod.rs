//! Connections to an application that speaks HTTP, kept per slot of the
//! workers: a call uses one that was opened on its own thread.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_host::{Tasks, Workers};
use outrider_net::body::Body;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connect::Connector;

/// What the tasks of a pool are called in the log.
const TASK: &str = "application connection";
/// Idle connections that a slot keeps, and for how long.
const IDLE: usize = 64;
const IDLE_TIME: Duration = Duration::from_secs(90);

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot connect to the application")]
    Connect(#[source] std::io::Error),
    #[error("cannot send the request to the application")]
    Send(#[source] hyper::Error),
    #[error("the address of the application makes no URL")]
    Address(#[from] http::Error),
}

/// Connections to one application. Cloning shares them.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    connector: Connector,
    authority: Authority,
    host: HeaderValue,
    /// HTTP/2 without asking for it.
    h2c: bool,
    /// Bytes of headers that an answer of HTTP/1 may have.
    read_buffer: usize,
    slots: Box<[Mutex<Slot>]>,
    /// One connection of HTTP/2 at a time is opened in a slot.
    connecting: Box<[tokio::sync::Mutex<()>]>,
    /// Connections, which end with the pool: the process does not wait for them,
    /// as those that rest do so for long.
    tasks: Tasks,
}

#[derive(Default)]
struct Slot {
    /// Of HTTP/1; the last one was used last.
    idle: VecDeque<Idle>,
    /// Of HTTP/2, which all requests share.
    shared: Option<http2::SendRequest<Body>>,
}

struct Idle {
    connection: Http1,
    since: Instant,
}

/// A connection of HTTP/1.
struct Http1 {
    sender: http1::SendRequest<Body>,
    /// Closes it at once.
    close: CancellationToken,
}

impl Slot {
    fn idle(&mut self) -> Option<Http1> {
        while let Some(Idle { connection, since }) = self.idle.pop_back() {
            if since.elapsed() >= IDLE_TIME {
                // All the others are older.
                self.idle.clear();
            } else if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&mut self, connection: Http1) {
        self.close_old();
        if self.idle.len() >= IDLE {
            self.idle.pop_front();
        }
        let since = Instant::now();
        self.idle.push_back(Idle { connection, since });
    }
}

impl Slot {
    fn close_old(&mut self) {
        let is_old = |idle: &Idle| idle.since.elapsed() >= IDLE_TIME;
        while self.idle.front().is_some_and(is_old) {
            self.idle.pop_front();
        }
    }
}

impl Pool {
    pub fn new(
        connector: Connector,
        h2c: bool,
        read_buffer: usize,
        slots: usize,
    ) -> Result<Self, http::Error> {
        let slots = slots.max(1);
        let address = connector.address();
        let shared = Shared {
            authority: Authority::try_from(address.as_str()).map_err(http::Error::from)?,
            host: HeaderValue::try_from(address).map_err(http::Error::from)?,
            connector,
            h2c,
            read_buffer,
            slots: (0..slots).map(|_| Mutex::default()).collect(),
            connecting: (0..slots).map(|_| tokio::sync::Mutex::default()).collect(),
            tasks: Tasks::new(),
        };
        let pool = Self(Arc::new(shared));
        pool.0.tasks.spawn(TASK, close_old(Arc::downgrade(&pool.0)));
        Ok(pool)
    }

    /// Sends a request, which has a path and a query only. A connection that
    /// the application closed before it took the request counts as none.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Answer>, Error> {
        if self.0.h2c {
            self.send_http2(request).await
        } else {
            self.send_http1(request).await
        }
    }

    async fn send_http1(&self, mut request: Request<Body>) -> Result<Response<Answer>, Error> {
        let headers = request.headers_mut();
        headers.entry(HOST).or_insert_with(|| self.0.host.clone());
        loop {
            let slot = self.own_slot();
            let idle = self.slot(slot).idle();
            let is_used = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect_http1().await?,
            };
            match connection.sender.try_send_request(request).await {
                Ok(answer) => {
                    let connection = Connection {
                        connection,
                        pool: self.clone(),
                        slot,
                    };
                    return Ok(answer.map(|body| Answer::new(body, Some(connection))));
                }
                Err(failed) => request = again(failed, is_used)?,
            }
        }
    }

    async fn send_http2(&self, mut request: Request<Body>) -> Result<Response<Answer>, Error> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::builder()
            .scheme(self.0.connector.scheme())
            .authority(self.0.authority.clone())
            .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
            .build()?;
        loop {
            let shared = self.shared();
            let is_used = shared.is_some();
            let mut sender = match shared {
                Some(sender) => sender,
                None => self.connect_http2().await?,
            };
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer.map(|body| Answer::new(body, None))),
                Err(failed) => request = again(failed, is_used)?,
            }
        }
    }

    async fn connect_http1(&self) -> Result<Http1, Error> {
        let stream = self.0.connector.connect().await.map_err(Error::Connect)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size((self.0.read_buffer + 4096).max(8192))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Send)?;
        let close = CancellationToken::new();
        let closed = close.clone();
        self.0.tasks.spawn(TASK, async move {
            if let Some(result) = closed.run_until_cancelled(connection).await {
                ended(result);
            }
        });
        Ok(Http1 { sender, close })
    }

    /// The connection that requests share, if it is open.
    fn shared(&self) -> Option<http2::SendRequest<Body>> {
        let shared = self.slot(self.own_slot()).shared.clone();
        shared.filter(|sender| !sender.is_closed())
    }

    async fn connect_http2(&self) -> Result<http2::SendRequest<Body>, Error> {
        let slot = self.own_slot();
        let _connecting = self.0.connecting[slot].lock().await;
        // Another request may have opened it by now.
        if let Some(shared) = self.shared() {
            return Ok(shared);
        }
        let stream = self.0.connector.connect().await.map_err(Error::Connect)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(Error::Send)?;
        self.0
            .tasks
            .spawn(TASK, async move { ended(connection.await) });
        self.slot(slot).shared = Some(sender.clone());
        Ok(sender)
    }

    /// Keeps a connection for later, once its answer is out of the way.
    fn keep(&self, mut connection: Http1, slot: usize) {
        let sender = &mut connection.sender;
        if sender.is_ready() {
            return self.slot(slot).keep(connection);
        }
        // Nothing is kept at the very end of a process.
        if sender.is_closed() || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let shared = Arc::downgrade(&self.0);
        self.0.tasks.spawn(TASK, async move {
            let is_ready = connection.sender.ready().await.is_ok();
            if let (true, Some(shared)) = (is_ready, shared.upgrade()) {
                Self(shared).slot(slot).keep(connection);
            }
        });
    }

    /// That of this thread.
    fn own_slot(&self) -> usize {
        Workers::slot() % self.0.slots.len()
    }

    fn slot(&self, slot: usize) -> MutexGuard<'_, Slot> {
        locked(&self.0.slots[slot])
    }
}

fn locked(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Closes connections that were not used for long, as long as there is a pool.
async fn close_old(pool: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_TIME / 2).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.slots.iter().for_each(|slot| locked(slot).close_old());
    }
}

fn ended(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(target: "dapr.runtime.channel.http", "a connection to the application ended: {error}");
    }
}

/// The request, if it may be sent over another connection.
fn again(mut failed: TrySendError<Request<Body>>, is_used: bool) -> Result<Request<Body>, Error> {
    match failed.take_message() {
        Some(request) if is_used => Ok(request),
        _ => Err(Error::Send(failed.into_error())),
    }
}

/// The body of an answer. Its connection is used again when it has ended.
pub struct Answer {
    body: Incoming,
    /// Of HTTP/1, until the end.
    connection: Option<Connection>,
}

struct Connection {
    connection: Http1,
    pool: Pool,
    slot: usize,
}

impl Answer {
    fn new(body: Incoming, connection: Option<Connection>) -> Self {
        let mut answer = Self { body, connection };
        answer.keep_if_ended();
        answer
    }

    fn keep_if_ended(&mut self) {
        if self.body.is_end_stream() {
            self.keep();
        }
    }

    /// Gives the connection back.
    fn keep(&mut self) {
        if let Some(taken) = self.connection.take() {
            taken.pool.keep(taken.connection, taken.slot);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => this.keep_if_ended(),
            // What broke off is not used again.
            Some(Err(_)) => this.connection = None,
            None => this.keep(),
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

impl Drop for Answer {
    fn drop(&mut self) {
        // The rest of an answer that nobody reads any more may never come.
        if let Some(taken) = &self.connection {
            taken.connection.close.cancel();
        }
    }
}

#[cfg(test)]
mod tests;
