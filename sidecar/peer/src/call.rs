//! Calls to another sidecar: one stream each way, headers first, then the body
//! in pieces.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Scheme;
use http::{HeaderValue, Method, Uri, header};
use http_body::Frame;
use outrider_proto::Any;
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, StreamPayload, http_extension};
use outrider_security::Security;
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use super::wire::{self, Headers};
use outrider_call::headers::DESTINATION;
use outrider_call::message::{self, Data, Request, Response};
use outrider_call::metadata::{self, Metadata, Name};
use outrider_net::body::{self, Body, BoxError};
use outrider_net::connection::{Dialled, Place, Received, boxed};
use outrider_net::grpc::{self, Messages};
use outrider_net::pool::{Destination, Pool};

pub const CALL: &str = "/dapr.proto.internals.v1.ServiceInvocation/CallLocalStream";
/// Bytes of a body in one message.
pub const PIECE: usize = 256 << 10;

/// The way to other sidecars.
#[derive(Clone)]
pub struct Peers {
    pool: Pool,
    /// What the callee learns about this host.
    host: Arc<Host>,
    /// This sidecar's internal port.
    pub own_port: u16,
    /// Bytes that a message may have.
    pub limit: Option<usize>,
}

/// Values of headers; none where they cannot be.
struct Host {
    address: Option<HeaderValue>,
    forwarded: Option<HeaderValue>,
    name: Option<HeaderValue>,
}

impl Peers {
    pub fn new(
        security: Security,
        host_address: &str,
        host_name: &str,
        own_port: u16,
        limit: Option<usize>,
        slots: usize,
    ) -> Self {
        let pool = Pool::new(slots, Scheme::HTTP, move |target: &Destination| {
            let (security, target) = (security.clone(), target.clone());
            Box::pin(async move {
                let connector = match &target.app {
                    Some((namespace, app_id)) => security
                        .connector_to_app(namespace, app_id)
                        .map_err(std::io::Error::other)?,
                    None => outrider_security::Connector::plaintext(),
                };
                let (host, port) = target
                    .address
                    .rsplit_once(':')
                    .ok_or_else(|| std::io::Error::other("the address has no port"))?;
                let port = port.parse().map_err(std::io::Error::other)?;
                let connection = connector.dial(host, port).await?;
                let expires = connection.expires();
                Ok(Dialled {
                    expires,
                    ..boxed(connection)
                })
            })
        });
        let quoted = if host_address.contains(':') {
            format!("\"[{host_address}]\"")
        } else {
            host_address.to_owned()
        };
        let host = Host {
            forwarded: metadata::value(&format!("for={quoted};by={quoted};host={host_name}")),
            address: metadata::value(host_address),
            name: metadata::value(host_name),
        };
        Self {
            pool,
            host: Arc::new(host),
            own_port,
            limit,
        }
    }

    /// Closes unused connections, until `stopping`.
    pub fn collect(
        &self,
        idle: Duration,
        interval: Duration,
        stopping: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let pool = self.pool.clone();
        pool.collect(idle, interval, stopping)
    }

    /// Adds where the call comes from.
    pub fn forwarded(&self, metadata: &mut Metadata) {
        let Host {
            address,
            forwarded,
            name,
        } = &*self.host;
        let pairs = [
            ("X-Forwarded-For", address),
            ("X-Forwarded-Host", name),
            ("Forwarded", forwarded),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| {
            let value = value.clone()?;
            Some((Name::from_static(name), value))
        });
        metadata.extend(pairs);
    }

    /// A place on a connection to another sidecar that is there.
    pub fn open(&self, target: &Destination) -> Option<Place> {
        self.pool.open(target)
    }

    /// The same, on a new connection if need be.
    pub async fn place(&self, target: &Destination) -> Result<Place, Status> {
        self.pool.place(target).await
    }

    pub fn forget(&self, target: &Destination) {
        self.pool.forget(target);
    }

    /// Calls a method of the application behind another sidecar.
    /// `trace` is the context of the caller's span, or the one that it passes on.
    pub async fn call(
        &self,
        place: Place,
        call: Call,
        trace: Option<&HeaderValue>,
    ) -> Result<Response, Status> {
        let mut outgoing = http::Request::new(call.into_messages());
        *outgoing.method_mut() = Method::POST;
        *outgoing.uri_mut() = Uri::from_static(CALL);
        let headers = outgoing.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(grpc::CONTENT_TYPE),
        );
        if let Some(trace) = trace {
            headers.insert(outrider_trace::TRACEPARENT, trace.clone());
        }
        let answer = place.send(outgoing).await?;
        self.read(answer).await
    }

    async fn read(&self, answer: http::Response<Received>) -> Result<Response, Status> {
        let (parts, incoming) = answer.into_parts();
        grpc::check_status(&parts.headers)?;
        let mut pieces = Pieces::<wire::ResponsePiece, _>::new(incoming, self.limit);
        let Some(first) = pieces.next_message().await? else {
            return Err(Status::internal("no response received from stream"));
        };
        let response = first.response.ok_or_else(|| {
            Status::internal("response does not contain the required fields in the leading chunk")
        })?;
        let status = response.status.ok_or_else(|| {
            Status::internal("response does not contain the required fields in the leading chunk")
        })?;
        if let Some(payload) = first.payload {
            pieces.queue(payload)?;
        }
        let message = response.message.unwrap_or_default();
        let data = message.data.unwrap_or_default();
        if !data.value.is_empty() {
            pieces.queued = Some(data.value.into());
        }
        let code = if status.code >= 100 {
            message::Code::Http(u16::try_from(status.code).unwrap_or(500))
        } else {
            message::Code::Grpc(status_of(status))
        };
        Ok(Response {
            code,
            headers: response.headers.into_metadata()?,
            trailers: response.trailers.into_metadata()?,
            content_type: Some(message.content_type).filter(|c| !c.is_empty()),
            data_type_url: data.type_url,
            body: pieces.into_body(),
        })
    }
}

