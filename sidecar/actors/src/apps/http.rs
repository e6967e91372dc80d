//! An application that hosts actors over HTTP.
//! <https://docs.dapr.io/reference/api/actors_api/#dapr-calling-to-user-service-code>

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;
use outrider_call::channel::{Channel, Kind};
use outrider_call::message::{Code, Data, Origin, Request, Response};
use outrider_call::metadata::{self, Name};
use outrider_net::body::Body;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::CHAIN;
use crate::actor::Actor;
use crate::error::Error;
use crate::hosting::{Serve, Undelivered};
use crate::message::{Answer, Message, Wanted};
use crate::names;

/// An answer with it has the application's own error in its body.
pub const ERROR: &str = "X-Daprerrorresponseheader";
/// An answer with it ends a reminder.
const CANCEL: &str = "X-Daprremindercancel";
/// What stays as it is in a segment of a path.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'=')
    .remove(b':')
    .remove(b'@');
/// Bytes of a refusal that are passed on.
const REFUSAL: usize = 64 << 10;

pub struct HttpApp {
    pub channel: Arc<Channel>,
}

/// The body of a timer. Its keys stay in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Due<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<&'a str>,
    due_time: &'a str,
    period: &'a str,
}

#[async_trait]
impl Serve for HttpApp {
    async fn call(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        message: Message,
    ) -> Result<Answer, Error> {
        match message {
            Message::Method(request) => {
                let answered = self.method(actor, chain, *request).await;
                answered.map(|response| Answer::Method(Box::new(response)))
            }
            Message::Reminder(due) => {
                let data = due.data.as_deref().and_then(raw);
                let body = Due {
                    data,
                    callback: None,
                    due_time: &due.due_time,
                    period: &due.period,
                };
                let wanted = Wanted::default();
                self.due(actor, chain, ("remind", &due.name), &body, &wanted)
                    .await
            }
            Message::Timer(due) => {
                let data = due.data.as_deref().and_then(raw);
                let body = Due {
                    data,
                    callback: Some(&due.callback),
                    due_time: &due.due_time,
                    period: &due.period,
                };
                self.due(actor, chain, ("timer", &due.name), &body, &due.wanted)
                    .await
            }
        }
    }

    async fn deactivate(&self, actor: &Actor) -> Result<(), Undelivered> {
        let path = path(actor).map_err(|error| Undelivered {
            text: error.to_string(),
            reason: "invoke".to_owned(),
        })?;
        let request = Request {
            verb: Some(Method::DELETE),
            ..request(path, "application/x-protobuf", Bytes::new())
        };
        let answered = self.send(request, &Wanted::default()).await;
        let answered = answered.map_err(|error| Undelivered {
            text: error.to_string(),
            reason: "invoke".to_owned(),
        })?;
        let Some((response, body)) = answered else {
            return Ok(());
        };
        match response.code.number() {
            200 => Ok(()),
            status => Err(Undelivered {
                text: format!("error from actor service: ({status}) {}", shown(&body)),
                reason: format!("status_code_{status}"),
            }),
        }
    }

    fn is_reachable(&self) -> bool {
        self.channel.healthy.is_healthy()
    }
}

impl HttpApp {
    async fn method(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        mut request: Request,
    ) -> Result<Response, Error> {
        let path = format!("{}/method/{}", path(actor)?, request.method);
        let method = std::mem::replace(&mut request.method, path);
        request.verb = Some(Method::PUT);
        request.metadata.retain(|(name, _)| !name.is(CHAIN));
        if let Some(chain) = chain.and_then(metadata::value) {
            request.metadata.push((Name::from_static(CHAIN), chain));
        }
        let mut response = self
            .channel
            .invoke(request)
            .await
            .map_err(|status| Error::App(status.message().to_owned()))?;
        let status = match &response.code {
            Code::Http(status) => *status,
            Code::Grpc(_) => 200,
        };
        match status {
            200 if metadata::find(&response.headers, CANCEL).is_some() => {
                Err(Error::ReminderCanceled)
            }
            200 => Ok(response),
            404 => Err(Error::UnknownMethod(format!(
                "actors/{}/{}/method/{method}",
                actor.kind, actor.id
            ))),
            status => {
                let body = refusal(&mut response.body).await;
                let text = format!("({status}) {}", shown(&body));
                Err(Error::App(text))
            }
        }
    }

