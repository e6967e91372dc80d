//! Cryptography: documents that are encrypted as they stream by, and single
//! operations on keys.
//! <https://docs.dapr.io/developing-applications/building-blocks/cryptography/>

pub mod document;
pub mod error;
pub mod grpc;
pub mod http;
pub mod ops;
pub mod subtle;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use outrider_components::crypto::Crypto;
use outrider_components::{Error as Cause, Registry, Table};
use outrider_metrics::Metrics;
use outrider_metrics::component::Operations;
use outrider_resiliency as resiliency;

use crate::blocks::descriptor::{self, Method, Route, V1_ALPHA1};
use crate::components::block::{ComponentBlock, ToConnect};
use crate::components::instance::Instance;
use crate::components::map::Map;

const GROUP: &str = "crypto";
const SUBTLE: &str = "subtlecrypto";

const VERSIONS: &[descriptor::Version] = &[V1_ALPHA1];

/// A route of the subtle face.
macro_rules! subtle {
    ($name:literal, $path:literal, $answer:path) => {
        Route {
            name: $name,
            verbs: descriptor::POST,
            versions: VERSIONS,
            path: $path,
            group: SUBTLE,
            answer: |apis, request, names| Box::pin($answer(&apis.crypto, request, names.first)),
        }
    };
}

/// The building block.
pub const BLOCK: descriptor::Block = descriptor::Block {
    routes: &[
        Route {
            name: "Encrypt",
            verbs: descriptor::PUT,
            versions: VERSIONS,
            path: "crypto/{}/encrypt",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::encrypt(&apis.crypto, request, names.first))
            },
        },
        Route {
            name: "Decrypt",
            verbs: descriptor::PUT,
            versions: VERSIONS,
            path: "crypto/{}/decrypt",
            group: GROUP,
            answer: |apis, request, names| {
                Box::pin(http::decrypt(&apis.crypto, request, names.first))
            },
        },
        subtle!("SubtleGetKey", "subtlecrypto/{}/getkey", http::get_key),
        subtle!(
            "SubtleEncrypt",
            "subtlecrypto/{}/encrypt",
            http::subtle_encrypt
        ),
        subtle!(
            "SubtleDecrypt",
            "subtlecrypto/{}/decrypt",
            http::subtle_decrypt
        ),
        subtle!("SubtleWrapKey", "subtlecrypto/{}/wrapkey", http::wrap_key),
        subtle!(
            "SubtleUnwrapKey",
            "subtlecrypto/{}/unwrapkey",
            http::unwrap_key
        ),
        subtle!("SubtleSign", "subtlecrypto/{}/sign", http::sign),
        subtle!("SubtleVerify", "subtlecrypto/{}/verify", http::verify),
    ],
    methods: &[
        Method::new("EncryptAlpha1", V1_ALPHA1, GROUP),
        Method::new("DecryptAlpha1", V1_ALPHA1, GROUP),
        Method::new("SubtleGetKeyAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleEncryptAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleDecryptAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleWrapKeyAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleUnwrapKeyAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleSignAlpha1", V1_ALPHA1, SUBTLE),
        Method::new("SubtleVerifyAlpha1", V1_ALPHA1, SUBTLE),
    ],
    errors: &[("ERR_CRYPTO", "crypto"), ("ERR_CRYPTO_", "crypto")],
};

/// Operations on the keys of this sidecar.
pub struct Api {
    pub providers: Arc<Map<Provider>>,
}

/// A store of keys that is in use.
pub type Provider = Instance<dyn Crypto>;

impl ComponentBlock for Provider {
    type Trait = dyn Crypto;
    type Settings = ();

    const CATEGORY: &'static str = "crypto";
    const COMPONENT_TYPE: resiliency::Block = resiliency::Block::Crypto;

    fn table(registry: &Registry) -> &Table<dyn Crypto> {
        &registry.crypto
    }

    fn settings(_: &ToConnect<'_>) -> Result<(), String> {
        Ok(())
    }

    fn capabilities(_: &dyn Crypto) -> Vec<&'static str> {
        Vec::new()
    }

    fn operations(metrics: &Metrics, name: &str) -> Operations {
        metrics.crypto(name)
    }

    fn new(instance: Provider, (): (), _: &Metrics) -> Self {
        instance
    }

    fn instance(&self) -> &Provider {
        self
    }

    fn close(provider: &dyn Crypto) -> BoxFuture<'_, Result<(), Cause>> {
        provider.close()
    }
}
