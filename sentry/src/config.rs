//! The `mtls` part of the Configuration.

use std::collections::HashMap;
use std::time::Duration;

use outrider_crds::configuration::{Configuration, Spec};
use outrider_crds::{decode, yaml};
use outrider_kit::{duration, environment};
use outrider_service::wait_for_configuration;
use serde_json::Value;

use crate::flags::Flags;
use crate::validate::jwks;

/// Feature that gives control-plane identities to pods under any service account.
const LEGACY_SERVICE_ACCOUNTS: &str = "LegacyControlPlaneServiceAccounts";
/// How long the object may take to appear: the chart may create it after sentry.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Config {
    pub workload_ttl: Duration,
    pub clock_skew: Duration,
    pub jwks_validators: Vec<jwks::Options>,
    /// See [`crate::validate::kubernetes::Kubernetes`].
    pub legacy_service_accounts: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("loading default config. couldn't find config name \"{name}\": {why}")]
pub struct Error {
    name: String,
    why: String,
}

pub async fn load(flags: &Flags, client: Option<&outrider_k8s::Client>) -> Result<Config, Error> {
    let document = match client {
        Some(client) => from_cluster(flags, client).await,
        None => from_file(&flags.config, &flags.environment),
    };
    document
        .and_then(|document| Config::read(&document))
        .map_err(|why| Error {
            name: flags.config.clone(),
            why,
        })
}

fn from_file(path: &str, variables: &HashMap<String, String>) -> Result<Value, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("stat {path}: no such file or directory"));
        }
        Err(error) => return Err(format!("{path}: {error}")),
    };
    let text = environment::expand(&text, variables);
    let first = yaml::documents(&text).next().transpose();
    Ok(first.map_err(|e| e.to_string())?.unwrap_or_default())
}

async fn from_cluster(flags: &Flags, client: &outrider_k8s::Client) -> Result<Value, String> {
    let name = &flags.config;
    let log = |why: &str| {
        tracing::info!(target: "dapr.sentry.config", "waiting for Configuration '{name}': {why}");
    };
    let found = wait_for_configuration(client, &flags.namespace, name, Some(WAIT), log).await;
    found
        .map_err(|error| error.to_string())?
        .ok_or_else(|| "config CRD not found".to_owned())
}

impl Config {
    fn read(document: &Value) -> Result<Self, String> {
        let spec = if document.is_null() {
            Spec::default()
        } else {
            let object: Configuration = decode::from_value(document).map_err(|e| e.to_string())?;
            object.spec
        };
        let legacy_service_accounts = spec
            .features
            .iter()
            .any(|f| f.name == LEGACY_SERVICE_ACCOUNTS && f.enabled);
        if legacy_service_accounts {
            tracing::warn!(target: "dapr.sentry.config", "feature {LEGACY_SERVICE_ACCOUNTS} is on: any pod in the namespace of the control plane can get its identities");
        }
        let mtls = spec.mtls.unwrap_or_default();
        let span = |text: &str, default: Duration, name: &str| match text {
            "" => Ok(default),
            text => {
                duration::parse(text).map_err(|e| format!("error parsing {name} duration: {e}"))
            }
        };
        let mut jwks_validators = Vec::new();
        for validator in &mtls.token_validators {
            match validator.name.to_ascii_lowercase().as_str() {
                "jwks" => jwks_validators.push(jwks::Options::read(&validator.options)?),
                "kubernetes" | "insecure" => {
                    return Err("invalid token validator: the built-in 'kubernetes' and 'insecure' validators cannot be configured manually".into());
                }
                _ => {
                    return Err(format!(
                        "invalid token validator name: '{}'; supported values: 'jwks'",
                        validator.name
                    ));
                }
            }
        }
        Ok(Self {
            workload_ttl: span(
                &mtls.workload_cert_ttl,
                Duration::from_secs(24 * 3600),
                "WorkloadCertTTL",
            )?,
            clock_skew: span(
                &mtls.allowed_clock_skew,
                Duration::from_secs(15 * 60),
                "AllowedClockSkew",
            )?,
            jwks_validators,
            legacy_service_accounts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let document = yaml::documents(text).next().transpose().unwrap();
        Config::read(&document.unwrap_or_default())
    }

    #[test]
    fn an_empty_document_means_defaults() {
        for text in ["", "kind: Configuration\nspec: {}\n"] {
            let config = read(text).unwrap();
            assert_eq!(config.workload_ttl, Duration::from_secs(86400));
            assert_eq!(config.clock_skew, Duration::from_secs(900));
            assert!(config.jwks_validators.is_empty());
        }
    }

    #[test]
    fn settings_of_mtls_are_read() {
        let config = read(
            "spec:\n  mtls:\n    workloadCertTTL: 1h\n    allowedClockSkew: 1m\n    tokenValidators:\n    - name: JWKS\n      options:\n        source: '{}'\n",
        )
        .unwrap();
        assert_eq!(config.workload_ttl, Duration::from_secs(3600));
        assert_eq!(config.clock_skew, Duration::from_secs(60));
        assert_eq!(config.jwks_validators.len(), 1);
    }

    #[test]
    fn a_bad_duration_or_validator_is_an_error() {
        let error = |mtls: &str| read(&format!("spec:\n  mtls:\n    {mtls}\n")).unwrap_err();
        assert!(
            error("workloadCertTTL: x").starts_with("error parsing WorkloadCertTTL duration: ")
        );
        assert_eq!(
            error("tokenValidators: [{name: foo}]"),
            "invalid token validator name: 'foo'; supported values: 'jwks'"
        );
        assert!(
            error("tokenValidators: [{name: Insecure}]").contains("cannot be configured manually")
        );
    }
}
