//! `Subscription`: which topics an app gets, and where. Stored as `v2alpha1`; `v1alpha1` is converted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Kind, Metadata, decode, is, unset};

/// Which topic an app gets, and at which paths.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Subscription {
    #[serde(skip_serializing_if = "unset")]
    pub metadata: Metadata,
    #[serde(skip_serializing_if = "unset")]
    pub spec: Spec,
    /// App ids that the subscription is for; empty means every app of the namespace.
    #[serde(skip_serializing_if = "unset")]
    pub scopes: Vec<String>,
}

/// Topic and routes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(rename = "SubscriptionSpec"))]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// Name of the pub/sub component.
    pub pubsubname: String,
    pub topic: String,
    pub routes: Routes,
    /// Given to the component.
    #[serde(skip_serializing_if = "unset")]
    pub metadata: BTreeMap<String, String>,
    /// Topic for messages that could not be delivered.
    #[serde(skip_serializing_if = "unset")]
    pub dead_letter_topic: String,
    #[serde(skip_serializing_if = "unset")]
    pub bulk_subscribe: BulkSubscribe,
}

/// The app's paths for messages.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Routes {
    /// The first that matches counts.
    #[serde(skip_serializing_if = "unset")]
    pub rules: Vec<Rule>,
    /// Path if no rule matches.
    #[serde(skip_serializing_if = "unset")]
    pub default: String,
}

/// A condition and its path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Rule {
    /// CEL expression over `event`.
    #[serde(rename = "match")]
    pub condition: String,
    pub path: String,
}

/// Several messages in one delivery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct BulkSubscribe {
    pub enabled: bool,
    #[serde(skip_serializing_if = "unset")]
    pub max_messages_count: i32,
    #[serde(skip_serializing_if = "unset")]
    pub max_await_duration_ms: i32,
}

/// The older form: one path for everything.
pub mod v1alpha1 {
    use super::*;

    /// Which topic an app gets, and at which path.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
    #[serde(default, rename_all = "camelCase")]
    pub struct Subscription {
        #[serde(skip_serializing_if = "unset")]
        pub metadata: Metadata,
        #[serde(skip_serializing_if = "unset")]
        pub spec: Spec,
        /// App ids that the subscription is for; empty means every app of the namespace.
        #[serde(skip_serializing_if = "unset")]
        pub scopes: Vec<String>,
    }

    /// Topic and route.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
    #[cfg_attr(feature = "schema", schemars(rename = "SubscriptionSpec"))]
    #[serde(default, rename_all = "camelCase")]
    pub struct Spec {
        /// Name of the pub/sub component.
        pub pubsubname: String,
        pub topic: String,
        /// The app's path for messages.
        pub route: String,
        /// Given to the component.
        #[serde(skip_serializing_if = "unset")]
        pub metadata: BTreeMap<String, String>,
        /// Topic for messages that could not be delivered.
        #[serde(skip_serializing_if = "unset")]
        pub dead_letter_topic: String,
        #[serde(skip_serializing_if = "unset")]
        pub bulk_subscribe: BulkSubscribe,
    }

    impl From<Subscription> for super::Subscription {
        fn from(
            Subscription {
                metadata,
                spec,
                scopes,
            }: Subscription,
        ) -> Self {
            let Spec {
                pubsubname,
                topic,
                route,
                metadata: properties,
                dead_letter_topic,
                bulk_subscribe,
            } = spec;
            let routes = Routes {
                default: route,
                rules: Vec::new(),
            };
            let spec = super::Spec {
                pubsubname,
                topic,
                routes,
                metadata: properties,
                dead_letter_topic,
                bulk_subscribe,
            };
            Self {
                metadata,
                spec,
                scopes,
            }
        }
    }
}

/// Why an object has no form in the version asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    #[error("conversion is not allowed between same type *{0}.Subscription")]
    SameVersion(String),
    #[error(
        "no kind \"Subscription\" is registered for version \"dapr.io/{0}\" in scheme \"dapr.io\""
    )]
    UnknownVersion(String),
    #[error("no kind {0:?} is converted here; only Subscription has two versions")]
    OtherKind(String),
}

/// Converts an object as it is in JSON, so that nothing but the routes is touched. `rules` have no place in
/// `v1alpha1` and are lost on the way there.
pub fn convert(object: &Value, desired: &str) -> Result<Value, ConversionError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("kind") != "Subscription" {
        return Err(ConversionError::OtherKind(text("kind").to_owned()));
    }
    let from = text("apiVersion")
        .strip_prefix("dapr.io/")
        .unwrap_or(text("apiVersion"));
    let to = desired.strip_prefix("dapr.io/").unwrap_or(desired);
    for version in [from, to] {
        if !["v1alpha1", "v2alpha1"].contains(&version) {
            return Err(ConversionError::UnknownVersion(version.to_owned()));
        }
    }
    if from == to {
        return Err(ConversionError::SameVersion(to.to_owned()));
    }
    let mut converted = object.clone();
    converted["apiVersion"] = json!(format!("dapr.io/{to}"));
    if !converted["spec"].is_object() {
        converted["spec"] = json!({});
    }
    if let Some(spec) = converted["spec"].as_object_mut() {
        if to == "v2alpha1" {
            let routes = match spec.remove("route") {
                Some(Value::String(route)) if !route.is_empty() => json!({"default": route}),
                _ => json!({}),
            };
            spec.insert("routes".into(), routes);
        } else {
            let routes = spec.remove("routes").unwrap_or_default();
            spec.insert(
                "route".into(),
                json!(routes["default"].as_str().unwrap_or_default()),
            );
        }
        for always in ["pubsubname", "topic"] {
            spec.entry(always).or_insert_with(|| json!(""));
        }
        spec.entry("bulkSubscribe")
            .or_insert_with(|| json!({"enabled": false}));
    }
    if converted["metadata"].is_object() && converted["metadata"].get("creationTimestamp").is_none()
    {
        converted["metadata"]["creationTimestamp"] = Value::Null;
    }
    Ok(converted)
}

