use std::time::Duration;

use outrider_components::{Error, Kind, Metadata};
use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(20);
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Readers next to the one writer that SQLite allows.
const CONNECTIONS: u32 = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How to open the database that a component names.
#[derive(Debug)]
pub struct Connection {
    pub options: SqliteConnectOptions,
    /// The database is gone when its connection is.
    pub in_memory: bool,
    /// How long one operation may take.
    pub timeout: Duration,
}

impl Connection {
    /// Reads the connection properties. The connection string is a URI or a
    /// path: <https://www.sqlite.org/uri.html>.
    pub fn new(metadata: &Metadata) -> Result<Connection, Error> {
        let text = metadata
            .any(&["connectionString", "url"])
            .ok_or_else(|| Error::invalid("missing connection string"))?;
        let timeout = match metadata.duration("timeout")? {
            None => metadata.duration("timeoutInSeconds")?,
            timeout => timeout,
        }
        .unwrap_or(DEFAULT_TIMEOUT);
        if timeout < Duration::from_secs(1) {
            return Err(Error::invalid(
                "invalid value for 'timeout': must be greater than 1s",
            ));
        }
        let busy = metadata
            .duration("busyTimeout")?
            .unwrap_or(DEFAULT_BUSY_TIMEOUT);

        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = match path.get(..5) {
            Some(scheme) if scheme.eq_ignore_ascii_case("file:") => &path[5..],
            _ => path,
        };
        let path = path
            .strip_prefix("//localhost")
            .or_else(|| path.strip_prefix("//"))
            .unwrap_or(path);
        let path = percent_decode_str(path)
            .decode_utf8()
            .map_err(|_| Error::invalid("the connection string's path is not UTF-8"))?;

        let mut in_memory = path.to_lowercase().starts_with(":memory:");
        let mut options = SqliteConnectOptions::new()
            .create_if_missing(true)
            .busy_timeout(busy)
            .foreign_keys(false)
            .disable_statement_logging();
        let mut read_only = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("mode", "ro") => read_only = true,
                ("mode", "rw") => options = options.create_if_missing(false),
                ("mode", "memory") => in_memory = true,
                ("mode", "rwc") => {}
                ("mode", other) => {
                    return Err(Error::invalid(format!(
                        "no such access mode in the connection string: {other}"
                    )));
                }
                ("immutable", "1" | "true") => {
                    read_only = true;
                    options = options.immutable(true);
                }
                ("vfs", name) => options = options.vfs(name.to_owned()),
                ("_pragma", pragma) => {
                    let (name, value) = pragma_of(pragma)?;
                    options = options.pragma(name, value);
                }
                // Transactions are immediate, an in-memory database is shared
                // by its one connection, and more there is not to choose.
                ("_txlock" | "cache" | "immutable", _) => {}
                (other, _) => {
                    tracing::warn!(target: "dapr.contrib", "the connection string's parameter {other} is not known and has no effect");
                }
            }
        }
        options = if in_memory {
            options
                .filename(&*path)
                .in_memory(true)
                .shared_cache(true)
                .journal_mode(SqliteJournalMode::Memory)
        } else {
            let journal = if read_only || metadata.truthy("disableWAL") {
                SqliteJournalMode::Delete
            } else {
                SqliteJournalMode::Wal
            };
            options
                .filename(&*path)
                .read_only(read_only)
                .journal_mode(journal)
        };
        if in_memory && path.starts_with(':') {
            // Each component has a database of its own.
            options = options.filename(format!("memory-{}", uuid::Uuid::new_v4()));
        }
        Ok(Connection {
            options,
            in_memory,
            timeout,
        })
    }

    /// How many connections there are, and how long they stay.
    /// Opens the database. Another process that opens it for the first time
    /// at the same moment holds it while it sets the journal mode, and SQLite
    /// does not wait for that by itself.
    pub async fn open(&self) -> Result<sqlx::SqlitePool, sqlx::Error> {
        const PAUSE: Duration = Duration::from_millis(20);
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            let opened = self.pool().connect_with(self.options.clone()).await;
            match opened {
                Err(error) if is_busy(&error) && tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                opened => return opened,
            }
        }
    }

    fn pool(&self) -> SqlitePoolOptions {
        // A connection to a file does not go stale.
        let pool = SqlitePoolOptions::new()
            .acquire_timeout(self.timeout)
            .test_before_acquire(false);
        if self.in_memory {
            pool.max_connections(1)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
        } else {
            pool.max_connections(CONNECTIONS).idle_timeout(IDLE_TIMEOUT)
        }
    }
}