fn status_of(status: wire::Status) -> Status {
    let details = tonic_types::Status {
        code: status.code,
        message: status.message.clone(),
        details: status.details,
    };
    let code = Code::from_i32(status.code);
    if details.details.is_empty() {
        return Status::new(code, status.message);
    }
    Status::with_details(code, status.message, Bytes::from(details.encode_to_vec()))
}

/// A call as it travels, encoded once however often it is sent.
pub enum Call {
    /// One message with everything.
    Message(Bytes),
    /// A head, and data that takes several messages.
    Pieces(Box<wire::RequestPiece>, Data),
}

impl Call {
    /// Everything but the body goes into the first message, with the first
    /// piece of it.
    pub fn new(request: Request, app_id: &str) -> Self {
        let mut metadata = request.metadata;
        if let Some(app_id) = metadata::value(app_id) {
            metadata.push((Name::from_static(DESTINATION), app_id));
        }
        if let Some(length) = request.content_length {
            metadata.push((Name::Http(header::CONTENT_LENGTH), length.into()));
        }
        let extension = request.verb.map(|verb| HttpExtension {
            verb: http_extension::Verb::from_str_name(verb.as_str())
                .unwrap_or(http_extension::Verb::Post)
                .into(),
            querystring: request.query,
        });
        let first = wire::RequestPiece {
            request: Some(wire::Request {
                ver: wire::ApiVersion::V1.into(),
                metadata: Headers::new(metadata),
                message: Some(InvokeRequest {
                    method: request.method,
                    data: (!request.data_type_url.is_empty()).then(|| Any {
                        type_url: request.data_type_url,
                        value: Default::default(),
                    }),
                    content_type: request.content_type.unwrap_or_default(),
                    http_extension: extension,
                }),
                actor: None,
            }),
            payload: None,
        };
        match request.body {
            Data::Whole(data) if data.len() <= PIECE => {
                let payload = Some(StreamPayload { data, seq: 0 });
                Self::Message(grpc::frame(&wire::RequestPiece { payload, ..first }))
            }
            data => Self::Pieces(Box::new(first), data),
        }
    }

    /// The same once more, unless its data passes through.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::Message(bytes) => Some(Self::Message(bytes.clone())),
            Self::Pieces(head, Data::Whole(data)) => {
                Some(Self::Pieces(head.clone(), Data::Whole(data.clone())))
            }
            Self::Pieces(_, Data::Stream(_)) => None,
        }
    }

    fn into_messages(self) -> Body {
        match self {
            Self::Message(bytes) => body::full(bytes),
            Self::Pieces(head, data) => body::stream(Framed::new(
                data.into_body(),
                *head,
                |head, payload| match head {
                    Some(first) => grpc::frame(&wire::RequestPiece { payload, ..first }),
                    None => grpc::frame(&wire::RequestPiece {
                        request: None,
                        payload,
                    }),
                },
            )),
        }
    }
}

/// A body on its way out as messages: the head at once, then piece after piece.
pub struct Framed<H, F> {
    body: Option<Body>,
    head: Option<H>,
    frame: F,
    seq: u64,
    /// What is left of a frame that was too large for one message.
    rest: Bytes,
    /// Sent when the body has ended.
    end: Option<Frame<Bytes>>,
}

impl<H, F: Fn(Option<H>, Option<StreamPayload>) -> Bytes> Framed<H, F> {
    pub fn new(body: Body, head: H, frame: F) -> Self {
        Self {
            body: Some(body),
            head: Some(head),
            frame,
            seq: 0,
            rest: Bytes::new(),
            end: None,
        }
    }

    /// The same, with trailers behind the body.
    pub fn ending(self, end: Frame<Bytes>) -> Self {
        Self {
            end: Some(end),
            ..self
        }
    }

    fn piece(&mut self, mut data: Bytes) -> Bytes {
        if data.len() > PIECE {
            self.rest = data.split_off(PIECE);
        }
        let payload = StreamPayload {
            data,
            seq: self.seq,
        };
        self.seq += 1;
        (self.frame)(self.head.take(), Some(payload))
    }
}

