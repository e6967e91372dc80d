//! The part of etcd's API that operators and tools read jobs with, served from
//! the embedded store: <https://etcd.io/docs/latest/learning/api/>. It is not
//! authenticated, as in every Dapr scheduler: it listens on localhost unless a
//! flag says otherwise.

mod kv;
mod lease;
mod maintenance;

use std::sync::Arc;

use outrider_proto::etcd::etcdserverpb::ResponseHeader;
use outrider_proto::etcd::etcdserverpb::kv_server::KvServer;
use outrider_proto::etcd::etcdserverpb::lease_server::LeaseServer;
use outrider_proto::etcd::etcdserverpb::maintenance_server::MaintenanceServer;
use tonic::service::Routes;

use crate::kv::Embedded;

pub use lease::Leases;

/// Of one request, in bytes.
const LARGEST_REQUEST: usize = 64 << 20;

/// Cloning shares it.
#[derive(Clone)]
pub struct Etcd {
    pub store: Embedded,
    pub leases: Arc<Leases>,
}

impl Etcd {
    pub fn routes(self) -> Routes {
        let kv = KvServer::new(self.clone())
            .max_decoding_message_size(LARGEST_REQUEST)
            .max_encoding_message_size(usize::MAX);
        Routes::new(kv)
            .add_service(LeaseServer::new(self.clone()))
            .add_service(MaintenanceServer::new(self))
            .prepare()
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader {
            cluster_id: 1,
            member_id: 1,
            revision: self.store.revision(),
            raft_term: 1,
        })
    }
}
