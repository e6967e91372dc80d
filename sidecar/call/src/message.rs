//! A call on its way, whatever it came by and will leave by.

use bytes::Bytes;
use http::Method;
use tonic::Status;

use crate::metadata::Metadata;
use outrider_net::body::{self, Body};

/// What the caller spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Http,
    Grpc,
}

/// The data of a call.
pub enum Data {
    /// At hand: may be sent more than once.
    Whole(Bytes),
    /// Passing through, once.
    Stream(Body),
}

impl Data {
    pub fn into_body(self) -> Body {
        match self {
            Data::Whole(bytes) => body::full(bytes),
            Data::Stream(stream) => stream,
        }
    }

    pub async fn collect(self, limit: Option<usize>) -> Result<Bytes, Status> {
        match self {
            Data::Whole(bytes) => Ok(bytes),
            Data::Stream(stream) => body::collect(stream, limit)
                .await
                .map_err(|e| Status::internal(e.to_string())),
        }
    }
}

pub struct Request {
    /// Decoded and cleaned, without a leading slash.
    pub method: String,
    /// None if a gRPC caller gave none.
    pub verb: Option<Method>,
    /// As the client wrote it.
    pub query: String,
    pub metadata: Metadata,
    pub origin: Origin,
    pub content_type: Option<String>,
    /// None if the client did not say.
    pub content_length: Option<u64>,
    /// Type of the data in gRPC calls.
    pub data_type_url: String,
    pub body: Data,
}

impl Request {
    /// Whether the data passes through, so that it can be sent once only.
    pub fn is_streaming(&self) -> bool {
        matches!(self.body, Data::Stream(_))
    }

    /// The same again, if the data is at hand.
    pub fn again(&self) -> Option<Self> {
        let Data::Whole(bytes) = &self.body else {
            return None;
        };
        Some(Self {
            method: self.method.clone(),
            verb: self.verb.clone(),
            query: self.query.clone(),
            metadata: self.metadata.clone(),
            origin: self.origin,
            content_type: self.content_type.clone(),
            content_length: self.content_length,
            data_type_url: self.data_type_url.clone(),
            body: Data::Whole(bytes.clone()),
        })
    }
}

/// What the application answered with.
#[derive(Debug, Clone)]
pub enum Code {
    Http(u16),
    Grpc(Status),
}

impl Code {
    /// The number of the status, of either kind.
    pub fn number(&self) -> u32 {
        match self {
            Code::Http(status) => u32::from(*status),
            Code::Grpc(status) => status.code() as u32,
        }
    }
}

pub struct Response {
    pub code: Code,
    pub headers: Metadata,
    pub trailers: Metadata,
    pub content_type: Option<String>,
    /// Type of the data that a gRPC application answered with.
    pub data_type_url: String,
    pub body: Body,
}

/// What typed data is, whatever else its sender said.
pub const PROTOBUF: &str = "application/x-protobuf";

impl Response {
    /// How the body is to be read.
    pub fn content_type(&self) -> Option<&str> {
        if self.data_type_url.is_empty() {
            self.content_type.as_deref()
        } else {
            Some(PROTOBUF)
        }
    }

    /// Whether policies take the answer for a failure.
    pub fn is_failure(&self) -> bool {
        match &self.code {
            Code::Http(code) => !(200..400).contains(code),
            Code::Grpc(status) => status.code() != tonic::Code::Ok,
        }
    }
}
