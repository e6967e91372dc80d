//! `HTTPEndpoint` resources, ready to be called.

use http::{HeaderMap, HeaderName, HeaderValue};
use outrider_crds::HttpEndpoint;
use outrider_crds::property::{NameValue, TlsDocument};

use super::dial::Tls;
use super::pool::{Pool, Pools};
use crate::components::live::SecretStores;
use crate::components::resolve::{MissingStore, Sources};

const SCOPE: &str = "dapr.runtime.processor";

/// A named host.
pub struct Endpoint {
    pub name: String,
    pub base_url: String,
    /// What it needs, or why it cannot be called.
    pub(super) ready: Result<Ready, String>,
}

pub(super) struct Ready {
    pub headers: HeaderMap,
    pub pool: Pool,
}

impl Endpoint {
    /// Why it cannot be called, if it cannot.
    pub fn fault(&self) -> Option<&str> {
        self.ready.as_ref().err().map(String::as_str)
    }

    /// Finds secrets and reads certificates. What goes wrong is in the
    /// log, and to callers of the endpoint.
    pub async fn new(
        resource: HttpEndpoint,
        sources: &Sources,
        stores: &SecretStores,
        pools: &Pools,
    ) -> Self {
        let name = resource.metadata.name.clone();
        let base_url = resource.spec.base_url.clone();
        let ready = ready(resource, sources, stores, pools).await;
        if let Err(cause) = &ready {
            tracing::warn!(target: SCOPE, "the HTTPEndpoint {name} cannot be called: {cause}");
        }
        Self {
            name,
            base_url,
            ready,
        }
    }
}

async fn ready(
    resource: HttpEndpoint,
    sources: &Sources,
    stores: &SecretStores,
    pools: &Pools,
) -> Result<Ready, String> {
    let name = &resource.metadata.name;
    let tls = resource.spec.client_tls.unwrap_or_default();
    match tls.renegotiation.as_str() {
        "" | "Never" => {}
        "OnceAsClient" | "FreelyAsClient" => {
            tracing::warn!(target: SCOPE, "HTTPEndpoint {name}: a host that asks for a certificate in the middle of a connection is not answered, renegotiation is left out: ask for it in the handshake");
        }
        other => {
            return Err(format!(
                "invalid renegotiation value {other} for http endpoint {name}"
            ));
        }
    }
    let documents = [
        ("rootCA", tls.root_ca),
        ("certificate", tls.certificate),
        ("privateKey", tls.private_key),
    ];
    let count = resource.spec.headers.len();
    let mut items = resource.spec.headers;
    items.extend(
        documents
            .into_iter()
            .map(|(name, document)| item(name, document)),
    );
    let store = &resource.auth.secret_store;
    if let Some(MissingStore(store)) = sources.missing_store(&items, store, stores) {
        return Err(format!(
            "it refers to the secret store {store}, which is not loaded"
        ));
    }
    let shown = format!("HTTPEndpoint {name}");
    let mut values = sources.literals(&shown, &items, store, stores).await;
    let documents = values.split_off(count);
    let [root_ca, certificate, private_key] = documents.try_into().unwrap_or_default();
    let tls = Tls::read(&root_ca, &certificate, &private_key)
        .map_err(|cause| format!("{cause} for http endpoint {name}"))?;
    let mut headers = HeaderMap::new();
    for (item, value) in items.iter().zip(values) {
        let pair = (
            HeaderName::try_from(&item.name),
            HeaderValue::try_from(&value),
        );
        let (Ok(header), Ok(value)) = pair else {
            return Err(format!("{:?} with its value is no header", item.name));
        };
        headers.insert(header, value);
    }
    Ok(Ready {
        headers,
        pool: pools.with(tls),
    })
}

fn item(name: &str, document: Option<TlsDocument>) -> NameValue {
    let document = document.unwrap_or_default();
    NameValue {
        name: name.to_owned(),
        value: document.value,
        secret_key_ref: document.secret_key_ref,
        env_ref: String::new(),
    }
}
