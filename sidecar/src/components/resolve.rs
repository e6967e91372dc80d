//! From a resource's properties to their values: secrets, the environment,
//! placeholders. <https://docs.dapr.io/operations/components/component-secrets/>

use std::collections::HashMap;

use outrider_components::secrets::GetRequest;
use outrider_crds::property::NameValue;

use super::live::SecretStores;

/// What values may refer to.
pub struct Sources {
    pub app_id: String,
    pub namespace: Option<String>,
    pub environment: HashMap<String, String>,
    /// In Kubernetes, where the operator has filled secrets in already.
    pub kubernetes: bool,
}

/// A store that is not loaded, by name.
#[derive(Debug, PartialEq, Eq)]
pub struct MissingStore(pub String);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("failed to parse metadata: property {0} refers to {{podName}} but podName is not set")]
    PodName(String),
}

impl Sources {
    /// The store that references of a resource mean.
    pub fn store<'a>(&self, named: &'a str) -> &'a str {
        match named {
            "" if self.kubernetes => "kubernetes",
            named => named,
        }
    }

    /// The name of a store that some item needs and that is not there. Where no
    /// store is named, there is none to wait for.
    pub fn missing_store(
        &self,
        items: &[NameValue],
        store: &str,
        stores: &SecretStores,
    ) -> Option<MissingStore> {
        let store = self.store(store);
        let needs = items.iter().any(|item| !item.secret_key_ref.is_unset());
        let filled = self.kubernetes && store == "kubernetes";
        (needs && !filled && !store.is_empty() && stores.get(store).is_none())
            .then(|| MissingStore(store.to_owned()))
    }

    /// The items' values, with what stands for names of this sidecar filled
    /// in.
    pub async fn values(
        &self,
        resource: &str,
        items: &[NameValue],
        store: &str,
        stores: &SecretStores,
    ) -> Result<Vec<(String, String)>, Error> {
        let literals = self.literals(resource, items, store, stores).await;
        items
            .iter()
            .zip(literals)
            .map(|(item, value)| Ok((item.name.clone(), self.placed(&item.name, &value)?)))
            .collect()
    }

    /// The items' values as they stand. A secret that cannot be had leaves its
    /// item as it was; why is in the log.
    pub async fn literals(
        &self,
        resource: &str,
        items: &[NameValue],
        store: &str,
        stores: &SecretStores,
    ) -> Vec<String> {
        if self.store(store).is_empty() && items.iter().any(|item| !item.secret_key_ref.is_unset())
        {
            tracing::warn!(target: "dapr.runtime.processor", "{resource} references a secret store that isn't loaded: it names none, set auth.secretStore; the value stays empty");
        }
        let mut values = Vec::with_capacity(items.len());
        let mut fetched: HashMap<String, HashMap<String, String>> = HashMap::new();
        for item in items {
            let mut value = item.text();
            if !item.secret_key_ref.is_unset() {
                if let Some(secret) = self.secret(item, store, stores, &mut fetched).await {
                    value = secret;
                } else if self.kubernetes && self.store(store) == "kubernetes" {
                    value = decoded(&value);
                }
            } else if value.is_empty() && !item.env_ref.is_empty() {
                value = self.variable(resource, &item.env_ref);
            }
            values.push(value);
        }
        values
    }

    async fn secret(
        &self,
        item: &NameValue,
        store: &str,
        stores: &SecretStores,
        fetched: &mut HashMap<String, HashMap<String, String>>,
    ) -> Option<String> {
        let store = self.store(store);
        let reference = &item.secret_key_ref;
        let found = stores.get(store)?;
        if !fetched.contains_key(&reference.name) {
            let mut request = GetRequest::new(&reference.name);
            if let Some(namespace) = &self.namespace {
                request
                    .metadata
                    .insert("namespace".into(), namespace.clone());
            }
            match found.call(|store| store.get(&request)).await {
                Ok(pairs) => {
                    fetched.insert(reference.name.clone(), pairs);
                }
                Err(error) => {
                    tracing::error!(target: "dapr.runtime.processor.secret", "Error getting secret: {error} (store {store}, secret {}, for property {})", reference.name, item.name);
                    return None;
                }
            }
        }
        fetched
            .get(&reference.name)?
            .get(reference.key_or_name())
            .cloned()
    }

    fn variable(&self, resource: &str, name: &str) -> String {
        if !self.may_read(name) {
            tracing::warn!(target: "dapr.runtime.processor", "{resource} references an env variable that isn't allowed: {name}");
            return String::new();
        }
        self.environment.get(name).cloned().unwrap_or_default()
    }

    fn may_read(&self, name: &str) -> bool {
        let upper = name.to_uppercase();
        if upper.is_empty()
            || upper == "APP_API_TOKEN"
            || upper.starts_with("DAPR_")
            || upper.contains(' ')
        {
            return false;
        }
        match self
            .environment
            .get("DAPR_ENV_KEYS")
            .filter(|keys| !keys.is_empty())
        {
            None => true,
            Some(keys) => keys
                .split_whitespace()
                .any(|key| key.to_uppercase() == upper),
        }
    }

    fn placed(&self, property: &str, value: &str) -> Result<String, Error> {
        if !value.contains('{') {
            return Ok(value.to_owned());
        }
        let mut value = value.to_owned();
        while value.contains("{uuid}") {
            value = value.replacen("{uuid}", &uuid::Uuid::new_v4().to_string(), 1);
        }
        if value.contains("{podName}") {
            let name = self
                .environment
                .get("POD_NAME")
                .filter(|n| !n.is_empty())
                .ok_or_else(|| Error::PodName(property.to_owned()))?;
            value = value.replace("{podName}", name);
        }
        let namespace = self.namespace.as_deref().unwrap_or("default");
        value = value.replace("{namespace}", &format!("{namespace}.{}", self.app_id));
        Ok(value.replace("{appID}", &self.app_id))
    }
}

