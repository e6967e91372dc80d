use anyhow::Result;
use outrider_harness::{Daprd, Kubernetes};
use outrider_proto::runtime::v1::GetSecretRequest;
use serde_json::json;
use tonic::Code;

#[tokio::test]
async fn environment_variables_are_secrets_over_both_protocols() -> Result<()> {
    let daprd = Daprd::builder()
        .component("env", "secretstores.local.env")
        .env("THE_SECRET", "42")
        .start()
        .await?;
    let http = daprd.http();
    let secret = http.get("/v1.0/secrets/env/THE_SECRET").await?;
    assert_eq!(
        (secret.status, secret.json()?),
        (200, json!({"THE_SECRET": "42"}))
    );
    let elsewhere = http.get("/v1.0/secrets/nowhere/x").await?;
    let expected = (
        "ERR_SECRET_STORE_NOT_FOUND".to_owned(),
        "failed finding secret store with key nowhere".to_owned(),
    );
    assert_eq!((elsewhere.status, elsewhere.error()?), (401, expected));

    let mut grpc = daprd.grpc().await?;
    let request = |store: &str| GetSecretRequest {
        store_name: store.to_owned(),
        key: "THE_SECRET".to_owned(),
        ..Default::default()
    };
    let secret = grpc.get_secret(request("env")).await?.into_inner();
    assert_eq!(secret.data["THE_SECRET"], "42");
    let error = grpc
        .get_secret(request("nowhere"))
        .await
        .expect_err("is no store");
    assert_eq!(error.code(), Code::InvalidArgument);
    Ok(())
}

#[tokio::test]
async fn a_component_gets_its_settings_from_a_secret_store() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let database = folder.path().join("state.db");
    let store = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nauth: {secretStore: env}\nspec:\n  type: state.sqlite\n  version: v1\n  metadata:\n  - name: connectionString\n    secretKeyRef: {name: DATABASE, key: DATABASE}\n";
    let daprd = Daprd::builder()
        .resource(store)
        .component("env", "secretstores.local.env")
        .env("DATABASE", &database.display().to_string())
        .start()
        .await?;
    let saved = daprd
        .http()
        .post("/v1.0/state/store", &json!([{"key": "a", "value": 1}]))
        .await?;
    assert_eq!(saved.status, 204);
    assert!(database.exists());
    Ok(())
}

