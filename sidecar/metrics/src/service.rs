//! The sidecar itself: its components, its identity, who calls whom.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Response};
use outrider_security::SpiffeId;
use outrider_security::acl::{Decision, Rule};
use outrider_telemetry::metrics::{Cache, Counter, Family, Histogram, Slots};

use super::grpc::code_of;
use super::{Labels, Names};
use outrider_net::body::{self, Body, Meter};

pub struct Service {
    app_id: String,
    loaded: Family<Counter>,
    init: Family<Counter>,
    init_failed: Family<Counter>,
    /// Allowed and blocked, by the app's rule and by the default.
    access: [[Family<Counter>; 2]; 2],
    sent: Family<Counter>,
    received: Family<Counter>,
    answered: Family<Counter>,
    answers: Family<Counter>,
    answer_latency: Family<Histogram>,
    callees: Cache<Callee>,
    callers: Cache<Caller>,
    identities: Cache<Decided>,
}

/// What the access list decided about one identity: by rule and outcome.
type Decided = [[OnceLock<Arc<Counter>>; 2]; 2];

/// An application that is called.
struct Callee {
    app_id: String,
    /// One message each way, and streams.
    sent: [OnceLock<Arc<Counter>>; 2],
    answers: Slots<Answers>,
    streamed: Slots<Arc<Counter>>,
}

struct Answers {
    count: Arc<Counter>,
    latency: Arc<Histogram>,
}

/// An application that calls.
struct Caller {
    app_id: String,
    received: OnceLock<Arc<Counter>>,
    answered: Slots<Arc<Counter>>,
}

const KINDS: [&str; 2] = ["unary", "streaming"];
/// What an unnamed caller is called.
const UNKNOWN: &str = "unknown";

impl Service {
    pub(super) fn new(names: &Names<'_>) -> Self {
        const CALLEE: Labels = &["dst_app_id"];
        const CALLER: Labels = &["src_app_id"];
        const IDENTITY: Labels = &["app_id", "namespace", "trustDomain"];
        let access = |rule: &str, what: &str| {
            names.counter(
                &format!("runtime_acl_{rule}_policy_action_{what}_total"),
                &format!("Calls that the access list has {what}, by the {rule} policy."),
                IDENTITY,
                IDENTITY,
            )
        };
        Self {
            app_id: names.app_id.to_owned(),
            loaded: names.counter(
                "runtime_component_loaded",
                "Components brought into use.",
                &["app_id"],
                &[],
            ),
            init: names.counter(
                "runtime_component_init_total",
                "Components brought into use, by type.",
                &["app_id", "component"],
                &[],
            ),
            init_failed: names.counter(
                "runtime_component_init_fail_total",
                "Components that could not be brought into use.",
                &["app_id", "component", "componentName", "reason"],
                &["componentName"],
            ),
            access: [
                [access("app", "blocked"), access("app", "allowed")],
                [access("global", "blocked"), access("global", "allowed")],
            ],
            sent: names.counter(
                "runtime_service_invocation_req_sent_total",
                "Calls to other applications.",
                &["app_id", "dst_app_id", "type"],
                CALLEE,
            ),
            received: names.counter(
                "runtime_service_invocation_req_recv_total",
                "Calls from other applications.",
                &["app_id", "src_app_id"],
                CALLER,
            ),
            answered: names.counter(
                "runtime_service_invocation_res_sent_total",
                "Answers to other applications.",
                &["app_id", "dst_app_id", "status"],
                CALLEE,
            ),
            answers: names.counter(
                "runtime_service_invocation_res_recv_total",
                "Answers of other applications.",
                &["app_id", "src_app_id", "status", "type"],
                CALLER,
            ),
            answer_latency: names.latency(
                "runtime_service_invocation_res_recv_latency_ms",
                "Milliseconds until other applications answered.",
                &["app_id", "src_app_id", "status"],
                CALLER,
            ),
            callees: Cache::default(),
            callers: Cache::default(),
            identities: Cache::default(),
        }
    }
}

/// What counts calls between applications, and components.
#[derive(Clone, Default)]
pub struct Calls(pub(super) Option<Arc<Service>>);

/// A call to another application.
pub struct Calling(Option<(Arc<Service>, Arc<Callee>, usize, Instant)>);

/// A call of another application.
pub struct Answering(Option<(Arc<Service>, Arc<Caller>)>);

