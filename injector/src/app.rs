//! The process, from start to end.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use outrider_host::server::{self, Limits};
use outrider_host::service::Service;
use outrider_host::{Readiness, Target, Tasks, listen};
use outrider_k8s::webhook as authority;
use outrider_k8s::{Client, trust};
use outrider_security::identity::Key;
use outrider_security::{ControlPlane, Options, Security, TrustAnchors, anchors, token, user};
use outrider_telemetry::metrics::Registry;
use tokio_util::sync::CancellationToken;

use crate::flags::{self, Flags};
use crate::matcher::Matcher;
use crate::webhook::{self, Metrics, Webhook};

const APP_ID: &str = "dapr-injector";
const CONFIGURATION: &str = "dapr-sidecar-injector";
/// How long open admissions may take after the signal to end.
const GRACE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(5);

pub async fn run(
    flags: Result<Flags, flags::Error>,
) -> Result<ExitCode, Box<dyn Error + Send + Sync>> {
    let flags = match flags {
        Err(flags::Error::Usage(error)) => return Ok(flags::print(&error)),
        flags => flags,
    };
    let service = Service {
        tell: |line| tracing::info!(target: "dapr.injector", "{line}"),
        name: "Dapr Sidecar Injector",
        ended: "Dapr sidecar injector shut down gracefully",
        grace: GRACE,
    };
    let serving = async |flags, tasks| {
        let served: anyhow::Result<()> = serve(flags, &tasks).await;
        served.map_err(|error| format!("{error:#}").into())
    };
    service.run(flags, |flags| &flags.service, serving).await
}

/// Starts everything, and returns only with an error.
async fn serve(flags: Flags, tasks: &Tasks) -> anyhow::Result<()> {
    let registry = Registry::new();
    let readiness = Readiness::new();
    let (secured, trusted) = (
        readiness.target("security-provider"),
        readiness.target("webhook-configuration"),
    );
    let serving = readiness.target("injector-service");
    flags.service.pages(&registry, readiness, tasks).await?;
    if flags.deprecated_service_accounts {
        tracing::warn!(target: "dapr.injector", "ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES is deprecated: use ALLOWED_SERVICE_ACCOUNTS");
    }
    let lists: Vec<&str> = flags
        .allowed_service_accounts
        .iter()
        .map(String::as_str)
        .collect();
    let matcher = Matcher::new(&lists).context("Error creating injector")?;
    user::refuse_root(true, flags.run_as_root)?;
    let client = outrider_k8s::client(flags.service.kubeconfig.as_deref()).await?;

    let source = trust::source(
        &client,
        &flags.settings.namespace,
        &flags.trust_anchors_file,
    )
    .await;
    let mounted = matches!(source, anchors::Source::File(_));
    let (security, upkeep) = Security::start(options(&flags, source)?).await?;
    tasks.spawn("identity", upkeep.run(tasks.stopping()));
    let anchors = security
        .anchors()
        .context("the injector has no trust anchors")?
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

    let listener = listen::tcp(&flags.service.listen_address, flags.service.port)
        .await
        .context("webhook")?;
    let address = listener.local_addr()?;
    let webhook = Webhook {
        client: client.clone(),
        settings: flags.settings,
        matcher,
        anchors: anchors.clone(),
        metrics: Metrics::new(&registry),
    };
    let router = webhook::router(webhook);
    let acceptor = security.web_acceptor()?;
    let owner = tasks.clone();
    tasks.spawn("webhook", async move {
        let limits = Limits::REVIEWS;
        server::serve("webhook", listener, acceptor, limits, router, &owner).await;
    });
    tracing::info!(target: "dapr.injector.service", "Sidecar injector is listening on {address}, patching Dapr-enabled pods");
    serving.ready();

    publish(client, anchors, trusted, tasks.stopping()).await;
    Ok(())
}

fn options(flags: &Flags, anchors: anchors::Source) -> anyhow::Result<Options> {
    Ok(Options {
        app_id: APP_ID.to_owned(),
        namespace: flags.settings.namespace.clone(),
        control_plane: ControlPlane {
            trust_domain: flags
                .settings
                .trust_domain
                .parse()
                .context("DAPR_CONTROL_PLANE_TRUST_DOMAIN")?,
            namespace: flags.settings.namespace.clone(),
        },
        anchors,
        sentry_address: flags.sentry_address.clone(),
        token: token::Source::choose(true, flags.sentry_token_file.clone())?,
        // Some API servers of cloud providers refuse Ed25519.
        key: Key::Rsa,
        jwt_audiences: Vec::new(),
        directory: None,
    })
}

/// Tells the API server whose certificates to trust, now and whenever that changes.
async fn publish(
    client: Client,
    anchors: TrustAnchors,
    trusted: Target,
    stopping: CancellationToken,
) {
    let mut changes = anchors.subscribe();
    loop {
        let roots = changes.borrow_and_update().clone();
        match authority::trust_mutating(&client, CONFIGURATION, roots.pem()).await {
            Ok(()) => trusted.ready(),
            Err(error) => {
                tracing::error!(target: "dapr.injector", "cannot write the trust anchors into webhook {CONFIGURATION}, trying again: {error}");
                tokio::select! {
                    () = stopping.cancelled() => return,
                    () = tokio::time::sleep(AGAIN) => continue,
                }
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            Ok(()) = changes.changed() => {}
        }
    }
}
