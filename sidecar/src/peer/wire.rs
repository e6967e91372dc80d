//! The messages of calls between sidecars, as this end reads and writes them.
//!
//! Headers are lists here, not maps: the same bytes, without hashing, and in
//! the order in which they were given.

use outrider_proto::common::v1::{InvokeRequest, InvokeResponse, StreamPayload};
use outrider_proto::internals::v1::{Actor, ListStringValue};
pub use outrider_proto::internals::v1::{ApiVersion, Status};

use crate::api::invoke::message::Metadata;

/// An entry of a map from names to lists of values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub list: Option<ListStringValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    #[prost(enumeration = "ApiVersion", tag = "1")]
    pub ver: i32,
    #[prost(message, repeated, tag = "2")]
    pub metadata: Vec<Entry>,
    #[prost(message, optional, tag = "3")]
    pub message: Option<InvokeRequest>,
    #[prost(message, optional, tag = "4")]
    pub actor: Option<Actor>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    #[prost(message, repeated, tag = "2")]
    pub headers: Vec<Entry>,
    #[prost(message, repeated, tag = "3")]
    pub trailers: Vec<Entry>,
    #[prost(message, optional, tag = "4")]
    pub message: Option<InvokeResponse>,
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

/// Values gathered under their names, since a map has every name once. There
/// are few of them, mostly different.
pub fn gathered(metadata: Metadata) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::with_capacity(metadata.len());
    for (name, value) in metadata {
        let known = entries.iter_mut().find(|entry| entry.name == name);
        match known.and_then(|entry| entry.list.as_mut()) {
            Some(list) => list.values.push(value),
            None => entries.push(Entry {
                name,
                list: Some(ListStringValue {
                    values: vec![value],
                }),
            }),
        }
    }
    entries
}

pub fn flat(entries: Vec<Entry>) -> Metadata {
    let mut metadata = Vec::with_capacity(entries.len());
    for Entry { name, list } in entries {
        let mut values = list.unwrap_or_default().values;
        let Some(last) = values.pop() else {
            continue;
        };
        for value in values {
            metadata.push((name.clone(), value));
        }
        metadata.push((name, last));
    }
    metadata
}

#[cfg(test)]
mod tests {
    use outrider_proto::internals::v1 as maps;
    use prost::Message as _;

    use super::*;

    fn metadata() -> Metadata {
        [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    #[test]
    fn values_stay_under_their_names_in_order() {
        let entries = gathered(metadata());
        assert_eq!(entries.len(), 2);
        let back: Vec<_> = flat(entries).into_iter().map(|(n, v)| n + &v).collect();
        assert_eq!(back, ["a1", "a3", "a4", "b2"]);
    }

    #[test]
    fn others_read_maps() {
        let bytes = RequestPiece {
            request: Some(Request {
                ver: ApiVersion::V1.into(),
                metadata: gathered(metadata()),
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
        let mut headers = flat(read.headers);
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(headers.len(), 4);
        assert_eq!(headers[3].1, "2");
        assert_eq!(read.status.unwrap().code, 200);
    }
}
