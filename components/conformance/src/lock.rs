//! The suite for lock stores.

use std::time::Duration;

use outrider_components::lock::{Store, TryLockRequest, UnlockRequest, Unlocked};

use crate::{eventually, unique};

const SHORT: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

async fn try_lock(store: &dyn Store, resource: &str, owner: &str, expiry: Duration) -> bool {
    let request = TryLockRequest {
        resource: resource.to_owned(),
        owner: owner.to_owned(),
        expiry,
    };
    store.try_lock(&request).await.expect("try lock")
}

async fn unlock(store: &dyn Store, resource: &str, owner: &str) -> Unlocked {
    let request = UnlockRequest {
        resource: resource.to_owned(),
        owner: owner.to_owned(),
    };
    store.unlock(&request).await.expect("unlock")
}

/// Tests a store.
pub async fn run(store: &dyn Store) {
    store.ping().await.expect("ping");
    let resource = unique("lock||app||resource");
    assert_eq!(unlock(store, &resource, "one").await, Unlocked::Absent);
    assert!(try_lock(store, &resource, "one", LONG).await);
    assert!(!try_lock(store, &resource, "two", LONG).await);
    assert!(
        !try_lock(store, &resource, "one", LONG).await,
        "an owner has it once"
    );
    assert!(
        try_lock(store, &unique("other"), "two", LONG).await,
        "another resource is free"
    );
    assert_eq!(unlock(store, &resource, "two").await, Unlocked::OfAnother);
    assert!(!try_lock(store, &resource, "two", LONG).await);
    assert_eq!(unlock(store, &resource, "one").await, Unlocked::Released);
    assert_eq!(unlock(store, &resource, "one").await, Unlocked::Absent);

    assert!(try_lock(store, &resource, "one", SHORT).await);
    eventually("a lock expires", SHORT * 5, || {
        try_lock(store, &resource, "two", LONG)
    })
    .await;
    assert_eq!(unlock(store, &resource, "one").await, Unlocked::OfAnother);
    assert_eq!(unlock(store, &resource, "two").await, Unlocked::Released);

    // One of many gets it.
    let names: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let trying = names
        .iter()
        .map(|name| try_lock(store, &resource, name, LONG));
    let taken = futures_util::future::join_all(trying).await;
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    store.close().await.expect("close");
}
