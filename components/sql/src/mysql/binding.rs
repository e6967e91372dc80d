//! `bindings.mysql`: <https://docs.dapr.io/reference/components-reference/supported-bindings/mysql/>.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use outrider_components::bindings::Binding;
use outrider_components::{Context, Error, Field, Metadata, Secret};
use serde_json::Value;
use sqlx::mysql::{MySqlArguments, MySqlDatabaseError, MySqlPool, MySqlRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, Column as _, Connection as _, Either, MySql, Row as _, Type,
    TypeInfo as _, ValueRef as _,
};

use super::connection::{Connection, Limits};
use crate::binding::{
    Database, Lease, Results, Statements, Wanted, add_row, write_number, write_text,
};
use crate::statement::{failed, in_time};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// Connections where the file names no number.
const CONNECTIONS: u32 = 100;
/// How long connecting may take, and a statement.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The error of a statement that cannot be prepared, such as `LOCK TABLES`.
const NOT_PREPARED: u16 = 1295;

outrider_components::fields! {
    struct Fields {
        /// `user:password@tcp(host:port)/database?name=value`.
        "url" => url: Secret, missing "missing MySql connection string";
        /// Path of the certificates that sign that of the server, for
        /// `tls=custom` in the URL.
        "pemPath" => pem_path: Option<String>;
        /// Accepted and ignored: idle connections are limited by their time.
        "maxIdleConns" => _max_idle: Option<i64>;
        /// Connections at most; 0 means 100.
        "maxOpenConns" => max_open: i64 = "0";
        /// After how long a connection is closed; never if absent.
        "connMaxLifetime" => max_lifetime: Option<Duration>;
        /// After how long an unused connection is closed; 60s if absent.
        "connMaxIdleTime" => max_idle_time: Option<Duration>;
    }
}

struct Mysql {
    pool: MySqlPool,
    multi_statements: bool,
}

/// Connects.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let fields = Fields::read(&metadata)?;
    if let Some(path) = &fields.pem_path {
        tokio::fs::read(path).await.map_err(|error| {
            Error::invalid(format!("error reading PEM file from {path}: {error}"))
        })?;
    }
    let connection = Connection::new(&fields.url.0, fields.pem_path.as_deref())
        .map_err(|error| error.context("illegal Data Source Name (DSN) specified by url"))?;
    let is_set = |time: &Duration| !time.is_zero();
    let limits = Limits {
        max_connections: u32::try_from(fields.max_open)
            .ok()
            .filter(|count| *count > 0)
            .unwrap_or(CONNECTIONS),
        max_lifetime: fields.max_lifetime.filter(is_set),
        max_idle_time: fields
            .max_idle_time
            .filter(is_set)
            .or(Some(Duration::from_secs(60))),
    };
    let multi_statements = connection.multi_statements;
    let pool = connection.open(limits, TIMEOUT).await;
    let database = Mysql {
        pool: pool.map_err(|error| error.context("unable to ping the DB"))?,
        multi_statements,
    };
    Ok(Binding::of_output(&metadata, Statements::new(database)))
}

/// How an error looks to applications.
fn server_error(error: sqlx::Error) -> Error {
    let text = own(&error).map(|error| {
        let (number, message) = (error.number(), error.message());
        match error.code() {
            Some(state) => format!("Error {number} ({state}): {message}"),
            None => format!("Error {number}: {message}"),
        }
    });
    let error = failed(error);
    match text {
        Some(text) => Error::new(error.kind(), text).because(error),
        None => error,
    }
}

/// The error of the server, if it is one.
fn own(error: &sqlx::Error) -> Option<&MySqlDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
}

