use std::path::Path;

use anyhow::Result;
use outrider_harness::{Builder, Daprd};
use outrider_proto::common::v1::StateItem;
use outrider_proto::runtime::v1::{
    ExecuteStateTransactionRequest, GetBulkStateRequest, GetStateRequest, SaveStateRequest,
    TransactionalStateOperation,
};
use serde_json::{Value, json};

const STORE: &str = "/v1.0/state/store";
const OLD: &str = "000102030405060708090a0b0c0d0e0f";
const NEW: &str = "f0e0d0c0b0a090807060504030201000f0e0d0c0b0a090807060504030201000";

/// A sidecar with a store in `folder`, and with these keys as slot and secret.
fn with_keys(folder: &Path, keys: &[(&str, &str)]) -> Builder {
    let mut store = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: store}}\nauth: {{secretStore: env}}\nspec:\n  type: state.sqlite\n  version: v1\n  metadata:\n  - {{name: connectionString, value: '{}'}}\n",
        folder.join("data.db").display()
    );
    for (slot, secret) in keys {
        store.push_str(&format!(
            "  - {{name: {slot}, secretKeyRef: {{name: {secret}, key: {secret}}}}}\n"
        ));
    }
    Daprd::builder()
        .resource(&store)
        .component("env", "secretstores.local.env")
        .env("OLD_KEY", OLD)
        .env("NEW_KEY", NEW)
        .env("BAD_KEY", "0123")
}

async fn text(daprd: &Daprd, key: &str) -> Result<String> {
    Ok(daprd.http().get(&format!("{STORE}/{key}")).await?.text())
}

#[tokio::test]
async fn encrypted_json_comes_back_as_it_was_over_both_apis() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let daprd = with_keys(folder.path(), &[("primaryEncryptionKey", "OLD_KEY")])
        .start()
        .await?;
    let http = daprd.http();
    let values = json!([
        {"key": "object", "value": {"n": 12345678901234567890u64, "a": [1, "x", null]}},
        {"key": "text", "value": "va\"lue"},
        {"key": "null", "value": null},
    ]);
    assert_eq!(http.post(STORE, &values).await?.status, 204);
    let upsert = json!({"operations": [
        {"operation": "upsert", "request": {"key": "in", "value": {"b": true}}},
        {"operation": "delete", "request": {"key": "null"}},
    ]});
    let transaction = http.post(&format!("{STORE}/transaction"), &upsert).await?;
    assert_eq!(transaction.status, 204);
    let object = values[0]["value"].to_string();
    assert_eq!(text(&daprd, "object").await?, object);
    // Dapr stores strings without their quotes.
    assert_eq!(text(&daprd, "text").await?, "va\"lue");
    assert_eq!(text(&daprd, "in").await?, r#"{"b":true}"#);
    assert_eq!(http.get(&format!("{STORE}/null")).await?.status, 204);

    let keys = json!({"keys": ["object", "text", "in", "none"]});
    let bulk = http.post(&format!("{STORE}/bulk"), &keys).await?.json()?;
    for row in bulk.as_array().into_iter().flatten() {
        let expected = match row["key"].as_str() {
            Some("object") => &values[0]["value"],
            Some("text") => &values[1]["value"],
            Some("in") => &json!({"b": true}),
            _ => &Value::Null,
        };
        assert_eq!(&row["data"], expected, "{row}");
    }

    let mut grpc = daprd.grpc().await?;
    let item = |key: &str, value: &'static [u8]| StateItem {
        key: key.to_owned(),
        value: value.into(),
        ..Default::default()
    };
    let states = vec![item("raw", b"\x00\xff\"")];
    let store_name = "store".to_owned();
    grpc.save_state(SaveStateRequest { store_name, states })
        .await?;
    grpc.execute_state_transaction(ExecuteStateTransactionRequest {
        store_name: "store".to_owned(),
        operations: vec![TransactionalStateOperation {
            operation_type: "upsert".to_owned(),
            request: Some(item("moved", b"hi")),
        }],
        ..Default::default()
    })
    .await?;
    let read = GetStateRequest {
        store_name: "store".to_owned(),
        key: "raw".to_owned(),
        ..Default::default()
    };
    let read = grpc.get_state(read).await?.into_inner();
    assert_eq!(&read.data[..], b"\x00\xff\"");
    let read = grpc
        .get_bulk_state(GetBulkStateRequest {
            store_name: "store".to_owned(),
            keys: vec!["moved".to_owned(), "object".to_owned()],
            ..Default::default()
        })
        .await?
        .into_inner();
    for item in read.items {
        let expected = if item.key == "moved" { "hi" } else { &object };
        assert_eq!(item.data, expected, "{}", item.key);
    }
    Ok(())
}

#[tokio::test]
async fn keys_rotate_and_what_no_key_encrypted_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let before = with_keys(folder.path(), &[("primaryEncryptionKey", "OLD_KEY")])
        .start()
        .await?;
    before
        .http()
        .post(STORE, &json!([{"key": "a", "value": {"n": 1}}]))
        .await?;
    drop(before);
    let plain = with_keys(folder.path(), &[]).start().await?;
    let stored = text(&plain, "a").await?;
    assert!(stored.ends_with("||OLD_KEY"), "{stored}");
    let mut changed: Vec<char> = stored.chars().collect();
    changed[20] = if changed[20] == 'A' { 'B' } else { 'A' };
    let changed: String = changed.into_iter().collect();
    let mut grpc = plain.grpc().await?;
    let item = |key: &str, value: &str| StateItem {
        key: key.to_owned(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    grpc.save_state(SaveStateRequest {
        store_name: "store".to_owned(),
        states: vec![item("changed", &changed), item("clear", "{}")],
    })
    .await?;
    drop(plain);

    let rotated = [
        ("primaryEncryptionKey", "NEW_KEY"),
        ("secondaryEncryptionKey", "OLD_KEY"),
    ];
    let daprd = with_keys(folder.path(), &rotated).start().await?;
    assert_eq!(text(&daprd, "a").await?, r#"{"n":1}"#);
    for (key, why) in [
        ("changed", "cipher: message authentication failed"),
        (
            "clear",
            "could not decrypt data for state store store: encryption key name not found on record",
        ),
    ] {
        let refused = daprd.http().get(&format!("{STORE}/{key}")).await?;
        let expected = (
            "ERR_STATE_GET".to_owned(),
            format!("fail to get {key} from state store store: {why}"),
        );
        assert_eq!((refused.status, refused.error()?), (500, expected));
    }
    let bulk = json!({"keys": ["changed"]});
    let bulk = daprd.http().post(&format!("{STORE}/bulk"), &bulk).await?;
    assert_eq!(
        bulk.json()?,
        json!([{"key": "changed", "error": "cipher: message authentication failed"}])
    );
    Ok(())
}

#[tokio::test]
async fn a_sidecar_with_a_key_that_cannot_be_used_does_not_start() -> Result<()> {
    for (secret, why) in [
        ("BAD_KEY", "crypto/aes: invalid key size 2"),
        (
            "NO_KEY",
            "failed to extract encryption key: encryption key cannot be empty",
        ),
    ] {
        let folder = tempfile::tempdir()?;
        let daprd = with_keys(folder.path(), &[("primaryEncryptionKey", secret)]).spawn()?;
        let line = daprd.line(why).await?;
        assert!(line.contains("[CREATE_COMPONENT_FAILURE]"), "{line}");
    }
    Ok(())
}
