//! The process, from start to end.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use outrider_crds::{Configuration, Kind, decode};
use outrider_host::server::{self, Limits};
use outrider_host::service::Service;
use outrider_host::{Readiness, Target, Tasks, listen};
use outrider_k8s::lease::Candidate;
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::{Client, trust, webhook};
use outrider_proto::operator::v1::operator_server::OperatorServer;
use outrider_proto::reports::v1::reports_server::ReportsServer;
use outrider_security::identity::Key;
use outrider_security::{
    Clients, ControlPlane, Expected, Options, Security, TrustAnchors, anchors, token, user,
};
use outrider_telemetry::metrics::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
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
const CONFIGURATIONS: Collection = Collection {
    version: "/apis/dapr.io/v1alpha1",
    plural: Configuration::PLURAL,
};
/// How long open calls may take after the signal to end.
const GRACE: Duration = Duration::from_secs(5);
/// An applied chart takes our authority out of the definition again: look at this interval.
const REPAIR: Duration = Duration::from_secs(30);
/// In bytes. A sidecar sends no more of a message than an Event can have.
const LARGEST_REPORT: usize = 16 << 10;
const WAIT: Duration = Duration::from_secs(1);

pub async fn run(
    flags: Result<Flags, flags::Error>,
) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let flags = match flags {
        Err(flags::Error::Usage(error)) => return Ok(flags::print(&error)),
        flags => flags,
    };
    let service = Service {
        tell: |line| tracing::info!(target: "dapr.operator", "{line}"),
        name: "Dapr Operator",
        ended: "operator shut down gracefully",
        grace: GRACE,
    };
    let serving = async |flags, tasks| {
        let served: anyhow::Result<()> = serve(flags, &tasks).await;
        served.map_err(|error| format!("{error:#}").into())
    };
    service.run(flags, |flags| &flags.service, serving).await
}

/// Starts everything; what was started goes on in `tasks`.
async fn serve(flags: Flags, tasks: &Tasks) -> anyhow::Result<()> {
    let registry = Registry::new();
    let readiness = Readiness::new();
    let [secured, cached, api, converting] = [
        "security-provider",
        "operator-cache",
        "operator-api-server",
        "operator-webhook",
    ]
    .map(|it| readiness.target(it));
    flags.service.pages(&registry, readiness, tasks).await?;
    user::refuse_root(true, flags.run_as_root)?;
    let client = outrider_k8s::client(flags.service.kubeconfig.as_deref()).await?;

    let system = system(&client, &flags.namespace, &flags.config).await?;
    let source = trust::source(&client, &flags.namespace, &flags.trust_anchors_file).await;
    let mounted = matches!(source, anchors::Source::File(_));
    let (security, upkeep) = Security::start(options(&flags, system, source)?).await?;
    tasks.spawn("identity", upkeep.run(tasks.stopping()));
    let anchors = security
        .anchors()
        .context("the operator has no trust anchors")?
        .clone();
    if !mounted {
        let following = trust::follow(
            anchors.clone(),
            flags.trust_anchors_file.clone(),
            tasks.stopping(),
        );
        tasks.spawn("anchors", following);
    }
    secured.ready();
    tracing::info!(target: "dapr.operator", "Dapr Operator is starting");

    let resources = Resources::watch(&client, flags.watch_namespace.as_deref(), tasks);
    if flags.conversion_webhook {
        let listener = listen::tcp(&flags.webhook_listen_address, flags.webhook_port)
            .await
            .context("webhook")?;
        let acceptor = security.web_acceptor()?;
        let owner = tasks.clone();
        tasks.spawn("webhook", async move {
            let (limits, router) = (Limits::CONVERSIONS, conversion::router());
            server::serve("webhook", listener, acceptor, limits, router, &owner).await;
        });
        let publishing = publish(
            client.clone(),
            flags.namespace.clone(),
            anchors,
            converting,
            tasks.stopping(),
        );
        tasks.spawn("conversion", publishing);
    } else {
        converting.ready();
    }
    if flags.service_reconciler {
        let configurations = resources.configurations.store.clone();
        let system = (flags.namespace.clone(), flags.config.clone());
        let namespace = flags.watch_namespace.as_deref();
        let reconciler =
            Reconciler::new(&client, namespace, configurations, system, &registry, tasks);
        tasks.spawn(
            "services",
            reconciler.run(elect(&client, &flags, tasks), tasks.stopping()),
        );
    }
    resources.synced().await;
    cached.ready();
    serve_api(&flags, &client, &security, resources, api, tasks).await
}

