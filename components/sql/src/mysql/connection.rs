//! How the components on MySQL reach their database.

use std::time::Duration;

use outrider_components::Error;
use percent_encoding::percent_decode_str;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _};

use crate::statement::{failed, in_time, is_identifier};

/// A connection that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// What a connection string says: `user:password@protocol(address)/database`,
/// then parameters. See <https://github.com/go-sql-driver/mysql#dsn-data-source-name>.
#[derive(Debug, Clone)]
pub struct Connection {
    pub options: MySqlConnectOptions,
    /// Variables of the session, each set with the text that is given.
    variables: Vec<String>,
    /// Whether one text may have several statements.
    pub multi_statements: bool,
}

/// How many connections there are, and how long they stay.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub max_connections: u32,
    pub max_lifetime: Option<Duration>,
    pub max_idle_time: Option<Duration>,
}

impl Connection {
    /// Reads a connection string. With `tls=custom` the server's certificate
    /// has to be signed by one in the file `pem_path`.
    pub fn new(text: &str, pem_path: Option<&str>) -> Result<Connection, Error> {
        let wrong = |what: &str| Error::invalid(format!("invalid DSN: {what}"));
        let (server, rest) = text
            .rsplit_once('/')
            .ok_or_else(|| wrong("missing the slash separating the database name"))?;
        let (database, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = MySqlConnectOptions::new()
            .timezone(None)
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .ssl_mode(MySqlSslMode::Disabled)
            .disable_statement_logging();
        let (user, address) = server.rsplit_once('@').unwrap_or(("", server));
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        if !user.is_empty() {
            options = options.username(user);
        }
        if !password.is_empty() {
            options = options.password(password);
        }
        if !database.is_empty() {
            let database = percent_decode_str(database).decode_utf8();
            options = options.database(&database.map_err(|_| wrong("it is not UTF-8"))?);
        }
        options = match address.split_once('(') {
            None if address.is_empty() || address == "tcp" => options,
            None => return Err(wrong("unknown protocol or missing address")),
            Some((protocol, address)) => {
                let address = address
                    .strip_suffix(')')
                    .ok_or_else(|| wrong("network address not terminated"))?;
                at(options, protocol, address)?
            }
        };
        let mut connection = Connection {
            options,
            variables: Vec::new(),
            multi_statements: false,
        };
        for parameter in parameters.split('&').filter(|text| !text.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = percent_decode_str(value).decode_utf8();
            let value = value.map_err(|_| wrong("it is not UTF-8"))?;
            connection.parameter(name, &value, pem_path)?;
        }
        Ok(connection)
    }

    fn parameter(&mut self, name: &str, value: &str, pem_path: Option<&str>) -> Result<(), Error> {
        let options = self.options.clone();
        self.options = match name {
            "tls" => match (value, pem_path) {
                ("false" | "0" | "FALSE", _) => options.ssl_mode(MySqlSslMode::Disabled),
                ("true" | "1" | "TRUE", _) => options.ssl_mode(MySqlSslMode::VerifyIdentity),
                ("skip-verify", _) => options.ssl_mode(MySqlSslMode::Required),
                ("preferred", _) => options.ssl_mode(MySqlSslMode::Preferred),
                ("custom", Some(path)) => {
                    options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(path)
                }
                (other, _) => {
                    return Err(Error::invalid(format!(
                        "invalid value / unknown config name: {other}"
                    )));
                }
            },
            "charset" => {
                // The first that the server knows; ours know them all.
                options.charset(value.split(',').next().unwrap_or(value))
            }
            "collation" => options.collation(value),
            "allowCleartextPasswords" => {
                options.enable_cleartext_plugin(matches!(value, "true" | "1"))
            }
            "multiStatements" => {
                self.multi_statements = matches!(value, "true" | "1" | "TRUE" | "True");
                options
            }
            // Of the other driver; nothing here depends on them.
            "allowNativePasswords"
            | "allowOldPasswords"
            | "allowAllFiles"
            | "allowFallbackToPlaintext"
            | "checkConnLiveness"
            | "clientFoundRows"
            | "columnsWithAlias"
            | "interpolateParams"
            | "loc"
            | "maxAllowedPacket"
            | "parseTime"
            | "timeTruncate"
            | "rejectReadOnly"
            | "timeout"
            | "readTimeout"
            | "writeTimeout"
            | "connectionAttributes"
            | "compress" => options,
            "serverPubKey" => {
                return Err(Error::unsupported("serverPubKey is not supported"));
            }
            variable if is_identifier(variable) => {
                self.variables.push(format!("SET {variable} = {value}"));
                options
            }
            other => {
                return Err(Error::invalid(format!(
                    "invalid DSN: unknown parameter {other}"
                )));
            }
        };
        Ok(())
    }

    /// Opens the first connection.
    pub async fn open(self, limits: Limits, timeout: Duration) -> Result<MySqlPool, Error> {
        let variables = std::sync::Arc::new(self.variables);
        let pool = MySqlPoolOptions::new()
            .max_connections(limits.max_connections)
            .acquire_timeout(timeout)
            .idle_timeout(limits.max_idle_time)
            .max_lifetime(limits.max_lifetime)
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| {
                let variables = std::sync::Arc::clone(&variables);
                Box::pin(async move {
                    for variable in variables.iter() {
                        let set = AssertSqlSafe(variable.clone());
                        connection.execute(sqlx::raw_sql(set)).await?;
                    }
                    Ok(())
                })
            });
        in_time(timeout, async {
            pool.connect_with(self.options).await.map_err(failed)
        })
        .await
    }
}

