//! What each operation means.

use outrider_actors::{Actor, Answer, Call, Message};
use outrider_call::message::{Request, Response};
use outrider_call::metadata::{Name, value};
use tokio::time::Instant;
use tonic::Status;

use super::{Api, check, error, method};
use crate::blocks::error::Error;

/// Tells the application that a sidecar calls it.
const API_CALL: &str = "Dapr-API-Call";

/// A call that has no answer.
pub enum Failed {
    /// It was not made.
    Refused(Error),
    Call(outrider_actors::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(error) => error,
            Failed::Call(cause) => error::invoke(&cause),
        }
    }
}

/// What another sidecar has said is passed on as it is.
impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Call(
                outrider_actors::Error::Remote(status) | outrider_actors::Error::Unsent(status),
            ) => Self::new(status.code(), status.message()),
            failed => Error::from(failed).into(),
        }
    }
}

impl Api {
    /// Calls a method of an actor, wherever that is.
    pub async fn invoke(
        &self,
        actor: Actor,
        mut request: Request,
        deadline: Option<Instant>,
    ) -> Result<Response, Failed> {
        check(&self.actors, &actor.kind)?;
        method::id(&actor.id)?;
        request.method = method::method(&request.method)?;
        let size = request.content_length.unwrap_or_default();
        let admitted = self.waiting.admit(&actor, size as usize);
        let _place = admitted.map_err(|why| error::busy(&why))?;
        self.parties().set_in_metadata(&mut request.metadata);
        request.metadata.retain(|(name, _)| !name.is(API_CALL));
        if let Some(yes) = value("true") {
            request.metadata.push((Name::from_static(API_CALL), yes));
        }
        let call = Call {
            actor,
            message: Message::Method(Box::new(request)),
            deadline,
        };
        match self.actors.call(call).await {
            Ok(Answer::Method(response)) => Ok(*response),
            Ok(Answer::Handled { .. }) => {
                let text = "the answer is none of a method".to_owned();
                Err(Failed::Call(outrider_actors::Error::App(text)))
            }
            Err(cause) => Err(Failed::Call(cause)),
        }
    }
}
