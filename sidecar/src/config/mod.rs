//! The effective Configuration: files or the operator's answer, laid over the
//! defaults. <https://docs.dapr.io/operations/configuration/configuration-overview/>

use std::collections::HashMap;

use outrider_crds::configuration::Spec;
use outrider_crds::{Configuration, decode, yaml};
use outrider_kit::environment;
use outrider_security::acl::{self, AccessControl};
use serde_json::Value;

use crate::blocks::secrets::scope;

/// Features that are on unless the Configuration says otherwise.
const DEFAULT_FEATURES: [&str; 1] = ["HotReload"];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("error loading configuration: {path}: {cause}")]
    File { path: String, cause: String },
    #[error(transparent)]
    Secrets(#[from] scope::Invalid),
    #[error(transparent)]
    Access(#[from] acl::Incomplete),
    #[error("error loading configuration: accessControl: {0}")]
    AccessShape(serde_json::Error),
}

/// Reads files in their order; a later one wins field by field, lists are
/// replaced whole.
pub fn of_files(paths: &[String], environment: &HashMap<String, String>) -> Result<Spec, Error> {
    if paths.is_empty() {
        tracing::info!(target: "dapr.runtime", "loading default configuration");
    }
    let mut merged = Value::Object(serde_json::Map::new());
    for path in paths {
        let wrong = |cause: String| Error::File {
            path: path.clone(),
            cause,
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        let text = environment::expand(&text, environment);
        if let Some(document) = yaml::documents(&text).next() {
            merge(&mut merged, document.map_err(|e| wrong(e.to_string()))?);
        }
    }
    let configuration: Configuration = decode::from_value(&merged).map_err(|e| Error::File {
        path: paths.join(","),
        cause: e.to_string(),
    })?;
    Ok(configuration.spec)
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Names of the features that are on.
pub fn features(spec: &Spec) -> Vec<String> {
    let mut names: Vec<String> = spec
        .features
        .iter()
        .filter(|f| f.enabled)
        .map(|f| f.name.clone())
        .collect();
    for name in DEFAULT_FEATURES {
        if !spec.features.iter().any(|f| f.name == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// The access list for calls to this application. None allows everything.
pub fn access(spec: &Spec) -> Result<Option<AccessControl>, Error> {
    let Some(access) = &spec.access_control else {
        return Ok(None);
    };
    if access.default_action.is_none() {
        tracing::warn!(target: "dapr.acl", "accessControl has no defaultAction: callers and operations that no policy names are allowed. Set spec.accessControl.defaultAction to deny to refuse them, or to allow");
    }
    let value = serde_json::to_value(access).map_err(Error::AccessShape)?;
    let parsed: acl::Spec = serde_json::from_value(value).map_err(Error::AccessShape)?;
    Ok(AccessControl::parse(Some(&parsed))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[&str]) -> Result<Spec, Error> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<String> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| {
                let path = folder.path().join(format!("{i}.yaml"));
                std::fs::write(&path, text).unwrap();
                path.display().to_string()
            })
            .collect();
        of_files(
            &paths,
            &HashMap::from([("REGION".to_owned(), "eu".to_owned())]),
        )
    }

    #[test]
    fn later_files_win_field_by_field() {
        let spec = files(&[
            "spec:\n  nameResolution: {component: mdns, version: v1}\n  features: [{name: A, enabled: true}]\n",
            "spec:\n  nameResolution: {component: sqlite}\n  features: [{name: B, enabled: true}]\n---\nspec: {nameResolution: {component: x}}\n",
        ])
        .unwrap();
        let resolution = spec.name_resolution.clone().unwrap();
        assert_eq!(
            (resolution.component.as_str(), resolution.version.as_str()),
            ("sqlite", "v1")
        );
        assert_eq!(features(&spec), ["B", "HotReload"]);
    }

    #[test]
    fn variables_and_empty_files() {
        let spec = files(&[
            "",
            "spec: {accessControl: {defaultAction: deny, trustDomain: $REGION-${REGION}$NONE}}",
        ])
        .unwrap();
        let access = spec.access_control.unwrap();
        assert_eq!(
            (
                access.trust_domain.as_str(),
                access.default_action.as_deref()
            ),
            ("eu-eu", Some("deny"))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = files(&["spec: ["]).unwrap_err().to_string();
        assert!(
            error.starts_with("error loading configuration: ") && error.contains("0.yaml"),
            "{error}"
        );
        let spec = files(&["spec: {features: [{name: HotReload, enabled: false}]}"]).unwrap();
        assert!(features(&spec).is_empty());
    }

    #[test]
    fn an_omitted_default_action_allows() {
        let spec = files(&["spec: {accessControl: {policies: [{appId: a, trustDomain: public, namespace: default}]}}"]).unwrap();
        let access = access(&spec).unwrap().unwrap();
        assert!(access.evaluate(None, "x", acl::Call::Grpc).allowed);
    }

    #[test]
    fn a_default_action_that_is_left_empty_denies() {
        let spec = files(&["spec: {accessControl: {defaultAction: '', policies: [{appId: a, trustDomain: public, namespace: default}]}}"]).unwrap();
        let access = access(&spec).unwrap().unwrap();
        assert!(!access.evaluate(None, "x", acl::Call::Grpc).allowed);
    }
}