impl<H: Unpin, F: Fn(Option<H>, Option<StreamPayload>) -> Bytes + Unpin> http_body::Body
    for Framed<H, F>
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        loop {
            if !this.rest.is_empty() {
                let rest = std::mem::take(&mut this.rest);
                return Poll::Ready(Some(Ok(Frame::data(this.piece(rest)))));
            }
            let Some(body) = &mut this.body else {
                return Poll::Ready(this.end.take().map(Ok));
            };
            let polled = Pin::new(body).poll_frame(context);
            match polled {
                // The head does not wait for a body that is slow to come.
                Poll::Pending => {
                    return match this.head.take() {
                        Some(head) => {
                            Poll::Ready(Some(Ok(Frame::data((this.frame)(Some(head), None)))))
                        }
                        None => Poll::Pending,
                    };
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Poll::Ready(Some(Ok(Frame::data(this.piece(data)))));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.body = None;
                    this.end = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    this.body = None;
                    if this.head.is_some() {
                        return Poll::Ready(Some(Ok(Frame::data(this.piece(Bytes::new())))));
                    }
                }
            }
        }
    }
}

/// A message that may carry a piece of a body.
pub trait Carrier: prost::Message + Default {
    /// Whether a status ends the stream. Without it the stream broke off.
    const HAS_STATUS: bool;

    /// The piece; an error if the message is one that only comes first.
    fn into_payload(self) -> Result<Option<StreamPayload>, Status>;
}

impl Carrier for wire::ResponsePiece {
    const HAS_STATUS: bool = true;

    fn into_payload(self) -> Result<Option<StreamPayload>, Status> {
        match self.response {
            None => Ok(self.payload),
            Some(_) => Err(Status::internal(
                "response metadata found in non-leading chunk",
            )),
        }
    }
}

impl Carrier for wire::RequestPiece {
    const HAS_STATUS: bool = false;

    fn into_payload(self) -> Result<Option<StreamPayload>, Status> {
        match self.request {
            None => Ok(self.payload),
            Some(_) => Err(Status::internal(
                "request metadata found in non-leading chunk",
            )),
        }
    }
}

/// A body on its way in: the pieces of a stream of messages.
pub struct Pieces<M, B> {
    messages: Messages<B>,
    seq: u64,
    queued: Option<Bytes>,
    done: bool,
    _carrier: std::marker::PhantomData<fn() -> M>,
}

impl<M, B> Pieces<M, B>
where
    M: Carrier,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    pub fn new(incoming: B, limit: Option<usize>) -> Self {
        Self {
            messages: Messages::new(incoming, limit),
            seq: 0,
            queued: None,
            done: false,
            _carrier: std::marker::PhantomData,
        }
    }

    /// The next message as it is; none at the end of a stream that ended well.
    pub async fn next_message(&mut self) -> Result<Option<M>, Status> {
        match self.messages.next().await {
            Some(message) => decode(&message?).map(Some),
            None => self.ended().map(|()| None),
        }
    }

    /// Takes the piece of a message that was read already.
    pub fn queue(&mut self, payload: StreamPayload) -> Result<(), Status> {
        self.in_order(&payload)?;
        self.queued = Some(payload.data).filter(|data| !data.is_empty());
        Ok(())
    }

    fn in_order(&mut self, payload: &StreamPayload) -> Result<(), Status> {
        if payload.seq != self.seq {
            return Err(Status::internal(format!(
                "invalid sequence number received: {} (expected: {})",
                payload.seq, self.seq
            )));
        }
        self.seq += 1;
        Ok(())
    }

    fn ended(&mut self) -> Result<(), Status> {
        self.done = true;
        let trailers = self.messages.trailers();
        let has_status = trailers.map_or(Ok(false), |trailers| grpc::check_status(&trailers))?;
        if M::HAS_STATUS && !has_status {
            return Err(Status::internal(
                "server closed the stream without sending trailers",
            ));
        }
        Ok(())
    }

    pub fn into_body(self) -> Body
    where
        M: 'static,
        B: Send + 'static,
    {
        body::stream(self)
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        if let Some(data) = self.queued.take() {
            return Poll::Ready(Ok(Some(data)));
        }
        while !self.done {
            let Some(message) = ready!(self.messages.poll_next(context)) else {
                return Poll::Ready(self.ended().map(|()| None));
            };
            let message: M = decode(&message?)?;
            let Some(payload) = message.into_payload()? else {
                continue;
            };
            self.in_order(&payload)?;
            if !payload.data.is_empty() {
                return Poll::Ready(Ok(Some(payload.data)));
            }
        }
        Poll::Ready(Ok(None))
    }
}

fn decode<M: Carrier>(message: &Bytes) -> Result<M, Status> {
    M::decode(message.clone()).map_err(|error| {
        Status::internal(format!("a message of a peer cannot be decoded: {error}"))
    })
}

impl<M, B> http_body::Body for Pieces<M, B>
where
    M: Carrier,
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        Poll::Ready(match ready!(this.poll_piece(context)) {
            Ok(Some(data)) => Some(Ok(Frame::data(data))),
            Ok(None) => None,
            Err(status) => {
                this.done = true;
                Some(Err(status.into()))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.queued.is_none()
    }
}
