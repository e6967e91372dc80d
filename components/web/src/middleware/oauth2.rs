//! `middleware.http.oauth2`: <https://docs.dapr.io/reference/components-reference/supported-middleware/middleware-oauth2/>.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request};
use outrider_components::middleware::{
    Middleware, Next, Outcome, Request, Response, decoded_path, full, refusal, refusal_by_status,
    target,
};
use outrider_components::{Context, Error, Field, Metadata, Secret, Truthy};
use outrider_kit::pattern::Pattern;

use super::fetch;
use super::session::{Sessions, set_cookie};
use super::token::{AuthStyle, TokenEndpoint};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";

outrider_components::fields! {
    struct Fields {
        /// The id of the client at the server.
        "clientID" => id: String;
        /// The secret of the client.
        "clientSecret" => secret: Secret;
        /// Scopes that are asked for, with commas between them.
        "scopes" => scopes: Option<String>;
        /// Where browsers log in.
        "authURL" => auth_url: String;
        /// Where the sidecar gets tokens.
        "tokenURL" => token_url: String;
        /// The header that the token is put into. What a client sends in it is
        /// replaced.
        "authHeaderName" => header: String = "Authorization";
        /// Where the server sends browsers back to.
        "redirectURL" => redirect: Option<String>;
        /// Whether browsers are sent back by `https`, and their cookie with
        /// `https` only.
        "forceHTTPS" => https: Truthy = "false";
        /// A regular expression: requests with paths that it does not match
        /// need no login.
        "pathFilter" => filter: Option<String>;
    }
}

struct OAuth2 {
    endpoint: TokenEndpoint,
    auth_url: String,
    id: String,
    redirect: Option<String>,
    /// With blanks between them.
    scopes: String,
    header: HeaderName,
    https: bool,
    filter: Option<Pattern>,
    sessions: Sessions,
}

/// Reads the metadata. The server is not asked for anything yet.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Middleware>, Error> {
    let fields = Fields::read(&metadata)?;
    let filter = fields.filter.as_deref().map(Pattern::new).transpose();
    let Truthy(https) = fields.https;
    Ok(Arc::new(OAuth2 {
        endpoint: TokenEndpoint::new(
            fetch::client(false)?,
            fields.token_url,
            fields.id.clone(),
            fields.secret,
            AuthStyle::Auto,
        ),
        auth_url: fields.auth_url,
        id: fields.id,
        redirect: fields.redirect,
        scopes: fields.scopes.unwrap_or_default().replace(',', " "),
        header: HeaderName::try_from(&fields.header)
            .map_err(|_| metadata.wrong("authHeaderName", "must be the name of a header"))?,
        https,
        filter: filter.map_err(|cause| metadata.wrong("pathFilter", cause))?,
        sessions: Sessions::default(),
    }))
}

/// The first parameter of this name.
fn parameter(uri: &Uri, name: &str) -> String {
    let query = uri.query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let found = pairs.find(|(key, _)| key == name);
    found
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn found(location: &str, cookie: &str) -> Outcome {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::FOUND;
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, HeaderValue::try_from(location)?);
    headers.insert(header::SET_COOKIE, HeaderValue::try_from(cookie)?);
    let no_store = HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    Ok(response)
}

impl OAuth2 {
    /// Sends a browser to log in.
    fn login(&self, request: &Request) -> Outcome {
        let (state, browser) = self
            .sessions
            .begin(request.headers(), target(request.uri()));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .append_pair("access_type", "offline")
            .append_pair("client_id", &self.id);
        if let Some(redirect) = &self.redirect {
            query.append_pair("redirect_uri", redirect);
        }
        query.append_pair("response_type", "code");
        if !self.scopes.is_empty() {
            query.append_pair("scope", &self.scopes);
        }
        query.append_pair("state", &state);
        let separator = if self.auth_url.contains('?') {
            '&'
        } else {
            '?'
        };
        let url = format!("{}{separator}{}", self.auth_url, query.finish());
        found(&url, &set_cookie(&browser, self.https))
    }

    /// Takes a browser back that has logged in, to what it asked for.
    async fn back(&self, parts: &request::Parts, state: &str) -> Outcome {
        let Some(target) = self.sessions.finish(&parts.headers, state) else {
            return Ok(refusal(StatusCode::BAD_REQUEST, "invalid state"));
        };
        let code = parameter(&parts.uri, "code");
        if code.is_empty() {
            return Ok(refusal(StatusCode::BAD_REQUEST, "code not found"));
        }
        let mut parameters = vec![("grant_type", "authorization_code"), ("code", &code)];
        if let Some(redirect) = &self.redirect {
            parameters.push(("redirect_uri", redirect));
        }
        let token = match self.endpoint.ask(&parameters).await {
            Ok(token) => token,
            Err(cause) => {
                tracing::error!(target: SCOPE, "Failed to exchange token: {cause}");
                return Ok(refusal_by_status(StatusCode::INTERNAL_SERVER_ERROR));
            }
        };
        let id = self.sessions.keep(token.header, token.lasts);
        let location = self.location(&parts.headers, &target);
        found(&location, &set_cookie(&id, self.https))
    }

    /// Where a browser is sent that asked for `target`: never to another host.
    fn location(&self, headers: &HeaderMap, target: &str) -> String {
        let path = format!("/{}", target.trim_start_matches(['/', '\\']));
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        match host.filter(|_| self.https) {
            Some(host) => format!("https://{host}{path}"),
            None => path,
        }
    }
}

#[async_trait]
impl Middleware for OAuth2 {
    async fn handle(&self, mut request: Request, next: Next<'_>) -> Outcome {
        let passes = |filter: &Pattern| super::is_exempt(filter, &decoded_path(request.uri()));
        if self.filter.as_ref().is_some_and(passes) {
            return next.run(request).await;
        }
        if let Some(value) = self.sessions.value(request.headers()) {
            request.headers_mut().insert(&self.header, value);
            return next.run(request).await;
        }
        match parameter(request.uri(), "state") {
            state if state.is_empty() => self.login(&request),
            state => {
                let (parts, _) = request.into_parts();
                self.back(&parts, &state).await
            }
        }
    }
}
