//! The streams on which sidecars report their actor types and get orders: the
//! same in the placement service and in schedulers, whose messages differ.

mod codec;
mod session;

use bytes::Bytes;
use outrider_placement_engine::{Caller, Host, Refused, authorize};
use outrider_security::{Peer, SpiffeId};
use tokio::sync::mpsc;
use tonic::{Request, Status};

pub use codec::OrderCodec;
pub use session::{Reports, Session};

/// A report, in bytes.
pub const LARGEST: usize = 1 << 20;

/// Orders of one stream, encoded. An error is the last one.
pub type Orders = mpsc::Receiver<Result<Bytes, Status>>;

/// Who sends a request. With mTLS it has to be a workload.
pub fn identify<T>(request: &Request<T>, mtls: bool) -> Result<Option<SpiffeId>, Status> {
    let peer = request.extensions().get::<Peer>();
    let id = peer.and_then(|peer| peer.id.clone());
    if mtls && caller(id.as_ref()).is_none() {
        let text = "failed to get client ID from context";
        return Err(Status::unauthenticated(text));
    }
    Ok(id)
}

/// Whether `host` is what the one with this identity may report.
pub fn permit(host: &Host, id: Option<&SpiffeId>) -> Result<(), Status> {
    authorize(host, caller(id)).map_err(|refused| match refused {
        Refused::Invalid(text) => Status::invalid_argument(text),
        Refused::Denied(text) => Status::permission_denied(text),
    })
}

fn caller(id: Option<&SpiffeId>) -> Option<Caller<'_>> {
    let workload = id?.as_workload()?;
    Some(Caller {
        app_id: workload.app_id,
        namespace: workload.namespace,
    })
}
