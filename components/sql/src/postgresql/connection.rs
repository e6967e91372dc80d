//! How the components on PostgreSQL reach their database.

use std::time::Duration;

use outrider_components::{Error, Secret, Truthy};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use super::connection_string::{self, Keywords};
use crate::statement::{failed, in_time};

const MAX_LIFETIME: Duration = Duration::from_secs(3600);
const MAX_IDLE_TIME: Duration = Duration::from_secs(30 * 60);
/// A connection that was idle for longer is tried before it is used.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

outrider_components::fields! {
    /// What the metadata of every component on PostgreSQL says about the
    /// connection.
    pub struct Fields {
        /// Keywords with values, or a URI.
        "connectionString" | "url" => connection_string: Option<Secret>;
        /// Host of the server, in place of that of the connection string.
        "host" => host: Option<String>;
        /// Address of the server, in place of its host.
        "hostaddr" => host_address: Option<String>;
        /// Port of the server.
        "port" => port: Option<String>;
        /// Name of the database.
        "database" => database: Option<String>;
        /// User at the server.
        "user" => user: Option<String>;
        /// Password of the user.
        "password" => password: Option<Secret>;
        /// Path of the certificates that sign that of the server.
        "sslRootCert" => root_certificate: Option<String>;
        /// After how long an unused connection is closed; 30m if absent.
        "connectionMaxIdleTime" => max_idle_time: Option<Duration>;
        /// Connections at most; 0 and 1 mean 4, or one for each processor if
        /// there are more.
        "maxConns" => max_connections: i64 = "0";
        /// `cache_statement` and `cache_describe` keep prepared statements;
        /// `describe_exec`, `exec` and `simple_protocol` do not, which some
        /// proxies need.
        "queryExecMode" => exec_mode: String = "cache_statement";
        /// Not supported yet: a component with `true` does not start.
        "useAzureAD" => azure_ad: Truthy = "false";
        /// Not supported yet: a component with `true` does not start.
        "useAWSIAM" => aws_iam: Truthy = "false";
    }
}

/// How to reach the database that a component names.
pub struct Connection {
    options: PgConnectOptions,
    pool: PgPoolOptions,
    timeout: Duration,
    /// Whether statements are prepared once for each connection.
    pub persistent: bool,
}

