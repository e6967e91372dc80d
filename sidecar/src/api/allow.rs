//! Which parts of the API are served.
//! <https://docs.dapr.io/operations/configuration/api-allowlist/>

use std::collections::HashSet;

use outrider_crds::configuration;

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

impl Allowed {
    pub fn new(spec: Option<&configuration::Api>) -> Self {
        let Some(spec) = spec else {
            return Self::default();
        };
        let lists = |protocol: &str| Lists {
            allowed: keys(&spec.allowed, protocol),
            denied: keys(&spec.denied, protocol),
        };
        Self {
            http: lists("http"),
            grpc: lists("grpc"),
        }
    }

    pub fn http(&self, version: &str, name: &str) -> bool {
        self.http.has(version, name)
    }

    pub fn grpc(&self, version: &str, name: &str) -> bool {
        self.grpc.has(version, name)
    }
}

impl Lists {
    fn has(&self, version: &str, name: &str) -> bool {
        if self.allowed.is_empty() && self.denied.is_empty() {
            return true;
        }
        let key = format!("{version}/{name}");
        !self.denied.contains(&key) && (self.allowed.is_empty() || self.allowed.contains(&key))
    }
}

fn keys(rules: &[configuration::ApiRule], protocol: &str) -> HashSet<String> {
    rules
        .iter()
        .filter(|rule| rule.protocol == protocol)
        .map(|rule| {
            let version = match rule.version.as_str() {
                "v1.0" => "v1",
                "v1.0-alpha1" => "v1alpha1",
                "v1.0-alpha2" => "v1alpha2",
                "v1.0-beta1" => "v1beta1",
                other => other,
            };
            format!("{version}/{}", rule.name)
        })
        .collect()
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
        }));
        assert!(allowed.http("v1", "state") && !allowed.http("v1", "invoke"));
        assert!(allowed.grpc("v1", "state") && !allowed.grpc("v1", "invoke"));
    }
}
