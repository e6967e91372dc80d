//! Opens the listeners of the APIs.

use std::sync::Arc;

use outrider_host::{Readiness, Tasks, Workers, listen};
use outrider_metrics::Metrics;
use outrider_net::server::phase::Leaving;
use outrider_net::server::{Handler, Protocol, Server};
use outrider_peer::serve::Callee;
use outrider_security::{Acceptor, Clients, Expected, Security};
use tokio::net::TcpListener;

use super::settings::Settings;
use super::{Failure, SCOPE, host};
use crate::edge::{self, Apis};
use crate::flags::Flags;
use crate::profiling::Pages;

/// Which API a listener has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ApiKind {
    Http,
    Grpc,
}

/// Opens the listeners of the APIs.
pub struct Servers<'a> {
    pub flags: &'a Flags,
    pub readiness: Readiness,
    pub workers: Workers,
    pub tasks: Tasks,
    pub leaving: Leaving,
    pub sockets: Vec<std::path::PathBuf>,
}

impl Servers<'_> {
    fn server<H: Handler>(&self, handler: H, protocol: Protocol) -> Server<H> {
        Server {
            handler,
            protocol,
            workers: self.workers.clone(),
            tasks: self.tasks.clone(),
            leaving: self.leaving.clone(),
        }
    }

    async fn open<H: Handler>(
        &mut self,
        handler: H,
        protocol: Protocol,
        api: ApiKind,
        port: u16,
    ) -> Result<(), Failure> {
        let server = self.server(handler, protocol);
        let (name, shown) = match api {
            ApiKind::Http => ("HTTP", "HTTP server"),
            ApiKind::Grpc => ("gRPC", "API gRPC server"),
        };
        if let Some(folder) = &self.flags.api.socket_folder {
            let path = folder.join(format!(
                "dapr-{}-{}.socket",
                self.flags.app_id,
                name.to_lowercase()
            ));
            let listener = host::unix_listener(&path).map_err(|e| {
                format!(
                    "failed to start {shown}: listen unix {}: {e}",
                    path.display()
                )
            })?;
            server.listen_unix(listener);
            self.sockets.push(path);
            tracing::info!(target: SCOPE, "{shown} is running on a Unix Domain Socket");
            return Ok(());
        }
        let mut addresses: Vec<&str> = self.flags.api.addresses.iter().map(|a| a.trim()).collect();
        if addresses.is_empty() {
            addresses.push("");
        }
        let listeners = futures_util::future::join_all(
            addresses
                .iter()
                .map(|address| listen::tcp_with_retries(address, port)),
        )
        .await;
        let mut open = 0;
        for (address, listener) in addresses.iter().zip(listeners) {
            match listener {
                Ok(listener) => {
                    if api == ApiKind::Grpc {
                        tracing::info!(target: "dapr.runtime.grpc.api", "gRPC server listening on TCP address: {address}:{port}");
                    }
                    server.listen(listener);
                    open += 1;
                }
                Err(error) => {
                    tracing::error!(target: SCOPE, "Failed to listen for {name} server on TCP address {address}:{port} with error: {error}");
                }
            }
        }
        if open == 0 {
            return Err(
                format!("failed to start {shown}: could not listen on any endpoint").into(),
            );
        }
        tracing::info!(target: SCOPE, "{shown} is running on port {port}");
        Ok(())
    }

    /// Opens the listeners that clients use.
    pub async fn open_apis(
        &mut self,
        settings: &Settings,
        apis: &Arc<Apis>,
    ) -> Result<(), Failure> {
        let target = self.readiness.target("grpc-api-server");
        let edge = edge::grpc::Edge::new(apis.clone());
        self.open(edge, self.grpc(), ApiKind::Grpc, settings.grpc_port)
            .await?;
        target.ready();
        let protocol = Protocol {
            http1: true,
            http2: self.flags.api.h2c,
            headers: self.flags.api.read_buffer,
        };
        let edge = edge::http::Edge { apis: apis.clone() };
        self.open(edge, protocol, ApiKind::Http, settings.http_port)
            .await?;
        if let Some(limit) = self.flags.api.max_body {
            tracing::info!(target: "dapr.runtime.http", "The request body size parameter is: {limit} bytes");
        }
        if let Some(port) = settings.profile_port {
            self.open_profiles(port).await?;
        }
        if let Some(port) = settings.public_port {
            let address = &self.flags.api.public_address;
            let listener = listen::tcp(address, port)
                .await
                .map_err(|e| format!("listen tcp {address}:{port}: {e}"))?;
            let edge = edge::public::Edge { apis: apis.clone() };
            self.server(edge, protocol).listen(listener);
        }
        Ok(())
    }

    /// Serves profiles, at the addresses of the APIs.
    pub async fn open_profiles(&self, port: u16) -> Result<(), Failure> {
        let protocol = Protocol {
            http1: true,
            http2: false,
            headers: self.flags.api.read_buffer,
        };
        let pages = Pages {
            stopping: self.tasks.stopping(),
        };
        let server = self.server(pages, protocol);
        let given = self.flags.api.addresses.iter().map(|a| a.trim());
        let all = [""]
            .into_iter()
            .filter(|_| self.flags.api.addresses.is_empty());
        for address in given.chain(all) {
            let listener = listen::tcp(address, port).await.map_err(|e| {
                format!("failed to start profiling server: listen tcp {address}:{port}: {e}")
            })?;
            server.listen(listener);
        }
        tracing::info!(target: SCOPE, "profiling server is running on port {port}");
        Ok(())
    }

    /// Serves other sidecars.
    pub fn open_internal(
        &self,
        listener: TcpListener,
        callee: Callee,
        actors: outrider_actors::serve::Callee,
        metrics: &Metrics,
        security: &Security,
    ) -> Result<(), Failure> {
        let target = self.readiness.target("grpc-internal-server");
        let edge = edge::internal::Edge {
            app_id: self.flags.app_id.as_str().into(),
            callee: Arc::new(callee),
            actors,
            metrics: metrics.clone(),
        };
        let acceptor = match self.flags.control_plane.mtls {
            true => security.acceptor(Clients::Required(Expected::Any))?,
            false => Acceptor::plaintext(),
        };
        let address = listener.local_addr()?;
        tracing::info!(target: "dapr.runtime.grpc.internal", "gRPC server listening on pre-bound TCP address: {address}");
        self.server(edge, self.grpc())
            .listen_tls(listener, acceptor);
        let (host, port) = (&self.flags.api.internal_address, address.port());
        tracing::info!(target: SCOPE, "Internal gRPC server is running on {host}:{port}");
        target.ready();
        Ok(())
    }

    fn grpc(&self) -> Protocol {
        Protocol {
            http1: false,
            http2: true,
            headers: self.flags.api.read_buffer << 10,
        }
    }
}
