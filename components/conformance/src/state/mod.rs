//! The suite for state stores.

mod query;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use outrider_components::state::{
    BulkError, Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikeRequest, Operation,
    SetRequest, Store, TTL_EXPIRE_TIME, TTL_IN_SECONDS, Value,
};
use outrider_components::{Kind, Pairs};

use crate::server::Server;
use crate::{eventually, unique};

/// What a store promises beyond its features.
#[derive(Debug, Clone, Copy)]
pub struct Promises {
    /// A JSON value keeps its text, and may have any character.
    pub keeps_text: bool,
    /// A key may have any character.
    pub any_key: bool,
}

impl Default for Promises {
    fn default() -> Promises {
        Promises {
            keeps_text: true,
            any_key: true,
        }
    }
}

/// Tests everything that the store claims to do, and that JSON keeps its text.
pub async fn run(store: &dyn Store) {
    run_with(store, Promises::default()).await;
}

/// Tests everything that the store claims to do.
pub async fn run_with(store: &dyn Store, promises: Promises) {
    store.ping().await.expect("ping");
    values(store, promises).await;
    bulk(store).await;
    let claims = |feature| store.features().contains(&feature);
    if claims(Feature::Etag) {
        etags(store).await;
        first_write(store).await;
        counter(store).await;
    }
    if claims(Feature::Ttl) {
        expiry(store).await;
    }
    if claims(Feature::Transactional) {
        transactions(store).await;
    } else {
        let refused = store.transact(&[], &Pairs::new()).await;
        assert_eq!(
            refused.expect_err("is not claimed").kind(),
            Kind::Unsupported
        );
    }
    if claims(Feature::DeleteWithPrefix) {
        delete_with_prefix(store).await;
    } else {
        let refused = store.delete_with_prefix("a||").await;
        assert_eq!(
            refused.expect_err("is not claimed").kind(),
            Kind::Unsupported
        );
    }
    if claims(Feature::KeysLike) {
        keys_like(store).await;
    }
    assert_eq!(claims(Feature::QueryApi), store.can_query());
    if store.can_query() {
        query::run(store).await;
    }
    store.close().await.expect("close");
}

fn json(text: &str) -> Value {
    Value::Json(Bytes::copy_from_slice(text.as_bytes()))
}

async fn get(store: &dyn Store, key: &str) -> Option<Item> {
    store.get(&GetRequest::new(key)).await.expect("get")
}

async fn text(store: &dyn Store, key: &str) -> Option<String> {
    get(store, key)
        .await
        .map(|item| String::from_utf8(item.value.to_vec()).expect("is text"))
}

async fn set(store: &dyn Store, key: &str, text: &str) {
    store
        .set(&SetRequest::new(key, json(text)))
        .await
        .expect("set");
}

async fn etag(store: &dyn Store, key: &str) -> String {
    get(store, key)
        .await
        .expect("is there")
        .etag
        .expect("has an etag")
}

fn with_etag(key: &str, text: &str, etag: &str) -> SetRequest {
    SetRequest {
        etag: Some(etag.to_owned()),
        ..SetRequest::new(key, json(text))
    }
}

