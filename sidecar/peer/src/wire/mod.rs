//! The messages of calls between sidecars, as this end reads and writes them.
//!
//! Headers are a list here, not a map: the same bytes, without hashing, in the
//! order in which they were given, and nothing is copied when they are read.

mod headers;

pub use self::headers::Headers;
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse, StreamPayload};
use outrider_proto::internals::v1::Actor;
pub use outrider_proto::internals::v1::{ApiVersion, Status};
use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, int32, message, skip_field};

/// The head of a call: `InternalInvokeRequest`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub ver: i32,
    pub metadata: Headers,
    pub message: Option<InvokeRequest>,
    pub actor: Option<Actor>,
}

impl prost::Message for Request {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        if self.ver != 0 {
            int32::encode(1, &self.ver, buffer);
        }
        self.metadata.encode(2, buffer);
        encode(3, self.message.as_ref(), buffer);
        encode(4, self.actor.as_ref(), buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        kind: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => int32::merge(kind, &mut self.ver, buffer, context),
            2 => self.metadata.merge(kind, buffer),
            3 => message::merge(kind, self.message.get_or_insert_default(), buffer, context),
            4 => message::merge(kind, self.actor.get_or_insert_default(), buffer, context),
            _ => skip_field(kind, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let number = match self.ver {
            0 => 0,
            ver => int32::encoded_len(1, &ver),
        };
        number
            + self.metadata.encoded_len(2)
            + encoded_len(3, self.message.as_ref())
            + encoded_len(4, self.actor.as_ref())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The head of an answer: `InternalInvokeResponse`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub status: Option<Status>,
    pub headers: Headers,
    pub trailers: Headers,
    pub message: Option<InvokeResponse>,
}

impl prost::Message for Response {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        encode(1, self.status.as_ref(), buffer);
        self.headers.encode(2, buffer);
        self.trailers.encode(3, buffer);
        encode(4, self.message.as_ref(), buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        kind: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => message::merge(kind, self.status.get_or_insert_default(), buffer, context),
            2 => self.headers.merge(kind, buffer),
            3 => self.trailers.merge(kind, buffer),
            4 => message::merge(kind, self.message.get_or_insert_default(), buffer, context),
            _ => skip_field(kind, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        encoded_len(1, self.status.as_ref())
            + self.headers.encoded_len(2)
            + self.trailers.encoded_len(3)
            + encoded_len(4, self.message.as_ref())
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Writes a field that may be missing.
fn encode<M: prost::Message>(tag: u32, field: Option<&M>, buffer: &mut impl BufMut) {
    if let Some(field) = field {
        message::encode(tag, field, buffer);
    }
}

fn encoded_len<M: prost::Message>(tag: u32, field: Option<&M>) -> usize {
    field.map_or(0, |field| message::encoded_len(tag, field))
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct RequestPiece {
    #[prost(message, optional, tag = "1")]
    pub request: Option<Request>,
    #[prost(message, optional, tag = "2")]
    pub payload: Option<StreamPayload>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResponsePiece {
    #[prost(message, optional, tag = "1")]
    pub response: Option<Response>,
    #[prost(message, optional, tag = "2")]
    pub payload: Option<StreamPayload>,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use outrider_proto::internals::v1 as maps;
    use prost::Message as _;

    use super::*;

    fn metadata() -> Headers {
        let pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")];
        let pairs = pairs.map(|(name, value)| (name.into(), HeaderValue::from_static(value)));
        Headers::new(pairs.to_vec())
    }

    #[test]
    fn others_read_maps() {
        let bytes = RequestPiece {
            request: Some(Request {
                ver: ApiVersion::V1.into(),
                metadata: metadata(),
                message: Some(InvokeRequest::default()),
                actor: None,
            }),
            payload: None,
        }
        .encode_to_vec();
        let read = maps::InternalInvokeRequestStream::decode(&*bytes).unwrap();
        let read = read.request.unwrap();
        assert_eq!(read.ver, i32::from(ApiVersion::V1));
        assert_eq!(read.metadata["a"].values, ["1", "3", "4"]);
        assert_eq!(read.metadata["b"].values, ["2"]);

        let bytes = maps::InternalInvokeResponse {
            status: Some(Status {
                code: 200,
                ..Default::default()
            }),
            headers: read.metadata,
            ..Default::default()
        }
        .encode_to_vec();
        let read = Response::decode(&*bytes).unwrap();
        let mut headers = read.headers.into_metadata().unwrap();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(headers.len(), 4);
        assert_eq!(headers[3].1, "2");
        assert_eq!(read.status.unwrap().code, 200);
    }
}
