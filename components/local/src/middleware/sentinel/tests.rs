use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};

use outrider_components::middleware::{End, Response, full};

use super::*;

/// Answers with a status, after some milliseconds.
struct App {
    status: AtomicU16,
    takes: AtomicU64,
}

#[async_trait]
impl End for App {
    async fn answer(&self, _: Request) -> Outcome {
        let takes = Duration::from_millis(self.takes.load(Ordering::Relaxed));
        tokio::time::sleep(takes).await;
        let mut response = Response::new(full("body"));
        let status = self.status.load(Ordering::Relaxed);
        *response.status_mut() = status.try_into().expect("a status");
        Ok(response)
    }
}

fn app() -> App {
    App {
        status: 200.into(),
        takes: 0.into(),
    }
}

async fn sentinel(name: &str, rules: &str) -> Result<Arc<dyn Middleware>, Error> {
    let metadata = Metadata::new("s", [("appName", "a"), (name, rules)]);
    connect(metadata, Context::default()).await
}

async fn send(sentinel: &Arc<dyn Middleware>, app: &App, path: &str) -> Response {
    let mut request = Request::new(full(""));
    *request.uri_mut() = path.parse().expect("a path");
    let chain = [sentinel.clone()];
    Next::new(&chain, app)
        .run(request)
        .await
        .expect("an answer")
}

async fn statuses(sentinel: &Arc<dyn Middleware>, app: &App, path: &str, count: usize) -> Vec<u16> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(send(sentinel, app, path).await.status().as_u16());
    }
    all
}

async fn wait(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn flow_rules_let_as_many_pass_in_an_interval() {
    let rules = r#"[{"resource": "GET:/a", "threshold": 2},
        {"resource": "GET:/b", "threshold": 1, "relationStrategy": 1, "refResource": "GET:/c", "statIntervalInMs": 100}]"#;
    let sentinel = sentinel("flowRules", rules).await.expect("valid");
    let app = app();
    assert_eq!(
        statuses(&sentinel, &app, "/a?x=1", 3).await,
        [200, 200, 429]
    );
    assert_eq!(
        statuses(&sentinel, &app, "/other", 3).await,
        [200, 200, 200]
    );
    wait(1000).await;
    assert_eq!(statuses(&sentinel, &app, "/a", 3).await, [200, 200, 429]);
    // Requests of another resource count for this one.
    assert_eq!(statuses(&sentinel, &app, "/b", 3).await, [200, 200, 200]);
    assert_eq!(statuses(&sentinel, &app, "/c", 2).await, [200, 200]);
    assert_eq!(statuses(&sentinel, &app, "/b", 1).await, [429]);
    wait(100).await;
    assert_eq!(statuses(&sentinel, &app, "/b", 1).await, [200]);
}

