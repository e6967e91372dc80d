//! `state.sqlite`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-sqlite/>.
//!
//! A JSON value is kept as its text, any other as base64 with `is_binary` set.
//! Etags are opaque; new ones are UUIDs. Times are UTC to the second.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outrider_components::state::{
    BulkItem, Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Operation, SetRequest, Store, Value,
};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Pool, Row, SqlSafeStr, SqlStr, SqliteConnection, Transaction};

use super::cleanup::Cleanup;
use super::connection::{self, Connection};
use super::schema;
use crate::cleanup::Background;
use crate::statement::{failed, in_time, is_identifier};
use crate::store;
use crate::write::{self, Writes};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[connection::Fields::FIELDS, Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// How long one operation may take; at least 1s.
        "timeout" | "timeoutInSeconds" => timeout: Duration = "20s";
        /// How long to wait for another process that writes.
        "busyTimeout" => busy_timeout: Duration = "2s";
        /// Table of the items.
        "tableName" => table: String = "state";
        /// Table of what the component remembers about its own work.
        "metadataTableName" => metadata_table: String = "metadata";
        /// How often expired items are deleted; never if absent or 0.
        "cleanupInterval" | "cleanupIntervalInSeconds" => cleanup_interval: Option<Duration>;
    }
}

/// Keys in one `SELECT` of a bulk get.
const KEYS_PER_STATEMENT: usize = 500;

struct Sqlite {
    pool: SqlitePool,
    table: String,
    statements: Statements,
    timeout: Duration,
    cleanup: Background,
}

struct Statements {
    get: SqlStr,
    set: SqlStr,
    /// Only if there is no live row.
    set_new: SqlStr,
    /// Only if the etag matches.
    set_etag: SqlStr,
    delete: SqlStr,
    delete_etag: SqlStr,
}

const LIVE: &str = "(expiration_time IS NULL OR expiration_time > CURRENT_TIMESTAMP)";
/// What [`read`] expects. The casts are for rows of other programs.
const COLUMNS: &str = "key, CAST(value AS BLOB) AS value, CAST(is_binary AS INTEGER) AS is_binary, \
    CAST(etag AS TEXT) AS etag, CAST(strftime('%s', expiration_time) AS INTEGER) AS expires";
/// Its argument is seconds as text, or null for ever.
const EXPIRY: &str = "DATETIME(CURRENT_TIMESTAMP, '+' || ? || ' seconds')";

impl Statements {
    fn new(table: &str) -> Statements {
        let insert = format!(
            "{table} (key, value, is_binary, etag, expiration_time, update_time) \
            VALUES (?, ?, ?, ?, {EXPIRY}, CURRENT_TIMESTAMP)"
        );
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        Statements {
            get: sql(format!(
                "SELECT {COLUMNS} FROM {table} WHERE key = ? AND {LIVE}"
            )),
            set: sql(format!("INSERT OR REPLACE INTO {insert}")),
            set_new: sql(format!(
                "INSERT INTO {insert} ON CONFLICT (key) DO UPDATE SET \
                value = excluded.value, is_binary = excluded.is_binary, etag = excluded.etag, \
                expiration_time = excluded.expiration_time, update_time = excluded.update_time \
                WHERE {table}.expiration_time <= CURRENT_TIMESTAMP"
            )),
            set_etag: sql(format!(
                "UPDATE {table} SET value = ?, is_binary = ?, etag = ?, \
                expiration_time = {EXPIRY}, update_time = CURRENT_TIMESTAMP \
                WHERE key = ? AND etag = ? AND {LIVE}"
            )),
            delete: sql(format!("DELETE FROM {table} WHERE key = ?")),
            delete_etag: sql(format!("DELETE FROM {table} WHERE key = ? AND etag = ?")),
        }
    }
}

/// Opens the database and makes its tables.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(Sqlite::connect(&metadata).await?))
}

impl Sqlite {
    async fn connect(metadata: &Metadata) -> Result<Sqlite, Error> {
        let database = connection::Fields::read(metadata)?;
        let Fields {
            timeout,
            busy_timeout,
            table,
            metadata_table,
            cleanup_interval,
        } = Fields::read(metadata)?;
        let connection = Connection::new(&database, timeout, busy_timeout)?;
        for name in [&table, &metadata_table] {
            if !is_identifier(name) {
                return Err(Error::invalid(format!("invalid identifier: {name}")));
            }
        }
        let pool = connection
            .open()
            .await
            .map_err(|error| failed(error).context("failed to ping"))?;
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {table} (
                key TEXT NOT NULL PRIMARY KEY,
                value TEXT NOT NULL,
                is_binary BOOLEAN NOT NULL,
                etag TEXT NOT NULL,
                expiration_time TIMESTAMP DEFAULT NULL,
                update_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
            )"
        );
        let items = schema::Table {
            name: &table,
            purpose: "state",
            level: "migrations",
            create,
        };
        schema::prepare(&pool, &metadata_table, &items).await?;
        let cleanup = Cleanup {
            pool: pool.clone(),
            metadata_table,
            key: "last-cleanup",
            delete: format!("DELETE FROM {table} WHERE expiration_time < CURRENT_TIMESTAMP"),
        };
        Ok(Sqlite {
            pool,
            statements: Statements::new(&table),
            table,
            timeout,
            cleanup: Background::start(cleanup, cleanup_interval),
        })
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        in_time(self.timeout, work).await
    }
}

impl Writes for Sqlite {
    type Database = sqlx::Sqlite;

