//! PEM in and out. Text around the blocks is skipped, as in RFC 7468, section 2.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("no certificates found")]
    NoCertificates,
    #[error("malformed PEM: {0}")]
    Malformed(String),
}

/// Every certificate of a PEM text, at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Error::Malformed(e.to_string()))?;
    if found.is_empty() {
        return Err(Error::NoCertificates);
    }
    Ok(found)
}

/// One block, with lines of 64 characters.
pub fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    out.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

pub fn encode_certificates<'a>(
    chain: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    chain
        .into_iter()
        .map(|der| encode("CERTIFICATE", der))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prop_encoded_certificates_read_back(
            ders in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..200), 1..4)
        ) {
            let chain: Vec<_> = ders.iter().map(|d| CertificateDer::from(d.clone())).collect();
            let text = format!("a comment\n{}", encode_certificates(&chain));
            prop_assert_eq!(certificates(text.as_bytes()), Ok(chain));
        }

        #[test]
        fn prop_reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = certificates(&bytes);
        }
    }

    #[test]
    fn a_text_without_certificates_is_an_error() {
        assert_eq!(certificates(b""), Err(Error::NoCertificates));
        let key = encode("PRIVATE KEY", b"x");
        assert_eq!(certificates(key.as_bytes()), Err(Error::NoCertificates));
    }
}
