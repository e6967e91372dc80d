//! One incarnation of the server: a store, the engine on it, and what is served.
//! When it fails another one begins in its place.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use outrider_host::{Target, Tasks, listen};
use outrider_k8s::Client;
use outrider_kit::random;
use outrider_proto::scheduler::v1::scheduler_server::SchedulerServer;
use outrider_security::{Acceptor, Clients, Expected, Security};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::service::Routes;

use crate::api::Api;
use crate::child::EtcdProcess;
use crate::etcd::{Etcd as Facade, Leases};
use crate::flags::{Embedded as EmbeddedFlags, Etcd, External, Flags};
use crate::jobs::Jobs;
use crate::kv::{Change, Embedded, Remote};
use crate::member::{self, Member};
use crate::metrics::Metrics;
use crate::placement::{Placement, WithPlacement};
use crate::runner::{Handle, Runner};
use crate::{cluster, data, listener, namespaces};

const SCOPE: &str = "dapr.scheduler.server";
/// For what is under way when an incarnation ends.
const GRACE: Duration = Duration::from_secs(5);
/// Pauses between incarnations.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An incarnation that has lived so long begins with the first pause again.
const WELL: Duration = Duration::from_secs(30);
/// Of one request, in bytes.
const LARGEST_REQUEST: usize = 8 << 20;
/// For giving the lease back.
const RESIGN: Duration = Duration::from_secs(2);
/// Changes of an etcd on their way to the engine.
const CHANGES: usize = 8192;
/// Between two looks at the size of the store.
const SIZES: Duration = Duration::from_secs(5);

/// What all incarnations share.
pub struct Server {
    pub flags: Arc<Flags>,
    pub security: Security,
    pub client: Option<Client>,
    pub metrics: Metrics,
    pub placement: Placement,
    pub ready: Ready,
}

/// Parts that have to be ready.
pub struct Ready {
    pub server: Target,
    pub store: Target,
    pub jobs: Target,
    /// Where this scheduler may serve placement.
    pub placement: Option<Target>,
    /// In Kubernetes.
    pub controller: Option<Target>,
}

impl Ready {
    fn none(&self) {
        self.server.not_ready();
        self.store.not_ready();
    }
}

