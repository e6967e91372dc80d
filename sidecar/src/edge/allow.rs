//! Which parts of the API are served.
//! <https://docs.dapr.io/operations/configuration/api-allowlist/>

use std::collections::HashSet;

use outrider_crds::configuration;

use crate::blocks::{self, absent};

/// Lists of the Configuration. Deny beats allow; an empty list of allowed ones
/// allows all.
#[derive(Debug, Default)]
pub struct Allowed {
    http: Lists,
    grpc: Lists,
}

#[derive(Debug, Default)]
struct Lists {
    /// `version/name`
    allowed: HashSet<String>,
    denied: HashSet<String>,
}

/// An entry that cannot be applied. Left out it would allow what it denies.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the API list of the Configuration has an entry {name:?} with the unknown {what} {given:?}: use {expected}"
)]
pub struct UnknownWord {
    name: String,
    what: &'static str,
    given: String,
    expected: String,
}

/// The groups of APIs, in alphabetical order; also those that this release does
/// not serve: a list that names one of them is right.
fn names() -> Vec<&'static str> {
    let blocks = blocks::ALL.iter();
    let routes = blocks
        .clone()
        .flat_map(|block| block.routes)
        .map(|r| r.group);
    let methods = blocks.flat_map(|block| block.methods).map(|m| m.group);
    let mut names: Vec<_> = routes
        .chain(methods)
        .chain(absent::NAMES.iter().copied())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

const VERSIONS: [(&str, &str); 4] = [
    ("v1", "v1.0"),
    ("v1alpha1", "v1.0-alpha1"),
    ("v1alpha2", "v1.0-alpha2"),
    ("v1beta1", "v1.0-beta1"),
];

impl Allowed {
    pub fn new(spec: Option<&configuration::Api>) -> Result<Self, UnknownWord> {
        let mut lists = Self::default();
        let Some(spec) = spec else {
            return Ok(lists);
        };
        for rule in &spec.allowed {
            let (http, grpc) = (&mut lists.http.allowed, &mut lists.grpc.allowed);
            add(rule, http, grpc)?;
        }
        for rule in &spec.denied {
            let (http, grpc) = (&mut lists.http.denied, &mut lists.grpc.denied);
            add(rule, http, grpc)?;
        }
        Ok(lists)
    }

    pub fn http(&self, version: &str, name: &str) -> bool {
        self.http.has(version, name)
    }

    pub fn grpc(&self, version: &str, name: &str) -> bool {
        self.grpc.has(version, name)
    }

    /// Whether gRPC clients may call applications by methods of their own.
    pub fn allows_proxying(&self) -> bool {
        self.grpc.has("v1", "invoke")
    }
}

impl Lists {
    fn has(&self, version: &str, name: &str) -> bool {
        if self.allowed.is_empty() && self.denied.is_empty() {
            return true;
        }
        // What no block has is in no list, and is not served past one.
        if name.is_empty() {
            return false;
        }
        let key = format!("{version}/{name}");
        !self.denied.contains(&key) && (self.allowed.is_empty() || self.allowed.contains(&key))
    }
}

