//! The connection properties that all Redis components share.

use std::time::Duration;

use outrider_components::{Error, FieldValue, Metadata, Milliseconds, Secret, Truthy};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_MAX_RETRIES: i32 = 3;
const DEFAULT_MIN_BACKOFF: Duration = Duration::from_millis(8);
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_millis(512);
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(3);

outrider_components::fields! {
    /// What the metadata of every Redis component says about the connection.
    /// Pool sizes and idle times are accepted and ignored: one connection
    /// carries all commands.
    pub struct Fields {
        /// Host of the server, with or without a port. For a cluster some of
        /// its nodes, for a failover group the sentinels, separated by commas.
        "redisHost" => host: String = "localhost";
        /// Port of hosts that have none of their own; 6379 if absent.
        "redisPort" => port: Option<u16>;
        /// `node` or `cluster`.
        "redisType" => topology: String = "node";
        /// Whether the hosts are sentinels.
        "failover" => failover: bool = "false";
        /// The name under which the sentinels know the server. Required with
        /// `failover`.
        "sentinelMasterName" => sentinel_master: Option<String>;
        /// User at the server.
        "redisUsername" => username: Option<String>;
        /// Password at the server.
        "redisPassword" => password: Option<Secret>;
        /// User at the sentinels.
        "sentinelUsername" => sentinel_username: Option<String>;
        /// Password at the sentinels.
        "sentinelPassword" => sentinel_password: Option<Secret>;
        /// Number of the database.
        "redisDB" => database: i64 = "0";
        /// Whether connections use TLS.
        "enableTLS" => tls: bool = "false";
        /// Whether the server's certificate is not verified.
        "insecureSkipTLSVerify" => insecure: bool = "false";
        /// Client certificate chain, in PEM. Used if there is a key too.
        "clientCert" => client_certificate: Option<String>;
        /// Key of the client certificate, in PEM.
        "clientKey" => client_key: Option<Secret>;
        /// Retries of a command after the first attempt. 0 means the default,
        /// -1 means none.
        "redisMaxRetries" | "maxRetries" => max_retries: i32 = "3";
        /// Shortest pause before a retry. 0 means the default.
        "redisMinRetryInterval" => min_backoff: Milliseconds = "8ms";
        /// Longest pause before a retry. 0 means the default.
        "redisMaxRetryInterval" => max_backoff: Milliseconds = "512ms";
        /// How long to wait for a connection. 0 means the default.
        "dialTimeout" => dial_timeout: Milliseconds = "5s";
        /// How long to wait for an answer. 0 means the default, -1 means any
        /// time.
        "readTimeout" => read_timeout: ReadTimeout = "3s";
        /// Not supported yet: a component with `true` does not start.
        "useEntraID" => entra_id: Truthy = "false";
        /// The name that `useEntraID` had before.
        "useAzureAD" => azure_ad: Truthy = "false";
        /// Not supported yet: a component with `true` does not start.
        "useOIDC" => oidc: Truthy = "false";
    }
}

/// How long to wait for an answer; `None` means any time.
#[derive(Debug, Clone, Copy)]
pub struct ReadTimeout(Option<Duration>);

impl FieldValue for ReadTimeout {
    const KIND: &'static str = Milliseconds::KIND;

    fn parse(text: &str) -> Result<ReadTimeout, String> {
        let Milliseconds(time) = Milliseconds::parse(text)?;
        let is_negative = text.starts_with('-');
        Ok(ReadTimeout(
            (!is_negative).then_some(nonzero(time).unwrap_or(DEFAULT_READ_TIMEOUT)),
        ))
    }
}

fn nonzero(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}

/// How many servers there are, and how the right one is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Node,
    /// A Redis Cluster; the addresses are some of its nodes.
    Cluster,
    /// The addresses are sentinels, which know the server called this.
    Sentinel(String),
}

/// How to reach the server, as [`Fields`] say.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As it was written, for messages.
    pub host: String,
    /// Host and port.
    pub addresses: Vec<(String, u16)>,
    pub topology: Topology,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub sentinel_username: Option<String>,
    pub sentinel_password: Option<Secret>,
    pub database: i64,
    pub tls: Option<Tls>,
    /// Retries after the first attempt of a command.
    pub max_retries: u32,
    pub min_backoff: Duration,
    pub max_backoff: Duration,
    pub dial_timeout: Duration,
    /// How long one command may take; `None` means any time.
    pub read_timeout: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Tls {
    /// The user asked for no verification.
    pub insecure: bool,
    /// Certificate chain and key in PEM.
    pub client: Option<(String, Secret)>,
}

impl Settings {
    /// Reads the connection properties.
    pub fn new(metadata: &Metadata) -> Result<Settings, Error> {
        Settings::read(metadata).map_err(|error| error.context("redis client configuration error"))
    }

