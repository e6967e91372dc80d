//! `bindings.http` on HTTP servers, with and without TLS.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use outrider_components::bindings::{Answer, Binding, Failure};
use outrider_conformance::bindings::{has_directions, invoke, output};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::bindings::connect;

const TYPE: &str = "bindings.http";

/// A server that answers with what it was asked; dropping it ends it.
struct Server {
    url: String,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("is bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", address.port());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let router = Router::new().fallback(answer);
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (router, tls) = (router.clone(), tls.clone());
                connections.spawn(async move {
                    let service = TowerToHyperService::new(router);
                    let builder = Builder::new(TokioExecutor::new());
                    match tls {
                        None => {
                            let io = TokioIo::new(stream);
                            let _ = builder.serve_connection(io, service).await;
                        }
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                let io = TokioIo::new(stream);
                                let _ = builder.serve_connection(io, service).await;
                            }
                        }
                    }
                });
            }
        });
        Server { url, _tasks: tasks }
    }
}

async fn answer(request: Request) -> Response {
    let (head, body) = request.into_parts();
    let status = |status: u16, text: &str| {
        let mut answer = Response::new(Body::from(text.to_owned()));
        *answer.status_mut() = status.try_into().expect("three digits");
        answer
    };
    match head.uri.path() {
        "/base/teapot" => status(418, "short and stout"),
        "/base/empty" => status(204, ""),
        "/base/large" => status(200, &"x".repeat(5000)),
        "/base/never" => std::future::pending().await,
        "/base/moved" => {
            let mut answer = status(307, "");
            let to = head.uri.query().unwrap_or_default();
            let to = to.parse().expect("a header");
            answer.headers_mut().insert("location", to);
            answer
        }
        _ => {
            let body = axum::body::to_bytes(Body::new(body), 1 << 20).await;
            let headers = [
                "accept",
                "content-type",
                "traceparent",
                "x-token",
                "x-more",
                "host",
            ]
            .into_iter()
            .filter_map(|name| {
                let value = head.headers.get(name)?.to_str().ok()?;
                Some(format!("{name}: {value}\n"))
            });
            let text = format!(
                "{} {}\n{}{}",
                head.method,
                head.uri,
                headers.collect::<String>(),
                String::from_utf8_lossy(&body.expect("a body"))
            );
            text.into_response()
        }
    }
}

fn text(answered: Result<Option<Answer>, Failure>) -> String {
    let answer = answered.expect("an answer").expect("one with data");
    String::from_utf8_lossy(&answer.data).into_owned()
}

async fn with(url: &str, more: &[(&str, &str)]) -> Arc<Binding> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut properties = vec![("url", url)];
    properties.extend(more);
    connect(TYPE, &properties).await.expect("connects")
}

#[tokio::test]
async fn methods_headers_and_paths() {
    let server = Server::start(None).await;
    let url = format!("{}/base", server.url);
    let binding = with(
        &url,
        &[("securityToken", "t"), ("securityTokenHeader", "X-Token")],
    )
    .await;
    let http = output(&binding);
    let authority = server.url.trim_start_matches("http://");
    for operation in http.operations() {
        let method = match operation {
            "create" => "POST".to_owned(),
            other => other.to_uppercase(),
        };
        let has_body = matches!(&*method, "POST" | "PUT" | "PATCH");
        let metadata = [
            ("path", "/a?b=c"),
            ("X-More", "1"),
            ("Host", "evil"),
            ("x-less", "1"),
        ];
        let answered = invoke(http, operation, "\"data\"", &metadata).await;
        let (content_type, body) = match has_body {
            true => (
                "content-type: application/json; charset=utf-8\n",
                "\"data\"",
            ),
            false => ("", ""),
        };
        let wanted = format!(
            "{method} /base/a?b=c\naccept: application/json; charset=utf-8\n{content_type}x-token: t\nx-more: 1\nhost: {authority}\n{body}"
        );
        let wanted = if method == "HEAD" {
            String::new()
        } else {
            wanted
        };
        assert_eq!(text(answered), wanted);
    }
    let metadata = [
        ("Content-Type", "text/plain"),
        ("Accept", "*/*"),
        ("Traceparent", "mine"),
        ("traceparent", "theirs"),
    ];
    let answered = text(invoke(http, "post", "x", &metadata).await);
    let wanted = "accept: */*\ncontent-type: text/plain\ntraceparent: theirs\n";
    assert!(answered.contains(wanted), "{answered}");
    let escaping = invoke(http, "get", "", &[("path", "..%2fadmin")]).await;
    let error = escaping.expect_err("is refused").to_string();
    assert!(error.contains("leads out of the URL"), "{error}");
}

#[tokio::test]
async fn statuses_are_errors_unless_it_is_said() {
    let server = Server::start(None).await;
    let url = format!("{}/base", server.url);
    let binding = with(&url, &[]).await;
    let http = output(&binding);
    let path = ("path", "teapot");
    let failure = invoke(http, "get", "", &[path]).await.expect_err("418");
    assert_eq!(failure.to_string(), "received status code 418");
    let answer = failure.answer.expect("came back");
    assert_eq!(answer.data, "short and stout");
    assert_eq!(answer.metadata["statusCode"], "418");
    assert_eq!(answer.metadata["status"], "418 I'm a teapot");
    assert_eq!(answer.metadata["Content-Length"], "15");
    let taken = invoke(http, "get", "", &[path, ("errorIfNot2XX", "false")]).await;
    assert_eq!(text(taken), "short and stout");
    let empty = invoke(http, "get", "", &[("path", "empty")]).await;
    let empty = empty.expect("204").expect("an answer");
    assert_eq!(
        (&*empty.data, &*empty.metadata["statusCode"]),
        (&b""[..], "204")
    );

    let lenient = with(&url, &[("errorIfNot2XX", "no")]).await;
    let http = output(&lenient);
    assert_eq!(
        text(invoke(http, "get", "", &[path]).await),
        "short and stout"
    );
    let strict = invoke(http, "get", "", &[path, ("errorIfNot2XX", "true")]).await;
    assert!(strict.is_err());
}

