//! Request bodies of the HTTP API. Keys match in any case, unknown ones are
//! passed over, and values stay the text that the client wrote.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use outrider_components::state::{DeleteRequest, Operation, SetRequest, Value};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error;
use crate::blocks::error::{Error, Result, malformed};
use crate::blocks::json;
use crate::blocks::json::shape::{self, Shape};

/// One item of a save.
#[derive(Debug, Default)]
pub struct Item {
    pub key: String,
    pub value: Option<Box<RawValue>>,
    pub etag: Option<String>,
    pub metadata: HashMap<String, String>,
    pub concurrency: String,
    pub consistency: String,
    pub content_type: Option<String>,
}

#[derive(Debug, Default)]
pub struct BulkGet {
    pub keys: Vec<String>,
    pub parallelism: i64,
    pub metadata: HashMap<String, String>,
}

#[derive(Debug, Default)]
pub struct Transaction {
    pub operations: Vec<TransactionOperation>,
    pub metadata: HashMap<String, String>,
}

#[derive(Debug, Default)]
pub struct TransactionOperation {
    pub operation: String,
    pub request: Item,
}

/// Decodes an object field by field, by names in lower case.
macro_rules! object {
    ($type:ident { $($name:literal => |$into:ident, $access:ident| $read:expr),+ $(,)? }) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                struct Fields;
                impl<'de> Visitor<'de> for Fields {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_unit<E>(self) -> std::result::Result<$type, E> {
                        Ok($type::default())
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<$type, A::Error> {
                        let mut into = $type::default();
                        while let Some(name) = access.next_key::<Cow<'de, str>>()? {
                            $(if name.eq_ignore_ascii_case($name) {
                                let ($into, $access) = (&mut into, &mut access);
                                $read;
                                continue;
                            })+
                            access.next_value::<IgnoredAny>()?;
                        }
                        Ok(into)
                    }
                }
                deserializer.deserialize_any(Fields)
            }
        }
    };
}

#[derive(Debug, Default)]
struct Options {
    concurrency: String,
    consistency: String,
}

object!(Options {
    "concurrency" => |into, access| into.concurrency = access.next_value::<Option<String>>()?.unwrap_or_default(),
    "consistency" => |into, access| into.consistency = access.next_value::<Option<String>>()?.unwrap_or_default(),
});

object!(Item {
    "key" => |into, access| into.key = access.next_value::<Option<String>>()?.unwrap_or_default(),
    "value" => |into, access| into.value = access.next_value()?,
    "etag" => |into, access| into.etag = access.next_value()?,
    "metadata" => |into, access| into.metadata = access.next_value::<Option<_>>()?.unwrap_or_default(),
    "contentType" => |into, access| into.content_type = access.next_value()?,
    "options" => |into, access| {
        let options: Options = access.next_value()?;
        into.concurrency = options.concurrency;
        into.consistency = options.consistency;
    },
});

object!(BulkGet {
    "keys" => |into, access| into.keys = access.next_value::<Option<_>>()?.unwrap_or_default(),
    "parallelism" => |into, access| into.parallelism = access.next_value::<Option<_>>()?.unwrap_or_default(),
    "metadata" => |into, access| into.metadata = access.next_value::<Option<_>>()?.unwrap_or_default(),
});

object!(Transaction {
    "operations" => |into, access| into.operations = access.next_value::<Option<_>>()?.unwrap_or_default(),
    "metadata" => |into, access| into.metadata = access.next_value::<Option<_>>()?.unwrap_or_default(),
});

object!(TransactionOperation {
    "operation" => |into, access| into.operation = access.next_value::<Option<String>>()?.unwrap_or_default(),
    "request" => |into, access| into.request = access.next_value()?,
});

/// The items of a save.
const ITEMS: Shape = Shape::List(
    "[]state.SetRequest",
    &Shape::Struct(
        "state.SetRequest",
        &[
            ("key", Shape::Text),
            ("value", Shape::Any),
            ("etag", Shape::Text),
            ("metadata", shape::PAIRS),
            (
                "options",
                Shape::Struct(
                    "state.SetStateOption",
                    &[("Concurrency", Shape::Text), ("Consistency", Shape::Text)],
                ),
            ),
            ("contentType", Shape::Text),
        ],
    ),
);

/// What reads several keys.
pub const BULK_GET: Shape = Shape::Struct(
    "http.BulkGetRequest",
    &[
        ("metadata", shape::PAIRS),
        ("keys", Shape::List("[]string", &Shape::Text)),
        ("parallelism", Shape::Int),
    ],
);

