//! What the Configuration and the environment say about tracing.
//! <https://docs.dapr.io/operations/configuration/configuration-overview/#tracing>,
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use outrider_crds::configuration::{Otel, Tracing};
use outrider_host::Tasks;
use outrider_kit::{duration, quote};
use percent_encoding::percent_decode_str;

use crate::export::{Batching, Collector, Endpoint, Exporting, Otlp, Protocol, Resource, Zipkin};
use crate::sampler::Sampler;
use crate::tracer::Tracer;

/// What a batch may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the sidecar cannot start with a Configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("invalid protocol {0} provided for Otel endpoint")]
    Protocol(String),
    #[error("invalid endpoint address {0} of the OpenTelemetry collector: {1}")]
    Otel(String, String),
    #[error("invalid collector URL {0}: {1}")]
    Zipkin(String, String),
    #[error("invalid timeout {0} of the OpenTelemetry collector: {1}")]
    Timeout(String, String),
    #[error("invalid {variable}: {cause}")]
    Variable {
        variable: &'static str,
        cause: String,
    },
}

/// How this sidecar traces.
#[derive(Debug, PartialEq)]
pub struct Settings {
    pub sampler: Sampler,
    is_off: bool,
    /// Whether spans are made; else contexts are only passed on.
    is_on: bool,
    stdout: bool,
    zipkin: Option<(Endpoint, PathAndQuery)>,
    otel: Option<Target>,
    resource: Resource,
    batching: Batching,
}

#[derive(Debug, PartialEq)]
struct Target {
    endpoint: Endpoint,
    protocol: Protocol,
    headers: Vec<(String, String)>,
    timeout: Duration,
}

type Environment = HashMap<String, String>;

impl Settings {
    pub fn read(
        spec: Option<&Tracing>,
        app_id: &str,
        environment: &Environment,
    ) -> Result<Self, Error> {
        let mut spec = spec.cloned().unwrap_or_default();
        let mut otel = spec.otel.take().unwrap_or_default();
        let of_environment = otel.endpoint_address.is_empty();
        let mut headers: Vec<_> = otel.headers.iter().filter_map(|h| h.pair()).collect();
        let mut timeout = match otel.timeout.as_str() {
            "" => None,
            text => Some(
                duration::parse(text)
                    .map_err(|e| Error::Timeout(quote::go(text), e.to_string()))?,
            ),
        };
        // A collector that the Configuration names is described by it alone.
        if of_environment {
            if let Some(found) = endpoint_of(environment) {
                if spec.sampling_rate.is_empty() {
                    "1".clone_into(&mut spec.sampling_rate);
                }
                otel = Otel {
                    headers: otel.headers,
                    timeout: otel.timeout,
                    is_secure: found.is_secure.or(otel.is_secure),
                    ..found
                };
            }
            headers.extend(headers_of(environment)?);
            timeout = timeout_of(environment)?.or(timeout);
        }
        let otel = match (otel.endpoint_address.as_str(), otel.protocol.as_str()) {
            ("", _) | (_, "") => None,
            (address, protocol) => Some(Target {
                endpoint: otel_endpoint(address, protocol, otel.is_secure, environment)?,
                protocol: match protocol {
                    "grpc" => Protocol::Grpc,
                    _ => Protocol::Http,
                },
                headers,
                timeout: timeout.unwrap_or(TIMEOUT),
            }),
        };
        let zipkin = match spec.zipkin.as_ref().map(|z| z.endpoint_address.as_str()) {
            None | Some("") => None,
            Some(address) => Some(zipkin_endpoint(address)?),
        };
        let (sampler, is_off) = Sampler::parse(&spec.sampling_rate);
        let has_collector = spec.stdout || zipkin.is_some() || otel.is_some();
        Ok(Self {
            sampler,
            is_off,
            is_on: has_collector || !spec.sampling_rate.is_empty(),
            stdout: spec.stdout,
            zipkin,
            otel,
            resource: resource(app_id, environment),
            batching: batching(environment),
        })
    }

    /// Starts the tasks that send spans.
    pub fn start(self, tasks: &Tasks) -> (Tracer, Arc<Exporting>) {
        if self.is_off {
            return (Tracer::off(), Arc::default());
        }
        if !self.is_on {
            return (Tracer::default(), Arc::default());
        }
        let mut collectors = Vec::new();
        collectors.extend(self.stdout.then_some(Collector::Stdout));
        if let Some((endpoint, path)) = self.zipkin {
            let zipkin = Zipkin::new(endpoint, Uri::from(path));
            collectors.push(Collector::Zipkin(zipkin));
        }
        if let Some(target) = self.otel {
            let headers = crate::export::headers(&target.headers);
            let otlp = Otlp::new(target.endpoint, target.protocol, headers, target.timeout);
            collectors.push(Collector::Otlp(otlp));
        }
        let exporting = Exporting::start(collectors, self.batching, self.resource, tasks);
        let exporting = Arc::new(exporting);
        (Tracer::on(self.sampler, exporting.clone()), exporting)
    }
}

