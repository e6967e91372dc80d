//! Deletes expired rows of SQLite.

use async_trait::async_trait;
use outrider_components::Error;
use sqlx::{AssertSqlSafe, SqlitePool};

use crate::statement::failed;

/// Deletes expired rows, in one of the processes that share the database.
pub struct Cleanup {
    pub pool: SqlitePool,
    pub metadata_table: String,
    /// The key in the metadata table of the time of the last clean-up.
    pub key: &'static str,
    /// The statement that deletes the rows.
    pub delete: String,
}

#[async_trait]
impl crate::cleanup::Cleanup for Cleanup {
    async fn once(&self, age: i64) -> Result<Option<u64>, Error> {
        let Cleanup { metadata_table, .. } = self;
        let claim = format!(
            "INSERT INTO {metadata_table} (key, value) VALUES (?, CURRENT_TIMESTAMP)
            ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP
            WHERE (unixepoch(CURRENT_TIMESTAMP) - unixepoch(value)) * 1000 > ?"
        );
        let claimed = sqlx::query(AssertSqlSafe(claim))
            .bind(self.key)
            .bind(age)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        if claimed.rows_affected() == 0 {
            return Ok(None);
        }
        let deleted = sqlx::query(AssertSqlSafe(self.delete.clone()))
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(Some(deleted.rows_affected()))
    }
}
