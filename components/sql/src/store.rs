//! What the state stores on SQL databases share: the keys and the answers of
//! requests.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use outrider_components::state::{
    BulkItem, GetRequest, Item, KeysLikePage, SetRequest, TTL_EXPIRE_TIME, expire_time,
};
use outrider_components::{Error, Pairs};

/// The key, which must not be empty.
pub fn non_empty<'a>(key: &'a str, operation: &str) -> Result<&'a str, Error> {
    if key.is_empty() {
        return Err(Error::invalid(format!("missing key in {operation}")));
    }
    Ok(key)
}

/// Seconds after which the item of a request expires; `None` if it stays.
pub fn seconds(request: &SetRequest) -> Result<Option<u32>, Error> {
    let seconds = request
        .ttl()
        .map_err(|error| error.context("error parsing TTL"))?;
    Ok(seconds.filter(|seconds| *seconds > 0))
}

/// The metadata of an item that expires this many seconds after 1970 began.
pub fn expiry(seconds: Option<i64>) -> Pairs {
    seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or_else(Pairs::new, |seconds| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Pairs::from([(TTL_EXPIRE_TIME.to_owned(), expire_time(time))])
        })
}

/// The answers to a bulk get, in the order of its requests.
pub fn in_order(
    requests: &[GetRequest],
    found: &HashMap<String, Result<Item, Error>>,
) -> Vec<BulkItem> {
    requests
        .iter()
        .map(|request| BulkItem {
            key: request.key.clone(),
            result: match found.get(&request.key) {
                None => Ok(None),
                Some(Ok(item)) => Ok(Some(item.clone())),
                Some(Err(error)) => Err(Error::new(error.kind(), error.to_string())),
            },
        })
        .collect()
}

/// The row number that a page of keys starts after.
pub fn page_start(continuation: Option<&str>) -> Result<i64, Error> {
    match continuation.filter(|text| !text.is_empty()) {
        None => Ok(i64::MIN),
        Some(text) => text
            .parse()
            .map_err(|_| Error::invalid(format!("invalid continue token: {text}"))),
    }
}

/// A page of keys, each with its row number. `limit` rows were asked for.
pub fn page(rows: Vec<(String, i64)>, limit: Option<u32>) -> KeysLikePage {
    let is_full = limit.is_some_and(|limit| usize::try_from(limit) == Ok(rows.len()));
    let continuation = rows
        .last()
        .filter(|_| is_full)
        .map(|(_, row)| row.to_string());
    KeysLikePage {
        keys: rows.into_iter().map(|(key, _)| key).collect(),
        continuation,
    }
}
