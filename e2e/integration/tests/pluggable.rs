//! Components that another program serves on a socket.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::routing::{get, post};
use bytes::Bytes;
use http::{Method, Request};
use outrider_harness::pluggable::Program;
use outrider_harness::{Builder, Daprd, HttpApp, Signal, wait};
use outrider_proto::components::v1::PullMessagesResponse;
use outrider_proto::runtime::v1 as wire;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

const STORE: &str = "/v1.0/state/store";

/// A sidecar with all three components of the program.
fn with(program: &Program) -> Builder {
    Daprd::builder()
        .components(program.folder())
        .resource("apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec: {type: state.extra, version: v1, metadata: [{name: size, value: 7}]}\n")
        .component("broker", "pubsub.extra")
        .component("vault", "secretstores.extra")
}

#[tokio::test]
async fn state_is_kept_by_the_program() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = with(&program).start().await?;
    daprd
        .line("pluggable component 'extra' was successfully registered for 'dapr.proto.components.v1.StateStore'")
        .await?;
    let http = daprd.http();
    let items = json!([{"key": "a", "value": {"n": 1}}, {"key": "b", "value": "x"}]);
    assert_eq!(http.post(STORE, &items).await?.status, 204);
    let one = http.get(&format!("{STORE}/a")).await?;
    assert_eq!((one.status, one.json()?), (200, json!({"n": 1})));
    assert_eq!(one.header("etag"), Some("1"));
    assert_eq!(http.get(&format!("{STORE}/none")).await?.status, 204);
    let bulk = http
        .post(&format!("{STORE}/bulk"), &json!({"keys": ["b", "none"]}))
        .await?;
    assert_eq!(
        bulk.json()?,
        json!([{"key": "b", "data": "x", "etag": "2"}, {"key": "none"}])
    );
    let operations = json!({"operations": [
        {"operation": "upsert", "request": {"key": "c", "value": 3}},
        {"operation": "delete", "request": {"key": "a"}},
    ]});
    let transaction = http
        .post(&format!("{STORE}/transaction"), &operations)
        .await?;
    assert_eq!(transaction.status, 204, "{}", transaction.text());
    assert_eq!(http.get(&format!("{STORE}/a")).await?.status, 204);
    assert_eq!(http.delete(&format!("{STORE}/c")).await?.status, 204);
    assert_eq!(http.get(&format!("{STORE}/c")).await?.status, 204);

    let memory = program.memory();
    assert_eq!(
        memory.properties().get("size").map(String::as_str),
        Some("7")
    );
    for method in ["Init", "Get", "BulkSet", "BulkGet", "Transact", "Delete"] {
        let instances = memory.calls(method);
        assert!(!instances.is_empty(), "{method}");
        assert!(instances.iter().all(|i| i == "store"), "{instances:?}");
    }
    let metadata = http.get("/v1.0/metadata").await?.json()?;
    let components = metadata["components"].as_array().context("none")?;
    let store = components.iter().find(|c| c["name"] == "store");
    assert_eq!(
        store.context("no store")?["capabilities"],
        json!(["ETAG", "TRANSACTIONAL", "ACTOR"])
    );
    Ok(())
}

#[tokio::test]
async fn links_in_the_folder_are_not_followed() -> Result<()> {
    let program = Program::start("extra").await?;
    let link =
        |name: &str, target: &str| std::os::unix::fs::symlink(target, program.folder().join(name));
    link("dangling.sock", "nowhere")?;
    link("linked.sock", "extra.sock")?;
    let daprd = with(&program).start().await?;
    for name in ["dangling.sock", "linked.sock"] {
        let lines = daprd.lines();
        let mut warnings = lines.iter().filter(|l| l.contains("could not use socket"));
        assert!(warnings.any(|line| line.contains(name)), "{lines:?}");
    }
    let items = json!([{"key": "a", "value": 1}]);
    assert_eq!(daprd.http().post(STORE, &items).await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn the_program_limits_the_length_of_a_transaction() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = with(&program).start().await?;
    let upsert = |key: &str| json!({"operation": "upsert", "request": {"key": key, "value": 1}});
    let operations = json!({"operations": [upsert("a"), upsert("b"), upsert("c")]});
    let refused = daprd
        .http()
        .post(&format!("{STORE}/transaction"), &operations)
        .await?;
    assert_eq!(refused.error()?.0, "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS");
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()?["details"],
        json!([
            {"@type": "type.googleapis.com/google.rpc.ResourceInfo", "resource_type": "state", "resource_name": "store", "owner": "", "description": ""},
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "DAPR_STATE_TOO_MANY_TRANSACTIONS", "domain": "dapr.io", "metadata": {"currentOpsTransaction": "3", "maxOpsPerTransaction": "2"}},
        ])
    );
    Ok(())
}

