//! Requests of etcd's API on the rows of one table.

use std::ops::Bound;

use bytes::Bytes;
use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use outrider_proto::etcd::etcdserverpb::range_request::{SortOrder, SortTarget};
use outrider_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseHeader, ResponseOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use outrider_proto::etcd::mvccpb::KeyValue;
use redb::{ReadableTable, Table};
use tonic::Status;

use super::Change;
use super::row::Head;

/// Bytes of one answer.
const MOST_BYTES: usize = 256 << 20;
/// Operations of one transaction.
const MOST_OPS: usize = 10_000;
/// Transactions within transactions.
const DEEPEST: usize = 4;

/// A failure of the store itself.
pub(super) fn broken(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the store does not work: {error}"))
}

/// The same of the database; a full disk has a code of its own.
pub(super) fn failed(error: impl Into<redb::Error>) -> Status {
    match error.into() {
        redb::Error::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => {
            Status::resource_exhausted(format!("the disk of the store is full: {error}"))
        }
        error => broken(error),
    }
}

/// The bounds of a range: one key, `[key, end)`, or from the key on.
fn bounds<'a>(key: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    match end {
        [] => (Bound::Included(key), Bound::Included(key)),
        [0] => (Bound::Included(key), Bound::Unbounded),
        end if end <= key => (Bound::Included(key), Bound::Excluded(key)),
        end => (Bound::Included(key), Bound::Excluded(end)),
    }
}

fn is_empty_range(key: &[u8], end: &[u8]) -> bool {
    !end.is_empty() && *end != [0] && end <= key
}

pub(super) fn header(revision: i64) -> ResponseHeader {
    ResponseHeader {
        cluster_id: 1,
        member_id: 1,
        revision,
        raft_term: 1,
    }
}

