//! What the clients of a listener may use.

use std::time::Duration;

use super::slots::Caps;

/// Limits of one listener. Requests and connections that exceed them are refused
/// or closed, those of other clients are not affected.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// All connections.
    pub connections: usize,
    /// Connections of one address. Behind address translation that may be a
    /// whole node.
    pub per_source: usize,
    /// HTTP/2 streams of a connection at once.
    pub streams: u32,
    /// Bytes of a request's headers.
    pub headers: u32,
    /// Bytes of a request's body.
    pub body: usize,
    /// Bytes of all requests' bodies that are held at once.
    pub bodies: usize,
    /// From the accept to the end of the first request's head, and from the
    /// first byte of a later head to its end.
    pub head_time: Duration,
    /// From the head of a request to the end of its body; none where requests are
    /// streams without end, whose messages the reader bounds.
    pub body_time: Option<Duration>,
    /// From the head of a request to the end of its answer; none where answers
    /// are streams without end.
    pub answer_time: Option<Duration>,
    /// Without a request.
    pub idle_time: Duration,
    /// Clients of HTTP/2 are pinged after this much silence.
    pub ping_after: Duration,
    /// Those that do not answer a ping for this long are given up.
    pub ping_timeout: Duration,
}

/// Connections with an unfinished handshake, head or body: of all sources, and
/// of one.
const WAITING: usize = 512;
const WAITING_PER_SOURCE: usize = 256;

impl Limits {
    /// For small requests that are answered at once, of clients that are not
    /// authenticated by their connection.
    pub const UNAUTHENTICATED: Self = Self {
        connections: 1024,
        per_source: 576,
        streams: 16,
        headers: 16 << 10,
        body: 256 << 10,
        bodies: 8 << 20,
        head_time: Duration::from_secs(10),
        body_time: Some(Duration::from_secs(10)),
        answer_time: Some(Duration::from_secs(60)),
        idle_time: Duration::from_secs(120),
        ping_after: Duration::from_secs(30),
        ping_timeout: Duration::from_secs(10),
    };

    /// For reviews of single objects by the API server, which knows no
    /// certificate of ours. It takes 3 MiB of an object itself.
    pub const REVIEWS: Self = Self {
        streams: 128,
        body: 4 << 20,
        bodies: 12 << 20,
        body_time: Some(Duration::from_secs(20)),
        ..Self::UNAUTHENTICATED
    };

    /// For conversions by the API server, which converts whole lists at once.
    pub const CONVERSIONS: Self = Self {
        body: 16 << 20,
        bodies: 32 << 20,
        ..Self::REVIEWS
    };

    /// For clients with certificates of ours, whose requests are single messages
    /// and whose answers are streams for as long as they live.
    pub const WORKLOADS: Self = Self {
        connections: 32_768,
        per_source: 4096,
        streams: 128,
        answer_time: None,
        idle_time: Duration::from_secs(600),
        ..Self::UNAUTHENTICATED
    };

    /// For clients with certificates of ours that send streams for as long as they
    /// live.
    pub const STREAMS: Self = Self {
        body_time: None,
        ..Self::WORKLOADS
    };

    /// For pages of text about the process.
    pub const PAGES: Self = Self {
        connections: 256,
        per_source: 128,
        body: 0,
        bodies: 0,
        ..Self::UNAUTHENTICATED
    };

    /// For sidecars, whose clients are their application and other sidecars, and
    /// keep as many connections as they like. The sidecar has limits of its own for
    /// the rest.
    pub const SIDECAR: Self = Self {
        connections: 65_536,
        per_source: 65_536,
        ..Self::WORKLOADS
    };

    pub(super) fn caps(&self) -> Caps {
        Caps {
            connections: self.connections,
            per_source: self.per_source,
            waiting: WAITING.min(self.connections),
            waiting_per_source: WAITING_PER_SOURCE.min(self.per_source),
            bodies: self.bodies,
        }
    }
}
