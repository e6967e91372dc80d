use anyhow::{Context, Result};
use http::{Method, Request};
use outrider_harness::http::Answer;
use outrider_harness::{Builder, Daprd};
use outrider_proto::common::v1::{Etag, StateItem};
use outrider_proto::runtime::v1::{
    DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest, GetStateRequest,
    SaveStateRequest, TransactionalStateOperation,
};
use serde_json::{Value, json};
use tonic::Code;

const STORE: &str = "/v1.0/state/store";

fn with_store() -> Builder {
    Daprd::builder().component("store", "state.in-memory")
}

fn etag(answer: &Answer) -> Result<String> {
    Ok(answer.header("etag").context("no ETag")?.to_owned())
}

#[tokio::test]
async fn what_is_saved_can_be_read_and_deleted() -> Result<()> {
    let daprd = with_store().start().await?;
    let http = daprd.http();
    let saved = http
        .post(
            STORE,
            &json!([{"key": "a", "value": {"n": 1}}, {"key": "b", "value": "text"}]),
        )
        .await?;
    assert_eq!(saved.status, 204);

    let read = http.get(&format!("{STORE}/a")).await?;
    assert_eq!((read.status, read.json()?), (200, json!({"n": 1})));
    etag(&read)?;
    assert_eq!(http.get(&format!("{STORE}/b")).await?.text(), "\"text\"");

    let missing = http.get(&format!("{STORE}/c")).await?;
    assert_eq!((missing.status, missing.body.len()), (204, 0));
    assert_eq!(http.delete(&format!("{STORE}/a")).await?.status, 204);
    assert_eq!(http.get(&format!("{STORE}/a")).await?.status, 204);
    assert_eq!(http.delete(&format!("{STORE}/a")).await?.status, 204);
    assert_eq!(
        http.put(STORE, &json!([{"key": "p", "value": 1}]))
            .await?
            .status,
        204
    );
    Ok(())
}

#[tokio::test]
async fn an_outdated_etag_changes_nothing() -> Result<()> {
    let daprd = with_store().start().await?;
    let http = daprd.http();
    http.post(STORE, &json!([{"key": "a", "value": 1}])).await?;
    let first = etag(&http.get(&format!("{STORE}/a")).await?)?;
    let update = |value: u8, etag: &str| json!([{"key": "a", "value": value, "etag": etag}]);
    assert_eq!(http.post(STORE, &update(2, &first)).await?.status, 204);

    let late = http.post(STORE, &update(3, &first)).await?;
    let (code, message) = late.error()?;
    assert_eq!((late.status, &*code), (409, "ERR_STATE_SAVE"));
    assert!(
        message.starts_with("failed saving state in state store store: "),
        "{message}"
    );
    assert!(
        message.contains("possible etag mismatch. error from state store"),
        "{message}"
    );

    let delete = Request::builder()
        .method(Method::DELETE)
        .uri(format!("{STORE}/a"))
        .header("If-Match", &first)
        .body(Default::default())?;
    let late = http.send(delete).await?;
    assert_eq!((late.status, &*late.error()?.0), (409, "ERR_STATE_DELETE"));
    assert_eq!(http.get(&format!("{STORE}/a")).await?.text(), "2");
    Ok(())
}

#[tokio::test]
async fn a_bulk_get_returns_missing_keys_without_data() -> Result<()> {
    let daprd = with_store().start().await?;
    let http = daprd.http();
    http.post(
        STORE,
        &json!([{"key": "a", "value": 1}, {"key": "b", "value": "two"}]),
    )
    .await?;
    let bulk = http
        .post(&format!("{STORE}/bulk"), &json!({"keys": ["a", "b", "c"]}))
        .await?;
    assert_eq!(bulk.status, 200);
    let Value::Array(mut items) = bulk.json()? else {
        panic!("not an array: {}", bulk.text());
    };
    items.sort_by_key(|item| item["key"].to_string());
    assert_eq!(
        (&items[0]["key"], &items[0]["data"]),
        (&json!("a"), &json!(1))
    );
    assert!(items[0]["etag"].is_string(), "{}", items[0]);
    assert_eq!(items[1]["data"], json!("two"));
    assert_eq!(items[2], json!({"key": "c"}));
    Ok(())
}

