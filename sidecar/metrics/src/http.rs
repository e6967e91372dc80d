//! HTTP: requests to the API, calls to the application.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode, header};
use outrider_crds::configuration;
use outrider_telemetry::metrics::{Cache, Counter, Family, Histogram, Slots};

use super::label::{Paths, Verb};
use super::{ErrorCode, Errors, Names, Single, settings};
use outrider_net::body::{self, Body, Meter};
use outrider_net::path::unescape;

pub struct Http {
    app_id: String,
    paths: Paths,
    excludes_verbs: bool,
    errors: Option<Arc<Errors>>,
    requests: Family<Counter>,
    latency: Family<Histogram>,
    /// With increased cardinality only.
    responses: Option<Family<Counter>>,
    request_bytes: Single<Histogram>,
    response_bytes: Single<Histogram>,
    served: Cache<Route<Series>>,
    sent_bytes: Family<Histogram>,
    received_bytes: Single<Histogram>,
    roundtrip: Family<Histogram>,
    completed: Family<Counter>,
    called: Cache<Route<Series>>,
    probes: Family<Counter>,
    probe_latency: Family<Histogram>,
}

/// What is counted under one path.
struct Route<S> {
    path: String,
    /// By verb and status.
    series: Slots<S>,
    /// By verb: bytes that were sent.
    sent: Slots<Arc<Histogram>>,
}

/// Of one path, verb and status.
pub struct Series {
    count: Arc<Counter>,
    latency: Arc<Histogram>,
    responses: Option<Arc<Counter>>,
}

const OPEN: &[&str] = &["path"];
const LABELS: &[&str] = &["app_id", "method", "path", "status"];

impl Http {
    pub(super) fn new(
        names: &Names<'_>,
        spec: &configuration::Metrics,
        errors: Option<Arc<Errors>>,
    ) -> Self {
        let paths = settings::paths(spec);
        let responses = paths.increased.then(|| {
            names.counter(
                "http_server_response_count",
                "Answers of the HTTP API.",
                LABELS,
                OPEN,
            )
        });
        Self {
            app_id: names.app_id.to_owned(),
            excludes_verbs: settings::excludes_verbs(spec),
            errors,
            requests: names.counter(
                "http_server_request_count",
                "Requests to the HTTP API.",
                LABELS,
                OPEN,
            ),
            latency: names.latency(
                "http_server_latency",
                "Milliseconds from a request to the last byte of its answer.",
                LABELS,
                OPEN,
            ),
            responses,
            request_bytes: names.single_bytes(
                "http_server_request_bytes",
                "Bytes that requests announced as the length of their bodies.",
            ),
            response_bytes: names.single_bytes(
                "http_server_response_bytes",
                "Bytes in the bodies of answers.",
            ),
            served: Cache::default(),
            sent_bytes: names.bytes(
                "http_client_sent_bytes",
                "Bytes in the bodies of calls to the application.",
                LABELS,
                OPEN,
            ),
            received_bytes: names.single_bytes(
                "http_client_received_bytes",
                "Bytes in the bodies of the application's answers.",
            ),
            roundtrip: names.latency(
                "http_client_roundtrip_latency",
                "Milliseconds from a call to the last byte of the application's answer.",
                LABELS,
                OPEN,
            ),
            completed: names.counter(
                "http_client_completed_count",
                "Calls to the application.",
                LABELS,
                OPEN,
            ),
            called: Cache::default(),
            probes: names.counter(
                "http_healthprobes_completed_count",
                "Health probes of the application.",
                &["app_id", "status"],
                &[],
            ),
            probe_latency: names.latency(
                "http_healthprobes_roundtrip_latency",
                "Milliseconds that health probes took.",
                &["app_id", "status"],
                &[],
            ),
            paths,
        }
    }

    fn route(&self, cache: &Cache<Route<Series>>, path: Cow<'_, str>) -> Arc<Route<Series>> {
        cache.get(&path, || Route {
            path: path.as_ref().to_owned(),
            series: Slots::default(),
            sent: Slots::default(),
        })
    }

    fn verb(&self, verb: Verb) -> &'static str {
        if self.excludes_verbs { "" } else { verb.name() }
    }

    fn request(self: &Arc<Self>, method: &Method, path: &str, headers: &HeaderMap) -> Serving {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|v| v.to_str().ok()?.parse().ok());
        Serving {
            route: self.route(&self.served, self.paths.of_request(&unescape(path))),
            http: self.clone(),
            verb: Verb::new(method),
            started: Instant::now(),
            bytes: length.unwrap_or(0),
        }
    }

    fn served(&self, route: &Route<Series>, verb: Verb, status: StatusCode) -> Arc<Series> {
        let number = verb.with_status(status.as_u16());
        route.series.get(number, || {
            let labels = [&*self.app_id, self.verb(verb), &route.path, status.as_str()];
            Series {
                count: self.requests.with(&labels),
                latency: self.latency.with(&labels),
                responses: self.responses.as_ref().map(|r| r.with(&labels)),
            }
        })
    }

    fn called(&self, route: &Route<Series>, verb: Verb, status: StatusCode) -> Arc<Series> {
        let number = verb.with_status(status.as_u16());
        route.series.get(number, || {
            let labels = [&*self.app_id, self.verb(verb), &route.path, status.as_str()];
            Series {
                count: self.completed.with(&labels),
                latency: self.roundtrip.with(&labels),
                responses: None,
            }
        })
    }
}

