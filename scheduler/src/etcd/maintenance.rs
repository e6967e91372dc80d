//! State of the store.

use outrider_proto::etcd::etcdserverpb::alarm_request::AlarmAction;
use outrider_proto::etcd::etcdserverpb::maintenance_server::Maintenance;
use outrider_proto::etcd::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use super::Etcd;

/// The version of etcd whose API this is a part of.
const VERSION: &str = "3.5.33";

#[tonic::async_trait]
impl Maintenance for Etcd {
    async fn alarm(
        &self,
        request: Request<AlarmRequest>,
    ) -> Result<Response<AlarmResponse>, Status> {
        let request = request.into_inner();
        let raised = self.store.is_out_of_space();
        match request.action() {
            AlarmAction::Deactivate if request.alarm() != AlarmType::Corrupt => {
                self.store.clear_no_space();
            }
            AlarmAction::Activate => {
                return Err(Status::unimplemented(
                    "alarms are raised by the store alone",
                ));
            }
            _ => {}
        }
        let alarm = AlarmMember {
            member_id: 1,
            alarm: AlarmType::Nospace.into(),
        };
        Ok(Response::new(AlarmResponse {
            header: self.header(),
            alarms: raised.then_some(alarm).into_iter().collect(),
        }))
    }

    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let revision = self.store.revision().unsigned_abs();
        Ok(Response::new(StatusResponse {
            header: self.header(),
            version: VERSION.to_owned(),
            db_size: self.store.file_size(),
            leader: 1,
            raft_index: revision,
            raft_term: 1,
            raft_applied_index: revision,
            errors: Vec::new(),
            db_size_in_use: self.store.bytes_in_use(),
            is_learner: false,
        }))
    }

    /// The file gives the space of what was deleted to what comes next.
    async fn defragment(
        &self,
        _request: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        Ok(Response::new(DefragmentResponse {
            header: self.header(),
        }))
    }
}
