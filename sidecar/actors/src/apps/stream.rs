//! An application that hosts actors over a stream that it has opened itself.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use outrider_call::message::{Code, Request, Response};
use outrider_call::metadata::{self, Metadata, Name};
use outrider_net::body;
use outrider_proto::runtime::v1 as wire;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use wire::subscribe_actor_events_request_alpha1::RequestType as Said;
use wire::subscribe_actor_events_response_alpha1::ResponseType as Asked;

use super::config::Config;
use super::http::ERROR;
use crate::actor::Actor;
use crate::actors::Actors;
use crate::any;
use crate::error::Error;
use crate::hosting::{Serve, Undelivered};
use crate::message::{Answer, Message};
use crate::{CHAIN, SCOPE};

/// Requests on their way to the application; calls wait for room.
const ROOM: usize = 64;

type Event = Result<wire::SubscribeActorEventsResponseAlpha1, Status>;

/// One stream of the application.
struct StreamApp {
    events: mpsc::Sender<Event>,
    next: AtomicU64,
    /// Requests without an answer yet, by their ids.
    open: Mutex<HashMap<String, oneshot::Sender<Said>>>,
    /// The stream has ended.
    ended: CancellationToken,
}

/// Hosts what the application says first, for as long as its stream is open.
pub async fn serve(
    actors: &Actors,
    mut requests: impl Stream<Item = Result<wire::SubscribeActorEventsRequestAlpha1, Status>>
    + Send
    + Unpin
    + 'static,
    dissemination: Duration,
    stopping: CancellationToken,
) -> Result<mpsc::Receiver<Event>, Status> {
    let first = requests.next().await.transpose()?;
    let Some(Said::InitialRequest(first)) = first.and_then(|first| first.request_type) else {
        return Err(Status::invalid_argument(
            "first message must be SubscribeActorEventsRequestInitialAlpha1",
        ));
    };
    let types = Config::from(first)
        .types(dissemination)
        .map_err(Status::invalid_argument)?;
    let (events, receiver) = mpsc::channel(ROOM);
    let app = Arc::new(StreamApp {
        events,
        next: AtomicU64::new(1),
        open: Mutex::default(),
        ended: CancellationToken::new(),
    });
    let ready = Asked::InitialResponse(wire::SubscribeActorEventsResponseInitialAlpha1 {});
    // There is room for the first.
    let _ = app
        .events
        .try_send(Ok(wire::SubscribeActorEventsResponseAlpha1 {
            response_type: Some(ready),
        }));
    let registration = actors.hosting().register(types, app.clone());
    actors.spawn("stream of actor events", async move {
        let reading = async {
            while let Some(Ok(said)) = requests.next().await {
                app.answered(said);
            }
        };
        tokio::select! {
            () = reading => {}
            () = app.events.closed() => {}
            () = stopping.cancelled() => {
                let last = app.events.send(Err(Status::unavailable("the sidecar is shutting down")));
                let _ = tokio::time::timeout(Duration::from_millis(100), last).await;
            }
        }
        drop(registration);
        app.ended.cancel();
        locked(&app.open).clear();
    });
    Ok(receiver)
}

/// Forgets a request that nobody waits for any more.
struct Opened<'a> {
    app: &'a StreamApp,
    id: String,
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        locked(&self.app.open).remove(&self.id);
    }
}

impl StreamApp {
    fn answered(&self, said: wire::SubscribeActorEventsRequestAlpha1) {
        let Some(said) = said.request_type else {
            return;
        };
        let id = match &said {
            Said::InitialRequest(_) => {
                tracing::warn!(target: SCOPE, "an application says once more which actors it hosts: a stream has one first message, open another stream for others");
                return;
            }
            Said::InvokeResponse(answer) => &answer.id,
            Said::ReminderResponse(answer) | Said::TimerResponse(answer) => &answer.id,
            Said::DeactivateResponse(answer) => &answer.id,
            Said::RequestFailed(answer) => &answer.id,
        };
        let waiting = locked(&self.open).remove(id);
        match waiting {
            Some(waiting) => drop(waiting.send(said)),
            None => {
                tracing::debug!(target: SCOPE, "an application answers request {id}, for which nobody waits");
            }
        }
    }

    async fn ask(&self, request: impl FnOnce(String) -> Asked) -> Result<Said, Error> {
        let gone = || Error::App("actor host disconnected before responding".to_owned());
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let (answer_tx, answer) = oneshot::channel();
        locked(&self.open).insert(id.clone(), answer_tx);
        let opened = Opened {
            app: self,
            id: id.clone(),
        };
        if self.ended.is_cancelled() {
            return Err(Error::Moved);
        }
        let event = wire::SubscribeActorEventsResponseAlpha1 {
            response_type: Some(request(id)),
        };
        let room = self.events.reserve();
        let Some(Ok(room)) = self.ended.run_until_cancelled(room).await else {
            // Not sent.
            return Err(Error::Moved);
        };
        room.send(Ok(event));
        let answered = answer.await.map_err(|_| gone());
        drop(opened);
        answered
    }