/// A variable for traces, or else the one for all that is exported.
fn variable<'a>(
    environment: &'a Environment,
    names: [&'static str; 2],
) -> Option<(&'static str, &'a str)> {
    let mut found = names.into_iter().filter_map(|name| {
        let value = environment.get(name)?;
        (!value.is_empty()).then_some((name, value.as_str()))
    });
    found.next()
}

/// The collector that the environment names.
fn endpoint_of(environment: &Environment) -> Option<Otel> {
    let (_, address) = variable(
        environment,
        [
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ],
    )?;
    let protocol = variable(
        environment,
        [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ],
    );
    let is_http = protocol.is_some_and(|(_, protocol)| protocol.starts_with("http"));
    let insecure = environment.get("OTEL_EXPORTER_OTLP_INSECURE");
    Some(Otel {
        endpoint_address: address.to_owned(),
        protocol: if is_http { "http" } else { "grpc" }.to_owned(),
        is_secure: insecure.is_some_and(|v| v == "true").then_some(false),
        ..Otel::default()
    })
}

fn headers_of(environment: &Environment) -> Result<Vec<(String, String)>, Error> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ];
    let Some((variable, text)) = variable(environment, names) else {
        return Ok(Vec::new());
    };
    let wrong = |cause: String| Error::Variable { variable, cause };
    let pairs = text.split(',').map(|pair| {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| wrong(format!("missing '=' in {}", quote::go(pair))))?;
        let value = percent_decode_str(value).decode_utf8();
        let value = value.map_err(|e| wrong(e.to_string()))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    });
    pairs.collect()
}

fn timeout_of(environment: &Environment) -> Result<Option<Duration>, Error> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];
    let Some((variable, text)) = variable(environment, names) else {
        return Ok(None);
    };
    let milliseconds: i64 = text
        .parse()
        .map_err(|e: std::num::ParseIntError| Error::Variable {
            variable,
            cause: e.to_string(),
        })?;
    let positive = u64::try_from(milliseconds).ok().filter(|n| *n > 0);
    Ok(positive.map(Duration::from_millis))
}

/// `host:port`; a scheme before it says nothing.
fn otel_endpoint(
    address: &str,
    protocol: &str,
    is_secure: Option<bool>,
    environment: &Environment,
) -> Result<Endpoint, Error> {
    let port = match protocol {
        "grpc" => 4317,
        "http" => 4318,
        other => return Err(Error::Protocol(other.to_owned())),
    };
    let bare = address.split_once("://").map_or(address, |(_, rest)| rest);
    let bare = bare.trim_matches('/');
    let wrong = |cause: String| Error::Otel(quote::go(address), cause);
    let authority: Authority = bare
        .parse()
        .map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    if authority.host().is_empty() {
        return Err(wrong("no host".to_owned()));
    }
    let roots = variable(
        environment,
        [
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ],
    );
    Ok(Endpoint {
        host: bare_host(authority.host()),
        port: authority.port_u16().unwrap_or(port),
        is_tls: is_secure.unwrap_or(true),
        roots: roots.map(|(_, path)| path.to_owned()),
    })
}

fn zipkin_endpoint(address: &str) -> Result<(Endpoint, PathAndQuery), Error> {
    let wrong = |cause: String| Error::Zipkin(quote::go(address), cause);
    let url: Uri = address
        .parse()
        .map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    let is_tls = match url.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(other) => {
            return Err(wrong(format!(
                "the scheme {other} is neither http nor https"
            )));
        }
        None => return Err(wrong("no scheme or host".to_owned())),
    };
    let endpoint = Endpoint {
        host: bare_host(url.host().unwrap_or_default()),
        port: url.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
        is_tls,
        roots: None,
    };
    let root = PathAndQuery::from_static("/");
    Ok((endpoint, url.path_and_query().cloned().unwrap_or(root)))
}

