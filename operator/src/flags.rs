//! Flags and environment.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use outrider_crds::annotations::truthy;
use outrider_kit::flags::normalise;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("'NAMESPACE' environment variable not set: give the namespace of the control plane")]
    Namespace,
    #[error("{0} is not part of this release: {1}")]
    Absent(&'static str, &'static str),
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

/// All that the process is told.
#[derive(Debug)]
pub struct Flags {
    pub namespace: String,
    /// Name of the control plane's Configuration.
    pub config: String,
    pub watch_namespace: Option<String>,
    pub leader_election: bool,
    pub service_reconciler: bool,
    pub conversion_webhook: bool,
    pub trust_anchors_file: PathBuf,
    pub port: u16,
    pub listen_address: String,
    pub healthz_port: u16,
    pub healthz_listen_address: String,
    pub webhook_port: u16,
    pub webhook_listen_address: String,
    pub metrics: Option<(String, u16)>,
    pub kubeconfig: Option<PathBuf>,
    pub log_level: String,
    pub log_as_json: bool,
    pub log_file: Option<PathBuf>,
    pub sentry_token_file: Option<String>,
    pub run_as_root: bool,
    /// Host name, for the lease.
    pub host: String,
}

impl Flags {
    pub fn read() -> Result<Self, Error> {
        Self::parse(std::env::args().skip(1), |name| std::env::var(name).ok())
    }

    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let arguments = std::iter::once("operator".to_owned()).chain(normalise(arguments));
        let matches = command().try_get_matches_from(arguments)?;
        let variable = |name: &str| environment(name).unwrap_or_default();
        let off = |text: &str| {
            matches!(
                text.to_ascii_lowercase().as_str(),
                "0" | "false" | "f" | "no" | "off"
            )
        };
        if !off(&text(&matches, "watch-interval")) {
            return Err(Error::Absent("the watchdog", "leave --watch-interval at 0"));
        }
        if on(&matches, "enable-argo-rollout-service-reconciler") {
            return Err(Error::Absent(
                "the service reconciler for Argo Rollouts",
                "leave --enable-argo-rollout-service-reconciler out",
            ));
        }
        let namespace = Some(variable("NAMESPACE"))
            .filter(|namespace| !namespace.is_empty())
            .ok_or(Error::Namespace)?;
        let watch_namespace = text(&matches, "watch-namespace");
        Ok(Self {
            namespace,
            config: text(&matches, "config"),
            watch_namespace: Some(watch_namespace).filter(|namespace| !namespace.is_empty()),
            leader_election: !on(&matches, "disable-leader-election"),
            service_reconciler: !on(&matches, "disable-service-reconciler"),
            conversion_webhook: !variable("ENABLE_WEBHOOKS").eq_ignore_ascii_case("false"),
            trust_anchors_file: matches
                .get_one("trust-anchors-file")
                .cloned()
                .unwrap_or_default(),
            port: port(&matches, "port"),
            listen_address: text(&matches, "listen-address"),
            healthz_port: port(&matches, "healthz-port"),
            healthz_listen_address: text(&matches, "healthz-listen-address"),
            webhook_port: port(&matches, "webhook-server-port"),
            webhook_listen_address: text(&matches, "webhook-server-listen-address"),
            metrics: on(&matches, "enable-metrics").then(|| {
                (
                    text(&matches, "metrics-listen-address"),
                    port(&matches, "metrics-port"),
                )
            }),
            kubeconfig: matches.get_one("kubeconfig").cloned(),
            log_level: text(&matches, "log-level"),
            log_as_json: on(&matches, "log-as-json"),
            log_file: matches.get_one("log-file").cloned(),
            sentry_token_file: environment("DAPR_SENTRY_TOKEN_FILE"),
            run_as_root: truthy(&variable("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")),
            host: variable("HOSTNAME"),
        })
    }
}

