//! Changes of configuration to an HTTP application.
//! <https://docs.dapr.io/reference/api/configuration_api/#optional-application-user-code-routes>

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outrider_call::channel::Channel;
use outrider_call::message::Code;
use outrider_components::configuration::{Handler, Items};
use outrider_net::body;
use outrider_resiliency::{Block, Direction, Failure, Resiliency};
use serde::Serialize;

use super::SCOPE;
use super::http::{Shown, shown};
use super::subscriptions::Ended;
use crate::blocks::json;
use crate::blocks::pubsub::subscribe::deliver::post;

/// Bytes of an answer that are read, so that its connection can be used again.
const ANSWER_LIMIT: usize = 64 << 10;

/// Sends the changes of one subscription to the application.
pub struct ToApplication {
    pub channel: Arc<Channel>,
    pub resiliency: Resiliency,
    pub store: String,
    pub id: String,
    /// Nothing is tried again after the end.
    pub over: Ended,
}

#[derive(Serialize)]
struct Event<'a> {
    id: &'a str,
    items: BTreeMap<&'a str, Shown<'a>>,
}

#[async_trait]
impl Handler for ToApplication {
    /// One request for each key, with all items in it.
    async fn handle(&self, items: Items) {
        let event = Event {
            id: &self.id,
            items: shown(&items),
        };
        let body = Bytes::from(json::to_line(&event));
        for key in items.keys() {
            if let Err(cause) = self.deliver(key, &body).await {
                tracing::error!(target: SCOPE, "error sending configuration item to the app: {cause}");
            }
        }
    }
}

impl ToApplication {
    async fn deliver(&self, key: &str, body: &Bytes) -> Result<(), String> {
        let path = path(&self.store, key)?;
        let policy =
            self.resiliency
                .component(&self.store, Block::Configuration, Direction::Inbound);
        let Some(policy) = policy else {
            return self.once(&path, body).await.map_err(|failed| failed.0);
        };
        let policy = policy.until(&self.over.token());
        let running = policy.run(|_| self.once(&path, body));
        Box::pin(running).await.map_err(|error| error.to_string())
    }

    async fn once(&self, path: &str, event: &Bytes) -> Result<(), Failed> {
        let request = post(path, Vec::new(), "application/json", event.clone());
        let answer = self.channel.invoke(request).await;
        let answer = answer.map_err(|status| Failed(outrider_net::grpc::text(&status)))?;
        let is_success = match &answer.code {
            Code::Http(status) => *status == 200,
            Code::Grpc(status) => status.code() == tonic::Code::Ok,
        };
        let number = answer.code.number();
        let _ = body::collect(answer.body, Some(ANSWER_LIMIT)).await;
        match is_success {
            true => Ok(()),
            false => Err(Failed(format!(
                "error sending configuration item to application, status {number}"
            ))),
        }
    }
}

/// The application's path for a key. Whoever writes into the store chooses the
/// key, so it must not lead elsewhere.
fn path(store: &str, key: &str) -> Result<String, String> {
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if key.split(['/', '\\']).any(is_dots) {
        let key = outrider_kit::quote::go(key);
        return Err(format!("{key} is no path: it has a segment of dots"));
    }
    let escaped = |text: &str| text.replace('%', "%25").replace('?', "%3F");
    Ok(format!("configuration/{}/{}", escaped(store), escaped(key)))
}

/// Why a delivery failed.
#[derive(Debug)]
struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Failure for Failed {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_path_below_that_of_its_store() {
        assert_eq!(path("s", "a/b").unwrap(), "configuration/s/a/b");
        assert_eq!(path("s", "50%?x=1").unwrap(), "configuration/s/50%25%3Fx=1");
        for key in ["..", "a/../b", "./a", "a\\..\\b"] {
            assert!(path("s", key).is_err(), "{key}");
        }
    }
}
