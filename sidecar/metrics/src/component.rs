//! Operations on components.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use outrider_telemetry::metrics::{Cache, Counter, Family, Histogram};

use super::{Labels, Names};

pub struct Components {
    app_id: String,
    namespace: String,
    state: Timed,
    secrets: Timed,
    configuration: Timed,
    crypto: Timed,
    inputs: Timed,
    outputs: Timed,
    conversations: Timed,
    ingress: Timed,
    ingress_bulk: Timed,
    ingress_bulk_events: Family<Counter>,
    rules_failed: Family<Counter>,
    egress: Timed,
    egress_bulk: Timed,
    egress_bulk_events: Family<Counter>,
}

/// A count with how long it took, under the same labels.
struct Timed {
    count: Family<Counter>,
    latency: Family<Histogram>,
}

struct Series {
    count: Arc<Counter>,
    /// There from the first time that is not zero.
    latency: OnceLock<Arc<Histogram>>,
    latencies: Family<Histogram>,
    labels: Vec<String>,
}

impl Timed {
    fn with(&self, labels: &[&str]) -> Series {
        Series {
            count: self.count.with(labels),
            latency: OnceLock::new(),
            latencies: self.latency.clone(),
            labels: labels.iter().map(|l| (*l).to_owned()).collect(),
        }
    }
}

impl Series {
    fn record(&self, took: Duration) {
        self.count.inc();
        if took.is_zero() {
            return;
        }
        let latency = self.latency.get_or_init(|| {
            let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
            self.latencies.with(&labels)
        });
        latency.record_duration(took);
    }
}

const TOPIC: Labels = &["topic"];

impl Components {
    pub(super) fn new(names: &Names<'_>) -> Self {
        let timed = |name: &str, what: &str, labels: Labels| Timed {
            count: names.counter(
                &format!("component_{name}_count"),
                &format!("{what}."),
                labels,
                TOPIC,
            ),
            latency: names.latency(
                &format!("component_{name}_latencies"),
                &format!("Milliseconds of {}.", what.to_lowercase()),
                labels,
                TOPIC,
            ),
        };
        const OPERATION: Labels = &["app_id", "component", "namespace", "operation", "success"];
        const INGRESS: Labels = &[
            "app_id",
            "component",
            "namespace",
            "process_status",
            "status",
            "topic",
        ];
        const BULK: Labels = &[
            "app_id",
            "component",
            "namespace",
            "process_status",
            "topic",
        ];
        const EGRESS: Labels = &["app_id", "component", "namespace", "success", "topic"];
        Self {
            app_id: names.app_id.to_owned(),
            namespace: names.namespace.to_owned(),
            state: timed("state", "Operations on state stores", OPERATION),
            secrets: timed("secret", "Operations on secret stores", OPERATION),
            configuration: timed(
                "configuration",
                "Operations on configuration stores",
                OPERATION,
            ),
            crypto: timed("crypto", "Operations on keys", OPERATION),
            inputs: timed(
                "input_binding",
                "Events of bindings delivered to the application",
                &["app_id", "component", "namespace", "success"],
            ),
            outputs: timed("output_binding", "Operations on bindings", OPERATION),
            conversations: timed(
                "conversation",
                "Requests to language models",
                &["app_id", "component", "namespace", "success"],
            ),
            ingress: timed(
                "pubsub_ingress",
                "Messages delivered to the application",
                INGRESS,
            ),
            ingress_bulk: timed(
                "pubsub_ingress_bulk",
                "Batches of messages delivered to the application",
                BULK,
            ),
            ingress_bulk_events: names.counter(
                "component_pubsub_ingress_bulk_event_count",
                "Messages in batches delivered to the application.",
                BULK,
                TOPIC,
            ),
            rules_failed: names.counter(
                "component_pubsub_ingress_rule_failed_count",
                "Messages that a routing rule failed on, which went to the default route.",
                &["app_id", "component", "namespace", "topic"],
                TOPIC,
            ),
            egress: timed("pubsub_egress", "Messages published", EGRESS),
            egress_bulk: timed(
                "pubsub_egress_bulk",
                "Batches of messages published",
                EGRESS,
            ),
            egress_bulk_events: names.counter(
                "component_pubsub_egress_bulk_event_count",
                "Messages in batches published.",
                EGRESS,
                TOPIC,
            ),
        }
    }
}

/// An operation on a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Get,
    Set,
    Delete,
    BulkGet,
    BulkDelete,
    Query,
    Transaction,
    Subscribe,
    Unsubscribe,
    Crypto,
}

