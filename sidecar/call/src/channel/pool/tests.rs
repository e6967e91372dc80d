use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt as _;
use outrider_net::body;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;

/// An application that counts its connections.
struct App {
    port: u16,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl App {
    /// Answers each request with `answer`, `times` on one connection.
    async fn start(answer: &'static [u8], times: usize) -> Self {
        Self::serving(move |stream| serve(stream, answer, times)).await
    }

    /// Has each connection served by `serve`.
    async fn serving<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Arc::<AtomicUsize>::default();
        let counted = connections.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut served = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                served.spawn(serve(stream));
            }
        });
        Self {
            port,
            connections,
            _tasks: tasks,
        }
    }

    fn pool(&self) -> Pool {
        let connector = Connector::new("127.0.0.1", self.port, false, &[]).unwrap();
        Pool::new(connector, false, 4096, 1).unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, answer: &'static [u8], times: usize) {
    for _ in 0..times {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

async fn get(pool: &Pool) -> Result<Bytes, Error> {
    let mut request = Request::new(body::empty());
    *request.uri_mut() = Uri::from_static("/path?query");
    let answer = pool.send(request).await?;
    let body = answer.into_body().collect().await.map_err(Error::Send)?;
    Ok(body.to_bytes())
}

const HELLO: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_connection_is_used_again() {
    for answer in [
        HELLO,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let app = App::start(answer, usize::MAX).await;
        let pool = app.pool();
        for _ in 0..20 {
            get(&pool).await.unwrap();
            // The connection itself may be a step behind.
            while pool.slot(0).idle.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        assert_eq!(app.connections(), 1);
    }
}

#[tokio::test]
async fn a_connection_that_the_application_closed_is_replaced() {
    for times in [1, 2, 3] {
        let app = App::start(HELLO, times).await;
        let pool = app.pool();
        for _ in 0..30 {
            assert_eq!(get(&pool).await.unwrap(), "hello");
        }
        assert!(app.connections() >= 30 / times);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_reads_spoils_no_other() {
    let app = App::start(HELLO, usize::MAX).await;
    let pool = app.pool();
    for _ in 0..20 {
        drop(pool.send(Request::new(body::empty())).await.unwrap());
        assert_eq!(get(&pool).await.unwrap(), "hello");
    }
}

/// The application learns that nobody waits for the rest.
#[tokio::test]
async fn an_answer_that_is_left_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connector = Connector::new("127.0.0.1", port, false, &[]).unwrap();
    let pool = Pool::new(connector, false, 4096, 1).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nhello";
        stream.write_all(head).await.unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).await.unwrap();
    });
    drop(pool.send(Request::new(body::empty())).await.unwrap());
    let closed = tokio::time::timeout(Duration::from_secs(5), tasks.join_next());
    closed.await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own() {
    let app = App::start(HELLO, usize::MAX).await;
    let pool = app.pool();
    let all = (0..IDLE + 10).map(|_| get(&pool));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.unwrap(), "hello");
    }
    assert_eq!(app.connections(), IDLE + 10);
    assert!(pool.slot(0).idle.len() <= IDLE);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_some_time() {
    let app = App::start(HELLO, usize::MAX).await;
    let pool = app.pool();
    get(&pool).await.unwrap();
    while pool.slot(0).idle.is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(IDLE_TIME * 2).await;
    assert!(pool.slot(0).idle.is_empty());
}

#[tokio::test]
async fn requests_of_http2_share_a_connection() {
    let app = App::serving(async move |stream| {
        let service = hyper::service::service_fn(async |_| {
            Ok::<_, std::convert::Infallible>(Response::new(body::full("hello")))
        });
        let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service);
        // The client ends it.
        let _ = served.await;
    })
    .await;
    let connector = Connector::new("127.0.0.1", app.port, false, &[]).unwrap();
    let pool = Pool::new(connector, true, 4096, 1).unwrap();
    let all = (0..20).map(|_| get(&pool));
    for answer in futures_util::future::join_all(all).await {
        assert_eq!(answer.unwrap(), "hello");
    }
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn where_nobody_listens_it_cannot_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let connector = Connector::new("127.0.0.1", port, false, &[]).unwrap();
    let pool = Pool::new(connector, false, 4096, 1).unwrap();
    let error = get(&pool).await.unwrap_err();
    assert!(matches!(error, Error::Connect(_)), "{error:?}");
}