/// What is asked for. All that there is beyond the limit is looked at only to be
/// counted.
pub(super) fn range(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    request: &RangeRequest,
    revision: i64,
    counted: bool,
) -> Result<RangeResponse, Status> {
    if request.revision > revision {
        return Err(Status::out_of_range(
            "etcdserver: mvcc: required revision is a future revision",
        ));
    }
    let mut response = RangeResponse {
        header: Some(header(revision)),
        ..RangeResponse::default()
    };
    if is_empty_range(&request.key, &request.range_end) {
        return Ok(response);
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let limit = if limit == 0 { usize::MAX } else { limit };
    let by_key = request.sort_target() == SortTarget::Key;
    let sorted = by_key && request.sort_order() != SortOrder::Descend;
    let mut bytes = 0;
    let rows = table
        .range::<&[u8]>(bounds(&request.key, &request.range_end))
        .map_err(failed)?;
    for row in rows {
        let (key, value) = row.map_err(failed)?;
        let Some((head, value)) = Head::decode(value.value()) else {
            continue;
        };
        if !within(request, head) {
            continue;
        }
        response.count += 1;
        if !counted && sorted && response.kvs.len() >= limit {
            break;
        }
        if request.count_only || (sorted && response.kvs.len() >= limit) {
            continue;
        }
        let value = if request.keys_only { &[] } else { value };
        bytes += key.value().len() + value.len();
        if bytes > MOST_BYTES {
            return Err(Status::resource_exhausted(
                "the answer is too large: ask with a limit",
            ));
        }
        response.kvs.push(head.key_value(key.value(), value));
    }
    if !sorted {
        sort(&mut response.kvs, request);
        response.kvs.truncate(limit);
    }
    response.more = !request.count_only && response.count > response.kvs.len() as i64;
    Ok(response)
}

fn within(request: &RangeRequest, head: Head) -> bool {
    let bounded = |value, least, most| value >= least && (most == 0 || value <= most);
    bounded(
        head.mod_revision,
        request.min_mod_revision,
        request.max_mod_revision,
    ) && bounded(
        head.create_revision,
        request.min_create_revision,
        request.max_create_revision,
    )
}

fn sort(kvs: &mut [KeyValue], request: &RangeRequest) {
    match request.sort_target() {
        SortTarget::Key => kvs.sort_by(|a, b| a.key.cmp(&b.key)),
        SortTarget::Version => kvs.sort_by_key(|it| it.version),
        SortTarget::Create => kvs.sort_by_key(|it| it.create_revision),
        SortTarget::Mod => kvs.sort_by_key(|it| it.mod_revision),
        SortTarget::Value => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    if request.sort_order() == SortOrder::Descend {
        kvs.reverse();
    }
}

/// Changes rows, all under one revision.
pub(super) struct Changing<'a, 'txn> {
    pub table: &'a mut Table<'txn, &'static [u8], &'static [u8]>,
    /// Of the changes.
    pub revision: i64,
    /// Bytes of keys and values that are stored.
    pub bytes: i64,
    pub changes: Vec<Change>,
}

impl Changing<'_, '_> {
    fn head(&self, key: &[u8]) -> Result<Option<(Head, Bytes)>, Status> {
        let row = self.table.get(key).map_err(failed)?;
        Ok(row.and_then(|row| {
            let (head, value) = Head::decode(row.value())?;
            Some((head, Bytes::copy_from_slice(value)))
        }))
    }

    /// The revision that readers see: that of the changes, once there is one.
    fn seen(&self) -> i64 {
        match self.changes.is_empty() {
            true => self.revision - 1,
            false => self.revision,
        }
    }

    fn put(&mut self, request: &PutRequest) -> Result<PutResponse, Status> {
        let before = self.head(&request.key)?;
        let head = before.as_ref().map(|(head, _)| *head).unwrap_or_default();
        let missing = || Status::invalid_argument("etcdserver: key not found");
        let value = match &before {
            Some((_, value)) if request.ignore_value => value.clone(),
            None if request.ignore_value || request.ignore_lease => return Err(missing()),
            _ => request.value.clone(),
        };
        let new = Head {
            create_revision: match head.create_revision {
                0 => self.revision,
                created => created,
            },
            mod_revision: self.revision,
            version: head.version + 1,
            lease: match request.ignore_lease {
                true => head.lease,
                false => request.lease,
            },
        };
        let row = new.encode(&value);
        self.table
            .insert(&*request.key, row.as_slice())
            .map_err(failed)?;
        let length = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.bytes += length(value.len());
        match &before {
            Some((_, value)) => self.bytes -= length(value.len()),
            None => self.bytes += length(request.key.len()),
        }
        self.changes
            .push(Change::Put(new.key_value(&request.key, &value)));
        let old = before.filter(|_| request.prev_kv);
        Ok(PutResponse {
            header: Some(header(self.seen())),
            prev_kv: old.map(|(head, value)| head.key_value(&request.key, &value)),
        })
    }

    fn delete(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let wanted = RangeRequest {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            ..RangeRequest::default()
        };
        let found = range(&*self.table, &wanted, self.seen(), true)?;
        for kv in &found.kvs {
            self.table.remove(&*kv.key).map_err(failed)?;
            self.bytes -= i64::try_from(kv.key.len() + kv.value.len()).unwrap_or(0);
            self.changes.push(Change::Delete {
                key: kv.key.clone(),
                revision: self.revision,
            });
        }
        Ok(DeleteRangeResponse {
            header: Some(header(self.seen())),
            deleted: found.count,
            prev_kvs: match request.prev_kv {
                true => found.kvs,
                false => Vec::new(),
            },
        })
    }

    pub fn txn(&mut self, request: &TxnRequest, depth: usize) -> Result<TxnResponse, Status> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded &= holds(&*self.table, compare)?;
        }
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(self.op(op, depth)?);
        }
        Ok(TxnResponse {
            header: Some(header(self.seen())),
            succeeded,
            responses,
        })
    }

    fn op(&mut self, op: &RequestOp, depth: usize) -> Result<ResponseOp, Status> {
        use request_op::Request;
        use response_op::Response;
        let response = match &op.request {
            Some(Request::RequestRange(request)) => {
                Response::ResponseRange(range(&*self.table, request, self.seen(), true)?)
            }
            Some(Request::RequestPut(request)) => Response::ResponsePut(self.put(request)?),
            Some(Request::RequestDeleteRange(request)) => {
                Response::ResponseDeleteRange(self.delete(request)?)
            }
            Some(Request::RequestTxn(request)) => {
                Response::ResponseTxn(self.txn(request, depth + 1)?)
            }
            None => return Err(Status::invalid_argument("etcdserver: key not found")),
        };
        Ok(ResponseOp {
            response: Some(response),
        })
    }
}

