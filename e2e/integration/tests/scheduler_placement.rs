//! Placement as the process `scheduler` serves it, as sidecars see it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use outrider_harness::http::Client;
use outrider_harness::{Placement, Scheduler, Signal, wait};
use outrider_proto::scheduler::v1::job_target_metadata::Type;
use outrider_proto::scheduler::v1::report_actor_types_request::Msg;
use outrider_proto::scheduler::v1::scheduler_client::SchedulerClient;
use outrider_proto::scheduler::v1::watch_jobs_request::WatchJobRequestType;
use outrider_proto::scheduler::v1::{
    ActorHost, HashAlgorithm, Host, Job, JobMetadata, JobTargetMetadata, Operation, PlacementOrder,
    PlacementOrderAck, ReportActorTypesRequest, ScheduleJobRequest, TargetActorReminder,
    WatchHostsRequest, WatchHostsResponse, WatchJobsRequest, WatchJobsRequestInitial,
    WatchJobsResponse,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

const TIMEOUT: Duration = Duration::from_secs(20);

async fn connect(scheduler: &Scheduler) -> Result<SchedulerClient<Channel>, Status> {
    let address = format!("http://127.0.0.1:{}", scheduler.port());
    let client = SchedulerClient::connect(address).await;
    client.map_err(|error| Status::unavailable(error.to_string()))
}

/// What a sidecar waits for jobs with.
fn initial() -> WatchJobsRequestInitial {
    WatchJobsRequestInitial {
        app_id: "app".to_owned(),
        namespace: "ns".to_owned(),
        supports_scheduler_placement: true,
        ..WatchJobsRequestInitial::default()
    }
}

/// A sidecar's stream of jobs.
struct Jobs {
    _requests: mpsc::Sender<WatchJobsRequest>,
    jobs: Streaming<WatchJobsResponse>,
}

impl Jobs {
    async fn open(scheduler: &Scheduler, initial: WatchJobsRequestInitial) -> Result<Jobs> {
        let (requests, receiver) = mpsc::channel(16);
        let initial = WatchJobRequestType::Initial(initial);
        let first = WatchJobsRequest {
            watch_job_request_type: Some(initial),
        };
        requests.send(first).await?;
        let mut client = connect(scheduler).await?;
        let jobs = client.watch_jobs(ReceiverStream::new(receiver)).await?;
        Ok(Jobs {
            _requests: requests,
            jobs: jobs.into_inner(),
        })
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(TIMEOUT, stream.message()).await;
    let message = message.map_err(|_| Status::aborted("no message in time"))??;
    message.ok_or_else(|| Status::aborted("the stream has ended"))
}

async fn until_hosts(
    hosts: &mut Streaming<WatchHostsResponse>,
    are_wanted: impl Fn(&[Host]) -> bool,
) -> Result<Vec<Host>> {
    loop {
        let answer = next(hosts).await.context("hosts as wanted")?;
        if are_wanted(&answer.hosts) {
            return Ok(answer.hosts);
        }
    }
}

async fn watch_hosts(scheduler: &Scheduler) -> Result<Streaming<WatchHostsResponse>> {
    let mut client = connect(scheduler).await?;
    let hosts = client.watch_hosts(WatchHostsRequest {}).await?;
    Ok(hosts.into_inner())
}

/// One sidecar's stream of placement.
struct Stream {
    requests: mpsc::Sender<ReportActorTypesRequest>,
    orders: Streaming<PlacementOrder>,
    /// What the orders say: of each type the hosts.
    tables: BTreeMap<String, BTreeSet<String>>,
    locked: BTreeSet<String>,
}

fn host(address: &str, types: &[&str]) -> ActorHost {
    ActorHost {
        address: address.to_owned(),
        app_id: format!("app-{address}"),
        namespace: "ns".to_owned(),
        actor_types: types.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn report(host: ActorHost) -> ReportActorTypesRequest {
    ReportActorTypesRequest {
        msg: Some(Msg::Report(host)),
    }
}

fn acknowledgement(operation: Operation, seq: u64) -> ReportActorTypesRequest {
    let mut ack = PlacementOrderAck {
        seq,
        ..PlacementOrderAck::default()
    };
    ack.set_operation(operation);
    ReportActorTypesRequest {
        msg: Some(Msg::Ack(ack)),
    }
}

impl Stream {
    async fn send(
        client: &mut SchedulerClient<Channel>,
        first: ReportActorTypesRequest,
    ) -> Result<Stream, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let sent = requests.send(first).await;
        sent.map_err(|_| Status::internal("the channel is closed"))?;
        let orders = client
            .report_actor_types(ReceiverStream::new(receiver))
            .await?;
        Ok(Stream {
            requests,
            orders: orders.into_inner(),
            tables: BTreeMap::new(),
            locked: BTreeSet::new(),
        })
    }

    async fn open(scheduler: &Scheduler, host: ActorHost) -> Result<Stream, Status> {
        Stream::send(&mut connect(scheduler).await?, report(host)).await
    }

    /// The next order, without an acknowledgement.
    async fn next(&mut self) -> Result<PlacementOrder, Status> {
        let order = next(&mut self.orders).await?;
        match order.operation() {
            Operation::Lock => self.locked.extend(order.actor_types.iter().cloned()),
            Operation::Unlock => self.locked.retain(|it| !order.actor_types.contains(it)),
            Operation::Update => {
                let tables = order.tables.clone().unwrap_or_default();
                assert_eq!(tables.hash_algorithm(), HashAlgorithm::Rendezvous);
                for (name, table) in tables.entries {
                    assert!(order.versions.contains_key(&name), "{name}");
                    match table.hosts.is_empty() {
                        true => drop(self.tables.remove(&name)),
                        false => {
                            let hosts = table.hosts.into_keys().collect();
                            self.tables.insert(name, hosts);
                        }
                    }
                }
            }
            Operation::Unknown => return Err(Status::internal("an order without an operation")),
        }
        Ok(order)
    }

    async fn follow(&mut self) -> Result<PlacementOrder, Status> {
        let order = self.next().await?;
        let ack = acknowledgement(order.operation(), order.seq);
        // A stream that has ended says why with the next order.
        let _ = self.requests.send(ack).await;
        Ok(order)
    }

    /// Takes part in rounds until one has ended after which these are the tables.
    async fn until(&mut self, wanted: &[(&str, &[&str])]) -> Result<()> {
        let set = |hosts: &[&str]| hosts.iter().map(|it| (*it).to_owned()).collect();
        let tables = wanted
            .iter()
            .map(|(name, hosts)| ((*name).to_owned(), set(hosts)));
        let wanted: BTreeMap<String, BTreeSet<String>> = tables.collect();
        while self.tables != wanted || !self.locked.is_empty() {
            let order = self.follow().await;
            order.with_context(|| format!("{wanted:?}, and there is {:?}", self.tables))?;
        }
        Ok(())
    }
}

/// A scheduler that serves, once it is sure that no placement service is there.
async fn serving(folder: &tempfile::TempDir, flags: &[&str]) -> Result<Scheduler> {
    let flags = [flags, &["--placement-enabled"]].concat();
    let scheduler = Scheduler::with(folder.path(), &flags).await?;
    wait::until("it serves placement", || async {
        let mut stream = Stream::open(&scheduler, host("first:1", &[])).await.ok()?;
        stream.next().await.ok()
    })
    .await?;
    Ok(scheduler)
}

async fn metric(scheduler: &Scheduler, line: &str) -> Result<()> {
    let client = Client::new(scheduler.metrics_port());
    let what = format!("the metric {line}");
    wait::until(&what, || async {
        let answer = client.get("/metrics").await.ok()?;
        answer.text().lines().any(|it| it == line).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_scheduler_announces_itself_when_a_sidecar_could_follow() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::with(folder.path(), &["--placement-enabled"]).await?;
    let mut hosts = watch_hosts(&scheduler).await?;
    let is_capable = |hosts: &[Host]| hosts.iter().all(|it| it.scheduler_placement_enabled);
    let first = until_hosts(&mut hosts, is_capable).await?;
    assert!(!first[0].leader, "nobody is there");
    let jobs = Jobs::open(&scheduler, initial()).await?;
    let leads = |hosts: &[Host]| hosts.iter().any(|it| it.leader);
    let announced = until_hosts(&mut hosts, leads).await?;
    let address = format!("127.0.0.1:{}", scheduler.port());
    assert_eq!(announced[0].address, address);
    metric(&scheduler, "dapr_scheduler_placement_leader 1").await?;
    drop(jobs);
    until_hosts(&mut hosts, |hosts| !leads(hosts)).await?;
    // What a sidecar has used stays.
    let stream = Stream::open(&scheduler, host("h1:1", &[])).await?;
    until_hosts(&mut hosts, leads).await?;
    drop(stream);
    metric(&scheduler, "dapr_scheduler_placement_leader 1").await?;
    let mut again = watch_hosts(&scheduler).await?;
    assert!(leads(&next(&mut again).await?.hosts));
    Ok(())
}

#[tokio::test]
async fn all_streams_have_the_same_tables_after_each_join_report_and_leave() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &[]).await?;
    let mut one = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    one.until(&[("cat", &["h1:1"])]).await?;
    let mut two = Stream::open(&scheduler, host("h2:1", &["cat", "dog"])).await?;
    let both: &[(&str, &[&str])] = &[("cat", &["h1:1", "h2:1"]), ("dog", &["h2:1"])];
    let (first, second) = tokio::join!(one.until(both), two.until(both));
    first.and(second)?;
    one.requests.send(report(host("h1:1", &["eel"]))).await?;
    let moved: &[(&str, &[&str])] = &[("cat", &["h2:1"]), ("dog", &["h2:1"]), ("eel", &["h1:1"])];
    let (first, second) = tokio::join!(one.until(moved), two.until(moved));
    first.and(second)?;
    // A table reader hosts nothing, and gets all at once.
    let mut reader = Stream::open(&scheduler, host("", &[])).await?;
    reader.until(moved).await?;
    drop(two);
    let left: &[(&str, &[&str])] = &[("eel", &["h1:1"])];
    let (first, second) = tokio::join!(one.until(left), reader.until(left));
    first.and(second)?;
    let line = "dapr_scheduler_placement_streams_connected{namespace=\"ns\"} 2";
    metric(&scheduler, line).await?;
    // Another namespace knows nothing of it.
    let mut elsewhere = host("h3:1", &["cat"]);
    elsewhere.namespace = "other".to_owned();
    let mut elsewhere = Stream::open(&scheduler, elsewhere).await?;
    elsewhere.until(&[("cat", &["h3:1"])]).await
}

#[tokio::test]
async fn a_silent_sidecar_is_disconnected_and_the_others_go_on() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &["--placement-disseminate-timeout=1s"]).await?;
    let mut silent = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    silent.until(&[("cat", &["h1:1"])]).await?;
    let mut other = Stream::open(&scheduler, host("h2:1", &["cat"])).await?;
    other.until(&[("cat", &["h2:1"])]).await?;
    let lock = silent.next().await?;
    assert_eq!(lock.actor_types, ["cat"]);
    let status = silent.next().await.unwrap_err();
    let text = format!("dissemination timeout after 1s for round {}", lock.seq);
    assert_eq!(
        (status.code(), status.message()),
        (Code::DeadlineExceeded, &*text)
    );
    Ok(())
}

async fn refused(scheduler: &Scheduler, first: ReportActorTypesRequest) -> Result<(Code, String)> {
    let status = match Stream::send(&mut connect(scheduler).await?, first).await {
        Ok(mut stream) => stream.next().await.err().context("it is served")?,
        Err(status) => status,
    };
    Ok((status.code(), status.message().to_owned()))
}

#[tokio::test]
async fn what_may_not_be_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let off = Scheduler::start(folder.path()).await?;
    let text = "placement is not enabled on this scheduler".to_owned();
    let first = report(host("h1:1", &["cat"]));
    assert_eq!(refused(&off, first).await?, (Code::Unimplemented, text));

    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &[]).await?;
    let nameless = ActorHost {
        app_id: String::new(),
        ..host("h1:1", &[])
    };
    let many = ActorHost {
        actor_types: (0..4097).map(|it| it.to_string()).collect(),
        ..host("h1:1", &[])
    };
    for (first, code, text) in [
        (
            acknowledgement(Operation::Lock, 1),
            Code::InvalidArgument,
            "first message must be a host report",
        ),
        (
            ReportActorTypesRequest { msg: None },
            Code::InvalidArgument,
            "first message must be a host report",
        ),
        (
            report(nameless),
            Code::InvalidArgument,
            "host ID and namespace must be provided",
        ),
        (
            report(host("h1:1", &["dapr.internal.ns.other.workflow"])),
            Code::PermissionDenied,
            "entity dapr.internal.ns.other.workflow is not allowed for app ID app-h1:1 in namespace ns",
        ),
        (
            report(many),
            Code::InvalidArgument,
            "at most 4096 actor types",
        ),
        (
            report(host("h1:1", &[&"x".repeat(513)])),
            Code::InvalidArgument,
            "names and addresses have at most 512 bytes",
        ),
    ] {
        assert_eq!(refused(&scheduler, first).await?, (code, text.to_owned()));
    }
    // The same goes for later reports.
    let mut stream = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    stream.until(&[("cat", &["h1:1"])]).await?;
    let foreign = report(host("h1:1", &["dapr.internal"]));
    stream.requests.send(foreign).await?;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test]
