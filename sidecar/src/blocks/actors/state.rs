//! The state of actors, in the one store that is for it.
//! <https://docs.dapr.io/reference/api/actors_api/#actor-state-transactions>

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_actors::Actor;
use outrider_components::Pairs;
use outrider_components::state::{
    DeleteRequest, Feature, GetRequest, Item, Operation, SetRequest, TTL_IN_SECONDS, Value,
};
use outrider_metrics::component::Operation as Counted;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Api, check, error};
use crate::blocks::error::{Result, malformed};
use crate::blocks::state::Store;
use crate::components::map::Map;

/// Has stores keep what belongs together in one place.
const PARTITION: &str = "partitionKey";

/// The store of actors, among all.
#[derive(Clone)]
pub struct ActorState {
    pub stores: Arc<Map<Store>>,
    /// Whether items may expire.
    pub expires: bool,
}

/// One operation, as a client wants it.
#[derive(Debug)]
pub struct Wanted {
    pub operation: String,
    pub key: String,
    pub value: Option<Value>,
    pub etag: Option<String>,
    pub metadata: HashMap<String, String>,
}

/// The same as HTTP clients write it.
#[derive(Deserialize)]
struct Given {
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    request: Option<GivenItem>,
}

#[derive(Default, Deserialize)]
struct GivenItem {
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    value: Option<Box<RawValue>>,
    #[serde(default)]
    etag: Option<String>,
    #[serde(default)]
    metadata: Option<HashMap<String, String>>,
}

/// The operations of an HTTP client.
pub fn decode(body: &[u8]) -> Result<Vec<Wanted>> {
    let given: Vec<Given> = serde_json::from_slice(body)
        .map_err(|cause| malformed(format!("failed deserializing HTTP body: {cause}")))?;
    let wanted = given.into_iter().map(|given| {
        let operation = given.operation.unwrap_or_default();
        let Some(item) = given.request else {
            return Err(error::transact("request data is empty"));
        };
        let value = item.value.map(|value| value.get().to_owned());
        Ok(Wanted {
            operation,
            key: item.key.unwrap_or_default(),
            value: value.map(|text| Value::Json(text.into())),
            etag: item.etag,
            metadata: item.metadata.unwrap_or_default(),
        })
    });
    wanted.collect()
}

/// How long a write waits for tables of placement that are valid.
const OWNER_LIMIT: Duration = Duration::from_secs(10);

impl ActorState {
    /// The store, if there is one.
    pub fn store(&self) -> Option<Arc<Store>> {
        let stores = self.stores.load();
        let marked = stores.iter().filter(|(_, store)| store.is_for_actors);
        let first = marked.min_by_key(|(name, _)| name.as_str());
        first.map(|(_, store)| Arc::clone(store))
    }

    /// The names of all that are said to be it: there may be one.
    pub fn names(&self) -> Vec<String> {
        let stores = self.stores.load();
        let mut names: Vec<String> = stores
            .iter()
            .filter(|(_, store)| store.is_for_actors)
            .map(|(name, _)| name.clone())
            .collect();
        names.sort();
        names
    }
}

/// Whether a store can have the state of actors.
pub fn is_able(features: &[Feature]) -> bool {
    features.contains(&Feature::Etag) && features.contains(&Feature::Transactional)
}

impl Api {
    pub async fn get_state(&self, actor: &Actor, key: &str) -> Result<Option<Item>> {
        check(&self.actors, &actor.kind)?;
        let store = self.state.store().ok_or_else(error::no_store)?;
        let partition = self.partition(actor);
        let request = GetRequest {
            key: format!("{partition}||{key}"),
            metadata: [(PARTITION.to_owned(), partition)].into(),
            ..GetRequest::default()
        };
        let getting = store.instance.call(|store| store.get(&request));
        let got = store.instance.count(Counted::Get, getting).await;
        got.map_err(|cause| error::get_state(&cause))
    }

