//! `lock.redis`: <https://docs.dapr.io/reference/components-reference/supported-locks/redis-lock/>.
//!
//! A lock is a key that expires, and whose value is the owner.

use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::lock::{Store, TryLockRequest, UnlockRequest, Unlocked};
use outrider_components::{Context, Error, Field, Metadata};
use redis::{Script, cmd};

use crate::server::{FromRedis, Server};
use crate::settings::{self, Settings, Topology};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[settings::Fields::FIELDS];

/// Deletes the key of its owner; -1 if there is none, -2 if it is another's.
const UNLOCK: &str = r"
local owner = redis.call('GET', KEYS[1])
if not owner then
  return -1
end
if owner ~= ARGV[1] then
  return -2
end
return redis.call('DEL', KEYS[1])
";

struct Redis {
    server: Server,
    unlock: Script,
}

/// Connects. A lock on a server with replicas could be lost when one of them
/// takes over, so these are refused unless sentinels are asked for.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let server = Server::new(Arc::new(Settings::new(&metadata)?))?;
    if server.is_cluster() {
        return Err(Error::invalid(
            "this component does not support connecting to Redis Cluster",
        ));
    }
    let redis = Redis {
        server,
        unlock: Script::new(UNLOCK),
    };
    redis.ping().await?;
    let is_alone = !matches!(redis.server.settings().topology, Topology::Sentinel(_));
    // Servers that do not know the command have no replicas.
    if is_alone && redis.server.replicas().await.is_ok_and(|count| count > 0) {
        return Err(Error::invalid("replication is not supported"));
    }
    Ok(Arc::new(redis))
}

#[async_trait]
impl Store for Redis {
    async fn try_lock(&self, request: &TryLockRequest) -> Result<bool, Error> {
        let set = cmd("SET")
            .arg(&request.resource)
            .arg(&request.owner)
            .arg("NX")
            .arg("PX")
            .arg(u64::try_from(request.expiry.as_millis()).unwrap_or(u64::MAX))
            .take();
        let taken: Option<String> = self.server.call(&set).await.map_err(Error::from_redis)?;
        Ok(taken.is_some())
    }

    async fn unlock(&self, request: &UnlockRequest) -> Result<Unlocked, Error> {
        let mut script = self.unlock.key(&request.resource);
        script.arg(&request.owner);
        let answer: i64 = self.server.call(&script).await.map_err(Error::from_redis)?;
        Ok(match answer {
            -1 => Unlocked::Absent,
            -2 => Unlocked::OfAnother,
            _ => Unlocked::Released,
        })
    }

    async fn ping(&self) -> Result<(), Error> {
        let pinged = self.server.ping().await;
        pinged.map_err(|error| Error::from_redis(error).context("error connecting to Redis"))
    }

    async fn close(&self) -> Result<(), Error> {
        self.server.close().await;
        Ok(())
    }
}