/// Adds where the server is.
fn at(
    options: MySqlConnectOptions,
    protocol: &str,
    address: &str,
) -> Result<MySqlConnectOptions, Error> {
    match protocol {
        "tcp" => {
            let (host, port) = match address.rsplit_once(':') {
                Some((host, port)) if !port.contains(']') => {
                    let port = port
                        .parse()
                        .map_err(|_| Error::invalid(format!("invalid DSN: invalid port {port}")))?;
                    (host, port)
                }
                _ => (address, 3306),
            };
            Ok(options.host(host).port(port))
        }
        "unix" => Ok(options.socket(address)),
        other => Err(Error::invalid(format!(
            "invalid DSN: unknown protocol {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_strings() {
        let connection = Connection::new(
            "me:p@ss/word@tcp(db.example:3307)/one?allowNativePasswords=true&tls=skip-verify&sql_mode=%27ANSI%27",
            None,
        )
        .expect("is right");
        let options = &connection.options;
        assert_eq!(
            (options.get_host(), options.get_port()),
            ("db.example", 3307)
        );
        assert_eq!(options.get_username(), "me");
        assert_eq!(options.get_database(), Some("one"));
        assert_eq!(connection.variables, ["SET sql_mode = 'ANSI'"]);
        let connection = Connection::new("me@unix(/run/db.sock)/", None).expect("is right");
        let socket = connection
            .options
            .get_socket()
            .map(|path| path.display().to_string());
        assert_eq!(socket.as_deref(), Some("/run/db.sock"));
        assert_eq!(connection.options.get_database(), None);
    }

    #[test]
    fn connections_that_cannot_work_are_refused() {
        for (text, error) in [
            (
                "me@tcp(a)",
                "invalid DSN: missing the slash separating the database name",
            ),
            ("me@udp(a)/", "invalid DSN: unknown protocol udp"),
            ("me@tcp(a/", "invalid DSN: network address not terminated"),
            ("me@tcp(a:b)/", "invalid DSN: invalid port b"),
            (
                "me@tcp(a)/?tls=custom",
                "invalid value / unknown config name: custom",
            ),
            ("me@tcp(a)/?serverPubKey=x", "serverPubKey is not supported"),
        ] {
            let refused = Connection::new(text, None).expect_err(text);
            assert_eq!(refused.to_string(), error, "{text}");
        }
    }
}
