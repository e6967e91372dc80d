//! `middleware.http.oauth2clientcredentials`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-oauth2clientcredentials/>.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, StatusCode};
use outrider_components::middleware::{
    Middleware, Next, Outcome, Request, decoded_path, refusal_by_status,
};
use outrider_components::{Context, Error, Field, FieldValue, Metadata, Secret};
use outrider_kit::pattern::Pattern;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch;
use super::token::{AuthStyle, TokenEndpoint};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

/// A token that does not say how long it lasts is used for this long.
const UNSAID: Duration = Duration::from_secs(3600);
/// A token is not used any more when so little of its time is left.
const EARLY: Duration = Duration::from_secs(10);
/// After a failure the server is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

outrider_components::fields! {
    struct Fields {
        /// The id of the client at the server.
        "clientID" => id: String, missing "metadata errors: Parameter 'clientID' needs to be set. ";
        /// The secret of the client.
        "clientSecret" => secret: Secret, missing "metadata errors: Parameter 'clientSecret' needs to be set. ";
        /// Scopes that are asked for, with commas between them.
        "scopes" => scopes: Option<String>;
        /// Where the sidecar gets tokens.
        "tokenURL" => url: String, missing "metadata errors: Parameter 'tokenURL' needs to be set. ";
        /// The header that the token is put into. What a client sends in it is
        /// replaced.
        "headerName" => header: String, missing "metadata errors: Parameter 'headerName' needs to be set. ";
        /// Further parameters for the server, `name=value` with `&` between
        /// them.
        "endpointParamsQuery" => more: Option<String>;
        /// How the client proves who it is: in the body (1), by Basic
        /// credentials (2), or as the server turns out to want it (0).
        "authStyle" => style: Style = "0";
        /// A regular expression: requests with paths that it does not match
        /// get no token.
        "pathFilter" => filter: Option<String>;
    }
}

#[derive(Debug, Clone, Copy)]
struct Style(AuthStyle);

impl FieldValue for Style {
    const KIND: &'static str = "number";

    fn parse(text: &str) -> Result<Style, String> {
        match text {
            "0" => Ok(Style(AuthStyle::Auto)),
            "1" => Ok(Style(AuthStyle::Params)),
            "2" => Ok(Style(AuthStyle::Header)),
            other => Err(format!(
                "can only have the values 0,1,2. Received: '{other}'"
            )),
        }
    }
}

struct ClientCredentials {
    endpoint: TokenEndpoint,
    parameters: Vec<(String, String)>,
    header: HeaderName,
    filter: Option<Pattern>,
    token: RwLock<Option<Held>>,
    /// Who holds it asks the server; when that failed last.
    failed: Mutex<Option<Instant>>,
}

/// A token in use.
struct Held {
    header: HeaderValue,
    until: Instant,
}

/// Reads the metadata. The first request asks for the token.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let fields = Fields::read(&metadata)?;
    let Style(style) = fields.style;
    let filter = fields.filter.as_deref().map(Pattern::new).transpose();
    let mut parameters = vec![("grant_type".to_owned(), "client_credentials".to_owned())];
    if let Some(scopes) = fields.scopes {
        parameters.push(("scope".to_owned(), scopes.replace(',', " ")));
    }
    let more = fields.more.unwrap_or_default();
    parameters.extend(form_urlencoded::parse(more.as_bytes()).into_owned());
    Ok(Arc::new(ClientCredentials {
        endpoint: TokenEndpoint::new(
            fetch::client(false)?,
            fields.url,
            fields.id,
            fields.secret,
            style,
        ),
        parameters,
        header: HeaderName::try_from(&fields.header)
            .map_err(|_| metadata.wrong("headerName", "must be the name of a header"))?,
        filter: filter.map_err(|cause| {
            Error::invalid(format!(
                "metadata errors: Parameter 'pathFilter' is not a valid regex: {cause}. "
            ))
        })?,
        token: RwLock::default(),
        failed: Mutex::default(),
    }))
}

impl ClientCredentials {
    fn held(&self) -> Option<HeaderValue> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let held = token.as_ref().filter(|held| held.until > Instant::now());
        held.map(|held| held.header.clone())
    }

    /// The token in use, or else a new one; one request asks for all.
    async fn token(&self) -> Option<HeaderValue> {
        if let Some(held) = self.held() {
            return Some(held);
        }
        let mut failed = self.failed.lock().await;
        if let Some(held) = self.held() {
            return Some(held);
        }
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            return None;
        }
        let pairs = self.parameters.iter();
        let pairs: Vec<_> = pairs.map(|(name, value)| (&**name, &**value)).collect();
        match self.endpoint.ask(&pairs).await {
            Ok(token) => {
                let lasts = token.lasts.unwrap_or(UNSAID).saturating_sub(EARLY);
                let now = Instant::now();
                let held = Held {
                    header: token.header.clone(),
                    until: now.checked_add(lasts).unwrap_or(now + UNSAID),
                };
                *self.token.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
                *failed = None;
                Some(token.header)
            }
            Err(cause) => {
                tracing::error!(target: SCOPE, "Error acquiring token: {cause}");
                *failed = Some(Instant::now());
                None
            }
        }
    }
}

#[async_trait]
impl Middleware for ClientCredentials {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Outcome {
        let passes = |filter: &Pattern| super::is_exempt(filter, &decoded_path(request.uri()));
        if self.filter.as_ref().is_some_and(passes) {
            return next.run(request).await;
        }
        match self.token().await {
            Some(token) => {
                request.headers_mut().insert(&self.header, token);
                next.run(request).await
            }
            None => Ok(refusal_by_status(StatusCode::INTERNAL_SERVER_ERROR)),
        }
    }
}
