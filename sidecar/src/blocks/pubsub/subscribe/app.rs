//! Which subscriptions the application asks for itself.

use http::{HeaderMap, StatusCode};
use outrider_crds::subscription::{BulkSubscribe, Routes, Rule, Spec};
use outrider_proto::runtime::v1 as wire;
use outrider_resiliency::Policy;
use serde_json::Value;
use tonic::Code;

use crate::blocks::json;
use crate::blocks::json::shape::Shape;
use outrider_call::channel::{Channel, Kind};

const SCOPE: &str = "dapr.runtime.pubsub";

/// Asks the application; what it answers wrongly is logged and counts as
/// nothing.
pub async fn ask(channel: &Channel, app_id: &str, policy: &Policy) -> Vec<Spec> {
    let answered = policy.run(|_| once(channel, app_id)).await;
    answered.unwrap_or_else(|cause| {
        tracing::error!(target: SCOPE, "error getting topics from app: {cause}");
        Vec::new()
    })
}

/// Fails when the application cannot be reached.
async fn once(channel: &Channel, app_id: &str) -> Result<Vec<Spec>, String> {
    match &channel.kind {
        Kind::Http(client) => client
            .ask(channel.permit().await, "dapr/subscribe", app_id)
            .await
            .map(|(status, body)| of_http(status, &body)),
        Kind::Grpc(client) => {
            let path = "/dapr.proto.runtime.v1.AppCallback/ListTopicSubscriptions";
            let permit = channel.permit().await;
            match client.unary(permit, path, &(), HeaderMap::new()).await {
                Ok((listed, _, _)) => Ok(of_grpc(listed)),
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::info!(target: SCOPE, "pubsub subscriptions: gRPC app does not implement ListTopicSubscriptions");
                    Ok(Vec::new())
                }
                Err(status) => Err(outrider_net::grpc::text(&status)),
            }
        }
    }
}

fn of_http(status: StatusCode, body: &[u8]) -> Vec<Spec> {
    match status {
        StatusCode::OK => decode(body).unwrap_or_else(|cause| {
            tracing::error!(target: SCOPE, "error getting topics from app: {cause}");
            Vec::new()
        }),
        StatusCode::NOT_FOUND => Vec::new(),
        other => {
            tracing::error!(target: SCOPE, "app returned http status code {} from subscription endpoint", other.as_u16());
            Vec::new()
        }
    }
}

/// The answer of an HTTP application. Keys match in any case.
pub(crate) fn decode(body: &[u8]) -> Result<Vec<Spec>, String> {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let all: Option<Vec<Value>> =
        serde_json::from_slice(body).map_err(|e| json::decode_error(&e, body, &Shape::Any))?;
    let mut specs = Vec::new();
    for one in all.unwrap_or_default() {
        let text = |name: &str| {
            field(&one, name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let routes = field(&one, "routes").unwrap_or(&Value::Null);
        let rules = field(routes, "rules").and_then(Value::as_array);
        let part = |rule: &Value, name: &str| {
            field(rule, name)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let rules: Vec<Rule> = rules
            .into_iter()
            .flatten()
            .map(|rule| Rule {
                condition: part(rule, "match"),
                path: part(rule, "path"),
            })
            .collect();
        let default = Some(part(routes, "default"))
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| text("route"));
        let topic = text("topic");
        if rules.is_empty() && default.is_empty() {
            tracing::warn!(target: SCOPE, "topic {topic} has an empty routes. removing from subscriptions list");
            continue;
        }
        let bulk = field(&one, "bulkSubscribe").unwrap_or(&Value::Null);
        let number = |name: &str| {
            let number = field(bulk, name).and_then(Value::as_i64);
            number
                .and_then(|n| i32::try_from(n).ok())
                .unwrap_or_default()
        };
        let metadata = field(&one, "metadata").and_then(Value::as_object);
        specs.push(Spec {
            pubsubname: text("pubsubname"),
            topic,
            routes: Routes { rules, default },
            metadata: metadata
                .into_iter()
                .flatten()
                .map(|(key, value)| match value {
                    Value::String(text) => (key.clone(), text.clone()),
                    other => (key.clone(), other.to_string()),
                })
                .collect(),
            dead_letter_topic: text("deadLetterTopic"),
            bulk_subscribe: BulkSubscribe {
                enabled: field(bulk, "enabled")
                    .and_then(Value::as_bool)
                    .unwrap_or_default(),
                max_messages_count: number("maxMessagesCount"),
                max_await_duration_ms: number("maxAwaitDurationMs"),
            },
        });
    }
    Ok(specs)
}

fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    object
        .as_object()?
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
}

fn of_grpc(listed: wire::ListTopicSubscriptionsResponse) -> Vec<Spec> {
    let one = |s: wire::TopicSubscription| {
        let routes = s.routes.unwrap_or_default();
        let rules = routes.rules.into_iter().map(|rule| Rule {
            condition: rule.r#match,
            path: rule.path,
        });
        let bulk = s.bulk_subscribe.unwrap_or_default();
        Spec {
            pubsubname: s.pubsub_name,
            topic: s.topic,
            routes: Routes {
                rules: rules.collect(),
                default: routes.default,
            },
            metadata: s.metadata.into_iter().collect(),
            dead_letter_topic: s.dead_letter_topic,
            bulk_subscribe: BulkSubscribe {
                enabled: bulk.enabled,
                max_messages_count: bulk.max_messages_count,
                max_await_duration_ms: bulk.max_await_duration_ms,
            },
        }
    };
    listed.subscriptions.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_routes() {
        let body = br#"[
            {"pubsubName":"p","Topic":"a","route":"/a","metadata":{"rawPayload":"true"}},
            {"pubsubname":"p","topic":"b","route":"/lost","routes":{"rules":[{"match":"event.id == '1'","path":"/r"}],"default":"/d"},
             "deadLetterTopic":"dead","bulkSubscribe":{"enabled":true,"maxMessagesCount":3,"maxAwaitDurationMs":40}},
            {"pubsubname":"p","topic":"c"}
        ]"#;
        let specs = decode(body).unwrap();
        assert_eq!(specs.len(), 2);
        assert_eq!(
            (specs[0].pubsubname.as_str(), specs[0].topic.as_str()),
            ("p", "a")
        );
        assert_eq!(
            (
                specs[0].routes.default.as_str(),
                specs[0].metadata["rawPayload"].as_str()
            ),
            ("/a", "true")
        );
        assert_eq!(
            (
                specs[1].routes.rules[0].path.as_str(),
                specs[1].routes.default.as_str()
            ),
            ("/r", "/d")
        );
        assert_eq!(specs[1].dead_letter_topic, "dead");
        assert_eq!(
            specs[1].bulk_subscribe,
            BulkSubscribe {
                enabled: true,
                max_messages_count: 3,
                max_await_duration_ms: 40
            }
        );
    }

    #[test]
    fn answers_without_subscriptions() {
        for body in ["", "[]", "null"] {
            assert_eq!(decode(body.as_bytes()), Ok(Vec::new()));
        }
        assert_eq!(
            decode(b"hello").unwrap_err(),
            "invalid character 'h' looking for beginning of value"
        );
        decode(b"{}").unwrap_err();
        for status in [StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
            assert!(of_http(status, br#"[{"pubsubname":"p","topic":"a","route":"a"}]"#).is_empty());
        }
    }

    proptest! {
        #[test]
        fn prop_never_panics(body in "\\[(\\{\"(topic|routes|bulkSubscribe|metadata)\":(1|\"x\"|\\{\\}|\\[\\]|null)\\})?\\]") {
            let _ = decode(body.as_bytes());
        }
    }
}
