//! Flags and environment.

use std::path::PathBuf;

use clap::Command;
use outrider_kit::flags::normalise;
use outrider_kit::kubernetes::cluster_domain;
use outrider_kit::truthy;
use outrider_service::{Settings as Service, flag};
use serde_json::Value;

use crate::patch::{Actors, Settings};

/// Where the kubelet puts a pod's own tokens.
const TOKENS: [&str; 2] = [
    "/var/run/secrets/dapr.io/sentrytoken/token",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("Error getting config: required key {0} missing value")]
    Missing(&'static str),
    #[error("Error getting config: {name} must be {expected}, not {value:?}")]
    Invalid {
        name: &'static str,
        expected: &'static str,
        value: String,
    },
    #[error("{0}")]
    Usage(#[from] clap::Error),
}

/// The process's settings.
#[derive(Debug)]
pub struct Flags {
    pub service: Service,
    pub settings: Settings,
    /// Lists of patterns.
    pub allowed_service_accounts: Vec<String>,
    pub deprecated_service_accounts: bool,
    pub trust_anchors_file: PathBuf,
    pub sentry_address: String,
    pub sentry_token_file: Option<String>,
    pub run_as_root: bool,
}

impl Flags {
    pub fn read() -> Result<Self, Error> {
        let tokens = TOKENS
            .iter()
            .any(|path| std::path::Path::new(path).exists());
        let resolver = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        Self::parse(
            outrider_kit::flags::arguments(),
            |name| std::env::var(name).ok(),
            &resolver,
            tokens,
        )
    }

    /// `resolver` is the text of resolv.conf; `tokens` whether this pod has tokens mounted.
    pub fn parse(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
        resolver: &str,
        tokens: bool,
    ) -> Result<Self, Error> {
        let arguments = std::iter::once("injector".to_owned()).chain(normalise(arguments));
        let matches = command().try_get_matches_from(arguments)?;
        let environment = Environment(&environment);
        let deprecated = environment.text("ALLOWED_SERVICE_ACCOUNTS_PREFIX_NAMES");
        Ok(Self {
            service: Service::read(&matches),
            settings: settings(
                &environment,
                flag::get(&matches, "scheduler-enabled"),
                resolver,
                tokens,
            )?,
            deprecated_service_accounts: !deprecated.is_empty(),
            allowed_service_accounts: vec![
                environment.text("ALLOWED_SERVICE_ACCOUNTS"),
                deprecated,
            ],
            trust_anchors_file: environment
                .or("DAPR_TRUST_ANCHORS_FILE", "/var/run/dapr.io/tls/ca.crt")
                .into(),
            sentry_address: environment.text("DAPR_SENTRY_ADDRESS"),
            sentry_token_file: (environment.0)("DAPR_SENTRY_TOKEN_FILE"),
            run_as_root: truthy(&environment.text("DAPR_UNSAFE_SKIP_CONTAINER_UID_GID_CHECK")),
        })
    }
}

pub fn command() -> Command {
    Command::new("injector")
        .about("Gives Kubernetes pods their sidecar.")
        .args_override_self(true)
        .args(Service::flags("4000", "webhook"))
        .arg(
            flag::switch("scheduler-enabled", "true")
                .help("give sidecars the address of the scheduler"),
        )
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Environment<'_> {
    fn text(&self, name: &str) -> String {
        (self.0)(name).unwrap_or_default()
    }

    fn or(&self, name: &str, default: &str) -> String {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .unwrap_or_else(|| default.to_owned())
    }

    fn required(&self, name: &'static str) -> Result<String, Error> {
        Some(self.text(name))
            .filter(|text| !text.is_empty())
            .ok_or(Error::Missing(name))
    }

    fn truthy(&self, name: &str, default: bool) -> bool {
        let text = self.text(name);
        if text.is_empty() {
            default
        } else {
            truthy(&text)
        }
    }

    fn integer(&self, name: &'static str) -> Result<Option<i64>, Error> {
        let value = self.text(name);
        match value.is_empty() {
            true => Ok(None),
            false => value.parse().map(Some).map_err(|_| Error::Invalid {
                name,
                expected: "an integer",
                value,
            }),
        }
    }
}

fn settings(
    environment: &Environment<'_>,
    scheduler: bool,
    resolver: &str,
    tokens: bool,
) -> Result<Settings, Error> {
    let mut settings = Settings {
        image: environment.required("SIDECAR_IMAGE")?,
        image_pull_policy: match environment.or("SIDECAR_IMAGE_PULL_POLICY", "Always") {
            policy if ["Always", "Never"].contains(&policy.as_str()) => policy,
            _ => "IfNotPresent".to_owned(),
        },
        namespace: environment.required("NAMESPACE")?,
        trust_domain: environment.or("DAPR_CONTROL_PLANE_TRUST_DOMAIN", "cluster.local"),
        cluster_domain: environment.or(
            "KUBE_CLUSTER_DOMAIN",
            &cluster_domain(resolver).unwrap_or_else(|| "cluster.local".to_owned()),
        ),
        actors: None,
        reminders: None,
        scheduler,
        ignore_entrypoint_tolerations: tolerations(
            &environment.text("IGNORE_ENTRYPOINT_TOLERATIONS"),
        ),
        run_as_non_root: environment.truthy("SIDECAR_RUN_AS_NON_ROOT", true),
        run_as_user: environment.integer("SIDECAR_RUN_AS_USER")?,
        run_as_group: environment.integer("SIDECAR_RUN_AS_GROUP")?,
        read_only_root_filesystem: environment.truthy("SIDECAR_READ_ONLY_ROOT_FILESYSTEM", true),
        drop_all_capabilities: environment.truthy("SIDECAR_DROP_ALL_CAPABILITIES", true),
        downward_apis: environment.truthy("ENABLE_K8S_DOWNWARD_APIS", false),
        native_sidecar: environment.truthy("NATIVE_SIDECAR_ENABLED", false),
        sockets_folder: environment.or(
            "DAPR_COMPONENT_SOCKETS_FOLDER",
            "/tmp/dapr-components-sockets",
        ),
        identity_token: tokens,
    };
    let actors = environment.or("ACTORS_SERVICE_NAME", "placement");
    let other = environment.service(
        &settings,
        "ACTORS_SERVICE_ADDRESS",
        &environment.text("ACTORS_SERVICE_NAME"),
    )?;
    if environment.truthy("ACTORS_ENABLED", true) {
        settings.actors = Some(match other {
            Some(other) if actors != "placement" => Actors::Other(other),
            _ => Actors::Placement(settings.address("dapr-placement-server", 50005)),
        });
    }
    let reminders = environment.text("REMINDERS_SERVICE_NAME");
    if reminders != "default" {
        settings.reminders =
            environment.service(&settings, "REMINDERS_SERVICE_ADDRESS", &reminders)?;
    }
    Ok(settings)
}

impl Environment<'_> {
    /// `<name>:<address>` of a service that a variable gives as `<service>:<port>`; nothing without a name.
    fn service(
        &self,
        settings: &Settings,
        variable: &'static str,
        name: &str,
    ) -> Result<Option<String>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let value = self.text(variable);
        let parsed = value
            .split_once(':')
            .and_then(|(service, port)| Some((service, port.parse().ok()?)));
        match parsed {
            Some((service, port)) if !service.is_empty() => {
                Ok(Some(format!("{name}:{}", settings.address(service, port))))
            }
            _ => Err(Error::Invalid {
                name: variable,
                expected: "<service>:<port>",
                value,
            }),
        }
    }
}

