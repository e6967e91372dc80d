//! What the bindings of databases share: the operations `exec`, `query` and
//! `close`, with a statement and its parameters in the metadata of a request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use outrider_components::bindings::{Answer, Failure, Output, Request};
use outrider_components::{Error, Kind, Pairs};
use serde_json::Value;
use sqlx::pool::PoolConnection;

const EXEC: &str = "exec";
const QUERY: &str = "query";
const CLOSE: &str = "close";
/// Bytes of the rows of one answer.
const MOST_BYTES: usize = 64 << 20;

/// Runs statements with parameters.
#[async_trait]
pub trait Database: Send + Sync + 'static {
    /// How many rows the last statement has changed.
    async fn exec(&self, sql: &str, parameters: &[Value]) -> Result<u64, Error>;

    /// The rows, in JSON.
    async fn query(&self, sql: &str, parameters: &[Value]) -> Result<String, Error>;

    async fn ping(&self) -> Result<(), Error>;

    async fn close(&self);
}

/// What is wanted of a statement.
#[derive(Debug, Clone, Copy)]
pub enum Wanted {
    Rows,
    /// How many rows have changed.
    Count,
}

/// What statements have led to.
#[derive(Default)]
pub struct Results {
    /// By the last of several.
    pub changed: u64,
    pub rows: String,
}

/// The output side of a database.
pub struct Statements<D> {
    database: D,
    closed: AtomicBool,
}

impl<D: Database> Statements<D> {
    pub fn new(database: D) -> Statements<D> {
        Statements {
            database,
            closed: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl<D: Database> Output for Statements<D> {
    fn operations(&self) -> Vec<&str> {
        vec![EXEC, QUERY, CLOSE]
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        if request.operation == CLOSE {
            Output::close(self).await?;
            return Ok(None);
        }
        if self.closed.load(Ordering::SeqCst) {
            return Err(Error::new(Kind::Precondition, "component is closed").into());
        }
        let get = |name: &str| request.metadata.get(name).filter(|text| !text.is_empty());
        let sql = get("sql").ok_or_else(|| Error::invalid("required metadata not set: sql"))?;
        let parameters = parameters(get("params").map_or("", String::as_str))?;
        let started = jiff::Timestamp::now();
        let clock = Instant::now();
        let mut answer = Answer::default();
        let mut tell = |name: &str, value: String| {
            answer.metadata.insert(name.to_owned(), value);
        };
        match request.operation.as_str() {
            EXEC => {
                let rows = self.database.exec(sql, &parameters).await;
                tell("rows-affected", rows.map_err(failed)?.to_string());
            }
            QUERY => {
                let rows = self.database.query(sql, &parameters).await;
                answer.data = rows.map_err(failed)?.into();
            }
            other => {
                return Err(Error::unsupported(format!(
                    "invalid operation type: {other}. Expected {EXEC}, {QUERY}, or {CLOSE}"
                ))
                .into());
            }
        }
        let took = outrider_kit::duration::format(clock.elapsed());
        answer.metadata.extend(Pairs::from([
            ("operation".to_owned(), request.operation.clone()),
            ("sql".to_owned(), sql.clone()),
            ("start-time".to_owned(), started.to_string()),
            ("end-time".to_owned(), jiff::Timestamp::now().to_string()),
            ("duration".to_owned(), took),
        ]));
        Ok(Some(answer))
    }

    async fn ping(&self) -> Result<(), Error> {
        self.database.ping().await
    }

    async fn close(&self) -> Result<(), Error> {
        if !self.closed.swap(true, Ordering::SeqCst) {
            self.database.close().await;
        }
        Ok(())
    }
}

fn failed(error: Error) -> Error {
    error.context("error executing query")
}

/// The elements of a list in JSON; none for no text.
fn parameters(text: &str) -> Result<Vec<Value>, Error> {
    let wrong = |what: String| {
        Error::invalid(format!(
            "invalid metadata property params: failed to unserialize into an array: {what}"
        ))
    };
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let kind = match serde_json::from_str(text).map_err(|error| wrong(error.to_string()))? {
        Value::Array(list) => return Ok(list),
        Value::Null => return Ok(Vec::new()),
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Object(_) => "object",
    };
    Err(wrong(format!(
        "json: cannot unmarshal {kind} into Go value of type []interface {{}}"
    )))
}

/// Adds a row to the rows of an answer, which are a list in JSON.
pub fn add_row(rows: &mut String, row: &str) -> Result<(), Error> {
    if rows.len() + row.len() > MOST_BYTES {
        let most = MOST_BYTES >> 20;
        return Err(Error::new(
            Kind::Precondition,
            format!("the rows are larger than {most} MiB: ask for fewer"),
        ));
    }
    rows.push(if rows.is_empty() { '[' } else { ',' });
    rows.push_str(row);
    Ok(())
}

/// A text in JSON.
pub fn write_text(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}

/// A number in JSON, without a point if it is whole. False for what is no
/// number, which JSON does not have.
pub fn write_number(out: &mut String, number: f64) -> bool {
    use std::fmt::Write as _;

    let written = match number {
        number if !number.is_finite() => return false,
        number if number.abs() < 1e21 => write!(out, "{number}"),
        number => write!(out, "{number:e}"),
    };
    written.is_ok()
}

/// A connection that is closed, and not used again, unless what was done with
/// it has come to its end.
pub struct Lease<DB: sqlx::Database> {
    pub connection: PoolConnection<DB>,
    is_reusable: bool,
}

impl<DB: sqlx::Database> Lease<DB> {
    pub fn new(connection: PoolConnection<DB>) -> Lease<DB> {
        Lease {
            connection,
            is_reusable: false,
        }
    }

    /// `sql` has ended. What may have left a transaction or a lock behind
    /// closes the connection: nobody else may get into that.
    pub fn end(mut self, sql: &str) {
        let sql = sql.to_ascii_lowercase();
        let leaves = ["begin", "start", "autocommit", "call", "lock"];
        self.is_reusable = !leaves.iter().any(|word| sql.contains(word));
    }
}

impl<DB: sqlx::Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if !self.is_reusable {
            self.connection.close_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_a_list_in_json() {
        assert_eq!(
            parameters(r#"[1,"a",null]"#).expect("is a list"),
            [Value::from(1), Value::from("a"), Value::Null]
        );
        assert!(parameters("").expect("none").is_empty());
        assert!(parameters("null").expect("none").is_empty());
        assert_eq!(
            parameters("{}").expect_err("is none").to_string(),
            "invalid metadata property params: failed to unserialize into an array: json: \
             cannot unmarshal object into Go value of type []interface {}"
        );
        assert!(parameters("[1").is_err());
    }

    #[test]
    fn numbers_have_a_point_only_where_they_need_one() {
        for (number, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-2.5e-7, "-0.00000025"),
            (1e21, "1e21"),
        ] {
            let mut out = String::new();
            assert!(write_number(&mut out, number));
            assert_eq!(out, text);
            assert_eq!(serde_json::from_str::<f64>(&out).expect("is JSON"), number);
        }
        assert!(!write_number(&mut String::new(), f64::NAN));
    }

    #[test]
    fn rows_are_bounded() {
        let mut rows = String::new();
        add_row(&mut rows, "[1]").expect("fits");
        add_row(&mut rows, "[2]").expect("fits");
        assert_eq!(rows, "[[1],[2]");
        assert!(add_row(&mut rows, &"x".repeat(MOST_BYTES)).is_err());
    }
}
