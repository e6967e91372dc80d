//! What an application says about the actors that it hosts.
//! <https://docs.dapr.io/reference/api/actors_api/#get-registered-actors>

use std::time::Duration;

use outrider_kit::duration;
use outrider_proto::runtime::v1 as wire;
use serde::Deserialize;

use crate::SCOPE;
use crate::hosting::Types;
use crate::table::Settings;

const IDLE: Duration = Duration::from_secs(60 * 60);
const DRAIN: Duration = Duration::from_secs(2);
const DEPTH: usize = 32;
/// Most types that one application may host.
const MOST: usize = 10_000;

/// The types of an application, with how each is treated.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Config {
    entities: Option<Vec<String>>,
    actor_idle_timeout: Option<String>,
    drain_ongoing_call_timeout: Option<String>,
    drain_rebalanced_actors: Option<bool>,
    reentrancy: Option<Reentrancy>,
    reminders_storage_partitions: Option<i64>,
    entities_config: Option<Vec<Entities>>,
}

/// Some of the types.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Entities {
    entities: Option<Vec<String>>,
    actor_idle_timeout: Option<String>,
    drain_ongoing_call_timeout: Option<String>,
    reentrancy: Option<Reentrancy>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reentrancy {
    enabled: Option<bool>,
    max_stack_depth: Option<i64>,
}

impl Reentrancy {
    fn depth(self) -> Option<usize> {
        let most = self
            .max_stack_depth
            .map(|most| usize::try_from(most).unwrap_or(0));
        self.enabled.unwrap_or(false).then(|| most.unwrap_or(DEPTH))
    }
}

impl Config {
    /// Of an answer to `GET /dapr/config`.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        if json.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// The types, with what is wrong but tolerated in the log. A drain takes
    /// less than `dissemination`, the longest time of a round of placement.
    pub fn types(self, dissemination: Duration) -> Result<Types, String> {
        if self.reminders_storage_partitions.is_some_and(|n| n != 0) {
            tracing::warn!(target: SCOPE, "remindersStoragePartitions is deprecated and will be removed in future versions");
        }
        let all = self.entities.unwrap_or_default();
        if all.len() > MOST {
            return Err(format!(
                "an application hosts at most {MOST} actor types, and this one says {}",
                all.len()
            ));
        }
        let idle = read(self.actor_idle_timeout.as_deref(), IDLE)
            .map_err(|error| format!("failed to parse default actor idle timeout: {error}"))?;
        let drain = read(self.drain_ongoing_call_timeout.as_deref(), DRAIN)
            .map_err(|error| format!("failed to parse default drain timeout: {error}"))?;
        let drains = self.drain_rebalanced_actors.unwrap_or(true);
        let cut = |drain: Duration, of: &str| match drains {
            true => clamp(drain, dissemination, of),
            false => Duration::ZERO,
        };
        let settings = Settings {
            idle,
            drain: cut(drain, ""),
            depth: self.reentrancy.unwrap_or_default().depth(),
        };
        let names = all.iter().filter(|name| !name.is_empty());
        let mut types: Types = names.map(|name| (name.as_str().into(), settings)).collect();
        for some in self.entities_config.unwrap_or_default() {
            let names = some.entities.unwrap_or_default();
            let idle = some.actor_idle_timeout.as_deref().map(|given| {
                read(Some(given), IDLE).unwrap_or_else(|_| {
                    tracing::warn!(target: SCOPE, "Invalid actor idle timeout value {given}, using default value {}", duration::format(idle));
                    idle
                })
            });
            let drain = some.drain_ongoing_call_timeout.as_deref().map(|given| {
                let drain = read(Some(given), DRAIN).unwrap_or_else(|_| {
                    tracing::warn!(target: SCOPE, "Invalid drain ongoing call timeout value {given}, using default value {}", duration::format(drain));
                    drain
                });
                cut(drain, &format!(" for entities={}", names.join(",")))
            });
            for name in &names {
                let Some(settings) = types.get_mut(name.as_str()) else {
                    tracing::warn!(target: SCOPE, "Configuration specified for non-hosted actor type: {name}");
                    continue;
                };
                settings.idle = idle.unwrap_or(settings.idle);
                settings.drain = drain.unwrap_or(settings.drain);
                if let Some(reentrancy) = some.reentrancy {
                    settings.depth = reentrancy.depth();
                }
            }
        }
        Ok(types)
    }
}

