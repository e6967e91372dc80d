//! `MCPServer`: a server of tools for agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::property::{NameValue, SecretKeyRef};
use crate::{Kind, Metadata, unset};

/// A server of tools for agents.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct McpServer {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    /// App ids that may use the server; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// Address of the server, and workflows around its calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "MCPServerSpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    #[cfg_attr(
        feature = "schema",
        schemars(extend("x-kubernetes-validations" = [{
            "rule": "[has(self.streamableHTTP), has(self.sse), has(self.stdio)].filter(set, set).size() == 1",
            "message": "exactly one of streamableHTTP, sse, or stdio must be set",
        }]))
    )]
    pub endpoint: Endpoint,
    #[serde(skip_serializing_if = "unset")]
    pub middleware: Option<Middleware>,
    /// For people and catalogues.
    #[serde(skip_serializing_if = "unset")]
    pub catalog: Option<Catalog>,
    /// The sidecar goes on without the server when it cannot be reached.
    #[serde(skip_serializing_if = "unset")]
    pub ignore_errors: bool,
}

/// One of three transports.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "MCPEndpoint"))]
#[serde(default, rename_all = "camelCase")]
pub struct Endpoint {
    #[serde(rename = "streamableHTTP", skip_serializing_if = "unset")]
    pub streamable_http: Option<HttpTransport>,
    #[serde(skip_serializing_if = "unset")]
    pub sse: Option<HttpTransport>,
    #[serde(skip_serializing_if = "unset")]
    pub stdio: Option<Stdio>,
}

/// A server over HTTP.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct HttpTransport {
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub url: String,
    /// Version of the protocol to ask for.
    #[serde(skip_serializing_if = "unset")]
    pub protocol_version: Option<String>,
    /// Limit for a call, such as `30s`.
    #[serde(skip_serializing_if = "unset")]
    pub timeout: Option<String>,
    /// Headers of each request.
    #[serde(skip_serializing_if = "unset")]
    pub headers: Vec<NameValue>,
    #[serde(skip_serializing_if = "unset")]
    pub auth: Option<ServerAuth>,
}

/// How the sidecar authenticates itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ServerAuth {
    /// Name of the secret store; empty or `kubernetes` for the secrets of the cluster.
    #[serde(skip_serializing_if = "unset")]
    pub secret_store: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub oauth2: Option<Oauth2>,
    #[serde(skip_serializing_if = "unset")]
    pub spiffe: Option<Spiffe>,
}

/// Client credentials.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Oauth2 {
    /// URL of the token endpoint.
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub issuer: String,
    #[serde(rename = "clientID", skip_serializing_if = "unset")]
    pub client_id: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub audience: Option<String>,
    /// Where the client's secret is.
    #[serde(skip_serializing_if = "unset")]
    pub secret_key_ref: Option<SecretKeyRef>,
}

/// The workload's own identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Spiffe {
    #[serde(skip_serializing_if = "unset")]
    pub jwt: Option<SpiffeJwt>,
}

/// A header with a token of the workload's identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct SpiffeJwt {
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub header: String,
    /// Goes before the token, such as `Bearer `.
    #[serde(skip_serializing_if = "unset")]
    pub header_value_prefix: Option<String>,
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub audience: String,
}

/// A server that the sidecar starts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Stdio {
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub command: String,
    #[serde(skip_serializing_if = "unset")]
    pub args: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub env: Vec<NameValue>,
}

/// Workflows that run around the server's calls.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Middleware {
    #[serde(skip_serializing_if = "unset")]
    pub before_call_tool: Vec<MutatingHook>,
    #[serde(skip_serializing_if = "unset")]
    pub after_call_tool: Vec<MutatingHook>,
    #[serde(skip_serializing_if = "unset")]
    pub before_list_tools: Vec<Hook>,
    #[serde(skip_serializing_if = "unset")]
    pub after_list_tools: Vec<MutatingHook>,
}

/// A workflow that may refuse a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Hook {
    pub workflow: HookWorkflow,
}

/// A workflow that may refuse or change a call.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct MutatingHook {
    pub workflow: HookWorkflow,
    /// The workflow's output replaces the call's data.
    #[serde(skip_serializing_if = "unset")]
    pub mutate: bool,
}

/// A workflow, and its app.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct HookWorkflow {
    #[cfg_attr(feature = "schema", schemars(length(min = 1)))]
    pub workflow_name: String,
    /// App that has it; this one unless given.
    #[serde(rename = "appID", skip_serializing_if = "unset")]
    pub app_id: Option<String>,
}

/// For people and catalogues.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Catalog {
    #[serde(skip_serializing_if = "unset")]
    pub display_name: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub owner: Option<Owner>,
    #[serde(skip_serializing_if = "unset")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "unset")]
    pub links: BTreeMap<String, String>,
}

/// Contact.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Owner {
    #[serde(skip_serializing_if = "unset")]
    pub team: Option<String>,
    #[serde(skip_serializing_if = "unset")]
    pub contact: Option<String>,
}

impl Kind for McpServer {
    const KIND: &'static str = "MCPServer";
    const PLURAL: &'static str = "mcpservers";

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
    fn a_server_is_read() {
        let server: McpServer = decode::from_value(&json!({"spec": {
            "endpoint": {"streamableHTTP": {"url": "http://h", "auth": {"oauth2": {"issuer": "i", "clientID": "c"}}}},
            "middleware": {"beforeCallTool": [{"workflow": {"workflowName": "w", "appID": "a"}, "mutate": true}]},
        }}))
        .unwrap();
        let http = server.spec.endpoint.streamable_http.unwrap();
        assert_eq!(
            http.auth.unwrap().oauth2.unwrap().client_id.as_deref(),
            Some("c")
        );
        let hook = &server.spec.middleware.unwrap().before_call_tool[0];
        assert_eq!(
            (hook.workflow.app_id.as_deref(), hook.mutate),
            (Some("a"), true)
        );
    }
}
