//! Bindings in both directions.

mod input;
mod output;
mod pluggable;

/// A component with these metadata, each `{name: .., value: ..}`.
fn component(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: {kind}, version: v1, metadata: [{metadata}]}}\n"
    )
}
