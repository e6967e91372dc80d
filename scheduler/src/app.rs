//! The process, from start to end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use outrider_host::Readiness;
use outrider_k8s::Client;
use outrider_security::Security;
use outrider_security::identity::Key;
use outrider_service::{Failure, Identity, Process, Service, flag};

use crate::flags::{self, Etcd, Flags};
use crate::metrics::Metrics;
use crate::placement::{Placement, Presence};
use crate::server::{Ready, Server};

const APP_ID: &str = "dapr-scheduler";
/// How long the end may take: the server has a time of its own.
const GRACE: Duration = Duration::from_secs(8);

pub async fn run(flags: Result<Flags, flags::Error>) -> Result<ExitCode, Failure> {
    let flags = match flags {
        Err(flags::Error::Usage(error)) => return Ok(flag::print(&error, &flags::command())),
        flags => flags,
    };
    let service = Service {
        name: "Dapr Scheduler Service",
        log: |line| tracing::info!(target: "dapr.scheduler", "{line}"),
        ended: "Scheduler service shut down gracefully",
        grace: GRACE,
    };
    service.run(flags, |flags| &flags.service, start).await
}

async fn start(flags: Flags, process: Process) -> anyhow::Result<()> {
    let store = match &flags.etcd {
        Etcd::Embedded(_) => "scheduler-etcd-embed",
        Etcd::External(_) => "scheduler-etcd-external",
    };
    let targets = ["scheduler-server", store, "scheduler-jobs"];
    let pages = process.serve_pages(&flags.service, targets, None);
    let [server, store, jobs] = pages.await?;
    let ready = Ready {
        server,
        store,
        jobs,
        placement: placement_target(&flags, &process.readiness),
        controller: controller(&flags, &process.readiness),
    };
    let metrics = Metrics::new(&process.registry);
    let client = match flags.kubernetes {
        true => Some(flags.service.client().await?),
        false => None,
    };
    let security = identity(&flags, client.as_ref(), &process).await?;
    let placement = placement(&flags, client.as_ref(), &security, &process)?;
    let server = Server {
        placement,
        flags: Arc::new(flags),
        security,
        client,
        metrics,
        ready,
    };
    process.spawn("server", |stopping| server.run(stopping));
    Ok(())
}

fn placement_target(flags: &Flags, readiness: &Readiness) -> Option<outrider_host::Target> {
    let target = || readiness.target("scheduler-placement");
    flags.placement.is_enabled.then(target)
}

/// This scheduler's part in placement, and what goes on beside its streams.
fn placement(
    flags: &Flags,
    client: Option<&Client>,
    security: &Security,
    process: &Process,
) -> anyhow::Result<Placement> {
    let placement = Placement::new(flags.id.clone(), &flags.placement, &process.registry);
    if placement.is_enabled() {
        let cluster = client.map(|client| (client.clone(), flags.namespace.clone()));
        let presence = Presence::new(placement.clone(), security, cluster)?;
        process.spawn("presence", |stopping| presence.run(stopping));
        let rounds = placement.clone();
        process.spawn("rounds", |stopping| rounds.keep_time(stopping));
    }
    Ok(placement)
}

fn controller(flags: &Flags, readiness: &Readiness) -> Option<outrider_host::Target> {
    flags
        .kubernetes
        .then(|| readiness.target("scheduler-controller"))
}

/// A certificate of sentry, if there is to be one.
async fn identity(
    flags: &Flags,
    client: Option<&Client>,
    process: &Process,
) -> anyhow::Result<Security> {
    if !flags.tls {
        return Ok(Security::disabled());
    }
    let identity = Identity {
        app_id: APP_ID,
        namespace: flags.namespace.clone(),
        trust_domain: flags.trust_domain.clone(),
        sentry_address: flags.sentry_address.clone(),
        trust_anchors_file: flags.trust_anchors_file.clone(),
        sentry_token_file: flags.sentry_token_file.clone(),
        key: Key::Ed25519,
        directory: Some(flags.identity_directory.clone()),
    };
    let (security, _anchors) = identity.start(client, process).await?;
    Ok(security)
}
