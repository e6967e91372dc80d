//! `state.memcached`: <https://docs.dapr.io/reference/components-reference/supported-state-stores/setup-memcached/>.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use outrider_components::state::{
    DeleteRequest, Feature, GetRequest, Item, SetRequest, Store, TTL_IN_SECONDS,
};
use outrider_components::{Context, Error, Field, Metadata};

use crate::client::Client;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// From this number of seconds on the server takes a time for one since 1970.
const THIRTY_DAYS: i32 = 30 * 24 * 60 * 60;

outrider_components::fields! {
    struct Fields {
        /// Hosts with their ports, separated by commas.
        "hosts" => hosts: String, missing "missing or empty hosts field from metadata";
        /// Unused connections that are kept to each server.
        "maxIdleConnections" => max_idle: u32 = "2";
        /// How long one operation may take, in milliseconds; 0 means 500.
        "timeout" => timeout: i64 = "1000";
    }
}

struct Memcached {
    client: Client,
}

/// Connects to all servers.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    let hosts: Vec<String> = fields
        .hosts
        .split(',')
        .map(|host| host.trim().to_owned())
        .filter(|host| !host.is_empty())
        .collect();
    if hosts.is_empty() {
        return Err(Error::invalid("missing or empty hosts field from metadata"));
    }
    let timeout = match fields.timeout {
        0 => Duration::from_millis(500),
        given => Duration::from_millis(u64::try_from(given).unwrap_or(1000)),
    };
    let max_idle = usize::try_from(fields.max_idle).unwrap_or(usize::MAX);
    let client = Client::new(hosts, timeout, max_idle.max(1));
    client.ping().await?;
    Ok(Arc::new(Memcached { client }))
}

/// When an item expires, in the server's own way.
fn expires(request: &SetRequest) -> Result<u32, Error> {
    let text = request.metadata.get(TTL_IN_SECONDS);
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(0);
    };
    let seconds: i64 = text.parse().map_err(|_| {
        let quoted = outrider_kit::quote::go(text);
        Error::invalid(format!(
            "failed to parse ttl {}: strconv.ParseInt: parsing {quoted}: invalid syntax",
            request.key
        ))
    })?;
    // What is not above zero never expires.
    let Ok(seconds) = u32::try_from(seconds.max(0)) else {
        return Err(Error::invalid(format!(
            "failed to parse ttl {}: it is too long",
            request.key
        )));
    };
    if i64::from(seconds) < i64::from(THIRTY_DAYS) {
        return Ok(seconds);
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    Ok(u32::try_from(now.saturating_add(u64::from(seconds))).unwrap_or(u32::MAX))
}

#[async_trait]
impl Store for Memcached {
    fn features(&self) -> &[Feature] {
        &[Feature::Ttl]
    }

    async fn get(&self, request: &GetRequest) -> Result<Option<Item>, Error> {
        let value = self.client.get(&request.key).await?;
        Ok(value.map(|value| Item {
            value,
            ..Item::default()
        }))
    }

    async fn set(&self, request: &SetRequest) -> Result<(), Error> {
        let expires = expires(request)?;
        self.client
            .set(&request.key, request.value.bytes(), expires)
            .await
            .map_err(|error| error.context(&format!("failed to set key {}", request.key)))
    }

    async fn delete(&self, request: &DeleteRequest) -> Result<(), Error> {
        self.client.delete(&request.key).await
    }

    async fn ping(&self) -> Result<(), Error> {
        self.client.ping().await
    }
}
