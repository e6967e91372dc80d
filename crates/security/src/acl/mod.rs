//! Which application may call which operation of this one.
//! (<https://docs.dapr.io/operations/configuration/invoke-allowlist/>)
//!
//! An access list is parsed once and then only read: [`AccessControl::evaluate`]
//! depends on nothing but its arguments.

mod path;
mod tree;

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;

use crate::id::SpiffeId;

pub use path::{BadMethod, normalise};
use tree::Tree;

/// The `accessControl` member of a Configuration. What a document leaves out
/// keeps the value it has in [`Spec::default`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub default_action: String,
    pub trust_domain: String,
    pub policies: Option<Vec<PolicySpec>>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            default_action: "allow".into(),
            trust_domain: "public".into(),
            policies: None,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicySpec {
    pub app_id: String,
    pub default_action: String,
    pub trust_domain: String,
    pub namespace: String,
    pub operations: Vec<OperationSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OperationSpec {
    pub name: String,
    pub http_verb: Vec<String>,
    pub action: String,
}

/// Policies that say too little to be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid access control spec. missing trustdomain for apps: [{}], missing namespace for apps: [{}], missing app name on at least one of the app policies: {no_app_id}",
    .no_trust_domain.join(" "),
    .no_namespace.join(" ")
)]
pub struct Incomplete {
    no_trust_domain: Vec<String>,
    no_namespace: Vec<String>,
    no_app_id: bool,
}

/// The verb of an HTTP call as the internal protocol carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    None,
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the operation is called, which decides the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// To an application that speaks HTTP: verbs count, case does not.
    Http(Verb),
    /// To one that speaks gRPC: case counts, verbs do not exist.
    Grpc,
}

impl Call {
    fn verb(self) -> Verb {
        match self {
            Self::Http(verb) => verb,
            Self::Grpc => Verb::None,
        }
    }
}

/// Whose rule decided; the label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    App,
    Global,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub rule: Rule,
}

/// What a denied caller is told.
pub fn denial(caller: Option<&SpiffeId>, operation: &str, call: Call) -> String {
    format!(
        "access control policy has denied access to id: {} operation: {operation} verb: {}",
        caller.map_or("", SpiffeId::as_str),
        call.verb()
    )
}

/// A parsed access list.
#[derive(Debug)]
pub struct AccessControl {
    allow_by_default: bool,
    /// By namespace, then app id.
    policies: HashMap<String, HashMap<String, Policy>>,
}

#[derive(Debug)]
struct Policy {
    default: Option<Action>,
    trust_domain: String,
    http: Tree<Operation>,
    grpc: Tree<Operation>,
}

#[derive(Debug, Clone)]
struct Operation {
    verbs: Vec<String>,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
}

impl Action {
    /// Whatever is not `allow` denies.
    fn parse(text: &str) -> Self {
        if text.eq_ignore_ascii_case("allow") {
            Self::Allow
        } else {
            Self::Deny
        }
    }
}

impl AccessControl {
    /// `None` means that everything is allowed.
    pub fn parse(spec: Option<&Spec>) -> Result<Option<Self>, Incomplete> {
        let Some(spec) = spec else { return Ok(None) };
        let listed = spec.policies.as_deref().unwrap_or_default();
        if spec.trust_domain.is_empty() && spec.default_action.is_empty() && listed.is_empty() {
            return Ok(None);
        }
        let allow_by_default = if !spec.default_action.is_empty() {
            Action::parse(&spec.default_action) == Action::Allow
        } else if spec.policies.as_ref().is_some_and(Vec::is_empty) {
            true
        } else {
            tracing::warn!(target: "dapr.acl", "No global default action has been specified. Setting default global action as Deny");
            false
        };
        let names = |lacks: fn(&PolicySpec) -> bool| -> Vec<String> {
            let lacking = listed.iter().filter(|p| lacks(p));
            lacking.map(|p| p.app_id.clone()).collect()
        };
        let incomplete = Incomplete {
            no_trust_domain: names(|p| p.trust_domain.is_empty()),
            no_namespace: names(|p| p.namespace.is_empty()),
            no_app_id: listed.iter().any(|p| p.app_id.is_empty()),
        };
        if incomplete.no_app_id
            || !incomplete.no_trust_domain.is_empty()
            || !incomplete.no_namespace.is_empty()
        {
            return Err(incomplete);
        }
        let mut policies: HashMap<String, HashMap<String, Policy>> = HashMap::new();
        for policy in listed {
            policies
                .entry(policy.namespace.clone())
                .or_default()
                .insert(policy.app_id.clone(), Policy::parse(policy));
        }
        Ok(Some(Self {
            allow_by_default,
            policies,
        }))
    }

    /// `operation` is normalised already. Without a caller (a connection that
    /// proved no id) the global default decides.
    pub fn evaluate(&self, caller: Option<&SpiffeId>, operation: &str, call: Call) -> Decision {
        let global = Decision {
            allowed: self.allow_by_default,
            rule: Rule::Global,
        };
        let Some((caller, workload)) = caller.and_then(|id| Some((id, id.as_workload()?))) else {
            return global;
        };
        let policy = self
            .policies
            .get(workload.namespace)
            .and_then(|apps| apps.get(workload.app_id))
            .filter(|policy| policy.trust_domain == caller.trust_domain_str());
        let Some(policy) = policy else { return global };
        policy
            .decide(operation, call)
            .map_or(global, |action| Decision {
                allowed: action == Action::Allow,
                rule: Rule::App,
            })
    }
}

impl Policy {
    fn parse(spec: &PolicySpec) -> Self {
        let mut policy = Self {
            default: (!spec.default_action.is_empty()).then(|| Action::parse(&spec.default_action)),
            trust_domain: spec.trust_domain.clone(),
            http: Tree::default(),
            grpc: Tree::default(),
        };
        for operation in &spec.operations {
            let rule = Operation {
                verbs: operation.http_verb.clone(),
                action: Action::parse(&operation.action),
            };
            policy
                .http
                .insert(&operation.name.to_lowercase(), rule.clone());
            policy.grpc.insert(&operation.name, rule);
        }
        policy
    }

    /// `None` when this policy has no say.
    fn decide(&self, operation: &str, call: Call) -> Option<Action> {
        match call {
            Call::Grpc => match self.grpc.find(operation) {
                Some(found) => Some(found.action),
                None => self.default,
            },
            Call::Http(verb) => {
                let Some(found) = self.http.find(&operation.to_lowercase()) else {
                    return self.default;
                };
                let listed = |name: &str| found.verbs.iter().any(|v| v == name);
                match verb {
                    Verb::None => Some(self.default.unwrap_or(Action::Deny)),
                    _ if listed(verb.as_str()) || listed("*") => Some(found.action),
                    _ => self.default,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