impl Mysql {
    async fn run(&self, sql: &str, parameters: &[Value], wanted: Wanted) -> Result<Results, Error> {
        let arguments = arguments(parameters)?;
        let acquired = self.pool.acquire().await.map_err(failed)?;
        let mut lease = Lease::new(acquired);
        // A statement that is prepared is one.
        let mut text = self.multi_statements && parameters.is_empty();
        let mut ran = Self::results(&mut lease, sql, (!text).then_some(arguments), wanted).await;
        if let Err(Failed::Server(error)) = &ran
            && own(error).is_some_and(|error| error.number() == NOT_PREPARED)
            && parameters.is_empty()
        {
            text = true;
            ran = Self::results(&mut lease, sql, None, wanted).await;
        }
        let is_done = matches!(ran, Ok(_) | Err(Failed::Server(sqlx::Error::Database(_))));
        if is_done && !text {
            lease.end(sql);
        }
        ran.map_err(|failed| match failed {
            Failed::Server(error) => server_error(error),
            Failed::Other(error) => error,
        })
    }

    /// Runs one statement with arguments, or all of a text without.
    async fn results(
        lease: &mut Lease<MySql>,
        sql: &str,
        arguments: Option<MySqlArguments>,
        wanted: Wanted,
    ) -> Result<Results, Failed> {
        let is_binary = arguments.is_some();
        let connection = &mut *lease.connection;
        let sql = AssertSqlSafe(sql.to_owned());
        let mut results = Results::default();
        match arguments {
            Some(arguments) => {
                // The server keeps nothing of a statement that is over.
                let query = sqlx::query_with(sql, arguments).persistent(false);
                match wanted {
                    Wanted::Count => {
                        let done = query.execute(connection).await.map_err(Failed::Server)?;
                        results.changed = done.rows_affected();
                    }
                    Wanted::Rows => {
                        let mut rows = query.fetch(connection);
                        while let Some(row) = rows.try_next().await.map_err(Failed::Server)? {
                            add(&mut results.rows, &row, is_binary)?;
                        }
                    }
                }
            }
            None => {
                let mut stream = sqlx::raw_sql(sql).fetch_many(connection);
                while let Some(result) = stream.try_next().await.map_err(Failed::Server)? {
                    match result {
                        Either::Left(done) => results.changed = done.rows_affected(),
                        Either::Right(row) => add(&mut results.rows, &row, is_binary)?,
                    }
                }
            }
        }
        Ok(results)
    }
}

fn add(rows: &mut String, row: &MySqlRow, is_binary: bool) -> Result<(), Failed> {
    let row = object(row, is_binary).map_err(Failed::Other)?;
    add_row(rows, &row).map_err(Failed::Other)
}

enum Failed {
    Server(sqlx::Error),
    Other(Error),
}

/// Numbers, texts, booleans and nulls.
fn arguments(parameters: &[Value]) -> Result<MySqlArguments, Error> {
    let mut arguments = MySqlArguments::default();
    for (index, value) in parameters.iter().enumerate() {
        let added = match value {
            Value::Null => arguments.add(None::<String>),
            Value::Bool(value) => arguments.add(*value),
            Value::String(text) => arguments.add(text.as_str()),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => arguments.add(number),
                (None, Some(number)) => arguments.add(number),
                (None, None) => arguments.add(number.as_f64().unwrap_or_default()),
            },
            Value::Array(_) => {
                return Err(not_a_value(index, "[]interface {}, a slice of interface"));
            }
            Value::Object(_) => {
                return Err(not_a_value(index, "map[string]interface {}, a map"));
            }
        };
        added.map_err(|error| Error::invalid(error.to_string()))?;
    }
    Ok(arguments)
}

fn not_a_value(index: usize, kind: &str) -> Error {
    let number = index + 1;
    Error::invalid(format!(
        "sql: converting argument ${number} type: unsupported type {kind}"
    ))
}

