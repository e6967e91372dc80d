//! The process, from start to end.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use outrider_host::listen;
use outrider_host::server::{Limits, Messages};
use outrider_k8s::Client;
use outrider_placement_engine::Settings;
use outrider_proto::election::v1::election_server::ElectionServer;
use outrider_security::identity::Key;
use outrider_security::{Acceptor, Clients, Connector, Expected, Security};
use outrider_service::{Failure, Identity, Process, Service};

use crate::election::{Replica, own_address};
use crate::flags::{self, Flags};
use crate::metrics::Metrics;
use crate::page;
use crate::server::{Lead, Server, UNFINISHED};

const APP_ID: &str = "dapr-placement";
/// How long open calls may take after the signal to end.
const GRACE: Duration = Duration::from_secs(5);

pub async fn run(flags: Result<Flags, flags::Error>) -> Result<ExitCode, Failure> {
    let service = Service {
        name: "Dapr Placement Service",
        log: |line| tracing::info!(target: "dapr.placement", "{line}"),
        ended: "Placement service shut down gracefully",
        grace: GRACE,
    };
    service.run(flags, |flags| &flags.service, start).await
}

async fn start(flags: Flags, process: Process) -> anyhow::Result<()> {
    let lead = lead(&flags, &process);
    let more = flags.metadata.then(|| page::state(lead.clone()));
    let targets = ["placement-grpc-server", "placement-raft-leadership"];
    let pages = process.serve_pages(&flags.service, targets, more);
    let [api_ready, election_ready] = pages.await?;
    let address = own_address(&flags.id, &flags.replicas)?.to_owned();
    let security = security(&flags, &process).await?;
    tracing::info!(target: "dapr.placement", "Placement service is starting...");
    elect(&flags, &address, &security, &lead, &process).await?;
    election_ready.ready();
    serve_api(&flags, &security, lead, &process).await?;
    api_ready.ready();
    tracing::info!(target: "dapr.placement", "Placement service started on port {}", flags.service.port);
    Ok(())
}

fn lead(flags: &Flags, process: &Process) -> Lead {
    let settings = Settings {
        timeout: flags.disseminate_timeout,
        window: flags.disseminate_coalesce_window,
    };
    let metrics = Metrics::new(&process.registry);
    let lead = Lead::new(
        flags.id.clone(),
        settings,
        flags.replication_factor,
        metrics,
    );
    process.spawn("rounds", |stopping| lead.clone().keep_time(stopping));
    lead
}

/// The identity of placement; plaintext where mTLS is off.
async fn security(flags: &Flags, process: &Process) -> anyhow::Result<Security> {
    let Some(tls) = flags.tls.clone() else {
        return Ok(Security::plaintext());
    };
    let client: Option<Client> = match flags.kubernetes {
        true => Some(flags.service.client().await?),
        false => None,
    };
    let identity = Identity {
        app_id: APP_ID,
        namespace: tls.namespace,
        trust_domain: tls.trust_domain,
        sentry_address: tls.sentry_address,
        trust_anchors_file: tls.trust_anchors_file,
        sentry_token_file: tls.sentry_token_file,
        key: Key::Ed25519,
        directory: None,
    };
    let (security, _anchors) = identity.start(client.as_ref(), process).await?;
    Ok(security)
}

/// Takes part in the election. A replica that is alone needs no listener.
async fn elect(
    flags: &Flags,
    address: &str,
    security: &Security,
    lead: &Lead,
    process: &Process,
) -> anyhow::Result<()> {
    let (acceptor, connector) = among_replicas(flags, security)?;
    let id = flags.id.clone();
    let replica = Replica::new(id, &flags.replicas, &connector, lead.clone())?;
    if flags.replicas.len() > 1 {
        let (host, port) = address
            .rsplit_once(':')
            .context("address of this replica")?;
        // A name may be known to others only.
        let host = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(host) => host.to_string(),
            Err(_) => String::new(),
        };
        let listener = listen::tcp(&host, port.parse()?).await;
        let listener = listener.with_context(|| format!("address of this replica, {address}"))?;
        let service = ElectionServer::new(replica.clone());
        process.serve("election", listener, acceptor, limits(flags), service);
    }
    process.spawn_essential("election", replica.run(process.tasks.stopping()));
    Ok(())
}

/// Replicas know each other by the identity of placement.
fn among_replicas(flags: &Flags, security: &Security) -> anyhow::Result<(Acceptor, Connector)> {
    let Some(tls) = &flags.tls else {
        return Ok((Acceptor::plaintext(), Connector::plaintext()));
    };
    let control_plane = outrider_security::ControlPlane {
        trust_domain: tls.trust_domain.clone(),
        namespace: tls.namespace.clone(),
    };
    let replicas = Clients::Required(Expected::Id(control_plane.id(APP_ID)?));
    Ok((
        security.acceptor(replicas)?,
        security.connector_to_service(APP_ID)?,
    ))
}

async fn serve_api(
    flags: &Flags,
    security: &Security,
    lead: Lead,
    process: &Process,
) -> anyhow::Result<()> {
    let (address, port) = (&flags.service.listen_address, flags.service.port);
    let listener = listen::tcp(address, port).await;
    let listener = listener.with_context(|| format!("gRPC API on {address}:{port}"))?;
    let acceptor = security.acceptor(Clients::Required(Expected::Any))?;
    let server = Server {
        lead,
        mtls: flags.tls.is_some(),
        messages: Messages::new(UNFINISHED),
        ping_after: flags.keepalive_time,
    };
    tracing::info!(target: "dapr.placement.server", "Running Placement gRPC server on {}", listener.local_addr()?);
    process.serve("placement", listener, acceptor, limits(flags), server);
    Ok(())
}

fn limits(flags: &Flags) -> Limits {
    Limits {
        // A sidecar has one; several may share a connection.
        streams: 16,
        per_source: 1024,
        ping_after: flags.keepalive_time,
        ping_timeout: flags.keepalive_timeout,
        ..Limits::STREAMS
    }
}
