//! Flags and environment of `daprd`. Nothing else reads either.
//! <https://docs.dapr.io/reference/arguments-annotations-overview/>

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use outrider_call::channel::health;
use outrider_kit::flags as go;
use outrider_telemetry::log;
use read::Reader;

mod command;
mod read;

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
    /// Whether its health is probed, and how.
    pub probed: bool,
    pub probes: health::Settings,
    /// How long it may take to say whether it wants the events of a binding.
    pub binding_probe: Duration,
    /// Sent to the application with every call.
    pub token: Option<String>,
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
    /// Port of profiles, if they are wanted.
    pub profile_port: Option<String>,
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
    /// Empty: actors are off, unless the scheduler serves placement.
    pub placement: Vec<String>,
    /// How long schedulers may be out of reach before the placement service is
    /// asked instead.
    pub placement_startup: Duration,
    /// Longest time of a round of placement.
    pub dissemination: Duration,
    /// Empty: no jobs.
    pub scheduler: Vec<String>,
    /// Streams of jobs to each of its members.
    pub scheduler_streams: usize,
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
    /// One that is not used for this long is closed.
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
    pub log: log::Options,
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
    /// Absent and empty are printed apart: only a namespace filters resources.
    pub namespace: Option<String>,
    pub host_ip: Option<String>,
    pub skip_root_check: bool,
    /// Variables that say nothing, to be printed about once there is a log.
    pub ignored: Vec<String>,
    /// Everything, for references of components and configuration files.
    pub environment: HashMap<String, String>,
}

/// Why the process ends before it began.
#[derive(Debug)]
pub enum Done {
    /// `--help` and the like: to print, with exit code 0.
    Printed {
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
    /// `wait` is what `--wait` does, with the port of the HTTP API.
    pub fn print(self, wait: impl FnOnce(&str) -> ExitCode) -> ExitCode {
        match self {
            Done::Printed {
                text,
                on_stderr: false,
            } => println!("{text}"),
            Done::Printed {
                text,
                on_stderr: true,
            } => eprintln!("{text}"),
            Done::Usage(text) => {
                eprintln!("{text}");
                return ExitCode::from(2);
            }
            Done::Value(text) => {
                let _ = log::init(&log::Options {
                    version: outrider_host::VERSION,
                    ..Default::default()
                });
                log::fatal("dapr.runtime", &format!("Failed to parse flags: {text}"));
                log::flush();
                return ExitCode::FAILURE;
            }
            Done::Wait { port } => return wait(&port),
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
    let printed = |text: String| {
        Err(Done::Printed {
            text,
            on_stderr: false,
        })
    };
    if given.get_flag("help") {
        return Err(Done::Printed {
            text: command::command().render_help().to_string(),
            on_stderr: true,
        });
    }
    let read = Reader {
        given,
        environment: &environment,
    };
    if read.switch("version") {
        return printed(outrider_host::VERSION.to_owned());
    }
    if read.switch("build-info") {
        let version = outrider_host::VERSION;
        return printed(format!(
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

#[cfg(test)]
mod tests;
