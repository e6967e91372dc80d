//! The process, from start to end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_crds::{Configuration, decode};
use outrider_host::server::Limits;
use outrider_host::{Target, listen};
use outrider_k8s::{Client, webhook};
use outrider_proto::operator::v1::operator_server::OperatorServer;
use outrider_proto::reports::v1::reports_server::ReportsServer;
use outrider_security::identity::Key;
use outrider_security::{Clients, Expected, Security, TrustAnchors, user};
use outrider_service::{
    Election, Failure, Identity, Process, Publication, Service, flag, wait_for_configuration,
};
use tonic::service::Routes;

use crate::conversion;
use crate::flags::{self, Flags};
use crate::reports::Reports;
use crate::resources::Resources;
use crate::secrets::Secrets;
use crate::server::Server;
use crate::services::Reconciler;

const APP_ID: &str = "dapr-operator";
const LEASE: &str = "operator.dapr.io";
const SUBSCRIPTIONS: &str = "subscriptions.dapr.io";
/// How long open calls may take after the signal to end.
const GRACE: Duration = Duration::from_secs(5);
/// Between attempts to write our trust anchors into the definition of Subscription.
const RETRY: Duration = Duration::from_secs(1);
/// Applying the chart again takes our trust anchors out of the definition: they are checked at this interval.
const CHECK: Duration = Duration::from_secs(30);
/// In bytes. A sidecar sends no more of a message than an Event can have.
const LARGEST_REPORT: usize = 16 << 10;

pub async fn run(flags: Result<Flags, flags::Error>) -> Result<ExitCode, Failure> {
    let flags = match flags {
        Err(flags::Error::Usage(error)) => return Ok(flag::print(&error, &flags::command())),
        flags => flags,
    };
    let service = Service {
        name: "Dapr Operator",
        log: |line| tracing::info!(target: "dapr.operator", "{line}"),
        ended: "operator shut down gracefully",
        grace: GRACE,
    };
    service.run(flags, |flags| &flags.service, start).await
}

async fn start(flags: Flags, process: Process) -> anyhow::Result<()> {
    let targets = [
        "security-provider",
        "operator-cache",
        "operator-api-server",
        "operator-webhook",
    ];
    let pages = process.serve_pages(&flags.service, targets, None);
    let [security_ready, cache_ready, api_ready, webhook_ready] = pages.await?;
    user::refuse_root(true, flags.run_as_root)?;
    let client = flags.service.client().await?;
    let configuration = control_plane_configuration(&client, &flags).await?;
    let identity = identity(&flags, configuration)?;
    let (security, anchors) = identity.start(Some(&client), &process).await?;
    security_ready.ready();
    tracing::info!(target: "dapr.operator", "Dapr Operator is starting");
    let resources = Resources::watch(&client, flags.watch_namespace.as_deref(), &process.tasks);
    if flags.conversion_webhook {
        serve_conversions(&flags, &security, &process).await?;
        publish_anchors(&client, &flags, anchors, webhook_ready, &process);
    } else {
        webhook_ready.ready();
    }
    if flags.service_reconciler {
        reconcile_services(&client, &flags, &resources, &process);
    }
    resources.synced().await;
    cache_ready.ready();
    serve_api(&client, &flags, &security, resources, &process).await?;
    api_ready.ready();
    tracing::info!(target: "dapr.operator", "Dapr Operator started");
    Ok(())
}

async fn control_plane_configuration(
    client: &Client,
    flags: &Flags,
) -> anyhow::Result<Configuration> {
    let name = &flags.config;
    let log = |error: &str| {
        tracing::warn!(target: "dapr.operator", "unable to load configuration, config: {name}, err: {error}; waiting for it");
    };
    let object = wait_for_configuration(client, &flags.namespace, name, None, log).await;
    let object = object.context("--config")?.unwrap_or_default();
    decode::from_value(&object).context("control plane configuration")
}

