// Helpers of tests are not inside of test functions, which is where the lints look.
#![allow(clippy::disallowed_methods)]

use http::Method;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use tokio::time::Instant;

use super::*;
use crate::body;

type Accepted = (Request<RecvStream>, h2::server::SendResponse<Bytes>);

fn target() -> (Scheme, Authority) {
    (Scheme::HTTP, Authority::from_static("callee:50002"))
}

/// A connection, and the requests that arrive at its other end.
async fn connected() -> (Connection, mpsc::UnboundedReceiver<Accepted>) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (arrived, requests) = mpsc::unbounded_channel();
    tokio::spawn(serve(far, arrived));
    let connection = Connection::open(boxed(near), target(), &Tasks::new()).await;
    (connection.unwrap(), requests)
}

async fn serve(far: DuplexStream, arrived: mpsc::UnboundedSender<Accepted>) {
    let mut server = h2::server::handshake(far).await.unwrap();
    while let Some(Ok(accepted)) = server.accept().await {
        if arrived.send(accepted).is_err() {
            return;
        }
    }
}

fn request(body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static("/service/method");
    request
}

fn coming() -> (mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>, Body) {
    let (sender, frames) = mpsc::unbounded_channel();
    let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(frames);
    (sender, body::stream(StreamBody::new(frames)))
}

async fn all(mut stream: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_whole_body_there_and_back() {
    let (connection, mut requests) = connected().await;
    let answering = async {
        let (request, mut respond) = requests.recv().await.unwrap();
        assert_eq!(request.uri(), "http://callee:50002/service/method");
        assert_eq!(all(request.into_body()).await.unwrap(), b"hello");
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream
            .send_data(Bytes::from_static(b"world"), false)
            .unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        stream.send_trailers(trailers).unwrap();
    };
    let asking = async {
        let answer = connection
            .place()
            .send(request(body::full("hello")))
            .await
            .unwrap();
        let collected = answer.into_body().collect().await.unwrap();
        assert!(collected.trailers().is_some());
        assert_eq!(collected.to_bytes(), "world");
    };
    tokio::join!(answering, asking);
}

#[tokio::test]
async fn a_body_is_passed_on_while_it_comes() {
    let (connection, mut requests) = connected().await;
    let (body, stream) = coming();
    let asking = connection.place().send(request(stream));
    let answering = async {
        let (request, mut respond) = requests.recv().await.unwrap();
        let mut incoming = request.into_body();
        for size in [1, 3 << 20, 7] {
            body.send(Ok(Frame::data(vec![b'x'; size].into()))).unwrap();
            let mut got = 0;
            while got < size {
                let data = incoming.data().await.unwrap().unwrap();
                incoming
                    .flow_control()
                    .release_capacity(data.len())
                    .unwrap();
                got += data.len();
            }
            assert_eq!(got, size);
        }
        drop(body);
        assert!(
            incoming
                .data()
                .await
                .is_none_or(|last| last.unwrap().is_empty())
        );
        respond.send_response(Response::new(()), true).unwrap();
    };
    let (answer, ()) = tokio::join!(asking, answering);
    assert!(answer.unwrap().into_body().is_end_stream());
}

#[tokio::test]
async fn a_body_that_breaks_is_no_whole_one() {
    let (connection, mut requests) = connected().await;
    let (body, stream) = coming();
    let asking = connection.place().send(request(stream));
    let answering = async {
        let (request, respond) = requests.recv().await.unwrap();
        body.send(Ok(Frame::data(Bytes::from_static(b"half"))))
            .unwrap();
        body.send(Err("it broke off".into())).unwrap();
        let error = all(request.into_body()).await.unwrap_err();
        drop(respond);
        error.reason()
    };
    let (answer, reason) = tokio::join!(asking, answering);
    assert_eq!(reason, Some(Reason::INTERNAL_ERROR));
    let status = answer.err().unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Internal, "it broke off")
    );
}

#[tokio::test]
async fn dropping_the_answer_ends_the_exchange() {
    let (connection, mut requests) = connected().await;
    let (_body, stream) = coming();
    let asking = async {
        let answer = connection.place().send(request(stream)).await.unwrap();
        drop(answer);
    };
    let answering = async {
        let (request, mut respond) = requests.recv().await.unwrap();
        let _stream = respond.send_response(Response::new(()), false).unwrap();
        all(request.into_body()).await.unwrap_err().reason()
    };
    let ((), reason) = tokio::join!(asking, answering);
    assert_eq!(reason, Some(Reason::CANCEL));
}

#[tokio::test]
async fn resets_have_their_codes() {
    for (reason, code) in [
        (Reason::CANCEL, Code::Cancelled),
        (Reason::REFUSED_STREAM, Code::Unavailable),
        (Reason::PROTOCOL_ERROR, Code::Internal),
    ] {
        let (connection, mut requests) = connected().await;
        let answering = async {
            let (_request, mut respond) = requests.recv().await.unwrap();
            respond.send_reset(reason);
        };
        let ((), answer) =
            tokio::join!(answering, connection.place().send(request(body::full("x"))));
        assert_eq!(answer.err().map(|status| status.code()), Some(code));
    }
}

#[tokio::test(start_paused = true)]
async fn the_silent_are_given_up() {
    let (near, _far) = tokio::io::duplex(64 << 10);
    let connection = Connection::open(boxed(near), target(), &Tasks::new())
        .await
        .unwrap();
    let start = Instant::now();
    let answer = connection.place().send(request(body::full("x"))).await;
    assert_eq!(
        answer.err().map(|status| status.code()),
        Some(Code::Unavailable)
    );
    assert!(start.elapsed() >= PING_AFTER + PING_TIMEOUT);
    assert!(connection.is_closed());
}
