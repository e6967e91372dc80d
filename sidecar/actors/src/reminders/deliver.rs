//! A reminder that is due, to its actor.

use bytes::Bytes;
use outrider_proto::Any;
use outrider_scheduler_client::{Outcome, Trigger};
use prost::Message as _;

use super::{Reminders, SCOPE, job};
use crate::Error;
use crate::actor::Actor;
use crate::actors::Call;
use crate::message::{self, Answer, Message};

const BYTES: &str = "google.protobuf.BytesValue";

impl Reminders {
    /// Calls the actor, wherever it is.
    pub async fn deliver(&self, trigger: Trigger) -> Outcome {
        let Some(actor) = job::actor(&trigger.metadata) else {
            tracing::error!(target: SCOPE, "job {} has come with invalid actor target metadata, rejecting", trigger.name);
            return Outcome::Failed;
        };
        let data = match trigger.data.map(|data| json(&data)).transpose() {
            Ok(data) => data,
            Err(why) => {
                tracing::error!(target: SCOPE, "reminder {} of actor {actor} has data that cannot be read: {why}", trigger.name);
                return Outcome::Failed;
            }
        };
        let call = Call {
            actor: actor.clone(),
            message: Message::Reminder(message::Reminder {
                name: trigger.name.clone(),
                data,
                ..message::Reminder::default()
            }),
            deadline: None,
        };
        match self.actors.call(call).await {
            Ok(answer) => {
                self.metrics.reminder_fired(&actor.kind, true);
                if matches!(answer, Answer::Handled { cancel: true }) {
                    self.cancel(&actor, &trigger.name).await;
                }
                Outcome::Success
            }
            Err(error) => self.failed(&actor, &trigger.name, &error),
        }
    }

    fn failed(&self, actor: &Actor, name: &str, error: &Error) -> Outcome {
        // The application has not seen it, or could not finish it because its
        // actor had to go: that is no failure of its own.
        if error.may_be_sent_again() || is_of_sidecar(error) {
            tracing::warn!(target: SCOPE, "reminder {name} of actor {actor} is delivered again later: {error}");
            return Outcome::Undelivered;
        }
        self.metrics.reminder_fired(&actor.kind, false);
        tracing::error!(target: SCOPE, "reminder {name} of actor {actor} has failed: {error}");
        Outcome::Failed
    }

    /// The application wants no further one.
    async fn cancel(&self, actor: &Actor, name: &str) {
        if let Err(cause) = self.delete_job(actor, name).await {
            tracing::error!(target: SCOPE, "reminder {name} of actor {actor} was canceled, and cannot be deleted: {cause}");
        }
    }
}

fn is_of_sidecar(error: &Error) -> bool {
    matches!(
        error,
        Error::Closed | Error::NoPlacement | Error::Late(_) | Error::Canceled
    )
}

/// The data of a reminder as JSON. What sidecars have stored is JSON already.
fn json(data: &Any) -> Result<Bytes, String> {
    if data.type_url.rsplit('/').next() != Some(BYTES) {
        return Err(format!("its type is {}", data.type_url));
    }
    Bytes::decode(data.value.as_slice()).map_err(|error| error.to_string())
}
