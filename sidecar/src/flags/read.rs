//! From the command line and the environment to [`Flags`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use outrider_call::channel::health;
use outrider_kit::{duration, flags as go, quantity, quote, truthy};
use outrider_telemetry::log;

use super::{Api, App, ControlPlane, Flags, Metrics, Peers, SOCKETS_FOLDER, Shutdown};

/// Streams of jobs to each member of the scheduler, at most.
const MOST_STREAMS: usize = 64;

/// Reads one value after the other: from the command line, or where that says
/// nothing from the environment.
pub struct Reader<'a> {
    pub given: ArgMatches,
    pub environment: &'a HashMap<String, String>,
}

impl Reader<'_> {
    pub fn text(&self, name: &str) -> String {
        self.given
            .get_one::<String>(name)
            .cloned()
            .unwrap_or_default()
    }

    fn optional(&self, name: &str) -> Option<String> {
        self.given.get_one::<String>(name).cloned()
    }

    pub fn switch(&self, name: &str) -> bool {
        self.given.get_one::<bool>(name).copied().unwrap_or(false)
    }

    pub fn is_given(&self, name: &str) -> bool {
        self.given.value_source(name) == Some(clap::parser::ValueSource::CommandLine)
    }

    fn list(&self, name: &str) -> Vec<String> {
        go::list(
            self.given
                .get_many::<String>(name)
                .into_iter()
                .flatten()
                .map(String::as_str),
        )
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment
            .get(name)
            .filter(|v| !v.is_empty())
            .cloned()
    }

    fn integer(&self, name: &str) -> Result<i64, String> {
        let text = self.text(name);
        text.parse().map_err(|_| format!("invalid argument \"{text}\" for \"--{name}\" flag: strconv.ParseInt: parsing \"{text}\": invalid syntax"))
    }

    fn duration(&self, name: &str) -> Result<Duration, String> {
        let text = self.text(name);
        let nanoseconds = duration::parse_signed(&text)
            .map_err(|e| format!("invalid argument \"{text}\" for \"--{name}\" flag: {e}"))?;
        Ok(Duration::from_nanos(nanoseconds.max(0) as u64))
    }

    /// A variable with a length of time above zero.
    fn interval(&self, name: &str, default: Duration, ignored: &mut Vec<String>) -> Duration {
        let Some(text) = self.environment.get(name) else {
            return default;
        };
        match duration::parse_signed(text).map(u64::try_from) {
            Ok(Ok(nanoseconds)) if nanoseconds > 0 => Duration::from_nanos(nanoseconds),
            _ => {
                ignored.push(format!(
                    "Ignoring invalid duration {} in {name}; using default {}",
                    quote::go(text),
                    duration::format(default)
                ));
                default
            }
        }
    }

    /// Bytes of a quantity, or of the older flag in units of `unit`; -1 means
    /// `default`.
    fn size(&self, name: &str, old: &str, unit: i64, default: i64) -> Result<i64, String> {
        let bytes = match (self.optional(name), self.optional(old)) {
            (Some(text), _) => quantity::parse(&text)
                .map_err(|e| format!("invalid value for '{name}' option: {text}, {e}"))?,
            (None, Some(text)) => {
                let units: i64 = text
                    .parse()
                    .map_err(|_| format!("invalid argument \"{text}\" for \"--{old}\" flag"))?;
                if units < 0 {
                    units
                } else {
                    units.saturating_mul(unit)
                }
            }
            (None, None) => default,
        };
        Ok(if bytes == -1 { default } else { bytes.max(0) })
    }

    /// Addresses without blanks and quotes, which some charts pass along.
    fn addresses(&self, given: Vec<String>) -> Vec<String> {
        given
            .iter()
            .map(|a| a.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == '\''))
            .filter(|a| !a.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub fn flags(&self) -> Result<Flags, String> {
        self.check_dissemination()?;
        let mut ignored = Vec::new();
        let mut interval =
            |name, seconds| self.interval(name, Duration::from_secs(seconds), &mut ignored);
        let peers = Peers {
            idle: interval("DAPR_GRPC_MAX_CONN_IDLE", 180),
            interval: interval("DAPR_GRPC_CONN_COLLECTOR_INTERVAL", 45),
        };
        Ok(Flags {
            mode: self.text("mode"),
            app_id: self.text("app-id"),
            log: self.log()?,
            app: self.app()?,
            api: self.api()?,
            control_plane: self.control_plane()?,
            metrics: Metrics {
                enabled: self.switch("enable-metrics"),
                port: self.text("metrics-port"),
                address: self.text("metrics-listen-address"),
            },
            peers,
            shutdown: self.shutdown()?,
            config: self
                .list("config")
                .into_iter()
                .filter(|c| !c.is_empty())
                .collect(),
            resources: self.resources(),
            disable_init: self.disabled_init_endpoints()?,
            workers: self
                .variable("GOMAXPROCS")
                .and_then(|count| count.parse().ok())
                .filter(|count| *count > 0),
            sockets: self
                .variable("DAPR_COMPONENTS_SOCKETS_FOLDER")
                // The injector's spelling.
                .or_else(|| self.variable("DAPR_COMPONENT_SOCKETS_FOLDER"))
                .map_or_else(|| SOCKETS_FOLDER.into(), PathBuf::from),
            builtin_secret_store: !self.switch("disable-builtin-k8s-secret-store"),
            reconcile_interval: Some(self.duration("hot-reload-reconcile-interval")?)
                .filter(|d| !d.is_zero())
                .unwrap_or(Duration::from_secs(60)),
            namespace: self.variable("NAMESPACE"),
            host_ip: self.variable("DAPR_HOST_IP"),
            skip_root_check: self
                .variable("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")
                .as_deref()
                == Some("true"),
            ignored,
            environment: self.environment.clone(),
        })
    }

    fn check_dissemination(&self) -> Result<(), String> {
        let disseminate = self.text("actors-disseminate-timeout");
        match duration::parse_signed(&disseminate) {
            Ok(n) if n > 0 => Ok(()),
            Ok(_) => Err(format!(
                "invalid value for 'actors-disseminate-timeout' option: must be positive, got {disseminate}"
            )),
            Err(error) => Err(format!(
                "invalid argument \"{disseminate}\" for \"--actors-disseminate-timeout\" flag: {error}"
            )),
        }
    }

    fn log(&self) -> Result<log::Options, String> {
        let file = self.text("log-file");
        let number = |name| -> Result<u64, String> {
            let number = self.integer(name)?;
            // Below zero is like zero.
            Ok(u64::try_from(number).unwrap_or(0))
        };
        Ok(log::Options {
            level: self.text("log-level"),
            json: self.switch("log-as-json"),
            file: (!file.is_empty()).then(|| file.into()),
            outputs: self.list("log-outputs"),
            rotation: log::Rotation {
                max_size: number("log-file-max-size")?,
                max_backups: usize::try_from(number("log-file-max-backups")?).unwrap_or(usize::MAX),
                max_age: number("log-file-max-age")?,
                compress: self.switch("log-file-compression"),
            },
            timestamps: self.text("log-timestamp-format"),
            app_id: Some(self.text("app-id")),
            version: outrider_host::VERSION,
        })
    }

    fn app(&self) -> Result<App, String> {
        Ok(App {
            port: self.text("app-port"),
            protocol: self.text("app-protocol"),
            ssl: self.switch("app-ssl"),
            address: self.text("app-channel-address"),
            max_concurrency: usize::try_from(self.integer("app-max-concurrency")?)
                .ok()
                .filter(|n| *n > 0),
            probed: self.switch("enable-app-health-check"),
            probes: self.probes()?,
            binding_probe: self.binding_probe()?,
            token: self.variable("APP_API_TOKEN"),
        })
    }

    /// What is not positive means the default.
    fn binding_probe(&self) -> Result<Duration, String> {
        const NAME: &str = "app-binding-options-timeout";
        let text = self.text(NAME);
        let nanoseconds = duration::parse_signed(&text).map_err(|error| {
            format!("invalid argument \"{text}\" for \"--{NAME}\" flag: {error}")
        })?;
        let positive = u64::try_from(nanoseconds).ok().filter(|n| *n > 0);
        Ok(positive.map_or(Duration::from_secs(3), Duration::from_nanos))
    }

    /// Numbers that are not positive mean the defaults.
    fn probes(&self) -> Result<health::Settings, String> {
        let positive = |n: i64, default: i64| if n <= 0 { default } else { n } as u64;
        let interval = self.integer("app-health-probe-interval")?;
        let timeout = self.integer("app-health-probe-timeout")?;
        Ok(health::Settings {
            path: self.text("app-health-check-path"),
            interval: Duration::from_secs(positive(interval, 5)),
            timeout: Duration::from_millis(positive(timeout, 500)),
            threshold: i32::try_from(self.integer("app-health-threshold")?)
                .ok()
                .filter(|n| *n > 0)
                .map_or(3, |n| n as u32),
        })
    }

    fn api(&self) -> Result<Api, String> {
        let body = self.size(
            "max-body-size",
            "dapr-http-max-request-size",
            1 << 20,
            4 << 20,
        )?;
        let buffer = self.size(
            "read-buffer-size",
            "dapr-http-read-buffer-size",
            1 << 10,
            4 << 10,
        )?;
        let folder = self.text("unix-domain-socket");
        Ok(Api {
            http_port: self.text("dapr-http-port"),
            grpc_port: self.text("dapr-grpc-port"),
            public_port: self.text("dapr-public-port"),
            public_address: self.text("dapr-public-listen-address"),
            internal_port: self.text("dapr-internal-grpc-port"),
            internal_address: self.text("dapr-internal-grpc-listen-address"),
            addresses: go::list([self.text("dapr-listen-addresses").as_str()]),
            socket_folder: (!folder.is_empty()).then(|| folder.into()),
            allowed_origins: go::list([self.text("allowed-origins").as_str()]),
            max_body: usize::try_from(body).ok().filter(|n| *n > 0),
            read_buffer: usize::try_from(buffer).unwrap_or(4 << 10),
            token: self.variable("DAPR_API_TOKEN"),
            h2c: !self
                .variable("DAPR_HTTP_DISABLE_H2C")
                .is_some_and(|v| truthy(&v)),
            logging: self
                .is_given("enable-api-logging")
                .then(|| self.switch("enable-api-logging")),
            profile_port: self
                .switch("enable-profiling")
                .then(|| self.text("profile-port")),
        })
    }

    fn control_plane(&self) -> Result<ControlPlane, String> {
        let mut scheduler = self.list("scheduler-host-address");
        if !self.is_given("scheduler-host-address") {
            scheduler = self
                .variable("DAPR_SCHEDULER_HOST_ADDRESS_DNS_A")
                .map_or(Vec::new(), |v| go::list([v.as_str()]));
        }
        let placement = self.text("placement-host-address");
        Ok(ControlPlane {
            address: self.text("control-plane-address"),
            namespace: self
                .optional("control-plane-namespace")
                .or_else(|| self.variable("DAPR_CONTROLPLANE_NAMESPACE"))
                .unwrap_or_else(|| "default".to_owned()),
            trust_domain: self
                .optional("control-plane-trust-domain")
                .or_else(|| self.variable("DAPR_CONTROLPLANE_TRUST_DOMAIN"))
                .unwrap_or_else(|| "localhost".to_owned()),
            sentry: self.text("sentry-address"),
            jwt_audiences: self.list("sentry-request-jwt-audiences"),
            mtls: self.switch("enable-mtls"),
            trust_anchors: self.variable("DAPR_TRUST_ANCHORS"),
            token_file: self.environment.get("DAPR_SENTRY_TOKEN_FILE").cloned(),
            local_identity: self.variable("SENTRY_LOCAL_IDENTITY"),
            placement: self.addresses(go::list([placement.as_str()])),
            placement_startup: self.duration("actors-placement-startup-timeout")?,
            dissemination: self.duration("actors-disseminate-timeout")?,
            scheduler: self.addresses(scheduler),
            scheduler_streams: usize::try_from(self.integer("scheduler-job-streams")?)
                .map_err(|error| format!("--scheduler-job-streams: {error}"))?
                .min(MOST_STREAMS),
        })
    }

    fn shutdown(&self) -> Result<Shutdown, String> {
        let grace = match self.integer("dapr-graceful-shutdown-seconds")? {
            0 => None,
            n => Some(Duration::from_secs(if n < 0 { 5 } else { n as u64 })),
        };
        let block = match self.optional("dapr-block-shutdown-duration") {
            None => None,
            Some(_) => Some(self.duration("dapr-block-shutdown-duration")?),
        };
        Ok(Shutdown { grace, block })
    }

    fn resources(&self) -> Vec<PathBuf> {
        let mut paths = self.list("resources-path");
        if paths.is_empty() {
            let old = self.text("components-path");
            paths.extend((!old.is_empty()).then_some(old));
        }
        paths.into_iter().map(PathBuf::from).collect()
    }

    fn disabled_init_endpoints(&self) -> Result<Vec<String>, String> {
        let mut disabled = Vec::new();
        for name in self.list("disable-init-endpoints") {
            let name = name.trim().to_ascii_lowercase();
            match name.as_str() {
                "" => {}
                "config" | "subscribe" => disabled.push(name),
                other => {
                    return Err(format!(
                        "invalid value for 'disable-init-endpoints': {other}"
                    ));
                }
            }
        }
        Ok(disabled)
    }
}
