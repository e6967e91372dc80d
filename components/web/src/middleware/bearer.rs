//! `middleware.http.bearer`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-bearer/>.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode, header};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{DecodingKey, Validation};
use outrider_components::middleware::{Middleware, Next, Outcome, Request, refusal_by_status};
use outrider_components::{Context, Error, Field, Metadata};
use reqwest::Client;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::fetch;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

/// How much clocks may differ, in seconds.
const SKEW: u64 = 300;
/// Keys are fetched again after this.
const KEYS_LAST: Duration = Duration::from_secs(600);
/// Between two attempts to fetch keys, whoever asks for it.
const PAUSE: Duration = Duration::from_secs(30);
/// What is shorter is no token.
const SHORTEST: usize = 10;

outrider_components::fields! {
    struct Fields {
        /// Who issues the tokens, as it stands in them: the URL of an OpenID
        /// Connect provider.
        "issuer" | "issuerURL" => issuer: String, missing "metadata property 'issuer' is required";
        /// Whom the tokens are for, such as a client id.
        "audience" | "clientID" => audience: String, missing "metadata property 'audience' is required";
        /// The URL of the provider's keys (JWKS). Without it, it is taken from
        /// the provider's `/.well-known/openid-configuration`.
        "jwksURL" => keys: Option<String>;
    }
}

struct Bearer {
    issuer: String,
    audience: String,
    client: Client,
    /// Where the keys are.
    url: String,
    keys: RwLock<Keys>,
    /// When keys were asked for last. Who holds it asks for them.
    asked: Mutex<Option<Instant>>,
}

struct Keys {
    set: Arc<Vec<Jwk>>,
    since: Instant,
}

/// Finds the provider's keys and fetches them.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let Fields {
        issuer,
        audience,
        keys,
    } = Fields::read(&metadata)?;
    let client = fetch::client(true)?;
    let url = match keys {
        Some(url) => url,
        None => discover(&client, &issuer).await.map_err(|cause| {
            Error::unavailable(format!(
                "failed to retrieve OpenID Configuration document: {cause}"
            ))
        })?,
    };
    let set = key_set(&client, &url)
        .await
        .map_err(|cause| Error::unavailable(format!("failed to fetch JWKS: {cause}")))?;
    let since = Instant::now();
    Ok(Arc::new(Bearer {
        issuer,
        audience,
        client,
        url,
        keys: RwLock::new(Keys {
            set: Arc::new(set),
            since,
        }),
        asked: Mutex::default(),
    }))
}

/// The URL of the keys of a provider.
/// <https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig>
async fn discover(client: &Client, issuer: &str) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Document {
        #[serde(default)]
        issuer: String,
        #[serde(default)]
        jwks_uri: String,
    }
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    let url = format!("{base}/.well-known/openid-configuration");
    let body = fetch::get(client, &url).await?;
    let document: Document = serde_json::from_slice(&body)
        .map_err(|cause| format!("failed to decode JSON response: {cause}"))?;
    if document.jwks_uri.is_empty() {
        return Err("the OpenID Configuration document does not contain a 'jwks_uri'".to_owned());
    }
    if document.issuer != issuer {
        return Err(format!(
            "the issuer found in the OpenID Configuration document ('{}') doesn't match the one provided in the component's metadata ('{issuer}')",
            document.issuer
        ));
    }
    Ok(document.jwks_uri)
}

async fn key_set(client: &Client, url: &str) -> Result<Vec<Jwk>, String> {
    keys_in(&fetch::get(client, url).await?)
}

/// The public keys for signatures in a set. Those of kinds that are not known
/// here leave the others in use.
fn keys_in(set: &[u8]) -> Result<Vec<Jwk>, String> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Value>,
    }
    let set: Set = serde_json::from_slice(set)
        .map_err(|cause| format!("failed to unmarshal JWK set: {cause}"))?;
    let keys = set.keys.into_iter();
    let keys = keys.filter_map(|key| serde_json::from_value(key).ok());
    let fits = |key: &Jwk| {
        let signs = key.common.public_key_use.as_ref();
        let is_public = matches!(
            key.algorithm,
            AlgorithmParameters::RSA(_)
                | AlgorithmParameters::EllipticCurve(_)
                | AlgorithmParameters::OctetKeyPair(_)
        );
        is_public && signs.is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
    };
    Ok(keys.filter(fits).collect())
}

/// Why a token is not accepted; nobody is told.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// It names a key that is not in the set.
    UnknownKey,
    Invalid,
}

