//! Which path of the application an event belongs to.
//! <https://docs.dapr.io/developing-applications/building-blocks/pubsub/howto-route-messages/>

use std::collections::HashMap;
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program};
use outrider_crds::subscription::Routes;
use serde_json::Value;

use crate::api::pubsub::envelope::Event;

/// Signs and brackets in one condition, and brackets within brackets. Both make
/// its tree deeper, which is read, evaluated and dropped level by level, on the
/// stack.
const SIGNS: usize = 1000;
const NESTING: usize = 24;

/// A condition and its path.
#[derive(Debug)]
pub struct Rule {
    /// As it was written; empty holds always.
    pub condition: String,
    pub path: String,
    program: Option<Program>,
}

/// The rules in their order, the default at the end. Without any, every event
/// has the empty path.
pub fn compile(routes: &Routes) -> Result<Vec<Rule>, String> {
    let mut rules = Vec::with_capacity(routes.rules.len() + 1);
    for rule in &routes.rules {
        let condition = rule.condition.trim();
        bounded(condition)?;
        let program = (!condition.is_empty())
            .then(|| Program::compile(condition))
            .transpose()
            .map_err(|cause| format!("invalid match expression {condition:?}: {cause}"))?;
        rules.push(Rule {
            condition: rule.condition.clone(),
            path: rule.path.clone(),
            program,
        });
    }
    if !routes.default.is_empty() || rules.is_empty() {
        rules.push(Rule {
            condition: String::new(),
            path: routes.default.clone(),
            program: None,
        });
    }
    Ok(rules)
}

