//! `bindings.cron`: <https://docs.dapr.io/reference/components-reference/supported-bindings/cron/>.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use outrider_components::bindings::{Binding, Event, Handler, Input, Subscription};
use outrider_components::{Context, Error, Field, Metadata, Pairs};
use outrider_kit::cron::Schedule;
use tokio_util::sync::CancellationToken;

/// The metadata fields.
pub const FIELDS: &[&[Field]] = &[Fields::FIELDS];

/// Events that the application has not answered. Those that are due meanwhile
/// are left out.
const MOST_IN_FLIGHT: usize = 1000;
/// Clocks may be set meanwhile: no wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

outrider_components::fields! {
    struct Fields {
        /// When events are due: five fields of cron, or six with seconds before
        /// them, `@yearly`, `@monthly`, `@weekly`, `@daily` or `@hourly`, or
        /// `@every` with a duration. `TZ=` and the name of a time zone may
        /// stand before it; without it the machine's own counts.
        "schedule" => schedule: String, missing "schedule not set";
    }
}

struct Cron {
    schedule: Schedule,
    closing: CancellationToken,
}

/// Reads the schedule.
pub async fn connect(metadata: Metadata, _: Context) -> Result<Arc<Binding>, Error> {
    let Fields { schedule } = Fields::read(&metadata)?;
    let parsed = Schedule::parse(&schedule, TimeZone::system()).map_err(|cause| {
        Error::invalid(format!("invalid schedule format '{schedule}': {cause}")).because(cause)
    })?;
    let cron = Cron {
        schedule: parsed,
        closing: CancellationToken::new(),
    };
    Ok(Binding::of_input(&metadata, cron))
}

#[async_trait]
impl Input for Cron {
    async fn read(&self, handler: Arc<dyn Handler>) -> Result<Subscription, Error> {
        let mut subscription = Subscription::new(&self.closing);
        let stopping = subscription.stopping();
        subscription.spawn(run(self.schedule.clone(), handler, stopping));
        Ok(subscription)
    }

    async fn close(&self) -> Result<(), Error> {
        self.closing.cancel();
        Ok(())
    }
}

async fn run(schedule: Schedule, handler: Arc<dyn Handler>, stopping: CancellationToken) {
    let mut in_flight = FuturesUnordered::new();
    let mut left_out = 0_u64;
    let mut due = schedule.next(Timestamp::now());
    loop {
        let wait = async {
            match due {
                Some(due) => until(due).await,
                // It never is.
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(()) = in_flight.next() => {}
            () = wait => {
                if in_flight.len() < MOST_IN_FLIGHT {
                    in_flight.push(fire(&*handler));
                } else {
                    if left_out.is_multiple_of(1000) {
                        tracing::warn!(target: "dapr.contrib", "an event of a cron binding is left out: the application has not answered {MOST_IN_FLIGHT} others");
                    }
                    left_out += 1;
                }
                due = schedule.next(Timestamp::now());
            }
        }
    }
    while in_flight.next().await.is_some() {}
}

/// Waits for a time, which a clock that is set may bring nearer.
async fn until(due: Timestamp) {
    loop {
        let left = due.duration_since(Timestamp::now());
        let Ok(left) = Duration::try_from(left) else {
            return;
        };
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_WAIT)).await;
    }
}

/// What the application answers is of no use here: the next event comes
/// anyway.
async fn fire(handler: &dyn Handler) {
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let event = Event {
        metadata: Pairs::from([
            ("timeZone".to_owned(), "Local".to_owned()),
            ("readTimeUTC".to_owned(), shown(&now)),
        ]),
        ..Event::default()
    };
    let _ = handler.handle(event).await;
}

/// A time as Go prints it: `2026-01-02 03:04:05.06 +0000 UTC`.
fn shown(time: &Zoned) -> String {
    let fraction = match time.subsec_nanosecond() {
        0 => String::new(),
        nanoseconds => format!(".{nanoseconds:09}")
            .trim_end_matches('0')
            .to_owned(),
    };
    format!("{}{fraction} +0000 UTC", time.strftime("%Y-%m-%d %H:%M:%S"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::*;

    async fn cron(pairs: &[(&str, &str)]) -> Result<Arc<Binding>, Error> {
        let metadata = Metadata::new("cron", pairs.iter().copied());
        connect(metadata, Context::default()).await
    }

    #[tokio::test]
    async fn a_schedule_has_to_make_sense() {
        for (pairs, wanted) in [
            (&[][..], "schedule not set"),
            (
                &[("schedule", "* *")],
                "invalid schedule format '* *': expected 5 to 6 fields, found 2: [* *]",
            ),
        ] {
            let error = cron(pairs).await.err().expect("is wrong");
            assert_eq!(error.to_string(), wanted);
        }
        let binding = cron(&[("schedule", "@daily")]).await.expect("is valid");
        assert!(binding.input.is_some() && binding.output.is_none());
    }

    /// Tells of every event, and answers none.
    struct Silent(mpsc::UnboundedSender<Event>);

    #[async_trait]
    impl Handler for Silent {
        async fn handle(&self, event: Event) -> Result<Bytes, Error> {
            let _ = self.0.send(event);
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn events_come_on_time_and_do_not_wait_for_each_other() {
        let binding = cron(&[("schedule", "@every 20ms")])
            .await
            .expect("is valid");
        let input = binding.input.as_ref().expect("an input");
        let (events, mut events_rx) = mpsc::unbounded_channel();
        let began = Timestamp::now();
        let subscription = input.read(Arc::new(Silent(events))).await.expect("reads");
        let mut last = None;
        for _ in 0..5 {
            last = events_rx.recv().await;
        }
        let took = Timestamp::now().duration_since(began);
        assert!(took.as_millis() >= 100, "{took}");
        let event = last.expect("an event");
        assert!(event.data.is_empty());
        assert_eq!(event.metadata["timeZone"], "Local");
        assert!(event.metadata["readTimeUTC"].ends_with(" +0000 UTC"));
        drop(subscription);
        while events_rx.recv().await.is_some() {}
    }

    #[test]
    fn times_are_shown_as_go_prints_them() {
        for (time, wanted) in [
            ("2026-01-02T03:04:05Z", "2026-01-02 03:04:05 +0000 UTC"),
            (
                "2026-01-02T03:04:05.06Z",
                "2026-01-02 03:04:05.06 +0000 UTC",
            ),
        ] {
            let time: Timestamp = time.parse().expect("a time");
            assert_eq!(shown(&time.to_zoned(TimeZone::UTC)), wanted);
        }
    }
}