impl Server {
    /// Incarnations until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = tokio::time::Instant::now();
            let tasks = Tasks::new();
            let failed = Box::pin(self.live(&tasks, &stopping)).await;
            self.ready.none();
            match stopping.is_cancelled() {
                true => self.placement.stop(),
                false => self.placement.set_members(Vec::new(), ""),
            }
            tasks.stop(Some(GRACE)).await;
            let Err(error) = failed else {
                return;
            };
            if stopping.is_cancelled() {
                return;
            }
            if began.elapsed() > WELL {
                pause = FIRST_PAUSE;
            }
            let wait = pause.mul_f64(0.5 + random::fraction());
            let shown = outrider_kit::duration::format(wait);
            tracing::error!(target: SCOPE, "Scheduler server failed, recreating in {shown}: {error:#}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stopping.cancelled() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Until it fails, or `stopping` is cancelled.
    async fn live(&self, tasks: &Tasks, stopping: &CancellationToken) -> anyhow::Result<()> {
        match &self.flags.etcd {
            Etcd::Embedded(etcd) => {
                let folder = data::folder(&self.flags, etcd);
                data::prepare(&etcd.data, &folder).with_context(|| {
                    format!("cannot use the data directory {}", folder.display())
                })?;
                if etcd.members.len() > 1 || data::is_of_etcd(&folder) {
                    let living = self.live_with_child(etcd, &folder, tasks, stopping);
                    return Box::pin(living).await;
                }
                tokio::select! {
                    failed = Box::pin(self.live_embedded(etcd, &folder, tasks)) => failed,
                    () = stopping.cancelled() => Ok(()),
                }
            }
            Etcd::External(etcd) => Box::pin(self.live_on_etcd(etcd, tasks, stopping)).await,
        }
    }

    /// On an etcd that is a child of this process.
    async fn live_with_child(
        &self,
        etcd: &EmbeddedFlags,
        folder: &Path,
        tasks: &Tasks,
        stopping: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut child = EtcdProcess::start(&self.flags, etcd, folder)?;
        let (host, port) = &etcd.client_address;
        let external = External {
            endpoints: vec![format!("http://{host}:{port}")],
            user: None,
        };
        let ended = tokio::select! {
            ended = Box::pin(self.live_on_etcd(&external, tasks, stopping)) => ended,
            why = child.ended() => Err(anyhow!(why)),
        };
        child.stop().await;
        ended
    }

    /// On an etcd in other processes, with the members that share it.
    async fn live_on_etcd(
        &self,
        etcd: &External,
        tasks: &Tasks,
        stopping: &CancellationToken,
    ) -> anyhow::Result<()> {
        let remote = Remote::connect(&etcd.endpoints, etcd.user.clone()).await;
        let remote = remote.map_err(|status| anyhow!("cannot use etcd: {}", status.message()))?;
        let (leases_tx, leases) = watch::channel(0);
        let failed = tokio::select! {
            failed = Box::pin(self.live_as_member(&remote, &leases_tx, tasks)) => failed,
            () = stopping.cancelled() => Ok(()),
        };
        // Others do this member's part from now on, before its streams end.
        self.placement.set_members(Vec::new(), "");
        let lease = *leases.borrow();
        if lease != 0 {
            let _ = tokio::time::timeout(RESIGN, remote.revoke(lease)).await;
        }
        failed
    }

    async fn live_as_member(
        &self,
        remote: &Remote,
        leases: &watch::Sender<i64>,
        tasks: &Tasks,
    ) -> anyhow::Result<()> {
        let failed = |status: Status| anyhow!("etcd: {}", status.message());
        let revision = remote.wait_until_it_answers().await.map_err(failed)?;
        let jobs = Jobs::new(Arc::new(remote.clone()));
        let (changes_tx, changes) = mpsc::channel(CHANGES);
        let (mut runner, engine) = self.runner(&jobs, changes);
        runner.own_nothing();
        runner.load().await.map_err(failed)?;
        tasks.spawn("engine", runner.run(tasks.stopping()));
        self.log_workers();
        let member = cluster::Member {
            remote: remote.clone(),
            id: self.flags.id.clone(),
            own: member::own(&self.flags),
            placement: self.placement.clone(),
        };
        self.ready.store.ready();
        self.metrics.etcd_leader.set(1);
        self.serve(jobs, engine.clone(), tasks).await?;
        let following = cluster::follow_jobs(remote, revision + 1, changes_tx);
        tokio::select! {
            status = Box::pin(member.run(&engine, leases)) => Err(failed(status)),
            status = Box::pin(following) => Err(failed(status)),
            status = remote.keep_token() => Err(failed(status)),
        }
    }

    fn runner(&self, jobs: &Jobs, changes: mpsc::Receiver<Change>) -> (Runner, Handle) {
        Runner::new(
            self.flags.workers,
            jobs.clone(),
            changes,
            self.metrics.clone(),
            self.ready.jobs.clone(),
        )
    }

    async fn live_embedded(
        &self,
        etcd: &EmbeddedFlags,
        folder: &Path,
        tasks: &Tasks,
    ) -> anyhow::Result<()> {
        let (host, port) = &etcd.client_address;
        // Tools dial the IPv4 address.
        let host = match host.as_str() {
            "localhost" => "127.0.0.1",
            host => host,
        };
        let client_listener = listen::tcp(host, *port).await;
        let client_listener = client_listener
            .with_context(|| format!("cannot listen on {host}:{port} for clients of etcd"))?;
        let (store, changes) = Embedded::open(folder, etcd.quota)?;
        tracing::info!(target: "dapr.scheduler.etcd", "Embedded store is ready in {}", folder.display());
        let facade = Facade {
            store: store.clone(),
            leases: Arc::new(Leases::default()),
        };
        let jobs = Jobs::new(Arc::new(store.clone()));
        let (mut runner, engine) = self.runner(&jobs, changes);
        let loaded = runner.load().await;
        loaded.map_err(|status| anyhow!("cannot read the jobs: {}", status.message()))?;
        tasks.spawn("engine", runner.run(tasks.stopping()));
        self.log_workers();
        let member = Member {
            etcd: facade.clone(),
            id: self.flags.id.clone(),
            own: member::own(&self.flags),
        };
        let lease = member.lead().await;
        let lease = lease.map_err(|status| anyhow!("cannot lead: {}", status.message()))?;
        let leases = facade.leases.clone();
        let plain = Acceptor::plaintext();
        listener::serve("etcd API", client_listener, plain, facade.routes(), tasks);
        self.ready.store.ready();
        self.serve(jobs, engine, tasks).await?;
        tokio::select! {
            () = member.run(lease, &self.placement) => Err(anyhow!("the member has ended")),
            () = leases.expire(&store) => Err(anyhow!("leases have ended")),
            () = self.watch_size(&store) => Err(anyhow!("sizes have ended")),
            why = store.failed() => Err(anyhow!(why)),
        }
    }

    /// The line by which operators see the number of workers. It has always been
    /// on the error output, in this form.
    fn log_workers(&self) {
        let (id, count) = (&self.flags.id, self.flags.workers);
        eprintln!(
            "{{\"level\":\"info\",\"msg\":\"Starting queue with workers\",\"id\":\"{}\",\"count\":{count}}}",
            id.escape_default()
        );
    }

    /// Serves sidecars.
    async fn serve(&self, jobs: Jobs, engine: Handle, tasks: &Tasks) -> anyhow::Result<()> {
        let (address, port) = (&self.flags.service.listen_address, self.flags.service.port);
        let listener = listen::tcp(address, port).await;
        let listener = listener.with_context(|| format!("cannot listen on {address}:{port}"))?;
        let clients = Clients::Required(Expected::Any);
        let acceptor = self.security.acceptor(clients)?;
        if let (Some(client), Some(ready)) = (&self.client, &self.ready.controller) {
            let (client, jobs, ready) = (client.clone(), jobs.clone(), ready.clone());
            let synced = move || ready.ready();
            let follow = namespaces::follow(client, jobs, synced, tasks.stopping());
            tasks.spawn("namespaces", follow);
        }
        let api = Api {
            jobs,
            engine,
            metrics: self.metrics.clone(),
            tasks: tasks.clone(),
            placement: self.placement.clone(),
            mtls: self.security.is_enabled(),
            stopping: tasks.stopping(),
        };
        let service = SchedulerServer::new(api)
            .max_decoding_message_size(LARGEST_REQUEST)
            .max_encoding_message_size(usize::MAX);
        let service = WithPlacement {
            inner: service,
            placement: self.placement.clone(),
            mtls: self.security.is_enabled(),
            stopping: tasks.stopping(),
        };
        let routes = Routes::new(service).prepare();
        listener::serve("API", listener, acceptor, routes, tasks);
        tracing::info!(target: SCOPE, "Dapr Scheduler listening on: {address}:{port}");
        self.ready.server.ready();
        if let Some(placement) = &self.ready.placement {
            placement.ready();
        }
        Ok(())
    }

    async fn watch_size(&self, store: &Embedded) {
        self.metrics.etcd_leader.set(1);
        loop {
            self.metrics.etcd_size.set(store.file_size());
            tokio::time::sleep(SIZES).await;
        }
    }
}
