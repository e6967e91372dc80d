//! The process, from start to end.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use outrider_host::server::Limits;
use outrider_host::{Target, listen};
use outrider_k8s::Client;
use outrider_k8s::webhook as registration;
use outrider_security::identity::Key;
use outrider_security::{Security, TrustAnchors, user};
use outrider_service::{Failure, Identity, Process, Publication, Service, flag};

use crate::flags::{self, Flags};
use crate::matcher::Matcher;
use crate::webhook::{self, Metrics, Webhook};

const APP_ID: &str = "dapr-injector";
/// The MutatingWebhookConfiguration that the chart brings.
const CONFIGURATION: &str = "dapr-sidecar-injector";
/// How long open admissions may take after the signal to end.
const GRACE: Duration = Duration::from_secs(10);
/// Between attempts to write our trust anchors into the webhook's configuration.
const RETRY: Duration = Duration::from_secs(5);

pub async fn run(flags: Result<Flags, flags::Error>) -> Result<ExitCode, Failure> {
    let flags = match flags {
        Err(flags::Error::Usage(error)) => return Ok(flag::print(&error, &flags::command())),
        flags => flags,
    };
    let service = Service {
        name: "Dapr Sidecar Injector",
        log: |line| tracing::info!(target: "dapr.injector", "{line}"),
        ended: "Dapr sidecar injector shut down gracefully",
        grace: GRACE,
    };
    service.run(flags, |flags| &flags.service, start).await
}

async fn start(flags: Flags, process: Process) -> anyhow::Result<()> {
    let targets = [
        "security-provider",
        "webhook-configuration",
        "injector-service",
    ];
    let pages = process.serve_pages(&flags.service, targets, None);
    let [security_ready, anchors_ready, webhook_ready] = pages.await?;
    let matcher = matcher(&flags)?;
    user::refuse_root(true, flags.run_as_root)?;
    let client = flags.service.client().await?;
    let identity = identity(&flags)?;
    let (security, anchors) = identity.start(Some(&client), &process).await?;
    security_ready.ready();
    serve_webhook(flags, matcher, &client, &security, &anchors, &process).await?;
    webhook_ready.ready();
    publish_anchors(client, anchors, anchors_ready, &process);
    Ok(())
}

/// Who may create pods that get a sidecar.
fn matcher(flags: &Flags) -> anyhow::Result<Matcher> {
    if flags.deprecated_service_accounts {
        tracing::warn!(target: "dapr.injector", "ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES is deprecated: use ALLOWED_SERVICE_ACCOUNTS");
    }
    let lists = flags.allowed_service_accounts.iter().map(String::as_str);
    let lists: Vec<&str> = lists.collect();
    Matcher::new(&lists).context("Error creating injector")
}

fn identity(flags: &Flags) -> anyhow::Result<Identity> {
    let trust_domain = flags.settings.trust_domain.parse();
    Ok(Identity {
        app_id: APP_ID,
        namespace: flags.settings.namespace.clone(),
        trust_domain: trust_domain.context("DAPR_CONTROL_PLANE_TRUST_DOMAIN")?,
        sentry_address: flags.sentry_address.clone(),
        trust_anchors_file: flags.trust_anchors_file.clone(),
        sentry_token_file: flags.sentry_token_file.clone(),
        // Some API servers of cloud providers refuse Ed25519 of a webhook.
        key: Key::Rsa,
        directory: None,
    })
}

async fn serve_webhook(
    flags: Flags,
    matcher: Matcher,
    client: &Client,
    security: &Security,
    anchors: &TrustAnchors,
    process: &Process,
) -> anyhow::Result<()> {
    let listener = listen::tcp(&flags.service.listen_address, flags.service.port)
        .await
        .context("webhook")?;
    let address = listener.local_addr()?;
    let router = webhook::router(Webhook {
        client: client.clone(),
        settings: flags.settings,
        matcher,
        anchors: anchors.clone(),
        metrics: Metrics::new(&process.registry),
    });
    let acceptor = security.web_acceptor()?;
    process.serve("webhook", listener, acceptor, Limits::REVIEWS, router);
    tracing::info!(target: "dapr.injector.service", "Sidecar injector is listening on {address}, patching Dapr-enabled pods");
    Ok(())
}

/// Writes the trust anchors into the MutatingWebhookConfiguration, for the API server.
fn publish_anchors(client: Client, anchors: TrustAnchors, ready: Target, process: &Process) {
    let publication = Publication {
        anchors,
        retry: RETRY,
        check: None,
    };
    process.spawn("webhook configuration", |stopping| {
        publication.run(stopping, move |roots| {
            let (client, ready) = (client.clone(), ready.clone());
            async move {
                match registration::trust_mutating(&client, CONFIGURATION, roots.pem()).await {
                    Ok(()) => {
                        ready.ready();
                        true
                    }
                    Err(error) => {
                        tracing::error!(target: "dapr.injector", "cannot write the trust anchors into webhook {CONFIGURATION}, trying again: {error}");
                        false
                    }
                }
            }
        })
    });
}
