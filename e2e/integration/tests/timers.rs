//! Timers: kept by the sidecar that has the actor, and gone with it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use outrider_harness::{Placement, wait};
use serde_json::{Value, json};

use crate::reminders::{Host, KIND, config};

fn path(id: &str, name: &str) -> String {
    format!("/v1.0/actors/{KIND}/{id}/timers/{name}")
}

async fn register(host: &Host, id: &str, name: &str, body: &Value) -> Result<()> {
    let answer = host.http().post(&path(id, name), body).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

async fn gauge(host: &Host) -> Option<f64> {
    let text = host.daprd.public().get("/metrics").await.ok();
    let text = match text {
        Some(text) if text.status == 200 => text.text(),
        _ => {
            let metrics = outrider_harness::http::Client::new(host.daprd.metrics_port());
            metrics.get("/").await.ok()?.text()
        }
    };
    let line = text
        .lines()
        .find(|line| line.starts_with("dapr_runtime_actor_timers{"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn a_timer_is_registered_shown_fired_and_gone() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, None, config()).await?;
    let http = host.http();
    let begun = Instant::now();
    let body = json!({
        "dueTime": "500ms",
        "period": "R3/PT1S",
        "callback": "call",
        "data": {"a": 1},
    });
    register(&host, "1", "often", &body).await?;
    register(
        &host,
        "1",
        "later",
        &json!({"dueTime": "1h", "period": "10s"}),
    )
    .await?;
    let shown = json!({
        "actorType": KIND,
        "actorID": "1",
        "dueTime": "500ms",
        "period": "R3/PT1S",
        "callback": "call",
        "data": {"a": 1},
    });
    assert_eq!(http.get(&path("1", "often")).await?.json()?, shown);
    let mut named = shown;
    named["name"] = json!("often");
    let later = json!({
        "name": "later",
        "actorType": KIND,
        "actorID": "1",
        "dueTime": "1h",
        "period": "@every 10s",
    });
    let list = format!("/v1.0/actors/{KIND}/1/timers");
    let listed = http.get(&list).await?.json()?;
    assert_eq!(listed, json!({"timers": [later, named]}));
    wait::until("the end of the timer", || async {
        let answer = http.get(&path("1", "often")).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await?;
    let fired = host.fired();
    assert_eq!(fired.len(), 3, "repeats are exact");
    for (tick, it) in fired.iter().enumerate() {
        let due = Duration::from_millis(500 + 1000 * tick as u64);
        assert!(it.at - begun >= due, "tick {tick} is early");
        assert_eq!(
            it.body,
            r#"{"data":{"a":1},"callback":"call","dueTime":"500ms","period":"R3/PT1S"}"#
        );
    }
    for _ in 0..2 {
        assert_eq!(http.delete(&path("1", "later")).await?.status, 204);
    }
    assert_eq!(http.get(&list).await?.json()?, json!({"timers": []}));
    let unknown = http.get(&path("1", "later")).await?;
    assert_eq!(unknown.status, 404);
    let wanted = ("ERR_ACTOR_TIMER_NOT_FOUND", "actor timer not found: later");
    let wanted = (wanted.0.to_owned(), wanted.1.to_owned());
    assert_eq!(unknown.error()?, wanted);
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_or_canceled_does_not_fire_again() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, None, config()).await?;
    let http = host.http();
    let often = json!({"period": "50ms"});
    for name in ["deleted", "canceled"] {
        register(&host, "1", name, &often).await?;
        host.until_fired("1", name, 2).await?;
    }
    host.cancel("canceled");
    wait::until("the end of the canceled timer", || async {
        let answer = http.get(&path("1", "canceled")).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await?;
    assert_eq!(http.delete(&path("1", "deleted")).await?.status, 204);
    // A tick under way has its turn before this one.
    register(&host, "1", "first", &json!({"dueTime": "0s"})).await?;
    host.until_fired("1", "first", 1).await?;
    let before = ["deleted", "canceled"].map(|name| host.times("1", name));
    register(&host, "1", "last", &json!({"dueTime": "500ms"})).await?;
    host.until_fired("1", "last", 1).await?;
    let after = ["deleted", "canceled"].map(|name| host.times("1", name));
    assert_eq!(after, before);
    Ok(())
}

#[tokio::test]
async fn timers_stay_when_their_actor_is_idle_and_go_when_it_moves() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let config = || json!({"entities": [KIND], "actorIdleTimeout": "500ms"});
    let first = Host::start(&placement, None, config()).await?;
    let ids: Vec<String> = (0..20).map(|index| index.to_string()).collect();
    for id in &ids {
        let body = json!({"dueTime": "1500ms", "period": "1500ms"});
        register(&first, id, "tick", &body).await?;
    }
    // It is deactivated in between.
    first.until_fired("0", "tick", 2).await?;
    let gone = |seen: &outrider_harness::Seen| seen.method == "DELETE";
    assert!(first.app.seen().iter().any(gone));
    assert_eq!(gauge(&first).await, Some(20.0));

    let second = Host::start(&placement, None, config()).await?;
    let list = |id: &str| format!("/v1.0/actors/{KIND}/{id}/timers");
    let mut moved = Vec::new();
    for id in &ids {
        let answer = first.http().get(&list(id)).await?;
        if answer.status == 403 {
            assert_eq!(answer.error()?.0, "ERR_ACTOR_TIMER_NOT_OWNED");
            moved.push(id);
        } else {
            assert_eq!(answer.status, 200);
        }
    }
    assert!(moved.len() >= 3 && moved.len() <= 17, "{}", moved.len());
    let left = (ids.len() - moved.len()) as f64;
    wait::until("the gauge", || async {
        (gauge(&first).await == Some(left)).then_some(())
    })
    .await?;
    for id in &moved {
        let refused = first.http().post(&path(id, "x"), &json!({})).await?;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.error()?.0, "ERR_ACTOR_TIMER_NOT_OWNED");
        let refused = first.http().delete(&path(id, "tick")).await?;
        assert_eq!(refused.status, 403);
        let there = second.http().get(&list(id)).await?;
        assert_eq!(there.json()?, json!({"timers": []}));
    }
    let before: Vec<usize> = moved.iter().map(|id| first.times(id, "tick")).collect();
    let stays = ids.iter().find(|id| !moved.contains(id));
    let stays = stays.expect("some stay");
    let ticks = first.times(stays, "tick");
    first.until_fired(stays, "tick", ticks + 2).await?;
    let after: Vec<usize> = moved.iter().map(|id| first.times(id, "tick")).collect();
    assert_eq!(before, after, "the timers of actors that moved are gone");
    assert!(second.fired().is_empty());
    Ok(())
}

#[tokio::test]
async fn timers_that_cannot_be_say_why() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let host = Host::start(&placement, None, config()).await?;
    let http = host.http();
    for (body, message) in [
        (
            json!({"dueTime": "soon"}),
            "error parsing timer due time: unsupported time/duration format: soon",
        ),
        (
            json!({"period": "R0/PT1S"}),
            "invalid timer period: has zero repetitions",
        ),
        (
            json!({"period": "-1s"}),
            "invalid timer period: -1s would fire without a pause",
        ),
    ] {
        let answer = http.post(&path("1", "t"), &body).await?;
        assert_eq!(answer.status, 500);
        let (code, said) = answer.error()?;
        assert_eq!(code, "ERR_ACTOR_TIMER_CREATE");
        assert_eq!(said, format!("error creating actor timer: {message}"));
    }
    let other = http
        .post("/v1.0/actors/other/1/timers/t", &json!({}))
        .await?;
    assert_eq!(other.status, 500);
    assert_eq!(
        other.error()?.1,
        "error creating actor timer: can't create timer for actor other||1: actor type not registered"
    );
    let listed = http.get("/v1.0/actors/other/1/timers").await?;
    assert_eq!(listed.status, 403);
    assert_eq!(listed.error()?.0, "ERR_ACTOR_TIMER_NON_HOSTED");
    Ok(())
}
