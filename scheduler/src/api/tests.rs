//! A scheduler on a socket, with a store in a folder.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrider_host::{Readiness, Tasks};
use outrider_proto::Any;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_proto::scheduler::v1::scheduler_server::SchedulerServer;
use outrider_proto::scheduler::v1::{
    Job, JobTargetMetadata, TargetActorReminder, TargetJob, WatchJobsRequestInitial,
    WatchJobsRequestResult, job_target_metadata::Type, watch_jobs_request::WatchJobRequestType,
};
use outrider_security::Acceptor;
use outrider_telemetry::metrics::Registry;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, service::Routes};

use super::*;
use crate::kv::Embedded;
use crate::listener;
use crate::runner::Runner;

struct Scheduler {
    tasks: Tasks,
    address: String,
    registry: Registry,
}

impl Scheduler {
    async fn start(folder: &Path) -> Self {
        let tasks = Tasks::new();
        // The file of one that ended is free a moment later.
        let (store, changes) = loop {
            match Embedded::open(folder, i64::MAX) {
                Ok(opened) => break opened,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let jobs = Jobs::new(Arc::new(store));
        let health = Readiness::new().target("jobs");
        let (mut runner, engine) = Runner::new(64, jobs.clone(), changes, metrics.clone(), health);
        runner.load().await.unwrap();
        tasks.spawn("engine", runner.run(tasks.stopping()));
        let off = crate::flags::Placement {
            is_enabled: false,
            timeout: Duration::from_secs(8),
            window: Duration::ZERO,
        };
        let placement = Placement::new("a".to_owned(), &off, &registry);
        let api = Api {
            jobs,
            engine,
            metrics,
            tasks: tasks.clone(),
            placement,
            mtls: false,
            stopping: tasks.stopping(),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let routes = Routes::new(SchedulerServer::new(api)).prepare();
        listener::serve("API", listener, Acceptor::plaintext(), routes, &tasks);
        Self {
            tasks,
            address,
            registry,
        }
    }

    async fn client(&self) -> SchedulerClient<Channel> {
        SchedulerClient::connect(self.address.clone())
            .await
            .unwrap()
    }

    async fn stop(self) {
        self.tasks.stop(Some(Duration::from_secs(5))).await;
    }
}

fn metadata() -> JobMetadata {
    metadata_for(Type::Job(TargetJob {}))
}

fn metadata_for(target: Type) -> JobMetadata {
    JobMetadata {
        app_id: "app".to_owned(),
        namespace: "default".to_owned(),
        target: Some(JobTargetMetadata {
            r#type: Some(target),
        }),
        concurrency_key: None,
    }
}

fn job(name: &str, due_time: &str) -> ScheduleJobRequest {
    ScheduleJobRequest {
        name: name.to_owned(),
        job: Some(Job {
            due_time: Some(due_time.to_owned()),
            ..Job::default()
        }),
        metadata: Some(metadata()),
        overwrite: false,
    }
}

/// A stream of jobs, and where results go.
async fn watch(
    client: &mut SchedulerClient<Channel>,
) -> (Streaming<WatchJobsResponse>, mpsc::Sender<WatchJobsRequest>) {
    let (requests, receiver) = mpsc::channel(64);
    let initial = WatchJobsRequestInitial {
        app_id: "app".to_owned(),
        namespace: "default".to_owned(),
        ..WatchJobsRequestInitial::default()
    };
    let first = WatchJobsRequest {
        watch_job_request_type: Some(WatchJobRequestType::Initial(initial)),
    };
    requests.send(first).await.unwrap();
    let jobs = client.watch_jobs(ReceiverStream::new(receiver)).await;
    (jobs.unwrap().into_inner(), requests)
}

async fn accept(requests: &mpsc::Sender<WatchJobsRequest>, id: u64) {
    let result = WatchJobsRequestResult { id, status: 0 };
    let request = WatchJobsRequest {
        watch_job_request_type: Some(WatchJobRequestType::Result(result)),
    };
    requests.send(request).await.unwrap();
}

async fn next(jobs: &mut Streaming<WatchJobsResponse>) -> WatchJobsResponse {
    let next = tokio::time::timeout(Duration::from_secs(5), jobs.message()).await;
    next.expect("in time").unwrap().expect("a job")
}

#[tokio::test]
async fn a_job_survives_a_restart_and_fires_when_a_sidecar_comes() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    client.schedule_job(job("a", "0s")).await.unwrap();
    scheduler.stop().await;
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    let (mut jobs, results) = watch(&mut client).await;
    let fired = next(&mut jobs).await;
    assert_eq!((fired.name.as_str(), fired.id), ("a", 1));
    assert_eq!(
        fired.metadata,
        Some(metadata()),
        "its creator comes with it"
    );
    accept(&results, 1).await;
    let get = GetJobRequest {
        name: "a".to_owned(),
        metadata: Some(metadata()),
    };
    // It goes when the result is stored.
    let gone = loop {
        match client.get_job(get.clone()).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => break status,
        }
    };
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(gone.message(), "job not found: a");
    scheduler.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_does_not_read_delays_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    let (mut jobs, results) = watch(&mut client).await;
    let mut dead_client = scheduler.client().await;
    let (dead, dead_results) = watch(&mut dead_client).await;
    for n in 0..20 {
        let mut request = job(&format!("fat-{n}"), "0s");
        if let Some(job) = &mut request.job {
            job.data = Some(Any {
                type_url: String::new(),
                value: vec![0; 128 << 10],
            });
        }
        client.schedule_job(request).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 10 {
        let fired = next(&mut jobs).await;
        accept(&results, fired.id).await;
        seen.push(fired.name);
    }
    drop((dead, dead_results, dead_client));
    while seen.len() < 20 {
        let fired = next(&mut jobs).await;
        accept(&results, fired.id).await;
        seen.push(fired.name);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);
    scheduler.stop().await;
}

#[tokio::test]
async fn what_is_listed_and_deleted_stays_within_its_target() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    let reminder = |r#type: &str, id: &str| {
        metadata_for(Type::Actor(TargetActorReminder {
            id: id.to_owned(),
            r#type: r#type.to_owned(),
        }))
    };
    for (name, metadata) in [
        ("a", metadata()),
        ("a1", reminder("t", "1")),
        ("a2", reminder("t", "12")),
        ("a3", reminder("t2", "1")),
    ] {
        let mut request = job(name, "1h");
        request.metadata = Some(metadata);
        client.schedule_job(request).await.unwrap();
    }
    async fn names(client: &mut SchedulerClient<Channel>, metadata: JobMetadata) -> Vec<String> {
        let request = ListJobsRequest {
            metadata: Some(metadata),
        };
        let listed = client.list_jobs(request).await.unwrap().into_inner().jobs;
        listed.into_iter().map(|job| job.name).collect()
    }
    assert_eq!(names(&mut client, metadata()).await, ["a"]);
    // In the order of keys.
    assert_eq!(names(&mut client, reminder("t", "")).await, ["a2", "a1"]);
    assert_eq!(names(&mut client, reminder("t", "1")).await, ["a1"]);
    let request = DeleteByMetadataRequest {
        metadata: Some(reminder("t", "1")),
        id_prefix_match: Some(true),
    };
    client.delete_by_metadata(request).await.unwrap();
    assert!(names(&mut client, reminder("t", "")).await.is_empty());
    assert_eq!(names(&mut client, reminder("t2", "")).await, ["a3"]);
    scheduler.stop().await;
}

