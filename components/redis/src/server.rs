//! The connection to Redis: one node, a cluster or a group behind sentinels.

use std::sync::Arc;
use std::time::Duration;

use outrider_components::{Error, Kind};
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, ClientTlsConfig, Cmd, ConnectionAddr, ErrorKind, FromRedisValue,
    IntoConnectionInfo, Pipeline, RedisConnectionInfo, RedisError, RedisFuture, RedisResult,
    RetryMethod, ScriptInvocation, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::settings::{Settings, Tls, Topology};

/// A Redis server, cluster or sentinel group. Commands share one connection,
/// which is made when it is first needed, and again when it breaks.
pub struct Server {
    settings: Arc<Settings>,
    client: Client,
    current: Mutex<Current>,
    /// How long one command may take.
    timeout: Option<Duration>,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// Counts the connections, to tell them apart.
    generation: u64,
}

/// Makes connections.
enum Client {
    Node(Box<redis::Client>),
    Cluster(Box<ClusterClient>),
    Sentinel(Box<Mutex<SentinelClient>>),
}

#[derive(Clone)]
pub enum Connection {
    Plain(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Connection::Plain(connection) => connection.req_packed_command(cmd),
            Connection::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Connection::Plain(connection) => {
                connection.req_packed_commands(pipeline, offset, count)
            }
            Connection::Cluster(connection) => {
                connection.req_packed_commands(pipeline, offset, count)
            }
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Connection::Plain(connection) => connection.get_db(),
            Connection::Cluster(connection) => connection.get_db(),
        }
    }
}

/// A command or a script. It may be sent several times.
#[derive(Clone, Copy)]
pub enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a ScriptInvocation<'a>),
}

impl<'a> From<&'a Cmd> for Request<'a> {
    fn from(command: &'a Cmd) -> Request<'a> {
        Request::Command(command)
    }
}

impl<'a> From<&'a ScriptInvocation<'a>> for Request<'a> {
    fn from(script: &'a ScriptInvocation<'a>) -> Request<'a> {
        Request::Script(script)
    }
}

impl Server {
    /// Does not connect yet.
    pub fn new(settings: Arc<Settings>) -> Result<Server, Error> {
        let timeout = settings.read_timeout;
        let client = client(&settings, timeout).map_err(|error| {
            Error::invalid(format!("redis client configuration error: {error}")).because(error)
        })?;
        Ok(Server {
            settings,
            client,
            current: Mutex::default(),
            timeout,
        })
    }

    /// The same server through a connection of its own, for commands that
    /// block for up to `block`.
    pub fn blocking(&self, block: Duration) -> Result<Server, Error> {
        let timeout = Some(
            block
                + self
                    .settings
                    .read_timeout
                    .unwrap_or(Duration::from_secs(30)),
        );
        let client = client(&self.settings, timeout).map_err(Error::from_redis)?;
        Ok(Server {
            settings: self.settings.clone(),
            client,
            current: Mutex::default(),
            timeout,
        })
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether keys are spread over several servers.
    pub fn is_cluster(&self) -> bool {
        self.settings.topology == Topology::Cluster
    }

    /// Sends a request and returns its answer. Errors that may go away are
    /// retried, up to `redisMaxRetries` times.
    pub async fn call<'a, T: FromRedisValue>(
        &self,
        request: impl Into<Request<'a>>,
    ) -> RedisResult<T> {
        let request = request.into();
        // The client of a cluster retries by itself.
        let retries = if self.is_cluster() {
            0
        } else {
            self.settings.max_retries
        };
        let mut retried = 0;
        loop {
            let error = match self.call_once(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if retried >= retries || matches!(error.retry_method(), RetryMethod::NoRetry) {
                return Err(error);
            }
            let backoff = self
                .settings
                .min_backoff
                .saturating_mul(1 << retried.min(16));
            tokio::time::sleep(backoff.min(self.settings.max_backoff)).await;
            retried += 1;
        }
    }

    async fn call_once<T: FromRedisValue>(&self, request: Request<'_>) -> RedisResult<T> {
        let (mut connection, generation) = self.connection().await?;
        let answer = match request {
            Request::Command(command) => command.query_async(&mut connection).await,
            Request::Script(script) => script.invoke_async(&mut connection).await,
        };
        let lost = match (&answer, &connection) {
            (Ok(_), _) => false,
            (Err(error), Connection::Plain(_)) => is_broken(error),
            // It reconnects to its nodes by itself.
            (Err(error), Connection::Cluster(_)) => matches!(
                error.retry_method(),
                RetryMethod::ReconnectFromInitialConnections
            ),
        };
        if lost {
            let mut current = self.current.lock().await;
            if current.generation == generation {
                current.connection = None;
            }
        }
        answer
    }

    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((connection.clone(), current.generation));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.dial_timeout))
            .set_response_timeout(self.timeout);
        let connection = match &self.client {
            Client::Node(client) => Connection::Plain(
                client
                    .get_multiplexed_async_connection_with_config(&config)
                    .await?,
            ),
            Client::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
            Client::Sentinel(client) => Connection::Plain(
                client
                    .lock()
                    .await
                    .get_async_connection_with_config(&config)
                    .await?,
            ),
        };
        current.generation += 1;
        current.connection = Some(connection.clone());
        Ok((connection, current.generation))
    }

    /// A connection of its own for events. Not for clusters, where each node
    /// has its own events.
    pub async fn pubsub(&self) -> RedisResult<PubSub> {
        let connecting = async {
            match &self.client {
                Client::Node(client) => client.get_async_pubsub().await,
                Client::Sentinel(client) => {
                    let master = client.lock().await.async_get_client().await?;
                    master.get_async_pubsub().await
                }
                Client::Cluster(_) => Err((
                    ErrorKind::InvalidClientConfig,
                    "a cluster has several nodes",
                )
                    .into()),
            }
        };
        let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
        let limit = self.settings.dial_timeout;
        tokio::time::timeout(limit, connecting)
            .await
            .map_err(late)?
    }

    /// How many replicas the server has.
    pub async fn replicas(&self) -> RedisResult<usize> {
        let info: String = self
            .call(&redis::cmd("INFO").arg("replication").take())
            .await?;
        Ok(info
            .lines()
            .find_map(|line| line.strip_prefix("connected_slaves:"))
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0))
    }

    /// Whether the server answers.
    pub async fn ping(&self) -> RedisResult<()> {
        self.call::<Value>(&redis::cmd("PING")).await.map(drop)
    }

    /// Closes the connection. The next call opens another.
    pub async fn close(&self) {
        self.current.lock().await.connection = None;
    }
}

