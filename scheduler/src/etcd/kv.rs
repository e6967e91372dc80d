//! Keys.

use outrider_proto::etcd::etcdserverpb::kv_server::Kv as Service;
use outrider_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use tonic::{Request, Response, Status};

use super::{Etcd, lease};
use crate::kv::Kv;

impl Etcd {
    /// A transaction of one step.
    async fn step(&self, request: request_op::Request) -> Result<response_op::Response, Status> {
        let request = TxnRequest {
            success: vec![RequestOp {
                request: Some(request),
            }],
            ..TxnRequest::default()
        };
        let mut answer = self.txn_with_leases(request).await?;
        let response = answer.responses.pop().and_then(|it| it.response);
        response.ok_or_else(|| Status::internal("a step without an answer"))
    }

    /// Keys with a lease go with it, so the lease has to be there.
    async fn txn_with_leases(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut leased = Vec::new();
        collect_leased(&request, None, &mut leased);
        if leased.is_empty() {
            return self.store.txn(request).await;
        }
        self.leases.check(&leased)?;
        let answer = self.store.txn(request.clone()).await?;
        let mut done = Vec::new();
        collect_leased(&request, Some(&answer), &mut done);
        for (lease, key) in done {
            if !self.leases.attach(lease, &key) {
                // It ended meanwhile.
                lease::delete(&self.store, lease, &key).await?;
            }
        }
        Ok(answer)
    }
}

/// Keys that a transaction puts under leases: those of both branches, or of the one
/// that was taken.
fn collect_leased(
    request: &TxnRequest,
    answer: Option<&TxnResponse>,
    leased: &mut Vec<(i64, Vec<u8>)>,
) {
    let branches: [&[RequestOp]; 2] = match answer {
        None => [&request.success, &request.failure],
        Some(answer) if answer.succeeded => [&request.success, &[]],
        Some(_) => [&request.failure, &[]],
    };
    for (index, op) in branches.into_iter().flatten().enumerate() {
        match &op.request {
            Some(request_op::Request::RequestPut(put)) if put.lease != 0 => {
                leased.push((put.lease, put.key.to_vec()));
            }
            Some(request_op::Request::RequestTxn(inner)) => {
                let response = answer.and_then(|it| it.responses.get(index));
                match response.and_then(|it| it.response.as_ref()) {
                    Some(response_op::Response::ResponseTxn(answer)) => {
                        collect_leased(inner, Some(answer), leased);
                    }
                    _ => collect_leased(inner, None, leased),
                }
            }
            _ => {}
        }
    }
}

#[tonic::async_trait]
impl Service for Etcd {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let answer = self.store.range(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let request = request_op::Request::RequestPut(request.into_inner());
        match self.step(request).await? {
            response_op::Response::ResponsePut(answer) => Ok(Response::new(answer)),
            _ => Err(Status::internal("not the answer of a put")),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let request = request_op::Request::RequestDeleteRange(request.into_inner());
        match self.step(request).await? {
            response_op::Response::ResponseDeleteRange(answer) => Ok(Response::new(answer)),
            _ => Err(Status::internal("not the answer of a deletion")),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let answer = self.txn_with_leases(request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    /// Earlier versions are not kept, so there is nothing to do.
    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        if request.into_inner().revision > self.store.revision() {
            return Err(Status::out_of_range(
                "etcdserver: mvcc: required revision is a future revision",
            ));
        }
        Ok(Response::new(CompactionResponse {
            header: self.header(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
    use outrider_proto::etcd::etcdserverpb::lease_server::Lease as _;
    use outrider_proto::etcd::etcdserverpb::{Compare, LeaseRevokeRequest};
    use tonic::Code;

    use super::*;
    use crate::etcd::Leases;
    use crate::kv::Embedded;

    fn put(key: &str, lease: i64) -> RequestOp {
        let put = PutRequest {
            key: key.to_owned().into(),
            lease,
            ..PutRequest::default()
        };
        RequestOp {
            request: Some(request_op::Request::RequestPut(put)),
        }
    }

    async fn keys(etcd: &Etcd) -> Vec<String> {
        let request = RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            ..RangeRequest::default()
        };
        let found = etcd.store.range(request).await.unwrap();
        let keys = found.kvs.iter();
        keys.map(|kv| String::from_utf8(kv.key.to_vec()).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_lease_takes_with_it_what_is_under_it_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _changes) = Embedded::open(folder.path(), i64::MAX).unwrap();
        let leases = std::sync::Arc::new(Leases::default());
        let etcd = Etcd { store, leases };
        let lease = etcd.leases.grant_own(Duration::from_secs(60)).unwrap();
        let never = Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Version.into(),
            key: "untouched".into(),
            target_union: Some(TargetUnion::Version(7)),
            ..Compare::default()
        };
        let plain = ["untouched", "unleased"].map(|key| put(key, 0));
        let all = TxnRequest {
            success: plain.into_iter().chain([put("unleased", lease)]).collect(),
            ..TxnRequest::default()
        };
        etcd.txn(Request::new(all)).await.unwrap();
        let not_taken = TxnRequest {
            compare: vec![never],
            success: vec![put("untouched", lease)],
            failure: vec![put("leased", lease)],
        };
        etcd.txn(Request::new(not_taken)).await.unwrap();
        let without = PutRequest {
            key: "unleased".into(),
            ..PutRequest::default()
        };
        etcd.put(Request::new(without)).await.unwrap();
        let revoke = LeaseRevokeRequest { id: lease };
        etcd.lease_revoke(Request::new(revoke)).await.unwrap();
        assert_eq!(keys(&etcd).await, ["unleased", "untouched"]);
        let gone = TxnRequest {
            success: vec![put("leased", lease)],
            ..TxnRequest::default()
        };
        let refused = etcd.txn(Request::new(gone)).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_eq!(keys(&etcd).await, ["unleased", "untouched"]);
    }
}
