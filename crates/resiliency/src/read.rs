//! From one resource to policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use outrider_condition::Condition;
use outrider_crds::resiliency::{ActorTarget, CircuitBreaker, PolicyNames, Retry as Given};
use outrider_kit::{duration, quote};

use crate::breaker::{Settings, VARIABLES};
use crate::metrics::{Origin, Sourced};
use crate::parse::{self, CodesError, Matching};
use crate::retry::{Retry, Wait};

const WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
const BREAKER_TIMEOUT: Duration = Duration::from_secs(60);
/// Breakers that are kept for an app, and for a type of actor.
pub const ENDPOINTS: usize = 100;
pub const ACTORS: usize = 5000;

/// The policies and targets of one resource, or of several.
#[derive(Debug, Default)]
pub struct Contents {
    pub timeouts: BTreeMap<String, Arc<Sourced<Duration>>>,
    pub retries: BTreeMap<String, Arc<Sourced<Retry>>>,
    pub breakers: BTreeMap<String, Arc<Sourced<Settings>>>,
    pub apps: BTreeMap<String, App>,
    pub actors: BTreeMap<String, Actor>,
    pub components: BTreeMap<String, Component>,
}

/// Names of policies; empty for none.
#[derive(Debug, Default)]
pub struct Names {
    pub timeout: String,
    pub retry: String,
    pub breaker: String,
}

#[derive(Debug)]
pub struct App {
    pub names: Names,
    pub breakers: usize,
}

#[derive(Debug)]
pub struct Actor {
    pub names: Names,
    pub scope: Scope,
    pub breakers: usize,
}

/// What shares a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Type,
    Id,
}

#[derive(Debug)]
pub struct Component {
    pub inbound: Names,
    pub outbound: Names,
}

/// Why a resource is left out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid duration {}, {text}: {cause}", quote::go(.name))]
    Timeout {
        name: String,
        text: String,
        cause: duration::ParseError,
    },
    #[error("invalid retry configuration {}: {cause}", quote::go(.name))]
    Retry { name: String, cause: String },
    #[error("{0}")]
    Codes(#[from] CodesError),
    #[error("invalid circuit breaker configuration {}: {cause}", quote::go(.name))]
    Breaker { name: String, cause: String },
    #[error("actor circuit breakers must include scope")]
    NoScope,
    #[error("unknown circuit breaker scope {}", quote::go(.0))]
    Scope(String),
}

/// Reads a resource, wholly or not at all.
pub fn read(resource: &outrider_crds::Resiliency, origin: &Arc<Origin>) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let policies = &resource.spec.policies;
    for (name, text) in &policies.timeouts {
        let timeout = parse::duration(text).map_err(|cause| Error::Timeout {
            name: name.clone(),
            text: text.clone(),
            cause,
        })?;
        contents
            .timeouts
            .insert(name.clone(), sourced(timeout, origin));
    }
    for (name, given) in &policies.retries {
        contents
            .retries
            .insert(name.clone(), sourced(retry(name, given)?, origin));
    }
    for (name, given) in &policies.circuit_breakers {
        contents
            .breakers
            .insert(name.clone(), sourced(breaker(name, given)?, origin));
    }
    let targets = &resource.spec.targets;
    for (id, target) in &targets.apps {
        let app = App {
            names: Names::new(&target.timeout, &target.retry, &target.circuit_breaker),
            breakers: size(target.circuit_breaker_cache_size, ENDPOINTS),
        };
        contents.apps.insert(id.clone(), app);
    }
    for (kind, target) in &targets.actors {
        contents.actors.insert(kind.clone(), actor(target)?);
    }
    for (name, target) in &targets.components {
        let names =
            |names: &PolicyNames| Names::new(&names.timeout, &names.retry, &names.circuit_breaker);
        let component = Component {
            inbound: names(&target.inbound),
            outbound: names(&target.outbound),
        };
        contents.components.insert(name.clone(), component);
    }
    Ok(contents)
}

