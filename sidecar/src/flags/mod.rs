//! Flags and environment of `daprd`. Nothing else reads either.
//! <https://docs.dapr.io/reference/arguments-annotations-overview/>

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use outrider_kit::{duration, flags as go, quantity, quote, truthy};

mod command;

/// Where pluggable components have their sockets, unless it is said.
const SOCKETS_FOLDER: &str = "/tmp/dapr-components-sockets";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Kubernetes,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Standalone => "standalone",
            Mode::Kubernetes => "kubernetes",
        }
    }
}

/// How the application is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Https,
    H2c,
    Grpc,
    Grpcs,
}

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Http => "http",
            Protocol::Https => "https",
            Protocol::H2c => "h2c",
            Protocol::Grpc => "grpc",
            Protocol::Grpcs => "grpcs",
        }
    }

    pub fn is_grpc(self) -> bool {
        matches!(self, Protocol::Grpc | Protocol::Grpcs)
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Grpcs)
    }
}

#[derive(Debug, Clone)]
pub struct Log {
    pub level: String,
    pub json: bool,
    pub file: Option<PathBuf>,
}

/// The application's side.
#[derive(Debug, Clone)]
pub struct App {
    /// As given; empty means that there is no application.
    pub port: String,
    pub protocol: String,
    pub ssl: bool,
    pub address: String,
    /// At most this many calls at once; none without a cap.
    pub max_concurrency: Option<usize>,
    pub health: Health,
    /// Sent to the application with every call.
    pub token: Option<String>,
}

/// Probes of the application.
#[derive(Debug, Clone)]
pub struct Health {
    pub enabled: bool,
    pub path: String,
    pub interval: Duration,
    pub timeout: Duration,
    pub threshold: u32,
}

/// The API's listeners and limits.
#[derive(Debug, Clone)]
pub struct Api {
    pub http_port: String,
    pub grpc_port: String,
    pub public_port: String,
    pub public_address: String,
    pub internal_port: String,
    pub internal_address: String,
    /// Empty: every interface.
    pub addresses: Vec<String>,
    pub socket_folder: Option<PathBuf>,
    pub allowed_origins: Vec<String>,
    /// Bytes; none without a limit.
    pub max_body: Option<usize>,
    /// Bytes.
    pub read_buffer: usize,
    /// Asked of clients with every call.
    pub token: Option<String>,
    pub h2c: bool,
    /// None leaves it to the Configuration.
    pub logging: Option<bool>,
}

/// Where the control plane is.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    pub address: String,
    pub namespace: String,
    pub trust_domain: String,
    pub sentry: String,
    pub jwt_audiences: Vec<String>,
    pub mtls: bool,
    pub trust_anchors: Option<String>,
    pub token_file: Option<String>,
    /// Overrides the app id in certificate requests.
    pub local_identity: Option<String>,
    /// Empty: no actors are hosted here.
    pub placement: Vec<String>,
    /// Empty: no jobs.
    pub scheduler: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    pub enabled: bool,
    pub port: String,
    pub address: String,
}

/// Connections to other sidecars.
#[derive(Debug, Clone)]
pub struct Peers {
    /// One that nobody uses for this long is closed.
    pub idle: Duration,
    /// Time between looks for such.
    pub interval: Duration,
}

#[derive(Debug, Clone)]
pub struct Shutdown {
    /// None: without limit.
    pub grace: Option<Duration>,
    pub block: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Flags {
    pub mode: String,
    pub app_id: String,
    pub log: Log,
    pub app: App,
    pub api: Api,
    pub control_plane: ControlPlane,
    pub metrics: Metrics,
    pub peers: Peers,
    pub shutdown: Shutdown,
    pub config: Vec<String>,
    pub resources: Vec<PathBuf>,
    pub disable_init: Vec<String>,
    /// Threads that serve connections, if it is said how many.
    pub workers: Option<usize>,
    /// Where the sockets of pluggable components are.
    pub sockets: PathBuf,
    pub builtin_secret_store: bool,
    pub reconcile_interval: Duration,
    /// Absent and empty are told apart: only a namespace filters resources.
    pub namespace: Option<String>,
    pub host_ip: Option<String>,
    pub skip_root_check: bool,
    /// Variables that say nothing, to be told about once there is a log.
    pub ignored: Vec<String>,
    /// Everything, for references of components and configuration files.
    pub environment: HashMap<String, String>,
}

/// Why the process ends before it began.
#[derive(Debug)]
pub enum Done {
    /// `--help` and the like: to print, with exit code 0.
    Told {
        text: String,
        on_stderr: bool,
    },
    /// A command line that cannot be read: exit code 2.
    Usage(String),
    /// A value that makes no sense: a fatal log line and exit code 1.
    Value(String),
    Wait {
        port: String,
    },
}

impl Done {
    pub fn print(self) -> ExitCode {
        match self {
            Done::Told {
                text,
                on_stderr: false,
            } => println!("{text}"),
            Done::Told {
                text,
                on_stderr: true,
            } => eprintln!("{text}"),
            Done::Usage(text) => {
                eprintln!("{text}");
                return ExitCode::from(2);
            }
            Done::Value(text) => {
                let _ = outrider_telemetry::log::init(&outrider_telemetry::log::Options {
                    version: outrider_host::VERSION,
                    ..Default::default()
                });
                outrider_telemetry::log::fatal(
                    "dapr.runtime",
                    &format!("Failed to parse flags: {text}"),
                );
                outrider_telemetry::log::flush();
                return ExitCode::FAILURE;
            }
            Done::Wait { port } => return crate::app::wait_for_outbound(&port),
        }
        ExitCode::SUCCESS
    }
}

/// Reads the command line and the environment.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Flags, Done> {
    parse_with(
        arguments,
        std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect(),
    )
}