/// A transaction that reads only.
pub(super) fn read_txn(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    request: &TxnRequest,
    revision: i64,
) -> Result<TxnResponse, Status> {
    let mut succeeded = true;
    for compare in &request.compare {
        succeeded &= holds(table, compare)?;
    }
    let ops = if succeeded {
        &request.success
    } else {
        &request.failure
    };
    let mut responses = Vec::with_capacity(ops.len());
    for op in ops {
        let response = match &op.request {
            Some(request_op::Request::RequestRange(request)) => {
                response_op::Response::ResponseRange(range(table, request, revision, true)?)
            }
            Some(request_op::Request::RequestTxn(request)) => {
                response_op::Response::ResponseTxn(read_txn(table, request, revision)?)
            }
            _ => continue,
        };
        responses.push(ResponseOp {
            response: Some(response),
        });
    }
    Ok(TxnResponse {
        header: Some(header(revision)),
        succeeded,
        responses,
    })
}

fn holds(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    compare: &Compare,
) -> Result<bool, Status> {
    if is_empty_range(&compare.key, &compare.range_end) {
        return Ok(true);
    }
    let rows = table
        .range::<&[u8]>(bounds(&compare.key, &compare.range_end))
        .map_err(failed)?;
    let mut found = false;
    for row in rows {
        let (_, row) = row.map_err(failed)?;
        if let Some((head, value)) = Head::decode(row.value()) {
            found = true;
            if !fits(compare, head, Some(value)) {
                return Ok(false);
            }
        }
    }
    // A key that is not there has revisions and a version of 0, and no value.
    Ok(found || fits(compare, Head::default(), None))
}

fn fits(compare: &Compare, head: Head, value: Option<&[u8]>) -> bool {
    let wanted = compare.target_union.as_ref();
    let number = match wanted {
        Some(
            TargetUnion::Version(it)
            | TargetUnion::CreateRevision(it)
            | TargetUnion::ModRevision(it)
            | TargetUnion::Lease(it),
        ) => *it,
        _ => 0,
    };
    let order = match compare.target() {
        CompareTarget::Version => head.version.cmp(&number),
        CompareTarget::Create => head.create_revision.cmp(&number),
        CompareTarget::Mod => head.mod_revision.cmp(&number),
        CompareTarget::Lease => head.lease.cmp(&number),
        CompareTarget::Value => match (value, wanted) {
            (Some(value), Some(TargetUnion::Value(wanted))) => value.cmp(&wanted[..]),
            (Some(value), _) => value.cmp(b"".as_slice()),
            (None, _) => return false,
        },
    };
    match compare.result() {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
    }
}

/// What a transaction adds to the store at most; an error if there is something
/// wrong with it.
pub(super) fn cost(request: &TxnRequest, depth: usize) -> Result<usize, Status> {
    if depth > DEEPEST || request.success.len().max(request.failure.len()) > MOST_OPS {
        return Err(Status::invalid_argument(
            "etcdserver: too many operations in txn request",
        ));
    }
    let of = |ops: &[RequestOp]| -> Result<usize, Status> {
        let mut sum = 0;
        for op in ops {
            sum += match &op.request {
                Some(request_op::Request::RequestPut(put)) => {
                    if put.key.is_empty() {
                        return Err(Status::invalid_argument("etcdserver: key is not provided"));
                    }
                    put.key.len() + put.value.len()
                }
                Some(request_op::Request::RequestTxn(inner)) => cost(inner, depth + 1)?,
                _ => 0,
            };
        }
        Ok(sum)
    };
    Ok(of(&request.success)?.max(of(&request.failure)?))
}
