//! `state.postgresql`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-postgresql-v1/>.
//!
//! Version 1: values are JSON, and can be searched.

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
        /// Table of the items, which may have its schema before it.
        "tableName" => table: String = "state";
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
        .and_then(|database| Connection::new(&database, fields.timeout))
        .map_err(|error| error.context("failed to parse metadata"))?;
    for name in [&fields.table, &fields.metadata_table] {
        if !is_table(name) {
            return Err(Error::invalid(format!("invalid identifier: {name}")));
        }
    }
    let persistent = connection.persistent;
    let pool = connection.open().await?;
    let name = fields.table;
    let levels = [
        format!(
            "CREATE TABLE IF NOT EXISTS {name} (
                key text NOT NULL PRIMARY KEY,
                value jsonb NOT NULL,
                isbinary boolean NOT NULL,
                insertdate TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT NOW(),
                updatedate TIMESTAMP WITH TIME ZONE NULL
            )"
        ),
        format!("ALTER TABLE {name} ADD COLUMN IF NOT EXISTS expiredate TIMESTAMP WITH TIME ZONE"),
    ];
    let migrated = migrations::Table {
        name: &name,
        level: "migrations".to_owned(),
        levels: &levels,
        written: "insertdate",
    };
    migrations::prepare(&pool, &fields.metadata_table, &migrated).await?;
    let table = Table {
        name,
        layout: Layout::Json,
    };
    let cleanup = Cleanup {
        pool: pool.clone(),
        metadata_table: fields.metadata_table,
        key: "last-cleanup".to_owned(),
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
