//! Leases: keys that go when nobody renews them. They live as long as the
//! process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use outrider_kit::random;
use outrider_proto::etcd::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use outrider_proto::etcd::etcdserverpb::lease_server::Lease as Service;
use outrider_proto::etcd::etcdserverpb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest,
    LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, RequestOp,
    TxnRequest, request_op,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Etcd;
use crate::kv::{Embedded, Kv as _};

const MOST: usize = 1024;
/// Keys of one lease.
const MOST_KEYS: usize = 1024;
/// In seconds.
const LONGEST: i64 = 365 * 24 * 3600;

#[derive(Debug)]
struct Lease {
    ttl: Duration,
    /// None for this member's own, which is held as long as the process lives.
    expires: Option<Instant>,
    keys: BTreeSet<Vec<u8>>,
}

#[derive(Debug, Default)]
pub struct Leases {
    leases: Mutex<BTreeMap<i64, Lease>>,
    changed: Notify,
}

fn not_found() -> Status {
    Status::not_found("etcdserver: requested lease not found")
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, id: i64, ttl: Duration, own: bool) -> Result<i64, Status> {
        let mut leases = self.lock();
        if leases.len() >= MOST && !own {
            return Err(Status::resource_exhausted("too many leases"));
        }
        let id = match id {
            // 63 bits, and never 0.
            0 => (random::bits() >> 1) as i64 | 1,
            id => id,
        };
        if leases.contains_key(&id) {
            return Err(Status::failed_precondition(
                "etcdserver: lease already exists",
            ));
        }
        let lease = Lease {
            ttl,
            expires: (!own).then(|| Instant::now() + ttl),
            keys: BTreeSet::new(),
        };
        leases.insert(id, lease);
        drop(leases);
        self.changed.notify_waiters();
        Ok(id)
    }

    /// This member's own lease.
    pub fn grant_own(&self, ttl: Duration) -> Result<i64, Status> {
        self.grant(0, ttl, true)
    }

    pub fn holds(&self, id: i64) -> bool {
        self.lock().contains_key(&id)
    }

    /// Whether keys may be put under these leases.
    pub(super) fn check(&self, leased: &[(i64, Vec<u8>)]) -> Result<(), Status> {
        let leases = self.lock();
        for (id, _) in leased {
            let lease = leases.get(id).ok_or_else(not_found)?;
            if lease.keys.len() + leased.len() > MOST_KEYS {
                return Err(Status::resource_exhausted("too many keys of one lease"));
            }
        }
        Ok(())
    }

    /// Has a key go with its lease. Returns whether the lease is there.
    pub fn attach(&self, id: i64, key: &[u8]) -> bool {
        let mut leases = self.lock();
        let lease = leases.get_mut(&id);
        lease.map(|lease| lease.keys.insert(key.to_vec())).is_some()
    }

    async fn revoke(&self, store: &Embedded, id: i64) -> Result<(), Status> {
        let lease = self.lock().remove(&id).ok_or_else(not_found)?;
        for key in lease.keys {
            delete(store, id, &key).await?;
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits until a lease comes or goes.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends what is not renewed, for as long as it runs.
    pub async fn expire(&self, store: &Embedded) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = Instant::now();
            let over: Vec<i64> = {
                let leases = self.lock();
                let ids = leases.iter().filter_map(|(id, lease)| {
                    let over = lease.expires.is_some_and(|at| at <= now);
                    over.then_some(*id)
                });
                ids.collect()
            };
            for id in over {
                if let Err(error) = self.revoke(store, id).await {
                    tracing::warn!(target: "dapr.scheduler.etcd", "lease {id} is over, and its keys cannot be deleted: {}", error.message());
                }
            }
        }
    }

    /// Renews a lease and returns its time; 0 if it is not there.
    fn renew(&self, id: i64) -> i64 {
        let mut leases = self.lock();
        let Some(lease) = leases.get_mut(&id) else {
            return 0;
        };
        if lease.expires.is_some() {
            lease.expires = Some(Instant::now() + lease.ttl);
        }
        seconds(lease.ttl)
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Deletes a key, unless it was put again under another lease or none.
pub(super) async fn delete(store: &Embedded, lease: i64, key: &[u8]) -> Result<(), Status> {
    let under_it = Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Lease.into(),
        key: key.to_vec().into(),
        target_union: Some(TargetUnion::Lease(lease)),
        ..Compare::default()
    };
    let delete = DeleteRangeRequest {
        key: key.to_vec().into(),
        ..DeleteRangeRequest::default()
    };
    let delete = RequestOp {
        request: Some(request_op::Request::RequestDeleteRange(delete)),
    };
    let request = TxnRequest {
        compare: vec![under_it],
        success: vec![delete],
        failure: Vec::new(),
    };
    store.txn(request).await.map(drop)
}

#[tonic::async_trait]
impl Service for Etcd {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let request = request.into_inner();
        let ttl = request.ttl.clamp(1, LONGEST);
        let time = Duration::from_secs(ttl.unsigned_abs());
        let id = self.leases.grant(request.id, time, false)?;
        Ok(Response::new(LeaseGrantResponse {
            header: self.header(),
            id,
            ttl,
            error: String::new(),
        }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        self.leases.revoke(&self.store, id).await?;
        Ok(Response::new(LeaseRevokeResponse {
            header: self.header(),
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<LeaseKeepAliveResponse>>, Status> {
        let etcd = self.clone();
        let renewals = request.into_inner().map(move |request| {
            let id = request?.id;
            Ok(LeaseKeepAliveResponse {
                header: etcd.header(),
                id,
                ttl: etcd.leases.renew(id),
            })
        });
        Ok(Response::new(Box::pin(renewals)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let request = request.into_inner();
        let leases = self.leases.lock();
        let mut answer = LeaseTimeToLiveResponse {
            header: self.header(),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some(lease) = leases.get(&request.id) {
            let left = lease.expires.map(|at| at.duration_since(Instant::now()));
            answer.ttl = seconds(left.unwrap_or(lease.ttl));
            answer.granted_ttl = seconds(lease.ttl);
            if request.keys {
                answer.keys = lease.keys.iter().map(|it| it.clone().into()).collect();
            }
        }
        Ok(Response::new(answer))
    }

    async fn lease_leases(
        &self,
        _request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = self.leases.lock();
        Ok(Response::new(LeaseLeasesResponse {
            header: self.header(),
            leases: leases.keys().map(|id| LeaseStatus { id: *id }).collect(),
        }))
    }
}
