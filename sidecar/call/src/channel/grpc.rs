//! An application that speaks gRPC.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use outrider_proto::common::v1::{HttpExtension, InvokeRequest, InvokeResponse, http_extension};
use prost::Message;
use tonic::Status;

use super::Permit;
use super::connect::Connector;
use crate::headers;
use crate::message::{Code, Request, Response};
use crate::token;
use outrider_metrics as metrics;
use outrider_net::body::{self, Body};
use outrider_net::grpc::{self, Messages};
use outrider_net::pool::{Destination, Pool};

pub struct Client {
    pool: Pool,
    target: Destination,
    token: Option<HeaderValue>,
    /// Bytes that a message may have.
    limit: Option<usize>,
    pub metrics: metrics::grpc::Client,
}

impl Client {
    pub fn new(
        connector: Connector,
        token: Option<&str>,
        limit: Option<usize>,
        slots: usize,
        metrics: metrics::grpc::Client,
    ) -> Self {
        let target = Destination {
            address: connector.address(),
            app: None,
        };
        let pool = Pool::new(slots, connector.scheme(), move |_: &Destination| {
            let connector = connector.clone();
            Box::pin(async move {
                connector
                    .connect()
                    .await
                    .map(outrider_net::connection::boxed)
            })
        });
        Self {
            pool,
            target,
            token: token.and_then(|t| HeaderValue::try_from(t).ok()),
            limit,
            metrics,
        }
    }

    /// A unary call with `metadata` besides what gRPC needs.
    pub async fn unary<M: Message, R: Message + Default>(
        &self,
        _permit: Permit,
        path: &'static str,
        message: &M,
        metadata: HeaderMap,
    ) -> Result<(R, HeaderMap, HeaderMap), Status> {
        let started = Instant::now();
        let answered = self.exchange(path, message, metadata).await;
        let (code, received) = match &answered {
            Ok((bytes, ..)) => (tonic::Code::Ok, bytes.len()),
            Err(status) => (status.code(), 0),
        };
        let (sent, took) = (message.encoded_len(), started.elapsed());
        self.metrics.called(path, code, sent, received, took);
        let (bytes, headers, trailers) = answered?;
        let decoded = R::decode(bytes).map_err(|e| {
            Status::internal(format!("the application's answer cannot be decoded: {e}"))
        })?;
        Ok((decoded, headers, trailers))
    }

    /// Asks whether the application is well.
    pub async fn probe(&self) -> Result<(), Status> {
        let path = "/dapr.proto.runtime.v1.AppCallbackHealthCheck/HealthCheck";
        self.exchange(path, &(), HeaderMap::new()).await.map(drop)
    }

    async fn exchange<M: Message>(
        &self,
        path: &'static str,
        message: &M,
        metadata: HeaderMap,
    ) -> Result<(Bytes, HeaderMap, HeaderMap), Status> {
        let request = self.request(path, body::full(grpc::frame(message)), metadata);
        let answer = self.pool.send(&self.target, request).await?;
        let (parts, incoming) = answer.into_parts();
        grpc::check_status(&parts.headers)?;
        if parts.status != http::StatusCode::OK {
            return Err(Status::new(
                grpc::code_of(parts.status.as_u16()),
                format!(
                    "unexpected HTTP status code received from server: {}",
                    parts.status
                ),
            ));
        }
        let mut messages = Messages::new(incoming, self.limit);
        let first = messages.next().await.transpose()?;
        // It might go on for ever.
        if messages.next().await.transpose()?.is_some() {
            return Err(Status::internal(
                "the application answered with more than one message",
            ));
        }
        let trailers = messages.trailers().unwrap_or_default();
        grpc::check_status(&trailers)?;
        let bytes =
            first.ok_or_else(|| Status::internal("the application answered without a message"))?;
        Ok((bytes, parts.headers, trailers))
    }

    fn request(&self, path: &'static str, body: Body, metadata: HeaderMap) -> http::Request<Body> {
        let mut request = http::Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static(path);
        *request.headers_mut() = metadata;
        self.dress(request.headers_mut());
        request
    }

    /// What every call to the application carries.
    fn dress(&self, headers: &mut HeaderMap) {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(grpc::CONTENT_TYPE),
        );
        token::replace(headers, self.token.as_ref());
    }

    /// Passes a proxied call on as it came. The answer's body holds the
    /// permit.
    pub async fn forward(
        &self,
        permit: Permit,
        mut request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        self.dress(request.headers_mut());
        let answer = self.pool.send(&self.target, request).await?;
        Ok(answer.map(|body| permit.hold(body::stream(body))))
    }

    /// Calls a method. With `traced` a call without a trace context gets the
    /// context of zeros.
    pub async fn invoke(
        &self,
        permit: Permit,
        request: Request,
        traced: bool,
    ) -> Result<Response, Status> {
        let data = request.body.collect(self.limit).await?;
        let verb = request
            .verb
            .as_ref()
            .and_then(|verb| http_extension::Verb::from_str_name(verb.as_str()));
        let message = InvokeRequest {
            method: request.method,
            data: Some(prost_any(request.data_type_url, data)),
            content_type: request.content_type.unwrap_or_default(),
            http_extension: verb.map(|verb| HttpExtension {
                verb: verb.into(),
                querystring: request.query,
            }),
        };
        let mut metadata = HeaderMap::new();
        headers::to_grpc(&request.metadata, request.origin, &mut metadata);
        if traced {
            metadata
                .entry(HeaderName::from_static(outrider_trace::BINARY))
                .or_insert(HeaderValue::from_static(outrider_trace::BINARY_NOTHING));
        }
        let answered: Result<(InvokeResponse, _, _), Status> = self
            .unary(
                permit,
                "/dapr.proto.runtime.v1.AppCallback/OnInvoke",
                &message,
                metadata,
            )
            .await;
        match answered {
            Ok((answer, initial, trailers)) => {
                let data = answer.data.unwrap_or_default();
                Ok(Response {
                    code: Code::Grpc(Status::new(tonic::Code::Ok, "")),
                    headers: headers::of_grpc(&initial),
                    trailers: headers::of_grpc(&trailers),
                    content_type: Some(answer.content_type).filter(|c| !c.is_empty()),
                    data_type_url: data.type_url,
                    body: body::full(data.value),
                })
            }
            Err(status) => Ok(Response {
                headers: headers::of_grpc(status.metadata().as_ref()),
                trailers: Vec::new(),
                code: Code::Grpc(status),
                content_type: None,
                data_type_url: String::new(),
                body: body::empty(),
            }),
        }
    }
}

fn prost_any(type_url: String, value: Bytes) -> outrider_proto::Any {
    outrider_proto::Any {
        type_url,
        value: value.into(),
    }
}