/// What an application on a stream says first.
impl From<wire::SubscribeActorEventsRequestInitialAlpha1> for Config {
    fn from(first: wire::SubscribeActorEventsRequestInitialAlpha1) -> Self {
        let entities = first.entities_config.into_iter().map(|some| Entities {
            entities: Some(some.entities),
            actor_idle_timeout: some.actor_idle_timeout.as_ref().map(text),
            drain_ongoing_call_timeout: some.drain_ongoing_call_timeout.as_ref().map(text),
            reentrancy: some.reentrancy.map(Reentrancy::from),
        });
        Self {
            entities: Some(first.entities),
            actor_idle_timeout: first.actor_idle_timeout.as_ref().map(text),
            drain_ongoing_call_timeout: first.drain_ongoing_call_timeout.as_ref().map(text),
            drain_rebalanced_actors: first.drain_rebalanced_actors,
            reentrancy: first.reentrancy.map(Reentrancy::from),
            reminders_storage_partitions: None,
            entities_config: Some(entities.collect()),
        }
    }
}

impl From<wire::ActorReentrancyConfig> for Reentrancy {
    fn from(given: wire::ActorReentrancyConfig) -> Self {
        Self {
            enabled: Some(given.enabled),
            max_stack_depth: given.max_stack_depth.map(i64::from),
        }
    }
}

fn text(given: &prost_types::Duration) -> String {
    let nanos = i128::from(given.seconds) * 1_000_000_000 + i128::from(given.nanos);
    format!("{nanos}ns")
}

/// A duration of Go; one below zero is none at all.
fn read(given: Option<&str>, default: Duration) -> Result<Duration, String> {
    match given {
        None | Some("") => Ok(default),
        Some(given) => duration::parse_signed(given)
            .map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
            .map_err(|error| error.to_string()),
    }
}

/// A drain that ends within a round of placement.
fn clamp(drain: Duration, dissemination: Duration, of: &str) -> Duration {
    if drain < dissemination {
        return drain;
    }
    let cut = (dissemination / 5 * 4).max(DRAIN);
    let shown = duration::format;
    tracing::warn!(target: SCOPE, "drainOngoingCallTimeout ({}){of} meets or exceeds the dissemination timeout ({}): it is {} instead", shown(drain), shown(dissemination), shown(cut));
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND: Duration = Duration::from_secs(30);

    fn types(json: &str) -> Types {
        Config::parse(json.as_bytes())
            .unwrap()
            .types(ROUND)
            .unwrap()
    }

    #[test]
    fn what_is_not_said_has_defaults() {
        let types = types(r#"{"entities": ["a"], "actorScanInterval": "3s"}"#);
        let settings = Settings {
            idle: IDLE,
            drain: DRAIN,
            depth: None,
        };
        assert_eq!(types, [("a".into(), settings)].into());
        assert!(Config::parse(b"").unwrap().types(ROUND).unwrap().is_empty());
    }

    #[test]
    fn settings_of_a_type_go_before_those_of_all() {
        let types = types(
            r#"{"entities": ["a", "b"], "actorIdleTimeout": "5s", "drainOngoingCallTimeout": "1s",
                "reentrancy": {"enabled": true, "maxStackDepth": 3},
                "entitiesConfig": [
                    {"entities": ["b"], "actorIdleTimeout": "bad", "drainOngoingCallTimeout": "60s", "reentrancy": {"enabled": false}},
                    {"entities": ["c"], "actorIdleTimeout": "1s"}]}"#,
        );
        let seconds = Duration::from_secs;
        assert_eq!(
            types["a"],
            Settings {
                idle: seconds(5),
                drain: seconds(1),
                depth: Some(3)
            }
        );
        assert_eq!(
            types["b"],
            Settings {
                idle: seconds(5),
                drain: seconds(24),
                depth: None
            }
        );
        assert_eq!(types.len(), 2);
    }

    #[test]
    fn an_invalid_idle_timeout_of_all_types_hosts_nothing() {
        let config = Config::parse(br#"{"entities": ["a"], "actorIdleTimeout": "x"}"#).unwrap();
        let error = config.types(ROUND).unwrap_err();
        assert!(
            error.starts_with("failed to parse default actor idle timeout: "),
            "{error}"
        );
    }

    #[test]
    fn without_drains_calls_end_at_once() {
        let types = types(
            r#"{"entities": ["a"], "drainRebalancedActors": false, "drainOngoingCallTimeout": "60s"}"#,
        );
        assert_eq!(types["a"].drain, Duration::ZERO);
    }
}
