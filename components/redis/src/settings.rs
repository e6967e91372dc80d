use std::time::Duration;

use outrider_components::{Error, Metadata};

const DEFAULT_HOST: &str = "localhost";
const DEFAULT_PORT: u16 = 6379;
const DEFAULT_MAX_RETRIES: i32 = 3;
const DEFAULT_MIN_BACKOFF: Duration = Duration::from_millis(8);
const DEFAULT_MAX_BACKOFF: Duration = Duration::from_millis(512);
const DEFAULT_DIAL_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_READ_TIMEOUT: Duration = Duration::from_secs(3);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the data is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Node,
    /// A Redis Cluster; the addresses are some of its nodes.
    Cluster,
    /// The addresses are sentinels, which know the server called this.
    Sentinel(String),
}

/// The connection properties that all Redis components share. Pool sizes and
/// idle times are accepted and mean nothing: one connection carries all
/// commands.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As it was written, for messages.
    pub host: String,
    /// Host and port.
    pub addresses: Vec<(String, u16)>,
    /// Where the data is.
    pub topology: Topology,
    pub username: Option<String>,
    pub password: Option<String>,
    pub sentinel_username: Option<String>,
    pub sentinel_password: Option<String>,
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

#[derive(Clone)]
pub struct Tls {
    /// The user asked for no verification.
    pub insecure: bool,
    /// Certificate chain and key in PEM.
    pub client: Option<(String, String)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("insecure", &self.insecure)
            .field("client", &self.client.is_some())
            .finish()
    }
}

impl Settings {
    /// Reads the connection properties.
    pub fn new(metadata: &Metadata) -> Result<Settings, Error> {
        Settings::read(metadata).map_err(|error| error.context("redis client configuration error"))
    }

    fn read(metadata: &Metadata) -> Result<Settings, Error> {
        metadata.unique()?;
        let host = metadata.text("redisHost").unwrap_or(DEFAULT_HOST);
        let addresses = addresses(host, metadata.integer("redisPort")?)?;
        let flag = |name| Ok::<bool, Error>(metadata.boolean(name)?.unwrap_or(false));
        let text = |name| metadata.text(name).map(str::to_owned);
        let topology = match (flag("failover")?, metadata.text("redisType")) {
            (true, Some("cluster")) => {
                return Err(metadata.wrong(
                    "failover",
                    "cannot be combined with redisType cluster: a cluster fails over by itself, remove failover",
                ));
            }
            (true, _) => {
                let name = metadata.required("sentinelMasterName")?;
                Topology::Sentinel(name.to_owned())
            }
            (false, Some("cluster")) => Topology::Cluster,
            (false, None | Some("node")) => Topology::Node,
            (false, Some(other)) => {
                return Err(metadata.wrong(
                    "redisType",
                    format_args!(
                        "must be node or cluster, not {}",
                        outrider_kit::quote::go(other)
                    ),
                ));
            }
        };
        if metadata.truthy("useEntraID") || metadata.truthy("useAzureAD") {
            return Err(metadata.wrong("useEntraID", "is not supported yet: use redisPassword"));
        }
        if metadata.truthy("useOIDC") {
            return Err(metadata.wrong("useOIDC", "is not supported yet: use redisPassword"));
        }
        let client = match (text("clientCert"), text("clientKey")) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => None,
        };
        let tls = flag("enableTLS")?.then_some(Tls {
            insecure: flag("insecureSkipTLSVerify")?,
            client,
        });
        // In these, -1 switches off what zero leaves at its default.
        let duration = |name| metadata.duration_in(name, MILLISECOND);
        let positive = |time: Option<Duration>| time.filter(|time| !time.is_zero());
        let negative = |name| {
            metadata
                .text(name)
                .is_some_and(|value| value.starts_with('-'))
        };
        let retries: i32 = match metadata.any(&["redisMaxRetries", "maxRetries"]) {
            None => DEFAULT_MAX_RETRIES,
            Some(text) => match text.parse() {
                Ok(0) => DEFAULT_MAX_RETRIES,
                Ok(retries) => retries,
                Err(_) => return Err(metadata.wrong("redisMaxRetries", "must be a whole number")),
            },
        };
        let max_backoff =
            positive(duration("redisMaxRetryInterval")?).unwrap_or(DEFAULT_MAX_BACKOFF);
        let min_backoff =
            positive(duration("redisMinRetryInterval")?).unwrap_or(DEFAULT_MIN_BACKOFF);
        Ok(Settings {
            host: host.to_owned(),
            addresses,
            topology,
            username: text("redisUsername"),
            password: text("redisPassword"),
            sentinel_username: text("sentinelUsername"),
            sentinel_password: text("sentinelPassword"),
            database: metadata.integer("redisDB")?.unwrap_or(0),
            tls,
            max_retries: u32::try_from(retries).unwrap_or(0),
            min_backoff: min_backoff.min(max_backoff),
            max_backoff,
            dial_timeout: positive(duration("dialTimeout")?).unwrap_or(DEFAULT_DIAL_TIMEOUT),
            read_timeout: (!negative("readTimeout"))
                .then_some(positive(duration("readTimeout")?).unwrap_or(DEFAULT_READ_TIMEOUT)),
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

    fn refused(pairs: &[(&str, &str)]) -> String {
        read(pairs).expect_err("is wrong").to_string()
    }

    #[test]
    fn addresses_may_have_ports() {
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
            refused(&[("redisHost", "a:1"), ("redisPort", "2")])
                .contains("already contains port 1")
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
        assert_eq!(read(&[]).expect("is valid").max_retries, 3);
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
            refused(&[("failover", "true")]),
            "redis client configuration error: component redis: property sentinelMasterName is missing or empty"
        );
        assert!(refused(&[("redisType", "ring")]).contains("must be node or cluster"));
        assert!(refused(&[("enableTLS", "yes")]).contains("must be true or false"));
    }
}
