//! The process-wide choice of cryptography.

/// Makes aws-lc-rs the provider of every TLS configuration; calling it again
/// changes nothing.
pub fn install() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
