use std::fmt;

use futures_util::StreamExt;
use futures_util::stream;

use super::{DeleteRequest, GetRequest, Item, SetRequest, Store};
use crate::Error;

/// Operations at a time, at most and by default.
const DEFAULT_PARALLELISM: usize = 100;

/// One answer of a bulk read.
#[derive(Debug)]
pub struct BulkItem {
    /// The key that was asked for.
    pub key: String,
    /// The item, if there is one, or why it could not be read.
    pub result: Result<Option<Item>, Error>,
}

/// One item that could not be written.
#[derive(Debug)]
pub struct ItemError {
    /// Its place in the request.
    pub index: usize,
    /// Its key.
    pub key: String,
    /// Why.
    pub error: Error,
}

/// Why a bulk write failed, wholly or in part.
#[derive(Debug)]
pub enum BulkError {
    /// Nothing was written.
    Whole(Error),
    /// These items were not written, the others were. Never empty.
    Items(Vec<ItemError>),
}

impl From<Error> for BulkError {
    fn from(error: Error) -> BulkError {
        BulkError::Whole(error)
    }
}

impl fmt::Display for BulkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BulkError::Whole(error) => error.fmt(f),
            BulkError::Items(items) => {
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        f.write_str("\n")?;
                    }
                    item.error.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for BulkError {}

fn limit(parallelism: usize) -> usize {
    match parallelism {
        0 => DEFAULT_PARALLELISM,
        wanted => wanted.min(DEFAULT_PARALLELISM),
    }
}

pub(super) async fn get<S: Store + ?Sized>(
    store: &S,
    requests: &[GetRequest],
    parallelism: usize,
) -> Vec<BulkItem> {
    stream::iter(0..requests.len())
        .map(|index| async move {
            let request = &requests[index];
            BulkItem {
                key: request.key.clone(),
                result: store.get(request).await,
            }
        })
        .buffered(limit(parallelism))
        .collect()
        .await
}

pub(super) async fn set<S: Store + ?Sized>(
    store: &S,
    requests: &[SetRequest],
    parallelism: usize,
) -> Result<(), BulkError> {
    let results = stream::iter(0..requests.len())
        .map(|index| async move {
            let request = &requests[index];
            (&request.key, store.set(request).await)
        })
        .buffered(limit(parallelism))
        .collect()
        .await;
    failures(results)
}

pub(super) async fn delete<S: Store + ?Sized>(
    store: &S,
    requests: &[DeleteRequest],
    parallelism: usize,
) -> Result<(), BulkError> {
    let results = stream::iter(0..requests.len())
        .map(|index| async move {
            let request = &requests[index];
            (&request.key, store.delete(request).await)
        })
        .buffered(limit(parallelism))
        .collect()
        .await;
    failures(results)
}

fn failures(results: Vec<(&String, Result<(), Error>)>) -> Result<(), BulkError> {
    let items: Vec<ItemError> = results
        .into_iter()
        .enumerate()
        .filter_map(|(index, (key, result))| {
            result.err().map(|error| ItemError {
                index,
                key: key.clone(),
                error,
            })
        })
        .collect();
    if items.is_empty() {
        Ok(())
    } else {
        Err(BulkError::Items(items))
    }
}