#[tokio::test]
async fn bars_in_names_lead_to_no_reminder_of_another_actor() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    let reminder = |id: &str| {
        Some(metadata_for(Type::Actor(TargetActorReminder {
            id: id.to_owned(),
            r#type: "t".to_owned(),
        })))
    };
    let put = |id: &str, name: &str| ScheduleJobRequest {
        metadata: reminder(id),
        overwrite: true,
        ..job(name, "1h")
    };
    client.schedule_job(put("a||b", "r")).await.unwrap();
    client.schedule_job(put("a", "r")).await.unwrap();
    let refused = client.schedule_job(put("a", "b||r")).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    // Its own is replaced.
    client.schedule_job(put("a||b", "r")).await.unwrap();
    let get = |id: &str, name: &str| GetJobRequest {
        name: name.to_owned(),
        metadata: reminder(id),
    };
    let unknown = client.get_job(get("a", "b||r")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let request = DeleteJobRequest {
        name: "b||r".to_owned(),
        metadata: reminder("a"),
    };
    client.delete_job(request).await.unwrap();
    let metadata = reminder("a");
    let listed = client.list_jobs(ListJobsRequest { metadata }).await;
    let listed = listed.unwrap().into_inner().jobs;
    assert_eq!(listed.len(), 1);
    let request = DeleteByMetadataRequest {
        metadata: reminder("a"),
        id_prefix_match: Some(false),
    };
    client.delete_by_metadata(request).await.unwrap();
    let gone = client.get_job(get("a", "r")).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    client.get_job(get("a||b", "r")).await.unwrap();
    scheduler.stop().await;
}

