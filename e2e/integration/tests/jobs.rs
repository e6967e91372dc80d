//! The jobs API where there is no scheduler.

use anyhow::Result;
use outrider_harness::Daprd;
use serde_json::json;

#[tokio::test]
async fn jobs_without_a_scheduler_say_so() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let http = daprd.http();
    for version in ["v1.0", "v1.0-alpha1"] {
        let path = format!("/{version}/jobs/nightly");
        let answer = http.post(&path, &json!({"schedule": "@daily"})).await?;
        assert_eq!(answer.status, 500);
        let (code, message) = answer.error()?;
        assert_eq!(code, "DAPR_SCHEDULER_SCHEDULE_JOB");
        assert_eq!(
            message,
            "failed to schedule job due to: scheduler clients are disabled"
        );
        for (answer, code) in [
            (http.get(&path).await?, "DAPR_SCHEDULER_GET_JOB"),
            (http.delete(&path).await?, "DAPR_SCHEDULER_DELETE_JOB"),
        ] {
            assert_eq!((answer.status, answer.error()?.0.as_str()), (500, code));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_job_that_cannot_be_is_refused_before_a_scheduler_is_asked() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let http = daprd.http();
    for (body, code) in [
        (json!({}), "DAPR_SCHEDULER_SCHEDULE_EMPTY"),
        (
            json!({"name": "x", "schedule": "@daily"}),
            "DAPR_SCHEDULER_JOB_NAME",
        ),
        (json!({"schedule": 5}), "ERR_MALFORMED_REQUEST"),
        (
            json!({"dueTime": "1s", "failurePolicy": {"constant": {"interval": "500ms"}}}),
            "ERR_MALFORMED_REQUEST",
        ),
    ] {
        let answer = http.post("/v1.0/jobs/nightly", &body).await?;
        assert_eq!(
            (answer.status, answer.error()?.0.as_str()),
            (400, code),
            "{body}"
        );
    }
    let answer = http
        .post("/v1.0/jobs/%20", &json!({"schedule": "@daily"}))
        .await?;
    assert_eq!(answer.error()?.0, "DAPR_SCHEDULER_JOB_NAME_EMPTY");
    Ok(())
}
