use std::collections::BTreeMap;
use std::time::Duration;

use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use outrider_proto::etcd::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp};
use proptest::prelude::*;

use super::*;

fn put(key: &str, value: &[u8]) -> RequestOp {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_vec().into(),
        ..PutRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestPut(request)),
    }
}

fn delete(key: &str, end: &[u8]) -> RequestOp {
    let request = DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.to_vec().into(),
        prev_kv: false,
    };
    RequestOp {
        request: Some(request_op::Request::RequestDeleteRange(request)),
    }
}

fn at_revision(key: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    }
}

fn ops(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..TxnRequest::default()
    }
}

fn all() -> RangeRequest {
    RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        ..RangeRequest::default()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    runtime_of(runtime).block_on(future)
}

fn runtime_of(mut builder: tokio::runtime::Builder) -> tokio::runtime::Runtime {
    builder.enable_all().build().unwrap()
}

fn keys(response: &RangeResponse) -> Vec<String> {
    let text = |kv: &KeyValue| String::from_utf8_lossy(&kv.key).into_owned();
    response.kvs.iter().map(text).collect()
}

#[test]
fn rows_and_revisions_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        store.txn(ops(vec![put("a", b"1")])).await.unwrap();
        store
            .txn(ops(vec![put("a", b"2"), put("b", b"3")]))
            .await
            .unwrap();
        drop(store);
        // The writer lets go of the file a moment later.
        let (store, _changes) = loop {
            match Embedded::open(folder.path(), i64::MAX) {
                Ok(opened) => break opened,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let found = store.range(all()).await.unwrap();
        assert_eq!(keys(&found), ["a", "b"]);
        let a = &found.kvs[0];
        assert_eq!(
            (a.create_revision, a.mod_revision, a.version, &*a.value),
            (2, 3, 2, b"2".as_slice())
        );
        assert_eq!(found.header.unwrap().revision, 3);
        assert_eq!(store.bytes_in_use(), 4);
    });
}

#[test]
fn a_guard_on_a_revision_decides() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        let create = TxnRequest {
            compare: vec![at_revision("a", 0)],
            ..ops(vec![put("a", b"1")])
        };
        assert!(store.txn(create.clone()).await.unwrap().succeeded);
        assert!(!store.txn(create).await.unwrap().succeeded);
        let remove = |revision| TxnRequest {
            compare: vec![at_revision("a", revision)],
            ..ops(vec![delete("a", b"")])
        };
        assert!(!store.txn(remove(1)).await.unwrap().succeeded);
        assert!(store.txn(remove(2)).await.unwrap().succeeded);
        assert!(store.range(all()).await.unwrap().kvs.is_empty());
    });
}

#[test]
fn prefixes_end_where_they_should() {
    assert_eq!(end_of_prefix(b"ab"), b"ac");
    assert_eq!(end_of_prefix(&[b'a', 255]), b"b");
    assert_eq!(end_of_prefix(&[255]), [0]);
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, mut changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        let names = ["ns", "ns||a", "ns||b", "nsx||a"];
        store
            .txn(ops(names.map(|it| put(it, b"")).to_vec()))
            .await
            .unwrap();
        let prefix = delete("ns||", &end_of_prefix(b"ns||"));
        store.txn(ops(vec![prefix])).await.unwrap();
        let left = store.range(all()).await.unwrap();
        assert_eq!(keys(&left), ["ns", "nsx||a"]);
        let mut deleted = Vec::new();
        while let Ok(change) = changes.try_recv() {
            if let Change::Delete { key, revision } = change {
                deleted.push((key, revision));
            }
        }
        let wanted: [(Bytes, i64); 2] = [("ns||a".into(), 3), ("ns||b".into(), 3)];
        assert_eq!(deleted, wanted);
    });
}

#[test]
fn pages_say_whether_there_is_more() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        store
            .txn(ops(["a", "b", "c"].map(|it| put(it, b"v")).to_vec()))
            .await
            .unwrap();
        let limited = RangeRequest { limit: 2, ..all() };
        let page = store.range(limited).await.unwrap();
        assert_eq!((keys(&page).len(), page.count, page.more), (2, 3, true));
        let counted = RangeRequest {
            count_only: true,
            ..all()
        };
        let counted = store.range(counted).await.unwrap();
        assert_eq!(
            (counted.kvs.len(), counted.count, counted.more),
            (0, 3, false)
        );
    });
}

#[test]
fn a_full_store_takes_nothing_until_the_alarm_is_cleared() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _changes) = Embedded::open(folder.path(), 10).unwrap();
        store.txn(ops(vec![put("a", b"12345")])).await.unwrap();
        let full = store.txn(ops(vec![put("b", b"12345")])).await.unwrap_err();
        assert_eq!(full.code(), tonic::Code::ResourceExhausted);
        assert!(full.message().contains("database space exceeded"));
        store.txn(ops(vec![delete("a", b"")])).await.unwrap();
        assert!(store.txn(ops(vec![put("b", b"1")])).await.is_err());
        store.clear_no_space();
        store.txn(ops(vec![put("b", b"1")])).await.unwrap();
    });
}

#[test]
fn a_transaction_that_cannot_be_done_leaves_nothing_and_stops_no_other() {
    let folder = tempfile::tempdir().unwrap();
    block_on(async {
        let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        let mut half = vec![put("a", b"1"), put("b", b"1")];
        if let Some(request_op::Request::RequestPut(put)) = &mut half[1].request {
            put.ignore_value = true;
        }
        let (half, other) =
            tokio::join!(store.txn(ops(half)), store.txn(ops(vec![put("c", b"1")])));
        assert_eq!(half.unwrap_err().code(), tonic::Code::InvalidArgument);
        other.unwrap();
        assert_eq!(keys(&store.range(all()).await.unwrap()), ["c"]);
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    /// The store is a map with revisions that grow by one with each change.
    #[test]
    fn prop_it_is_a_map(steps in prop::collection::vec((0..4u8, 0..5u8, any::<u8>()), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
            let mut model: BTreeMap<String, (Vec<u8>, i64)> = BTreeMap::new();
            let mut revision = 1;
            for (what, key, value) in steps {
                let key = format!("k{key}");
                let op = match what {
                    0 => delete(&key, b""),
                    _ => put(&key, &[value]),
                };
                let changes = what != 0 || model.contains_key(&key);
                let answer = store.txn(ops(vec![op])).await.unwrap();
                revision += i64::from(changes);
                assert_eq!(answer.header.unwrap().revision, revision);
                match what {
                    0 => drop(model.remove(&key)),
                    _ => drop(model.insert(key, (vec![value], revision))),
                }
            }
            let found = store.range(all()).await.unwrap();
            let found: BTreeMap<_, _> = found
                .kvs
                .iter()
                .map(|kv| {
                    let key = String::from_utf8_lossy(&kv.key).into_owned();
                    (key, (kv.value.to_vec(), kv.mod_revision))
                })
                .collect();
            assert_eq!(found, model);
        });
    }
}