/// Without the brackets of an IPv6 address.
fn bare_host(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

/// The name of the service comes last in the environment's list of names.
fn resource(app_id: &str, environment: &Environment) -> Resource {
    let mut resource = vec![("service.name".to_owned(), app_id.to_owned())];
    let mut set = |name: &str, value: String| {
        let known = resource.iter_mut().find(|(known, _)| known == name);
        match known {
            Some((_, old)) => *old = value,
            None => resource.push((name.to_owned(), value)),
        }
    };
    let listed = environment.get("OTEL_RESOURCE_ATTRIBUTES");
    for pair in listed.into_iter().flat_map(|list| list.split(',')) {
        if let Some((name, value)) = pair.split_once('=')
            && !name.trim().is_empty()
        {
            let value = percent_decode_str(value.trim()).decode_utf8_lossy();
            set(name.trim(), value.into_owned());
        }
    }
    if let Some(name) = environment.get("OTEL_SERVICE_NAME")
        && !name.is_empty()
    {
        set("service.name", name.clone());
    }
    resource
}

/// What makes no sense counts as absent.
fn batching(environment: &Environment) -> Batching {
    let number = |name: &str| -> Option<u64> {
        let value = environment.get(name)?.trim().parse().ok()?;
        (value > 0).then_some(value)
    };
    let count = |name| number(name).and_then(|n| usize::try_from(n).ok());
    let defaults = Batching::default();
    let time = |name, default| number(name).map_or(default, Duration::from_millis);
    let most = count("OTEL_BSP_MAX_QUEUE_SIZE").unwrap_or(defaults.most);
    let batch = count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE").unwrap_or(defaults.batch);
    Batching {
        most,
        batch: batch.min(most),
        delay: time("OTEL_BSP_SCHEDULE_DELAY", defaults.delay),
        timeout: time("OTEL_BSP_EXPORT_TIMEOUT", defaults.timeout),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings(spec: Value, environment: &[(&str, &str)]) -> Result<Settings, Error> {
        let spec: Tracing = serde_json::from_value(spec).unwrap();
        let pairs = environment.iter();
        let environment = pairs.map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Settings::read(Some(&spec), "app", &environment.collect())
    }

    fn otel(spec: Value, environment: &[(&str, &str)]) -> Target {
        settings(spec, environment).unwrap().otel.unwrap()
    }

    #[test]
    fn spans_are_made_with_a_rate_or_a_collector() {
        for (spec, on, off) in [
            (json!({}), false, false),
            (json!({"samplingRate": "0"}), true, true),
            (json!({"samplingRate": "abc"}), true, false),
            (json!({"samplingRate": "1"}), true, false),
            (json!({"stdout": true}), true, false),
            (json!({"zipkin": {"endpointAddress": ""}}), false, false),
            (json!({"otel": {"endpointAddress": "a:1"}}), false, false),
        ] {
            let read = settings(spec.clone(), &[]).unwrap();
            assert_eq!((read.is_on, read.is_off), (on, off), "{spec}");
        }
    }

    #[test]
    fn a_collector_of_the_configuration() {
        let spec = json!({"samplingRate": "1", "otel": {
            "endpointAddress": "collector:4000", "protocol": "grpc", "isSecure": false,
            "headers": ["a=b=c", "d=e", "none"], "timeout": "30s",
        }});
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x=y"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "5000"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:1"),
        ];
        let target = otel(spec, &variables);
        assert_eq!(target.endpoint.authority(), "collector:4000");
        assert_eq!(
            (target.protocol, target.endpoint.is_tls),
            (Protocol::Grpc, false)
        );
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(target.headers, [pair("a", "b=c"), pair("d", "e")]);
        assert_eq!(target.timeout, Duration::from_secs(30));
    }

    #[test]
    fn a_collector_of_the_environment_samples_everything() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://[::1]:4000"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "k=a%20b"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
        ];
        let read = settings(json!({}), &variables).unwrap();
        assert_eq!(read.sampler, Sampler::parse("1").0);
        let target = read.otel.unwrap();
        assert_eq!(target.endpoint.authority(), "[::1]:4000");
        assert_eq!(
            (target.protocol, target.endpoint.is_tls),
            (Protocol::Http, false)
        );
        assert_eq!(target.headers, [("k".to_owned(), "a b".to_owned())]);
        assert_eq!(target.timeout, Duration::from_millis(1500));
    }

    #[test]
    fn connections_are_secured_unless_it_is_said() {
        let spec = json!({"otel": {"endpointAddress": "a", "protocol": "http"}});
        let endpoint = otel(spec, &[]).endpoint;
        assert_eq!((endpoint.port, endpoint.is_tls), (4318, true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |spec: Value, variables: &[(&str, &str)]| {
            settings(spec, variables).unwrap_err().to_string()
        };
        let spec = json!({"otel": {"endpointAddress": "a:1", "protocol": "udp"}});
        assert_eq!(
            error(spec, &[]),
            "invalid protocol udp provided for Otel endpoint"
        );
        let spec = json!({"otel": {"endpointAddress": "a b", "protocol": "http"}});
        assert!(error(spec, &[]).contains("\"a b\""));
        let spec = json!({"otel": {"endpointAddress": "a", "protocol": "http", "timeout": "long"}});
        assert!(error(spec, &[]).contains("\"long\""));
        let spec = json!({"zipkin": {"endpointAddress": "/api"}});
        assert_eq!(
            error(spec, &[]),
            "invalid collector URL \"/api\": no scheme or host"
        );
        let variables = [("OTEL_EXPORTER_OTLP_HEADERS", "none")];
        assert!(error(json!({}), &variables).contains("OTEL_EXPORTER_OTLP_HEADERS"));
    }

    #[test]
    fn the_environment_names_the_service_and_sizes_batches() {
        let read = settings(
            json!({}),
            &[
                (
                    "OTEL_RESOURCE_ATTRIBUTES",
                    "service.namespace=p%20q, bad ,service.name=x",
                ),
                ("OTEL_SERVICE_NAME", "shop"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "10"),
                ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ],
        )
        .unwrap();
        let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
        assert_eq!(
            read.resource,
            [
                pair("service.name", "shop"),
                pair("service.namespace", "p q")
            ]
        );
        assert_eq!((read.batching.most, read.batching.batch), (10, 10));
        assert_eq!(read.batching.delay, Duration::from_secs(5));
    }
}
