//! Streams of the operator as a source, taken up again when they break.

use std::time::Duration;

use tokio::time::{Instant, Interval};
use tonic::Code;

use super::{Error, Events, Operator};
use crate::resources::SCOPE;
use crate::resources::follow::Source;
use crate::resources::kind::Watch;
use crate::resources::wanted::{Change, Wanted};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the operator says of one kind.
pub struct Stream<W: Watch> {
    watch: W,
    operator: Operator,
    open: Option<Open<W>>,
    /// Before the next try, should it be needed.
    pause: Duration,
}

struct Open<W: Watch> {
    events: Events<W::Event>,
    resync: Option<Interval>,
}

impl<W: Watch> Stream<W> {
    /// Nothing is sent yet.
    pub fn new(watch: W, operator: Operator) -> Self {
        Self {
            watch,
            operator,
            open: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Opens the stream and lists what there is, so that nothing is missed;
    /// then says what changes.
    async fn step(&mut self) -> Result<Wanted<W>, Error> {
        let Self {
            watch, operator, ..
        } = self;
        let Some(open) = &mut self.open else {
            let events = watch.open(operator).await?;
            let listed = watch.list(operator).await?;
            let resync = watch.resync().map(|every| {
                let first = Instant::now() + every;
                tokio::time::interval_at(first, every)
            });
            self.open = Some(Open { events, resync });
            return Ok(Wanted::All(listed));
        };
        let resync = async {
            match &mut open.resync {
                Some(ticks) => _ = ticks.tick().await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            change = open.events.next() => change?,
            () = resync => {
                tracing::debug!(target: SCOPE, "Running scheduled Component reconcile");
                return Ok(Wanted::All(watch.list(operator).await?));
            }
        };
        Ok(Wanted::Changed(match change {
            // As if it had been deleted for this application.
            Change::Set(resource) if !watch.is_for(operator, &resource) => {
                Change::Deleted(resource)
            }
            change => change,
        }))
    }
}

impl<W: Watch> Source<W> for Stream<W> {
    async fn next(&mut self) -> Option<Wanted<W>> {
        loop {
            let error = match self.step().await {
                Ok(wanted) => return Some(wanted),
                Err(error) => error,
            };
            // An operator that does not know this stream has no changes to tell.
            if matches!(&error, Error::Call(status) if status.code() == Code::Unimplemented) {
                return None;
            }
            if self.open.take().is_some() {
                self.pause = FIRST_PAUSE;
            }
            let pause = self.pause;
            tracing::warn!(target: SCOPE, "lost the stream of {}, trying again in {}ms: {error}", W::UPDATES, pause.as_millis());
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt as _;
    use outrider_crds::Subscription;
    use outrider_proto::operator::v1::SubscriptionUpdateEvent;
    use outrider_security::Security;
    use tonic::Status;

    use super::*;

    /// How one opened stream ends.
    enum End {
        /// It cannot be opened.
        Refused(Status),
        /// It breaks after the listing.
        Broken,
    }

    /// Opens streams as the script says, and notes when.
    struct Script {
        ends: Mutex<Vec<End>>,
        asked: Mutex<Vec<Instant>>,
    }

    impl Watch for &'static Script {
        type Resource = Subscription;
        type Event = SubscriptionUpdateEvent;

        const UPDATES: &'static str = "test updates";

        fn same(_: &Subscription, _: &Subscription) -> bool {
            true
        }

        async fn list(&self, _: &Operator) -> Result<Vec<Subscription>, Error> {
            Ok(Vec::new())
        }

        async fn open(&self, _: &Operator) -> Result<Events<Self::Event>, Error> {
            self.asked.lock().unwrap().push(Instant::now());
            match self.ends.lock().unwrap().remove(0) {
                End::Refused(status) => Err(status.into()),
                End::Broken => {
                    let broken = async { Err(Status::unavailable("gone")) };
                    Ok(Events::Opening(broken.boxed()))
                }
            }
        }
    }

    /// Pauses before each try, in milliseconds, until the operator says that
    /// it does not know the stream.
    async fn pauses(mut ends: Vec<End>) -> Vec<u128> {
        ends.push(End::Refused(Status::unimplemented("unknown method")));
        let script: &'static Script = Box::leak(Box::new(Script {
            ends: Mutex::new(ends),
            asked: Mutex::default(),
        }));
        let operator = Operator::new("operator:1", &Security::disabled(), "n", "a").unwrap();
        let mut stream = Stream::new(script, operator);
        while stream.next().await.is_some() {}
        let asked = script.asked.lock().unwrap();
        let pauses = asked.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.map(|pause| pause.as_millis()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn broken_streams_are_taken_up_again() {
        let refused = || End::Refused(Status::unavailable("gone"));
        let mut ends: Vec<End> = (0..6).map(|_| refused()).collect();
        ends.push(End::Broken);
        assert_eq!(
            pauses(ends).await,
            [500, 1000, 2000, 4000, 8000, 10_000, 500]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_operator_does_not_know_is_left_alone() {
        assert!(pauses(Vec::new()).await.is_empty());
    }
}
