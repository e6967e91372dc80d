use std::str::FromStr;

use bytes::Bytes;

use crate::{Error, Pairs};

/// Request metadata: after how many seconds the item expires.
pub const TTL_IN_SECONDS: &str = "ttlInSeconds";
/// Answer metadata: when the item expires, in RFC 3339.
pub const TTL_EXPIRE_TIME: &str = "ttlExpireTime";

/// A value to store. Some stores keep JSON and bytes in different ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The text of one JSON document.
    Json(Bytes),
    /// Any bytes.
    Binary(Bytes),
}

impl Value {
    /// The bytes that a later get returns.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Value::Json(bytes) | Value::Binary(bytes) => bytes,
        }
    }
}

/// Which of two concurrent writes wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Concurrency {
    /// The store's default, which is the last write in all stores here.
    #[default]
    Unspecified,
    /// Without an etag, only a key that does not exist may be written.
    FirstWrite,
    /// The last write wins.
    LastWrite,
}

impl FromStr for Concurrency {
    type Err = Error;

    fn from_str(text: &str) -> Result<Concurrency, Error> {
        match text {
            "" => Ok(Concurrency::Unspecified),
            "first-write" => Ok(Concurrency::FirstWrite),
            "last-write" => Ok(Concurrency::LastWrite),
            other => Err(Error::invalid(format!(
                "unrecognized concurrency model '{other}'"
            ))),
        }
    }
}

/// How many replicas have to agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Consistency {
    /// The store's own default.
    #[default]
    Unspecified,
    /// One replica is enough.
    Eventual,
    /// All or a quorum of replicas.
    Strong,
}

impl FromStr for Consistency {
    type Err = Error;

    fn from_str(text: &str) -> Result<Consistency, Error> {
        match text {
            "" => Ok(Consistency::Unspecified),
            "eventual" => Ok(Consistency::Eventual),
            "strong" => Ok(Consistency::Strong),
            other => Err(Error::invalid(format!(
                "unrecognized consistency model '{other}'"
            ))),
        }
    }
}

/// Reads one item.
#[derive(Debug, Clone, Default)]
pub struct GetRequest {
    /// The whole key, prefix included.
    pub key: String,
    /// The client's metadata.
    pub metadata: Pairs,
    /// How many replicas have to agree.
    pub consistency: Consistency,
}

impl GetRequest {
    /// Reads `key` with every default.
    pub fn new(key: impl Into<String>) -> GetRequest {
        GetRequest {
            key: key.into(),
            ..GetRequest::default()
        }
    }
}

/// An item as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// The bytes that were stored.
    pub value: Bytes,
    /// The version of the item, if the store keeps one.
    pub etag: Option<String>,
    /// More about the item, such as [`TTL_EXPIRE_TIME`].
    pub metadata: Pairs,
    /// The content type, if the store keeps it.
    pub content_type: Option<String>,
}

/// Writes one item.
#[derive(Debug, Clone)]
pub struct SetRequest {
    /// The whole key, prefix included.
    pub key: String,
    /// What to store.
    pub value: Value,
    /// The version that must be there now.
    pub etag: Option<String>,
    /// The client's metadata, such as [`TTL_IN_SECONDS`].
    pub metadata: Pairs,
    /// Which of two concurrent writes wins.
    pub concurrency: Concurrency,
    /// How many replicas have to agree.
    pub consistency: Consistency,
    /// The content type, for stores that keep it.
    pub content_type: Option<String>,
}

impl SetRequest {
    /// Writes `value` under `key` with every default.
    pub fn new(key: impl Into<String>, value: Value) -> SetRequest {
        SetRequest {
            key: key.into(),
            value,
            etag: None,
            metadata: Pairs::new(),
            concurrency: Concurrency::default(),
            consistency: Consistency::default(),
            content_type: None,
        }
    }

    /// The etag, if there is one that is not empty.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.is_empty())
    }

    /// Seconds from now to the item's expiry, the way most stores read them:
    /// zero and -1 mean that it stays.
    pub fn ttl(&self) -> Result<Option<u32>, Error> {
        let Some(text) = self
            .metadata
            .get(TTL_IN_SECONDS)
            .filter(|text| !text.is_empty())
        else {
            return Ok(None);
        };
        let wrong = |what: &str| {
            Error::invalid(format!(
                "incorrect value for metadata '{TTL_IN_SECONDS}': {what}"
            ))
        };
        let seconds: i64 = text.parse().map_err(|_| {
            let quoted = outrider_kit::quote::go(text);
            wrong(&format!(
                "strconv.ParseInt: parsing {quoted}: invalid syntax"
            ))
        })?;
        match seconds {
            -1 => Ok(Some(0)),
            0..=0x7fff_ffff => Ok(u32::try_from(seconds).ok()),
            _ => Err(wrong("must be -1 or greater")),
        }
    }
}

/// Deletes one item.
#[derive(Debug, Clone, Default)]
pub struct DeleteRequest {
    /// The whole key, prefix included.
    pub key: String,
    /// The version that must be there now.
    pub etag: Option<String>,
    /// The client's metadata.
    pub metadata: Pairs,
    /// Which of two concurrent writes wins.
    pub concurrency: Concurrency,
    /// How many replicas have to agree.
    pub consistency: Consistency,
}

impl DeleteRequest {
    /// Deletes `key` with every default.
    pub fn new(key: impl Into<String>) -> DeleteRequest {
        DeleteRequest {
            key: key.into(),
            ..DeleteRequest::default()
        }
    }

    /// The etag, if there is one that is not empty.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.is_empty())
    }
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Writes an item, new or not.
    Upsert(SetRequest),
    /// Deletes an item.
    Delete(DeleteRequest),
}

impl Operation {
    /// The key it is about.
    pub fn key(&self) -> &str {
        match self {
            Operation::Upsert(request) => &request.key,
            Operation::Delete(request) => &request.key,
        }
    }

    /// The client's metadata.
    pub fn metadata(&self) -> &Pairs {
        match self {
            Operation::Upsert(request) => &request.metadata,
            Operation::Delete(request) => &request.metadata,
        }
    }
}

/// Lists keys by an SQL `LIKE` pattern; a backslash escapes.
#[derive(Debug, Clone, Default)]
pub struct KeysLikeRequest {
    /// The pattern.
    pub pattern: String,
    /// Where the page before this one ended.
    pub continuation: Option<String>,
    /// How many keys fit on a page; `None` means all.
    pub page_size: Option<u32>,
}

impl KeysLikeRequest {
    /// The pattern, which must not be empty.
    pub fn pattern(&self) -> Result<&str, Error> {
        if self.pattern.is_empty() {
            return Err(Error::invalid("keys like pattern cannot be empty"));
        }
        Ok(&self.pattern)
    }
}

/// Some of the keys that match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeysLikePage {
    /// The keys, oldest first.
    pub keys: Vec<String>,
    /// Where the next page starts, if there is one.
    pub continuation: Option<String>,
}
