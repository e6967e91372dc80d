//! Everything that reads bytes from outside, by name. Each target has examples
//! in `corpus/<name>`; `tests/corpus.rs` runs them all, and `libfuzzer/` looks
//! for more.

mod text;

use std::path::PathBuf;

use outrider_components_local::nameresolution::mdns;

/// A target panics on a bug.
pub type Target = fn(&[u8]);

pub const TARGETS: [(&str, Target); 20] = [
    ("access", text::access),
    ("address", outrider_sidecar::fuzz::address),
    ("annotations", text::annotations),
    ("answers", outrider_sidecar::fuzz::answers),
    ("bodies", outrider_sidecar::fuzz::bodies),
    ("certificates", text::certificates),
    ("configuration", outrider_sidecar::fuzz::configuration),
    ("documents", outrider_sidecar::fuzz::documents),
    ("event", outrider_sidecar::fuzz::event),
    ("frames", outrider_sidecar::fuzz::frames),
    ("ids", text::ids),
    ("keys", text::keys),
    ("mdns", mdns::fuzz::packet),
    ("peer", outrider_sidecar::fuzz::peer),
    ("quantities", text::quantities),
    ("request", outrider_sentry::fuzz::request),
    ("resources", text::resources),
    ("review", outrider_injector::fuzz::review),
    ("schedules", text::schedules),
    ("traces", outrider_sidecar::fuzz::traces),
];

/// The folder of the examples, in the clone that runs: clones may share what
/// was built.
pub fn corpus() -> PathBuf {
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(here).join("corpus")
}

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    let (_, target) = TARGETS.iter().find(|(one, _)| *one == name)?;
    Some(*target)
}