#[tokio::test]
async fn queries_are_answered_by_the_program() -> Result<()> {
    const QUERY: &str = "/v1.0-alpha1/state/store/query";
    let program = Program::start("extra").await?;
    let daprd = with(&program)
        .component("plain", "state.in-memory")
        .start()
        .await?;
    let http = daprd.http();
    let items =
        json!([{"key": "a", "value": 1}, {"key": "b", "value": 2}, {"key": "c", "value": 1}]);
    assert_eq!(http.post(STORE, &items).await?.status, 204);
    let all = http
        .post(QUERY, &json!({"filter": {"EQ": {"n": 1}}}))
        .await?;
    assert_eq!(
        all.json()?,
        json!({"results": [
            {"key": "a", "data": 1, "etag": "1"},
            {"key": "c", "data": 1, "etag": "3"},
        ]})
    );
    let document = json!({"filter": {"EQ": {"n": 1}}, "page": {"limit": 1}});
    let page = http.post(QUERY, &document).await?.json()?;
    assert_eq!(
        (&page["results"][0]["key"], &page["token"]),
        (&json!("a"), &json!("1"))
    );
    let none = http
        .post(QUERY, &json!({"filter": {"EQ": {"n": 3}}}))
        .await?;
    assert_eq!(none.status, 204);

    let wrong = http
        .post(QUERY, &json!({"filter": {"LIKE": {"n": 1}}}))
        .await?;
    let message = "state store store query failed: failed to parse JSON query body: unsupported filter \"LIKE\"";
    assert_eq!(
        wrong.error()?,
        ("ERR_STATE_QUERY".to_owned(), message.to_owned())
    );
    let plain = http
        .post("/v1.0-alpha1/state/plain/query", &json!({}))
        .await?;
    assert_eq!(plain.error()?.0, "ERR_STATE_STORE_NOT_SUPPORTED");

    let found = daprd
        .grpc()
        .await?
        .query_state_alpha1(wire::QueryStateRequest {
            store_name: "store".to_owned(),
            query: r#"{"filter": {"EQ": {"n": 2}}}"#.to_owned(),
            metadata: HashMap::new(),
        })
        .await?
        .into_inner();
    let keys: Vec<_> = found.results.iter().map(|r| &*r.key).collect();
    assert_eq!(keys, ["b"]);
    Ok(())
}

#[tokio::test]
async fn the_program_may_set_status_code_and_details_of_errors() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = with(&program).start().await?;
    let (http, memory) = (daprd.http(), program.memory());
    let info = [("kit_error", "true"), ("http_code", "507"), ("tag", "FULL")];
    let info: HashMap<String, String> = info.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let details = ErrorDetails::with_error_info("NO_ROOM", "extra.io", info);
    let full = Status::with_error_details(Code::DataLoss, "full", details);
    for method in ["Get", "Query"] {
        memory.fail(method, full.clone());
    }
    let read = http.get(&format!("{STORE}/a")).await?;
    assert_eq!(read.status, 507);
    assert_eq!(
        read.json()?,
        json!({"errorCode": "ERR_STATE_GET", "message": "fail to get a from state store store: api error: code = DataLoss desc = full"})
    );
    let searched = http
        .post("/v1.0-alpha1/state/store/query", &json!({}))
        .await?;
    assert_eq!(searched.status, 507);
    assert_eq!(
        searched.json()?,
        json!({"errorCode": "FULL", "message": "full", "details": [{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "NO_ROOM", "domain": "extra.io", "metadata": null,
        }]})
    );
    let request = wire::GetStateRequest {
        store_name: "store".to_owned(),
        key: "a".to_owned(),
        ..Default::default()
    };
    let status = daprd.grpc().await?.get_state(request).await;
    let status = status.err().context("it was answered")?;
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "full"));
    let info = status.get_details_error_info().context("no details")?;
    assert_eq!((&*info.reason, &*info.domain), ("NO_ROOM", "extra.io"));

    let violation = vec![FieldViolation::new("etag", "it is 3")];
    let details = ErrorDetails::with_bad_request(violation);
    let conflict = Status::with_error_details(Code::FailedPrecondition, "no", details);
    memory.fail("Delete", conflict);
    let deleted = http.delete(&format!("{STORE}/a")).await?;
    assert_eq!(deleted.status, 409);
    memory.fail("Set", Status::not_found("no disk"));
    let saved = http.post(STORE, &json!([{"key": "a", "value": 1}])).await?;
    assert_eq!(saved.status, 500);
    assert_eq!(
        saved.error()?.1,
        "failed saving state in state store store: rpc error: code = NotFound desc = no disk"
    );
    Ok(())
}