async fn placement_stays_with_a_placement_service_as_long_as_there_is_one() -> Result<()> {
    let service = Placement::start(&[]).await?;
    let folder = tempfile::tempdir()?;
    let scheduler = Scheduler::with(folder.path(), &["--placement-enabled"]).await?;
    let mut hosts = watch_hosts(&scheduler).await?;
    let sidecar = WatchJobsRequestInitial {
        placement_addresses: vec![format!("127.0.0.1:{}", service.port())],
        ..initial()
    };
    let _jobs = Jobs::open(&scheduler, sidecar).await?;
    let is_masked = |hosts: &[Host]| hosts.iter().all(|it| !it.scheduler_placement_enabled);
    until_hosts(&mut hosts, is_masked).await?;
    let line = "actor placement stays with the placement service and this scheduler withholds its placement leader";
    wait::until("a line of the log", || async {
        let lines = scheduler.lines();
        lines.iter().any(|it| it.contains(line)).then_some(())
    })
    .await?;
    let text = "scheduler \"dapr-scheduler-server-0\" is not the placement leader".to_owned();
    let first = report(host("h1:1", &["cat"]));
    assert_eq!(
        refused(&scheduler, first).await?,
        (Code::FailedPrecondition, text)
    );
    drop(service);
    let leads = |hosts: &[Host]| hosts.iter().any(|it| it.leader);
    until_hosts(&mut hosts, leads).await?;
    let mut stream = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    stream.until(&[("cat", &["h1:1"])]).await
}

