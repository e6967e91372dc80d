//! Counts of certificates that were requested, for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a request for a certificate failed; the words are those of the metrics.
const REASONS: [&str; 6] = [
    "sentry_conn",
    "sentry_token",
    "sign",
    "invalid_ts",
    "jwt_parse",
    "jwt_aud",
];

/// Index of a word in [`REASONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    Connection,
    Token,
    Sign,
    Time,
    JwtForm,
    JwtAudience,
}

/// Numbers that only grow.
#[derive(Debug, Default)]
pub struct Tally {
    /// Certificates issued at the start, and attempts that failed.
    pub first: Numbers,
    /// The same of renewals.
    pub renewals: Numbers,
}

#[derive(Debug, Default)]
pub struct Numbers {
    done: AtomicU64,
    failed: [AtomicU64; REASONS.len()],
}

impl Numbers {
    pub(crate) fn count(&self) {
        self.done.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_failure(&self, reason: Reason) {
        self.failed[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    /// By reason.
    pub fn failed(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.failed.iter().map(|n| n.load(Relaxed));
        REASONS.into_iter().zip(counts)
    }
}
