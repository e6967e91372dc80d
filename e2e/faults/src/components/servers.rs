//! Brokers and stores: how their servers are started, and the components on them.

use std::path::Path;

use anyhow::{Context as _, Result};
use outrider_conformance::server::{self, Server};

/// The topic of all events.
pub const TOPIC: &str = "events";

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Broker {
    Redis,
    RabbitMq,
    Mqtt,
    JetStream,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Store {
    Redis,
    Postgresql,
    Mysql,
    Etcd,
    /// A file, without a server.
    Sqlite,
}

pub const BROKERS: [Broker; 4] = [
    Broker::Redis,
    Broker::RabbitMq,
    Broker::Mqtt,
    Broker::JetStream,
];

pub const STORES: [Store; 5] = [
    Store::Redis,
    Store::Postgresql,
    Store::Mysql,
    Store::Etcd,
    Store::Sqlite,
];

fn component(name: &str, kind: &str, version: &str, fields: &[(&str, String)]) -> String {
    let mut yaml = format!(
        "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {{name: {name}}}\nspec:\n  type: {kind}\n  version: {version}\n  metadata:\n"
    );
    for (name, value) in fields {
        yaml.push_str(&format!("  - {{name: {name}, value: '{value}'}}\n"));
    }
    yaml
}

/// Redis that has written down what it acknowledges.
async fn redis() -> Result<Server> {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let server = server::redis(&durable).await;
    server.context("redis-server is not installed")
}

impl Broker {
    pub fn name(self) -> &'static str {
        match self {
            Broker::Redis => "redis",
            Broker::RabbitMq => "rabbitmq",
            Broker::Mqtt => "mqtt3",
            Broker::JetStream => "jetstream",
        }
    }

    pub async fn start(self) -> Result<Server> {
        match self {
            Broker::Redis => redis().await,
            Broker::RabbitMq => server::rabbitmq()
                .await
                .context("RabbitMQ is not installed"),
            Broker::Mqtt => (server::mosquitto().await).context("Mosquitto is not installed"),
            Broker::JetStream => {
                let server = server::nats()
                    .await
                    .context("nats-server is not installed")?;
                server.nats_stream("all", TOPIC).await;
                Ok(server)
            }
        }
    }

    /// Set up so that nothing is lost, and soon delivered again.
    pub fn component(self, server: &Server) -> String {
        let address = server.address();
        let text = str::to_owned;
        let (kind, fields) = match self {
            Broker::Redis => (
                "pubsub.redis",
                vec![
                    ("redisHost", address),
                    ("processingTimeout", text("3s")),
                    ("redeliverInterval", text("1s")),
                ],
            ),
            Broker::RabbitMq => (
                "pubsub.rabbitmq",
                vec![
                    ("connectionString", format!("amqp://guest:guest@{address}")),
                    ("durable", text("true")),
                    ("deletedWhenUnused", text("false")),
                    ("deliveryMode", text("2")),
                    ("publisherConfirm", text("true")),
                    ("requeueInFailure", text("true")),
                    ("reconnectWaitSeconds", text("1")),
                ],
            ),
            Broker::Mqtt => (
                "pubsub.mqtt3",
                vec![
                    ("url", format!("tcp://{address}")),
                    ("qos", text("1")),
                    ("cleanSession", text("false")),
                ],
            ),
            Broker::JetStream => (
                "pubsub.jetstream",
                vec![
                    ("natsURL", format!("nats://{address}")),
                    ("streamName", text("all")),
                    ("durableName", text("subscriber")),
                    ("ackWait", text("3s")),
                    ("concurrencyMode", text("parallel")),
                ],
            ),
        };
        component("bus", kind, "v1", &fields)
    }
}

impl Store {
    pub fn name(self) -> &'static str {
        match self {
            Store::Redis => "redis",
            Store::Postgresql => "postgresql",
            Store::Mysql => "mysql",
            Store::Etcd => "etcd",
            Store::Sqlite => "sqlite",
        }
    }

    /// None where the store has no server.
    pub async fn start(self) -> Result<Option<Server>> {
        let server = match self {
            Store::Redis => redis().await?,
            Store::Postgresql => {
                (server::postgresql().await).context("PostgreSQL is not installed")?
            }
            Store::Mysql => server::mariadb()
                .await
                .context("MariaDB is not installed")?,
            Store::Etcd => server::etcd().await.context("etcd is not installed")?,
            Store::Sqlite => return Ok(None),
        };
        Ok(Some(server))
    }

    /// `more` are further fields.
    pub fn component(
        self,
        server: Option<&Server>,
        folder: &Path,
        more: &[(&'static str, String)],
    ) -> String {
        let port = server.map(|server| server.port).unwrap_or_default();
        let (kind, version, name, value) = match self {
            Store::Redis => (
                "state.redis",
                "v1",
                "redisHost",
                format!("127.0.0.1:{port}"),
            ),
            Store::Postgresql => (
                "state.postgresql",
                "v2",
                "connectionString",
                format!("host=127.0.0.1 port={port} user=postgres dbname=postgres sslmode=disable"),
            ),
            Store::Mysql => (
                "state.mysql",
                "v1",
                "connectionString",
                format!("root@tcp(127.0.0.1:{port})/?allowNativePasswords=true"),
            ),
            Store::Etcd => ("state.etcd", "v2", "endpoints", format!("127.0.0.1:{port}")),
            Store::Sqlite => (
                "state.sqlite",
                "v1",
                "connectionString",
                folder.join("state.db").display().to_string(),
            ),
        };
        let mut fields = vec![(name, value)];
        if self == Store::Etcd {
            fields.push(("tlsEnable", "false".to_owned()));
        }
        fields.extend_from_slice(more);
        component("store", kind, version, &fields)
    }
}
