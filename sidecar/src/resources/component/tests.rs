//! What becomes of components, with secret stores that wait and fail as a test
//! wants it.

use std::collections::HashMap;
use std::sync::Mutex;

use outrider_components::secrets::{self, Feature, GetRequest};
use outrider_components::{Context, Error as StoreError, Pairs, Registry};
use outrider_crds::property::NameValue;
use outrider_host::{Tasks, Workers};
use outrider_metrics::Metrics;
use outrider_resiliency::Resiliency;
use tokio::sync::Notify;

use super::*;
use crate::blocks;
use crate::blocks::pubsub::subscribe::Options;
use crate::components::resolve::Sources;
use crate::components::status::Cause;

const SECRET: &str = "hunter2";

/// Has one secret.
struct Store;

#[async_trait::async_trait]
impl secrets::Store for Store {
    fn features(&self) -> &[Feature] {
        &[]
    }

    async fn get(&self, _: &GetRequest) -> Result<Pairs, StoreError> {
        Ok([("key".to_owned(), SECRET.to_owned())].into())
    }

    async fn bulk_get(&self, _: &Pairs) -> Result<HashMap<String, Pairs>, StoreError> {
        Ok(HashMap::new())
    }
}

type Made = Result<Arc<dyn secrets::Store>, StoreError>;

fn register<F, M>(registry: &mut Registry, name: &str, make: F)
where
    F: Fn(Option<String>) -> M + Send + Sync + 'static,
    M: Future<Output = Made> + Send + 'static,
{
    let constructor = move |metadata: outrider_components::Metadata,
                            _: Context|
          -> std::pin::Pin<Box<dyn Future<Output = Made> + Send>> {
        let password = metadata.get("password").map(str::to_owned);
        Box::pin(make(password))
    };
    assert!(registry.secrets.add_discovered(name, Arc::new(constructor)));
}

fn applier(registry: Registry) -> Applier {
    let components = blocks::Components::default();
    let starter = Starter {
        registry,
        live: Arc::new(components.live()),
        sources: Sources {
            app_id: "app".to_owned(),
            namespace: None,
            environment: HashMap::new(),
            kubernetes: false,
        },
        context: Context {
            app_id: "app".to_owned(),
            namespace: String::new(),
            host: String::new(),
            internal_port: 0,
            http_port: 0,
            app_port: None,
            environment: Arc::default(),
        },
        denied: vec!["secretstores.denied".to_owned()],
        resiliency: Resiliency::default(),
        strict_wasm: false,
        parked: Mutex::default(),
        metrics: Metrics::default(),
        tasks: Tasks::new(),
    };
    let subscriber = Subscriber::new(Options {
        app_id: "app".to_owned(),
        brokers: components.pubsub.clone(),
        channel: None,
        asks: true,
        resiliency: Resiliency::default(),
        workers: Workers::with_threads(1).unwrap(),
        stores: Arc::default(),
        namespace: String::new(),
        tasks: Tasks::new(),
    });
    Applier::new(Arc::new(starter), subscriber, None, Vec::new(), Vec::new())
}

/// A secret store of the type `secretstores.<kind>`.
fn component(name: &str, kind: &str) -> Component {
    let mut component = Component::default();
    component.metadata.name = name.to_owned();
    component.spec.component_type = format!("secretstores.{kind}");
    component.spec.version = "v1".to_owned();
    component.spec.init_timeout = "1h".to_owned();
    component
}

/// One that has its password from the component `vault`.
fn with_secret(name: &str, kind: &str) -> Component {
    let mut component = component(name, kind);
    component.auth.secret_store = "vault".to_owned();
    let mut password = NameValue {
        name: "password".to_owned(),
        ..Default::default()
    };
    password.secret_key_ref.name = "secret".to_owned();
    password.secret_key_ref.key = "key".to_owned();
    component.spec.metadata.push(password);
    component
}

/// Lets the applier go on for a while.
async fn go_on(applier: &mut Applier, seconds: u64) {
    let going_on = async {
        loop {
            applier.due().await;
            applier.proceed().await;
        }
    };
    let limit = Duration::from_secs(seconds);
    tokio::time::timeout(limit, going_on).await.unwrap_err();
}

