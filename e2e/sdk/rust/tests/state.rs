use anyhow::Result;
use dapr::dapr::proto::common::v1::{Etag, StateItem, StateOptions, state_options};
use dapr::dapr::proto::runtime::v1::{
    DeleteStateRequest, ExecuteStateTransactionRequest, GetBulkStateRequest,
    TransactionalStateOperation,
};
use tonic::Code;

use crate::sidecar::{STORE, Setup, map, refused};

fn first_write() -> Option<StateOptions> {
    Some(StateOptions {
        concurrency: state_options::StateConcurrency::ConcurrencyFirstWrite as i32,
        consistency: state_options::StateConsistency::ConsistencyStrong as i32,
    })
}

fn item(key: &str, value: &str) -> StateItem {
    StateItem {
        key: key.to_owned(),
        value: value.as_bytes().to_vec(),
        ..StateItem::default()
    }
}

#[tokio::test]
async fn one_key() -> Result<()> {
    let (sidecar, mut client) = Setup::default().ready().await?;
    let absent = client.get_state(STORE, "k", None).await?;
    assert!(absent.data.is_empty() && absent.etag.is_empty());

    let json = Some(map(&[("contentType", "application/json")]));
    let value = br#"{"n":1}"#.to_vec();
    client
        .save_state(STORE, "k", value.clone(), None, json, None)
        .await?;
    let got = client.get_state(STORE, "k", None).await?;
    assert_eq!(got.data, value);
    assert!(!got.etag.is_empty());

    let etag = || {
        Some(Etag {
            value: got.etag.clone(),
        })
    };
    client
        .save_state(STORE, "k", b"2".to_vec(), etag(), None, first_write())
        .await?;
    let late = client.save_state(STORE, "k", b"3".to_vec(), etag(), None, first_write());
    refused(late.await, "Aborted", "etag");
    let request = DeleteStateRequest {
        store_name: STORE.to_owned(),
        key: "k".to_owned(),
        etag: etag(),
        options: first_write(),
        ..DeleteStateRequest::default()
    };
    let outcome = sidecar.generated().await?.delete_state(request).await;
    assert_eq!(outcome.unwrap_err().code(), Code::Aborted);

    client.delete_state(STORE, "k", None).await?;
    assert!(client.get_state(STORE, "k", None).await?.data.is_empty());
    Ok(())
}

#[tokio::test]
async fn many_keys() -> Result<()> {
    let (sidecar, mut client) = Setup::default().ready().await?;
    client
        .save_bulk_states(STORE, vec![item("a", "1"), item("b", "2")])
        .await?;
    let request = GetBulkStateRequest {
        store_name: STORE.to_owned(),
        keys: ["a", "b", "c"].map(str::to_owned).to_vec(),
        parallelism: 2,
        ..GetBulkStateRequest::default()
    };
    let answer = sidecar.generated().await?.get_bulk_state(request).await?;
    let mut rows: Vec<_> = answer
        .into_inner()
        .items
        .into_iter()
        .map(|row| (row.key, row.data, row.error))
        .collect();
    rows.sort();
    let row = |key: &str, value: &str| (key.to_owned(), value.as_bytes().to_vec(), String::new());
    assert_eq!(rows, [row("a", "1"), row("b", "2"), row("c", "")]);
    client
        .delete_bulk_state(STORE, [("a", Vec::new()), ("b", Vec::new())])
        .await?;
    assert!(client.get_state(STORE, "a", None).await?.data.is_empty());
    Ok(())
}

#[tokio::test]
async fn transactions() -> Result<()> {
    let (sidecar, mut client) = Setup::default().ready().await?;
    client
        .save_bulk_states(STORE, vec![item("old", "1")])
        .await?;
    let mut generated = sidecar.generated().await?;
    let operation = |kind: &str, item: StateItem| TransactionalStateOperation {
        operation_type: kind.to_owned(),
        request: Some(item),
    };
    let request = |operations| ExecuteStateTransactionRequest {
        store_name: STORE.to_owned(),
        operations,
        ..ExecuteStateTransactionRequest::default()
    };
    let operations = vec![
        operation("upsert", item("new", "2")),
        operation("delete", item("old", "")),
    ];
    generated
        .execute_state_transaction(request(operations))
        .await?;
    assert_eq!(client.get_state(STORE, "new", None).await?.data, b"2");
    assert!(client.get_state(STORE, "old", None).await?.data.is_empty());

    // One stale etag, and nothing happens.
    let stale = StateItem {
        etag: Some(Etag {
            value: "12345".to_owned(),
        }),
        options: first_write(),
        ..item("new", "")
    };
    let operations = vec![
        operation("upsert", item("other", "3")),
        operation("delete", stale),
    ];
    assert!(
        generated
            .execute_state_transaction(request(operations))
            .await
            .is_err()
    );
    assert_eq!(client.get_state(STORE, "new", None).await?.data, b"2");
    assert!(
        client
            .get_state(STORE, "other", None)
            .await?
            .data
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn errors() -> Result<()> {
    let (_sidecar, mut client) = Setup::default().ready().await?;
    refused(
        client.get_state("nowhere", "k", None).await,
        "InvalidArgument",
        "state store nowhere is not found",
    );
    let bad = client.save_state(STORE, "a||b", b"1".to_vec(), None, None, None);
    refused(
        bad.await,
        "InvalidArgument",
        "input key/keyPrefix 'a||b' can't contain '||'",
    );
    Ok(())
}
