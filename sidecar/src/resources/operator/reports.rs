//! Reports to the operator of components that cannot start.

use std::sync::Arc;

use outrider_host::Tasks;
use tokio::sync::Semaphore;

use super::Operator;

/// Reports on their way at the same time. Further ones are left out: a component
/// that fails is tried again, and reported again.
const PLACES: usize = 16;

pub struct Reports {
    operator: Operator,
    places: Arc<Semaphore>,
    tasks: Tasks,
}

impl Reports {
    pub fn new(operator: Operator, tasks: Tasks) -> Self {
        Self {
            operator,
            places: Arc::new(Semaphore::new(PLACES)),
            tasks,
        }
    }

    /// Sends a report, and waits for nothing.
    pub fn send(&self, component: &str, text: &str) {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return;
        };
        let (operator, stopping) = (self.operator.clone(), self.tasks.stopping());
        let (component, text) = (component.to_owned(), text.to_owned());
        self.tasks.spawn("report of a component", async move {
            let _place = place;
            let sending = operator.report_failure(component, text);
            stopping.run_until_cancelled(sending).await;
        });
    }
}
