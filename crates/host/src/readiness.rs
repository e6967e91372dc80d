//! Readiness as the conjunction of named parts.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

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
    /// Why it is not, where that is known.
    why: Arc<Mutex<Option<String>>>,
}

impl Target {
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    pub fn not_ready(&self) {
        self.set_why(None);
        self.ready.store(false, Ordering::Release);
    }

    /// The health page shows the reason.
    pub fn not_ready_because(&self, why: String) {
        self.set_why(Some(why));
        self.ready.store(false, Ordering::Release);
    }

    fn set_why(&self, why: Option<String>) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn described(&self) -> String {
        let why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        match &*why {
            Some(why) => format!("{} ({why})", self.name),
            None => self.name.to_owned(),
        }
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
            why: Arc::default(),
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

    /// The parts that are not ready, in the order they were added: their names,
    /// with reasons where there are some.
    pub fn pending(&self) -> Vec<String> {
        self.read()
            .iter()
            .filter(|t| !t.is_ready())
            .map(Target::described)
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
        a.not_ready_because("it is late".to_owned());
        assert_eq!(readiness.pending(), ["a (it is late)"]);
    }
}
