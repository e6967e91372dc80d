//! HTTP middleware in both pipelines.

mod identity;
mod local;
mod pipeline;

/// A component of middleware.
fn middleware(name: &str, kind: &str, metadata: &str) -> String {
    format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: middleware.http.{kind}, version: v1, metadata: [{metadata}]}}\n"
    )
}

/// A pipeline of a Configuration: `list` is its name there, each handler a
/// name and a type.
fn pipeline(list: &str, handlers: &[(&str, &str)]) -> String {
    let handlers: Vec<String> = handlers
        .iter()
        .map(|(name, kind)| format!("{{name: {name}, type: middleware.http.{kind}}}"))
        .collect();
    format!("{list}: {{handlers: [{}]}}", handlers.join(", "))
}
