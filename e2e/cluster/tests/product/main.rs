//! The product on a real cluster: installed once, each test in a namespace of
//! its own.

mod actors;
mod chart;
mod context;
mod jobs;
mod lifecycle;
mod rolling;
mod streams;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use outrider_cluster::product::{self, App, Product};
use outrider_cluster::{Cluster, Namespace, PodSecurity, may_boot, wait};
use serde_json::Value;
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

const TIMEOUT: Duration = Duration::from_secs(90);
/// By default sidecars are let into namespaces with restricted Pod Security.
pub const VALUES: [&str; 0] = [];
/// One for each scheduler.
pub const DISKS: usize = 3;

/// Shared by all tests that keep the machine busy, but for one that measures.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// The cluster with everything installed. None where no cluster can be booted.
async fn installed() -> Result<Option<(&'static Cluster, &'static Product)>> {
    static PRODUCT: OnceCell<Product> = OnceCell::const_new();
    if !may_boot() {
        return Ok(None);
    }
    let cluster = Cluster::shared().await?;
    let product = PRODUCT
        .get_or_try_init(async || {
            let product = Product::built_beside()?;
            product.load(cluster).await?;
            cluster
                .load_image(&product::redis_image(&product.registry)?)
                .await?;
            cluster.add_disks(DISKS).await?;
            product.install(cluster, &VALUES).await?;
            anyhow::Ok(product)
        })
        .await?;
    Ok(Some((cluster, product)))
}

/// A restricted namespace with a Redis, a state store and a broker in it.
struct Stage {
    cluster: &'static Cluster,
    product: &'static Product,
    namespace: Namespace,
    _machine: Machine,
}

enum Machine {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Stage {
    async fn set(name: &str) -> Result<Option<Self>> {
        let _guard = MACHINE.read().await;
        Self::on(Machine::Shared { _guard }, name).await
    }

    /// For tests that measure time.
    async fn alone(name: &str) -> Result<Option<Self>> {
        let _guard = MACHINE.write().await;
        Self::on(Machine::Alone { _guard }, name).await
    }

    async fn on(machine: Machine, name: &str) -> Result<Option<Self>> {
        let Some((cluster, product)) = installed().await? else {
            return Ok(None);
        };
        let namespace = cluster.namespace(name, PodSecurity::Restricted).await?;
        let stage = Self {
            cluster,
            product,
            namespace,
            _machine: machine,
        };
        let redis = [("redisHost", "redis:6379"), ("redisPassword", "")];
        stage.apply(&product::redis(&product.registry)).await?;
        stage.ready("redis").await?;
        stage
            .apply(&product::component("statestore", "state.redis", &redis))
            .await?;
        stage
            .apply(&product::component("pubsub", "pubsub.redis", &redis))
            .await?;
        Ok(Some(stage))
    }

    async fn apply(&self, manifests: &str) -> Result<()> {
        let words = ["apply", "-n", self.namespace.name(), "-f", "-"];
        self.cluster.kubectl_with_input(words, manifests).await?;
        Ok(())
    }

    async fn delete(&self, kind: &str, name: &str) -> Result<()> {
        self.cluster
            .kubectl(["delete", kind, name, "-n", self.namespace.name()])
            .await?;
        Ok(())
    }

    async fn ready(&self, app: &str) -> Result<()> {
        let selector = format!("app={app}");
        self.cluster
            .pods_ready(self.namespace.name(), &selector, TIMEOUT)
            .await?;
        Ok(())
    }

    async fn app(&self, id: &str, more: &App<'_>) -> Result<()> {
        self.apply(&self.product.app(id, more)).await
    }

    /// Asks until the answer satisfies `wanted`.
    async fn until(&self, app: &str, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let last = std::cell::RefCell::new(String::new());
        let found = wait("the answer", TIMEOUT, async || {
            let text = self.ask(app, path).await;
            last.replace(text.clone());
            let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
            Ok(wanted(&value).then_some(value))
        })
        .await;
        found.with_context(|| format!("{app}{path} answers {}", last.borrow()))
    }

