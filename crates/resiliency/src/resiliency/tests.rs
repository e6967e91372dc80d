use std::future::ready;
use std::time::Duration;

use outrider_telemetry::metrics::Registry;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::policy::Error;

fn resource(name: &str, spec: Value) -> outrider_crds::Resiliency {
    let json = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
    outrider_crds::decode::from_value(&json).unwrap()
}

fn of(spec: Value) -> Resiliency {
    let resiliency = Resiliency::default();
    resiliency.replace(&[resource("r", spec)]);
    resiliency
}

/// An operation that always fails. Returns how often it was tried, and in how many
/// seconds.
async fn tries(policy: Policy) -> (u32, u64) {
    let (mut tries, began) = (0, Instant::now());
    let failing = policy.run(|_| {
        tries += 1;
        ready(Err::<(), _>("no".to_owned()))
    });
    let _ = failing.await;
    (tries, began.elapsed().as_secs())
}

fn retries(count: u64) -> Value {
    json!({"duration": "1s", "maxRetries": count})
}

#[test]
fn without_a_policy_nothing_is_returned_and_the_endpoint_is_not_computed() {
    let resiliency = Resiliency::default();
    assert!(resiliency.app("a", || unreachable!()).is_none());
    for block in Block::ALL {
        for direction in Direction::ALL {
            assert!(resiliency.component("c", block, direction).is_none());
        }
    }
    assert!(resiliency.actor_before_lock("t", "1").is_none());
    assert!(resiliency.actor_after_lock("t", "1").is_none());
    assert!(!resiliency.stands_in_for_built_in("a"));
}

#[tokio::test(start_paused = true)]
async fn the_most_specific_default_applies() {
    let resiliency = of(json!({"policies": {"retries": {
        "DefaultRetryPolicy": retries(1),
        "DefaultAppRetryPolicy": retries(2),
        "DefaultComponentRetryPolicy": retries(3),
        "DefaultComponentInboundRetryPolicy": retries(4),
        "DefaultPubsubComponentInboundRetryPolicy": retries(5),
    }, "timeouts": {"DefaultTimeoutPolicy": "5s"}}}));
    let component = |block, direction| tries(resiliency.component("c", block, direction).unwrap());
    assert_eq!(
        tries(resiliency.app("a", String::new).unwrap()).await,
        (3, 2)
    );
    assert_eq!(
        tries(resiliency.actor_before_lock("t", "1").unwrap()).await,
        (2, 1)
    );
    assert!(resiliency.actor_after_lock("t", "1").is_some());
    assert_eq!(component(Block::PubSub, Direction::Inbound).await, (6, 5));
    assert_eq!(component(Block::Binding, Direction::Inbound).await, (5, 4));
    assert_eq!(component(Block::PubSub, Direction::Outbound).await, (4, 3));
    assert!(resiliency.stands_in_for_built_in("a"));
}

#[tokio::test(start_paused = true)]
async fn a_target_with_an_entry_gets_no_defaults() {
    let resiliency = of(json!({
        "policies": {
            "retries": {"DefaultRetryPolicy": retries(1), "r": retries(2)},
            "timeouts": {"t": 1000},
        },
        "targets": {
            "apps": {"named": {"retry": "r"}, "bare": {}, "wrong": {"retry": "nowhere", "circuitBreaker": "nowhere"}},
            "components": {"c": {"inbound": {"timeout": "t"}}},
        },
    }));
    let app = |id: &str| resiliency.app(id, || format!("{id}:m"));
    assert_eq!(tries(app("named").unwrap()).await, (3, 2));
    assert_eq!(tries(app("named.ns").unwrap()).await, (3, 2));
    assert_eq!(tries(app("other").unwrap()).await, (2, 1));
    assert!(app("bare").is_none());
    assert!(app("wrong").is_none());
    let inbound = resiliency.component("c", Block::PubSub, Direction::Inbound);
    assert!(!inbound.unwrap().has_retries());
    assert!(
        resiliency
            .component("c", Block::PubSub, Direction::Outbound)
            .is_none()
    );
    assert!(
        resiliency
            .component("d", Block::PubSub, Direction::Outbound)
            .is_some()
    );
}

