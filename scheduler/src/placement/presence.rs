//! Looks for placement services: in Kubernetes by their pods and the name of their
//! Service, and everywhere at the addresses that sidecars report.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::{Method, Request, StatusCode};
use outrider_k8s::watch::{self, Change, Interest, Store};
use outrider_k8s::{Client, objects::Collection};
use outrider_security::{Connection, Connector, Security};
use tokio::sync::broadcast::Receiver;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{Placement, SCOPE};

const APP_ID: &str = "dapr-placement";
const PODS: Collection = Collection {
    version: "/api/v1",
    plural: "pods",
};
const LABEL: &str = "app=dapr-placement-server";
const SERVICE: &str = "dapr-placement-server";
const PORT: u16 = 50005;
const PATH: &str = "http://placement/dapr.proto.placement.v1.Placement/ReportDaprStatus";
/// The code by which a server says that it has no placement.
const UNIMPLEMENTED: &str = "12";

/// For the name of the Service.
const NAME: Duration = Duration::from_secs(3);
/// For one address, and for all.
const PROBE: Duration = Duration::from_secs(2);
const PROBES: Duration = Duration::from_secs(5);
const AT_ONCE: usize = 4;
/// How many there is time for if none answers.
const FINISHED: usize = 8;
/// New addresses do not have them looked at more often than this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
/// While pods are not known.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);

/// What is known of a cluster, and the namespace of the control plane.
#[derive(Clone)]
struct Pods {
    store: Store,
    namespace: String,
}

/// Who looks.
pub struct Presence {
    placement: Placement,
    connector: Connector,
    /// In Kubernetes, with the namespace of the control plane.
    client: Option<(Client, String)>,
}

impl Presence {
    pub fn new(
        placement: Placement,
        security: &Security,
        client: Option<(Client, String)>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            placement,
            connector: security.connector_to_service(APP_ID)?,
            client,
        })
    }

    /// Looks again and again until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        let Some((client, namespace)) = self.client.clone() else {
            return tokio::select! {
                () = self.look_on(None) => {}
                () = stopping.cancelled() => {}
            };
        };
        let mut interest = Interest::whole(PODS, Some(namespace.clone()));
        interest.labels = Some(LABEL.to_owned());
        interest.metadata_only = true;
        let (store, driver) = watch::new(client, interest);
        let pods = Pods { store, namespace };
        tokio::select! {
            () = driver.run(stopping.clone()) => {}
            () = self.look_on(Some(pods)) => {}
            () = stopping.cancelled() => {}
        }
    }

    async fn look_on(&self, pods: Option<Pods>) {
        if let Some(pods) = &pods {
            // Without the pods an absence would not be sure.
            while timeout(PROBES, pods.store.synced()).await.is_err() {
                tracing::warn!(target: SCOPE, "pods cannot be listed yet, and placement is not served until then: the scheduler needs get, list and watch of pods");
                tokio::time::sleep(UNKNOWN_PAUSE).await;
            }
        }
        let mut changes = pods.as_ref().map(|it| it.store.subscribe());
        for round in 0usize.. {
            let mut addresses = self.placement.addresses();
            // Those that there was no time for have their turn in the next round.
            let first = (round * FINISHED) % addresses.len().max(1);
            addresses.rotate_left(first);
            let (in_cluster, (at_addresses, probed)) =
                tokio::join!(named(pods.clone()), self.probe_all(&addresses));
            let pause = self.placement.detected(in_cluster || at_addresses, &probed);
            tokio::time::sleep(SHORTEST_PAUSE).await;
            tokio::select! {
                () = tokio::time::sleep(pause.saturating_sub(SHORTEST_PAUSE)) => {}
                () = self.placement.0.look.notified() => {}
                () = change_of_pods(changes.as_mut()) => {}
            }
        }
    }

    /// Whether one of the addresses has a placement service, and those that there
    /// was time for.
    async fn probe_all(&self, addresses: &[String]) -> (bool, Vec<String>) {
        let mut is_seen = false;
        let mut probed = Vec::new();
        let probes = addresses.iter().cloned().map(|address| {
            let connector = self.connector.clone();
            async move { (probe(&connector, &address).await, address) }
        });
        let probes: Vec<_> = probes.collect();
        let mut probes = futures_util::stream::iter(probes).buffer_unordered(AT_ONCE);
        let all = async {
            while let Some((is_there, address)) = probes.next().await {
                is_seen |= is_there;
                probed.push(address);
            }
        };
        let _late = timeout(PROBES, all).await;
        (is_seen, probed)
    }
}

async fn change_of_pods(changes: Option<&mut Receiver<Change>>) {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    loop {
        match changes.recv().await {
            Ok(Change::Created(_) | Change::Deleted(_)) => return,
            Ok(Change::Updated { .. }) => {}
            Err(_) => tokio::time::sleep(UNKNOWN_PAUSE).await,
        }
    }
}

/// Whether there are pods of a placement service, also of one that ends, or the name
/// of its Service.
async fn named(pods: Option<Pods>) -> bool {
    let Some(Pods { store, namespace }) = pods else {
        return false;
    };
    if !store.list(Some(&namespace)).is_empty() {
        return true;
    }
    let name = format!("{SERVICE}.{namespace}.svc:{PORT}");
    let found = timeout(NAME, tokio::net::lookup_host(name)).await;
    found.is_ok_and(|found| found.is_ok_and(|mut addresses| addresses.next().is_some()))
}

/// Whether a placement service is at the address. One that takes its time with an
/// answer is one.
async fn probe(connector: &Connector, address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let Ok(port) = port.parse() else {
        return false;
    };
    let speaks = AtomicBool::new(false);
    let asking = async {
        let connection = connector.dial(host, port).await.ok()?;
        ask(connection, &speaks).await
    };
    match timeout(PROBE, asking).await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => speaks.load(Ordering::Relaxed),
    }
}

/// Opens a stream of placement without a report. `speaks` once the other end has
/// shown that it speaks HTTP/2.
async fn ask(connection: Connection, speaks: &AtomicBool) -> Option<bool> {
    let (mut sender, mut connection) = h2::client::handshake(connection).await.ok()?;
    let mut ping_pong = connection.ping_pong()?;
    let asking = async {
        ping_pong.ping(h2::Ping::opaque()).await.ok()?;
        speaks.store(true, Ordering::Relaxed);
        futures_util::future::poll_fn(|context| sender.poll_ready(context))
            .await
            .ok()?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .ok()?;
        // As long as the stream of requests lives the call is open.
        let (answer, _requests) = sender.send_request(request, false).ok()?;
        let answer = answer.await.ok()?;
        let status = answer.headers().get("grpc-status");
        let is_unknown = status.is_some_and(|it| it == UNIMPLEMENTED)
            || answer.status() == StatusCode::NOT_FOUND;
        Some(!is_unknown)
    };
    tokio::select! {
        answer = asking => answer,
        _ended = connection => None,
    }
}
