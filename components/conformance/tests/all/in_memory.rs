use std::sync::Arc;

use outrider_components::pubsub::Broker;
use outrider_conformance::pubsub::{Connect, Promises};

#[tokio::test]
async fn state() {
    let store = crate::state("state.in-memory", &[]).await;
    outrider_conformance::state::run(&*store).await;
}

/// Gives the application `two` the broker of the one before, as applications
/// share a broker only within a process; all others a new one, since the suite
/// closes them.
struct InProcess(tokio::sync::Mutex<Option<Arc<dyn Broker>>>);

#[async_trait::async_trait]
impl Connect for InProcess {
    async fn connect(&self, app: &str) -> Arc<dyn Broker> {
        let mut last = self.0.lock().await;
        match last.take() {
            Some(shared) if app == "two" => shared,
            _ => {
                let broker = crate::broker("pubsub.in-memory", app, &[]).await;
                *last = Some(broker.clone());
                broker
            }
        }
    }
}

#[tokio::test]
async fn pubsub() {
    let promises = Promises {
        ordered: true,
        ..Promises::default()
    };
    let connect = InProcess(tokio::sync::Mutex::new(None));
    outrider_conformance::pubsub::run(&connect, promises).await;
}
