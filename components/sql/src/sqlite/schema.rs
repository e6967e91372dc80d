//! Makes the tables of the components on SQLite.

use outrider_components::Error;
use sqlx::{AssertSqlSafe, SqlitePool};

use crate::statement::failed;

/// The level that a database has after [`prepare`]. It is kept in the metadata
/// table.
const LEVEL: u32 = 1;

/// A table that a component needs. The names are checked identifiers.
pub struct Table<'a> {
    pub name: &'a str,
    /// What the table is for, for the log.
    pub purpose: &'static str,
    /// The key of its level in the metadata table.
    pub level: &'static str,
    /// The statements that make it.
    pub create: String,
}

/// Makes the metadata table and `table`, if they do not exist.
pub async fn prepare(
    pool: &SqlitePool,
    metadata_table: &str,
    table: &Table<'_>,
) -> Result<(), Error> {
    migrate(pool, metadata_table, table)
        .await
        .map_err(|error| error.context("failed to perform migrations"))
}

async fn migrate(pool: &SqlitePool, metadata_table: &str, table: &Table<'_>) -> Result<(), Error> {
    let mut transaction = pool.begin_with("BEGIN EXCLUSIVE").await.map_err(failed)?;
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {metadata_table} (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
    );
    sqlx::query(AssertSqlSafe(create))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;

    let level = format!("SELECT CAST(value AS TEXT) FROM {metadata_table} WHERE key = ?");
    let level: Option<String> = sqlx::query_scalar(AssertSqlSafe(level))
        .bind(table.level)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(failed)?;
    let level: u32 = match level {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid migration level found in metadata table: {text}"
            ))
        })?,
    };

    // Whatever the level: components may share a metadata table.
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)",
    )
    .bind(table.name)
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    if !exists {
        let Table { name, purpose, .. } = table;
        tracing::info!(target: "dapr.contrib", "Creating {purpose} table '{name}'");
        sqlx::raw_sql(AssertSqlSafe(table.create.clone()))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    if level < LEVEL {
        let update = format!("REPLACE INTO {metadata_table} (key, value) VALUES (?, ?)");
        sqlx::query(AssertSqlSafe(update))
            .bind(table.level)
            .bind(LEVEL.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}
