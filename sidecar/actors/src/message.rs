//! What an actor is asked for, and what it answers.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use outrider_call::message;

/// What an actor is asked for.
pub enum Message {
    Method(Box<message::Request>),
    Reminder(Reminder),
    Timer(Timer),
}

/// A reminder that is due.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reminder {
    pub name: String,
    /// As JSON.
    pub data: Option<Bytes>,
    pub due_time: String,
    pub period: String,
    /// Does not wait for its turn.
    pub beside: bool,
}

/// A timer that is due, with its texts as they were registered.
#[derive(Debug, Clone, Default)]
pub struct Timer {
    pub name: String,
    /// As JSON.
    pub data: Option<Bytes>,
    pub callback: String,
    pub due_time: String,
    pub period: String,
    pub wanted: Wanted,
}

/// Whether a tick is wanted still. It is asked when its turn has come: the timer
/// may have been deleted while it waited.
#[derive(Clone, Default)]
pub struct Wanted(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Wanted {
    pub fn while_true(is_wanted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_wanted)))
    }

    pub fn holds(&self) -> bool {
        self.0.as_ref().is_none_or(|is_wanted| is_wanted())
    }
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wanted").finish_non_exhaustive()
    }
}

/// What became of it.
pub enum Answer {
    Method(Box<message::Response>),
    /// A reminder or a timer was handled.
    Handled {
        /// The application wants no further one.
        cancel: bool,
    },
}

impl Message {
    /// The same again, if its data is at hand.
    pub fn again(&self) -> Option<Self> {
        Some(match self {
            Self::Method(request) => Self::Method(Box::new(request.again()?)),
            Self::Reminder(reminder) => Self::Reminder(reminder.clone()),
            Self::Timer(timer) => Self::Timer(timer.clone()),
        })
    }

    /// Whether it goes ahead beside others.
    pub fn is_beside(&self) -> bool {
        matches!(self, Self::Reminder(reminder) if reminder.beside)
    }
}
