//! What goes wrong with TLS, in the words that Go has for it.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// What TLS has to do with a failure, if anything.
pub fn of_io(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref().map(text)
}

pub fn text(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(cause) => {
            let cause = match cause {
                CertificateError::UnknownIssuer => {
                    "certificate signed by unknown authority".to_owned()
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => {
                    "certificate has expired or is not yet valid".to_owned()
                }
                CertificateError::NotValidForName => {
                    "certificate is not valid for this name".into()
                }
                CertificateError::NotValidForNameContext {
                    expected,
                    presented,
                } => format!(
                    "certificate is valid for {}, not {}",
                    presented.join(", "),
                    expected.to_str()
                ),
                other => other.to_string(),
            };
            format!("tls: failed to verify certificate: x509: {cause}")
        }
        rustls::Error::AlertReceived(alert) => {
            let alert = match alert {
                AlertDescription::CertificateRequired => "certificate required",
                AlertDescription::BadCertificate => "bad certificate",
                AlertDescription::UnknownCA => "unknown certificate authority",
                AlertDescription::HandshakeFailure => "handshake failure",
                AlertDescription::ProtocolVersion => "protocol version not supported",
                other => return format!("remote error: tls: {other:?}"),
            };
            format!("remote error: tls: {alert}")
        }
        rustls::Error::InvalidMessage(_) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        other => format!("tls: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_go() {
        let refused = rustls::Error::AlertReceived(AlertDescription::CertificateRequired);
        assert_eq!(
            of_io(&io::Error::other(refused)).as_deref(),
            Some("remote error: tls: certificate required")
        );
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert_eq!(
            text(&unknown),
            "tls: failed to verify certificate: x509: certificate signed by unknown authority"
        );
        assert_eq!(of_io(&io::Error::other("else")), None);
    }
}