#[tokio::test]
async fn a_transaction_is_all_or_nothing() -> Result<()> {
    let daprd = with_store().start().await?;
    let http = daprd.http();
    http.post(STORE, &json!([{"key": "old", "value": 1}]))
        .await?;
    let path = format!("{STORE}/transaction");
    let upsert = |key: &str, more: Value| {
        let mut request = json!({"key": key, "value": 2});
        if let (Some(request), Value::Object(more)) = (request.as_object_mut(), more) {
            request.extend(more);
        }
        json!({"operation": "upsert", "request": request})
    };
    let delete = json!({"operation": "delete", "request": {"key": "old"}});
    let both = json!({"operations": [upsert("new", json!({})), delete]});
    assert_eq!(http.post(&path, &both).await?.status, 204);
    assert_eq!(http.get(&format!("{STORE}/new")).await?.text(), "2");
    assert_eq!(http.get(&format!("{STORE}/old")).await?.status, 204);

    let conflict = json!({"operations": [upsert("other", json!({})), upsert("new", json!({"etag": "99999"}))]});
    let refused = http.post(&path, &conflict).await?;
    assert_eq!(
        (refused.status, &*refused.error()?.0),
        (500, "ERR_STATE_TRANSACTION")
    );
    assert_eq!(http.get(&format!("{STORE}/other")).await?.status, 204);

    let unknown = json!({"operations": [{"operation": "Upsert", "request": {"key": "x"}}]});
    let refused = http.post(&path, &unknown).await?;
    let expected = (
        "ERR_NOT_SUPPORTED_STATE_OPERATION".to_owned(),
        "operation type Upsert not supported".to_owned(),
    );
    assert_eq!((refused.status, refused.error()?), (400, expected));
    Ok(())
}

