//! Name resolution in a SQLite database that the sidecars of a machine share:
//! <https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-sqlite/>.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Instance, Request, Resolver};
use outrider_components::{Error, Metadata};
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::sqlite::connection::{Connection, failed, identifier};
use crate::sqlite::schema;
use crate::sqlite::sweep::Sweep;

const SCOPE: &str = "dapr.contrib";
const SECOND: Duration = Duration::from_secs(1);
/// Between attempts to renew the registration.
const PAUSE: Duration = Duration::from_millis(50);
/// What was read is good for this long: well below the time that a
/// registration lives on by itself, so that no answer is older than before.
const FRESH: Duration = Duration::from_millis(500);
/// Applications whose addresses are remembered.
const REMEMBERED: usize = 1024;
/// What differs from the other components on SQLite.
const DEFAULTS: [(&str, &str); 2] = [("timeout", "1s"), ("busyTimeout", "800ms")];

/// Registers `instance` in the database that the configuration names.
pub async fn start(
    config: &serde_json::Value,
    instance: Instance,
) -> Result<Arc<dyn Resolver>, Error> {
    Ok(Arc::new(Sqlite::start(&metadata(config), &instance).await?))
}

/// The configuration as properties, the way other components have them.
fn metadata(config: &serde_json::Value) -> Metadata {
    let given = config.as_object().into_iter().flatten();
    let given = given.map(|(name, value)| {
        let value = match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        };
        (name.clone(), value)
    });
    let given: Vec<_> = given.collect();
    let missing = DEFAULTS.iter().filter(|(name, _)| {
        let aliases = [(*name).to_owned(), format!("{name}InSeconds")];
        let is_it = |key: &str| aliases.iter().any(|alias| alias.eq_ignore_ascii_case(key));
        !given.iter().any(|(key, _)| is_it(key))
    });
    let missing: Vec<_> = missing
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Metadata::new("nr", given.into_iter().chain(missing))
}

struct Sqlite {
    row: Arc<Row>,
    look_up: SqlStr,
    known: Mutex<HashMap<String, Known>>,
    closed: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

/// The addresses of an application, as they were a moment ago.
struct Known {
    read: Instant,
    addresses: Vec<String>,
    next: usize,
}

impl Known {
    /// Each in its turn.
    fn pick(&mut self) -> Option<String> {
        let address = self.addresses.get(self.next % self.addresses.len().max(1));
        self.next = self.next.wrapping_add(1);
        address.cloned()
    }
}

/// This sidecar's row in the table.
struct Row {
    pool: SqlitePool,
    table: String,
    id: String,
    address: String,
    app_id: String,
    timeout: Duration,
}

impl Sqlite {
    async fn start(metadata: &Metadata, instance: &Instance) -> Result<Sqlite, Error> {
        if instance.app_id.is_empty() {
            return Err(Error::invalid("name is missing"));
        }
        if instance.host.is_empty() {
            return Err(Error::invalid("address is missing"));
        }
        if instance.port == 0 {
            return Err(Error::invalid("port is missing or invalid"));
        }
        let connection = Connection::new(metadata)?;
        let named = |property, default, what: &str| {
            let name = identifier(metadata, property, default).map(str::to_owned);
            name.map_err(|_| {
                let name = metadata.text(property).unwrap_or_default();
                Error::invalid(format!("invalid identifier for {what} name: {name}"))
            })
        };
        let table = named("tableName", "hosts", "table")?;
        let metadata_table = named("metadataTableName", "metadata", "metadata table")?;
        let interval = metadata.duration("updateInterval")?.unwrap_or(5 * SECOND);
        if interval.subsec_nanos() != 0 {
            return Err(Error::invalid(
                "update interval must not contain fractions of seconds",
            ));
        }
        let timeout = connection.timeout;
        let pause = interval
            .checked_sub(timeout)
            .filter(|pause| *pause >= SECOND);
        let Some(pause) = pause else {
            return Err(Error::invalid(
                "update interval must be at least 1s greater than timeout",
            ));
        };
        let cleanup = match metadata.duration("cleanupInterval")? {
            None => metadata.duration("cleanupIntervalInSeconds")?,
            interval => interval,
        };
        let cleanup = cleanup.unwrap_or(3600 * SECOND);

        if connection.in_memory {
            tracing::warn!(target: SCOPE, "Configuring name resolution with an in-memory SQLite database. Service invocation across different apps will not work.");
        } else {
            let path = connection.options.get_filename().display();
            tracing::info!(target: SCOPE, "Configuring SQLite name resolution with path {path}");
        }
        let pool = connection
            .open()
            .await
            .map_err(|error| failed(error).context("failed to create connection"))?;
        let hosts = schema::Table {
            name: &table,
            purpose: "hosts",
            level: "nr-migrations",
            create: format!(
                "CREATE TABLE {table} (
                    registration_id TEXT NOT NULL PRIMARY KEY,
                    address TEXT NOT NULL,
                    app_id TEXT NOT NULL,
                    namespace TEXT NOT NULL,
                    last_update INTEGER NOT NULL
                );
                CREATE UNIQUE INDEX {table}_address_idx ON {table} (address);
                CREATE INDEX {table}_last_update_idx ON {table} (last_update)"
            ),
        };
        schema::prepare(&pool, &metadata_table, &hosts).await?;

