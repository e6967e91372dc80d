//! `state.redis`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-redis/>.
//!
//! An item is a hash with the fields `data` and `version`; its etag is the
//! version, a number that grows by one with each write. A field `first-write`
//! marks items that were written with the concurrency first-write: a write
//! without their etag fails, unless it has the concurrency last-write.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_components::state::{
    Concurrency, Consistency, DeleteRequest, Feature, GetRequest, Item, KeysLikePage,
    KeysLikeRequest, Operation, SetRequest, Store, TTL_IN_SECONDS,
};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use redis::{Script, ScriptInvocation};

use crate::server::{FromRedis, Server};
use crate::settings::{self, Settings};
use crate::slot;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, settings::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// After how many seconds items expire whose request does not say.
        /// 0 and less mean never.
        "ttlInSeconds" => ttl: Option<i64>;
        /// Not supported: the store cannot query, and does not start with it.
        "queryIndexes" => query_indexes: Option<String>;
    }
}

/// Does all operations and returns 0, or does none and returns the number of the
/// first whose etag is wrong. Five arguments for each key: `set` or `del`, the
/// etag (`0` for none), the value, the concurrency (`first`, `last` or empty),
/// and the seconds to live (empty for no change, `0` for ever). With one more
/// argument it only checks.
const WRITE: &str = r"
local function fields(i)
  local at = (i - 1) * 5
  return ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
end
for i, key in ipairs(KEYS) do
  local action, etag, _, concurrency = fields(i)
  if redis.call('TYPE', key).ok == 'hash' then
    local version = redis.call('HGET', key, 'version')
    local kept = redis.call('HEXISTS', key, 'first-write') == 1
    if version and version ~= '' and version ~= etag then
      local blind = concurrency == 'last' or (concurrency == '' and not kept)
      if etag ~= '0' or (action == 'set' and not blind) then
        return i
      end
    end
  end
end
if #ARGV > #KEYS * 5 then
  return 0
end
for i, key in ipairs(KEYS) do
  local action, _, data, concurrency, ttl = fields(i)
  local kind = redis.call('TYPE', key).ok
  if action == 'del' or (kind ~= 'hash' and kind ~= 'none') then
    redis.call('DEL', key)
  end
  if action == 'set' then
    redis.call('HSET', key, 'data', data)
    if concurrency == 'first' then
      redis.call('HSET', key, 'first-write', 0)
    end
    redis.call('HINCRBY', key, 'version', 1)
    if ttl == '0' then
      redis.call('PERSIST', key)
    elseif ttl ~= '' then
      redis.call('EXPIRE', key, ttl)
    end
  end
end
return 0
";

/// How long a strong write waits for replicas.
const REPLICA_WAIT_MILLISECONDS: u32 = 1000;
/// How many keys the server looks at for one `SCAN`.
const SCAN_COUNT: u32 = 1000;

struct Redis {
    server: Server,
    /// A connection for writes that wait for replicas, so that others do not
    /// wait with them, and how many replicas there are.
    strong: Option<(Server, usize)>,
    script: Script,
    /// Seconds to live of items whose request has no `ttlInSeconds`.
    ttl: Option<i64>,
    features: &'static [Feature],
}

/// Connects, and asks the server how many replicas it has.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let settings = Arc::new(Settings::new(&metadata)?);
    let fields = Fields::read(&metadata)?;
    if fields.query_indexes.is_some() {
        return Err(metadata.wrong(
            "queryIndexes",
            "is not supported: the store cannot query, remove the property",
        ));
    }
    let server = Server::new(settings.clone())?;
    ping(&server).await?;
    let replicas = replicas(&server).await?;
    let strong = match replicas {
        0 => None,
        count => Some((Server::new(settings)?, count)),
    };
    // In a cluster the keys of every server would have to be listed.
    let features: &[Feature] = if server.is_cluster() {
        &[Feature::Etag, Feature::Transactional, Feature::Ttl]
    } else {
        &[
            Feature::Etag,
            Feature::Transactional,
            Feature::Ttl,
            Feature::KeysLike,
        ]
    };
    Ok(Arc::new(Redis {
        server,
        strong,
        script: Script::new(WRITE),
        ttl: fields.ttl,
        features,
    }))
}

async fn ping(server: &Server) -> Result<(), Error> {
    server.ping().await.map_err(|error| {
        let host = &server.settings().host;
        Error::from_redis(error)
            .context(&format!("redis store: error connecting to redis at {host}"))
    })
}