#[tokio::test(start_paused = true)]
async fn a_default_without_retries_leaves_the_built_in_retries() {
    let resiliency = of(json!({
        "policies": {"timeouts": {"DefaultAppTimeoutPolicy": "1s"}},
        "targets": {"apps": {"named": {"timeout": "DefaultAppTimeoutPolicy"}}},
    }));
    assert!(!resiliency.stands_in_for_built_in("other"));
    assert!(resiliency.stands_in_for_built_in("named"));
    assert!(resiliency.stands_in_for_built_in("named.ns"));
}

#[tokio::test(start_paused = true)]
async fn the_number_of_built_in_retries_cannot_be_set_below_three() {
    let built_in = |resiliency: &Resiliency, name| tries(resiliency.built_in(name));
    let plain = Resiliency::default();
    assert_eq!(built_in(&plain, BuiltIn::Service).await, (4, 3));
    assert_eq!(built_in(&plain, BuiltIn::Actor).await, (4, 3));
    assert_eq!(built_in(&plain, BuiltIn::ActorNotFound).await, (6, 5));
    assert_eq!(built_in(&plain, BuiltIn::ActorReminder).await.0, 1);
    assert_eq!(built_in(&plain, BuiltIn::Initialization).await.0, 4);
    let changed = of(json!({"policies": {"retries": {
        "DaprBuiltInServiceRetries": retries(7),
        "DaprBuiltInActorRetries": {"duration": "2s", "maxRetries": -1},
        "DaprBuiltInActorNotFoundRetries": retries(9),
    }}}));
    assert_eq!(built_in(&changed, BuiltIn::Service).await, (8, 7));
    assert_eq!(built_in(&changed, BuiltIn::Actor).await, (4, 6));
    assert_eq!(built_in(&changed, BuiltIn::ActorNotFound).await, (6, 5));
}

#[tokio::test(start_paused = true)]
async fn breakers_are_per_endpoint_actor_and_direction() {
    let resiliency = of(json!({
        "policies": {"circuitBreakers": {"b": {"trip": "true", "timeout": "5s"}}},
        "targets": {
            "apps": {"a": {"circuitBreaker": "b"}},
            "components": {"c": {"inbound": {"circuitBreaker": "b"}, "outbound": {"circuitBreaker": "b"}}},
            "actors": {
                "by-id": {"circuitBreaker": "b", "circuitBreakerScope": "id"},
                "by-type": {"circuitBreaker": "b", "circuitBreakerScope": "type"},
            },
        },
    }));
    let is_open = async |policy: Option<Policy>| {
        let result = policy.unwrap().run(|_| ready(Ok::<_, String>(()))).await;
        result == Err(Error::Open)
    };
    let app = |method: &str| resiliency.app("a", || format!("a:{method}"));
    let component = |direction| resiliency.component("c", Block::PubSub, direction);
    tries(app("m").unwrap()).await;
    tries(component(Direction::Inbound).unwrap()).await;
    tries(resiliency.actor_before_lock("by-id", "1").unwrap()).await;
    tries(resiliency.actor_before_lock("by-type", "1").unwrap()).await;
    assert!(is_open(app("m")).await);
    assert!(!is_open(app("n")).await);
    assert!(is_open(component(Direction::Inbound)).await);
    assert!(!is_open(component(Direction::Outbound)).await);
    assert!(is_open(resiliency.actor_before_lock("by-id", "1")).await);
    assert!(!is_open(resiliency.actor_before_lock("by-id", "2")).await);
    assert!(is_open(resiliency.actor_before_lock("by-type", "2")).await);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_retried_after_stop() {
    let stop = CancellationToken::new();
    let resiliency = Resiliency::new(None, stop.clone());
    resiliency.replace(&[resource(
        "r",
        json!({"policies": {"retries": {"DefaultRetryPolicy": {}}}}),
    )]);
    let policy = resiliency.app("a", String::new).unwrap();
    let ending = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        stop.cancel();
    };
    let (tried, ()) = tokio::join!(tries(policy), ending);
    assert_eq!(tried, (3, 12));
    assert_eq!(tries(resiliency.built_in(BuiltIn::Service)).await, (1, 0));
}

