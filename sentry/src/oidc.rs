//! OIDC discovery: <https://openid.net/specs/openid-connect-discovery-1_0.html>.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use outrider_host::server::{self, Limits, Received};
use outrider_host::{Target, Tasks, listen};
use outrider_security::Acceptor;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;

use crate::ca::Current;
use crate::flags::Oidc;

const POLL: Duration = Duration::from_secs(5);
const LOG: &str = "dapr.sentry.oidc";

struct Discovery {
    settings: Oidc,
    /// The `iss` claim of tokens, if one is configured.
    issuer: Option<String>,
    current: Current,
}

/// Serves until the tasks stop. Files of a certificate that are not there yet
/// are waited for.
pub async fn serve(
    settings: Oidc,
    issuer: Option<String>,
    current: Current,
    tasks: Tasks,
    target: Target,
) {
    let acceptor = match &settings.tls {
        Some((cert, key)) => {
            let certificate = Certificate::wait_for(cert, key).await;
            let acceptor = certificate.acceptor();
            let (cert, key) = (cert.clone(), key.clone());
            let stopping = tasks.stopping();
            tasks.spawn("OIDC certificate", async move {
                tokio::select! {
                    () = stopping.cancelled() => {}
                    () = certificate.follow(&cert, &key) => {}
                }
            });
            match acceptor {
                Ok(acceptor) => acceptor,
                Err(error) => return tracing::error!(target: LOG, "cannot serve OIDC: {error}"),
            }
        }
        None => Acceptor::plaintext(),
    };
    let listener = match listen::tcp_with_retries(&settings.listen_address, settings.port).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(target: LOG, "cannot listen on {}:{}: {error}", settings.listen_address, settings.port);
            return;
        }
    };
    tracing::info!(target: LOG, "OIDC HTTP server listening on {}:{}", settings.listen_address, settings.port);
    target.ready();
    let discovery = Arc::new(Discovery {
        settings,
        issuer,
        current,
    });
    let service = tower::service_fn(move |request: Request<Received>| {
        let answer = discovery.answer(&request).respond();
        std::future::ready(Ok(answer))
    });
    server::serve("OIDC", listener, acceptor, Limits::PAGES, service, &tasks).await;
}

enum Answer {
    Json(serde_json::Value),
    Error(StatusCode, &'static str),
}

impl Answer {
    fn respond(self) -> Response<Full<Bytes>> {
        let (status, body, headers) = match self {
            Self::Json(value) => (
                StatusCode::OK,
                value.to_string(),
                [
                    (header::CONTENT_TYPE, "application/json"),
                    (header::CACHE_CONTROL, "public, max-age=3600"),
                ],
            ),
            Self::Error(status, text) => (
                status,
                format!("{text}\n"),
                [
                    (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
                    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
                ],
            ),
        };
        let mut answer = Response::new(Full::from(body));
        *answer.status_mut() = status;
        for (name, value) in headers {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

impl Discovery {
    fn answer<B>(&self, request: &Request<B>) -> Answer {
        let own_path = request
            .uri()
            .path()
            .strip_prefix(&self.settings.path_prefix);
        let document = match own_path {
            Some("/.well-known/openid-configuration") => true,
            Some("/jwks.json") => false,
            _ => return Answer::Error(StatusCode::NOT_FOUND, "404 page not found"),
        };
        let Some(host) = self.host(request.headers()) else {
            return Answer::Error(StatusCode::FORBIDDEN, "Forbidden: unauthorized domain");
        };
        if request.method() != Method::GET {
            return Answer::Error(StatusCode::METHOD_NOT_ALLOWED, "Method not allowed");
        }
        let authority = self.current.get();
        match (&authority.jwt, document) {
            (Some(jwt), false) => Answer::Json(jwt.jwks.clone()),
            (Some(jwt), true) => Answer::Json(self.document(host, &jwt.algorithm)),
            (None, false) => Answer::Error(StatusCode::NOT_FOUND, "JWKS not available"),
            (None, true) => {
                Answer::Error(StatusCode::NOT_FOUND, "OIDC configuration not available")
            }
        }
    }

    /// The host of the request, or `None` if it is not an allowed one.
    /// A forwarding header counts only where it is checked against a list.
    fn host<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let host = text("host").unwrap_or_default();
        let allowed = &self.settings.allowed_hosts;
        if allowed.is_empty() || allowed.iter().any(|a| a == "*") {
            return Some(host);
        }
        let checked = text("x-forwarded-host")
            .filter(|h| !h.is_empty())
            .unwrap_or(host);
        let name = without_port(checked);
        allowed
            .iter()
            .any(|a| a == checked || a == name)
            .then_some(checked)
    }

    fn document(&self, host: &str, algorithm: &str) -> serde_json::Value {
        let scheme = if self.settings.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let issuer = match &self.issuer {
            Some(issuer) => issuer.clone(),
            None => format!("{scheme}://{host}"),
        };
        let jwks_uri = match &self.settings.jwks_uri {
            Some(uri) => uri.clone(),
            None => format!("{}{}/jwks.json", origin(&issuer), self.settings.path_prefix),
        };
        json!({
            "issuer": issuer,
            "jwks_uri": jwks_uri,
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [algorithm],
            "scopes_supported": ["openid"],
            "claims_supported": ["sub", "iss", "aud", "exp", "iat", "nbf", "use"],
        })
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Scheme and authority of a URL; empty if it has none.
fn origin(url: &str) -> &str {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "";
    };
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    &url[..scheme.len() + "://".len() + authority]
}

/// The certificate of the server, replaced when its files are.
#[derive(Debug, Clone)]
struct Certificate(Arc<ArcSwap<CertifiedKey>>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    async fn wait_for(cert: &Path, key: &Path) -> Self {
        loop {
            match read(cert, key) {
                Ok(certified) => return Self(Arc::new(ArcSwap::from_pointee(certified))),
                Err(error) => {
                    tracing::warn!(target: LOG, "waiting for the certificate of the OIDC server, which does not listen until then: {error}");
                    tokio::time::sleep(POLL).await;
                }
            }
        }
    }

    async fn follow(&self, cert: &Path, key: &Path) {
        loop {
            tokio::time::sleep(POLL).await;
            match read(cert, key) {
                Ok(certified) if certified.cert != self.0.load().cert => {
                    tracing::info!(target: LOG, "the certificate of the OIDC server changed");
                    self.0.store(Arc::new(certified));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(target: LOG, "the new certificate of the OIDC server cannot be used, the former one stays in use: {error}");
                }
            }
        }
    }

    fn acceptor(&self) -> Result<Acceptor, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Acceptor::tls(config))
    }
}

fn read(cert: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let failed = |path: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| failed(cert, &e))?;
    if chain.is_empty() {
        return Err(failed(cert, &"no certificates found"));
    }
    let der = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
    let signer = aws_lc_rs::default_provider()
        .key_provider
        .load_private_key(der)
        .map_err(|e| failed(key, &e))?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(|e| failed(key, &e))?;
    Ok(certified)
}
