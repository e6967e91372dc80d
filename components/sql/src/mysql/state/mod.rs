//! `state.mysql`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-mysql/>.
//!
//! Values are JSON; bytes are a string in base64. Etags are UUIDs. Times are to
//! the second.

mod cleanup;
mod schema;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::state::{
    BulkItem, Concurrency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage, KeysLikeRequest,
    Operation, SetRequest, Store,
};
use outrider_components::{Context, Error, Field, Metadata, Pairs, Secret};
use sqlx::mysql::{MySqlConnection, MySqlPool, MySqlRow};
use sqlx::{AssertSqlSafe, Pool, Row, SqlSafeStr, SqlStr};

use self::cleanup::Cleanup;
use super::connection::{Connection, Limits};
use crate::cleanup::Background;
use crate::json;
use crate::statement::{failed, in_time, is_identifier};
use crate::store;
use crate::write::{self, Writes};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// Keys in one `SELECT` of a bulk get.
const KEYS_PER_STATEMENT: usize = 500;
const DUPLICATE_ENTRY: u16 = 1062;
const LIMITS: Limits = Limits {
    max_connections: 32,
    max_lifetime: None,
    max_idle_time: Some(Duration::from_secs(60)),
};

outrider_components::fields! {
    struct Fields {
        /// `user:password@tcp(host:port)/?name=value`. A database that it
        /// names is not used: see `schemaName`.
        "connectionString" => connection_string: Secret, missing "missing connection string";
        /// Table of the items.
        "tableName" => table: String = "state";
        /// The database, which is made if it does not exist.
        "schemaName" => schema: String = "dapr_state_store";
        /// Table of what the component remembers about its own work.
        "metadataTableName" => metadata_table: String = "dapr_metadata";
        /// How long one operation may take, in seconds; 0 means 20.
        "timeoutInSeconds" => timeout: i64 = "20";
        /// Path of the certificates that sign that of the server, for
        /// `tls=custom` in the connection string.
        "pemPath" => pem_path: Option<String>;
        /// How often expired items are deleted; 0 means never.
        "cleanupInterval" => cleanup_interval: Duration = "1h";
    }
}

struct Mysql {
    pool: MySqlPool,
    table: String,
    statements: Statements,
    timeout: Duration,
    cleanup: Background,
}

struct Statements {
    get: SqlStr,
    set: SqlStr,
    insert: SqlStr,
    /// Only if the row has expired.
    set_expired: SqlStr,
    /// Only if the etag matches.
    set_etag: SqlStr,
    delete: SqlStr,
    delete_etag: SqlStr,
}

const LIVE: &str = "(expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP)";
/// What [`read`] expects.
const COLUMNS: &str = "id, CONVERT(value USING utf8mb4) AS value, isbinary, eTag, \
    CAST(UNIX_TIMESTAMP(expiredate) AS SIGNED) AS expires";
/// Its argument is seconds, or null for ever.
const EXPIRY: &str = "CURRENT_TIMESTAMP + INTERVAL ? SECOND";

impl Statements {
    fn new(table: &str) -> Statements {
        let insert = format!(
            "INSERT INTO {table} (value, isbinary, eTag, expiredate, id) VALUES (?, ?, ?, {EXPIRY}, ?)"
        );
        let update =
            format!("UPDATE {table} SET value = ?, isbinary = ?, eTag = ?, expiredate = {EXPIRY}");
        let sql = |text: String| AssertSqlSafe(text).into_sql_str();
        Statements {
            get: sql(format!(
                "SELECT {COLUMNS} FROM {table} WHERE id = ? AND {LIVE}"
            )),
            set: sql(format!(
                "{insert} ON DUPLICATE KEY UPDATE value = VALUES(value), \
                isbinary = VALUES(isbinary), eTag = VALUES(eTag), expiredate = VALUES(expiredate)"
            )),
            insert: sql(insert),
            set_expired: sql(format!(
                "{update} WHERE id = ? AND expiredate <= CURRENT_TIMESTAMP"
            )),
            set_etag: sql(format!("{update} WHERE id = ? AND eTag = ? AND {LIVE}")),
            delete: sql(format!("DELETE FROM {table} WHERE id = ?")),
            delete_etag: sql(format!("DELETE FROM {table} WHERE id = ? AND eTag = ?")),
        }
    }
}

/// Connects, and makes the database and its tables.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    for (what, name) in [
        ("table", &fields.table),
        ("metadata table", &fields.metadata_table),
        ("schema", &fields.schema),
    ] {
        if !is_identifier(name) {
            return Err(Error::invalid(format!("{what} name '{name}' is not valid")));
        }
    }
    let seconds = u64::try_from(fields.timeout).ok().filter(|n| *n > 0);
    let timeout = Duration::from_secs(seconds.unwrap_or(20));
    let mut connection = Connection::new(&fields.connection_string.0, fields.pem_path.as_deref())?;
    schema::ensure_database(&connection, &fields.schema, timeout).await?;
    connection.options = connection.options.database(&fields.schema);
    let pool = connection.open(LIMITS, timeout).await?;
    schema::ensure_tables(&pool, &fields.table, &fields.metadata_table).await?;
    let cleanup = Cleanup {
        pool: pool.clone(),
        table: fields.table.clone(),
        metadata_table: fields.metadata_table,
    };
    Ok(Arc::new(Mysql {
        pool,
        statements: Statements::new(&fields.table),
        table: fields.table,
        timeout,
        cleanup: Background::start(cleanup, Some(fields.cleanup_interval)),
    }))
}

