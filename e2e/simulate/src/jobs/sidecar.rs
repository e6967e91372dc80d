//! A sidecar that takes jobs from every scheduler, and its application.

use std::time::Duration;

use super::{FAULTS, SCHEDULERS, Shared, TO_SCHEDULER, Timer, Wire};
use crate::network::{ConnectionId, Message, Node};

/// Before a scheduler is asked again; each time longer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

pub struct Sidecar {
    node: Node,
    /// To each scheduler.
    streams: [Option<ConnectionId>; SCHEDULERS],
    pauses: [Duration; SCHEDULERS],
}

impl Sidecar {
    pub fn start(node: Node, shared: &mut Shared) -> Self {
        let mut sidecar = Self {
            node,
            streams: [None; SCHEDULERS],
            pauses: [FIRST_PAUSE; SCHEDULERS],
        };
        for scheduler in 0..SCHEDULERS {
            sidecar.watch(scheduler, shared);
        }
        sidecar
    }

    fn watch(&mut self, scheduler: usize, shared: &mut Shared) {
        let stream = shared.connect(self.node, scheduler, [TO_SCHEDULER; 2], Wire::Watch);
        self.streams[scheduler] = Some(stream);
    }

    pub fn receive(
        &mut self,
        connection: ConnectionId,
        message: Message<Wire>,
        shared: &mut Shared,
    ) {
        let of = self.streams.iter().position(|it| *it == Some(connection));
        let Some(scheduler) = of else {
            return;
        };
        match message {
            Message::Data(Wire::Job(id, name)) => {
                self.pauses[scheduler] = FIRST_PAUSE;
                let now = shared.queue.now();
                let is_well = now >= FAULTS;
                let is_slow = !is_well && shared.random.u8(0..50) == 0;
                let pause = shared.millis(0..if is_slow { 2000 } else { 50 });
                let accepted = is_well || shared.random.u8(0..10) > 0;
                shared.history.runs(now, &name);
                shared.timer(self.node, pause, Timer::Answer(connection, id, accepted));
            }
            Message::Data(Wire::Refused) | Message::Closed | Message::Silent => {
                self.streams[scheduler] = None;
                let pause = self.pauses[scheduler];
                self.pauses[scheduler] = (pause * 2).min(LONGEST_PAUSE);
                shared.timer(self.node, pause, Timer::Watch(scheduler));
            }
            Message::Data(_) => {}
        }
    }

    pub fn timer(&mut self, timer: Timer, shared: &mut Shared) {
        match timer {
            Timer::Watch(scheduler) if self.streams[scheduler].is_none() => {
                self.watch(scheduler, shared);
            }
            Timer::Answer(connection, id, accepted) if self.streams.contains(&Some(connection)) => {
                shared.send(connection, self.node, Wire::Answer(id, accepted));
            }
            _ => {}
        }
    }
}