fn parse_with(
    arguments: impl IntoIterator<Item = String>,
    environment: HashMap<String, String>,
) -> Result<Flags, Done> {
    let words = std::iter::once("daprd".to_owned()).chain(go::normalise(arguments));
    let given = command::command()
        .try_get_matches_from(words)
        .map_err(|error| Done::Usage(go::error_line(&error, &command::command())))?;
    let told = |text: String| {
        Err(Done::Told {
            text,
            on_stderr: false,
        })
    };
    if given.get_flag("help") {
        return Err(Done::Told {
            text: command::command().render_help().to_string(),
            on_stderr: true,
        });
    }
    let read = Reader {
        given,
        environment: &environment,
    };
    if read.switch("version") {
        return told(outrider_host::VERSION.to_owned());
    }
    if read.switch("build-info") {
        let version = outrider_host::VERSION;
        return told(format!(
            "Version: {version}\nGit Commit: outrider-{}\nGit Version: {version}",
            outrider_host::OUTRIDER_VERSION
        ));
    }
    if read.switch("wait") {
        return Err(Done::Wait {
            port: read.text("dapr-http-port"),
        });
    }
    for (old, new) in [
        ("components-path", "--resources-path"),
        ("dapr-http-max-request-size", "--max-body-size"),
        ("dapr-http-read-buffer-size", "--read-buffer-size"),
    ] {
        if read.is_given(old) {
            eprintln!("Flag --{old} has been deprecated, use {new}");
        }
    }
    read.flags().map_err(Done::Value)
}

struct Reader<'a> {
    given: ArgMatches,
    environment: &'a HashMap<String, String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> String {
        self.given
            .get_one::<String>(name)
            .cloned()
            .unwrap_or_default()
    }

    fn optional(&self, name: &str) -> Option<String> {
        self.given.get_one::<String>(name).cloned()
    }

    fn switch(&self, name: &str) -> bool {
        self.given.get_one::<bool>(name).copied().unwrap_or(false)
    }

    fn is_given(&self, name: &str) -> bool {
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

    fn flags(&self) -> Result<Flags, String> {
        let disseminate = self.text("actors-disseminate-timeout");
        match duration::parse_signed(&disseminate) {
            Ok(n) if n > 0 => {}
            Ok(_) => {
                return Err(format!(
                    "invalid value for 'actors-disseminate-timeout' option: must be positive, got {disseminate}"
                ));
            }
            Err(error) => {
                return Err(format!(
                    "invalid argument \"{disseminate}\" for \"--actors-disseminate-timeout\" flag: {error}"
                ));
            }
        }
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
        let positive = |n: i64, default: i64| if n <= 0 { default } else { n };
        let grace = self.integer("dapr-graceful-shutdown-seconds")?;
        let folder = self.text("unix-domain-socket");
        let mut resources = self.list("resources-path");
        if resources.is_empty() {
            resources = Some(self.text("components-path"))
                .filter(|p| !p.is_empty())
                .into_iter()
                .collect();
        }
        let mut scheduler = self.list("scheduler-host-address");
        if !self.is_given("scheduler-host-address") {
            scheduler = self
                .variable("DAPR_SCHEDULER_HOST_ADDRESS_DNS_A")
                .map_or(Vec::new(), |v| go::list([v.as_str()]));
        }
        let placement = self.text("placement-host-address");
        let mut disable_init = Vec::new();
        for name in self.list("disable-init-endpoints") {
            let name = name.trim().to_ascii_lowercase();
            match name.as_str() {
                "" => {}
                "config" | "subscribe" => disable_init.push(name),
                other => {
                    return Err(format!(
                        "invalid value for 'disable-init-endpoints': {other}"
                    ));
                }
            }
        }
        let log_file = self.text("log-file");
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
            log: Log {
                level: self.text("log-level"),
                json: self.switch("log-as-json"),
                file: (!log_file.is_empty()).then(|| log_file.into()),
            },
            app: App {
                port: self.text("app-port"),
                protocol: self.text("app-protocol"),
                ssl: self.switch("app-ssl"),
                address: self.text("app-channel-address"),
                max_concurrency: usize::try_from(self.integer("app-max-concurrency")?)
                    .ok()
                    .filter(|n| *n > 0),
                health: Health {
                    enabled: self.switch("enable-app-health-check"),
                    path: self.text("app-health-check-path"),
                    interval: Duration::from_secs(positive(
                        self.integer("app-health-probe-interval")?,
                        5,
                    ) as u64),
                    timeout: Duration::from_millis(positive(
                        self.integer("app-health-probe-timeout")?,
                        500,
                    ) as u64),
                    threshold: i32::try_from(self.integer("app-health-threshold")?)
                        .ok()
                        .filter(|n| *n > 0)
                        .map_or(3, |n| n as u32),
                },
                token: self.variable("APP_API_TOKEN"),
            },
            api: Api {
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
            },
            control_plane: ControlPlane {
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
                scheduler: self.addresses(scheduler),
            },
            metrics: Metrics {
                enabled: self.switch("enable-metrics"),
                port: self.text("metrics-port"),
                address: self.text("metrics-listen-address"),
            },
            peers,
            shutdown: Shutdown {
                grace: match grace {
                    0 => None,
                    n => Some(Duration::from_secs(if n < 0 { 5 } else { n as u64 })),
                },
                block: match self.optional("dapr-block-shutdown-duration") {
                    None => None,
                    Some(_) => Some(self.duration("dapr-block-shutdown-duration")?),
                },
            },
            config: self
                .list("config")
                .into_iter()
                .filter(|c| !c.is_empty())
                .collect(),
            resources: resources.into_iter().map(PathBuf::from).collect(),
            disable_init,
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
}

#[cfg(test)]
mod tests;
