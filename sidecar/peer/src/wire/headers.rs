//! A map from names to lists of values on the wire, a list of pairs in memory.
//! <https://protobuf.dev/programming-guides/encoding/#maps>

use http::HeaderValue;
use outrider_call::metadata::{Metadata, Name, Text};
use prost::DecodeError;
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{
    self, DecodeContext, WireType, decode_key, encode_key, encode_varint, encoded_len_varint,
    key_len, skip_field,
};

/// Headers that a message of a peer may have.
const MOST: usize = 4096;
/// Bytes of headers that a message of a peer may have. In memory an entry takes
/// many times its bytes on the wire.
const MOST_BYTES: usize = 512 << 10;
/// Up to here it is cheaper to compare each with each than to sort.
const FEW: usize = 64;

/// The fields of an entry, and of the list in it.
const NAME: u32 = 1;
const LIST: u32 = 2;
const VALUE: u32 = 1;

/// Headers of a message.
///
/// Values are strings to others. Those of HTTP need not be UTF-8; a peer that
/// insists on it refuses the call rather than to change a byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers {
    pairs: Metadata,
    order: Order,
    /// Of a message that was read: how many headers it had, and their bytes.
    count: usize,
    bytes: usize,
}

/// What is known of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Order {
    /// No name stands twice.
    Distinct,
    /// Pairs of one name are next to each other.
    Sorted,
    #[default]
    Any,
}

fn has_twice(pairs: &Metadata) -> bool {
    let mut names = pairs.iter().enumerate();
    names.any(|(at, (name, _))| pairs[..at].iter().any(|(other, _)| other == name))
}

impl Headers {
    /// Values are gathered under their names, since a map has every name once.
    /// There are few of them as a rule, mostly different.
    pub fn new(mut pairs: Metadata) -> Self {
        let order = if pairs.len() > FEW {
            // Stable: values of a name keep their order.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
            Order::Sorted
        } else if has_twice(&pairs) {
            Order::Any
        } else {
            Order::Distinct
        };
        Self {
            pairs,
            order,
            ..Self::default()
        }
    }

    /// What was read, if it was not too much.
    pub fn into_metadata(self) -> Result<Metadata, tonic::Status> {
        if self.bytes > MOST_BYTES {
            return Err(tonic::Status::resource_exhausted(format!(
                "a message between sidecars has {} bytes of headers: send {MOST_BYTES} at most",
                self.bytes
            )));
        }
        if self.count > MOST {
            return Err(tonic::Status::resource_exhausted(format!(
                "a message between sidecars has {} headers: send {MOST} at most",
                self.count
            )));
        }
        Ok(self.pairs)
    }

    /// The pairs by their names: the first, and what else has its name.
    fn entries(&self) -> impl Iterator<Item = (&Name, impl Iterator<Item = &HeaderValue> + Clone)> {
        self.pairs.iter().enumerate().filter_map(|(at, (name, _))| {
            let (before, rest) = self.pairs.split_at(at);
            let is_same = move |(other, _): &&(Name, HeaderValue)| other == name;
            let (is_known, end) = match self.order {
                Order::Distinct => (false, 1),
                Order::Sorted => (
                    before.last().as_ref().is_some_and(is_same),
                    rest.iter().take_while(is_same).count(),
                ),
                Order::Any => (before.iter().any(|pair| is_same(&pair)), rest.len()),
            };
            let same = rest.iter().take(end).enumerate();
            let values = same.filter(move |(at, pair)| *at == 0 || is_same(pair));
            (!is_known).then(|| (name, values.map(|(_, (_, value))| value)))
        })
    }