async fn values(store: &dyn Store, promises: Promises) {
    let key = unique("value");
    assert_eq!(get(store, &key).await, None);
    let large = vec![7; 1 << 20];
    let values: [(&str, Value); 6] = [
        (
            "object",
            json(if promises.keeps_text {
                r#"{"a":[1,"ü\u0000"]}"#
            } else {
                r#"{"a": [1, "ü"]}"#
            }),
        ),
        ("string", json(r#""text""#)),
        ("null", json("null")),
        (
            "bytes",
            Value::Binary(Bytes::from_static(&[0, 255, 13, 10])),
        ),
        ("empty", Value::Binary(Bytes::new())),
        ("large", Value::Binary(Bytes::from(large))),
    ];
    for (what, value) in values {
        let request = SetRequest::new(key.as_str(), value.clone());
        store.set(&request).await.expect(what);
        let item = get(store, &key).await.expect(what);
        assert_eq!(&item.value, value.bytes(), "{what}");
    }
    store
        .delete(&DeleteRequest::new(key.as_str()))
        .await
        .expect("delete");
    assert_eq!(get(store, &key).await, None);
    store
        .delete(&DeleteRequest::new(key.as_str()))
        .await
        .expect("deleting nothing is no error");

    if !promises.any_key {
        return;
    }
    let odd = format!("{key} ' \" % _ || \\ ü");
    set(store, &odd, "1").await;
    assert_eq!(text(store, &odd).await.as_deref(), Some("1"));
}

async fn bulk(store: &dyn Store) {
    let prefix = unique("bulk");
    let keys: Vec<String> = (0..30).map(|n| format!("{prefix}-{n}")).collect();
    let written: Vec<_> = keys
        .iter()
        .filter(|key| !key.ends_with('3'))
        .map(|key| SetRequest::new(key.as_str(), json(&format!("{key:?}"))))
        .collect();
    store.bulk_set(&written, 4).await.expect("bulk set");

    let requests: Vec<_> = keys.iter().map(GetRequest::new).collect();
    let items = store.bulk_get(&requests, 0).await.expect("bulk get");
    assert_eq!(items.len(), keys.len());
    for (key, item) in keys.iter().zip(items) {
        assert_eq!(&item.key, key, "in the order of the request");
        let value = item.result.expect("get").map(|item| item.value);
        let wanted = (!key.ends_with('3')).then(|| Bytes::from(format!("{key:?}")));
        assert_eq!(value, wanted);
    }
    assert!(
        store
            .bulk_get(&[], 0)
            .await
            .expect("nothing asked")
            .is_empty()
    );

    let deletions: Vec<_> = keys.iter().map(DeleteRequest::new).collect();
    store.bulk_delete(&deletions, 0).await.expect("bulk delete");
    let items = store.bulk_get(&requests, 0).await.expect("bulk get");
    assert!(items.iter().all(|item| matches!(item.result, Ok(None))));

    if store.features().contains(&Feature::Etag) {
        set(store, &keys[0], "1").await;
        let stale = etag(store, &keys[0]).await;
        set(store, &keys[0], "2").await;
        let requests = [
            with_etag(&keys[0], "3", &stale),
            SetRequest::new(keys[1].as_str(), json("3")),
        ];
        match store
            .bulk_set(&requests, 0)
            .await
            .expect_err("one is stale")
        {
            BulkError::Items(failed) => {
                let [item] = &failed[..] else {
                    panic!("{failed:?}")
                };
                assert_eq!((item.index, item.error.kind()), (0, Kind::EtagMismatch));
                assert_eq!(text(store, &keys[1]).await.as_deref(), Some("3"));
            }
            BulkError::Whole(error) => {
                assert_eq!(error.kind(), Kind::EtagMismatch);
                assert_eq!(text(store, &keys[1]).await, None);
            }
        }
        assert_eq!(text(store, &keys[0]).await.as_deref(), Some("2"));
    }
}

async fn etags(store: &dyn Store) {
    let key = unique("etag");
    set(store, &key, "1").await;
    let first = etag(store, &key).await;
    assert_eq!(etag(store, &key).await, first, "reading changes nothing");
    store
        .set(&with_etag(&key, "2", &first))
        .await
        .expect("the etag is right");
    let second = etag(store, &key).await;
    assert_ne!(second, first);

    let error = store
        .set(&with_etag(&key, "3", &first))
        .await
        .expect_err("is stale");
    assert_eq!(error.kind(), Kind::EtagMismatch);
    assert!(
        error
            .to_string()
            .starts_with("possible etag mismatch. error from state store")
    );
    assert!(!error.retry_safe());
    assert_eq!(text(store, &key).await.as_deref(), Some("2"));

    let mut delete = DeleteRequest {
        etag: Some(first),
        ..DeleteRequest::new(key.as_str())
    };
    let error = store.delete(&delete).await.expect_err("is stale");
    assert_eq!(error.kind(), Kind::EtagMismatch);
    assert!(get(store, &key).await.is_some());

    let empty = SetRequest {
        etag: Some(String::new()),
        ..SetRequest::new(key.as_str(), json("4"))
    };
    store.set(&empty).await.expect("an empty etag is none");
    delete.etag = Some(etag(store, &key).await);
    store.delete(&delete).await.expect("the etag is right");
    assert_eq!(get(store, &key).await, None);

    let garbage = with_etag(&key, "5", "not-an-etag");
    let error = store
        .set(&garbage)
        .await
        .expect_err("is no etag of this store");
    assert!(error.is_etag(), "{error}");
}

async fn first_write(store: &dyn Store) {
    let key = unique("first");
    let request = |text: &str| SetRequest {
        concurrency: Concurrency::FirstWrite,
        ..SetRequest::new(key.as_str(), json(text))
    };
    let requests: Vec<_> = (0..8).map(|n| request(&n.to_string())).collect();
    let results = join_all(requests.iter().map(|request| store.set(request))).await;
    let winners: Vec<_> = (0..8).filter(|n| results[*n].is_ok()).collect();
    let [winner] = winners[..] else {
        panic!("exactly one may be first: {winners:?}");
    };
    assert_eq!(text(store, &key).await, Some(winner.to_string()));
    let error = store
        .set(&request("\"late\""))
        .await
        .expect_err("is not the first");
    assert!(!error.retry_safe());

    let last = SetRequest {
        concurrency: Concurrency::LastWrite,
        ..request("\"last\"")
    };
    store
        .set(&last)
        .await
        .expect("the last write wins when asked to");

    let plain = unique("plain");
    set(store, &plain, "1").await;
    let late = SetRequest {
        concurrency: Concurrency::FirstWrite,
        ..SetRequest::new(plain.as_str(), json("2"))
    };
    store.set(&late).await.expect_err("is not the first");
    assert_eq!(text(store, &plain).await.as_deref(), Some("1"));
}

/// Ten writers that read a number, add one and write it with the etag lose none.
async fn counter(store: &dyn Store) {
    let key = unique("counter");
    set(store, &key, "0").await;
    let add = || async {
        let mut added = 0;
        while added < 5 {
            let item = get(store, &key).await.expect("is there");
            let count: u32 = std::str::from_utf8(&item.value)
                .expect("is text")
                .parse()
                .expect("is a number");
            let etag = item.etag.expect("has an etag");
            match store
                .set(&with_etag(&key, &(count + 1).to_string(), &etag))
                .await
            {
                Ok(()) => added += 1,
                Err(error) => assert_eq!(error.kind(), Kind::EtagMismatch, "{error}"),
            }
        }
    };
    join_all((0..10).map(|_| add())).await;
    assert_eq!(text(store, &key).await.as_deref(), Some("50"));
}

fn expiring(key: &str, seconds: &str) -> SetRequest {
    SetRequest {
        metadata: Pairs::from([(TTL_IN_SECONDS.to_owned(), seconds.to_owned())]),
        ..SetRequest::new(key, json("1"))
    }
}

async fn expiry(store: &dyn Store) {
    let key = unique("ttl");
    let stays = unique("stays");
    store.set(&expiring(&stays, "1000")).await.expect("set");
    store.set(&expiring(&key, "1")).await.expect("set");
    if let Some(time) = get(store, &stays)
        .await
        .expect("is there")
        .metadata
        .get(TTL_EXPIRE_TIME)
    {
        assert!(
            time.ends_with('Z') && time.len() == 20,
            "RFC 3339 in UTC: {time}"
        );
    }
    eventually("the item expires", Duration::from_secs(5), || async {
        get(store, &key).await.is_none()
    })
    .await;
    let items = store
        .bulk_get(&[GetRequest::new(key.as_str())], 0)
        .await
        .expect("bulk get");
    assert!(matches!(items[0].result, Ok(None)));
    assert!(get(store, &stays).await.is_some());
    let first = SetRequest {
        concurrency: Concurrency::FirstWrite,
        ..SetRequest::new(key.as_str(), json("2"))
    };
    store
        .set(&first)
        .await
        .expect("the expired item does not count");

    for text in ["soon", "1.5"] {
        let error = store
            .set(&expiring(&key, text))
            .await
            .expect_err("is not a number");
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
    }
}

async fn transactions(store: &dyn Store) {
    let none = Pairs::new();
    let [one, two, gone] = ["one", "two", "gone"].map(unique);
    set(store, &gone, "1").await;
    let upsert = |key: &str, text: &str| Operation::Upsert(SetRequest::new(key, json(text)));
    let delete = |key: &str| Operation::Delete(DeleteRequest::new(key));
    store
        .transact(
            &[
                upsert(&one, "1"),
                upsert(&two, "1"),
                delete(&gone),
                upsert(&one, "2"),
            ],
            &none,
        )
        .await
        .expect("no etag is wrong");
    assert_eq!(
        text(store, &one).await.as_deref(),
        Some("2"),
        "in their order"
    );
    assert_eq!(text(store, &two).await.as_deref(), Some("1"));
    assert_eq!(get(store, &gone).await, None);
    store.transact(&[], &none).await.expect("nothing to do");

    if store.features().contains(&Feature::Etag) {
        let stale = etag(store, &two).await;
        set(store, &two, "3").await;
        let bound = Operation::Upsert(with_etag(&two, "4", &stale));
        let error = store
            .transact(&[upsert(&one, "4"), bound.clone(), delete(&one)], &none)
            .await
            .expect_err("the etag is stale");
        assert!(!error.retry_safe());
        assert_eq!(
            text(store, &one).await.as_deref(),
            Some("2"),
            "nothing has happened"
        );
        assert_eq!(text(store, &two).await.as_deref(), Some("3"));
        store
            .transact(&[bound], &none)
            .await
            .expect_err("alone too");

        let right = etag(store, &two).await;
        let bound = Operation::Delete(DeleteRequest {
            etag: Some(right),
            ..DeleteRequest::new(two.as_str())
        });
        store
            .transact(&[bound, upsert(&one, "5")], &none)
            .await
            .expect("the etag is right");
        assert_eq!(get(store, &two).await, None);
        assert_eq!(text(store, &one).await.as_deref(), Some("5"));
    }
    if store.features().contains(&Feature::Ttl) {
        let bad = Operation::Upsert(expiring(&two, "soon"));
        store
            .transact(&[upsert(&one, "6"), bad], &none)
            .await
            .expect_err("is not a number");
        assert_eq!(text(store, &one).await.as_deref(), Some("5"));
        let short = Operation::Upsert(expiring(&two, "1"));
        store
            .transact(&[short, upsert(&one, "7")], &none)
            .await
            .expect("fits");
        eventually("the item expires", Duration::from_secs(5), || async {
            get(store, &two).await.is_none()
        })
        .await;
    }
}

async fn delete_with_prefix(store: &dyn Store) {
    let actor = unique("app||type||id");
    for key in ["a", "b", "deeper||c"] {
        set(store, &format!("{actor}||{key}"), "1").await;
    }
    set(store, &format!("{actor}x||a"), "1").await;
    assert_eq!(store.delete_with_prefix(&actor).await.expect("deletes"), 2);
    assert_eq!(
        store
            .delete_with_prefix(&format!("{actor}||"))
            .await
            .expect("deletes"),
        0
    );
    assert!(get(store, &format!("{actor}||deeper||c")).await.is_some());
    assert!(get(store, &format!("{actor}x||a")).await.is_some());
    for prefix in ["", "||"] {
        let error = store
            .delete_with_prefix(prefix)
            .await
            .expect_err("would delete all");
        assert_eq!(error.kind(), Kind::Invalid);
    }
}

async fn keys_like(store: &dyn Store) {
    let prefix = unique("like");
    let keys: HashSet<String> = (0..25).map(|n| format!("{prefix}||{n:02}||m")).collect();
    for key in &keys {
        set(store, key, "1").await;
    }
    set(store, &format!("{prefix}||x%y"), "1").await;
    let ask = |pattern: String, continuation: Option<String>, page_size: Option<u32>| async move {
        let request = KeysLikeRequest {
            pattern,
            continuation,
            page_size,
        };
        store.keys_like(&request).await.expect("lists")
    };

    let all = ask(format!("{prefix}||%||m"), None, None).await;
    assert_eq!(all.continuation, None);
    assert_eq!(all.keys.len(), 25, "each once");
    assert_eq!(all.keys.into_iter().collect::<HashSet<_>>(), keys);

    let mut paged = Vec::new();
    let mut continuation = None;
    loop {
        let page = ask(format!("{prefix}||%||m"), continuation, Some(10)).await;
        assert!(page.keys.len() <= 10);
        paged.extend(page.keys);
        continuation = page.continuation;
        if continuation.is_none() {
            break;
        }
    }
    assert_eq!(paged.len(), 25, "each once");
    assert_eq!(paged.into_iter().collect::<HashSet<_>>(), keys);

    let ten = ask(format!("{prefix}||0_||m"), None, None).await;
    assert_eq!(ten.keys.len(), 10);
    let literal = ask(format!(r"{prefix}||x\%y"), None, None).await;
    assert_eq!(literal.keys, [format!("{prefix}||x%y")]);
    let error = store
        .keys_like(&KeysLikeRequest::default())
        .await
        .expect_err("no pattern");
    assert_eq!(error.to_string(), "keys like pattern cannot be empty");
}

/// While it is written to, the server dies and comes back. What the store has
/// acknowledged is there, and writes go on by themselves.
pub async fn survives(store: &dyn Store, server: &mut Server) {
    let prefix = unique("survives");
    let key = |n: usize| format!("{prefix}-{n}");
    let outage = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.restart().await;
        std::time::Instant::now()
    };
    let mut acknowledged = Vec::new();
    let mut failed = false;
    let writes = async {
        for n in 0.. {
            let request = SetRequest::new(key(n), json(&n.to_string()));
            match store.set(&request).await {
                Ok(()) => acknowledged.push((n, std::time::Instant::now())),
                Err(_) => failed = true,
            }
            // Each of them is read afterwards.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let back = {
        let mut back = None;
        let watched = async {
            back = Some(outage.await);
            tokio::time::sleep(Duration::from_secs(5)).await;
        };
        tokio::select! {
            () = watched => {}
            () = writes => panic!("the writes have an end"),
        }
        back.expect("the server is back")
    };
    assert!(failed, "the outage was seen");
    let resumed = acknowledged.iter().any(|(_, at)| *at > back);
    assert!(resumed, "writes go on within five seconds");
    for (n, _) in acknowledged {
        assert_eq!(text(store, &key(n)).await, Some(n.to_string()), "{n}");
    }
}