#[tokio::test(start_paused = true)]
async fn throttled_requests_wait_for_their_turn() {
    let rules = r#"[{"resource": "GET:/a", "threshold": 10, "controlBehavior": 1, "maxQueueingTimeMs": 250}]"#;
    let sentinel = sentinel("flowRules", rules).await.expect("valid");
    let (app, began) = (app(), Instant::now());
    let sent = (0..5).map(|_| send(&sentinel, &app, "/a"));
    let sent = futures_util::future::join_all(sent).await;
    let statuses: Vec<_> = sent.iter().map(|r| r.status().as_u16()).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let took = began.elapsed().as_millis();
    assert!((200..210).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn requests_are_under_way_until_their_answers_have_ended() {
    let rules = r#"[{"resource": "GET:/a", "threshold": 1}]"#;
    let isolated = sentinel("isolationRules", rules).await.expect("valid");
    let system = sentinel("systemRules", r#"[{"metricType": 2, "triggerCount": 1}]"#);
    let (system, app) = (system.await.expect("valid"), app());
    for sentinel in [isolated, system] {
        let first = send(&sentinel, &app, "/a").await;
        assert_eq!(statuses(&sentinel, &app, "/a", 1).await, [429]);
        drop(first);
        let gone = tokio::time::timeout(Duration::ZERO, async {
            app.takes.store(1000, Ordering::Relaxed);
            send(&sentinel, &app, "/a").await
        });
        assert!(gone.await.is_err(), "the client has left");
        app.takes.store(0, Ordering::Relaxed);
        assert_eq!(statuses(&sentinel, &app, "/a", 2).await, [200, 200]);
    }
}

#[tokio::test(start_paused = true)]
async fn breakers_open_for_errors_and_close_after_a_try() {
    for (strategy, threshold) in [(1, "0.5"), (2, "2")] {
        let rules = format!(
            r#"[{{"resource": "GET:/a", "strategy": {strategy}, "threshold": {threshold}, "retryTimeoutMs": 3000, "minRequestAmount": 3, "statIntervalMs": 5000}}]"#
        );
        let sentinel = sentinel("circuitBreakerRules", &rules)
            .await
            .expect("valid");
        let app = app();
        assert_eq!(statuses(&sentinel, &app, "/a", 1).await, [200]);
        app.status.store(503, Ordering::Relaxed);
        assert_eq!(
            statuses(&sentinel, &app, "/a", 4).await,
            [503, 503, 429, 429]
        );
        wait(3000).await;
        assert_eq!(statuses(&sentinel, &app, "/a", 2).await, [503, 429]);
        wait(3000).await;
        // A try whose client leaves is none.
        app.takes.store(1000, Ordering::Relaxed);
        let left = tokio::time::timeout(Duration::ZERO, send(&sentinel, &app, "/a"));
        assert!(left.await.is_err());
        app.takes.store(0, Ordering::Relaxed);
        app.status.store(200, Ordering::Relaxed);
        assert_eq!(statuses(&sentinel, &app, "/a", 3).await, [200, 200, 200]);
    }
}

#[tokio::test(start_paused = true)]
async fn breakers_open_for_slow_requests() {
    let rules = r#"[{"resource": "GET:/a", "threshold": 0.5, "maxAllowedRtMs": 50, "retryTimeoutMs": 100, "minRequestAmount": 2, "statIntervalMs": 1000, "probeNum": 2}]"#;
    let sentinel = sentinel("circuitBreakerRules", rules).await.expect("valid");
    let app = app();
    app.takes.store(51, Ordering::Relaxed);
    assert_eq!(statuses(&sentinel, &app, "/a", 3).await, [200, 200, 429]);
    wait(100).await;
    app.takes.store(1, Ordering::Relaxed);
    assert_eq!(statuses(&sentinel, &app, "/a", 3).await, [200, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn system_rules_are_about_all_requests() {
    let app = app();
    let rules = r#"[{"metricType": 3, "triggerCount": 2}]"#;
    let requests = sentinel("systemRules", rules).await.expect("valid");
    assert_eq!(statuses(&requests, &app, "/a", 2).await, [200, 200]);
    assert_eq!(statuses(&requests, &app, "/b", 1).await, [429]);
    let rules = r#"[{"metricType": 1, "triggerCount": 50}]"#;
    let time = sentinel("systemRules", rules).await.expect("valid");
    app.takes.store(60, Ordering::Relaxed);
    assert_eq!(statuses(&time, &app, "/a", 2).await, [200, 429]);
    wait(1000).await;
    assert_eq!(statuses(&time, &app, "/a", 1).await, [200]);
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    for (name, rules) in [
        ("hotSpotParamRules", "[]"),
        ("systemRules", r#"[{"metricType": 4}]"#),
        (
            "flowRules",
            r#"[{"resource": "a", "tokenCalculateStrategy": 2}]"#,
        ),
    ] {
        let error = sentinel(name, rules).await.err().expect("is refused");
        let error = error.to_string();
        assert!(
            error.contains(name) && error.contains("not supported"),
            "{error}"
        );
    }
}