    /// All operations, or none. Only an actor that is active here writes, and
    /// none while placement may have it elsewhere.
    pub async fn transact(&self, actor: &Actor, wanted: Vec<Wanted>) -> Result<()> {
        check(&self.actors, &actor.kind)?;
        let writes = self.actors.writes(actor, OWNER_LIMIT).await;
        if !writes.map_err(error::transact)? {
            return Err(error::missing());
        }
        let store = self.state.store().ok_or_else(error::no_store)?;
        let partition = self.partition(actor);
        let operations = wanted
            .into_iter()
            .map(|wanted| self.operation(&partition, wanted));
        let operations = operations.collect::<Result<Vec<_>>>()?;
        if operations.is_empty() {
            return Ok(());
        }
        let most = store.instance.direct().max_operations().await;
        if most.is_some_and(|most| operations.len() > most) {
            let why = "the transaction contains more operations than supported by the state store";
            return Err(error::transact(why));
        }
        let metadata: Pairs = [(PARTITION.to_owned(), partition)].into();
        let saving = store
            .instance
            .call(|store| store.transact(&operations, &metadata));
        let saved = store.instance.count(Counted::Transaction, saving).await;
        saved.map_err(|cause| error::transact(&cause))
    }

    fn partition(&self, actor: &Actor) -> String {
        format!("{}||{}||{}", self.app_id, actor.kind, actor.id)
    }

    fn operation(&self, partition: &str, wanted: Wanted) -> Result<Operation> {
        let Wanted {
            operation,
            key,
            value,
            etag,
            mut metadata,
        } = wanted;
        let is_upsert = match &*operation {
            "upsert" => true,
            "delete" => false,
            other => return Err(error::unknown_operation(other)),
        };
        if key.is_empty() {
            return Err(error::transact("missing key"));
        }
        if metadata.contains_key(TTL_IN_SECONDS) {
            self.check_ttl(&mut metadata)?;
        }
        let key = format!("{partition}||{key}");
        metadata.insert(PARTITION.to_owned(), partition.to_owned());
        Ok(match is_upsert {
            true => Operation::Upsert(SetRequest {
                etag,
                metadata,
                ..SetRequest::new(key, value.unwrap_or(Value::Json("null".into())))
            }),
            false => Operation::Delete(DeleteRequest {
                etag,
                metadata,
                ..DeleteRequest::new(key)
            }),
        })
    }

    fn check_ttl(&self, metadata: &mut HashMap<String, String>) -> Result<()> {
        if !self.state.expires {
            let why = "ttlInSeconds is not supported without the \"ActorStateTTL\" feature enabled";
            return Err(error::transact(why));
        }
        let given = metadata.get(TTL_IN_SECONDS).map_or("", String::as_str);
        match given.parse::<i64>() {
            Ok(-1) => {
                metadata.remove(TTL_IN_SECONDS);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(_) => {
                let why = format!(
                    "error parsing TTL: incorrect value for metadata '{TTL_IN_SECONDS}': {}",
                    outrider_kit::quote::go(given)
                );
                Err(error::transact(why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_keep_the_text_of_values() {
        let body = br#"[{"operation":"upsert","request":{"key":"a","value":{"b": 1.0},"etag":"7"}},
            {"operation":"delete","request":{"key":"c"}}]"#;
        let wanted = decode(body).unwrap();
        assert_eq!(wanted[0].value, Some(Value::Json(r#"{"b": 1.0}"#.into())));
        assert_eq!(wanted[0].etag.as_deref(), Some("7"));
        assert_eq!((&*wanted[1].operation, &*wanted[1].key), ("delete", "c"));
        let error = decode(b"{").unwrap_err();
        assert!(
            error
                .message
                .starts_with("failed deserializing HTTP body: ")
        );
        let error = decode(br#"[{"operation":"upsert"}]"#).unwrap_err();
        assert_eq!(
            error.message,
            "error saving actor transaction state: request data is empty"
        );
    }
}