fn mismatch() -> Error {
    Error::etag_mismatch("rows affected error: no rows match given key and eTag")
}

impl Mysql {
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        in_time(self.timeout, work).await
    }
}

impl Writes for Mysql {
    type Database = sqlx::MySql;

    fn pool(&self) -> &Pool<Self::Database> {
        &self.pool
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    async fn set_on(
        &self,
        connection: &mut MySqlConnection,
        request: &SetRequest,
    ) -> Result<(), Error> {
        let key = store::non_empty(&request.key, "set operation")?;
        let seconds = store::seconds(request)?.map(i64::from);
        let (text, is_binary) = json::text(&request.value)?;
        let etag = uuid::Uuid::new_v4().to_string();
        let write = |sql: &SqlStr| {
            sqlx::query(sql.clone())
                .bind(text.clone())
                .bind(is_binary)
                .bind(etag.clone())
                .bind(seconds)
                .bind(key)
        };
        if let Some(given) = request.etag() {
            let bound = write(&self.statements.set_etag).bind(given);
            let done = bound.execute(connection).await.map_err(failed)?;
            return if done.rows_affected() == 0 {
                Err(mismatch())
            } else {
                Ok(())
            };
        }
        if request.concurrency != Concurrency::FirstWrite {
            let set = write(&self.statements.set);
            return set.execute(connection).await.map_err(failed).map(drop);
        }
        match write(&self.statements.insert)
            .execute(&mut *connection)
            .await
        {
            Err(error) if schema::is_one_of(&error, &[DUPLICATE_ENTRY]) => {
                let set = write(&self.statements.set_expired);
                let done = set.execute(connection).await.map_err(failed)?;
                if done.rows_affected() == 0 {
                    return Err(mismatch());
                }
                Ok(())
            }
            other => other.map_err(failed).map(drop),
        }
    }

    async fn delete_on(
        &self,
        connection: &mut MySqlConnection,
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
fn read(row: &MySqlRow) -> Result<(String, Item), Error> {
    let key: String = row.try_get("id").map_err(failed)?;
    let value: String = row.try_get("value").map_err(failed)?;
    let is_binary: bool = row.try_get("isbinary").map_err(failed)?;
    let expires: Option<i64> = row.try_get("expires").map_err(failed)?;
    let item = Item {
        value: if is_binary {
            json::bytes(value.as_bytes())?
        } else {
            value.into()
        },
        etag: row.try_get("eTag").map_err(failed)?,
        metadata: store::expiry(expires),
        content_type: None,
    };
    Ok((key, item))
}

#[async_trait]
impl Store for Mysql {
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
        let row = self
            .in_time(async {
                sqlx::query(self.statements.get.clone())
                    .bind(key)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        row.map(|row| read(&row).map(|(_, item)| item)).transpose()
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
            let select = format!("SELECT {COLUMNS} FROM {table} WHERE id IN ({marks}) AND {LIVE}");
            let mut query = sqlx::query(AssertSqlSafe(select)).persistent(false);
            for request in requests {
                query = query.bind(&request.key);
            }
            let rows = self
                .in_time(async { query.fetch_all(&self.pool).await.map_err(failed) })
                .await?;
            for row in &rows {
                let key: String = row.try_get("id").map_err(failed)?;
                found.insert(key, read(row).map(|(_, item)| item));
            }
        }
        Ok(store::in_order(requests, &found))
    }

    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        write::transact(self, operations).await
    }

    /// In the order in which they were written first. The continuation is a
    /// row number.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        let pattern = request.pattern()?;
        let after = store::page_start(request.continuation.as_deref())?;
        let limit = request.page_size.filter(|size| *size > 0);
        let table = &self.table;
        let select = format!(
            "SELECT id, CAST(row_id AS SIGNED) FROM {table} WHERE id LIKE ? AND {LIVE} \
            AND CAST(row_id AS SIGNED) > ? ORDER BY row_id LIMIT ?"
        );
        let rows: Vec<(String, i64)> = self
            .in_time(async {
                sqlx::query_as(AssertSqlSafe(select))
                    .bind(pattern)
                    .bind(after)
                    .bind(limit.map_or(i64::MAX, i64::from))
                    .fetch_all(&self.pool)
                    .await
                    .map_err(failed)
            })
            .await?;
        Ok(store::page(rows, limit))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.in_time(async {
            let answer = sqlx::query("SELECT 1").execute(&self.pool).await;
            answer.map_err(failed).map(drop)
        })
        .await
    }

    async fn close(&self) -> Result<(), Error> {
        self.cleanup.stop().await;
        self.pool.close().await;
        Ok(())
    }
}
