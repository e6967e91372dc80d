//! Which path of the application an event belongs to.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/howto-route-messages/>

use outrider_condition::{Condition, Scope, Value, of_json, text};
use outrider_crds::subscription::Routes;

use crate::blocks::pubsub::envelope::Event;

/// What conditions are about.
const VARIABLE: &str = "event";

/// A condition and its path.
#[derive(Debug)]
pub struct Rule {
    /// As it was written; empty holds always.
    pub condition: String,
    pub path: String,
    program: Option<Condition>,
}

/// Rules in their order, with the default at the end.
#[derive(Debug)]
pub struct Rules {
    pub all: Vec<Rule>,
    has_default: bool,
}

/// Where an event goes.
#[derive(Debug, PartialEq, Eq)]
pub enum Route<'a> {
    Path(&'a str),
    /// To the default path, since a condition has no answer.
    Default {
        path: &'a str,
        cause: String,
    },
    Nowhere,
}

impl Rules {
    /// Without any rule, every event has the empty path.
    pub fn compile(routes: &Routes) -> Result<Self, String> {
        let mut all = Vec::with_capacity(routes.rules.len() + 1);
        for rule in &routes.rules {
            let condition = rule.condition.trim();
            let program = (!condition.is_empty())
                .then(|| Condition::compile(condition, &[VARIABLE]))
                .transpose()
                .map_err(|cause| format!("invalid match expression {condition:?}: {cause}"))?;
            all.push(Rule {
                condition: rule.condition.clone(),
                path: rule.path.clone(),
                program,
            });
        }
        let has_default = !routes.default.is_empty() || all.is_empty();
        if has_default {
            all.push(Rule {
                condition: String::new(),
                path: routes.default.clone(),
                program: None,
            });
        }
        Ok(Self { all, has_default })
    }

    /// The path of the first rule that holds. An event that a rule fails on
    /// goes to the default path; an error if there is none.
    pub fn find(&self, subject: Subject<'_>) -> Result<Route<'_>, String> {
        let mut scope = None;
        for rule in &self.all {
            let Some(program) = &rule.program else {
                return Ok(Route::Path(&rule.path));
            };
            let scope = scope
                .get_or_insert_with(|| Scope::new([(VARIABLE, subject.value())], subject.size()));
            match scope.holds(program) {
                Ok(true) => return Ok(Route::Path(&rule.path)),
                Ok(false) => {}
                Err(cause) => {
                    let cause = cause.to_string();
                    return match self.all.last().filter(|_| self.has_default) {
                        Some(Rule { path, .. }) => Ok(Route::Default { path, cause }),
                        None => Err(cause),
                    };
                }
            }
        }
        Ok(Route::Nowhere)
    }
}

/// What conditions are evaluated on.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    Event(&'a Event<'a>),
    /// A message without an envelope.
    Raw(&'a [u8]),
}

impl Subject<'_> {
    fn value(self) -> Value {
        match self {
            Subject::Raw(data) => text(String::from_utf8_lossy(data).into_owned()),
            Subject::Event(event) => {
                let attributes = event.attributes().filter_map(|(name, json)| {
                    Some((name.to_owned(), serde_json::from_str(&json).ok()?))
                });
                of_json(serde_json::Value::Object(attributes.collect()))
            }
        }
    }

    fn size(self) -> usize {
        match self {
            Subject::Raw(data) => data.len(),
            Subject::Event(event) => event.attributes().map(|(_, json)| json.len()).sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use outrider_crds::subscription::Rule as Given;

    use super::*;

    fn rules(given: &[(&str, &str)], default: &str) -> Result<Rules, String> {
        let rules = given.iter().map(|(condition, path)| Given {
            condition: (*condition).to_owned(),
            path: (*path).to_owned(),
        });
        Rules::compile(&Routes {
            rules: rules.collect(),
            default: default.to_owned(),
        })
    }

    fn event() -> Event<'static> {
        let event = br#"{"type":"order","id":"1","time":"2026-01-01T00:00:00Z","data":{"n":5}}"#;
        Event::read(&bytes::Bytes::from_static(event)).unwrap()
    }

    #[test]
    fn the_first_that_holds() {
        let event = event();
        for (given, default, path) in [
            (&[][..], "/d", Some("/d")),
            (&[], "", Some("")),
            (&[("event.type == 'x'", "/x")], "", None),
            (&[("event.type == 'x'", "/x")], "/d", Some("/d")),
            (&[(" ", "/x")], "/d", Some("/x")),
            (
                &[("event.type == 'x'", "/x"), ("event.data.n == 5", "/y")],
                "/d",
                Some("/y"),
            ),
            (
                &[(
                    "timestamp(event.time) > timestamp('2020-01-01T00:00:00Z')",
                    "/new",
                )],
                "/d",
                Some("/new"),
            ),
        ] {
            let rules = rules(given, default).unwrap();
            let route = path.map_or(Route::Nowhere, Route::Path);
            assert_eq!(rules.find(Subject::Event(&event)), Ok(route), "{given:?}");
        }
    }

    #[test]
    fn an_event_that_a_rule_fails_on_goes_to_the_default() {
        let event = event();
        let given = [("event.data.x > 5", "/x"), ("true", "/y")];
        let cause = "no such key: x".to_owned();
        let with_default = rules(&given, "/d").unwrap();
        assert_eq!(
            with_default.find(Subject::Event(&event)),
            Ok(Route::Default {
                path: "/d",
                cause: cause.clone()
            })
        );
        let without = rules(&given, "").unwrap();
        assert_eq!(without.find(Subject::Event(&event)), Err(cause));
    }

    #[test]
    fn rules_are_checked_when_they_are_read() {
        for (condition, name) in [
            ("event.type.lowerCase() == 'x'", "lowerCase"),
            ("foo == 1", "foo"),
            ("event.type ==", "event.type =="),
        ] {
            let refused = rules(&[(condition, "/x")], "/d").unwrap_err();
            assert!(refused.contains(name), "{refused}");
        }
    }

    #[test]
    fn a_raw_message_is_text() {
        let rules = rules(&[("event == 'hello'", "/y")], "").unwrap();
        assert_eq!(rules.find(Subject::Raw(b"hello")), Ok(Route::Path("/y")));
        assert_eq!(rules.find(Subject::Raw(b"other")), Ok(Route::Nowhere));
    }
}
