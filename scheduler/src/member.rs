//! This member: its address, and its key in the store.

use std::net::IpAddr;
use std::time::Duration;

use outrider_kit::random;
use outrider_placement_engine::authority;
use outrider_proto::Any;
use outrider_proto::etcd::etcdserverpb::{PutRequest, RequestOp, TxnRequest, request_op};
use outrider_proto::scheduler::v1::Host;
use outrider_proto::stored::v1::Leadership;
use outrider_scheduler_engine::key;
use prost::Message as _;
use tonic::Status;

use crate::etcd::Etcd;
use crate::flags::Flags;
use crate::kv::{Kv, end_of_prefix};
use crate::placement::Placement;

/// Of the lease under which the key is.
const TTL: Duration = Duration::from_secs(20);
const CHECK: Duration = Duration::from_secs(1);
const HOST: &str = "type.googleapis.com/dapr.proto.scheduler.v1.Host";

/// This member, as all others know it.
pub fn own(flags: &Flags) -> authority::Member {
    authority::Member {
        address: address(flags),
        is_capable: flags.placement.is_enabled,
    }
}

/// The address that sidecars connect to.
fn address(flags: &Flags) -> String {
    if let Some(address) = &flags.broadcast {
        return address.clone();
    }
    let (host, port) = (&flags.service.listen_address, flags.service.port);
    let is_local =
        |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    if is_local(host) {
        return joined(host, port);
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let addresses = interfaces.iter().map(if_addrs::Interface::ip);
    let mut routable: Vec<IpAddr> = addresses.filter(|ip| !ip.is_loopback()).collect();
    routable.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    let own = routable.first().map(IpAddr::to_string);
    joined(own.as_deref().unwrap_or("127.0.0.1"), port)
}

fn joined(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// The key of a member.
pub fn key_of(id: &str) -> String {
    format!("{}{id}", key::LEADERSHIP)
}

/// Writes the key of a member, one of `total`, under its lease. It is idle if no
/// sidecar is connected to it.
pub fn announcement(
    id: &str,
    own: &authority::Member,
    (total, idle): (usize, bool),
    lease: i64,
) -> TxnRequest {
    // Without what changes while it serves: a changed record of a live member
    // is an error to the others.
    let host = Host {
        address: own.address.clone(),
        leader: false,
        scheduler_placement_enabled: own.is_capable,
    };
    let leadership = Leadership {
        total: total as u64,
        uid: random::bits(),
        replica_data: Some(Any {
            type_url: HOST.to_owned(),
            value: host.encode_to_vec(),
        }),
        idle,
    };
    let put = PutRequest {
        key: key_of(id).into(),
        value: leadership.encode_to_vec().into(),
        lease,
        ..PutRequest::default()
    };
    let op = RequestOp {
        request: Some(request_op::Request::RequestPut(put)),
    };
    TxnRequest {
        success: vec![op],
        ..TxnRequest::default()
    }
}

/// The only member of an embedded store.
pub struct Member {
    pub etcd: Etcd,
    pub id: String,
    pub own: authority::Member,
}

impl Member {
    /// Takes the key over, whoever had one before: nobody else can use the store.
    pub async fn lead(&self) -> Result<i64, Status> {
        let prefix = key::LEADERSHIP.as_bytes();
        let end = end_of_prefix(prefix);
        self.etcd.store.delete_range(prefix, &end).await?;
        let lease = self.etcd.leases.grant_own(TTL)?;
        let announced = announcement(&self.id, &self.own, (1, false), lease);
        self.etcd.store.txn(announced).await?;
        let key = key_of(&self.id);
        self.etcd.leases.attach(lease, key.as_bytes());
        Ok(lease)
    }

    /// Announces this member, and takes the key again should somebody revoke the
    /// lease.
    pub async fn run(&self, mut lease: i64, placement: &Placement) {
        placement.set_members(vec![self.own.clone()], &self.own.address);
        loop {
            tokio::select! {
                () = self.etcd.leases.changed() => {}
                () = tokio::time::sleep(CHECK) => {}
            }
            if self.etcd.leases.holds(lease) {
                continue;
            }
            tracing::warn!(target: "dapr.scheduler.server", "the lease of this scheduler was revoked: it takes another one");
            match self.lead().await {
                Ok(new) => lease = new,
                Err(error) => {
                    tracing::error!(target: "dapr.scheduler.server", "cannot take a lease, trying again: {}", error.message());
                }
            }
        }
    }
}
