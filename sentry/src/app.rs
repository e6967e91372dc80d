//! The process, from start to end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use outrider_host::server::{self, Limits};
use outrider_host::{Target, listen};
use outrider_k8s::Client;
use outrider_proto::sentry::v1::ca_server::CaServer;
use outrider_security::{Clients, ControlPlane, Security, user};
use outrider_service::{Failure, Process, Service, cluster_domain};

use crate::ca::{self, Current, Policy, Store};
use crate::config::{self, Config};
use crate::flags::Flags;
use crate::metrics::Metrics;
use crate::oidc;
use crate::server::{Own, Signing};
use crate::validate::kubernetes::Reviews;
use crate::validate::{Jwks, Kubernetes, Validators};

const APP_ID: &str = "dapr-sentry";
/// How long open calls may take after the signal to end.
const GRACE: Duration = Duration::from_secs(5);

pub async fn run(flags: Flags) -> Result<ExitCode, Failure> {
    let service = Service {
        name: "Dapr Sentry certificate authority",
        log: |line| tracing::info!(target: "dapr.sentry", "{line}"),
        ended: "Sentry shut down gracefully",
        grace: GRACE,
    };
    let flags: Result<_, Failure> = Ok(flags);
    service.run(flags, |flags| &flags.service, start).await
}

async fn start(flags: Flags, process: Process) -> anyhow::Result<()> {
    let targets = ["sentry-server", "security-provider"];
    let pages = process.serve_pages(&flags.service, targets, None);
    let [server_ready, security_ready] = pages.await?;
    let metrics = Metrics::new(&process.registry);
    let client = match flags.kubernetes {
        true => Some(flags.service.client().await?),
        false => None,
    };
    let config = config::load(&flags, client.as_ref()).await?;
    let current = authority(&flags, &config, client.clone(), &metrics, &process).await?;
    user::refuse_root(flags.kubernetes, flags.skip_user_check)?;
    let validators = validators(&flags, &config, client, &current, &process).await?;
    let security = identity(&flags, &current, &process).await?;
    security_ready.ready();
    serve_discovery(&flags, &current, &process);
    let signing = Signing {
        current,
        validators,
        cluster_domain: flags
            .kubernetes
            .then(cluster_domain)
            .flatten()
            .unwrap_or_else(|| flags.trust_domain.to_string()),
        metrics,
    };
    serve_api(&flags, &security, signing, server_ready, &process).await
}

/// Loads or makes the CA's material, and follows it.
async fn authority(
    flags: &Flags,
    config: &Config,
    client: Option<Client>,
    metrics: &Metrics,
    process: &Process,
) -> anyhow::Result<Current> {
    let policy = Policy {
        trust_domain: flags.trust_domain.clone(),
        namespace: flags.namespace.clone(),
        workload_ttl: config.workload_ttl,
        clock_skew: config.clock_skew,
        jwt: flags.jwt.clone(),
    };
    let (current, refresh) = Current::open(store(flags, client)?, policy, metrics.clone())
        .await
        .map_err(|error| anyhow!("error creating CA: {error}"))?;
    process.spawn_until_stopped("CA refresh", refresh.run());
    if flags.jwt.is_some() {
        tracing::info!(target: "dapr.sentry", "JWT issuing enabled");
    }
    Ok(current)
}

fn store(flags: &Flags, client: Option<Client>) -> anyhow::Result<Store> {
    let folder = &flags.credentials.folder;
    if !folder.is_dir() {
        bail!(
            "failed to add target {}: no such file or directory",
            folder.display()
        );
    }
    Ok(match client {
        Some(client) => {
            tracing::info!(target: "dapr.sentry.ca", "Using kubernetes secret store for trust bundle storage");
            Store::Kubernetes(ca::Cluster {
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

/// How callers prove who they are.
async fn validators(
    flags: &Flags,
    config: &Config,
    client: Option<Client>,
    current: &Current,
    process: &Process,
) -> anyhow::Result<Validators> {
    let id = current.policy.id()?;
    let mut validators = Validators::default();
    for options in &config.jwks_validators {
        tracing::info!(target: "dapr.sentry", "Adding validator 'jwks' with Sentry ID: {id}");
        let jwks_ready = process.readiness.target("sentry-jwks-validator");
        let (jwks, refresh) = Jwks::load(options, id.clone()).await?;
        process.spawn_until_stopped("JWKS refresh", refresh.run());
        validators.jwks = Some(jwks);
        jwks_ready.ready();
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

/// Sentry's own certificate, signed by itself.
async fn identity(flags: &Flags, current: &Current, process: &Process) -> anyhow::Result<Security> {
    let control_plane = ControlPlane {
        trust_domain: flags.trust_domain.clone(),
        namespace: flags.namespace.clone(),
    };
    let own = Arc::new(Own(current.clone()));
    let (security, upkeep) =
        Security::start_with(own, current.anchors.clone(), control_plane, APP_ID).await?;
    process.spawn("identity", |stopping| upkeep.run(stopping));
    Ok(security)
}

/// OIDC discovery.
fn serve_discovery(flags: &Flags, current: &Current, process: &Process) {
    let Some(settings) = flags.oidc.clone() else {
        return tracing::info!(target: "dapr.sentry", "OIDC HTTP server is disabled");
    };
    let ready = process.readiness.target("oidc-server");
    let issuer = flags.jwt.as_ref().and_then(|jwt| jwt.issuer.clone());
    let (current, tasks) = (current.clone(), process.tasks.clone());
    let serving = oidc::serve(settings, issuer, current, tasks, ready);
    process.spawn_until_stopped("OIDC server", serving);
}

async fn serve_api(
    flags: &Flags,
    security: &Security,
    signing: Signing,
    ready: Target,
    process: &Process,
) -> anyhow::Result<()> {
    let (address, port) = (&flags.service.listen_address, flags.service.port);
    let listener = listen::tcp_with_retries(address, port)
        .await
        .with_context(|| format!("listen on {address}:{port}"))?;
    let acceptor = security.acceptor(Clients::Anonymous)?;
    let (service, tasks) = (CaServer::new(signing), process.tasks.clone());
    tracing::info!(target: "dapr.sentry.server", "Running gRPC server on port {port}");
    process.spawn_essential("sentry", async move {
        let limits = Limits::UNAUTHENTICATED;
        server::serve("sentry", listener, acceptor, limits, service, &tasks).await;
        tracing::info!(target: "dapr.sentry.server", "Shutting down gRPC server");
    });
    ready.ready();
    Ok(())
}
