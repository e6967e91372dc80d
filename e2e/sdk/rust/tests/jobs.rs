use anyhow::{Context, Result};
use dapr::client::{JobBuilder, JobFailurePolicyBuilder, JobFailurePolicyType};
use dapr::error::Error;
use prost_types::Any;
use std::time::Duration;

use crate::app::App;
use crate::servers::{Server, scheduler};
use crate::sidecar::{Setup, refused, until, within};

fn data(text: &str) -> Any {
    Any {
        type_url: String::new(),
        value: text.as_bytes().to_vec(),
    }
}

async fn app() -> Result<(App, Server)> {
    let scheduler = scheduler().await?;
    let setup = Setup {
        flags: vec![scheduler.address.clone()],
        ..Setup::default()
    };
    Ok((App::with(setup).await?, scheduler))
}

async fn gone(app: &App, name: &str) -> Result<()> {
    let client = &app.client;
    let answer = || async {
        let answer = client.clone().get_job(name).await;
        matches!(answer, Err(Error::GrpcError(_))).then_some(())
    };
    until("the job is gone", answer).await
}

#[tokio::test]
async fn jobs_fire() -> Result<()> {
    let (mut app, _scheduler) = app().await?;
    let once = JobBuilder::new("once")
        .with_due_time("0s")
        .with_data(data("hello"));
    app.client.schedule_job(once.build(), None).await?;
    let call = within("it fires", app.calls.recv()).await?;
    assert_eq!(call.context("an end")?, ("once".into(), b"hello".to_vec()));
    gone(&app, "once").await?;

    let often = JobBuilder::new("often")
        .with_schedule("@every 100ms")
        .with_repeats(3)
        .with_data(data("x"));
    app.client.schedule_job(often.build(), None).await?;
    for _ in 0..3 {
        let call = within("it fires again", app.calls.recv()).await?;
        assert_eq!(call.context("an end")?.0, "often");
    }
    gone(&app, "often").await?;

    let policy = JobFailurePolicyBuilder::new(JobFailurePolicyType::Constant {})
        .with_retry_interval(Duration::from_millis(1))
        .with_max_retries(2);
    let fails = JobBuilder::new("fails")
        .with_due_time("0s")
        .with_data(data("x"))
        .with_failure_policy(policy.build());
    app.client.schedule_job(fails.build(), None).await?;
    for _ in 0..3 {
        let call = within("it is tried", app.calls.recv()).await?;
        assert_eq!(call.context("an end")?.0, "fails");
    }
    gone(&app, "fails").await?;
    assert!(app.calls.is_empty());
    Ok(())
}

#[tokio::test]
async fn jobs_are_kept() -> Result<()> {
    let (mut app, _scheduler) = app().await?;
    let rare = JobBuilder::new("rare")
        .with_schedule("@yearly")
        .with_repeats(4)
        .with_ttl("20000h")
        .with_data(data("hello"));
    app.client.schedule_job(rare.build(), None).await?;
    let job = app.client.get_job("rare").await?.job.context("no job")?;
    assert_eq!(job.schedule.as_deref(), Some("@yearly"));
    assert_eq!(job.repeats, Some(4));
    assert_eq!(job.data.context("no data")?.value, b"hello");

    // A second of the same name has to say that it takes its place.
    let second = || JobBuilder::new("rare").with_schedule("@monthly").build();
    let answer = app.client.schedule_job(second(), None).await;
    refused(answer, "AlreadyExists", "rare");
    app.client.schedule_job(second(), Some(true)).await?;
    let job = app.client.get_job("rare").await?.job.context("no job")?;
    assert_eq!(job.schedule.as_deref(), Some("@monthly"));

    app.client.delete_job("rare").await?;
    let answer = app.client.get_job("rare").await;
    refused(answer, "Internal", "job not found");
    let nonsense = JobBuilder::new("nonsense").with_schedule("now and then");
    let answer = app.client.schedule_job(nonsense.build(), None).await;
    refused(answer, "Internal", "now and then");
    Ok(())
}
