//! Jobs and their counters as keys of the store.

use std::sync::Arc;

use bytes::Bytes;
use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use outrider_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op,
};
use outrider_proto::etcd::mvccpb::KeyValue;
use outrider_scheduler_engine::{Commit, Committed, Event, Found, JobRef, Read, key};
use prost::Message as _;
use tonic::Status;

use crate::kv::{Change, Kv, end_of_prefix, found};

/// Jobs that are read at once.
const PAGE: i64 = 1000;
/// Jobs of one list.
const MOST_LISTED: usize = 200_000;
/// Bytes of one list.
const MOST_LISTED_BYTES: usize = 256 << 20;

/// Cloning shares the store.
#[derive(Clone)]
pub struct Jobs(Arc<dyn Kv>);

#[derive(Debug, PartialEq)]
pub enum Created {
    New,
    /// There is one with this name; nothing was written.
    Exists,
}

fn job_key(name: &str) -> Bytes {
    format!("{}{name}", key::JOBS).into()
}

fn counter_key(name: &str) -> Bytes {
    format!("{}{name}", key::COUNTERS).into()
}

fn step(request: request_op::Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put(key: Bytes, value: Vec<u8>) -> RequestOp {
    step(request_op::Request::RequestPut(PutRequest {
        key,
        value: value.into(),
        ..PutRequest::default()
    }))
}

fn delete(key: Bytes, range_end: Vec<u8>) -> RequestOp {
    step(request_op::Request::RequestDeleteRange(
        DeleteRangeRequest {
            key,
            range_end: range_end.into(),
            prev_kv: false,
        },
    ))
}

fn get(key: Bytes) -> RequestOp {
    step(request_op::Request::RequestRange(RangeRequest {
        key,
        ..RangeRequest::default()
    }))
}

fn has_revision(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key,
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    }
}

/// The name in a key of a job.
pub fn name_of(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key).ok()?.strip_prefix(key::JOBS)
}

impl Jobs {
    pub fn new(kv: Arc<dyn Kv>) -> Self {
        Self(kv)
    }

    /// A new job begins with no counter, whatever had its name before.
    pub async fn create(
        &self,
        name: &str,
        value: Vec<u8>,
        overwrite: bool,
    ) -> Result<Created, Status> {
        let compare = match overwrite {
            true => Vec::new(),
            false => vec![has_revision(job_key(name), 0)],
        };
        let request = TxnRequest {
            compare,
            success: vec![
                put(job_key(name), value),
                delete(counter_key(name), Vec::new()),
            ],
            failure: Vec::new(),
        };
        let answer = self.0.txn(request).await?;
        Ok(match answer.succeeded {
            true => Created::New,
            false => Created::Exists,
        })
    }

    pub async fn get(&self, name: &str) -> Result<Option<KeyValue>, Status> {
        let request = RangeRequest {
            key: job_key(name),
            ..RangeRequest::default()
        };
        Ok(self.0.range(request).await?.kvs.into_iter().next())
    }

    pub async fn delete(&self, name: &str) -> Result<(), Status> {
        self.delete_keys(job_key(name), counter_key(name), |_| Vec::new())
            .await
    }

    /// All jobs whose names begin with `prefix`.
    pub async fn delete_prefix(&self, prefix: &str) -> Result<(), Status> {
        self.delete_keys(job_key(prefix), counter_key(prefix), end_of_prefix)
            .await
    }

    async fn delete_keys(
        &self,
        job: Bytes,
        counter: Bytes,
        end: impl Fn(&[u8]) -> Vec<u8>,
    ) -> Result<(), Status> {
        let (jobs_end, counters_end) = (end(&job), end(&counter));
        let request = TxnRequest {
            success: vec![delete(job, jobs_end), delete(counter, counters_end)],
            ..TxnRequest::default()
        };
        self.0.txn(request).await.map(drop)
    }

    /// All jobs whose names begin with `prefix`, in the order of their names.
    pub async fn list(&self, prefix: &str) -> Result<Vec<KeyValue>, Status> {
        let mut listed = Vec::new();
        let mut bytes = 0;
        let mut pages = self.pages(job_key(prefix));
        while let Some(page) = pages.next().await? {
            bytes += page.iter().map(|kv| kv.value.len()).sum::<usize>();
            listed.extend(page);
            if listed.len() > MOST_LISTED || bytes > MOST_LISTED_BYTES {
                return Err(Status::resource_exhausted(
                    "there are too many jobs for one list",
                ));
            }
        }
        Ok(listed)
    }