    pub(super) fn encode(&self, tag: u32, buffer: &mut impl BufMut) {
        for (name, values) in self.entries() {
            let list = length(values.clone());
            encode_key(tag, WireType::LengthDelimited, buffer);
            encode_varint((field(name.encoded_len()) + field(list)) as u64, buffer);
            encode_key(NAME, WireType::LengthDelimited, buffer);
            encode_varint(name.encoded_len() as u64, buffer);
            name.put(buffer);
            encode_key(LIST, WireType::LengthDelimited, buffer);
            encode_varint(list as u64, buffer);
            for value in values {
                encode_key(VALUE, WireType::LengthDelimited, buffer);
                encode_varint(value.len() as u64, buffer);
                buffer.put_slice(value.as_bytes());
            }
        }
    }

    pub(super) fn encoded_len(&self, tag: u32) -> usize {
        let entries = self.entries().map(|(name, values)| {
            let entry = field(name.encoded_len()) + field(length(values));
            key_len(tag) + encoded_len_varint(entry as u64) + entry
        });
        entries.sum()
    }

    /// Reads an entry. What is too much is counted and not kept; names and
    /// values that no header can have are left out.
    pub(super) fn merge(
        &mut self,
        kind: WireType,
        buffer: &mut impl Buf,
    ) -> Result<(), DecodeError> {
        let mut entry = delimited(kind, buffer)?;
        // An empty entry has two bytes.
        self.bytes = self.bytes.saturating_add(entry.len() + 2);
        if self.bytes > MOST_BYTES {
            return Ok(());
        }
        let mut name = Some(Text::from_static(""));
        let first = self.pairs.len();
        while entry.has_remaining() {
            match decode_key(&mut entry)? {
                (NAME, kind) => name = Text::new(delimited(kind, &mut entry)?),
                (LIST, kind) => {
                    let list = delimited(kind, &mut entry)?;
                    self.merge_list(list)?;
                }
                (tag, kind) => skip_field(kind, tag, &mut entry, DecodeContext::default())?,
            }
        }
        // The name may stand behind the values.
        match name {
            Some(name) => {
                for (named, _) in &mut self.pairs[first..] {
                    *named = Name::Text(name.clone());
                }
            }
            None => self.pairs.truncate(first),
        }
        Ok(())
    }

    /// Keeps the values of a list, without a name yet.
    fn merge_list(&mut self, mut list: Bytes) -> Result<(), DecodeError> {
        while list.has_remaining() {
            match decode_key(&mut list)? {
                (VALUE, kind) => {
                    let bytes = delimited(kind, &mut list)?;
                    self.count += 1;
                    if self.count > MOST {
                        continue;
                    }
                    if let Ok(value) = HeaderValue::from_maybe_shared(bytes) {
                        self.pairs.push((Name::from_static(""), value));
                    }
                }
                (tag, kind) => skip_field(kind, tag, &mut list, DecodeContext::default())?,
            }
        }
        Ok(())
    }
}

/// Bytes of a field with a length, of the numbers below 16.
fn field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Bytes of a list of values.
fn length<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> usize {
    values.map(|value| field(value.len())).sum()
}

