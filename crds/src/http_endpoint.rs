//! `HTTPEndpoint`: a named host outside the mesh.

use serde::{Deserialize, Serialize};

use crate::property::{Auth, NameValue, TlsDocument};
use crate::{Kind, Metadata, unset};

/// A named host outside the mesh.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct HttpEndpoint {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    #[serde(skip_serializing_if = "unset")]
    pub auth: Auth,
    /// App ids that may use the endpoint; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// Address, headers and TLS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "HTTPEndpointSpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// URL that paths are appended to.
    pub base_url: String,
    /// Headers of each request.
    #[serde(skip_serializing_if = "unset")]
    pub headers: Vec<NameValue>,
    #[serde(rename = "clientTLS", skip_serializing_if = "unset")]
    pub client_tls: Option<ClientTls>,
}

/// TLS towards the host.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ClientTls {
    /// Root that the host's certificate is checked against.
    #[serde(rename = "rootCA", skip_serializing_if = "unset")]
    pub root_ca: Option<TlsDocument>,
    /// Certificate shown to the host.
    #[serde(skip_serializing_if = "unset")]
    pub certificate: Option<TlsDocument>,
    /// Key of the certificate.
    #[serde(skip_serializing_if = "unset")]
    pub private_key: Option<TlsDocument>,
    /// Whether the host may ask for a certificate later.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(
        feature = "schema",
        schemars(extend("x-default" = "Never", "enum" = ["Never", "OnceAsClient", "FreelyAsClient"]))
    )]
    pub renegotiation: String,
}

impl Kind for HttpEndpoint {
    const KIND: &'static str = "HTTPEndpoint";
    const PLURAL: &'static str = "httpendpoints";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;

    #[test]
    fn tls_documents_are_read_and_null_is_none() {
        let endpoint: HttpEndpoint = decode::from_value(&json!({
            "spec": {"baseUrl": "https://h", "clientTLS": {"rootCA": {"secretKeyRef": {"name": "s"}}, "certificate": null}},
        }))
        .unwrap();
        let tls = endpoint.spec.client_tls.unwrap();
        assert_eq!(tls.root_ca.unwrap().secret_key_ref.key_or_name(), "s");
        assert_eq!(tls.certificate, None);
    }
}