#[test]
fn resources_share_one_set_of_names_and_a_broken_one_is_left_out() {
    let resiliency = Resiliency::default();
    let target = json!({"targets": {"apps": {"a": {"retry": "r"}}}});
    let left_out = resiliency.replace(&[
        resource("targets", target),
        resource("first", json!({"policies": {"retries": {"r": retries(0)}}})),
        resource(
            "second",
            json!({"policies": {"retries": {"r": retries(1)}}}),
        ),
        resource(
            "broken",
            json!({"policies": {"retries": {"r": retries(0)}, "timeouts": {"t": "x"}}}),
        ),
    ]);
    let names: Vec<&str> = left_out.iter().map(|left| left.name.as_str()).collect();
    assert_eq!(names, ["broken"]);
    assert!(left_out[0].cause.contains("invalid duration"));
    assert!(resiliency.app("a", String::new).unwrap().has_retries());
    assert_eq!(resiliency.names(), ["targets", "first", "second", "broken"]);
    resiliency.replace(&[]);
    assert!(resiliency.app("a", String::new).is_none());
    assert!(resiliency.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn metrics_count_applied_policies_activations_and_states() {
    let registry = Registry::new();
    let resiliency = Resiliency::new(
        Some(Metrics::new(&registry, "me")),
        CancellationToken::new(),
    );
    resiliency.replace(&[
        resource(
            "r",
            json!({
                "policies": {
                    "retries": {"r": retries(2)},
                    "circuitBreakers": {"b": {"trip": "totalFailures >= 3", "timeout": "5s"}},
                },
                "targets": {"apps": {"a": {"retry": "r", "circuitBreaker": "b", "timeout": "t"}}},
            }),
        ),
        resource("s", json!({"policies": {"timeouts": {"t": "1s"}}})),
    ]);
    let policy = || resiliency.app("a", || "a:m".to_owned()).unwrap();
    let never = policy();
    let never = never.run(|_| std::future::pending::<Result<(), String>>());
    assert_eq!(never.await, Err(Error::TimedOut));
    let _ = policy().run(|_| ready(Ok::<_, String>(()))).await;
    let check = |metric: &str, labels: [&str; 5], value: u32| {
        let [direction, name, policy, status, target] = labels;
        let line = format!(
            "dapr_resiliency_{metric}{{app_id=\"me\",flow_direction=\"{direction}\",name=\"{name}\",namespace=\"ns\",policy=\"{policy}\",status=\"{status}\",target=\"{target}\"}} {value}\n"
        );
        let text = registry.text();
        assert!(text.contains(&line), "no {line} in\n{text}");
    };
    let labels = |name, policy, status| ["outbound", name, policy, status, "app_a"];
    check("count", labels("r", "retry", ""), 2);
    check("count", labels("s", "timeout", ""), 2);
    check("count", labels("r", "circuitbreaker", "closed"), 1);
    check("count", labels("r", "circuitbreaker", "open"), 1);
    check("activations_total", labels("r", "retry", ""), 2);
    check("activations_total", labels("s", "timeout", ""), 3);
    check(
        "activations_total",
        labels("r", "circuitbreaker", "open"),
        1,
    );
    for (status, value) in [("closed", 0), ("half-open", 0), ("open", 1), ("unknown", 0)] {
        check("cb_state", labels("r", "circuitbreaker", status), value);
    }
    tokio::time::advance(Duration::from_secs(6)).await;
    let _ = policy().run(|_| ready(Ok::<_, String>(()))).await;
    check("cb_state", labels("r", "circuitbreaker", "closed"), 1);
    check("cb_state", labels("r", "circuitbreaker", "open"), 0);
    for name in ["r", "s"] {
        let line =
            format!("dapr_resiliency_loaded{{app_id=\"me\",name=\"{name}\",namespace=\"ns\"}} 1\n");
        assert!(registry.text().contains(&line), "{name}");
    }
}
