//! Bodies of requests and answers, in JSON. Keys match in any case.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use outrider_components::Pairs;
use outrider_components::bindings::Request;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::blocks::error::{Result, malformed};
use crate::blocks::json::shape::{self, Shape};
use crate::blocks::state::decode::first;

const INVOCATION: Shape = Shape::Struct(
    "http.OutputBindingRequest",
    &[
        ("metadata", shape::PAIRS),
        ("data", Shape::Any),
        ("operation", Shape::Text),
    ],
);

/// An invocation over HTTP. What comes behind the object is not looked at.
#[derive(Default)]
struct Invocation<'a> {
    data: Option<&'a RawValue>,
    metadata: Pairs,
    operation: String,
}

impl<'de> Deserialize<'de> for Invocation<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Invocation<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_unit<E>(self) -> std::result::Result<Invocation<'de>, E> {
                Ok(Invocation::default())
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut access: A,
            ) -> std::result::Result<Invocation<'de>, A::Error> {
                let mut into = Invocation::default();
                while let Some(name) = access.next_key::<Cow<'de, str>>()? {
                    match name.to_ascii_lowercase().as_str() {
                        "data" => into.data = access.next_value()?,
                        "metadata" => {
                            into.metadata = access.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        "operation" => {
                            into.operation = access.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        _ => drop(access.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(into)
            }
        }

        deserializer.deserialize_any(Fields)
    }
}

/// The request of an HTTP client. Its data goes on as the JSON that it is,
/// text with its quotes.
pub fn request(body: &Bytes) -> Result<Request> {
    let invocation: Invocation<'_> = first(body, &INVOCATION).map_err(malformed)?;
    let data = invocation.data.map(|data| data.get().as_bytes());
    Ok(Request {
        operation: invocation.operation,
        data: data.map_or_else(|| Bytes::from_static(b"null"), |data| body.slice_ref(data)),
        metadata: invocation.metadata,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_keeps_its_text_and_its_quotes() {
        let body = br#"{"Operation":"create","DATA":"x","metadata":{"k":"v"},"other":[1]} rest"#;
        let read = request(&Bytes::from_static(body)).unwrap();
        assert_eq!(read.operation, "create");
        assert_eq!(read.data, r#""x""#);
        assert_eq!(read.metadata["k"], "v");
        let body = br#"{"data": {"b": 1.0}, "metadata": null}"#;
        let read = request(&Bytes::from_static(body)).unwrap();
        assert_eq!(read.data, r#"{"b": 1.0}"#);
        for body in ["null", "{}", r#"{"operation":null}"#] {
            let read = request(&Bytes::from(body)).unwrap();
            assert_eq!((read.operation.as_str(), &*read.data), ("", &b"null"[..]));
        }
    }

    #[test]
    fn what_is_refused() {
        let message = |body: &'static [u8]| request(&Bytes::from(body)).unwrap_err().message;
        assert_eq!(message(b""), "EOF");
        assert_eq!(message(b"{\"data\":"), "unexpected EOF");
        assert_eq!(
            message(b"[]"),
            "json: cannot unmarshal array into Go value of type http.OutputBindingRequest"
        );
        assert_eq!(
            message(br#"{"metadata":{"a":1}}"#),
            "json: cannot unmarshal number into Go struct field OutputBindingRequest.metadata of type string"
        );
    }

    proptest! {
        #[test]
        fn prop_never_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = request(&Bytes::from(body));
        }
    }
}
