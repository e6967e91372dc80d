//! The body of `POST /jobs/<name>`: JSON of a message, whose fields have two
//! spellings. <https://protobuf.dev/programming-guides/json/>

use outrider_proto::common::v1::job_failure_policy::Policy;
use outrider_proto::common::v1::{
    JobFailurePolicy, JobFailurePolicyConstant, JobFailurePolicyDrop,
};
use outrider_proto::runtime::v1::Job;
use serde_json::{Map, Value};

use super::value;

/// The job, and whether it replaces one of its name.
pub fn job(body: &[u8]) -> Result<(Job, bool), String> {
    if body.is_empty() {
        return Ok((Job::default(), false));
    }
    let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let Value::Object(mut body) = body else {
        return Err("unexpected token: a job is an object".to_owned());
    };
    let data = take(&mut body, "data", "data");
    let policy = take(&mut body, "failurePolicy", "failure_policy");
    let job = Job {
        name: text(&mut body, "name", "name")?.unwrap_or_default(),
        schedule: text(&mut body, "schedule", "schedule")?,
        repeats: count(&mut body, "repeats", "repeats")?,
        due_time: text(&mut body, "dueTime", "due_time")?,
        ttl: text(&mut body, "ttl", "ttl")?,
        data: match data {
            None => None,
            Some(data) => Some(value::json_to_any(data).ok_or("data is nested too deeply")?),
        },
        failure_policy: policy.map(failure_policy).transpose()?,
    };
    let overwrite = match take(&mut body, "overwrite", "overwrite") {
        None => false,
        Some(Value::Bool(overwrite)) => overwrite,
        Some(other) => return Err(invalid("bool", "overwrite", &other)),
    };
    Ok((job, overwrite))
}

/// A field by either spelling; null is an absent one.
fn take(object: &mut Map<String, Value>, camel: &str, snake: &str) -> Option<Value> {
    let found = object.remove(camel).or_else(|| object.remove(snake));
    found.filter(|value| !value.is_null())
}

fn text(
    object: &mut Map<String, Value>,
    camel: &str,
    snake: &str,
) -> Result<Option<String>, String> {
    match take(object, camel, snake) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(invalid("string", camel, &other)),
    }
}

/// A number, or a text with one.
fn count(object: &mut Map<String, Value>, camel: &str, snake: &str) -> Result<Option<u32>, String> {
    let Some(given) = take(object, camel, snake) else {
        return Ok(None);
    };
    let number = match &given {
        Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0);
            whole.map(|it| it as u64)
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let number = number.and_then(|number| u32::try_from(number).ok());
    number
        .map(Some)
        .ok_or_else(|| invalid("uint32", camel, &given))
}

pub fn failure_policy(given: Value) -> Result<JobFailurePolicy, String> {
    let Value::Object(mut object) = given else {
        return Err(invalid("object", "failurePolicy", &given));
    };
    let drop = take(&mut object, "drop", "drop");
    let constant = take(&mut object, "constant", "constant");
    let policy = match (drop, constant) {
        (Some(_), Some(_)) => {
            return Err("failurePolicy has both drop and constant: give one of them".to_owned());
        }
        (Some(_), None) => Some(Policy::Drop(JobFailurePolicyDrop {})),
        (None, Some(Value::Object(mut fields))) => {
            let interval = text(&mut fields, "interval", "interval")?;
            let interval = interval.map(|text| {
                let parsed = value::text_to_duration(&text);
                parsed.ok_or_else(|| invalid("google.protobuf.Duration", "interval", &text.into()))
            });
            Some(Policy::Constant(JobFailurePolicyConstant {
                interval: interval.transpose()?,
                max_retries: count(&mut fields, "maxRetries", "max_retries")?,
            }))
        }
        (None, Some(other)) => return Err(invalid("object", "constant", &other)),
        (None, None) => None,
    };
    Ok(JobFailurePolicy { policy })
}

fn invalid(kind: &str, field: &str, value: &Value) -> String {
    format!("invalid value for {kind} field {field}: {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_two_spellings_and_unknown_ones_are_ignored() {
        for body in [
            r#"{"dueTime":"1s","failurePolicy":{"constant":{"interval":"0.5s","maxRetries":3}},"x":1}"#,
            r#"{"due_time":"1s","failure_policy":{"constant":{"interval":"0.5s","max_retries":"3","y":2}},"ttl":null}"#,
        ] {
            let (job, overwrite) = job(body.as_bytes()).unwrap();
            assert_eq!(job.due_time.as_deref(), Some("1s"));
            assert_eq!((job.ttl, overwrite), (None, false));
            let Some(Policy::Constant(constant)) = job.failure_policy.unwrap().policy else {
                panic!("no constant policy: {body}");
            };
            assert_eq!(constant.max_retries, Some(3));
            assert_eq!(constant.interval.unwrap().nanos, 500_000_000);
        }
        let (empty, _) = job(b"").unwrap();
        assert_eq!(empty, Job::default());
    }

    #[test]
    fn what_is_no_job_is_refused_by_its_field() {
        for (body, text) in [
            (
                r#"{"repeats":-1}"#,
                "invalid value for uint32 field repeats: -1",
            ),
            (
                r#"{"repeats":1.5}"#,
                "invalid value for uint32 field repeats: 1.5",
            ),
            (
                r#"{"schedule":5}"#,
                "invalid value for string field schedule: 5",
            ),
            (
                r#"{"overwrite":"yes"}"#,
                "invalid value for bool field overwrite: \"yes\"",
            ),
            (
                r#"{"failurePolicy":{"constant":{"interval":"500ms"}}}"#,
                "invalid value for google.protobuf.Duration field interval: \"500ms\"",
            ),
            ("[]", "unexpected token: a job is an object"),
        ] {
            assert_eq!(job(body.as_bytes()).unwrap_err(), text, "{body}");
        }
    }
}