impl Calls {
    /// A call leaves for another application.
    pub fn sent(&self, app_id: &str, streaming: bool) -> Calling {
        Calling(self.0.as_ref().map(|service| {
            let callee = service.callees.get(app_id, || Callee {
                app_id: app_id.to_owned(),
                sent: Default::default(),
                answers: Slots::default(),
                streamed: Slots::default(),
            });
            let kind = usize::from(streaming);
            callee.sent[kind]
                .get_or_init(|| service.sent.with(&[&service.app_id, app_id, KINDS[kind]]))
                .inc();
            (service.clone(), callee, kind, Instant::now())
        }))
    }

    /// A call of another application arrives.
    pub fn received(&self, app_id: Option<&str>) -> Answering {
        Answering(self.0.as_ref().map(|service| {
            let app_id = app_id.filter(|id| !id.is_empty()).unwrap_or(UNKNOWN);
            let caller = service.callers.get(app_id, || Caller {
                app_id: app_id.to_owned(),
                received: OnceLock::new(),
                answered: Slots::default(),
            });
            caller
                .received
                .get_or_init(|| service.received.with(&[&service.app_id, app_id]))
                .inc();
            (service.clone(), caller)
        }))
    }

    /// The access list has decided about a call.
    pub fn decided(&self, caller: Option<&SpiffeId>, decision: Decision) {
        let Some(service) = &self.0 else { return };
        let (rule, outcome) = (
            usize::from(decision.rule == Rule::Global),
            usize::from(decision.allowed),
        );
        let identity = caller.map_or("", SpiffeId::as_str);
        let decided = service.identities.get(identity, Decided::default);
        let counter = decided[rule][outcome].get_or_init(|| {
            let workload = caller.and_then(SpiffeId::as_workload);
            let (app_id, namespace) = workload.map_or(("", ""), |w| (w.app_id, w.namespace));
            let trust_domain = caller.map_or("", SpiffeId::trust_domain_str);
            service.access[rule][outcome].with(&[app_id, namespace, trust_domain])
        });
        counter.inc();
    }

    pub fn component_loaded(&self, kind: &str) {
        let Some(service) = &self.0 else { return };
        service.loaded.with(&[&service.app_id]).inc();
        service.init.with(&[&service.app_id, kind]).inc();
    }

    /// `reason` is `creation` or `init`.
    pub fn component_failed(&self, kind: &str, reason: &str, name: &str) {
        let Some(service) = &self.0 else { return };
        service
            .init_failed
            .with(&[&service.app_id, kind, name, reason])
            .inc();
    }
}

impl Calling {
    /// The other application has answered, with a status of this number.
    pub fn ended(self, status: u32) {
        let Some((service, callee, kind, started)) = self.0 else {
            return;
        };
        let (app_id, from) = (service.app_id.as_str(), callee.app_id.as_str());
        let count = || {
            let status = status.to_string();
            service.answers.with(&[app_id, from, &status, KINDS[kind]])
        };
        if kind == 1 {
            callee.streamed.get(status, count).inc();
            return;
        }
        let answers = callee.answers.get(status, || Answers {
            count: count(),
            latency: service
                .answer_latency
                .with(&[app_id, from, &status.to_string()]),
        });
        answers.count.inc();
        answers.latency.record_duration(started.elapsed());
    }
}

impl Answering {
    /// The own application has answered, with a status of this number.
    pub fn ended(self, status: u32) {
        let Some((service, caller)) = self.0 else {
            return;
        };
        let answered = caller.answered.get(status, || {
            let labels = [&*service.app_id, &caller.app_id, &status.to_string()];
            service.answered.with(&labels)
        });
        answered.inc();
    }
}

/// A call that was passed on, and whose answer is on its way.
pub struct Passed {
    calling: Calling,
    code: tonic::Code,
}

impl Passed {
    /// Counts what comes back when it is over.
    pub fn answer<B>(calling: Calling, answer: Response<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<body::BoxError>,
    {
        if calling.0.is_none() {
            return answer.map(body::stream);
        }
        let code = code_of(answer.headers()).unwrap_or(tonic::Code::Cancelled);
        let passed = Self { calling, code };
        answer.map(|stream| body::metered(body::stream(stream), passed))
    }
}

impl Meter for Passed {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.code = code_of(trailers).unwrap_or(self.code);
    }

    fn over(&mut self) {
        Calling(self.calling.0.take()).ended(self.code as u32);
    }
}
