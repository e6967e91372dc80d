//! What the scheduler does in a second. Run alone on a machine, with optimised
//! binaries (`OUTRIDER_BIN_DIR` names their folder, and may hold those of Dapr):
//! `cargo test -p outrider-integration figures -- --ignored --nocapture`.
//! `OUTRIDER_JOBS` is how many are stored for the last rows: a million by default.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use outrider_harness::{Scheduler, Signal, wait};
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_proto::scheduler::v1::watch_jobs_request::WatchJobRequestType;
use outrider_proto::scheduler::v1::{
    Job, JobMetadata, JobTargetMetadata, ScheduleJobRequest, TargetJob, WatchJobsRequest,
    WatchJobsRequestInitial, WatchJobsRequestResult, WatchJobsRequestResultStatus,
    job_target_metadata::Type,
};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

/// Calls at once.
const AT_ONCE: usize = 256;
const CREATED: usize = 20_000;
/// Jobs with one tick a second each, and for how long.
const PER_SECOND: usize = 1000;
const SECONDS: usize = 10;

fn metadata(app_id: &str) -> JobMetadata {
    JobMetadata {
        app_id: app_id.to_owned(),
        namespace: "default".to_owned(),
        target: Some(JobTargetMetadata {
            r#type: Some(Type::Job(TargetJob {})),
        }),
        concurrency_key: None,
    }
}

fn request(app_id: &str, name: String, job: Job) -> ScheduleJobRequest {
    ScheduleJobRequest {
        name,
        job: Some(job),
        metadata: Some(metadata(app_id)),
        overwrite: false,
    }
}

fn at(time: &str) -> Job {
    Job {
        due_time: Some(time.to_owned()),
        ..Job::default()
    }
}

async fn client(scheduler: &Scheduler) -> Result<SchedulerClient<Channel>> {
    let address = format!("http://127.0.0.1:{}", scheduler.port());
    wait::until("a connection", || async {
        SchedulerClient::connect(address.clone()).await.ok()
    })
    .await
}

