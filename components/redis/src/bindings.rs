//! `bindings.redis`: <https://docs.dapr.io/reference/components-reference/supported-bindings/redis/>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outrider_components::bindings::{Answer, Binding, CREATE, Failure, Output, Request};
use outrider_components::{Context, Error, Field, Metadata};
use redis::{Script, Value, cmd};

use crate::server::{FromRedis, Server};
use crate::settings::{self, Settings};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[settings::Fields::FIELDS];

const OPERATIONS: [&str; 4] = [CREATE, "delete", "get", "increment"];

/// Adds one, and lets the key expire after as many milliseconds.
const INCREMENT: &str = r"
redis.call('INCR', KEYS[1])
return redis.call('PEXPIRE', KEYS[1], ARGV[1])
";

struct Redis {
    server: Server,
    increment: Script,
}

/// Connects.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let server = Server::new(Arc::new(Settings::new(&metadata)?))?;
    let redis = Redis {
        server,
        increment: Script::new(INCREMENT),
    };
    redis.ping().await?;
    Ok(Binding::of_output(&metadata, redis))
}

impl Redis {
    async fn run(&self, request: &Request) -> Result<Option<Answer>, Error> {
        let key = request.metadata.get("key").filter(|key| !key.is_empty());
        let Some(key) = key else {
            return Err(Error::invalid(
                "redis binding: missing key in request metadata",
            ));
        };
        match request.operation.as_str() {
            CREATE => {
                let mut set = cmd("SET");
                set.arg(key).arg(request.data.as_ref());
                if let Some(ttl) = request.ttl()? {
                    set.arg("PX").arg(milliseconds(ttl));
                }
                self.send::<Value>(&set).await?;
                Ok(None)
            }
            "delete" => {
                self.send::<Value>(cmd("DEL").arg(key)).await?;
                Ok(None)
            }
            "get" => {
                let deletes = request.metadata.get("delete").is_some_and(|d| d == "true");
                let command = if deletes { "GETDEL" } else { "GET" };
                let found: Option<Vec<u8>> = self.send(cmd(command).arg(key)).await?;
                Ok(Some(Answer::of_data(found.unwrap_or_default())))
            }
            "increment" => {
                match request.ttl()? {
                    None => self.send::<Value>(cmd("INCR").arg(key)).await?,
                    Some(ttl) => {
                        let mut script = self.increment.key(key);
                        script.arg(milliseconds(ttl));
                        self.server.call(&script).await.map_err(Error::from_redis)?
                    }
                };
                Ok(None)
            }
            other => Err(Error::unsupported(format!(
                "invalid operation type: {other}"
            ))),
        }
    }

    async fn send<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Error> {
        self.server.call(command).await.map_err(Error::from_redis)
    }
}

/// At least one: what rounds to none would be refused.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

#[async_trait]
impl Output for Redis {
    fn operations(&self) -> Vec<&str> {
        OPERATIONS.to_vec()
    }

    async fn invoke(&self, request: &Request) -> Result<Option<Answer>, Failure> {
        Ok(self.run(request).await?)
    }

    async fn ping(&self) -> Result<(), Error> {
        self.server.ping().await.map_err(|error| {
            let host = &self.server.settings().host;
            Error::from_redis(error).context(&format!(
                "redis binding: error connecting to redis at {host}"
            ))
        })
    }

    async fn close(&self) -> Result<(), Error> {
        self.server.close().await;
        Ok(())
    }
}
