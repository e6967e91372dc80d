//! The API log: a line per call.
//! <https://docs.dapr.io/operations/troubleshooting/api-logs-troubleshooting/>

use std::time::Instant;

use http::{HeaderMap, Method, Response};
use http_body::Body as _;
use outrider_crds::configuration;

use super::router;
use outrider_net::body::Body;

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
            format!("{method} {path}")
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
            start: Instant::now(),
        }
    }

    pub fn http_ended(self, answer: &Response<Body>) {
        let code = answer.status().as_u16();
        let size = answer.body().size_hint().exact().unwrap_or(0);
        let duration = self.start.elapsed().as_millis();
        let method = self.method;
        match self.agent {
            Some(useragent) => {
                tracing::info!(target: "dapr.runtime.http-info", %method, code, size, duration, %useragent, "HTTP API Called");
            }
            None => {
                tracing::info!(target: "dapr.runtime.http-info", %method, code, size, duration, "HTTP API Called");
            }
        }
    }

    /// The code is that of the answer's head: streams that fail later have
    /// begun well.
    pub fn grpc_ended(self, answer: &Response<Body>) {
        let code = outrider_net::grpc::status_of(answer.headers())
            .map_or(0, |status| status.code() as i32);
        let duration = self.start.elapsed().as_millis();
        let method = self.method;
        match self.agent {
            Some(useragent) => {
                tracing::info!(target: "dapr.runtime.grpc.api-info", %method, code, duration, %useragent, "gRPC API Called");
            }
            None => {
                tracing::info!(target: "dapr.runtime.grpc.api-info", %method, code, duration, "gRPC API Called");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