fn command() -> Command {
    let port = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .default_value(default)
            .value_parser(value_parser!(u16))
    };
    let text = |name: &'static str, default: &'static str| {
        Arg::new(name).long(name).default_value(default)
    };
    let path = |name: &'static str| {
        Arg::new(name)
            .long(name)
            .value_parser(value_parser!(PathBuf))
    };
    let switch = |name: &'static str, default: &'static str| {
        Arg::new(name)
            .long(name)
            .num_args(0..=1)
            .require_equals(true)
            .default_value(default)
            .default_missing_value("true")
            .value_parser(BoolishValueParser::new())
    };
    Command::new("operator")
        .about("Serves the cluster's resources to sidecars.")
        .args([
            text("config", "daprsystem").help("name of the control plane's Configuration"),
            text("watch-interval", "0").help("not part of this release; only 0 is accepted"),
            Arg::new("max-pod-restarts-per-minute")
                .long("max-pod-restarts-per-minute")
                .default_value("20")
                .allow_negative_numbers(true)
                .value_parser(value_parser!(i64))
                .help("accepted, without effect while there is no watchdog"),
            switch("disable-leader-election", "false")
                .help("work as if there were no other replica"),
            switch("disable-service-reconciler", "false").help("make no Services for apps"),
            text("watch-namespace", "").help("look at this namespace only"),
            switch("enable-argo-rollout-service-reconciler", "false")
                .help("not part of this release"),
            switch("watchdog-can-patch-pod-labels", "false")
                .help("accepted, without effect while there is no watchdog"),
            path("trust-anchors-file")
                .default_value("/var/run/secrets/dapr.io/tls/ca.crt")
                .help("trust anchors, PEM"),
            port("port", "6500").help("port of the gRPC API"),
            text("listen-address", "").help("address of the gRPC API; empty for all"),
            port("healthz-port", "8080").help("port of the health page"),
            text("healthz-listen-address", "").help("address of the health page; empty for all"),
            port("webhook-server-port", "19443").help("port of the conversion webhook"),
            text("webhook-server-listen-address", "")
                .help("address of the conversion webhook; empty for all"),
            text("cache-sync-period", "")
                .help("accepted, without effect: what is known is never replayed"),
            switch("enable-metrics", "true").help("serve metrics"),
            port("metrics-port", "9090").help("port of the metrics"),
            text("metrics-listen-address", "0.0.0.0").help("address of the metrics"),
            path("kubeconfig").help("how to reach the API server from outside the cluster"),
            text("log-level", "info").help("debug, info, warn, error or fatal"),
            switch("log-as-json", "false").help("write log lines as JSON"),
            path("log-file").help("append the log to this file"),
        ])
}

fn text(matches: &ArgMatches, name: &str) -> String {
    matches.get_one(name).cloned().unwrap_or_default()
}

fn port(matches: &ArgMatches, name: &str) -> u16 {
    matches.get_one(name).copied().unwrap_or_default()
}

fn on(matches: &ArgMatches, name: &str) -> bool {
    matches.get_one(name).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], namespace: Option<&str>) -> Result<Flags, String> {
        let read = |name: &str| namespace.filter(|_| name == "NAMESPACE").map(str::to_owned);
        Flags::parse(arguments.iter().map(|it| (*it).to_owned()), read)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_and_dashes() {
        let flags = parse(
            &[
                "-port=1",
                "-disable-leader-election=true",
                "--watch-interval",
                "0",
            ],
            Some("n"),
        )
        .unwrap();
        assert_eq!(
            (flags.port, flags.webhook_port, flags.healthz_port),
            (1, 19443, 8080)
        );
        assert!(!flags.leader_election && flags.service_reconciler && flags.conversion_webhook);
        assert_eq!(
            (flags.config.as_str(), flags.watch_namespace),
            ("daprsystem", None)
        );
    }

    #[test]
    fn what_is_absent_says_so() {
        let watchdog = parse(&["--watch-interval=10s"], Some("n")).unwrap_err();
        assert_eq!(
            watchdog,
            "the watchdog is not part of this release: leave --watch-interval at 0"
        );
        let argo = parse(&["--enable-argo-rollout-service-reconciler"], Some("n")).unwrap_err();
        assert!(
            argo.starts_with(
                "the service reconciler for Argo Rollouts is not part of this release"
            ),
            "{argo}"
        );
        assert!(
            parse(&[], None)
                .unwrap_err()
                .starts_with("'NAMESPACE' environment variable not set")
        );
    }
}
