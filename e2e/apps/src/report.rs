//! A report that several tasks write.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Failures that a report shows.
const SHOWN: usize = 5;

/// Cloning shares it.
#[derive(Debug, Default)]
pub struct Shared<R>(Arc<Mutex<R>>);

impl<R> Clone for Shared<R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<R> Shared<R> {
    pub fn with<T>(&self, change: impl FnOnce(&mut R) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The first failures.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Failures(Vec<String>);

impl Failures {
    pub fn add(&mut self, what: String) {
        if self.0.len() < SHOWN {
            self.0.push(what);
        }
    }
}
