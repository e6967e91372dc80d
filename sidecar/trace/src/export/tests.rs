use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::*;
use crate::context::Context;
use crate::span::Kind;

/// A queue that nobody empties.
pub fn collecting() -> Arc<Exporting> {
    let queue = Queue::new("test", Batching::default());
    Arc::new(Exporting(vec![Arc::new(queue)]))
}

impl Exporting {
    pub fn waiting(&self) -> Vec<Arc<Finished>> {
        self.0.iter().flat_map(|queue| queue.next()).collect()
    }
}

pub fn span(name: &'static str) -> Finished {
    Finished {
        context: Context {
            trace_id: [1; 16],
            span_id: [2; 8],
            flags: 1,
        },
        parent: None,
        state: String::new(),
        kind: Kind::Client,
        name: name.into(),
        attributes: Vec::new(),
        start: SystemTime::now(),
        took: Duration::from_millis(1),
        error: None,
    }
}

/// What a collector was sent: path, a header, body.
type Seen = Arc<Mutex<Vec<(String, Option<String>, Bytes)>>>;

/// Answers each connection's requests, one after the other, with what `answer`
/// makes.
async fn collector(
    answer: impl Fn(usize) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
    tasks: &Tasks,
) -> (Endpoint, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        is_tls: false,
        roots: None,
    };
    let seen = Seen::default();
    let (noting, connections) = (seen.clone(), tasks.clone());
    tasks.spawn("collector", async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (noting, answer) = (noting.clone(), answer.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (noting, answer) = (noting.clone(), answer.clone());
                async move {
                    let path = request.uri().path().to_owned();
                    let key = request.headers().get("x-key");
                    let key = key.map(|v| v.to_str().unwrap().to_owned());
                    let body = request.into_body().collect().await?.to_bytes();
                    let number = {
                        let mut seen = noting.lock().unwrap();
                        seen.push((path, key, body));
                        seen.len()
                    };
                    Ok::<_, hyper::Error>(answer(number))
                }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            connections.spawn("connection", async move {
                let _ = builder
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    (endpoint, seen)
}

fn batching(batch: usize) -> Batching {
    Batching {
        most: 4,
        batch,
        delay: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
    }
}

fn otlp(endpoint: Endpoint, protocol: Protocol) -> Collector {
    let headers = headers(&[
        ("x-key".to_owned(), "k".to_owned()),
        ("bad name".to_owned(), String::new()),
    ]);
    Collector::Otlp(Otlp::new(
        endpoint,
        protocol,
        headers,
        Duration::from_secs(2),
    ))
}

fn start(collector: Collector, tasks: &Tasks) -> Exporting {
    let resource = vec![("service.name".to_owned(), "app".to_owned())];
    Exporting::start(vec![collector], batching(2), resource, tasks)
}

async fn eventually(condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting)
        .await
        .unwrap();
}

fn counts(exporting: &Exporting) -> (u64, u64) {
    let counts = &exporting.counts()[0];
    (counts.sent, counts.dropped)
}

#[tokio::test]
async fn spans_arrive_over_both_forms_of_otlp() {
    use prost::Message as _;
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let (servers, tasks) = (Tasks::new(), Tasks::new());
        let answer = |_| {
            Response::builder()
                .header("grpc-status", "0")
                .body(Full::default())
                .unwrap()
        };
        let (endpoint, seen) = collector(answer, &servers).await;
        let exporting = start(otlp(endpoint, protocol), &tasks);
        let mut finished = span("first");
        finished.parent = Some([3; 8]);
        finished.attributes = vec![("a".into(), "b".to_owned())];
        finished.error = Some("wrong".to_owned());
        exporting.take(finished);
        eventually(|| counts(&exporting) == (1, 0)).await;
        let (path, key, body) = seen.lock().unwrap()[0].clone();
        assert_eq!(key.as_deref(), Some("k"));
        let body = match protocol {
            Protocol::Grpc => {
                assert!(path.ends_with("TraceService/Export"));
                body.slice(5..)
            }
            Protocol::Http => {
                assert_eq!(path, "/v1/traces");
                body
            }
        };
        let request = otlp::ExportRequest::decode(body).unwrap();
        let spans = &request.resource_spans[0];
        let resource = &spans.resource.as_ref().unwrap().attributes[0];
        assert_eq!(resource.key, "service.name");
        let scope = &spans.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, TRACER);
        let span = &scope.spans[0];
        assert_eq!((span.name.as_str(), span.kind), ("first", 3));
        assert_eq!(
            (&span.trace_id[..], &span.span_id[..]),
            (&[1; 16][..], &[2; 8][..])
        );
        assert_eq!(span.parent_span_id, [3; 8]);
        assert_eq!(
            span.end_time_unix_nano - span.start_time_unix_nano,
            1_000_000
        );
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "wrong"));
        tasks.stop(None).await;
        servers.stop(Some(Duration::ZERO)).await;
    }
}

