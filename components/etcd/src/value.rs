//! How values are kept.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use outrider_components::state::{TTL_EXPIRE_TIME, expire_time};
use outrider_components::{Error, Pairs};
use prost::Message as _;

/// Which form values have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Schema {
    /// As they are.
    Plain,
    /// With the time at which they were written, and how long they stay.
    Dated,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Dated {
    #[prost(bytes = "bytes", tag = "1")]
    data: Bytes,
    #[prost(message, optional, tag = "2")]
    written: Option<prost_types::Timestamp>,
    #[prost(message, optional, tag = "3")]
    stays: Option<prost_types::Duration>,
}

impl Schema {
    pub fn encode(self, data: &Bytes, seconds: Option<u32>) -> Vec<u8> {
        if self == Schema::Plain {
            return data.to_vec();
        }
        let dated = Dated {
            data: data.clone(),
            written: Some(SystemTime::now().into()),
            stays: seconds.map(|seconds| prost_types::Duration {
                seconds: i64::from(seconds),
                nanos: 0,
            }),
        };
        dated.encode_to_vec()
    }

    /// The value, with the metadata that say when it expires.
    pub fn decode(self, kept: Bytes) -> Result<(Bytes, Pairs), Error> {
        if self == Schema::Plain {
            return Ok((kept, Pairs::new()));
        }
        let dated = Dated::decode(kept).map_err(|error| {
            Error::internal(format!("failed to decode the value: {error}")).because(error)
        })?;
        let mut metadata = Pairs::new();
        let written = dated.written.and_then(|at| SystemTime::try_from(at).ok());
        let seconds = dated
            .stays
            .and_then(|stays| u64::try_from(stays.seconds).ok());
        // Dapr writes 0 for what stays.
        if let (Some(written), Some(seconds @ 1..)) = (written, seconds)
            && let Some(time) = written.checked_add(Duration::from_secs(seconds))
        {
            metadata.insert(TTL_EXPIRE_TIME.to_owned(), expire_time(time));
        }
        Ok((dated.data, metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_with_its_expiry_if_it_has_one() {
        let data = Bytes::from_static(b"data");
        let kept = Schema::Dated.encode(&data, None);
        let (value, metadata) = Schema::Dated.decode(kept.into()).expect("is ours");
        assert_eq!((&value, metadata.len()), (&data, 0));
        let kept = Schema::Dated.encode(&data, Some(60));
        let (_, metadata) = Schema::Dated.decode(kept.into()).expect("is ours");
        assert!(metadata[TTL_EXPIRE_TIME].ends_with('Z'));
        assert!(Schema::Dated.decode(Bytes::from_static(b"\xff")).is_err());
    }
}
