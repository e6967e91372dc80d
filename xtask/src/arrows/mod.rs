//! Which crate may depend on which: arrows only point down.

mod modules;

#[cfg(test)]
use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::run;

/// Crates by layer, lowest first. A crate may depend on those of lower layers.
const LAYERS: [&[&str]; 6] = [
    &["kit", "proto"],
    &[
        "components",
        "components-keys",
        "condition",
        "crds",
        "placement-engine",
        "scheduler-engine",
        "security",
        "telemetry",
    ],
    &[
        "components-etcd",
        "components-kubernetes",
        "components-local",
        "components-memcached",
        "components-mqtt",
        "components-nats",
        "components-opa",
        "components-pluggable",
        "components-rabbitmq",
        "components-redis",
        "components-smtp",
        "components-sql",
        "components-wasm",
        "components-web",
        "host",
        "k8s",
        "placement-stream",
        "resiliency",
    ],
    &[
        "actors",
        "call",
        "catalog",
        "conformance",
        "metrics",
        "net",
        "peer",
        "scheduler-client",
        "service",
        "trace",
    ],
    &[
        "injector",
        "operator",
        "placement",
        "scheduler",
        "sentry",
        "sidecar",
    ],
    &[
        "apps",
        "bench",
        "cluster",
        "faults",
        "fuzz",
        "harness",
        "integration",
        "interop",
        "simulate",
        "xtask",
    ],
];

/// Arrows within a layer.
const BESIDE: [(&str, &str); 23] = [
    ("security", "telemetry"),
    ("components-keys", "components"),
    ("host", "k8s"),
    ("bench", "harness"),
    ("cluster", "harness"),
    ("faults", "harness"),
    ("integration", "harness"),
    ("interop", "harness"),
    ("conformance", "catalog"),
    ("actors", "call"),
    ("actors", "metrics"),
    ("actors", "net"),
    ("actors", "peer"),
    ("actors", "scheduler-client"),
    ("actors", "trace"),
    ("metrics", "net"),
    ("call", "metrics"),
    ("call", "net"),
    ("call", "trace"),
    ("peer", "call"),
    ("peer", "metrics"),
    ("peer", "net"),
    ("peer", "trace"),
];

/// All that a component family may know of ours, and all that the harness may.
const FAMILY: [&str; 3] = ["components", "components-keys", "kit"];
const HARNESS: [&str; 3] = ["proto", "crds", "kit"];

pub fn check() -> Result<()> {
    let metadata = run::metadata(false)?;
    let mut wrong = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some(from) = short(&package["name"]) else {
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(to) = short(&dependency["name"]) else {
                continue;
            };
            let is_test = dependency["kind"].as_str() == Some("dev");
            if let Some(why) = refused(&from, &to, is_test) {
                wrong.push(format!("{from} -> {to}: {why}"));
            }
        }
    }
    wrong.extend(modules::wrong()?);
    if wrong.is_empty() {
        println!("arrows: all point down");
        return Ok(());
    }
    bail!("arrows that are not allowed:\n  {}", wrong.join("\n  "))
}

fn short(name: &serde_json::Value) -> Option<String> {
    name.as_str()?.strip_prefix("outrider-").map(str::to_owned)
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn refused(from: &str, to: &str, is_test: bool) -> Option<String> {
    let (Some(upper), Some(lower)) = (layer(from), layer(to)) else {
        return Some("a crate without a layer: name it in xtask/src/arrows/mod.rs".to_owned());
    };
    if from == "xtask" {
        return Some("xtask links nothing of ours, it starts cargo".to_owned());
    }
    if from == "harness" && !HARNESS.contains(&to) {
        return Some("the harness reaches products through sockets and files alone".to_owned());
    }
    // Pluggable components are spoken to over gRPC.
    let wire = (from, to) == ("components-pluggable", "proto");
    if from.starts_with("components-") && !FAMILY.contains(&to) && !is_test && !wire {
        return Some(
            "a component family knows components/api, components/keys and kit only".to_owned(),
        );
    }
    let plane = ["injector", "operator", "placement", "scheduler", "sentry"].contains(&from);
    if plane && (to.starts_with("components") || (lower == 3 && to != "service")) {
        return Some(
            "the control plane has neither components nor parts of the sidecar".to_owned(),
        );
    }
    if lower < upper || BESIDE.contains(&(from, to)) {
        return None;
    }
    Some(format!("layer {upper} may not know layer {lower}"))
}

/// The layers as a table, for the documentation.
#[cfg(test)]
fn table() -> BTreeMap<usize, Vec<&'static str>> {
    LAYERS
        .iter()
        .enumerate()
        .map(|(i, layer)| (i, layer.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        assert_eq!(refused("sidecar", "catalog", false), None);
        assert_eq!(refused("bench", "harness", false), None);
        assert!(refused("kit", "host", false).is_some());
        assert!(refused("sentry", "catalog", false).is_some());
        assert!(refused("operator", "net", false).is_some());
        assert!(refused("net", "call", false).is_some());
        assert!(refused("harness", "security", false).is_some());
        assert!(refused("components-redis", "security", false).is_some());
        assert!(refused("nobody", "kit", false).is_some());
    }

    #[test]
    fn the_documentation_names_every_crate() {
        let text = std::fs::read_to_string(run::root().join("ARCHITECTURE.md")).unwrap();
        for crates in table().values() {
            for name in crates {
                assert!(
                    text.contains(&format!("`{name}`")),
                    "ARCHITECTURE.md does not name `{name}`"
                );
            }
        }
    }
}
