//! What an operator sends to sidecars, and to which clients it sends nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use http::StatusCode;
use outrider_harness::{Authority, Daprd, Kubernetes, Operator, Sentry, wait};
use outrider_proto::operator::v1::operator_client::OperatorClient;
use outrider_proto::operator::v1::{
    ComponentUpdateEvent, ComponentUpdateRequest, ListComponentsRequest, ResourceEventType as Event,
};
use outrider_proto::reports::v1::FailureReport;
use outrider_proto::reports::v1::reports_client::ReportsClient;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

const DAY: time::Duration = time::Duration::DAY;

/// A control plane of a sentry and an operator.
struct Plane {
    operator: Operator,
    authority: Authority,
    cluster: Kubernetes,
    sentry: Sentry,
}

impl Plane {
    async fn start() -> Result<Plane> {
        Self::with(|_| {}).await
    }

    /// With resources that are there before the operator is.
    async fn with(resources: impl FnOnce(&Kubernetes)) -> Result<Plane> {
        let authority = Authority::new()?;
        let cluster = Kubernetes::start().await?;
        resources(&cluster);
        let sentry = Sentry::of(&authority, "24h").await?;
        Ok(Plane {
            operator: Operator::start(&cluster, &sentry).await?,
            authority,
            cluster,
            sentry,
        })
    }

    fn component(&self, namespace: &str, name: &str, object: Value) {
        self.cluster.put("components", namespace, name, object);
    }

    /// A connection of the sidecar of an application, by a certificate of
    /// `authority`.
    async fn channel(&self, authority: &Authority, id: &str) -> Result<Channel> {
        let identity = authority.identify(id, OffsetDateTime::now_utc() + DAY)?;
        let port = self.operator.port();
        let channel = self.authority.channel(Operator::NAME, port, Some(identity));
        channel.await
    }

    async fn client(&self, namespace: &str, app_id: &str) -> Result<OperatorClient<Channel>> {
        let id = format!("spiffe://public/ns/{namespace}/{app_id}");
        let channel = self.channel(&self.authority, &id).await?;
        Ok(OperatorClient::new(channel))
    }

    fn daprd(&self, port: u16) -> Result<outrider_harness::Builder> {
        Daprd::builder().operator(port, &self.cluster, &self.sentry)
    }

    /// Changes the Configuration `app`.
    fn configure(&self, rate: &str) {
        let configuration = json!({"spec": {"tracing": {"samplingRate": rate}}});
        self.cluster
            .put("configurations", "default", "app", configuration);
    }

    /// A sidecar that uses the Configuration `app`.
    async fn configured(&self) -> Result<Daprd> {
        self.configure("0");
        let annotations =
            json!({"dapr.io/enabled": "true", "dapr.io/app-id": "app", "dapr.io/config": "app"});
        self.cluster.put_at(
            "/api/v1/namespaces/default/pods/app",
            json!({"metadata": {"annotations": annotations}}),
        );
        let daprd = self.daprd(self.operator.port())?;
        daprd.flag("--config=app").start().await
    }
}

fn memory() -> Value {
    json!({"spec": {"type": "state.in-memory", "version": "v1"}})
}

