use outrider_components::state::TTL_IN_SECONDS;

use super::*;

async fn open(path: &str, more: &[(&str, &str)]) -> Sqlite {
    let properties = [("connectionString", path)]
        .into_iter()
        .chain(more.iter().copied());
    Sqlite::connect(&Metadata::new("store", properties))
        .await
        .expect("opens")
}

fn path(folder: &tempfile::TempDir) -> String {
    format!("file:{}", folder.path().join("state.db").display())
}

async fn run(store: &Sqlite, sql: &'static str) {
    sqlx::query(sql).execute(&store.pool).await.expect(sql);
}

fn set(key: &str, value: Value, seconds: Option<&str>) -> SetRequest {
    let mut request = SetRequest::new(key, value);
    if let Some(seconds) = seconds {
        request
            .metadata
            .insert(TTL_IN_SECONDS.to_owned(), seconds.to_owned());
    }
    request
}

fn json(text: &'static str) -> Value {
    Value::Json(Bytes::from_static(text.as_bytes()))
}

fn binary(text: &'static str) -> Value {
    Value::Binary(Bytes::from_static(text.as_bytes()))
}

#[tokio::test]
async fn rows_have_the_documented_form() {
    let store = open(":memory:", &[]).await;
    store
        .set(&set("j", json(r#"{"a":1}"#), None))
        .await
        .expect("set");
    store
        .set(&set("b", binary("hi"), Some("60")))
        .await
        .expect("set");
    type Row = (String, String, bool, i64, bool);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT key, value, is_binary, length(etag), \
        coalesce(unixepoch(expiration_time) - unixepoch(update_time) = 60, 0) FROM state ORDER BY key",
    )
    .fetch_all(&store.pool)
    .await
    .expect("select");
    let wanted = [
        ("b".to_owned(), "aGk=".to_owned(), true, 36, true),
        ("j".to_owned(), r#"{"a":1}"#.to_owned(), false, 36, false),
    ];
    assert_eq!(rows, wanted);
    let level: String = sqlx::query_scalar("SELECT value FROM metadata WHERE key = 'migrations'")
        .fetch_one(&store.pool)
        .await
        .expect("select");
    assert_eq!(level, "1");
}

/// Tables and rows of another program: fewer constraints, a value stored as a
/// blob, any text as etag.
#[tokio::test]
async fn rows_of_another_program_can_be_read_and_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let path = path(&folder);
    {
        let first = open(&path, &[("tableName", "unused")]).await;
        run(&first, "DROP TABLE metadata").await;
        run(
            &first,
            "CREATE TABLE metadata (key text primary key, value text)",
        )
        .await;
        run(&first, "INSERT INTO metadata VALUES ('migrations', '1')").await;
        run(
            &first,
            "CREATE TABLE inttest (key TEXT PRIMARY KEY, value TEXT, is_binary BOOLEAN, etag TEXT, \
            expiration_time TIMESTAMP, update_time TIMESTAMP)",
        )
        .await;
        run(
            &first,
            "INSERT INTO inttest (key, value, is_binary, etag) VALUES \
            ('blob', CAST('aGk=' AS BLOB), 1, '1763725505000000001'), ('text', '\"x\"', 0, NULL)",
        )
        .await;
        first.close().await.expect("close");
    }
    let store = open(&path, &[("tableName", "inttest")]).await;
    let item = store
        .get(&GetRequest::new("blob"))
        .await
        .expect("get")
        .expect("is there");
    assert_eq!(
        (&item.value[..], item.etag.as_deref()),
        (&b"hi"[..], Some("1763725505000000001"))
    );
    let text = store
        .get(&GetRequest::new("text"))
        .await
        .expect("get")
        .expect("is there");
    assert_eq!((&text.value[..], text.etag), (&b"\"x\""[..], None));

    let mut replace = set("blob", binary("ho"), None);
    replace.etag = item.etag;
    store.set(&replace).await.expect("the etag is still right");
    let error = store.set(&replace).await.expect_err("the etag has changed");
    assert_eq!(
        error.to_string(),
        "possible etag mismatch. error from state store"
    );
}

#[tokio::test]
async fn an_expired_row_counts_as_absent() {
    let store = open(":memory:", &[]).await;
    store
        .set(&set("k", json("1"), Some("60")))
        .await
        .expect("set");
    run(
        &store,
        "UPDATE state SET expiration_time = DATETIME(CURRENT_TIMESTAMP, '-1 seconds')",
    )
    .await;
    assert_eq!(store.get(&GetRequest::new("k")).await.expect("get"), None);
    let first = SetRequest {
        concurrency: Concurrency::FirstWrite,
        ..set("k", json("2"), None)
    };
    store.set(&first).await.expect("nothing is there");
    store.set(&first).await.expect_err("something is there");
}

#[tokio::test]
async fn expired_rows_are_deleted_in_the_cleanup_interval() {
    let store = open(":memory:", &[("cleanupInterval", "200ms")]).await;
    store
        .set(&set("expires", json("1"), Some("1")))
        .await
        .expect("set");
    store
        .set(&set("stays", json("1"), None))
        .await
        .expect("set");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM state")
            .fetch_one(&store.pool)
            .await
            .expect("count");
        if count == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "deleted in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await.expect("close");
}

#[tokio::test]
async fn two_processes_may_share_a_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = path(&folder);
    let (one, two) = tokio::join!(open(&path, &[]), open(&path, &[]));
    let upserts = |prefix: &str| -> Vec<_> {
        (0..20)
            .map(|n| Operation::Upsert(set(&format!("{prefix}{n}"), json("1"), None)))
            .collect()
    };
    let (left, right) = (upserts("a"), upserts("b"));
    let metadata = Pairs::new();
    let (left, right) = tokio::join!(
        one.transact(&left, &metadata),
        two.transact(&right, &metadata)
    );
    left.expect("waits for the other");
    right.expect("waits for the other");
    let page = two
        .keys_like(&KeysLikeRequest {
            pattern: "%1_".to_owned(),
            ..KeysLikeRequest::default()
        })
        .await
        .expect("list");
    assert_eq!(page.keys.len(), 20);
}
