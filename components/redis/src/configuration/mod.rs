//! `configuration.redis`: <https://docs.dapr.io/reference/components-reference/supported-configuration-stores/redis-configuration-store/>.
//!
//! A value is text, `<value>` or `<value>||<version>`. Changes are announced by the
//! keyspace events of the server, which it sends over one connection for all
//! subscriptions.

mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use outrider_components::configuration::{
    Changes, Handler, Item, Items, Read, Request, Store, Subscription,
};
use outrider_components::{Context, Error, Field, Kind, Metadata};
use redis::cmd;

use self::watch::Watch;
use crate::server::{FromRedis, Server};
use crate::settings::{self, Settings};

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[settings::Fields::FIELDS];

const SCOPE: &str = "dapr.contrib";
/// Between a value and its version.
const SEPARATOR: &str = "||";
/// Channels of one command.
const CHUNK: usize = 500;
/// Values that are asked for at once, before their size is known.
const VALUES: usize = 100;
/// How many keys the server looks at for one `SCAN`.
const SCAN_COUNT: u32 = 1000;
/// Bytes of the keys and values of one answer. Without keys the whole database
/// is asked for.
const MOST_BYTES: usize = 64 << 20;

struct Redis {
    values: Arc<Values>,
    watch: Watch,
}

/// Reads values.
struct Values {
    server: Server,
}

/// Connects.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let server = Server::new(Arc::new(Settings::new(&metadata)?))?;
    ping(&server).await?;
    let values = Arc::new(Values { server });
    Ok(Arc::new(Redis {
        watch: Watch::new(values.clone()),
        values,
    }))
}

async fn ping(server: &Server) -> Result<(), Error> {
    server.ping().await.map_err(|error| {
        let host = &server.settings().host;
        Error::from_redis(error)
            .context(&format!("redis store: error connecting to redis at {host}"))
    })
}

impl Values {
    /// The values that there are of some keys. What is no text has none.
    async fn get(&self, keys: &[String]) -> Result<Items, Error> {
        let mut items = Items::new();
        let mut bytes = 0;
        for keys in keys.chunks(VALUES) {
            let mget = cmd("MGET").arg(keys).take();
            let values = self.server.call::<Vec<Option<Vec<u8>>>>(&mget).await;
            let values = values.map_err(|error| {
                let key = keys.first().map_or("", String::as_str);
                Error::from_redis(error).context(&format!(
                    "fail to get configuration for redis key={key}, error is"
                ))
            })?;
            for (key, value) in keys.iter().zip(values) {
                let value = value.filter(|value| !value.is_empty());
                let Some(item) = value.map(|value| item(&value)) else {
                    continue;
                };
                bytes += key.len() + item.value.len();
                if bytes > MOST_BYTES {
                    return Err(too_much());
                }
                // A key without a value before its version counts as absent.
                if !item.value.is_empty() {
                    items.insert(key.clone(), item);
                }
            }
        }
        Ok(items)
    }

    /// Every key that is text.
    async fn keys(&self) -> Result<Vec<String>, Error> {
        let mut found = BTreeSet::new();
        if self.server.is_cluster() {
            // Every node answers for its own.
            let keys = self.server.call(&cmd("KEYS").arg("*").take()).await;
            add(&mut found, keys.map_err(Error::from_redis)?)?;
            return Ok(found.into_iter().collect());
        }
        let mut cursor = 0_u64;
        loop {
            let scan = cmd("SCAN").arg(cursor).arg("COUNT").arg(SCAN_COUNT).take();
            let page = self.server.call::<(u64, Vec<Vec<u8>>)>(&scan).await;
            let (next, keys) = page.map_err(Error::from_redis)?;
            add(&mut found, keys)?;
            cursor = next;
            if cursor == 0 {
                return Ok(found.into_iter().collect());
            }
        }
    }
}

#[async_trait]
impl Read for Values {
    async fn read(&self, keys: &[String]) -> Result<Items, Error> {
        self.get(keys).await
    }
}

fn add(found: &mut BTreeSet<String>, keys: Vec<Vec<u8>>) -> Result<(), Error> {
    found.extend(
        keys.into_iter()
            .filter_map(|key| String::from_utf8(key).ok()),
    );
    // Each has a value besides.
    match found.len() > MOST_BYTES / 64 {
        true => Err(too_much()),
        false => Ok(()),
    }
}

fn too_much() -> Error {
    let most = MOST_BYTES >> 20;
    Error::new(
        Kind::Precondition,
        format!("the keys and values are larger than {most} MiB: name the keys that are wanted"),
    )
}

/// The item of a stored value. What follows a second separator means nothing.
fn item(stored: &[u8]) -> Item {
    let stored = String::from_utf8_lossy(stored);
    let mut parts = stored.split(SEPARATOR);
    let mut next = || parts.next().unwrap_or_default().to_owned();
    Item {
        value: next(),
        version: next(),
        ..Item::default()
    }
}

#[async_trait]
impl Store for Redis {
    async fn get(&self, request: &Request) -> Result<Items, Error> {
        if request.keys.is_empty() {
            let all = self.values.keys().await?;
            return self.values.get(&all).await;
        }
        self.values.get(&request.keys).await
    }

    async fn subscribe(
        &self,
        request: &Request,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        if self.values.server.is_cluster() {
            return Err(Error::unsupported(
                "subscriptions are not supported with redisType cluster: each of its nodes tells its own changes only",
            ));
        }
        let changes = Arc::new(Changes::new(&request.keys));
        let watched = self.watch.add(&changes).await?;
        let mut subscription = Subscription::default();
        let (values, stopping) = (self.values.clone(), subscription.stopping());
        subscription.spawn(async move {
            let _watched = watched;
            changes.pass_on(&*values, &*handler, &stopping).await;
        });
        Ok(subscription)
    }

    async fn ping(&self) -> Result<(), Error> {
        ping(&self.values.server).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.watch.close();
        self.values.server.close().await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_have_a_version_behind_it() {
        for (stored, value, version) in [
            ("a", "a", ""),
            ("a||1", "a", "1"),
            ("a||1||2", "a", "1"),
            ("||1", "", "1"),
            ("a|b", "a|b", ""),
        ] {
            let item = item(stored.as_bytes());
            assert_eq!((&*item.value, &*item.version), (value, version), "{stored}");
        }
    }
}