async fn replicas(server: &Server) -> Result<usize, Error> {
    if server.is_cluster() {
        // Every node has its own.
        return Ok(0);
    }
    server.replicas().await.map_err(Error::from_redis)
}

/// Seconds to live, if the request has them; 0 and less mean for ever.
fn ttl(metadata: &Pairs) -> Result<Option<i64>, Error> {
    let Some(text) = metadata.get(TTL_IN_SECONDS).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|error: ParseIntError| {
        Error::invalid(format!(
            "failed to parse ttl from metadata: strconv.ParseInt: parsing {}: {}",
            outrider_kit::quote::go(text),
            reason(&error)
        ))
    })
}

/// The version that the item must have; 0 means any.
fn version(request: &SetRequest) -> Result<i64, Error> {
    match request.etag() {
        Some(etag) if request.concurrency != Concurrency::LastWrite => {
            etag.parse().map_err(|error: ParseIntError| {
                Error::etag_invalid(&format!(
                    "strconv.Atoi: parsing {}: {}",
                    outrider_kit::quote::go(etag),
                    reason(&error)
                ))
            })
        }
        _ => Ok(0),
    }
}

fn reason(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

impl Redis {
    fn add_set(
        &self,
        script: &mut ScriptInvocation<'_>,
        request: &SetRequest,
    ) -> Result<(), Error> {
        let version = version(request)?;
        let ttl = ttl(&request.metadata)?
            .or(self.ttl)
            .map_or_else(String::new, |seconds| seconds.max(0).to_string());
        script
            .key(&request.key)
            .arg("set")
            .arg(version)
            .arg(&request.value.bytes()[..])
            .arg(match request.concurrency {
                Concurrency::FirstWrite => "first",
                Concurrency::LastWrite => "last",
                Concurrency::Unspecified => "",
            })
            .arg(ttl);
        Ok(())
    }

    fn add_delete(script: &mut ScriptInvocation<'_>, request: &DeleteRequest) {
        script
            .key(&request.key)
            .arg("del")
            .arg(request.etag().unwrap_or("0"))
            .arg("")
            .arg("")
            .arg("");
    }

    /// Runs the script. `Ok(Err(n))` means that the etag of operation `n` is
    /// wrong.
    async fn write(
        &self,
        script: &ScriptInvocation<'_>,
        consistency: Consistency,
    ) -> Result<Result<(), usize>, Error> {
        let strong = self
            .strong
            .as_ref()
            .filter(|_| consistency == Consistency::Strong);
        let server = strong.map_or(&self.server, |(server, _)| server);
        let refused: usize = server.call(script).await.map_err(Error::from_redis)?;
        if let Some(at) = refused.checked_sub(1) {
            return Ok(Err(at));
        }
        if let Some((server, replicas)) = strong {
            let wait = redis::cmd("WAIT")
                .arg(*replicas)
                .arg(REPLICA_WAIT_MILLISECONDS)
                .take();
            server.call::<redis::Value>(&wait).await.map_err(|error| {
                Error::from_redis(error).context(&format!(
                    "redis waiting for {replicas} replicas to acknowledge write, err"
                ))
            })?;
        }
        Ok(Ok(()))
    }

    async fn run(&self, operations: &[&Operation], check_only: bool) -> Result<(), Error> {
        let mut script = self.script.prepare_invoke();
        for operation in operations {
            match operation {
                Operation::Upsert(request) => self.add_set(&mut script, request)?,
                Operation::Delete(request) => Redis::add_delete(&mut script, request),
            }
        }
        if check_only {
            script.arg("check");
        }
        self.write(&script, Consistency::Unspecified)
            .await?
            .map_err(|at| {
                let key = operations.get(at).map_or("", |operation| operation.key());
                Error::etag_mismatch(&format!("failed to set key {key}"))
            })
    }

    /// Reads a value that another program wrote with a plain `SET`.
    async fn get_plain(&self, key: &str) -> Result<Option<Item>, Error> {
        let get = redis::cmd("GET").arg(key).take();
        let value: Option<Bytes> = self.server.call(&get).await.map_err(Error::from_redis)?;
        Ok(value.map(|value| Item {
            value,
            ..Item::default()
        }))
    }
}

#[async_trait]
impl Store for Redis {
    fn features(&self) -> &[Feature] {
        self.features
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let fields = redis::cmd("HMGET")
            .arg(&request.key)
            .arg("data")
            .arg("version")
            .take();
        match self
            .server
            .call::<(Option<Bytes>, Option<String>)>(&fields)
            .await
        {
            Ok((Some(value), Some(version))) => Ok(Some(Item {
                value,
                etag: Some(version),
                ..Item::default()
            })),
            Ok((None, None)) => Ok(None),
            Ok(_) => Err(
                Error::internal("required hash field 'data' or 'version' was not found")
                    .retryable(false),
            ),
            Err(error) if error.code() == Some("WRONGTYPE") => self.get_plain(&request.key).await,
            Err(error) => Err(Error::from_redis(error)),
        }
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        let mut script = self.script.prepare_invoke();
        self.add_set(&mut script, request)?;
        let key = &request.key;
        match self.write(&script, request.consistency).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) if request.etag().is_some() => {
                Err(Error::etag_mismatch(&format!("failed to set key {key}")))
            }
            Ok(Err(_)) => Err(Error::internal(format!(
                "failed to set key {key}: the item exists and no etag was given"
            ))
            .retryable(false)),
            Err(error) => Err(error.context(&format!("failed to set key {key}"))),
        }
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        let mut script = self.script.prepare_invoke();
        Redis::add_delete(&mut script, request);
        self.write(&script, request.consistency)
            .await?
            .map_err(|_| Error::etag_mismatch(&format!("failed to delete {}", request.key)))
    }

    /// One script, so all or nothing. In a cluster there is a script for each
    /// slot. All etags are checked before the first write, but if an item
    /// changes after that, only the items of the other slots are written.
    async fn transact(&self, operations: &[Operation], _: &Pairs) -> Result<(), Error> {
        let mut slots: BTreeMap<u16, Vec<&Operation>> = BTreeMap::new();
        for operation in operations {
            let slot = if self.server.is_cluster() {
                slot::of(operation.key())
            } else {
                0
            };
            slots.entry(slot).or_default().push(operation);
        }
        if slots.len() > 1 {
            for operations in slots.values() {
                self.run(operations, true).await?;
            }
        }
        for operations in slots.values() {
            self.run(operations, false).await?;
        }
        Ok(())
    }

    /// Sorted by key. The continuation is the number of keys before the next
    /// page.
    async fn keys_like(&self, request: &KeysLikeRequest) -> Result<KeysLikePage, Error> {
        if self.server.is_cluster() {
            return Err(Error::unsupported(
                "keys cannot be listed in a Redis cluster",
            ));
        }
        let pattern = glob(request.pattern()?);
        let mut keys = BTreeSet::new();
        let mut cursor = 0_u64;
        loop {
            let scan = redis::cmd("SCAN")
                .arg(cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(SCAN_COUNT)
                .take();
            let (next, found): (u64, Vec<String>) = self
                .server
                .call(&scan)
                .await
                .map_err(|error| Error::from_redis(error).context("redis SCAN failed"))?;
            keys.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        let start = request
            .continuation
            .as_deref()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0_usize);
        let size = request
            .page_size
            .filter(|size| *size > 0)
            .map_or(usize::MAX, |size| size as usize);
        let end = start.saturating_add(size);
        let continuation = (end < keys.len()).then(|| end.to_string());
        Ok(KeysLikePage {
            keys: keys.into_iter().skip(start).take(size).collect(),
            continuation,
        })
    }

    async fn ping(&self) -> Result<(), Error> {
        ping(&self.server).await
    }

    async fn close(&self) -> Result<(), Error> {
        self.server.close().await;
        if let Some((server, _)) = &self.strong {
            server.close().await;
        }
        Ok(())
    }
}

/// An SQL `LIKE` pattern as a pattern of `SCAN`.
fn glob(like: &str) -> String {
    let mut glob = String::with_capacity(like.len());
    let mut chars = like.chars();
    while let Some(c) = chars.next() {
        let literal = match c {
            '%' => {
                glob.push('*');
                continue;
            }
            '_' => {
                glob.push('?');
                continue;
            }
            '\\' => chars.next().unwrap_or('\\'),
            c => c,
        };
        if matches!(literal, '*' | '?' | '[' | ']' | '\\' | '^') {
            glob.push('\\');
        }
        glob.push(literal);
    }
    glob
}

#[cfg(test)]
mod tests {
    use super::glob;

    #[test]
    fn like_patterns_become_globs() {
        for (like, wanted) in [
            ("app||%", "app||*"),
            ("a_c", "a?c"),
            ("a*[b]?", r"a\*\[b\]\?"),
            (r"100\%\_", "100%_"),
            (r"a\\b", r"a\\b"),
            (r"end\", r"end\\"),
        ] {
            assert_eq!(glob(like), wanted);
        }
    }
}
