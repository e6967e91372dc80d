//! From JSON Schema to what the API server calls structural:
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>.

use serde_json::{Map, Value, json};

/// Leaves types, members, limits and texts; nothing may be null, no default comes from Rust.
pub fn restrict(schema: &mut Value) {
    if *schema == json!(true) {
        *schema = json!({});
    }
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    unwrap_option(object);
    for gone in [
        "$schema",
        "title",
        "default",
        "nullable",
        "components",
        "minimum",
    ] {
        object.remove(gone);
    }
    if object.get("format").is_some_and(|format| format != "int32") {
        object.remove("format");
    }
    if let Some(default) = object.remove("x-default") {
        object.insert("default".into(), default);
    }
    if object.get("additionalProperties") == Some(&json!(true)) {
        object.remove("additionalProperties");
    }
    for nested in ["additionalProperties", "items"] {
        if let Some(nested) = object.get_mut(nested) {
            restrict(nested);
        }
    }
    if let Some(Value::Object(properties)) = object.get_mut("properties") {
        properties.values_mut().for_each(restrict);
    }
    if !object.contains_key("type") {
        object.insert("x-kubernetes-preserve-unknown-fields".into(), json!(true));
    }
}

/// `Option` is a field that may be missing, not one that may be null.
fn unwrap_option(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    for choice in ["anyOf", "allOf"] {
        let Some(Value::Array(choices)) = object.remove(choice) else {
            continue;
        };
        let inner = choices
            .into_iter()
            .find(|schema| schema["type"] != "null" && schema.get("enum") != Some(&json!([null])));
        if let Some(Value::Object(inner)) = inner {
            for (key, value) in inner {
                // A field's own words win over those of its type.
                object.entry(key).or_insert(value);
            }
            unwrap_option(object);
        }
    }
}