/// Refuses what could exhaust the stack. Text in quotes counts like the rest.
fn bounded(condition: &str) -> Result<(), String> {
    let (mut signs, mut depth, mut deepest) = (0_usize, 0_usize, 0);
    for byte in condition.bytes() {
        signs += usize::from(byte.is_ascii_punctuation() && !b"_,'\"".contains(&byte));
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if signs > SIGNS || deepest > NESTING {
        let start: String = condition.chars().take(40).collect();
        return Err(format!(
            "invalid match expression {start:?}…: at most {SIGNS} signs and {NESTING} nested brackets are allowed"
        ));
    }
    Ok(())
}

/// What conditions are about.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    Event(&'a Event),
    /// A message without an envelope.
    Raw(&'a [u8]),
}

/// The path of the first rule that holds. A condition that has no answer
/// spoils the rules after it.
pub fn find<'a>(rules: &'a [Rule], subject: Subject<'_>) -> Result<Option<&'a str>, String> {
    let mut context = None;
    for rule in rules {
        let Some(program) = &rule.program else {
            return Ok(Some(&rule.path));
        };
        let context = context.get_or_insert_with(|| {
            let mut context = Context::default();
            context.add_variable_from_value("event", subject.value());
            context
        });
        match program.execute(context) {
            Ok(cel::Value::Bool(true)) => return Ok(Some(&rule.path)),
            Ok(cel::Value::Bool(false)) => {}
            Ok(_) => {
                return Err(format!(
                    "the result of match expression {} was not a boolean",
                    outrider_kit::quote::go(&rule.condition)
                ));
            }
            Err(ExecutionError::NoSuchKey(key)) => return Err(format!("no such key: {key}")),
            Err(ExecutionError::UndeclaredReference(name)) => {
                return Err(format!("no such attribute(s): {name}"));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(None)
}

impl Subject<'_> {
    fn value(self) -> cel::Value {
        match self {
            Subject::Raw(data) => text(String::from_utf8_lossy(data).into_owned()),
            Subject::Event(event) => {
                let attributes = event.attributes().filter_map(|(name, raw)| {
                    let value: Value = serde_json::from_str(raw).ok()?;
                    Some((Key::from(name), of_json(value)))
                });
                map(attributes.collect())
            }
        }
    }
}

/// Every number is a float, as in other JSON that CEL is used on.
fn of_json(value: Value) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(bool) => cel::Value::Bool(bool),
        Value::Number(number) => cel::Value::Float(number.as_f64().unwrap_or_default()),
        Value::String(string) => text(string),
        Value::Array(items) => cel::Value::List(Arc::new(items.into_iter().map(of_json).collect())),
        Value::Object(object) => map(object
            .into_iter()
            .map(|(k, v)| (Key::from(k), of_json(v)))
            .collect()),
    }
}

fn text(text: String) -> cel::Value {
    cel::Value::String(Arc::new(text))
}

fn map(map: HashMap<Key, cel::Value>) -> cel::Value {
    cel::Value::Map(Map { map: Arc::new(map) })
}

#[cfg(test)]
mod tests {
    use outrider_crds::subscription::Rule as Given;
    use proptest::prelude::*;

    use super::*;

    fn rules(given: &[(&str, &str)], default: &str) -> Result<Vec<Rule>, String> {
        let rules = given.iter().map(|(condition, path)| Given {
            condition: (*condition).to_owned(),
            path: (*path).to_owned(),
        });
        compile(&Routes {
            rules: rules.collect(),
            default: default.to_owned(),
        })
    }

    fn path(given: &[(&str, &str)], default: &str) -> Result<Option<String>, String> {
        let event = br#"{"type":"order","id":"1","data":{"n":5,"list":["a"],"f":1.5}}"#;
        let event = Event::read(event).unwrap();
        let rules = rules(given, default).unwrap();
        find(&rules, Subject::Event(&event)).map(|path| path.map(str::to_owned))
    }

    #[test]
    fn the_first_that_holds() {
        let got = |given: &[(&str, &str)], default: &str| path(given, default).unwrap();
        assert_eq!(got(&[], "/d").as_deref(), Some("/d"));
        assert_eq!(got(&[], "").as_deref(), Some(""));
        assert_eq!(got(&[("event.type == 'x'", "/x")], ""), None);
        assert_eq!(
            got(&[("event.type == 'x'", "/x")], "/d").as_deref(),
            Some("/d")
        );
        for condition in [
            "event.type == \"order\"",
            "event['type'] in ['order', 'x']",
            "event.data.n == 5 && event.data.n > 4 && event.data.n < 5.5",
            "event.data.f + 1.0 == 2.5",
            "event.type.startsWith('or') || event.missing == 1",
            "!has(event.data.x)",
            "event.data.list.exists(x, x == 'a')",
            "event.type.matches('^o.*r$')",
            "size(event.data.list) == 1",
            " ",
        ] {
            assert_eq!(
                got(&[(condition, "/y")], "/d").as_deref(),
                Some("/y"),
                "{condition}"
            );
        }
    }

    #[test]
    fn conditions_that_would_exhaust_the_stack() {
        for condition in [
            "(".repeat(100) + "true" + &")".repeat(100),
            "1+".repeat(5000) + "1 == 1",
            "event".to_owned() + &".a".repeat(3000),
            "!".repeat(3000) + "true",
        ] {
            let refused = rules(&[(&condition, "/x")], "").unwrap_err();
            assert!(refused.starts_with("invalid match expression"), "{refused}");
        }
        let many = vec!["event.type == 'com.example.order.created'"; 40].join(" || ");
        assert!(bounded(&many).is_ok());
    }

    #[test]
    fn conditions_without_an_answer() {
        for (condition, cause) in [
            ("event.data.x > 5", "no such key: x"),
            ("foo == 1", "no such attribute(s): foo"),
            (
                "\"a\"",
                "the result of match expression \"\\\"a\\\"\" was not a boolean",
            ),
        ] {
            assert_eq!(path(&[(condition, "/y")], "/d").unwrap_err(), cause);
        }
        assert!(
            rules(&[("event.type ==", "/y")], "")
                .unwrap_err()
                .contains("event.type ==")
        );
    }

    #[test]
    fn a_raw_message_is_text() {
        let rules = rules(&[("event == 'hello'", "/y")], "").unwrap();
        assert_eq!(find(&rules, Subject::Raw(b"hello")), Ok(Some("/y")));
        assert_eq!(find(&rules, Subject::Raw(b"other")), Ok(None));
    }

    proptest! {
        #[test]
        fn prop_conditions_never_panic(condition in "[a-z.'()&|=<>!0-9 \\[\\]]{0,30}") {
            if let Ok(rules) = rules(&[(&condition, "/y")], "/d") {
                let event = Event::read(b"{\"type\":\"order\"}").unwrap();
                let _ = find(&rules, Subject::Event(&event));
            }
        }
    }
}
