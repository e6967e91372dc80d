//! Flags and environment: names, defaults, help, and what may not be combined.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use outrider_kit::{flags, quantity};
use outrider_security::TrustDomain;
use outrider_service::{Settings, flag};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Usage(#[from] clap::Error),
    #[error("{0}")]
    Invalid(String),
}

/// The process's settings.
#[derive(Debug, Clone)]
pub struct Flags {
    pub service: Settings,
    pub kubernetes: bool,
    /// The control plane's.
    pub namespace: String,
    pub tls: bool,
    pub trust_domain: TrustDomain,
    pub trust_anchors_file: PathBuf,
    pub sentry_address: String,
    pub sentry_token_file: Option<String>,
    /// Where certificate and key are kept as files.
    pub identity_directory: PathBuf,
    /// Instead of the address that this member finds out itself.
    pub broadcast: Option<String>,
    pub id: String,
    pub workers: usize,
    pub etcd: Etcd,
    pub placement: Placement,
}

/// Placement, where schedulers serve it.
#[derive(Debug, Clone)]
pub struct Placement {
    pub is_enabled: bool,
    /// Longest time of a phase of a round.
    pub timeout: Duration,
    /// How long after a round changes are gathered for the next one.
    pub window: Duration,
}

/// Where jobs are kept.
#[derive(Debug, Clone)]
pub enum Etcd {
    Embedded(Embedded),
    External(External),
}

#[derive(Debug, Clone)]
pub struct Embedded {
    pub data: PathBuf,
    /// Of the members, in the order of the flag: ids and addresses.
    pub members: Vec<(String, String)>,
    pub client_address: (String, u16),
    /// In bytes.
    pub quota: i64,
    /// Flags and values for the program etcd.
    pub tuning: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub struct External {
    pub endpoints: Vec<String>,
    /// Name and password.
    pub user: Option<(String, String)>,
}

/// What only the program etcd knows: without effect on a store in this process.
const ETCD_ONLY: [(&str, &str); 10] = [
    ("etcd-compaction-mode", "revision"),
    ("etcd-compaction-retention", "1000000"),
    ("etcd-snapshot-count", "100000"),
    ("etcd-max-snapshots", "10"),
    ("etcd-max-wals", "10"),
    ("etcd-backend-batch-limit", "10000"),
    ("etcd-backend-batch-interval", "100ms"),
    ("etcd-max-txn-ops", "10000"),
    (
        "etcd-experimental-bootstrap-defrag-threshold-megabytes",
        "100",
    ),
    ("etcd-metrics", "basic"),
];

pub fn command() -> Command {
    use flag::{duration, number, port, switch, text};
    let etcd_only = ETCD_ONLY.map(|(name, default)| text(name, default).hide(true));
    Command::new("scheduler")
        .about("Keeps jobs, and triggers them on sidecars.")
        .args_override_self(true)
        .args(Settings::flags("50006", "gRPC API"))
        .mut_arg("kubeconfig", |arg| arg.hide(true))
        .args([
            text("mode", "standalone").help("standalone or kubernetes"),
            text("override-broadcast-host-port", "")
                .help("address that sidecars connect to; found out by default"),
            switch("tls-enabled", "false").help("mTLS; always on in Kubernetes"),
            text("trust-domain", "localhost").help("trust domain of the control plane"),
            text("trust-anchors-file", "/var/run/secrets/dapr.io/tls/ca.crt")
                .help("trust anchors of the control plane"),
            text("sentry-address", "").help("address of sentry; its Service by default"),
            text("identity-directory-write", "")
                .hide(true)
                .help("folder for certificate and key"),
            text("id", "dapr-scheduler-server-0").help("id among the members"),
            number("workers", "2048").help("jobs that are read from the store at once"),
            switch("etcd-embed", "true").help("keep jobs in this process, or in an etcd"),
            list(
                "etcd-initial-cluster",
                "dapr-scheduler-server-0=http://localhost:2380",
            )
            .help("ids and addresses of all members"),
            text("etcd-data-dir", "./data").help("folder of the jobs"),
            port("etcd-client-port", "2379").help("port of etcd's API"),
            text("etcd-client-listen-address", "localhost").help("address of etcd's API"),
            text("etcd-space-quota", "9.2E").help("bytes that jobs may need"),
            switch("etcd-initial-election-tick-advance", "false").hide(true),
            list("etcd-client-endpoints", "").help("addresses of an external etcd"),
            text("etcd-client-username", "").help("user of an external etcd"),
            text("etcd-client-password", "").help("its password"),
            switch("placement-enabled", "false")
                .help("serve placement where no placement service does; the same for all members"),
            duration("placement-disseminate-timeout", "8s")
                .help("sidecars that are silent in a round for so long are disconnected"),
            duration("placement-disseminate-coalesce-window", "0s")
                .help("how long after a round changes are gathered for the next one"),
        ])
        .args(etcd_only)
}

/// Given once with commas, or several times.
fn list(name: &'static str, default: &'static str) -> Arg {
    flag::text(name, default).action(ArgAction::Append)
}

impl Flags {
    pub fn read() -> Result<Self, Error> {
        Self::parse(flags::arguments(), |name| std::env::var(name).ok())
    }

    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Error> {
        let words = std::iter::once("scheduler".to_owned()).chain(flags::normalise(arguments));
        let matches = command().try_get_matches_from(words)?;
        let namespace = environment("NAMESPACE").filter(|it| !it.is_empty());
        let token = environment("DAPR_SENTRY_TOKEN_FILE");
        Reader(&matches)
            .flags(namespace, token)
            .map_err(Error::Invalid)
    }
}

struct Reader<'a>(&'a ArgMatches);

