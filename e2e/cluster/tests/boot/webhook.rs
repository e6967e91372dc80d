//! A mutating webhook on this machine that the API server calls through a Service.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outrider_cluster::{Cluster, PodSecurity};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

pub async fn is_called_through_its_service(cluster: &Cluster) -> Result<()> {
    let namespace = cluster.namespace("hook", PodSecurity::Restricted).await?;
    let name = namespace.name();
    let key = KeyPair::generate()?;
    let certificate =
        CertificateParams::new(vec![format!("hook.{name}.svc")])?.self_signed(&key)?;
    let bundle = STANDARD.encode(certificate.pem());
    let config = ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_no_client_auth()
    .with_single_cert(
        vec![certificate.der().clone()],
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
    )?;
    let host = cluster.host_address()?;
    let listener = TcpListener::bind((host, 0)).await?;
    let port = listener.local_addr()?.port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await?;
            answer(&acceptor, stream).await?;
        }
    };
    let manifests = json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "hook", "namespace": name},
            "spec": {"ports": [{"port": 443, "targetPort": port}]},
        },
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "hook", "namespace": name, "labels": {"kubernetes.io/service-name": "hook"}},
            "addressType": "IPv4",
            "ports": [{"port": port}],
            "endpoints": [{"addresses": [host]}],
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "hook.outrider.local",
                "clientConfig": {"service": {"name": "hook", "namespace": name}, "caBundle": bundle},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }],
        },
    ]});
    let check = async {
        cluster.apply(&manifests.to_string()).await?;
        outrider_cluster::wait("the webhook's mark", super::LIMIT, async || {
            let _ = cluster
                .kubectl(["delete", "configmap", "probe", "-n", name])
                .await;
            let text = cluster
                .kubectl(["create", "configmap", "probe", "-n", name, "-o", "json"])
                .await?;
            let made: Value = serde_json::from_str(&text)?;
            Ok((made["metadata"]["labels"]["marked"] == "yes").then_some(()))
        })
        .await
    };
    let done = tokio::select! {
        done = check => done,
        broken = serve => broken,
    };
    cluster
        .kubectl(["delete", "mutatingwebhookconfiguration", name])
        .await?;
    done
}

/// One request of the API server; connections that it closes early are its business.
async fn answer(acceptor: &TlsAcceptor, stream: TcpStream) -> Result<()> {
    let Ok(stream) = acceptor.accept(stream).await else {
        return Ok(());
    };
    let mut stream = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let review: Value = serde_json::from_slice(&body)?;
    let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"marked": "yes"}}]);
    let reply = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "response": {
            "uid": review["request"]["uid"].as_str().context("no uid")?,
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": STANDARD.encode(patch.to_string()),
        },
    })
    .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reply.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(reply.as_bytes()).await?;
    stream.shutdown().await?;
    Ok(())
}