    fn pool(&self) -> &Pool<Self::Database> {
        &self.pool
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn begin(&self) -> Result<Transaction<'static, Self::Database>, sqlx::Error> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }

    async fn set_on(
        &self,
        connection: &mut SqliteConnection,
        request: &SetRequest,
    ) -> Result<(), Error> {
        let key = store::non_empty(&request.key, "set option")?;
        let expires = store::seconds(request)?.map(|seconds| seconds.to_string());
        let (text, is_binary) = match &request.value {
            Value::Binary(bytes) => (STANDARD.encode(bytes), true),
            Value::Json(text) => match std::str::from_utf8(text) {
                Ok(text) => (text.to_owned(), false),
                Err(_) => return Err(Error::invalid("a JSON value has to be UTF-8")),
            },
        };
        let new_etag = uuid::Uuid::new_v4().to_string();
        let query = match (request.etag(), request.concurrency) {
            (Some(etag), _) => sqlx::query(self.statements.set_etag.clone())
                .bind(text)
                .bind(is_binary)
                .bind(new_etag)
                .bind(expires)
                .bind(key)
                .bind(etag),
            (None, concurrency) => {
                let statement = if concurrency == Concurrency::FirstWrite {
                    &self.statements.set_new
                } else {
                    &self.statements.set
                };
                sqlx::query(statement.clone())
                    .bind(key)
                    .bind(text)
                    .bind(is_binary)
                    .bind(new_etag)
                    .bind(expires)
            }
        };
        let done = query.execute(connection).await.map_err(failed)?;
        if done.rows_affected() == 0 {
            return Err(Error::etag_mismatch(""));
        }
        Ok(())
    }

    async fn delete_on(
        &self,
        connection: &mut SqliteConnection,
        request: &DeleteRequest,
    ) -> Result<(), Error> {
        let key = store::non_empty(&request.key, "delete operation")?;
        let query = match request.etag() {
            None => sqlx::query(self.statements.delete.clone()).bind(key),
            Some(etag) => sqlx::query(self.statements.delete_etag.clone())
                .bind(key)
                .bind(etag),
        };
        let done = query.execute(connection).await.map_err(failed)?;
        if done.rows_affected() == 0 && request.etag().is_some() {
            return Err(Error::etag_mismatch(""));
        }
        Ok(())
    }
}

/// The key and the item of a row.
fn read(row: &SqliteRow) -> Result<(String, Item), Error> {
    let key: String = row.try_get("key").map_err(failed)?;
    let value: Vec<u8> = row.try_get("value").map_err(failed)?;
    let is_binary: bool = row.try_get("is_binary").map_err(failed)?;
    let etag: Option<String> = row.try_get("etag").map_err(failed)?;
    let expires: Option<i64> = row.try_get("expires").map_err(failed)?;
    let value = if is_binary {
        STANDARD.decode(&value).map_err(|error| {
            Error::internal(format!("failed to decode binary data: {error}")).because(error)
        })?
    } else {
        value
    };
    let item = Item {
        value: Bytes::from(value),
        etag,
        metadata: store::expiry(expires),
        content_type: None,
    };
    Ok((key, item))
}

#[async_trait]
impl Store for Sqlite {
    fn features(&self) -> &[Feature] {
        &[
            Feature::Etag,
            Feature::Transactional,
            Feature::Ttl,
            Feature::KeysLike,
        ]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let key = store::non_empty(&request.key, "get operation")?;
        self.in_time(async {
            let row = sqlx::query(self.statements.get.clone())
                .bind(key)
                .fetch_optional(&self.pool)
                .await
                .map_err(failed)?;
            row.map(|row| read(&row).map(|(_, item)| item)).transpose()
        })
        .await
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        write::set(self, request).await
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        write::delete(self, request).await
    }

    async fn bulk_get(&self, requests: &[GetRequest], _: usize) -> Result<Vec<BulkItem>, Error> {
        let mut found = HashMap::new();
        for requests in requests.chunks(KEYS_PER_STATEMENT) {
            let marks = vec!["?"; requests.len()].join(",");
            let table = &self.table;
            let select = format!("SELECT {COLUMNS} FROM {table} WHERE key IN ({marks}) AND {LIVE}");
            let mut query = sqlx::query(AssertSqlSafe(select)).persistent(false);
            for request in requests {
                query = query.bind(&request.key);
            }
            let rows = self
                .in_time(async { query.fetch_all(&self.pool).await.map_err(failed) })
                .await?;
            for row in &rows {
                let key: String = row.try_get("key").map_err(failed)?;
                found.insert(key, read(row).map(|(_, item)| item));
            }
        }
        Ok(store::in_order(requests, &found))
    }

    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        write::transact(self, operations).await
    }

    /// By the time of the last write. The continuation is a row number.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let pattern = request.pattern()?;
        let after = store::page_start(request.continuation.as_deref())?;
        // A negative limit means no limit.
        let limit = request.page_size.map_or(-1, i64::from);
        let table = &self.table;
        let select = format!(
            r"SELECT key, rowid FROM {table} WHERE key LIKE ? ESCAPE '\' AND {LIVE} AND rowid > ? ORDER BY rowid LIMIT ?"
        );
        let rows: Vec<(String, i64)> = self
            .in_time(async {
                sqlx::query_as(AssertSqlSafe(select))
                    .bind(pattern)
                    .bind(after)
                    .bind(limit)
                    .fetch_all(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        Ok(store::page(rows, request.page_size))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.in_time(async {
            sqlx::query("SELECT 1")
                .execute(&self.pool)
                .await
                .map_err(failed)
        })
        .await?;
        Ok(())
    }

    async fn close(&self) -> Result<(), Error> {
        self.cleanup.stop().await;
        self.pool.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
