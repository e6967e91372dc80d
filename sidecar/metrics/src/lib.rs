//! What the sidecar counts, under the names that dashboards for Dapr query.
//! <https://docs.dapr.io/operations/observability/metrics/>
//!
//! A series is found once and then kept: what happens for every request adds
//! to numbers that belong to its thread.

pub mod actor;
pub mod component;
pub mod grpc;
pub mod http;
pub mod job;
pub mod label;
pub mod service;
mod settings;

use std::sync::{Arc, OnceLock};

use outrider_crds::configuration::Spec;
use outrider_security::{Numbers, Security, Tally};
use outrider_telemetry::metrics::{
    Buckets, Cache, Counter, Family, Histogram, Registry, Rewrites, Series,
};

const SIZES: [u64; 13] = [
    1 << 10,
    2 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
    1 << 30,
    4 << 30,
];

/// Everything that is counted; nothing where the Configuration says so.
#[derive(Clone, Default)]
pub struct Metrics(Option<Arc<Inner>>);

struct Inner {
    http: Arc<http::Http>,
    grpc: Arc<grpc::Grpc>,
    components: Arc<component::Components>,
    actors: Arc<actor::Families>,
    jobs: Arc<job::Families>,
    service: Arc<service::Service>,
}

impl Metrics {
    /// `namespace` is the label of components: what the environment says.
    pub fn new(registry: &Registry, spec: &Spec, app_id: &str, namespace: &str) -> Self {
        let spec = settings::merged(spec);
        if spec.enabled == Some(false) {
            return Self(None);
        }
        let rewrites = match settings::rewrites(&spec) {
            Ok(rewrites) => rewrites,
            Err(error) => {
                tracing::error!(target: "dapr.runtime", "[INIT_FAILURE]: initialization error occurred for metrics: {error}");
                return Self(None);
            }
        };
        let names = Names {
            registry,
            rewrites,
            latencies: settings::latencies(&spec),
            sizes: Buckets::bytes(&SIZES),
            app_id,
            namespace,
        };
        let errors = (spec.record_error_codes == Some(true)).then(|| Arc::new(Errors::new(&names)));
        Self(Some(Arc::new(Inner {
            http: Arc::new(http::Http::new(&names, &spec, errors.clone())),
            grpc: Arc::new(grpc::Grpc::new(&names, errors)),
            components: Arc::new(component::Components::new(&names)),
            actors: Arc::new(actor::Families::new(&names)),
            jobs: Arc::new(job::Families::new(&names)),
            service: Arc::new(service::Service::new(&names)),
        })))
    }

    /// What policies do.
    pub fn resiliency(
        &self,
        registry: &Registry,
        app_id: &str,
    ) -> Option<outrider_resiliency::Metrics> {
        self.0.as_ref()?;
        Some(outrider_resiliency::Metrics::new(registry, app_id))
    }

