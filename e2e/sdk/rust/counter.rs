//! Hosts the actor type "rust": counters with the methods that
//! `e2e/sdk/python/counter.py` describes. `APP_PORT` is where it listens, and
//! `DAPR_GRPC_PORT` where its sidecar does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dapr::client::{ClientOptions, TonicClientWithAuth};
use dapr::reexport::async_trait;
use dapr::server::DaprHttpServer;
use dapr::server::actor::axum::Json;
use dapr::server::actor::context_client::{ActorContextClient, ActorStateOperation};
use dapr::server::actor::runtime::ActorTypeRegistration;
use dapr::server::actor::{Actor, ActorError};
use dapr::server::utils::DaprJson;
use dapr_macros::actor;
use serde::{Deserialize, Serialize};

/// Seconds: the SDK writes durations in a form that has no parts of one.
const PERIOD: Duration = Duration::from_secs(1);

type Client = dapr::Client<TonicClientWithAuth>;

#[derive(Serialize, Deserialize)]
struct More {
    n: i64,
}

#[derive(Deserialize)]
struct Other {
    r#type: String,
    id: String,
    n: i64,
}

#[derive(Deserialize)]
struct Alarm {
    kind: String,
    name: String,
}

#[actor]
struct Counter {
    context: ActorContextClient,
    dapr: Client,
    fired: Mutex<BTreeMap<String, usize>>,
}

fn failed(error: dapr::error::Error) -> ActorError {
    ActorError::MethodError(Box::new(error))
}

impl Counter {
    async fn add(&self, DaprJson(more): DaprJson<More>) -> Result<Json<i64>, ActorError> {
        let mut context = self.context.clone();
        let stored = context.get_actor_state("total").await.map_err(failed)?;
        let before = serde_json::from_slice(&stored.data).unwrap_or(0);
        let total: i64 = before + more.n;
        let upsert = ActorStateOperation::Upsert {
            key: "total".to_owned(),
            value: Some(total.to_string().into_bytes()),
        };
        context
            .execute_actor_state_transaction(vec![upsert])
            .await
            .map_err(failed)?;
        Ok(Json(total))
    }

    async fn ask(&self, DaprJson(other): DaprJson<Other>) -> Result<Json<i64>, ActorError> {
        let mut dapr = self.dapr.clone();
        let total = dapr.invoke_actor(other.r#type, other.id, "Add", More { n: other.n }, None);
        Ok(Json(total.await.map_err(failed)?))
    }

    async fn watch(&self, DaprJson(alarm): DaprJson<Alarm>) -> Result<Json<bool>, ActorError> {
        let mut context = self.context.clone();
        let data = alarm.name.clone().into_bytes();
        let registered = if alarm.kind == "timer" {
            let (due, period) = (Some(Duration::ZERO), Some(PERIOD));
            context
                .register_actor_timer(alarm.name, due, period, data, None, None)
                .await
        } else {
            let (due, period) = (Some(Duration::ZERO), Some(PERIOD));
            context
                .register_actor_reminder(alarm.name, due, period, data, None, None, None)
                .await
        };
        registered.map(|()| Json(true)).map_err(failed)
    }

    async fn unwatch(&self, DaprJson(alarm): DaprJson<Alarm>) -> Result<Json<bool>, ActorError> {
        let mut context = self.context.clone();
        let unregistered = if alarm.kind == "timer" {
            context.unregister_actor_timer(alarm.name).await
        } else {
            context.unregister_actor_reminder(alarm.name).await
        };
        unregistered.map(|()| Json(true)).map_err(failed)
    }

    async fn fired(&self) -> Json<BTreeMap<String, usize>> {
        Json(self.alarms().clone())
    }

    async fn fail(&self) -> Result<Json<()>, ActorError> {
        Err(ActorError::MethodError("it went wrong".into()))
    }

    fn alarms(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.fired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, kind: &str, name: &str) {
        *self.alarms().entry(format!("{kind}:{name}")).or_default() += 1;
    }
}

#[async_trait]
impl Actor for Counter {
    async fn on_activate(&self) -> Result<(), ActorError> {
        Ok(())
    }

    async fn on_deactivate(&self) -> Result<(), ActorError> {
        Ok(())
    }

    async fn on_reminder(&self, name: &str, _: Vec<u8>) -> Result<(), ActorError> {
        self.count("reminder", name);
        Ok(())
    }

    async fn on_timer(&self, name: &str, _: Vec<u8>) -> Result<(), ActorError> {
        self.count("timer", name);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::var("DAPR_GRPC_PORT")?;
    let mut server = DaprHttpServer::try_new_with_dapr_port(port.parse()?)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let sidecar = ClientOptions::new().with_address(format!("http://127.0.0.1:{port}"));
    let dapr = Client::from_options(sidecar).await?;
    let make = move |_: &str, _: &str, context| {
        Arc::new(Counter {
            context,
            dapr: dapr.clone(),
            fired: Mutex::default(),
        }) as Arc<dyn Actor>
    };
    let counters = ActorTypeRegistration::new::<Counter>("rust", Box::new(make))
        .register_method("Add", Counter::add)
        .register_method("Ask", Counter::ask)
        .register_method("Watch", Counter::watch)
        .register_method("Unwatch", Counter::unwatch)
        .register_method("Fired", Counter::fired)
        .register_method("Fail", Counter::fail);
    server.register_actor(counters).await;
    server
        .start(None)
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
}
