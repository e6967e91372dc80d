//! `bindings.http`: <https://docs.dapr.io/reference/components-reference/supported-bindings/http/>.

mod call;
mod redirects;
mod tls;
pub mod url;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::bindings::{Answer, Binding, Failure, Output, Request};
use outrider_components::{Context, Error, Field, FieldValue, Metadata, Secret, Truthy};
use outrider_kit::quantity;
use reqwest::Client;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// How long connecting and a TLS handshake may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

const OPERATIONS: [&str; 9] = [
    "create", "get", "head", "post", "put", "patch", "delete", "options", "trace",
];

outrider_components::fields! {
    struct Fields {
        /// The URL that is called, `http` or `https`. The metadata `path` of a
        /// request is put behind it, and cannot lead out of it.
        "url" => url: String;
        /// How long a request may take; any time if absent.
        "responseTimeout" => timeout: Option<Duration>;
        /// Bytes of an answer's body that are read, such as `10Mi`; the rest is
        /// left out. All of it with 0 or less.
        "maxResponseBodySize" => longest: Bytes = "100Mi";
        /// Certificates that the server's one has to be issued by, instead of
        /// those that the machine trusts: PEM, or the path of a file.
        "MTLSRootCA" => root: Option<String>;
        /// Client certificate chain: PEM, or the path of a file. Used if there
        /// is a key too.
        "MTLSClientCert" => certificate: Option<String>;
        /// Key of the client certificate: PEM, or the path of a file.
        "MTLSClientKey" => key: Option<Secret>;
        /// `RenegotiateNever`. A component with `RenegotiateOnceAsClient` or
        /// `RenegotiateFreelyAsClient` does not start: TLS is never
        /// renegotiated.
        "MTLSRenegotiation" => renegotiation: Option<String>;
        /// Sent with every request in the header `securityTokenHeader`.
        "securityToken" => token: Option<Secret>;
        /// The header of `securityToken`.
        "securityTokenHeader" => token_header: Option<String>;
        /// Whether a status other than 2xx is an error. The metadata of a
        /// request may say otherwise.
        "errorIfNot2XX" => strict: Truthy = "true";
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bytes(i64);

impl FieldValue for Bytes {
    const KIND: &'static str = "bytesize";

    fn parse(text: &str) -> Result<Bytes, String> {
        quantity::parse(text)
            .map(Bytes)
            .map_err(|error| format!("must be a number of bytes: {error}"))
    }
}

struct Http {
    client: Client,
    base: url::Base,
    timeout: Option<Duration>,
    /// Bytes of a body; all without it.
    longest: Option<usize>,
    /// Header and token.
    token: Option<(String, Secret)>,
    /// Whether the client has a certificate.
    certified: bool,
    strict: bool,
}

/// Connects with the first request.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    let base = url::Base::parse(&fields.url).map_err(|what| metadata.wrong("url", what))?;
    match fields.renegotiation.as_deref() {
        None | Some("RenegotiateNever") => {}
        Some("RenegotiateOnceAsClient" | "RenegotiateFreelyAsClient") => {
            return Err(metadata.wrong(
                "MTLSRenegotiation",
                "can only be RenegotiateNever: TLS is never renegotiated, let the server ask for a certificate in the handshake",
            ));
        }
        Some(other) => {
            return Err(Error::invalid(format!(
                "invalid renegotiation value: {other}"
            )));
        }
    }
    let certified = fields.certificate.is_some() && fields.key.is_some();
    let token = fields.token_header.zip(fields.token);
    let builder = Client::builder()
        .connect_timeout(CONNECT_LIMIT)
        .user_agent("Go-http-client/1.1")
        .redirect(redirects::policy());
    let builder = tls::configure(
        builder,
        fields.root.as_deref(),
        fields.certificate.as_deref(),
        fields.key.as_ref(),
    )
    .await?;
    let client = builder.build().map_err(|error| {
        let text = outrider_kit::error::chain(&error);
        Error::invalid(format!("the HTTP client cannot be made: {text}"))
    })?;
    let http = Http {
        client,
        base,
        timeout: fields.timeout.filter(|timeout| !timeout.is_zero()),
        longest: usize::try_from(fields.longest.0).ok().filter(|n| *n > 0),
        token,
        certified,
        strict: fields.strict.0,
    };
    Ok(Binding::of_output(&metadata, http))
}

#[async_trait]
impl Output for Http {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        call::run(self, request).await.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn error(pairs: &[(&str, &str)]) -> String {
        let metadata = Metadata::new("b", pairs.iter().copied());
        let connected = connect(metadata, Context::default()).await;
        connected.err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_by_name() {
        let url = ("url", "http://localhost");
        for (pairs, wanted) in [
            (vec![], "component b: property url is missing or empty"),
            (
                vec![("url", "ftp://x")],
                r#"component b: property url must be an http or https URL, not "ftp://x""#,
            ),
            (
                vec![url, ("MTLSRenegotiation", "Sometimes")],
                "invalid renegotiation value: Sometimes",
            ),
            (
                vec![url, ("maxResponseBodySize", "many")],
                "component b: property maxResponseBodySize must be a number of bytes",
            ),
            (
                vec![url, ("MTLSRootCA", "/no/such/file")],
                r#"provided "MTLSRootCA" value is neither a valid file path or nor a valid pem encoded string"#,
            ),
        ] {
            let text = error(&pairs).await;
            assert!(text.starts_with(wanted), "{text}");
        }
        for often in ["RenegotiateOnceAsClient", "RenegotiateFreelyAsClient"] {
            let text = error(&[url, ("MTLSRenegotiation", often)]).await;
            assert!(text.contains("property MTLSRenegotiation"), "{text}");
        }
    }
}
