//! The client of the Kubernetes API, and how its errors look to the runtime.

use std::path::Path;

use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use outrider_components::{Context, Error, Kind};
use outrider_kit::kubernetes;
use serde::de::DeserializeOwned;

outrider_components::fields! {
    /// What the metadata of every component on Kubernetes says about the API.
    pub struct Fields {
        /// Kubeconfig for sidecars outside a cluster. `KUBECONFIG` or
        /// `~/.kube/config` if absent.
        "kubeconfigPath" => kubeconfig: Option<String>;
    }
}

/// A client for the cluster that the process runs in, or else for that of a
/// kubeconfig.
pub async fn connect(fields: &Fields, context: &Context) -> Result<Client, Error> {
    let config = match Config::incluster() {
        Ok(config) => config,
        Err(outside) => from_kubeconfig(fields, context).await.map_err(|error| {
            error.context(&format!(
                "neither in a cluster ({outside}) nor with a kubeconfig"
            ))
        })?,
    };
    Client::try_from(config).map_err(failed)
}

async fn from_kubeconfig(fields: &Fields, context: &Context) -> Result<Config, Error> {
    let variable = |name| {
        context
            .environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let home = || variable("HOME").map(|home| format!("{home}/.kube/config"));
    let path = fields
        .kubeconfig
        .as_deref()
        .or_else(|| variable("KUBECONFIG"))
        .map(str::to_owned)
        .or_else(home)
        .ok_or_else(|| Error::invalid("set kubeconfigPath or KUBECONFIG"))?;
    let wrong = |error: kube::config::KubeconfigError| {
        Error::invalid(format!("cannot use {path}: {error}")).because(error)
    };
    let file = Kubeconfig::read_from(Path::new(&path)).map_err(wrong)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(wrong)
}

/// Reads one secret, or a page of all. Names may come from applications;
/// invalid ones are not sent.
pub async fn read<T: DeserializeOwned>(
    client: &Client,
    namespace: &str,
    name: Option<&str>,
    query: &str,
) -> Result<T, Error> {
    let path = kubernetes::path("/api/v1", "secrets", Some(namespace), name)
        .map_err(|error| Error::invalid(error.to_string()))?;
    let request = Request::get(format!("{path}{query}"))
        .body(Vec::new())
        .map_err(kube::Error::HttpError)
        .map_err(failed)?;
    client.request(request).await.map_err(failed)
}

/// An error of the API, with the text of the server.
pub fn failed(error: kube::Error) -> Error {
    let (kind, text) = match &error {
        kube::Error::Api(status) => {
            let kind = match status.code {
                400 | 422 => Kind::Invalid,
                401 | 403 => Kind::Denied,
                404 => Kind::NotFound,
                429 | 500.. => Kind::Unavailable,
                _ => Kind::Internal,
            };
            (kind, status.message.clone())
        }
        other => (Kind::Unavailable, other.to_string()),
    };
    Error::new(kind, text).because(error)
}
