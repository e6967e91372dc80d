//! Keys.

use outrider_proto::etcd::etcdserverpb::kv_server::Kv as Service;
use outrider_proto::etcd::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
    PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, request_op,
    response_op,
};
use tonic::{Request, Response, Status};

use super::Etcd;
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
        collect_leased(&request, &mut leased);
        for (lease, key) in &leased {
            self.leases.attach(*lease, key)?;
        }
        self.store.txn(request).await
    }
}

fn collect_leased(request: &TxnRequest, leased: &mut Vec<(i64, Vec<u8>)>) {
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(request_op::Request::RequestPut(put)) if put.lease != 0 => {
                leased.push((put.lease, put.key.to_vec()));
            }
            Some(request_op::Request::RequestTxn(inner)) => collect_leased(inner, leased),
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