/// Creates jobs over several connections, and says how many in a second.
async fn create(
    scheduler: &Scheduler,
    count: usize,
    each: impl Fn(usize) -> ScheduleJobRequest + Send + Sync + 'static,
) -> Result<f64> {
    let each = Arc::new(each);
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for lane in 0..AT_ONCE {
        let (mut client, each) = (client(scheduler).await?, each.clone());
        tasks.spawn(async move {
            for index in (lane..count).step_by(AT_ONCE) {
                client.schedule_job(each(index)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}

/// Names of jobs as they come, each accepted at once, for as long as the tasks are
/// kept.
async fn watch(
    scheduler: &Scheduler,
    app_id: &str,
) -> Result<(mpsc::Receiver<(String, Timestamp)>, JoinSet<()>)> {
    let mut client = client(scheduler).await?;
    let (results_tx, results) = mpsc::channel(4096);
    let initial = WatchJobsRequestInitial {
        app_id: app_id.to_owned(),
        namespace: "default".to_owned(),
        ..WatchJobsRequestInitial::default()
    };
    let message = |request| WatchJobsRequest {
        watch_job_request_type: Some(request),
    };
    results_tx
        .send(message(WatchJobRequestType::Initial(initial)))
        .await?;
    let mut jobs = client
        .watch_jobs(ReceiverStream::new(results))
        .await?
        .into_inner();
    let (names_tx, names) = mpsc::channel(65_536);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok(Some(job)) = jobs.message().await {
            let now = Timestamp::now();
            let result = WatchJobsRequestResult {
                id: job.id,
                status: WatchJobsRequestResultStatus::Success.into(),
            };
            let result = message(WatchJobRequestType::Result(result));
            if results_tx.send(result).await.is_err()
                || names_tx.send((job.name, now)).await.is_err()
            {
                return;
            }
        }
    });
    Ok((names, tasks))
}

async fn lateness(scheduler: &Scheduler) -> Result<(f64, f64)> {
    let (mut ticks, _tasks) = watch(scheduler, "late").await?;
    let first = Timestamp::now() + Duration::from_secs(3);
    create(scheduler, PER_SECOND, move |index| {
        let due = first + Duration::from_millis(index as u64);
        let job = Job {
            schedule: Some("@every 1s".to_owned()),
            repeats: Some(SECONDS as u32),
            ..at(&due.to_string())
        };
        request("late", index.to_string(), job)
    })
    .await?;
    let mut seen: HashMap<String, u64> = HashMap::new();
    let mut late = Vec::new();
    while late.len() < PER_SECOND * SECONDS {
        let tick = tokio::time::timeout(wait::LONG, ticks.recv()).await?;
        let (name, came) = tick.context("the stream ended")?;
        let count = seen.entry(name.clone()).or_default();
        let due = first + Duration::from_millis(name.parse()?) + Duration::from_secs(*count);
        *count += 1;
        assert!(came >= due, "a tick is early");
        late.push(came.duration_since(due).as_secs_f64() * 1000.0);
    }
    late.sort_by(f64::total_cmp);
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    Ok((at(0.5), at(0.99)))
}

async fn triggers(scheduler: &Scheduler) -> Result<f64> {
    create(scheduler, CREATED, |index| {
        request("due", index.to_string(), at("0s"))
    })
    .await?;
    let begun = Instant::now();
    let (mut jobs, _tasks) = watch(scheduler, "due").await?;
    for _ in 0..CREATED {
        jobs.recv().await.context("the stream ended")?;
    }
    Ok(CREATED as f64 / begun.elapsed().as_secs_f64())
}

async fn stored(scheduler: Scheduler, folder: &Path) -> Result<()> {
    let count = std::env::var("OUTRIDER_JOBS").ok();
    let count: usize = count.map_or(Ok(1_000_000), |text| text.parse())?;
    let rate = create(&scheduler, count, |index| {
        let job = Job {
            schedule: Some("@every 1h".to_owned()),
            ..at("24h")
        };
        request("stored", format!("job-{index:08}"), job)
    })
    .await?;
    println!("creates with {count} jobs at the end       {rate:>10.0} /s");
    let memory = scheduler.memory()? as f64 / f64::from(1 << 20);
    println!("resident with {count} jobs                 {memory:>10.1} MiB");
    let due = Timestamp::now() + Duration::from_secs(2);
    let first = request("first", "first".to_owned(), at(&due.to_string()));
    client(&scheduler).await?.schedule_job(first).await?;
    let port = scheduler.port();
    scheduler.signal(Signal::KILL)?;
    drop(scheduler);
    wait::until("the due time", || async {
        (Timestamp::now() > due).then_some(())
    })
    .await?;
    let begun = Instant::now();
    let scheduler = Scheduler::on(port, folder).await?;
    let (mut jobs, _tasks) = watch(&scheduler, "first").await?;
    jobs.recv().await.context("the stream ended")?;
    let took = begun.elapsed().as_secs_f64();
    println!("restart to first trigger, {count} jobs     {took:>10.2} s");
    let memory = scheduler.memory()? as f64 / f64::from(1 << 20);
    println!("resident after the restart                 {memory:>10.1} MiB");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures: minutes, alone on a machine"]
async fn scheduler() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::start(folder.path()).await?;
    let memory = scheduler.memory()? as f64 / f64::from(1 << 20);
    println!("resident, idle                             {memory:>10.1} MiB");
    let rate = create(&scheduler, CREATED, |index| {
        request("made", index.to_string(), at("24h"))
    })
    .await?;
    println!("durable creates, {AT_ONCE} at a time            {rate:>10.0} /s");
    let rate = triggers(&scheduler).await?;
    println!("triggers of {CREATED} due jobs                {rate:>10.0} /s");
    let (median, worst) = lateness(&scheduler).await?;
    println!("late at {PER_SECOND}/s: median                   {median:>10.2} ms");
    println!("late at {PER_SECOND}/s: p99                      {worst:>10.2} ms");
    stored(scheduler, folder.path()).await
}
