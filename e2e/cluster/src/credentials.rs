//! Who may speak to the API: its certificate, a token for each program, and the kubeconfigs that hold them.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::json;

use crate::layout::Layout;
use crate::network::Network;

/// File name of the kubeconfig, user, groups.
const USERS: [(&str, &str, &str); 5] = [
    ("kubeconfig", "outrider-admin", "system:masters"),
    (
        "controllers.kubeconfig",
        "outrider-controllers",
        "system:masters",
    ),
    ("scheduler.kubeconfig", "system:kube-scheduler", ""),
    ("proxy.kubeconfig", "system:kube-proxy", ""),
    ("kubelet.kubeconfig", "system:node:outrider", "system:nodes"),
];

pub(crate) fn write(layout: &Layout, network: Network) -> Result<()> {
    fs::create_dir_all(layout.at("pki"))?;
    let authority = authority(layout, network)?;
    let accounts = KeyPair::generate()?;
    fs::write(
        layout.at("pki/serviceaccounts.pub"),
        accounts.public_key_pem(),
    )?;
    secret(
        &layout.at("pki/serviceaccounts.key"),
        &accounts.serialize_pem(),
    )?;
    let mut tokens = String::new();
    for (file, user, groups) in USERS {
        let token = uuid::Uuid::new_v4();
        tokens.push_str(&format!("{token},{user},{user},\"{groups}\"\n"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "outrider",
            "clusters": [{"name": "outrider", "cluster": {
                "server": format!("https://{}:6443", network.node()),
                "certificate-authority-data": STANDARD.encode(&authority),
            }}],
            "users": [{"name": user, "user": {"token": token.to_string()}}],
            "contexts": [{"name": "outrider", "context": {"cluster": "outrider", "user": user}}],
        });
        secret(&layout.at(file), &serde_json::to_string_pretty(&config)?)?;
    }
    secret(&layout.at("pki/tokens.csv"), &tokens)
}

/// Makes the authority and the API server's certificate; returns the authority's.
fn authority(layout: &Layout, network: Network) -> Result<String> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "outrider cluster");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    fs::write(layout.at("pki/authority.crt"), &certificate)?;

    let mut server = CertificateParams::new(
        [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    )?;
    server
        .distinguished_name
        .push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for address in [
        network.node(),
        network.api_service(),
        std::net::Ipv4Addr::LOCALHOST,
    ] {
        server
            .subject_alt_names
            .push(SanType::IpAddress(IpAddr::V4(address)));
    }
    let server_key = KeyPair::generate()?;
    let signed = server.signed_by(&server_key, &Issuer::new(params, key))?;
    fs::write(layout.at("pki/apiserver.crt"), signed.pem())?;
    secret(&layout.at("pki/apiserver.key"), &server_key.serialize_pem())?;
    Ok(certificate)
}

fn secret(path: &Path, content: &str) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(content.as_bytes())?;
    Ok(())
}
