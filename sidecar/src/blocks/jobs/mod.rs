//! Jobs: what the application wants to be called for later.
//! <https://docs.dapr.io/developing-applications/building-blocks/jobs/>

pub mod decode;
pub mod deliver;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod value;

use outrider_scheduler_client::Scheduler;

use crate::blocks::descriptor::{self, Method, Route, V1, V1_ALPHA1};

const SCOPE: &str = "dapr.runtime.scheduler";

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "ScheduleJob",
            verbs: descriptor::POST,
            versions: &[V1, V1_ALPHA1],
            path: "jobs/{}",
            group: "jobs",
            answer: |apis, request, names| {
                Box::pin(http::schedule(&apis.jobs, request, names.first))
            },
        },
        Route {
            name: "GetJob",
            verbs: descriptor::GET,
            versions: &[V1, V1_ALPHA1],
            path: "jobs/{}",
            group: "jobs",
            answer: |apis, _, names| Box::pin(http::get(&apis.jobs, names.first)),
        },
        Route {
            name: "DeleteJob",
            verbs: descriptor::DELETE,
            versions: &[V1, V1_ALPHA1],
            path: "jobs/{}",
            group: "jobs",
            answer: |apis, _, names| Box::pin(http::delete(&apis.jobs, names.first)),
        },
    ],
    methods: &[
        Method::new("ScheduleJob", V1, "jobs"),
        Method::new("ScheduleJobAlpha1", V1_ALPHA1, "jobs"),
        Method::new("GetJob", V1, "jobs"),
        Method::new("GetJobAlpha1", V1_ALPHA1, "jobs"),
        Method::new("DeleteJob", V1, "jobs"),
        Method::new("DeleteJobAlpha1", V1_ALPHA1, "jobs"),
        Method::new("DeleteJobsByPrefix", V1, "jobs"),
        Method::new("DeleteJobsByPrefixAlpha1", V1_ALPHA1, "jobs"),
        Method::new("ListJobs", V1, "jobs"),
        Method::new("ListJobsAlpha1", V1_ALPHA1, "jobs"),
    ],
    errors: &[("DAPR_SCHEDULER_", "job")],
};

/// Operations on the jobs of this application.
#[derive(Clone)]
pub struct Api {
    pub scheduler: Scheduler,
    pub app_id: String,
    pub namespace: String,
}
