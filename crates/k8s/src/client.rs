//! Where the API server is and how to talk to it.

use std::path::Path;

use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot use kubeconfig {path}: {source}")]
    Kubeconfig {
        path: String,
        source: KubeconfigError,
    },
    #[error(
        "neither in a cluster ({in_cluster}) nor with a kubeconfig ({kubeconfig}): give --kubeconfig or set KUBECONFIG"
    )]
    NoCluster {
        in_cluster: InClusterError,
        kubeconfig: KubeconfigError,
    },
    #[error("cannot set up the Kubernetes client: {0}")]
    Client(#[from] kube::Error),
}

/// A client from, in this order: the file given, `KUBECONFIG`, the pod's service account, `~/.kube/config`.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ClientError> {
    Ok(Client::try_from(config(kubeconfig).await?)?)
}

async fn config(kubeconfig: Option<&Path>) -> Result<Config, ClientError> {
    let from_environment = std::env::var_os("KUBECONFIG").filter(|path| !path.is_empty());
    let options = KubeConfigOptions::default();
    if let Some(path) = kubeconfig {
        let named = |source| ClientError::Kubeconfig {
            path: path.display().to_string(),
            source,
        };
        let file = Kubeconfig::read_from(path).map_err(named)?;
        return Config::from_custom_kubeconfig(file, &options)
            .await
            .map_err(named);
    }
    if let Some(path) = from_environment {
        let path = path.to_string_lossy().into_owned();
        let named = |source| ClientError::Kubeconfig { path, source };
        return Config::from_kubeconfig(&options).await.map_err(named);
    }
    match Config::incluster() {
        Ok(config) => Ok(config),
        Err(in_cluster) => Config::from_kubeconfig(&options)
            .await
            .map_err(|kubeconfig| ClientError::NoCluster {
                in_cluster,
                kubeconfig,
            }),
    }
}
