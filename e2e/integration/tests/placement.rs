//! The process `placement`, as sidecars see it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use outrider_harness::http::Client;
use outrider_harness::{Placement, Signal, wait};
use outrider_proto::placement::v1::placement_client::PlacementClient;
use outrider_proto::placement::v1::{Host, HostOperation, PlacementOrder};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

const TIMEOUT: Duration = Duration::from_secs(10);

/// One sidecar's stream.
struct Stream {
    hosts_tx: mpsc::Sender<Host>,
    orders: Streaming<PlacementOrder>,
    host: Host,
}

fn host(name: &str, types: &[&str]) -> Host {
    Host {
        name: name.to_owned(),
        id: format!("app-{name}"),
        namespace: "ns".to_owned(),
        entities: types.iter().map(|it| (*it).to_owned()).collect(),
        operation: HostOperation::Report.into(),
        ..Host::default()
    }
}

impl Stream {
    async fn open(placement: &Placement, host: Host) -> Result<Stream, Status> {
        let address = format!("http://127.0.0.1:{}", placement.port());
        let client = PlacementClient::connect(address).await;
        let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
        let (hosts_tx, hosts) = mpsc::channel(16);
        let first = hosts_tx.send(host.clone()).await;
        first.map_err(|_| Status::internal("the channel is closed"))?;
        let orders = client
            .report_dapr_status(ReceiverStream::new(hosts))
            .await?;
        Ok(Stream {
            hosts_tx,
            orders: orders.into_inner(),
            host,
        })
    }

    async fn next(&mut self) -> Result<PlacementOrder, Status> {
        let order = tokio::time::timeout(TIMEOUT, self.orders.message()).await;
        let order = order.map_err(|_| Status::aborted("no order in time"))??;
        order.ok_or_else(|| Status::aborted("the stream has ended"))
    }

    async fn acknowledge(&self, order: &PlacementOrder) -> Result<()> {
        let operation = match order.operation.as_str() {
            "lock" => HostOperation::Lock,
            "update" => HostOperation::Update,
            "unlock" => HostOperation::Unlock,
            other => bail!("an order {other:?}"),
        };
        let host = Host {
            operation: operation.into(),
            version: Some(order.version),
            entities: Vec::new(),
            ..self.host.clone()
        };
        self.hosts_tx.send(host).await?;
        Ok(())
    }

    /// Takes part in rounds until a whole one had these hosts of `actor_type`.
    async fn until_hosts(&mut self, actor_type: &str, wanted: &[&str]) -> Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().map(|it| (*it).to_owned()).collect();
        let mut found = BTreeSet::new();
        loop {
            let order = self.next().await?;
            if let Some(tables) = &order.tables {
                let table = tables.entries.get(actor_type);
                let hosts = table.map(|table| table.load_map.keys().cloned());
                found = hosts.into_iter().flatten().collect();
            }
            self.acknowledge(&order).await?;
            if order.operation == "unlock" && found == wanted {
                return Ok(());
            }
        }
    }
}

#[tokio::test]
async fn sidecars_learn_in_rounds_who_hosts_what() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let mut one = Stream::open(&placement, host("h1:1", &["cat"])).await?;
    one.until_hosts("cat", &["h1:1"]).await?;
    let mut two = Stream::open(&placement, host("h2:1", &["cat", "dog"])).await?;
    tokio::try_join!(
        one.until_hosts("cat", &["h1:1", "h2:1"]),
        two.until_hosts("cat", &["h1:1", "h2:1"]),
    )?;
    let page = Client::new(placement.healthz_port());
    let state = page.get("/placement/state").await?.json()?;
    let hosts = state["tables"]["ns"]["hosts"].as_array().context("hosts")?;
    let names: Vec<_> = hosts.iter().map(|host| &host["name"]).collect();
    assert_eq!(names, ["h1:1", "h2:1"]);
    assert_eq!(state["tables"]["ns"]["version"], 2);
    drop(one);
    two.until_hosts("cat", &["h2:1"]).await?;
    drop(two);
    wait::until("no namespace", || async {
        let state = page.get("/placement/state").await.ok()?.json().ok()?;
        (state == serde_json::json!({})).then_some(())
    })
    .await
}

