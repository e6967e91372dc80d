//! An identity provider: OpenID Connect discovery, keys, logins and tokens.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The only client.
pub const ID: &str = "client id";
pub const SECRET: &str = "s&cret";

/// A key pair with an id.
pub struct Key {
    id: String,
    pair: KeyPair,
}

impl Key {
    pub fn new(id: &str) -> Key {
        Key {
            id: id.to_owned(),
            pair: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"),
        }
    }

    pub fn jwk(&self) -> Value {
        // An uncompressed point: one byte, and the two coordinates.
        let point = self.pair.public_key_raw();
        let (x, y) = point[1..].split_at(32);
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "use": "sig", "x": text(x), "y": text(y)})
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.id.clone());
        let key = EncodingKey::from_ec_der(&self.pair.serialize_der());
        jsonwebtoken::encode(&header, claims, &key).expect("a token")
    }
}

/// What the provider answers with, and what it was asked.
#[derive(Default)]
pub struct Behaviour {
    /// The issuer that discovery tells; its own URL without.
    pub issuer: Option<String>,
    pub keys: Vec<Value>,
    /// Whether the client has to be in the body of a token's request.
    pub in_body: bool,
    /// Seconds that tokens last.
    pub expires_in: Option<u64>,
    /// Whether no token is given.
    pub fails: bool,
    /// Requests for keys.
    pub key_requests: usize,
    /// Forms that came with the requests for tokens.
    pub forms: Vec<HashMap<String, String>>,
}

type Shared = Arc<Mutex<Behaviour>>;

/// A running provider; dropping it ends it.
pub struct Provider {
    pub url: String,
    shared: Shared,
    _server: JoinSet<()>,
}

impl Provider {
    pub async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("is bound"));
        let shared = Shared::default();
        let discovery = {
            let url = url.clone();
            async move |State(shared): State<Shared>| {
                let issuer = locked(&shared).issuer.clone().unwrap_or(url.clone());
                Json(json!({"issuer": issuer, "jwks_uri": format!("{url}/keys")}))
            }
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Provider {
            url,
            shared,
            _server: server,
        }
    }

    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut locked(&self.shared));
    }

    pub fn key_requests(&self) -> usize {
        locked(&self.shared).key_requests
    }

    /// The forms of requests for tokens so far.
    pub fn forms(&self) -> Vec<HashMap<String, String>> {
        locked(&self.shared).forms.clone()
    }
}

fn locked(shared: &Shared) -> std::sync::MutexGuard<'_, Behaviour> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn keys(State(shared): State<Shared>) -> Json<Value> {
    let mut behaviour = locked(&shared);
    behaviour.key_requests += 1;
    Json(json!({"keys": behaviour.keys}))
}

/// Logs in whoever comes.
async fn authorize(Query(query): Query<HashMap<String, String>>) -> Response {
    let wanted = query.get("response_type").map(String::as_str) == Some("code")
        && query.get("client_id").map(String::as_str) == Some(ID);
    let (Some(back), Some(state), true) = (query.get("redirect_uri"), query.get("state"), wanted)
    else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let back = format!("{back}?code=right&state={state}");
    (StatusCode::FOUND, [("location", back)]).into_response()
}

async fn token(State(shared): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let form: HashMap<String, String> = form_urlencoded::parse(body.as_bytes())
        .into_owned()
        .collect();
    let mut behaviour = locked(&shared);
    behaviour.forms.push(form.clone());
    let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let basic = format!("Basic {}", STANDARD.encode("client+id:s%26cret"));
    let known = match behaviour.in_body {
        true => is("client_id", ID) && is("client_secret", SECRET),
        false => headers
            .get("authorization")
            .is_some_and(|given| *given == basic),
    };
    let granted = is("grant_type", "client_credentials") || is("code", "right");
    if behaviour.fails || !known || !granted {
        let body = json!({"error": "invalid_client", "error_description": SECRET});
        return (StatusCode::UNAUTHORIZED, Json(body)).into_response();
    }
    let number = behaviour.forms.len();
    let mut body = json!({"access_token": format!("token{number}"), "token_type": "bearer"});
    if let Some(seconds) = behaviour.expires_in {
        body["expires_in"] = seconds.into();
    }
    Json(body).into_response()
}
