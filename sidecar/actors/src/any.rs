//! Data of reminders and timers in messages: JSON in a message that holds bytes.

use bytes::Bytes;
use outrider_proto::Any;
use prost::{DecodeError, Message as _};

const BYTES: &str = "google.protobuf.BytesValue";

/// JSON as the scheduler, other sidecars and applications on streams get it.
pub fn of(json: Bytes) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{BYTES}"),
        value: json.encode_to_vec(),
    }
}

/// Whether the message is one that holds bytes.
pub fn is_bytes(any: &Any) -> bool {
    any.type_url.rsplit('/').next() == Some(BYTES)
}

/// What it holds, whatever it says that it is.
pub fn bytes(any: &Any) -> Result<Bytes, DecodeError> {
    Bytes::decode(any.value.as_slice())
}

/// What it holds, which is JSON; or why it is something else.
pub fn json(any: &Any) -> Result<Bytes, String> {
    match is_bytes(any) {
        true => bytes(any).map_err(|error| error.to_string()),
        false => Err(format!("its type is {}", any.type_url)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_of_bytes_are_json() {
        let mut any = of(Bytes::from_static(b"{}"));
        assert_eq!(
            any.type_url,
            "type.googleapis.com/google.protobuf.BytesValue"
        );
        assert_eq!(json(&any).unwrap(), "{}");
        any.type_url = "type.googleapis.com/google.protobuf.StringValue".to_owned();
        assert!(json(&any).is_err());
    }
}
