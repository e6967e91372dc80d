//! The Services of apps' sidecars: one for each annotated Deployment and StatefulSet, headless, owned by it.

mod desired;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_crds::{Configuration, decode};
use outrider_host::Tasks;
use outrider_k8s::objects::{self, Collection};
use outrider_k8s::watch::{self, Change, Interest, Key, Object, Store};
use outrider_k8s::{Client, Error};
use outrider_telemetry::metrics::{Counter, Family, Registry, Rewrites};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;

use desired::Workload;

/// Label of our Services.
const LABEL: &str = "dapr.io/enabled=true";
/// Changes come in bursts: one pass handles all that come within this time.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// A pass at least this often, to retry what failed.
const RESYNC: Duration = Duration::from_secs(30);

/// App ids are chosen by everybody who may create workloads.
const APP: &[&str] = &["app_id"];

struct Metrics {
    created: Family<Counter>,
    updated: Family<Counter>,
    deleted: Family<Counter>,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let counter = |verb: &str| {
            let help = format!("The total number of dapr services {verb}.");
            let name = format!("dapr_operator_service_{verb}_total");
            registry.family(&name, &help, APP, APP, &Rewrites::default(), ())
        };
        Self {
            created: counter("created"),
            updated: counter("updated"),
            deleted: counter("deleted"),
        }
    }
}

/// Brings the cluster's Services to what the workloads ask for.
pub struct Reconciler {
    client: Client,
    workloads: [Store; 2],
    services: Store,
    configurations: Store,
    /// Namespace and name of the control plane's Configuration.
    system: (String, String),
    metrics: Metrics,
}

impl Reconciler {
    pub fn new(
        client: &Client,
        namespace: Option<&str>,
        configurations: Store,
        system: (String, String),
        registry: &Registry,
        tasks: &Tasks,
    ) -> Self {
        let start = |interest: Interest| {
            let (store, driver) = watch::new(client.clone(), interest);
            tasks.spawn("watch", driver.run(tasks.stopping()));
            store
        };
        let whole = |collection| Interest::whole(collection, namespace.map(str::to_owned));
        Self {
            client: client.clone(),
            workloads: [
                start(Interest {
                    keep: desired::keep_deployment,
                    ..whole(Collection::DEPLOYMENTS)
                }),
                start(Interest {
                    keep: desired::keep_stateful_set,
                    ..whole(Collection::STATEFUL_SETS)
                }),
            ],
            services: start(Interest {
                labels: Some(LABEL.to_owned()),
                ..whole(Collection::SERVICES)
            }),
            configurations,
            system,
            metrics: Metrics::new(registry),
        }
    }