    async fn due(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        (what, name): (&str, &str),
        body: &Due<'_>,
        wanted: &Wanted,
    ) -> Result<Answer, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Invalid(error.to_string()))?;
        let path = format!("{}/method/{what}/{}", path(actor)?, segment(name)?);
        let mut request = request(path, "application/json", body.into());
        if let Some(chain) = chain.and_then(metadata::value) {
            request.metadata.push((Name::from_static(CHAIN), chain));
        }
        if !self.channel.healthy.is_healthy() {
            return Err(Error::App("app is not in a healthy state".to_owned()));
        }
        let Some((response, body)) = self.send(request, wanted).await? else {
            return Ok(Answer::Handled { cancel: false });
        };
        match response.code {
            Code::Http(200) => Ok(Answer::Handled {
                cancel: metadata::find(&response.headers, CANCEL).is_some(),
            }),
            code => Err(Error::App(format!("({}) {}", code.number(), shown(&body)))),
        }
    }

    /// The answer, and the beginning of its body. None if the request was not
    /// wanted any more when there was room for it.
    async fn send(
        &self,
        request: Request,
        wanted: &Wanted,
    ) -> Result<Option<(Response, Bytes)>, Error> {
        let Kind::Http(client) = &self.channel.kind else {
            return Err(Error::NoApp);
        };
        let permit = self.channel.permit().await;
        if !wanted.holds() {
            return Ok(None);
        }
        let answered = client.invoke(permit, request, false).await;
        let mut response = answered.map_err(|status| Error::App(status.message().to_owned()))?;
        let body = refusal(&mut response.body).await;
        Ok(Some((response, body)))
    }
}

/// Names in a path arrive whole, whatever is in them.
fn path(actor: &Actor) -> Result<String, Error> {
    let (kind, id) = (segment(&actor.kind)?, segment(&actor.id)?);
    Ok(format!("actors/{kind}/{id}"))
}

/// A name as one segment. Dots would lead to another path, and nothing escapes
/// them.
fn segment(name: &str) -> Result<PercentEncode<'_>, Error> {
    names::check_segment(name).map_err(Error::Invalid)?;
    Ok(utf8_percent_encode(name, PLAIN))
}

fn request(path: String, content_type: &str, body: Bytes) -> Request {
    Request {
        method: path,
        verb: Some(Method::PUT),
        query: String::new(),
        metadata: Vec::new(),
        origin: Origin::Http,
        content_type: Some(content_type.to_owned()),
        content_length: Some(body.len() as u64),
        data_type_url: String::new(),
        body: Data::Whole(body),
    }
}

/// JSON as it is; what is no JSON is left out.
fn raw(data: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(data).ok()
}

/// The beginning of a body, as much of it as is passed on.
async fn refusal(body: &mut Body) -> Bytes {
    let mut text = BytesMut::new();
    while text.len() < REFUSAL
        && let Some(Ok(frame)) = body.frame().await
    {
        let data = frame.into_data().unwrap_or_default();
        text.extend_from_slice(&data[..data.len().min(REFUSAL - text.len())]);
    }
    text.freeze()
}

fn shown(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// Whether an answer is the application's own error.
pub fn is_error(response: &Response) -> bool {
    let said = metadata::find(&response.headers, ERROR).map(HeaderValue::as_bytes);
    said.is_some_and(|said| said.eq_ignore_ascii_case(b"true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_in_paths() {
        let actor = Actor::new("my type", "a||b/c%20@é");
        assert_eq!(
            path(&actor).unwrap(),
            "actors/my%20type/a%7C%7Cb%2Fc%2520@%C3%A9"
        );
        let whole = outrider_call::method::escape(&path(&actor).unwrap()).unwrap();
        assert_eq!(
            whole,
            path(&actor).unwrap(),
            "the client escapes nothing again"
        );
    }

    #[test]
    fn dots_lead_to_no_other_path() {
        for (kind, id) in [("T", ".."), ("..", "1"), ("T", "."), (".", "1")] {
            assert!(path(&Actor::new(kind, id)).is_err(), "{kind} {id}");
        }
        assert!(segment("..").is_err());
    }

    #[tokio::test]
    async fn a_long_refusal_is_cut() {
        let mut body = outrider_net::body::full(vec![b'x'; REFUSAL + 1]);
        assert_eq!(refusal(&mut body).await.len(), REFUSAL);
    }

    #[test]
    fn the_keys_of_a_timer_keep_their_order() {
        let data = raw(br#"{"b":1, "a":2}"#);
        let due = Due {
            data,
            callback: Some("c"),
            due_time: "1s",
            period: "",
        };
        let text = serde_json::to_string(&due).unwrap();
        assert_eq!(
            text,
            r#"{"data":{"b":1, "a":2},"callback":"c","dueTime":"1s","period":""}"#
        );
    }
}
