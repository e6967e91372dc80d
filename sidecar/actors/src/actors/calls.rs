//! One call, from where its actor is to the answer.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outrider_call::metadata;
use outrider_net::body::Body;
use outrider_resiliency::{Error as Failed, Failure};
use tokio::time::Instant;

use super::{Inner, locked};
use crate::CHAIN;
use crate::actor::Actor;
use crate::error::Error;
use crate::held;
use crate::message::{Answer, Message};
use crate::routing::Owner;
use crate::table::{CallId, Enter, Event};
use crate::turn::Ticket;

/// How long an answer that the actor has moved is believed to be newer than
/// what is known here.
const NEWER_LIMIT: Duration = Duration::from_millis(500);
/// How long the answers of a host may be on their way when it has left.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// How often a call follows an actor that moves, before policies have their say.
const MOVES: usize = 4;

impl Inner {
    /// One try, which follows an actor that moves. With `keep` the message can
    /// be sent again also after it was sent.
    pub async fn once(
        self: &Arc<Self>,
        actor: &Actor,
        slot: &Mutex<Option<Message>>,
        deadline: Option<Instant>,
        keep: bool,
    ) -> Result<Answer, Error> {
        let mut moves = 0;
        loop {
            let (owner, fence) = self.look_up(actor, deadline).await?;
            let answered = match owner {
                Owner::Local => self.local(actor, slot, deadline, fence, keep).await,
                Owner::Remote(host) => {
                    let message = locked(slot).as_ref().and_then(Message::again);
                    let message = message.ok_or_else(sent_before)?;
                    tokio::select! {
                        answered = self.remote.call(&host, actor, message, deadline) => answered,
                        error = self.lost(&host.address) => Err(error),
                    }
                }
            };
            match answered {
                Err(error) if error.is_elsewhere() && moves < MOVES => moves += 1,
                answered => return answered,
            }
            let mut routing = self.routing.subscribe();
            if routing.borrow().fence == fence {
                let newer = tokio::time::timeout(NEWER_LIMIT, routing.changed());
                let _ = newer.await;
            }
        }
    }

    /// Waits until placement knows a host no longer. What it was asked has no
    /// answer then: it may be frozen, with its connections open.
    async fn lost(&self, address: &str) -> Error {
        let mut routing = self.routing.subscribe();
        loop {
            let gone = routing.wait_for(|routing| routing.known.has_left(address));
            // The sender is this one's own.
            let _ = gone.await;
            // One that has left has answered before; the answer may be on its
            // way. With a new leader it may just be later than this sidecar.
            tokio::time::sleep(LAST_ANSWER).await;
            if routing.borrow().known.has_left(address) {
                break;
            }
        }
        let text = format!("the host of the actor at {address} is gone, and has not answered");
        Error::Remote(Box::new(tonic::Status::unavailable(text)))
    }

    /// Waits for the turn of a call and has the application do it.
    pub async fn local(
        self: &Arc<Self>,
        actor: &Actor,
        slot: &Mutex<Option<Message>>,
        deadline: Option<Instant>,
        fence: u64,
        keep: bool,
    ) -> Result<Answer, Error> {
        if self.beat.has_lapsed(std::time::Instant::now()) {
            return Err(Error::Moved);
        }
        let hosted = self.hosting.settings(&actor.kind);
        let (kind, settings) = hosted.ok_or(Error::Moved)?;
        let serve = self.hosting.of(&kind).ok_or(Error::Moved)?;
        let actor = Actor {
            kind,
            id: actor.id.clone(),
        };
        let (chain, beside) = {
            let message = locked(slot);
            let message = message.as_ref().ok_or_else(sent_before)?;
            let chain = settings.depth.map(|_| chain(message));
            (chain, message.is_beside())
        };
        let ticket = Arc::new(Ticket::default());
        let turn = Turn {
            inner: self.clone(),
            actor: actor.clone(),
            call: CallId(self.number()),
        };
        self.handle(Event::Enter(Enter {
            actor: actor.clone(),
            call: turn.call,
            ticket: ticket.clone(),
            chain: chain.clone(),
            deadline: deadline.map(Into::into),
            fence,
            beside,
        }));
        ticket.turn().await?;
        let message = {
            let mut slot = locked(slot);
            let kept = if keep {
                slot.as_ref().and_then(Message::again)
            } else {
                None
            };
            std::mem::replace(&mut *slot, kept).ok_or_else(sent_before)?
        };
        let serving = self.under_policy(&actor, serve.call(&actor, chain.as_deref(), message));
        let answer = tokio::select! {
            biased;
            () = ticket.canceled() => return Err(Error::Canceled),
            answered = serving => answered?,
        };
        Ok(turn.answer(answer))
    }

    /// Calls the application under the timeout that resources have for actors.
    async fn under_policy(
        &self,
        actor: &Actor,
        serving: impl Future<Output = Result<Answer, Error>>,
    ) -> Result<Answer, Error> {
        let Some(policy) = self.resiliency.actor_after_lock(&actor.kind, &actor.id) else {
            return serving.await;
        };
        let serving = Mutex::new(Some(Box::pin(serving)));
        let running = policy.run(|_| {
            let serving = locked(&serving).take();
            async {
                match serving {
                    Some(serving) => serving.await.map_err(Asked),
                    None => Err(Asked(sent_before())),
                }
            }
        });
        running.await.map_err(unwrapped)
    }
}

fn sent_before() -> Error {
    Error::Invalid("the request was sent before".to_owned())
}

/// The chain that a call belongs to; a new one if it does not say.
fn chain(message: &Message) -> Arc<str> {
    if let Message::Method(request) = message
        && let Some(given) = metadata::text(&request.metadata, CHAIN)
        && !given.is_empty()
    {
        return given.into();
    }
    uuid::Uuid::new_v4().to_string().into()
}

/// A call's place in the table, until it is dropped.
struct Turn {
    inner: Arc<Inner>,
    actor: Actor,
    call: CallId,
}

impl Turn {
    /// The turn ends with the body, which breaks off if nobody reads on.
    fn answer(self, mut answer: Answer) -> Answer {
        if let Answer::Method(response) = &mut answer
            && !matches!(response.body, Body::Empty | Body::Full(_))
        {
            self.inner.handle(Event::Answered {
                actor: self.actor.clone(),
                call: self.call,
            });
            let body = std::mem::replace(&mut response.body, Body::Empty);
            let tasks = self.inner.tasks.clone();
            response.body = held::until_read(body, self, &tasks);
        }
        answer
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.inner.handle(Event::Left {
            actor: self.actor.clone(),
            call: self.call,
        });
    }
}

/// A failure as policies of users look at it.
pub struct Asked(pub Error);

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for Asked {
    fn is_permanent(&self) -> bool {
        self.0.is_permanent()
    }
}

pub fn unwrapped(failed: Failed<Asked>) -> Error {
    match failed {
        Failed::Failed(Asked(error)) => error,
        Failed::TimedOut => Error::TimedOut,
        other => Error::Policy(other.to_string()),
    }
}

/// A failure as the built-in policy looks at it.
pub struct BuiltInFailure(pub Error);

impl fmt::Display for BuiltInFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Failure for BuiltInFailure {
    fn is_permanent(&self) -> bool {
        !self.0.may_be_sent_again()
    }
}
