use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use outrider_security::Security;

use super::*;
use crate::hosting::{Serve, Types, Undelivered};
use crate::hosts::Tables;
use crate::message::Reminder;
use crate::table::Settings;

const OWN: &str = "127.0.0.1:1";

/// An application that takes its time to hear that an actor goes.
struct App {
    takes: Duration,
    /// How many it hears of now, how many that were at most, and how many it
    /// knows of.
    counts: watch::Sender<(usize, usize, usize)>,
}

#[async_trait]
impl Serve for App {
    async fn call(&self, _: &Actor, _: Option<&str>, _: Message) -> Result<Answer, Error> {
        Ok(Answer::Handled { cancel: false })
    }

    async fn deactivate(&self, _: &Actor) -> Result<(), Undelivered> {
        self.counts.send_modify(|(now, most, _)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        tokio::time::sleep(self.takes).await;
        self.counts.send_modify(|(now, _, known)| {
            *now -= 1;
            *known += 1;
        });
        Ok(())
    }
}

fn actors(has_store: Arc<AtomicBool>) -> Actors {
    Actors::new(Options {
        namespace: "ns".to_owned(),
        address: OWN.to_owned(),
        enabled: true,
        has_store: Box::new(move || has_store.load(Ordering::Relaxed)),
        mtls: false,
        hosting: Hosting::new(),
        peers: Peers::new(Security::plaintext(), "127.0.0.1", "test", 1, None, 1),
        resiliency: Resiliency::default(),
        metrics: Metrics::default(),
        tasks: Tasks::new(),
    })
}

fn types() -> Types {
    let settings = Settings {
        idle: Duration::from_secs(60),
        drain: Duration::from_secs(1),
        depth: None,
    };
    [("t".into(), settings)].into()
}

/// As many active actors of an application that takes that long to hear of one.
async fn active(count: usize, takes: Duration) -> (Actors, Arc<App>) {
    let actors = actors(Arc::new(AtomicBool::new(true)));
    let app = Arc::new(App {
        takes,
        counts: watch::Sender::default(),
    });
    let registration = actors.hosting().register(types(), app.clone());
    // For as long as the test runs.
    std::mem::forget(registration);
    actors.host(types());
    let hosts = [(OWN.to_owned(), String::new())].into();
    let tables = Tables::rings([("t".into(), hosts)].into(), 10);
    actors.set_routing(Known::Settled(Arc::new(tables)));
    for id in 0..count {
        let call = Call {
            actor: Actor::new("t", id.to_string()),
            message: Message::Reminder(Reminder::default()),
            deadline: None,
        };
        actors.call(call).await.unwrap();
    }
    assert_eq!(actors.counts(), [("t".into(), count)]);
    (actors, app)
}

#[tokio::test(start_paused = true)]
async fn a_halt_does_not_wait_for_an_application_that_does_not_hear_of_it() {
    let (actors, app) = active(1, Duration::from_secs(20)).await;
    let begun = Instant::now();
    actors.halt(1, Which::All).await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert_eq!(app.counts.borrow().2, 0);
    let mut counts = app.counts.subscribe();
    counts.wait_for(|(_, _, known)| *known == 1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_application_hears_of_a_limited_number_of_actors_at_once() {
    let most = MOST_TOLD as usize;
    let (actors, app) = active(3 * most, Duration::from_secs(2)).await;
    actors.halt(1, Which::All).await;
    let mut counts = app.counts.subscribe();
    let all = counts.wait_for(|(_, _, known)| *known == 3 * most);
    assert_eq!(all.await.unwrap().1, most);
}

#[tokio::test]
async fn a_type_is_for_this_sidecar_as_soon_as_it_is_hosted_and_there_is_a_store() {
    let has_store = Arc::new(AtomicBool::new(false));
    let actors = actors(has_store.clone());
    let registration = actors
        .hosting()
        .register(types(), Arc::new(crate::hosting::Nobody));
    actors.set_initialized();
    assert!(!actors.serves("t").await);
    has_store.store(true, Ordering::Relaxed);
    // Placement has not got it yet: it is what it will get.
    assert!(actors.serves("t").await);
    assert_eq!(actors.advertise(), ["t".into()]);
    assert!(!actors.serves("other").await);
    drop(registration);
    assert!(!actors.serves("t").await);
}

/// Says which of its actors are lost.
struct Keeps(Mutex<Vec<Actor>>);

impl Ownership for Keeps {
    fn lost(&self, is_lost: &dyn Fn(&Actor) -> bool) {
        locked(&self.0).retain(|actor| !is_lost(actor));
    }
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_an_actor_stays_until_a_table_has_the_actor_elsewhere() {
    let (actors, _app) = active(1, Duration::ZERO).await;
    let own = Actor::new("t", "0");
    let keeps = Arc::new(Keeps(Mutex::new(vec![own.clone()])));
    actors.watch_ownership(keeps.clone());
    actors.halt(1, Which::All).await;
    assert_eq!(*locked(&keeps.0), [own]);
    let hosts = [("other:1".to_owned(), String::new())].into();
    let tables = Arc::new(Tables::rings([("t".into(), hosts)].into(), 10));
    actors.lose(&Which::NotOf {
        tables,
        address: OWN.into(),
    });
    assert!(locked(&keeps.0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_the_owner_of_now_writes() {
    let (actors, _app) = active(1, Duration::ZERO).await;
    let (own, soon) = (Actor::new("t", "0"), Duration::from_secs(1));
    assert!(actors.writes(&own, soon).await.unwrap());
    assert!(!actors.writes(&Actor::new("t", "1"), soon).await.unwrap());
    // Placement is lost: somebody else may have it.
    actors.set_routing(Known::Nothing);
    assert!(actors.is_active(&own));
    assert!(actors.writes(&own, soon).await.is_err());
}