/// A row as an object; of several columns of a name the last counts. Those that
/// are null are left out.
fn object(row: &MySqlRow, is_binary: bool) -> Result<String, Error> {
    let mut members = BTreeMap::new();
    for (index, column) in row.columns().iter().enumerate() {
        let kind = column.type_info().name();
        let value = row.try_get_raw(index).map_err(failed)?;
        // As the server sends them, whatever their type.
        let bytes = match value.is_null() {
            true => None,
            false => {
                let bytes: &[u8] = row.try_get_unchecked(index).map_err(failed)?;
                Some(bytes)
            }
        };
        // By its collation; a type alone does not tell text from bytes.
        let is_text = <str as Type<MySql>>::compatible(column.type_info());
        let mut text = String::new();
        let written = write(&mut text, kind, bytes, is_text, is_binary);
        written.ok_or_else(|| {
            Error::unsupported(format!(
                "values of the type {kind} cannot be written in JSON: cast them to text"
            ))
        })?;
        if !text.is_empty() {
            members.insert(column.name(), text);
        }
    }
    let members = members.iter().map(|(name, value)| {
        let mut member = String::new();
        write_text(&mut member, name);
        format!("{member}:{value}")
    });
    Ok(format!("{{{}}}", members.collect::<Vec<_>>().join(",")))
}

/// Writes one value; nothing where it is left out. None if it cannot be
/// written.
fn write(
    out: &mut String,
    kind: &str,
    bytes: Option<&[u8]>,
    is_text: bool,
    is_binary: bool,
) -> Option<()> {
    let is_bytes = match kind {
        "BIT" | "GEOMETRY" | "JSON" => true,
        _ => !is_text && (kind.ends_with("BLOB") || kind.ends_with("BINARY")),
    };
    let Some(bytes) = bytes else {
        if is_bytes {
            out.push_str("null");
        }
        return Some(());
    };
    if is_bytes {
        let text = STANDARD.encode(bytes);
        out.push_str(&format!("\"{text}\""));
        return Some(());
    }
    let text = || String::from_utf8_lossy(bytes);
    match kind {
        "NULL" => out.push_str("null"),
        "FLOAT" | "DOUBLE" => {
            let number = match (is_binary, bytes.len()) {
                (true, 4) => f32::from_le_bytes(bytes.try_into().ok()?).to_string(),
                (true, _) => {
                    return write_number(out, f64::from_le_bytes(bytes.try_into().ok()?))
                        .then_some(());
                }
                (false, _) => text().into_owned(),
            };
            return write_number(out, number.parse().ok()?).then_some(());
        }
        _ if kind.contains("INT") || matches!(kind, "BOOLEAN" | "YEAR") => {
            let number = match is_binary {
                true => integer(bytes, kind.ends_with("UNSIGNED") || kind == "YEAR")?,
                false => text().parse().ok()?,
            };
            out.push_str(&number.to_string());
        }
        "DATE" | "DATETIME" | "TIMESTAMP" => {
            let text = match is_binary {
                true => date(bytes)?,
                false => format!("{}Z", text().replacen(' ', "T", 1)),
            };
            out.push('"');
            match text.as_str() {
                text if text.starts_with("0000") => out.push_str("0001-01-01T00:00:00Z"),
                // A date alone.
                text if !text.contains('T') => {
                    out.push_str(text.trim_end_matches('Z'));
                    out.push_str("T00:00:00Z");
                }
                text => match text.trim_end_matches('Z').split_once('.') {
                    Some((whole, fraction)) => {
                        let fraction = fraction.trim_end_matches('0');
                        let point = if fraction.is_empty() { "" } else { "." };
                        out.push_str(&format!("{whole}{point}{fraction}Z"));
                    }
                    None => out.push_str(text),
                },
            }
            out.push('"');
        }
        "TIME" if is_binary => write_text(out, &time(bytes)?),
        _ => write_text(out, &text()),
    }
    Some(())
}

fn integer(bytes: &[u8], is_unsigned: bool) -> Option<i128> {
    Some(match (bytes.len(), is_unsigned) {
        (1, true) => i128::from(bytes[0]),
        (1, false) => i128::from(bytes[0].cast_signed()),
        (2, true) => i128::from(u16::from_le_bytes(bytes.try_into().ok()?)),
        (2, false) => i128::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        (4, true) => i128::from(u32::from_le_bytes(bytes.try_into().ok()?)),
        (4, false) => i128::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        (8, true) => i128::from(u64::from_le_bytes(bytes.try_into().ok()?)),
        (8, false) => i128::from(i64::from_le_bytes(bytes.try_into().ok()?)),
        _ => return None,
    })
}

