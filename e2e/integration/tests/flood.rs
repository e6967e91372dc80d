//! Clients that open many connections to the control plane and send little.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Request;
use outrider_harness::{
    Authority, Daprd, Injector, Kubernetes, Operator, Process, Sentry, UnverifiedClient, channel,
    wait,
};
use outrider_proto::operator::v1::ListComponentsRequest;
use outrider_proto::operator::v1::operator_client::OperatorClient;
use outrider_proto::sentry::v1::SignCertificateRequest;
use outrider_proto::sentry::v1::ca_client::CaClient;
use serde_json::json;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

/// Connections that never send a byte.
const SILENT: usize = 1400;
/// Connections that fall silent after the handshake of TLS.
const SILENT_TLS: usize = 300;
/// Connections that fall silent in the middle of HTTP/2's first bytes.
const SILENT_HTTP2: usize = 300;
/// Connections that send a body byte by byte.
const DRIPPING: usize = 200;
/// What all of them may cost: 12 MiB, and up to 20 where other tests keep the
/// processors from the handshakes.
const GROWTH: u64 = 24 << 20;
/// The same where none of them is closed: the clients of a sidecar's API are its
/// application.
const GROWTH_OF_ALL: u64 = 30 << 20;

fn allow_many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Connections that are held open until it is dropped.
struct Flood {
    _silent: Vec<TcpStream>,
    _open: Vec<Box<dyn std::any::Any + Send>>,
    _dripping: JoinSet<()>,
}

impl Flood {
    /// The server closes some of them while others are opened. `dial` opens those
    /// that drip.
    async fn of(
        port: u16,
        path: &'static str,
        dial: impl AsyncFn() -> Result<TlsStream<TcpStream>>,
    ) -> Result<Flood> {
        allow_many_files();
        let mut silent = Vec::new();
        for _ in 0..SILENT {
            silent.push(TcpStream::connect(("127.0.0.1", port)).await?);
        }
        let client = UnverifiedClient::new("h2")?;
        let mut open: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
        for n in 0..SILENT_TLS + SILENT_HTTP2 {
            let Ok(mut stream) = client.dial(port).await else {
                continue;
            };
            if n >= SILENT_TLS {
                let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM").await;
            }
            open.push(Box::new(stream));
        }
        let mut dripping = JoinSet::new();
        let begun = Arc::new(AtomicUsize::new(0));
        for n in 0..DRIPPING {
            let stream = dial().await?;
            let begun = begun.clone();
            dripping.spawn(async move {
                // Others send a whole request and read no answer.
                let _ = match n % 2 {
                    0 => drip(stream, path, &begun).await,
                    _ => ignore(stream, path, &begun).await,
                };
            });
        }
        let all = || async { (begun.load(Relaxed) >= DRIPPING / 2).then_some(()) };
        wait::until("bodies drip", all).await?;
        Ok(Flood {
            _silent: silent,
            _open: open,
            _dripping: dripping,
        })
    }

    /// The same without TLS: what they have begun are heads of requests.
    async fn plain(port: u16) -> Result<Flood> {
        allow_many_files();
        let mut silent = Vec::new();
        for n in 0..SILENT + SILENT_TLS + SILENT_HTTP2 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            let beginning: &[u8] = match n.checked_sub(SILENT) {
                None => b"",
                Some(n) if n < SILENT_TLS => b"GET / HTTP/1.1\r\nHost: ",
                Some(_) => b"PRI * HTTP/2.0\r\n\r\nSM",
            };
            stream.write_all(beginning).await?;
            silent.push(stream);
        }
        Ok(Flood {
            _silent: silent,
            _open: Vec::new(),
            _dripping: JoinSet::new(),
        })
    }
}

/// Sends the head of a request and then its body byte by byte, for as long as
/// the other end takes it.
async fn drip(stream: TlsStream<TcpStream>, path: &str, begun: &AtomicUsize) -> Result<()> {
    let (mut client, connection) = h2::client::handshake(stream).await?;
    let mut driven = JoinSet::new();
    driven.spawn(connection);
    let (_answer, mut body) = client.send_request(request(path)?, false)?;
    body.send_data(Bytes::from_static(b"\0"), false)?;
    begun.fetch_add(1, Relaxed);
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    while driven.try_join_next().is_none() {
        tick.tick().await;
        body.send_data(Bytes::from_static(b"\0"), false)?;
    }
    Ok(())
}

