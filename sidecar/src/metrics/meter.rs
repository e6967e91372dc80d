//! Counts a body as it passes, and tells when it is over.

use http::HeaderMap;

use super::grpc::Proxied;
use super::http::{Answered, Sent};
use super::service::Passed;

/// Tells whoever wants to know how a body went, once.
pub struct Meter(Option<Of>);

enum Of {
    /// An answer of the HTTP API, or of an HTTP application.
    Answer(Answered),
    /// A request to an HTTP application.
    Request(Sent),
    /// An answer of gRPC, which ends with a status.
    Grpc(Proxied),
    /// The same of another application.
    Passed(Passed),
}

impl Meter {
    pub fn data(&mut self, bytes: usize) {
        match &mut self.0 {
            Some(Of::Answer(answer)) => answer.bytes += bytes as u64,
            Some(Of::Request(sent)) => sent.bytes += bytes as u64,
            Some(Of::Grpc(call)) => call.data(bytes),
            Some(Of::Passed(_)) | None => {}
        }
    }

    pub fn trailers(&mut self, trailers: &HeaderMap) {
        match &mut self.0 {
            Some(Of::Grpc(call)) => call.trailers(trailers),
            Some(Of::Passed(call)) => call.trailers(trailers),
            _ => {}
        }
    }

    /// Nothing follows, whether the body ended well or not.
    pub fn over(&mut self) {
        match self.0.take() {
            Some(Of::Answer(answer)) => answer.record(),
            Some(Of::Request(sent)) => sent.record(),
            Some(Of::Grpc(call)) => call.record(),
            Some(Of::Passed(call)) => call.record(),
            None => {}
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.over();
    }
}

impl From<Answered> for Meter {
    fn from(answered: Answered) -> Self {
        Self(Some(Of::Answer(answered)))
    }
}

impl From<Sent> for Meter {
    fn from(sent: Sent) -> Self {
        Self(Some(Of::Request(sent)))
    }
}

impl From<Proxied> for Meter {
    fn from(call: Proxied) -> Self {
        Self(Some(Of::Grpc(call)))
    }
}

impl From<Passed> for Meter {
    fn from(call: Passed) -> Self {
        Self(Some(Of::Passed(call)))
    }
}