    /// The answer, or the error with what the application said.
    async fn ask(&self, app: &str, path: &str) -> String {
        let asked = self.cluster.ask(self.namespace.name(), app, path).await;
        asked.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Has an application publish, as soon as its sidecar takes it.
    async fn publish(&self, app: &str, topic: &str, news: &str) -> Result<()> {
        let path = format!("/announce/{topic}");
        let last = std::cell::RefCell::new(String::new());
        let published = wait("a publish", TIMEOUT, async || {
            let namespace = self.namespace.name();
            let text = self.cluster.post(namespace, app, &path, news).await?;
            let done = text.contains("published");
            last.replace(text);
            Ok(done.then_some(()))
        });
        published
            .await
            .with_context(|| format!("{app} answers {}", last.borrow()))
    }

    /// An error if a container of the application's pods was started again.
    async fn never_restarted(&self, app: &str) -> Result<()> {
        let selector = format!("app={app}");
        let words = ["pods", "-n", self.namespace.name(), "-l", &selector];
        let pods = self.cluster.get(words).await?;
        let pod = &pods["items"][0]["status"];
        let of = |list: &str| pod[list].as_array().into_iter().flatten();
        let statuses: Vec<_> = of("containerStatuses")
            .chain(of("initContainerStatuses"))
            .collect();
        ensure!(statuses.len() > 1, "no sidecar: {pod}");
        for status in statuses {
            ensure!(status["restartCount"] == 0, "{status}");
        }
        Ok(())
    }

    async fn logs(&self, app: &str) -> Result<String> {
        let of = format!("deploy/{app}");
        self.cluster
            .kubectl(["logs", "-n", self.namespace.name(), &of, "-c", "daprd"])
            .await
    }
}

#[tokio::test]
async fn a_job_with_a_sidecar_ends_by_itself() -> Result<()> {
    let Some(stage) = Stage::set("job").await? else {
        return Ok(());
    };
    stage.apply(&stage.product.job("once")).await?;
    let words = ["job", "once", "-n", stage.namespace.name()];
    let ended = wait("the end of the job", TIMEOUT, async || {
        let status = stage.cluster.get(words).await?["status"].clone();
        let over = !status["succeeded"].is_null() || !status["failed"].is_null();
        Ok(over.then_some(status))
    });
    let status = ended.await?;
    ensure!(status["succeeded"] == 1, "{status}");
    let words = ["pods", "-n", stage.namespace.name(), "-l", "app=once"];
    let pods = stage.cluster.get(words).await?;
    let pod = &pods["items"][0];
    ensure!(pod["spec"]["initContainers"][0]["name"] == "daprd", "{pod}");
    let sidecar = &pod["status"]["initContainerStatuses"][0];
    ensure!(sidecar["restartCount"] == 0, "{sidecar}");
    ensure!(sidecar["state"]["terminated"]["exitCode"] == 0, "{sidecar}");
    Ok(())
}

#[tokio::test]
async fn two_applications_call_each_other_and_keep_state_in_redis() -> Result<()> {
    let Some(stage) = Stage::set("invoke").await? else {
        return Ok(());
    };
    stage.app("orders", &App::default()).await?;
    stage.app("front", &App::default()).await?;
    stage.ready("orders").await?;
    stage.ready("front").await?;
    let answer = stage
        .until("front", "/buy?id=7&item=book", |a| a["stored"] == true)
        .await?;
    assert_eq!(answer["caller"], "front");
    let logs = stage.logs("orders").await?;
    assert!(
        logs.contains("Security is initialized successfully"),
        "no identity: {logs}"
    );
    let state = stage.ask("orders", "/orders/7").await;
    assert!(state.contains("book"), "{state}");
    let foreign = stage.ask("front", "/orders/7").await;
    assert!(!foreign.contains("book"), "keys are shared: {foreign}");
    Ok(())
}

#[tokio::test]
async fn a_caller_that_is_not_on_the_list_is_denied() -> Result<()> {
    let Some(stage) = Stage::set("denied").await? else {
        return Ok(());
    };
    stage
        .apply(
            "\
apiVersion: dapr.io/v1alpha1
kind: Configuration
metadata: {name: closed}
spec:
  accessControl:
    defaultAction: deny
    trustDomain: public
    policies: []
",
        )
        .await?;
    let closed = App {
        annotations: &[("dapr.io/config", "closed")],
        ..App::default()
    };
    stage.app("orders", &closed).await?;
    stage.app("front", &App::default()).await?;
    stage.ready("orders").await?;
    stage.ready("front").await?;
    let denied = "access control policy has denied access";
    let answer = stage
        .until("front", "/buy?id=1", |a| a.to_string().contains(denied))
        .await?;
    ensure!(
        answer.to_string().contains("/front"),
        "the caller is not named: {answer}"
    );
    Ok(())
}

#[tokio::test]
async fn a_published_message_is_delivered() -> Result<()> {
    let Some(stage) = Stage::set("publish").await? else {
        return Ok(());
    };
    let subscriber = App {
        environment: &[("SUBSCRIBE", "news")],
        ..App::default()
    };
    stage.app("reader", &subscriber).await?;
    stage.app("writer", &App::default()).await?;
    stage.ready("reader").await?;
    stage.ready("writer").await?;
    stage
        .publish("writer", "news", r#"{"headline":"rain"}"#)
        .await?;
    stage
        .until("reader", "/news", |news| news[0]["headline"] == "rain")
        .await?;
    Ok(())
}

#[tokio::test]
async fn components_change_under_a_running_sidecar() -> Result<()> {
    let Some(stage) = Stage::set("live").await? else {
        return Ok(());
    };
    stage.app("orders", &App::default()).await?;
    stage.app("front", &App::default()).await?;
    stage.ready("orders").await?;
    stage.ready("front").await?;
    stage
        .until("front", "/buy?id=1&item=book", |a| a["stored"] == true)
        .await?;
    stage.delete("component", "statestore").await?;
    stage
        .until("orders", "/orders/1", |a| {
            a.to_string().contains("ERR_STATE_STORE_NOT_")
        })
        .await?;
    stage
        .apply(&product::component("statestore", "state.in-memory", &[]))
        .await?;
    stage
        .until("front", "/buy?id=2&item=pen", |a| a["stored"] == true)
        .await?;
    // Of another kind now: what was in Redis is not there.
    let before = stage.ask("orders", "/orders/1").await;
    assert!(!before.contains("book"), "{before}");
    stage.never_restarted("orders").await
}

#[tokio::test]
async fn policies_apply_and_change_under_a_running_sidecar() -> Result<()> {
    let Some(stage) = Stage::set("policies").await? else {
        return Ok(());
    };
    // A timeout that every call exceeds.
    let policies = |scope: &str| {
        format!(
            "\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {{name: short}}
scopes: [{scope}]
spec:
  policies: {{timeouts: {{none: 1ns}}}}
  targets: {{components: {{statestore: {{outbound: {{timeout: none}}}}}}}}
"
        )
    };
    let late = |answer: &Value| answer.to_string().contains("context deadline exceeded");
    stage.apply(&policies("orders")).await?;
    stage.app("orders", &App::default()).await?;
    stage.app("front", &App::default()).await?;
    stage.ready("orders").await?;
    stage.ready("front").await?;
    stage.until("orders", "/orders/1", late).await?;
    let other = stage.ask("front", "/orders/1").await;
    assert!(!late(&Value::String(other.clone())), "{other}");
    stage.apply(&policies("front")).await?;
    stage.until("front", "/orders/1", late).await?;
    stage.until("orders", "/orders/1", |a| !late(a)).await?;
    stage.delete("resiliency", "short").await?;
    stage.until("front", "/orders/1", |a| !late(a)).await?;
    Ok(())
}

#[tokio::test]
async fn a_wrong_annotation_is_refused_by_name() -> Result<()> {
    let Some(stage) = Stage::set("wrong").await? else {
        return Ok(());
    };
    let wrong = App {
        annotations: &[("dapr.io/app-max-concurrency", "many")],
        ..App::default()
    };
    stage.app("orders", &wrong).await?;
    let namespace = stage.namespace.name();
    wait("an event that names the annotation", TIMEOUT, async || {
        let events = stage
            .cluster
            .kubectl([
                "get",
                "events",
                "-n",
                namespace,
                "-o",
                "jsonpath={.items[*].message}",
            ])
            .await?;
        Ok(events.contains("dapr.io/app-max-concurrency").then_some(()))
    })
    .await
}
