//! The messages of calls between sidecars, as this end reads and writes them.
//!
//! Headers are lists here, not maps: the same bytes, without hashing, and in
//! the order in which they were given.

use bytes::Bytes;
use outrider_proto::common::v1::{InvokeRequest, InvokeResponse, StreamPayload};
use outrider_proto::internals::v1::Actor;
pub use outrider_proto::internals::v1::{ApiVersion, Status};

use outrider_call::message::Metadata;

/// An entry of a map from names to lists of values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub list: Option<Values>,
}

/// Strings on the wire. Headers need not be UTF-8; a peer that insists on it
/// refuses the call rather than to change a byte.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Values {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub values: Vec<Bytes>,
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

/// Headers that a message of a peer may have.
pub const MOST_HEADERS: usize = 4096;
/// Up to here it is cheaper to compare each with each than to sort.
const FEW: usize = 64;

/// Bytes of headers that a message of a peer may have. In memory an entry takes
/// many times its bytes on the wire.
const MOST_HEADER_BYTES: usize = 512 << 10;

/// Refuses a message with more, before memory is taken for them. `headers` are
/// the fields that hold them, `at` is the field that holds these, if any.
pub fn check_headers(
    message: &[u8],
    at: Option<u32>,
    headers: &[u32],
) -> Result<(), tonic::Status> {
    let own = |field: u32, entry: &[u8]| match headers.contains(&field) {
        // An empty entry has two bytes.
        true => entry.len() + 2,
        false => 0,
    };
    let bytes = match at {
        None => sum(message, &own),
        Some(at) => sum(message, &|field, inner| match field == at {
            true => sum(inner, &own),
            false => 0,
        }),
    };
    if bytes > MOST_HEADER_BYTES {
        return Err(tonic::Status::resource_exhausted(format!(
            "a message between sidecars has {bytes} bytes of headers: send {MOST_HEADER_BYTES} at most"
        )));
    }
    Ok(())
}

/// The sum of what `count` says of each field with a length, up to the first
/// byte that makes no sense: decoding the message reports it.
fn sum(mut message: &[u8], count: &dyn Fn(u32, &[u8]) -> usize) -> usize {
    use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
    let mut sum = 0;
    while let Ok((field, kind)) = decode_key(&mut message) {
        if kind != WireType::LengthDelimited {
            match skip_field(kind, field, &mut message, DecodeContext::default()) {
                Ok(()) => continue,
                Err(_) => break,
            }
        }
        let length = decode_varint(&mut message).map(usize::try_from);
        let Ok(Ok(length)) = length else { break };
        let Some((inner, rest)) = message.split_at_checked(length) else {
            break;
        };
        sum += count(field, inner);
        message = rest;
    }
    sum
}

/// Values gathered under their names, since a map has every name once. There
/// are few of them as a rule, mostly different.
pub fn gathered(mut metadata: Metadata) -> Vec<Entry> {
    let is_sorted = metadata.len() > FEW;
    if is_sorted {
        // Stable: values of a name keep their order.
        metadata.sort_by(|(a, _), (b, _)| a.cmp(b));
    }
    let mut entries: Vec<Entry> = Vec::with_capacity(metadata.len());
    for (name, value) in metadata {
        let from = if is_sorted {
            entries.len().saturating_sub(1)
        } else {
            0
        };
        let known = entries[from..].iter_mut().find(|entry| entry.name == name);
        match known.and_then(|entry| entry.list.as_mut()) {
            Some(list) => list.values.push(value),
            None => entries.push(Entry {
                name,
                list: Some(Values {
                    values: vec![value],
                }),
            }),
        }
    }
    entries
}

/// One value after the other, if there are not too many.
pub fn flat(entries: Vec<Entry>) -> Result<Metadata, tonic::Status> {
    let lists = entries.iter().filter_map(|entry| entry.list.as_ref());
    let count: usize = lists.map(|list| list.values.len()).sum();
    if count > MOST_HEADERS {
        return Err(tonic::Status::resource_exhausted(format!(
            "a message between sidecars has {count} headers: send {MOST_HEADERS} at most"
        )));
    }
    let mut metadata = Vec::with_capacity(count);
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
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use outrider_proto::internals::v1 as maps;
    use prost::Message as _;

    use super::*;

    fn metadata() -> Metadata {
        [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]
            .map(|(name, value)| (name.to_owned(), Bytes::from_static(value.as_bytes())))
            .to_vec()
    }

    #[test]
    fn many_names_are_gathered_in_no_time() {
        let started = std::time::Instant::now();
        let name = |n: usize| format!("x-{}", n % 150_000);
        let metadata = (0..300_000).map(|n| (name(n), Bytes::from(n.to_string())));
        let entries = gathered(metadata.collect());
        assert_eq!(entries.len(), 150_000);
        let list = entries[0].list.as_ref().unwrap();
        assert_eq!(list.values, ["0", "150000"]);
        assert!(started.elapsed().as_secs() < 5);
        assert!(flat(entries).is_err());
    }

    #[test]
    fn values_stay_under_their_names_in_order() {
        let entries = gathered(metadata());
        assert_eq!(entries.len(), 2);
        let text = |(name, value): (String, Bytes)| name + std::str::from_utf8(&value).unwrap();
        let back: Vec<_> = flat(entries).unwrap().into_iter().map(text).collect();
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
        let mut headers = flat(read.headers).unwrap();
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(headers.len(), 4);
        assert_eq!(headers[3].1, "2");
        assert_eq!(read.status.unwrap().code, 200);
    }

    #[test]
    fn headers_are_measured_before_they_are_decoded() {
        let entries = |number: usize| [0x12, 0].repeat(number);
        let few = entries(1000);
        let many = entries(MOST_HEADER_BYTES);
        assert!(check_headers(&few, None, &[2]).is_ok());
        assert!(check_headers(&many, None, &[2]).is_err());
        assert!(check_headers(&many, None, &[3]).is_ok());
        let piece = |request: &[u8]| {
            let mut piece = vec![0x0a];
            prost::encoding::encode_varint(request.len() as u64, &mut piece);
            piece.extend_from_slice(request);
            piece
        };
        assert!(check_headers(&piece(&few), Some(1), &[2]).is_ok());
        assert!(check_headers(&piece(&many), Some(1), &[2]).is_err());
        // Bytes that make no sense are left to the decoder.
        for noise in [&b"\xff"[..], b"\x12\xff\xff\xff\xff\x0f", b"\x12\x7f"] {
            assert!(check_headers(noise, None, &[2]).is_ok());
        }
    }
}