/// Whether this replica leads.
fn elect(client: &Client, flags: &Flags, tasks: &Tasks) -> watch::Receiver<bool> {
    let (leading, told) = watch::channel(!flags.leader_election);
    if flags.leader_election {
        let candidate = Candidate {
            client: client.clone(),
            namespace: flags.namespace.clone(),
            lease: LEASE.to_owned(),
            identity: format!("{}_{}", flags.host, uuid::Uuid::new_v4()),
        };
        tasks.spawn("election", candidate.run(leading, tasks.stopping()));
    } else {
        // Told once; the sender has to stay.
        let stopping = tasks.stopping();
        tasks.spawn("election", async move {
            stopping.cancelled().await;
            drop(leading);
        });
    }
    told
}

async fn serve_api(
    flags: &Flags,
    client: &Client,
    security: &Security,
    resources: Resources,
    ready: Target,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    tracing::info!(target: "dapr.operator", "Starting API server");
    let listener = listen::tcp(&flags.service.listen_address, flags.service.port)
        .await
        .context("API")?;
    let acceptor = security.acceptor(Clients::Required(Expected::Any))?;
    let secrets = Arc::new(Secrets::new(client.clone()));
    tasks.spawn("secrets", secrets.clone().forget(tasks.stopping()));
    let reporter = (APP_ID, flags.host.clone());
    let reports = Reports::new(client.clone(), resources.components.clone(), reporter);
    let server = Server {
        secrets,
        resources,
        stopping: tasks.stopping(),
    };
    let resources = OperatorServer::new(server).max_encoding_message_size(usize::MAX);
    let reports = ReportsServer::new(reports).max_decoding_message_size(LARGEST_REPORT);
    let service = Routes::new(resources).add_service(reports).prepare();
    tracing::info!(target: "dapr.operator.api", "Starting gRPC server on {}:{}", flags.service.listen_address, flags.service.port);
    ready.ready();
    tracing::info!(target: "dapr.operator", "Dapr Operator started");
    server::serve("API", listener, acceptor, Limits::WORKLOADS, service, tasks).await;
    Ok(())
}

/// The control plane's Configuration. A chart may create it after this process.
async fn system(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Configuration> {
    let path = CONFIGURATIONS.object(namespace, name).context("--config")?;
    for attempt in 0u32.. {
        let told = match objects::get(client, &path).await {
            Ok(Some(object)) => {
                return decode::from_value(&object).context("control plane configuration");
            }
            Ok(None) => "not found".to_owned(),
            Err(error) => error.to_string(),
        };
        if attempt.is_multiple_of(10) {
            tracing::warn!(target: "dapr.operator", "unable to load configuration, config: {name}, err: {told}; waiting for it");
        }
        tokio::time::sleep(WAIT).await;
    }
    anyhow::bail!("configuration {name} did not appear")
}

fn options(
    flags: &Flags,
    system: Configuration,
    anchors: anchors::Source,
) -> anyhow::Result<Options> {
    let mtls = system.spec.mtls.unwrap_or_default();
    let trust_domain = mtls.control_plane_trust_domain.parse();
    Ok(Options {
        app_id: APP_ID.to_owned(),
        namespace: flags.namespace.clone(),
        control_plane: ControlPlane {
            trust_domain: trust_domain.context(
                "spec.mtls.controlPlaneTrustDomain of the control plane's configuration",
            )?,
            namespace: flags.namespace.clone(),
        },
        anchors,
        sentry_address: mtls.sentry_address,
        token: token::Source::choose(true, flags.sentry_token_file.clone())?,
        // Some API servers of cloud providers refuse Ed25519.
        key: Key::Rsa,
        jwt_audiences: Vec::new(),
        directory: None,
    })
}

/// Tells the API server whose certificates to trust for conversions, and sees that it stays told.
async fn publish(
    client: Client,
    namespace: String,
    anchors: TrustAnchors,
    ready: Target,
    stopping: CancellationToken,
) {
    let mut changes = anchors.subscribe();
    loop {
        let roots = changes.borrow_and_update().clone();
        match webhook::trust_conversion(&client, SUBSCRIPTIONS, &namespace, roots.pem()).await {
            Ok(changed) => {
                if changed {
                    tracing::info!(target: "dapr.operator", "Successfully patched webhook in CRD {SUBSCRIPTIONS:?}");
                } else if !ready.is_ready() {
                    tracing::info!(target: "dapr.operator", "Conversion webhook for {SUBSCRIPTIONS:?} is up to date");
                }
                ready.ready();
            }
            Err(error) => tracing::error!(target: "dapr.operator", "{error}"),
        }
        let pause = if ready.is_ready() { REPAIR } else { WAIT };
        tokio::select! {
            () = stopping.cancelled() => return,
            Ok(()) = changes.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
