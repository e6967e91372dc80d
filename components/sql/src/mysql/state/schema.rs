//! Makes the database and the tables of items, as Dapr's store has them.

use std::time::Duration;

use outrider_components::Error;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

use super::super::connection::Connection;
use crate::statement::{failed, in_time};

const SCOPE: &str = "dapr.contrib";
/// Another process has made the same key at the same time.
const DUPLICATE_KEY_NAME: u16 = 1061;
const DUPLICATE_COLUMN: u16 = 1060;

/// Makes the database `name`, if it does not exist.
pub async fn ensure_database(
    connection: &Connection,
    name: &str,
    timeout: Duration,
) -> Result<(), Error> {
    in_time(timeout, async {
        let mut server = MySqlConnection::connect_with(&connection.options)
            .await
            .map_err(failed)?;
        let exists: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM information_schema.schemata WHERE SCHEMA_NAME = ?",
        )
        .bind(name)
        .fetch_one(&mut server)
        .await
        .map_err(failed)?;
        if exists == 0 {
            tracing::info!(target: SCOPE, "Creating MySql schema '{name}'");
            let create = format!("CREATE DATABASE IF NOT EXISTS {name}");
            execute(&mut server, create).await.map_err(failed)?;
        }
        let _ = server.close().await;
        Ok(())
    })
    .await
}

/// Makes the tables, and adds the columns that those of older versions lack.
pub async fn ensure_tables(pool: &MySqlPool, table: &str, about: &str) -> Result<(), Error> {
    tables(pool, table, about).await.map_err(failed)
}

async fn tables(pool: &MySqlPool, table: &str, about: &str) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {table} (
            id VARCHAR(255) NOT NULL PRIMARY KEY,
            value JSON NOT NULL,
            isbinary BOOLEAN NOT NULL,
            insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
            updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
            eTag VARCHAR(36) NOT NULL,
            expiredate TIMESTAMP NULL,
            INDEX expiredate_idx(expiredate)
        )"
    );
    execute(&mut connection, create).await?;
    for (column, add) in [
        (
            "expiredate",
            "ADD COLUMN expiredate TIMESTAMP NULL, ADD INDEX expiredate_idx(expiredate)",
        ),
        (
            "row_id",
            "ADD COLUMN row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, \
            ADD UNIQUE KEY row_id_uidx (row_id)",
        ),
    ] {
        let exists: i64 = sqlx::query_scalar(
            "SELECT COUNT(*) FROM information_schema.columns
            WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?",
        )
        .bind(table)
        .bind(column)
        .fetch_one(&mut *connection)
        .await?;
        if exists > 0 {
            continue;
        }
        tracing::info!(target: SCOPE, "Adding {column} column to MySql state table '{table}'");
        match execute(&mut connection, format!("ALTER TABLE {table} {add}")).await {
            Err(error) if is_one_of(&error, &[DUPLICATE_KEY_NAME, DUPLICATE_COLUMN]) => {}
            other => other?,
        }
    }
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {about} (
            id VARCHAR(255) NOT NULL PRIMARY KEY,
            value TEXT NOT NULL
        )"
    );
    execute(&mut connection, create).await
}

async fn execute(connection: &mut MySqlConnection, sql: String) -> Result<(), sqlx::Error> {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await;
    done.map(drop)
}

/// Whether the server answered with one of these numbers.
pub fn is_one_of(error: &sqlx::Error, numbers: &[u16]) -> bool {
    let database = error.as_database_error();
    let error = database.and_then(|e| e.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>());
    error.is_some_and(|error| numbers.contains(&error.number()))
}