fn causes(applier: &Applier) -> Vec<(String, Cause)> {
    let all = applier.status().not_running().into_iter();
    all.map(|(_, name, trouble)| (name, trouble.cause))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_component_is_parked_while_its_secret_store_starts_or_is_missing() {
    let (open, mut registry) = (Arc::new(Notify::new()), Registry::new());
    let opened = open.clone();
    register(&mut registry, "slow", move |_| {
        let opened = opened.clone();
        async move {
            opened.notified().await;
            Ok(Arc::new(Store) as Arc<dyn secrets::Store>)
        }
    });
    register(&mut registry, "quick", async |_| Ok(Arc::new(Store) as _));
    let mut applier = applier(registry);
    let parked = |name: &str| {
        let store = WaitsFor::SecretStore("vault".to_owned());
        vec![(name.to_owned(), Cause::Parked(store))]
    };
    let user = with_secret("user", "quick");
    let _ = applier.apply(vec![user.clone()]).await;
    go_on(&mut applier, 1).await;
    assert_eq!(causes(&applier), parked("user"));
    assert!(!applier.starter.live.has("user"));

    let vault = component("vault", "slow");
    let other = with_secret("other", "quick");
    let _ = applier
        .apply(vec![other.clone(), user, vault.clone()])
        .await;
    go_on(&mut applier, 1).await;
    assert_eq!(causes(&applier).len(), 2);
    open.notify_one();
    go_on(&mut applier, 1).await;
    assert!(causes(&applier).is_empty());
    for name in ["vault", "user", "other"] {
        assert!(applier.starter.live.has(name), "{name}");
    }
    let _ = applier.apply(vec![vault]).await;
    assert!(!applier.starter.live.has("user"));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_tried_again_and_its_reason_has_no_secret() {
    let (tried, mut registry) = (Arc::<Mutex<Vec<Instant>>>::default(), Registry::new());
    let tries = tried.clone();
    register(&mut registry, "quick", async |_| Ok(Arc::new(Store) as _));
    register(&mut registry, "fragile", move |password| {
        let mut tries = tries.lock().unwrap();
        tries.push(Instant::now());
        let fails = tries.len() < 4;
        async move {
            match fails {
                true => Err(StoreError::unavailable(format!("{password:?} is wrong"))),
                false => Ok(Arc::new(Store) as Arc<dyn secrets::Store>),
            }
        }
    });
    let mut applier = applier(registry);
    let wanted = vec![component("vault", "quick"), with_secret("user", "fragile")];
    let _ = applier.apply(wanted.clone()).await;
    go_on(&mut applier, 2).await;
    let (kind, name, trouble) = applier.status().not_running().remove(0);
    assert_eq!((kind, name.as_str()), ("Component", "user"));
    let reason = trouble.cause.to_string();
    assert!(reason.contains(r#"Some("***") is wrong"#), "{reason}");
    assert!(!reason.contains(SECRET));
    assert!(trouble.next_try.is_some());

    // The same again does not disturb it.
    let _ = applier.apply(wanted).await;
    go_on(&mut applier, 60).await;
    let tried = tried.lock().unwrap();
    let pauses = tried.windows(2).map(|pair| (pair[1] - pair[0]).as_secs());
    assert_eq!(pauses.collect::<Vec<_>>(), [1, 2, 4]);
    assert!(causes(&applier).is_empty() && applier.starter.live.has("user"));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_denied_or_fails_when_changed_says_so_until_it_is_changed_back() {
    let mut registry = Registry::new();
    register(&mut registry, "quick", async |_| Ok(Arc::new(Store) as _));
    let mut applier = applier(registry);
    for (kind, reason, stays) in [
        ("unknown", "couldn't find secret store", true),
        ("denied", "secretstores.denied/v1 are not allowed", false),
    ] {
        let _ = applier.apply(vec![component("a", "quick")]).await;
        go_on(&mut applier, 1).await;
        assert!(causes(&applier).is_empty() && applier.starter.live.has("a"));
        let _ = applier.apply(vec![component("a", kind)]).await;
        go_on(&mut applier, 1).await;
        let (name, cause) = causes(&applier).remove(0);
        assert_eq!(name, "a");
        assert!(cause.to_string().contains(reason), "{cause}");
        assert_eq!(applier.starter.live.has("a"), stays);
    }
    let _ = applier.apply(Vec::new()).await;
    assert!(causes(&applier).is_empty());
}
