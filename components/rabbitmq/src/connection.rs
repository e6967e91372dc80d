//! How a server is reached, and names and errors of AMQP.

use std::time::Duration;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::ShortString;
use lapin::uri::{AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use outrider_components::{Error, Kind, Secret};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a server is, and as whom to connect.
#[derive(Clone)]
pub struct Settings {
    uri: AMQPUri,
    tls: Tls,
    client_name: Option<String>,
}

/// Certificates and the key, in PEM.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub authority: Option<String>,
    pub certificate: Option<String>,
    pub key: Option<Secret>,
    /// The certificate says who the client is, instead of a password.
    pub is_identity: bool,
}

impl Settings {
    /// Reads a URI such as `amqp://user:password@host:port/vhost`.
    pub fn new(
        uri: &str,
        tls: Tls,
        heartbeat: Duration,
        client_name: Option<String>,
    ) -> Result<Settings, Error> {
        let mut uri: AMQPUri = uri.parse().map_err(|error: String| Error::invalid(error))?;
        if uri.vhost.is_empty() {
            uri.vhost = "/".to_owned();
        }
        if uri.query.heartbeat.is_none() {
            let seconds = u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX);
            uri.query.heartbeat = Some(seconds);
        }
        if tls.is_identity {
            uri.query.auth_mechanism = Some(SASLMechanism::External);
        }
        Ok(Settings {
            uri,
            tls,
            client_name,
        })
    }

    /// `amqp` or `amqps`.
    pub fn scheme(&self) -> &'static str {
        match self.uri.scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        }
    }

    pub async fn connect(&self) -> Result<Connection, Error> {
        let mut properties = ConnectionProperties::default();
        if let Some(name) = &self.client_name {
            properties = properties.with_connection_name(name.as_str().into());
        }
        let identity = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), Some(key)) => Some(OwnedIdentity::PKCS8 {
                pem: certificate.clone().into_bytes(),
                key: key.0.clone().into_bytes(),
            }),
            _ => None,
        };
        let tls = OwnedTLSConfig {
            identity,
            cert_chain: self.tls.authority.clone(),
        };
        let runtime = lapin::runtime::default_runtime().map_err(failed)?;
        let connecting =
            Connection::connect_uri_with_config(self.uri.clone(), properties, tls, runtime);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(failed),
            Err(_) => Err(Error::unavailable("the server did not answer in time")),
        }
    }
}

/// How an error of AMQP looks to the runtime.
pub fn failed(error: lapin::Error) -> Error {
    let kind = match error.kind() {
        ErrorKind::ProtocolError(_) => Kind::Internal,
        ErrorKind::AuthProviderError(_) => Kind::Denied,
        _ => Kind::Unavailable,
    };
    Error::new(kind, error.to_string()).because(error)
}

/// A name as AMQP takes it.
pub fn name(text: &str) -> Result<ShortString, Error> {
    ShortString::try_new(text)
        .map_err(|_| Error::invalid(format!("{text} is longer than the 255 bytes of AMQP")))
}

/// Closes a channel, which gives back what was not acknowledged.
pub async fn close_channel(channel: &Channel) {
    // One that is closed already has nothing to give back.
    let _ = channel.close(200, "OK".into()).await;
}
