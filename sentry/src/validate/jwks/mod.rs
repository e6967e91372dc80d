//! Callers that prove who they are with a token that someone else signed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use outrider_kit::{duration, error};
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_security::SpiffeId;
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{Caller, common, requested_id};

/// How much clocks may differ.
const SKEW: i64 = 300;
const FILE_POLL: Duration = Duration::from_secs(1);
/// Bytes of a key set that is fetched.
const LARGEST_SET: usize = 1 << 20;
const MOST_REDIRECTS: usize = 5;

/// Where the key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// URL, path of a file, or the set itself.
    source: String,
    /// Path or PEM text of the only CA that a URL's server may be certified by.
    ca_certificate: Option<String>,
    refresh_interval: Duration,
    request_timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("failed to init cache: {0}")]
    Fetch(String),
    #[error("failed to init cache: failed to parse JWKS: {0}")]
    Parse(String),
}

impl Options {
    pub fn read(given: &Map<String, Value>) -> Result<Self, String> {
        let text = |name: &str| match given.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
        };
        let duration_of = |name: &str, default: u64, floor: Duration| {
            let Some(text) = text(name).filter(|t| !t.is_empty()) else {
                return Ok(Duration::from_secs(default));
            };
            let parsed = match text.parse() {
                Ok(seconds) => Ok(Duration::from_secs(seconds)),
                Err(_) => duration::parse(&text),
            };
            match parsed {
                Ok(span) if span > floor => Ok(span),
                Ok(_) => Err(format!(
                    "invalid option '{name}' of token validator 'jwks': must be longer than {}",
                    duration::format(floor)
                )),
                Err(error) => Err(format!(
                    "invalid option '{name}' of token validator 'jwks': {error}"
                )),
            }
        };
        Ok(Self {
            source: text("source").unwrap_or_default(),
            ca_certificate: text("caCertificate").filter(|t| !t.is_empty()),
            refresh_interval: duration_of("minRefreshInterval", 600, Duration::from_secs(1))?,
            request_timeout: duration_of("requestTimeout", 30, Duration::from_millis(1))?,
        })
    }
}

/// Verifies tokens against a key set that is kept fresh.
pub struct Jwks {
    keys: Arc<ArcSwap<JwkSet>>,
    audience: SpiffeId,
}

/// Keeps a key set fresh.
pub struct Refresh {
    keys: Arc<ArcSwap<JwkSet>>,
    source: Source,
}

enum Source {
    Url {
        client: reqwest::Client,
        url: String,
        interval: Duration,
    },
    File(PathBuf),
    Inline,
}

impl Jwks {
    /// `audience` is sentry's own id.
    pub async fn load(options: &Options, audience: SpiffeId) -> Result<(Self, Refresh), LoadError> {
        let given = options.source.trim();
        let (source, text) = if given.starts_with("https://") || given.starts_with("http://") {
            if given.starts_with("http://") {
                tracing::warn!(target: "dapr.sentry.identity.jwks", "JWKS are fetched over plain HTTP from {given}: anyone on the network path can replace them; use https");
            }
            let client = client(options).map_err(LoadError::Fetch)?;
            let text = fetch(&client, given).await.map_err(LoadError::Fetch)?;
            let source = Source::Url {
                client,
                url: given.to_owned(),
                interval: options.refresh_interval,
            };
            (source, text)
        } else if Path::new(given).is_file() {
            let text = std::fs::read_to_string(given)
                .map_err(|e| LoadError::Fetch(format!("{given}: {e}")))?;
            (Source::File(given.into()), text)
        } else {
            (Source::Inline, inline(given)?)
        };
        let keys = Arc::new(ArcSwap::from_pointee(parse(&text)?));
        let refresh = Refresh {
            keys: keys.clone(),
            source,
        };
        Ok((Self { keys, audience }, refresh))
    }

    pub fn validate(&self, request: &SignCertificateRequest) -> Result<Caller, String> {
        if request.token.is_empty() {
            return Err("the request does not contain a token".into());
        }
        let trust_domain = common(request)?;
        let subject = requested_id(request, &trust_domain);
        let subject = subject.as_ref().map_or("", SpiffeId::as_str);
        verify(
            &request.token,
            &self.keys.load(),
            self.audience.as_str(),
            subject,
        )
        .map_err(|why| format!("token validation failed: {why}"))?;
        Ok(Caller {
            trust_domain,
            may_be_service: true,
            images: None,
        })
    }
}

fn verify(token: &str, keys: &JwkSet, audience: &str, subject: &str) -> Result<(), String> {
    const UNVERIFIED: &str = "could not verify message using any of the signatures or keys";
    let header = jsonwebtoken::decode_header(token).map_err(|_| "invalid JWT".to_owned())?;
    let kid = header.kid.ok_or(
        "key provider 0 failed: failed to find matching key: no key ID (\"kid\") specified in token",
    )?;
    let jwk = keys.find(&kid).ok_or_else(|| {
        format!("key provider 0 failed: failed to find key with key ID \"{kid}\" in key set")
    })?;
    let key = DecodingKey::from_jwk(jwk).map_err(|_| UNVERIFIED)?;
    let fits = jwk
        .common
        .key_algorithm
        .is_none_or(|a| a.to_string() == format!("{:?}", header.alg));
    if !fits {
        return Err(UNVERIFIED.into());
    }
    // Only the signature: the claims are checked below, with the error texts that callers know.
    let mut signature_only = Validation::new(header.alg);
    signature_only.required_spec_claims.clear();
    signature_only.validate_exp = false;
    signature_only.validate_aud = false;
    let claims: Map<String, Value> = jsonwebtoken::decode(token, &key, &signature_only)
        .map_err(|_| UNVERIFIED)?
        .claims;
    check_claims(
        &claims,
        audience,
        subject,
        OffsetDateTime::now_utc().unix_timestamp(),
    )
}