async fn names(
    client: &mut OperatorClient<Channel>,
    namespace: &str,
) -> Result<Vec<String>, Status> {
    let namespace = namespace.to_owned();
    let answer = client.list_components(ListComponentsRequest { namespace });
    let components = answer.await?.into_inner().components;
    let named = components.iter().map(|json| {
        let json: Value = serde_json::from_slice(json).unwrap_or_default();
        json["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    });
    Ok(named.collect())
}

#[tokio::test]
async fn a_sidecar_gets_what_is_in_its_namespace_and_scope() -> Result<()> {
    let plane = Plane::start().await?;
    let mut theirs = memory();
    theirs["scopes"] = json!(["other"]);
    plane.component("default", "ours", memory());
    plane.component("default", "theirs", theirs.clone());
    plane.component("other", "elsewhere", memory());
    let mut client = plane.client("default", "app").await?;
    wait::until("the list is right", async || {
        let names = names(&mut plane.client("default", "app").await.ok()?, "default").await;
        names.is_ok_and(|names| names == ["ours"]).then_some(())
    })
    .await?;

    let request = || ComponentUpdateRequest {
        namespace: "default".to_owned(),
    };
    let mut events = client.component_update(request()).await?.into_inner();
    // Changes of the last second are sent first.
    plane.component("default", "theirs", theirs);
    plane.component("default", "late", memory());
    plane.component(
        "default",
        "late",
        json!({"spec": {"type": "state.redis", "version": "v1"}}),
    );
    plane.cluster.delete("components", "default", "late");
    let mut received = Vec::new();
    while received.last() != Some(&(Event::Deleted, "late".to_owned())) {
        let event = tokio::time::timeout(wait::LONG, events.message()).await??;
        let ComponentUpdateEvent { component, r#type } = event.context("the stream is over")?;
        let component: Value = serde_json::from_slice(&component)?;
        let name = component["metadata"]["name"].as_str().context("no name")?;
        received.push((Event::try_from(r#type)?, name.to_owned()));
    }
    let late: Vec<Event> = received
        .iter()
        .filter(|(_, name)| name == "late")
        .map(|(event, _)| *event)
        .collect();
    assert_eq!(late, [Event::Created, Event::Updated, Event::Deleted]);
    assert!(
        received
            .iter()
            .all(|(_, name)| name == "late" || name == "ours"),
        "{received:?}"
    );

    let mut other = plane.client("other", "app").await?;
    for (client, asked, own) in [
        (&client, "other", "default"),
        (&client, "", "default"),
        (&other, "default", "other"),
    ] {
        let wanted = format!("identity does not match requested namespace exp={asked} got={own}");
        let mut client = client.clone();
        let listed = names(&mut client, asked).await;
        let refused = listed.expect_err("is not theirs");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::PermissionDenied, wanted.as_str())
        );
        let namespace = asked.to_owned();
        let streamed = client.component_update(ComponentUpdateRequest { namespace });
        let refused = streamed.await.expect_err("is not theirs");
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::PermissionDenied, wanted.as_str())
        );
    }
    assert_eq!(names(&mut other, "other").await?, ["elsewhere"]);
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_valid_certificate_gets_nothing() -> Result<()> {
    let plane = Plane::start().await?;
    let (port, name) = (plane.operator.port(), Operator::NAME);
    let works = async || {
        names(&mut plane.client("default", "app").await?, "default")
            .await
            .map_err(anyhow::Error::from)
    };
    works().await?;

    // A connection may look made to the client before the server has verified
    // its certificate.
    let refused = async |channel: Result<Channel>| match channel {
        Err(_) => true,
        Ok(channel) => names(&mut OperatorClient::new(channel), "default")
            .await
            .is_err(),
    };
    let refused_by = async |reason: &str| {
        let refusals = || async {
            let lines = plane.operator.lines();
            let mut refusals = lines.iter().filter(|line| line.contains("was refused: "));
            refusals.any(|line| line.contains(reason)).then_some(())
        };
        wait::until(
            &format!("a refusal because of '{reason}' is logged"),
            refusals,
        )
        .await
    };
    let id = "spiffe://public/ns/default/app";
    let other = Authority::new()?;
    assert!(refused(plane.channel(&other, id).await).await);
    refused_by("the chain does not lead to a trust anchor").await?;
    let dial = async |identity| plane.authority.channel(name, port, identity).await;
    assert!(refused(dial(None).await).await);
    refused_by("peer sent no certificates").await?;
    let old = plane
        .authority
        .identify(id, OffsetDateTime::now_utc() - DAY)?;
    assert!(refused(dial(Some(old)).await).await);
    refused_by("invalid peer certificate: Expired").await?;
    let web = plane.channel(&plane.authority, "https://example.com/app");
    assert!(refused(web.await).await);
    refused_by("malformed SPIFFE id").await?;
    works().await?;

    for garbage in [
        &b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        &[0xff; 70_000],
    ] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
        // The server may close the connection before all of it is sent.
        let _ = socket.write_all(garbage).await;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(wait::LONG, socket.read_to_end(&mut answer));
        let _ = ended.await.context("the connection stays open")?;
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    refused_by("received corrupt message").await?;
    works().await?;

    // Garbage from a client with a certificate.
    let identity = plane
        .authority
        .identify(id, OffsetDateTime::now_utc() + DAY)?;
    let mut stream = plane.authority.dial(name, port, Some(identity)).await?;
    stream.write_all(&[0xff; 4096]).await?;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(wait::LONG, stream.read_to_end(&mut answer));
    let _ = ended.await.context("the connection stays open")?;
    works().await?;
    assert_eq!(plane.operator.status(), None);
    Ok(())
}

#[tokio::test]
async fn clients_that_drip_are_disconnected_and_do_not_block_others() -> Result<()> {
    let plane = Plane::start().await?;
    let mut dripping = Vec::new();
    for _ in 0..64 {
        dripping.push(TcpStream::connect(("127.0.0.1", plane.operator.port())).await?);
    }
    // The head of a long TLS record, whose rest comes byte by byte.
    for socket in &mut dripping {
        socket.write_all(&[22, 3, 1, 0x20, 0, 1, 0, 0x1f]).await?;
    }
    let mut rounds = tokio::time::interval(Duration::from_millis(500));
    let cut = async {
        let mut byte = [0];
        while !dripping.is_empty() {
            rounds.tick().await;
            names(&mut plane.client("default", "app").await?, "default").await?;
            dripping.retain_mut(|socket| {
                let open = match socket.try_read(&mut byte) {
                    Ok(0) => false,
                    Ok(_) => true,
                    Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
                };
                open && socket.try_write(&[0]).is_ok()
            });
        }
        anyhow::Ok(())
    };
    let cut = tokio::time::timeout(wait::LONG, cut).await;
    cut.context("some may drip for ever")??;
    let line = "was refused: no TLS handshake within 10s";
    plane.operator.line(line).await?;
    Ok(())
}

#[tokio::test]
async fn one_wrong_resource_does_not_affect_others() -> Result<()> {
    let mut odd = memory();
    odd["spec"]["colour"] = json!({"is": ["not", "known"]});
    odd["more"] = json!(7);
    let wanting = json!({
        "spec": {
            "type": "state.redis", "version": "v1", "ignoreErrors": true,
            "metadata": [
                {"name": "redisHost", "value": "127.0.0.1:1"},
                {"name": "redisPassword", "secretKeyRef": {"name": "nope", "key": "nope"}},
            ],
        },
        "auth": {"secretStore": "kubernetes"},
    });
    // The sidecar's first list has them all.
    let plane = Plane::with(|cluster| {
        cluster.put("components", "default", "good", memory());
        cluster.put("components", "default", "odd", odd);
        cluster.put("components", "default", "wanting", wanting);
    })
    .await?;
    let daprd = plane.daprd(plane.operator.port())?.start().await?;
    plane.operator.line("secret default/nope not found").await?;
    let metadata = daprd.http().get("/v1.0/metadata").await?.json()?;
    let mut names: Vec<&str> = metadata["components"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|component| component["name"].as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["good", "kubernetes", "odd"]);
    let line = daprd.line("Ignoring error processing component: ").await?;
    assert!(line.contains("wanting (state.redis/v1)"), "{line}");

    // One that cannot even be read.
    plane.component("default", "crooked", json!({"spec": "text"}));
    let line = "sent the Component crooked that cannot be read: spec: invalid type: string";
    daprd.line(line).await?;
    plane.component("default", "late", memory());
    daprd.line("Component loaded: late").await?;
    assert_eq!(plane.operator.status(), None);
    Ok(())
}

/// A component whose property `p` comes from the key `value` of a secret.
fn wanting(secret: &str) -> Value {
    let property = json!({"name": "p", "secretKeyRef": {"name": secret, "key": "value"}});
    json!({"spec": {"type": "state.in-memory", "version": "v1", "metadata": [property]}})
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_affects_its_own_component_only() -> Result<()> {
    let plane = Plane::start().await?;
    // As with roles of one namespace: what is elsewhere, and lists of all, are forbidden.
    let secret = |name: &str| format!("/api/v1/namespaces/default/secrets/{name}");
    plane
        .cluster
        .refuse("/api/v1/secrets", StatusCode::FORBIDDEN);
    plane
        .cluster
        .refuse(&secret("hidden"), StatusCode::FORBIDDEN);
    plane.cluster.put_secret("default", "known", "42");
    plane.cluster.put_secret("prod", "db-pass", "hunter2");
    plane.component("default", "good", memory());
    plane.component("default", "known", wanting("known"));
    for (name, wanted) in [
        ("forbidden", "hidden"),
        ("impossible", "../../prod/secrets/db-pass?"),
        ("impossible-2", "db-pass%3F"),
        ("missing", "nope"),
    ] {
        plane.component("default", name, wanting(wanted));
    }
    let daprd = plane.daprd(plane.operator.port())?.start().await?;
    plane.operator.line("secret default/nope not found").await?;
    let metadata = daprd.http().get("/v1.0/metadata").await?.json()?;
    let loaded: Vec<&str> = metadata["components"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|component| component["name"].as_str())
        .collect();
    for name in ["good", "known"] {
        assert!(loaded.contains(&name), "{loaded:?}");
    }
    let mut client = plane.client("default", "app").await?;
    let listed = names(&mut client, "default").await?;
    assert_eq!(listed.len(), 6, "{listed:?}");

    // One that comes later, too.
    let request = ComponentUpdateRequest {
        namespace: "default".to_owned(),
    };
    let mut events = client.component_update(request).await?.into_inner();
    plane.component("default", "late", wanting("x/../db-pass"));
    loop {
        let event = tokio::time::timeout(wait::LONG, events.message()).await??;
        let event = event.context("the stream is over")?;
        let component: Value = serde_json::from_slice(&event.component)?;
        if component["metadata"]["name"] == "late" {
            assert!(component["spec"]["metadata"][0]["value"].is_null());
            break;
        }
    }
    let asked = plane.cluster.requests("/secrets");
    assert!(
        asked.iter().all(|asked| {
            ["known", "hidden", "nope"]
                .iter()
                .any(|name| *asked == format!("GET {}", secret(name)))
        }),
        "{asked:?}"
    );
    assert_eq!(plane.operator.status(), None);
    Ok(())
}

#[tokio::test]
async fn many_sidecars_cost_one_read_of_a_secret() -> Result<()> {
    const CONNECTIONS: usize = 10;
    const STREAMS: usize = 20;
    let plane = Plane::start().await?;
    plane.cluster.put_secret("default", "s", "old");
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut client = plane.client("default", "app").await?;
        for _ in 0..STREAMS {
            let request = ComponentUpdateRequest {
                namespace: "default".to_owned(),
            };
            streams.push(client.component_update(request).await?.into_inner());
        }
    }
    for round in 0..2 {
        let mut changed = wanting("s");
        changed["spec"]["round"] = json!(round);
        plane.component("default", "c", changed);
        for events in &mut streams {
            let event = tokio::time::timeout(wait::LONG, events.message()).await??;
            let event = event.context("the stream is over")?;
            let component: Value = serde_json::from_slice(&event.component)?;
            assert_eq!(component["spec"]["round"], round);
            assert!(component["spec"]["metadata"][0]["value"].is_string());
        }
        let reads = plane.cluster.requests("/secrets");
        assert_eq!(reads.len(), round + 1, "{reads:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_change_while_the_operator_is_away_is_taken_up_later() -> Result<()> {
    let plane = Plane::start().await?;
    let daprd = plane.configured().await?;
    let port = plane.operator.port();
    plane.operator.stop().await?;
    plane.configure("1");
    let _operator = Operator::at(port, &plane.cluster, &plane.sentry).await?;
    daprd
        .line("Received Configuration UPDATED event: app")
        .await?;
    daprd.ready().await
}

#[tokio::test]
async fn an_invalid_configuration_is_not_used() -> Result<()> {
    let plane = Plane::start().await?;
    let daprd = plane.configured().await?;
    let spec = json!({"api": {"denied": [{"name": "state", "protocol": "udp"}]}});
    plane
        .cluster
        .put("configurations", "default", "app", json!({"spec": spec}));
    daprd
        .line("the Configuration app stays in use as it was: the API list of the Configuration has an entry")
        .await?;
    let restarts = || {
        let lines = daprd.lines();
        lines.iter().any(|line| line.contains("UPDATED event: app"))
    };
    assert!(!restarts());
    plane.configure("1");
    daprd
        .line("Received Configuration UPDATED event: app")
        .await?;
    daprd.ready().await
}

#[tokio::test]
async fn two_changes_in_a_row_cause_at_most_two_reloads() -> Result<()> {
    let plane = Plane::start().await?;
    let daprd = plane.configured().await?;
    plane.configure("1");
    plane.configure("2");
    // The former runtime ended over a second ago: its changes are not sent again.
    let reloads = || {
        let lines = daprd.lines();
        lines
            .iter()
            .filter(|line| line.contains("UPDATED event: app"))
            .count()
    };
    let mut last = (reloads(), Instant::now());
    wait::until("the sidecar settles", || {
        let now = reloads();
        if now != last.0 {
            last = (now, Instant::now());
        }
        let settled = now > 0 && last.1.elapsed() > Duration::from_secs(2);
        std::future::ready(settled.then_some(()))
    })
    .await?;
    assert!(reloads() <= 2, "{} reloads for two changes", reloads());
    Ok(())
}

#[tokio::test]
async fn a_component_that_cannot_start_ends_no_sidecar_of_its_namespace() -> Result<()> {
    let plane = Plane::start().await?;
    plane.component("default", "good", memory());
    let port = plane.operator.port();
    let daprd = plane.daprd(port)?.start().await?;
    let saved = json!([{"key": "k", "value": 1}]);
    let http = daprd.http();
    assert_eq!(http.post("/v1.0/state/good", &saved).await?.status, 204);

    let kind = |kind: &str| json!({"spec": {"type": kind, "version": "v1"}});
    plane.component("default", "impossible", kind("state.nowhere"));
    daprd
        .line("Component impossible (state.nowhere/v1) cannot be used")
        .await?;
    plane.component("default", "good", kind("state.sqlite"));
    daprd
        .line("Component good (state.sqlite/v1) cannot be used, the one before stays in use")
        .await?;
    assert_eq!(http.get("/v1.0/state/good/k").await?.text(), "1");
    plane.component("default", "late", memory());
    daprd.line("Component updated: late").await?;
    let extended = &http.get("/v1.0/metadata").await?.json()?["extended"];
    for name in ["impossible", "good"] {
        let failure = &extended[format!("outriderComponentError.{name}")];
        assert!(failure.is_string(), "{extended}");
    }
    assert_eq!(daprd.status(), None);

    plane.component("default", "impossible", memory());
    daprd.line("Component updated: impossible").await?;
    Ok(())
}

const EVENTS: &str = "/api/v1/namespaces/default/events";

#[tokio::test]
async fn a_component_that_cannot_start_gets_an_event() -> Result<()> {
    let plane = Plane::start().await?;
    plane.component("default", "good", memory());
    let daprd = plane.daprd(plane.operator.port())?.start().await?;
    assert!(plane.cluster.objects(EVENTS).is_empty());
    let broken = json!({"spec": {"type": "state.sqlite", "version": "v1"}});
    plane.component("default", "good", broken);
    let event = wait::until("an event is written", async || {
        plane.cluster.objects(EVENTS).pop()
    })
    .await?;
    let about = &event["involvedObject"];
    assert_eq!(
        (&about["kind"], &about["name"], &about["apiVersion"]),
        (
            &json!("Component"),
            &json!("good"),
            &json!("dapr.io/v1alpha1")
        )
    );
    assert_eq!(
        (&event["type"], &event["reason"]),
        (&json!("Warning"), &json!("InitFailed"))
    );
    let message = event["message"].as_str().unwrap_or_default();
    assert!(message.contains("INIT_COMPONENT_FAILURE"), "{message}");
    // Further tries of the same sidecar add nothing.
    daprd.line("it is tried again in 2s").await?;
    daprd.line("it is tried again in 4s").await?;
    assert_eq!(plane.cluster.objects(EVENTS).len(), 1);
    Ok(())
}

#[tokio::test]
async fn only_a_component_of_the_own_namespace_and_scope_can_be_reported() -> Result<()> {
    let plane = Plane::start().await?;
    let mut theirs = memory();
    theirs["scopes"] = json!(["other"]);
    plane.component("default", "ours", memory());
    plane.component("default", "theirs", theirs);
    plane.component("other", "elsewhere", memory());
    wait::until("the operator has the components", async || {
        let mut client = plane.client("other", "app").await.ok()?;
        let listed = names(&mut client, "other").await;
        listed
            .is_ok_and(|names| names == ["elsewhere"])
            .then_some(())
    })
    .await?;
    let id = "spiffe://public/ns/default/app";
    let channel = plane.channel(&plane.authority, id).await?;
    let mut client = ReportsClient::new(channel);
    let report = |namespace: &str, name: &str| FailureReport {
        namespace: namespace.to_owned(),
        kind: "Component".to_owned(),
        name: name.to_owned(),
        reason: "InitFailed".to_owned(),
        message: "x".repeat(2000),
    };
    for (namespace, name, wanted) in [
        ("other", "elsewhere", Code::PermissionDenied),
        ("other", "ours", Code::PermissionDenied),
        ("", "ours", Code::PermissionDenied),
        ("default", "elsewhere", Code::NotFound),
        ("default", "theirs", Code::NotFound),
        ("default", "../../other/events", Code::NotFound),
    ] {
        let refused = client.report_failure(report(namespace, name)).await;
        let refused = refused.expect_err("is not theirs");
        assert_eq!(refused.code(), wanted, "{namespace}/{name}: {refused}");
    }
    let mut long = report("default", "ours");
    long.message = "x".repeat(1 << 20);
    assert!(client.report_failure(long).await.is_err());
    assert!(plane.cluster.requests("/events").is_empty());
    for _ in 0..3 {
        client.report_failure(report("default", "ours")).await?;
    }
    let written = plane.cluster.objects(EVENTS);
    assert_eq!(written.len(), 1, "{written:?}");
    let length = written[0]["message"].as_str().map(str::len);
    assert_eq!(length, Some(1024));
    Ok(())
}