        let age = "unixepoch(CURRENT_TIMESTAMP) - last_update";
        let seconds = interval.as_secs();
        let address = match instance.host.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, instance.port).to_string(),
            Err(_) => format!("{}:{}", instance.host, instance.port),
        };
        let row = Arc::new(Row {
            pool: pool.clone(),
            id: uuid::Uuid::new_v4().to_string(),
            address,
            app_id: instance.app_id.clone(),
            timeout,
            table: table.clone(),
        });
        row.insert()
            .await
            .map_err(|error| error.context("failed to register host"))?;

        let closed = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&row).keep(pause, closed.clone()));
        if !cleanup.is_zero() {
            let sweep = Sweep {
                pool,
                metadata_table,
                key: "nr-last-cleanup",
                delete: format!("DELETE FROM {table} WHERE {age} >= {seconds}"),
                interval: cleanup,
            };
            tasks.spawn(sweep.run(closed.clone()));
        }
        let look_up = format!(
            "SELECT address FROM {table} WHERE app_id = ? AND {age} < {seconds} ORDER BY RANDOM()"
        );
        Ok(Sqlite {
            row,
            look_up: AssertSqlSafe(look_up).into_sql_str(),
            known: Mutex::default(),
            closed,
            tasks: Mutex::new(tasks),
        })
    }
}

impl Sqlite {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    /// Takes the address over from whoever had it before.
    async fn insert(&self) -> Result<(), Error> {
        let insert = format!(
            "REPLACE INTO {} (registration_id, address, app_id, namespace, last_update)
            VALUES (?, ?, ?, '', unixepoch(CURRENT_TIMESTAMP))",
            self.table
        );
        let insert = sqlx::query(AssertSqlSafe(insert))
            .bind(&self.id)
            .bind(&self.address)
            .bind(&self.app_id)
            .execute(&self.pool);
        self.timely(insert).await.map(drop)
    }

    /// Whether the row was still there.
    async fn renew(&self) -> Result<bool, Error> {
        let update = format!(
            "UPDATE {} SET last_update = unixepoch(CURRENT_TIMESTAMP)
            WHERE registration_id = ? AND address = ?",
            self.table
        );
        let update = sqlx::query(AssertSqlSafe(update))
            .bind(&self.id)
            .bind(&self.address)
            .execute(&self.pool);
        Ok(self.timely(update).await?.rows_affected() > 0)
    }

    async fn remove(&self) -> Result<(), Error> {
        let delete = format!(
            "DELETE FROM {} WHERE registration_id = ? AND address = ?",
            self.table
        );
        let delete = sqlx::query(AssertSqlSafe(delete))
            .bind(&self.id)
            .bind(&self.address)
            .execute(&self.pool);
        if self.timely(delete).await?.rows_affected() == 0 {
            return Err(Error::internal("no row deleted"));
        }
        Ok(())
    }

    async fn timely<T>(&self, query: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
        match tokio::time::timeout(self.timeout, query).await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(Error::unavailable("context deadline exceeded")),
        }
    }

    async fn keep(self: Arc<Self>, pause: Duration, closed: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = closed.cancelled() => return,
            }
            let deadline = tokio::time::Instant::now() + self.timeout;
            loop {
                match self.renew().await {
                    Ok(true) => break,
                    Ok(false) => {
                        // Swept while the machine slept, or taken by another
                        // process, which cannot have this address too.
                        tracing::warn!(target: SCOPE, "Host registration lost; registering {} again", self.address);
                        if let Err(error) = self.insert().await {
                            tracing::error!(target: SCOPE, "Failed to update host registration: {error}");
                        }
                        break;
                    }
                    Err(error) if tokio::time::Instant::now() + PAUSE >= deadline => {
                        tracing::error!(target: SCOPE, "Failed to update host registration: {error}");
                        break;
                    }
                    Err(_) => tokio::time::sleep(PAUSE).await,
                }
            }
        }
    }
}

