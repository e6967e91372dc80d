use outrider_components::Error;
use sqlx::{AssertSqlSafe, SqlitePool};

use super::connection::failed;

/// The level that a database has after [`prepare`]. It is kept in the metadata
/// table under the key `migrations`.
const LEVEL: u32 = 1;

/// Makes the tables that are not there yet. The names are checked identifiers.
pub async fn prepare(pool: &SqlitePool, table: &str, metadata_table: &str) -> Result<(), Error> {
    migrate(pool, table, metadata_table)
        .await
        .map_err(|error| error.context("failed to perform migrations"))
}

async fn migrate(pool: &SqlitePool, table: &str, metadata_table: &str) -> Result<(), Error> {
    let mut transaction = pool.begin_with("BEGIN EXCLUSIVE").await.map_err(failed)?;
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {metadata_table} (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
    );
    sqlx::query(AssertSqlSafe(create))
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;

    let level =
        format!("SELECT CAST(value AS TEXT) FROM {metadata_table} WHERE key = 'migrations'");
    let level: Option<String> = sqlx::query_scalar(AssertSqlSafe(level))
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

    // Also at a later level: several components may share a metadata table.
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?)",
    )
    .bind(table)
    .fetch_one(&mut *transaction)
    .await
    .map_err(failed)?;
    if !exists {
        tracing::info!(target: "dapr.contrib", "Creating state table '{table}'");
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
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    if level < LEVEL {
        let update = format!("REPLACE INTO {metadata_table} (key, value) VALUES ('migrations', ?)");
        sqlx::query(AssertSqlSafe(update))
            .bind(LEVEL.to_string())
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
    }
    transaction.commit().await.map_err(failed)
}
