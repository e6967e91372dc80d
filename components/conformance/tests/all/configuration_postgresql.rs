//! `configuration.postgresql` on a table with the trigger of Dapr's page.

use std::time::Duration;

use async_trait::async_trait;
use outrider_components::Pairs;
use outrider_components::configuration::Request;
use outrider_conformance::configuration::{Outside, Promises};
use outrider_conformance::server::{self, Server};
use tokio::process::Command;

const TABLE: &str = r"
CREATE TABLE settings (key VARCHAR NOT NULL, value VARCHAR NOT NULL, version VARCHAR NOT NULL, metadata JSON);
CREATE FUNCTION tell() RETURNS trigger AS $$
DECLARE row json;
BEGIN
  IF TG_OP = 'DELETE' THEN row = row_to_json(OLD); ELSE row = row_to_json(NEW); END IF;
  PERFORM pg_notify('changes', json_build_object('table', TG_TABLE_NAME, 'action', TG_OP, 'data', row)::text);
  RETURN NULL;
END;
$$ LANGUAGE plpgsql;
CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON settings FOR EACH ROW EXECUTE PROCEDURE tell();
";

struct Table<'a>(&'a Server);

impl Table<'_> {
    async fn run(&self, statements: &str) {
        let output = Command::new("psql")
            .args(["-h", "127.0.0.1", "-p", &self.0.port.to_string()])
            .args([
                "-U",
                "postgres",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-c",
                statements,
            ])
            .output()
            .await
            .expect("psql comes with the server");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {said}");
    }
}

#[async_trait]
impl Outside for Table<'_> {
    /// The row with the highest version counts.
    async fn set(&self, key: &str, value: &str) -> String {
        let version = value.len() * 1000;
        self.run(&format!(
            "DELETE FROM settings WHERE key = '{key}' AND version <> '0'; \
            INSERT INTO settings VALUES ('{key}', 'old', '0', NULL), ('{key}', '{value}', '{version}', '{{}}')"
        ))
        .await;
        version.to_string()
    }

    async fn delete(&self, key: &str) {
        self.run(&format!("DELETE FROM settings WHERE key = '{key}'"))
            .await;
    }
}

fn promises(metadata: Pairs) -> Promises {
    Promises {
        tells_deletions: true,
        versions_keys: true,
        tells_current: false,
        metadata,
    }
}

#[tokio::test]
async fn configuration() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let table = Table(&server);
    table.run(TABLE).await;
    let port = server.port;
    let string =
        format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable");
    let properties = [("connectionString", &*string), ("table", "settings")];
    let store = crate::configuration::connect("configuration.postgresql", &properties).await;
    let (_, handler) = crate::configuration::counting();
    let error = store.subscribe(&Request::default(), handler).await;
    let error = error.expect_err("has no channel").to_string();
    assert!(error.contains("notifyChannel must be set"), "{error}");
    let channel = Pairs::from([("pgnotifychannel".to_owned(), "changes".to_owned())]);
    outrider_conformance::configuration::run(&*store, &table, &promises(channel)).await;

    table.run("DELETE FROM settings").await;
    let mut properties = properties.to_vec();
    properties[1] = ("table", "public.settings");
    properties.push(("notifyChannel", "changes"));
    let store = crate::configuration::connect("configuration.postgresql", &properties).await;
    outrider_conformance::configuration::run(&*store, &table, &promises(Pairs::new())).await;
}

/// What changes while there is no connection arrives after it.
#[tokio::test]
async fn missed_changes_arrive() {
    let Some(server) = server::postgresql().await else {
        return;
    };
    let table = Table(&server);
    table.run(TABLE).await;
    let url = format!("postgres://postgres@{}/postgres", server.address());
    let properties = [
        ("connectionString", &*url),
        ("table", "settings"),
        ("notifyChannel", "changes"),
    ];
    let store = crate::configuration::connect("configuration.postgresql", &properties).await;
    let (mut values, handler) = crate::configuration::counting();
    let request = Request {
        keys: vec!["k".to_owned()],
        ..Request::default()
    };
    let _subscription = store.subscribe(&request, handler).await.expect("subscribe");
    let next = async |values: &mut crate::configuration::Values| {
        let next = tokio::time::timeout(Duration::from_secs(10), values.recv()).await;
        next.expect("in time").expect("is subscribed")
    };
    table.set("k", "before").await;
    while next(&mut values).await != "before" {}
    table
        .run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
            WHERE pid <> pg_backend_pid() AND usename = 'postgres'",
        )
        .await;
    table.set("k", "meanwhile").await;
    while next(&mut values).await != "meanwhile" {}
    // Notifications that nobody can read hurt nobody.
    table.run("NOTIFY changes, 'no JSON'; NOTIFY changes").await;
    // A value that is longer than a notification can be.
    let table_only = "ALTER TABLE settings DISABLE TRIGGER tell; \
        UPDATE settings SET value = repeat('x', 3000000), version = '99999999' WHERE key = 'k'; \
        ALTER TABLE settings ENABLE TRIGGER tell; \
        NOTIFY changes, '{\"data\":{\"key\":\"k\"}}'";
    table.run(table_only).await;
    while next(&mut values).await.len() != 3_000_000 {}
    table.run("TRUNCATE settings").await;
    table.set("k", "after").await;
    while next(&mut values).await != "after" {}
}
