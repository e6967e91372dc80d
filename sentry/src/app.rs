//! The process: parse, build, run, drain.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use outrider_host::server::{self, Limits};
use outrider_host::signal::Signals;
use outrider_host::{Readiness, Tasks, health, listen, metrics as metrics_page};
use outrider_proto::sentry::v1::ca_server::CaServer;
use outrider_security::{Clients, ControlPlane, Security, user};
use outrider_telemetry::{log, metrics::Registry};

use crate::ca::{Current, Policy, Store};
use crate::config::{self, Config};
use crate::flags::Flags;
use crate::metrics::Metrics;
use crate::oidc;
use crate::server::{Own, Service};
use crate::validate::kubernetes::{self, Reviews};
use crate::validate::{Jwks, Kubernetes, Validators};

type Fatal = Box<dyn Error + Send + Sync>;

/// Time for calls under way when the process is told to stop.
const GRACE: Duration = Duration::from_secs(5);

pub async fn run(flags: Flags) -> Result<ExitCode, Fatal> {
    let mut signals = Signals::new()?;
    log::init(&log::Options {
        level: flags.log_level.clone(),
        json: flags.log_as_json,
        version: outrider_host::VERSION,
        ..Default::default()
    })?;
    tracing::info!(target: "dapr.sentry", "Starting Dapr Sentry certificate authority -- version {} -- commit outrider-{}", outrider_host::VERSION, outrider_host::OUTRIDER_VERSION);
    tracing::info!(target: "dapr.sentry", "Log level set to: {}", flags.log_level);
    let tasks = Tasks::new();
    let stop = tasks.stopping();
    let mut serving = Box::pin(serve(flags, tasks.clone()));
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        signal = signals.shutdown() => {
            tracing::info!(target: "dapr.sentry", "Received signal '{}'; beginning shutdown", signal.name());
            None
        }
    };
    stop.cancel();
    let ended = match ended {
        Some(ended) => ended,
        // While it starts there is nothing to finish, and it would not end.
        None => tokio::time::timeout(GRACE, serving).await.unwrap_or(Ok(())),
    };
    tasks.stop(Some(GRACE)).await;
    ended?;
    tracing::info!(target: "dapr.sentry", "Sentry shut down gracefully");
    Ok(ExitCode::SUCCESS)
}

/// Builds everything and serves until the tasks are told to stop.
async fn serve(flags: Flags, tasks: Tasks) -> Result<(), Fatal> {
    let stopping = tasks.stopping();
    let start = build(flags, &tasks);
    let (service, ready) = tokio::select! {
        biased;
        () = stopping.cancelled() => return Ok(()),
        built = start => built?,
    };
    tracing::info!(target: "dapr.sentry.server", "Running gRPC server on port {}", ready.port);
    ready.target.ready();
    let Ready {
        listener, acceptor, ..
    } = ready;
    server::serve(
        "sentry",
        listener,
        acceptor,
        Limits::STRANGERS,
        service,
        &tasks,
    )
    .await;
    tracing::info!(target: "dapr.sentry.server", "Shutting down gRPC server");
    Ok(())
}

/// What is left to do once everything is built.
struct Ready {
    listener: tokio::net::TcpListener,
    acceptor: outrider_security::Acceptor,
    port: u16,
    target: outrider_host::Target,
}

