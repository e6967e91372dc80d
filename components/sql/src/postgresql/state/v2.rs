//! `state.postgresql`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-postgresql-v2/>.
//!
//! Version 2: values are bytes.

use std::sync::Arc;
use std::time::Duration;

use outrider_components::state::Store;
use outrider_components::{Context, Error, Field, Metadata};

use super::super::connection::{self, Connection};
use super::super::migrations::{self, is_table};
use super::Postgresql;
use super::cleanup::Cleanup;
use super::table::{Layout, Table};
use crate::cleanup::Background;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[connection::Fields::FIELDS, Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// How long one operation may take; at least 1s.
        "timeout" | "timeoutInSeconds" => timeout: Duration = "20s";
        /// What the name of the table starts with, such as `prefix_` or
        /// `schema.`.
        "tablePrefix" => table_prefix: Option<String>;
        /// Table of what the component remembers about its own work.
        "metadataTableName" => metadata_table: String = "dapr_metadata";
        /// How often expired items are deleted; 0 means never.
        "cleanupInterval" | "cleanupIntervalInSeconds" => cleanup_interval: Duration = "1h";
    }
}

/// Connects, and makes the tables.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    let connection = connection::Fields::read(&metadata)
        .and_then(|database| Connection::new(&database, fields.timeout))?;
    let prefix = fields.table_prefix.unwrap_or_default();
    let name = format!("{prefix}state");
    for name in [&name, &fields.metadata_table] {
        if !is_table(name) {
            return Err(Error::invalid(format!("invalid identifier: {name}")));
        }
    }
    let persistent = connection.persistent;
    let pool = connection.open().await?;
    let levels = [format!(
        "CREATE TABLE IF NOT EXISTS {name} (
            key text NOT NULL PRIMARY KEY,
            value bytea NOT NULL,
            etag uuid NOT NULL DEFAULT gen_random_uuid(),
            created_at timestamp with time zone NOT NULL DEFAULT now(),
            updated_at timestamp with time zone,
            expires_at timestamp with time zone
        );
        CREATE INDEX ON {name} (expires_at)"
    )];
    let migrated = migrations::Table {
        name: &name,
        level: format!("migrations-state-v2-{prefix}"),
        levels: &levels,
        written: "created_at",
    };
    migrations::prepare(&pool, &fields.metadata_table, &migrated).await?;
    let table = Table {
        name,
        layout: Layout::Bytes,
    };
    let cleanup = Cleanup {
        pool: pool.clone(),
        metadata_table: fields.metadata_table,
        key: format!("last-cleanup-state-v2-{prefix}"),
        delete: table.delete_expired(),
    };
    Ok(Arc::new(Postgresql {
        pool,
        statements: table.statements(),
        table,
        timeout: fields.timeout,
        persistent,
        cleanup: Background::start(cleanup, Some(fields.cleanup_interval)),
    }))
}