#[tokio::test]
async fn secrets_come_from_the_program() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = with(&program).start().await?;
    let http = daprd.http();
    let one = http.get("/v1.0/secrets/vault/name").await?;
    assert_eq!(one.json()?, json!({"name": "name"}));
    let all = http.get("/v1.0/secrets/vault/bulk").await?;
    assert_eq!(all.json()?, json!({"all": {"key": "value"}}));
    Ok(())
}

#[tokio::test]
async fn publications_go_to_the_program() -> Result<()> {
    let program = Program::start("extra").await?;
    let daprd = with(&program).start().await?;
    let http = daprd.http();
    let request = Request::post("/v1.0/publish/broker/news?metadata.rawPayload=true")
        .header("content-type", "text/plain")
        .body(Bytes::from_static(b"hello").into())?;
    assert_eq!(http.send(request).await?.status, 204);
    let published = program.memory().published();
    let [one] = published.as_slice() else {
        anyhow::bail!("{published:?}");
    };
    assert_eq!((&*one.topic, &*one.pubsub_name), ("news", "broker"));
    assert_eq!(&one.data[..], b"hello");
    let entries = json!([
        {"entryId": "1", "event": "fine", "contentType": "text/plain"},
        {"entryId": "2", "event": "refuse", "contentType": "text/plain"},
    ]);
    let bulk = http
        .post("/v1.0-alpha1/publish/bulk/broker/news", &entries)
        .await?;
    assert_eq!(
        bulk.json()?["failedEntries"],
        json!([{"entryId": "2", "error": "refused"}])
    );
    Ok(())
}

/// An application that subscribes to `news` and answers each message after one notification of `go`.
async fn reader(go: Arc<Notify>, refuses: bool) -> Result<HttpApp> {
    let subscriptions = json!([{"pubsubname": "broker", "topic": "news", "route": "/news"}]);
    let taken = async move || {
        go.notified().await;
        axum::Json(json!({"status": if refuses { "RETRY" } else { "SUCCESS" }}))
    };
    let router = axum::Router::new()
        .route(
            "/dapr/subscribe",
            get(async move || axum::Json(subscriptions)),
        )
        .route("/news", post(taken));
    HttpApp::start(router).await
}

fn news(id: &str) -> PullMessagesResponse {
    let event = json!({"specversion": "1.0", "id": id, "source": "s", "type": "t", "data": 1});
    PullMessagesResponse {
        data: event.to_string().into(),
        topic_name: "news".to_owned(),
        content_type: "application/cloudevents+json".to_owned(),
        id: id.to_owned(),
        ..Default::default()
    }
}

async fn subscribed(program: &Program) -> Result<()> {
    let memory = program.memory();
    let there = || async { memory.topics().contains(&"news".to_owned()).then_some(()) };
    wait::until("the subscription", there).await
}

async fn acknowledged(program: &Program, count: usize) -> Result<()> {
    let memory = program.memory();
    let there = || async { (memory.acknowledged().len() == count).then_some(()) };
    wait::until("the acknowledgements", there).await
}

