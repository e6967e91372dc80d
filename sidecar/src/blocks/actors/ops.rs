//! What each operation means.

use outrider_actors::{Actor, Answer, Call, Message};
use outrider_call::message::{Request, Response};
use outrider_call::metadata::{Name, value};
use tokio::time::Instant;

use super::{Api, check, error, method};
use crate::blocks::error::Result;

/// Tells the application that a sidecar calls it.
const API_CALL: &str = "Dapr-API-Call";

impl Api {
    /// Calls a method of an actor, wherever that is.
    pub async fn invoke(
        &self,
        actor: Actor,
        mut request: Request,
        deadline: Option<Instant>,
    ) -> Result<Response> {
        check(&self.actors, &actor.kind)?;
        method::id(&actor.id)?;
        request.method = method::method(&request.method)?;
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
                let cause =
                    outrider_actors::Error::App("the answer is none of a method".to_owned());
                Err(error::invoke(&cause))
            }
            Err(cause) => Err(error::invoke(&cause)),
        }
    }
}