/// The operator sends secrets as base64.
fn decoded(value: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(value)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(environment: &[(&str, &str)]) -> Sources {
        Sources {
            app_id: "app".into(),
            namespace: None,
            environment: environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            kubernetes: false,
        }
    }

    async fn value(sources: &Sources, item: NameValue) -> Result<String, Error> {
        let values = sources
            .values("Component x", &[item], "", &SecretStores::default())
            .await?;
        Ok(values.into_iter().next().unwrap().1)
    }

    fn text(value: &str) -> NameValue {
        NameValue {
            name: "p".into(),
            value: value.into(),
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn placeholders() {
        let with = sources(&[("POD_NAME", "pod-1")]);
        assert_eq!(
            value(&with, text("{appID}/{namespace}/{podName}/{APPID}"))
                .await
                .unwrap(),
            "app/default.app/pod-1/{APPID}"
        );
        let ids = value(&with, text("{uuid} {uuid}")).await.unwrap();
        let (first, second) = ids.split_once(' ').unwrap();
        assert_ne!(first, second);
        assert_eq!(
            value(&sources(&[]), text("{podName}")).await,
            Err(Error::PodName("p".into()))
        );
    }

    #[tokio::test]
    async fn variables() {
        let from = |name: &str| NameValue {
            name: "p".into(),
            env_ref: name.into(),
            ..Default::default()
        };
        let with = sources(&[
            ("MY_URL", "u"),
            ("DAPR_API_TOKEN", "secret"),
            ("APP_API_TOKEN", "secret"),
        ]);
        assert_eq!(value(&with, from("MY_URL")).await.unwrap(), "u");
        assert_eq!(value(&with, from("DAPR_API_TOKEN")).await.unwrap(), "");
        assert_eq!(value(&with, from("APP_API_TOKEN")).await.unwrap(), "");
        let listed = sources(&[
            ("MY_URL", "u"),
            ("OTHER", "o"),
            ("DAPR_ENV_KEYS", "MY_URL2 MY_URL"),
        ]);
        assert_eq!(value(&listed, from("MY_URL")).await.unwrap(), "u");
        assert_eq!(value(&listed, from("OTHER")).await.unwrap(), "");
    }

    #[tokio::test]
    async fn a_secret_without_a_store_is_empty_and_nothing_waits_for_it() {
        let reference: NameValue = outrider_crds::decode::from_value(&serde_json::json!({
            "name": "p", "secretKeyRef": {"name": "s", "key": "k"},
        }))
        .unwrap();
        let items = [reference, text("{appID}")];
        let sources = sources(&[]);
        let stores = SecretStores::default();
        assert_eq!(sources.missing_store(&items, "", &stores), None);
        let named = sources.missing_store(&items, "vault", &stores);
        assert_eq!(named, Some(MissingStore("vault".into())));
        let values = sources.values("Component x", &items, "", &stores).await;
        let values: Vec<String> = values.unwrap().into_iter().map(|(_, v)| v).collect();
        assert_eq!(values, ["", "app"]);
    }
}
