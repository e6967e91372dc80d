//! Whom the client trusts and what it proves itself with.

use std::path::Path;

use outrider_components::{Error, Secret};
use reqwest::{Certificate, ClientBuilder, Identity, tls};

/// Adds what the metadata says about certificates.
pub async fn configure(
    mut builder: ClientBuilder,
    root: Option<&str>,
    certificate: Option<&str>,
    key: Option<&Secret>,
) -> Result<ClientBuilder, Error> {
    builder = builder.tls_version_min(tls::Version::TLS_1_2);
    if let Some(root) = root {
        let pem = pem("MTLSRootCA", root).await?;
        let roots = Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|roots| !roots.is_empty())
            .ok_or_else(|| Error::invalid("failed to add root certificate to certpool"))?;
        builder = builder.tls_certs_only(roots);
    }
    if let (Some(certificate), Some(Secret(key))) = (certificate, key) {
        let mut both = pem("MTLSClientCert", certificate).await?;
        both.push(b'\n');
        both.extend(pem("MTLSClientKey", key).await?);
        let identity = Identity::from_pem(&both).map_err(|error| {
            let text = outrider_kit::error::chain(&error);
            Error::invalid(format!("failed to load client certificate: {text}"))
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

/// PEM as it is given, or that of a file.
async fn pem(name: &str, value: &str) -> Result<Vec<u8>, Error> {
    if value.contains("-----BEGIN") {
        return Ok(value.as_bytes().to_vec());
    }
    tokio::fs::read(Path::new(value)).await.map_err(|error| {
        Error::invalid(format!(
            "provided {name:?} value is neither a valid file path or nor a valid pem encoded string: {error}"
        ))
    })
}
