//! `configuration.kubernetes`: <https://docs.dapr.io/reference/components-reference/supported-configuration-stores/kubernetes-configuration-store/>.
//!
//! The items are the entries of one ConfigMap, which is kept in memory and
//! watched. A subscription begins with what is there.

mod follow;

use std::sync::Arc;

use async_trait::async_trait;
use kube::core::DynamicObject;
use outrider_components::configuration::{Handler, Item, Items, Request, Store, Subscription};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use outrider_kit::kubernetes;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::follow::Source;
use crate::client;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS, client::Fields::FIELDS];

outrider_components::fields! {
    struct Fields {
        /// Name of the ConfigMap, which need not be there yet.
        "configMapName" => name: String, missing "failed to parse metadata: configMapName is required";
        /// Accepted and ignored: the watch tells every change, and nothing has
        /// to be read again.
        "resyncPeriod" => _resync: Option<std::time::Duration>;
    }
}

/// Of logs.
const SCOPE: &str = "dapr.contrib";
/// The namespace of sidecars that have none.
const DEFAULT_NAMESPACE: &str = "default";

/// What the ConfigMap has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entries {
    /// The version of the object, also of one that was deleted.
    version: String,
    /// Values without versions.
    items: Items,
}

struct Kubernetes {
    entries: watch::Receiver<Arc<Entries>>,
    following: std::sync::Mutex<JoinSet<()>>,
}

/// Reads the ConfigMap, and follows it from then on.
pub async fn connect(metadata: Metadata, context: Context) -> Result<Arc<dyn Store>, Error> {
    let fields = Fields::read(&metadata)?;
    kubernetes::check_name(&fields.name).map_err(|error| {
        Error::invalid(format!("failed to parse metadata: configMapName {error}"))
    })?;
    let client = client::connect(&client::Fields::read(&metadata)?, &context)
        .await
        .map_err(|error| error.context("failed to create Kubernetes client"))?;
    let namespace = match context.namespace.as_str() {
        "" => DEFAULT_NAMESPACE.to_owned(),
        own => own.to_owned(),
    };
    let source = Source {
        client,
        namespace,
        name: fields.name,
    };
    let list = source.list().await.map_err(|error| {
        let name = &source.name;
        error.context(&format!("failed to start informer: ConfigMap {name:?}"))
    })?;
    let (sender, entries) = watch::channel(Arc::new(list.entries));
    let mut following = JoinSet::new();
    following.spawn(source.run(list.version, sender));
    Ok(Arc::new(Kubernetes {
        entries,
        following: following.into(),
    }))
}

impl Entries {
    /// What is no text is left out.
    fn of(map: DynamicObject) -> Entries {
        let mut items = Items::new();
        let encoding = Pairs::from([("encoding".to_owned(), "base64".to_owned())]);
        for (field, metadata) in [("data", Pairs::new()), ("binaryData", encoding)] {
            let values = map.data.get(field).and_then(Value::as_object);
            for (key, value) in values.into_iter().flatten() {
                let Some(value) = value.as_str() else {
                    let name = map.metadata.name.as_deref().unwrap_or_default();
                    tracing::warn!(target: SCOPE, "{key:?} of the ConfigMap {name} is no text, and left out");
                    continue;
                };
                let item = Item {
                    value: value.to_owned(),
                    metadata: metadata.clone(),
                    ..Item::default()
                };
                items.insert(key.clone(), item);
            }
        }
        let version = map.metadata.resource_version.unwrap_or_default();
        Entries { version, items }
    }

    /// The items that are asked for, with their version.
    fn asked(&self, request: &Request) -> Items {
        let asked = self.items.iter().filter(|(key, _)| request.asks_for(key));
        asked
            .map(|(key, item)| (key.clone(), self.versioned(item.clone())))
            .collect()
    }

    fn versioned(&self, item: Item) -> Item {
        Item {
            version: self.version.clone(),
            ..item
        }
    }

