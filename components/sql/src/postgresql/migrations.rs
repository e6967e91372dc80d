//! Makes and changes the tables of the components on PostgreSQL, so that
//! those of Dapr can use them too.

use std::time::Duration;

use outrider_components::Error;
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::statement::{failed, is_identifier};

const SCOPE: &str = "dapr.contrib";
const PAUSE: Duration = Duration::from_millis(50);
/// Two processes that make one table at the same time.
const UNIQUE_VIOLATION: &str = "23505";

/// A table, which has to be a checked name, with what its levels do. The level
/// that the database has is kept in the metadata table.
pub struct Table<'a> {
    pub name: &'a str,
    /// The key of the level in the metadata table.
    pub level: String,
    /// The statements of each level, without the last.
    pub levels: &'a [String],
    /// The column with the time when a row was written first.
    pub written: &'static str,
}

/// Whether a table's name, which may have its schema before it, can be put
/// into a statement.
pub fn is_table(name: &str) -> bool {
    let mut parts = name.split('.');
    let is_part =
        |part: Option<&str>| part.is_none_or(|part| !part.is_empty() && is_identifier(part));
    is_part(parts.next()) && is_part(parts.next()) && parts.next().is_none()
}

/// Makes the metadata table, and brings `table` to its newest level.
pub async fn prepare(pool: &PgPool, metadata_table: &str, table: &Table<'_>) -> Result<(), Error> {
    tracing::info!(target: SCOPE, "Creating metadata table '{metadata_table}'");
    make_metadata_table(pool, metadata_table)
        .await
        .map_err(|error| failed(error).context("failed to create metadata table"))?;
    let lock = format!(
        "INSERT INTO {metadata_table} (key, value) VALUES ('lock', 'lock') ON CONFLICT (key) DO NOTHING"
    );
    sqlx::query(AssertSqlSafe(lock))
        .execute(pool)
        .await
        .map_err(|error| failed(error).context("failed to ensure lock row 'lock' exists"))?;
    let mut transaction = pool
        .begin()
        .await
        .map_err(|error| failed(error).context("failed to begin transaction"))?;
    // Other processes, also those of Dapr, wait for this row.
    let lock = format!("SELECT value FROM {metadata_table} WHERE key = 'lock' FOR UPDATE");
    sqlx::query(AssertSqlSafe(lock))
        .execute(&mut *transaction)
        .await
        .map_err(|error| failed(error).context("failed to acquire migration lock"))?;
    migrate(&mut transaction, metadata_table, table).await?;
    transaction
        .commit()
        .await
        .map_err(|error| failed(error).context("failed to commit transaction"))
}

async fn make_metadata_table(pool: &PgPool, name: &str) -> Result<(), sqlx::Error> {
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {name} (key text NOT NULL PRIMARY KEY, value text NOT NULL)"
    );
    let mut tries = 3;
    loop {
        let made = sqlx::query(AssertSqlSafe(create.clone()))
            .execute(pool)
            .await;
        tries -= 1;
        match made {
            Err(sqlx::Error::Database(error))
                if tries > 0 && error.code().as_deref() == Some(UNIQUE_VIOLATION) =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other.map(drop),
        }
    }
}

async fn migrate(
    connection: &mut PgConnection,
    metadata_table: &str,
    table: &Table<'_>,
) -> Result<(), Error> {
    let level = format!("SELECT value FROM {metadata_table} WHERE key = $1");
    let level: Option<String> = sqlx::query_scalar(AssertSqlSafe(level))
        .bind(&table.level)
        .fetch_optional(&mut *connection)
        .await
        .map_err(|error| failed(error).context("failed to read migration level"))?;
    let level = match level {
        None => 0,
        Some(text) => text.parse().map_err(|_| {
            Error::invalid(format!(
                "invalid migration level found in metadata table: {text}"
            ))
        })?,
    };
    for at in level..=table.levels.len() {
        tracing::info!(target: SCOPE, "Performing migration {}", at + 1);
        let done = match table.levels.get(at) {
            Some(statements) => run(connection, statements.clone()).await,
            None => number_rows(connection, table).await,
        };
        done.map_err(|error| failed(error).context(&format!("failed to perform migration {at}")))?;
        let reached = format!(
            "INSERT INTO {metadata_table} (key, value) VALUES ($1, $2)
            ON CONFLICT (key) DO UPDATE SET value = $2"
        );
        sqlx::query(AssertSqlSafe(reached))
            .bind(&table.level)
            .bind((at + 1).to_string())
            .execute(&mut *connection)
            .await
            .map_err(|error| {
                failed(error).context("failed to update migration level in metadata table")
            })?;
    }
    Ok(())
}

async fn run(connection: &mut PgConnection, statements: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await
        .map(drop)
}

/// The last level of every table of items: rows are numbered in the order in
/// which they were written, which is that of listed keys.
async fn number_rows(connection: &mut PgConnection, table: &Table<'_>) -> Result<(), sqlx::Error> {
    let Table { name, written, .. } = table;
    let bare = name.rsplit('.').next().unwrap_or(name);
    let number = format!(
        "ALTER TABLE {name} ADD COLUMN IF NOT EXISTS row_id BIGINT;
        UPDATE {name} AS t SET row_id = numbered.number FROM (
            SELECT key, row_number() OVER (ORDER BY {written}, key) AS number
            FROM {name} WHERE row_id IS NULL
        ) AS numbered WHERE numbered.key = t.key;
        ALTER TABLE {name} ALTER COLUMN row_id SET NOT NULL;"
    );
    run(connection, number).await?;
    let is_identity: bool = sqlx::query_scalar(
        "SELECT attidentity <> '' FROM pg_attribute
        WHERE attrelid = to_regclass($1) AND attname = 'row_id' AND NOT attisdropped",
    )
    .bind(*name)
    .fetch_one(&mut *connection)
    .await?;
    if !is_identity {
        let identity =
            format!("ALTER TABLE {name} ALTER COLUMN row_id ADD GENERATED BY DEFAULT AS IDENTITY");
        run(connection, identity).await?;
    }
    let rest = format!(
        "SELECT setval(pg_get_serial_sequence('{name}', 'row_id'),
            COALESCE((SELECT MAX(row_id) FROM {name}), 0) + 1, false);
        CREATE UNIQUE INDEX IF NOT EXISTS {bare}_row_id_uidx ON {name} (row_id);"
    );
    run(connection, rest).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_may_have_a_schema() {
        for name in ["state", "mine.state_2"] {
            assert!(is_table(name), "{name}");
        }
        for name in ["", "a.b.c", "a.", "a b", "a;b", "\"a\""] {
            assert!(!is_table(name), "{name}");
        }
    }
}