impl Bearer {
    fn keys(&self) -> (Arc<Vec<Jwk>>, Instant) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        (keys.set.clone(), keys.since)
    }

    /// Whether the token is the issuer's and for this audience.
    async fn accepts(&self, token: &str) -> bool {
        let (keys, since) = self.keys();
        if since.elapsed() >= KEYS_LAST
            && let Ok(asked) = self.asked.try_lock()
        {
            self.refresh(asked).await;
        }
        match self.verify(token, &keys) {
            Ok(()) => true,
            Err(Refused::Invalid) => false,
            // It may be a new one.
            Err(Refused::UnknownKey) => {
                self.refresh(self.asked.lock().await).await;
                self.verify(token, &self.keys().0).is_ok()
            }
        }
    }

    /// Fetches the keys, unless that was tried just now.
    async fn refresh(&self, mut asked: MutexGuard<'_, Option<Instant>>) {
        if asked.is_some_and(|asked| asked.elapsed() < PAUSE) {
            return;
        }
        *asked = Some(Instant::now());
        match key_set(&self.client, &self.url).await {
            Ok(set) => {
                let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
                *keys = Keys {
                    set: Arc::new(set),
                    since: Instant::now(),
                };
            }
            Err(cause) => {
                tracing::warn!(target: SCOPE, "Error while refreshing JWKS cache: {cause}; the keys before stay in use");
            }
        }
    }

    fn verify(&self, token: &str, keys: &[Jwk]) -> Result<(), Refused> {
        let invalid = |_| Refused::Invalid;
        let header = jsonwebtoken::decode_header(token).map_err(invalid)?;
        let id = header.kid.ok_or(Refused::Invalid)?;
        let mut named = keys
            .iter()
            .filter(|key| key.common.key_id.as_ref() == Some(&id))
            .peekable();
        if named.peek().is_none() {
            return Err(Refused::UnknownKey);
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = SKEW;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        // A token without an expiry would be valid for ever.
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let accepts = |jwk: &Jwk| {
            let of_key = jwk.common.key_algorithm;
            let fits =
                of_key.is_none_or(|of_key| of_key.to_string() == format!("{:?}", header.alg));
            // A key is of one family of algorithms, and good for no other.
            let key = DecodingKey::from_jwk(jwk).ok().filter(|_| fits)?;
            let decoded = jsonwebtoken::decode::<Value>(token, &key, &validation);
            decoded.ok().map(|decoded| decoded.claims)
        };
        let is_of_the_past = |claims: Value| {
            let issued = claims.get("iat").map(Value::as_f64);
            let latest = jsonwebtoken::get_current_timestamp() + SKEW;
            issued.is_none_or(|at| at.is_some_and(|at| at <= latest as f64))
        };
        match named.find_map(accepts).is_some_and(is_of_the_past) {
            true => Ok(()),
            false => Err(Refused::Invalid),
        }
    }
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && token.len() >= SHORTEST).then_some(token)
}

#[async_trait]
impl Middleware for Bearer {
    async fn handle(&self, request: Request, next: Next<'_>) -> Outcome {
        let is_accepted = match token(request.headers()) {
            Some(token) => self.accepts(token).await,
            None => false,
        };
        match is_accepted {
            true => next.run(request).await,
            false => Ok(refusal_by_status(StatusCode::UNAUTHORIZED)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_stands_behind_its_scheme() {
        for (value, wanted) in [
            ("Bearer 0123456789", Some("0123456789")),
            ("bEARER 0123456789", Some("0123456789")),
            ("Bearer 012345678", None),
            ("Bearer", None),
            ("Basic 0123456789", None),
            ("0123456789", None),
        ] {
            let value = HeaderValue::from_static(value);
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
            assert_eq!(token(&headers), wanted);
        }
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn only_public_keys_for_signatures_are_used() {
        let set = br#"{"keys": [
            {"kty": "RSA", "kid": "a", "n": "AQAB", "e": "AQAB", "use": "sig"},
            {"kty": "RSA", "kid": "b", "n": "AQAB", "e": "AQAB", "use": "enc"},
            {"kty": "RSA", "kid": "c", "n": "AQAB", "e": "AQAB"},
            {"kty": "oct", "kid": "d", "k": "c2VjcmV0"},
            {"kty": "new", "kid": "e"}, 7
        ]}"#;
        let keys = keys_in(set).expect("a set");
        let ids: Vec<_> = keys
            .iter()
            .map(|key| key.common.key_id.as_deref())
            .collect();
        assert_eq!(ids, [Some("a"), Some("c")]);
        for wrong in [&b"[]"[..], b"", br#"{"keys": 1}"#] {
            assert!(keys_in(wrong).is_err());
        }
    }
}
