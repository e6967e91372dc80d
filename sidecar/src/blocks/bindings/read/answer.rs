//! What an application wants done with its answer to an event: state to be
//! saved, and other bindings that get it.
//! <https://docs.dapr.io/reference/api/bindings_api/#binding-endpoints>

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use outrider_components::Pairs;
use outrider_components::bindings::{CREATE, Request};
use outrider_components::state::SetRequest;
use outrider_proto::runtime::v1 as wire;
use outrider_proto::runtime::v1::binding_event_response::BindingEventConcurrency;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::SCOPE;
use crate::blocks::bindings::Api;
use crate::blocks::json::shape::Shape;
use crate::blocks::state;
use crate::blocks::state::decode::{Item, first};
use crate::components::map::Map;

/// What is to be done.
#[derive(Debug, Default)]
pub struct Wanted {
    store: String,
    items: Vec<SetRequest>,
    /// Output bindings, which get `data` by the operation `create`.
    to: Vec<String>,
    parallel: bool,
    data: Bytes,
}

impl Wanted {
    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.to.is_empty()
    }
}

/// The answer of an HTTP application. Keys match in any case.
#[derive(Default)]
struct Answer<'a> {
    store_name: String,
    state: Vec<Item>,
    to: Vec<String>,
    concurrency: String,
    data: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Answer<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Answer<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Answer<'de>, A::Error> {
                let mut into = Answer::default();
                while let Some(name) = access.next_key::<Cow<'de, str>>()? {
                    match name.to_ascii_lowercase().as_str() {
                        "storename" => {
                            into.store_name = access.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        "state" => {
                            into.state = access.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        "to" => into.to = access.next_value::<Option<_>>()?.unwrap_or_default(),
                        "concurrency" => {
                            into.concurrency =
                                access.next_value::<Option<_>>()?.unwrap_or_default();
                        }
                        "data" => into.data = access.next_value()?,
                        _ => drop(access.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(into)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// What the body of an HTTP application's answer asks for, if it does. Any
/// other body is for the binding alone.
pub fn of_http(body: &Bytes, binding: &str) -> Option<Wanted> {
    let start = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if start != Some(&b'{') {
        return None;
    }
    match decode(body) {
        Ok(wanted) => Some(wanted).filter(|wanted| !wanted.is_empty()),
        Err(cause) => {
            tracing::debug!(target: SCOPE, "the answer of the application to an event of binding {binding} asks for nothing: {cause}");
            None
        }
    }
}

fn decode(body: &Bytes) -> Result<Wanted, String> {
    let answer: Answer<'_> = first(body, &Shape::Any)?;
    let mut items = Vec::with_capacity(answer.state.len());
    for item in answer.state {
        if item.key.is_empty() {
            return Err("an item of the state has no key".to_owned());
        }
        let item = item.into_set(&HashMap::new());
        items.push(item.map_err(|cause| cause.to_string())?);
    }
    let data = answer.data.map(|data| data.get().as_bytes());
    Ok(Wanted {
        store: answer.store_name,
        items,
        to: answer.to,
        parallel: answer.concurrency.eq_ignore_ascii_case("parallel"),
        data: data.map_or_else(|| Bytes::from_static(b"null"), |data| body.slice_ref(data)),
    })
}

/// What a gRPC application asks for, if it does.
pub fn of_grpc(answer: wire::BindingEventResponse) -> Option<Wanted> {
    let parallel = answer.concurrency() == BindingEventConcurrency::Parallel;
    let mut items = Vec::with_capacity(answer.states.len());
    for item in answer.states {
        match state::grpc::set(item) {
            Ok(item) => items.push(item),
            Err(status) => {
                tracing::error!(target: SCOPE, "error saving state from app response: {}", status.message());
            }
        }
    }
    let wanted = Wanted {
        store: answer.store_name,
        items,
        to: answer.to,
        parallel,
        data: answer.data,
    };
    Some(wanted).filter(|wanted| !wanted.is_empty())
}

/// Where answers can go.
pub struct Outputs {
    pub api: Api,
    pub stores: Arc<Map<state::Store>>,
}

impl Outputs {
    /// Does what is wanted. What fails is logged: the event itself was
    /// delivered.
    pub async fn serve(&self, wanted: Wanted) {
        let Wanted {
            store,
            items,
            to,
            parallel,
            data,
        } = wanted;
        tokio::join!(self.save(&store, items), self.send(&to, parallel, &data));
    }

    async fn save(&self, name: &str, items: Vec<SetRequest>) {
        if items.is_empty() {
            return;
        }
        let saved = match self.stores.get(name) {
            Some(store) => store.save(items).await.map_err(|error| error.message),
            None => Err(format!("state store {name} is not found")),
        };
        if let Err(cause) = saved {
            tracing::error!(target: SCOPE, "error saving state from app response: {cause}");
        }
    }

    async fn send(&self, to: &[String], parallel: bool, data: &Bytes) {
        if parallel {
            let sending = to.iter().map(|name| self.create(name, data));
            futures_util::future::join_all(sending).await;
            return;
        }
        for name in to {
            if !self.create(name, data).await {
                return;
            }
        }
    }

    /// Returns whether it worked.
    async fn create(&self, binding: &str, data: &Bytes) -> bool {
        let request = Request {
            operation: CREATE.to_owned(),
            data: data.clone(),
            metadata: Pairs::new(),
        };
        let created = self.api.invoke(binding, &request).await;
        if let Err(cause) = &created {
            tracing::error!(target: SCOPE, "error executing app response: {cause}");
        }
        created.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(body: &'static str) -> Option<Wanted> {
        of_http(&Bytes::from(body), "b")
    }

    #[test]
    fn an_answer_names_state_and_bindings() {
        let wanted = of(
            r#" {"StoreName":"s","state":[{"key":"a","value":{"b":1.0}}],"to":["x","y"],"concurrency":"parallel","data":"d","more":1}"#,
        );
        let wanted = wanted.expect("asks for something");
        assert_eq!(wanted.store, "s");
        assert_eq!(wanted.items[0].key, "a");
        assert_eq!(wanted.items[0].value.bytes(), r#"{"b":1.0}"#);
        assert_eq!((wanted.to.len(), wanted.parallel), (2, true));
        assert_eq!(wanted.data, r#""d""#);
        let wanted = of(r#"{"to":["x"],"state":null}"#).expect("asks for something");
        assert_eq!((wanted.parallel, &*wanted.data), (false, &b"null"[..]));
    }

    #[test]
    fn any_other_answer_asks_for_nothing() {
        for body in [
            "",
            "hello",
            "[]",
            "{}",
            "{",
            r#"{"to":"someone"}"#,
            r#"{"to":[]}"#,
            r#"{"data":1,"storeName":"s"}"#,
            r#"{"state":[{"value":1}]}"#,
            r#"{"state":{"key":"a"}}"#,
        ] {
            assert!(of(body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_grpc_answer_is_taken_as_it_is() {
        let answer = wire::BindingEventResponse {
            store_name: "s".into(),
            to: vec!["x".into()],
            data: Bytes::from_static(b"\0"),
            concurrency: BindingEventConcurrency::Parallel.into(),
            ..Default::default()
        };
        let wanted = of_grpc(answer).expect("asks for something");
        assert_eq!((wanted.parallel, &*wanted.data), (true, &b"\0"[..]));
        assert!(of_grpc(wire::BindingEventResponse::default()).is_none());
    }

    proptest! {
        #[test]
        fn prop_never_panics(body in "\\{(\"(to|state|data|concurrency|storeName)\":(1|\"x\"|\\[\"x\"\\]|\\[\\{\"key\":\"k\"\\}\\]|null),?){0,3}\\}?") {
            let _ = of_http(&Bytes::from(body), "b");
        }
    }
}