fn identity(flags: &Flags, configuration: Configuration) -> anyhow::Result<Identity> {
    let mtls = configuration.spec.mtls.unwrap_or_default();
    let trust_domain = mtls.control_plane_trust_domain.parse();
    Ok(Identity {
        app_id: APP_ID,
        namespace: flags.namespace.clone(),
        trust_domain: trust_domain
            .context("spec.mtls.controlPlaneTrustDomain of the control plane's configuration")?,
        sentry_address: mtls.sentry_address,
        trust_anchors_file: flags.trust_anchors_file.clone(),
        sentry_token_file: flags.sentry_token_file.clone(),
        // Some API servers of cloud providers refuse Ed25519 of a webhook.
        key: Key::Rsa,
        directory: None,
    })
}

async fn serve_conversions(
    flags: &Flags,
    security: &Security,
    process: &Process,
) -> anyhow::Result<()> {
    let listener = listen::tcp(&flags.webhook_listen_address, flags.webhook_port)
        .await
        .context("webhook")?;
    let acceptor = security.web_acceptor()?;
    let (limits, router) = (Limits::CONVERSIONS, conversion::router());
    process.serve("webhook", listener, acceptor, limits, router);
    Ok(())
}

/// Writes the trust anchors into the definition of Subscription, for the API server.
fn publish_anchors(
    client: &Client,
    flags: &Flags,
    anchors: TrustAnchors,
    ready: Target,
    process: &Process,
) {
    let publication = Publication {
        anchors,
        retry: RETRY,
        check: Some(CHECK),
    };
    let (client, namespace) = (client.clone(), flags.namespace.clone());
    process.spawn("conversion", |stopping| {
        publication.run(stopping, move |roots| {
            let (client, namespace, ready) = (client.clone(), namespace.clone(), ready.clone());
            async move {
                match webhook::trust_conversion(&client, SUBSCRIPTIONS, &namespace, roots.pem())
                    .await
                {
                    Ok(changed) => {
                        if changed {
                            tracing::info!(target: "dapr.operator", "Successfully patched webhook in CRD {SUBSCRIPTIONS:?}");
                        } else if !ready.is_ready() {
                            tracing::info!(target: "dapr.operator", "Conversion webhook for {SUBSCRIPTIONS:?} is up to date");
                        }
                        ready.ready();
                        true
                    }
                    Err(error) => {
                        tracing::error!(target: "dapr.operator", "cannot write the trust anchors into the definition {SUBSCRIPTIONS}, trying again: {error}");
                        false
                    }
                }
            }
        })
    });
}

fn reconcile_services(client: &Client, flags: &Flags, resources: &Resources, process: &Process) {
    let election = Election {
        namespace: flags.namespace.clone(),
        lease: LEASE,
        host: flags.host.clone(),
        enabled: flags.leader_election,
    };
    let leads = election.start(client, process);
    let reconciler = Reconciler::new(
        client,
        flags.watch_namespace.as_deref(),
        resources.configurations.store.clone(),
        (flags.namespace.clone(), flags.config.clone()),
        &process.registry,
        &process.tasks,
    );
    process.spawn("services", |stopping| reconciler.run(leads, stopping));
}

async fn serve_api(
    client: &Client,
    flags: &Flags,
    security: &Security,
    resources: Resources,
    process: &Process,
) -> anyhow::Result<()> {
    tracing::info!(target: "dapr.operator", "Starting API server");
    let (address, port) = (&flags.service.listen_address, flags.service.port);
    let listener = listen::tcp(address, port).await.context("API")?;
    let acceptor = security.acceptor(Clients::Required(Expected::Any))?;
    let secrets = Arc::new(Secrets::new(client.clone()));
    process.spawn("secrets", |stopping| secrets.clone().drop_old(stopping));
    let reporter = (APP_ID, flags.host.clone());
    let reports = Reports::new(client.clone(), resources.components.clone(), reporter);
    let server = Server {
        secrets,
        resources,
        stopping: process.tasks.stopping(),
    };
    let resources = OperatorServer::new(server).max_encoding_message_size(usize::MAX);
    let reports = ReportsServer::new(reports).max_decoding_message_size(LARGEST_REPORT);
    let service = Routes::new(resources).add_service(reports).prepare();
    tracing::info!(target: "dapr.operator.api", "Starting gRPC server on {address}:{port}");
    process.serve("API", listener, acceptor, Limits::WORKLOADS, service);
    Ok(())
}
