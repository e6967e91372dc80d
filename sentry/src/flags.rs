//! Flags and environment: names, defaults, help, and what may not be combined.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use outrider_kit::{flags, truthy};
use outrider_security::TrustDomain;
use outrider_service::{Settings, flag};

#[derive(Debug, Clone)]
pub struct Flags {
    /// Name of the Configuration object, or path of a file.
    pub config: String,
    pub kubernetes: bool,
    pub trust_domain: TrustDomain,
    /// Sentry's own namespace.
    pub namespace: String,
    pub service: Settings,
    pub credentials: Credentials,
    pub jwt: Option<Jwt>,
    pub oidc: Option<Oidc>,
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
pub enum Error {
    /// The command line cannot be parsed: exit code 2.
    Usage(String),
    /// A value, or a combination of values, is not valid.
    Invalid(String),
    /// The help was asked for.
    Help(String),
}

impl Error {
    /// Prints it.
    pub fn exit_code(self) -> ExitCode {
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

fn command() -> Command {
    use flag::{duration, port, switch, text};
    Command::new("sentry")
        .disable_help_flag(true)
        .args_override_self(true)
        .args(Settings::flags("50001", "gRPC API"))
        .mut_arg("metrics-listen-address", |arg| arg.default_value(""))
        .args([
            text("config", "daprsystem")
                .help("Name of the Configuration, or path of its file in standalone mode"),
            text("mode", "standalone").help("standalone or kubernetes"),
            text("trust-domain", "localhost").help("Trust domain of the control plane"),
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
            duration("jwt-ttl", "24h").help("Life of JWTs"),
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
            Arg::new("help")
                .long("help")
                .short('h')
                .action(ArgAction::SetTrue)
                .help("Print this"),
        ])
}

pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Flags, Error> {
    let environment = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .collect();
    parse_with(arguments, environment)
}

fn parse_with(
    arguments: impl IntoIterator<Item = String>,
    environment: HashMap<String, String>,
) -> Result<Flags, Error> {
    let words = std::iter::once("sentry".to_owned()).chain(flags::normalise(arguments));
    let given = command()
        .try_get_matches_from(words)
        .map_err(|error| Error::Usage(flags::error_line(&error, &command())))?;
    if given.get_flag("help") {
        return Err(Error::Help(command().render_help().to_string()));
    }
    Reader(&given).flags(environment).map_err(Error::Invalid)
}

struct Reader<'a>(&'a ArgMatches);

impl Reader<'_> {
    fn text(&self, name: &str) -> String {
        flag::get(self.0, name)
    }

    fn optional(&self, name: &str) -> Option<String> {
        flag::filled(self.0, name)
    }

    fn switch(&self, name: &str) -> bool {
        flag::get(self.0, name)
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
            service: Settings::read(self.0),
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
            skip_user_check: environment
                .get("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")
                .is_some_and(|text| truthy(text)),
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
        Ok(Some(Jwt {
            issuer,
            algorithm: self.text("jwt-signing-algorithm"),
            key_id: self.optional("jwt-key-id"),
            ttl: flag::get(self.0, "jwt-ttl"),
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
            port: flag::get(self.0, "oidc-server-listen-port"),
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

    fn read(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, Error> {
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
            Err(Error::Invalid(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_have_defaults() {
        let flags = read(&[], &[]).unwrap();
        assert_eq!(flags.config, "daprsystem");
        assert_eq!(flags.trust_domain.as_str(), "localhost");
        assert_eq!(flags.namespace, "default");
        assert_eq!((flags.service.port, flags.service.health.1), (50001, 8080));
        assert_eq!(flags.service.metrics, Some((String::new(), 9090)));
        let root = "/var/run/secrets/dapr.io/credentials/ca.crt";
        assert_eq!(flags.credentials.root, PathBuf::from(root));
        assert!(flags.jwt.is_none() && flags.oidc.is_none());
    }

    #[test]
    fn flags_have_one_dash_or_two() {
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
        assert_eq!(flags.service.port, 1);
        assert_eq!(flags.jwt.unwrap().ttl, Duration::from_secs(7200));
        assert_eq!(flags.credentials.root, PathBuf::from("/a/b"));
        assert_eq!(flags.namespace, "sys");
        assert!(flags.service.log.json);
    }

    #[test]
    fn bad_values_and_combinations_are_errors() {
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
                Err(Error::Usage(line)) => assert_eq!(line, wanted),
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