/// Several operations at once; their own requests are judged apart.
pub const TRANSACTION: Shape = Shape::Struct(
    "http.stateTransactionRequestBody",
    &[
        (
            "operations",
            Shape::List(
                "[]http.stateTransactionRequestBodyOperation",
                &Shape::Struct(
                    "http.stateTransactionRequestBodyOperation",
                    &[("operation", Shape::Text), ("request", Shape::Any)],
                ),
            ),
        ),
        ("metadata", shape::PAIRS),
    ],
);

/// The first JSON value of `body`; what follows it is not looked at.
pub fn first<'de, T: Deserialize<'de>>(
    body: &'de [u8],
    shape: &Shape,
) -> std::result::Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    T::deserialize(&mut deserializer).map_err(|error| json::decode_error(&error, body, shape))
}

/// The items of a save. `null` is an empty list.
pub fn save(body: &[u8]) -> Result<Vec<Item>> {
    let items: Option<Vec<Item>> = first(body, &ITEMS).map_err(malformed)?;
    let items = items.unwrap_or_default();
    if items.iter().any(|item| item.key.is_empty()) {
        return Err(error::key_required());
    }
    Ok(items)
}

impl Item {
    /// As a request to a store; `metadata` of the query wins over the item's.
    pub fn into_set(
        mut self,
        metadata: &HashMap<String, String>,
    ) -> std::result::Result<SetRequest, outrider_components::Error> {
        self.metadata
            .extend(metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
        let text: Box<str> = self
            .value
            .map_or_else(|| "null".into(), |value| value.into());
        Ok(SetRequest {
            key: self.key,
            value: Value::Json(Bytes::from(text.into_string())),
            etag: self.etag,
            metadata: self.metadata,
            concurrency: self.concurrency.parse()?,
            consistency: self.consistency.parse()?,
            content_type: self.content_type,
        })
    }

    pub fn into_delete(
        mut self,
        metadata: &HashMap<String, String>,
    ) -> std::result::Result<DeleteRequest, outrider_components::Error> {
        self.metadata
            .extend(metadata.iter().map(|(k, v)| (k.clone(), v.clone())));
        Ok(DeleteRequest {
            key: self.key,
            etag: self.etag,
            metadata: self.metadata,
            concurrency: self.concurrency.parse()?,
            consistency: self.consistency.parse()?,
        })
    }
}

impl TransactionOperation {
    pub fn into_operation(self, metadata: &HashMap<String, String>) -> Result<Operation> {
        let wrong = |cause: outrider_components::Error| -> Error { error::transaction(&cause) };
        match self.operation.as_str() {
            "upsert" => Ok(Operation::Upsert(
                self.request.into_set(metadata).map_err(wrong)?,
            )),
            "delete" => Ok(Operation::Delete(
                self.request.into_delete(metadata).map_err(wrong)?,
            )),
            other => Err(error::unsupported_operation(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_text() {
        let items = save(br#"[{"KEY":"a","Value":12345678901234567890,"etag":"3","options":{"Concurrency":"first-write"}},{"key":"b"}] rest"#).unwrap();
        let sets: Vec<_> = items
            .into_iter()
            .map(|i| i.into_set(&HashMap::new()).unwrap())
            .collect();
        assert_eq!(sets[0].value.bytes().as_ref(), b"12345678901234567890");
        assert_eq!(sets[0].etag(), Some("3"));
        assert_eq!(sets[1].value.bytes().as_ref(), b"null");
    }

    #[test]
    fn what_is_refused() {
        let message = |body: &[u8]| save(body).unwrap_err().message;
        assert_eq!(message(b""), "EOF");
        assert_eq!(message(b"[{\"key\":\"a\""), "unexpected EOF");
        assert_eq!(message(b"[{\"value\":1}]"), "\"key\" is a required field");
        assert!(save(b"null").unwrap().is_empty());
    }

    #[test]
    fn transactions() {
        let body = br#"{"operations":[{"operation":"upsert","request":{"key":"a","value":{"x":1}}},{"operation":"swap","request":{"key":"b"}}],"metadata":{"m":"1"}}"#;
        let transaction: Transaction = first(body, &TRANSACTION).unwrap();
        assert_eq!(transaction.metadata["m"], "1");
        let all: Vec<_> = transaction
            .operations
            .into_iter()
            .map(|o| o.into_operation(&HashMap::new()))
            .collect();
        assert_eq!(all[0].as_ref().unwrap().key(), "a");
        assert_eq!(
            all[1].as_ref().unwrap_err().message,
            "operation type swap not supported"
        );
    }

    proptest::proptest! {
        #[test]
        fn prop_never_panics(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = save(&body);
            let _ = first::<Transaction>(&body, &TRANSACTION);
            let _ = first::<BulkGet>(&body, &BULK_GET);
        }
    }
}
