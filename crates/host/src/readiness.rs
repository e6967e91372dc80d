//! Readiness as the conjunction of named parts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

/// Ready when every one of its targets is. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    targets: Arc<RwLock<Vec<Target>>>,
}

/// One part of a process that has to be ready, and may stop being so.
#[derive(Clone, Debug)]
pub struct Target {
    name: &'static str,
    ready: Arc<AtomicBool>,
}

impl Target {
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub fn not_ready(&self) {
        self.ready.store(false, Ordering::Release);
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part, not ready yet.
    pub fn target(&self, name: &'static str) -> Target {
        let target = Target {
            name,
            ready: Arc::default(),
        };
        self.targets
            .write()
            .unwrap_or_else(|e| e.into_inner())
            .push(target.clone());
        target
    }

    pub fn is_ready(&self) -> bool {
        self.read().iter().all(Target::is_ready)
    }

    /// Names of the parts that are not ready, in the order they were added.
    pub fn pending(&self) -> Vec<&'static str> {
        self.read()
            .iter()
            .filter(|t| !t.is_ready())
            .map(|t| t.name)
            .collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Target>> {
        self.targets.read().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_not_ready_are_named() {
        let readiness = Readiness::new();
        let (a, b) = (readiness.target("a"), readiness.target("b"));
        assert_eq!(readiness.pending(), ["a", "b"]);
        a.ready();
        b.ready();
        assert!(readiness.is_ready());
        a.not_ready();
        assert_eq!(readiness.pending(), ["a"]);
    }
}