#[tokio::test]
async fn the_last_spans_are_sent_when_the_sidecar_ends() {
    let (servers, tasks) = (Tasks::new(), Tasks::new());
    let (endpoint, seen) = collector(|_| Response::default(), &servers).await;
    let zipkin = Zipkin::new(endpoint, "/api/v2/spans".parse().unwrap());
    let exporting = start(Collector::Zipkin(zipkin), &tasks);
    for name in ["a", "b", "c"] {
        exporting.take(span(name));
    }
    tasks.stop(None).await;
    assert_eq!(counts(&exporting), (3, 0));
    let names: String = {
        let seen = seen.lock().unwrap();
        let bodies = seen.iter().map(|(_, _, body)| body.clone());
        bodies
            .map(|b| String::from_utf8_lossy(&b).into_owned())
            .collect()
    };
    for name in ["a", "b", "c"] {
        assert!(names.contains(&format!(r#""name":"{name}""#)), "{names}");
    }
    servers.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn what_does_not_fit_or_has_nobody_to_go_to_is_dropped_and_counted() {
    let tasks = Tasks::new();
    let nobody = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 1,
        is_tls: false,
        roots: None,
    };
    let exporting = start(otlp(nobody, Protocol::Http), &tasks);
    // Four fit; the task has not had a turn.
    for _ in 0..6 {
        exporting.take(span("a"));
    }
    assert_eq!(counts(&exporting), (0, 2));
    tasks.stop(None).await;
    assert_eq!(counts(&exporting), (0, 6));
}

#[tokio::test]
async fn a_collector_that_never_answers_holds_up_the_end_for_a_bounded_time() {
    let tasks = Tasks::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: silent.local_addr().unwrap().port(),
        is_tls: false,
        roots: None,
    };
    let exporting = start(otlp(endpoint, Protocol::Grpc), &tasks);
    exporting.take(span("a"));
    let started = Instant::now();
    tasks.stop(None).await;
    assert!(started.elapsed() < FLUSH + Duration::from_secs(1));
}

#[tokio::test]
async fn a_batch_is_sent_again_where_that_may_help() {
    let (servers, tasks) = (Tasks::new(), Tasks::new());
    let answer = |number| {
        let status = if number == 1 { 503 } else { 200 };
        Response::builder()
            .status(status)
            .body(Full::default())
            .unwrap()
    };
    let (endpoint, seen) = collector(answer, &servers).await;
    let exporting = start(otlp(endpoint, Protocol::Http), &tasks);
    exporting.take(span("a"));
    eventually(|| counts(&exporting) == (1, 0)).await;
    assert_eq!(seen.lock().unwrap().len(), 2);
    tasks.stop(None).await;
    servers.stop(Some(Duration::ZERO)).await;
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let (servers, tasks) = (Tasks::new(), Tasks::new());
    let answer = |_| Response::new(Full::from(vec![b'x'; 3 << 20]));
    let (endpoint, _) = collector(answer, &servers).await;
    let exporting = start(otlp(endpoint, Protocol::Http), &tasks);
    exporting.take(span("a"));
    eventually(|| counts(&exporting) == (0, 1)).await;
    tasks.stop(None).await;
    servers.stop(Some(Duration::ZERO)).await;
}
