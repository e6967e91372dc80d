//! Components that need nothing but an HTTP client.

pub mod bindings;
mod body;
pub mod conversation;
pub mod crypto;
pub mod middleware;
pub mod nameresolution;
pub mod secrets;

outrider_components::components! {
    bindings: bindings::http {
        names: &["http"],
        versions: Initial,
        status: Stable,
        tested: Conformance("an HTTP server, with and without TLS"),
        file: "components/web/src/bindings/http/mod.rs",
    }

    bindings: bindings::graphql {
        names: &["graphql"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("a double"),
        file: "components/web/src/bindings/graphql.rs",
    }

    secrets: secrets::vault {
        names: &["hashicorp.vault"],
        versions: Initial,
        status: Stable,
        tested: Conformance("a double of the documented HTTP API"),
        file: "components/web/src/secrets/vault.rs",
    }

    nameresolution: nameresolution::consul {
        names: &["hashicorp.consul", "consul"],
        versions: Initial,
        status: Alpha,
        tested: Unit("an agent of the test"),
        file: "components/web/src/nameresolution/consul/mod.rs",
    }

    crypto: crypto::jwks {
        names: &["dapr.jwks"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("a value, a file and an HTTP server"),
        file: "components/web/src/crypto/jwks.rs",
    }

    conversation: conversation::openai {
        names: &["openai"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an HTTP server of the tests"),
        file: "components/web/src/conversation/openai.rs",
    }

    conversation: conversation::ollama {
        names: &["ollama"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an HTTP server of the tests"),
        file: "components/web/src/conversation/ollama.rs",
    }

    conversation: conversation::deepseek {
        names: &["deepseek"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an HTTP server of the tests"),
        file: "components/web/src/conversation/deepseek.rs",
    }

    conversation: conversation::mistral {
        names: &["mistral"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an HTTP server of the tests"),
        file: "components/web/src/conversation/mistral.rs",
    }

    conversation: conversation::anthropic {
        names: &["anthropic"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an HTTP server of the tests"),
        file: "components/web/src/conversation/anthropic.rs",
    }

    middleware: middleware::bearer {
        names: &["http.bearer"],
        versions: Initial,
        status: Stable,
        tested: Conformance("an identity provider"),
        file: "components/web/src/middleware/bearer.rs",
    }

    middleware: middleware::oauth2 {
        names: &["http.oauth2"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an identity provider"),
        file: "components/web/src/middleware/oauth2.rs",
    }

    middleware: middleware::oauth2clientcredentials {
        names: &["http.oauth2clientcredentials"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("an identity provider"),
        file: "components/web/src/middleware/oauth2clientcredentials.rs",
    }
}
