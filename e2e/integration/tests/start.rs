//! What a sidecar does with input that makes no sense.

use anyhow::Result;
use outrider_harness::{Builder, Daprd};

fn component(kind: &str, more: &str) -> Builder {
    Daprd::builder().resource(&format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: broken}}\nspec:\n  type: {kind}\n  version: v1\n{more}"
    ))
}

async fn refuses(builder: Builder, code: i32, text: &str) -> Result<()> {
    let daprd = builder.spawn()?;
    assert_eq!(daprd.end().await?.code(), Some(code), "{:?}", daprd.lines());
    daprd.line(text).await?;
    Ok(())
}

#[tokio::test]
async fn a_component_of_an_unknown_type() -> Result<()> {
    let wanted = "couldn't find state store state.nothing/v1";
    refuses(component("state.nothing", ""), 1, wanted).await
}

#[tokio::test]
async fn a_broken_component_may_be_ignored() -> Result<()> {
    let daprd = component("state.nothing", "  ignoreErrors: true\n")
        .start()
        .await?;
    let answer = daprd.http().get("/v1.0/state/broken/a").await?;
    assert_eq!(&*answer.error()?.0, "ERR_STATE_STORE_NOT_CONFIGURED");
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_yaml_is_skipped() -> Result<()> {
    let daprd = Daprd::builder()
        .resource("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: [\n")
        .component("store", "state.in-memory")
        .start()
        .await?;
    let components = daprd.http().get("/v1.0/metadata").await?.json()?["components"].clone();
    assert_eq!(components.as_array().map(Vec::len), Some(1), "{components}");
    assert!(
        daprd
            .lines()
            .iter()
            .any(|line| line.contains("level=warning")),
        "nobody was told"
    );
    Ok(())
}

#[tokio::test]
async fn a_secret_store_that_is_not_there() -> Result<()> {
    let secret = "  metadata:\n  - name: x\n    secretKeyRef: {name: a, key: b}\nauth: {secretStore: nowhere}\n";
    let daprd = component("state.in-memory", secret).spawn()?;
    daprd.line("nowhere").await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_that_is_not_there() -> Result<()> {
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
    daprd.line("secret").await?;
    daprd.ready().await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_file_that_is_no_json() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secrets.json");
    std::fs::write(&file, "{")?;
    let kind = "secretstores.local.file";
    let metadata = format!(
        "  metadata:\n  - {{name: secretsFile, value: {}}}\n",
        file.display()
    );
    refuses(component(kind, &metadata), 1, "broken").await
}

#[tokio::test]
async fn flags_that_make_no_sense() -> Result<()> {
    refuses(Daprd::builder().flag("--no-such-flag"), 2, "no-such-flag").await?;
    refuses(
        Daprd::builder().flag("--app-port=abc"),
        1,
        "error parsing app-port",
    )
    .await?;
    refuses(
        Daprd::builder().flag("--mode=other"),
        1,
        "invalid mode: other",
    )
    .await?;
    refuses(
        Daprd::builder().flag("--log-level=loud"),
        1,
        "invalid value for --log-level: loud",
    )
    .await?;
    refuses(
        Daprd::builder().app_id(""),
        1,
        "parameter app-id cannot be empty",
    )
    .await?;
    refuses(
        Daprd::builder().app_id("a.b"),
        1,
        "parameter app-id cannot contain dots",
    )
    .await
}
