//! Single objects, by path, as JSON.

use std::fmt;

use http::{Method, Request, header};
use kube::Client;
use outrider_kit::kubernetes::{self, InvalidName};
use serde_json::Value;

use crate::Error;

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
    pub const EVENTS: Self = Self {
        version: "/api/v1",
        plural: "events",
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
    pub const COMPONENTS: Self = Self {
        version: "/apis/dapr.io/v1alpha1",
        plural: "components",
    };
    pub const CONFIGURATIONS: Self = Self {
        version: "/apis/dapr.io/v1alpha1",
        plural: "configurations",
    };
    pub const LEASES: Self = Self {
        version: "/apis/coordination.k8s.io/v1",
        plural: "leases",
    };
    pub const TOKEN_REVIEWS: Self = Self {
        version: "/apis/authentication.k8s.io/v1",
        plural: "tokenreviews",
    };
    pub const MUTATING_WEBHOOKS: Self = Self {
        version: "/apis/admissionregistration.k8s.io/v1",
        plural: "mutatingwebhookconfigurations",
    };
    pub const DEFINITIONS: Self = Self {
        version: "/apis/apiextensions.k8s.io/v1",
        plural: "customresourcedefinitions",
    };

    /// The whole collection, or the part in a namespace.
    pub fn path(&self, namespace: Option<&str>) -> Result<Path, InvalidName> {
        kubernetes::path(self.version, self.plural, namespace, None).map(Path)
    }

    /// One object.
    pub fn object(&self, namespace: &str, name: &str) -> Result<Path, InvalidName> {
        kubernetes::path(self.version, self.plural, Some(namespace), Some(name)).map(Path)
    }

    /// One object of a kind without namespaces.
    pub fn cluster_object(&self, name: &str) -> Result<Path, InvalidName> {
        kubernetes::path(self.version, self.plural, None, Some(name)).map(Path)
    }
}

/// A path of the API. It is made by a [`Collection`] alone, from names that are checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The object, or nothing if there is none.
pub async fn get(client: &Client, path: &Path) -> Result<Option<Value>, Error> {
    match send(client, Method::GET, &path.0, "application/json", None).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// All items of a collection that the query selects (`fieldSelector=…`); `null` counts as none.
pub async fn list(client: &Client, path: &Path, query: &str) -> Result<Vec<Value>, Error> {
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
pub async fn create(client: &Client, path: &Path, object: &Value) -> Result<Value, Error> {
    let sending = send(
        client,
        Method::POST,
        &path.0,
        "application/json",
        Some(object),
    );
    sending.await
}

pub async fn replace(client: &Client, path: &Path, object: &Value) -> Result<Value, Error> {
    let sending = send(
        client,
        Method::PUT,
        &path.0,
        "application/json",
        Some(object),
    );
    sending.await
}

pub async fn json_patch(client: &Client, path: &Path, patch: &Value) -> Result<Value, Error> {
    send(
        client,
        Method::PATCH,
        &path.0,
        "application/json-patch+json",
        Some(patch),
    )
    .await
}

pub async fn delete(client: &Client, path: &Path) -> Result<(), Error> {
    send(client, Method::DELETE, &path.0, "application/json", None)
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
        .map_err(kube::Error::HttpError)?;
    Ok(client.request(request).await?)
}

/// For a value in a query.
pub fn encode(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use axum::response::IntoResponse as _;
    use serde_json::json;

    use super::*;

    /// What a server answers, by path.
    type Answers = fn(&str) -> (StatusCode, String);

    /// What is got of secret `s` in namespace `n`, and the paths that were asked for.
    async fn get_secret(answers: Answers) -> (Result<Option<Value>, Error>, Vec<String>) {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let paths = asked.clone();
        let router = Router::new().fallback(async move |uri: Uri| {
            paths.lock().unwrap().push(uri.path().to_owned());
            answers(uri.path()).into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // It ends with the test's runtime.
        #[allow(clippy::disallowed_methods)]
        tokio::spawn(async move { axum::serve(listener, router).await });
        let uri = format!("http://{address}").parse().unwrap();
        let client = Client::try_from(kube::Config::new(uri)).unwrap();
        let found = get(&client, &Collection::SECRETS.object("n", "s").unwrap()).await;
        let asked = asked.lock().unwrap().clone();
        (found, asked)
    }

    fn status(code: u16, reason: &str) -> (StatusCode, String) {
        let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason});
        (StatusCode::from_u16(code).unwrap(), status.to_string())
    }

    const ONE: &str = "/api/v1/namespaces/n/secrets/s";

    #[tokio::test]
    async fn a_missing_object_is_none_and_a_forbidden_one_an_error() {
        let (found, asked) = get_secret(|_| status(404, "NotFound")).await;
        assert_eq!((found.unwrap(), asked), (None, vec![ONE.to_owned()]));
        let (found, asked) = get_secret(|_| status(403, "Forbidden")).await;
        assert_eq!(found.unwrap_err().code(), Some(403));
        assert_eq!(asked, [ONE]);
    }
}
