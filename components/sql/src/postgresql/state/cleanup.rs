//! Deletes expired rows of PostgreSQL.

use async_trait::async_trait;
use outrider_components::Error;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use crate::statement::failed;

/// Deletes expired rows, in one of the processes that share the database.
pub struct Cleanup {
    pub pool: PgPool,
    pub metadata_table: String,
    /// The key in the metadata table of the time of the last clean-up.
    pub key: String,
    /// The statement that deletes the rows.
    pub delete: String,
}

#[async_trait]
impl crate::cleanup::Cleanup for Cleanup {
    async fn once(&self, age: i64) -> Result<Option<u64>, Error> {
        let Cleanup { metadata_table, .. } = self;
        let claim = format!(
            "INSERT INTO {metadata_table} AS m (key, value) VALUES ($1, now()::text)
            ON CONFLICT (key) DO UPDATE SET value = now()::text
            WHERE extract(epoch FROM now() - m.value::timestamp with time zone) * 1000 > $2"
        );
        let claimed = sqlx::query(AssertSqlSafe(claim))
            .persistent(false)
            .bind(&self.key)
            .bind(age)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        if claimed.rows_affected() == 0 {
            return Ok(None);
        }
        let deleted = sqlx::query(AssertSqlSafe(self.delete.clone()))
            .persistent(false)
            .execute(&self.pool)
            .await
            .map_err(failed)?;
        Ok(Some(deleted.rows_affected()))
    }
}
