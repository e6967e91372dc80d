//! A reminder that is due, to its actor.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outrider_scheduler_client::{Outcome, Trigger};
use tokio::time::Instant;

use super::{Reminders, SCOPE, job};
use crate::actor::Actor;
use crate::actors::Call;
use crate::message::{self, Answer, Message};
use crate::{Error, any};

/// How long it may take to find the actor. Meanwhile the reminder may be deleted.
const FIND_LIMIT: Duration = Duration::from_secs(3);

/// How long it waits for others that keep the actor busy.
const TURN_LIMIT: Duration = Duration::from_secs(30);

impl Reminders {
    /// Calls the actor, wherever it is.
    pub async fn deliver(&self, trigger: Trigger) -> Outcome {
        let Some(actor) = job::actor(&trigger.metadata) else {
            tracing::error!(target: SCOPE, "job {} has come with invalid actor target metadata, rejecting", trigger.name);
            return Outcome::Failed;
        };
        let data = match trigger.data.map(|data| any::json(&data)).transpose() {
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
            deadline: Some(Instant::now() + TURN_LIMIT),
        };
        let found = self.actors.owner(&actor, Some(Instant::now() + FIND_LIMIT));
        if let Err(error) = found.await {
            return self.failed(&actor, &trigger.name, &error);
        }
        match self.actors.call(call).await {
            Ok(answer) => {
                self.undelivered.store(false, Ordering::Relaxed);
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
            // Until one arrives, there may be very many.
            if self.undelivered.swap(true, Ordering::Relaxed) {
                tracing::debug!(target: SCOPE, "reminder {name} of actor {actor} is delivered again later: {error}");
            } else {
                tracing::warn!(target: SCOPE, "reminder {name} of actor {actor} is delivered again later, and so are others that log level debug shows: {error}");
            }
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
