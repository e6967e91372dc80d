//! Between the messages of the API and those of the store.

use outrider_proto::Any;
use outrider_proto::common::v1::{
    JobFailurePolicy, JobFailurePolicyConstant, JobFailurePolicyDrop, job_failure_policy,
};
use outrider_proto::etcd::mvccpb::KeyValue;
use outrider_proto::scheduler::v1::{Job, JobMetadata, NamedJob};
use outrider_proto::stored::v1::{
    FailurePolicy, FailurePolicyConstant, FailurePolicyDrop, Spec, StoredJob, failure_policy,
};
use outrider_scheduler_engine::key;
use prost::Message as _;

use crate::jobs;

const METADATA: &str = "type.googleapis.com/dapr.proto.scheduler.v1.JobMetadata";

pub fn to_spec(job: Job, metadata: &JobMetadata) -> Spec {
    Spec {
        schedule: job.schedule,
        due_time: job.due_time,
        ttl: job.ttl,
        repeats: job.repeats,
        metadata: Some(Any {
            type_url: METADATA.to_owned(),
            value: metadata.encode_to_vec(),
        }),
        payload: job.data,
        failure_policy: job.failure_policy.and_then(to_policy),
    }
}

fn to_policy(policy: JobFailurePolicy) -> Option<FailurePolicy> {
    use job_failure_policy::Policy;
    let policy = match policy.policy? {
        Policy::Drop(_) => failure_policy::Policy::Drop(FailurePolicyDrop {}),
        Policy::Constant(constant) => failure_policy::Policy::Constant(FailurePolicyConstant {
            interval: constant.interval,
            max_retries: constant.max_retries,
        }),
    };
    Some(FailurePolicy {
        policy: Some(policy),
    })
}

fn from_policy(policy: FailurePolicy) -> Option<JobFailurePolicy> {
    use job_failure_policy::Policy;
    let policy = match policy.policy? {
        failure_policy::Policy::Drop(_) => Policy::Drop(JobFailurePolicyDrop {}),
        failure_policy::Policy::Constant(constant) => Policy::Constant(JobFailurePolicyConstant {
            interval: constant.interval,
            max_retries: constant.max_retries,
        }),
    };
    Some(JobFailurePolicy {
        policy: Some(policy),
    })
}

/// The whole name, the metadata, and the job.
pub fn from_stored(kv: &KeyValue) -> Result<(String, JobMetadata, Job), String> {
    let name = jobs::name_of(&kv.key).unwrap_or_default().to_owned();
    let stored = StoredJob::decode(kv.value.clone()).map_err(|error| error.to_string())?;
    let spec = stored.job.unwrap_or_default();
    let metadata = spec.metadata.as_ref().map(|it| it.value.as_slice());
    let metadata = JobMetadata::decode(metadata.unwrap_or_default())
        .map_err(|error| format!("failed to unmarshal job metadata: {error}"))?;
    let job = Job {
        schedule: spec.schedule,
        repeats: spec.repeats,
        due_time: spec.due_time,
        ttl: spec.ttl,
        data: spec.payload,
        failure_policy: spec.failure_policy.and_then(from_policy),
    };
    Ok((name, metadata, job))
}

/// With the name that it has within its target.
pub fn named(kv: &KeyValue) -> Result<NamedJob, String> {
    let (name, metadata, job) = from_stored(kv)?;
    let prefix = key::prefix(&metadata).map_err(|error| error.to_string())?;
    let short = name.strip_prefix(&prefix);
    let short = short.ok_or_else(|| {
        format!("job key '{name}' does not begin as its metadata says: '{prefix}'")
    })?;
    Ok(NamedJob {
        name: short.to_owned(),
        metadata: Some(metadata),
        job: Some(job),
    })
}
