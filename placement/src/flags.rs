//! Flags and environment.

use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};
use outrider_kit::{duration, flags, truthy};
use outrider_security::TrustDomain;
use outrider_service::{Settings, flag};

#[derive(Debug, Clone)]
pub struct Flags {
    pub service: Settings,
    /// Name of this replica.
    pub id: String,
    /// All replicas with their addresses, by name.
    pub replicas: Vec<(String, String)>,
    /// Serve `/placement/state`.
    pub metadata: bool,
    pub kubernetes: bool,
    /// None where mTLS is off.
    pub tls: Option<Tls>,
    pub replication_factor: i64,
    pub keepalive_time: Duration,
    pub keepalive_timeout: Duration,
    pub disseminate_timeout: Duration,
    pub disseminate_coalesce_window: Duration,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub trust_domain: TrustDomain,
    /// The control plane's.
    pub namespace: String,
    pub trust_anchors_file: PathBuf,
    pub sentry_address: String,
    /// The value of `DAPR_SENTRY_TOKEN_FILE`, if it is set.
    pub sentry_token_file: Option<String>,
}

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("{0}")]
    Invalid(String),
}

impl Flags {
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let words = std::iter::once("placement".to_owned()).chain(flags::normalise(arguments));
        let given = command().try_get_matches_from(words)?;
        read(&given, &environment).map_err(Error::Invalid)
    }
}

fn read(
    given: &ArgMatches,
    environment: &impl Fn(&str) -> Option<String>,
) -> Result<Flags, String> {
    let text = |name| flag::get::<String>(given, name);
    let time = |name| flag::get::<Duration>(given, name);
    let kubernetes = match text("mode").as_str() {
        "kubernetes" => true,
        "standalone" => false,
        other => return Err(format!("invalid mode: {other}")),
    };
    let keepalive = |name: &str| {
        let time = flag::get::<Duration>(given, name);
        match (1..=10).contains(&time.as_secs()) && time <= Duration::from_secs(10) {
            true => Ok(time),
            false => Err(format!(
                "invalid value for {name}: value should be between 1s and 10s, got {}",
                duration::format(time)
            )),
        }
    };
    let namespace = environment("NAMESPACE").filter(|namespace| !namespace.is_empty());
    let namespace = namespace.unwrap_or_else(|| "default".to_owned());
    let tls = match flag::get::<bool>(given, "tls-enabled") {
        false => None,
        true => Some(Tls {
            trust_domain: text("trust-domain")
                .parse()
                .map_err(|error| format!("--trust-domain: {error}"))?,
            trust_anchors_file: text("trust-anchors-file").into(),
            sentry_address: flag::filled(given, "sentry-address")
                .unwrap_or_else(|| format!("dapr-sentry.{namespace}.svc:443")),
            sentry_token_file: environment("DAPR_SENTRY_TOKEN_FILE"),
            namespace,
        }),
    };
    Ok(Flags {
        service: Settings::read(given),
        id: text("id"),
        replicas: replicas(&text("initial-cluster")),
        metadata: match given.value_source("metadata-enabled") {
            Some(ValueSource::CommandLine) => flag::get(given, "metadata-enabled"),
            _ => truthy(&environment("DAPR_PLACEMENT_METADATA_ENABLED").unwrap_or_default()),
        },
        kubernetes,
        tls,
        replication_factor: i64::try_from(flag::get::<u64>(given, "replicationFactor"))
            .map_err(|error| format!("--replicationFactor: {error}"))?,
        keepalive_time: keepalive("keepalive-time")?,
        keepalive_timeout: keepalive("keepalive-timeout")?,
        disseminate_timeout: match time("disseminate-timeout") {
            Duration::ZERO => {
                return Err("--disseminate-timeout: a round needs more than no time".to_owned());
            }
            timeout => timeout,
        },
        disseminate_coalesce_window: time("disseminate-coalesce-window"),
    })
}

/// `<name>=<address>,...`; what is not of this form is left out.
fn replicas(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, address)| (name.trim().to_owned(), address.trim().to_owned()))
        .collect()
}

pub fn command() -> Command {
    use flag::{duration, number, switch, text};
    Command::new("placement")
        .about("Tells sidecars which of them host which actors.")
        .args_override_self(true)
        .args(Settings::flags("50005", "gRPC API"))
        .args([
            text("id", "dapr-placement-0").help("name of this replica"),
            text("initial-cluster", "dapr-placement-0=127.0.0.1:8201")
                .help("all replicas, each as name=host:port"),
            switch("inmem-store-enabled", "true")
                .help("accepted, without effect: nothing is stored"),
            text("raft-logstore-path", "").help("accepted, without effect: nothing is stored"),
            switch("metadata-enabled", "false").help(
                "serve /placement/state beside the health page; by default as DAPR_PLACEMENT_METADATA_ENABLED says",
            ),
            switch("tls-enabled", "false").help("require mTLS"),
            number("replicationFactor", "100").help("virtual nodes of a host"),
            duration("keepalive-time", "2s").help("ping sidecars after this much silence"),
            duration("keepalive-timeout", "3s")
                .help("give up sidecars that do not answer a ping for this long"),
            duration("disseminate-timeout", "8s")
                .help("longest time of a phase, after which silent sidecars are disconnected"),
            duration("disseminate-coalesce-window", "0s")
                .help("how long changes are gathered after a round; 0 for not at all"),
            text("trust-domain", "localhost").help("trust domain of the control plane"),
            text("trust-anchors-file", "/var/run/secrets/dapr.io/tls/ca.crt")
                .help("trust anchors, PEM"),
            text("sentry-address", "").help("address of the certificate authority"),
            text("mode", "standalone").help("standalone or kubernetes"),
            number("max-api-level", "10")
                .hide(true)
                .help("accepted, without effect"),
            number("min-api-level", "0")
                .hide(true)
                .help("accepted, without effect"),
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Flags, String> {
        let arguments = arguments.iter().map(|it| (*it).to_owned());
        let environment = |name: &str| (name == "NAMESPACE").then(|| "system".to_owned());
        Flags::parse(arguments, environment).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_those_of_dapr() {
        let flags = parse(&["-port=1"]).unwrap();
        assert_eq!(flags.service.port, 1);
        assert_eq!(flags.id, "dapr-placement-0");
        let alone = ("dapr-placement-0".to_owned(), "127.0.0.1:8201".to_owned());
        assert_eq!(flags.replicas, [alone]);
        assert!(flags.tls.is_none() && !flags.metadata && !flags.kubernetes);
        assert_eq!(flags.disseminate_timeout, Duration::from_secs(8));
        assert_eq!(flags.replication_factor, 100);
    }

    #[test]
    fn a_keepalive_out_of_range_is_refused_by_name() {
        for (given, got) in [("500ms", "500ms"), ("11s", "11s"), ("10s1ms", "10.001s")] {
            for name in ["keepalive-time", "keepalive-timeout"] {
                assert_eq!(
                    parse(&[&format!("--{name}={given}")]).unwrap_err(),
                    format!(
                        "invalid value for {name}: value should be between 1s and 10s, got {got}"
                    )
                );
            }
        }
        assert!(parse(&["--keepalive-time=10s", "--keepalive-timeout=1s"]).is_ok());
    }

    #[test]
    fn replicas_are_pairs() {
        let flags = parse(&["--initial-cluster=a=1.2.3.4:1,b,c=x:2"]).unwrap();
        let names: Vec<_> = flags.replicas.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
