//! `nameresolution.sqlite`: <https://docs.dapr.io/reference/components-reference/supported-name-resolution/setup-sqlite/>.
//!
//! A database file that the sidecars of a machine share. Each has a row, which
//! it renews.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use outrider_components::resolve::{Request, Resolver};
use outrider_components::{Context, Error, Field, Metadata};
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::cleanup::Cleanup;
use super::connection::{self, Connection};
use super::schema;
use crate::statement::{failed, in_time, is_identifier};

const SCOPE: &str = "dapr.contrib";
const SECOND: Duration = Duration::from_secs(1);
/// Between attempts to renew the registration.
const PAUSE: Duration = Duration::from_millis(50);
/// How long addresses are used before the database is asked again. Well below
/// the time after which a row that is not renewed is ignored.
const CACHE_TTL: Duration = Duration::from_millis(500);
/// Applications whose addresses are cached.
const CACHE_SIZE: usize = 1024;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[connection::Fields::FIELDS, Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// How long one statement may take; at least 1s.
        "timeout" | "timeoutInSeconds" => timeout: Duration = "1s";
        /// How long to wait for another process that writes.
        "busyTimeout" => busy_timeout: Duration = "800ms";
        /// Table of the sidecars' addresses.
        "tableName" => table: String = "hosts";
        /// Table of what the component remembers about its own work.
        "metadataTableName" => metadata_table: String = "metadata";
        /// After how long without renewal an address is not used any more, in
        /// whole seconds; at least 1s more than `timeout`.
        "updateInterval" => update_interval: Duration = "5s";
        /// How often old addresses are deleted; 0 means never.
        "cleanupInterval" | "cleanupIntervalInSeconds" => cleanup_interval: Duration = "1h";
    }
}

/// Opens the database and registers this sidecar in it.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Resolver>, Error> {
    Ok(Arc::new(Sqlite::connect(&metadata, &context).await?))
}

struct Sqlite {
    row: Arc<Row>,
    look_up: SqlStr,
    cache: Mutex<HashMap<String, Cached>>,
    closed: CancellationToken,
    tasks: Mutex<JoinSet<()>>,
}

/// The addresses of an application, as they were when the database was read.
struct Cached {
    read: Instant,
    addresses: Vec<String>,
    next: usize,
}

impl Cached {
    fn is_fresh(&self) -> bool {
        self.read.elapsed() < CACHE_TTL
    }

    /// One address after the other.
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

impl Fields {
    /// Checks the fields, and returns the pause between renewals.
    fn check(&self) -> Result<Duration, Error> {
        for (name, what) in [
            (&self.table, "table"),
            (&self.metadata_table, "metadata table"),
        ] {
            if !is_identifier(name) {
                let text = format!("invalid identifier for {what} name: {name}");
                return Err(Error::invalid(text));
            }
        }
        if self.update_interval.subsec_nanos() != 0 {
            return Err(Error::invalid(
                "update interval must not contain fractions of seconds",
            ));
        }
        self.update_interval
            .checked_sub(self.timeout)
            .filter(|pause| *pause >= SECOND)
            .ok_or_else(|| {
                Error::invalid("update interval must be at least 1s greater than timeout")
            })
    }
}

/// The address of this sidecar.
fn address(context: &Context) -> Result<String, Error> {
    if context.app_id.is_empty() {
        return Err(Error::invalid("name is missing"));
    }
    if context.host.is_empty() {
        return Err(Error::invalid("address is missing"));
    }
    if context.internal_port == 0 {
        return Err(Error::invalid("port is missing or invalid"));
    }
    Ok(match context.host.parse::<IpAddr>() {
        Ok(ip) => SocketAddr::new(ip, context.internal_port).to_string(),
        Err(_) => format!("{}:{}", context.host, context.internal_port),
    })
}

/// The table of the sidecars' addresses.
fn hosts(table: &str) -> schema::Table<'_> {
    schema::Table {
        name: table,
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
    }
}

