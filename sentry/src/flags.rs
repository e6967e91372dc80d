//! Flags and environment: names, defaults, help, and what may not be combined.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use outrider_kit::{duration, flags};
use outrider_security::TrustDomain;

#[derive(Debug, Clone)]
pub struct Flags {
    /// Name of the Configuration object, or path of a file.
    pub config: String,
    pub kubernetes: bool,
    pub trust_domain: TrustDomain,
    /// Sentry's own namespace.
    pub namespace: String,
    pub port: u16,
    pub listen_address: String,
    pub healthz_port: u16,
    pub healthz_listen_address: String,
    pub metrics: Option<(String, u16)>,
    pub credentials: Credentials,
    pub jwt: Option<Jwt>,
    pub oidc: Option<Oidc>,
    pub kubeconfig: Option<PathBuf>,
    pub log_level: String,
    pub log_as_json: bool,
    /// What `${NAME}` in a configuration file stands for.
    pub environment: HashMap<String, String>,
    pub skip_user_check: bool,
}

/// Paths of the CA's material. In Kubernetes only the last part of each counts:
/// it is a key of the secret.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub folder: PathBuf,
    pub root: PathBuf,
    pub issuer: PathBuf,
    pub key: PathBuf,
    pub jwt_key: PathBuf,
    pub jwks: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Jwt {
    pub issuer: Option<String>,
    pub algorithm: String,
    pub key_id: Option<String>,
    pub ttl: Duration,
}

#[derive(Debug, Clone)]
pub struct Oidc {
    pub port: u16,
    pub listen_address: String,
    /// Certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    pub jwks_uri: Option<String>,
    pub path_prefix: String,
    pub allowed_hosts: Vec<String>,
}

/// Why the process does not start.
#[derive(Debug)]
pub enum Refusal {
    /// The command line cannot be read: exit code 2.
    Usage(String),
    /// It can, but says something that cannot be.
    Invalid(String),
    Help(String),
}

impl Refusal {
    pub fn tell(self) -> ExitCode {
        match self {
            Self::Usage(text) => {
                eprintln!("{text}");
                ExitCode::from(2)
            }
            Self::Invalid(text) => {
                eprintln!("Invalid options: {text}");
                ExitCode::FAILURE
            }
            Self::Help(text) => {
                eprintln!("{text}");
                ExitCode::SUCCESS
            }
        }
    }
}

fn text(name: &'static str, default: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .default_value(default)
        .num_args(1)
        .allow_hyphen_values(true)
}

fn switch(name: &'static str, default: &'static str) -> Arg {
    text(name, default)
        .value_parser(ValueParser::new(boolean))
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
}

fn port(name: &'static str, default: &'static str) -> Arg {
    text(name, default).value_parser(clap::value_parser!(u16))
}

fn span(name: &'static str, default: &'static str) -> Arg {
    text(name, default).value_parser(ValueParser::new(|t: &str| duration::parse(t)))
}

fn boolean(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("invalid syntax"),
    }
}

fn command() -> Command {
    Command::new("sentry")
        .disable_help_flag(true)
        .args_override_self(true)
        .args([
            text("config", "daprsystem")
                .help("Name of the Configuration, or path of its file in standalone mode"),
            text("mode", "standalone").help("standalone or kubernetes"),
            text("trust-domain", "localhost").help("Trust domain of the control plane"),
            port("port", "50001").help("Port of the gRPC API"),
            text("listen-address", "").help("Address of the gRPC API; empty means all"),
            port("healthz-port", "8080").help("Port of the health page"),
            text("healthz-listen-address", "").help("Address of the health page; empty means all"),
            port("metrics-port", "9090").help("Port of the metrics page"),
            text("metrics-listen-address", "").help("Address of the metrics page; empty means all"),
            switch("enable-metrics", "true").help("Serve metrics"),
            text("issuer-credentials", "/var/run/secrets/dapr.io/credentials")
                .help("Folder of the CA's files, which is watched"),
            text("issuer-ca-filename", "ca.crt").help("Root certificates"),
            text("issuer-certificate-filename", "issuer.crt")
                .help("Issuer certificate, with the chain to the root"),
            text("issuer-key-filename", "issuer.key").help("Key of the issuer certificate"),
            switch("jwt-enabled", "false").help("Issue JWTs with certificates"),
            text("jwt-key-filename", "jwt.key").help("Key that signs JWTs"),
            text("jwks-filename", "jwks.json").help("Key set that verifies JWTs"),
            text("jwt-issuer", "").help("The iss claim of JWTs"),
            text("jwt-signing-algorithm", "RS256").help("Algorithm that signs JWTs"),
            text("jwt-key-id", "").help("Key id of JWTs; by default the key's thumbprint"),
            span("jwt-ttl", "24h").help("Life of JWTs"),
            switch("oidc-enabled", "false").help("Serve OIDC discovery; needs jwt-enabled"),
            port("oidc-server-listen-port", "9080").help("Port of OIDC discovery"),
            text("oidc-server-listen-address", "localhost").help("Address of OIDC discovery"),
            switch("oidc-server-tls-enabled", "true").help("Serve OIDC discovery over TLS"),
            text("oidc-server-tls-cert-file", "").help("Certificate of OIDC discovery"),
            text("oidc-server-tls-key-file", "").help("Key of OIDC discovery"),
            text("oidc-jwks-uri", "").help("jwks_uri to publish"),
            text("oidc-path-prefix", "").help("What the paths of OIDC discovery begin with"),
            text("oidc-allowed-hosts", "")
                .action(ArgAction::Append)
                .help("Hosts that OIDC discovery answers for; any by default"),
            text("kubeconfig", "").help("Used outside of a cluster; $HOME/.kube/config by default"),
            text("log-level", "info").help("debug, info, warn, error or fatal"),
            switch("log-as-json", "false").help("Log lines as JSON"),
            Arg::new("help")
                .long("help")
                .short('h')
                .action(ArgAction::SetTrue)
                .help("Print this"),
        ])
}

pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Flags, Refusal> {
    let environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    parse_with(arguments, environment)
}

fn parse_with(
    arguments: impl IntoIterator<Item = String>,
    environment: HashMap<String, String>,
) -> Result<Flags, Refusal> {
    let words = std::iter::once("sentry".to_owned()).chain(flags::normalise(arguments));
    let given = command()
        .try_get_matches_from(words)
        .map_err(|error| Refusal::Usage(flags::error_line(&error, &command())))?;
    if given.get_flag("help") {
        return Err(Refusal::Help(command().render_help().to_string()));
    }
    Reader(&given).flags(environment).map_err(Refusal::Invalid)
}

struct Reader<'a>(&'a ArgMatches);

impl Reader<'_> {
    fn text(&self, name: &str) -> String {
        self.0.get_one::<String>(name).cloned().unwrap_or_default()
    }

    fn optional(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|t| !t.is_empty())
    }

    fn switch(&self, name: &str) -> bool {
        self.0.get_one::<bool>(name).copied().unwrap_or_default()
    }

    fn port(&self, name: &str) -> u16 {
        self.0.get_one::<u16>(name).copied().unwrap_or_default()
    }

    fn flags(&self, environment: HashMap<String, String>) -> Result<Flags, String> {
        let kubernetes = match self.text("mode").as_str() {
            "kubernetes" => true,
            "standalone" => false,
            other => return Err(format!("invalid mode: {other}")),
        };
        let trust_domain = self.text("trust-domain");
        let namespace = environment.get("NAMESPACE");
        if kubernetes {
            match namespace {
                None => return Err("'NAMESPACE' environment variable not set".into()),
                Some(n) if n.is_empty() => {
                    return Err("'NAMESPACE' environment variable is empty".into());
                }
                Some(_) => {}
            }
        }
        let folder = PathBuf::from(self.text("issuer-credentials"));
        // An absolute path is used as it is.
        let at = |name| folder.join(self.text(name));
        let jwt = self.jwt()?;
        Ok(Flags {
            config: self.text("config"),
            kubernetes,
            trust_domain: trust_domain
                .parse()
                .map_err(|e| format!("trust domain '{trust_domain}': {e}"))?,
            namespace: namespace
                .filter(|n| !n.is_empty())
                .map_or_else(|| "default".to_owned(), String::clone),
            port: self.port("port"),
            listen_address: self.text("listen-address"),
            healthz_port: self.port("healthz-port"),
            healthz_listen_address: self.text("healthz-listen-address"),
            metrics: self.switch("enable-metrics").then(|| {
                (
                    self.text("metrics-listen-address"),
                    self.port("metrics-port"),
                )
            }),
            credentials: Credentials {
                root: at("issuer-ca-filename"),
                issuer: at("issuer-certificate-filename"),
                key: at("issuer-key-filename"),
                jwt_key: at("jwt-key-filename"),
                jwks: at("jwks-filename"),
                folder: folder.clone(),
            },
            oidc: self.oidc(jwt.is_some())?,
            jwt,
            kubeconfig: self.optional("kubeconfig").map(PathBuf::from),
            log_level: self.text("log-level"),
            log_as_json: self.switch("log-as-json"),
            skip_user_check: environment
                .get("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")
                .is_some_and(|v| v == "true"),
            environment,
        })
    }

    fn jwt(&self) -> Result<Option<Jwt>, String> {
        let issuer = self.optional("jwt-issuer");
        if !self.switch("jwt-enabled") {
            return match issuer {
                Some(_) => Err("jwt-issuer cannot be set when jwt-enabled is false".into()),
                None => Ok(None),
            };
        }
        let ttl = self.0.get_one::<Duration>("jwt-ttl");
        Ok(Some(Jwt {
            issuer,
            algorithm: self.text("jwt-signing-algorithm"),
            key_id: self.optional("jwt-key-id"),
            ttl: ttl.copied().unwrap_or_default(),
        }))
    }

    fn oidc(&self, jwt: bool) -> Result<Option<Oidc>, String> {
        if !self.switch("oidc-enabled") || !jwt {
            return Ok(None);
        }
        let files = ["oidc-server-tls-cert-file", "oidc-server-tls-key-file"];
        if self.switch("oidc-server-tls-enabled") {
            for name in files {
                if self.optional(name).is_none() {
                    return Err(format!(
                        "{name} is required when OIDC HTTP server is enabled (unless oidc-server-tls-enabled is false)"
                    ));
                }
            }
        }
        let [cert, key] = files.map(|name| self.optional(name).map(PathBuf::from));
        let tls = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                return Err(
                    "both OIDC TLS certificate and key must be provided if one is specified".into(),
                );
            }
        };
        let hosts = self.0.get_many::<String>("oidc-allowed-hosts");
        let hosts = hosts.into_iter().flatten().map(String::as_str);
        Ok(Some(Oidc {
            port: self.port("oidc-server-listen-port"),
            listen_address: self.text("oidc-server-listen-address"),
            tls,
            jwks_uri: self.optional("oidc-jwks-uri"),
            path_prefix: self
                .text("oidc-path-prefix")
                .trim_end_matches('/')
                .to_owned(),
            allowed_hosts: flags::list(hosts),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, Refusal> {
        parse_with(
            arguments.iter().map(|a| a.to_string()),
            environment
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
        )
    }

    fn invalid(arguments: &[&str], environment: &[(&str, &str)]) -> String {
        match read(arguments, environment) {
            Err(Refusal::Invalid(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults() {
        let flags = read(&[], &[]).unwrap();
        assert_eq!(flags.config, "daprsystem");
        assert_eq!(flags.trust_domain.as_str(), "localhost");
        assert_eq!(flags.namespace, "default");
        assert_eq!((flags.port, flags.healthz_port), (50001, 8080));
        assert_eq!(flags.metrics, Some((String::new(), 9090)));
        let root = "/var/run/secrets/dapr.io/credentials/ca.crt";
        assert_eq!(flags.credentials.root, PathBuf::from(root));
        assert!(flags.jwt.is_none() && flags.oidc.is_none());
    }

    #[test]
    fn one_dash_is_enough() {
        let flags = read(
            &[
                "-port=1",
                "-jwt-enabled=true",
                "-jwt-ttl=2h",
                "-issuer-ca-filename=/a/b",
                "-log-as-json",
            ],
            &[("NAMESPACE", "sys")],
        )
        .unwrap();
        assert_eq!(flags.port, 1);
        assert_eq!(flags.jwt.unwrap().ttl, Duration::from_secs(7200));
        assert_eq!(flags.credentials.root, PathBuf::from("/a/b"));
        assert_eq!(flags.namespace, "sys");
        assert!(flags.log_as_json);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(invalid(&["--mode=x"], &[]), "invalid mode: x");
        assert_eq!(
            invalid(&["--mode=kubernetes"], &[]),
            "'NAMESPACE' environment variable not set"
        );
        assert_eq!(
            invalid(&["--jwt-issuer=x"], &[]),
            "jwt-issuer cannot be set when jwt-enabled is false"
        );
        let oidc = ["--jwt-enabled", "--oidc-enabled"];
        assert!(invalid(&oidc, &[]).starts_with("oidc-server-tls-cert-file is required"));
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        for (argument, wanted) in [
            (
                "--nonsense=1",
                "unknown flag: --nonsense; see sentry --help",
            ),
            (
                "--trust-domian=x",
                "unknown flag: --trust-domian; did you mean --trust-domain? See sentry --help",
            ),
            (
                "--log-as-json=maybe",
                "invalid argument \"maybe\" for \"--log-as-json\" flag: invalid syntax; see sentry --help",
            ),
        ] {
            match read(&[argument], &[]) {
                Err(Refusal::Usage(line)) => assert_eq!(line, wanted),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn oidc_is_off_without_tokens() {
        assert!(read(&["--oidc-enabled"], &[]).unwrap().oidc.is_none());
        let on = read(
            &[
                "--jwt-enabled",
                "--oidc-enabled",
                "--oidc-server-tls-enabled=false",
                "--oidc-path-prefix=/auth/",
                "--oidc-allowed-hosts=a,b",
                "--oidc-allowed-hosts=c",
            ],
            &[],
        );
        let on = on.unwrap().oidc.unwrap();
        assert_eq!(on.path_prefix, "/auth");
        assert_eq!(on.allowed_hosts, ["a", "b", "c"]);
    }
}
