use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::Value;

use super::definitions;

/// Asked when it runs: clones may share what was built.
fn folder() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap().into()
}

#[test]
fn the_chart_has_what_the_types_say() {
    for definition in definitions() {
        let path = folder().join("../charts/dapr/crds").join(definition.file);
        let text = std::fs::read_to_string(&path).unwrap();
        let committed: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(
            committed, definition.object,
            "{}: run crdgen",
            definition.file
        );
    }
}

/// One line per field: where, type, whether required, and every constraint.
fn describe(schema: &Value, path: &str, required: bool, lines: &mut Vec<String>) {
    let mut line = format!("{path} {}", schema["type"].as_str().unwrap_or("any"));
    if required {
        line.push_str(" required");
    }
    for key in [
        "format",
        "default",
        "enum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
    ] {
        if let Some(value) = schema.get(key) {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    if schema["type"].is_string() && schema["x-kubernetes-preserve-unknown-fields"] == true {
        line.push_str(" open");
    }
    if let Some(kind) = schema["x-kubernetes-list-type"].as_str() {
        line.push_str(&format!(" list={kind}"));
    }
    for validation in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        line.push_str(&format!(" rule={}", validation["message"]));
    }
    lines.push(line);
    let required: BTreeSet<_> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, nested) in schema["properties"].as_object().into_iter().flatten() {
        describe(
            nested,
            &format!("{path}.{name}"),
            required.contains(name.as_str()),
            lines,
        );
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if let Some(nested) = schema.get(key) {
            describe(nested, &format!("{path}{mark}"), false, lines);
        }
    }
}

#[test]
fn the_types_have_the_fields_of_the_table() {
    let mut lines = Vec::new();
    for definition in definitions() {
        let spec = &definition.object["spec"];
        for version in spec["versions"].as_array().unwrap() {
            let root = format!(
                "{}/{}",
                spec["names"]["kind"].as_str().unwrap(),
                version["name"].as_str().unwrap()
            );
            describe(
                &version["schema"]["openAPIV3Schema"],
                &root,
                false,
                &mut lines,
            );
        }
    }
    lines.sort();
    let table = std::fs::read_to_string(folder().join("fields.txt")).unwrap();
    let expected: Vec<_> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    for (line, expected) in lines.iter().zip(&expected) {
        assert_eq!(line, expected);
    }
    assert_eq!(lines.len(), expected.len());
}

#[test]
fn every_node_has_a_type_or_is_open() {
    fn check(schema: &Value, path: &str) {
        let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
        assert!(schema["type"].is_string() || open, "{path}: {schema}");
        for forbidden in ["$ref", "anyOf", "oneOf", "allOf", "nullable"] {
            assert!(schema.get(forbidden).is_none(), "{path}: {forbidden}");
        }
        for (name, nested) in schema["properties"].as_object().into_iter().flatten() {
            check(nested, &format!("{path}.{name}"));
        }
        for nested in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(nested) {
                check(schema, &format!("{path}[{nested}]"));
            }
        }
    }
    for definition in definitions() {
        for version in definition.object["spec"]["versions"].as_array().unwrap() {
            check(&version["schema"]["openAPIV3Schema"], definition.file);
        }
    }
}
