//! What an actor is asked for, and what it answers.

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timer {
    pub name: String,
    /// As JSON.
    pub data: Option<Bytes>,
    pub callback: String,
    pub due_time: String,
    pub period: String,
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
