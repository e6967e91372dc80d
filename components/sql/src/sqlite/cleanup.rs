//! Deletes expired rows from time to time.

use std::time::Duration;

use outrider_components::Error;
use sqlx::{AssertSqlSafe, SqlitePool};
use tokio_util::sync::CancellationToken;

use super::connection::failed;

/// A clean-up that comes too early by less than this counts as on time.
const TOLERANCE: Duration = Duration::from_millis(100);

/// Deletes expired rows once in each interval, in one of the processes that
/// share the database.
pub struct Cleanup {
    pub pool: SqlitePool,
    pub metadata_table: String,
    /// The key in the metadata table of the time of the last clean-up.
    pub key: &'static str,
    /// The statement that deletes the rows.
    pub delete: String,
    pub interval: Duration,
}

impl Cleanup {
    /// Runs until `stopping` is cancelled.
    pub async fn run(self, stopping: CancellationToken) {
        let interval = outrider_kit::duration::format(self.interval);
        tracing::info!(target: "dapr.contrib", "Schedule expired data clean up every {interval}");
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = stopping.cancelled() => return,
            }
            match self.once().await {
                Ok(Some(rows)) => {
                    tracing::info!(target: "dapr.contrib", "Removed {rows} expired rows");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(target: "dapr.contrib", "Error removing expired data: {error}");
                }
            }
        }
    }

    /// How many rows were deleted; `None` if another process has cleaned up in
    /// this interval.
    async fn once(&self) -> Result<Option<u64>, Error> {
        let Cleanup { metadata_table, .. } = self;
        let claim = format!(
            "INSERT INTO {metadata_table} (key, value) VALUES (?, CURRENT_TIMESTAMP)
            ON CONFLICT (key) DO UPDATE SET value = CURRENT_TIMESTAMP
            WHERE (unixepoch(CURRENT_TIMESTAMP) - unixepoch(value)) * 1000 > ?"
        );
        let age = self.interval.saturating_sub(TOLERANCE).as_millis();
        let claimed = sqlx::query(AssertSqlSafe(claim))
            .bind(self.key)
            .bind(i64::try_from(age).unwrap_or(i64::MAX))
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