impl Contents {
    /// Adds another resource, whose entries replace those of the same name.
    pub fn extend(&mut self, later: Contents) {
        self.timeouts.extend(later.timeouts);
        self.retries.extend(later.retries);
        self.breakers.extend(later.breakers);
        self.apps.extend(later.apps);
        self.actors.extend(later.actors);
        self.components.extend(later.components);
    }
}

impl Names {
    fn new(timeout: &str, retry: &str, breaker: &str) -> Self {
        Self {
            timeout: timeout.to_owned(),
            retry: retry.to_owned(),
            breaker: breaker.to_owned(),
        }
    }
}

fn sourced<T>(value: T, origin: &Arc<Origin>) -> Arc<Sourced<T>> {
    let origin = origin.clone();
    Arc::new(Sourced { value, origin })
}

fn size(given: i64, default: usize) -> usize {
    usize::try_from(given)
        .ok()
        .filter(|size| *size > 0)
        .unwrap_or(default)
}

fn retry(name: &str, given: &Given) -> Result<Retry, Error> {
    let wrong = |cause: String| Error::Retry {
        name: name.to_owned(),
        cause,
    };
    let duration = |text: &str, default: Duration| match text {
        "" => Ok(default),
        text => parse::duration(text).map_err(|cause| {
            let text = quote::go(text);
            wrong(format!("invalid duration {text}: {cause}"))
        }),
    };
    let (wait, longest) = (
        duration(&given.duration, WAIT)?,
        duration(&given.max_interval, LONGEST_WAIT)?,
    );
    let wait = match given.policy.to_ascii_lowercase().as_str() {
        "" | "constant" => Wait::Constant(wait),
        "exponential" => Wait::exponential(longest),
        _ => {
            let policy = &given.policy;
            return Err(wrong(format!("unexpected back off policy type: {policy}")));
        }
    };
    let matching = match &given.matching {
        None => Matching::default(),
        Some(matching) => Matching::new(&matching.http_status_codes, &matching.grpc_status_codes)?,
    };
    Ok(Retry {
        wait,
        most: given.max_retries.and_then(|most| u64::try_from(most).ok()),
        matching,
    })
}

fn breaker(name: &str, given: &CircuitBreaker) -> Result<Settings, Error> {
    let wrong = |cause: String| Error::Breaker {
        name: name.to_owned(),
        cause,
    };
    let duration = |text: &str| match text {
        "" => Ok(None),
        text => parse::duration(text)
            .map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
            .map_err(|cause| wrong(format!("invalid duration {}: {cause}", quote::go(text)))),
    };
    let trip = given.trip.trim();
    let trip = (!trip.is_empty())
        .then(|| Condition::compile(trip, &VARIABLES))
        .transpose()
        .map_err(|cause| {
            wrong(format!(
                "invalid trip expression {}: {cause}",
                quote::go(trip)
            ))
        })?;
    Ok(Settings {
        name: name.to_owned(),
        max_requests: u32::try_from(given.max_requests).unwrap_or(1).max(1),
        interval: duration(&given.interval)?,
        timeout: duration(&given.timeout)?.unwrap_or(BREAKER_TIMEOUT),
        trip,
    })
}

