//! Flags and environment.

use std::path::PathBuf;

use clap::{Arg, Command, value_parser};
use outrider_kit::boolean::{self, falsy, truthy};
use outrider_kit::flags::normalise;
use outrider_service::{Settings, flag};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("'NAMESPACE' environment variable not set: give the namespace of the control plane")]
    Namespace,
    #[error("{0} is not part of this release: {1}")]
    Absent(&'static str, &'static str),
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

/// The process's settings.
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
    pub service: Settings,
    pub webhook_port: u16,
    pub webhook_listen_address: String,
    pub sentry_token_file: Option<String>,
    pub run_as_root: bool,
    /// Host name, for the lease.
    pub host: String,
}

impl Flags {
    pub fn read() -> Result<Self, Error> {
        Self::parse(outrider_kit::flags::arguments(), |name| {
            std::env::var(name).ok()
        })
    }

    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let arguments = std::iter::once("operator".to_owned()).chain(normalise(arguments));
        let matches = command().try_get_matches_from(arguments)?;
        let variable = |name: &str| environment(name).unwrap_or_default();
        if !falsy(&flag::get::<String>(&matches, "watch-interval")) {
            return Err(Error::Absent("the watchdog", "leave --watch-interval at 0"));
        }
        if flag::get::<bool>(&matches, "enable-argo-rollout-service-reconciler") {
            return Err(Error::Absent(
                "the service reconciler for Argo Rollouts",
                "leave --enable-argo-rollout-service-reconciler out",
            ));
        }
        let namespace = Some(variable("NAMESPACE"))
            .filter(|namespace| !namespace.is_empty())
            .ok_or(Error::Namespace)?;
        Ok(Self {
            namespace,
            config: flag::get(&matches, "config"),
            watch_namespace: flag::filled(&matches, "watch-namespace"),
            leader_election: !flag::get::<bool>(&matches, "disable-leader-election"),
            service_reconciler: !flag::get::<bool>(&matches, "disable-service-reconciler"),
            conversion_webhook: boolean::parse(&variable("ENABLE_WEBHOOKS")) != Ok(false),
            trust_anchors_file: flag::get::<String>(&matches, "trust-anchors-file").into(),
            service: Settings::read(&matches),
            webhook_port: flag::get(&matches, "webhook-server-port"),
            webhook_listen_address: flag::get(&matches, "webhook-server-listen-address"),
            sentry_token_file: environment("DAPR_SENTRY_TOKEN_FILE"),
            run_as_root: truthy(&variable("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")),
            host: variable("HOSTNAME"),
        })
    }
}

pub fn command() -> Command {
    use flag::{port, switch, text};
    Command::new("operator")
        .about("Serves the cluster's resources to sidecars.")
        .args_override_self(true)
        .args(Settings::flags("6500", "gRPC API"))
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
            text("trust-anchors-file", "/var/run/secrets/dapr.io/tls/ca.crt")
                .help("trust anchors, PEM"),
            port("webhook-server-port", "19443").help("port of the conversion webhook"),
            text("webhook-server-listen-address", "")
                .help("address of the conversion webhook; empty for all"),
            text("cache-sync-period", "")
                .help("accepted, without effect: what is known is never replayed"),
        ])
}

#[cfg(test)]
mod tests {
    use outrider_kit::flags::error_line;

    use super::*;

    fn parse(arguments: &[&str], namespace: Option<&str>) -> Result<Flags, String> {
        let read = |name: &str| namespace.filter(|_| name == "NAMESPACE").map(str::to_owned);
        Flags::parse(arguments.iter().map(|it| (*it).to_owned()), read)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn flags_have_defaults_and_one_dash_is_enough() {
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
            (
                flags.service.port,
                flags.webhook_port,
                flags.service.health.1
            ),
            (1, 19443, 8080)
        );
        assert!(!flags.leader_election && flags.service_reconciler && flags.conversion_webhook);
        assert_eq!(
            (flags.config.as_str(), flags.watch_namespace),
            ("daprsystem", None)
        );
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        for (argument, wanted) in [
            (
                "--watch-namespcae=x",
                "unknown flag: --watch-namespcae; did you mean --watch-namespace? See operator --help",
            ),
            (
                "--port=70000",
                "invalid argument \"70000\" for \"--port\" flag: 70000 is not in 0..=65535; see operator --help",
            ),
        ] {
            match Flags::parse([argument.to_owned()], |_| None) {
                Err(Error::Usage(error)) => assert_eq!(error_line(&error, &command()), wanted),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_flag_of_a_missing_feature_is_an_error() {
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
