//! What services of the control plane have in common: some flags, a log, a
//! page for probes and one for metrics, and an end.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::ArgMatches;
use outrider_telemetry::log;
use outrider_telemetry::metrics::Registry;

use crate::{OUTRIDER_VERSION, Readiness, Tasks, VERSION, health, metrics, signal};

type Failure = Box<dyn Error + Send + Sync>;

/// Makers and readers of flags.
pub mod flag {
    use std::path::PathBuf;

    use clap::builder::BoolishValueParser;
    use clap::{Arg, ArgMatches, value_parser};

    pub fn text(name: &'static str, default: &'static str) -> Arg {
        Arg::new(name).long(name).default_value(default)
    }

    pub fn port(name: &'static str, default: &'static str) -> Arg {
        text(name, default).value_parser(value_parser!(u16))
    }

    pub fn path(name: &'static str) -> Arg {
        let path = Arg::new(name).long(name);
        path.value_parser(value_parser!(PathBuf))
    }

    /// `--name`, `--name=true` or `--name=false`; the next word is none of its.
    pub fn switch(name: &'static str, default: &'static str) -> Arg {
        text(name, default)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(BoolishValueParser::new())
    }

    pub fn get<T: Clone + Default + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> T {
        matches.get_one(name).cloned().unwrap_or_default()
    }
}

/// Flags that every such service has.
#[derive(Debug, Clone)]
pub struct Settings {
    pub port: u16,
    pub listen_address: String,
    /// Address and port of the page for probes.
    pub health: (String, u16),
    pub metrics: Option<(String, u16)>,
    /// To reach the API server from outside the cluster.
    pub kubeconfig: Option<PathBuf>,
    pub log_level: String,
    pub log_as_json: bool,
    pub log_file: Option<PathBuf>,
}

impl Settings {
    /// The flags; `what` is served on `port` unless told otherwise.
    pub fn flags(port: &'static str, what: &'static str) -> [clap::Arg; 11] {
        [
            flag::port("port", port).help(format!("port of the {what}")),
            flag::text("listen-address", "").help(format!("address of the {what}; empty for all")),
            flag::port("healthz-port", "8080").help("port of the health page"),
            flag::text("healthz-listen-address", "")
                .help("address of the health page; empty for all"),
            flag::switch("enable-metrics", "true").help("serve metrics"),
            flag::port("metrics-port", "9090").help("port of the metrics"),
            flag::text("metrics-listen-address", "0.0.0.0").help("address of the metrics"),
            flag::path("kubeconfig").help("how to reach the API server from outside the cluster"),
            flag::text("log-level", "info").help("debug, info, warn, error or fatal"),
            flag::switch("log-as-json", "false").help("write log lines as JSON"),
            flag::path("log-file").help("append the log to this file"),
        ]
    }

    pub fn read(matches: &ArgMatches) -> Self {
        let text = |name| flag::get::<String>(matches, name);
        let port = |name| flag::get::<u16>(matches, name);
        Self {
            port: port("port"),
            listen_address: text("listen-address"),
            health: (text("healthz-listen-address"), port("healthz-port")),
            metrics: flag::get::<bool>(matches, "enable-metrics")
                .then(|| (text("metrics-listen-address"), port("metrics-port"))),
            kubeconfig: matches.get_one("kubeconfig").cloned(),
            log_level: text("log-level"),
            log_as_json: flag::get(matches, "log-as-json"),
            log_file: matches.get_one("log-file").cloned(),
        }
    }

    /// Serves the page for probes, and the one for metrics if it is wanted.
    pub async fn pages(
        &self,
        registry: &Registry,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> io::Result<()> {
        let failed = |what: &'static str| {
            move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"))
        };
        let (address, port) = &self.health;
        health::serve(address, *port, readiness, tasks)
            .await
            .map_err(failed("health page"))?;
        if let Some((address, port)) = &self.metrics {
            metrics::serve(address, *port, registry.clone(), tasks)
                .await
                .map_err(failed("metrics"))?;
        }
        Ok(())
    }
}

/// How a service presents itself.
pub struct Service {
    /// Writes a log line in its scope.
    pub tell: fn(&str),
    /// Name in log lines.
    pub name: &'static str,
    /// What the log says when it has ended well.
    pub ended: &'static str,
    /// Time for what is under way when it is told to end.
    pub grace: Duration,
}

impl Service {
    /// Sets up the log and runs `serve` until it fails or a signal comes. What
    /// `serve` leaves in the tasks goes on until then.
    pub async fn run<T, E, F>(
        self,
        flags: Result<T, E>,
        settings: impl FnOnce(&T) -> &Settings,
        serve: impl FnOnce(T, Tasks) -> F,
    ) -> Result<ExitCode, Failure>
    where
        E: Into<Failure>,
        F: Future<Output = Result<(), Failure>>,
    {
        let Self { tell, name, .. } = self;
        // Before anything else, so that whatever fails is told in a log line.
        let (level, json, file) = match flags.as_ref().map(settings) {
            Ok(s) => (s.log_level.clone(), s.log_as_json, s.log_file.clone()),
            Err(_) => ("info".to_owned(), false, None),
        };
        log::init(&log::Options {
            level: level.clone(),
            json,
            app_id: None,
            version: VERSION,
            file,
        })?;
        let flags = flags.map_err(Into::into)?;
        tell(&format!(
            "Starting {name} -- version {VERSION} -- commit outrider-{OUTRIDER_VERSION}"
        ));
        tell(&format!("Log level set to: {level}"));
        let tasks = Tasks::new();
        let served = tokio::select! {
            signal = signal::shutdown() => {
                tell(&format!("Received signal '{signal}'; beginning shutdown"));
                Ok(())
            }
            served = serve(flags, tasks.clone()) => served,
        };
        tasks.stop(Some(self.grace)).await;
        served?;
        tell(self.ended);
        Ok(ExitCode::SUCCESS)
    }
}