impl Reader<'_> {
    fn text(&self, name: &str) -> String {
        flag::get(self.0, name)
    }

    fn duration(&self, name: &str) -> Duration {
        flag::get(self.0, name)
    }

    fn list(&self, name: &str) -> Vec<String> {
        let given = self.0.get_many::<String>(name);
        flags::list(given.into_iter().flatten().map(String::as_str))
    }

    fn flags(&self, namespace: Option<String>, token: Option<String>) -> Result<Flags, String> {
        let kubernetes = match self.text("mode").as_str() {
            "kubernetes" => true,
            "standalone" => false,
            other => return Err(format!("invalid mode: {other}")),
        };
        if !kubernetes && flag::filled(self.0, "kubeconfig").is_some() {
            return Err("kubeconfig flag is only valid in --mode=kubernetes".into());
        }
        if kubernetes && namespace.is_none() {
            return Err("'NAMESPACE' environment variable not set".into());
        }
        let namespace = namespace.unwrap_or_else(|| "default".to_owned());
        let trust_domain = self.text("trust-domain");
        let workers: u64 = flag::get(self.0, "workers");
        let directory = flag::optional_path(self.0, "identity-directory-write");
        let sentry_address = flag::filled(self.0, "sentry-address");
        Ok(Flags {
            kubernetes,
            tls: kubernetes || flag::get(self.0, "tls-enabled"),
            trust_domain: trust_domain
                .parse()
                .map_err(|error| format!("trust domain '{trust_domain}': {error}"))?,
            trust_anchors_file: self.text("trust-anchors-file").into(),
            sentry_address: sentry_address
                .unwrap_or_else(|| format!("dapr-sentry.{namespace}.svc:443")),
            sentry_token_file: token,
            identity_directory: directory
                .unwrap_or_else(|| std::env::temp_dir().join("secrets/dapr.io/tls")),
            broadcast: flag::filled(self.0, "override-broadcast-host-port"),
            workers: usize::try_from(workers).unwrap_or(usize::MAX),
            etcd: self.etcd()?,
            placement: Placement {
                is_enabled: flag::get(self.0, "placement-enabled"),
                timeout: match self.duration("placement-disseminate-timeout") {
                    Duration::ZERO => {
                        let text =
                            "--placement-disseminate-timeout: a round needs more than no time";
                        return Err(text.to_owned());
                    }
                    timeout => timeout,
                },
                window: self.duration("placement-disseminate-coalesce-window"),
            },
            id: self.text("id"),
            service: Settings::read(self.0),
            namespace,
        })
    }

    fn etcd(&self) -> Result<Etcd, String> {
        let interval = self.text("etcd-backend-batch-interval");
        let _: Duration = outrider_kit::duration::parse(&interval)
            .map_err(|error| format!("failed to parse backend batch interval: {error}"))?;
        let endpoints = self.list("etcd-client-endpoints");
        let user = self.text("etcd-client-username");
        let password = self.text("etcd-client-password");
        if !flag::get::<bool>(self.0, "etcd-embed") {
            if endpoints.is_empty() {
                return Err(
                    "must specify --etcd-client-endpoints when not using embedded etcd".into(),
                );
            }
            return Ok(Etcd::External(External {
                endpoints,
                user: (!user.is_empty()).then_some((user, password)),
            }));
        }
        for (given, name) in [
            (!endpoints.is_empty(), "endpoints"),
            (!user.is_empty(), "username"),
            (!password.is_empty(), "password"),
        ] {
            if given {
                return Err(format!("cannot use --etcd-client-{name} with --etcd-embed"));
            }
        }
        let id = self.text("id");
        let members = self.list("etcd-initial-cluster");
        let members = members.iter().map(|member| {
            let pair = member.split_once('=');
            let (id, address) = pair.ok_or_else(|| format!("invalid peer: {member}"))?;
            Ok((id.to_owned(), address.to_owned()))
        });
        let members: Vec<(String, String)> = members.collect::<Result<_, String>>()?;
        if !members.iter().any(|(member, _)| *member == id) {
            return Err(format!(
                "scheduler ID: {id} is not found in initial cluster"
            ));
        }
        Ok(Etcd::Embedded(Embedded {
            tuning: self.tuning(),
            data: self.text("etcd-data-dir").into(),
            members,
            client_address: (
                self.text("etcd-client-listen-address"),
                flag::get(self.0, "etcd-client-port"),
            ),
            quota: quantity::parse(&self.text("etcd-space-quota"))
                .map_err(|error| format!("failed to parse etcd space quota: {error}"))?,
        }))
    }
}