    fn read(metadata: &Metadata) -> Result<Settings, Error> {
        let fields = Fields::read(metadata)?;
        let addresses = addresses(&fields.host, fields.port)?;
        let topology = match (fields.failover, &*fields.topology) {
            (true, "cluster") => {
                return Err(metadata.wrong(
                    "failover",
                    "cannot be combined with redisType cluster: a cluster fails over by itself, remove failover",
                ));
            }
            (true, _) => match fields.sentinel_master {
                Some(name) => Topology::Sentinel(name),
                None => return Err(metadata.wrong("sentinelMasterName", "is missing or empty")),
            },
            (false, "cluster") => Topology::Cluster,
            (false, "node") => Topology::Node,
            (false, other) => {
                return Err(metadata.wrong(
                    "redisType",
                    format_args!(
                        "must be node or cluster, not {}",
                        outrider_kit::quote::go(other)
                    ),
                ));
            }
        };
        if fields.entra_id.0 || fields.azure_ad.0 {
            return Err(metadata.wrong("useEntraID", "is not supported yet: use redisPassword"));
        }
        if fields.oidc.0 {
            return Err(metadata.wrong("useOIDC", "is not supported yet: use redisPassword"));
        }
        let tls = fields.tls.then_some(Tls {
            insecure: fields.insecure,
            client: fields.client_certificate.zip(fields.client_key),
        });
        let max_retries = match fields.max_retries {
            0 => DEFAULT_MAX_RETRIES,
            retries => retries,
        };
        let max_backoff = nonzero(fields.max_backoff.0).unwrap_or(DEFAULT_MAX_BACKOFF);
        let min_backoff = nonzero(fields.min_backoff.0).unwrap_or(DEFAULT_MIN_BACKOFF);
        Ok(Settings {
            host: fields.host,
            addresses,
            topology,
            username: fields.username,
            password: fields.password,
            sentinel_username: fields.sentinel_username,
            sentinel_password: fields.sentinel_password,
            database: fields.database,
            tls,
            max_retries: u32::try_from(max_retries).unwrap_or(0),
            min_backoff: min_backoff.min(max_backoff),
            max_backoff,
            dial_timeout: nonzero(fields.dial_timeout.0).unwrap_or(DEFAULT_DIAL_TIMEOUT),
            read_timeout: fields.read_timeout.0,
        })
    }
}

/// Hosts with and without a port, separated by commas.
fn addresses(hosts: &str, port: Option<u16>) -> Result<Vec<(String, u16)>, Error> {
    hosts
        .split(',')
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .map(|address| {
            let Some((host, own)) = split_port(address) else {
                let host = address.trim_start_matches('[').trim_end_matches(']');
                return Ok((host.to_owned(), port.unwrap_or(DEFAULT_PORT)));
            };
            let own: u16 = own.parse().map_err(|_| {
                Error::invalid(format!("redis host {address:?} has no valid port"))
            })?;
            if let Some(port) = port.filter(|port| *port != own && *port != 0) {
                return Err(Error::invalid(format!(
                    "redis host {address:?} already contains port {own}, but redisPort is set to {port}; either remove the port from redisHost or remove the redisPort setting"
                )));
            }
            Ok((host.to_owned(), own))
        })
        .collect()
}

/// Host and port of `host:port` or `[::1]:port`.
fn split_port(address: &str) -> Option<(&str, &str)> {
    if let Some(rest) = address.strip_prefix('[') {
        return rest.split_once("]:");
    }
    let (host, port) = address.rsplit_once(':')?;
    (!host.contains(':')).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::new(&Metadata::new("redis", pairs.iter().copied()))
    }

    fn error(pairs: &[(&str, &str)]) -> String {
        read(pairs).expect_err("is wrong").to_string()
    }

    #[test]
    fn a_host_without_a_port_gets_the_port_of_the_metadata_or_the_default() {
        for (host, port, wanted) in [
            ("", "", vec![("localhost", 6379)]),
            ("redis", "", vec![("redis", 6379)]),
            ("redis", "7000", vec![("redis", 7000)]),
            ("redis:7000", "7000", vec![("redis", 7000)]),
            ("a:1, b:2,c", "", vec![("a", 1), ("b", 2), ("c", 6379)]),
            ("[::1]:7", "", vec![("::1", 7)]),
            ("::1", "", vec![("::1", 6379)]),
        ] {
            let settings = read(&[("redisHost", host), ("redisPort", port)]).expect("is valid");
            let wanted: Vec<_> = wanted
                .into_iter()
                .map(|(host, port)| (host.to_owned(), port))
                .collect();
            assert_eq!(settings.addresses, wanted, "{host} {port}");
        }
        assert!(
            error(&[("redisHost", "a:1"), ("redisPort", "2")]).contains("already contains port 1")
        );
    }

    #[test]
    fn numbers_are_milliseconds_and_minus_one_switches_off() {
        let settings = read(&[
            ("readTimeout", "1500"),
            ("dialTimeout", "2s"),
            ("redisMaxRetries", "-1"),
            ("redisMinRetryInterval", "1s"),
        ])
        .expect("is valid");
        assert_eq!(settings.read_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(settings.dial_timeout, Duration::from_secs(2));
        assert_eq!(settings.max_retries, 0);
        assert_eq!(settings.min_backoff, DEFAULT_MAX_BACKOFF);
        assert_eq!(
            read(&[("readTimeout", "-1")])
                .expect("is valid")
                .read_timeout,
            None
        );
    }

    #[test]
    fn zero_means_the_default() {
        let names = [
            "redisMaxRetries",
            "redisMinRetryInterval",
            "redisMaxRetryInterval",
            "dialTimeout",
            "readTimeout",
        ];
        let zero = read(&names.map(|name| (name, "0"))).expect("is valid");
        let default = read(&[]).expect("is valid");
        assert_eq!(format!("{zero:?}"), format!("{default:?}"));
        assert_eq!(default.max_retries, 3);
    }

    #[test]
    fn the_topology_follows_type_and_failover() {
        let topology = |pairs| read(pairs).expect("is valid").topology;
        assert_eq!(topology(&[]), Topology::Node);
        assert_eq!(topology(&[("redisType", "cluster")]), Topology::Cluster);
        assert_eq!(
            topology(&[("failover", "true"), ("sentinelMasterName", "main")]),
            Topology::Sentinel("main".to_owned())
        );
        assert_eq!(
            error(&[("failover", "true")]),
            "redis client configuration error: component redis: property sentinelMasterName is missing or empty"
        );
        assert!(error(&[("redisType", "ring")]).contains("must be node or cluster"));
        assert!(error(&[("enableTLS", "yes")]).contains("must be true or false"));
    }
}
