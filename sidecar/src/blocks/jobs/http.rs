//! Jobs over HTTP. <https://docs.dapr.io/reference/api/jobs_api/>

use http::{Response, StatusCode};
use outrider_net::body::Body;
use outrider_proto::common::v1::job_failure_policy::Policy;
use outrider_proto::runtime::v1::Job;
use serde_json::{Map, Value, json};

use super::{Api, decode, error, value};
use crate::blocks::error::{Result, malformed};
use crate::blocks::http::{Request, json as json_answer, no_content};
use crate::blocks::json::to_line;

pub async fn schedule(api: &Api, request: Request, name: &str) -> Response<Body> {
    match try_schedule(api, request, name).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}

async fn try_schedule(api: &Api, mut request: Request, name: &str) -> Result<()> {
    let body = request
        .bytes()
        .await
        .map_err(|cause| malformed(cause.to_string()).of_body(&cause))?;
    let (mut job, overwrite) = decode::job(&body).map_err(malformed)?;
    if !job.name.is_empty() {
        return Err(error::name_in_body(api));
    }
    name.trim().clone_into(&mut job.name);
    api.schedule(Some(job), overwrite).await
}

pub async fn get(api: &Api, name: &str) -> Response<Body> {
    match api.get(name.trim()).await {
        Ok(job) => json_answer(StatusCode::OK, to_line(&encode(&job))),
        Err(error) => error.into(),
    }
}

pub async fn delete(api: &Api, name: &str) -> Response<Body> {
    match api.delete(name.trim()).await {
        Ok(()) => no_content(),
        Err(error) => error.into(),
    }
}

fn encode(job: &Job) -> Value {
    let mut all = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    put("name", Some(job.name.clone().into()));
    put("schedule", job.schedule.clone().map(Value::from));
    put("repeats", job.repeats.map(Value::from));
    put("dueTime", job.due_time.clone().map(Value::from));
    put("ttl", job.ttl.clone().map(Value::from));
    put("data", job.data.as_ref().map(value::any_to_json));
    let policy = job.failure_policy.as_ref();
    put(
        "failurePolicy",
        policy.map(|policy| encode_policy(policy.policy.as_ref())),
    );
    Value::Object(all)
}

fn encode_policy(policy: Option<&Policy>) -> Value {
    match policy {
        None => json!({}),
        Some(Policy::Drop(_)) => json!({"drop": {}}),
        Some(Policy::Constant(constant)) => {
            let mut fields = Map::new();
            if let Some(interval) = &constant.interval {
                fields.insert(
                    "interval".to_owned(),
                    value::duration_to_text(interval).into(),
                );
            }
            if let Some(most) = constant.max_retries {
                fields.insert("maxRetries".to_owned(), most.into());
            }
            json!({"constant": fields})
        }
    }
}
