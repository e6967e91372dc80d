//! Members that share jobs through an etcd: each has a key under a lease.

use std::collections::BTreeMap;
use std::time::Duration;

use outrider_placement_engine::authority;
use outrider_proto::etcd::etcdserverpb::RangeRequest;
use outrider_proto::etcd::mvccpb::KeyValue;
use outrider_proto::scheduler::v1::Host;
use outrider_proto::stored::v1::Leadership;
use outrider_scheduler_engine::key;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use crate::kv::{Change, Kv as _, Remote, end_of_prefix};
use crate::member;
use crate::placement::Placement;
use crate::runner::Handle;

/// A member that does not renew its lease for so long is gone, and others do its
/// part.
const TTL: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_millis(700);
/// Without a renewal for so long the lease counts as over, before it is.
const LIMIT: Duration = Duration::from_millis(2300);
/// A member without a connected sidecar leaves its part to others after so long.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// This member among all.
pub struct Member {
    pub remote: Remote,
    pub id: String,
    pub own: authority::Member,
    pub placement: Placement,
}

/// What members say of themselves, by their keys.
type Members = BTreeMap<Vec<u8>, Known>;

struct Known {
    member: authority::Member,
    idle: bool,
}

impl Member {
    fn key(&self) -> String {
        member::key_of(&self.id)
    }

    /// Announces this member and follows the others. Returns when that does not
    /// work any more. Its lease goes into `leases`.
    pub async fn run(&self, engine: &Handle, leases: &watch::Sender<i64>) -> Status {
        let failed = self.follow(engine, leases).await;
        failed
            .err()
            .unwrap_or_else(|| Status::unavailable("the member has ended"))
    }

    async fn follow(&self, engine: &Handle, leases: &watch::Sender<i64>) -> Result<(), Status> {
        let revision = self.remote.revision().await?;
        let mut members = self.read().await?;
        let mut connected = engine.connected();
        let mut idle = !*connected.borrow();
        let mut lease = self.lead(members.len(), idle).await?;
        leases.send_replace(lease);
        let mut watching = self.remote.watch(key::LEADERSHIP, revision + 1).await?;
        loop {
            let changes = tokio::select! {
                changes = watching.next() => changes?,
                gone = self.remote.keep_lease(lease, RENEWAL, LIMIT) => {
                    tracing::warn!(target: "dapr.scheduler.server", "the lease of this scheduler is gone, it takes another one: {}", gone.message());
                    // Others may lead placement already.
                    self.placement.set_members(Vec::new(), "");
                    lease = self.lead(members.len(), idle).await?;
                    leases.send_replace(lease);
                    continue;
                }
                () = differs(&mut connected, idle) => {
                    idle = !idle;
                    self.put(lease, members.len(), idle).await?;
                    continue;
                }
            };
            let total = members.len();
            for change in changes {
                match change {
                    Change::Put(kv) => drop(members.insert(kv.key.to_vec(), known(&kv))),
                    Change::Delete { key, .. } => drop(members.remove(&*key)),
                }
            }
            self.tell(&members, engine);
            if members.len() != total && members.contains_key(self.key().as_bytes()) {
                self.put(lease, members.len(), idle).await?;
            }
        }
    }

    async fn read(&self) -> Result<Members, Status> {
        let prefix = key::LEADERSHIP.as_bytes();
        let request = RangeRequest {
            key: prefix.to_vec().into(),
            range_end: end_of_prefix(prefix).into(),
            ..RangeRequest::default()
        };
        let found = self.remote.range(request).await?;
        let members = found.kvs.iter().map(|kv| (kv.key.to_vec(), known(kv)));
        Ok(members.collect())
    }

    /// Takes the key of this member under a new lease. The lease of the process
    /// that had this id before is of no use any more.
    async fn lead(&self, others: usize, idle: bool) -> Result<i64, Status> {
        let request = RangeRequest {
            key: self.key().into(),
            ..RangeRequest::default()
        };
        let before = self.remote.range(request).await?;
        let lease = self.remote.grant(TTL).await?;
        self.put(lease, others.max(1), idle).await?;
        for kv in before
            .kvs
            .iter()
            .filter(|kv| kv.lease != 0 && kv.lease != lease)
        {
            // It may be over already.
            let _ = self.remote.revoke(kv.lease).await;
        }
        Ok(lease)
    }

    async fn put(&self, lease: i64, total: usize, idle: bool) -> Result<(), Status> {
        let announced = member::announcement(&self.id, &self.own, (total, idle), lease);
        self.remote.txn(announced).await.map(drop)
    }

    /// Tells sidecars all members, and the engine its part.
    fn tell(&self, members: &Members, engine: &Handle) {
        let own = members.keys().position(|it| it == self.key().as_bytes());
        let Some(own) = own else {
            self.placement.set_members(Vec::new(), "");
            return;
        };
        let member = |(key, known): (&Vec<u8>, &Known)| outrider_scheduler_engine::Member {
            id: hash(key),
            idle: known.idle,
        };
        engine.members(members.iter().map(member).collect(), own);
        let members: Vec<_> = members.values().map(|it| it.member.clone()).collect();
        self.placement.set_members(members, &self.own.address);
    }
}

fn known(kv: &KeyValue) -> Known {
    let leadership = Leadership::decode(kv.value.clone()).unwrap_or_default();
    let host = leadership.replica_data.unwrap_or_default();
    let host = Host::decode(host.value.as_slice()).unwrap_or_default();
    Known {
        member: authority::Member {
            address: host.address,
            is_capable: host.scheduler_placement_enabled,
        },
        idle: leadership.idle,
    }
}

/// Waits until it is no longer true that this member is idle, or not. One whose
/// sidecars are gone for a moment is not idle.
async fn differs(connected: &mut watch::Receiver<bool>, idle: bool) {
    loop {
        if connected.wait_for(|it| *it == idle).await.is_err() {
            return std::future::pending().await;
        }
        if idle {
            return;
        }
        let back = connected.wait_for(|it| *it);
        if tokio::time::timeout(IDLE_AFTER, back).await.is_err() {
            return;
        }
    }
}

/// The same in every member, whatever it is built with (FNV-1a).
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Passes the changes of jobs on to the engine. Returns when that does not work any
/// more.
pub async fn follow_jobs(remote: &Remote, revision: i64, changes: mpsc::Sender<Change>) -> Status {
    let mut watching = match remote.watch(key::JOBS, revision).await {
        Ok(watching) => watching,
        Err(status) => return status,
    };
    loop {
        let next = match watching.next().await {
            Ok(next) => next,
            Err(status) => return status,
        };
        for change in next {
            if changes.send(change).await.is_err() {
                return Status::unavailable("the engine has ended");
            }
        }
    }
}
