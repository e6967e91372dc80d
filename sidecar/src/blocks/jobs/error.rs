//! Errors of the jobs API.

use std::fmt::Display;

use http::StatusCode;
use outrider_net::grpc;
use tonic::{Code, Status};

use super::Api;
use crate::blocks::error::Error;

/// Why the scheduler did not do something.
#[derive(Debug)]
pub enum Cause {
    Disabled,
    Refused(Box<Status>),
}

impl Cause {
    fn code(&self) -> Code {
        match self {
            Self::Disabled => Code::Internal,
            // What a scheduler answers without a code of its own.
            Self::Refused(status) if status.code() == Code::Unknown => Code::Internal,
            Self::Refused(status) => status.code(),
        }
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disabled => f.write_str("scheduler clients are disabled"),
            Self::Refused(status) => f.write_str(&grpc::text(status)),
        }
    }
}

/// The error code of a job is its reason as well.
fn error(api: &Api, code: &'static str, grpc_code: Code, message: String) -> Error {
    let status = match grpc_code {
        Code::InvalidArgument => StatusCode::BAD_REQUEST,
        code => grpc::http_status(code),
    };
    let metadata = [("appID", &api.app_id), ("namespace", &api.namespace)];
    Error::rich(code, code, status, grpc_code, message)
        .with_metadata(metadata.map(|(name, value)| (name, value.as_str())))
}

fn invalid(api: &Api, code: &'static str, message: &str) -> Error {
    error(api, code, Code::InvalidArgument, message.to_owned())
}

pub fn no_job(api: &Api) -> Error {
    invalid(api, "DAPR_SCHEDULER_EMPTY", "Job is empty")
}

pub fn no_name(api: &Api) -> Error {
    invalid(api, "DAPR_SCHEDULER_JOB_NAME_EMPTY", "Name is empty")
}

pub fn no_schedule(api: &Api) -> Error {
    invalid(api, "DAPR_SCHEDULER_SCHEDULE_EMPTY", "Schedule is empty")
}

pub fn name_in_body(api: &Api) -> Error {
    let message = "Set the job name in the url only";
    invalid(api, "DAPR_SCHEDULER_JOB_NAME", message).with_metadata([("appID", api.app_id.as_str())])
}

pub fn schedule(api: &Api, cause: &Cause) -> Error {
    let message = format!("failed to schedule job due to: {cause}");
    error(api, "DAPR_SCHEDULER_SCHEDULE_JOB", cause.code(), message)
}

pub fn get(api: &Api, cause: &Cause) -> Error {
    let message = format!("failed to get job due to: {cause}");
    error(api, "DAPR_SCHEDULER_GET_JOB", Code::Internal, message)
}

pub fn list(api: &Api, cause: &Cause) -> Error {
    let message = format!("failed to list jobs due to: {cause}");
    error(api, "DAPR_SCHEDULER_LIST_JOBS", Code::Internal, message)
}

pub fn delete(api: &Api, cause: &Cause) -> Error {
    let message = format!("failed to delete job due to: {cause}");
    error(api, "DAPR_SCHEDULER_DELETE_JOB", Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use outrider_scheduler_client::{Options, Scheduler};
    use outrider_security::Connector;

    use super::*;

    fn api() -> Api {
        Api {
            scheduler: Scheduler::new(Options {
                addresses: Vec::new(),
                connector: Connector::plaintext(),
                app_id: "app".into(),
                namespace: "ns".into(),
                streams: 3,
                actor_address: String::new(),
                placement_addresses: Vec::new(),
            }),
            app_id: "app".into(),
            namespace: "ns".into(),
        }
    }

    #[test]
    fn the_scheduler_decides_about_the_status_of_scheduling_only() {
        let exists = || Cause::Refused(Box::new(Status::already_exists("job already exists: 'x'")));
        let error = schedule(&api(), &exists());
        assert_eq!(
            (error.http.as_u16(), error.grpc),
            (409, Code::AlreadyExists)
        );
        assert_eq!(
            error.message,
            "failed to schedule job due to: rpc error: code = AlreadyExists desc = job already exists: 'x'"
        );
        let error = schedule(&api(), &Cause::Refused(Box::new(Status::unknown("no"))));
        assert_eq!((error.http.as_u16(), error.grpc), (500, Code::Internal));
        for error in [get(&api(), &exists()), delete(&api(), &exists())] {
            assert_eq!((error.http.as_u16(), error.grpc), (500, Code::Internal));
        }
        let error = list(&api(), &Cause::Disabled);
        assert_eq!(
            error.message,
            "failed to list jobs due to: scheduler clients are disabled"
        );
        assert_eq!(error.known().unwrap().category, "job");
    }

    #[test]
    fn an_error_names_its_reason_and_the_application() {
        let body: serde_json::Value = serde_json::from_slice(&no_schedule(&api()).body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "errorCode": "DAPR_SCHEDULER_SCHEDULE_EMPTY",
                "message": "Schedule is empty",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "DAPR_SCHEDULER_SCHEDULE_EMPTY",
                    "domain": "dapr.io",
                    "metadata": {"appID": "app", "namespace": "ns"},
                }],
            })
        );
    }
}
