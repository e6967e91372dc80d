//! How the components on SQLite open their database.

use std::borrow::Cow;
use std::time::Duration;

use outrider_components::{Error, Truthy};
use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

/// Readers next to the one writer that SQLite allows.
const CONNECTIONS: u32 = 4;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

outrider_components::fields! {
    /// What the metadata of every component on SQLite says about the database.
    pub struct Fields {
        /// URI or path of the database; `:memory:` for one that ends with the
        /// sidecar.
        "connectionString" | "url" => connection_string: String, missing "missing connection string";
        /// Whether to use a rollback journal in place of the write-ahead log.
        "disableWAL" => disable_wal: Truthy = "false";
    }
}

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
    /// Reads the connection string, a URI or a path:
    /// <https://www.sqlite.org/uri.html>. `busy` is how long to wait for
    /// another process that writes.
    pub fn new(fields: &Fields, timeout: Duration, busy: Duration) -> Result<Connection, Error> {
        if timeout < Duration::from_secs(1) {
            return Err(Error::invalid(
                "invalid value for 'timeout': must be greater than 1s",
            ));
        }
        let text = &fields.connection_string;
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let path = file_path(path)?;
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
                // Transactions are always immediate, and an in-memory database
                // has one connection.
                ("_txlock" | "cache" | "immutable", _) => {}
                (other, _) => {
                    tracing::warn!(target: "dapr.contrib", "the connection string has an unknown parameter, which is ignored: {other}");
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
            let journal = if read_only || fields.disable_wal.0 {
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

    /// Opens the database, again while it is busy: another process that opens it
    /// for the first time locks it to set the journal mode, and SQLite does not
    /// wait for that.
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

    /// How many connections there are, and how long they stay.
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

/// The path of a URI without its query, or the path that is given itself.
fn file_path(path: &str) -> Result<Cow<'_, str>, Error> {
    let path = match path.get(..5) {
        Some(scheme) if scheme.eq_ignore_ascii_case("file:") => &path[5..],
        _ => path,
    };
    let path = path
        .strip_prefix("//localhost")
        .or_else(|| path.strip_prefix("//"))
        .unwrap_or(path);
    percent_decode_str(path)
        .decode_utf8()
        .map_err(|_| Error::invalid("the connection string's path is not UTF-8"))
}

/// `SQLITE_BUSY` and its extended codes.
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

#[cfg(test)]
mod tests {
    use outrider_components::Metadata;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn open(text: &str) -> Result<Connection, Error> {
        let metadata = Metadata::new("store", [("connectionString", text)]);
        Connection::new(&Fields::read(&metadata)?, SECOND, SECOND)
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
            let connection = open(text).expect(text);
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
            assert!(open(text).expect(text).in_memory, "{text}");
        }
    }

    #[test]
    fn connections_that_cannot_work_are_refused() {
        let refused = |text: &str| open(text).expect_err("is wrong").to_string();
        assert_eq!(refused(""), "missing connection string");
        assert_eq!(
            refused("x.db?_pragma=journal_mode(WAL)"),
            "found forbidden option '_pragma=journal_mode' in the connection string"
        );
        assert!(refused("x.db?_pragma=a(b;c)").contains("malformed"));
        let fields = Fields::read(&Metadata::new("store", [("url", "x.db")])).expect("is valid");
        assert_eq!(
            Connection::new(&fields, SECOND / 2, SECOND)
                .expect_err("is too short")
                .to_string(),
            "invalid value for 'timeout': must be greater than 1s"
        );
    }
}