#[tokio::test]
async fn limits_of_size_and_time() {
    let server = Server::start(None).await;
    let url = format!("{}/base", server.url);
    for (limit, size) in [("1k", 1000), ("0", 5000), ("-1", 5000), ("1Mi", 5000)] {
        let binding = with(&url, &[("maxResponseBodySize", limit)]).await;
        let answered = invoke(output(&binding), "get", "", &[("path", "large")]).await;
        assert_eq!(text(answered).len(), size, "{limit}");
    }
    let binding = with(&url, &[("responseTimeout", "100ms")]).await;
    let late = invoke(output(&binding), "get", "", &[("path", "never")]).await;
    let error = late.expect_err("never answers").to_string();
    assert_eq!(
        error,
        format!("Get \"{url}/never\": context deadline exceeded")
    );

    let binding = with("http://127.0.0.1:1", &[]).await;
    let refused = invoke(output(&binding), "post", "", &[]).await;
    let error = refused.expect_err("nothing listens").to_string();
    assert_eq!(
        error,
        "Post \"http://127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused"
    );
}

#[tokio::test]
async fn what_is_for_one_server_is_not_sent_to_another() {
    let server = Server::start(None).await;
    let other = Server::start(None).await;
    let url = format!("{}/base", server.url);
    let here = format!("moved?{}/base/here", server.url);
    let there = format!("moved?{}/base/there", other.url);
    let token = [("securityToken", "t"), ("securityTokenHeader", "X-Token")];
    let binding = with(&url, &token).await;
    let moved = invoke(output(&binding), "post", "x", &[("path", &here)]).await;
    assert!(text(moved).starts_with("POST /base/here\n"));
    let moved = invoke(output(&binding), "post", "x", &[("path", &there)]).await;
    let error = moved.expect_err("is not followed").to_string();
    assert_eq!(error, "received status code 307");

    let binding = with(&url, &[]).await;
    let key = ("X-More", "key");
    let http = output(&binding);
    for (operation, data, metadata) in [
        ("post", "x", vec![("path", &*there)]),
        ("get", "", vec![("path", &there), key]),
    ] {
        let moved = invoke(http, operation, data, &metadata).await;
        let failure = moved.expect_err("is not followed");
        assert_eq!(failure.to_string(), "received status code 307");
        let answer = failure.answer.expect("came back");
        let location = format!("{}/base/there", other.url);
        assert_eq!(answer.metadata["Location"], location);
        let metadata = [&metadata[..], &[("path", &*here)]].concat();
        let moved = text(invoke(http, operation, data, &metadata).await);
        assert!(moved.contains(" /base/here\n"), "{moved}");
    }
    let trace = ("traceparent", "00");
    let moved = invoke(http, "get", "", &[("path", &there), trace]).await;
    assert!(text(moved).starts_with("GET /base/there\n"));
}

#[tokio::test]
async fn certificates_of_both_sides() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let authority_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).expect("is signed");
    let issuer = Issuer::new(params, authority_key);
    let issue = |name: &str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("is signed");
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("localhost");
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).expect("a root");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier.expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
        );
    let acceptor = TlsAcceptor::from(Arc::new(config.expect("is valid")));
    let server = Server::start(Some(acceptor)).await;

    let other = Server::start(None).await;
    let moved = format!("base/moved?{}/base/there", other.url);

    let (client, client_key) = issue("client");
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("the path is text").to_owned()
    };
    let root = authority.pem();
    let paths = [
        file("ca", &root),
        file("cert", &client),
        file("key", &client_key),
    ];
    for [root, client, key] in [
        [&root, &client, &client_key],
        [&paths[0], &paths[1], &paths[2]],
    ] {
        let more = [
            ("MTLSRootCA", &**root),
            ("MTLSClientCert", client),
            ("MTLSClientKey", key),
        ];
        let binding = with(&server.url, &more).await;
        let answered = text(invoke(output(&binding), "get", "", &[]).await);
        assert!(answered.starts_with("GET /"), "{answered}");
        let moved = invoke(output(&binding), "get", "", &[("path", &moved)]).await;
        let error = moved.expect_err("is not followed").to_string();
        assert_eq!(error, "received status code 307");
    }
    let without_client = with(&server.url, &[("MTLSRootCA", &root)]).await;
    assert!(
        invoke(output(&without_client), "get", "", &[])
            .await
            .is_err()
    );
    let without_root = with(&server.url, &[]).await;
    let error = invoke(output(&without_root), "get", "", &[]).await;
    let error = error.expect_err("is not trusted").to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    let certificate_twice = [
        ("url", &*server.url),
        ("MTLSClientCert", &*client),
        ("MTLSClientKey", &*client),
    ];
    let wrong = connect(TYPE, &certificate_twice);
    let error = wrong.await.err().expect("is no key").to_string();
    assert!(
        error.starts_with("failed to load client certificate: "),
        "{error}"
    );
}

#[tokio::test]
async fn directions() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    has_directions((false, true), |direction| async move {
        let properties = [("url", "http://localhost"), ("direction", direction)];
        connect(TYPE, &properties).await
    })
    .await;
}
