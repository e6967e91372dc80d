//! Deletes expired rows of MySQL.

use async_trait::async_trait;
use outrider_components::Error;
use sqlx::AssertSqlSafe;
use sqlx::mysql::MySqlPool;

use crate::statement::failed;

/// Deletes expired rows, in one of the processes that share the database.
pub struct Cleanup {
    pub pool: MySqlPool,
    pub table: String,
    pub metadata_table: String,
}

#[async_trait]
impl crate::cleanup::Cleanup for Cleanup {
    async fn once(&self, age: i64) -> Result<Option<u64>, Error> {
        let Cleanup {
            pool,
            table,
            metadata_table,
        } = self;
        let first = format!(
            "INSERT IGNORE INTO {metadata_table} (id, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP)"
        );
        let first = sqlx::query(AssertSqlSafe(first))
            .execute(pool)
            .await
            .map_err(failed)?;
        if first.rows_affected() == 0 {
            let claim = format!(
                "UPDATE {metadata_table} SET value = CURRENT_TIMESTAMP WHERE id = 'last-cleanup'
                AND CURRENT_TIMESTAMP > DATE_ADD(value, INTERVAL ? * 1000 MICROSECOND)"
            );
            let claimed = sqlx::query(AssertSqlSafe(claim))
                .bind(age)
                .execute(pool)
                .await
                .map_err(failed)?;
            if claimed.rows_affected() == 0 {
                return Ok(None);
            }
        }
        let delete = format!(
            "DELETE FROM {table} WHERE expiredate IS NOT NULL AND expiredate <= CURRENT_TIMESTAMP"
        );
        let deleted = sqlx::query(AssertSqlSafe(delete))
            .execute(pool)
            .await
            .map_err(failed)?;
        Ok(Some(deleted.rows_affected()))
    }
}