fn check_claims(
    claims: &Map<String, Value>,
    audience: &str,
    subject: &str,
    now: i64,
) -> Result<(), String> {
    let unsatisfied = |name: &str| format!("\"{name}\" not satisfied");
    for (name, holds) in [
        ("iat", (|at, now| at <= now + SKEW) as fn(i64, i64) -> bool),
        ("exp", |at, now| now < at + SKEW),
        ("nbf", |at, now| at <= now + SKEW),
    ] {
        match claims.get(name) {
            // A token without an expiry would be valid for ever.
            None if name == "exp" => return Err("claim \"exp\" not found".into()),
            None => {}
            Some(value) => match value.as_f64() {
                Some(at) if holds(at as i64, now) => {}
                _ => return Err(unsatisfied(name)),
            },
        }
    }
    let for_us = match claims.get("aud") {
        None => return Err("claim \"aud\" not found".into()),
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(all)) => all.iter().any(|a| a == audience),
        Some(_) => false,
    };
    if !for_us {
        return Err(unsatisfied("aud"));
    }
    match claims.get("sub") {
        None => Err("claim \"sub\" not found".into()),
        Some(value) if value == subject && !subject.is_empty() => Ok(()),
        Some(_) => Err("\"sub\" not satisfied: values do not match".into()),
    }
}

impl Refresh {
    /// Runs until it is dropped. A set that cannot be used is logged, and the last
    /// good one stays.
    pub async fn run(self) {
        let failed = |why: &dyn std::fmt::Display| {
            tracing::error!(target: "dapr.sentry.identity.jwks", "{why}; the former key set stays in use");
        };
        match &self.source {
            Source::Inline => std::future::pending().await,
            Source::Url {
                client,
                url,
                interval,
            } => loop {
                tokio::time::sleep(*interval).await;
                match fetch(client, url).await {
                    Ok(text) => match parse(&text) {
                        Ok(keys) => self.keys.store(Arc::new(keys)),
                        Err(error) => failed(&error),
                    },
                    Err(error) => failed(&format!("Error fetching JWKS: {error}")),
                }
            },
            Source::File(path) => {
                let mut seen = None;
                loop {
                    let text = std::fs::read_to_string(path).map_err(|e| e.to_string());
                    if seen.as_ref() != Some(&text) {
                        match text
                            .clone()
                            .and_then(|t| parse(&t).map_err(|e| e.to_string()))
                        {
                            Ok(keys) => self.keys.store(Arc::new(keys)),
                            Err(why) => failed(&format!("Error reading JWKS from disk: {why}")),
                        }
                        seen = Some(text);
                    }
                    tokio::time::sleep(FILE_POLL).await;
                }
            }
        }
    }
}

fn parse(text: &str) -> Result<JwkSet, LoadError> {
    serde_json::from_str(text).map_err(|e| LoadError::Parse(e.to_string()))
}

/// JSON, or JSON in base64 with or without padding.
fn inline(text: &str) -> Result<String, LoadError> {
    if text.starts_with('{') {
        return Ok(text.to_owned());
    }
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.replace('-', "+").replace('_', "/");
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| {
            LoadError::Parse("the source is neither a URL, nor a file, nor a key set".into())
        })
}

fn client(options: &Options) -> Result<reqwest::Client, String> {
    let mut builder = reqwest::Client::builder()
        .timeout(options.request_timeout)
        .redirect(redirects());
    if let Some(ca) = &options.ca_certificate {
        let pem = if ca.contains("-----BEGIN") {
            ca.clone().into_bytes()
        } else {
            std::fs::read(ca).map_err(|e| format!("failed to read CA certificate '{ca}': {e}"))?
        };
        let certificates =
            reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| e.to_string())?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| e.to_string())
}

/// From https to http no redirect is followed: anyone on the network path could
/// put in keys of their own.
fn redirects() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let was_secure = attempt.previous().iter().all(|url| url.scheme() == "https");
        if was_secure && attempt.url().scheme() != "https" {
            return attempt.error("redirected from https to plain http, which is not followed");
        }
        if attempt.previous().len() > MOST_REDIRECTS {
            return attempt.error("too many redirects");
        }
        attempt.follow()
    })
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let mut answer = client
        .get(url)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| error::chain(&error))?;
    let mut text = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|error| error::chain(&error))? {
        text.extend_from_slice(&piece);
        if text.len() > LARGEST_SET {
            return Err(format!("{url}: more than {LARGEST_SET} bytes of keys"));
        }
    }
    String::from_utf8(text).map_err(|error| format!("{url}: {error}"))
}

#[cfg(test)]
mod tests;