impl Reader<'_> {
    fn tuning(&self) -> Vec<(String, String)> {
        let passed = [
            ("--auto-compaction-mode", "etcd-compaction-mode"),
            ("--auto-compaction-retention", "etcd-compaction-retention"),
            ("--snapshot-count", "etcd-snapshot-count"),
            ("--max-snapshots", "etcd-max-snapshots"),
            ("--max-wals", "etcd-max-wals"),
            ("--backend-batch-limit", "etcd-backend-batch-limit"),
            ("--backend-batch-interval", "etcd-backend-batch-interval"),
            ("--max-txn-ops", "etcd-max-txn-ops"),
            ("--metrics", "etcd-metrics"),
        ];
        let pair = |(name, flag): (&str, &str)| (name.to_owned(), self.text(flag));
        passed.into_iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Flags, Error> {
        Flags::parse(arguments.iter().map(|it| it.to_string()), |_| None)
    }

    fn refused(arguments: &[&str]) -> String {
        read(arguments).expect_err("a refusal").to_string()
    }

    #[test]
    fn flags_have_defaults() {
        let flags = read(&[]).unwrap();
        let placement = &flags.placement;
        assert!(!placement.is_enabled && placement.window.is_zero());
        assert_eq!(placement.timeout, Duration::from_secs(8));
        assert_eq!((flags.service.port, flags.workers), (50006, 2048));
        assert_eq!(flags.id, "dapr-scheduler-server-0");
        assert_eq!(flags.sentry_address, "dapr-sentry.default.svc:443");
        let Etcd::Embedded(etcd) = flags.etcd else {
            panic!("embedded by default");
        };
        assert_eq!(etcd.data, PathBuf::from("./data"));
        assert_eq!(etcd.client_address, ("localhost".to_owned(), 2379));
        assert!(etcd.quota > 9_000_000_000_000_000_000);
        assert_eq!(etcd.members.len(), 1);
    }

    #[test]
    fn contradictions_are_refused() {
        for (arguments, wanted) in [
            (
                &["--etcd-client-endpoints=localhost:1"][..],
                "cannot use --etcd-client-endpoints with --etcd-embed",
            ),
            (
                &["--etcd-client-username=a"],
                "cannot use --etcd-client-username with --etcd-embed",
            ),
            (
                &["--etcd-client-password=a"],
                "cannot use --etcd-client-password with --etcd-embed",
            ),
            (
                &["--etcd-embed=false"],
                "must specify --etcd-client-endpoints when not using embedded etcd",
            ),
            (
                &["--id=x"],
                "scheduler ID: x is not found in initial cluster",
            ),
            (
                &["--kubeconfig=/k"],
                "kubeconfig flag is only valid in --mode=kubernetes",
            ),
        ] {
            assert_eq!(refused(arguments), wanted);
        }
    }

    #[test]
    fn an_external_etcd_has_addresses_and_may_have_a_user() {
        let flags = read(&[
            "--etcd-embed=false",
            "--etcd-client-endpoints=a:1,b:2",
            "--etcd-client-username=u",
            "--etcd-client-password=p",
        ]);
        let Etcd::External(etcd) = flags.unwrap().etcd else {
            panic!("external");
        };
        assert_eq!(etcd.endpoints, ["a:1", "b:2"]);
        assert_eq!(etcd.user, Some(("u".to_owned(), "p".to_owned())));
    }
}
