//! The API log: a line per call.
//! <https://docs.dapr.io/operations/troubleshooting/api-logs-troubleshooting/>

use std::time::Instant;

use http::{HeaderMap, Method, Response};
use outrider_crds::configuration;
use outrider_trace as trace;

use super::router;
use super::userinfo::Without;
use outrider_net::body::{self, Body, Meter};
use outrider_net::grpc;

/// What is logged of a call.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The route's name rather than the path.
    obfuscate: bool,
    omit_health: bool,
}

/// A call that is under way.
pub struct Call {
    method: String,
    agent: Option<String>,
    trace: Option<trace::Context>,
    start: Instant,
}

impl Log {
    /// `flag` decides where it is given, else the Configuration. Nothing if
    /// calls are not logged.
    pub fn new(flag: Option<bool>, spec: Option<&configuration::Logging>) -> Option<Self> {
        let spec = spec.and_then(|l| l.api_logging.clone()).unwrap_or_default();
        flag.or(spec.enabled).unwrap_or(false).then_some(Self {
            obfuscate: spec.obfuscate_urls,
            omit_health: spec.omit_health_checks,
        })
    }

    pub fn http(self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Call> {
        if self.omit_health && router::is_health(method, path) {
            return None;
        }
        let shown = if self.obfuscate {
            router::name(method, path, headers)
        } else {
            format!("{method} {}", Without(path))
        };
        Some(Call::new(shown, headers))
    }

    pub fn grpc(self, path: &str, headers: &HeaderMap) -> Call {
        Call::new(path.to_owned(), headers)
    }
}

impl Call {
    fn new(method: String, headers: &HeaderMap) -> Self {
        let agent = headers.get(http::header::USER_AGENT);
        Self {
            method,
            agent: agent.and_then(|v| v.to_str().ok()).map(str::to_owned),
            trace: None,
            start: Instant::now(),
        }
    }

    /// The trace that the call belongs to.
    pub fn of_trace(&mut self, trace: Option<trace::Context>) {
        self.trace = trace;
    }

    /// Logs the call when its answer has been passed on.
    pub fn http(self, answer: Response<Body>) -> Response<Body> {
        let code = answer.status().as_u16();
        answer.map(|body| {
            let end = Http {
                call: self,
                code,
                size: 0,
            };
            body::metered(body, end)
        })
    }

    /// The same for gRPC; the status is in the head or behind the body.
    pub fn grpc(self, answer: Response<Body>) -> Response<Body> {
        let status = grpc::status_of(answer.headers());
        let code = status.map(|status| status.code() as i32);
        answer.map(|body| body::metered(body, Grpc { call: self, code }))
    }
}

struct Http {
    call: Call,
    code: u16,
    size: u64,
}

impl Meter for Http {
    fn data(&mut self, bytes: usize) {
        self.size += bytes as u64;
    }

    fn over(&mut self) {
        let Self { call, code, size } = self;
        let duration = call.start.elapsed().as_millis();
        let (method, useragent) = (call.method.as_str(), call.agent.as_deref());
        let (trace_id, span_id) = call.trace.as_ref().map(trace::Context::ids).unzip();
        tracing::info!(target: "dapr.runtime.http-info", method, code, size, duration, useragent, trace_id, span_id, "HTTP API Called");
    }
}

struct Grpc {
    call: Call,
    /// Unknown while the answer goes on.
    code: Option<i32>,
}

impl Meter for Grpc {
    fn data(&mut self, _: usize) {}

    fn trailers(&mut self, trailers: &HeaderMap) {
        let status = grpc::status_of(trailers);
        self.code = self.code.or(status.map(|status| status.code() as i32));
    }

    fn over(&mut self) {
        let Self { call, code } = self;
        let code = code.unwrap_or(tonic::Code::Cancelled as i32);
        let duration = call.start.elapsed().as_millis();
        let (method, useragent) = (call.method.as_str(), call.agent.as_deref());
        let (trace_id, span_id) = call.trace.as_ref().map(trace::Context::ids).unzip();
        tracing::info!(target: "dapr.runtime.grpc.api-info", method, code, duration, useragent, trace_id, span_id, "gRPC API Called");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_urls_are_not_logged() {
        let path = "/v1.0/invoke/http:/user:passw0rd@host/method/x";
        for obfuscate in [false, true] {
            let log = Log {
                obfuscate,
                omit_health: false,
            };
            let call = log.http(&Method::GET, path, &HeaderMap::new()).unwrap();
            assert!(call.method.contains("http:/host"), "{}", call.method);
        }
    }

    #[test]
    fn the_flag_beats_the_configuration() {
        let spec = |enabled| configuration::Logging {
            api_logging: Some(configuration::ApiLogging {
                enabled: Some(enabled),
                omit_health_checks: true,
                ..Default::default()
            }),
        };
        assert!(Log::new(None, None).is_none());
        assert!(Log::new(Some(false), Some(&spec(true))).is_none());
        assert!(Log::new(Some(true), Some(&spec(false))).is_some());
        let log = Log::new(None, Some(&spec(true))).unwrap();
        let none = HeaderMap::new();
        assert!(log.http(&Method::GET, "/v1.0/healthz", &none).is_none());
        assert!(log.http(&Method::GET, "/v1.0/metadata", &none).is_some());
    }
}
