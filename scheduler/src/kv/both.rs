//! What any store must do, on the embedded one and on a real etcd.

use std::process::{Child, Command, Stdio};

use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use outrider_proto::etcd::etcdserverpb::{Compare, DeleteRangeRequest, PutRequest, RequestOp};

use super::*;

// Of the tests of all processes; the kernel gives none of these to outgoing connections.
#[path = "../../../e2e/harness/src/port.rs"]
mod port;

struct Etcd {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Nothing where the program is not installed.
async fn etcd() -> Option<(Etcd, Remote)> {
    let folder = tempfile::tempdir().unwrap();
    let client = format!("http://127.0.0.1:{}", port::free());
    let peer = format!("http://127.0.0.1:{}", port::free());
    let started = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder.path())
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let Ok(process) = started else {
        assert!(std::env::var_os("CI").is_none(), "etcd is not installed");
        eprintln!("etcd is not installed: only the embedded store is tested");
        return None;
    };
    let etcd = Etcd {
        process,
        _folder: folder,
    };
    let remote = Remote::connect(&[client], None).await.unwrap();
    remote.wait_until_it_answers().await.unwrap();
    Some((etcd, remote))
}

async fn on_both(check: impl AsyncFn(&dyn Kv)) {
    let folder = tempfile::tempdir().unwrap();
    let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
    check(&store).await;
    if let Some((_etcd, remote)) = etcd().await {
        check(&remote).await;
    }
}

fn put(key: &str, value: &str) -> RequestOp {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    };
    RequestOp {
        request: Some(request_op::Request::RequestPut(request)),
    }
}

fn delete(key: &str, end: Vec<u8>) -> RequestOp {
    let request = DeleteRangeRequest {
        key: key.to_owned().into(),
        range_end: end.into(),
        prev_kv: false,
    };
    RequestOp {
        request: Some(request_op::Request::RequestDeleteRange(request)),
    }
}

fn when(key: &str, revision: i64, success: Vec<RequestOp>) -> TxnRequest {
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: key.to_owned().into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    };
    TxnRequest {
        compare: vec![compare],
        success,
        failure: Vec::new(),
    }
}

async fn do_all(kv: &dyn Kv, success: Vec<RequestOp>) -> TxnResponse {
    let request = TxnRequest {
        success,
        ..TxnRequest::default()
    };
    kv.txn(request).await.unwrap()
}

async fn read(kv: &dyn Kv, prefix: &str, limit: i64) -> RangeResponse {
    // All keys begin with the first one that there can be.
    let first = if prefix.is_empty() { "\0" } else { prefix };
    let request = RangeRequest {
        key: first.to_owned().into(),
        range_end: end_of_prefix(prefix.as_bytes()).into(),
        limit,
        ..RangeRequest::default()
    };
    kv.range(request).await.unwrap()
}

fn keys(response: &RangeResponse) -> Vec<&str> {
    let keys = response.kvs.iter();
    keys.map(|kv| std::str::from_utf8(&kv.key).unwrap())
        .collect()
}

#[tokio::test]
async fn a_key_that_is_not_there_has_revision_zero() {
    on_both(async |kv| {
        let create = || when("a", 0, vec![put("a", "1")]);
        assert!(kv.txn(create()).await.unwrap().succeeded);
        assert!(!kv.txn(create()).await.unwrap().succeeded);
        let found = read(kv, "a", 0).await;
        let revision = found.kvs[0].mod_revision;
        let wrong = when("a", revision + 1, vec![delete("a", Vec::new())]);
        assert!(!kv.txn(wrong).await.unwrap().succeeded);
        let right = when("a", revision, vec![delete("a", Vec::new())]);
        assert!(kv.txn(right).await.unwrap().succeeded);
        assert!(kv.txn(create()).await.unwrap().succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_prefix_is_deleted_whole_and_nothing_beside_it() {
    on_both(async |kv| {
        let all = ["ns", "ns||a", "ns||b", "nsx||a"];
        do_all(kv, all.map(|it| put(it, "")).to_vec()).await;
        do_all(kv, vec![delete("ns||", end_of_prefix(b"ns||"))]).await;
        assert_eq!(keys(&read(kv, "ns", 0).await), ["ns", "nsx||a"]);
    })
    .await;
}

#[tokio::test]
async fn changes_of_one_transaction_have_one_revision() {
    on_both(async |kv| {
        let answer = do_all(kv, vec![put("a", "1"), put("b", "2")]).await;
        let revision = answer.header.unwrap().revision;
        let found = read(kv, "", 0).await;
        let revisions: Vec<i64> = found.kvs.iter().map(|kv| kv.mod_revision).collect();
        assert_eq!(revisions, [revision, revision]);
        let answer = do_all(kv, vec![put("a", "3")]).await;
        assert_eq!(answer.header.unwrap().revision, revision + 1);
        let a = &read(kv, "a", 0).await.kvs[0];
        assert_eq!((a.create_revision, a.version), (revision, 2));
    })
    .await;
}

#[tokio::test]
async fn pages_are_in_the_order_of_keys() {
    on_both(async |kv| {
        do_all(kv, ["c", "a", "b"].map(|it| put(it, "v")).to_vec()).await;
        let page = read(kv, "", 2).await;
        assert_eq!(
            (keys(&page), page.more, page.count),
            (vec!["a", "b"], true, 3)
        );
        let request = |key: &str| RangeRequest {
            key: key.to_owned().into(),
            range_end: vec![0].into(),
            limit: 2,
            ..RangeRequest::default()
        };
        let page = kv.page(request("a")).await.unwrap();
        assert_eq!((keys(&page), page.more), (vec!["a", "b"], true));
        let page = kv.page(request("b\0")).await.unwrap();
        assert_eq!((keys(&page), page.more), (vec!["c"], false));
    })
    .await;
}

#[tokio::test]
async fn jobs_are_created_read_and_finished() {
    use outrider_scheduler_engine::{Commit, Committed, Event, JobRef, Read};

    use crate::jobs::{Created, Jobs};
    let folder = tempfile::tempdir().unwrap();
    let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
    let mut stores: Vec<std::sync::Arc<dyn Kv>> = vec![std::sync::Arc::new(store)];
    let remote = etcd().await;
    if let Some((_, remote)) = &remote {
        stores.push(std::sync::Arc::new(remote.clone()));
    }
    for store in stores {
        let jobs = Jobs::new(store);
        let created = jobs.create("app||n||a||j", b"x".to_vec(), false).await;
        assert_eq!(created.unwrap(), Created::New);
        let again = jobs.create("app||n||a||j", b"y".to_vec(), false).await;
        assert_eq!(again.unwrap(), Created::Exists);
        let revision = jobs
            .get("app||n||a||j")
            .await
            .unwrap()
            .unwrap()
            .mod_revision;
        let job = JobRef { slot: 0, revision };
        let read = jobs.read(job, "app||n||a||j").await;
        assert!(matches!(
            read,
            Event::Read {
                read: Read::Broken(_),
                ..
            }
        ));
        let finish = |job_revision| Commit {
            name: "app||n||a||j".into(),
            job_revision,
            counter_revision: 0,
            counter: None,
        };
        for (commit, wanted) in [
            (finish(revision + 7), Committed::Changed),
            (finish(revision), Committed::Done),
            (finish(revision), Committed::Changed),
        ] {
            match jobs.commit(job, commit).await {
                Event::Committed { result, .. } => assert_eq!(result, wanted),
                other => panic!("{other:?}"),
            }
        }
        assert!(jobs.list("").await.unwrap().is_empty());
    }
}