/// What a rule leaves open is meant in all forms.
fn add(
    rule: &configuration::ApiRule,
    http: &mut HashSet<String>,
    grpc: &mut HashSet<String>,
) -> Result<(), UnknownWord> {
    let unknown = |what, given: &str, expected: &str| UnknownWord {
        name: rule.name.clone(),
        what,
        given: given.to_owned(),
        expected: expected.to_owned(),
    };
    let name = rule.name.trim().to_lowercase();
    let names = names();
    if !names.contains(&name.as_str()) {
        return Err(unknown("name", &name, &names.join(", ")));
    }
    let (protocol, version) = (rule.protocol.trim(), rule.version.trim());
    let to_http = protocol.is_empty() || protocol.eq_ignore_ascii_case("http");
    let to_grpc = protocol.is_empty() || protocol.eq_ignore_ascii_case("grpc");
    if !to_http && !to_grpc {
        let expected = "http, grpc, or none for both";
        return Err(unknown("protocol", protocol, expected));
    }
    let mut versions = VERSIONS
        .iter()
        .filter(|(short, long)| {
            version.is_empty()
                || version.eq_ignore_ascii_case(short)
                || version.eq_ignore_ascii_case(long)
        })
        .peekable();
    if versions.peek().is_none() {
        let expected = "v1.0, v1.0-alpha1, v1.0-alpha2, v1.0-beta1, or none for all";
        return Err(unknown("version", version, expected));
    }
    for (version, _) in versions {
        let key = format!("{version}/{name}");
        if to_http {
            http.insert(key.clone());
        }
        if to_grpc {
            grpc.insert(key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, version: &str, protocol: &str) -> configuration::ApiRule {
        configuration::ApiRule {
            name: name.into(),
            version: version.into(),
            protocol: protocol.into(),
        }
    }

    #[test]
    fn lists_are_per_protocol() {
        let allowed = Allowed::new(Some(&configuration::Api {
            allowed: vec![rule("state", "v1.0", "http")],
            denied: vec![rule("invoke", "v1", "grpc")],
        }))
        .unwrap();
        assert!(allowed.http("v1", "state") && !allowed.http("v1", "invoke"));
        assert!(allowed.grpc("v1", "state") && !allowed.grpc("v1", "invoke"));
    }

    #[test]
    fn what_a_rule_leaves_open_is_meant_in_all_forms() {
        for (name, version, protocol) in [
            ("shutdown", "v1.0", ""),
            ("Shutdown", "V1.0", "HTTP"),
            ("shutdown", "", " Http "),
        ] {
            let denied = vec![rule(name, version, protocol)];
            let allowed = vec![];
            let lists = Allowed::new(Some(&configuration::Api { allowed, denied })).unwrap();
            assert!(!lists.http("v1", "shutdown"), "{protocol:?}");
            assert_eq!(lists.grpc("v1", "shutdown"), !protocol.is_empty());
            assert!(lists.http("v1", "state"));
        }
    }

    #[test]
    fn a_method_of_no_block_is_refused_where_there_is_a_list() {
        let (allowed, denied) = (vec![], vec![rule("state", "v1.0", "grpc")]);
        let lists = Allowed::new(Some(&configuration::Api { allowed, denied })).unwrap();
        assert!(!lists.grpc("v1", ""));
        assert!(Allowed::default().grpc("v1", ""));
    }

    #[test]
    fn proxied_calls_are_part_of_invocation() {
        let list = |allowed: Vec<_>, denied: Vec<_>| {
            Allowed::new(Some(&configuration::Api { allowed, denied })).unwrap()
        };
        let (state, invoke) = (
            || rule("state", "v1.0", "grpc"),
            || rule("invoke", "v1.0", ""),
        );
        assert!(list(vec![], vec![]).allows_proxying());
        assert!(list(vec![], vec![state()]).allows_proxying());
        assert!(list(vec![state(), invoke()], vec![]).allows_proxying());
        assert!(!list(vec![state()], vec![]).allows_proxying());
        assert!(!list(vec![invoke()], vec![invoke()]).allows_proxying());
        assert!(list(vec![rule("state", "v1.0", "http")], vec![]).allows_proxying());
    }

    #[test]
    fn an_unknown_word_is_an_error() {
        for (name, version, protocol, expected) in [
            (
                "state",
                "v1.0",
                "tcp",
                r#"the unknown protocol "tcp": use http, grpc"#,
            ),
            (
                "state",
                "v9",
                "http",
                r#"the unknown version "v9": use v1.0"#,
            ),
            (
                "States",
                "v1.0",
                "http",
                r#"the unknown name "states": use actors, bindings"#,
            ),
            ("", "v1.0", "http", r#"the unknown name "": use actors"#),
        ] {
            let (allowed, denied) = (vec![], vec![rule(name, version, protocol)]);
            let spec = configuration::Api { allowed, denied };
            let error = Allowed::new(Some(&spec)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
