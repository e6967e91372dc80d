//! `WorkflowAccessPolicy`: which apps may do what with an app's workflows.

use serde::{Deserialize, Serialize};

use crate::{Kind, Metadata, unset};

/// Which apps may do what with an app's workflows. One policy in scope turns the default to deny.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct WorkflowAccessPolicy {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    /// App ids that are guarded; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// Any matching rule allows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "WorkflowAccessPolicySpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(length(max = 100)))]
    pub rules: Vec<Rule>,
}

/// What callers may do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(rename = "WorkflowAccessRule", extend("x-kubernetes-validations" = [{
        "rule": "(has(self.workflows) ? size(self.workflows) : 0) + (has(self.activities) ? size(self.activities) : 0) > 0",
        "message": "at least one of workflows or activities must contain a rule",
    }]))
)]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 100)))]
    pub callers: Vec<Caller>,
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(length(max = 100)))]
    pub workflows: Vec<WorkflowRule>,
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(length(max = 100)))]
    pub activities: Vec<ActivityRule>,
}

/// A calling app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Caller {
    #[serde(rename = "appID")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub app_id: String,
}

/// Operations on workflows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(extend("x-kubernetes-validations" = [{
        "rule": "!has(self.requires) || size(self.requires) == 0 || self.operations.all(operation, operation == 'schedule')",
        "message": "requires is only valid when the rule's only operation is 'schedule'",
    }]))
)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkflowRule {
    /// Name or pattern.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub name: String,
    #[cfg_attr(feature = "schema", schemars(schema_with = "operations"))]
    pub operations: Vec<String>,
    /// What must have happened before, in this order.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(length(max = 20)))]
    pub requires: Vec<Requirement>,
}

#[cfg(feature = "schema")]
fn operations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "items": {
            "type": "string",
            "enum": ["schedule", "terminate", "raise", "pause", "resume", "purge", "get", "rerun"],
        },
        "minItems": 1,
        "maxItems": 8,
        "x-kubernetes-list-type": "set",
    })
}

/// Scheduling of activities.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ActivityRule {
    /// Name or pattern.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub name: String,
    /// What must have happened before, in this order.
    #[serde(skip_serializing_if = "unset")]
    #[cfg_attr(feature = "schema", schemars(length(max = 20)))]
    pub requires: Vec<Requirement>,
}

/// An event of the calling workflow's history.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Requirement {
    #[cfg_attr(
        feature = "schema",
        schemars(extend("enum" = [
            "activity.started", "activity.completed", "workflow.started", "workflow.completed", "event.raised",
        ]))
    )]
    pub event_type: String,
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub name: String,
    #[serde(rename = "appID")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 256)))]
    pub app_id: String,
}

impl Kind for WorkflowAccessPolicy {
    const KIND: &'static str = "WorkflowAccessPolicy";
    const PLURAL: &'static str = "workflowaccesspolicies";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;

    #[test]
    fn a_policy_is_read() {
        let policy: WorkflowAccessPolicy = decode::from_value(&json!({"spec": {"rules": [{
            "callers": [{"appID": "a"}],
            "workflows": [{"name": "w*", "operations": ["schedule"], "requires": [
                {"eventType": "event.raised", "name": "e", "appID": "b"},
            ]}],
        }]}}))
        .unwrap();
        let rule = &policy.spec.rules[0];
        assert_eq!(rule.callers[0].app_id, "a");
        assert_eq!(rule.workflows[0].requires[0].app_id, "b");
    }
}