    async fn method(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        request: Request,
    ) -> Result<Response, Error> {
        let (method, metadata) = (request.method.clone(), pairs(&request, chain));
        let data = request.body.collect(None).await;
        let data = data.map_err(|status| Error::Invalid(status.message().to_owned()))?;
        let said = self.ask(|id| {
            Asked::InvokeRequest(wire::SubscribeActorEventsResponseInvokeRequestAlpha1 {
                id,
                actor_type: actor.kind.to_string(),
                actor_id: actor.id.to_string(),
                method: request.method,
                data,
                metadata,
            })
        });
        match said.await? {
            Said::InvokeResponse(answer) => Ok(response(answer)),
            Said::RequestFailed(failed) if failed.code == tonic::Code::NotFound as u32 => {
                Err(Error::UnknownMethod(method))
            }
            Said::RequestFailed(failed) => Err(Error::App(failed.message)),
            _ => Err(mismatched()),
        }
    }

    async fn due(&self, request: impl FnOnce(String) -> Asked) -> Result<Answer, Error> {
        match self.ask(request).await? {
            Said::ReminderResponse(answer) | Said::TimerResponse(answer) => Ok(Answer::Handled {
                cancel: answer.cancel,
            }),
            Said::RequestFailed(failed) => Err(Error::App(failed.message)),
            _ => Err(mismatched()),
        }
    }
}

#[async_trait]
impl Serve for StreamApp {
    async fn call(
        &self,
        actor: &Actor,
        chain: Option<&str>,
        message: Message,
    ) -> Result<Answer, Error> {
        let (actor_type, actor_id) = (actor.kind.to_string(), actor.id.to_string());
        match message {
            Message::Method(request) => {
                let answered = self.method(actor, chain, *request).await;
                answered.map(|response| Answer::Method(Box::new(response)))
            }
            Message::Reminder(due) => {
                self.due(|id| {
                    Asked::ReminderRequest(
                        wire::SubscribeActorEventsResponseReminderRequestAlpha1 {
                            id,
                            actor_type,
                            actor_id,
                            name: due.name,
                            due_time: due.due_time,
                            period: due.period,
                            data: due.data.map(any::of),
                            metadata: chained(chain),
                        },
                    )
                })
                .await
            }
            Message::Timer(due) if !due.wanted.holds() => Ok(Answer::Handled { cancel: false }),
            Message::Timer(due) => {
                self.due(|id| {
                    Asked::TimerRequest(wire::SubscribeActorEventsResponseTimerRequestAlpha1 {
                        id,
                        actor_type,
                        actor_id,
                        name: due.name,
                        due_time: due.due_time,
                        period: due.period,
                        callback: due.callback,
                        data: due.data.map(any::of),
                        metadata: chained(chain),
                    })
                })
                .await
            }
        }
    }

    async fn deactivate(&self, actor: &Actor) -> Result<(), Undelivered> {
        let said = self.ask(|id| {
            Asked::DeactivateRequest(wire::SubscribeActorEventsResponseDeactivateRequestAlpha1 {
                id,
                actor_type: actor.kind.to_string(),
                actor_id: actor.id.to_string(),
            })
        });
        let undelivered = |text: String| Undelivered {
            text,
            reason: "invoke".to_owned(),
        };
        match said.await {
            Ok(Said::DeactivateResponse(_)) => Ok(()),
            Ok(Said::RequestFailed(failed)) => {
                let text = format!("error from actor service: {}", failed.message);
                Err(undelivered(text))
            }
            Ok(_) => Err(undelivered(mismatched().to_string())),
            Err(error) => Err(undelivered(error.to_string())),
        }
    }

    fn is_reachable(&self) -> bool {
        !self.ended.is_cancelled()
    }
}

fn mismatched() -> Error {
    Error::App("the application answers something else than it was asked".to_owned())
}

/// What the application gets besides the data.
fn pairs(request: &Request, chain: Option<&str>) -> HashMap<String, String> {
    let mut pairs = chained(chain);
    for (name, value) in &request.metadata {
        let Ok(value) = std::str::from_utf8(value.as_bytes()) else {
            continue;
        };
        if name.is(CHAIN) {
            continue;
        }
        let mut spelled = Vec::with_capacity(name.encoded_len());
        name.put(&mut spelled);
        let spelled = String::from_utf8_lossy(&spelled).into_owned();
        pairs.entry(spelled).or_insert_with(|| value.to_owned());
    }
    if let Some(content_type) = &request.content_type {
        pairs.insert("content-type".to_owned(), content_type.clone());
    }
    pairs
}

fn chained(chain: Option<&str>) -> HashMap<String, String> {
    let pair = chain.map(|chain| (CHAIN.to_owned(), chain.to_owned()));
    pair.into_iter().collect()
}

fn response(answer: wire::SubscribeActorEventsRequestInvokeResponseAlpha1) -> Response {
    let mut headers = Metadata::new();
    let mut content_type = None;
    for (name, value) in answer.metadata {
        if name.eq_ignore_ascii_case("content-type") {
            content_type = Some(value);
        } else if let Some(value) = metadata::value(&value) {
            headers.push((Name::from(name.as_str()), value));
        }
    }
    if answer.error {
        headers.push((Name::from_static(ERROR), HeaderValue::from_static("true")));
    }
    Response {
        code: Code::Http(200),
        headers,
        trailers: Metadata::new(),
        content_type,
        data_type_url: String::new(),
        body: body::full(answer.data),
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
