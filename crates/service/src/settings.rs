//! Flags that every service has.

use std::path::PathBuf;

use clap::ArgMatches;
use outrider_host::VERSION;
use outrider_k8s::{Client, ClientError};
use outrider_telemetry::log;

use crate::flag;

#[derive(Debug, Clone)]
pub struct Settings {
    pub port: u16,
    pub listen_address: String,
    /// Address and port of the health page.
    pub health: (String, u16),
    /// Address and port of the metrics page.
    pub metrics: Option<(String, u16)>,
    /// To reach the API server from outside the cluster.
    pub kubeconfig: Option<PathBuf>,
    pub log: log::Options,
}

impl Settings {
    /// The flags; `port` is the default port of `what`.
    pub fn flags(port: &'static str, what: &'static str) -> [clap::Arg; 17] {
        [
            flag::port("port", port).help(format!("port of the {what}")),
            flag::text("listen-address", "").help(format!("address of the {what}; empty for all")),
            flag::port("healthz-port", "8080").help("port of the health page"),
            flag::text("healthz-listen-address", "")
                .help("address of the health page; empty for all"),
            flag::switch("enable-metrics", "true").help("serve metrics"),
            flag::port("metrics-port", "9090").help("port of the metrics page"),
            flag::text("metrics-listen-address", "0.0.0.0")
                .help("address of the metrics page; empty for all"),
            flag::path("kubeconfig").help("how to reach the API server from outside the cluster"),
            flag::text("log-level", "info").help("debug, info, warn, error or fatal"),
            flag::switch("log-as-json", "false").help("write log lines as JSON"),
            flag::path("log-file").help("append the log to this file"),
            flag::text("log-outputs", "").help("further outputs of the log: stdout, stderr, paths"),
            flag::number("log-file-max-size", "0")
                .help("MiB of a log file until the next one begins; 0 for any"),
            flag::number("log-file-max-backups", "0")
                .help("full log files that are kept; 0 for any"),
            flag::number("log-file-max-age", "0")
                .help("days that full log files are kept; 0 for ever"),
            flag::switch("log-file-compression", "false").help("compress full log files"),
            flag::text("log-timestamp-format", "")
                .help("how times of log lines look, in Go's form"),
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
            kubeconfig: flag::optional_path(matches, "kubeconfig"),
            log: log::Options {
                level: text("log-level"),
                json: flag::get(matches, "log-as-json"),
                file: flag::optional_path(matches, "log-file"),
                outputs: outrider_kit::flags::list([text("log-outputs").as_str()]),
                rotation: log::Rotation {
                    max_size: flag::get(matches, "log-file-max-size"),
                    max_backups: usize::try_from(flag::get::<u64>(matches, "log-file-max-backups"))
                        .unwrap_or(usize::MAX),
                    max_age: flag::get(matches, "log-file-max-age"),
                    compress: flag::get(matches, "log-file-compression"),
                },
                timestamps: text("log-timestamp-format"),
                app_id: None,
                version: VERSION,
            },
        }
    }

    /// A client of the API server.
    pub async fn client(&self) -> Result<Client, ClientError> {
        outrider_k8s::client(self.kubeconfig.as_deref()).await
    }
}
