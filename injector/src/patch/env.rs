//! Environment variables: of the sidecar from annotations, and of the app.

use outrider_crds::annotations as a;
use outrider_crds::annotations::Map;
use serde_json::{Value, json};

use super::pod::Container;
use super::{Error, HTTP_PORT, Patch};

/// The variables of `dapr.io/env` and `dapr.io/env-from-secret`, and their names.
pub fn requested(map: &Map) -> Result<(Vec<Value>, Vec<String>), Error> {
    let mut variables = Vec::new();
    let mut names = Vec::new();
    let literal = a::ENV.read(map);
    for (name, value) in entries(literal)
        .map_err(|entry| a::ENV.error("NAME=value pairs with commas between", &entry))?
    {
        variables.push(json!({"name": name, "value": value}));
        names.push(name);
    }
    const SECRET: &str = "NAME=secret or NAME=secret:key entries with commas between";
    let secret = a::ENV_FROM_SECRET.read(map);
    for (name, reference) in
        entries(secret).map_err(|entry| a::ENV_FROM_SECRET.error(SECRET, &entry))?
    {
        let (secret, key) = reference
            .split_once(':')
            .map_or((reference.as_str(), reference.as_str()), |(secret, key)| {
                (secret.trim(), key.trim())
            });
        if secret.is_empty() || key.is_empty() || key.contains(':') {
            return Err(a::ENV_FROM_SECRET.error(SECRET, &reference).into());
        }
        variables.push(from_secret(&name, secret, key));
        names.push(name);
    }
    Ok((variables, names))
}

pub fn from_secret(name: &str, secret: &str, key: &str) -> Value {
    json!({"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}})
}

pub fn from_field(name: &str, field: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}})
}

/// `NAME=value` entries. A comma ends one only if another follows, so values may contain commas.
fn entries(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, _) in text.match_indices(',') {
        if begins_entry(&text[at + 1..]) {
            pieces.push(&text[start..at]);
            start = at + 1;
        }
    }
    pieces.push(&text[start..]);
    let pieces = pieces
        .into_iter()
        .map(str::trim)
        .filter(|piece| !piece.is_empty());
    pieces
        .map(|piece| match piece.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(piece.to_owned()),
        })
        .collect()
}

/// Blanks, an identifier, and `=`.
fn begins_entry(text: &str) -> bool {
    let text = text.trim_start();
    let name = text.split('=').next().unwrap_or_default();
    name.len() < text.len()
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Adds the sidecar's ports to an app's container. What the user has set wins.
pub fn add_to_app(map: &Map, grpc_port: i64, container: &Container, path: &str, patch: &mut Patch) {
    let mut variables = vec![
        json!({"name": "DAPR_HTTP_PORT", "value": HTTP_PORT.to_string()}),
        json!({"name": "DAPR_GRPC_PORT", "value": grpc_port.to_string()}),
    ];
    if let Some(protocol) = protocol(map) {
        variables.push(json!({"name": "APP_PROTOCOL", "value": protocol}));
    }
    add_missing(variables, container, path, patch);
}

pub fn add_missing(variables: Vec<Value>, container: &Container, path: &str, patch: &mut Patch) {
    if container.env.is_empty() {
        return patch.add(format!("{path}/env"), variables);
    }
    for variable in variables {
        if !container
            .env
            .iter()
            .any(|known| variable["name"] == known.name.as_str())
        {
            patch.add(format!("{path}/env/-"), variable);
        }
    }
}

/// The app's protocol by its present name; none if it is unknown.
fn protocol(map: &Map) -> Option<&'static str> {
    let tls = a::APP_SSL.read(map);
    match (a::APP_PROTOCOL.read(map).to_ascii_lowercase().as_str(), tls) {
        ("" | "http", false) => Some("http"),
        ("" | "http", true) | ("https", _) => Some("https"),
        ("grpc", false) => Some("grpc"),
        ("grpc", true) | ("grpcs", _) => Some("grpcs"),
        ("h2c", _) => Some("h2c"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_have_commas() {
        let expected = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        for (text, pairs) in [
            ("A=1,B=2", &[("A", "1"), ("B", "2")][..]),
            (" A = 1 , B=x=y ", &[("A", "1"), ("B", "x=y")]),
            ("C=3,noeq", &[("C", "3,noeq")]),
            ("A=1,2,B=3,4=5", &[("A", "1,2"), ("B", "3,4=5")]),
            ("A=", &[("A", "")]),
            ("", &[]),
        ] {
            assert_eq!(entries(text), Ok(expected(pairs)), "{text:?}");
        }
        assert_eq!(entries("noeq,A=1"), Err("noeq".into()));
    }

    #[test]
    fn the_protocol_has_its_present_name() {
        for (protocol_text, tls, expected) in [
            ("", "false", Some("http")),
            ("HTTP", "true", Some("https")),
            ("grpc", "true", Some("grpcs")),
            ("h2c", "true", Some("h2c")),
            ("tcp", "false", None),
        ] {
            let map: Map = [
                ("dapr.io/app-protocol".to_owned(), protocol_text.to_owned()),
                ("dapr.io/app-ssl".to_owned(), tls.to_owned()),
            ]
            .into();
            assert_eq!(protocol(&map), expected, "{protocol_text}");
        }
    }

    #[test]
    fn blanks_around_secrets_and_keys_are_trimmed() {
        for text in ["A=s:k", "A=s: k", " A = s : k "] {
            let map: Map = [("dapr.io/env-from-secret".to_owned(), text.to_owned())].into();
            let (variables, names) = requested(&map).unwrap();
            assert_eq!(variables, [from_secret("A", "s", "k")], "{text:?}");
            assert_eq!(names, ["A"]);
        }
    }

    #[test]
    fn a_malformed_entry_is_an_error() {
        for (name, value) in [
            ("dapr.io/env", "x"),
            ("dapr.io/env", "=x"),
            ("dapr.io/env-from-secret", "A=s:k:x"),
            ("dapr.io/env-from-secret", "A="),
            ("dapr.io/env-from-secret", "A=s:"),
        ] {
            let map: Map = [(name.to_owned(), value.to_owned())].into();
            let error = requested(&map).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("annotation {name} must be NAME=")),
                "{error}"
            );
        }
    }
}
