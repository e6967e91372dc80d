use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;
use crate::Kind;

/// Fails on keys that contain `bad`, and counts how many calls overlap.
#[derive(Default)]
struct Probe {
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Probe {
    async fn call(&self, key: &str) -> Result<(), Error> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        if key.contains("bad") {
            return Err(Error::etag_mismatch(""));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Probe {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        self.call(&request.key).await?;
        Ok(Some(Item {
            value: Bytes::copy_from_slice(request.key.as_bytes()),
            ..Item::default()
        }))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        self.call(&request.key).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        self.call(&request.key).await
    }
}

#[tokio::test]
async fn bulk_get_keeps_the_order_and_the_parallelism() {
    let store = Probe::default();
    let keys = ["a", "bad", "c", "d", "e"];
    let requests: Vec<_> = keys.iter().map(|key| GetRequest::new(*key)).collect();

    let items = store.bulk_get(&requests, 2).await.expect("bulk get");

    let found: Vec<_> = items.iter().map(|item| item.key.as_str()).collect();
    assert_eq!(found, keys);
    assert!(items[1].result.is_err());
    assert_eq!(store.most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn bulk_set_returns_the_items_that_failed() {
    let store = Probe::default();
    let requests: Vec<_> = ["a", "bad1", "c", "bad2"]
        .iter()
        .map(|key| SetRequest::new(*key, Value::Json(Bytes::from_static(b"1"))))
        .collect();

    let error = store.bulk_set(&requests, 0).await.expect_err("two are bad");

    assert_eq!(store.most.load(Ordering::SeqCst), 4);
    assert_eq!(
        error.to_string(),
        "possible etag mismatch. error from state store\npossible etag mismatch. error from state store"
    );
    let BulkError::Items(items) = error else {
        panic!("the others were written");
    };
    let failed: Vec<_> = items
        .iter()
        .map(|item| (item.index, item.key.as_str()))
        .collect();
    assert_eq!(failed, [(1, "bad1"), (3, "bad2")]);
}

#[tokio::test]
async fn operations_without_an_implementation_are_unsupported() {
    let error = Probe::default()
        .transact(&[], &Pairs::new())
        .await
        .expect_err("has no transactions");
    assert_eq!(error.kind(), Kind::Unsupported);
}

#[test]
fn unknown_options_are_errors_that_quote_them() {
    assert_eq!(
        "bad"
            .parse::<Concurrency>()
            .expect_err("unknown")
            .to_string(),
        "unrecognized concurrency model 'bad'"
    );
    assert_eq!(
        "bad"
            .parse::<Consistency>()
            .expect_err("unknown")
            .to_string(),
        "unrecognized consistency model 'bad'"
    );
}

#[test]
fn prefixes_end_in_two_bars() {
    assert_eq!(prefix("app||type").expect("is one"), "app||type||");
    assert_eq!(prefix("app||").expect("is one"), "app||");
    assert!(prefix("||").is_err());
    assert!(prefix("").is_err());
}

#[test]
fn expire_times_are_in_whole_seconds() {
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_900);
    assert_eq!(expire_time(time), "2023-11-14T22:13:20Z");
}

#[test]
fn ttl_is_minus_one_or_a_31_bit_number() {
    let ttl = |text: &str| {
        let mut request = SetRequest::new("k", Value::Json(Bytes::new()));
        request
            .metadata
            .insert(TTL_IN_SECONDS.to_owned(), text.to_owned());
        request.ttl().map_err(|error| error.to_string())
    };
    assert_eq!(ttl(""), Ok(None));
    assert_eq!(ttl("60"), Ok(Some(60)));
    assert_eq!(ttl("-1"), Ok(Some(0)));
    for text in ["-2", "2147483648"] {
        let text = ttl(text).expect_err("is out of range");
        assert_eq!(
            text,
            "incorrect value for metadata 'ttlInSeconds': must be -1 or greater"
        );
    }
    assert!(
        ttl("soon")
            .expect_err("is no number")
            .ends_with(r#"parsing "soon": invalid syntax"#)
    );
}
