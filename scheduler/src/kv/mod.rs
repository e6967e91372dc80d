//! Where jobs are kept: keys with values and revisions, as etcd has them. The
//! words are those of etcd's API, so that its clients can be served from the
//! embedded store as they are.

#[cfg(test)]
mod both;
mod embedded;
mod remote;
mod row;
mod rows;
#[cfg(test)]
mod tests;
mod writer;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_proto::etcd::etcdserverpb::{
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, request_op, response_op,
};
use outrider_proto::etcd::mvccpb::KeyValue;
use tonic::Status;

pub use embedded::Embedded;
pub use remote::Remote;

/// Keys with values. What an answer says is durable.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status>;

    /// The same in the order of keys, where it does not matter how many there are.
    async fn page(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.range(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status>;
}

/// A change of one key, in the order of revisions.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Put(KeyValue),
    Delete { key: Bytes, revision: i64 },
}

/// The end of the range of all keys that begin with `prefix`.
pub fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // Up to the last key.
    vec![0]
}

/// What a transaction does, if it only reads.
fn reads_only(request: &TxnRequest) -> bool {
    let mut all = request.success.iter().chain(&request.failure);
    all.all(|op| match &op.request {
        Some(request_op::Request::RequestRange(_)) | None => true,
        Some(request_op::Request::RequestTxn(inner)) => reads_only(inner),
        _ => false,
    })
}

/// The keys that one step of a transaction found.
pub fn found(response: &TxnResponse, step: usize) -> &[KeyValue] {
    match response.responses.get(step).map(|it| &it.response) {
        Some(Some(response_op::Response::ResponseRange(range))) => &range.kvs,
        _ => &[],
    }
}