/// Sends a request, and does not let a byte of the answer's body come.
async fn ignore(stream: TlsStream<TcpStream>, path: &str, begun: &AtomicUsize) -> Result<()> {
    let mut builder = h2::client::Builder::new();
    let builder = builder
        .initial_window_size(0)
        .initial_connection_window_size(0);
    let (mut client, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let mut driven = JoinSet::new();
    driven.spawn(connection);
    let (answer, mut body) = client.send_request(request(path)?, false)?;
    body.send_data(Bytes::from_static(b"\0\0\0\0\0"), true)?;
    begun.fetch_add(1, Relaxed);
    let _answer = answer.await?;
    driven.join_next().await;
    Ok(())
}

fn request(path: &str) -> Result<Request<()>> {
    let request = Request::post(format!("https://localhost{path}"))
        .header("content-type", "application/grpc");
    Ok(request.body(())?)
}

/// Floods take their turns, so that one does not slow the other down.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Sends requests before, during and after a flood: answers come in time, and
/// memory hardly grows.
async fn answers_during(
    flood: impl Future<Output = Result<Flood>>,
    (process, limit): (&Process, u64),
    ask: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let _alone = ALONE.lock().await;
    ask().await?;
    let before = process.anonymous_memory()?;
    let flood = flood.await?;
    let mut took = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        ask().await.context("during the flood")?;
        took.push(start.elapsed());
    }
    // Other tests use the processors too.
    took.sort_unstable();
    assert!(took[10] < Duration::from_secs(1), "answers took {took:?}");
    assert!(took[19] < Duration::from_secs(5), "answers took {took:?}");
    let grown = process.anonymous_memory()?.saturating_sub(before);
    println!("{grown} bytes more in the flood");
    assert!(grown < limit, "{grown} bytes more");
    let closed = || async {
        let mut byte = [0];
        let read = flood._silent[0].try_read(&mut byte);
        matches!(read, Ok(0) | Err(_)).then_some(())
    };
    wait::until("the oldest silent connection is closed", closed).await?;
    drop(flood);
    ask().await.context("after the flood")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentry_answers_in_a_flood_of_silent_connections() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sentry = Sentry::start().await?;
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let client = UnverifiedClient::new("h2")?;
    let ask = async || {
        let stream = client.dial(sentry.port()).await?;
        let mut ca = CaClient::new(channel(stream).await?);
        let request = SignCertificateRequest {
            id: "app".to_owned(),
            namespace: "default".to_owned(),
            certificate_signing_request: csr.clone().into_bytes().into(),
            ..Default::default()
        };
        ca.sign_certificate(request).await?;
        Ok(())
    };
    let path = "/dapr.proto.sentry.v1.CA/SignCertificate";
    let dial = async || client.dial(sentry.port()).await;
    answers_during(Flood::of(sentry.port(), path, dial), (&sentry, GROWTH), ask).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injector_answers_in_a_flood_of_silent_connections() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sentry = Sentry::start().await?;
    let injector = Injector::start(&sentry).await?;
    let anchors = reqwest::Certificate::from_pem_bundle(sentry.anchors()?.as_bytes())?;
    let pod = json!({
        "metadata": {"name": "p", "annotations": {"dapr.io/enabled": "true", "dapr.io/app-id": "app"}},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    });
    let review = json!({"request": {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "default", "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"}, "object": pod}});
    let ask = async || {
        // A new connection each time.
        let client = reqwest::Client::builder()
            .tls_certs_only(anchors.clone())
            .resolve(Injector::NAME, ([127, 0, 0, 1], injector.port()).into())
            .build()?;
        let url = format!("https://{}:{}/mutate", Injector::NAME, injector.port());
        let request = client.post(url).header("content-type", "application/json");
        let answer = request
            .body(review.to_string())
            .send()
            .await?
            .text()
            .await?;
        anyhow::ensure!(answer.contains(r#""allowed":true"#), "{answer}");
        Ok(())
    };
    let client = UnverifiedClient::new("h2")?;
    let dial = async || client.dial(injector.port()).await;
    answers_during(
        Flood::of(injector.port(), "/mutate", dial),
        (&injector, GROWTH),
        ask,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_answers_in_a_flood_of_silent_connections() -> Result<()> {
    let authority = Authority::new()?;
    let cluster = Kubernetes::start().await?;
    let sentry = Sentry::of(&authority, "24h").await?;
    let operator = Operator::start(&cluster, &sentry).await?;
    let end = OffsetDateTime::now_utc() + time::Duration::DAY;
    // The clients of the flood have valid certificates.
    let dial = async || {
        let identity = authority.identify("spiffe://public/ns/default/app", end)?;
        let dialled = authority.dial(Operator::NAME, operator.port(), Some(identity));
        dialled.await
    };
    let ask = async || {
        let namespace = "default".to_owned();
        let request = ListComponentsRequest { namespace };
        let mut client = OperatorClient::new(channel(dial().await?).await?);
        client.list_components(request).await?;
        Ok(())
    };
    let path = "/dapr.proto.operator.v1.Operator/ListComponents";
    answers_during(
        Flood::of(operator.port(), path, dial),
        (&operator, GROWTH),
        ask,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecar_answers_in_a_flood_of_silent_connections() -> Result<()> {
    let daprd = Daprd::builder().start().await?;
    let ask = async || {
        let answer = daprd.http().get("/v1.0/healthz").await?;
        anyhow::ensure!(answer.status == 204, "{}", answer.status);
        Ok(())
    };
    let flood = Flood::plain(daprd.http_port());
    answers_during(flood, (&daprd, GROWTH_OF_ALL), ask).await
}