impl Sqlite {
    async fn connect(metadata: &Metadata, context: &Context) -> Result<Sqlite, Error> {
        let address = address(context)?;
        let database = connection::Fields::read(metadata)?;
        let fields = Fields::read(metadata)?;
        let connection = Connection::new(&database, fields.timeout, fields.busy_timeout)?;
        let pause = fields.check()?;
        let Fields {
            timeout,
            table,
            metadata_table,
            update_interval,
            cleanup_interval,
            ..
        } = fields;
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
        schema::prepare(&pool, &metadata_table, &hosts(&table)).await?;

        let age = "unixepoch(CURRENT_TIMESTAMP) - last_update";
        let seconds = update_interval.as_secs();
        let row = Arc::new(Row {
            pool: pool.clone(),
            id: uuid::Uuid::new_v4().to_string(),
            address,
            app_id: context.app_id.clone(),
            timeout,
            table: table.clone(),
        });
        row.insert()
            .await
            .map_err(|error| error.context("failed to register host"))?;

        let closed = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&row).keep_renewed(pause, closed.clone()));
        if !cleanup_interval.is_zero() {
            let cleanup = Cleanup {
                pool,
                metadata_table,
                key: "nr-last-cleanup",
                delete: format!("DELETE FROM {table} WHERE {age} >= {seconds}"),
            };
            let closed = closed.clone();
            tasks.spawn(crate::cleanup::run(cleanup, cleanup_interval, closed));
        }
        let look_up = format!(
            "SELECT address FROM {table} WHERE app_id = ? AND {age} < {seconds} ORDER BY RANDOM()"
        );
        Ok(Sqlite {
            row,
            look_up: AssertSqlSafe(look_up).into_sql_str(),
            cache: Mutex::default(),
            closed,
            tasks: Mutex::new(tasks),
        })
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, HashMap<String, Cached>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Row {
    /// Replaces another row of the same address.
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
        self.in_time(insert).await.map(drop)
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
        Ok(self.in_time(update).await?.rows_affected() > 0)
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
        if self.in_time(delete).await?.rows_affected() == 0 {
            return Err(Error::internal("no row deleted"));
        }
        Ok(())
    }

    async fn in_time<T>(&self, query: impl Future<Output = sqlx::Result<T>>) -> Result<T, Error> {
        in_time(self.timeout, async { query.await.map_err(failed) }).await
    }

    async fn keep_renewed(self: Arc<Self>, pause: Duration, closed: CancellationToken) {
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
                        // Deleted as too old while the machine slept, or
                        // replaced by another process, which has ended since:
                        // two cannot have this address.
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
    async fn resolve(&self, request: &Request<'_>) -> Result<String, Error> {
        let cached = self
            .cache()
            .get_mut(request.app_id)
            .filter(|cached| cached.is_fresh())
            .and_then(Cached::pick);
        if let Some(address) = cached {
            return Ok(address);
        }
        let query = sqlx::query_scalar(self.look_up.clone())
            .bind(request.app_id)
            .fetch_all(&self.row.pool);
        let addresses = self.row.in_time(query).await;
        let mut read = Cached {
            read: Instant::now(),
            addresses: addresses.map_err(|error| error.context("failed to look up address"))?,
            next: 0,
        };
        let Some(address) = read.pick() else {
            return Err(Error::not_found("no host found with the given ID"));
        };
        let mut cache = self.cache();
        if cache.len() >= CACHE_SIZE {
            cache.retain(|_, cached| cached.is_fresh());
        }
        if cache.len() < CACHE_SIZE {
            cache.insert(request.app_id.to_owned(), read);
        }
        Ok(address)
    }

    fn suspect(&self, request: &Request<'_>, address: &str) {
        if let Some(cached) = self.cache().get_mut(request.app_id) {
            cached.addresses.retain(|other| other != address);
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
    use std::path::Path;

    use super::*;

    fn sidecar(app_id: &str, port: u16) -> Context {
        Context {
            app_id: app_id.to_owned(),
            namespace: "ignored".to_owned(),
            host: "127.0.0.1".to_owned(),
            internal_port: port,
            ..Context::default()
        }
    }

    fn properties(folder: &Path, more: &[(&str, &str)]) -> Metadata {
        let path = folder.join("names.db").display().to_string();
        let more = more.iter().map(|(k, v)| (*k, (*v).to_owned()));
        Metadata::new("nr", more.chain([("connectionString", path)]))
    }

    async fn start(folder: &Path, app_id: &str, port: u16) -> Arc<dyn Resolver> {
        connect(properties(folder, &[]), sidecar(app_id, port))
            .await
            .expect("can start")
    }

    fn request(app_id: &str) -> Request<'_> {
        Request {
            app_id,
            ..Request::default()
        }
    }

    async fn refused(properties: &[(&str, &str)]) -> String {
        let metadata = Metadata::new("nr", properties.iter().copied());
        connect(metadata, sidecar("cart", 1))
            .await
            .err()
            .expect("is wrong")
            .to_string()
    }

    #[tokio::test]
    async fn sidecars_find_each_other_until_they_close() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let caller = start(folder.path(), "caller", 1).await;
        let called = start(folder.path(), "called", 2).await;
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
        let more = [("updateInterval", "2s"), ("tableName", "sidecars")];
        let metadata = properties(folder.path(), &more);
        let resolver = Sqlite::connect(&metadata, &sidecar("cart", 1))
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
        let one = start(folder.path(), "cart", 1).await;
        let _two = start(folder.path(), "cart", 2).await;
        let resolve = async || one.resolve(&request("cart")).await.expect("is there");
        let (first, second) = (resolve().await, resolve().await);
        assert_ne!(first, second);
        one.suspect(&request("cart"), &first);
        assert_eq!((resolve().await, resolve().await), (second.clone(), second));
    }

    #[tokio::test]
    async fn the_last_process_with_an_address_owns_it() {
        let folder = tempfile::tempdir().expect("can make a folder");
        let crashed = start(folder.path(), "old", 1).await;
        let next = start(folder.path(), "new", 1).await;
        assert!(next.resolve(&request("old")).await.is_err());
        assert_eq!(
            next.resolve(&request("new")).await.expect("is there"),
            "127.0.0.1:1"
        );
        drop(crashed);
    }

    #[tokio::test]
    async fn properties_that_cannot_work_are_refused() {
        assert_eq!(refused(&[]).await, "missing connection string");
        assert_eq!(
            refused(&[("url", "x"), ("updateInterval", "2500ms")]).await,
            "update interval must not contain fractions of seconds"
        );
        assert_eq!(
            refused(&[("url", "x"), ("updateInterval", "1s")]).await,
            "update interval must be at least 1s greater than timeout"
        );
        assert_eq!(
            refused(&[("url", "x"), ("tableName", "a b")]).await,
            "invalid identifier for table name: a b"
        );
    }
}