#[tokio::test]
async fn messages_of_the_program_are_delivered_and_acknowledged() -> Result<()> {
    let go = Arc::new(Notify::new());
    let app = reader(go.clone(), false).await?;
    let mut program = Program::start("extra").await?;
    let _daprd = with(&program).app(&app).start().await?;
    subscribed(&program).await?;
    for id in ["1", "2"] {
        program.memory().deliver(news(id)).await?;
    }
    for count in 1..=2 {
        go.notify_one();
        acknowledged(&program, count).await?;
    }
    let ids = |program: &Program| -> Vec<(String, bool)> {
        let acknowledged = program.memory().acknowledged();
        let ids = acknowledged.into_iter();
        ids.map(|a| (a.ack_message_id, a.ack_error.is_none()))
            .collect()
    };
    assert_eq!(
        ids(&program),
        [("1".to_owned(), true), ("2".to_owned(), true)]
    );

    // The stream is opened again when the program comes back.
    program.restart("extra").await?;
    subscribed(&program).await?;
    program.memory().deliver(news("3")).await?;
    go.notify_one();
    acknowledged(&program, 3).await?;
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_refused_goes_back() -> Result<()> {
    let go = Arc::new(Notify::new());
    let app = reader(go.clone(), true).await?;
    let program = Program::start("extra").await?;
    let _daprd = with(&program).app(&app).start().await?;
    subscribed(&program).await?;
    program.memory().deliver(news("1")).await?;
    go.notify_one();
    acknowledged(&program, 1).await?;
    let refused = program.memory().acknowledged();
    assert!(refused[0].ack_error.is_some(), "{refused:?}");
    Ok(())
}

/// The application drops a message, alone or in a batch, and the topic for such
/// messages cannot be written to: the message is not lost.
#[tokio::test]
async fn a_message_is_not_taken_when_its_dead_letter_cannot_be_written() -> Result<()> {
    for bulk in [false, true] {
        let subscriptions = json!([{
            "pubsubname": "broker", "topic": "news", "route": "/news", "deadLetterTopic": "dead",
            "bulkSubscribe": {"enabled": bulk, "maxMessagesCount": 1},
        }]);
        let drop = async |body: axum::Json<Value>| {
            let id = &body["entries"][0]["entryId"];
            axum::Json(json!({"status": "DROP", "statuses": [{"entryId": id, "status": "DROP"}]}))
        };
        let router = axum::Router::new()
            .route(
                "/dapr/subscribe",
                get(async move || axum::Json(subscriptions)),
            )
            .route("/news", post(drop));
        let app = HttpApp::start(router).await?;
        let program = Program::start("extra").await?;
        let _daprd = with(&program).app(&app).start().await?;
        subscribed(&program).await?;
        program
            .memory()
            .fail("Publish", Status::unavailable("no room"));
        program.memory().deliver(news("1")).await?;
        acknowledged(&program, 1).await?;
        let refused = program.memory().acknowledged();
        assert!(refused[0].ack_error.is_some(), "bulk: {bulk}, {refused:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sidecar_that_ends_pauses_the_broker_and_finishes_its_deliveries() -> Result<()> {
    for pausable in [true, false] {
        let go = Arc::new(Notify::new());
        let app = reader(go.clone(), false).await?;
        let program = Program::start("extra").await?;
        if pausable {
            program.memory().let_pause();
        }
        let daprd = with(&program)
            .app(&app)
            .flag("--dapr-graceful-shutdown-seconds=20")
            .start()
            .await?;
        subscribed(&program).await?;
        program.memory().deliver(news("1")).await?;
        let at_hand = || async { (!app.seen().is_empty()).then_some(()) };
        wait::until("the message at the application", at_hand).await?;
        daprd.signal(Signal::TERM)?;
        let paused = || async { (!program.memory().calls("Pause").is_empty()).then_some(()) };
        wait::until("the pause", paused).await?;
        // A message after the pause is not delivered.
        program.memory().deliver(news("2")).await?;
        assert_eq!(program.memory().acknowledged().len(), 0);
        go.notify_one();
        acknowledged(&program, 1).await?;
        assert_eq!(daprd.end().await?.code(), Some(0));
        let acknowledged = program.memory().acknowledged();
        assert_eq!(acknowledged.len(), 1, "{acknowledged:?}");
        assert_eq!(acknowledged[0].ack_message_id, "1");
    }
    Ok(())
}

#[tokio::test]
async fn a_socket_without_a_listener_delays_the_start_only_briefly() -> Result<()> {
    let program = Program::start("extra").await?;
    drop(UnixListener::bind(program.folder().join("stale.sock"))?);
    std::fs::write(program.folder().join("readme.txt"), "")?;
    let daprd = with(&program).start().await?;
    daprd.line("could not use socket for file").await?;
    daprd
        .line("could not initialize pluggable components: nobody answers on")
        .await?;
    let saved = daprd
        .http()
        .request(
            Method::POST,
            STORE,
            json!([{"key": "a", "value": 1}]).to_string(),
        )
        .await?;
    assert_eq!(saved.status, 204);
    Ok(())
}

/// Another user of the machine puts a component into the folder, or could.
#[tokio::test]
async fn sockets_that_others_could_have_put_there_are_not_used() -> Result<()> {
    use std::os::unix::fs::{PermissionsExt as _, chown};
    let program = Program::start("extra").await?;
    let daprd = async || {
        let store = "apiVersion: dapr.io/v1alpha1\nkind: Component\nmetadata: {name: store}\nspec: {type: state.extra, version: v1, ignoreErrors: true}\n";
        Daprd::builder()
            .components(program.folder())
            .resource(store)
            .start()
            .await
    };
    let refused = async |why: &str| -> Result<()> {
        let daprd = daprd().await?;
        daprd.line(why).await?;
        let saved = daprd.http().post(STORE, &json!([])).await?;
        assert_eq!(saved.error()?.0, "ERR_STATE_STORE_NOT_CONFIGURED");
        Ok(())
    };
    let allow =
        |mode| std::fs::set_permissions(program.folder(), std::fs::Permissions::from_mode(mode));
    allow(0o777)?;
    refused("every user may replace files in it").await?;
    allow(0o755)?;
    let socket = program.folder().join("extra.sock");
    // Only root can give files away.
    if chown(&socket, Some(65_534), None).is_ok() {
        refused("it belongs to user 65534").await?;
        chown(&socket, Some(0), None)?;
    }
    let daprd = daprd().await?;
    assert_eq!(daprd.http().post(STORE, &json!([])).await?.status, 204);
    Ok(())
}

#[tokio::test]
async fn a_component_that_is_built_in_is_not_replaced_by_a_socket() -> Result<()> {
    let program = Program::start("in-memory").await?;
    let daprd = Daprd::builder()
        .components(program.folder())
        .component("store", "state.in-memory")
        .start()
        .await?;
    daprd
        .line(
            "pluggable component 'in-memory' is not used for 'dapr.proto.components.v1.StateStore'",
        )
        .await?;
    let items = json!([{"key": "k", "value": 1}]);
    assert_eq!(daprd.http().post(STORE, &items).await?.status, 204);
    assert_eq!(program.memory().calls("Set").len(), 0);
    Ok(())
}

#[tokio::test]
async fn publications_are_retried_by_status_code() -> Result<()> {
    const POLICIES: &str = "\
apiVersion: dapr.io/v1alpha1
kind: Resiliency
metadata: {name: policies}
spec:
  policies:
    retries:
      some: {policy: constant, duration: 10ms, maxRetries: 2, matching: {httpStatusCodes: '500-599'}}
  targets:
    components:
      broker: {outbound: {retry: some}}
";
    let program = Program::start("extra").await?;
    let daprd = with(&program).resource(POLICIES).start().await?;
    let mut before = 0;
    for (status, attempts) in [
        (Status::unavailable("later"), 3),
        (Status::failed_precondition("never"), 1),
    ] {
        program.memory().fail("Publish", status);
        let answer = daprd
            .http()
            .post("/v1.0/publish/broker/news", &json!({}))
            .await?;
        assert_eq!(answer.status, 500);
        let calls = program.memory().calls("Publish").len();
        assert_eq!(calls - before, attempts);
        before = calls;
    }
    Ok(())
}

/// The client does not close its stream: the sidecar does, once the last
/// acknowledgement has come.
#[tokio::test]
async fn a_draining_subscription_stream_ends_after_its_last_acknowledgement() -> Result<()> {
    use wire::subscribe_topic_events_request_alpha1::SubscribeTopicEventsRequestType as Asked;
    use wire::subscribe_topic_events_response_alpha1::SubscribeTopicEventsResponseType as Response;
    let program = Program::start("extra").await?;
    let daprd = with(&program)
        .flag("--dapr-graceful-shutdown-seconds=20")
        .start()
        .await?;
    let (requests_tx, outgoing) = mpsc::channel(4);
    let send = async |request| {
        requests_tx
            .send(wire::SubscribeTopicEventsRequestAlpha1 {
                subscribe_topic_events_request_type: Some(request),
            })
            .await
    };
    send(Asked::InitialRequest(
        wire::SubscribeTopicEventsRequestInitialAlpha1 {
            pubsub_name: "broker".to_owned(),
            topic: "news".to_owned(),
            ..Default::default()
        },
    ))
    .await?;
    let mut events = daprd
        .grpc()
        .await?
        .subscribe_topic_events_alpha1(ReceiverStream::new(outgoing))
        .await?
        .into_inner();
    events.message().await?.context("no initial answer")?;
    subscribed(&program).await?;
    program.memory().deliver(news("1")).await?;
    let event = events.message().await?.context("no event")?;
    let Some(Response::EventMessage(event)) = event.subscribe_topic_events_response_type else {
        anyhow::bail!("{event:?}");
    };
    daprd.signal(Signal::TERM)?;
    let paused = || async { (!program.memory().calls("Pause").is_empty()).then_some(()) };
    wait::until("the pause", paused).await?;
    send(Asked::EventProcessed(
        wire::SubscribeTopicEventsRequestProcessedAlpha1 {
            id: event.id,
            status: Some(wire::TopicEventResponse::default()),
        },
    ))
    .await?;
    acknowledged(&program, 1).await?;
    let asked = tokio::time::Instant::now();
    assert_eq!(daprd.end().await?.code(), Some(0));
    assert!(asked.elapsed().as_secs() < 10, "{:?}", asked.elapsed());
    Ok(())
}
