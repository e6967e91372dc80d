//! Locks, on a real Redis.

use anyhow::Result;
use outrider_harness::{Daprd, Redis, wait};
use outrider_proto::runtime::v1::unlock_response::Status as Unlocked;
use outrider_proto::runtime::v1::{TryLockRequest, UnlockRequest};
use serde_json::{Value, json};
use tonic::Code;

async fn post(daprd: &Daprd, path: &str, body: &Value) -> Result<(u16, String)> {
    let path = format!("/v1.0-alpha1/{path}");
    let answer = daprd.http().post(&path, body).await?;
    Ok((answer.status, answer.text()))
}

fn taking(resource: &str, owner: &str, seconds: i32) -> Value {
    json!({"resourceId": resource, "lockOwner": owner, "expiryInSeconds": seconds})
}

fn giving(resource: &str, owner: &str) -> Value {
    json!({"resourceId": resource, "lockOwner": owner})
}

#[tokio::test]
async fn a_lock_has_one_owner_over_both_protocols() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let shared = ", {name: keyPrefix, value: name}";
    let daprd = Daprd::builder()
        .app_id("cart")
        .resource(&redis.component("locks", "lock.redis", ""))
        .resource(&redis.component("shared", "lock.redis", shared))
        .start()
        .await?;
    let ok = |body: &str| (200, body.to_owned());
    let lock = taking("r", "one", 600);
    assert_eq!(
        post(&daprd, "lock/locks", &lock).await?,
        ok(r#"{"success":true}"#)
    );
    assert_eq!(redis.command(&["GET", "lock||cart||r"]).await?, "one");
    assert_eq!(
        post(&daprd, "lock/locks", &lock).await?,
        ok(r#"{"success":false}"#)
    );
    let lock = taking("r", "two", 600);
    assert_eq!(
        post(&daprd, "lock/shared", &lock).await?,
        ok(r#"{"success":true}"#)
    );
    assert_eq!(redis.command(&["GET", "lock||shared||r"]).await?, "two");
    for (owner, status) in [("two", 2), ("one", 0), ("one", 1)] {
        let body = giving("r", owner);
        let body = post(&daprd, "unlock/locks", &body).await?;
        assert_eq!(body, ok(&format!("{{\"status\":{status}}}")));
    }

    let mut grpc = daprd.grpc().await?;
    let lock = |owner: &str, seconds: i32| TryLockRequest {
        store_name: "locks".to_owned(),
        resource_id: "r".to_owned(),
        lock_owner: owner.to_owned(),
        expiry_in_seconds: seconds,
    };
    assert!(
        grpc.try_lock_alpha1(lock("one", 600))
            .await?
            .into_inner()
            .success
    );
    assert!(
        !grpc
            .try_lock_alpha1(lock("two", 600))
            .await?
            .into_inner()
            .success
    );
    for (owner, status) in [
        ("two", Unlocked::LockBelongsToOthers),
        ("one", Unlocked::Success),
        ("one", Unlocked::LockDoesNotExist),
    ] {
        let request = UnlockRequest {
            store_name: "locks".to_owned(),
            resource_id: "r".to_owned(),
            lock_owner: owner.to_owned(),
        };
        let answer = grpc.unlock_alpha1(request).await?.into_inner();
        assert_eq!(answer.status(), status);
    }
    assert!(
        grpc.try_lock_alpha1(lock("one", 1))
            .await?
            .into_inner()
            .success
    );
    wait::until("the lock expires", || async {
        let again = lock("two", 600);
        let taken = daprd.grpc().await.ok()?.try_lock_alpha1(again).await.ok()?;
        taken.into_inner().success.then_some(())
    })
    .await
}

#[tokio::test]
async fn requests_are_checked_in_the_order_of_dapr() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let without = Daprd::builder().start().await?;
    let daprd = Daprd::builder()
        .resource(&redis.component("locks", "lock.redis", ""))
        .start()
        .await?;
    let malformed = "ERR_MALFORMED_REQUEST";
    for (daprd, path, body, status, code, message) in [
        (
            &without,
            "lock/nope",
            taking("", "", 0),
            400,
            malformed,
            "ExpiryInSeconds is not positive in lock store nope",
        ),
        (
            &without,
            "lock/nope",
            taking("", "", 1),
            500,
            "ERR_LOCK_STORE_NOT_CONFIGURED",
            "lock store is not configured",
        ),
        (
            &daprd,
            "lock/nope",
            taking("", "o", 1),
            400,
            malformed,
            "ResourceId is empty in lock store nope",
        ),
        (
            &daprd,
            "unlock/nope",
            giving("r", ""),
            400,
            malformed,
            "LockOwner is empty in lock store nope",
        ),
        (
            &daprd,
            "unlock/nope",
            giving("r", "o"),
            400,
            "ERR_LOCK_STORE_NOT_FOUND",
            "lock store nope not found",
        ),
        (
            &daprd,
            "lock/locks",
            taking("a||b", "o", 1),
            500,
            "ERR_TRY_LOCK",
            "failed to try acquiring lock: input key/keyPrefix 'a||b' can't contain '||'",
        ),
        (
            &daprd,
            "unlock/locks",
            giving("a||b", "o"),
            500,
            "ERR_UNLOCK",
            "failed to release lock: input key/keyPrefix 'a||b' can't contain '||'",
        ),
        (
            &daprd,
            "lock/locks",
            json!({"resourceId": 5}),
            400,
            malformed,
            "failed deserializing HTTP body: proto: (line 1:15): invalid value for string field resourceId: 5",
        ),
    ] {
        let answer = daprd
            .http()
            .post(&format!("/v1.0-alpha1/{path}"), &body)
            .await?;
        let error = (code.to_owned(), message.to_owned());
        assert_eq!(
            (answer.status, answer.error()?),
            (status, error),
            "{path} {body}"
        );
    }
    let mut grpc = daprd.grpc().await?;
    let request = TryLockRequest {
        store_name: "nope".to_owned(),
        resource_id: "r".to_owned(),
        lock_owner: "o".to_owned(),
        expiry_in_seconds: 1,
    };
    let error = grpc.try_lock_alpha1(request).await.expect_err("is unknown");
    let error = (error.code(), error.message().to_owned());
    assert_eq!(
        error,
        (
            Code::InvalidArgument,
            "lock store nope not found".to_owned()
        )
    );
    Ok(())
}

#[tokio::test]
async fn policies_and_lists_of_allowed_apis_hold_for_locks() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let resiliency = "apiVersion: dapr.io/v1alpha1\nkind: Resiliency\nmetadata: {name: r}\nspec:\n  policies: {timeouts: {short: 100ms}}\n  targets: {components: {locks: {outbound: {timeout: short}}}}\n";
    let daprd = Daprd::builder()
        .resource(&redis.component("locks", "lock.redis", ""))
        .resource(resiliency)
        .config("api: {denied: [{name: unlock, version: v1alpha1, protocol: http}]}")
        .start()
        .await?;
    let (status, _) = post(&daprd, "unlock/locks", &giving("r", "o")).await?;
    assert_eq!(status, 404);
    redis.command(&["CLIENT", "PAUSE", "1000"]).await?;
    let (status, body) = post(&daprd, "lock/locks", &taking("r", "o", 1)).await?;
    assert_eq!(status, 500, "{body}");
    assert!(
        body.contains("failed to try acquiring lock: context deadline exceeded"),
        "{body}"
    );
    Ok(())
}

#[tokio::test]
async fn a_prefix_with_the_separator_fails_the_component() -> Result<()> {
    let Some(redis) = Redis::start().await? else {
        return Ok(());
    };
    let illegal = ", {name: keyPrefix, value: 'a||b'}";
    let daprd = Daprd::builder()
        .resource(&redis.component("locks", "lock.redis", illegal))
        .spawn()?;
    assert!(!daprd.end().await?.success());
    let text = "failed to save lock keyprefix: input key/keyPrefix 'a||b' can't contain '||'";
    daprd.line(text).await?;
    Ok(())
}