    /// Works whenever this replica leads, until `stopping` is cancelled.
    pub async fn run(self, mut leading: signal::Receiver<bool>, stopping: CancellationToken) {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = async {
                let [deployments, stateful_sets] = &self.workloads;
                tokio::join!(deployments.synced(), stateful_sets.synced(), self.services.synced(), self.configurations.synced());
                while leading.wait_for(|leading| *leading).await.is_ok() {
                    tokio::select! {
                        _ = leading.wait_for(|leading| !*leading) => {}
                        () = self.lead() => {}
                    }
                }
            } => {}
        }
    }

    async fn lead(&self) {
        let [deployments, stateful_sets] = &self.workloads;
        let mut changes = [
            deployments,
            stateful_sets,
            &self.services,
            &self.configurations,
        ]
        .map(Store::subscribe);
        loop {
            self.reconcile().await;
            let [a, b, c, d] = &mut changes;
            tokio::select! {
                () = changed(a) => {}
                () = changed(b) => {}
                () = changed(c) => {}
                () = changed(d) => {}
                () = tokio::time::sleep(RESYNC) => {}
            }
            tokio::time::sleep(DEBOUNCE).await;
            changes.iter_mut().for_each(drain);
        }
    }

    /// Compares everything, which is cheap, and writes what differs.
    async fn reconcile(&self) {
        let wanted = self.wanted();
        for ((namespace, name), (workload, service)) in &wanted {
            if let Err(error) = self.write(namespace, name, &workload.app_id, service).await {
                tracing::error!(target: "dapr.operator.handlers", "unable to write service, {namespace}/{name}, err: {error}");
            }
        }
        for service in self.services.list(None) {
            let key = (service.namespace.clone(), service.name.clone());
            if !wanted.contains_key(&key) && desired::is_ours(&service.json) {
                self.delete(&service).await;
            }
        }
    }

    /// The Services that should exist. Of two workloads with one app id the first one gets it, always the same.
    fn wanted(&self) -> BTreeMap<Key, (Workload, Value)> {
        let mtls = self.mtls();
        let mut wanted: BTreeMap<Key, (Workload, Value)> = BTreeMap::new();
        for object in self.workloads.iter().flat_map(|store| store.list(None)) {
            let workload = match Workload::read(&object) {
                Ok(Some(workload)) => workload,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(target: "dapr.operator.handlers", "no service for the sidecars of workload {}/{}: {error}", object.namespace, object.name);
                    continue;
                }
            };
            let key = (object.namespace.clone(), workload.service.clone());
            if let Some((other, _)) = wanted.get(&key) {
                tracing::warn!(target: "dapr.operator.handlers", "{} and {} of namespace {} have the same app id {:?}: the service selects the pods of the first only; give each its own dapr.io/app-id", other.name, workload.name, object.namespace, workload.app_id);
                continue;
            }
            let service = workload.service(mtls);
            wanted.insert(key, (workload, service));
        }
        wanted
    }

    fn mtls(&self) -> bool {
        let system = self.configurations.get(&self.system.0, &self.system.1);
        let configuration =
            system.and_then(|object| decode::from_value::<Configuration>(&object.json).ok());
        configuration
            .and_then(|it| it.spec.mtls)
            .and_then(|mtls| mtls.enabled)
            .unwrap_or(true)
    }

    async fn write(
        &self,
        namespace: &str,
        name: &str,
        app_id: &str,
        wanted: &Value,
    ) -> Result<(), Error> {
        let path = Collection::SERVICES.object(namespace, name)?;
        let known = match self.services.get(namespace, name) {
            Some(known) => Some(known.json.clone()),
            // One without our label is not watched.
            None => objects::get(&self.client, &path).await?,
        };
        let Some(known) = known else {
            let collection = Collection::SERVICES.path(Some(namespace))?;
            objects::create(&self.client, &collection, wanted).await?;
            tracing::debug!(target: "dapr.operator.handlers", "created service {namespace}/{name}");
            self.metrics.created.with(&[app_id]).inc();
            return Ok(());
        };
        let merged = desired::merge(&known, wanted);
        if merged != known {
            objects::replace(&self.client, &path, &desired::typed(merged)).await?;
            tracing::debug!(target: "dapr.operator.handlers", "updated service {namespace}/{name}");
            self.metrics.updated.with(&[app_id]).inc();
        }
        Ok(())
    }

    /// Its workload has another app id now, or none.
    async fn delete(&self, service: &Arc<Object>) {
        let Object {
            namespace,
            name,
            json,
        } = service.as_ref();
        let deleting = async {
            let path = Collection::SERVICES.object(namespace, name)?;
            objects::delete(&self.client, &path).await
        };
        match deleting.await {
            Ok(()) => {
                tracing::info!(target: "dapr.operator.handlers", "deleted service {namespace}/{name}: no workload asks for it");
                let app_id = json["metadata"]["annotations"]["dapr.io/app-id"]
                    .as_str()
                    .unwrap_or_default();
                self.metrics.deleted.with(&[app_id]).inc();
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                tracing::error!(target: "dapr.operator.handlers", "unable to delete service, {namespace}/{name}, err: {error}");
            }
        }
    }
}

async fn changed(changes: &mut Receiver<Change>) {
    // A receiver that lagged has missed a change; a closed one gets no more.
    if let Err(RecvError::Closed) = changes.recv().await {
        std::future::pending().await
    }
}

fn drain(changes: &mut Receiver<Change>) {
    *changes = changes.resubscribe();
}