    /// Spans on their way to collectors, as `read` counts them: the collector,
    /// how many it got, how many were dropped.
    pub fn spans(
        &self,
        registry: &Registry,
        app_id: &str,
        read: impl Fn() -> Vec<(&'static str, u64, u64)> + Clone + Send + Sync + 'static,
    ) {
        if self.0.is_none() || read().is_empty() {
            return;
        }
        const LABELS: &[&str] = &["app_id", "exporter"];
        let (own, of) = (app_id.to_owned(), read.clone());
        registry.reading(
            "dapr_runtime_trace_spans_sent_total",
            "Spans that a trace collector got.",
            LABELS,
            move || {
                let all = of().into_iter();
                all.map(|(exporter, sent, _)| (vec![own.clone(), exporter.to_owned()], sent))
                    .collect()
            },
        );
        let own = app_id.to_owned();
        registry.reading(
            "dapr_runtime_trace_spans_dropped_total",
            "Spans that no trace collector got.",
            LABELS,
            move || {
                let all = read().into_iter();
                all.map(|(exporter, _, dropped)| (vec![own.clone(), exporter.to_owned()], dropped))
                    .collect()
            },
        );
    }

    /// Certificates of this sidecar, as `security` counts them.
    pub fn identity(&self, registry: &Registry, app_id: &str, security: &Security) {
        let (Some(_), Some(tally)) = (&self.0, security.tally()) else {
            return;
        };
        type Read = fn(&Tally) -> &Numbers;
        let numbers: [(&str, Read, &str); 2] = [
            (
                "init",
                |tally| &tally.first,
                "Certificates got at the start",
            ),
            (
                "workload_cert_rotated",
                |tally| &tally.renewals,
                "Certificates renewed",
            ),
        ];
        for (name, read, what) in numbers {
            let (own, of) = (app_id.to_owned(), tally.clone());
            let total = format!("dapr_runtime_mtls_{name}_total");
            registry.reading(&total, &format!("{what}."), &["app_id"], move || {
                vec![(vec![own.clone()], read(&of).done())]
            });
            let (own, of) = (app_id.to_owned(), tally.clone());
            let failed = format!("dapr_runtime_mtls_{name}_fail_total");
            let help = format!("{what}: tries that failed.");
            registry.reading(&failed, &help, &["app_id", "reason"], move || {
                let failed = read(&of).failed();
                failed
                    .map(|(reason, n)| (vec![own.clone(), reason.to_owned()], n))
                    .collect()
            });
        }
    }

    pub fn http_server(&self) -> http::Server {
        http::Server(self.0.as_ref().map(|inner| inner.http.clone()))
    }

    pub fn http_client(&self) -> http::Client {
        http::Client(self.0.as_ref().map(|inner| inner.http.clone()))
    }

    pub fn grpc_server(&self) -> grpc::Server {
        grpc::Server(self.0.as_ref().map(|inner| inner.grpc.clone()))
    }

    pub fn grpc_client(&self) -> grpc::Client {
        grpc::Client(self.0.as_ref().map(|inner| inner.grpc.clone()))
    }

    /// Operations on one state store.
    pub fn state(&self, component: &str) -> component::Operations {
        let inner = self.0.as_ref();
        component::Operations::state(inner.map(|inner| inner.components.clone()), component)
    }

    /// Operations on one secret store.
    pub fn secrets(&self, component: &str) -> component::Operations {
        let inner = self.0.as_ref();
        component::Operations::secrets(inner.map(|inner| inner.components.clone()), component)
    }

    /// Operations on one configuration store.
    pub fn configuration(&self, component: &str) -> component::Operations {
        let inner = self.0.as_ref();
        component::Operations::configuration(inner.map(|inner| inner.components.clone()), component)
    }

    /// Operations on the keys of one store.
    pub fn crypto(&self, component: &str) -> component::Operations {
        let inner = self.0.as_ref();
        component::Operations::crypto(inner.map(|inner| inner.components.clone()), component)
    }

    /// Events and operations of one binding.
    pub fn binding(&self, component: &str) -> component::Binding {
        let inner = self.0.as_ref();
        component::Binding::new(inner.map(|inner| inner.components.clone()), component)
    }

    /// Requests to one language model.
    pub fn conversation(&self, component: &str) -> component::Conversation {
        let inner = self.0.as_ref();
        component::Conversation::new(inner.map(|inner| inner.components.clone()), component)
    }

    /// Messages through one broker.
    pub fn topics(&self, component: &str) -> component::Topics {
        let inner = self.0.as_ref();
        component::Topics::new(inner.map(|inner| inner.components.clone()), component)
    }

    pub fn actors(&self) -> actor::Actors {
        actor::Actors(self.0.as_ref().map(|inner| inner.actors.clone()))
    }

    pub fn jobs(&self) -> job::Jobs {
        job::Jobs(self.0.as_ref().map(|inner| inner.jobs.clone()))
    }

    pub fn calls(&self) -> service::Calls {
        service::Calls(self.0.as_ref().map(|inner| inner.service.clone()))
    }
}

/// An error as metrics tell it. It travels beside an answer, unseen by clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct ErrorCode {
    pub code: &'static str,
    pub category: &'static str,
}

impl ErrorCode {
    /// Of an error that has become a status.
    pub fn of(status: &tonic::Status) -> Option<&Self> {
        std::error::Error::source(status)?.downcast_ref()
    }
}

/// Makes families with what all of them share.
struct Names<'a> {
    registry: &'a Registry,
    rewrites: Rewrites,
    latencies: Arc<Buckets>,
    sizes: Arc<Buckets>,
    app_id: &'a str,
    namespace: &'a str,
}

type Labels = &'static [&'static str];

impl Names<'_> {
    fn counter(&self, name: &str, help: &str, labels: Labels, open: Labels) -> Family<Counter> {
        self.family(name, help, labels, open, ())
    }

    fn latency(&self, name: &str, help: &str, labels: Labels, open: Labels) -> Family<Histogram> {
        self.family(name, help, labels, open, self.latencies.clone())
    }

    fn bytes(&self, name: &str, help: &str, labels: Labels, open: Labels) -> Family<Histogram> {
        self.family(name, help, labels, open, self.sizes.clone())
    }

    fn single_bytes(&self, name: &str, help: &str) -> Single<Histogram> {
        Single {
            family: self.bytes(name, help, &["app_id"], &[]),
            app_id: self.app_id.to_owned(),
            series: OnceLock::new(),
        }
    }

    fn family<S: Series>(
        &self,
        name: &str,
        help: &str,
        labels: Labels,
        open: Labels,
        shape: S::Shape,
    ) -> Family<S> {
        let name = format!("dapr_{name}");
        self.registry
            .family(&name, help, labels, open, &self.rewrites, shape)
    }
}

/// A name with the app id as its only label; there from the first recording on.
struct Single<S: Series> {
    family: Family<S>,
    app_id: String,
    series: OnceLock<Arc<S>>,
}

impl<S: Series> Single<S> {
    fn get(&self) -> &S {
        self.series
            .get_or_init(|| self.family.with(&[&self.app_id]))
    }
}

/// Errors of the APIs, by their codes.
struct Errors {
    app_id: String,
    total: Family<Counter>,
    known: Cache<Counted>,
}

struct Counted(Arc<Counter>);

impl Errors {
    fn new(names: &Names<'_>) -> Self {
        Self {
            app_id: names.app_id.to_owned(),
            total: names.counter(
                "error_code_total",
                "Errors of the APIs.",
                &["app_id", "category", "error_code"],
                &[],
            ),
            known: Cache::default(),
        }
    }

    fn count(&self, error: ErrorCode) {
        let ErrorCode { code, category } = error;
        let key = format!("{category}/{code}");
        let counted = self.known.get(&key, || {
            Counted(self.total.with(&[&self.app_id, category, code]))
        });
        counted.0.inc();
    }
}

#[cfg(test)]
mod tests;