#[async_trait]
impl Resolver for Sqlite {
    async fn resolve(&self, request: &Request) -> Result<String, Error> {
        let known = self
            .known()
            .get_mut(&request.app_id)
            .filter(|known| known.read.elapsed() < FRESH)
            .and_then(Known::pick);
        if let Some(address) = known {
            return Ok(address);
        }
        let query = sqlx::query_scalar(self.look_up.clone())
            .bind(&request.app_id)
            .fetch_all(&self.row.pool);
        let addresses = self.row.timely(query).await;
        let mut read = Known {
            read: Instant::now(),
            addresses: addresses.map_err(|error| error.context("failed to look up address"))?,
            next: 0,
        };
        let Some(address) = read.pick() else {
            return Err(Error::not_found("no host found with the given ID"));
        };
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.retain(|_, known| known.read.elapsed() < FRESH);
        }
        if known.len() < REMEMBERED {
            known.insert(request.app_id.clone(), read);
        }
        Ok(address)
    }

    fn suspect(&self, request: &Request, address: &str) {
        if let Some(known) = self.known().get_mut(&request.app_id) {
            known.addresses.retain(|known| known != address);
        }
    }

    async fn close(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Ok(());
        }
        self.closed.cancel();
        let mut tasks = {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        while tasks.join_next().await.is_some() {}
        let removed = self.row.remove().await;
        self.row.pool.close().await;
        removed.map_err(|error| error.context("failed to unregister host"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn instance(app_id: &str, port: u16) -> Instance {
        Instance {
            app_id: app_id.to_owned(),
            namespace: "ignored".to_owned(),
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    fn request(app_id: &str) -> Request {
        Request {
            app_id: app_id.to_owned(),
            ..Request::default()
        }
    }

    async fn refused(config: Value) -> String {
        start(&config, instance("cart", 1))
            .await
            .err()
            .expect("is wrong")
            .to_string()
    }

    #[tokio::test]
    async fn sidecars_find_each_other_until_they_close() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let config = json!({"connectionString": folder.path().join("names.db")});
        let caller = start(&config, instance("caller", 1))
            .await
            .expect("can start");
        let called = start(&config, instance("called", 2))
            .await
            .expect("can start");
        let address = caller.resolve(&request("called")).await.expect("is there");
        assert_eq!(address, "127.0.0.1:2");

        called.close().await.expect("can close");
        caller.suspect(&request("called"), &address);
        let error = caller
            .resolve(&request("called"))
            .await
            .expect_err("is gone");
        assert_eq!(error.to_string(), "no host found with the given ID");
    }

    #[tokio::test]
    async fn a_registration_is_renewed_even_when_it_was_lost() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let config = json!({
            "connectionString": folder.path().join("names.db"),
            "updateInterval": "2s",
            "tableName": "sidecars",
        });
        let metadata = metadata(&config);
        let resolver = Sqlite::start(&metadata, &instance("cart", 1))
            .await
            .expect("can start");
        for damage in [
            "UPDATE sidecars SET last_update = 0",
            "DELETE FROM sidecars",
        ] {
            sqlx::query(damage)
                .execute(&resolver.row.pool)
                .await
                .expect("is a statement");
            resolver.suspect(&request("cart"), "127.0.0.1:1");
            assert!(
                resolver.resolve(&request("cart")).await.is_err(),
                "{damage}"
            );
            let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
            while resolver.resolve(&request("cart")).await.is_err() {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "{damage}: not renewed"
                );
                tokio::time::sleep(PAUSE).await;
            }
        }
        resolver.close().await.expect("can close");
    }

    #[tokio::test]
    async fn instances_take_turns_without_those_that_failed() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let config = json!({"connectionString": folder.path().join("names.db")});
        let one = start(&config, instance("cart", 1))
            .await
            .expect("can start");
        let _two = start(&config, instance("cart", 2))
            .await
            .expect("can start");
        let resolve = async || one.resolve(&request("cart")).await.expect("is there");
        let (first, second) = (resolve().await, resolve().await);
        assert_ne!(first, second);
        one.suspect(&request("cart"), &first);
        assert_eq!((resolve().await, resolve().await), (second.clone(), second));
    }

    #[tokio::test]
    async fn an_address_belongs_to_who_came_last() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let config = json!({"connectionString": folder.path().join("names.db")});
        let crashed = start(&config, instance("old", 1)).await.expect("can start");
        let next = start(&config, instance("new", 1)).await.expect("can start");
        assert!(next.resolve(&request("old")).await.is_err());
        assert_eq!(
            next.resolve(&request("new")).await.expect("is there"),
            "127.0.0.1:1"
        );
        drop(crashed);
    }

    #[tokio::test]
    async fn configurations_that_cannot_work() {
        assert_eq!(refused(Value::Null).await, "missing connection string");
        assert_eq!(
            refused(json!({"connectionString": "x", "updateInterval": "2500ms"})).await,
            "update interval must not contain fractions of seconds"
        );
        assert_eq!(
            refused(json!({"connectionString": "x", "updateInterval": "1s"})).await,
            "update interval must be at least 1s greater than timeout"
        );
        assert_eq!(
            refused(json!({"connectionString": "x", "tableName": "a b"})).await,
            "invalid identifier for table name: a b"
        );
    }
}