#[tokio::test]
async fn a_reminder_goes_to_the_sidecar_that_has_its_actor() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &[]).await?;
    let mut streams = Vec::new();
    for n in 1..=3 {
        let sidecar = WatchJobsRequestInitial {
            actor_types: vec!["cat".to_owned()],
            actor_address: Some(format!("10.0.0.{n}:50002")),
            ..initial()
        };
        streams.push(Jobs::open(&scheduler, sidecar).await?);
    }
    let mut client = connect(&scheduler).await?;
    for id in 1..=5 {
        let target = Type::Actor(TargetActorReminder {
            id: format!("actor-{id}"),
            r#type: "cat".to_owned(),
        });
        let request = ScheduleJobRequest {
            name: "r".to_owned(),
            job: Some(Job {
                due_time: Some("0s".to_owned()),
                ..Job::default()
            }),
            metadata: Some(JobMetadata {
                app_id: "app".to_owned(),
                namespace: "ns".to_owned(),
                target: Some(JobTargetMetadata {
                    r#type: Some(target),
                }),
                concurrency_key: None,
            }),
            overwrite: false,
        };
        client.schedule_job(request).await?;
    }
    for (stream, wanted) in streams.iter_mut().zip([
        ["actor-3", "actor-4"].as_slice(),
        &["actor-1"],
        &["actor-2", "actor-5"],
    ]) {
        let mut found = BTreeSet::new();
        for _ in wanted {
            let job = next(&mut stream.jobs).await?;
            let target = job.metadata.and_then(|it| it.target?.r#type);
            let Some(Type::Actor(actor)) = target else {
                bail!("no reminder");
            };
            found.insert(actor.id);
        }
        assert_eq!(found, wanted.iter().map(|it| (*it).to_owned()).collect());
    }
    Ok(())
}

