//! What runs in a scenario, and what is done to it.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use outrider_conformance::server::Server;
use outrider_harness::http::Client;
use serde_json::{Value, json};

use super::app::App;
use super::servers::{Broker, TOPIC};
use super::{Kind, Target, Workload};
use crate::load::{Attempt, Load};
use crate::pod::Pod;
use crate::side::{Setting, Side, Sidecar};
use crate::{DOWN, wait};

/// What requests may take, and how events come again that the application refuses.
const RESILIENCY: &str = "
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: limits}
spec:
  policies:
    timeouts: {short: 3s}
    retries: {again: {policy: constant, duration: 100ms, maxRetries: -1}}
  targets:
    components:
      bus: {outbound: {timeout: short}, inbound: {retry: again}}
      store: {outbound: {timeout: short}}
";

/// Keys of one transaction.
pub const KEYS: u64 = 3;
/// The first number of events that only show whether the system runs.
pub const PROBES: u64 = 1_000_000_000;
/// Until a subscription is known to a broker.
const DELIVERS: Duration = Duration::from_secs(60);

pub struct System {
    pub workload: Workload,
    broker: Option<Server>,
    store: Option<Server>,
    pub app: Option<App>,
    sidecar: Sidecar,
    /// Another one, where events are published by one and delivered by another.
    subscriber: Option<Sidecar>,
    _pod: Pod,
}

impl Workload {
    /// Requests per second.
    pub fn rate(self) -> u32 {
        match self {
            Workload::Publish(_) => 40,
            Workload::Transactions(_) => 100,
            Workload::Outbox(_) => 12,
        }
    }

    /// The request with this number.
    pub fn request(self, number: u64) -> (String, Value) {
        if let Workload::Publish(_) = self {
            let path = format!("/v1.0/publish/bus/{TOPIC}");
            return (path, json!({"id": number}));
        }
        let operations: Vec<Value> = (0..KEYS)
            .map(|index| {
                // A text is the same in every event.
                let value = (number * KEYS + index).to_string();
                let item = json!({"key": key(number, index), "value": value});
                json!({"operation": "upsert", "request": item})
            })
            .collect();
        let path = "/v1.0/state/store/transaction".to_owned();
        (path, json!({"operations": operations}))
    }

    /// The events of a request, by number.
    pub fn events(self, number: u64) -> Vec<u64> {
        match self {
            Workload::Publish(_) => vec![number],
            Workload::Transactions(_) => Vec::new(),
            Workload::Outbox(_) => (0..KEYS).map(|index| number * KEYS + index).collect(),
        }
    }
}

/// A key of a transaction.
pub fn key(number: u64, index: u64) -> String {
    format!("t{number}-{index}")
}

impl System {
    pub async fn start(workload: Workload, side: &Side, folder: &Path) -> Result<System> {
        let broker = match workload {
            Workload::Publish(broker) => Some(broker),
            Workload::Transactions(_) => None,
            Workload::Outbox(_) => Some(Broker::Redis),
        };
        let (mut resources, mut bus) = (vec![RESILIENCY.to_owned()], None);
        if let Some(broker) = broker {
            let server = broker.start().await?;
            resources.push(broker.component(&server));
            bus = Some(server);
        }
        let mut store = None;
        if let Workload::Transactions(kind) | Workload::Outbox(kind) = workload {
            store = kind.start().await?;
            let outbox = [
                ("outboxPublishPubsub", "bus".to_owned()),
                ("outboxPublishTopic", TOPIC.to_owned()),
            ];
            let more = match workload {
                Workload::Outbox(_) => &outbox[..],
                _ => &[],
            };
            resources.push(kind.component(store.as_ref(), folder, more));
        }
        let app = match &bus {
            None => None,
            Some(_) => Some(App::start(folder)?),
        };
        let pod = Pod::local();
        let port = app.as_ref().map(|app| app.port);
        let setting = |app_id, app_port| Setting {
            side,
            app_id,
            app_port,
            resources: resources.clone(),
            flags: Vec::new(),
            pod: &pod,
            folder,
        };
        let (sidecar, subscriber) = match workload {
            Workload::Publish(_) => {
                let subscriber = setting("subscriber", port).ready().await?;
                let publisher = setting("publisher", None).ready().await?;
                (publisher, Some(subscriber))
            }
            _ => (setting("writer", port).ready().await?, None),
        };
        let system = System {
            workload,
            broker: bus,
            store,
            app,
            sidecar,
            subscriber,
            _pod: pod,
        };
        system.delivers().await?;
        Ok(system)
    }

    /// Waits until events come through.
    async fn delivers(&self) -> Result<()> {
        let Some(app) = &self.app else { return Ok(()) };
        let (client, mut number) = (self.client(), PROBES);
        let client = &client;
        let came = wait::until(DELIVERS, || {
            number += 1;
            let (path, body) = self.workload.request(number);
            async move {
                let sent = client.post(&path, &body);
                let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
                // What comes late is as good.
                let some = |_: &u64| true;
                wait::until(Duration::from_millis(200), || async {
                    app.history().done.keys().any(some)
                })
                .await
            }
        })
        .await;
        ensure!(
            came,
            "no event is delivered: {}",
            self.sidecar.program.last_words()
        );
        Ok(())
    }

    pub fn client(&self) -> Client {
        self.sidecar.http()
    }

    pub async fn is_ready(&self) -> Result<()> {
        self.sidecar.is_ready().await
    }

    /// Whether all events of what was acknowledged have been delivered, and none that was
    /// begun is left.
    pub fn are_delivered(&self, attempts: &[Attempt]) -> bool {
        let Some(app) = &self.app else { return true };
        let history = app.history();
        let acknowledged = attempts.iter().filter(|attempt| attempt.is_acknowledged());
        let mut events = acknowledged.flat_map(|attempt| self.workload.events(attempt.id));
        events.all(|id| history.is_done(id)) && history.got.keys().all(|id| history.is_done(*id))
    }

    /// Does it, and mends it; when it was mended.
    pub async fn harm(&mut self, load: &Load, target: Target, kind: Kind) -> Result<SystemTime> {
        let program = match target {
            Target::Client => {
                load.vanish().await;
                return Ok(SystemTime::now());
            }
            Target::Sidecar => Some(&mut self.sidecar.program),
            Target::Subscriber => self.subscriber.as_mut().map(|sidecar| &mut sidecar.program),
            Target::Application => self.app.as_mut().map(|app| &mut app.program),
            Target::Broker | Target::Store => None,
        };
        if let Some(program) = program {
            match kind {
                Kind::Kill => {
                    program.kill().await?;
                    tokio::time::sleep(DOWN).await;
                    program.restart()?;
                }
                Kind::Freeze(length) => {
                    program.freeze()?;
                    tokio::time::sleep(length).await;
                    program.thaw()?;
                }
            }
            return Ok(SystemTime::now());
        }
        let server = match target {
            Target::Broker => self.broker.as_mut(),
            _ => self.store.as_mut(),
        };
        let server = server.context("there is no such server")?;
        match kind {
            Kind::Kill => {
                server.kill().await;
                tokio::time::sleep(DOWN).await;
                server.restart().await;
            }
            Kind::Freeze(length) => {
                server.freeze();
                tokio::time::sleep(length).await;
                server.thaw();
            }
        }
        Ok(SystemTime::now())
    }
}