/// `SQLITE_BUSY`, whatever more it says.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|e| e.code());
    code.and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == 5)
}

/// Name and value of `name(value)` or `name=value`.
fn pragma_of(pragma: &str) -> Result<(String, String), Error> {
    let (name, value) = pragma
        .split_once(['(', '='])
        .map(|(name, value)| {
            (
                name.trim().to_lowercase(),
                value.trim_end_matches(')').trim(),
            )
        })
        .ok_or_else(|| {
            Error::invalid(format!(
                "option '_pragma={pragma}' in the connection string has no value"
            ))
        })?;
    if ["busy_timeout", "journal_mode", "foreign_keys"].contains(&&*name) {
        return Err(Error::invalid(format!(
            "found forbidden option '_pragma={name}' in the connection string"
        )));
    }
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-'".contains(&b))
    };
    if !plain(&name) || !plain(value) {
        return Err(Error::invalid(format!(
            "option '_pragma={pragma}' in the connection string is malformed"
        )));
    }
    Ok((name, value.to_owned()))
}

/// A table name that can be put into a statement.
pub fn identifier<'a>(
    metadata: &'a Metadata,
    property: &str,
    default: &'a str,
) -> Result<&'a str, Error> {
    let name = metadata.text(property).unwrap_or(default);
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Error::invalid(format!("invalid identifier: {name}")));
    }
    Ok(name)
}

/// How an error of SQLite looks to the runtime.
pub fn failed(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) => {
            Kind::Unavailable
        }
        _ => Kind::Internal,
    };
    let text = match &error {
        sqlx::Error::Database(database) => database.message().to_owned(),
        other => other.to_string(),
    };
    Error::new(kind, text).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(pairs: &[(&str, &str)]) -> Result<Connection, Error> {
        Connection::new(&Metadata::new("store", pairs.iter().copied()))
    }

    #[test]
    fn connection_strings() {
        for (text, path) in [
            ("data.db", "data.db"),
            ("/var/lib/data.db", "/var/lib/data.db"),
            ("file:data.db", "data.db"),
            ("file:/var/lib/data.db?mode=rw", "/var/lib/data.db"),
            ("file:///var/lib/data.db", "/var/lib/data.db"),
            ("file://localhost/var/data.db", "/var/data.db"),
            (
                "FILE:a%20b.db?_txlock=immediate&_pragma=cache_size(100)",
                "a b.db",
            ),
        ] {
            let connection = open(&[("connectionString", text)]).expect(text);
            assert_eq!(
                connection.options.get_filename().to_str(),
                Some(path),
                "{text}"
            );
            assert!(!connection.in_memory);
        }
        for text in [
            ":memory:",
            "file::memory:?cache=shared",
            "file:x?mode=memory",
        ] {
            assert!(
                open(&[("connectionString", text)]).expect(text).in_memory,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_refused() {
        let refused = |pairs: &[(&str, &str)]| open(pairs).expect_err("is wrong").to_string();
        assert_eq!(refused(&[]), "missing connection string");
        assert_eq!(
            refused(&[("connectionString", "x.db?_pragma=journal_mode(WAL)")]),
            "found forbidden option '_pragma=journal_mode' in the connection string"
        );
        assert!(refused(&[("url", "x.db?_pragma=a(b;c)")]).contains("malformed"));
        assert_eq!(
            refused(&[("url", "x.db"), ("timeout", "500ms")]),
            "invalid value for 'timeout': must be greater than 1s"
        );
        let metadata = Metadata::new("store", [("tableName", "a-b")]);
        assert_eq!(
            identifier(&metadata, "tableName", "state")
                .expect_err("has a dash")
                .to_string(),
            "invalid identifier: a-b"
        );
    }
}
