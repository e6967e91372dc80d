//! The bodies by which reminders and timers are registered over HTTP. Keys match
//! in any case, and data stays the text that the client wrote, without white space.

use bytes::Bytes;
use outrider_proto::common::v1::JobFailurePolicy;
use serde::Deserialize as _;
use serde_json::value::RawValue;

use super::any;
use crate::blocks::error::{self, malformed};
use crate::blocks::http::Request;
use crate::blocks::jobs::decode::failure_policy;
use crate::blocks::json;
use crate::blocks::json::members::Members;
use crate::blocks::json::shape::Shape;

/// What is to be done later.
#[derive(Debug, Default, PartialEq)]
pub struct Due {
    pub due_time: String,
    pub period: String,
    pub ttl: String,
    pub callback: String,
    pub data: Option<Bytes>,
    pub overwrite: Option<bool>,
    pub failure_policy: Option<JobFailurePolicy>,
}

const SHAPE: Shape = Shape::Struct(
    "api.createReminderAlias",
    &[
        ("dueTime", Shape::Text),
        ("period", Shape::Text),
        ("ttl", Shape::Text),
        ("callback", Shape::Text),
        ("data", Shape::Any),
    ],
);

/// What a request says.
pub async fn of(request: &mut Request) -> error::Result<Due> {
    let body = request
        .bytes()
        .await
        .map_err(|cause| malformed(cause.to_string()).of_body(&cause))?;
    read(&body).map_err(|cause| malformed(format!("failed deserializing HTTP body: {cause}")))
}

/// The first JSON value of a body; what follows it is not looked at.
fn read(body: &[u8]) -> Result<Due, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = Option::<Members<'_>>::deserialize(&mut deserializer);
    let failed = |error: &serde_json::Error| json::decode_error(error, body, &SHAPE);
    let members = read.map_err(|error| failed(&error))?;
    let mut due = Due::default();
    for (name, value) in members.map(|Members(all)| all).unwrap_or_default() {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let text = |into: &mut String| -> Result<(), String> {
            let text: Option<String> = parsed(value).map_err(|error| failed(&error))?;
            text.into_iter().for_each(|text| *into = text);
            Ok(())
        };
        if is("dueTime") {
            text(&mut due.due_time)?;
        } else if is("period") {
            text(&mut due.period)?;
        } else if is("ttl") {
            text(&mut due.ttl)?;
        } else if is("callback") {
            text(&mut due.callback)?;
        } else if is("data") {
            due.data = Some(any::compact(value.get()));
        } else if is("overwrite") {
            due.overwrite = parsed(value).map_err(|_| invalid("overwrite", value))?;
        } else if is("failurePolicy") || is("failure_policy") {
            let policy: Option<serde_json::Value> =
                parsed(value).map_err(|_| invalid("failurePolicy", value))?;
            due.failure_policy = policy.map(failure_policy).transpose()?;
        }
    }
    Ok(due)
}

fn parsed<'a, T: serde::Deserialize<'a>>(value: &'a RawValue) -> Result<T, serde_json::Error> {
    serde_json::from_str(value.get())
}

fn invalid(field: &str, value: &RawValue) -> String {
    format!("invalid value for field {field}: {value}")
}

#[cfg(test)]
mod tests {
    use outrider_proto::common::v1::job_failure_policy::Policy;

    use super::*;

    #[test]
    fn a_body_has_fields_of_any_case_and_data_keeps_its_numbers() {
        let body = br#"{"DUETIME":"1s","period":"2s","ttl":null,"data":{"a": 12345678901234567890},"x":1} rest"#;
        let due = read(body).unwrap();
        assert_eq!((due.due_time.as_str(), due.period.as_str()), ("1s", "2s"));
        assert_eq!(due.ttl, "");
        assert_eq!(
            due.data.unwrap(),
            r#"{"a":12345678901234567890}"#.as_bytes()
        );
        assert_eq!(read(b"null"), Ok(Due::default()));
        assert_eq!(read(br#"{"data":null}"#).unwrap().data.unwrap(), "null");
    }

    #[test]
    fn failure_policies_have_two_spellings() {
        for body in [
            r#"{"failurePolicy":{"constant":{"interval":"2s","maxRetries":1}}}"#,
            r#"{"failure_policy":{"constant":{"interval":"2s","max_retries":1}}}"#,
        ] {
            let due = read(body.as_bytes()).unwrap();
            let Some(Policy::Constant(constant)) = due.failure_policy.unwrap().policy else {
                panic!("{body}");
            };
            assert_eq!(constant.max_retries, Some(1));
        }
    }

    #[test]
    fn what_is_no_body_is_refused() {
        assert_eq!(read(b""), Err("EOF".to_owned()));
        assert_eq!(read(b"{"), Err("unexpected EOF".to_owned()));
        for body in [r#"{"dueTime":5}"#, r#"{"overwrite":"yes"}"#, "[]", "5"] {
            assert!(read(body.as_bytes()).is_err(), "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn prop_any_bytes_are_read_or_refused(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&body);
        }
    }
}