impl Operation {
    const COUNT: usize = 10;

    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "delete",
            Self::BulkGet => "bulk_get",
            Self::BulkDelete => "bulk_delete",
            Self::Query => "query",
            Self::Transaction => "transaction",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Crypto => "crypto_op",
        }
    }
}

/// What counts the operations on one component.
#[derive(Default)]
pub struct Operations(Option<Of>);

struct Of {
    components: Arc<Components>,
    timed: fn(&Components) -> &Timed,
    component: String,
    /// By operation and success.
    series: [[OnceLock<Series>; 2]; Operation::COUNT],
}

impl Operations {
    pub(super) fn state(components: Option<Arc<Components>>, component: &str) -> Self {
        Self::new(components, component, |c| &c.state)
    }

    pub(super) fn secrets(components: Option<Arc<Components>>, component: &str) -> Self {
        Self::new(components, component, |c| &c.secrets)
    }

    pub(super) fn configuration(components: Option<Arc<Components>>, component: &str) -> Self {
        Self::new(components, component, |c| &c.configuration)
    }

    pub(super) fn crypto(components: Option<Arc<Components>>, component: &str) -> Self {
        Self::new(components, component, |c| &c.crypto)
    }

    fn new(
        components: Option<Arc<Components>>,
        component: &str,
        timed: fn(&Components) -> &Timed,
    ) -> Self {
        Self(components.map(|components| Of {
            components,
            timed,
            component: component.to_owned(),
            series: Default::default(),
        }))
    }

    /// Counts `work` when it is done.
    pub async fn time<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let Some(of) = &self.0 else {
            return work.await;
        };
        let started = Instant::now();
        let result = work.await;
        let success = result.is_ok();
        let series = of.series[operation as usize][usize::from(success)].get_or_init(|| {
            let components = &of.components;
            (of.timed)(components).with(&[
                &components.app_id,
                &of.component,
                &components.namespace,
                operation.name(),
                truth(success),
            ])
        });
        series.record(started.elapsed());
        result
    }
}

/// What counts the events and the operations of one binding.
#[derive(Default)]
pub struct Binding(Option<OfBinding>);

struct OfBinding {
    components: Arc<Components>,
    component: String,
    /// By success.
    events: [OnceLock<Series>; 2],
    operations: Cache<[OnceLock<Series>; 2]>,
}

impl Binding {
    pub(super) fn new(components: Option<Arc<Components>>, component: &str) -> Self {
        Self(components.map(|components| OfBinding {
            components,
            component: component.to_owned(),
            events: Default::default(),
            operations: Cache::default(),
        }))
    }

    /// The application took an event, or not.
    pub fn delivered(&self, success: bool, took: Duration) {
        let Some(of) = &self.0 else { return };
        let series = of.events[usize::from(success)].get_or_init(|| {
            let (app_id, namespace) = (&of.components.app_id, &of.components.namespace);
            let labels = [app_id, of.component.as_str(), namespace, truth(success)];
            of.components.inputs.with(&labels)
        });
        series.record(took);
    }

    /// An operation was invoked. It is one that the binding has.
    pub fn invoked(&self, operation: &str, success: bool, took: Duration) {
        let Some(of) = &self.0 else { return };
        let found = of.operations.get(operation, Default::default);
        let series = found[usize::from(success)].get_or_init(|| {
            let (app_id, namespace) = (&of.components.app_id, &of.components.namespace);
            let success = truth(success);
            let labels = [app_id, of.component.as_str(), namespace, operation, success];
            of.components.outputs.with(&labels)
        });
        series.record(took);
    }
}

/// What counts the requests to one language model.
#[derive(Default)]
pub struct Conversation(Option<OfModel>);

struct OfModel {
    components: Arc<Components>,
    component: String,
    /// By success.
    asked: [OnceLock<Series>; 2],
}

impl Conversation {
    pub(super) fn new(components: Option<Arc<Components>>, component: &str) -> Self {
        Self(components.map(|components| OfModel {
            components,
            component: component.to_owned(),
            asked: Default::default(),
        }))
    }

    /// It answered, or not.
    pub fn asked(&self, success: bool, took: Duration) {
        let Some(of) = &self.0 else { return };
        let series = of.asked[usize::from(success)].get_or_init(|| {
            let (app_id, namespace) = (&of.components.app_id, &of.components.namespace);
            let labels = [app_id, of.component.as_str(), namespace, truth(success)];
            of.components.conversations.with(&labels)
        });
        series.record(took);
    }
}

