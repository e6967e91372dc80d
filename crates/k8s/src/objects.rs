//! Single objects, by path, as JSON.

use http::{Method, Request, header};
use kube::{Client, Error};
use serde_json::Value;

/// A collection of the API, such as components of `dapr.io/v1alpha1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collection {
    /// `/api/v1`, or `/apis/<group>/<version>`.
    pub version: &'static str,
    pub plural: &'static str,
}

impl Collection {
    pub const CONFIG_MAPS: Self = Self {
        version: "/api/v1",
        plural: "configmaps",
    };
    pub const PODS: Self = Self {
        version: "/api/v1",
        plural: "pods",
    };
    pub const SECRETS: Self = Self {
        version: "/api/v1",
        plural: "secrets",
    };
    pub const SERVICES: Self = Self {
        version: "/api/v1",
        plural: "services",
    };
    pub const SERVICE_ACCOUNTS: Self = Self {
        version: "/api/v1",
        plural: "serviceaccounts",
    };
    pub const DEPLOYMENTS: Self = Self {
        version: "/apis/apps/v1",
        plural: "deployments",
    };
    pub const STATEFUL_SETS: Self = Self {
        version: "/apis/apps/v1",
        plural: "statefulsets",
    };
    pub const LEASES: Self = Self {
        version: "/apis/coordination.k8s.io/v1",
        plural: "leases",
    };

    /// Path of the whole collection, or of the part in a namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        match namespace {
            Some(namespace) => format!("{}/namespaces/{namespace}/{}", self.version, self.plural),
            None => format!("{}/{}", self.version, self.plural),
        }
    }

    /// Path of one object.
    pub fn object(&self, namespace: &str, name: &str) -> String {
        format!("{}/{name}", self.path(Some(namespace)))
    }
}

/// The object, or nothing if there is none.
pub async fn get(client: &Client, path: &str) -> Result<Option<Value>, Error> {
    match send(client, Method::GET, path, "application/json", None).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if crate::is_not_found(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All items of a collection that the query selects (`fieldSelector=…`); `null` counts as none.
pub async fn list(client: &Client, path: &str, query: &str) -> Result<Vec<Value>, Error> {
    let answer = send(
        client,
        Method::GET,
        &format!("{path}?{query}"),
        "application/json",
        None,
    )
    .await?;
    Ok(crate::watch::items(answer).items)
}

/// `path` is the collection's.
pub async fn create(client: &Client, path: &str, object: &Value) -> Result<Value, Error> {
    send(client, Method::POST, path, "application/json", Some(object)).await
}

pub async fn replace(client: &Client, path: &str, object: &Value) -> Result<Value, Error> {
    send(client, Method::PUT, path, "application/json", Some(object)).await
}

pub async fn json_patch(client: &Client, path: &str, patch: &Value) -> Result<Value, Error> {
    send(
        client,
        Method::PATCH,
        path,
        "application/json-patch+json",
        Some(patch),
    )
    .await
}

pub async fn merge_patch(client: &Client, path: &str, patch: &Value) -> Result<Value, Error> {
    send(
        client,
        Method::PATCH,
        path,
        "application/merge-patch+json",
        Some(patch),
    )
    .await
}

pub async fn delete(client: &Client, path: &str) -> Result<(), Error> {
    send(client, Method::DELETE, path, "application/json", None)
        .await
        .map(drop)
}

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<Value, Error> {
    let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, content_type)
        .body(body)
        .map_err(Error::HttpError)?;
    client.request(request).await
}

/// For a value in a query.
pub fn encode(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}