impl Kind for Subscription {
    const KIND: &'static str = "Subscription";
    const PLURAL: &'static str = "subscriptions";
    const VERSION: &'static str = "v2alpha1";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    fn scopes(&self) -> &[String] {
        &self.scopes
    }

    fn claims(document: &Value) -> bool {
        is(document, "v1alpha1", Self::KIND) || is(document, "v2alpha1", Self::KIND)
    }

    fn from_document(document: &Value) -> Option<Result<Self, decode::Error>> {
        Self::claims(document).then(|| {
            let subscription: Self = if is(document, "v1alpha1", Self::KIND) {
                decode::from_value::<v1alpha1::Subscription>(document)?.into()
            } else {
                decode::from_value(document)?
            };
            subscription.metadata.check(Self::KIND)?;
            Ok(subscription)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, spec: Value) -> Value {
        json!({
            "apiVersion": format!("dapr.io/{version}"),
            "kind": "Subscription",
            "metadata": {"name": "s", "creationTimestamp": null, "labels": {"kept": "yes"}},
            "spec": spec,
            "scopes": ["a"],
        })
    }

    #[test]
    fn both_versions_are_read() {
        for (version, routes) in [
            ("v1alpha1", json!({"route": "/orders"})),
            ("v2alpha1", json!({"routes": {"default": "/orders"}})),
        ] {
            let mut spec =
                json!({"pubsubname": "p", "topic": "t", "metadata": {"rawPayload": true}});
            spec.as_object_mut()
                .unwrap()
                .extend(routes.as_object().unwrap().clone());
            let read = Subscription::from_document(&object(version, spec))
                .unwrap()
                .unwrap();
            assert_eq!(read.spec.routes.default, "/orders", "{version}");
            assert_eq!(read.spec.metadata["rawPayload"], "true");
            assert_eq!(read.scopes, ["a"]);
        }
        assert!(Subscription::from_document(&object("v3", json!({}))).is_none());
    }

    #[test]
    fn the_case_of_keys_does_not_matter() {
        let document = json!({"apiVersion": "dapr.io/v2alpha1", "Kind": "Subscription", "spec": {"topic": "t"}, "metadata": {"name": "s"}});
        let read = Subscription::from_document(&document).unwrap().unwrap();
        assert_eq!(read.spec.topic, "t");
    }

    #[test]
    fn conversion_there_and_back_keeps_the_subscription() {
        let bulk = json!({"enabled": true, "maxMessagesCount": 3});
        let old = object(
            "v1alpha1",
            json!({"pubsubname": "p", "topic": "t", "route": "/r", "bulkSubscribe": bulk}),
        );
        let new = object(
            "v2alpha1",
            json!({"pubsubname": "p", "topic": "t", "routes": {"default": "/r"}, "bulkSubscribe": bulk}),
        );
        assert_eq!(convert(&old, "dapr.io/v2alpha1"), Ok(new.clone()));
        assert_eq!(convert(&new, "dapr.io/v1alpha1"), Ok(old));
        let bare =
            json!({"apiVersion": "dapr.io/v1alpha1", "kind": "Subscription", "metadata": {}});
        assert_eq!(
            convert(&bare, "dapr.io/v2alpha1"),
            Ok(json!({
                "apiVersion": "dapr.io/v2alpha1", "kind": "Subscription", "metadata": {"creationTimestamp": null},
                "spec": {"pubsubname": "", "topic": "", "routes": {}, "bulkSubscribe": {"enabled": false}},
            }))
        );
    }

    #[test]
    fn conversions_of_unknown_versions_are_errors() {
        let old = object("v1alpha1", json!({}));
        for (object, desired, message) in [
            (
                &old,
                "dapr.io/v1alpha1",
                "conversion is not allowed between same type *v1alpha1.Subscription",
            ),
            (
                &old,
                "dapr.io/v3",
                "no kind \"Subscription\" is registered for version \"dapr.io/v3\" in scheme",
            ),
            (
                &json!({"kind": "Component"}),
                "dapr.io/v1alpha1",
                "no kind \"Component\"",
            ),
        ] {
            let error = convert(object, desired).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
        }
    }
}