/// <https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_binary_resultset.html#sect_protocol_binary_resultset_row_value_date>
fn date(bytes: &[u8]) -> Option<String> {
    let bytes = sized(bytes)?;
    if bytes.is_empty() {
        return Some("0000".to_owned());
    }
    let year = u16::from_le_bytes(bytes.get(..2)?.try_into().ok()?);
    let (month, day) = (bytes.get(2)?, bytes.get(3)?);
    let mut text = format!("{year:04}-{month:02}-{day:02}T");
    match bytes.get(4..7) {
        Some([hour, minute, second]) => {
            text.push_str(&format!("{hour:02}:{minute:02}:{second:02}"))
        }
        _ => text.push_str("00:00:00"),
    }
    if let Some(micros) = bytes.get(7..11) {
        let micros = u32::from_le_bytes(micros.try_into().ok()?);
        text.push_str(&format!(".{micros:06}"));
    }
    text.push('Z');
    Some(text)
}

/// Days, hours, minutes, seconds and parts of a second.
fn time(bytes: &[u8]) -> Option<String> {
    let bytes = sized(bytes)?;
    if bytes.is_empty() {
        return Some("00:00:00".to_owned());
    }
    let sign = if *bytes.first()? == 0 { "" } else { "-" };
    let days = u32::from_le_bytes(bytes.get(1..5)?.try_into().ok()?);
    let [hours, minutes, seconds]: [u8; 3] = bytes.get(5..8)?.try_into().ok()?;
    let hours = u64::from(days) * 24 + u64::from(hours);
    let mut text = format!("{sign}{hours:02}:{minutes:02}:{seconds:02}");
    if let Some(micros) = bytes.get(8..12) {
        let micros = u32::from_le_bytes(micros.try_into().ok()?);
        text.push_str(&format!(".{micros:06}"));
    }
    Some(text)
}

/// What is behind its length, where that is still there.
fn sized(bytes: &[u8]) -> Option<&[u8]> {
    match bytes.split_first() {
        Some((length, rest)) if usize::from(*length) == rest.len() => Some(rest),
        _ => Some(bytes),
    }
}

#[async_trait]
impl Database for Mysql {
    async fn exec(&self, sql: &str, parameters: &[Value]) -> Result<u64, Error> {
        let results = in_time(TIMEOUT, self.run(sql, parameters, Wanted::Count)).await?;
        Ok(results.changed)
    }

    async fn query(&self, sql: &str, parameters: &[Value]) -> Result<String, Error> {
        let running = self.run(sql, parameters, Wanted::Rows);
        let mut rows = in_time(TIMEOUT, running).await?.rows;
        rows.push_str(if rows.is_empty() { "null" } else { "]" });
        Ok(rows)
    }

    async fn ping(&self) -> Result<(), Error> {
        let ping = async {
            let mut connection = self.pool.acquire().await.map_err(failed)?;
            connection.ping().await.map_err(failed)
        };
        in_time(TIMEOUT, ping).await
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_objects_are_no_parameters() {
        let refused = |value: Value| {
            let error = arguments(&[Value::Null, value]).expect_err("is refused");
            error.to_string()
        };
        assert_eq!(
            refused(serde_json::json!([1])),
            "sql: converting argument $2 type: unsupported type []interface {}, a slice of interface"
        );
        assert!(refused(serde_json::json!({})).ends_with("map[string]interface {}, a map"));
    }

    #[test]
    fn bytes_of_a_wrong_length_are_refused() {
        for kind in ["INT", "DATE", "TIME", "DOUBLE", "YEAR"] {
            let mut out = String::new();
            assert_eq!(
                write(&mut out, kind, Some(&[1, 2, 3]), false, true),
                None,
                "{kind}"
            );
        }
    }
}