#[tokio::test]
async fn a_silent_sidecar_is_disconnected_and_the_others_go_on() -> Result<()> {
    let placement = Placement::start(&["--disseminate-timeout=1s"]).await?;
    let mut silent = Stream::open(&placement, host("h1:1", &["cat"])).await?;
    silent.until_hosts("cat", &["h1:1"]).await?;
    let mut other = Stream::open(&placement, host("h2:1", &["cat"])).await?;
    other.until_hosts("cat", &["h2:1"]).await?;
    let lock = silent.next().await?;
    assert_eq!((lock.operation.as_str(), lock.version), ("lock", 2));
    let status = silent.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::DeadlineExceeded,
            "dissemination timeout after 1s for version 2"
        )
    );
    Ok(())
}

#[tokio::test]
async fn reports_that_may_not_be_are_refused() -> Result<()> {
    let placement = Placement::start(&[]).await?;
    let foreign = host("h1:1", &["dapr.internal.ns.other.workflow"]);
    let nameless = Host {
        id: String::new(),
        ..host("h1:1", &["cat"])
    };
    let half = Host {
        operation: HostOperation::Unknown.into(),
        version: Some(1),
        ..host("h1:1", &["cat"])
    };
    for (host, code, text) in [
        (
            foreign,
            Code::PermissionDenied,
            "entity dapr.internal.ns.other.workflow is not allowed for app ID app-h1:1 in namespace ns",
        ),
        (
            nameless,
            Code::InvalidArgument,
            "host ID and namespace must be provided",
        ),
        (
            half,
            Code::InvalidArgument,
            "both operation and version must be set or both must be unset",
        ),
    ] {
        let status = match Stream::open(&placement, host).await {
            Ok(mut stream) => stream.next().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!((status.code(), status.message()), (code, text));
    }
    Ok(())
}

#[tokio::test]
async fn a_sidecar_that_only_writes_is_given_up_and_costs_little() -> Result<()> {
    let placement = Placement::start(&["--disseminate-timeout=1s"]).await?;
    let before = placement.anonymous_memory()?;
    let flood = Stream::open(&placement, host("h1:1", &["cat"])).await?;
    for index in 0..20_000 {
        let types = [format!("type-{index}")];
        let types: Vec<_> = types.iter().map(String::as_str).collect();
        let report = flood.hosts_tx.send(host("h1:1", &types));
        // Once it is given up nobody reads.
        match tokio::time::timeout(Duration::from_secs(2), report).await {
            Ok(Ok(())) => {}
            _ => break,
        }
    }
    let mut other = Stream::open(&placement, host("h2:1", &["dog"])).await?;
    other.until_hosts("dog", &["h2:1"]).await?;
    let grown = placement.anonymous_memory()?.saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    Ok(())
}

/// The replica that serves, and a stream to it.
async fn serving(replicas: &[Placement]) -> Result<(usize, Stream)> {
    wait::until("a replica that serves", || async {
        for (index, replica) in replicas.iter().enumerate() {
            if let Ok(stream) = Stream::open(replica, host("h1:1", &["cat"])).await {
                return Some((index, stream));
            }
        }
        None
    })
    .await
}

#[tokio::test]
async fn one_replica_serves_and_another_takes_over_within_two_seconds() -> Result<()> {
    let mut replicas = Placement::replicas(3).await?;
    let (leader, mut stream) = serving(&replicas).await?;
    stream.until_hosts("cat", &["h1:1"]).await?;
    let refused = Stream::open(&replicas[(leader + 1) % 3], host("h2:1", &["cat"])).await;
    let refused = refused.err().context("a follower serves")?;
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let id = (leader + 1) % 3;
    assert_eq!(
        refused.message(),
        format!("node id=p{id} is not a leader. Only the leader can serve requests")
    );

    let killed = Instant::now();
    replicas[leader].signal(Signal::KILL)?;
    drop(replicas.remove(leader));
    let (_, mut stream) = serving(&replicas).await?;
    let elected = killed.elapsed();
    stream.until_hosts("cat", &["h1:1"]).await?;
    assert!(elected < Duration::from_millis(2500), "{elected:?}");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over() -> Result<()> {
    let mut replicas = Placement::replicas(3).await?;
    let (leader, mut stream) = serving(&replicas).await?;
    stream.until_hosts("cat", &["h1:1"]).await?;
    let signalled = Instant::now();
    replicas[leader].signal(Signal::TERM)?;
    let status = stream.next().await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (
            Code::Unknown,
            "cancelling context, received signal terminated"
        )
    );
    drop(replicas.remove(leader));
    let (_, _stream) = serving(&replicas).await?;
    let elected = signalled.elapsed();
    assert!(elected < Duration::from_millis(1000), "{elected:?}");
    Ok(())
}