fn actor(target: &ActorTarget) -> Result<Actor, Error> {
    let scope = match target.circuit_breaker_scope.as_str() {
        _ if target.circuit_breaker.is_empty() => Scope::Type,
        "" => return Err(Error::NoScope),
        "type" => Scope::Type,
        "id" | "both" => Scope::Id,
        other => return Err(Error::Scope(other.to_owned())),
    };
    Ok(Actor {
        names: Names::new(&target.timeout, &target.retry, &target.circuit_breaker),
        scope,
        breakers: size(target.circuit_breaker_cache_size, ACTORS),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(spec: Value) -> Result<Contents, String> {
        let resource = outrider_crds::decode::from_value(&json!({"spec": spec})).unwrap();
        read(&resource, &Arc::default()).map_err(|error| error.to_string())
    }

    fn policies(policies: Value) -> Result<Contents, String> {
        of(json!({"policies": policies}))
    }

    #[test]
    fn retries_are_read_with_their_defaults() {
        let contents = policies(json!({"retries": {
            "plain": {},
            "often": {"policy": "Constant", "duration": 10, "maxRetries": 3, "matching": {"httpStatusCodes": 500}},
            "slow": {"policy": "exponential", "maxInterval": "1m", "duration": "1h", "maxRetries": -7},
            "never": {"maxRetries": 0},
        }}))
        .unwrap();
        let retry = |name: &str| &contents.retries[name].value;
        assert_eq!(
            (&retry("plain").wait, retry("plain").most),
            (&Wait::Constant(WAIT), None)
        );
        assert_eq!(
            retry("often").wait,
            Wait::Constant(Duration::from_millis(10))
        );
        assert_eq!(retry("often").most, Some(3));
        assert!(retry("often").matching.has(500) && !retry("often").matching.has(501));
        assert_eq!(
            retry("slow").wait,
            Wait::exponential(Duration::from_secs(60))
        );
        assert_eq!((retry("slow").most, retry("never").most), (None, Some(0)));
    }

    #[test]
    fn breakers_are_read_with_their_defaults() {
        let contents = policies(json!({"circuitBreakers": {
            "plain": {},
            "full": {"maxRequests": 3, "interval": "8s", "timeout": 45000, "trip": "requests > 3"},
            "odd": {"maxRequests": -1, "interval": 0, "timeout": "0s"},
        }}))
        .unwrap();
        let of = |name: &str| {
            let breaker = &contents.breakers[name].value;
            let trip = breaker.trip.is_some();
            (
                breaker.max_requests,
                breaker.interval,
                breaker.timeout,
                trip,
            )
        };
        assert_eq!(of("plain"), (1, None, BREAKER_TIMEOUT, false));
        assert_eq!(of("odd"), of("plain"));
        let seconds = Duration::from_secs;
        assert_eq!(of("full"), (3, Some(seconds(8)), seconds(45), true));
    }

    #[test]
    fn errors_name_the_policy_and_the_cause() {
        for (given, cause) in [
            (
                json!({"timeouts": {"a": "xx"}}),
                "invalid duration \"a\", xx: time: invalid duration \"xx\"",
            ),
            (
                json!({"retries": {"a": {"policy": "foo"}}}),
                "invalid retry configuration \"a\": unexpected back off policy type: foo",
            ),
            (
                json!({"retries": {"a": {"duration": "1x"}}}),
                "invalid retry configuration \"a\": invalid duration \"1x\": time: unknown unit \"x\" in duration \"1x\"",
            ),
            (
                json!({"retries": {"a": {"matching": {"httpStatusCodes": "11"}}}}),
                "invalid pattern 11, start code 11 is not valid",
            ),
        ] {
            assert_eq!(policies(given).unwrap_err(), cause);
        }
        let trip = policies(json!({"circuitBreakers": {"a": {"trip": "requests >"}}}));
        assert!(
            trip.unwrap_err().starts_with(
                "invalid circuit breaker configuration \"a\": invalid trip expression"
            )
        );
        for (trip, why) in [
            ("failures > 3", "undeclared name 'failures'"),
            ("max(requests, 1) > 3", "undeclared function 'max'"),
        ] {
            let trip = policies(json!({"circuitBreakers": {"a": {"trip": trip}}}));
            let refused = trip.unwrap_err();
            assert!(refused.ends_with(why), "{refused}");
        }
    }

    #[test]
    fn actors_with_breakers_have_a_scope() {
        let actors = |target: Value| of(json!({"targets": {"actors": {"a": target}}}));
        let scope = |text: &str| {
            actors(json!({"circuitBreaker": "b", "circuitBreakerScope": text}))
                .map(|contents| contents.actors["a"].scope)
        };
        assert_eq!(scope("type"), Ok(Scope::Type));
        assert_eq!(scope("both"), Ok(Scope::Id));
        assert_eq!(
            scope("x").unwrap_err(),
            "unknown circuit breaker scope \"x\""
        );
        assert_eq!(
            scope("").unwrap_err(),
            "actor circuit breakers must include scope"
        );
        assert_eq!(
            actors(json!({"retry": "r"})).unwrap().actors["a"].breakers,
            ACTORS
        );
    }
}
