//! Which application may call which operation of this one.
//! (<https://docs.dapr.io/operations/configuration/invoke-allowlist/>)
//!
//! An access list is parsed once and then only read: [`AccessControl::evaluate`]
//! depends on nothing but its arguments.

mod path;
mod tree;

use std::borrow::Cow;
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

/// Policies that lack a required field.
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
    /// To an HTTP application: verbs count, case does not.
    Http(Verb),
    /// To a gRPC application: case counts, verbs do not exist.
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

/// The message that a denied caller gets.
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
    rules: Rules,
    /// Each denying rule by itself, so that no earlier or wider rule hides it.
    denials: Vec<(Rules, Operation)>,
}

/// The same operations for both kinds of application.
#[derive(Debug, Default)]
struct Rules {
    http: Tree<Operation>,
    grpc: Tree<Operation>,
}

#[derive(Debug, Clone)]
struct Operation {
    verbs: Vec<String>,
    action: Action,
    weight: Weight,
}

/// How specific a rule is, segment by segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weight(Vec<u8>);

impl Weight {
    const LITERAL: u8 = 3;

    fn of(name: &str) -> Self {
        let segments = name.strip_prefix('/').unwrap_or(name).split('/');
        let weight = |segment: &str| match segment {
            "**" => 0,
            "*" => 1,
            pattern if pattern.contains('*') => 2,
            _ => Self::LITERAL,
        };
        Self(segments.map(weight).collect())
    }

    /// Whether each segment of the rule is at least as specific as that of `other`.
    fn is_at_least(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        self.0.len() >= other.0.len() && pairs.all(|(own, other)| own >= other)
    }

    /// Whether the rule is about `operation` and about nothing else.
    fn spells_out(&self, operation: &str) -> bool {
        let path = operation.strip_prefix('/').unwrap_or(operation);
        self.0.iter().all(|weight| *weight == Self::LITERAL)
            && self.0.len() == path.split('/').count()
    }
}

impl Rules {
    fn insert(&mut self, name: &str, operation: &Operation) {
        self.http.insert(&name.to_lowercase(), operation.clone());
        self.grpc.insert(name, operation.clone());
    }

    fn find(&self, operation: &str, call: Call) -> Option<&Operation> {
        match call {
            Call::Grpc => self.grpc.find(operation),
            Call::Http(_) => self.http.find(operation),
        }
    }
}

impl Operation {
    fn is_for(&self, call: Call) -> bool {
        match call {
            Call::Grpc => true,
            Call::Http(verb) => self.verbs.iter().any(|v| v == verb.as_str() || v == "*"),
        }
    }
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
    /// proved no id) the global default decides. Where an HTTP application may
    /// read the operation in other ways, all of them have to be allowed.
    pub fn evaluate(&self, caller: Option<&SpiffeId>, operation: &str, call: Call) -> Decision {
        let decision = self.decide_one(caller, operation, call);
        if !decision.allowed || call == Call::Grpc || !operation.contains(['%', ';']) {
            return decision;
        }
        let readings = path::readings(operation);
        let decisions = readings
            .iter()
            .map(|other| self.decide_one(caller, other, call));
        decisions
            .into_iter()
            .find(|other| !other.allowed)
            .unwrap_or(decision)
    }

    /// Whether the caller may call everything, whatever its name.
    pub fn allows_all(&self, caller: Option<&SpiffeId>) -> bool {
        match self.policy(caller) {
            None => self.allow_by_default,
            Some(policy) => {
                let by_default = match policy.default {
                    Some(action) => action == Action::Allow,
                    None => self.allow_by_default,
                };
                by_default && policy.denials.is_empty()
            }
        }
    }

    fn policy(&self, caller: Option<&SpiffeId>) -> Option<&Policy> {
        let caller = caller?;
        let workload = caller.as_workload()?;
        self.policies
            .get(workload.namespace)
            .and_then(|apps| apps.get(workload.app_id))
            .filter(|policy| policy.trust_domain == caller.trust_domain_str())
    }

    fn decide_one(&self, caller: Option<&SpiffeId>, operation: &str, call: Call) -> Decision {
        let global = Decision {
            allowed: self.allow_by_default,
            rule: Rule::Global,
        };
        let Some(policy) = self.policy(caller) else {
            return global;
        };
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
            rules: Rules::default(),
            denials: Vec::new(),
        };
        for operation in &spec.operations {
            let rule = Operation {
                verbs: operation.http_verb.clone(),
                action: Action::parse(&operation.action),
                weight: Weight::of(&operation.name),
            };
            policy.rules.insert(&operation.name, &rule);
            if rule.action == Action::Deny {
                let mut alone = Rules::default();
                alone.insert(&operation.name, &rule);
                policy.denials.push((alone, rule));
            }
        }
        policy
    }

    /// `None` when this policy decides nothing.
    fn decide(&self, operation: &str, call: Call) -> Option<Action> {
        let lower = match call {
            Call::Grpc => Cow::Borrowed(operation),
            Call::Http(_) => lowercase(operation),
        };
        let found = self.rules.find(&lower, call);
        let action = match (found, call) {
            (None, _) => self.default,
            (Some(_), Call::Http(Verb::None)) => Some(self.default.unwrap_or(Action::Deny)),
            (Some(found), _) if found.is_for(call) => Some(found.action),
            (Some(_), _) => self.default,
        };
        if action == Some(Action::Deny) || self.denials.is_empty() {
            return action;
        }
        let allowing = found.filter(|found| found.is_for(call) && found.action == Action::Allow);
        if allowing.is_some_and(|rule| rule.weight.spells_out(&lower)) {
            return action;
        }
        let denied = self.denials.iter().any(|(alone, rule)| {
            rule.is_for(call)
                && !allowing.is_some_and(|allowing| allowing.weight.is_at_least(&rule.weight))
                && alone.find(&lower, call).is_some()
        });
        if denied { Some(Action::Deny) } else { action }
    }
}

fn lowercase(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .all(|b| b.is_ascii() && !b.is_ascii_uppercase())
    {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_lowercase())
    }
}

#[cfg(test)]
mod tests;