impl Connection {
    /// Reads the fields. `timeout` is how long one operation may take.
    pub fn new(fields: &Fields, timeout: Duration) -> Result<Connection, Error> {
        for (name, wanted) in [
            ("useAzureAD", fields.azure_ad),
            ("useAWSIAM", fields.aws_iam),
        ] {
            if wanted.0 {
                return Err(Error::unsupported(format!("{name} is not supported yet")));
            }
        }
        if timeout < Duration::from_secs(1) {
            return Err(Error::invalid(
                "invalid value for 'timeout': must be greater than 1s",
            ));
        }
        let persistent = match &*fields.exec_mode {
            "cache_statement" | "cache_describe" => true,
            "describe_exec" | "exec" | "simple_protocol" => false,
            other => {
                let text = format!("invalid queryExecMode metadata value: {other}");
                return Err(Error::invalid(text));
            }
        };
        let keywords = keywords(fields)?;
        let max_connections = u32::try_from(fields.max_connections)
            .ok()
            .filter(|count| *count > 1)
            .or_else(|| find(&keywords, "pool_max_conns")?.parse().ok())
            .unwrap_or_else(default_connections);
        let max_idle_time = fields.max_idle_time.filter(|time| !time.is_zero());
        let pool = PgPoolOptions::new()
            .max_connections(max_connections)
            .acquire_timeout(timeout)
            .idle_timeout(max_idle_time.unwrap_or(MAX_IDLE_TIME))
            .max_lifetime(MAX_LIFETIME)
            .test_before_acquire(false)
            .before_acquire(|connection, about| {
                Box::pin(async move {
                    if about.idle_for > TRUSTED_IDLE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
        let mut options = options(&keywords)?.disable_statement_logging();
        if !persistent {
            options = options.statement_cache_capacity(0);
        }
        Ok(Connection {
            options,
            pool,
            timeout,
            persistent,
        })
    }

    /// Opens the first connection.
    pub async fn open(self) -> Result<PgPool, Error> {
        let connecting = async { self.pool.connect_with(self.options).await.map_err(failed) };
        in_time(self.timeout, connecting)
            .await
            .map_err(|error| error.context("failed to ping the database"))
    }
}

fn default_connections() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(processors).map_or(4, |count| count.max(4))
}

/// The connection string, with the fields that replace parts of it.
fn keywords(fields: &Fields) -> Result<Keywords, Error> {
    let text = fields.connection_string.as_ref();
    let mut keywords = connection_string::parse(text.map_or("", |text| &text.0))?;
    for (name, value) in [
        ("user", fields.user.as_ref()),
        ("host", fields.host.as_ref()),
        ("hostaddr", fields.host_address.as_ref()),
        ("port", fields.port.as_ref()),
        ("dbname", fields.database.as_ref()),
        ("password", fields.password.as_ref().map(|secret| &secret.0)),
        ("sslrootcert", fields.root_certificate.as_ref()),
    ] {
        if let Some(value) = value {
            keywords.push((name.to_owned(), value.clone()));
        }
    }
    if keywords.is_empty() {
        return Err(Error::invalid("failed to build connection string"));
    }
    Ok(keywords)
}

/// The last value of a keyword.
fn find<'a>(keywords: &'a Keywords, name: &str) -> Option<&'a str> {
    let mut found = keywords.iter().rev().filter(|(have, _)| have == name);
    found.next().map(|(_, value)| value.as_str())
}

fn options(keywords: &Keywords) -> Result<PgConnectOptions, Error> {
    let wrong = |what: String| Error::invalid(format!("failed to parse connection string: {what}"));
    let mut options = PgConnectOptions::new();
    let mut mode = None;
    let mut has_root = false;
    for (name, value) in keywords {
        options = match &**name {
            "host" | "hostaddr" if value.contains(',') => {
                return Err(wrong("several hosts are not supported".to_owned()));
            }
            "host" | "hostaddr" => options.host(value),
            "port" => {
                let port = value.parse();
                options.port(port.map_err(|_| wrong(format!("invalid port {value}")))?)
            }
            "dbname" | "database" => options.database(value),
            "user" => options.username(value),
            "password" => options.password(value),
            "application_name" => options.application_name(value),
            "sslmode" => {
                mode = Some(value.as_str());
                options
            }
            "sslrootcert" => {
                has_root = true;
                options.ssl_root_cert(value)
            }
            "sslcert" => options.ssl_client_cert(value),
            "sslkey" => options.ssl_client_key(value),
            "target_session_attrs" if value != "any" => {
                return Err(wrong(format!("{name}={value} is not supported")));
            }
            // How long connecting may take is bounded by the timeout, and the
            // size of the pool is read elsewhere.
            "target_session_attrs"
            | "connect_timeout"
            | "passfile"
            | "sslsni"
            | "statement_cache_capacity"
            | "description_cache_capacity"
            | "default_query_exec_mode" => options,
            name if name.starts_with("pool_") => options,
            "service" | "servicefile" | "sslpassword" | "krbspn" | "krbsrvname"
            | "sslnegotiation" => {
                return Err(wrong(format!("{name} is not supported")));
            }
            // What the server calls a run-time parameter.
            name => options.options([(name, value)]),
        };
    }
    let Some(mode) = mode else {
        return Ok(options);
    };
    let mode = match mode {
        "disable" => PgSslMode::Disable,
        "allow" => PgSslMode::Allow,
        "prefer" => PgSslMode::Prefer,
        // With certificates to trust it has always meant to check them.
        "require" if has_root => PgSslMode::VerifyCa,
        "require" => PgSslMode::Require,
        "verify-ca" => PgSslMode::VerifyCa,
        "verify-full" => PgSslMode::VerifyFull,
        other => return Err(wrong(format!("invalid sslmode {other}"))),
    };
    Ok(options.ssl_mode(mode))
}

#[cfg(test)]
mod tests {
    use outrider_components::Metadata;

    use super::*;

    fn connection(properties: &[(&str, &str)]) -> Result<Connection, Error> {
        let metadata = Metadata::new("store", properties.iter().copied());
        Connection::new(&Fields::read(&metadata)?, Duration::from_secs(20))
    }

    fn refused(properties: &[(&str, &str)]) -> String {
        let error = connection(properties).err().expect("is wrong");
        error.to_string()
    }

    #[test]
    fn fields_replace_parts_of_the_connection_string() {
        let connection = connection(&[
            ("url", "host=a user=me dbname=one search_path=here"),
            ("host", "b"),
            ("port", "77"),
            ("database", "two"),
            ("maxConns", "7"),
        ])
        .expect("is right");
        let options = &connection.options;
        assert_eq!((options.get_host(), options.get_port()), ("b", 77));
        assert_eq!(options.get_username(), "me");
        assert_eq!(options.get_database(), Some("two"));
        assert_eq!(options.get_options(), Some("-c search_path=here"));
        assert_eq!(connection.pool.get_max_connections(), 7);
        assert!(connection.persistent);
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        assert_eq!(refused(&[]), "failed to build connection string");
        let host = ("connectionString", "host=a");
        assert_eq!(
            refused(&[host, ("useAWSIAM", "true")]),
            "useAWSIAM is not supported yet"
        );
        assert_eq!(
            refused(&[host, ("queryExecMode", "fast")]),
            "invalid queryExecMode metadata value: fast"
        );
        for text in ["host=a,b", "host=a sslmode=maybe", "service=x", "port=x"] {
            let text = refused(&[("connectionString", text)]);
            assert!(text.starts_with("failed to parse connection string: "));
        }
    }
}
