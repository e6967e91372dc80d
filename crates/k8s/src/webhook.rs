//! Webhooks: serving them, and telling the API server which certificate authority their certificates come from.

use std::pin::pin;

use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use kube::{Client, Error};
use outrider_security::Acceptor;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::objects;

/// Connections served at once; the API server keeps a few.
const CONNECTIONS: usize = 256;

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[derive(Debug, thiserror::Error)]
pub enum ConversionError {
    #[error(
        "crd {0:?} does not have an existing webhook client config. Applying resources of this type will fail"
    )]
    NoWebhook(String),
    #[error("crd {0:?} not found: install the chart's crds folder")]
    NoDefinition(String),
    #[error(transparent)]
    Api(#[from] Error),
}

/// Writes the authority, PEM, into the first webhook of a MutatingWebhookConfiguration.
pub async fn trust_mutating(client: &Client, name: &str, authority: &str) -> Result<(), Error> {
    // Unlike `replace`, `add` does not mind whether there is one already.
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": BASE64.encode(authority)}]);
    objects::json_patch(client, &format!("{MUTATING}/{name}"), &patch)
        .await
        .map(drop)
}

/// Writes namespace and authority, PEM, into a definition's conversion webhook. Says whether it had to.
pub async fn trust_conversion(
    client: &Client,
    definition: &str,
    namespace: &str,
    authority: &str,
) -> Result<bool, ConversionError> {
    let path = format!("{DEFINITIONS}/{definition}");
    let Some(object) = objects::get(client, &path).await? else {
        return Err(ConversionError::NoDefinition(definition.to_owned()));
    };
    let config = &object["spec"]["conversion"]["webhook"]["clientConfig"];
    if !config.is_object() {
        return Err(ConversionError::NoWebhook(definition.to_owned()));
    }
    let bundle = BASE64.encode(authority);
    if config["caBundle"] == bundle.as_str() && config["service"]["namespace"] == namespace {
        return Ok(false);
    }
    let within = |member: &str| format!("/spec/conversion/webhook/clientConfig/{member}");
    let patch = json!([
        {"op": "add", "path": within("service/namespace"), "value": namespace},
        {"op": "add", "path": within("caBundle"), "value": bundle},
    ]);
    objects::json_patch(client, &path, &patch).await?;
    Ok(true)
}

/// Serves a webhook over TLS until `stopping` is cancelled and the requests under way are answered.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    router: Router,
    stopping: CancellationToken,
) {
    let connections = outrider_security::incoming(listener, acceptor)
        .take_until(stopping.clone().cancelled_owned());
    connections
        .for_each_concurrent(CONNECTIONS, |connection| {
            let (router, stopping) = (router.clone(), stopping.clone());
            async move {
                let Ok(connection) = connection else { return };
                let builder = auto::Builder::new(TokioExecutor::new());
                let service = TowerToHyperService::new(router);
                let mut serving = pin!(builder.serve_connection(TokioIo::new(connection), service));
                let served = tokio::select! {
                    served = serving.as_mut() => served,
                    () = stopping.cancelled() => {
                        serving.as_mut().graceful_shutdown();
                        serving.await
                    }
                };
                if let Err(error) = served {
                    tracing::debug!(target: "dapr.k8s.webhook", "a connection ended: {error}");
                }
            }
        })
        .await;
}