#[tokio::test]
async fn a_scheduler_that_is_told_to_stop_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &[]).await?;
    let mut stream = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    stream.until(&[("cat", &["h1:1"])]).await?;
    scheduler.signal(Signal::TERM)?;
    let status = stream.next().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status.message().contains("placement is shutting down"),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_hostile_sidecar_costs_little_and_keeps_nobody_from_his_rounds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let scheduler = serving(&folder, &["--placement-disseminate-timeout=1s"]).await?;
    let before = scheduler.anonymous_memory()?;
    // Never reads, and reports other types all the time.
    let flood = Stream::open(&scheduler, host("h1:1", &["cat"])).await?;
    for index in 0..20_000u64 {
        let other = report(host("h1:1", &[&format!("type-{index}")]));
        let ack = acknowledgement(Operation::Lock, index);
        for message in [other, ack] {
            // Once it is given up nobody reads.
            let sent = flood.requests.send(message);
            if !matches!(tokio::time::timeout(TIMEOUT, sent).await, Ok(Ok(()))) {
                break;
            }
        }
    }
    // A message that is too large is not even read.
    let million = ActorHost {
        actor_types: (0..1_000_000).map(|it| it.to_string()).collect(),
        ..host("h2:1", &[])
    };
    let (code, _) = refused(&scheduler, report(million)).await?;
    assert_eq!(code, Code::OutOfRange);
    // Many who do nothing.
    let mut idle = Vec::new();
    for _ in 0..4 {
        let mut client = connect(&scheduler).await?;
        for _ in 0..500 {
            let first = report(host("h3:1", &["cat"]));
            idle.push(Stream::send(&mut client, first).await?);
        }
    }
    let began = Instant::now();
    let mut other = Stream::open(&scheduler, host("h4:1", &["dog"])).await?;
    while !other.tables.contains_key("dog") || !other.locked.is_empty() {
        other.follow().await?;
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    let grown = scheduler.anonymous_memory()?.saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    Ok(())
}
