mod calls;
mod change;
mod components;
mod proxied;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A Resiliency resource called `rules`; policies and targets are YAML of one
/// line each.
fn resource(policies: &str, targets: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {{name: rules}}\nspec:\n  policies: {policies}\n  targets: {targets}\n"
    )
}

/// Policies for calls of `called`.
fn for_calls(policies: &str, target: &str) -> String {
    resource(policies, &format!("{{apps: {{called: {target}}}}}"))
}

/// Counts calls.
#[derive(Debug, Clone, Default)]
struct Calls(Arc<AtomicU32>);

impl Calls {
    /// The number of this call, from 1 on.
    fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn take(&self) -> u32 {
        self.0.swap(0, Ordering::SeqCst)
    }
}
