//! A gRPC server and a tonic client over these connections.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_proto::sentry::v1::ca_client::CaClient;
use outrider_proto::sentry::v1::ca_server::{Ca, CaServer};
use outrider_proto::sentry::v1::{SignCertificateRequest, SignCertificateResponse};
use outrider_security::{Acceptor, Peer, Security};
use tokio::net::TcpListener;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};
use tower_service::Service as _;

use crate::ca::Authority;
use crate::{ID, required, started};

/// Answers with the id of who asks.
struct WhoAmI;

#[async_trait::async_trait]
impl Ca for WhoAmI {
    async fn sign_certificate(
        &self,
        request: Request<SignCertificateRequest>,
    ) -> Result<Response<SignCertificateResponse>, Status> {
        let peer = request.extensions().get::<Peer>();
        let id = peer
            .and_then(|peer| peer.id.as_ref())
            .ok_or_else(|| Status::unauthenticated("no identity"))?;
        Ok(Response::new(SignCertificateResponse {
            workload_certificate: id.to_string().into(),
            ..Default::default()
        }))
    }
}

/// Serves one connection after another.
async fn serve(listener: TcpListener, acceptor: Acceptor) {
    loop {
        let (socket, address) = listener.accept().await.unwrap();
        let Some(connection) = acceptor.admit(socket, address).await else {
            continue;
        };
        let peer = connection.peer().clone();
        let service = hyper::service::service_fn(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            CaServer::new(WhoAmI).call(request)
        });
        let _ = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(connection), service)
            .await;
    }
}

async fn ask(server: &Security, client: &Security, service: &str) -> Result<String, Status> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(serve(listener, server.acceptor(required()).unwrap()));
    let connector = client.connector_to_service(service).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let answer = match endpoint.connect_with_connector(connector).await {
        Ok(channel) => CaClient::new(channel)
            .sign_certificate(SignCertificateRequest::default())
            .await
            .map(|a| String::from_utf8_lossy(&a.into_inner().workload_certificate).into_owned()),
        Err(error) => Err(Status::from_error(Box::new(error))),
    };
    running.abort();
    answer
}

#[tokio::test]
async fn a_service_learns_the_id_of_its_caller() {
    let authority = Arc::new(Authority::new(ID));
    let (security, _upkeep) = started(&authority, &authority.root_pem).await;
    let plain = Security::disabled();
    assert_eq!(ask(&security, &security, "dapr-test").await.unwrap(), ID);
    // Another service than the one that was meant.
    assert!(ask(&security, &security, "dapr-sentry").await.is_err());
    // Without mTLS on both sides there is a connection, but no identity.
    let refused = ask(&plain, &plain, "dapr-test").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(ask(&security, &plain, "dapr-test").await.is_err());
}