/// A request to the API that is being answered.
pub struct Served(Option<Serving>);

struct Serving {
    http: Arc<Http>,
    route: Arc<Route<Series>>,
    verb: Verb,
    started: Instant,
    /// Length of the request.
    bytes: u64,
}

impl Served {
    /// The same answer, which is counted when the client has it.
    pub fn answer(self, answer: Response<Body>) -> Response<Body> {
        let Some(Serving {
            http,
            route,
            verb,
            started,
            bytes,
        }) = self.0
        else {
            return answer;
        };
        if let (Some(errors), Some(known)) = (&http.errors, answer.extensions().get::<ErrorCode>())
        {
            errors.count(*known);
        }
        http.request_bytes.get().record(bytes);
        let answered = Answered {
            series: http.served(&route, verb, answer.status()),
            served: true,
            http,
            started,
            bytes: 0,
        };
        answer.map(|body| body::metered(body, answered))
    }
}

/// An answer on its way.
pub struct Answered {
    http: Arc<Http>,
    series: Arc<Series>,
    /// Whether it is the API's own.
    served: bool,
    started: Instant,
    pub(super) bytes: u64,
}

impl Meter for Answered {
    fn data(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn over(&mut self) {
        let (series, bytes) = (&self.series, self.bytes);
        series.count.inc();
        series.latency.record_duration(self.started.elapsed());
        if let Some(responses) = &series.responses {
            responses.inc();
        }
        let sizes = if self.served {
            &self.http.response_bytes
        } else {
            &self.http.received_bytes
        };
        sizes.get().record(bytes);
    }
}

/// What counts the requests of one listener.
#[derive(Clone, Default)]
pub struct Server(pub(super) Option<Arc<Http>>);

impl Server {
    pub fn request(&self, method: &Method, path: &str, headers: &HeaderMap) -> Served {
        let http = self.0.as_ref();
        Served(http.map(|http| http.request(method, path, headers)))
    }
}

/// What counts calls to an application.
#[derive(Clone, Default)]
pub struct Client(pub(super) Option<Arc<Http>>);

/// A call to the application.
pub struct Called(Option<Calling>);

struct Calling {
    http: Arc<Http>,
    route: Arc<Route<Series>>,
    verb: Verb,
    started: Instant,
}

impl Client {
    pub fn call(&self, method: &Method, path: &str) -> Called {
        Called(self.0.as_ref().map(|http| Calling {
            route: http.route(&http.called, http.paths.of_call(path)),
            http: http.clone(),
            verb: Verb::new(method),
            started: Instant::now(),
        }))
    }

    /// A health probe that answered, or did not within its time.
    pub fn probed(&self, status: StatusCode, took: Duration) {
        let Some(http) = &self.0 else { return };
        let labels = [&*http.app_id, status.as_str()];
        http.probes.with(&labels).inc();
        http.probe_latency.with(&labels).record_duration(took);
    }
}

impl Called {
    /// The body of the request.
    pub fn request(&self, body: Body) -> Body {
        let Some(Calling {
            http, route, verb, ..
        }) = &self.0
        else {
            return body;
        };
        let number = verb.with_status(0);
        let sizes = route.sent.get(number, || {
            let labels = [&*http.app_id, http.verb(*verb), &route.path, ""];
            http.sent_bytes.with(&labels)
        });
        let sent = Sent {
            sizes: sizes.as_ref().clone(),
            bytes: 0,
        };
        body::metered(body, sent)
    }

    /// The body of the answer.
    pub fn answer(self, status: StatusCode, body: Body) -> Body {
        let Some(Calling {
            http,
            route,
            verb,
            started,
        }) = self.0
        else {
            return body;
        };
        let answered = Answered {
            series: http.called(&route, verb, status),
            served: false,
            http,
            started,
            bytes: 0,
        };
        body::metered(body, answered)
    }

    /// There is no answer.
    pub fn failed(self) {
        self.answer(StatusCode::INTERNAL_SERVER_ERROR, body::empty());
    }
}

/// A request on its way to the application.
pub struct Sent {
    sizes: Arc<Histogram>,
    pub(super) bytes: u64,
}

impl Meter for Sent {
    fn data(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    fn over(&mut self) {
        self.sizes.record(self.bytes);
    }
}