#[tokio::test]
async fn errors_have_the_words_that_clients_know() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    client.schedule_job(job("a", "1h")).await.unwrap();
    let exists = client.schedule_job(job("a", "1h")).await.unwrap_err();
    assert_eq!(exists.code(), Code::AlreadyExists);
    assert_eq!(
        exists.message(),
        "job already exists: 'app||default||app||a'"
    );
    let invalid = client.schedule_job(job("b", "soon")).await.unwrap_err();
    assert_eq!(invalid.code(), Code::Unknown);
    assert_eq!(
        invalid.message(),
        "job failed validation: due time format not recognized"
    );
    let mut nothing = job("c", "1h");
    nothing.job = None;
    let nothing = client.schedule_job(nothing).await.unwrap_err();
    assert!(
        nothing
            .message()
            .contains("either a due time or a schedule")
    );
    let request = DeleteByMetadataRequest::default();
    let nobody = client.delete_by_metadata(request).await.unwrap_err();
    assert_eq!(nobody.code(), Code::InvalidArgument);
    assert!(
        nobody
            .message()
            .starts_with("failed to parse metadata: rpc error: code = ")
    );
    let text = scheduler.registry.text();
    for line in [
        "dapr_scheduler_jobs_created_total{type=\"job\"} 1",
        "dapr_scheduler_jobs_created_failed_total{type=\"job\"} 3",
        "dapr_scheduler_sidecar_errors_total{reason=\"auth_failed\"} 1",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    scheduler.stop().await;
}

#[tokio::test]
async fn a_stream_on_which_nothing_can_come_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let scheduler = Scheduler::start(folder.path()).await;
    let mut client = scheduler.client().await;
    let (mut jobs, _results) = watch(&mut client).await;
    let (requests, receiver) = mpsc::channel(1);
    let initial = WatchJobsRequestInitial {
        app_id: "app".to_owned(),
        namespace: "default".to_owned(),
        accept_job_types: vec![1],
        ..WatchJobsRequestInitial::default()
    };
    let first = WatchJobsRequest {
        watch_job_request_type: Some(WatchJobRequestType::Initial(initial)),
    };
    requests.send(first).await.unwrap();
    let refused = client.watch_jobs(ReceiverStream::new(receiver)).await;
    assert_eq!(refused.unwrap_err().message(), "no prefixes provided");
    client.schedule_job(job("a", "0s")).await.unwrap();
    assert_eq!(next(&mut jobs).await.name, "a");
    scheduler.stop().await;
}
