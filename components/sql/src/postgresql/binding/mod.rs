//! `bindings.postgresql`: <https://docs.dapr.io/reference/components-reference/supported-bindings/postgresql/>.

mod parameters;
mod values;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use outrider_components::bindings::Binding;
use outrider_components::{Context, Error, Field, Kind, Metadata};
use serde_json::Value;
use sqlx::postgres::{PgArguments, PgConnection, PgDatabaseError, PgPool, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Postgres, Row as _};

use super::connection::{self, Connection};
use crate::binding::{Database, Lease, Results, Statements, Wanted, add_row};
use crate::statement::{failed, in_time};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, connection::Fields::FIELDS];

/// The text of an error that says that a table has changed since a statement
/// was prepared, and its code.
const STALE: (&str, &str) = ("0A000", "cached plan must not change result type");

outrider_components::fields! {
    struct Fields {
        /// How long one operation may take; at least 1s.
        "timeout" | "timeoutInSeconds" => timeout: Duration = "20s";
    }
}

struct PostgreSql {
    pool: PgPool,
    timeout: Duration,
    /// Whether statements are prepared once for each connection.
    persistent: bool,
}

/// Connects.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let timeout = Fields::read(&metadata)?.timeout;
    let connection = Connection::new(&connection::Fields::read(&metadata)?, timeout)?;
    let persistent = connection.persistent;
    let database = PostgreSql {
        pool: connection.open().await?,
        timeout,
        persistent,
    };
    Ok(Binding::of_output(&metadata, Statements::new(database)))
}

/// How an error looks to applications: the server's own have their severity and
/// their code.
fn server_error(error: sqlx::Error) -> Error {
    let text = match &error {
        sqlx::Error::Database(database) => {
            database.try_downcast_ref::<PgDatabaseError>().map(|error| {
                let severity = format!("{:?}", error.severity()).to_uppercase();
                let (code, message) = (error.code(), error.message());
                format!("{severity}: {message} (SQLSTATE {code})")
            })
        }
        _ => None,
    };
    let error = failed(error);
    match text {
        Some(text) => Error::new(error.kind(), text).because(error),
        None => error,
    }
}

fn is_stale(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    database.is_some_and(|error| {
        error.code().is_some_and(|code| code == STALE.0) && error.message() == STALE.1
    })
}

/// Why a statement with parameters has failed.
enum Failed {
    Server(sqlx::Error),
    Other(Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Failed {
        Failed::Server(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Other(error)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Error {
        match failed {
            Failed::Server(error) => server_error(error),
            Failed::Other(error) => error,
        }
    }
}

fn add(rows: &mut String, row: &PgRow) -> Result<(), Error> {
    let mut text = String::from("[");
    for index in 0..row.columns().len() {
        if index > 0 {
            text.push(',');
        }
        values::write(&mut text, row, index)?;
    }
    text.push(']');
    add_row(rows, &text)
}

impl PostgreSql {
    async fn lease(&self) -> Result<Lease<Postgres>, Error> {
        self.pool.acquire().await.map(Lease::new).map_err(failed)
    }

    /// Runs one statement with parameters.
    async fn run(&self, sql: &str, parameters: &[Value], wanted: Wanted) -> Result<Results, Error> {
        let work = async {
            let mut lease = self.lease().await?;
            let connection = &mut *lease.connection;
            let ran = match self.persistent || parameters.is_empty() {
                true => {
                    let ran = self.with(connection, sql, parameters, wanted).await;
                    match ran {
                        Err(Failed::Server(error)) if is_stale(&error) => {
                            connection
                                .clear_cached_statements()
                                .await
                                .map_err(server_error)?;
                            self.with(connection, sql, parameters, wanted).await
                        }
                        ran => ran,
                    }
                }
                false => self.alone(connection, sql, parameters, wanted).await,
            };
            if matches!(ran, Ok(_) | Err(Failed::Server(sqlx::Error::Database(_)))) {
                lease.end(sql);
            }
            ran.map_err(Error::from)
        };
        in_time(self.timeout, work).await
    }

    /// Runs a statement whose parameters have the types that the server finds.
    async fn with(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        parameters: &[Value],
        wanted: Wanted,
    ) -> Result<Results, Failed> {
        let arguments = match parameters.is_empty() && !self.persistent {
            true => PgArguments::default(),
            false => parameters::arguments(connection, sql, parameters).await?,
        };
        let query = sqlx::query_with(AssertSqlSafe(sql.to_owned()), arguments);
        let query = query.persistent(self.persistent);
        let mut results = Results::default();
        match wanted {
            Wanted::Count => results.changed = query.execute(connection).await?.rows_affected(),
            Wanted::Rows => {
                let mut rows = query.fetch(connection);
                while let Some(row) = rows.try_next().await? {
                    add(&mut results.rows, &row)?;
                }
            }
        }
        Ok(results)
    }

    /// The same where nothing may stay prepared: a proxy in between keeps to one
    /// server during a transaction.
    async fn alone(
        &self,
        connection: &mut PgConnection,
        sql: &str,
        parameters: &[Value],
        wanted: Wanted,
    ) -> Result<Results, Failed> {
        let mut transaction = connection.begin().await?;
        let results = self.with(&mut transaction, sql, parameters, wanted).await?;
        let forget = sqlx::raw_sql("DEALLOCATE ALL");
        forget.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(results)
    }

    /// Runs statements without parameters, of which there may be several. The
    /// count is that of the last.
    async fn run_all(&self, sql: &str) -> Result<u64, Error> {
        let work = async {
            let mut lease = self.lease().await?;
            let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
            let mut changed = 0;
            let ran: Result<(), sqlx::Error> = async {
                let mut results = query.fetch_many(&mut *lease.connection);
                while let Some(result) = results.try_next().await? {
                    if let sqlx::Either::Left(done) = result {
                        changed = done.rows_affected();
                    }
                }
                Ok(())
            }
            .await;
            if matches!(ran, Ok(()) | Err(sqlx::Error::Database(_))) {
                lease.end(sql);
            }
            ran.map_err(server_error)?;
            Ok(changed)
        };
        in_time(self.timeout, work).await
    }
}

#[async_trait]
impl Database for PostgreSql {
    async fn exec(&self, sql: &str, parameters: &[Value]) -> Result<u64, Error> {
        if parameters.is_empty() {
            return self.run_all(sql).await;
        }
        let results = self.run(sql, parameters, Wanted::Count).await?;
        Ok(results.changed)
    }

    async fn query(&self, sql: &str, parameters: &[Value]) -> Result<String, Error> {
        let mut rows = self.run(sql, parameters, Wanted::Rows).await?.rows;
        rows.push_str(if rows.is_empty() { "[]" } else { "]" });
        Ok(rows)
    }

    async fn ping(&self) -> Result<(), Error> {
        let ping = async {
            let mut connection = self.pool.acquire().await.map_err(failed)?;
            connection.ping().await.map_err(failed)
        };
        in_time(self.timeout, ping).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

/// A value that cannot become JSON.
fn unreadable(kind: &str) -> Error {
    Error::new(
        Kind::Unsupported,
        format!("values of the type {kind} cannot be written in JSON: cast them to text"),
    )
}