/// The bytes of a field with a length, shared with the message.
fn delimited(kind: WireType, buffer: &mut impl Buf) -> Result<Bytes, DecodeError> {
    let mut bytes = Bytes::new();
    encoding::bytes::merge(kind, &mut bytes, buffer, DecodeContext::default())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use outrider_proto::internals::v1 as maps;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::wire::Request;

    fn pairs(pairs: &[(&str, &str)]) -> Metadata {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (Name::from(*name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn request(metadata: Metadata) -> Request {
        Request {
            metadata: Headers::new(metadata),
            ..Request::default()
        }
    }

    #[test]
    fn values_stay_under_their_names_in_order() {
        let given = pairs(&[("a", "1"), ("b", "2"), ("a", "3"), ("a", "4")]);
        let bytes = Bytes::from(request(given).encode_to_vec());
        let read = Request::decode(bytes).unwrap().metadata;
        let gathered = pairs(&[("a", "1"), ("a", "3"), ("a", "4"), ("b", "2")]);
        assert_eq!(read.into_metadata().unwrap(), gathered);
    }

    #[test]
    fn a_message_with_too_many_headers_is_refused_and_not_kept() {
        let names = (0..MOST + 10).map(|n| format!("x-{n}"));
        let many = names.map(|name| (Name::from(&*name), HeaderValue::from_static("1")));
        let bytes = request(many.collect()).encode_to_vec();
        let read = Request::decode(&*bytes).unwrap().metadata;
        assert!(read.pairs.len() <= MOST);
        let refused = read.into_metadata().unwrap_err();
        assert!(refused.message().contains("4106 headers"), "{refused}");
    }

    #[test]
    fn a_message_with_too_many_bytes_of_headers_is_refused_and_not_kept() {
        let refused = |message: &[u8]| {
            let read = Request::decode(message).unwrap().metadata;
            assert!(read.pairs.len() <= MOST);
            read.into_metadata().is_err()
        };
        assert!(!refused(&[0x12, 0].repeat(1000)));
        assert!(refused(&[0x12, 0].repeat(MOST_BYTES)));
        assert!(!refused(&[0x1a, 0].repeat(MOST_BYTES)));
        let long = HeaderValue::from_bytes(&vec![b'x'; MOST_BYTES]).unwrap();
        assert!(refused(&request(vec![("a".into(), long)]).encode_to_vec()));
    }

    #[test]
    fn many_names_are_gathered_in_no_time() {
        let started = std::time::Instant::now();
        let name = |n: usize| Name::from(&*format!("x-{}", n % 150_000));
        let many = (0..300_000).map(|n| (name(n), HeaderValue::from(n)));
        let headers = Headers::new(many.collect());
        let entries: Vec<_> = headers.entries().collect();
        assert_eq!(entries.len(), 150_000);
        let values: Vec<_> = entries[0].1.clone().collect();
        assert_eq!(values, ["0", "150000"]);
        assert!(started.elapsed().as_secs() < 5);
    }

    #[test]
    fn what_is_no_header_is_left_out() {
        let given = maps::InternalInvokeRequest {
            metadata: [("a", "1\n2"), ("b", "é")]
                .map(|(name, value)| {
                    let values = vec![value.to_owned()];
                    (name.to_owned(), maps::ListStringValue { values })
                })
                .into(),
            ..Default::default()
        };
        let read = Request::decode(&*given.encode_to_vec()).unwrap().metadata;
        let read = read.into_metadata().unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].1.as_bytes(), "é".as_bytes());
        // A name that is not UTF-8.
        let entry = [0x12, 9, 0x0a, 2, 0xff, 0xff, 0x12, 3, 0x0a, 1, b'v'];
        let read = Request::decode(&entry[..]).unwrap().metadata;
        assert!(read.into_metadata().unwrap().is_empty());
        // The values before the name.
        let entry = [0x12, 8, 0x12, 3, 0x0a, 1, b'v', 0x0a, 1, b'n'];
        let read = Request::decode(&entry[..]).unwrap().metadata;
        assert_eq!(read.into_metadata().unwrap(), pairs(&[("n", "v")]));
    }

    proptest! {
        /// Others read a map.
        #[test]
        fn a_map_is_written(given in prop::collection::vec(("[A-Ca-c]{1,2}", "[ -~]{0,3}"), 0..150)) {
            let mut expected = BTreeMap::<String, Vec<String>>::new();
            let mut metadata = Metadata::new();
            for (name, value) in &given {
                expected.entry(name.clone()).or_default().push(value.clone());
                metadata.push((Name::from(&**name), HeaderValue::from_str(value).unwrap()));
            }
            let request = request(metadata);
            let bytes = request.encode_to_vec();
            prop_assert_eq!(bytes.len(), request.encoded_len());
            let read = maps::InternalInvokeRequest::decode(&*bytes).unwrap();
            let read: BTreeMap<_, _> = read.metadata.into_iter().map(|(n, v)| (n, v.values)).collect();
            prop_assert_eq!(read, expected);
        }
    }
}
