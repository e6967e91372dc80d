//! What a sidecar does with invalid input at its start.

use anyhow::Result;
use outrider_harness::{Builder, Daprd};

fn component(kind: &str, more: &str) -> Builder {
    Daprd::builder().resource(&format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: broken}}\nspec:\n  type: {kind}\n  version: v1\n{more}"
    ))
}

async fn fails(builder: Builder, code: i32, text: &str) -> Result<()> {
    let daprd = builder.spawn()?;
    assert_eq!(daprd.end().await?.code(), Some(code), "{:?}", daprd.lines());
    daprd.line(text).await?;
    Ok(())
}

#[tokio::test]
async fn an_unknown_component_type_fails_the_start() -> Result<()> {
    let wanted = "couldn't find state store state.nothing/v1";
    fails(component("state.nothing", ""), 1, wanted).await
}

#[tokio::test]
async fn ignore_errors_lets_the_sidecar_start_without_the_component() -> Result<()> {
    let daprd = component("state.nothing", "  ignoreErrors: true\n")
        .start()
        .await?;
    let answer = daprd.http().get("/v1.0/state/broken/a").await?;
    assert_eq!(&*answer.error()?.0, "ERR_STATE_STORE_NOT_CONFIGURED");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_not_yaml_is_logged_and_skipped() -> Result<()> {
    let daprd = Daprd::builder()
        .resource("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: [\n")
        .component("store", "state.in-memory")
        .start()
        .await?;
    let components = daprd.http().get("/v1.0/metadata").await?.json()?["components"].clone();
    assert_eq!(components.as_array().map(Vec::len), Some(1), "{components}");
    daprd
        .line("daprd load resource error when parsing manifests yaml resource in ")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_component_whose_secret_store_is_missing_waits_for_it() -> Result<()> {
    let secret = "  metadata:\n  - name: x\n    secretKeyRef: {name: a, key: b}\nauth: {secretStore: nowhere}\n";
    let daprd = component("state.in-memory", secret).spawn()?;
    daprd
        .line("Component broken references a secret store that isn't loaded: nowhere")
        .await?;
    daprd.ready().await?;
    let answer = daprd.http().get("/v1.0/state/broken/a").await?;
    assert_eq!(&*answer.error()?.0, "ERR_STATE_STORE_NOT_CONFIGURED");
    Ok(())
}

#[tokio::test]
async fn a_missing_secret_is_logged_and_its_value_stays_empty() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secrets.json");
    std::fs::write(&file, "{}")?;
    let store = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: secrets}}\nspec:\n  type: secretstores.local.file\n  version: v1\n  metadata:\n  - {{name: secretsFile, value: {}}}\n",
        file.display()
    );
    let secret = "  metadata:\n  - name: x\n    secretKeyRef: {name: a, key: b}\nauth: {secretStore: secrets}\n";
    let daprd = component("state.in-memory", secret)
        .resource(&store)
        .spawn()?;
    let line = daprd.line("Error getting secret: ").await?;
    assert!(
        line.contains("(store secrets, secret a, for property x)"),
        "{line}"
    );
    daprd.ready().await?;
    let saved = serde_json::json!([{"key": "k", "value": 1}]);
    let answer = daprd.http().post("/v1.0/state/broken", &saved).await?;
    assert_eq!(answer.status, 204);
    Ok(())
}

#[tokio::test]
async fn a_secret_file_that_is_not_json_fails_the_start() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secrets.json");
    std::fs::write(&file, "{")?;
    let kind = "secretstores.local.file";
    let metadata = format!(
        "  metadata:\n  - {{name: secretsFile, value: {}}}\n",
        file.display()
    );
    fails(component(kind, &metadata), 1, "is not a JSON object").await
}

#[tokio::test]
async fn an_invalid_flag_fails_the_start() -> Result<()> {
    fails(Daprd::builder().flag("--no-such-flag"), 2, "no-such-flag").await?;
    fails(
        Daprd::builder().flag("--app-port=abc"),
        1,
        "error parsing app-port",
    )
    .await?;
    fails(
        Daprd::builder().flag("--mode=other"),
        1,
        "invalid mode: other",
    )
    .await?;
    fails(
        Daprd::builder().flag("--log-level=loud"),
        1,
        "invalid value for --log-level: loud",
    )
    .await?;
    fails(
        Daprd::builder().app_id(""),
        1,
        "parameter app-id cannot be empty",
    )
    .await?;
    fails(
        Daprd::builder().app_id("a.b"),
        1,
        "parameter app-id cannot contain dots",
    )
    .await
}