#[tokio::test]
async fn a_list_of_no_secrets_is_an_empty_object() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(format!("{name}.json"));
        std::fs::write(&path, text)?;
        Ok(format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: secretstores.local.file, version: v1, metadata: [{{name: secretsFile, value: '{}'}}]}}\n",
            path.display()
        ))
    };
    let daprd = Daprd::builder()
        .resource(&file("empty", "{}")?)
        .resource(&file("denied", r#"{"a": "1"}"#)?)
        .resource(&file("blank", r#"{"a": ""}"#)?)
        .config("secrets: {scopes: [{storeName: denied, defaultAccess: deny}]}")
        .start()
        .await?;
    for (store, all) in [
        ("empty", json!({})),
        ("denied", json!({})),
        ("blank", json!({"a": {"a": ""}})),
    ] {
        let answer = daprd
            .http()
            .get(&format!("/v1.0/secrets/{store}/bulk"))
            .await?;
        assert_eq!((answer.status, answer.json()?), (200, all), "{store}");
    }
    let blank = daprd.http().get("/v1.0/secrets/blank/a").await?;
    assert_eq!((blank.status, blank.json()?), (200, json!({"a": ""})));
    Ok(())
}

#[tokio::test]
async fn a_secret_without_a_store_leaves_its_value_empty() -> Result<()> {
    let store = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec:\n  type: state.in-memory\n  version: v1\n  metadata:\n  - name: other\n    secretKeyRef: {name: S, key: S}\n";
    let endpoint = "apiVersion: dapr.io/v1alpha1\nkind: HTTPEndpoint\nmetadata: {name: e}\nspec:\n  baseUrl: http://localhost:1\n  headers:\n  - name: x-key\n    secretKeyRef: {name: S, key: S}\n";
    let daprd = Daprd::builder()
        .resource(store)
        .resource(endpoint)
        .start()
        .await?;
    daprd
        .line("Component store references a secret store that isn't loaded")
        .await?;
    daprd
        .line("HTTPEndpoint e references a secret store that isn't loaded")
        .await?;
    let saved = daprd
        .http()
        .post("/v1.0/state/store", &json!([{"key": "a", "value": 1}]))
        .await?;
    assert_eq!(saved.status, 204);
    // The endpoint is used; no server listens there.
    let called = daprd.http().get("/v1.0/invoke/e/method/x").await?;
    assert!(
        called.text().contains("connection refused"),
        "{}",
        called.text()
    );
    Ok(())
}

/// A sidecar in namespace `default` whose application may read all secrets of the store `kube` but `db-pass`.
async fn with_a_cluster(cluster: &Kubernetes) -> Result<Daprd> {
    let daprd = Daprd::builder()
        .component("kube", "secretstores.kubernetes")
        .config("secrets: {scopes: [{storeName: kube, deniedSecrets: [db-pass]}]}")
        .env("KUBECONFIG", &cluster.kubeconfig().display().to_string())
        .env("NAMESPACE", "default");
    daprd.start().await
}

#[tokio::test]
async fn other_spellings_of_a_denied_secret_of_a_cluster_are_refused() -> Result<()> {
    const SECRET: &str = "hunter2";
    let cluster = Kubernetes::start().await?;
    cluster.put_secret("default", "db-pass", SECRET);
    cluster.put_secret("default", "other", "42");
    cluster.put_secret("prod", "db-pass", SECRET);
    let daprd = with_a_cluster(&cluster).await?;
    let http = daprd.http();
    let mut grpc = daprd.grpc().await?;

    let allowed = http.get("/v1.0/secrets/kube/other").await?;
    assert_eq!(
        (allowed.status, allowed.json()?),
        (200, json!({"value": "42"}))
    );
    let denied = http.get("/v1.0/secrets/kube/db-pass").await?;
    assert_eq!(denied.status, 403);
    let before = cluster.requests("/secrets").len();

    for path in [
        "db-pass%3Fx",
        "db-pass%3F",
        "db-pass%23",
        "db-pass%253Fx",
        "db-pass%2F",
        "other%2F..%2Fdb-pass",
        "..%2Fsecrets%2Fdb-pass",
        "DB-PASS",
        "db-pass%20",
        "db-pass%00",
        "other?metadata.namespace=prod%2Fsecrets%2Fdb-pass%3F",
        "other?metadata.namespace=prod%2Fsecrets%2Fdb-pass%23",
        "other?metadata.namespace=..",
        "db-pass.?metadata.namespace=prod",
    ] {
        let answer = http.get(&format!("/v1.0/secrets/kube/{path}")).await?;
        assert!(answer.status >= 400, "{path}: {}", answer.status);
        assert!(!answer.text().contains(SECRET), "{path}: {}", answer.text());
    }
    let bulk = "/v1.0/secrets/kube/bulk?metadata.namespace=prod%2Fsecrets%2Fdb-pass%3F";
    let answer = http.get(bulk).await?;
    assert_eq!(answer.status, 500, "{}", answer.text());
    for (key, namespace) in [
        ("db-pass?x", ""),
        ("db-pass#", ""),
        ("other/../db-pass", ""),
        ("other", "prod/secrets/db-pass?"),
    ] {
        let mut request = GetSecretRequest {
            store_name: "kube".to_owned(),
            key: key.to_owned(),
            ..Default::default()
        };
        if !namespace.is_empty() {
            let metadata = ("namespace".to_owned(), namespace.to_owned());
            request.metadata.extend([metadata]);
        }
        let error = grpc.get_secret(request).await.expect_err("is refused");
        assert_eq!(error.code(), Code::Internal, "{key} {namespace}: {error}");
        assert!(error.message().contains("cannot be"), "{key}: {error}");
    }
    let asked = cluster.requests("/secrets");
    assert_eq!(asked.len(), before, "nothing was sent: {asked:?}");
    Ok(())
}