    /// What has changed since `before`; keys that are gone say so.
    fn since(&self, before: &Entries, request: &Request) -> Items {
        let is_new = |key: &String, item: &Item| before.items.get(key) != Some(item);
        let mut changed = self.asked(request);
        changed.retain(|key, _| self.items.get(key).is_some_and(|item| is_new(key, item)));
        let gone = before
            .items
            .keys()
            .filter(|key| !self.items.contains_key(*key));
        for key in gone.filter(|key| request.asks_for(key)) {
            let item = Item {
                metadata: Pairs::from([("deleted".to_owned(), "true".to_owned())]),
                ..Item::default()
            };
            changed.insert(key.clone(), self.versioned(item));
        }
        changed
    }
}

/// Passes changes on until the store is closed or `stopping` is cancelled, which
/// waits for the handler.
async fn pass_on(
    mut entries: watch::Receiver<Arc<Entries>>,
    request: Request,
    handler: Arc<dyn Handler>,
    stopping: CancellationToken,
) {
    let mut known = Arc::<Entries>::default();
    loop {
        let current = entries.borrow_and_update().clone();
        let changed = current.since(&known, &request);
        known = current;
        if !changed.is_empty() {
            handler.handle(changed).await;
        }
        match stopping.run_until_cancelled(entries.changed()).await {
            Some(Ok(())) => {}
            Some(Err(_)) | None => return,
        }
    }
}

#[async_trait]
impl Store for Kubernetes {
    async fn get(&self, request: &Request) -> Result<Items, Error> {
        Ok(self.entries.borrow().asked(request))
    }

    async fn subscribe(
        &self,
        request: &Request,
        handler: Arc<dyn Handler>,
    ) -> Result<Subscription, Error> {
        let mut subscription = Subscription::default();
        let stopping = subscription.stopping();
        let entries = self.entries.clone();
        subscription.spawn(pass_on(entries, request.clone(), handler, stopping));
        Ok(subscription)
    }

    async fn close(&self) -> Result<(), Error> {
        let mut following = self.following.lock().unwrap_or_else(|e| e.into_inner());
        following.abort_all();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(version: &str, data: Value, binary: Value) -> Entries {
        let map = json!({
            "metadata": {"name": "m", "resourceVersion": version},
            "data": data, "binaryData": binary,
        });
        Entries::of(serde_json::from_value(map).expect("is a ConfigMap"))
    }

    #[test]
    fn changes_are_new_values_and_keys_that_are_gone() {
        let before = entries("1", json!({"a": "1", "b": "2", "c": "3"}), json!({}));
        let after = entries("2", json!({"a": "1", "b": "x"}), json!({"d": "AAE="}));
        let changed = after.since(&before, &Request::default());
        let keys: Vec<_> = changed.keys().map(String::as_str).collect();
        assert_eq!(keys, ["b", "c", "d"]);
        assert_eq!((&*changed["b"].value, &*changed["b"].version), ("x", "2"));
        assert_eq!(changed["c"].metadata["deleted"], "true");
        assert_eq!(changed["c"].value, "");
        assert_eq!(changed["d"].value, "AAE=");
        assert_eq!(changed["d"].metadata["encoding"], "base64");
        let only = Request {
            keys: vec!["a".to_owned(), "c".to_owned()],
            ..Request::default()
        };
        let keys: Vec<_> = after.since(&before, &only).into_keys().collect();
        assert_eq!(keys, ["c"]);
        assert!(after.since(&after, &Request::default()).is_empty());
    }

    #[test]
    fn a_value_that_is_no_text_spoils_no_other() {
        let odd = entries("1", json!({"a": "1", "b": null, "c": 3}), json!({"d": [1]}));
        let all = odd.asked(&Request::default());
        assert_eq!(all.into_keys().collect::<Vec<_>>(), ["a"]);
    }
}