    pub fn pages(&self, prefix: Bytes) -> Pages<'_> {
        Pages {
            jobs: self,
            end: end_of_prefix(&prefix).into(),
            next: Some(prefix),
        }
    }

    /// The job and its counter, for the engine.
    pub async fn read(&self, job: JobRef, name: &str) -> Event {
        let request = TxnRequest {
            success: vec![get(job_key(name)), get(counter_key(name))],
            ..TxnRequest::default()
        };
        let read = match self.0.txn(request).await {
            Err(status) => Read::Failed(status.message().to_owned()),
            Ok(answer) => {
                let counter = found(&answer, 1).first();
                let counter = counter.map(|kv| (&*kv.value, kv.mod_revision));
                match found(&answer, 0).first() {
                    Some(kv) if kv.mod_revision == job.revision => {
                        match Found::decode(name, &kv.value, counter) {
                            Ok(found) => Read::Found(Box::new(found)),
                            Err(why) => Read::Broken(why),
                        }
                    }
                    _ => Read::Gone,
                }
            }
        };
        Event::Read { job, read }
    }

    /// What follows from an attempt.
    pub async fn commit(&self, job: JobRef, commit: Commit) -> Event {
        let name = &commit.name;
        let compare = vec![
            has_revision(job_key(name), commit.job_revision),
            has_revision(counter_key(name), commit.counter_revision),
        ];
        let success = match &commit.counter {
            Some(counter) => vec![put(counter_key(name), counter.encode_to_vec())],
            None => vec![
                delete(job_key(name), Vec::new()),
                delete(counter_key(name), Vec::new()),
            ],
        };
        let request = TxnRequest {
            compare,
            success,
            failure: Vec::new(),
        };
        let result = match self.0.txn(request).await {
            Ok(answer) if answer.succeeded => Committed::Done,
            Ok(_) => Committed::Changed,
            Err(status) => {
                tracing::warn!(target: "dapr.scheduler.server", "the outcome of job '{name}' cannot be stored, trying again: {}", status.message());
                Committed::Failed
            }
        };
        Event::Committed { job, result }
    }

    /// The counter of a job that was in the store before.
    pub async fn counters(&self, first: &str, last: &str) -> Result<Vec<KeyValue>, Status> {
        let mut end = counter_key(last).to_vec();
        end.push(0);
        let request = RangeRequest {
            key: counter_key(first),
            range_end: end.into(),
            ..RangeRequest::default()
        };
        Ok(self.0.page(request).await?.kvs)
    }
}

/// Pages of keys that begin alike.
pub struct Pages<'a> {
    jobs: &'a Jobs,
    next: Option<Bytes>,
    end: Bytes,
}

impl Pages<'_> {
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Status> {
        let Some(key) = self.next.take() else {
            return Ok(None);
        };
        let request = RangeRequest {
            key,
            range_end: self.end.clone(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        let page = self.jobs.0.page(request).await?;
        if page.more
            && let Some(last) = page.kvs.last()
        {
            let mut next = last.key.to_vec();
            next.push(0);
            self.next = Some(next.into());
        }
        Ok(Some(page.kvs))
    }
}

/// What the engine learns from a change of the store.
pub fn event_of(change: Change) -> Option<Event> {
    match change {
        Change::Put(kv) => stored(&kv, None),
        Change::Delete { key, revision } => Some(Event::Removed {
            name: name_of(&key)?.into(),
            revision,
        }),
    }
}

/// What the engine learns of a job. One that cannot be understood is due at once:
/// the engine reads it, and says so.
pub fn stored(kv: &KeyValue, counter: Option<&[u8]>) -> Option<Event> {
    let name = name_of(&kv.key)?;
    let (partition, due) = Found::schedule(&kv.value, counter).unwrap_or_default();
    Some(Event::Stored {
        name: name.into(),
        revision: kv.mod_revision,
        partition,
        due,
    })
}
