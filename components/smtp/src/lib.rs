//! Components that send mail.

mod bindings;
mod connection;

outrider_components::components! {
    bindings: bindings {
        names: &["smtp"],
        versions: Initial,
        status: Alpha,
        tested: Conformance("aiosmtpd: with and without TLS, with a password"),
        file: "components/smtp/src/bindings.rs",
    }
}