async fn build(flags: Flags, tasks: &Tasks) -> Result<(CaServer<Service>, Ready), Fatal> {
    let readiness = Readiness::new();
    let target = readiness.target("sentry-server");
    let security_target = readiness.target("security-provider");
    let registry = Registry::new();
    let metrics = Metrics::new(&registry);
    if let Some((address, port)) = &flags.metrics {
        metrics_page::serve(address, *port, registry, tasks).await?;
    }
    health::serve(
        &flags.healthz_listen_address,
        flags.healthz_port,
        readiness.clone(),
        tasks,
    )
    .await?;

    let client = match flags.kubernetes {
        true => Some(outrider_k8s::client(flags.kubeconfig.as_deref()).await?),
        false => None,
    };
    let config = config::load(&flags, client.as_ref()).await?;
    let policy = Policy {
        trust_domain: flags.trust_domain.clone(),
        namespace: flags.namespace.clone(),
        workload_ttl: config.workload_ttl,
        clock_skew: config.clock_skew,
        jwt: flags.jwt.clone(),
    };
    let store = store(&flags, client.clone())?;
    let (current, refresh) = Current::open(store, policy, metrics.clone())
        .await
        .map_err(|e| format!("error creating CA: {e}"))?;
    tasks.spawn("CA refresh", until_stopped(tasks, refresh.run()));
    if flags.jwt.is_some() {
        tracing::info!(target: "dapr.sentry", "JWT issuing enabled");
    }
    user::refuse_root(flags.kubernetes, flags.skip_user_check)?;

    let validators = validators(&flags, &config, client, &current, &readiness, tasks).await?;
    let control_plane = ControlPlane {
        trust_domain: flags.trust_domain.clone(),
        namespace: flags.namespace.clone(),
    };
    let own = Arc::new(Own(current.clone()));
    let (security, upkeep) =
        Security::start_with(own, current.anchors.clone(), control_plane, "dapr-sentry").await?;
    tasks.spawn("security", upkeep.run(tasks.stopping()));
    security_target.ready();

    match flags.oidc.clone() {
        Some(settings) => {
            let target = readiness.target("oidc-server");
            let jwt = flags.jwt.as_ref().and_then(|jwt| jwt.issuer.clone());
            let serving = oidc::serve(settings, jwt, current.clone(), tasks.clone(), target);
            tasks.spawn("OIDC server", until_stopped(tasks, serving));
        }
        None => tracing::info!(target: "dapr.sentry", "OIDC HTTP server is disabled"),
    }
    let cluster_domain = flags
        .kubernetes
        .then(kubernetes::cluster_domain)
        .flatten()
        .unwrap_or_else(|| flags.trust_domain.to_string());
    let server = CaServer::new(Service {
        current,
        validators,
        cluster_domain,
        metrics,
    });
    let ready = Ready {
        listener: listen::tcp_patient(&flags.listen_address, flags.port).await?,
        acceptor: security.acceptor(Clients::Anonymous)?,
        port: flags.port,
        target,
    };
    Ok((server, ready))
}

fn store(flags: &Flags, client: Option<outrider_k8s::Client>) -> Result<Store, Fatal> {
    let folder = &flags.credentials.folder;
    if !folder.is_dir() {
        return Err(format!(
            "failed to add target {}: no such file or directory",
            folder.display()
        )
        .into());
    }
    Ok(match client {
        Some(client) => {
            tracing::info!(target: "dapr.sentry.ca", "Using kubernetes secret store for trust bundle storage");
            Store::Kubernetes(crate::ca::Cluster {
                client,
                namespace: flags.namespace.clone(),
                credentials: flags.credentials.clone(),
            })
        }
        None => {
            tracing::info!(target: "dapr.sentry.ca", "Using local file system for trust bundle storage");
            Store::Files(flags.credentials.clone())
        }
    })
}

async fn validators(
    flags: &Flags,
    config: &Config,
    client: Option<outrider_k8s::Client>,
    current: &Current,
    readiness: &Readiness,
    tasks: &Tasks,
) -> Result<Validators, Fatal> {
    let id = current.policy.id()?;
    let mut validators = Validators::default();
    for options in &config.jwks_validators {
        tracing::info!(target: "dapr.sentry", "Adding validator 'jwks' with Sentry ID: {id}");
        let target = readiness.target("sentry-jwks-validator");
        let (jwks, refresh) = Jwks::load(options, id.clone()).await?;
        tasks.spawn("JWKS refresh", until_stopped(tasks, refresh.run()));
        validators.jwks = Some(jwks);
        target.ready();
    }
    if let Some(client) = client {
        tracing::info!(target: "dapr.sentry", "Adding validator 'kubernetes' with Sentry ID: {id}");
        validators.kubernetes = Some(Kubernetes {
            client,
            audience: id,
            namespace: flags.namespace.clone(),
            trust_domain: flags.trust_domain.clone(),
            any_account_may_be_service: config.legacy_service_accounts,
            reviews: Reviews::default(),
        });
    } else if config.jwks_validators.is_empty() {
        tracing::info!(target: "dapr.sentry", "Adding validator 'insecure'");
        validators.insecure = true;
    }
    Ok(validators)
}

/// `work` until the process stops.
fn until_stopped(
    tasks: &Tasks,
    work: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let stopping = tasks.stopping();
    async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = work => {}
        }
    }
}
