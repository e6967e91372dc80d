//! The one loop by which changes of resources come into use, whatever their
//! kind and their source.

use std::ops::ControlFlow;

use outrider_crds::Kind as _;

use super::kind::Watch;
use super::wanted::Wanted;
use crate::components::status::Table;

/// Demanded when a resource has changed that only a fresh start takes in.
#[derive(Debug, PartialEq, Eq)]
pub struct Restart;

/// Says what is wanted of one kind.
pub trait Source<W: Watch>: Send {
    /// The next that it has to say. What was said before has been applied by
    /// then. None if nothing more will come.
    fn next(&mut self) -> impl Future<Output = Option<Wanted<W>>> + Send;
}

/// Brings resources of one kind into use, and out of it.
pub trait Apply<W: Watch>: Send {
    /// Begins to use these, and no others.
    fn apply(
        &mut self,
        wanted: Vec<W::Resource>,
    ) -> impl Future<Output = ControlFlow<Restart>> + Send;

    /// Waits until there is something to do besides. Nothing is lost if this
    /// is dropped.
    fn due(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Does what is due.
    fn proceed(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Applies what the source says, until a restart is demanded. What is due goes
/// on while the source has nothing to say, and when it has ended.
pub async fn follow<W: Watch>(
    mut source: impl Source<W>,
    mut applier: impl Apply<W>,
    status: &Table,
) -> Restart {
    let mut all = Vec::new();
    while let Some(wanted) = next(&mut source, &mut applier).await {
        if !wanted.amend(&mut all) {
            continue;
        }
        if let ControlFlow::Break(restart) = applier.apply(all.clone()).await {
            return restart;
        }
        status.retain::<W::Resource>(|name| all.iter().any(|r| r.metadata().name == name));
    }
    loop {
        applier.due().await;
        applier.proceed().await;
    }
}

async fn next<W: Watch>(
    source: &mut impl Source<W>,
    applier: &mut impl Apply<W>,
) -> Option<Wanted<W>> {
    let next = source.next();
    tokio::pin!(next);
    loop {
        tokio::select! {
            wanted = &mut next => return wanted,
            () = applier.due() => applier.proceed().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use outrider_crds::Subscription;

    use super::*;
    use crate::resources::subscription::Subscriptions;
    use crate::resources::wanted::Change;

    /// Says one thing each second.
    struct Script(Vec<Wanted<Subscriptions>>);

    impl Source<Subscriptions> for Script {
        async fn next(&mut self) -> Option<Wanted<Subscriptions>> {
            if self.0.is_empty() {
                return None;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some(self.0.remove(0))
        }
    }

    /// Notes what it is to apply, and has something to do every 400 ms. One
    /// called `last` demands a restart.
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl Notes {
        fn note(&self, text: String) {
            self.0.lock().unwrap().push(text);
        }
    }

    impl Apply<Subscriptions> for Notes {
        async fn apply(&mut self, wanted: Vec<Subscription>) -> ControlFlow<Restart> {
            let names: Vec<&str> = wanted.iter().map(|w| w.metadata.name.as_str()).collect();
            self.note(names.join(" "));
            match names.contains(&"last") {
                true => ControlFlow::Break(Restart),
                false => ControlFlow::Continue(()),
            }
        }

        async fn due(&mut self) {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }

        async fn proceed(&mut self) {
            self.note("due".to_owned());
        }
    }

    fn subscription(name: &str) -> Subscription {
        let mut subscription = Subscription::default();
        subscription.metadata.name = name.to_owned();
        subscription
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_is_wanted_is_applied_at_each_change_and_the_rest_goes_on_meanwhile() {
        let notes = Arc::<Mutex<Vec<String>>>::default();
        let status = Table::default();
        status.failed::<Subscription>("a", "broken");
        let source = Script(vec![
            Wanted::All(vec![subscription("a"), subscription("b")]),
            Wanted::Changed(Change::Deleted(subscription("a"))),
            Wanted::Changed(Change::Deleted(subscription("unknown"))),
            Wanted::Changed(Change::Set(subscription("last"))),
        ]);
        follow(source, Notes(notes.clone()), &status).await;
        let notes = notes.lock().unwrap();
        assert_eq!(
            notes.join(", "),
            "due, due, a b, due, due, b, due, due, due, due, b last"
        );
        assert!(status.not_running().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_done_also_when_the_source_has_ended() {
        let notes = Arc::<Mutex<Vec<String>>>::default();
        let status = Table::default();
        let following = follow(Script(Vec::new()), Notes(notes.clone()), &status);
        let limited = tokio::time::timeout(Duration::from_secs(1), following);
        limited.await.unwrap_err();
        assert_eq!(notes.lock().unwrap().join(" "), "due due");
    }
}