#[tokio::test]
async fn errors_have_dapr_codes_and_details() -> Result<()> {
    let daprd = with_store().start().await?;
    let http = daprd.http();
    let missing = http.get("/v1.0/state/nothing/a").await?;
    let expected = (
        "ERR_STATE_STORE_NOT_FOUND".to_owned(),
        "state store nothing is not found".to_owned(),
    );
    assert_eq!((missing.status, missing.error()?), (400, expected));
    let details = missing.json()?["details"].clone();
    let info = details
        .as_array()
        .and_then(|all| all.last())
        .context("no details")?;
    assert_eq!(info["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
    assert_eq!(
        (&info["reason"], &info["domain"]),
        (&json!("DAPR_STATE_NOT_FOUND"), &json!("dapr.io"))
    );

    let illegal = http.get(&format!("{STORE}/a%7C%7Cb")).await?;
    assert_eq!(
        (illegal.status, &*illegal.error()?.0),
        (400, "ERR_MALFORMED_REQUEST")
    );
    let object = http.post(STORE, &json!({"key": "a", "value": 1})).await?;
    assert_eq!(
        (object.status, &*object.error()?.0),
        (400, "ERR_MALFORMED_REQUEST")
    );
    let no_key = http.post(STORE, &json!([{"value": 1}])).await?;
    let expected = (
        "ERR_MALFORMED_REQUEST".to_owned(),
        "\"key\" is a required field".to_owned(),
    );
    assert_eq!((no_key.status, no_key.error()?), (400, expected));

    let bare = Daprd::builder().start().await?;
    let none = bare.http().get(&format!("{STORE}/a")).await?;
    let expected = (
        "ERR_STATE_STORE_NOT_CONFIGURED".to_owned(),
        "state store store is not configured".to_owned(),
    );
    assert_eq!((none.status, none.error()?), (500, expected));
    Ok(())
}

fn get(key: &str) -> GetStateRequest {
    GetStateRequest {
        store_name: "store".to_owned(),
        key: key.to_owned(),
        ..Default::default()
    }
}

fn save(key: &str, value: &'static str, etag: Option<&str>) -> SaveStateRequest {
    SaveStateRequest {
        store_name: "store".to_owned(),
        states: vec![item(key, value, etag)],
    }
}

fn item(key: &str, value: &'static str, etag: Option<&str>) -> StateItem {
    StateItem {
        key: key.to_owned(),
        value: value.into(),
        etag: etag.map(|value| Etag {
            value: value.to_owned(),
        }),
        ..Default::default()
    }
}

#[tokio::test]
async fn the_grpc_api_saves_reads_and_deletes() -> Result<()> {
    let daprd = with_store().start().await?;
    let mut grpc = daprd.grpc().await?;
    grpc.save_state(save("a", "\x01raw", None)).await?;
    let read = grpc.get_state(get("a")).await?.into_inner();
    assert_eq!(&read.data[..], b"\x01raw");
    let missing = grpc.get_state(get("b")).await?.into_inner();
    assert!(missing.data.is_empty() && missing.etag.is_empty());

    grpc.save_state(save("a", "1", Some(&read.etag))).await?;
    let late = grpc
        .save_state(save("a", "2", Some(&read.etag)))
        .await
        .expect_err("is outdated");
    assert_eq!(late.code(), Code::Aborted, "{late}");
    assert!(late.message().contains("possible etag mismatch"), "{late}");

    let bulk = grpc
        .get_bulk_state(GetBulkStateRequest {
            store_name: "store".to_owned(),
            keys: vec!["a".to_owned(), "b".to_owned()],
            ..Default::default()
        })
        .await?
        .into_inner();
    let found: Vec<_> = bulk
        .items
        .iter()
        .filter(|item| !item.data.is_empty())
        .collect();
    assert_eq!(
        (found.len(), &*found[0].key, &found[0].data[..]),
        (1, "a", &b"1"[..])
    );

    let operation = |kind: &str, item| TransactionalStateOperation {
        operation_type: kind.to_owned(),
        request: Some(item),
    };
    grpc.execute_state_transaction(ExecuteStateTransactionRequest {
        store_name: "store".to_owned(),
        operations: vec![
            operation("upsert", item("c", "3", None)),
            operation("delete", item("a", "", None)),
        ],
        ..Default::default()
    })
    .await?;
    assert_eq!(&grpc.get_state(get("c")).await?.into_inner().data[..], b"3");
    assert!(grpc.get_state(get("a")).await?.into_inner().data.is_empty());
    // Both transports see the same data.
    assert_eq!(daprd.http().get(&format!("{STORE}/c")).await?.text(), "3");

    grpc.delete_state(DeleteStateRequest {
        store_name: "store".to_owned(),
        key: "c".to_owned(),
        ..Default::default()
    })
    .await?;
    let mut elsewhere = get("c");
    elsewhere.store_name = "nothing".to_owned();
    let missing = grpc.get_state(elsewhere).await.expect_err("is no store");
    assert_eq!(
        (missing.code(), missing.message()),
        (Code::InvalidArgument, "state store nothing is not found")
    );
    Ok(())
}

#[tokio::test]
async fn an_empty_value_is_not_a_missing_one() -> Result<()> {
    let daprd = with_store().start().await?;
    daprd.grpc().await?.save_state(save("a", "", None)).await?;
    let read = daprd.http().get(&format!("{STORE}/a")).await?;
    assert_eq!((read.status, read.text().as_str()), (200, ""));
    etag(&read)?;
    assert_eq!(daprd.http().get(&format!("{STORE}/b")).await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn an_empty_key_prefix_is_used_as_it_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let store = |name: &str, prefix: &str| {
        let path = folder.path().join("data.db");
        format!(
            "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec: {{type: state.sqlite, version: v1, metadata: [{{name: connectionString, value: '{}'}}, {{name: keyPrefix, value: {prefix}}}]}}\n",
            path.display()
        )
    };
    let daprd = Daprd::builder()
        .resource(&store("store", "''"))
        .start()
        .await?;
    let http = daprd.http();
    let saved = http.post(STORE, &json!([{"key": "k", "value": 1}])).await?;
    assert_eq!(saved.status, 204);
    assert_eq!(http.get(&format!("{STORE}/k")).await?.text(), "1");
    let mut stored = String::new();
    for name in ["data.db", "data.db-wal"] {
        let bytes = std::fs::read(folder.path().join(name)).unwrap_or_default();
        stored.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(stored.contains("||k") && !stored.contains("app||k"));
    Ok(())
}