fn truth(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The application has it.
    Success,
    /// It comes again.
    Retry,
    /// It is not taken.
    Drop,
    /// The application or its routes wanted it dropped.
    Unwanted,
}

impl Fate {
    const COUNT: usize = 4;

    fn process_status(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry => "retry",
            Self::Drop | Self::Unwanted => "drop",
        }
    }

    fn status(self) -> &'static str {
        match self {
            Self::Unwanted => "success",
            other => other.process_status(),
        }
    }

    /// The same in batches, in capitals.
    fn in_bulk(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Retry => "RETRY",
            Self::Drop | Self::Unwanted => "DROP",
        }
    }
}

/// What counts the messages of one broker.
#[derive(Default)]
pub struct Topics(Option<OfBroker>);

struct OfBroker {
    components: Arc<Components>,
    component: String,
    topics: Cache<Topic>,
}

#[derive(Default)]
struct Topic {
    ingress: [OnceLock<Series>; Fate::COUNT],
    ingress_bulk: [OnceLock<Series>; Fate::COUNT],
    ingress_bulk_events: [OnceLock<Arc<Counter>>; Fate::COUNT],
    egress: [OnceLock<Series>; 2],
    egress_bulk: [OnceLock<Series>; 2],
}

impl Topics {
    pub(super) fn new(components: Option<Arc<Components>>, component: &str) -> Self {
        Self(components.map(|components| OfBroker {
            components,
            component: component.to_owned(),
            topics: Cache::default(),
        }))
    }

    /// A message was published, or not.
    pub fn published(&self, topic: &str, success: bool, took: Duration) {
        let Some(of) = &self.0 else { return };
        let found = of.topic(topic);
        let series = found.egress[usize::from(success)]
            .get_or_init(|| of.components.egress.with(&of.egress(topic, success)));
        series.record(took);
    }

    /// A batch was published; `events` of its messages were taken.
    pub fn published_bulk(&self, topic: &str, success: bool, events: usize, took: Duration) {
        let Some(of) = &self.0 else { return };
        let found = of.topic(topic);
        let series = found.egress_bulk[usize::from(success)]
            .get_or_init(|| of.components.egress_bulk.with(&of.egress(topic, success)));
        series.record(took);
        if events > 0 {
            let counter = &of.components.egress_bulk_events;
            counter.with(&of.egress(topic, true)).add(events as u64);
        }
    }

    /// A routing rule had no answer for a message.
    pub fn rule_failed(&self, topic: &str) {
        let Some(of) = &self.0 else { return };
        let (components, component) = (&of.components, &of.component);
        let labels = [&components.app_id, component, &components.namespace, topic];
        components.rules_failed.with(&labels).add(1);
    }

    /// A message has met its fate. The time is zero if it never was on its way
    /// to the application.
    pub fn delivered(&self, topic: &str, fate: Fate, took: Duration) {
        let Some(of) = &self.0 else { return };
        let found = of.topic(topic);
        let series = found.ingress[fate as usize].get_or_init(|| {
            of.components.ingress.with(&[
                &of.components.app_id,
                &of.component,
                &of.components.namespace,
                fate.process_status(),
                fate.status(),
                topic,
            ])
        });
        series.record(took);
    }

    /// A batch has been delivered, with the fates of its messages.
    pub fn delivered_bulk(&self, topic: &str, fates: &[Fate], took: Duration) {
        let Some(of) = &self.0 else { return };
        let found = of.topic(topic);
        let labels = |fate: Fate| {
            [
                of.components.app_id.as_str(),
                &of.component,
                &of.components.namespace,
                fate.in_bulk(),
                topic,
            ]
        };
        // The worst outcome is that of the batch.
        let worst = [Fate::Retry, Fate::Drop, Fate::Unwanted];
        let worst = worst.into_iter().find(|fate| fates.contains(fate));
        let worst = worst.unwrap_or(Fate::Success);
        found.ingress_bulk[worst as usize]
            .get_or_init(|| of.components.ingress_bulk.with(&labels(worst)))
            .record(took);
        for fate in fates {
            let events = &of.components.ingress_bulk_events;
            found.ingress_bulk_events[*fate as usize]
                .get_or_init(|| events.with(&labels(*fate)))
                .inc();
        }
    }
}

impl OfBroker {
    fn topic(&self, topic: &str) -> Arc<Topic> {
        self.topics.get(topic, Topic::default)
    }

    fn egress<'a>(&'a self, topic: &'a str, success: bool) -> [&'a str; 5] {
        [
            &self.components.app_id,
            &self.component,
            &self.components.namespace,
            truth(success),
            topic,
        ]
    }
}