fn tolerations(text: &str) -> Vec<Value> {
    if text.is_empty() {
        return Vec::new();
    }
    serde_json::from_str(text).unwrap_or_else(|error| {
        tracing::warn!(target: "dapr.injector.service", "Couldn't parse entrypoint tolerations ({text}): {error}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use outrider_kit::flags::error_line;

    use super::*;

    const LEAST: [(&str, &str); 2] = [("NAMESPACE", "dapr-system"), ("SIDECAR_IMAGE", "image")];

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, Error> {
        let variables: Vec<_> = LEAST.iter().chain(environment).rev().copied().collect();
        let read = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        };
        Flags::parse(
            arguments.iter().map(|it| (*it).to_owned()),
            read,
            "search default.svc.a.b svc.a.b a.b",
            true,
        )
    }

    #[test]
    fn flags_have_defaults() {
        let flags = parse(&[], &[]).unwrap();
        let service = flags.service;
        assert_eq!((service.port, service.health.1), (4000, 8080));
        assert_eq!(service.metrics, Some(("0.0.0.0".into(), 9090)));
        let settings = flags.settings;
        assert_eq!(settings.cluster_domain, "a.b");
        assert_eq!(
            settings.actors,
            Some(Actors::Placement(
                "dapr-placement-server.dapr-system.svc.a.b:50005".into()
            ))
        );
        assert_eq!(settings.image_pull_policy, "Always");
        assert!(settings.scheduler && settings.run_as_non_root && settings.identity_token);
    }

    #[test]
    fn flags_have_one_dash_or_two_and_switches_a_value() {
        let flags = parse(
            &[
                "-port=1",
                "--enable-metrics=false",
                "-log-level",
                "debug",
                "--scheduler-enabled=false",
            ],
            &[],
        );
        let flags = flags.unwrap();
        assert_eq!(
            (
                flags.service.port,
                flags.service.metrics,
                flags.service.log.level.as_str()
            ),
            (1, None, "debug")
        );
        assert!(!flags.settings.scheduler);
        assert!(
            parse(&["--enable-metrics", "--metrics-port", "7"], &[])
                .unwrap()
                .service
                .metrics
                .unwrap()
                .1
                == 7
        );
    }

    #[test]
    fn a_wrong_flag_is_one_line() {
        for (argument, wanted) in [
            (
                "-log-levle=debug",
                "unknown flag: --log-levle; did you mean --log-level? See injector --help",
            ),
            (
                "--scheduler-enabled=maybe",
                "invalid argument \"maybe\" for \"--scheduler-enabled\" flag: invalid syntax; see injector --help",
            ),
        ] {
            match parse(&[argument], &[]) {
                Err(Error::Usage(error)) => assert_eq!(error_line(&error, &command()), wanted),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn the_environment_overrides_the_defaults() {
        let flags = parse(
            &[],
            &[
                ("ACTORS_SERVICE_NAME", "custom"),
                ("ACTORS_SERVICE_ADDRESS", "svc:5"),
                ("KUBE_CLUSTER_DOMAIN", "x"),
                ("REMINDERS_SERVICE_NAME", "default"),
                ("SIDECAR_RUN_AS_USER", "7"),
                ("SIDECAR_IMAGE_PULL_POLICY", "Sometimes"),
                ("IGNORE_ENTRYPOINT_TOLERATIONS", r#"[{"key":"a"}]"#),
            ],
        );
        let settings = flags.unwrap().settings;
        assert_eq!(
            settings.actors,
            Some(Actors::Other("custom:svc.dapr-system.svc.x:5".into()))
        );
        assert_eq!((settings.reminders, settings.run_as_user), (None, Some(7)));
        assert_eq!(settings.image_pull_policy, "IfNotPresent");
        assert_eq!(settings.ignore_entrypoint_tolerations.len(), 1);
        assert_eq!(
            parse(&[], &[("ACTORS_ENABLED", "false")])
                .unwrap()
                .settings
                .actors,
            None
        );
    }

    #[test]
    fn a_missing_or_invalid_variable_is_an_error() {
        for (environment, error) in [
            (
                ("NAMESPACE", ""),
                "Error getting config: required key NAMESPACE missing value",
            ),
            (
                ("SIDECAR_IMAGE", ""),
                "Error getting config: required key SIDECAR_IMAGE missing value",
            ),
            (
                ("SIDECAR_RUN_AS_USER", "x"),
                "Error getting config: SIDECAR_RUN_AS_USER must be an integer, not \"x\"",
            ),
            (
                ("ACTORS_SERVICE_NAME", "x"),
                "Error getting config: ACTORS_SERVICE_ADDRESS must be <service>:<port>, not \"\"",
            ),
        ] {
            assert_eq!(parse(&[], &[environment]).unwrap_err().to_string(), error);
        }
    }
}
