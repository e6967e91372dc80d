//! What there is of each component: what was brought into use, what is on its
//! way there, and what failed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::AbortHandle;
use outrider_crds::Component;
use tokio::time::Instant;

use super::Components;
use crate::components::start::secret_stores_first;
use crate::resources::kind::Watch as _;

/// Every component that is wanted, by name.
#[derive(Default)]
pub struct Book(BTreeMap<String, Entry>);

#[derive(Default)]
struct Entry {
    settled: Option<Settled>,
    /// What is to replace it, or to come into use.
    attempt: Option<Attempt>,
}

/// A component for which nothing more is to be done.
struct Settled {
    component: Component,
    /// It may be denied as well, or wait for a secret store.
    in_use: bool,
}

pub struct Attempt {
    pub component: Component,
    /// Until it is tried again, should it fail.
    pub pause: Duration,
    pub stage: Stage,
}

pub enum Stage {
    /// The secret store that it needs is starting.
    Parked,
    Starting(#[expect(dead_code, reason = "held until the start has ended")] Abort),
    Failed {
        again: Instant,
    },
}

/// Aborts a start when it is dropped.
pub struct Abort(pub AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What has to happen for components to be as they are wanted.
#[derive(Default)]
pub struct Plan {
    pub gone: Vec<Gone>,
    /// Names of components whose attempts were given up for others.
    pub given_up: Vec<String>,
    /// New or changed ones, secret stores first.
    pub start: Vec<Component>,
}

pub struct Gone {
    pub name: String,
    /// What there was of it, besides attempts.
    pub component: Option<Component>,
}

impl Book {
    pub fn settle(&mut self, component: Component, in_use: bool) {
        let entry = self.0.entry(component.metadata.name.clone()).or_default();
        entry.settled = Some(Settled { component, in_use });
    }

    /// What was settled without being in use counts no more.
    pub fn begin(&mut self, attempt: Attempt) {
        let name = attempt.component.metadata.name.clone();
        let entry = self.0.entry(name).or_default();
        entry.settled.take_if(|settled| !settled.in_use);
        entry.attempt = Some(attempt);
    }

    /// Ends the attempt of this name.
    pub fn finish(&mut self, name: &str) -> Option<Attempt> {
        self.0.get_mut(name)?.attempt.take()
    }

    /// Takes in what is wanted now. Attempts at others are given up.
    pub fn plan(&mut self, mut wanted: Vec<Component>) -> Plan {
        let mut plan = Plan::default();
        let mut known = std::mem::take(&mut self.0);
        for component in &wanted {
            let name = &component.metadata.name;
            self.0.extend(known.remove_entry(name));
        }
        plan.gone
            .extend(known.into_iter().map(|(name, entry)| Gone {
                name,
                component: entry.settled.map(|settled| settled.component),
            }));
        secret_stores_first(&mut wanted);
        for component in wanted {
            let name = &component.metadata.name;
            let Some(entry) = self.0.get_mut(name) else {
                plan.start.push(component);
                continue;
            };
            if let Some(attempt) = &entry.attempt {
                // It is starting, or tried again when it is time.
                if Components::same(&attempt.component, &component) {
                    continue;
                }
                entry.attempt = None;
                plan.given_up.push(name.clone());
            }
            let settled = entry.settled.as_ref();
            if !settled.is_some_and(|s| Components::same(&s.component, &component)) {
                plan.start.push(component);
            }
        }
        plan
    }

    pub fn has_attempt(&self, name: &str) -> bool {
        let entry = self.0.get(name);
        entry.is_some_and(|entry| entry.attempt.is_some())
    }

    /// Whether the component is starting, and not itself parked.
    pub fn is_starting(&self, name: &str) -> bool {
        let attempt = self.0.get(name).and_then(|entry| entry.attempt.as_ref());
        attempt.is_some_and(|attempt| matches!(attempt.stage, Stage::Starting(_)))
    }

    /// Names of those that are parked.
    pub fn parked(&self) -> Vec<String> {
        let attempts = self.0.values().filter_map(|entry| entry.attempt.as_ref());
        let parked = attempts.filter(|attempt| matches!(attempt.stage, Stage::Parked));
        let names = parked.map(|attempt| attempt.component.metadata.name.clone());
        names.collect()
    }

    /// Ends the attempts that `fit`, and returns them.
    pub fn take_attempts(&mut self, fit: impl Fn(&Attempt) -> bool) -> Vec<Attempt> {
        let entries = self.0.values_mut();
        entries
            .filter_map(|entry| entry.attempt.take_if(|attempt| fit(attempt)))
            .collect()
    }

    /// When the first one is tried again.
    pub fn next_try(&self) -> Option<Instant> {
        let attempts = self.0.values().filter_map(|entry| entry.attempt.as_ref());
        let again = attempts.filter_map(|attempt| match attempt.stage {
            Stage::Failed { again } => Some(again),
            Stage::Parked | Stage::Starting(_) => None,
        });
        again.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(name: &str, kind: &str) -> Component {
        let mut component = Component::default();
        component.metadata.name = name.to_owned();
        component.spec.component_type = kind.to_owned();
        component
    }

    fn starting(component: Component) -> (Attempt, AbortHandle) {
        let (abort, _) = AbortHandle::new_pair();
        let attempt = Attempt {
            component,
            pause: Duration::ZERO,
            stage: Stage::Starting(Abort(abort.clone())),
        };
        (attempt, abort)
    }

    fn failed(component: Component, again: Instant) -> Attempt {
        Attempt {
            component,
            pause: Duration::ZERO,
            stage: Stage::Failed { again },
        }
    }

    /// As text: what is gone, given up, and to be started.
    fn plan(book: &mut Book, wanted: &[(&str, &str)]) -> [String; 3] {
        let wanted = wanted.iter().map(|(name, kind)| component(name, kind));
        let plan = book.plan(wanted.collect());
        let gone = plan.gone.iter().map(|gone| match &gone.component {
            Some(component) => format!("{}={}", gone.name, component.spec.component_type),
            None => gone.name.clone(),
        });
        let start = plan.start.iter();
        let start = start.map(|c| format!("{}={}", c.metadata.name, c.spec.component_type));
        let join = |all: Vec<String>| all.join(" ");
        [
            join(gone.collect()),
            join(plan.given_up),
            join(start.collect()),
        ]
    }

    fn is(plan: [String; 3], expected: [&str; 3]) {
        assert_eq!(plan, expected);
    }

    #[test]
    fn new_and_changed_ones_start_with_secret_stores_first_and_others_go() {
        let mut book = Book::default();
        for name in ["same", "changed", "gone"] {
            book.settle(component(name, "state.a"), true);
        }
        let wanted = [
            ("changed", "state.b"),
            ("same", "state.a"),
            ("vault", "secretstores.a"),
        ];
        is(
            plan(&mut book, &wanted),
            ["gone=state.a", "", "vault=secretstores.a changed=state.b"],
        );
    }

    #[test]
    fn an_attempt_goes_on_while_it_is_wanted_and_is_given_up_when_it_is_not() {
        let mut book = Book::default();
        book.settle(component("a", "state.old"), true);
        let (attempt, abort) = starting(component("a", "state.new"));
        book.begin(attempt);
        is(plan(&mut book, &[("a", "state.new")]), ["", "", ""]);
        assert!(book.is_starting("a") && !abort.is_aborted());
        // Back to what is in use.
        is(plan(&mut book, &[("a", "state.old")]), ["", "a", ""]);
        assert!(!book.has_attempt("a") && abort.is_aborted());

        let (attempt, abort) = starting(component("a", "state.new"));
        book.begin(attempt);
        is(plan(&mut book, &[]), ["a=state.old", "", ""]);
        assert!(abort.is_aborted());
    }

    #[test]
    fn going_back_to_one_that_was_parked_or_denied_starts_it_again() {
        let mut book = Book::default();
        book.settle(component("a", "state.parked"), false);
        is(plan(&mut book, &[("a", "state.parked")]), ["", "", ""]);
        book.begin(failed(component("a", "state.new"), Instant::now()));
        let back = [("a", "state.parked")];
        is(plan(&mut book, &back), ["", "a", "a=state.parked"]);
        is(plan(&mut book, &[]), ["a", "", ""]);
    }

    #[test]
    fn those_that_failed_are_taken_when_their_time_has_come() {
        let mut book = Book::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        book.begin(failed(component("late", "state.a"), later));
        book.begin(failed(component("now", "state.a"), now));
        book.begin(starting(component("starting", "state.a")).0);
        assert_eq!(book.next_try(), Some(now));
        let due =
            book.take_attempts(|a| matches!(a.stage, Stage::Failed { again } if again <= now));
        let names: Vec<&str> = due
            .iter()
            .map(|a| a.component.metadata.name.as_str())
            .collect();
        assert_eq!(names, ["now"]);
        assert_eq!(book.next_try(), Some(later));
        assert!(book.finish("starting").is_some() && book.finish("starting").is_none());
    }
}