/// Whether the connection must be replaced. Also if the server has become a
/// replica: the sentinels know the new master.
fn is_broken(error: &RedisError) -> bool {
    let method = error.retry_method();
    matches!(
        method,
        RetryMethod::Reconnect | RetryMethod::ReconnectFromInitialConnections
    ) || error.is_io_error()
        || error.kind() == ErrorKind::Server(redis::ServerErrorKind::ReadOnly)
}

fn client(settings: &Settings, timeout: Option<Duration>) -> RedisResult<Client> {
    let certificates = settings.tls.as_ref().map(certificates);
    let addresses = settings
        .addresses
        .iter()
        .map(|(host, port)| address(host, *port, settings.tls.as_ref()));
    let mode = settings.tls.as_ref().map(|tls| {
        if tls.insecure {
            TlsMode::Insecure
        } else {
            TlsMode::Secure
        }
    });
    match &settings.topology {
        Topology::Node => {
            let Some(address) = addresses.into_iter().next() else {
                return Err((ErrorKind::InvalidClientConfig, "redisHost has no address").into());
            };
            let mut login = RedisConnectionInfo::default().set_db(settings.database);
            if let Some(username) = &settings.username {
                login = login.set_username(username);
            }
            if let Some(password) = &settings.password {
                login = login.set_password(&password.0);
            }
            let info = address.into_connection_info()?.set_redis_settings(login);
            let client = match certificates {
                Some(certificates) => redis::Client::build_with_tls(info, certificates)?,
                None => redis::Client::open(info)?,
            };
            Ok(Client::Node(Box::new(client)))
        }
        Topology::Cluster => {
            let mut builder = ClusterClientBuilder::new(addresses)
                .retries(settings.max_retries)
                .connection_timeout(settings.dial_timeout);
            if let Some(timeout) = timeout {
                builder = builder.response_timeout(timeout);
            }
            if let Some(username) = &settings.username {
                builder = builder.username(username);
            }
            if let Some(password) = &settings.password {
                builder = builder.password(password.0.clone());
            }
            if let (Some(mode), Some(certificates)) = (mode, certificates) {
                builder = builder.tls(mode).certs(certificates);
            }
            Ok(Client::Cluster(Box::new(builder.build()?)))
        }
        Topology::Sentinel(name) => {
            let mut builder =
                SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?
                    .set_client_to_redis_db(settings.database);
            if let Some(username) = &settings.username {
                builder = builder.set_client_to_redis_username(username);
            }
            if let Some(password) = &settings.password {
                builder = builder.set_client_to_redis_password(&password.0);
            }
            if let Some(username) = &settings.sentinel_username {
                builder = builder.set_client_to_sentinel_username(username);
            }
            if let Some(password) = &settings.sentinel_password {
                builder = builder.set_client_to_sentinel_password(&password.0);
            }
            if let (Some(mode), Some(certificates)) = (mode, certificates) {
                builder = builder
                    .set_client_to_redis_tls_mode(mode)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_tls_mode(mode)
                    .set_client_to_sentinel_certificates(certificates);
            }
            Ok(Client::Sentinel(Box::new(Mutex::new(builder.build()?))))
        }
    }
}

fn address(host: &str, port: u16, tls: Option<&Tls>) -> ConnectionAddr {
    match tls {
        None => ConnectionAddr::Tcp(host.to_owned(), port),
        Some(tls) => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: tls.insecure,
            tls_params: None,
        },
    }
}

fn certificates(tls: &Tls) -> TlsCertificates {
    TlsCertificates {
        client_tls: tls
            .client
            .as_ref()
            .map(|(certificate, key)| ClientTlsConfig {
                client_cert: certificate.clone().into_bytes(),
                client_key: key.0.clone().into_bytes(),
            }),
        root_cert: None,
    }
}

/// Makes the error of a component of one of Redis.
pub trait FromRedis {
    fn from_redis(error: RedisError) -> Self;
}

impl FromRedis for Error {
    fn from_redis(error: RedisError) -> Error {
        let kind = match error.kind() {
            ErrorKind::AuthenticationFailed => Kind::Denied,
            ErrorKind::InvalidClientConfig => Kind::Invalid,
            _ if is_broken(&error) || error.is_timeout() => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Error::new(kind, error.to_string()).because(error)
    }
}
